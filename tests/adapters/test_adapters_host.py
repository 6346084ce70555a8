"""What a demanding user does to the host of adapters: odd models, odd moments, several hosts, damaged folders."""

import copy
import hashlib
import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import polyad
import tiny
from polyad._card import card
from polyad.adapters import Adapted, Adapters, DoRA, LoRA, PiSSA, RiemannLoRA, VeRA
from polyad.adapters.training.loop import train
from polyad.layers import Linear
from polyad.quantize import round_to_nearest as rtn
from polyad.testing.adapters import Experts, move
from polyad.testing.decoders import random_decoder

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(7))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 8), nn.Linear(8, 4, bias=False))


def hosted(method=LoRA, which="*", model=None, **how):
    model = model or network()
    adapters = Adapters(model)
    adapters.attach("a", which, method, **{"rank": 2, **how})
    move(adapters, "a")
    return model, adapters


METHODS = {
    "lora": {"rank": 2}, "dora": {"rank": 2}, "lokr": {"factor": 4}, "c3a": {"block": 4}, "surm": {},
    "tlora_transform": {"rank": 2}, "vera": {"rank": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rows", [1, 400])
def test_hooks_of_a_layer_and_forward_passes_put_in_its_place_go_on_running(name, rows):
    model, x = network(), X.repeat(rows, 1)
    model[0].register_forward_hook(lambda layer, given, y: 2 * y)
    own = model[2].forward
    model[2].forward = lambda x: own(x) + 1
    expected = model(x)
    adapters = Adapters(model)
    adapters.attach("a", ["0", "2"], card(name).function, **METHODS[name])
    assert torch.allclose(model(x), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(model(x), expected, atol=1e-5)


def test_an_encoder_of_torch_runs_its_adapters_in_evaluation_too():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        plain = model(x)
    adapters = Adapters(model)
    adapters.attach("a", ["*linear1", "*linear2"], LoRA, rank=2)
    move(adapters, "a")
    with torch.no_grad():
        found = model(x)
    assert (found - plain).abs().max() > 1e-2
    assert torch.allclose(found, model(x), atol=1e-5)
    with pytest.raises(ValueError, match=r"cannot act on layers.0.self_attn.out_proj.* a MultiheadAttention, reads"):
        adapters.attach("b", ["*linear1", "layers.0.self_attn.out_proj"], LoRA, rank=2)
    assert not any("out_proj" in match.name for match in adapters.preview("*", LoRA, rank=2))
    adapters.detach("a")
    with torch.no_grad():
        assert torch.equal(model(x), plain)


def test_hosts_of_one_model_know_of_each_other():
    model = network()
    first, second = Adapters(model), Adapters(model)
    first.attach("a", "0", LoRA, rank=2)
    second.attach("b", "*", LoRA, rank=2)
    move(first, "b")
    assert first.names == second.names == ["a", "b"]
    assert sorted(first.of("b")) == ["0", "2", "3"]
    with pytest.raises(ValueError, match="attached already"):
        second.attach("a", "2", LoRA, rank=2)
    first.activate([])
    assert second.active == {}
    assert torch.equal(model(X), network()(X))
    second.detach("b")
    first.detach("a")
    assert second.names == []
    assert all(type(layer) is nn.Linear for layer in (model[0], model[2], model[3]))
    second.attach("c", "2", LoRA, rank=2)
    move(first, "c")
    assert isinstance(model[2], Adapted)
    assert not torch.allclose(model(X), network()(X))


@pytest.mark.parametrize(
    ("which", "how", "said"),
    [
        ([], {}, r"which=\[\] names no layers"),
        ("*", {"parts": {"0": []}}, r"parts=\[\] of 0 are not pairs of its 16 rows"),
    ],
)
def test_what_names_nothing_is_refused(which, how, said):
    adapters = Adapters(network())
    with pytest.raises(ValueError, match=said):
        adapters.attach("a", which, LoRA, rank=2, **how)
    assert adapters.names == []
    assert adapters.attach("a", (path for path in ("0", "2")), LoRA, rank=2) == ["0", "2"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rank": 2.5}, r"0 of shape \(16, 12\): rank=2.5 is no whole number; give one such as rank=2"),
        ({"rank": "8"}, "rank='8' is no number"),
        ({"alpha": float("nan")}, "alpha=nan is no finite number"),
        ({"method": DoRA, "alpha": float("inf")}, "alpha=inf is no finite number"),
        ({"method": 3}, "method=3 makes no adapters; give a class"),
        ({"method": lambda shape, rank: nn.Linear(2, 2)}, "0 of shape .*: the method makes a Linear, .* no Adapter"),
        ({"which": None}, "which=None names no layers"),
        ({"which": [5]}, r"which=\[5\] names no layers"),
        ({"name": 5}, "name=5 cannot name a module"),
        ({"dropout": {"0": 0.5}}, "dropout={'0': 0.5} is not a share"),
        ({"parts": {"0": (0, 2)}}, r"parts=\(0, 2\) of 0 are not pairs of its 16 rows"),
        ({"method": RiemannLoRA, "loss": lambda: torch.ones(3)}, r"loss\(\) gives \(3,\)"),
        ({"method": RiemannLoRA, "loss": lambda: 3.0}, r"loss\(\) gives float"),
    ],
)
def test_what_is_no_argument_is_refused_in_a_sentence(how, said):
    model = network()
    before = list(model)
    how = {"name": "a", "which": "*", "method": LoRA, "rank": 2, **how}
    with pytest.raises((ValueError, TypeError), match=said):
        Adapters(model).attach(**how)
    assert all(a is b for a, b in zip(model, before, strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_a_list_of_modules_is_as_long_as_before():
    model = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])
    Adapters(model).attach("a", "*", card("vera").function, rank=3)
    assert len(model) == 2


def test_a_model_that_is_a_layer_has_no_place_for_another():
    layer = nn.Linear(12, 4)
    with pytest.raises(ValueError, match=r"itself a Linear; wrap it: nn.Sequential\(model\)"):
        Adapters(layer).attach("a", "*", LoRA, rank=2)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_nothing_is_loaded_or_merged_at_the_wrong_moment(tmp_path):
    model, adapters = hosted()
    folder = adapters.save("a", tmp_path / "a")
    expected, keys = model(X), list(model.state_dict())
    with adapters.routed(["a"] * 5), pytest.raises(ValueError, match="leave it before you merge"):
        adapters.merge()
    assert torch.equal(model(X), expected)
    adapters.merge()
    with pytest.raises(ValueError, match=r"unmerge\(\) before you attach"):
        adapters.load(folder, "b")
    assert list(model.state_dict()) == keys
    with pytest.raises(RuntimeError, match=r"merged into 0; call unmerge\(\)"):
        model.load_state_dict(network().state_dict(), strict=False)
    adapters.unmerge()
    assert torch.equal(model(X), expected)
    model.load_state_dict({k: 2 * t for k, t in network().state_dict().items()}, strict=False)
    adapters.detach("a")
    assert torch.equal(model[0].weight, 2 * network()[0].weight)


def test_training_of_what_does_not_act_is_refused():
    model, adapters = hosted()
    run = lambda: train(adapters, "a", lambda step: model(X).square().sum(), steps=1)  # noqa: E731
    adapters.merge()
    with pytest.raises(ValueError, match="loss of step 0 depends on nothing that is trained"):
        run()
    adapters.unmerge()
    adapters.freeze("a")
    with pytest.raises(ValueError, match="nothing of 'a' is trained; thaw it"):
        run()


@pytest.mark.parametrize(
    "bound", [parametrizations.weight_norm, lambda m: prune.random_unstructured(m, "weight", 0.5)]
)
def test_weights_that_follow_from_others_are_never_merged_and_no_other_layer_is(bound):
    model = network()
    bound(model[2])
    _, adapters = hosted(model=model)
    before, expected = model[0].weight.clone(), model(X)
    with pytest.raises(ValueError, match="the weight of 2 is stored as"):
        adapters.merge()
    assert torch.equal(model[0].weight, before)
    assert not adapters.merged
    assert torch.equal(model(X), expected)


def test_rows_that_an_embedding_shortens_are_never_merged():
    model = nn.Sequential(nn.Embedding(10, 6, max_norm=1.0))
    _, adapters = hosted(model=model, of=("embedding",))
    with pytest.raises(ValueError, match="the weight of 0 is stored as Embedding"):
        adapters.merge()


class _Masked(nn.Linear):
    """A layer that hides a buffer from the state dict, and adds something to it."""

    def __init__(self):
        super().__init__(12, 4)
        self.register_buffer("mask", torch.ones(4), persistent=False)
        self.seen = 0

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_a_layer_saves_what_it_saved_before():
    model = nn.Sequential(_Masked())
    keys = list(model.state_dict())
    hosted(model=model)
    assert [key for key in model.state_dict() if ".adapters" not in key] == keys
    other = nn.Sequential(_Masked())
    other[0].seen = 3
    assert not model.load_state_dict(other.state_dict(), strict=False).unexpected_keys
    assert model[0].seen == 3
    assert torch.equal(model[0].weight, other[0].weight)


@pytest.mark.parametrize("name", ["dora", "edora"])
def test_lengths_of_rows_follow_writes_that_leave_no_trace(name):
    model, adapters = hosted(card(name).function)
    with torch.no_grad():
        model(X)
        for parameter in adapters.parameters("a"):
            parameter.data.mul_(0.5)
        found = model(X)
    assert torch.allclose(found, model(X), atol=1e-6)


@pytest.mark.parametrize("name", ["dora", "edora"])
def test_lengths_of_rows_without_gradients_of_experts_in_inference_mode_and_under_vmap(name, tmp_path):
    torch.manual_seed(0)
    model, _ = hosted(card(name).function, model=nn.Sequential(Experts(3, 12, 24)))
    expected = model(X)
    with torch.no_grad():
        assert torch.equal(model(X), expected)
    model, adapters = hosted(card(name).function)
    expected = model(X)
    with torch.no_grad():
        assert torch.allclose(torch.vmap(model)(X), expected, atol=1e-5)
    folder = adapters.save("a", tmp_path / "a")
    adapters.detach("a")
    with torch.inference_mode():
        adapters.load(folder)
        assert torch.allclose(model(X), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 400])
def test_autocast_keeps_the_dtype_and_trains_where_rows_have_lengths(rows):
    _, adapters = hosted(DoRA)
    model, x = adapters.model, X.repeat(rows, 1)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x)
        found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=0.05 * float(expected.detach().abs().max()))
    assert all(bool(torch.isfinite(p.grad).all()) for p in adapters.parameters("a"))


def test_models_without_numbers():
    model = network().to("meta")
    adapters = Adapters(model)
    with pytest.raises(ValueError, match=r"0 of shape \(16, 12\): .*device meta"):
        adapters.attach("p", "*", PiSSA, rank=2)
    with pytest.raises(ValueError, match=r"0 of shape \(16, 12\): .*device meta"):
        adapters.attach("r", "*", RiemannLoRA, rank=2, loss=lambda: model(X.to("meta")).sum())
    for name, how in METHODS.items():
        if name != "dora":
            adapters.attach(name, "*", card(name).function, **how)
    assert model(X.to("meta")).is_meta
    assert all(t.is_meta for t in (*model.parameters(), *model.buffers()))


def test_starts_from_a_gradient_where_gradients_are_off():
    model = network()
    with torch.no_grad():
        Adapters(model).attach("r", "0", RiemannLoRA, rank=2, loss=lambda: model(X).square().sum())
    assert model[0].adapters["r"].B.norm() > 0


def test_rows_of_models_that_hold_no_parameters():
    model = nn.Sequential(Linear(rtn(torch.randn(8, 12), 4, group=12), trainable=False))
    with Adapters(model).routed([None] * 5):
        assert model(X).shape == (5, 8)


def test_weights_are_numbers_and_exact():
    model, adapters = hosted(which="0", model=network().double())
    adapters.activate({"a": 0.7})
    assert adapters.active == {"a": 0.7}
    own, layer = adapters.of("a")["0"], model[0]
    weight = layer.layer.weight + 0.7 * (own.B @ own.A)
    x = X.double()
    assert torch.allclose(layer(x), nn.functional.linear(x, weight, layer.layer.bias), rtol=0, atol=1e-14)
    for weight in ("x", torch.ones(3), 1j, [0.5]):
        with pytest.raises(TypeError, match=r"the weight of a is .*give a number"):
            adapters.activate({"a": weight})
    assert adapters.active == {"a": 0.7}


def test_no_rows_pass_through_every_factor():
    for name, how in {**METHODS, "tera": {}}.items():
        model = network()
        Adapters(model).attach("a", "0", card(name).function, **how)
        with torch.no_grad():
            assert model(X[:0]).shape == (0, 4)
            assert model(X[:0].reshape(3, 0, 12)).shape == (3, 0, 4)


def test_circulants_work_in_half_precision():
    model = network()
    adapters = Adapters(model)
    adapters.attach("a", "0", card("surm").function, family="product")
    move(adapters, "a")
    expected = model(X)
    found = model.bfloat16()(X.bfloat16())
    assert torch.allclose(found.float(), expected, atol=0.05 * float(expected.detach().abs().max()))
    own, x = adapters.of("a")["0"], X[:2].bfloat16()
    by_update = x @ own.update(None).to_dense().mT
    assert torch.allclose(own.few(x), by_update, atol=0.05 * float(by_update.detach().abs().max()))


SPOILT = {
    "without a seed": (lambda s: s.pop("seed"), "where an object with seed is needed"),
    "a version in words": (lambda s: s.update(version="x"), "states the version 'x'"),
    "the version 0": (lambda s: s.update(version=0), "states the version 0"),
    "a place less": (lambda s: s["sites"].pop(), "does not state the same layers under sites and base"),
    "a place without a name": (
        lambda s: s["sites"][0].pop("name"),
        r"for sites\[0\], where an object with name is needed",
    ),
    "another part": (lambda s: s["sites"][0].update(part=[0, 3]), "names layers otherwise than their paths say"),
    "a dropout above one": (lambda s: s.update(dropout=1.5), "dropout=1.5"),
    "another kind of method": (lambda s: s.update(method="tt_svd"), "a method of kind"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_folder_whose_json_is_damaged(how, tmp_path):
    _, adapters = hosted(which=["0", "2"], parts={"0": [(0, 4), (8, 12)]})
    folder = adapters.save("a", tmp_path / "a")
    spoil, said = SPOILT[how]
    stated = json.loads((folder / "polyad.json").read_text())
    spoil(stated)
    (folder / "polyad.json").write_text(json.dumps({k: v for k, v in stated.items() if k != "checksum"}))
    model = network()
    with pytest.raises(ValueError, match=said):
        Adapters(model).load(folder)
    assert all(type(layer) is not Adapted for layer in model)
    assert all(p.requires_grad for p in model.parameters())


def test_whole_numbers_in_the_place_of_fractions(tmp_path):
    from safetensors.torch import load_file, save_file

    _, adapters = hosted(which="0")
    folder = adapters.save("a", tmp_path / "a")
    file = folder / "adapter.safetensors"
    save_file({key: (100 * t).int() for key, t in load_file(file).items()}, file)
    stated = json.loads((folder / "polyad.json").read_text())
    stated["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "polyad.json").write_text(json.dumps({k: v for k, v in stated.items() if k != "checksum"}))
    with pytest.raises(ValueError, match=r"0.A holds torch.int32 and needs torch.float32"):
        Adapters(network()).load(folder)


@pytest.mark.parametrize(
    ("owner", "old", "new"),
    [
        ("adapter", "changed", "output"),
        ("base", "applied", "apply_update"),
        ("base", "onto", "add_update"),
        ("base", "biased", "add_bias"),
        ("base", "joins", "can_fuse"),
        ("base", "joined", "fuse_low_rank"),
        ("base", "watched", "must_call"),
        ("base", "held", "stored_weight"),
    ],
)
def test_former_names_give_what_the_new_ones_give(owner, old, new):
    _, adapters = hosted(which="0")
    layer = adapters.layers()["0"]
    subject = layer.base if owner == "base" else adapters.of("a")["0"]
    kind = "Frozen" if owner == "base" else "Adapter"
    with pytest.warns(DeprecationWarning, match=rf"^{kind}\.{old} is {kind}\.{new} now$"):
        value = getattr(subject, old)
    assert value == getattr(subject, new) if callable(value) else value is getattr(subject, new)


def test_sites_are_those_of_the_adapter():
    _, adapters = hosted(which=["0", "2"], parts={"0": [(0, 4), (8, 12)]})
    assert [site.name for site in adapters.sites("a")] == ["0[0:4]", "0[8:12]", "2"]
    with pytest.raises(ValueError, match="no adapters are called 'b'"):
        adapters.sites("b")


def flags(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("first_out", ["part", "whole"])
@pytest.mark.parametrize("first_in", ["part", "whole"])
@pytest.mark.parametrize("method", [LoRA, VeRA])
def test_a_host_of_a_part_and_one_of_the_whole_model_freeze_and_restore_together(method, first_in, first_out):
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 4))
    model[1].bias.requires_grad_(False)
    before, trained = copy.deepcopy(model.state_dict()), flags(model)
    hosts = {"part": Adapters(model[0]), "whole": Adapters(model)}
    second = next(name for name in hosts if name != first_in)
    for name in (first_in, second):
        hosts[name].attach(name, "*", method, rank=2)
    assert not any(flag for name, flag in flags(model).items() if name in before), "the model itself is frozen"
    assert all(p.requires_grad for name in hosts for p in hosts["whole"].parameters(name))
    assert hosts["part"].names == hosts["whole"].names == [first_in, second]
    for name in (first_out, next(name for name in hosts if name != first_out)):
        hosts[name].detach(name)
    assert flags(model) == trained
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_whose_parts_have_adapters_of_their_own_is_refused_before_any_change():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    outer = nn.Sequential(nn.Sequential(model[0]), nn.Sequential(model[1]))
    for part in outer:
        Adapters(part).attach("a", "*", LoRA, rank=1)
    modules = list(outer.modules())
    with pytest.raises(ValueError, match=r"0\.0 and 1\.0 have adapters that were attached to parts of the model"):
        Adapters(outer).attach("b", "*", LoRA, rank=1)
    assert list(outer.modules()) == modules


@pytest.mark.parametrize("save", [polyad.save, lambda model, folder: model.save_pretrained(folder)])
def test_a_tied_head_that_was_trained_whole_is_saved_with_its_own_numbers(save, tmp_path):
    model = random_decoder("Llama", **{**tiny.SHAPE, "tie_word_embeddings": True})
    adapters = Adapters(model)
    adapters.attach("mine", "*q_proj", LoRA, rank=2, trained="lm_head", tied=True)
    with torch.no_grad():
        for tensor in adapters.trained("mine").values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))
    trained = tiny.logits(model)
    adapters.merge(keep=False)
    save(model, tmp_path / "head")
    torch.testing.assert_close(tiny.logits(polyad.load(tmp_path / "head")), trained)
