"""Runs that were killed, states of optimisers, bases of caches, and records of finished runs.

States are altered after they were written, so that no run from the beginning comes to the same numbers: a reader that
begins again is found out.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

from polyad import attention
from polyad._card import card, methods
from polyad.adapters import Adapters
from polyad.adapters.host.build import method_of
from polyad.adapters.training.compare import compare_adapters
from polyad.adapters.training.finetune import NAME, finetune
from polyad.adapters.training.loop import train
from polyad.cache import matryoshka_bases, matryoshka_ranks, observe, water_filling
from polyad.compress.recipe import steps
from polyad.compress.run import Asked, compress_to_folder
from polyad.optim import Optimizer, ProjectedAdam
from polyad.train import descend
from saved.reading import SAVED, asked, based, command, inputs
from saved.shelf import ASKED, ROOT, alter, case, kill_at, killed, text

BASE = "model/plain"
RUN = {"base": BASE, **ASKED}


def moved(key, tensor):
    """Other numbers than any run gives, in all but counters and the state of the random generator."""
    return tensor + 0.125 if key.startswith("tensor/") and tensor.is_floating_point() else tensor


def losses(count):
    return [9.0 - i / 8 for i in range(count)]


def states():
    """``descend``, ``heal`` and ``train`` in the middle."""
    told = {"steps": 10, "rate": 0.125}
    with case("descending", "adam", "Adam on two tensors, killed at step 9 of 10", asked=told, kept=8) as made:
        x = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]
        file = made.saved / "run.state"
        killed(lambda: descend(
            x, lambda step: sum((p - 1).square().sum() for p in x), stage="down", state=file, every=4, asked={"a": 1},
            callback=kill_at("down", 9), **told))  # fmt: skip
        alter(file, moved, losses=losses(8))
    for spelled in LEARNED:
        learned(spelled, told)
    stated = {**RUN, "asked": {"rank": 4, "rope": 2, "heal": 30}}
    with case("healing", "latent", "attention converted and healed, killed at step 26 of 30", **stated) as made:
        file = made.saved / "run.state"
        windows = [inputs(ASKED).roll(i, 1) for i in range(4)]
        killed(lambda: attention.convert(based(made.folder, stated), windows=windows, state=file,
                                         callback=kill_at("healing", 26), **stated["asked"]))  # fmt: skip
        alter(file, moved, losses=losses(25))


LEARNED = ("lora:rank=2", "adalora:rank=2,spare=1,every=1", "aflora:rank=2", "lotr:rank=2", "loqt:rank=2,group=4")


def learned(spelled, told):
    name = spelled.partition(":")[0]
    stated = {**RUN, "select": "*_proj", "adapter": spelled, "asked": told, "kept": 8}
    with case("learning", name, f"a training of {spelled}, killed at step 9 of 10", **stated) as made:
        base, file = based(made.folder, stated), made.saved / "run.state"
        adapters = Adapters(base)
        adapters.attach(NAME, "*_proj", method_of(spelled))

        def loss(step):
            return base(inputs(ASKED).roll(step, 1)).logits.square().mean()

        stop = kill_at("training", 9)
        killed(lambda: train(adapters, NAME, loss, state=file, every=4, asked={"a": 1}, callback=stop, **told))
        alter(file, moved, losses=losses(8))


TUNED = {"texts": ["words.txt"], "steps": 30, "batch": 2, "length": 8, "windows": 2}


def tunings():
    """``polyad adapt`` in the middle, alone and in a comparison."""
    stated = {**RUN, "adapter": "lora:rank=2,alpha=4", "asked": TUNED, "kept": 25}
    with case("finetuning", "lora", "a LoRA in the middle of polyad adapt", **stated) as made, inside(made):
        killed(lambda: finetune(based(made.folder, stated), method_of(stated["adapter"]), asked(stated),
                                state=Path("run.state"), callback=kill_at("training", 26)))  # fmt: skip
        alter(Path("run.state"), moved, losses=losses(25))
    stated = {**RUN, "adapters": ["lora:rank=2", "dora"], "asked": TUNED, "kept": 25}
    with (
        case("comparing", "two", "polyad adapt --compare, killed in its second adapter", **stated) as made,
        inside(made),
    ):
        done = []

        def callback(now, _total, values):
            done.append(values.get("method"))
            if "dora" in done and values.get("stage") == "training" and now >= 26:
                os.kill(os.getpid(), signal.SIGKILL)

        methods = {spelled: method_of(spelled) for spelled in stated["adapters"]}
        killed(lambda: list(compare_adapters(based(made.folder, stated), methods, asked(stated), Path("out"), rank=2,
                                    callback=callback)))  # fmt: skip
        alter(next(Path("out").glob(".*.state")), moved, losses=losses(25))
        record = Path("out/lora-rank=2.json")
        record.write_text(json.dumps({**json.loads(record.read_text()), "loss_curve": losses(30)}, indent=1))


@contextlib.contextmanager
def inside(made):
    """A block that runs in the saved folder, with a text there."""
    made.saved.mkdir()
    with contextlib.chdir(made.saved):
        Path("words.txt").write_text(text())
        yield


QUICK = ["--calibrate", "words.txt", "--text", "words.txt", "--calibration-windows", "20", "--windows", "2",
         "--alternations", "0"]  # fmt: skip
SHORT = Asked(("words.txt",), ("words.txt",), calibration_windows=20, windows=2, alternations=0)


def compressions():
    """``polyad compress`` in the middle of its statistics, and of saving."""
    method, keep = "modegpt", 0.8
    said = ["compress", "model", "--method", method, "--keep", str(keep), "--out", "out", *QUICK, "--json"]
    for name, holds, where in (
        ("statistics", "polyad compress, killed in the second part of its statistics", kill_at("statistics", 18)),
        ("saving", "polyad compress, killed while its folder was written", None),
    ):
        with case("compressing", name, holds, **RUN, command=said) as made, inside(made):
            shutil.copytree(ROOT / BASE / SAVED, "model")
            run = functools.partial(
                compress_to_folder, "model", steps(method), Path("out"), SHORT, keep=keep, callback=where
            )
            killed(run if where else functools.partial(_killed_while_saving, run))
            shutil.rmtree("model")
            for file in Path(".out.work").glob("*.safetensors"):
                alter(file, lambda _, t: t * torch.linspace(0.5, 2, t.shape[-1]) ** 4 if t.ndim == 1 else turned(t))


def turned(t):
    """A second moment of inputs whose channels have other sizes."""
    scale = torch.linspace(2, 0.25, t.shape[-1]).square()
    return scale[:, None] * t * scale


def _killed_while_saving(run):
    def half(_tensors, path, **_):
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch("polyad.models.shards.save_file", half):
        run()


def optimisers():
    with case("optimizer", "projected", "three parameters under ProjectedAdam", transform={
        "call": "polyad.optim.ProjectedAdam", "options": {"rank": 2, "interval": 3}}) as made:  # fmt: skip
        made.saved.mkdir()
        x = {"matrix": torch.ones(4, 6), "vector": torch.ones(3), "half": torch.ones(5, 4, dtype=torch.bfloat16)}
        x = {name: nn.Parameter(t) for name, t in x.items()}
        own = Optimizer(list(x.values()), ProjectedAdam(rank=2, interval=3), lr=0.125)
        for step in range(5):
            for i, p in enumerate(x.values()):
                p.grad = (torch.arange(p.numel()).reshape(p.shape) * (step + i + 1.0)).sin().to(p.dtype)
            own.step()
        torch.save(own.state_dict(), made.saved / "optimizer.pt")
        save_file({name: p.detach() for name, p in x.items()}, made.saved / "parameters.safetensors")


SMALL = {"rank": 2, "rate": 16.0}


def caches():
    """What calibration saw, from which the bases are made of every codec that needs calibration."""
    for own in methods("codec"):
        if own.needs:
            bases(own.name, own.name, {**own.example, **{k: n for k, n in SMALL.items() if k in own.example}})
    bases("matryoshka-trained", "matryoshkakv", {"rank": 2}, matryoshka_bases)
    bases("filled", "transform_coding", {}, lambda _, seen, _windows: water_filling(seen, 16.0))
    bases("matryoshka-ranks", "matryoshkakv", {}, functools.partial(matryoshka_ranks, keep=0.6, unit=1))


def bases(name, codec, given, more=None):
    stated = {"base": "model/two-layers", "input": [1, 32], "tokens": 32, "codec": codec, "options": given}
    with case("cache", name, f"what {codec} is made from, and what the model says with it", **stated) as made:
        made.saved.mkdir()
        make, ids = functools.partial(card(codec).function, **given), inputs(stated)
        base = based(made.folder, stated)
        seen = observe(base, make, [ids])
        seen = seen if more is None else more(base, seen, [ids])
        for i, layer in enumerate(seen):
            held = {key: t.detach().clone() for key, t in layer.items()}
            save_file(held, made.saved / f"layer-{i}.safetensors")


def records():
    """What commands print with --json, from which pages are made; and the folder that compress leaves."""
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
        shutil.copytree(ROOT / BASE / SAVED, "model")
        Path("words.txt").write_text(text())
        keep, words = "--keep", ("--text", "words.txt")
        recipe = "equivalent_rescaling+round_to_nearest:bits=4,group=4+eora:rank=2"
        page("compress", "", ["modegpt"], "compress", "model", "--method", "modegpt", keep, 0.8, "--out", "a", *QUICK)
        page("compare", "", ["modegpt", "lord", "failed"], "compare", "model", "--methods",
             "modegpt;lord:rank=99;lord", keep, "0.9,0.7", *QUICK)  # fmt: skip
        page("cache", "cache", ["kivi:bits=4,group=4,window=0"], "cache", "model", "--methods",
             "plain;kivi:bits=4,group=4,window=0", "--context", 16, "--scored", 4, "--windows", 2, *words,
             "--alternations", 0)  # fmt: skip
        tune = ("adapt", "model", "--data", "words.txt", "--steps", 3, "--length", 8, "--windows", 2)
        page("adapt", "adapter", ["lora:rank=1"], *tune, "--adapter", "lora:rank=1", "--out", "b")
        page("adapt-compare", "adapter", ["lora", "dora"], *tune, "--compare", "lora;dora", "--rank", 1, "--out", "c")
        for name, method, more in (("command", "modegpt", (keep, 0.8)), ("command-recipe", recipe, ())):
            with case("model", name, f"what polyad compress --method {method} leaves", **ASKED) as made:
                command("compress", "model", "--method", method, *more, "--out", name, *QUICK, "--json")
                shutil.copytree(name, made.saved)
        with case(
            "adapter", "command", "what polyad adapt leaves", base=BASE, active=["adapter"], merged=True, **ASKED
        ) as made:
            command(*tune, "--adapter", "lora:rank=1", "--out", "d", "--json")
            shutil.copytree("d", made.saved / "adapter")


def page(name, study, told, *arguments):
    with case("page", name, f"what polyad {arguments[0]} --json prints", study=study, told=told) as made:
        made.saved.mkdir()
        said = command(*arguments, "--json")
        (made.saved / "record.json").write_text(json.dumps(said, ensure_ascii=False))


MAKE = (states, tunings, compressions, optimisers, caches, records)
