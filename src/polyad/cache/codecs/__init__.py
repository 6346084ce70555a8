"""Codecs and evictions, one method a file."""
