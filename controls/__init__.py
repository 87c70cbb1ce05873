"""Other scores to compare SLM with: combined, of documents, random, of another program."""
