"""Factors and the layers on it, held to the public contract for every kind of format."""

import pytest
import torch
from torch import nn
from torch._dynamo.exc import UserError

from polyad.formats import Dense, Kronecker, LowRank, Product, Quantized, Sparse, Sum, kinds
from polyad.layers import Conv, Embedding, Factors, Linear
from polyad.testing import formats, layers, no_densifying

VARIANTS = formats.variants()
SUBJECTS = {name: layers.example(kind) for name, kind in kinds().items() if kind.fits((12, 12))} | {
    name: VARIANTS[name] for name in ("sparse_index", "quantised_ragged", "quantised_and_corrected", "nested")
}
CASES = {
    f"{name}-{check.__name__}": (format, check)
    for name, format in SUBJECTS.items()
    for check in (layers.CHECKS if name in kinds() or name == "quantised_and_corrected" else layers.CHECKS[:-1])
}  # compiling takes seconds: every kind, and one nested format


@pytest.mark.parametrize(("format", "check"), CASES.values(), ids=list(CASES))
def test_contract(format, check):
    check(format)


def test_inductor_compiles_a_low_rank_layer():
    layer = Linear(layers.example(LowRank), torch.ones(6))
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("kind", kinds().values(), ids=list(kinds()))
def test_nothing_is_dense_inside_no_densifying_and_all_is_after(kind):
    format = next(iter(formats.examples(kind)))
    with no_densifying(), pytest.raises(AssertionError, match=f"{kind.__name__}.to_dense was called"):
        format.to_dense()
    assert format.to_dense().shape == format.shape


def test_a_layer_that_densifies_is_caught(monkeypatch):
    monkeypatch.setattr(LowRank, "linear", lambda self, x: x @ self.to_dense().mT)
    with pytest.raises(AssertionError, match="must not densify"):
        layers.forward(layers.example(LowRank))


def test_a_batch_that_is_fixed_is_caught(monkeypatch):
    monkeypatch.setattr(
        LowRank, "linear", lambda self, x: Dense(self.left @ self.right).linear(x) / int(x.shape[0]) * 4
    )
    with pytest.raises(UserError, match="specialized it to be a constant"):
        layers.export(layers.example(LowRank))


def test_a_graph_break_is_caught(monkeypatch):
    monkeypatch.setattr(
        LowRank,
        "linear",
        lambda self, x: x @ (self.left @ self.right).mT if x.sum() > 0 else x @ self.right.mT @ self.left.mT,
    )
    with pytest.raises(Exception, match=r"[Dd]ata-dependent"):
        layers.compilation(layers.example(LowRank))


def test_exact_tensors_that_a_cast_touches_are_caught(monkeypatch):
    monkeypatch.setattr(Factors, "_apply", nn.Module._apply)
    with pytest.raises(AssertionError, match="scale, which is exact"):
        layers.exact(layers.example(Quantized))


def test_a_tuple_of_exact_tensors_stays_exact(monkeypatch):
    from polyad.formats import Tucker

    monkeypatch.setattr(Tucker, "exact", frozenset({"factors"}))
    format = layers.example(Tucker)
    layers.names(format)
    layers.exact(format)
    assert format.parameters == format.core.numel()


def test_a_convolution_like_torchs_own():
    own = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    x = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    conv = Conv.like(own, Dense(own.weight.detach().flatten(1)))
    torch.testing.assert_close(conv(x), own(x))
    torch.testing.assert_close(conv(x[0]), own(x[0]))
    again = Conv.from_spec(conv.spec(), device="cpu")
    again.load_state_dict(conv.state_dict())
    assert torch.equal(again(x), conv(x))
    with pytest.raises(ValueError, match="padding='same'"):
        Conv.like(nn.Conv1d(2, 2, 3, padding="same"), Dense(torch.ones(2, 6)))


@pytest.mark.parametrize("layer", [Linear, Embedding])
def test_a_layer_needs_a_matrix(layer):
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\); a layer needs a matrix"):
        layer(Dense(torch.ones(2, 3, 4)))


def test_gradient_descent_moves_shared_tensors_once():
    shared = Kronecker(torch.ones(1, 2, 2), torch.ones(1, 3, 2))
    once, twice = Factors(shared), Factors(Sum((shared, Product((Dense(torch.eye(6)), shared)))))
    assert [name for name, _ in once.named_parameters()] == ["first", "second"]
    assert len(list(twice.parameters())) == 3
    assert twice().terms[0].first is twice().terms[1].factors[1].first


def test_sparse_products_and_embeddings_compile():
    layers.compilation(Product((Dense(torch.eye(6)), layers.example(Sparse))))
