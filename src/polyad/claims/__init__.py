"""One script a paper: what it asserts, what is measured here, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from polyad.claims import _result, afm_ctr, eora, ftfi, lord, modegpt, welore
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "afm-ctr": afm_ctr, "eora": eora, "ftfi": ftfi, "lord": lord, "modegpt": modegpt, "welore": welore,
from polyad.claims import _result, afm_ctr, cheb_tucker, eora, lord, lowrank_tales, modegpt, welore
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "afm-ctr": afm_ctr, "cheb-tucker": cheb_tucker, "eora": eora, "lord": lord, "lowrank-tales": lowrank_tales,
    "modegpt": modegpt, "welore": welore,
from polyad.claims import _result, afm_ctr, eora, lord, modegpt, trg_ising, ttn_bug, welore
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "afm-ctr": afm_ctr, "eora": eora, "lord": lord, "modegpt": modegpt, "trg-ising": trg_ising, "ttn-bug": ttn_bug,
from polyad.claims import _result, afm_ctr, eora, lord, modegpt, spm, welore
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "afm-ctr": afm_ctr, "eora": eora, "lord": lord, "modegpt": modegpt, "spm": spm,
    "welore": welore,
from polyad.claims import (
    _result,
    afm_ctr,
    coord_sampling,
    dyn_kron_projection,
    eora,
    fast_update_tsvd,
    figmn,
    igmn_scalable,
    linf_regression,
    lord,
    meta_factorization,
    modegpt,
    ortho_diag,
    random_support_slr,
    sparse_kernel_mv,
    stream_top_eig,
    welore,
)
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "afm-ctr": afm_ctr, "eora": eora, "lord": lord, "modegpt": modegpt, "welore": welore,
    "meta-factorization": meta_factorization, "linf-regression": linf_regression, "coord-sampling": coord_sampling,
    "fast-update-tsvd": fast_update_tsvd, "ortho-diag": ortho_diag, "stream-top-eig": stream_top_eig,
    "figmn": figmn, "igmn-scalable": igmn_scalable, "sparse-kernel-mv": sparse_kernel_mv,
    "dyn-kron-projection": dyn_kron_projection, "random-support-slr": random_support_slr,
}  # fmt: skip


def handles() -> list[str]:
    """The papers that have a claim."""
    return sorted(CLAIMS)


def run(handle: str, *, callback: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Run one claim, keep its result and return it."""
    if handle not in CLAIMS:
        raise ValueError(f"there is no claim {handle!r}; there are {', '.join(handles())}")
    return _result.run(handle, CLAIMS[handle], callback=callback)


def results() -> list[dict[str, Any]]:
    """The kept results of all claims, sorted by handle."""
    found = (_result.read(handle, CLAIMS[handle]) for handle in handles())
    return [record for record in found if record is not None]


__all__ = ["Result", "handles", "results", "run"]
