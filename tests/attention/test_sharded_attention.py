"""Latent attention cut over processes, and attention to averages."""

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed
from transformers import DynamicCache

from polyad.attention import (
    GroupedAttention,
    KroneckerAttention,
    LatentAttention,
    ShardedLatentAttention,
    TensorProductAttention,
    mix_latent,
)
from polyad.attention.methods.kronecker import axis_averages, outer_sum
from polyad.attention.rotary import tables
from polyad.cache import HeldCache
from polyad.cache.host.layer import HeldLayer

TOKENS, R, ROPE = 30, 16, 4


def layer(nope=8):
    """Latent attention whose latent has a spectrum that falls, in a basis of its own."""
    torch.manual_seed(0)
    made = LatentAttention(32, 4, rank=R, nope=nope, rope=ROPE, value=8, latent_bias=True).double()
    with torch.no_grad():
        made.kv_down.weight[:R] *= 3 * 0.7 ** torch.arange(R)[:, None]
    return made


def inputs():
    x = torch.randn(2, TOKENS, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, tuple(t.double() for t in tables(0, TOKENS, ROPE))


def moment(made):
    latent = made.kv_down(inputs()[0])[..., :R].flatten(0, 1)
    return (latent.mT @ latent / len(latent)).detach()


def summed(made, world, scale=None):
    return sum(ShardedLatentAttention(made, i, world, scale=scale)(*inputs())[0] for i in range(world))


@pytest.mark.parametrize("how", ["hadamard", "pca"])
def test_mixing_changes_nothing_in_the_whole_layer(how):
    expected = layer()(*inputs())[0]
    torch.testing.assert_close(mix_latent(layer(), how, moment(layer()))(*inputs())[0], expected, atol=1e-12, rtol=0)


def test_one_rank_and_scores_without_the_latent_are_exact():
    torch.testing.assert_close(summed(layer(), 1), layer()(*inputs())[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(summed(layer(0), 4), layer(0)(*inputs())[0], atol=1e-12, rtol=0)


def test_mixing_makes_the_error_of_the_cut_smaller():
    whole = layer()(*inputs())[0]
    error = lambda made, scale=None: float((summed(made, 2, scale) - whole).norm() / whole.norm())  # noqa: E731
    plain = error(layer())
    assert error(mix_latent(layer(), "hadamard")) < 0.8 * plain
    assert error(mix_latent(layer(), "pca", moment(layer())), 1.0) < 0.7 * plain


def part(rank, folder):
    """What each of two processes does: prefill, then one token, with a cache of its own."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, (cos, sin) = inputs()
    cache, mine = DynamicCache(), ShardedLatentAttention(mix_latent(layer(), "hadamard"), rank, 2)
    outs = []
    with torch.no_grad():
        for piece in (slice(0, TOKENS - 1), slice(TOKENS - 1, TOKENS)):
            out = mine(x[:, piece], (cos[:, piece], sin[:, piece]), past_key_values=cache)[0]
            distributed.all_reduce(out)
            outs.append(out)
    held = cache.layers[0].keys.numel() + cache.layers[0].values.numel()
    torch.save((torch.cat(outs, 1), held), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_add_up_to_what_one_simulates_each_with_half_the_latents(tmp_path):
    mp.spawn(part, (str(tmp_path),), nprocs=2)
    expected = summed(mix_latent(layer(), "hadamard"), 2)
    for rank in range(2):
        out, held = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(out, expected.detach(), atol=1e-12, rtol=0)
        assert held == 2 * TOKENS * (ROPE + R // 2)


@pytest.mark.parametrize("world", [2, 8])  # a slice wider than the rotary key, and a narrower one
def test_a_slice_reads_the_caches_of_this_package(world):
    x, (cos, sin) = inputs()
    mine = ShardedLatentAttention(layer(), 1, world)
    cache = HeldCache([HeldLayer(None, 0, None)], None)
    pieces = (slice(0, TOKENS - 1), slice(TOKENS - 1, TOKENS))
    outs = [mine(x[:, piece], (cos[:, piece], sin[:, piece]), past_key_values=cache)[0] for piece in pieces]
    torch.testing.assert_close(torch.cat(outs, 1), mine(*inputs())[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: GroupedAttention(16, 4, 8, key_heads=3), "key_heads=3 does not divide heads=4"),
        (lambda: GroupedAttention(16, 4, 7, key_heads=2), "head_width=7 must be even"),
        (lambda: TensorProductAttention(16, 4, 7), "head_width=7 must be even"),
        (lambda: LatentAttention(16, 4, rank=4, nope=4, rope=3, value=4), "rope=3 must be even"),
        (lambda: KroneckerAttention(6, heads=4), "heads=4 does not divide channels=6"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (0, 3), (-1, 2)])
def test_slices_that_are_not_there_are_refused(rank, world):
    with pytest.raises(ValueError, match="no slice of a latent of 16 numbers"):
        ShardedLatentAttention(layer(), rank, world)


def test_averages_and_their_sum_are_those_of_the_axes():
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = axis_averages(x)
    assert found.shape == (2, 15, 3)
    torch.testing.assert_close(found[:, 4:9], x.mean((2, 4)).mT)
    total = outer_sum(found.mT, (4, 5, 6))
    torch.testing.assert_close(total[1, 2, 3, 1, 5], found[1, 3, 2] + found[1, 4 + 1, 2] + found[1, 9 + 5, 2])


@pytest.mark.parametrize("averages", ["kv", "qkv"])
def test_attention_to_averages_is_attention_to_that_context(averages):
    torch.manual_seed(0)
    layer, x = KroneckerAttention(6, heads=2, averages=averages).double(), torch.randn(2, 6, 4, 5).double()
    context = torch.cat((x.mean(3), x.mean(2)), 2).mT
    k, v = layer.kv_proj(context).chunk(2, -1)

    def at(asked):  # (batch, n, channels), head by head
        q = layer.q_proj(asked)
        heads = [(q[..., h] @ k[..., h].mT / 3**0.5).softmax(-1) @ v[..., h] for h in (slice(0, 3), slice(3, 6))]
        return layer.o_proj(torch.cat(heads, -1))

    place = at(x[:, :, 2, 3].unsqueeze(1))[:, 0] if averages == "kv" else at(context)[:, [2, 4 + 3]].sum(1)
    torch.testing.assert_close(layer(x)[:, :, 2, 3], place)


@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 5, 4, 4), (2, 6, 0, 4)])
def test_inputs_without_axes_are_refused(shape):
    with pytest.raises(ValueError, match="is needed"):
        KroneckerAttention(6)(torch.ones(shape))
