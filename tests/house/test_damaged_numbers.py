"""Numbers in files that no format, layer or training can have are refused when they are read, in a sentence."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import polyad
import tiny
from polyad._sealed import SEAL
from polyad.adapters import Adapters, LoRA
from polyad.formats import Householder, LowRank, Sparse, load_format, save_format
from polyad.layers import Conv
from polyad.models.attention import ReducedAttention
from polyad.train import descend


def rewrite(file, change):
    """The file with other tensors and without its checksum."""
    with safe_open(str(file), "pt") as opened:
        stated = {key: text for key, text in opened.metadata().items() if key != SEAL}
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, stated)


@pytest.mark.parametrize(
    "places",
    [
        torch.tensor([0, 101], dtype=torch.int32), torch.tensor([-1, 2], dtype=torch.int32),
        torch.tensor([7], dtype=torch.uint8), torch.tensor([0], dtype=torch.uint8),
    ],
)  # fmt: skip
def test_places_of_values_lie_in_the_tensor(tmp_path, places):
    packed = places.dtype == torch.uint8
    where = torch.tensor([3], dtype=torch.uint8) if packed else torch.tensor([0, 5], dtype=torch.int32)
    good = Sparse(torch.tensor([1.0, 2.0]), where, (2, 4))
    save_format(LowRank(torch.ones(2, 1), torch.ones(1, 4)), tmp_path / "l.safetensors")
    save_format(good, tmp_path / "x.safetensors")
    assert torch.equal(load_format(tmp_path / "x.safetensors").to_dense(), good.to_dense())
    rewrite(tmp_path / "x.safetensors", lambda tensors: tensors.update(where=places))
    with pytest.raises(ValueError, match=r"the places of 2 values do not fit a tensor of shape \(2, 4\); the file"):
        load_format(tmp_path / "x.safetensors")


def test_sizes_below_zero_are_of_no_format():
    spec = Householder(torch.ones(6, 2), (6, 6)).spec()
    spec["fields"]["size"] = [-6, 6]
    with pytest.raises(ValueError, match="states the size"):
        Householder.from_spec(spec)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("padding", "torch.nn"), ("dilation", [0, 1]), ("dilation", -1), ("stride", [10**12, 1]), ("stride", [1]),
        ("groups", 0), ("weight", [1, 1]), ("kernel", [0, 1]), ("kernel", [1] * 4), ("dilation", [False, 1]),
    ],
)  # fmt: skip
def test_geometries_of_no_convolution_are_refused(name, value):
    layer = Conv.like(nn.Conv2d(2, 3, 2), LowRank(torch.ones(3, 1), torch.ones(1, 8)))
    spec = json.loads(json.dumps(layer.spec()))
    assert Conv.from_spec(spec).geometry == layer.geometry
    (spec if name == "kernel" else spec["geometry"])[name] = value
    with pytest.raises(ValueError, match="convolution"):
        Conv.from_spec(spec)


def reduced(model, **how):
    return ReducedAttention(model.model.layers[0].self_attn, **how)


@pytest.mark.parametrize("wrong", [{"key_heads": 10**6}, {"key_heads": 0}, {"value_width": 3}, {"heads": 3}])
def test_heads_that_projections_do_not_have_are_refused(wrong):
    model = tiny.model()
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    right = {
        "heads": config.num_attention_heads, "key_heads": config.num_key_value_heads, "head_width": width,
        "value_width": width,
    }  # fmt: skip
    reduced(model, **right).refuse_misfit()
    module = reduced(model, **right)
    for name, value in wrong.items():
        setattr(module, name, value)
    with pytest.raises(ValueError, match="cannot have projections to"):
        module.refuse_misfit()


def test_a_scale_beyond_float32_is_refused():
    with pytest.raises(ValueError, match=r"alpha=1e\+308 of rank 2 is beyond float32; give a number such as 4\.0"):
        LoRA((4, 4), rank=2, alpha=1e308)


def test_an_optimiser_without_its_own_numbers_is_refused(tmp_path):
    def run(stop=None):
        x = [nn.Parameter(torch.zeros(3))]

        def loss(step):
            if step == stop:
                raise KeyboardInterrupt
            return (x[0] - 2).square().sum()

        return descend(x, loss, steps=4, rate=0.1, state=tmp_path / "run.state", every=1)

    with pytest.raises(KeyboardInterrupt):
        run(stop=3)
    rewrite(
        tmp_path / "run.state",
        lambda tensors: tensors.update({"optimizer/0/x": tensors.pop("optimizer/0/exp_avg_sq")}),
    )
    with pytest.raises(ValueError, match=r"lacks \['exp_avg_sq'\] of parameter 0; remove it to begin again"):
        run()


def test_a_manifest_has_a_checksum_and_old_ones_need_none(tmp_path):
    model = tiny.model()
    polyad.save(model, tmp_path / "m")
    manifest = tmp_path / "m" / "polyad.json"
    stated = json.loads(manifest.read_text())
    assert list(stated)[-1] == "checksum"
    manifest.write_text(json.dumps({**stated, "seed": 3}))
    with pytest.raises(ValueError, match=r"polyad\.json was changed since it was written: its checksum is another"):
        polyad.load(tmp_path / "m")
    del stated["checksum"]
    manifest.write_text(json.dumps(stated))
    assert torch.equal(polyad.load(tmp_path / "m").lm_head.weight, model.lm_head.weight)


def test_an_adapters_manifest_has_one_too(tmp_path):
    adapters = Adapters(nn.Sequential(nn.Linear(4, 4)))
    adapters.attach("a", "*", LoRA, rank=2)
    adapters.save("a", tmp_path / "a")
    manifest = tmp_path / "a" / "polyad.json"
    stated = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**stated, "dropout": 0.5}))
    with pytest.raises(ValueError, match=r"polyad\.json was changed since it was written"):
        Adapters(nn.Sequential(nn.Linear(4, 4))).load(tmp_path / "a")
