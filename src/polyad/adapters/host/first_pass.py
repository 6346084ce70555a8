"""The first forward pass of an adapted model that could not be run before: are its adapted layers called?"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.adapted_layers import AdaptedLayers
from polyad.adapters.host.ambiguous_sites import uncalled_sentence
from polyad.models.uncalled_layers import WeightReads


class FirstPass:
    """Watches a model's next forward pass, and refuses it where the model reads an adapted layer without calling it.

    Once a pass has told that all are called, or that none of them was read, it takes itself out.
    """

    def __init__(self, layers: AdaptedLayers) -> None:
        self.layers = layers
        self.reads: WeightReads | None = None
        self.thread = 0
        self.handles = [
            layers.model.register_forward_pre_hook(self._begin),
            # the last to begin is the first to end: a second host of the same model begins within the first one's
            layers.model.register_forward_hook(self._end, always_call=True, prepend=True),
        ]

    def _begin(self, _model: nn.Module, _args: Any) -> None:
        if torch.compiler.is_compiling() or self.reads is not None:
            return
        adapted = {path: layer for path, layer in self.layers.by_path.items() if isinstance(layer, Adapted)}
        self.reads, self.thread = WeightReads(adapted), threading.get_ident()
        self.reads.__enter__()

    def _end(self, model: nn.Module, _args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or self.reads is None or self.thread != threading.get_ident():
            return
        reads, self.reads = self.reads, None
        reads.__exit__(None, None, None)
        for path, reason in reads.reasons(model).items():
            raise ValueError(uncalled_sentence(path, self.layers.by_path[path].layer, reason))
        if output is not None:  # None where the pass failed
            for handle in self.handles:
                handle.remove()
