"""What lies in a saved folder, read as its owner would read it, as tensors by name.

Every case is a folder with ``case.json`` (what it holds and how it is read), ``saved`` (what polyad wrote),
``bits.json`` (the ``digest`` of every tensor that was stored) and ``expected.safetensors`` (what follows from those:
under ``kept`` what no rounding has a part in, under ``near`` the rest). A reader takes the folder, its case and an
empty folder to work in.
"""

import contextlib
import functools
import hashlib
import importlib
import io
import json
import math
import shutil
import sys
from html import escape
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from torch import nn

import polyad
from polyad import attention, cli, report
from polyad._card import card
from polyad.adapters import Adapters
from polyad.adapters.host.build import method_of
from polyad.adapters.training.compare import compare_adapters
from polyad.adapters.training.finetune import NAME, Finetuning, finetune
from polyad.adapters.training.loop import train
from polyad.adapters.training.trainer_callback import trainer_callback, unsaved_adapter_buffers
from polyad.cache import cache_for
from polyad.formats import load_format
from polyad.interop.peft import from_peft
from polyad.layers import Factors
from polyad.optim import Optimizer
from polyad.report.studies import adapter_study, cache_study
from polyad.train import descend

CASE, SAVED, BITS, EXPECTED = "case.json", "saved", "bits.json", "expected.safetensors"
STORED = "state/"
ROOT = Path(__file__).parent
CASES = sorted(file.parent.relative_to(ROOT) for file in ROOT.rglob(CASE))
READERS = {}


def reader(function):
    READERS[function.__name__] = function
    return function


def read(folder, work):
    """Everything that a case holds, as tensors by name."""
    case = json.loads((folder / CASE).read_text())
    return READERS[case["kind"]](folder, case, work)


def digest(tensor):
    """The first digits of the sha256 of a tensor's dtype, shape and bits."""
    bits = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + bits).hexdigest()[:12]


def built(said):
    """What JSON describes: {"call": "torch.nn.Linear", "args": […]}, arguments likewise."""
    if not isinstance(said, dict):
        return said
    module, _, name = said["call"].rpartition(".")
    given = {name: built(value) for name, value in said.get("options", {}).items()}
    return getattr(importlib.import_module(module), name)(*map(built, said.get("args", [])), **given)


def inputs(case):
    """Token ids of a vocabulary, or numbers from -1 to 1, of the shape that the case states."""
    shape, tokens = case["input"], case.get("tokens")
    count = torch.Size(shape).numel()
    return (
        (torch.arange(count) * 7 + 3).remainder(tokens).reshape(shape) if tokens
        else torch.linspace(-1, 1, count).reshape(shape)
    )  # fmt: skip


def loaded(folder, case):
    like = case.get("like")
    return polyad.load(folder / SAVED, kernels="plain", like=None if like is None else built(like))


def based(folder, case):
    """The model that a case is of: that of another case."""
    other = folder.parent.parent / case["base"]
    return loaded(other, json.loads((other / CASE).read_text()))


def output(model, x):
    with torch.no_grad():
        out = model(x)
    return getattr(out, "logits", out).detach()


def contents(model, x):
    """A model's tensors, those that no state dict holds, the weights that formats stand for, and what it says."""
    state = model.state_dict()
    rest = {name: buffer for name, buffer in model.named_buffers() if name not in state}
    weights = {path: m.weight for path, m in model.named_modules() if isinstance(getattr(m, "weight", None), Factors)}
    return {
        **{f"state/{name}": tensor for name, tensor in state.items()},
        **{f"table/{name}": tensor for name, tensor in rest.items()},
        **{f"dense/{path}": weight().to_dense().detach() for path, weight in weights.items()},
        "output": output(model, x),
    }


@reader
def model(folder, case, work):
    return contents(loaded(folder, case), inputs(case))


@reader
def pretrained(folder, case, work):
    return contents(loaded(folder, case), inputs(case))


@reader
def format(folder, case, work):
    found = {}
    for file in sorted((folder / SAVED).glob("*.safetensors")):
        held = load_format(file)
        found |= {f"state/{file.stem}/{name}": tensor for name, tensor in held.tensors().items()}
        if math.prod(held.shape) < 10**7:
            found[f"dense/{file.stem}"] = held.to_dense()
    return found


@reader
def adapter(folder, case, work):
    base = based(folder, case)
    adapters = Adapters(base)
    for own in sorted((folder / SAVED).iterdir()):
        name = adapters.load(own)
        assert name == own.name
    adapters.activate(case["active"])
    found = {f"state/{n}/{key}": t for n in adapters.names for key, t in adapters.state_dict(n).items()}
    found["output"] = output(base, inputs(case))
    if not case["merged"]:
        return found
    adapters.merge()
    return found | {"merged": output(base, inputs(case))}


@reader
def peft(folder, case, work):
    base = based(folder, case)
    adapters = Adapters(base)
    from_peft(adapters, folder / SAVED, "peft")
    state = {f"state/{key}": t for key, t in adapters.state_dict("peft").items()}
    return state | {"output": output(base, inputs(case))}


@reader
def checkpoint(folder, case, work):
    """What a Trainer's checkpoint holds of adapters beside the model's weights."""
    adapters = Adapters(based(folder, case))
    for name, (spelled, select) in case["adapters"].items():
        adapters.attach(name, select, method_of(spelled))
    at = SimpleNamespace(output_dir=folder / SAVED), SimpleNamespace(global_step=case["step"])
    trainer_callback(adapters).on_train_begin(*at, None)
    trained = {f"{n}/{key}": p for n in adapters.names for key, p in adapters.named_parameters(n).items()}
    flags = {f"state/trained/{key}": torch.tensor(p.requires_grad) for key, p in trained.items()}
    return flags | {f"state/{key}": t for key, t in unsaved_adapter_buffers(adapters).items()}


@reader
def optimizer(folder, case, work):
    """A state dict of the optimiser as torch.save wrote it, and the parameters after one step more."""
    x = {name: nn.Parameter(t) for name, t in load_file(folder / SAVED / "parameters.safetensors").items()}
    made = Optimizer(list(x.values()), built(case["transform"]), lr=0.125)
    made.load_state_dict(torch.load(folder / SAVED / "optimizer.pt", weights_only=True))
    states = {f"state/{n}/{key}": v for n, p in x.items() for key, v in made.state[p].items()}
    found = {key: torch.as_tensor(v).clone() for key, v in states.items()}
    for i, p in enumerate(x.values()):
        p.grad = (torch.linspace(-1, 1, p.numel()).reshape(p.shape) + i).to(p.dtype)
    made.step()
    return found | {f"stepped/{name}": p.detach() for name, p in x.items()}


@reader
def cache(folder, case, work):
    """Bases of a cache that calibration made, and what the model says with it."""
    base = based(folder, case)
    seen = [load_file(file) for file in sorted((folder / SAVED).iterdir())]
    ids = inputs(case)
    make = functools.partial(card(case["codec"]).function, **case["options"])
    held = cache_for(base, make, window=4, seen=seen)
    with torch.no_grad():
        said = [base(part, past_key_values=held, use_cache=True).logits for part in ids.split(16, 1)]
    states = {f"state/{i}/{key}": t for i, layer in enumerate(seen) for key, t in layer.items()}
    return states | {"output": torch.cat(said, 1)}


@reader
def descending(folder, case, work):
    """A short training that was killed: its numbers as they are found again, and those that it ends in."""
    x = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]
    first = []

    def loss(step):
        first.extend(p.detach().clone() for p in x[len(first) :])
        return sum((p - 2).square().sum() * (1 + step % 3) for p in x)

    shutil.copytree(folder / SAVED, work, dirs_exist_ok=True)
    asked = case["asked"]
    losses = descend(x, loss, state=work / "run.state", stage="", every=4, asked={"a": 1}, **asked)
    known = {f"state/{i}": t for i, t in enumerate(first)}
    ends = {f"end/{i}": p.detach() for i, p in enumerate(x)}
    return known | ends | split(losses, case)


def split(losses, case):
    """The losses that a file held, which come back to the last digit, and those that followed."""
    exact = torch.tensor(losses, dtype=torch.float64)
    return {"state/losses": exact[: case["kept"]], "losses": exact[case["kept"] :]}


@reader
def learning(folder, case, work):
    """An adapter's training that was killed."""
    base = based(folder, case)
    adapters = Adapters(base)
    adapters.attach(NAME, case["select"], method_of(case["adapter"]))
    first, ids = {}, inputs(case)

    def loss(step):
        if not first:
            first.update({key: t.clone() for key, t in adapters.state_dict(NAME).items()})
        return base(ids.roll(step, 1)).logits.square().mean()

    shutil.copytree(folder / SAVED, work, dirs_exist_ok=True)
    learned = train(adapters, NAME, loss, state=work / "run.state", every=4, asked={"a": 1}, **case["asked"])
    found = {f"state/{key}": t for key, t in first.items()} | split(learned.losses, case)
    return found | {f"end/{key}": t for key, t in adapters.state_dict(NAME).items()}


@reader
def healing(folder, case, work):
    """A conversion of attention whose healing was killed."""
    base = based(folder, case)
    shutil.copytree(folder / SAVED, work, dirs_exist_ok=True)
    windows = [inputs(case).roll(i, 1) for i in range(4)]
    attention.convert_attention(base, windows=windows, state=work / "run.state", **case["asked"])
    return {f"end/{name}": t for name, t in base.state_dict().items() if "self_attn" in name}


@reader
def finetuning(folder, case, work):
    """``polyad adapt`` that was killed."""
    base = based(folder, case)
    shutil.copytree(folder / SAVED, work, dirs_exist_ok=True)
    with contextlib.chdir(work):
        adapters, record = finetune(base, method_of(case["adapter"]), asked(case), state=Path("run.state"))
    return split(record["loss_curve"], case) | {f"end/{k}": t for k, t in adapters.state_dict(NAME).items()}


@reader
def comparing(folder, case, work):
    """``polyad adapt --compare`` that was killed after its first adapter."""
    base = based(folder, case)
    shutil.copytree(folder / SAVED, work, dirs_exist_ok=True)
    methods = {spelled: method_of(spelled) for spelled in case["adapters"]}
    with contextlib.chdir(work):
        records = list(compare_adapters(base, methods, asked(case), Path("out"), rank=2))
    first, second = (torch.tensor(record["loss_curve"], dtype=torch.float64) for record in records)
    return {"state/first": first, "state/losses": second[: case["kept"]], "losses": second[case["kept"] :]}


def asked(case):
    return Finetuning(**{key: tuple(v) if isinstance(v, list) else v for key, v in case["asked"].items()})


@reader
def compressing(folder, case, work):
    """``polyad compress`` that was killed, given again."""
    shutil.copytree(folder / SAVED, work, dirs_exist_ok=True)
    shutil.copytree(folder.parent.parent / case["base"] / SAVED, work / "model")
    with contextlib.chdir(work):
        command(*case["command"])
    assert not list(work.glob(".out*")), "what was unfinished still lies beside what is finished"
    return {"output": output(polyad.load(work / "out", kernels="plain"), inputs(case))}


def command(*arguments):
    """Runs the command line in this process and gives what it printed as JSON."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["polyad", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()) as complaint:
            cli.main()
    except SystemExit as stopped:
        if stopped.code:
            raise RuntimeError(complaint.getvalue()) from None
    finally:
        sys.argv = before
    return json.loads(said.getvalue())


@reader
def page(folder, case, work):
    """Records as commands print them; the page on them tells of each."""
    (file,) = (folder / SAVED).iterdir()
    held = json.loads(file.read_text())
    target = work / "page.html"
    if case["study"] == "cache":
        report.write_study(target, cache_study(held["caches"], held["recommended"], {}))
    elif case["study"] == "adapter":
        report.write_study(target, adapter_study(held if isinstance(held, list) else [held], {}))
    else:
        report.write(target, held if isinstance(held, list) else [held])
    text = target.read_text()
    missing = [word for word in case["told"] if escape(word) not in text]
    assert not missing, f"the page on {file} does not tell of {missing}"
    return {}
