"""Several threads that run one adapted model: each has its own adapters, and nothing of the model changes."""

import threading

import pytest
import torch
from torch import nn

import tiny
from polyad._card import methods
from polyad.adapters import Adapters, DoRA, LoRA
from polyad.testing.adapters import Experts, model_with_adapters, move

THREADS, CALLS = 4, 40


def together(run):
    """Run ``run(i)`` in several threads at once, and raise what they raise."""
    errors, start = [], threading.Barrier(THREADS)

    def work(i):
        try:
            start.wait()
            run(i)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("method", [LoRA, DoRA])
def test_threads_share_a_mixture_with_adapters(method):
    model = tiny.mixture()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adapters = Adapters(model)
    adapters.attach("a", "*", method, rank=2, of=("experts",))
    move(adapters, "a")
    ids = [tiny.random_tokens(1, 8, 50, i) for i in range(THREADS)]
    with torch.no_grad():
        alone = [model(x).logits for x in ids]

        def run(i):
            with torch.no_grad():
                for _ in range(CALLS):
                    assert torch.allclose(model(ids[i]).logits, alone[i], atol=1e-5)

        together(run)
    adapters.detach("a")
    assert all(p is not None and torch.equal(p, before[name]) for name, p in model.named_parameters())


CARDS = [card for card in methods("adapter") if "experts" in card.example.get("of", ("experts",))]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_tensors_of_a_mixture_are_the_same_while_it_runs(card, monkeypatch):
    model, adapters, x = model_with_adapters(card, "experts")
    live, seen, update = model[0], [], card.function.update
    before = {**dict(live.named_parameters()), **dict(live.named_buffers())}

    def same():
        seen.append(all(t is before[n] for n, t in (*live.named_parameters(), *live.named_buffers())))

    def watch_update(adapter, base):
        same()
        return update(adapter, base)

    run = Experts.forward
    monkeypatch.setattr(Experts, "forward", lambda layer, x: (same(), run(layer, x))[1])
    monkeypatch.setattr(card.function, "update", watch_update)
    model(x).sum().backward()
    assert len(seen) > 1
    assert all(seen)
    assert any(p.grad is not None for p in adapters.parameters("a"))


def test_each_thread_has_its_own_rows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    adapters = Adapters(model)
    names = ["a", "b", "c", None]
    for name in names[:3]:
        adapters.attach(name, "*", LoRA, rank=2)
        move(adapters, name)
    x, alone = torch.randn(2, 8), {}
    for name in names:
        adapters.activate(name or [])
        alone[name] = model(x)
    adapters.activate("a")

    def run(i):
        for _ in range(CALLS):
            with adapters.routed([names[i]] * 2):
                assert torch.allclose(model(x), alone[names[i]], atol=1e-6)
            if i == 3:
                assert torch.allclose(model(x), alone["a"], atol=1e-6)

    with adapters.routed([None, None]):
        together(run)
        assert torch.allclose(model(x), alone[None], atol=1e-6)
    assert torch.allclose(model(x), alone["a"], atol=1e-6)


def test_routing_ends_with_its_block_and_nests():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8))
    adapters, x = Adapters(model), torch.randn(1, 8)
    adapters.attach("a", "*", LoRA, rank=2)
    move(adapters, "a")
    changed = model(x)
    with adapters.routed([None]):
        plain = model(x)
        with adapters.routed(["a"]):
            assert torch.allclose(model(x), changed, atol=1e-6)
        assert torch.equal(model(x), plain)
        with pytest.raises(ValueError, match="leave it before you merge"):
            adapters.merge()
    assert torch.equal(model(x), changed)
    assert not torch.allclose(plain, changed, atol=1e-3)
