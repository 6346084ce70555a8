"""Claims of papers on adapters."""
