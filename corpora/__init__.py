"""Text before it is a token file, and what writes that."""
