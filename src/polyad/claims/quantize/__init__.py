"""Claims of papers on quantisation."""
