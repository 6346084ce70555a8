"""An optimiser that hosts transforms of gradients, the transforms, and the subspaces that some of them work in."""

from polyad.optim.host import Optimizer
from polyad.optim.projected import Projected
from polyad.optim.state import state_bytes
from polyad.optim.stored import StoredMoments
from polyad.optim.subspace import Subspace
from polyad.optim.subspaces.correlation_aware import CorrelationAware
from polyad.optim.subspaces.cosine_columns import CosineColumns
from polyad.optim.subspaces.online_pca import OnlinePCA
from polyad.optim.subspaces.power_iteration import PowerIteration
from polyad.optim.subspaces.seeded_normal import SeededNormal
from polyad.optim.subspaces.singular_vectors import SingularVectors
from polyad.optim.transform import Transform
from polyad.optim.transforms.adam import Adam
from polyad.optim.transforms.adam_8bit import adam_8bit
from polyad.optim.transforms.coap import coap
from polyad.optim.transforms.dct_adaptive import dct_adaptive
from polyad.optim.transforms.flora import flora
from polyad.optim.transforms.galore import galore
from polyad.optim.transforms.lamb import LAMB
from polyad.optim.transforms.muon import Muon
from polyad.optim.transforms.online_subspace_descent import online_subspace_descent
from polyad.optim.transforms.projected_adam import ProjectedAdam
from polyad.optim.transforms.smmf import SMMF

__all__ = [
    "LAMB",
    "SMMF",
    "Adam",
    "CorrelationAware",
    "CosineColumns",
    "Muon",
    "OnlinePCA",
    "Optimizer",
    "PowerIteration",
    "Projected",
    "ProjectedAdam",
    "SeededNormal",
    "SingularVectors",
    "StoredMoments",
    "Subspace",
    "Transform",
    "adam_8bit",
    "coap",
    "dct_adaptive",
    "flora",
    "galore",
    "online_subspace_descent",
    "state_bytes",
]
