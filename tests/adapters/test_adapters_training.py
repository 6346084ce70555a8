"""Training adapters: the loop, going on after a kill, sizes at equal counts, and `polyad adapt`."""

import contextlib
import json

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

import tiny
from polyad._card import methods
from polyad.adapters import AdaLoRA, Adapters, DoRA, LoKr, LoRA, RiemannLoRA, VeRA
from polyad.adapters.host.build import method_of
from polyad.adapters.host.size import size_to_count, trained_count
from polyad.adapters.training.compare import compare_adapters
from polyad.adapters.training.finetune import Finetuning, Tokens
from polyad.adapters.training.loop import optimizer_of, train
from polyad.adapters.training.rate_range import rate_range

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))


def hosted(method=LoRA, **given):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    adapters = Adapters(model)
    start = {"loss": lambda: (model(X) - Y).square().mean()} if method is RiemannLoRA else {}
    adapters.attach("a", "*", method, **{"rank": 2, **given, **start})
    return model, adapters


def learn(model, adapters, **how):
    return train(adapters, "a", lambda step: (model(X.roll(step, 0)) - Y.roll(step, 0)).square().mean(), **how)


def test_a_method_is_trained_by_its_own_optimiser():
    """SGD's step, with which RiemannLoRA moves along its tangent vector, has the length of the gradient."""
    _, adapters = hosted(RiemannLoRA)
    optimizer, rate = optimizer_of(adapters, "a", None)
    held = list(adapters.parameters("a"))
    before = [p.detach().clone() for p in held]
    for p in held:
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    for p, was in zip(held, before, strict=True):
        torch.testing.assert_close(was - p.detach(), torch.full_like(p, 3 * rate))


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (LoRA, {"dropout": 0.2}),
        (AdaLoRA, {"rank": 2, "spare": 2, "every": 3}),
        (VeRA, {}),
        (RiemannLoRA, {"rank": 2}),
    ],
)
def test_a_killed_training_goes_on_to_the_same_numbers(method, given, tmp_path):
    torch.manual_seed(1)
    model, adapters = hosted(method, **given)
    torch.manual_seed(1)
    whole = learn(model, adapters, steps=20, rate=0.02)
    state = tmp_path / "here" / "state"

    def killed(step, total, values):
        assert values["loss"] == whole.losses[step - 1]
        if step == 13:
            raise KeyboardInterrupt

    first, hosts = hosted(method, **given)
    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        learn(first, hosts, steps=20, rate=0.02, state=state, every=5, callback=killed)
    second, others = hosted(method, **given)
    told = []
    found = learn(second, others, steps=20, rate=0.02, state=state, every=5, callback=lambda *a: told.append(a[0]))
    assert told[0] == 11
    assert found.losses == whole.losses
    for key, tensor in adapters.state_dict("a").items():
        assert torch.equal(tensor, others.state_dict("a")[key]), key
    for site, adapter in adapters.of("a").items():
        for (key, one), other in zip(adapter.named_buffers(), others.of("a")[site].buffers(), strict=True):
            assert torch.equal(one, other), key
    assert [p.name for p in state.parent.iterdir()] == ["state"]


def test_states_of_other_trainings_and_broken_ones_are_refused(tmp_path):
    state = tmp_path / "state"
    learn(*hosted(), steps=6, rate=0.02, state=state, every=2, asked={"text": "one"})
    with pytest.raises(ValueError, match=r"another training \(rate was 0.02 and is 0.03, text was one and is two\)"):
        learn(*hosted(), steps=6, rate=0.03, state=state, asked={"text": "two"})
    state.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"state is not a whole safetensors file .*; remove it to begin again"):
        learn(*hosted(), steps=6, rate=0.02, state=state)


def test_what_cannot_be_trained_is_refused():
    model, adapters = hosted()
    with pytest.raises(ValueError, match="steps=0 trains nothing"):
        learn(model, adapters, steps=0)
    with pytest.raises(ValueError, match=r"rate=-1 is not a learning rate; give a number above 0, such as 0.002"):
        learn(model, adapters, steps=1, rate=-1)
    with pytest.raises(ValueError, match=r"the loss of step 1 is nan; choose a lower learning rate"):
        train(adapters, "a", lambda step: model(X).sum() * (1 if step < 1 else float("nan")), steps=3, rate=0.5)


def tried(model, adapters, **how):
    return rate_range(adapters, "a", lambda step: (model(X.roll(step, 0)) - Y.roll(step, 0)).square().mean(), **how)


def test_rising_rates_find_one_that_learns():
    model, adapters = hosted()
    found = tried(model, adapters, low=1e-4, high=10.0, steps=30)
    assert found.rates[0] == pytest.approx(1e-4)
    assert found.rates[1] / found.rates[0] == pytest.approx(1e5 ** (1 / 29))
    assert found.falls[0] == pytest.approx(0, abs=1e-6)  # LoRA starts where the model is
    assert min(found.falls) < -0.1
    assert 0.005 <= found.best <= 0.5
    assert adapters.active == {"a": 1.0}
    spoiled = tried(*hosted(), low=1e-4, high=1e9, steps=30)
    assert len(spoiled.rates) < 30
    assert spoiled.falls[-1] > 2
    plain = [float((hosted()[0](X.roll(i, 0)) - Y.roll(i, 0)).square().mean().detach()) for i in range(5)]
    known = tried(*hosted(), steps=5, without=plain)
    assert known.falls == pytest.approx(tried(*hosted(), steps=5).falls, abs=1e-6)


def test_rates_that_cannot_be_tried_are_refused():
    with pytest.raises(ValueError, match=r"low=0.1 and high=0.01 bound no rates"):
        tried(*hosted(), low=0.1, high=0.01)
    with pytest.raises(ValueError, match="steps=1 try too few rates"):
        tried(*hosted(), steps=1)
    with pytest.raises(ValueError, match="without holds the losses of 2 steps of 5"):
        tried(*hosted(), steps=5, without=[1.0, 1.0])
    model, adapters = hosted()
    with pytest.raises(ValueError, match="not finite at the start, at any rate"):
        rate_range(adapters, "a", lambda _: model(X).sum() * float("nan"))


class Fast(LoRA):
    learning_rate, learning_rates = 0.5, {"*.B": 4.0, "*.none": 2.0}


HEARD: list[tuple[str, int, int]] = []


class Told(LoRA):
    @classmethod
    def before_step(cls, adapters, step, total):
        HEARD.append(("before", step, total))

    @classmethod
    def after_backward(cls, adapters, step, total):
        assert all(p.grad is not None for a in adapters for p in a.parameters())
        HEARD.append(("backward", step, total))

    @classmethod
    def after_step(cls, adapters, step, total):
        HEARD.append(("step", step, total))

    def penalty(self):
        return 3 * self.A.square().sum()


def test_the_rates_hooks_and_penalties_of_a_method_are_taken():
    model, adapters = hosted(Fast)
    rates = []
    original = torch.optim.AdamW.step

    def step(self, *a):
        rates.append(sorted(group["lr"] for group in self.param_groups))
        return original(self, *a)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        learned = learn(model, adapters, steps=4, warm=0.5)
    assert learned.rate == 0.5
    assert rates == [[0.25, 1.0], [0.5, 2.0], [0.5, 2.0], [0.25, 1.0]]
    model, adapters = hosted(Told)
    before = adapters.of("a")["0"].A.norm()
    train(adapters, "a", lambda step: 0 * model(X).sum(), steps=2, rate=0.1)
    assert adapters.of("a")["0"].A.norm() < before
    assert [(when, i, 2) for i in range(2) for when in ("before", "backward", "step")] == HEARD


MODEL = nn.Sequential(nn.Linear(48, 96), nn.Linear(96, 48), nn.Linear(48, 48))


@pytest.mark.parametrize("card", methods("adapter"), ids=lambda card: card.name)
def test_every_method_is_brought_near_to_a_count(card):
    count = trained_count(MODEL, "*", LoRA, rank=8)
    assert count == 8 * (144 + 144 + 96)
    made, found = size_to_count(MODEL, "*", card.function, count)
    assert found == sum(match.parameters for match in Adapters(MODEL).preview("*", made.func, **made.keywords))
    if card.function.sized_by in made.keywords:
        assert all(abs(found - count) <= abs(other - count) for other in small_sizes(card))


def small_sizes(card):
    """The numbers trained at each of the sizes from 1 to 4 that the method does not refuse; at least one."""
    found = []
    for size in range(1, 5):
        with contextlib.suppress(ValueError):
            found.append(trained_count(MODEL, "*", card.function, **{card.function.sized_by: size}))
    assert found, f"{card.name} refuses all small sizes"
    return found


def test_sizes_given_stay_and_searches_end_at_the_best():
    assert size_to_count(MODEL, "*", LoRA, 10**6, rank=3)[1] == 3 * 384
    assert size_to_count(MODEL, "*", DoRA, 8 * 384)[0].keywords == {"rank": 7}  # 192 too few; 8 has 192 too many
    assert size_to_count(MODEL, "*", LoKr, 10**6)[0].keywords["factor"] == 1
    assert size_to_count(MODEL, "*", VeRA, 10**6)[0].keywords["rank"] == 96
    with pytest.raises(ValueError, match="no rank of Never fits these layers: never"):
        size_to_count(MODEL, "*", Never, 10)


class Never(LoRA):
    def __init__(self, shape, *, rank=8):
        raise ValueError("never")


def test_adapters_by_name():
    assert method_of("dora").func is DoRA
    assert method_of("lora:rank=4,scaling=root,dropout=0.1").keywords == {
        "rank": 4,
        "scaling": "root",
        "dropout": 0.1,
    }
    with pytest.raises(ValueError, match="eora is of kind factorisation, not adapter; did you mean edora"):
        method_of("eora")
    with pytest.raises(ValueError, match=r"vera has no argument 'alpha'; it takes rank=\d+, start="):
        method_of("vera:alpha=3")


@pytest.fixture(scope="module")
def model():
    made = tiny.model()
    from polyad.models.loading import Origin

    made.polyad_origin = Origin("tiny", None, tiny.tokenizer())
    return made


def test_batches_follow_from_the_seed_and_the_step(model, own_cache, tiny_text):
    asked = Finetuning((str(tiny_text), "stdlib"), batch=3, length=32)
    tokens, again = Tokens(model, asked), Tokens(model, asked)
    assert tokens.rows(5).shape == (3, 32)
    assert torch.equal(tokens.rows(5), again.rows(5))
    assert not torch.equal(tokens.rows(5), tokens.rows(6))
    assert Tokens(model, Finetuning((str(tiny_text),), length=10**6)).length == 64
    with pytest.raises(ValueError, match="hold nothing to learn"):
        Tokens(model, Finetuning((str(tiny_text),), batch=0))


def value(said):
    return json.loads(said)


def test_adapt_trains_saves_and_is_put_on_again(polyad_command, tiny_folder, tiny_text, tmp_path):
    folder = tmp_path / "mine"
    told = ("adapt", tiny_folder, "--adapter", "lora:alpha=8", "--rank", 4, "--data", tiny_text, "--steps", 12,
            "--length", 32, "--batch", 4, "--windows", 2, "--rate", 0.02, "--out", folder)  # fmt: skip
    code, out, _ = polyad_command(*told, "--json")
    found = value(out)
    held = found["held_out"]["topics"]
    assert code == 0
    assert held["after"] < held["before"]
    assert found["trained_parameters"] == 4 * 3 * (2 * 64 + 2 * 48 + 3 * 80)
    assert found["bytes"] == 4 * found["trained_parameters"]
    assert len(found["loss_curve"]) == 12
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "adapter.safetensors", "polyad.json", "run.toml", "training.json",
    ]  # fmt: skip
    assert value((folder / "training.json").read_text())["loss_curve"] == found["loss_curve"]
    assert value((folder / "training.json").read_text())["version"] == 1
    shown = ("evaluate", tiny_folder, "--text", tiny_text, "--windows", 2, "--json")
    adapted = value(polyad_command(*shown, "--adapter", folder)[1])["perplexity"]["topics"]["perplexity"]
    assert adapted == pytest.approx(torch.tensor(held["after"]).exp().item(), rel=1e-5)
    code, out, _ = polyad_command("generate", tiny_folder, "the import", "--tokens", 3, "--adapter", folder, "--json")
    assert (code, value(out)["tokens"]) == (0, 3)
    code, _, err = polyad_command(*told)
    assert (code, "already holds something" in err) == (1, True)
    code, _, err = polyad_command("generate", tiny_folder, "the", "--adapter", tmp_path / "none")
    assert (code, "holds no adapter" in err) == (1, True)


def test_adapt_finds_its_rate(polyad_command, tiny_folder, tiny_text, tmp_path):
    told = ("adapt", tiny_folder, "--adapter", "lora", "--data", tiny_text, "--steps", 2, "--length", 16,
            "--batch", 2, "--windows", 1, "--out", tmp_path / "mine")  # fmt: skip
    code, out, _ = polyad_command(*told, "--rate", "auto", "--json")
    found = value(out)
    tried = found["rates_tried"]
    assert code == 0
    assert tried["rates"][0] == pytest.approx(1e-4)
    assert found["learning_rate"] < tried["rates"][tried["falls"].index(min(tried["falls"]))]
    code, _, err = polyad_command(*told, "--rate", "fast")
    assert (code, "--rate fast is no number; give one such as 0.001, or auto" in err) == (1, True)


def test_adapt_goes_on_after_a_kill(polyad_command, tiny_folder, tiny_text, tmp_path, monkeypatch):
    from polyad.adapters.training import finetune as finetuning

    told = ("adapt", tiny_folder, "--adapter", "lora", "--data", tiny_text, "--steps", 30, "--length", 16,
            "--batch", 2, "--windows", 1, "--json")  # fmt: skip
    whole = value(polyad_command(*told, "--out", tmp_path / "whole")[1])
    original = finetuning.Tokens.loss

    def killed(self, step):
        if step == 28:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(finetuning.Tokens, "loss", killed)
    code, _, err = polyad_command(*told, "--out", tmp_path / "cut")
    assert (code, "goes on from the last step" in err) == (130, True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == [".cut.state", "whole"]
    seen = []
    monkeypatch.setattr(finetuning.Tokens, "loss", lambda self, step: seen.append(step) or original(self, step))
    again = value(polyad_command(*told, "--out", tmp_path / "cut")[1])
    assert seen == [25, 26, 27, 28, 29]
    assert again["loss_curve"] == whole["loss_curve"]
    assert again["held_out"] == whole["held_out"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["cut", "whole"]


def test_adapt_compares_at_equal_counts_and_keeps_what_is_finished(polyad_command, tiny_folder, tiny_text, tmp_path):
    folder = tmp_path / "both"
    told = ("adapt", tiny_folder, "--compare", "lora;dora;lokr:factor=99", "--data", tiny_text, "--steps", 3,
            "--length", 16, "--windows", 1, "--rank", 4, "--out", folder)  # fmt: skip
    code, out, _ = polyad_command(*told, "--json")
    lora, dora, lokr = value(out)
    assert code == 0
    assert lora["trained_parameters"] == lora["lora_parameters"] == dora["lora_parameters"] == 5568
    assert dora["arguments"] == {"rank": 4}
    assert lora["loss_curve"][0] == pytest.approx(dora["loss_curve"][0], rel=1e-5)  # the same tokens, the same start
    assert "factor=99 exceeds the shorter side" in lokr["error"]
    assert sorted(p.name for p in folder.iterdir()) == ["dora", "dora.json", "lora", "lora.json", "run.toml"]
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name != "run.toml"}
    page = tmp_path / "adapters.html"
    code, out, _ = polyad_command(*told, "--report", page)
    assert "2 of 3 adapters were trained" in page.read_text(encoding="utf-8")
    assert {name: (folder / name).stat().st_mtime_ns for name in stamps} == stamps
    assert "lokr:factor=99 failed" in out
    assert "5,568" in out
    code, _, err = polyad_command(*told, "--seed", 2)
    assert (code, "lora holds an adapter of another training (seed was 0 and is 2)" in err) == (1, True)
    code, _, err = polyad_command("adapt", tiny_folder, "--out", folder)
    assert (code, "give one adapter with --adapter" in err) == (1, True)


def test_what_is_finished_is_not_taken_for_that_of_another_model_or_text(model, own_cache, tiny_text, tmp_path):
    asked = Finetuning((str(tiny_text),), steps=2, length=16, windows=1)
    methods, folder = {"lora": method_of("lora")}, tmp_path / "out"
    (found,) = compare_adapters(model, methods, asked, folder, rank=2)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    with pytest.raises(ValueError, match=r"lora holds an adapter of another training .model was"):
        list(compare_adapters(model, methods, asked, folder, rank=2))
    with torch.no_grad():
        model.model.norm.weight.div_(2)
    (again,) = compare_adapters(model, methods, asked, folder, rank=2)
    assert again["loss_curve"] == found["loss_curve"]
    known = json.loads((folder / "lora.json").read_text())
    del known["asked"]["tokens"]
    (folder / "lora.json").write_text(json.dumps(known))
    with pytest.raises(ValueError, match=r"another training .tokens was None"):
        list(compare_adapters(model, methods, asked, folder, rank=2))
    other = tmp_path / "topics.txt"
    other.write_text(tiny_text.read_text() + "\n\nAnd a paragraph that was not there.")
    (folder / "lora.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"another training .*(tokens|texts) was"):
        list(
            compare_adapters(model, methods, Finetuning((str(other),), steps=2, length=16, windows=1), folder, rank=2)
        )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("--compare", "lora,dora"), "joins adapters by commas; join them by semicolons"),
        (("--compare", "lora;dora;lora"), "names lora twice; leave one out"),
        (("--compare", "lora", "--out", "taken"), "taken already holds something; choose another folder"),
        (("--adapter", "lora", "--report", "taken/r.html"), "taken is a file, so nothing can be made in it"),
        (
            ("--adapter", "lora:rank=abc"),
            "lora: rank='abc' is no number; give one such as rank=8",
        ),
        (("--adapter", "lora:rank=4.5"), "rank=4.5 is no whole number; give one such as rank=4"),
        (("--adapter", "lora:alpha=nan"), "alpha=nan is no finite number"),
        (("--adapter", "modegpt"), "modegpt is of kind rule for blocks, not adapter; there are adalora"),
        (("--adapter", "lorra"), "no adapter is called 'lorra'; did you mean lora"),
    ],
)
def test_adapt_says_what_is_wrong_before_it_trains(
    how, said, polyad_command, tiny_folder, tiny_text, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    code, _, err = polyad_command(
        "adapt", tiny_folder, "--data", tiny_text, "--steps", 2, "--length", 16, "--windows", 1, "--out", "out", *how
    )
    assert (code, said in err) == (1, True), err
    assert "training" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) in (["cache", "taken"], ["taken"])


def test_losses_that_train_nothing_are_refused_in_words(tmp_path):
    model, adapters = hosted()
    for loss, said in (
        (lambda _: model(X), r"the loss of step 0 is a tensor of shape \(12, 5\); return a tensor of one number"),
        (lambda _: 3.0, "the loss of step 0 is a float; return a tensor of one number"),
        (
            lambda _: model(X).detach().mean(),
            "the loss of step 0 depends on nothing that is trained; let the adapter",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            train(adapters, "a", loss, steps=2)
    adapters.activate([])
    with pytest.raises(ValueError, match="depends on nothing that is trained; let the adapter act"):
        learn(model, adapters, steps=2)
    adapters.freeze("a")
    with pytest.raises(ValueError, match="nothing of 'a' is trained; thaw it first"):
        learn(model, adapters, steps=2)
    with pytest.raises(IsADirectoryError, match="is a folder; give a file"):
        learn(*hosted(), steps=2, state=tmp_path)


def test_a_state_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("polyad._sealed.save_file", full)
    with pytest.raises(OSError, match=r"the state of the training could not be kept in .*here: .*No space left"):
        learn(*hosted(), steps=4, rate=0.01, state=tmp_path / "here", every=2)


def test_a_comparison_leaves_the_model_as_it_was(model, own_cache, tiny_text, tmp_path):
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    asked = Finetuning((str(tiny_text),), steps=2, length=16, windows=1)
    records = list(compare_adapters(model, {"lora": LoRA, "dora": DoRA}, asked, tmp_path / "out"))
    assert [record["method"] for record in records] == ["lora", "dora"]
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
