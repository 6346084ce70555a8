"""Claims of papers on optimisers."""
