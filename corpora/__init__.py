"""Text before it is a token file: the built-in generator, readers of other formats, tokenizers, the writer
of token files, a check for overlap with tests, mixtures of real text."""
