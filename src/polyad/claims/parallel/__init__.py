"""Claims of papers on several devices."""
