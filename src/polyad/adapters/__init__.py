"""Small trainable updates of frozen weights."""

from polyad.adapters.adapted import Adapted, Adapter, Below
from polyad.adapters.host import Adapters
from polyad.adapters.lokr import LoKr

__all__ = ["Adapted", "Adapter", "Adapters", "Below", "LoKr"]
