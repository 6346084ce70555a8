"""The settings of a fine-tuning, shared by every method of a comparison."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from polyad.adapters.host.sites import adaptable_sites
from polyad.models.surgery import Which


@dataclass(frozen=True)
class Finetuning:
    """The texts, steps and layers of a fine-tuning; every method sees the same tokens in the same order."""

    texts: tuple[str, ...]
    steps: int = 150
    batch: int = 2
    length: int = 128
    rate: float | Literal["auto"] | None = None
    """The learning rate; by default the method's own, and with "auto" one that a short run over many finds."""
    seed: int = 0
    windows: int = 8
    """Windows of 1,024 tokens of each text's evaluation part on which the loss is measured."""
    select: tuple[str, ...] | None = None
    """Patterns of the layers; by default every linear layer but the output head."""

    trained: tuple[str, ...] = ()
    """Patterns of modules and parameters of the model that are trained whole, and saved with the adapter."""

    def stated(self) -> dict[str, Any]:
        """The settings as a run keeps them; without ``trained`` where there is none, as runs of 0.1.0 do."""
        return {name: value for name, value in asdict(self).items() if name != "trained" or value}

    def which(self, model: Any) -> Which:
        """The layers that are adapted."""
        if self.select is not None:
            return self.select
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        sites = adaptable_sites(model).values()
        paths = {site.path for site in sites if site.kind == "linear" and site.layer is not head}
        return lambda path, _module: path in paths
