"""What training and decoding cost with an adapter, relative to the frozen model, beside peft where it is installed.

The first two decoder layers of SmolLM2-135M on 4 x 256 tokens in float32, forward and backward, with gradients of
what is embedded; every method of the catalogue on all linear layers, at about the trained numbers of LoRA of rank 8
where it has a size that reaches them, and as it is where it has none. All run in turn, and what is printed are
medians of ratios to the frozen layers of the same turn, in processor seconds, which a busy machine stretches less,
and by the clock. Saved activations are the bytes of distinct tensors kept for the backward pass, parameters aside.
Decoding is one row through the seven linear layers of the first decoder layer. Starts at zero are moved off it.

    python benchmarks/adapters.py [--turns 7] [--peft] [--whole] [--only lora c3a …]

With --whole the model is all of SmolLM2-135M and the gradient is of its loss, head included; all methods at once do
not fit into 24 GB then, so name some. Saved activations are still those of the decoder layers alone. What is printed
is kept, in results/adapters.json, only where all rows of the two layers are run.
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
from torch import Tensor, nn

import polyad
from polyad.adapters import Adapters, LoRA
from polyad.adapters.host.size import size_to_count, trained_count
from polyad.models import load

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
TARGETS = "model.layers.*"
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def frozen(whole: bool) -> Any:
    """SmolLM2-135M, or its first two layers without a head."""
    model = load("smollm2", dtype=torch.float32)
    if not whole:
        model.model.layers = model.model.layers[:2]
        model.config.num_hidden_layers = 2
        model.lm_head = nn.Identity()
    model.requires_grad_(False)
    return model.train()


def subjects(base: Any, names: list[str], peft: bool, ids: Tensor) -> dict[str, Any]:
    """The model with each adapter; all share its frozen numbers."""

    def copied() -> Any:
        return copy.deepcopy(base, {id(t): t for t in (*base.parameters(), *base.buffers())})

    found = {"frozen": base}
    count = trained_count(base, TARGETS, LoRA, rank=8)
    for name in names:
        model, method = copied(), polyad.card(name.partition(",")[0]).function
        given = GIVEN.get(name, {})
        made = method if given else size_to_count(model, TARGETS, method, count)[0]
        gradients: Any = {"loss": lambda: loss(model, ids[:1, :8])} if name == "riemannlora" else {}  # noqa: B023
        Adapters(model).attach("a", TARGETS, made, **given, **gradients)
        found[name] = model
    if peft:
        import peft as library

        for name, (config, given) in PEFT.items():
            made = getattr(library, config)(target_modules=list(NAMES), **given)
            found[name] = library.inject_adapter_in_model(made, copied())
    for model in found.values():
        for p in model.parameters():
            if p.requires_grad:
                p.data.add_(1e-3 * torch.randn(p.shape))  # zeros of a start are quicker to multiply by
    return found


def embedded(model: Any, ids: Tensor) -> Tensor:
    """What the decoder layers start from, with a gradient of its own."""
    return model.get_input_embeddings()(ids).detach().requires_grad_()


def loss(model: Any, ids: Tensor) -> Tensor:
    x = embedded(model, ids)
    if isinstance(model.lm_head, nn.Identity):
        return model.model(inputs_embeds=x, use_cache=False).last_hidden_state.sum()
    return model(inputs_embeds=x, labels=ids, use_cache=False).loss


def step(model: Any, ids: Tensor) -> tuple[float, float]:
    """Processor seconds and seconds of a forward and a backward pass, with no gradients there before."""
    model.zero_grad(set_to_none=True)
    start = time.process_time(), time.perf_counter()
    loss(model, ids).backward()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def saved(model: Any, ids: Tensor) -> int:
    """Bytes of what the decoder layers keep for the backward pass."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = model.model(inputs_embeds=embedded(model, ids), use_cache=False).last_hidden_state
    del y
    return sum(kept.values())


def decode(model: Any, repeats: int = 100) -> float:
    """Seconds of one row through the linear layers of the first decoder layer, one after the other: their weights do
    not stay in a processor's nearest cache from one token to the next, as in a whole model."""
    linears: Any = [m for n, m in model.model.layers[0].named_modules() if n.rpartition(".")[2] in NAMES]
    rows = [torch.ones(1, 1, linear.in_features) for linear in linears]
    model.eval()
    times = []
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            for linear, x in zip(linears, rows, strict=True):
                linear(x)
            if repeat:
                times.append(time.perf_counter() - start)
    model.train()
    return statistics.quantiles(times, n=10)[0]  # the undisturbed ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--peft", action="store_true", help="measure peft's adapters too")
    parser.add_argument("--whole", action="store_true", help="all of the model and its loss")
    parser.add_argument("--only", nargs="+", default=None, help="these rows alone")
    given = parser.parse_args()
    names = [c.name for c in polyad.methods("adapter")]
    names = given.only or sorted({*names, *GIVEN})
    ids = torch.randint(0, 49152, (4, 256), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    models = subjects(frozen(given.whole), names, given.peft, ids)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    rows: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(given.turns + 1):
        for name, model in models.items():
            taken, row = step(model, ids), decode(model)
            if turn:
                times[name].append(taken)
                rows[name].append(row)
    floor, result = saved(models["frozen"], ids), {}
    for name, model in models.items():
        turns = list(zip(times[name], times["frozen"], strict=True))
        decoded = [a / b for a, b in zip(rows[name], rows["frozen"], strict=True)]
        result[name] = r = {
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "time": statistics.median(a[0] / b[0] for a, b in turns),
            "clock": statistics.median(a[1] / b[1] for a, b in turns),
            "activations": saved(model, ids) / floor,
            "decode": statistics.median(decoded),
            "processor seconds": [a for a, _ in times[name]],
            "seconds": [b for _, b in times[name]],
            "decode seconds": rows[name],
        }
        shown = f"{name:20} {r['trained']:8d}  time {r['time']:.2f}  clock {r['clock']:.2f}"
        print(f"{shown}  activations {r['activations']:.3f}  decode {r['decode']:.2f}", flush=True)
    if given.only is None and not given.whole:
        RESULTS.write_text(json.dumps({"threads": torch.get_num_threads(), "methods": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
