"""Sums, compression, diagnosis, reversible merging, recycling and ensembles of adapters."""

import pytest
import torch
from torch import nn

import tiny
from polyad.adapters import (
    C3A,
    SURM,
    Adapters,
    EigenLoRAx,
    LoKr,
    LoRA,
    SoKA,
    TensorPoly,
    TeRA,
    calibration_figures,
    changes,
    combine,
    diagnose,
    ensemble,
    overlap,
    recycle,
    reversible_merge,
)


def hosted(count=3, rank=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 12))
    host = Adapters(model)
    for i in range(count):
        host.attach(f"a{i}", "*", LoRA, rank=rank, seed=i)
        with torch.no_grad():
            for parameter in host.parameters(f"a{i}"):
                parameter.normal_()
    return model, host


def test_a_sum_of_adapters_acts_as_the_weighted_adapters_do():
    model, host = hosted()
    x = torch.randn(5, 12)
    host.activate({"a0": 0.5, "a1": -2.0})
    expected = model(x)
    errors = combine(host, "sum", {"a0": 0.5, "a1": -2.0}, rank=4)
    host.activate("sum")
    assert torch.allclose(model(x), expected, atol=1e-4)
    assert max(errors.values()) < 1e-5


def test_compression_states_the_least_error():
    _, host = hosted(1, rank=6)
    whole = changes(host, "a0")
    errors = combine(host, "small", {"a0": 1.0}, rank=2)
    for path, change in changes(host, "small").items():
        values = torch.linalg.svdvals(whole[path])
        assert errors[path] == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-4)
        assert float((change - whole[path]).norm() / whole[path].norm()) == pytest.approx(errors[path], rel=1e-4)


def test_diagnosis_counts_the_rank_used_and_the_drift():
    model, host = hosted(2)
    found = diagnose(host, "a0", tol=1e-5)
    weight = model[0].base.weight
    assert {each["rank"] for each in found.values()} == {2}
    assert found["0"]["drift"] == pytest.approx(float(changes(host, "a0")["0"].norm() / weight.norm()), rel=1e-5)
    combine(host, "minus", {"a0": -3.0}, rank=2)
    assert overlap(host, "a0", "minus")["0"] == pytest.approx(-1, abs=1e-5)
    assert abs(overlap(host, "a0", "a1")["0"]) < 0.5


def test_an_average_of_clients_is_factored_anew_with_orthonormal_rows():
    _, host = hosted(3)
    wanted = {site: sum(changes(host, n)[site] for n in ("a0", "a1", "a2")) / 3 for site in ("0", "2")}
    errors = combine(host, "mean", dict.fromkeys(("a0", "a1", "a2"), 1 / 3), rank=6, orthonormal=True)
    for site, own in host.of("mean").items():
        torch.testing.assert_close(own.A @ own.A.mT, torch.eye(6), atol=1e-5, rtol=0)
        torch.testing.assert_close(changes(host, "mean")[site], wanted[site], atol=1e-5, rtol=1e-5)
        assert errors[site] < 1e-6


def test_diagnosis_tells_how_unevenly_directions_are_used():
    host = Adapters(nn.Sequential(nn.Linear(6, 6)))
    host.attach("a", "*", LoRA, rank=3)
    with torch.no_grad():
        host.of("a")["0"].B.copy_(torch.eye(6)[:, :3] * torch.tensor([4.0, 2.0, 1e-4]))
        host.of("a")["0"].A.copy_(torch.eye(6)[:3])
    found = diagnose(host, "a")["0"]
    assert (found["rank"], found["condition"]) == (2, pytest.approx(2))
    assert found["stable_rank"] == pytest.approx(20 / 16, rel=1e-6)
    assert found["drift"] == pytest.approx(20**0.5 / float(host.model[0].weight.norm()), rel=1e-6)


def test_low_rank_sums_equal_dense_ones():
    """LoKr's updates are multiplied out; the same sum of LoRAs is not."""
    _, host = hosted(2)
    for site, both in changes(host, "a0").items():
        both = 2 * both - changes(host, "a1")[site]
        errors = combine(host, f"of{site}", {"a0": 2.0, "a1": -1.0}, rank=3)
        values = torch.linalg.svdvals(both.double())
        assert errors[site] == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-5)
    host.attach("k", "*", LoKr, factor=2)
    with torch.no_grad():
        for parameter in host.parameters("k"):
            parameter.normal_()
    combine(host, "mixed", {"a0": 1.0, "k": 1.0}, tol=1e-6)
    for site, change in changes(host, "mixed").items():
        expected = changes(host, "a0")[site] + changes(host, "k")[site]
        torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-4)
        assert overlap(host, "mixed", "k")[site] == pytest.approx(
            float((expected * changes(host, "k")[site]).sum() / expected.norm() / changes(host, "k")[site].norm()),
            rel=1e-4,
        )


def test_operations_know_parts_of_fused_weights_and_experts():
    model = tiny.mixture()
    host = Adapters(model)
    rows = model.model.layers[0].self_attn.q_proj.out_features
    for i, name in enumerate("ab"):
        cut = {"*q_proj": [(0, rows // 2), (rows // 2, rows)]}
        host.attach(name, ["*q_proj", "*experts*"], LoRA, rank=2, seed=i, of=("linear", "experts"), parts=cut)
        with torch.no_grad():
            for parameter in host.parameters(name):
                parameter.normal_(std=0.2)
    ids = torch.arange(6).unsqueeze(0)
    host.activate({"a": 0.5, "b": -1.0})
    expected = model(ids).logits
    assert max(combine(host, "sum", {"a": 0.5, "b": -1.0}, rank=4).values()) < 1e-6
    host.activate("sum")
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert list(host.of("sum")) == list(host.of("a"))
    found = diagnose(host, "sum", tol=1e-5)
    assert {each["rank"] for each in found.values()} == {4}
    experts = next(site for site in found if "experts" in site)
    change, weight = changes(host, "sum")[experts], model.get_parameter(experts)
    assert found[experts]["drift"] == pytest.approx(float((change.norm(dim=(1, 2)) / weight.norm(dim=(1, 2))).max()))
    assert overlap(host, "sum", "sum")[experts] == pytest.approx(1)
    merged = reversible_merge(host, ["a", "b"], 2)
    merged.attach(host, "a", "again")
    for site, change in changes(host, "again").items():
        torch.testing.assert_close(change, changes(host, "a")[site], atol=1e-5, rtol=1e-4)


def test_what_cannot_be_combined_is_named():
    _, host = hosted(1)
    host.attach("rows", "0", LoRA, rank=1, parts={"0": [(0, 8)]})
    with pytest.raises(ValueError, match=r"0 is changed as a whole by one adapter and in part, 0\[0:8\], by another"):
        combine(host, "both", {"a0": 1.0, "rows": 1.0}, rank=1)
    with pytest.raises(ValueError, match="the weight of a0"):
        combine(host, "both", {"a0": float("nan")}, rank=1)
    assert host.names == ["a0", "rows"]
    host.merge()
    with pytest.raises(ValueError, match="unmerge"):
        diagnose(host, "a0")


def test_a_reversible_merge_is_exact_at_the_rank_and_near_below_it():
    model, host = hosted(5, rank=3)
    merged = reversible_merge(host, [f"a{i}" for i in range(5)], 3)
    merged.attach(host, "a2", "again")
    for path, change in changes(host, "again").items():
        assert torch.allclose(change, changes(host, "a2")[path], atol=1e-4)
    less = reversible_merge(host, [f"a{i}" for i in range(5)], 1)
    assert less.numbers == (12 + 16) * 2 * (3 + 5)
    with pytest.raises(ValueError, match="keep"):
        reversible_merge(host, ["a0", "a1"], 3)
    assert model(torch.ones(1, 12)).shape == (1, 12)


def test_recycled_directions_span_what_their_sources_do():
    _, host = hosted(2)
    host.attach("new", "*", EigenLoRAx, rank=2, components=5)
    assert min(recycle(host, "new", ["a0", "a1"]).values()) > 1 - 1e-5
    own = host.of("new")["0"]
    for name in ("a0", "a1"):
        change = changes(host, name)["0"]
        assert torch.allclose(own.VB @ own.VB.mT @ change @ own.VA.mT @ own.VA, change, atol=1e-4)
    assert torch.allclose(own.VA @ own.VA.mT, torch.eye(5), atol=1e-5)


def test_an_ensemble_averages_probabilities_and_leaves_things_as_they_were():
    model, host = hosted(2)
    x = torch.randn(4, 12)
    host.activate({"a1": 0.5})
    before = model(x)
    found = ensemble(host, ["a0", "a1"], lambda: model(x))
    assert torch.equal(model(x), before)
    each = []
    for name in ("a0", "a1"):
        host.activate(name)
        each.append(model(x).softmax(-1))
    assert torch.allclose(found, (each[0] + each[1]) / 2)


def test_calibration_of_known_probabilities():
    found = calibration_figures(torch.tensor([[0.8, 0.2], [0.6, 0.4]]), torch.tensor([0, 1]))
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx(-(torch.tensor([0.8, 0.4]).log().mean().item()))
    assert found["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    assert found["ece"] == pytest.approx((0.2 + 0.6) / 2)


@pytest.mark.parametrize(
    ("rows", "labels", "how", "said"),
    [
        ([[0.5, 0.5]], [2], {}, r"labels are of torch.int64, from 2 to 2; give the number of a class, from 0 to 1"),
        ([[0.5, 0.5]], [0.0], {}, r"labels are of torch.float32"),
        ([[3.0, -1.0]], [0], {}, r"do not sum to 1; give softmax"),
        ([[0.5, 0.5]], [0], {"bins": 0}, r"bins=0 and 1 rows measure nothing"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(rows, labels, how, said):
    with pytest.raises(ValueError, match=said):
        calibration_figures(torch.tensor(rows), torch.tensor(labels), **how)


def test_structured_updates_have_full_rank_at_few_numbers():
    g = torch.Generator().manual_seed(0)
    for adapter in (C3A((32, 32), start=1.0, generator=g), TeRA((32, 32)), SURM((32, 32), family="toeplitz")):
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=g))
            assert sum(p.numel() for p in adapter.parameters()) <= 64
            assert torch.linalg.matrix_rank(adapter.update(None).to_dense().double()) == 32


def test_soka_chooses_its_rank_by_the_spectrum():
    torch.manual_seed(0)
    weight = sum(torch.kron(torch.randn(4, 4), torch.randn(4, 4)) for _ in range(3)) + 1e-4 * torch.randn(16, 16)
    model = nn.Sequential(nn.Linear(16, 16))
    model[0].weight.data = weight
    host = Adapters(model)
    host.attach("a", "*", SoKA, rank=8, energy=0.9999)
    assert len(host.of("a")["0"].A) == 3


def test_tensorpoly_routes_terms_by_task():
    adapter = TensorPoly((16, 9), rank=2, terms=2, tasks=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        adapter.B.normal_()
        before = adapter.update(None).to_dense()
        adapter.logits[1, 0] = 30.0  # the second task takes the first term alone
        assert torch.equal(adapter.update(None).to_dense(), before)
        adapter.task = 1
        left = torch.einsum("ki,kj->kij", adapter.B[0, :, :, 0], adapter.B[1, :, :, 0]).flatten(1).mT
        assert torch.allclose(adapter.update(None).left, 2 * left, atol=1e-5)


def test_each_order_of_the_entangled_factors_may_have_its_own_choice():
    g = torch.Generator().manual_seed(0)
    adapter = TensorPoly((16, 9), rank=2, terms=3, tasks=2, routes="order", generator=g)
    assert adapter.logits.shape == (2, 2, 3)
    with torch.no_grad():
        adapter.B.normal_()
        adapter.task, adapter.logits[1, 0, 2], adapter.logits[1, 1, 0] = 1, 40.0, 40.0
        found = adapter.update(None)
    for vectors, rows in ((adapter.B, found.left.mT), (adapter.A, found.right)):
        expected = 9 * torch.einsum("ki,kj->kij", vectors[0, :, :, 2], vectors[1, :, :, 0]).flatten(1)
        torch.testing.assert_close(rows, expected.detach()[:, : rows.shape[1]])
    wide = TensorPoly((64, 4096), rank=8, order=2, terms=5, tasks=1, routes="order", generator=g)
    variance = float(wide.update(None).right.detach().square().mean())
    assert variance == pytest.approx(1 / 4096, rel=0.3)
    with pytest.raises(ValueError, match="routes='order'"):
        TensorPoly((16, 9), routes="order")
