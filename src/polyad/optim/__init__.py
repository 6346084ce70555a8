"""One optimiser that hosts transforms of gradients, and the transforms."""

from polyad.optim.host import Optimizer, Transform
from polyad.optim.projected_adam import ProjectedAdam
from polyad.optim.subspace import Subspace

__all__ = ["Optimizer", "ProjectedAdam", "Subspace", "Transform"]
