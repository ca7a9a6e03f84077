"""Token sequences: from text files or from the model itself, with the three splits kept apart."""
