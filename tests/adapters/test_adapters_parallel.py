"""Adapters inside transformers' Trainer, and in two processes: the numbers of one process, to rounding."""

import pytest
import torch
from torch import nn

from polyad.adapters import AdaLoRA, Adapters, AFLoRA, DoRA, LoKr, LoRA, VeRA
from polyad.adapters.training import trainer_callback
from polyad.adapters.training.loop import train
from two_processes import run_in_two, shard

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
METHODS = {
    "lora": (LoRA, {"rank": 2}),
    "dora": (DoRA, {"rank": 2}),
    "lokr": (LoKr, {"factor": 2}),
    "vera": (VeRA, {"rank": 4}),
    "adalora": (AdaLoRA, {"rank": 2, "spare": 1, "every": 1}),
    "aflora": (AFLoRA, {"rank": 2, "last": 0.25}),  # half of the matrices are frozen after one step, all after two
}
WAYS = [(name, way) for name in METHODS for way in ("ddp", "fsdp2")]

STEPS = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def hosted(method, **given):
    torch.manual_seed(0)
    model = Net()
    adapters = Adapters(model)
    adapters.attach("a", "*", method, **given)
    with torch.no_grad():
        for parameter in adapters.parameters("a"):
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model, adapters


def learned(run, model, adapters, rows):
    """The adapter's numbers after a few steps on these rows; ``run`` is what wraps the model."""
    optimizer = torch.optim.AdamW(adapters.groups("a", 0.02))
    for step in range(STEPS):
        adapters.before_step(step, STEPS)
        loss = (run(X[rows]) - Y[rows]).square().mean() + adapters.penalty()
        loss.backward()
        adapters.after_backward(step, STEPS)
        optimizer.step()
        adapters.after_step(step, STEPS)
        optimizer.zero_grad()
    return {key: getattr(t, "full_tensor", lambda t=t: t)().detach() for key, t in adapters.state_dict("a").items()}


def work(rank, found):
    """What one of two processes does: every method under DDP and under FSDP2."""
    from torch.nn.parallel import DistributedDataParallel

    rows = slice(4 * rank, 4 * rank + 4)
    result = {}
    for name, (method, given) in METHODS.items():
        model, adapters = hosted(method, **given)
        run = DistributedDataParallel(model, find_unused_parameters=name == "aflora")
        result[name, "ddp"] = learned(run, model, adapters, rows)
        model, adapters = hosted(method, **given)
        shard(model)
        result[name, "fsdp2"] = learned(model, model, adapters, rows)
        adapters.save("a", f"{found}-{name}")
        with pytest.raises(ValueError, match="cannot keep 'a', of which each process holds a shard"):
            train(adapters, "a", lambda _, m=model: m(X[rows]).mean(), steps=2, state=f"{found}.state")
    if rank == 0:
        torch.save(result, found)


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_in_two(work, folder, folder / "found.pt")
    return torch.load(folder / "found.pt", weights_only=True), folder


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_two_processes_learn_what_one_does(name, way, in_two):
    model, adapters = hosted(METHODS[name][0], **METHODS[name][1])
    before = {key: t.clone() for key, t in adapters.state_dict("a").items()}
    expected = learned(model, model, adapters, slice(None))
    found = in_two[0][name, way]
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(
            found[key], tensor, rtol=1e-4, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}"
        )
    assert any(not torch.equal(expected[key], before[key]) for key in before)


@pytest.mark.parametrize("name", METHODS)
def test_what_two_processes_hold_is_saved_once_and_whole(name, in_two):
    results, folder = in_two
    model, _ = hosted(METHODS[name][0], **METHODS[name][1])
    fresh = Adapters(model)
    fresh.detach("a")
    fresh.load(folder / f"found.pt-{name}")
    for key, tensor in fresh.state_dict("a").items():
        torch.testing.assert_close(tensor, results[name, "fsdp2"][key], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_the_trainer_of_transformers_learns_what_a_plain_loop_does(name, tmp_path):
    import transformers

    import tiny

    method, given = METHODS[name]
    rows = [{"input_ids": row, "labels": row} for row in tiny.ids(6, 12)]

    def fresh():
        model = tiny.model()
        adapters = Adapters(model)
        adapters.attach("a", "*_proj", method, **given)
        with torch.no_grad():
            for i, parameter in enumerate(adapters.parameters("a")):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        return model, adapters

    model, adapters = fresh()
    asked = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, learning_rate=0.01, weight_decay=0.0,
        max_grad_norm=0.0, lr_scheduler_type="constant", save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, train_sampling_strategy="sequential", logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(model, asked, train_dataset=rows, callbacks=[trainer_callback(adapters)])
    trainer.train()
    plain, others = fresh()
    plain.train()

    def loss(step):
        ids = torch.stack([row["input_ids"] for row in rows[2 * step : 2 * step + 2]])
        return plain(input_ids=ids, labels=ids).loss

    optimizer_steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyad.adapters.training.loop._share", lambda *_: optimizer_steps.append(1) or 1.0)
        train(others, "a", loss, steps=3, rate=0.01, clip=1e9)
    assert len(optimizer_steps) == 3
    expected = others.state_dict("a")
    for key, tensor in adapters.state_dict("a").items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-6, msg=lambda said, key=key: key + said)
    assert not any(p.requires_grad for n, p in model.named_parameters() if "adapters" not in n)


@pytest.mark.parametrize(
    ("method", "given"), [(AFLoRA, {"rank": 4}), (AdaLoRA, {"rank": 2, "spare": 4, "every": 1}), (LoRA, {"rank": 2})]
)
def test_the_trainer_goes_on_from_its_checkpoint_to_the_same_numbers(method, given, tmp_path):
    import transformers

    import tiny

    rows = [{"input_ids": row, "labels": row} for row in tiny.ids(24, 12)]

    class Killed(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 8

    def trained(folder, *more, resume=None):
        model = tiny.model()
        adapters = Adapters(model)
        adapters.attach("a", "*_proj", method, **given)
        asked = transformers.TrainingArguments(
            str(tmp_path / folder), max_steps=14, per_device_train_batch_size=2, learning_rate=0.01, save_steps=8,
            report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        callbacks = [trainer_callback(adapters), *more]
        transformers.Trainer(model, asked, train_dataset=rows, callbacks=callbacks).train(resume)
        return adapters.state_dict("a"), [key for key, p in adapters.named_parameters("a").items() if p.requires_grad]

    whole, moving = trained("whole")
    trained("cut", Killed())
    again, left = trained("cut", resume=str(tmp_path / "cut" / "checkpoint-8"))
    assert left == moving
    assert {key: torch.equal(whole[key], tensor) for key, tensor in again.items()} == dict.fromkeys(whole, True)
    beside = tmp_path / "cut" / "checkpoint-8" / "polyad_adapters.safetensors"
    assert beside.exists() == (method is not LoRA)
