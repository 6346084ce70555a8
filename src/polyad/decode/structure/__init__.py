"""Reading of a decoder's structure: one run on a few tokens, and each module's part in it held to its numbers."""
