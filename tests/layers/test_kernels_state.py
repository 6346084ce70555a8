"""Layers whose codes are packed: fast while they multiply, and whole whenever anything else is asked of them."""

import copy
import pickle
import threading
import warnings

import pytest
import torch
from torch import nn

import polyad
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank, Product, Sum
from polyad.formats.stored import packed_four
from polyad.layers import Embedding, Linear
from polyad.layers.kernels import pack, prepare_layers, product
from polyad.models import replace, select
from polyad.quantize import round_to_nearest, vs_quant

ERROR = 2.0**-7
MANY = 40


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*size, bits=4, group=32, seed=0, **grid):
    return round_to_nearest(normal(*size, seed=seed), bits, group=group, **grid)


WEIGHTS = {
    "4 bits": codes(48, 96), "3 bits, short groups": codes(33, 70, bits=3, group=64),
    "8 bits, rows": codes(48, 96, bits=8, group=None, symmetric=True),
    "8 bits, rows and zero points": codes(48, 96, bits=8, group=None), "8 bits, groups": codes(48, 96, bits=8),
    "scales of few bits": vs_quant(normal(48, 96), 4, group=96, parts=3),
    "factors": Product((codes(48, 20), codes(20, 96, seed=1))),
    "corrected": Sum((codes(48, 96), LowRank(normal(48, 4), normal(4, 96)))),
    "corrected by codes": Sum((codes(48, 96), Product((codes(48, 8, bits=8), codes(8, 96))))),
}  # fmt: skip


def ready(weight):
    """A layer that has met one row, and what it answers plainly."""
    by_row = getattr(weight, "bits", 4) == 8 and weight.block[1] == weight.size[1] and weight.zero is None
    kernels = "packed8" if by_row else "packed4"
    plain = Linear(copy.deepcopy(weight), torch.ones(weight.shape[0])).eval()
    layer = prepare_layers(copy.deepcopy(plain), kernels)
    with torch.no_grad():
        layer(normal(1, weight.shape[1]))
    return layer, plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=list(WEIGHTS))
def test_few_rows_and_many(weight, dtype):
    layer, plain = ready(weight)
    assert layer.weight.prepared is not None
    layer.to(dtype)
    assert layer.weight.prepared is None
    with torch.no_grad():
        for rows in (1, 3, MANY, 1):
            x = normal(2, rows, weight.shape[1]).to(dtype)
            y, expected = layer(x), plain(x.float())
            assert y.dtype == dtype
            assert y.shape == (2, rows, weight.shape[0])
            near = (y.float() - expected).norm() / expected.norm()
            exact = dtype == torch.float32 and rows == MANY
            assert near <= (1e-6 if exact else ERROR), rows
    assert layer.weight.prepared is not None


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=list(WEIGHTS))
def test_whatever_asks_for_the_codes_gets_them_bit_for_bit(weight):
    _, plain = ready(weight)
    expected = plain.state_dict()
    for ask in (
        lambda layer: layer.state_dict(), lambda layer: copy.deepcopy(layer).state_dict(),
        lambda layer: pickle.loads(pickle.dumps(layer)).state_dict(),
        lambda layer: dict(layer.train().named_parameters()) | dict(layer.named_buffers()),
        lambda layer: {f"weight.{n}": t for n, t in layer.weight().tensors().items()} | {"bias": layer.bias},
    ):  # fmt: skip
        layer, _ = ready(weight)
        tensors = ask(layer)
        assert list(tensors) == list(expected) or set(tensors) == set(expected)
        assert all(torch.equal(tensors[name], t) for name, t in expected.items())


def test_a_copy_leaves_the_first_packed_and_packs_itself():
    layer, plain = ready(WEIGHTS["4 bits"])
    other = copy.deepcopy(layer)
    assert layer.weight.prepared is not None
    assert other.weight.prepared is None
    with torch.no_grad():
        torch.testing.assert_close(other(normal(1, 96)), layer(normal(1, 96)), rtol=0, atol=0)
        assert other.weight.prepared is not None
        assert not torch.equal(other(normal(1, 96)), plain(normal(1, 96)))


def test_new_numbers_count_at_once():
    layer, _ = ready(WEIGHTS["corrected"])
    x = normal(1, 96)
    other = Linear(Sum((codes(48, 96, seed=5), LowRank(normal(48, 4), normal(4, 96)))), torch.ones(48))
    with torch.no_grad():
        layer.load_state_dict(other.state_dict())
        assert (layer(x) - other(x)).norm() <= ERROR * other(x).norm()
        layer(x)
        for parameter in layer.parameters():
            parameter.mul_(2)
        for parameter in other.parameters():
            parameter.mul_(2)
        assert (layer(x) - other(x)).norm() <= ERROR * other(x).norm()
        layer.get_submodule("weight.terms.1").left = nn.Parameter(torch.zeros(48, 4))
        other.get_submodule("weight.terms.1").left = nn.Parameter(torch.zeros(48, 4))
        assert (layer(x) - other(x)).norm() <= ERROR * other(x).norm()


def test_gradients_are_those_of_the_plain_layer():
    layer, plain = ready(WEIGHTS["corrected"])
    for rows in (2, MANY):
        results = []
        for one in (layer, plain):
            x = normal(rows, 96).requires_grad_()
            one(x).square().sum().backward()
            results.append([x.grad, *[p.grad.clone() for p in one.parameters()]])
        for result, expected in zip(*results, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-3)


def test_a_layer_made_by_hand_stays_plain_and_so_does_one_in_training():
    x = normal(1, 96)
    by_hand = Linear(WEIGHTS["4 bits"]).eval()
    with torch.no_grad():
        assert torch.equal(by_hand(x), WEIGHTS["4 bits"].linear(x))
        assert by_hand.weight.prepared is None
        training = prepare_layers(Linear(copy.deepcopy(WEIGHTS["4 bits"])).train(), "packed4")
        assert torch.equal(training(x), by_hand(x))
        none = prepare_layers(Linear(copy.deepcopy(WEIGHTS["4 bits"])).eval(), "plain")
        assert torch.equal(none(x), by_hand(x))


def test_reading_ever_again_packs_ever_less():
    layer, _ = ready(WEIGHTS["4 bits"])
    packs = 0
    with torch.no_grad():
        for _ in range(64):
            layer.weight()
            layer(normal(1, 96))
            packs += layer.weight.prepared is not None
    assert 2 <= packs <= 8


@pytest.mark.parametrize(
    "weight",
    [codes(130, 64), Product((codes(130, 20), codes(20, 64))), Sum((codes(130, 64), codes(130, 64, bits=8)))],
)
def test_a_tied_head_is_packed_once_and_still_looked_up(weight):
    embedding = Embedding(copy.deepcopy(weight)).eval()
    model = nn.ModuleDict({"embedding": embedding, "head": Linear(embedding.weight)}).eval()
    plain = copy.deepcopy(model)
    prepare_layers(model, "packed4")
    index = torch.tensor([[0, 129, 64]])
    with torch.no_grad():
        model["head"](normal(1, 64))
        assert embedding.weight.prepared is not None
        torch.testing.assert_close(model["embedding"](index), plain["embedding"](index))
        assert embedding.weight.prepared is not None
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_autocast_and_inference_mode():
    layer, plain = ready(WEIGHTS["4 bits"])
    x = normal(3, 96)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert (layer(x).float() - plain(x).float()).norm() <= ERROR * plain(x).float().norm()
        layer.weight.unprepare()
    assert not layer.weight().codes.is_inference()
    layer(x.requires_grad_()).sum().backward()


def test_export_takes_the_plain_path_and_compiled_layers_answer_alike():
    layer, plain = ready(WEIGHTS["factors"])
    x = normal(3, 96)
    program = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(program(x), plain(x), rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        layer(x)
        assert layer.weight.prepared is not None
        compiled = torch.compile(layer, backend="aot_eager")
        for rows in (3, MANY):
            y, expected = compiled(normal(rows, 96)), plain(normal(rows, 96))
            assert (y - expected).norm() <= ERROR * expected.norm()
        assert torch.func.vmap(layer)(normal(3, 2, 96)).shape == (3, 2, 48)


def test_an_adapter_leaves_its_layer_packed():
    layer, plain = ready(WEIGHTS["4 bits"])
    frozen, x = Frozen(layer), normal(1, 96)
    with torch.no_grad():
        expected = plain(x) - plain.bias
        assert (frozen(x) - expected).norm() <= ERROR * expected.norm()
    assert layer.weight.prepared is not None


def test_threads_agree():
    layer, plain = ready(WEIGHTS["factors"])
    x, expected, results = normal(1, 96), plain(normal(1, 96)), []

    def work(number):
        with torch.no_grad():
            for _ in range(50):
                if number == 0:
                    layer.weight.unprepare()
                results.append((layer(x) - expected).norm() <= ERROR * expected.norm())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200
    assert all(results)


def test_a_thread_that_packs_takes_no_codes_from_one_that_reads():
    x, failures = {1: normal(1, 256), 100: normal(100, 256)}, []
    plain = Linear(codes(256, 256)).eval()
    expected = {rows: plain(t).detach() for rows, t in x.items()}
    for _ in range(100):
        layer = prepare_layers(copy.deepcopy(plain), "packed4")
        together = threading.Barrier(4)

        def work(number, layer=layer, together=together):
            rows = 1 if number % 2 else 100
            together.wait()
            try:
                with torch.no_grad():
                    for _ in range(20):
                        assert (layer(x[rows]) - expected[rows]).norm() <= ERROR * expected[rows].norm()
                        layer.weight()
            except Exception as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_missing_or_wrong_operator_is_said_once_and_leaves_the_plain_path(monkeypatch):
    monkeypatch.setattr(pack, "_trust", {})
    pack._say_untrusted.cache_clear()
    plain = Linear(codes(48, 96)).eval()
    right = packed_four.four_bit_operator()
    x = normal(1, 96)
    monkeypatch.setattr(packed_four, "four_bit_operator", lambda: lambda *a: right(*a) * 1.05)
    layers = [prepare_layers(copy.deepcopy(plain), "packed4") for _ in range(2)]
    with torch.no_grad():
        with pytest.warns(UserWarning, match="wrong or missing"):
            torch.testing.assert_close(layers[0](x), plain(x))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.testing.assert_close(layers[1](x), plain(x))
    monkeypatch.setattr(packed_four, "four_bit_operator", lambda: None)
    layer = prepare_layers(copy.deepcopy(plain), "packed4")
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
    pack._say_untrusted.cache_clear()


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=list(WEIGHTS))
def test_a_product_of_a_format_and_of_a_module(weight):
    x = normal(2, weight.shape[1])
    exact = weight.linear(x) + 1
    layer = Linear(copy.deepcopy(weight)).eval()
    for one in (weight, layer.weight):
        run = product(one, torch.ones(weight.shape[0]), torch.float32, kernels="packed4")
        assert "packed4 up to 16 rows" in run.name
        assert (run(x) - exact).norm() <= ERROR * exact.norm()
    assert layer.weight.prepared is not None


def test_a_choice_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="kernels='fast' is no choice"):
        prepare_layers(nn.Linear(2, 2), "fast")
    with pytest.raises(ValueError, match="kernels='fast'"):
        polyad.load("smollm2", kernels="fast")


def test_a_folder_is_written_as_it_was_loaded(tmp_path, tiny_folder):
    model = polyad.load(tiny_folder)
    replace(
        model,
        {path: Linear(round_to_nearest(layer.weight, 4, group=32)) for path, layer in select(model, "*").items()},
    )
    polyad.save(model, tmp_path / "first")
    loaded = polyad.load(tmp_path / "first", kernels="packed4")
    x = torch.tensor([[3]])
    with torch.no_grad():
        loaded(x)
    packed = [m for m in loaded.modules() if isinstance(m, Linear) and m.weight.prepared is not None]
    assert packed
    polyad.save(loaded, tmp_path / "second")
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
