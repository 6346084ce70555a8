"""One optimiser that hosts transforms of gradients, and the transforms."""

from polyad.optim.host import Optimizer, Transform
from polyad.optim.transforms.projected_adam import ProjectedAdam

__all__ = ["Optimizer", "ProjectedAdam", "Transform"]
