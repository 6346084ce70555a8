"""The adapters, one method a file."""
