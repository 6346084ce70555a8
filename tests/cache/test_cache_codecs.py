"""Codecs that round keys and values, and what their papers say of them."""

import doctest
import importlib
from functools import partial

import pytest
import torch

import tiny
from polyad.cache import Gear, Kivi, Squat, VidKV, cache_for
from polyad.cache.codecs.gear import subspace_iteration
from polyad.cache.codecs.vidkv import fourier, ternary
from polyad.cache.host import fused_rows
from polyad.cache.host.fused_rows import FEW, FusedRows, fuse_rows
from polyad.formats import Quantized
from polyad.quantize import round_to_nearest
from polyad.testing import formats

GROUP = 16


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outlying(tokens=64):
    """Numbers with channels of unequal size, an offset and one in a hundred ten times as large."""
    x = seeded(2, 3, tokens, 32) * (0.2 + seeded(1, 3, 1, 32, seed=1).abs()) + seeded(1, 3, 1, 32, seed=2)
    return x + (torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.01) * 10 * seeded(
        *x.shape, seed=4
    )


def error(found, x):
    return float((found.to_dense() - x).norm() / x.norm())


@pytest.mark.parametrize("name", ["gear", "squat", "vidkv"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"polyad.cache.{name}")).failed == 0


def test_eight_bits_give_the_tokens_of_the_plain_cache_without_any_rotation():
    model, ids = tiny.model("gpt2").double(), tiny.ids(2, 40)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}
    expected = model.generate(ids, **options)
    cache = cache_for(model, partial(Gear, bits=8, group=4), window=4)
    assert torch.equal(model.generate(ids, past_key_values=cache, **options), expected)
    assert cache.held[0].stored.length == 44


def right_but_for_half_precision(stored, x):
    """Where what is added to the codes makes them right, as far as its float16 can."""
    return (stored.to_dense() - x).abs() <= 2**-10 * (stored.terms[0].to_dense() - x).abs() + 1e-6


def test_gear_needs_both_parts():
    x = outlying()
    made = {(r, s): Gear(group=GROUP, rank=r, outliers=s).encode(x, x, x) for r in (0, 4) for s in (0, 0.1)}
    for side in (0, 1):
        e = {key: error(pair[side], x) for key, pair in made.items()}
        assert e[4, 0.1] < min(e[0, 0.1], e[4, 0]) < max(e[0, 0.1], e[4, 0]) < e[0, 0]
    assert isinstance(made[0, 0][0], Quantized)


def test_gear_holds_outliers_where_they_are():
    x = outlying()
    keys, values = Gear(group=GROUP, rank=0, outliers=0.1).encode(x, x, x)
    top = x.amax(-2, keepdim=True)
    exact = right_but_for_half_precision(keys, x)
    assert exact[x == top].all()  # the largest number of every channel
    assert exact[x == x.amin(-2, keepdim=True)].all()
    flat = x.transpose(1, 2).flatten(2)
    close = right_but_for_half_precision(values, x).transpose(1, 2).flatten(2)
    assert close[flat == flat.amax(-1, keepdim=True)].all()
    assert keys.terms[1].values.numel() == 2 * 3 * 32 * 2 * round(0.05 * 64)


def test_gear_puts_the_mean_of_the_channel_or_token_in_the_place_of_outliers():
    """What the codes are of, from the paper's code: with means of a head they would span its channels' offsets."""
    x = seeded(2, 3, 64, 32) + 20 * seeded(1, 3, 1, 32, seed=1)
    keys, values = Gear(group=GROUP, rank=0, outliers=0.1).encode(x, x, x)
    inner = []
    for lines in (x.mT, x.transpose(1, 2).flatten(2)):  # a channel along the tokens; a token along all heads
        count = round(0.05 * lines.shape[-1])
        order = lines.argsort(-1)
        ends = torch.cat([order[..., :count], order[..., -count:]], -1)
        inner.append(lines.scatter(-1, ends, lines.mean(-1, keepdim=True).expand_as(ends)))
    plain = Kivi(group=GROUP).encode(inner[0].mT, inner[1].unflatten(2, (3, -1)).transpose(1, 2), x)
    for coded, expected in zip((keys, values), plain, strict=True):
        assert torch.equal(coded.terms[0].to_dense(), expected.to_dense())


def test_gear_counts_what_its_parts_cost():
    x = outlying()
    keys, _ = Gear(group=GROUP, rank=4, outliers=0.02).encode(x, x, x)
    codes = x.numel() // 4 + x.numel() // GROUP * 4
    entries = 2 * 3 * 32 * 2 * round(0.01 * 64)
    factors = 2 * 3 * 4 * (64 + 32) * 2
    assert keys.nbytes == codes + entries * 6 + factors
    late, _ = Gear(group=64, rank=4, outliers=0).encode(x, x, x)
    assert late.terms[1].rank == 2


def test_iterations_find_nearly_the_best_rank():
    x = seeded(3, 60, 32) @ torch.diag(0.8 ** torch.arange(32.0)) @ seeded(32, 32, seed=1)
    s = torch.linalg.svdvals(x)
    best = s[:, 4:].norm()
    assert error(subspace_iteration(x, 4, 3), x) * x.norm() < 1.15 * best
    assert error(subspace_iteration(x, 4, 30), x) * x.norm() < 1.001 * best
    assert error(subspace_iteration(torch.zeros(1, 4, 4), 2, 3), torch.ones(1, 4, 4)) == 1


@pytest.mark.parametrize("bits", [2, 3])
def test_squat_trades_the_error_that_queries_do_not_see(bits):
    keys, queries = seeded(2, 3, 64, 32), 20 * seeded(2, 6, 3, 32, seed=1)
    score = lambda found: float((queries.unflatten(1, (3, 2)) @ (found - keys).unsqueeze(2).mT).norm())  # noqa: E731
    made = [
        Squat(bits=bits, group=GROUP, weight=w).encode(keys, keys, queries)[0].to_dense() for w in (0, 1e-4, 1e-2)
    ]
    plain = Kivi(bits=bits, group=GROUP).encode(keys, keys, queries)[0]
    assert torch.equal(made[0], plain.to_dense())
    assert score(made[0]) > score(made[1]) > score(made[2])
    assert (made[2] - keys).norm() > (made[0] - keys).norm()


def test_squat_shifts_by_the_closed_form():
    keys, queries = seeded(1, 1, 8, 4), 5 * seeded(1, 1, 6, 4, seed=1)
    found = Squat(bits=2, group=8, rank=4, weight=0.3, channels=2).encode(keys, keys, queries)[0].to_dense()[0, 0]
    metric = torch.eye(4) + 0.3 * queries[0, 0].mT @ queries[0, 0]
    done = keys[0, 0, :, :2] - found[:, :2]
    best = -torch.linalg.solve(metric[2:, 2:], metric[2:, :2]) @ done.mT  # the error that would be least
    aimed = keys[0, 0, :, 2:] - best.mT
    spread = aimed.amax(0) - aimed.amin(0)
    assert ((found[:, 2:] - aimed).abs() <= 0.51 * spread / 3).all()


@pytest.mark.parametrize("check", formats.CHECKS, ids=lambda check: check.__name__)
def test_fused_rows_keep_the_contract_of_formats(check):
    check(FusedRows)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("group", [16, 32])
@pytest.mark.parametrize("rows", [1, 3, FEW + 1])
def test_fused_rows_are_the_codes_they_are_made_of(bits, group, rows):
    keys, queries, weights = 1 + seeded(2, 3, 64, 32), seeded(2, 3, rows, 32, seed=1), seeded(2, 3, rows, 64, seed=2)
    plain = Kivi(bits=bits, group=group).encode(keys, keys, keys)
    for codes, block in zip(plain, ((group, 1), (1, group)), strict=True):
        made = fuse_rows(codes)
        assert isinstance(made, FusedRows)
        assert made.nbytes == codes.nbytes
        assert (made.to_dense() - codes.to_dense()).abs().max() < 4 * 2**-11 * keys.abs().max(), block
        whole = made.to_dense()
        assert torch.allclose(made.linear(queries), queries @ whole.mT, rtol=1e-4, atol=1e-4)
        assert torch.allclose(made.combine(weights), weights @ whole, rtol=1e-4, atol=1e-4)
        assert torch.equal(made.transpose().to_dense(), whole.mT)
        assert torch.allclose(made.transpose().combine(queries), queries @ whole.mT, rtol=1e-4, atol=1e-4)
        few = made.with_rows({"packed": made.packed[:, :, 32 // made.growth()["packed"] :]}, 32)  # read where it lies
        assert torch.allclose(few.linear(queries), queries @ few.to_dense().mT, rtol=1e-4, atol=1e-4)


def test_codes_that_do_not_gain_are_left_as_they_are():
    keys = seeded(1, 2, 32, 16)
    odd = [Kivi(bits=3, group=8).encode(keys, keys, keys)[0], Kivi(bits=4, group=8).encode(*[keys.double()] * 3)[0]]
    huge = Kivi(bits=4, group=8).encode(*[keys * 1e6] * 3)[0]
    for codes in (*odd, huge, round_to_nearest(keys, 4, group=8)):
        assert fuse_rows(codes) is codes


def test_a_model_reads_fused_rows_as_it_reads_codes(monkeypatch):
    model, ids = tiny.model(), tiny.ids(2, 48)
    found = []
    for make in (partial(Kivi, bits=4, group=8), partial(Gear, bits=4, group=8)):
        for readable in (True, False):
            monkeypatch.setattr(fused_rows, "readable", lambda readable=readable: readable)
            cache = cache_for(model, make, window=4)
            tiny.logits(model, ids[:, :40], past_key_values=cache)
            found.append(
                torch.cat([tiny.logits(model, ids[:, i : i + 1], past_key_values=cache) for i in range(40, 48)])
            )
            kinds = {type(f).__name__ for _, *pair in cache.held[0].stored.read() for f in pair}
            assert kinds <= ({"FusedRows", "Sum"} if readable else {"Quantized", "Sum"})
        assert torch.allclose(found[-2], found[-1], atol=0.02 * float(found[-1].std()))
        assert not torch.equal(found[-2], found[-1])


def test_refusals():
    with pytest.raises(ValueError, match="which take 12 bytes"):
        FusedRows(torch.zeros(2, 3, 13, dtype=torch.uint8), 4, 16)
    with pytest.raises(ValueError, match="outliers=1"):
        Gear(outliers=1)
    with pytest.raises(ValueError, match="rank=-1"):
        Gear(rank=-1)
    with pytest.raises(ValueError, match="max_iter=0"):
        Gear(max_iter=0)
    with pytest.raises(ValueError, match="rank=0"):
        Squat(rank=0)
    with pytest.raises(ValueError, match=r"anomalous=0\.4"):
        VidKV(anomalous=0.4)
    with pytest.raises(ValueError, match="no whole number"):
        VidKV(group=16, anomalous=1 / 3).encode(seeded(1, 1, 16, 8), seeded(1, 1, 16, 8), seeded(1, 1, 16, 8))
    with pytest.raises(ValueError, match="protect=1"):
        VidKV(protect=1)
    with pytest.raises(ValueError, match="weight=nan"):
        Squat(weight=float("nan"))
    x = torch.full((1, 1, 16, 8), torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        Gear(group=16).encode(x, x, x)


def test_the_fourier_basis_is_orthonormal():
    for n in (1, 2, 7, 16):
        assert torch.allclose(fourier(n) @ fourier(n).mT, torch.eye(n, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("spectrum", [True, False])
@pytest.mark.parametrize("anomalous", [0.25, 0.5, 1])
def test_vidkv_attends_as_its_dense_keys_and_values_do(anomalous, spectrum):
    x, queries = outlying(), seeded(2, 6, 9, 32, seed=5)
    codec = VidKV(group=GROUP, anomalous=anomalous, spectrum=spectrum)
    keys, values = codec.encode(x, x, queries)
    q, p = seeded(2, 3, 2, 32, seed=6), seeded(2, 3, 2, 64, seed=7)
    assert torch.allclose(codec.scores(q, keys, None), q @ codec.keys(keys).mT, atol=1e-3)
    assert torch.allclose(codec.mix(p, values), p @ codec.values(values), atol=1e-3)
    assert (keys.nbytes - x.numel() // GROUP * 2) * 8 / x.numel() == pytest.approx(
        1 + anomalous + 16 / GROUP * anomalous
    )


def test_channels_of_large_range_have_two_bits():
    x = outlying()
    codec = VidKV(group=GROUP)
    found = codec.keys(codec.encode(x, x, x)[0])
    two = round_to_nearest(x, 2, group=(GROUP, 1), zero_dtype=torch.float16).to_dense()
    order = (x.amax(-2) - x.amin(-2)).argsort(-1, descending=True)
    exact = (found == two).all(-2)
    assert exact.gather(-1, order[..., :16]).all()
    assert not exact.gather(-1, order[..., 16:]).any()


@pytest.mark.parametrize("anomalous", [0.5, 0.25])
def test_one_bit_is_of_the_spectrum_across_the_channels_of_a_token(anomalous):
    """As of the authors' complex transform, whose real and imaginary parts each keep signs and a mean size."""
    x = outlying()
    codec = VidKV(group=GROUP, anomalous=anomalous)
    keys = codec.keys(codec.encode(x, x, x)[0])
    order = (x.amax(-2) - x.amin(-2)).argsort(-1, descending=True)[..., int(32 * anomalous) :]
    at = order.unsqueeze(2).expand(-1, -1, 64, -1)
    parts = torch.view_as_real(torch.fft.fft(x.gather(-1, at), dim=-1))
    sizes = parts.unflatten(2, (-1, GROUP)).abs().mean(3, keepdim=True).expand(-1, -1, -1, GROUP, -1, -1)
    one_bit = torch.where(parts >= 0, 1.0, -1.0) * sizes.flatten(2, 3).bfloat16().float()
    expected = torch.fft.ifft(torch.view_as_complex(one_bit), dim=-1).real
    assert torch.allclose(keys.gather(-1, at), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_one_bit_of_the_spectrum_serves_an_offset_that_channels_share():
    """One coefficient holds it, and the others keep their one bit for what varies."""
    x = seeded(1, 2, 64, 16) + 2
    errors = []
    for spectrum in (True, False):
        codec = VidKV(group=64, anomalous=0.125, spectrum=spectrum)
        errors.append(float((codec.keys(codec.encode(x, x, x)[0]) - x).norm()))
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("by_token", [True, False])
def test_values_have_three_levels(by_token):
    x = seeded(1, 2, 32, 16)
    found = ternary(x, 16, by_token=by_token).to_dense()
    lines = (found if by_token else found.mT).unflatten(-1, (-1, 16))
    size = (x if by_token else x.mT).unflatten(-1, (-1, 16)).abs()
    for line, given in zip(lines.flatten(0, -2), size.flatten(0, -2), strict=True):
        levels = line.unique()
        assert len(levels) <= 3
        level = given[given > 0.5 * given.mean()].mean()
        assert torch.allclose(levels[levels > 0], level, rtol=1e-2)
    assert 0.3 < error(ternary(x, 16, by_token=by_token), x) < 0.5


def test_tokens_that_are_attended_to_keep_two_bits():
    x = outlying()
    queries = 3 * x[:, :, 7:8].repeat_interleave(2, 1)
    codec = VidKV(group=GROUP, protect=0.125)
    plain = VidKV(group=GROUP, protect=0).encode(x, x, queries)[1].to_dense()
    found = codec.values(codec.encode(x, x, queries)[1])
    assert (found[:, :, 7] - x[:, :, 7]).norm() < 0.7 * (plain[:, :, 7] - x[:, :, 7]).norm()
    assert (found != plain).any(-1).sum() >= 2 * 3 * 8


@pytest.mark.parametrize("scale", [1e-10, 1e5, 1e10, 1e18])
def test_squat_keeps_its_objective_at_any_scale(scale):
    x, queries = drawn_at(1, 64, 32, seed=0), drawn_at(1, 9, 32, seed=1)

    def objective(codec):
        missed = codec(bits=2).encode(x * scale, x * scale, queries * scale)[0].to_dense() / scale - x
        return float((queries @ missed.mT).norm() / (queries @ x.mT).norm()), float(missed.norm() / x.norm())

    (plain, plain_size), (ours, size) = objective(Kivi), objective(Squat)
    assert ours < 1.02 * plain
    assert size < 1.5 * plain_size


def test_gear_refuses_what_float16_cannot_hold():
    x = 1e6 * drawn_at(1, 64, 32, seed=0)
    with pytest.raises(ValueError, match="beyond 65504, the largest number of the float16 in which gear stores them"):
        Gear(bits=2).encode(x, x, x)


def drawn_at(heads, tokens, channels, seed):
    return torch.randn(1, heads, tokens, channels, generator=torch.Generator().manual_seed(seed))
