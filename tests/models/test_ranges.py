"""Numbers that a dtype cannot hold are noticed before a byte is written, by the layer's name."""

import pytest
import torch

import polyad
import tiny
from polyad.models import shards
from polyad.models.loading import check_numbers
from polyad.models.shards import round_to

DOWN = "model.layers.1.mlp.down_proj.weight"


def with_number(value, dtype=torch.float32):
    model = tiny.model().to(dtype)
    model.get_parameter(DOWN).data[3, 4] = value
    return model


@pytest.mark.parametrize("value", [70_000.0, -(2.0**99), 65_520.0])
def test_numbers_beyond_float16_are_named_before_anything_is_written(value, tmp_path):
    model = with_number(value)
    shown = f"{abs(value):.6g}".replace("+", r"\+")
    sentence = rf"{DOWN} holds {shown}, and torch\.float16 holds numbers up to 65504; store in torch\.bfloat16"
    with pytest.raises(ValueError, match=sentence):
        polyad.save(model, tmp_path / "out", dtype=torch.float16)
    with pytest.raises(ValueError, match="holds numbers up to 65504"):
        round_to(model, torch.float16)
    assert not list(tmp_path.iterdir())
    assert float(model.get_parameter(DOWN).detach()[3, 4]) == value
    polyad.save(model, tmp_path / "out", dtype=torch.bfloat16)
    assert torch.isfinite(polyad.load(tmp_path / "out").get_parameter(DOWN)).all()


def test_the_largest_number_of_float16_and_what_rounds_to_it_is_kept(tmp_path):
    polyad.save(with_number(65_519.0), tmp_path / "out", dtype=torch.float16)
    assert float(polyad.load(tmp_path / "out").get_parameter(DOWN).detach()[3, 4]) == 65_504.0


def test_the_largest_of_float32_is_beyond_bfloat16(tmp_path):
    value = torch.finfo(torch.float32).max
    with pytest.raises(
        ValueError, match=r"holds 3\.40282e\+38, and torch\.bfloat16 holds numbers up to 3\.38953e\+38"
    ):
        polyad.save(with_number(value), tmp_path / "out", dtype=torch.bfloat16)
    polyad.save(with_number(value), tmp_path / "out")
    assert float(polyad.load(tmp_path / "out").get_parameter(DOWN).detach()[3, 4]) == value


def test_an_infinity_that_was_there_hides_none_that_would_come(tmp_path):
    model = with_number(float("inf"))
    polyad.save(model, tmp_path / "out", dtype=torch.float16)
    model.get_parameter(DOWN).data[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"holds 1e\+06, and torch\.float16"):
        polyad.save(model, tmp_path / "other", dtype=torch.float16)


def test_a_tensor_that_would_be_nothing_but_zeros_is_named(tmp_path):
    model = tiny.model()
    model.get_parameter(DOWN).data.mul_(1e-9)
    with pytest.raises(ValueError, match=rf"{DOWN} holds no number above .*e-10, and all of them are zero in torch"):
        polyad.save(model, tmp_path / "out", dtype=torch.float16)
    model.get_parameter(DOWN).data.zero_()
    polyad.save(model, tmp_path / "out", dtype=torch.float16)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_a_dtype_that_no_model_is_computed_in_is_refused(dtype, tmp_path):
    with pytest.raises(ValueError, match=rf"dtype={dtype} is none that a model is computed in; choose one of"):
        polyad.save(tiny.model(), tmp_path / "out", dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("whole", [False, True])
def test_weights_of_eight_bits_come_back_as_they_are(dtype, whole, tmp_path):
    model = tiny.model()
    if whole:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    else:
        model.get_parameter(DOWN).data = model.get_parameter(DOWN).data.to(dtype)
    check_numbers(model)
    polyad.save(model, tmp_path / "out")
    again = polyad.load(tmp_path / "out")
    assert {n: p.dtype for n, p in again.named_parameters()} == {n: p.dtype for n, p in model.named_parameters()}
    stored = shards.folder_bytes(tmp_path / "out")
    assert stored == sum(p.nbytes for p in model.parameters())
    wide, expected = polyad.load(tmp_path / "out", dtype=torch.float32), model.float()
    assert torch.equal(tiny.logits(wide), tiny.logits(expected))


@pytest.mark.parametrize(
    ("recipe", "size"), [("rtn:bits=4", 1e-39), ("rtn:bits=8,scale_dtype=float16", 3e-4), ("rtn:bits=4", 1e-42)]
)
def test_one_group_of_tiny_numbers_does_not_stop_a_model(recipe, size, tmp_path):
    model = tiny.model()
    model.get_parameter(DOWN).data[3] = size
    before = tiny.logits(model)
    step = polyad.compress.recipe.steps(recipe)
    polyad.apply(model, polyad.plan(model, step))
    after = tiny.logits(model)
    assert torch.isfinite(after).all()
    assert float((after - before).norm() / before.norm()) < 0.5
    layer = model.get_submodule(DOWN.removesuffix(".weight"))
    assert float((layer.weight().to_dense()[3] - size).abs().max()) <= max(size / 100, 2e-38)


def test_the_command_names_the_layer_and_leaves_nothing(tmp_path, polyad_command, tiny_text):
    with_number(70_000.0).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    told = (
        "compress",
        tmp_path / "model",
        "--method",
        "svd:rank=4",
        "--select",
        "*.q_proj",
        "--out",
        tmp_path / "out",
    )
    code, _, err = polyad_command(*told, "--store", "float16", "--calibrate", tiny_text, "--text", tiny_text)
    assert code == 1
    assert f"{DOWN} holds 70000, and torch.float16 holds numbers up to 65504" in " ".join(err.split())
    assert not (tmp_path / "out").exists()
