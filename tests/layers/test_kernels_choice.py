"""Which product serves how many rows: measured, kept in the cache folder, and read back with care."""

import copy
import itertools
import json

import pytest
import torch
from torch import nn

from polyad.layers import Linear
from polyad.layers.kernels import choice, kernel_rows, models, prepare_layers, prepared, product
from polyad.quantize import round_to_nearest


@pytest.fixture
def choices(tmp_path, monkeypatch):
    """The choices of a process that begins with an empty cache folder, made anew by each call."""
    monkeypatch.setenv("POLYAD_CACHE", str(tmp_path))

    def renew():
        fresh = choice.Choices()
        for module in (models, prepared, choice):
            monkeypatch.setattr(module, "CHOICES", fresh)
        return fresh

    return renew


def source(*size, bits=4, group=32):
    return round_to_nearest(torch.randn(size, generator=torch.Generator().manual_seed(0)), bits, group=group)


def layer(*size):
    return Linear(source(*size)).eval()


def test_a_measurement_is_kept_and_not_made_again(choices, monkeypatch):
    first = choices()
    prepare_layers(nn.Sequential(layer(64, 64), layer(96, 64)))
    assert choice.file().is_file()
    stated = json.loads(choice.file().read_text())
    (kept,) = stated["processors"].values()
    assert set(kept) == {f"packed4, 4 bits, groups of 32, float32, {n} x 64" for n in (64, 96)}
    assert all(one["packed"] > 0 and one["dense"] > 0 for one in kept.values())
    monkeypatch.setattr(choice, "measure_choice", None)  # whoever measures again fails
    second = choices()
    prepare_layers(nn.Sequential(layer(64, 64), layer(96, 64)))
    assert second.known == first.known


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "",
        lambda text: text.replace('"most": ', '"most": -1'),
        lambda text: text.replace('"most": ', '"most": 1e400'),
        lambda text: text.replace('"packed": ', '"packed": "a", "was": '),
        lambda text: text.replace('"version": 1', '"version": 99'),
        lambda text: '{"version": 1, "processors": [1, 2]}',
        lambda text: "\x00\xff",
    ],
)
def test_a_damaged_file_is_measured_and_written_again(choices, damage):
    choices()
    prepare_layers(layer(64, 64))
    whole = choice.file().read_text()
    damaged = damage(whole)
    assert damaged != whole
    choice.file().write_text(damaged)
    assert choice.read_choices() == {}
    again = choices()
    prepare_layers(layer(64, 64))
    assert again.known
    assert choice.read_choices()


def test_another_processor_is_measured_and_the_first_kept(choices, monkeypatch):
    choices()
    prepare_layers(layer(64, 64))
    monkeypatch.setattr(choice, "_processor", lambda: "another")
    choices()
    prepare_layers(layer(64, 64))
    assert len(choice.read_choices()) == 2


def test_a_folder_that_cannot_be_written_in_changes_nothing(choices, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYAD_CACHE", str(tmp_path / "file"))
    known = choices()
    prepare_layers(layer(64, 64))
    assert known.known


def test_beyond_the_time_the_nearest_in_size_decides(choices, monkeypatch):
    known = choices()
    for rows, most in ((64, 3), (640, 9)):
        name = choice.name_of(source(rows, 64), "packed4", torch.float32)
        known.known[name] = choice.Choice(most=most, packed=1.0, restored=1.0, dense=1.0)
    known.place = choice.machine()
    monkeypatch.setattr(choice, "SECONDS", -1.0)
    assert known.of(source(70, 64), "packed4", torch.float32)["most"] == 3
    assert known.of(source(700, 64), "packed4", torch.float32)["most"] == 9
    assert known.of(source(700, 64, bits=3), "packed4", torch.float32)["most"] == choice.UNMEASURED


def test_a_kernel_that_is_slower_is_not_used(choices):
    known = choices()
    name = choice.name_of(source(64, 64), "packed4", torch.float32)
    known.place, known.known = choice.machine(), {name: choice.Choice(most=0, packed=9.0, restored=1.0, dense=1.0)}
    one = layer(64, 64)
    plain = copy.deepcopy(one)
    x = torch.ones(1, 64)
    with torch.no_grad():
        prepare_layers(one)
        torch.testing.assert_close(one(x), plain(x))
        assert isinstance(one.weight().codes, torch.Tensor)
    assert product(source(64, 64), None, torch.float32).name == "plain"
    (row,) = kernel_rows(nn.Sequential(one))
    assert (row.few, row.count) == ("plain", 1)


def test_rows_up_to_the_crossing_take_the_packed_product(choices):
    known = choices()
    name = choice.name_of(source(64, 64), "packed4", torch.float32)
    known.place, known.known = choice.machine(), {name: choice.Choice(most=2, packed=1.0, restored=1.0, dense=1.0)}
    one = prepare_layers(layer(64, 64))
    plain = layer(64, 64)
    with torch.no_grad():
        for rows, exact in ((1, False), (2, False), (3, True)):
            x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows))
            assert bool((one(x) - plain(x)).norm() <= 1e-5 * plain(x).norm()) is exact


def test_a_measurement_is_of_the_matrix(choices):
    choices()
    made = choice.measure_choice(source(256, 256), "packed4", torch.bfloat16)
    assert 0 <= made["most"] <= choice.ROWS[-1]
    assert min(made["packed"], made["restored"], made["dense"]) > 0


def test_what_another_process_measured_meanwhile_is_kept(choices):
    here, there = choices(), choice.Choices()
    there.of(source(96, 64), "packed4", torch.float32)
    here.of(source(64, 64), "packed4", torch.float32)
    there.write()
    here.write()
    (kept,) = choice.read_choices().values()
    assert {name.rpartition(", ")[2] for name in kept} == {"64 x 64", "96 x 64"}


def test_calls_that_had_to_wait_for_the_processor_do_not_count(monkeypatch):
    calls, clock = itertools.count(), {"at": 0}

    def tick():
        return clock["at"]

    def call():  # two of three wait a thousand times as long as they work
        clock["at"] += 1_000 if next(calls) % 3 == 0 else 1_000_000

    monkeypatch.setattr(choice.time, "thread_time_ns", tick)
    monkeypatch.setattr(choice.time, "perf_counter_ns", tick)
    assert choice.call_microseconds([call] * 4) == 1.0
