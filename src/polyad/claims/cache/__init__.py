"""Claims of papers on caches of keys and values."""
