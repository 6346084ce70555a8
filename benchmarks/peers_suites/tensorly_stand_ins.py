"""TensorLy's functions by polyad's."""

from __future__ import annotations

from typing import Any

import tensorly as tl
import tensorly.cp_tensor
import tensorly.decomposition
import tensorly.tt_tensor
import tensorly.tucker_tensor
import torch
from benchmarks.peers_suites.stand_ins import NotOffered, stand_in
from tensorly.cp_tensor import CPTensor
from tensorly.tt_tensor import TTTensor
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor

from polyad import decompose, formats
from polyad.interop.tensorly import from_tensorly, to_tensorly

D = tl.decomposition


def generator(random_state: Any) -> torch.Generator:
    """A generator for a seed, or for a state of NumPy's."""
    seed = random_state if isinstance(random_state, int) else 0
    return torch.Generator().manual_seed(seed)


def fit(tensor: Tensor, format: Any) -> Tensor:
    """The relative error, which TensorLy returns on request."""
    return (tensor - format.to_dense()).norm() / tensor.norm()


def normalised(format: formats.CP) -> formats.CP:
    """Columns of length one, their lengths in the weights."""
    norms = [factor.norm(dim=0) for factor in format.factors]
    weights = torch.ones_like(norms[0]) if format.weights is None else format.weights
    for norm in norms:
        weights = weights * norm
    return formats.CP(tuple(f / n.clamp_min(1e-30) for f, n in zip(format.factors, norms, strict=True)), weights)


SETTLED = {
    "verbose": "prints",
    "svd": "polyad has one",
    "random_state": "",
    "tol": "",
    "init": "polyad starts itself",
    "n_iter_max": "",
    "cvg_criterion": "",
    "linesearch": "polyad's own acceleration",
    "orthogonalise": "a help in converging",
    "svd_mask_repeats": "",
    "exact": "",
}
"""Arguments that say how TensorLy computes, or that a function takes itself."""


@stand_in(D.parafac, **SETTLED)
def parafac(tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, callback):
    if not isinstance(init, str):
        raise NotOffered("a start of its own")
    given = {} if mask is None else {"mask": mask.bool()}
    format = decompose.cp_als(tensor, rank, max_iter=max(n_iter_max, 1), stop=float(tol or 0),
                              generator=generator(random_state), **given)  # fmt: skip
    format = normalised(format) if normalize_factors else format
    if callback is not None:
        callback(to_tensorly(format), fit(tensor, format))
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


def _nonnegative(tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, update):
    if not isinstance(init, str):
        raise NotOffered("a start of its own")
    given = {} if mask is None else {"mask": mask.bool()}
    format = decompose.nonnegative_cp(
        tensor, rank, max_iter=max(n_iter_max, 1), stop=float(tol or 0), generator=generator(random_state),
        update=update, **given,
    )  # fmt: skip
    format = normalised(format) if normalize_factors else format
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


@stand_in(D.non_negative_parafac, **SETTLED)
def non_negative_parafac(tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init):
    return _nonnegative(
        tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, "mu"
    )


@stand_in(D.non_negative_parafac_hals, **SETTLED)
def non_negative_parafac_hals(tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, init):
    return _nonnegative(
        tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, None, init, "hals"
    )


@stand_in(D.tucker, **SETTLED)
def tucker(tensor, rank, n_iter_max, tol, random_state, return_errors, mask, init):
    if not isinstance(init, str):
        raise NotOffered("a start of its own")
    ranks = [rank] * tensor.ndim if isinstance(rank, int) else list(rank or tensor.shape)
    ranks = tuple(min(int(r), n) for r, n in zip(ranks, tensor.shape, strict=True))
    given = {} if mask is None else {"mask": mask.bool()}
    format = decompose.hooi(tensor, ranks, max_iter=max(n_iter_max, 1), stop=float(tol or 0),
                            generator=generator(random_state), **given)  # fmt: skip
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


@stand_in(D.tensor_train, **SETTLED)
def tensor_train(input_tensor, rank):
    ranks = rank if isinstance(rank, int) else tuple(int(r) for r in rank)[1:-1]
    bonds = [ranks] * (input_tensor.ndim - 1) if isinstance(ranks, int) else list(ranks)
    return to_tensorly(decompose.tt_svd(input_tensor, _within(bonds, input_tensor.shape)))


def _within(bonds: list[int], shape: Any) -> tuple[int, ...]:
    """Ranks that a train of this shape can have, as TensorLy cuts them down by itself."""
    cut, left = [], 1
    for i, bond in enumerate(bonds):
        left = min(bond, left * shape[i], int(torch.tensor(shape[i + 1 :]).prod()))
        cut.append(left)
    return tuple(cut)


def _of(parts: Any, kind: Any) -> Any:
    return from_tensorly(parts if isinstance(parts, kind) else kind(parts))


@stand_in(tl.cp_tensor.cp_to_tensor)
def cp_to_tensor(cp_tensor, mask):
    dense = _of(cp_tensor, CPTensor).to_dense()
    return dense if mask is None else dense * mask


@stand_in(tl.cp_tensor.cp_norm)
def cp_norm(cp_tensor):
    return _of(cp_tensor, CPTensor).norm()


@stand_in(tl.cp_tensor.cp_normalize)
def cp_normalize(cp_tensor):
    return to_tensorly(normalised(_of(cp_tensor, CPTensor)))


@stand_in(tl.tucker_tensor.tucker_to_tensor)
def tucker_to_tensor(tucker_tensor):
    return _of(tucker_tensor, TuckerTensor).to_dense()


@stand_in(tl.tt_tensor.tt_to_tensor)
def tt_to_tensor(factors):
    return _of(factors, TTTensor).to_dense()


def nothing(*_args: Any, **_named: Any) -> None:
    """In the place of checks of TensorLy's own classes."""


TABLE: dict[str, Any] = {
    "assert_class_wrapper_correctly_passes_arguments": nothing
} | {
    function.__name__: function
    for function in (
        parafac, non_negative_parafac, non_negative_parafac_hals, tucker, tensor_train, cp_to_tensor, cp_norm,
        cp_normalize, tucker_to_tensor, tt_to_tensor,
    )
}  # fmt: skip

SUITE = (
    "decomposition/tests/test_cp.py", "decomposition/tests/test_tucker.py",
    "decomposition/tests/test_tt_decomposition.py", "tests/test_cp_tensor.py", "tests/test_tucker_tensor.py",
    "tests/test_tt_tensor.py",
)  # fmt: skip
"""Files of TensorLy's tests in which these functions are called."""

OTHERWISE: dict[str, str] = {"test_masked_parafac": "what no iteration at all gives, by TensorLy's start"}
"""Tests that hold TensorLy to what is its own, with the reason; they count as refused."""
