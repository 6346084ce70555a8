"""Optional packages, imported here and nowhere else, a file each."""
