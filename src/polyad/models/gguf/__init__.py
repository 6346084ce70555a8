"""Models in GGUF files: every tensor and key that matters is used, or the file is refused by its name."""

from polyad.models.gguf.read import from_gguf

__all__ = ["from_gguf"]
