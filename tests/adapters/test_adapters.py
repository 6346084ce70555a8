"""The host of adapters: what it attaches to, refuses, switches, merges, trains and saves."""

import copy
import json
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import tiny
from polyad._card import Card, Paper, _catalogue
from polyad.adapters import AdaLoRA, Adapted, Adapter, Adapters, DoRA, LoHa, LoKH, LoKr, LoRA, PiSSA, VeRA, matrix
from polyad.formats import LowRank
from polyad.layers import Linear
from polyad.quantize import round_to_nearest as rtn
from polyad.testing.adapters import move

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(7))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 8), nn.Linear(8, 4, bias=False))


def hosted(names="a", which="*", model=None, **how):
    model = model or network()
    adapters = Adapters(model)
    for i, name in enumerate(names):
        adapters.attach(name, which, LoRA, seed=i, **{"rank": 2, **how})
        move(adapters, name, seed=i)
    return model, adapters


def test_attaching_starts_at_the_base_and_detaching_restores_the_modules_themselves():
    model = network()
    model[0].weight.requires_grad_(False)
    expected, modules, keys = model(X), list(model), list(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    adapters = Adapters(model)
    assert adapters.attach("a", ["0", "2"], LoRA, rank=2) == ["0", "2"]
    adapters.attach("b", "2", partial(LoKr, factor=4))
    assert torch.equal(model(X), expected)
    assert {k for k in model.state_dict() if ".adapters" not in k} == set(keys)
    assert not any(p.requires_grad for p in modules[3].parameters())
    assert isinstance(model[0], Adapted)
    assert model[0].in_features == 12
    move(adapters, "a")
    adapters.merge()
    adapters.detach("b")
    adapters.detach("a")
    assert all(a is b for a, b in zip(model, modules, strict=True))
    assert torch.equal(model(X), expected)
    assert [p.requires_grad for p in model.parameters()] == flags


def test_arguments_by_pattern_and_the_preview():
    adapters = Adapters(network())
    rank = {"0": 4, "*": 1}
    shown = adapters.preview("*", LoRA, rank=rank)
    assert [(m.name, m.kind, m.shape, m.parameters) for m in shown] == [
        ("0", "linear", (16, 12), 112), ("2", "linear", (8, 16), 24), ("3", "linear", (4, 8), 12),
    ]  # fmt: skip
    assert adapters.names == []
    adapters.attach("a", "*", LoRA, rank=rank, alpha={"2": 3.0, "*": None})
    assert {path: a.A.shape[0] for path, a in adapters.of("a").items()} == {"0": 4, "2": 1, "3": 1}
    assert adapters.of("a")["2"].scale == 3.0


@pytest.mark.parametrize(
    ("which", "how", "said"),
    [
        ("nowhere", {}, "'nowhere' matches none"),
        (lambda path, module: False, {}, "chose none"),
        (["0", "[0]"], {}, "0 is matched by '0' and by"),
        ("*", {"rank": {"0": 2, "1": 3, "*": 1}}, "'1', which matches none"),
        ("*", {"rank": {"0": 2, "[01]": 3, "*": 1}}, "rank is given for 0 by"),
        ("*", {"rank": {"0": 2}}, "none matches 2"),
        ("*", {"rank": 9}, r"2 of shape \(8, 16\): rank=9 exceeds"),
        ("*", {"ranks": 2}, "lora has no argument 'ranks'; did you mean rank?"),
        ("*", {"dropout": 1.0}, "dropout=1.0"),
        ("*", {"of": ("lstm",)}, "linear, conv, experts, embedding"),
        ("*", {"parts": {"0": [(0, 17)]}}, "16 rows"),
        ("*", {"parts": {"0": [(0, 9), (8, 16)]}}, "ends at 9"),
    ],
)
def test_nothing_is_attached_where_anything_is_wrong(which, how, said):
    model = network()
    before = list(model)
    with pytest.raises((ValueError, TypeError), match=said):
        Adapters(model).attach("a", which, LoRA, **{"rank": 2, **how})
    assert all(a is b for a, b in zip(model, before, strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_names_are_refused_that_are_taken_or_no_names():
    _, adapters = hosted()
    for name, said in {
        "a": "attached already",
        "": "cannot name",
        "x.y": "cannot name",
        "keys": "cannot name",
    }.items():
        with pytest.raises(ValueError, match=said):
            adapters.attach(name, "*", LoRA, rank=2)
    with pytest.raises(ValueError, match="no adapters are called 'z'; there are a"):
        adapters.detach("z")
    with pytest.raises(ValueError, match="names an adapter twice"):
        adapters.activate(["a", "a"])
    with pytest.raises(ValueError, match=r"weight of a .*NaN"):
        adapters.activate({"a": float("nan")})


def test_tied_weights_are_refused_and_never_merged():
    model = tiny.model("tied")
    adapters = Adapters(model)
    with pytest.raises(ValueError, match=r"lm_head \(500, 32\) is also model.embed_tokens.weight"):
        adapters.attach("a", "lm_head", LoRA)
    with pytest.raises(ValueError, match=r"embedding.*of=\('embedding',\)"):
        adapters.attach("a", "model.embed_tokens", LoRA)
    adapters.attach("a", "lm_head", LoRA, tied=True)
    with pytest.raises(ValueError, match="weight of lm_head is shared"):
        adapters.merge()
    shared = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"the weight of 0 .*is also 1.weight"):
        Adapters(nn.Sequential(shared, shared)).attach("a", "0", LoRA, rank=1)


def test_active_adapters_are_a_weighted_sum_and_frozen_ones_go_on_acting():
    model, adapters = hosted("ab")
    assert adapters.active == {"a": 1.0, "b": 1.0}
    adapters.activate({"b": 0.5})
    halved = model(X)
    adapters.freeze("b")
    assert torch.equal(model(X), halved)
    assert not list(adapters.parameters("b"))
    adapters.thaw("b")
    assert len(list(adapters.parameters("b"))) == 6
    adapters.activate([])
    assert torch.equal(model(X), network()(X))


def test_rows_of_a_batch_take_their_own_adapters_and_a_wrong_count_is_refused():
    model, adapters = hosted("ab")
    adapters.activate("a")
    expected = model(X)
    with adapters.routed([None, "a", "b", "a", None]):
        found = model(X)
    assert torch.allclose(found[[1, 3]], expected[[1, 3]], atol=1e-6)
    assert torch.allclose(found[[0, 4]], network()(X)[[0, 4]], atol=1e-6)
    with adapters.routed(["a"]), pytest.raises(ValueError, match="each of 1 rows, and a layer got 5"):
        model(X)
    assert torch.equal(model(X), expected)


def test_merging_in_bfloat16_rounds_once_and_unmerges_bit_by_bit():
    model, adapters = hosted(model=network().bfloat16())
    assert {p.dtype for p in adapters.parameters("a")} == {torch.float32}
    weight = model[0].weight.detach().clone()
    adapters.merge()
    exact = weight.float() + adapters.of("a")["0"].update(None).to_dense()
    assert torch.equal(model[0].weight, exact.bfloat16())
    with pytest.raises(ValueError, match="call unmerge"):
        adapters.merge()
    with pytest.raises(ValueError, match="call unmerge"):
        adapters.activate("a")
    adapters.unmerge()
    assert torch.equal(model[0].weight, weight)
    adapters.merge(keep=False)
    assert adapters.names == []
    assert torch.equal(model[0].weight, exact.bfloat16())
    assert type(model[0]) is nn.Linear


def test_parts_of_a_fused_projection_of_gpt2():
    model = tiny.model("gpt2")
    expected, ids = tiny.logits(model), tiny.ids()
    adapters = Adapters(model)
    parts = {"*.c_attn": [(0, 32), (64, 96)]}
    names = adapters.attach("a", "*.0.attn.c_attn", LoRA, rank=2, parts=parts)
    assert names == ["transformer.h.0.attn.c_attn[0:32]", "transformer.h.0.attn.c_attn[64:96]"]
    assert torch.equal(tiny.logits(model), expected)
    move(adapters, "a")
    changed = tiny.logits(model)
    layer = model.transformer.h[0].attn.c_attn
    weight = layer.weight.detach().clone()
    adapters.merge()
    assert torch.allclose(tiny.logits(model, ids), changed, atol=1e-4)
    moved = (layer.weight - weight).abs().amax(0)
    assert moved[:32].min() > 0
    assert moved[32:64].max() == 0
    assert moved[64:].min() > 0
    adapters.unmerge()
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize("family", ["Mixtral", "GptOss"])
def test_experts_of_transformers(family):
    model = tiny.mixture(family)
    ids = torch.arange(12).reshape(2, 6)
    expected = tiny.logits(model, ids)
    adapters = Adapters(model)
    names = adapters.attach("a", "*experts*", LoRA, rank=2)
    assert [name.rpartition(".")[2] for name in names] == ["gate_up_proj", "down_proj"]
    assert adapters.of("a")[names[0]].A.shape == (4, 2, 16)
    assert torch.equal(tiny.logits(model, ids), expected)
    move(adapters, "a")
    changed = tiny.logits(model, ids)
    assert (changed - expected).abs().max() > 1e-3
    adapters.merge()
    assert torch.allclose(tiny.logits(model, ids), changed, atol=1e-5)
    adapters.unmerge()
    adapters.detach("a")
    assert torch.equal(tiny.logits(model, ids), expected)


def test_bases_that_are_formats_or_quantised_work_and_are_never_merged():
    dense = torch.randn(8, 12)
    torch.manual_seed(0)
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(12, 8)), {nn.Linear})
    for model in (
        nn.Sequential(Linear(LowRank(torch.randn(8, 2), torch.randn(2, 12)), torch.ones(8))),
        nn.Sequential(Linear(rtn(dense, 4, group=12))),
        quantised,
    ):
        expected = model(X)
        adapters = Adapters(model)
        adapters.attach("a", "0", LoRA, rank=2)
        assert torch.equal(model(X), expected)
        move(adapters, "a")
        change = X @ adapters.of("a")["0"].update(None).to_dense().mT
        assert torch.allclose(model(X), expected + change, atol=1e-5)
        assert model[0].base.weight.shape == (8, 12)
        with pytest.raises(ValueError, match="the weight of 0 is stored as"):
            adapters.merge()


class _Shifted(Adapter):
    """An update that all layers of a shape share, from the gradient, with hooks that count."""

    reads_output = True
    calls: list = []  # noqa: RUF012

    def __init__(self, shape, *, bank=None, generator=None):
        super().__init__()
        bank = self.borrow(bank)
        out, n = matrix(shape)
        self.left = bank.trained("left", (out, 1), lambda g: torch.randn(out, 1, generator=g))
        self.right = bank.frozen("right", (1, n), lambda g: torch.randn(1, n, generator=g))
        self.gain = nn.Parameter(torch.zeros(out))

    def init(self, base, *, gradient=None, moments=None):
        assert gradient.shape == base.shape
        self.gain.copy_(gradient.sum(1))

    def update(self, base):
        return base.weight * self.gain.unsqueeze(1) + self.left() @ self.right()

    def forward(self, x, y, base):
        return y * base.along(self.gain, x) + x @ (self.left() @ self.right()).mT

    def penalty(self):
        return self.gain.square().sum()

    @classmethod
    def before_step(cls, adapters, step, total):
        cls.calls.append((len(adapters), step, total))


@pytest.fixture
def shifted():
    paper = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    _catalogue["shifted"] = Card("shifted", "adapter", _Shifted, None, (paper,), needs={"": frozenset({"gradient"})})
    _Shifted.calls.clear()
    yield _Shifted
    del _catalogue["shifted"]


def test_shared_tensors_gradients_hooks_and_penalties(shifted, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12))
    adapters = Adapters(model)
    with pytest.raises(ValueError, match="starts from a gradient"):
        adapters.attach("a", "*", shifted)
    target = torch.ones(5, 12)
    loss = lambda: (model(X) - target).square().mean()  # noqa: E731
    adapters.attach("a", "*", shifted, loss=loss)
    expected = torch.autograd.grad((network_like(model)(X) - target).square().mean(), network_like.weights)[1].sum(1)
    assert torch.allclose(adapters.of("a")["1"].gain, expected, atol=1e-6)
    assert sorted(adapters.named_parameters("a")) == ["0.gain", "1.gain", "2.gain", "bank.left_12x1"]
    assert sorted(adapters.state_dict("a")) == ["0.gain", "1.gain", "2.gain", "bank.left_12x1"]
    assert adapters.of("a")["0"].left() is adapters.of("a")["2"].left()
    copied = copy.deepcopy(model)
    move(Adapters(copied), "a")
    own = Adapters(copied).of("a")
    assert own["0"].left() is own["2"].left()
    assert own["0"].left() is not adapters.of("a")["0"].left()
    assert torch.allclose(adapters.penalty(), sum(a.gain.square().sum() for a in adapters.of("a").values()))
    adapters.before_step(3, 10)
    assert shifted.calls == [(3, 3, 10)]
    adapters.save("a", tmp_path / "a")
    before = model(X)
    adapters.detach("a")
    assert not any("bank" in name for name, _ in model.named_modules())
    adapters.load(tmp_path / "a", "again")
    assert torch.equal(model(X), before)
    adapters.merge()
    assert torch.allclose(model(X), before, atol=1e-5)


def network_like(model):
    """The frozen layers alone, with weights that take gradients."""
    layers = [copy.deepcopy(m.layer if isinstance(m, Adapted) else m) for m in model if isinstance(m, Adapted)]
    for layer in layers:
        layer.requires_grad_(True)
    network_like.weights = [layer.weight for layer in layers]
    return nn.Sequential(*layers)


def test_groups_by_pattern():
    _, adapters = hosted()
    groups = adapters.groups("a", 1e-3, {"*.B": 16.0})
    assert [(len(g["params"]), g["lr"]) for g in groups] == [(3, 1e-3), (3, 1.6e-2)]
    with pytest.raises(ValueError, match=r"'\*.C' matches no parameter"):
        adapters.groups("a", 1e-3, {"*.C": 2.0})
    with pytest.raises(ValueError, match="given by"):
        adapters.groups("a", 1e-3, {"*.B": 2.0, "0.*": 3.0})


def test_training_touches_the_adapter_only_and_checkpointing_changes_nothing():
    model, adapters = hosted(dropout=0.25)
    frozen = {k: t.clone() for k, t in model.state_dict().items() if ".adapters" not in k}
    own = list(adapters.parameters("a"))
    grads = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        torch.manual_seed(3)
        grads.append(torch.autograd.grad(run(X).square().sum(), own))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    model.eval()
    optimizer = torch.optim.Adam(adapters.groups("a", 0.02))
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(40):
        loss = (model(X) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in frozen.items())


def test_dropout_keeps_the_input_alone_and_its_gradient_is_that_of_the_inputs_kept():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    _, adapters = hosted(model=model, dropout=0.5)
    x, kept = torch.randn(32, 64), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = model.train()(x)
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept if t.requires_grad is False}
    assert sum(n for p, n in held.items() if p != x.untyped_storage().data_ptr()) <= 32 * 2 * 4 + 64 * 64 * 4
    adapter = adapters.of("a")["0"]
    inner = torch.linalg.lstsq(adapter.B.double(), (y - x @ model[0].layer.weight.mT).mT.double()).solution.mT
    y.backward(torch.ones_like(y))
    assert torch.allclose(adapter.B.grad.double(), inner.sum(0).expand(64, 2), atol=1e-3)


def test_pickles_and_copies_are_apart():
    model, adapters = hosted("ab")
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(X), model(X))
        host = Adapters(other)
        assert host.names == ["a", "b"]
        host.activate("b")
        assert adapters.active == {"a": 1.0, "b": 1.0}
        host.detach("a")
        host.detach("b")
        assert torch.equal(other(X), network()(X))


def test_saved_folders_and_what_is_refused_of_them(tmp_path):
    model, adapters = hosted(which=["0", "2"], alpha={"0": 1.0, "*": 3.0}, parts={"0": [(0, 4), (8, 12)]})
    expected = model(X)
    folder = adapters.save("a", tmp_path / "a")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "adapter.safetensors", "polyad.json"]
    fresh = network()
    assert Adapters(fresh).load(folder) == "a"
    assert torch.equal(fresh(X), expected)
    other = network()
    other[2] = nn.Linear(16, 9)
    with pytest.raises(ValueError, match=r"2 has shape \(9, 16\) here"):
        Adapters(other).load(folder)
    with pytest.raises(ValueError, match=r"0.*which this model does not have"):
        Adapters(nn.Sequential(nn.ReLU())).load(folder)
    other = network()
    nn.init.normal_(other[2].weight)
    with pytest.raises(ValueError, match="weight of 2 is not the one"):
        Adapters(other).load(folder)
    with pytest.raises(ValueError, match="attached already"):
        adapters.load(folder)
    tensors = adapters.state_dict("a")
    lost = {k: t for k, t in tensors.items() if k != "2.A"}
    with pytest.raises(ValueError, match=r"1 missing \['2.A'\], 1 that have no place \['2.lora_A'\]"):
        adapters.load_state_dict("a", {**lost, "2.lora_A": tensors["2.A"]})
    with pytest.raises(ValueError, match=r"2.A has shape"):
        adapters.load_state_dict("a", {**lost, "2.A": torch.ones(3, 16)})
    stated = json.loads((folder / "polyad.json").read_text())
    (folder / "polyad.json").write_text(json.dumps({**stated, "version": 99}))
    with pytest.raises(ValueError, match="newer polyad"):
        Adapters(network()).load(folder)
    (folder / "polyad.json").write_text(json.dumps(stated))
    (folder / "adapter.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="was changed"):
        Adapters(network()).load(folder)
    adapters.attach("own", "3", lambda shape: LoRA(shape, rank=1))
    with pytest.raises(ValueError, match="not in the catalogue"):
        adapters.save("own", tmp_path / "own")


class _Ones(Adapter):
    def __init__(self, shape):
        super().__init__()
        self.size = nn.Parameter(torch.ones(()))

    def update(self, base):
        return self.size * torch.ones(base.shape)


def test_a_dense_update_is_folded_into_the_weight(monkeypatch):
    model = network()
    adapters = Adapters(model)
    adapters.attach("a", "0", _Ones)
    monkeypatch.setattr(nn.Linear, "forward", lambda layer, x: pytest.fail("a second product"))
    found = model[0](X)
    layer = network()[0]
    assert torch.allclose(found, nn.functional.linear(X, layer.weight + 1, layer.bias), atol=1e-6)


def test_lora_scales_by_rank_or_its_root():
    assert LoRA((8, 8), rank=4, alpha=16).scale == 4
    assert LoRA((8, 8), rank=4, alpha=16, scaling="root").scale == 8
    assert LoRA((8, 8), rank=4).scale == 1
    with pytest.raises(ValueError, match="choose 'rank'"):
        LoRA((8, 8), scaling="none")


def test_dora_sets_the_lengths_of_rows_and_lets_no_gradient_through_their_norm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 6))
    _, adapters = hosted(model=model, which="0", rank=2)
    adapters.detach("a")
    adapters.attach("d", "0", DoRA, rank=2, alpha=4.0)
    move(adapters, "d")
    own, layer = adapters.of("d")["0"], model[0].layer
    directions = layer.weight + 2 * own.direction.B @ own.direction.A
    norms = directions.norm(dim=1, keepdim=True)
    expected = X @ (own.magnitude.unsqueeze(1) * directions / norms.detach()).mT + layer.bias
    found = model(X)
    assert torch.allclose(found, expected, atol=1e-5)
    probe = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    given = tuple(own.parameters())
    for a, b in zip(*(torch.autograd.grad((y * probe).sum(), given) for y in (found, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    merged = layer.weight + own.update(model[0].base)
    assert torch.allclose(merged.norm(dim=1), own.magnitude.abs(), atol=1e-5)
    with torch.no_grad():
        first = model(X)
        own.direction.B.mul_(2)
        assert not torch.allclose(model(X), first)
        own.magnitude[0] = 0
        assert torch.allclose(model(X)[:, 0], layer.bias[0])


def test_a_row_of_zeros_stays_one_in_dora():
    model = nn.Sequential(nn.Linear(12, 6))
    with torch.no_grad():
        model[0].weight[2] = 0
    adapters = Adapters(model)
    expected = model(X)
    adapters.attach("d", "0", DoRA, rank=2)
    assert torch.allclose(model(X), expected, atol=1e-6)
    model(X).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in adapters.parameters("d"))


def test_pissa_trains_the_principal_part():
    adapters = Adapters(network())
    adapters.attach("p", "0", PiSSA, rank=3)
    own, weight = adapters.of("p")["0"], adapters.model[0].layer.weight
    u, s, v = torch.linalg.svd(weight)
    assert torch.allclose(own.B @ own.A, u[:, :3] * s[:3] @ v[:3], atol=1e-5)
    assert torch.allclose(own.B.norm(dim=0), s[:3].sqrt(), atol=1e-5)
    assert own.update(None).to_dense().abs().max() < 1e-7


def test_vera_trains_a_number_a_row_and_a_number_a_rank_and_stores_no_matrix(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12))
    adapters = Adapters(model)
    adapters.attach("v", "*", VeRA, rank=64, seed=5)
    assert sum(p.numel() for p in adapters.parameters("v")) == 3 * (12 + 64)
    assert adapters.of("v")["0"].A() is adapters.of("v")["2"].A()
    move(adapters, "v")
    own = adapters.of("v")["1"]
    expected = torch.diag(own.b) @ own.B() @ torch.diag(own.d) @ own.A()
    assert torch.allclose(own.update(None).to_dense(), expected, atol=1e-5)
    assert abs(float(own.A().var()) - 2 / 12) < 0.02
    folder = adapters.save("v", tmp_path / "v")
    assert (folder / "adapter.safetensors").stat().st_size < 3 * (12 + 64) * 4 + 1000


def test_loha_has_the_rank_of_a_product_and_lokh_columns_of_rank_one():
    g = torch.Generator().manual_seed(0)
    for shape, few in (((40, 48), True), ((12, 10), False)):
        loha = LoHa(shape, rank=3, generator=g)
        nn.init.normal_(loha.B2, generator=g)
        dense = (loha.B1 @ loha.A1) * (loha.B2 @ loha.A2)
        assert loha.thin == few
        assert torch.allclose(loha.update(None).to_dense(), dense, atol=1e-5)
        assert torch.linalg.matrix_rank(dense) == 9
    lokh = LoKH((12, 10), generator=g)
    nn.init.normal_(lokh.factors.second, generator=g)
    assert sum(p.numel() for p in lokh.parameters()) == (3 + 4) * 10
    dense = lokh.update(None).to_dense().mT.reshape(10, 3, 4)
    assert all(torch.linalg.matrix_rank(column) == 1 for column in dense)
    with pytest.raises(ValueError, match=r"first=5 does not divide the 12 rows; choose from \[1, 2, 3, 4, 6, 12\]"):
        LoKH((12, 10), first=5)


def test_adalora_prunes_the_least_important_triples_over_all_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 12))
    adapters = Adapters(model)
    adapters.attach("a", "*", AdaLoRA, rank=2, spare=2, every=1)
    target = X @ torch.randn(12, 1, generator=torch.Generator().manual_seed(2)) @ torch.ones(1, 12)
    optimizer = torch.optim.Adam(adapters.parameters("a"), lr=0.02)
    kept = []
    for step in range(60):
        adapters.before_step(step, 60)
        loss = (model(X) - target).square().mean() + adapters.penalty()
        optimizer.zero_grad()
        loss.backward()
        adapters.after_backward(step, 60)
        optimizer.step()
        adapters.after_step(step, 60)
        kept.append(sum(int((a.values != 0).sum()) for a in adapters.of("a").values()))
    assert kept[0] == 8
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 4
    own = adapters.of("a")["0"]
    assert own.budget(6, 60) == 4
    assert own.budget(23, 60) == 2 + 2 * 0.5**3
