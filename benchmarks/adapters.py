"""What training and decoding cost with an adapter, relative to the frozen layers, beside peft where it is installed.

Two decoder layers of SmolLM2's sizes with random weights, 4 x 256 tokens in float32, forward and backward with
gradients of the input; every method at about the trained numbers of LoRA of rank 8. All run in turn, and what is
printed are medians of ratios to the frozen layers of the same turn. Saved activations are the bytes of distinct
tensors kept for the backward pass, parameters aside. Decoding is one row through the seven linear layers.

    python benchmarks/adapters.py [--turns 7] [--peft FOLDER]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers
from torch import nn

from polyad.adapters import AdaLoRA, Adapters, DoRA, LoHa, LoKH, LoKr, LoRA, PiSSA, VeRA

RESULTS = Path(__file__).parent / "results" / "adapters.json"
FACTORS = {"*q_proj": 6, "*o_proj": 6, "*k_proj": 4, "*v_proj": 4, "*": 8}
OURS = {
    "lora": (LoRA, {"rank": 8}),
    "lora, dropout": (LoRA, {"rank": 8, "dropout": 0.05}),
    "pissa": (PiSSA, {"rank": 8}),
    "adalora": (AdaLoRA, {"rank": 6, "spare": 2}),
    "vera (rank 256)": (VeRA, {"rank": 256}),
    "dora": (DoRA, {"rank": 8}),
    "dora, dropout": (DoRA, {"rank": 8, "dropout": 0.05}),
    "loha": (LoHa, {"rank": 4}),
    "lokr": (LoKr, {"factor": FACTORS}),
    "lokh (more numbers)": (LoKH, {}),
}
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


def subjects(peft: bool) -> dict[str, nn.Module]:
    """The layers with each adapter."""
    base = layers()
    found = {"frozen": copy.deepcopy(base)}
    for name, (method, given) in OURS.items():
        model = copy.deepcopy(base)
        Adapters(model).attach("a", "layers.*", method, **given)
        found[name] = model
    if peft:
        import peft as library

        for name, (config, given) in PEFT.items():
            made = getattr(library, config)(target_modules=list(NAMES), **given)
            found[name] = library.inject_adapter_in_model(made, copy.deepcopy(base))
    return found


def step(model: nn.Module, x: torch.Tensor) -> float:
    """Processor seconds of a forward and a backward pass, which a busy machine does not stretch."""
    start = time.process_time()
    model(inputs_embeds=x, use_cache=False).last_hidden_state.sum().backward()
    return time.process_time() - start


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
    parser.add_argument("--peft", default=None, help="a folder with peft, put at the end of the path")
    given = parser.parse_args()
    if given.peft:
        sys.path.append(given.peft)
    models = subjects(bool(given.peft))
    x = torch.randn(4, 256, 576, requires_grad=True)
    times: dict[str, list[float]] = {name: [] for name in models}
    rows: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(given.turns + 1):
        for name, model in models.items():
            taken, row = step(model, x), decode(model)
            if turn:
                times[name].append(taken)
                rows[name].append(row)
    floor = saved(models["frozen"], x)
    result = {}
    for name, model in models.items():
        ratio = [a / b for a, b in zip(times[name], times["frozen"], strict=True)]
        decoded = [a / b for a, b in zip(rows[name], rows["frozen"], strict=True)]
        result[name] = {
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "time": statistics.median(ratio),
            "activations": saved(model, x) / floor,
            "decode": statistics.median(decoded),
            "seconds": times[name],
            "decode seconds": rows[name],
        }
        r = result[name]
        shown = f"{name:22} {r['trained']:8d}  time {r['time']:.2f}  activations {r['activations']:.2f}"
        print(f"{shown}  decode {r['decode']:.2f}", flush=True)
    RESULTS.write_text(json.dumps({"threads": torch.get_num_threads(), "methods": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
