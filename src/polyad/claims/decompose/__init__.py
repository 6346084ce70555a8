"""Claims of papers on decompositions."""
