"""Models in the files of other engines, beside those engines' own files."""
