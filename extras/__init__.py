"""What the method does without, one file each: variants of the selection, weights in and out, pictures of a
selection, losses of single tokens over training."""
