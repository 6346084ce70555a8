"""What training and decoding cost with an adapter, relative to the frozen layers, beside peft where it is installed.

Two decoder layers of SmolLM2's sizes with random weights, 4 x 256 tokens in float32, forward and backward with
gradients of the input; every method of the catalogue at about the trained numbers of LoRA of rank 8 where it has a
size that reaches them, and as it is where it has none. All run in turn, and what is printed are medians of ratios to
the frozen layers of the same turn, in processor seconds, which a busy machine stretches less, and by the clock. Saved
activations are the bytes of distinct tensors kept for the backward pass, parameters aside. Decoding is one row
through the seven linear layers. Starts at zero are moved off it.

    python benchmarks/adapters.py [--turns 7] [--peft] [--only lora c3a …] [--output FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import polyad
from polyad.adapters import Adapters, LoRA
from polyad.adapters.sizing import sized, trained

RESULTS = Path(__file__).parent / "results" / "adapters.json"
FACTORS = {"*q_proj": 6, "*o_proj": 6, "*k_proj": 4, "*v_proj": 4, "*": 8}
BLOCKS = {"*q_proj": 36, "*o_proj": 36, "*k_proj": 16, "*v_proj": 16, "*": 48}
GIVEN: dict[str, dict[str, Any]] = {
    "lora": {"rank": 8},
    "lora, dropout": {"rank": 8, "dropout": 0.05},
    "adalora": {"rank": 6, "spare": 2},
    "vera": {"rank": 256},
    "dora": {"rank": 8},
    "dora, dropout": {"rank": 8, "dropout": 0.05},
    "c3a": {"block": BLOCKS},
    "lokr": {"factor": FACTORS},
    "lokr, dropout": {"factor": FACTORS, "dropout": 0.05},
    "surm, product": {"family": "product"},
    "surm, kronecker": {"family": "kronecker"},
}
"""What methods are given whose size is not searched for, and variants beside the method itself."""
PEFT = {
    "peft lora": ("LoraConfig", {"r": 8}),
    "peft lora, dropout": ("LoraConfig", {"r": 8, "lora_dropout": 0.05}),
    "peft dora": ("LoraConfig", {"r": 8, "use_dora": True}),
    "peft loha": ("LoHaConfig", {"r": 4}),
    "peft lokr": ("LoKrConfig", {"r": 10**6, "decompose_factor": 8}),
}
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def layers() -> nn.Module:
    """Two decoder layers of SmolLM2-135M's sizes, frozen."""
    config = transformers.LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, num_hidden_layers=2,
        vocab_size=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaModel(config)
    model.requires_grad_(False)
    return model.train()


def subjects(names: list[str], peft: bool) -> dict[str, nn.Module]:
    """The layers with each adapter."""
    base = layers()
    found = {"frozen": copy.deepcopy(base)}
    count = trained(base, "layers.*", LoRA, rank=8)
    for name in names:
        model, method = copy.deepcopy(base), polyad.card(name.partition(",")[0]).function
        given = GIVEN.get(name, {})
        made = method if given else sized(model, "layers.*", method, count)[0]
        gradients = {"loss": lambda: loss(model, torch.ones(1, 8, 576))} if name == "riemannlora" else {}  # noqa: B023
        Adapters(model).attach("a", "layers.*", made, **given, **gradients)
        found[name] = model
    if peft:
        import peft as library

        for name, (config, given) in PEFT.items():
            made = getattr(library, config)(target_modules=list(NAMES), **given)
            found[name] = library.inject_adapter_in_model(made, copy.deepcopy(base))
    for model in found.values():
        for p in model.parameters():
            if p.requires_grad:
                p.data.add_(1e-3 * torch.randn(p.shape))  # zeros of a start are quicker to multiply by
    return found


def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(inputs_embeds=x, use_cache=False).last_hidden_state.sum()


def step(model: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """Processor seconds and seconds of a forward and a backward pass."""
    start = time.process_time(), time.perf_counter()
    loss(model, x).backward()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def saved(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes of what is kept for the backward pass."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = model(inputs_embeds=x, use_cache=False).last_hidden_state
    del y
    return sum(kept.values())


def decode(model: nn.Module, repeats: int = 100) -> float:
    """Seconds of one row through the linear layers of the first decoder layer."""
    linears = [m for n, m in model.layers[0].named_modules() if n.rpartition(".")[2] in NAMES]
    total = 0.0
    model.eval()
    with torch.inference_mode():
        for linear in linears:
            x = torch.ones(1, 1, linear.in_features)
            linear(x)
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                linear(x)
                times.append(time.perf_counter() - start)
            total += statistics.quantiles(times, n=10)[0]  # the undisturbed ones
    model.train()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--peft", action="store_true", help="measure peft's adapters too")
    parser.add_argument("--only", nargs="+", default=None, help="these rows alone")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    names = [c.name for c in polyad.methods("adapter")]
    names = given.only or sorted({*names, *GIVEN})
    models = subjects(names, given.peft)
    x = torch.randn(4, 256, 576, requires_grad=True)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    rows: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(given.turns + 1):
        for name, model in models.items():
            taken, row = step(model, x), decode(model)
            if turn:
                times[name].append(taken)
                rows[name].append(row)
    floor, result = saved(models["frozen"], x), {}
    for name, model in models.items():
        turns = list(zip(times[name], times["frozen"], strict=True))
        decoded = [a / b for a, b in zip(rows[name], rows["frozen"], strict=True)]
        result[name] = r = {
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "time": statistics.median(a[0] / b[0] for a, b in turns),
            "clock": statistics.median(a[1] / b[1] for a, b in turns),
            "activations": saved(model, x) / floor,
            "decode": statistics.median(decoded),
            "processor seconds": [a for a, _ in times[name]],
            "seconds": [b for _, b in times[name]],
            "decode seconds": rows[name],
        }
        shown = f"{name:20} {r['trained']:8d}  time {r['time']:.2f}  clock {r['clock']:.2f}"
        print(f"{shown}  activations {r['activations']:.3f}  decode {r['decode']:.2f}", flush=True)
    given.output.write_text(json.dumps({"threads": torch.get_num_threads(), "methods": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
