"""Claims of papers on compression of weights."""
