"""Claims of papers on attention."""
