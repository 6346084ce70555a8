"""One script a paper: what it asserts, what is measured here, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from polyad.claims import (
    _result,
    afm_ctr,
    c3a,
    cheb_tucker,
    coord_sampling,
    core_shapes,
    diffusekrona,
    dyn_kron_projection,
    eigenlorax,
    eora,
    fast_update_tsvd,
    figmn,
    ftfi,
    greedy_tn,
    igmn_scalable,
    linf_regression,
    lora_ensembles,
    lord,
    lowrank_tales,
    meta_factorization,
    modegpt,
    ortho_diag,
    random_support_slr,
    rmm,
    soka,
    sparse_kernel_mv,
    spm,
    stream_top_eig,
    surm,
    tensorpoly,
    tera,
    tlora_transform,
    tnale,
    trg_ising,
    ttn_bug,
    welore,
)  # fmt: skip
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "afm-ctr": afm_ctr, "c3a": c3a, "cheb-tucker": cheb_tucker, "coord-sampling": coord_sampling,
    "core-shapes": core_shapes, "diffusekrona": diffusekrona, "dyn-kron-projection": dyn_kron_projection,
    "eigenlorax": eigenlorax, "eora": eora, "fast-update-tsvd": fast_update_tsvd, "figmn": figmn, "ftfi": ftfi,
    "greedy-tn": greedy_tn, "igmn-scalable": igmn_scalable, "linf-regression": linf_regression,
    "lora-ensembles": lora_ensembles, "lord": lord, "lowrank-tales": lowrank_tales,
    "meta-factorization": meta_factorization, "modegpt": modegpt, "ortho-diag": ortho_diag,
    "random-support-slr": random_support_slr, "rmm": rmm, "soka": soka, "sparse-kernel-mv": sparse_kernel_mv,
    "spm": spm, "stream-top-eig": stream_top_eig, "surm": surm, "tensorpoly": tensorpoly, "tera": tera,
    "tlora-transform": tlora_transform, "tnale": tnale, "trg-ising": trg_ising, "ttn-bug": ttn_bug,
    "welore": welore,
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
