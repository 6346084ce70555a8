"""Every file says in which version of its format it is, and what is newer is refused by name."""

import functools
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import polyad
import tiny
from polyad import compress, report
from polyad._versions import NEWEST, read_version
from polyad.adapters import AdaLoRA, Adapters
from polyad.adapters.training import trainer_callback
from polyad.compress.run import Asked
from polyad.compress.statistics_store import StatisticsStore
from polyad.data import Calibration, Text
from polyad.data.calibration import splits
from polyad.formats import LowRank, load_format, save_format
from polyad.layers import Linear
from polyad.models import collect, origin
from polyad.optim import Optimizer, ProjectedAdam
from polyad.train import descend
from saved.reading import CASES, EXPECTED, ROOT, read

KINDS = {
    "model": "model", "pretrained": "pretrained", "format": "format", "adapter": "adapter",
    "checkpoint": "checkpoint", "optimizer": "optimizer",
    "descending": "training", "learning": "training", "healing": "training", "finetuning": "training",
    "comparing": "record", "page": "record",
}  # fmt: skip
"""What a case's reader reads. Tensors of users' own and peft's folders have no format of polyad's."""


@pytest.mark.parametrize("case", [case for case in CASES if case.parts[1] in KINDS], ids=str)
@pytest.mark.usefixtures("own_cache")
def test_every_reader_refuses_what_is_newer(case, tmp_path, monkeypatch):
    monkeypatch.setitem(NEWEST, KINDS[case.parts[1]], 0)
    with pytest.raises(
        ValueError, match=r".+ was written by a newer polyad \(format \d; this one reads up to 0\); upgr"
    ):
        read(ROOT / case, tmp_path)


@pytest.mark.parametrize("case", [case for case in CASES if case.parts[1] == "compressing"], ids=str)
@pytest.mark.usefixtures("own_cache")
def test_newer_statistics_are_made_again(case, tmp_path, monkeypatch):
    known = load_file(ROOT / case / EXPECTED)["near/output"]
    monkeypatch.setitem(NEWEST, "statistics", 0)
    assert (read(ROOT / case, tmp_path)["output"] - known).abs().max() > 0.01


def adapted():
    torch.manual_seed(0)
    adapters = Adapters(nn.Sequential(nn.Linear(4, 6)))
    adapters.attach("a", "*", AdaLoRA, rank=2, spare=1)
    return adapters


def write_model(folder):
    polyad.save(nn.Sequential(nn.Linear(4, 4)), folder / "x")
    return "x/polyad.json", lambda: polyad.load(folder / "x", like=nn.Sequential(nn.Linear(4, 4)))


def write_pretrained(folder):
    model = tiny.model()
    polyad.models.replace(model, {"lm_head": Linear(LowRank(torch.ones(500, 1), torch.ones(1, 32)))})
    model.save_pretrained(folder / "x")
    return "the quantization_config of this model", lambda: polyad.load(folder / "x")


def write_adapter(folder):
    adapters = Adapters(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)))
    adapters.attach("a", "0", AdaLoRA, rank=2, spare=1, trained="1")  # without it 0.1.0 could read the folder
    adapters.save("a", folder / "x")
    adapters.detach("a")
    return "x/polyad.json", lambda: adapters.load(folder / "x", "b")


def write_format(folder):
    save_format(LowRank(torch.ones(3, 1), torch.ones(1, 2)), folder / "x.safetensors")
    return "x.safetensors", lambda: load_format(folder / "x.safetensors")


def write_training(folder):
    class Killed(BaseException):
        pass

    def run(kill=False):
        def callback(step, *_):
            if kill and step == 3:
                raise Killed

        x = [nn.Parameter(torch.ones(3))]
        told = {"steps": 4, "rate": 0.1, "stage": "", "state": folder / "x.state", "every": 2}
        descend(x, lambda _step: x[0].square().sum(), callback=callback, **told)

    with pytest.raises(Killed):
        run(kill=True)
    return "x.state", run


def write_checkpoint(folder):
    adapters, args = adapted(), SimpleNamespace(output_dir=folder)
    state = SimpleNamespace(global_step=3, is_world_process_zero=True)
    (folder / "checkpoint-3").mkdir()
    trainer_callback(adapters).on_save(args, state, None)
    return "checkpoint-3/polyad_adapters.safetensors", lambda: trainer_callback(adapters).on_train_begin(
        args, state, None
    )


def write_optimizer(_folder):
    own = Optimizer([nn.Parameter(torch.ones(3, 3))], ProjectedAdam(rank=1))
    stated = own.state_dict()
    return "this optimizer", lambda: own.load_state_dict(stated)


def write_record(folder):
    tiny.model().save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    (folder / "text.txt").write_text(tiny.PART.joined())
    text = (str(folder / "text.txt"),)
    recipes = {"bad": functools.partial(compress.lord, rank=99)}
    points = compress.compare(str(folder / "model"), recipes, [0.8], Asked(text, text, windows=1, alternations=0))
    assert points[0]["error"]
    return r"records\[0\]", lambda: report.write(folder / "x.html", json.loads(json.dumps(points)))


WRITERS = {
    "model": write_model, "pretrained": write_pretrained, "adapter": write_adapter, "format": write_format,
    "training": write_training, "checkpoint": write_checkpoint, "optimizer": write_optimizer, "record": write_record,
}  # fmt: skip
MADE_AGAIN = {"kernels", "statistics", "tokens"}


def test_every_kind_of_file_is_tried():
    assert WRITERS.keys() | MADE_AGAIN == NEWEST.keys()
    assert {*KINDS.values()} == WRITERS.keys()


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.usefixtures("own_cache")
def test_what_a_newer_polyad_writes_is_refused(kind, tmp_path, monkeypatch):
    newest = NEWEST[kind]
    with monkeypatch.context() as newer:
        newer.setitem(NEWEST, kind, 99)
        place, reader = WRITERS[kind](tmp_path)
    sentence = (
        rf"{place} was written by a newer polyad \(format 99; this one reads up to {newest}\); upgrade with: pip"
    )
    with pytest.raises(ValueError, match=sentence):
        reader()
    monkeypatch.setitem(NEWEST, kind, 99)
    reader()


def test_statistics_and_tokens_of_a_newer_polyad_are_made_again(tmp_path, monkeypatch, own_cache):
    model, text = tiny.model(), Calibration(tiny.ids(2, 16), tiny.ids(1, 16), {"ids": "0"})
    store, asked = StatisticsStore(tmp_path / "work", "x"), {"model.layers.0.mlp.up_proj": {"second"}}
    model.polyad_origin = type(origin(model))("x", None, tiny.tokenizer())
    words = Text("words", (("a", tiny.PART.joined()[:4000]),))
    with monkeypatch.context() as newer:
        newer.setitem(NEWEST, "statistics", 99)
        newer.setitem(NEWEST, "tokens", 99)
        store.keep(0, asked, text, collect(model, asked, [tiny.ids()]))
        splits(model, words)
        assert store.recall(0, asked, text) is not None
    assert store.recall(0, asked, text) is None
    (file,) = (own_cache / "tokens").iterdir()
    before = file.read_bytes()
    (made,) = splits(model, words)
    assert file.read_bytes() != before  # written again, as this version does
    (again,) = splits(model, words)
    assert torch.equal(again.calibration, made.calibration)


@pytest.mark.parametrize("stated", ["two", 0, -1, 1.5, True, "", [1]])
def test_a_version_that_is_no_number_is_refused(stated):
    with pytest.raises(ValueError, match=r"here states the version .*, which is no number from 1"):
        read_version("format", "here", stated)


@pytest.mark.parametrize("stated", [None, 1, "1"])
def test_what_states_no_version_is_of_the_first(stated):
    assert read_version("format", "here", stated) == 1


def test_unknown_fields_of_a_format_are_named():
    spec = LowRank(torch.ones(3, 1), torch.ones(1, 2)).spec()
    spec["fields"]["signs"] = {"shape": [3], "dtype": "int8"}
    with pytest.raises(ValueError, match=r"a LowRank has no signs here; .* newer polyad"):
        polyad.Format.from_spec(spec)
