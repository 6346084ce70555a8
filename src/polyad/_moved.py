"""Names of polyad 0.1.0 whose place has changed: each still works, and says where it is now."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any

from polyad._after_import import after_import

ROOMS: Mapping[str, Mapping[str, str]] = {
    "polyad.adapters": {
        "frozen": (
            "frozen beside:low_rank_product alongside:structured_product folding:folded_product "
            "counting:fold_threshold gradients:format_gradients kinds:layer_kinds"
        ),
        "host": (
            "host:adapters adapted experts standing:stand_in sites doubtful:ambiguous_sites making:build "
            "planning:plan starting:start merging:merge saving:save training:schedule named:build "
            "sizing:size"
        ),
        "methods": (
            "adalora aflora block_lora c3a dora edora eigenlorax flora_tucker gralora loha lokh lokr loldu "
            "loqt lora lotr pissa riemannlora singlora soka surm svfit tensorpoly tera tlora_transform vera"
        ),
        "operations": (
            "arithmetic absorbing:absorb reversible_merge ensembles:ensemble curves:bezier_curve bridges:bridge lorkd"
        ),
        "training": "learning:loop rates:rate_range finetuning:finetune comparing:compare tokens:batches",
    },
    "polyad.cache": {
        "host": (
            "host:cache attention evicting:eviction_layer layer recent:exact_tokens rotation "
            "stored:stored_blocks fused_rows"
        ),
        "": "named:maker",
        "codecs": (
            "gear h2o kivi ksort_bfp latents matryoshkakv metric palu prefixkv squat staircase streaming_llm "
            "transform_coding vidkv xkv"
        ),
        "calibration": "fisher observe matryoshka_training",
    },
    "polyad.attention": {
        "methods": "grouped kronecker latent tensor_product tpla",
        "conversion": "transmla converting:convert",
    },
    "polyad.quantize": {
        "methods": "block_floating_point least_distortion round_to_nearest",
    },
    "polyad.compress": {
        "methods": "eora lord modegpt welore equivalent_rescaling",
        "": "memory:statistics_store text_form:recipe",
        "polyad.models": "cut_proof:proof",
    },
    "polyad.models": {
        "calibration": "rows statistics:collect",
        "": "misfit:pretrained divided:manifest",
    },
    "polyad.train": {
        "": "descending:descend healing:heal",
    },
    "polyad.decompose": {
        "cp": "cp_als gcp nonnegative_cp sparse_cp_als spm",
        "tucker": "st_hosvd hooi block_term chebyshev_tucker",
        "trains": "tt_svd tt_als tt_cross tt_matrix tr_svd tr_als",
        "networks": "greedy_tn tnale hierarchical_tucker trg_ising ttn_bug",
        "matrices": (
            "svd nmf masked_als hadamard_als khatri_rao_als kronecker_als kronecker_svd householder_product "
            "low_displacement nearest_block_tensor_train nearest_circulant nearest_monarch nearest_toeplitz "
            "t_svd"
        ),
        "ranks": "ranks:choose_rank core_shapes trade:compare_formats",
    },
    "polyad.formats": {
        "networks": (
            "cp tucker tensor_train tensor_ring train_matrix tree_network block_term network symmetric_cp "
            "low_rank kronecker khatri_rao hadamard"
        ),
        "structured": "circulant toeplitz low_displacement monarch householder tubal block_tensor_train",
        "stored": "dense quantized sparse packing",
        "composed": "sum product",
    },
    "polyad.data": {
        "polyad.models": "special_tokens",
    },
    "polyad.linalg": {
        "polyad.algorithms": (
            "coordinated_sampling incremental_mixture kernel_matvec kronecker_projection lasso "
            "maxvol meta_factorization random_pivoting sketched_lstsq streaming_eigenvector tensor_sketch tree_field "
            "updating_svd"
        ),
        "polyad.formats.networks": "assignment",
        "polyad.formats.structured": "subspace",
    },
    "polyad.optim": {
        "transforms": "projected_adam",
    },
}
"""Package -> room in it -> the modules that stood in the package itself; ``old:new`` where a file's name changed."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "polyad.cache": {"remembering": "recording_cache"},
    "polyad.cache.host.cache": {"remembering": "recording_cache"},
    "polyad.adapters": {"calibration": "calibration_figures"},
    "polyad.adapters.operations.ensemble": {"calibration": "calibration_figures"},
    "polyad.attention": {"mixed": "mix_latent", "convert": "convert_attention"},
    "polyad.attention.conversion.convert": {"convert": "convert_attention"},
    "polyad.evaluation": {"operations": "operations_per_token"},
    "polyad.report": {"Trial": "StudyTrial"},
    "polyad.report.study": {"Trial": "StudyTrial"},
    "polyad.attention.methods.tpla": {"mixed": "mix_latent"},
    "polyad.compress.methods.lord": {"spectrum": "output_spectrum"},
    "polyad.decompose.ranks.compare_formats": {"trade": "compare_formats"},
    "polyad.testing.adapters": {
        "adapted": "model_with_adapters",
        "compiling": "compilation",
        "damaged": "refusals",
        "dropping": "dropout",
        "merging": "merge",
        "saving": "storage",
        "structured": "no_dense_update",
    },
    "polyad.testing.decompositions": {
        "batched": "batches",
        "drawn": "draw_tensor",
        "made": "call_decomposition",
        "missing": "masks",
    },
    "polyad.testing.formats": {"grouped": "channel_groups", "saving": "storage", "stacked": "stacks"},
    "polyad.testing.layers": {
        "compiling": "compilation",
        "exporting": "export",
        "loading": "state_dicts",
        "training": "gradients",
    },
    "polyad.testing.methods": {"documented": "documentation"},
}
"""Package or module -> names in it that have changed, and what they are now."""

ALGORITHMS = (
    "CoordinatedSketch", "IncrementalMixture", "KroneckerProjection", "MetaFactors", "Pivoted",
    "StreamingEigenvector", "TensorSRHT", "TreeField", "UpdatingSVD", "coordinated_sampling", "coupling",
    "exponential", "kernel_matvec", "lasso", "linf_rows", "maxvol", "meta_factorization", "near_pairs",
    "private_median", "random_pivoting", "sketched_lstsq", "smooth",
)  # fmt: skip
"""Names that ``polyad.linalg`` showed and ``polyad.algorithms`` shows."""

SUBSPACES: tuple[str, ...] = ("krylov_basis", "leading", "singular_basis")
"""Names that ``polyad.linalg`` showed and that stand beside the tubal format, which alone uses them."""


def moved_modules() -> dict[str, str]:
    """The full name of every module that has moved, and where it is now."""
    places = {}
    for package, rooms in ROOMS.items():
        for room, names in rooms.items():
            for name in names.split():
                old, _, new = name.partition(":")
                home = room if room.startswith("polyad.") else f"{package}.{room}".rstrip(".")
                places[f"{package}.{old}"] = f"{home}.{new or old}"
    return places


def keep_old_names() -> None:
    """Let the old names of modules and of functions be imported, with a warning that names the new place.

    An old module is an empty one that asks the new one at first use, so nothing is imported here. What a package
    shows of them is put in it when it is imported.
    """
    rooms = {f"{package}.{room}" for package, rooms in ROOMS.items() for room in rooms}
    moved = moved_modules()
    for old, new in moved.items():
        if old not in rooms:
            alias = ModuleType(old, f"Moved to {new}.")
            vars(alias)["__getattr__"] = _forward(old, new)
            sys.modules[old] = alias
        else:  # a room has the name that a module had
            after_import(old, partial(_set_look_up, old, _forward(old, new)))
    for package in {*ROOMS, *(name for name in RENAMED if name.count(".") == 1)}:
        after_import(package, partial(_show_old_names, package, moved))


def _show_old_names(package: str, moved: Mapping[str, str]) -> None:
    shown = vars(sys.modules[package])
    for old in moved:
        home, _, name = old.rpartition(".")
        if home == package and not (package == "polyad.linalg" and name in ALGORITHMS):
            shown.setdefault(name, sys.modules.get(old))
    if package == "polyad.linalg":
        homes = dict.fromkeys(SUBSPACES, "polyad.formats.structured.subspace")
        _set_look_up(package, _forward(package, "polyad.algorithms", (*ALGORITHMS, *SUBSPACES), homes))
    elif package in RENAMED:
        _set_look_up(package, _forward(package, package, tuple(RENAMED[package])))


def _set_look_up(module: str, look_up: Callable[[str], Any]) -> None:
    vars(sys.modules[module]).setdefault("__getattr__", look_up)


def keep_renamed(package: str) -> None:
    """Let the former names in a package and its rooms be imported: for a package that ``polyad`` does not import."""
    for name in RENAMED:
        if f"{name}.".startswith(f"{package}."):
            vars(sys.modules[name]).setdefault("__getattr__", _forward(name, name, tuple(RENAMED[name])))


def _forward(
    old: str, new: str, names: tuple[str, ...] | None = None, homes: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module whose names, or these of them, are found in another, or in their ``homes``."""

    def look_up(name: str) -> Any:
        home = homes.get(name, new)
        if (name.startswith("__") and name.endswith("__")) or (names is not None and name not in names):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        try:
            now = RENAMED.get(home, {}).get(name, name)
            value = getattr(import_module(home), now)
        except AttributeError:
            raise AttributeError(f"module {old!r} has moved to {home!r}, which has no {name!r}") from None
        warnings.warn(f"{old}.{name} is {home}.{now} now", DeprecationWarning, stacklevel=2)
        return value

    return look_up


class Renamed:
    """An attribute of a class under its former name: it gives the new one, and warns."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old, self.owner = name, owner.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        new = f"{self.owner}.{self.new}"
        warnings.warn(f"{self.owner}.{self.old} is {new} now", DeprecationWarning, stacklevel=2)
        return getattr(owner if instance is None else instance, self.new)
