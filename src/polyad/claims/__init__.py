"""One script a paper: what it asserts, what is measured here, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from polyad.claims import (
    _result,
    aflora,
    afm_ctr,
    block_lora,
    cheb_tucker,
    coord_sampling,
    core_shapes,
    dyn_kron_projection,
    edora,
    eora,
    fast_update_tsvd,
    figmn,
    flora_tucker,
    ftfi,
    greedy_tn,
    igmn_scalable,
    linf_regression,
    loldu,
    lord,
    lotr,
    lowrank_tales,
    meta_factorization,
    modegpt,
    ortho_diag,
    random_support_slr,
    riemannlora,
    sparse_kernel_mv,
    spm,
    stream_top_eig,
    svfit,
    tnale,
    trg_ising,
    ttn_bug,
    welore,
)  # fmt: skip
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    "aflora": aflora, "afm-ctr": afm_ctr, "block-lora": block_lora, "cheb-tucker": cheb_tucker,
    "coord-sampling": coord_sampling, "core-shapes": core_shapes, "dyn-kron-projection": dyn_kron_projection,
    "edora": edora, "eora": eora, "fast-update-tsvd": fast_update_tsvd, "figmn": figmn,
    "flora-tucker": flora_tucker, "ftfi": ftfi, "greedy-tn": greedy_tn, "igmn-scalable": igmn_scalable,
    "linf-regression": linf_regression, "loldu": loldu, "lord": lord, "lotr": lotr,
    "lowrank-tales": lowrank_tales, "meta-factorization": meta_factorization, "modegpt": modegpt,
    "ortho-diag": ortho_diag, "random-support-slr": random_support_slr, "riemannlora": riemannlora,
    "sparse-kernel-mv": sparse_kernel_mv, "spm": spm, "stream-top-eig": stream_top_eig, "svfit": svfit,
    "tnale": tnale, "trg-ising": trg_ising, "ttn-bug": ttn_bug, "welore": welore,
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
