"""The host of compressed caches: layers, windows of exact tokens, rotation and attention over what is stored."""
