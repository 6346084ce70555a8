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
from tensorly.parafac2_tensor import Parafac2Tensor
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
    "algorithm": "another way to the same core",
    "n_iter_parafac": "polyad chooses",
}
"""Arguments that say how TensorLy computes, or that a function takes itself."""


def _cp_start(init: Any, rank: Any, stop: float) -> dict[str, Any]:
    """The arguments of polyad's for a start that the caller brings, or for polyad's own."""
    return {"rank": rank, "stop": stop} if isinstance(init, str) else {"init": _of(init, CPTensor), "stop": stop}


@stand_in(D.parafac, **SETTLED)
def parafac(
    tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, callback, fixed_modes
):
    given = {} if mask is None else {"mask": mask.bool()}
    format = decompose.cp_als(
        tensor, max_iter=max(n_iter_max, 1), generator=generator(random_state), fixed=tuple(fixed_modes or ()),
        **given, **_cp_start(init, rank, float(tol or 0)),
    )  # fmt: skip
    format = format.normalize() if normalize_factors else format
    if callback is not None:
        callback(to_tensorly(format), fit(tensor, format))
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


def _nonnegative(
    tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, fixed_modes, update
):
    given = {} if mask is None else {"mask": mask.bool()}
    format = decompose.nonnegative_cp(
        tensor, max_iter=max(n_iter_max, 1), generator=generator(random_state), update=update,
        fixed=tuple(fixed_modes or ()), **given, **_cp_start(init, rank, float(tol or 0)),
    )  # fmt: skip
    format = format.normalize() if normalize_factors else format
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


@stand_in(D.non_negative_parafac, **SETTLED)
def non_negative_parafac(
    tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, fixed_modes
):
    return _nonnegative(
        tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, mask, init, fixed_modes, "mu"
    )


@stand_in(D.non_negative_parafac_hals, **SETTLED)
def non_negative_parafac_hals(
    tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, init, fixed_modes
):
    return _nonnegative(
        tensor, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, None, init, fixed_modes, "hals"
    )


def _start(init: Any, tensor: Tensor) -> formats.Tucker | None:
    """A start that the caller brings: core and factors, or factors alone, whose core is then the projection."""
    if init is None or isinstance(init, str):
        return None
    if len(init) == tensor.ndim:
        core = tensor
        for factor in init:
            core = torch.tensordot(core, factor, ([0], [0]))
        init = (core, init)
    return formats.Tucker(init[0], tuple(init[1]))


def _tucker(tensor, rank, n_iter_max, tol, random_state, mask, start, fixed):
    ranks = [rank] * tensor.ndim if isinstance(rank, int) else list(rank or tensor.shape)
    ranks = tuple(min(int(r), n) for r, n in zip(ranks, tensor.shape, strict=True))
    given = {} if mask is None else {"mask": mask.bool()}
    return decompose.hooi(
        tensor, ranks, init=start, fixed=tuple(fixed or ()), max_iter=max(n_iter_max, 1), stop=float(tol or 0),
        generator=generator(random_state), **given,
    )  # fmt: skip


@stand_in(D.tucker, **SETTLED)
def tucker(tensor, rank, n_iter_max, tol, random_state, return_errors, mask, init, fixed_factors):
    format = _tucker(tensor, rank, n_iter_max, tol, random_state, mask, _start(init, tensor), fixed_factors)
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


@stand_in(D.partial_tucker, **SETTLED)
def partial_tucker(tensor, rank, modes, n_iter_max, tol, random_state, init, mask):
    """The other modes have the identity for a factor, which stays."""
    if not isinstance(init, str):
        raise NotOffered("a start of its own")
    modes = list(range(tensor.ndim)) if modes is None else list(modes)
    each = [rank] * len(modes) if isinstance(rank, int) else list(rank or [tensor.shape[mode] for mode in modes])
    ranks = [each[modes.index(mode)] if mode in modes else n for mode, n in enumerate(tensor.shape)]
    start = decompose.st_hosvd(tensor, tuple(ranks))
    factors = [f if mode in modes else torch.eye(len(f)).to(f) for mode, f in enumerate(start.factors)]
    fixed = [mode for mode in range(tensor.ndim) if mode not in modes]
    own = formats.Tucker(start.core, tuple(factors))
    format = _tucker(tensor, ranks, n_iter_max, tol, random_state, mask, own, fixed)
    return (format.core, [format.factors[mode] for mode in modes]), [fit(tensor, format)]


def _nonnegative_tucker(tensor, rank, n_iter_max, tol, random_state, return_errors, init, update, fixed=()):
    ranks = tuple(rank) if isinstance(rank, list | tuple) else rank
    format = decompose.nonnegative_tucker(
        tensor, ranks, update=update, init=_start(init, tensor), fixed=tuple(fixed or ()),
        max_iter=max(n_iter_max, 1), stop=float(tol or 0), generator=generator(random_state),
    )  # fmt: skip
    return (to_tensorly(format), [fit(tensor, format)]) if return_errors else to_tensorly(format)


@stand_in(D.non_negative_tucker, **SETTLED)
def non_negative_tucker(tensor, rank, n_iter_max, tol, random_state, return_errors, init):
    return _nonnegative_tucker(tensor, rank, n_iter_max, tol, random_state, return_errors, init, "mu")


@stand_in(D.non_negative_tucker_hals, **SETTLED)
def non_negative_tucker_hals(tensor, rank, n_iter_max, tol, random_state, return_errors, init, fixed_modes):
    return _nonnegative_tucker(tensor, rank, n_iter_max, tol, random_state, return_errors, init, "hals", fixed_modes)


@stand_in(D.parafac2, **SETTLED)
def parafac2(tensor_slices, rank, n_iter_max, tol, random_state, normalize_factors, return_errors, init):
    if not isinstance(init, str):
        raise NotOffered("a start of its own")
    slices = tensor_slices if isinstance(tensor_slices, Tensor) else list(tensor_slices)
    errors: list[float] = []
    format = decompose.parafac2(
        slices, rank, starts=1 if init == "svd" else 4, max_iter=max(n_iter_max, 1), stop=float(tol or 0),
        generator=generator(random_state), callback=lambda _i, _t, values: errors.append(values["error"]),
    )  # fmt: skip
    a, b, c = format.factors
    weights = format.weights
    if not normalize_factors:
        a, weights = a * weights, torch.ones_like(weights)
    whole = Parafac2Tensor((weights, [a, b, c], list(format.projections)))
    return (whole, errors) if return_errors else whole


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
    return to_tensorly(_of(cp_tensor, CPTensor).normalize())


@stand_in(tl.cp_tensor.cp_permute_factors)
def cp_permute_factors(ref_cp_tensor, tensors_to_permute):
    reference = _of(ref_cp_tensor, CPTensor)
    several = isinstance(tensors_to_permute, list)
    aligned, orders = [], []
    for tensor in tensors_to_permute if several else [tensors_to_permute]:
        own = _of(tensor, CPTensor)
        permuted, _ = own.align(reference)
        aligned.append(to_tensorly(permuted))
        orders.append(permuted.congruence(own).argmax(1))
    return (aligned if several else aligned[0]), orders


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
        parafac, non_negative_parafac, non_negative_parafac_hals, tucker, partial_tucker, non_negative_tucker,
        non_negative_tucker_hals, parafac2, tensor_train, cp_to_tensor, cp_norm, cp_normalize, cp_permute_factors,
        tucker_to_tensor, tt_to_tensor,
    )
}  # fmt: skip

SUITE = (
    "decomposition/tests/test_cp.py", "decomposition/tests/test_tucker.py",
    "decomposition/tests/test_tt_decomposition.py", "tests/test_cp_tensor.py", "tests/test_tucker_tensor.py",
    "tests/test_tt_tensor.py", "decomposition/tests/test_parafac2.py",
)  # fmt: skip
"""Files of TensorLy's tests in which these functions are called."""

OTHERWISE: dict[str, str] = {
    "test_masked_parafac": "what no iteration at all gives, by TensorLy's start",
    "test_parafac2[": "the rule by which TensorLy's iterations end",
    "test_parafac2_linesearch": "an acceleration that is never off",
}
"""Tests that hold TensorLy to what is its own, with the reason; they count as refused."""
