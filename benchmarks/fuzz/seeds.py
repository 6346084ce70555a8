"""The files that are damaged, each with how polyad reads it: what tests/saved holds, and files written here anew."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.fuzz.judging import Again
from torch import Tensor, nn

import polyad
from polyad._arguments import read_method
from polyad.adapters import Adapters
from polyad.adapters.host.build import method_of
from polyad.claims import _result_files
from polyad.compress.asked import read_allocation
from polyad.compress.recipe import steps
from polyad.compress.statistics_store import StatisticsStore
from polyad.data import tensors
from polyad.data.calibration import Calibration
from polyad.data.text import Text
from polyad.evaluation import baselines, quality
from polyad.formats import LowRank, Tucker, load_format, save_format
from polyad.statistics import Moments
from polyad.train import descend

texts = importlib.import_module("polyad.data.text")
TESTS = Path(__file__).parents[2] / "tests"
SAVED = (
    "adapter",
    "cache",
    "checkpoint",
    "descending",
    "finetuning",
    "format",
    "healing",
    "learning",
    "model",
    "peft",
)
TEXTS = (
    "rtn:bits=4,group=64+eora:rank=32", "modegpt:rules=mlp-vo", "lord", "lora:rank=8,alpha=16,dropout=0.1",
    "block_influence:temperature=0.2", "kivi:bits=4,group=32,window=64", "tt_svd:rank=2", "gralora:rank=4",
)  # fmt: skip
Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Seed:
    """A kind and a name, a folder as it was written, the files of it to damage, and how it is read."""

    kind: str
    name: str
    folder: Path
    files: tuple[str, ...]
    read: Read


def seeds(place: Path) -> list[Seed]:
    """Every seed, written into a folder; the fresh ones last."""
    return [*_saved(place), *_fresh(place)]


def _digests(values: dict[str, Tensor]) -> dict[str, str]:
    from saved.reading import digest  # pyright: ignore[reportMissingImports]

    return {name: digest(tensor) for name, tensor in values.items()}


def _saved(place: Path) -> Iterator[Seed]:
    """The cases of tests/saved; the models that adapters are of are loaded once and copied."""
    sys.path[:0] = [str(TESTS)]
    from saved import reading  # pyright: ignore[reportMissingImports]

    plain = functools.cache(reading.based)

    def base(_folder: Path, case: dict[str, Any]) -> nn.Module:
        name = case["base"]
        return copy.deepcopy(_base_of(plain, reading.ROOT / "0.1.0" / "adapter" / "lora", name))

    reading.based = base
    reading.load_file = tensors.read_tensors  # what a cache is started from, as polyad reads it
    for case in reading.CASES:
        version, kind, name = case.parts
        if kind not in SAVED:
            continue
        shutil.copytree(reading.ROOT / case, place / version / kind / name)
        folder = place / version / kind / name
        stated = json.loads((folder / reading.CASE).read_text())
        files = tuple(str(f.relative_to(folder)) for f in sorted((folder / "saved").rglob("*")) if f.is_file())
        read = functools.partial(_read_case, reading.READERS[stated["kind"]], stated)
        yield Seed(kind, f"{version}/{kind}/{name}", folder, files, read)


class _Frozen(dict[str, Any]):
    """A case that can be a key of a cache."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(self["base"])


def _base_of(plain: Any, folder: Path, name: str) -> nn.Module:
    return plain(folder, _Frozen(base=name))


def _read_case(reader: Any, stated: dict[str, Any], folder: Path) -> dict[str, str]:
    work = folder / "work"
    work.mkdir()
    return _digests(reader(folder, stated, work))


def _fresh(place: Path) -> Iterator[Seed]:
    """Files as this version writes them, with their checksums."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=generator)
    for name, read in _READERS.items():
        folder = place / "fresh" / name
        folder.mkdir(parents=True)
        _WRITERS[name](folder, x)
        files = tuple(str(f.relative_to(folder)) for f in sorted(folder.rglob("*")) if f.is_file())
        yield Seed(name, f"fresh/{name}", folder, files, read)


def _write_statistics(folder: Path, x: Tensor) -> None:
    StatisticsStore(folder, "x").keep(0, {"a": {"second"}}, _CALIBRATION, {"a": Moments(4, second=x.mT @ x)})


_CALIBRATION = Calibration(torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2), {"ids": "0"})


def _read_statistics(folder: Path) -> Any:
    kept = StatisticsStore(folder, "x").recall(0, {"a": {"second"}}, _CALIBRATION)
    if kept is None:
        raise Again("the statistics are collected again")
    return {name: (m.count, _digests(dict(m.values))) for name, m in kept.items()}


def _descend(file: Path, steps: int, stop: int | None = None) -> dict[str, str]:
    x = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]

    def loss(step: int) -> Tensor:
        if step == stop:
            raise KeyboardInterrupt
        return torch.stack([(p - 2).square().sum() for p in x]).sum()

    losses = descend(x, loss, steps=steps, rate=0.1, state=file, every=2)
    return _digests({"losses": torch.tensor(losses), "0": x[0], "1": x[1]})


def _write_training(folder: Path, _x: Tensor) -> None:
    try:
        _descend(folder / "run.state", 6, 5)
    except KeyboardInterrupt:
        return


def _write_tokens(folder: Path, _x: Tensor) -> None:
    _read_tokens(folder)


_TEXT = Text("t", (("a", "some words, and some more of them " * 9),))


def _encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def _read_tokens(folder: Path) -> Any:
    with patch.object(texts, "cache_folder", lambda: folder):
        parts = texts.cached_split(_TEXT, _encode, "t")
    return _digests({"calibration": parts.calibration, "evaluation": parts.evaluation})


def _write_baseline(folder: Path, _x: Tensor) -> None:
    _read_baseline(folder)


def _read_baseline(folder: Path) -> list[float]:
    known = {
        "_losses": lambda *_, **__: torch.tensor([1.5, 2.5], dtype=torch.float64),
        "base_of": lambda _: {"x": "y"}, "model_fingerprint": lambda _: [],
    }  # fmt: skip
    with patch.multiple(quality, **known), patch.object(baselines, "cache_folder", lambda: folder):
        return quality.original_losses(nn.Linear(1, 1), torch.ones(2, 3, dtype=torch.int64)).tolist()


def _write_claim(folder: Path, _x: Tensor) -> None:
    file = sorted(_result_files.RESULTS.glob("*.json"), key=lambda f: f.stat().st_size)[0]
    shutil.copy(file, folder / file.name)


def _read_claim(folder: Path) -> Any:
    (file,) = folder.glob("*.json")
    with patch.object(_result_files, "RESULTS", folder):
        result = _result_files.read_result(file.stem)
    return result and (repr(result.lines), json.dumps(result.details, sort_keys=True), tuple(result.definitions))


def _write_model(folder: Path, _x: Tensor) -> None:
    import tiny  # pyright: ignore[reportMissingImports]

    model = tiny.model()
    polyad.save(model, folder, tokenizer=tiny.tokenizer())


def _read_model(folder: Path) -> dict[str, str]:
    model = polyad.load(folder)
    return _digests({**model.state_dict(), "output": model(torch.ones(1, 3, dtype=torch.int64)).logits.detach()})


def _write_gguf(folder: Path, _x: Tensor) -> None:
    import tiny  # pyright: ignore[reportMissingImports]
    from models.test_gguf import write  # pyright: ignore[reportMissingImports]

    model = tiny.model()
    write(folder / "tiny.gguf", model.config, model.state_dict(), tiny.tokenizer())


def _write_adapter(folder: Path, _x: Tensor) -> None:
    model = _linear()
    adapters = Adapters(model)
    adapters.attach("a", "*", method_of("lora:rank=2"))
    adapters.save("a", folder / "a")


def _linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


def _read_adapter(folder: Path) -> dict[str, str]:
    adapters = Adapters(_linear())
    return _digests(adapters.state_dict(adapters.load(folder / "a")))


def _write_tensors(folder: Path, x: Tensor) -> None:
    import numpy

    numpy.save(folder / "x.npy", x.numpy())
    numpy.savez(folder / "x.npz", a=x.numpy(), b=x.numpy())
    from safetensors.torch import save_file

    save_file({"x": x}, folder / "x.safetensors")


def _read_tensors(folder: Path) -> dict[str, str]:
    read = {f"{f.name}/{n}": t for f in sorted(folder.glob("x.*")) for n, t in tensors.read_tensors(f).items()}
    return _digests({name: t for name, t in read.items() if not t.is_complex()})


def _write_formats(folder: Path, x: Tensor) -> None:
    save_format(LowRank(x, x.mT), folder / "low.safetensors")
    save_format(Tucker(torch.ones(2, 1, 2), (x[:, :2], x[:, :1], x[:, 1:])), folder / "tucker.safetensors")


def _read_formats(folder: Path) -> dict[str, str]:
    formats = {f.name: load_format(f) for f in sorted(folder.glob("*.safetensors"))}
    return _digests({name: format.to_dense() for name, format in formats.items()})


def _write_texts(folder: Path, _x: Tensor) -> None:
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.method").write_text(text, encoding="utf-8")


def _read_texts(folder: Path) -> list[str]:
    said: list[str] = []
    reads = (steps, steps, steps, method_of, read_allocation, lambda t: read_method(t, ["codec"]),
             lambda t: read_method(t, ["decompose"]), method_of)  # fmt: skip
    for i, read in enumerate(reads):
        said.append(repr(read((folder / f"{i}.method").read_text(encoding="utf-8", errors="replace"))))
    return said


_WRITERS: dict[str, Callable[[Path, Tensor], None]] = {
    "formats": _write_formats, "statistics": _write_statistics, "training": _write_training, "tokens": _write_tokens,
    "baseline": _write_baseline, "claim": _write_claim, "folder": _write_model, "gguf": _write_gguf,
    "adapters": _write_adapter, "tensors": _write_tensors, "texts": _write_texts,
}  # fmt: skip
_READERS: dict[str, Read] = {
    "formats": _read_formats, "statistics": _read_statistics, "training": lambda f: _descend(f / "run.state", 6),
    "tokens": _read_tokens, "baseline": _read_baseline, "claim": _read_claim, "folder": _read_model,
    "gguf": lambda f: _read_model(f / "tiny.gguf"), "adapters": _read_adapter, "tensors": _read_tensors,
    "texts": _read_texts,
}  # fmt: skip
