"""What adapters compute in one pass or fold into the weight equals the plain formulation, gradients too."""

from functools import reduce

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from polyad.adapters import C3A, SURM, Adapters, DoRA, LoKH, LoKr, LoRA, SoKA, TeRA, TransformedLoRA, VeRA
from polyad.adapters.frozen import low_rank_product as own
from polyad.adapters.frozen.fold_threshold import fold_thresholds
from polyad.adapters.frozen.folded_product import folded_product
from polyad.adapters.frozen.format_gradients import GRADIENTS
from polyad.adapters.frozen.layer_kinds import frozen_view
from polyad.adapters.frozen.low_rank_product import low_rank_product
from polyad.adapters.frozen.structured_product import structured_product
from polyad.adapters.methods.tensorpoly import TensorPoly
from polyad.formats import Circulant, Hadamard, KhatriRao, Kronecker, LowRank, Toeplitz
from polyad.testing._contract import seeded_generator


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded_generator(seed + sum(shape))).requires_grad_()


def plain(x, weight, total, left, right, gains, scale):
    found = total if weight is None else F.linear(x, weight, total)
    found = (0 if found is None else found) + scale * F.linear(F.linear(x, right), left)
    return found if gains is None else found * gains


@pytest.mark.parametrize(("dropout", "trained"), [(0.0, True), (0.5, True), (0.0, False)])
@pytest.mark.parametrize("given", ["weight bias", "weight gains", "weight bias gains", "total", "total gains"])
def test_the_product_with_a_low_rank_change_has_the_gradients_of_the_plain_one(monkeypatch, given, dropout, trained):
    monkeypatch.setattr(own, "FEW", 0)
    monkeypatch.setattr(own, "BLOCK", 4)
    x, left, right = numbers(2, 5, 8), numbers(6, 2), numbers(2, 8).requires_grad_(trained)
    weight = numbers(6, 8) if "weight" in given else None
    total = numbers(6, seed=3) if "bias" in given else numbers(2, 5, 6) if "total" in given else None
    gains = numbers(6, seed=7) if "gains" in given else None
    held = [t for t in (x, weight, total, left, right, gains) if t is not None]

    def run(*tensors):
        own_ = iter(tensors)
        x, weight, total, left, right, gains = (None if t is None else next(own_) for t in every)
        torch.manual_seed(1)  # the same inputs are dropped every time
        return low_rank_product(x, weight, total, left, right, 0.7, dropout, gains)

    every = (x, weight, total, left, right, gains)
    if not dropout:
        torch.testing.assert_close(run(*held), plain(*every, 0.7))
    assert gradcheck(run, held)
    assert gradgradcheck(run, held)


def test_a_gain_of_zero_has_its_gradient():
    x, weight, left, right = numbers(300, 8), numbers(128, 8), numbers(128, 2), numbers(2, 8)
    gains = torch.ones(128, dtype=torch.float64)
    gains[3] = 0
    gains.requires_grad_()
    found = torch.autograd.grad(low_rank_product(x, weight, None, left, right, 1.0, 0.0, gains).sum(), gains)[0]
    torch.testing.assert_close(found, plain(x, weight, None, left, right, None, 1.0).sum(0))


def test_what_is_dropped_is_a_share_of_the_inputs_and_the_rest_is_scaled():
    x, weight = torch.ones(64, 1001, dtype=torch.float64), torch.zeros(512, 1001, dtype=torch.float64)
    one = torch.ones(512, 1, dtype=torch.float64)
    found = low_rank_product(x, weight, None, one, torch.ones(1, 1001, dtype=torch.float64), 1.0, 0.25)
    kept = found[:, 0] * 0.75  # how many of 1001 were kept, a row
    torch.testing.assert_close(kept, kept.round())
    assert abs(float(kept.mean()) / 1001 - 0.75) < 0.01
    assert len(set(kept.tolist())) > 10


KINDS = (
    lambda: LowRank(numbers(6, 2), numbers(2, 8)),
    lambda: Kronecker(numbers(1, 2, 4), numbers(1, 3, 2)),
    lambda: Kronecker(numbers(2, 6, 2), numbers(2, 1, 4)),
    lambda: Circulant(numbers(3, 4, 2)),
    lambda: Circulant(numbers(2, 1, 5)),
    lambda: Circulant(numbers(1, 1, 4)),
    lambda: KhatriRao(numbers(2, 3, 8), numbers(2, 2, 8)),
    lambda: KhatriRao(numbers(1, 3, 6), numbers(1, 2, 6), by_rows=True),
    lambda: Toeplitz(numbers(9), 4),
    lambda: Toeplitz(numbers(4), 4),
    lambda: Hadamard((numbers(6, 2), numbers(6, 1)), (numbers(2, 8), numbers(1, 8))),
)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("structured", [True, False])
def test_a_folded_update_has_the_gradients_of_the_plain_one(make, structured):
    update = make()
    if structured and type(update) not in GRADIENTS:
        return
    names = update.tensors()
    out, n = update.shape
    given = (numbers(2, 3, n), numbers(out, n), numbers(out), *names.values())

    def run(x, weight, bias, *tensors):
        made = update.replace(dict(zip(names, tensors, strict=True)))
        return folded_product(x, weight, bias, made, 0.7, structured=structured)

    torch.testing.assert_close(run(*given), F.linear(given[0], given[1] + 0.7 * update.to_dense(), given[2]))
    assert gradcheck(run, given)
    assert gradgradcheck(run, given)


@pytest.mark.parametrize("make", [kind for kind in KINDS if type(kind()) in GRADIENTS])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_structured_update_beside_the_product_has_the_gradients_of_the_plain_one(make, dropout):
    update = make()
    names = update.tensors()
    out, n = update.shape
    given = (numbers(2, 3, out), numbers(2, 3, n), *names.values())

    def run(total, x, *tensors):
        torch.manual_seed(1)  # the same inputs are dropped every time
        return structured_product(total, x, update.replace(dict(zip(names, tensors, strict=True))), 0.7, dropout)

    total, x = given[:2]
    if not dropout:
        torch.testing.assert_close(run(*given), total + 0.7 * F.linear(x, update.to_dense()))
    assert gradcheck(run, given)
    assert gradgradcheck(run, given)


def test_a_structured_update_drops_inputs_as_a_low_rank_one_does():
    x, total = numbers(40, 64), torch.zeros(40, 64, dtype=torch.float64)
    update = Kronecker(torch.eye(8).double().unsqueeze(0), torch.eye(8).double().unsqueeze(0))
    found = structured_product(total, x, update, 1.0, 0.25)
    kept = found != 0
    torch.testing.assert_close(found[kept], x[kept] / 0.75)
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.03)


METHODS = (
    (LoRA, {"rank": 40}), (LoKr, {"factor": 8}), (C3A, {"block": 8}), (SoKA, {"rank": 2}), (TeRA, {}), (LoKH, {}),
    (SURM, {"family": "circulant"}), (SURM, {"family": "toeplitz"}), (SURM, {"family": "product"}),
    (TransformedLoRA, {"rank": 2}), (DoRA, {"rank": 2}), (LoRA, {"rank": 2}),
)  # fmt: skip


@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_a_step_of_many_rows_equals_that_of_the_update_added_to_the_weight(method, arguments):
    torch.manual_seed(0)
    layer = nn.Linear(64, 96).double()
    model = nn.Sequential(layer)
    adapters = Adapters(model)
    adapters.attach("a", "0", method, **arguments)
    for i, p in enumerate(adapters.parameters("a")):
        p.data.add_(0.1 * torch.randn(p.shape, generator=seeded_generator(i), dtype=p.dtype))
    adapter, base = adapters.of("a")["0"], frozen_view(layer)
    x = torch.randn(4, 512, 64, dtype=torch.float64, generator=seeded_generator(9)).requires_grad_()
    probe = torch.randn(4, 512, 96, dtype=torch.float64, generator=seeded_generator(8))
    weight = layer.weight + adapter.scale * base.dense(adapter.update(base))
    inputs = (x, *adapters.parameters("a"))
    expected = torch.autograd.grad((F.linear(x, weight, layer.bias) * probe).sum(), inputs)
    found = torch.autograd.grad((model(x) * probe).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [(VeRA, {"rank": 3}), (LoKH, {"rank": 2}), (TeRA, {}), (SURM, {"family": "product"})],
)
@pytest.mark.parametrize(("out", "n"), [(12, 10), (10, 15)])
def test_a_few_rows_are_what_the_update_makes_of_them(method, arguments, out, n):
    torch.manual_seed(0)
    layer = nn.Linear(n, out).double()
    adapter = method((out, n), **arguments).double()
    for i, p in enumerate(adapter.parameters()):
        p.data.add_(torch.randn(p.shape, generator=seeded_generator(i), dtype=p.dtype))
    for x in (numbers(n), numbers(2, 3, n)):
        expected = F.linear(x, adapter.update(frozen_view(layer)).to_dense())
        torch.testing.assert_close(adapter.few(x), expected)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_entangled_factors_are_sums_of_kronecker_products(order):
    adapter = TensorPoly((11, 9), rank=2, order=order, terms=3, tasks=2).double()
    for i, p in enumerate(adapter.parameters()):
        p.data.copy_(torch.randn(p.shape, generator=seeded_generator(i), dtype=p.dtype))
    adapter.task = 1
    share = 3 * adapter.logits[1].softmax(0)
    B, A = (
        torch.stack([
            sum(w * reduce(torch.kron, v[:, k, :, r]) for r, w in enumerate(share)) for k in range(2)
        ])
        for v in (adapter.B, adapter.A)
    )  # fmt: skip
    torch.testing.assert_close(adapter.update(None).to_dense(), B[:, :11].mT @ A[:, :9])


def test_lora_keeps_its_input_and_the_inner_product_and_folded_updates_their_input_alone():
    for method, arguments, kept in ((LoRA, {"rank": 2}, 576 * 64 + 576 * 2), (C3A, {"block": 8}, 576 * 64)):
        model = nn.Sequential(nn.Linear(64, 64))
        Adapters(model).attach("a", "0", method, **arguments)
        saved: dict[int, int] = {}
        held = {p.untyped_storage().data_ptr() for p in model.parameters()}

        def pack(t, saved=saved):
            saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // 4
            return t

        x = torch.randn(576, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            model(x)
        assert sum(n for key, n in saved.items() if key not in held) == kept


def test_hooks_of_the_layer_and_transforms_of_torch_see_plain_operations(monkeypatch):
    monkeypatch.setattr(own, "FEW", 0)
    torch.manual_seed(0)
    layer = nn.Linear(8, 6).double()
    model = nn.Sequential(layer)
    adapters = Adapters(model)
    adapters.attach("a", "0", LoRA, rank=2)
    adapter = adapters.of("a")["0"]
    nn.init.normal_(adapter.B)
    x = numbers(5, 8)
    expected = F.linear(x, layer.weight + adapter.B @ adapter.A, layer.bias)
    torch.testing.assert_close(torch.func.vmap(model)(x), expected)
    jacobian = torch.func.vmap(torch.func.jacfwd(model))(x)
    torch.testing.assert_close(jacobian, (layer.weight + adapter.B @ adapter.A).expand(5, 6, 8))
    with torch.autograd.forward_ad.dual_level():
        dual = model(torch.autograd.forward_ad.make_dual(x.detach(), torch.ones(5, 8).double()))
        assert torch.autograd.forward_ad.unpack_dual(dual).tangent is not None
    seen = []
    handle = layer.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model(x), expected)
    handle.remove()
    assert seen == [1]


def test_half_precision_and_autocast_compute_in_the_dtype_of_the_input():
    torch.manual_seed(0)
    for dtype, cast in ((torch.bfloat16, False), (torch.float32, True)):
        model = nn.Sequential(nn.Linear(64, 128, dtype=dtype))
        adapters = Adapters(model)
        adapters.attach("a", "0", LoRA, rank=2)
        nn.init.normal_(adapters.of("a")["0"].B)
        x = torch.randn(512, 64, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
            found = model(x)
        assert found.dtype == torch.bfloat16
        assert torch.autograd.grad(found.sum(), x)[0].dtype == dtype
        layer, update = model[0].layer, adapters.of("a")["0"].update(None).to_dense()
        exact = F.linear(x.float(), layer.weight.float() + update, layer.bias.float())
        assert float(((found.float() - exact).norm() / exact.norm()).detach()) < 0.01


def test_what_is_folded_with_the_gradients_of_its_structure_is_told_by_count():
    base = frozen_view(nn.Linear(576, 576))
    low, wide = (fold_thresholds(LoRA((576, 576), rank=r), base) for r in (8, 104))
    assert low.trained == float("inf")
    assert 500 < wide.trained < 1024
    circulant = fold_thresholds(C3A((576, 576), block=36), base)
    assert circulant.structured
    assert circulant.trained < 100
    assert not fold_thresholds(
        C3A((576, 576), block=576), base
    ).structured  # its transforms would cost more than a product
    assert fold_thresholds(LoKr((576, 576), factor=6), base).structured


def test_layers_without_their_own_product_stay_as_they_were():
    layer = nn.Linear(8, 6)
    assert frozen_view(layer).can_fuse(torch.ones(2, 8))
    assert not frozen_view(layer).can_fuse(torch.ones(2, 8, dtype=torch.float64))
    assert not frozen_view(layer, (0, 3)).can_fuse(torch.ones(2, 8))
    layer.forward = lambda x: x
    assert not frozen_view(layer).can_fuse(torch.ones(2, 8))
