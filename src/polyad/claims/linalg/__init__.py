"""Claims of papers on numerical linear algebra."""
