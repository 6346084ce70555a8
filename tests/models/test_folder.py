"""Models on disk: back to the last digit, whole or not at all, and never half understood."""

import copy
import errno
import functools
import json
import os
import re
import shutil
import signal

import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

import polyad
import tiny
from polyad import compress
from polyad.decompose import svd
from polyad.evaluation import nbytes
from polyad.formats import LowRank, Product, Sparse, Sum
from polyad.layers import Conv, Embedding, Factors, Linear
from polyad.models import folder as folders
from polyad.models import origin, replace, shards
from polyad.models.attention import ReducedAttention
from polyad.quantize import round_to_nearest

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"


def weight(model, path):
    return model.get_submodule(path).weight.detach()


def low_rank(model):
    replace(model, {UP: Linear(svd(weight(model, UP), 5))})


def quantized(model):
    replace(model, {UP: Linear(round_to_nearest(weight(model, UP), 4)),
                    DOWN: Linear(round_to_nearest(weight(model, DOWN), 3, group=16, symmetric=True))})  # fmt: skip


def summed(model):
    rough = round_to_nearest(weight(model, UP), 3)
    replace(model, {UP: Linear(Sum((rough, svd(weight(model, UP) - rough.to_dense(), 2))))})


def product(model):
    made = svd(weight(model, UP), 6)
    parts = (made.left.contiguous(), made.right.contiguous())
    replace(model, {UP: Linear(Product(tuple(round_to_nearest(part, 8) for part in parts)))})


def shared(model):
    """A sum whose terms hold one tensor together."""
    one = svd(weight(model, UP), 4)
    replace(model, {UP: Linear(Sum((one, LowRank(one.left, torch.ones(4, 32)))))})


def embedded(model):
    replace(model, {"model.embed_tokens": Embedding(svd(weight(model, "model.embed_tokens"), 20))})


def embedded_sum(model):
    rough = round_to_nearest(weight(model, "model.embed_tokens"), 4)
    rest = svd(weight(model, "model.embed_tokens") - rough.to_dense(), 2)
    replace(model, {"model.embed_tokens": Embedding(Sum((rough, rest)))})


def reduced(model):
    recipe = functools.partial(compress.modegpt, keep=3)
    text = polyad.data.Calibration(tiny.ids(4, 32), tiny.ids(1, 32), {"ids": "0"})
    polyad.apply(model, polyad.plan(model, recipe, calibrate=text))


def sparse(model):
    dense = weight(model, UP)
    replace(model, {UP: Linear(Sparse.from_dense(dense * (dense.abs() > 0.2)))})


CHANGES = (low_rank, quantized, summed, product, shared, embedded, embedded_sum, reduced, sparse)


@pytest.mark.parametrize("kind", ["llama", "tied", "mistral"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_model_comes_back_to_the_last_digit(change, kind, tmp_path):
    model = tiny.model(kind)
    change(model)
    said = tiny.logits(model)
    polyad.save(model, tmp_path / "out", tokenizer=tiny.tokenizer())
    again = polyad.load(tmp_path / "out")
    assert torch.equal(tiny.logits(again), said)
    assert {p: type(m) for p, m in again.named_modules()} == {p: type(m) for p, m in model.named_modules()}
    first, second = (m.state_dict() for m in (model, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) and first[n].dtype == second[n].dtype for n in first)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in again.parameters())
    with pytest.raises(ValueError, match=r"(?s)polyad"):  # transformers names the type that it does not know
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("change", [embedded, embedded_sum], ids=lambda f: f.__name__)
def test_ties_hold_through_save_and_load(change, tmp_path):
    model = tiny.model("tied")
    change(model)
    polyad.save(model, tmp_path / "out")
    again = polyad.load(tmp_path / "out")
    assert isinstance(again.lm_head.weight, Factors)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert shards.folder_bytes(tmp_path / "out") == nbytes(model, ()).total + rotary(model)


def rotary(model):
    saved = model.state_dict().keys()
    return sum(b.nbytes for n, b in model.named_buffers() if n not in saved)


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_saving_in_a_dtype_rounds_weights_alone(change, tmp_path):
    model = tiny.model("tied")
    change(model)
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.data = parameter.bfloat16().float()
    size = nbytes(model, (), width=2).total
    polyad.save(model, tmp_path / "out", dtype=torch.bfloat16)
    assert shards.folder_bytes(tmp_path / "out") == size + rotary(model)
    again = polyad.load(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(tiny.logits(again), tiny.logits(expected), rtol=0, atol=0)
    stored = polyad.load(tmp_path / "out")
    assert stored.lm_head.weight.dtype == torch.bfloat16
    assert tiny.logits(stored).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["llama", "tied", "qwen2", "mistral", "qwen3"])
def test_ordinary_layers_make_a_folder_for_transformers(kind, tmp_path):
    model = tiny.model(kind)
    if kind != "qwen3":
        for layer in model.model.layers:  # one width for every MLP is what a configuration can state
            for role, cut in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
                old = getattr(layer.mlp, role).weight.detach()
                new = old[:40] if cut == 0 else old[:, :40]
                setattr(layer.mlp, role, nn.Linear(new.shape[1], new.shape[0], bias=False))
                getattr(layer.mlp, role).weight.data = new.clone()
    said = tiny.logits(model)
    polyad.save(model, tmp_path / "out")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(tiny.logits(plain), said)
    assert torch.equal(tiny.logits(polyad.load(tmp_path / "out")), said)
    assert plain.config.intermediate_size == (40 if kind != "qwen3" else 48)
    assert not (tmp_path / "out" / "buffers.safetensors").exists()


def test_widths_that_no_configuration_states_are_polyads(tmp_path):
    model = tiny.model()
    mlp = model.model.layers[0].mlp
    for role in ("gate_proj", "up_proj"):
        setattr(mlp, role, nn.Linear(32, 20, bias=False))
    mlp.down_proj = nn.Linear(20, 32, bias=False)
    said = tiny.logits(model)
    polyad.save(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "polyad"
    assert torch.equal(tiny.logits(polyad.load(tmp_path / "out")), said)


def convnet(width=12):
    """A convnet as people write them: a batch norm with running numbers, a buffer that no state dict holds."""
    torch.manual_seed(width)
    made = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.Conv2d(width, 8, 3, stride=2, bias=False), nn.Flatten(), nn.Linear(8 * 9, 5))  # fmt: skip
    made(torch.randn(4, 3, 8, 8))  # moves the running numbers
    made[2].register_buffer("note", torch.arange(3.0), persistent=False)
    return made.eval()


@pytest.mark.parametrize("limit", [10**9, 500])
def test_any_module_comes_back_into_another_of_its_kind(tmp_path, limit):
    model, x = convnet(), torch.randn(2, 3, 8, 8)
    kernel = model[3].weight.detach().flatten(1)
    replace(
        model, {"3": Conv.like(model[3], svd(kernel, 3)), "5": Linear(round_to_nearest(model[5].weight.detach(), 8))}
    )
    polyad.save(model, tmp_path / "out", max_shard_size=limit)
    like = convnet()
    before = copy.deepcopy(like.state_dict())
    again = polyad.load(tmp_path / "out", like=like)
    assert torch.equal(again(x), model(x))
    assert torch.equal(again[2].note, torch.arange(3.0))
    assert again is not like
    assert all(torch.equal(before[n], t) for n, t in like.state_dict().items())
    with pytest.raises(ValueError, match=r"holds a Sequential, which no configuration .* like=Sequential\(\.\.\.\)"):
        polyad.load(tmp_path / "out")
    with pytest.raises(ValueError, match=r"with a module at 3, and this Sequential has none there"):
        polyad.load(tmp_path / "out", like=nn.Sequential(nn.Conv2d(3, 12, 3)))
    with pytest.raises(ValueError, match=r"do not fit the model: size mismatch for 0\.weight|size mismatch"):
        polyad.load(tmp_path / "out", like=convnet(width=16))


SHARD = 30_000


def untouched(model):
    pass


@pytest.mark.parametrize("change", [untouched, low_rank, embedded], ids=lambda f: f.__name__)
def test_large_models_go_into_several_files(change, tmp_path):
    model = tiny.model("tied")
    change(model)
    polyad.save(model, tmp_path / "out", max_shard_size=SHARD)
    polyad.save(model, tmp_path / "one")
    files = sorted(f.name for f in (tmp_path / "out").glob("model-*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    buffers = 0 if change is untouched else rotary(model)
    assert index["metadata"]["total_size"] == shards.folder_bytes(tmp_path / "one") - buffers
    sizes = [(tmp_path / "out" / f).stat().st_size for f in files]
    assert all(
        size < SHARD + 5000 or len(load_file(tmp_path / "out" / f)) == 1 for f, size in zip(files, sizes, strict=True)
    )
    stated = json.loads((tmp_path / "out" / "polyad.json").read_text())
    assert {*files, "model.safetensors.index.json"} <= stated["sha256"].keys()
    assert stated["version"] == 2
    assert json.loads((tmp_path / "one" / "polyad.json").read_text())["version"] == 1
    said = tiny.logits(model)
    assert torch.equal(tiny.logits(polyad.load(tmp_path / "out")), said)
    if stated["plain"]:
        plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(tiny.logits(plain), said)


def test_a_shard_that_is_missing_or_cut_short_is_named(tmp_path):
    folder = polyad.save(tiny.model(), tmp_path / "out", max_shard_size=SHARD)
    second = sorted(folder.glob("model-*.safetensors"))[1]
    whole = second.read_bytes()
    cut_short(second)
    with pytest.raises(ValueError, match=rf"{second.name} was changed or truncated since it was saved; copy"):
        polyad.load(folder)
    second.unlink()
    with pytest.raises(FileNotFoundError, match=rf"is not whole: {second.name} is missing; copy"):
        polyad.load(folder)
    second.write_bytes(whole)
    index = folder / "model.safetensors.index.json"
    cut_short(index)
    with pytest.raises(ValueError, match=r"index\.json was changed or truncated"):
        polyad.load(folder)


def test_shards_are_cast_to_the_dtype_that_is_stored(tmp_path):
    model = tiny.model()
    quantized(model)
    polyad.save(model, tmp_path / "out", dtype=torch.bfloat16, max_shard_size=SHARD)
    polyad.save(model, tmp_path / "one", dtype=torch.bfloat16)
    assert shards.folder_bytes(tmp_path / "out") == shards.folder_bytes(tmp_path / "one")
    first, second = polyad.load(tmp_path / "out"), polyad.load(tmp_path / "one")
    assert torch.equal(tiny.logits(first), tiny.logits(second))


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "5GB"])
def test_a_size_of_shards_that_is_no_number_of_bytes_is_refused(tmp_path, limit):
    with pytest.raises(ValueError, match=r"max_shard_size=.* is not a number of bytes"):
        polyad.save(tiny.model(), tmp_path / "out", max_shard_size=limit)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path):
    model = tiny.model()
    low_rank(model)
    return polyad.save(model, tmp_path / "out", tokenizer=tiny.tokenizer())


def edit(path, **changes):
    stated = json.loads(path.read_text())
    stated.pop("checksum", None)
    path.write_text(json.dumps({**stated, **changes}))


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_byte(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "weights cut short": (lambda f: cut_short(f / "model.safetensors"), "changed or truncated since it was saved"),
    "one byte": (lambda f: one_byte(f / "model.safetensors"), r"safetensors was changed .* copy the folder again"),
    "buffers": (lambda f: one_byte(f / "buffers.safetensors"), r"buffers\.safetensors was changed"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing; copy the folder"),
    "no config": (lambda f: (f / "config.json").unlink(), r"is not whole: .*config\.json cannot be read"),
    "half a manifest": (lambda f: cut_short(f / "polyad.json"), r"is not whole: .*polyad\.json is no JSON"),
    "no manifest's content": (lambda f: (f / "polyad.json").write_text("[1]"), r"states \[1\], where an object"),
    "no manifest": (lambda f: (f / "polyad.json").unlink(), r"is not whole: polyad\.json is missing; copy"),
    "a version in words": (lambda f: edit(f / "polyad.json", version="two"), "states the version 'two', which is no"),
    "no sums": (lambda f: edit(f / "polyad.json", sha256=["x"]), r"states \[\"x\"\] for sha256, where an"),
    "half a tokenizer": (lambda f: cut_short(f / "tokenizer.json"), r"the tokenizer in .* cannot be read .* copy"),
    "unknown type": (
        lambda f: edit(f / "config.json", polyad_model_type="mystery"), "knows no model of type 'mystery'; upgrade",
    ),
    "another size": (lambda f: edit(f / "config.json", vocab_size=400), "do not fit the model: size mismatch for"),
    "newer": (lambda f: edit(f / "polyad.json", version=99), r"newer polyad \(format 99; .*pip install -U"),
    "unknown layer": (
        lambda f: edit(f / "polyad.json", modules={UP: {"layer": "Mystery"}}), "no layer is called 'Mystery'.*newer",
    ),
    "other modules": (lambda f: edit(f / "polyad.json", modules={}), "weights do not fit the model: missing"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders_say_what_is_wrong_with_them(saved, damage):
    harm, sentence = DAMAGE[damage]
    harm(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        polyad.load(saved)


@pytest.mark.parametrize("harm", ["cut", "gone", "empty config"])
def test_damaged_folders_of_transformers_are_refused(tiny_folder, tmp_path, harm, own_cache):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    if harm == "cut":
        cut_short(folder / "model.safetensors")
    elif harm == "gone":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(
        (ValueError, OSError),
        match=r"(cannot be read|is no JSON that can be read).*; copy the folder again|no file named",
    ):
        polyad.load(folder)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    large = tiny.tokenizer()
    large.add_tokens(["one more"])
    large.save_pretrained(folder)
    with pytest.raises(ValueError, match="tokenizer knows 501 tokens and the model's embedding has 500 rows"):
        polyad.load(folder)


def test_loading_says_where_a_model_comes_from(tiny_folder):
    model = polyad.load(tiny_folder)
    assert origin(model).folder == tiny_folder
    assert origin(model).name == str(tiny_folder)
    assert len(origin(model).tokenizer) == 500
    assert polyad.load(tiny_folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert origin(nn.Linear(1, 1)).folder is None
    with pytest.raises(ValueError, match="Linear has no tokenizer"):
        polyad.models.encoder(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("/no/such/folder", "there is no model at /no/such/folder"), ("./nothing", "there is no model at nothing"),
     ("nobody/nothing", "'nobody/nothing' is no folder here"),
     ("/no/such.gguf", "no GGUF file at")],
)  # fmt: skip
def test_models_that_are_not_there(name, sentence, own_cache):
    with pytest.raises(FileNotFoundError, match=sentence):
        polyad.load(name)


def test_an_output_folder_that_holds_something_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="out already holds something; choose another folder"):
        polyad.save(tiny.model(), tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine.txt"]
    (tmp_path / "empty").mkdir()
    polyad.save(tiny.model(), tmp_path / "empty")
    assert polyad.load(tmp_path / "empty")


def test_a_folder_that_cannot_be_made_is_refused_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file is a file, so nothing can be made in it; choose another"):
        folders.check_free(tmp_path / "file" / "a" / "b")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"nothing can be written in .*; choose another place"):
        polyad.save(tiny.model(), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_device_that_is_not_there_is_refused(tiny_folder):
    with pytest.raises(ValueError, match=r"device='abacus' cannot be used here .* choose another, such as cpu"):
        polyad.load(tiny_folder, device="abacus")


def test_a_full_disk_is_noticed_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(OSError, match=r"0 MB are to be written .* nothing was written") as error:
        polyad.save(tiny.model(), tmp_path / "out")
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")],
)
def test_a_disk_that_fills_while_writing_leaves_nothing(tmp_path, monkeypatch, failure):
    def fails(_tensors, path, **_):
        path.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(shards, "save_file", fails)
    with pytest.raises(OSError, match="No space left on device"):
        polyad.save(tiny.model(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_kill_while_saving_leaves_no_folder_and_the_next_save_works(tmp_path, monkeypatch):
    def killed(_tensors, path, **_):
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    model = tiny.model()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(shards, "save_file", killed)
        polyad.save(model, tmp_path / "out")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    (left,) = [p.name for p in tmp_path.iterdir()]
    assert re.fullmatch(rf"\.out\.{child}\.[0-9a-f]+\.partial", left)
    polyad.save(model, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert torch.equal(tiny.logits(polyad.load(tmp_path / "out")), tiny.logits(model))


def write(target, content, **options):
    with folders.staged_folder(target, replace=True, **options) as partial:
        (partial / "file").write_text(content)


def test_replacing_a_folder_never_leaves_none(tmp_path, monkeypatch):
    target = tmp_path / "out"
    write(target, "old")
    write(target, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    real = type(target).replace

    def fails(self, other):
        if self.name.endswith(".partial"):
            raise OSError("moving failed")
        return real(self, other)

    monkeypatch.setattr(type(target), "replace", fails)
    with pytest.raises(OSError, match="moving failed"):
        write(target, "newest")
    assert (target / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


DEAD = ".out.999999999.01234567.old"


def test_what_is_not_of_polyad_stays_beside_a_folder(tmp_path):
    write(tmp_path / ".out.old", "the user's own")
    write(tmp_path / "out", "one")
    write(tmp_path / "out", "two")
    with pytest.raises(FileExistsError, match="already holds something"), folders.staged_folder(tmp_path / "out"):
        pass
    assert (tmp_path / ".out.old" / "file").read_text() == "the user's own"


def test_of_two_writers_the_second_is_told(tmp_path):
    def write_both():
        with folders.staged_folder(tmp_path / "out") as mine:
            (mine / "file").write_text("mine")
            with folders.staged_folder(tmp_path / "out") as theirs:
                (theirs / "file").write_text("theirs")

    with pytest.raises(FileExistsError, match="written by another process meanwhile"):
        write_both()
    assert (tmp_path / "out" / "file").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_replacement_killed_between_its_moves_keeps_the_old_folder(tmp_path):
    target = tmp_path / "out"
    write(tmp_path / DEAD, "old")  # what a kill leaves after the first move
    with pytest.raises(RuntimeError), folders.staged_folder(target, replace=True):
        raise RuntimeError
    assert (target / "file").read_text() == "old"
    write(tmp_path / DEAD, "older")  # and after the second
    write(target, "new")
    assert (target / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_reduced_attention_is_in_the_folder(tmp_path):
    model = tiny.model("qwen3")
    assert not any(isinstance(m, ReducedAttention) for m in model.modules())
    polyad.save(model, tmp_path / "out", recipe=[{"method": "none"}], base={"name": "x"}, seed=3)
    stated = json.loads((tmp_path / "out" / "polyad.json").read_text())
    assert (stated["plain"], stated["seed"], stated["recipe"]) == (True, 3, [{"method": "none"}])
