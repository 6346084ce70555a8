"""An optimiser that hosts transforms of gradients, and the transforms."""

from polyad.optim.host import Optimizer
from polyad.optim.subspace import Subspace
from polyad.optim.transform import Transform
from polyad.optim.transforms.projected_adam import ProjectedAdam

__all__ = ["Optimizer", "ProjectedAdam", "Subspace", "Transform"]
