"""Other quantisers on the same weights, by transformers, each as it is fastest here.

They are installed without what they ask for into a folder of their own: what they share with polyad stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.decoding.folders import KEPT, folder
from benchmarks.decoding.timers import Stepper, generation, judged, turns
from benchmarks.measuring import Row
from torch import nn

import polyad

PLACE = KEPT / "peers"
PACKAGES = ("torchao==0.18.0", "optimum-quanto==0.2.7", "hqq==0.2.8.post1", "termcolor")
TOKENS, TURNS, TRIAL = 12, 5, 3
FASTER = 1 / 1.5
Maker = Callable[[Any], Any]


def torchao(config: str, module: str = "torchao.quantization", **settings: Any) -> Maker:
    """A model whose linear layers torchao quantises."""

    def quantise(model: Any) -> Any:
        import importlib

        quantise_ = importlib.import_module("torchao.quantization").quantize_
        quantise_(model, getattr(importlib.import_module(module), config)(**settings))
        return model

    return quantise


def quanto(weights: str) -> Maker:
    """A model whose linear layers optimum-quanto quantises."""

    def quantise(model: Any) -> Any:
        from optimum import quanto  # pyright: ignore[reportMissingImports]

        quanto.quantize(model, weights=getattr(quanto, weights))
        quanto.freeze(model)
        return model

    return quantise


def hqq(bits: int, group: int, backend: str) -> Maker:
    """A model whose linear layers hqq quantises."""

    def quantise(model: Any) -> Any:
        from hqq.core.quantize import (  # pyright: ignore[reportMissingImports]
            BaseQuantizeConfig,
            HQQBackend,
            HQQLinear,
        )  # fmt: skip

        config = BaseQuantizeConfig(nbits=bits, group_size=group, axis=1)
        for path, layer in list(model.named_modules()):
            if type(layer) is nn.Linear:
                parent, _, name = path.rpartition(".")
                fast = HQQLinear(layer, config, compute_dtype=torch.bfloat16, device="cpu", del_orig=False)
                setattr(model.get_submodule(parent), name, fast)
        HQQLinear.set_backend(getattr(HQQBackend, backend))
        return model

    return quantise


PEERS: dict[str, dict[str, Maker]] = {
    "torchao": {
        "4 bits": torchao(
            "PrototypeInt4WeightOnlyConfig", "torchao.prototype.quantization.int4.inference_workflow", group_size=32
        ),
        "8 bits": torchao("Int8WeightOnlyConfig"),
        "8 bits, dynamic": torchao("Int8DynamicActivationInt8WeightConfig"),
    },
    "optimum-quanto": {"4 bits": quanto("qint4"), "8 bits": quanto("qint8")},
    "hqq": {
        "4 bits": hqq(4, 32, "PYTORCH"), "8 bits": hqq(8, 64, "PYTORCH"), "4 bits, ATEN": hqq(4, 32, "ATEN"),
    },
}  # fmt: skip


def beside_peer(name: str) -> Row:
    """Our 4 bits by generate and by the plain forward, beside the peer's fastest settings by the same two."""
    ours = polyad.load(folder("4 bits"))
    original = polyad.load("smollm2", dtype=torch.bfloat16)  # transformers is imported before the peers are in sight
    absent = _install()
    trials: dict[str, float | str] = {}
    best: Any = None
    for setting, quantise in PEERS[name].items():
        try:
            model, seconds = _try_out(quantise)
        except Exception as error:  # whatever a peer says of this processor or of this torch
            trials[setting] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
            continue
        trials[setting] = seconds
        if best is None or seconds < best[0]:
            best = seconds, setting, model
    if best is None:
        return {"samples": {}, "facts": {"tried": trials}, "asked": [], "absent": absent or [f"{name}: {trials}"]}
    peer, forward = Stepper(best[2], TOKENS), Stepper(ours, TOKENS)
    sides = {
        "ours, generate": partial(generation, ours, None), "ours, forward": forward.seconds,
        "peer, generate": peer.transformers, "peer, forward": peer.seconds,
        "bfloat16, forward": Stepper(original, TOKENS).seconds,
    }  # fmt: skip
    asked = [("ours, generate", "peer, generate", FASTER), ("ours, forward", "peer, forward", 1.0)]
    return judged(turns(sides, TURNS), asked, fastest=best[1], tried=trials)


def _try_out(quantise: Maker) -> tuple[Any, float]:
    """A quantised model and the seconds of a token of its plain forward, by a few of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = quantise(polyad.load("smollm2", dtype=torch.bfloat16)).eval()
        stepper, started = Stepper(model, TRIAL), time.perf_counter()
        seconds = stepper.seconds()
    if time.perf_counter() - started > 60:
        raise TimeoutError(f"{seconds:.1f} s a token")
    return model, seconds


def _install() -> list[str]:
    """Put the peers where they are found, once; what could not be had, in a sentence."""
    if not PLACE.exists():
        call = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(PLACE), *PACKAGES]
        done = subprocess.run(call, stdout=sys.stderr, check=False)
        if done.returncode:
            return [f"pip could not install {', '.join(PACKAGES)}"]
    if str(PLACE) not in sys.path:
        sys.path.append(str(PLACE))
    return []
