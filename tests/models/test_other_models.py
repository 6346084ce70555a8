"""Models that are no decoders: encoders, convnets, and modules that transformers does not know."""

import copy
import functools

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import polyad
import tiny
from polyad.compress import lord, modegpt
from polyad.data import Calibration
from polyad.decompose import svd
from polyad.evaluation import parameters
from polyad.layers import Conv, Linear
from polyad.models import collect, compressible
from polyad.models.obstacle import layer_obstacle
from polyad.quantize import round_to_nearest

TEXT = Calibration(tiny.ids(4, 32), tiny.ids(2, 32), {"ids": "0"})
RTN = functools.partial(round_to_nearest, bits=4, group=8)


def encoder():
    config = transformers.BertConfig(vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=48, max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertModel(config).eval()


class Same(nn.Conv2d):
    """Pads so that the size stays, as some networks do."""

    def forward(self, x):
        if self.kernel_size == (1, 1):
            return super().forward(x)
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Uneven(nn.Conv2d):
    """Pads one side only, which sizes that are no multiple of the stride do not show."""

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Same(3, 8, 3, bias=False)
        self.wide = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, groups=16)
        self.point = Same(16, 12, 1)
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        x = self.norm(self.wide(self.stem(x).relu()).relu())
        return self.head(self.point(self.depth(x)).relu().mean((2, 3)))


def convnet(seed=0):
    torch.manual_seed(seed)
    made = Net()
    made(PICTURES)  # moves the running numbers
    return made.eval()


PICTURES = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(5)) + 0.3


def hidden(model):
    with torch.no_grad():
        return model(tiny.ids()).last_hidden_state


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    ("recipe", "keep"), [(svd, 0.6), (lord, 0.6), (RTN, None), ([RTN, functools.partial(svd, rank=2)], None)]
)
def test_an_encoder_is_compressed_saved_and_loaded_to_the_last_digit(recipe, keep, dtype, tmp_path):
    model = encoder()
    plan = polyad.plan(model, recipe, keep=keep, calibrate=TEXT)
    polyad.apply(model, plan)
    assert len(plan.selected) == 12  # its pooler stays
    if keep:
        assert set(plan.importance) == set(plan.selected)
        whole = parameters(encoder(), plan.selected).selected
        biases = sum(encoder().get_submodule(path).bias.numel() for path in plan.selected)  # stay
        assert 0.5 < (parameters(model, plan.selected).selected - biases) / (whole - biases) <= keep
    if dtype is not None:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).float()
    polyad.save(model, tmp_path / "out", dtype=dtype)
    again = polyad.load(tmp_path / "out", dtype=torch.float32)
    assert type(again) is transformers.BertModel
    assert torch.equal(hidden(again), hidden(model))


def test_importance_of_an_encoder_is_the_relative_change_of_its_output():
    model = encoder()
    plan = polyad.plan(model, svd, keep=0.6, calibrate=TEXT)
    name = "encoder.layer.1.output.dense"
    curve = plan.curves[name]
    place = curve.affordable(0.5 * curve.whole)
    with torch.no_grad():
        before = model(TEXT.probe)[0]
        cut = copy.deepcopy(model)
        layer = cut.get_submodule(name)
        layer.weight.data = svd(layer.weight.data, int(curve.sizes[place])).to_dense()
        change = float((cut(TEXT.probe)[0] - before).square().sum() / before.square().sum())
    expected = change * float(curve.errors[0] / curve.errors[place])
    assert plan.importance[name] == pytest.approx(expected, rel=1e-3)


def test_an_encoder_has_no_perplexity(tmp_path, polyad_command, tiny_text):
    model = encoder()
    with pytest.raises(ValueError, match="a BertModel predicts no next token, so it has no perplexity"):
        polyad.evaluate(model, "stdlib")
    with pytest.raises(ValueError, match=r"BertModel has no blocks .* works layer by layer, such as lord or svd"):
        polyad.plan(model, modegpt, keep=0.8, calibrate=TEXT)
    model.save_pretrained(tmp_path / "bert")
    tiny.tokenizer().save_pretrained(tmp_path / "bert")
    told = ("compress", tmp_path / "bert", "--method", "svd", "--keep", "0.8", "--out", tmp_path / "out")
    code, _, err = polyad_command(*told, "--calibrate", tiny_text, "--text", tiny_text)
    assert code == 1
    assert "predicts no next token" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("recipe", "keep"), [(svd, 0.7), (lord, 0.7), (functools.partial(lord, centre=True), 0.7), (RTN, None)]
)
def test_a_convnet_is_compressed_saved_and_loaded_to_the_last_digit(recipe, keep, tmp_path):
    model = convnet()
    plan = polyad.plan(model, recipe, keep=keep, calibrate=PICTURES)
    assert plan.selected == ("wide", "point", "head")  # the stem pads by itself, the depthwise one has groups
    assert set(plan.texts) == {"inputs"}
    polyad.apply(model, plan)
    assert isinstance(model.stem, Same)
    assert {type(model.get_submodule(p)) for p in plan.selected} <= {Conv, Linear, nn.Conv2d, Same, nn.Linear}
    assert isinstance(model.wide, Conv)
    polyad.save(model, tmp_path / "out", recipe="x")
    again = polyad.load(tmp_path / "out", like=convnet(1))
    with torch.no_grad():
        assert torch.equal(again(PICTURES), model(PICTURES))
        assert not torch.equal(again(PICTURES), convnet()(PICTURES))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Conv1d(8, 12, 3, dilation=2), nn.Conv3d(8, 12, 2)],
    ids=["2d", "1d", "3d"],
)
def test_factors_of_full_rank_are_the_convolution(layer):
    model = nn.Sequential(layer, nn.ReLU())
    x = torch.randn(2, 8, *(7 for _ in layer.kernel_size))
    before = model(x)
    polyad.apply(model, polyad.plan(model, functools.partial(svd, rank=12)))
    assert isinstance(model[0], Conv)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_the_rows_of_a_convolution_are_its_patches():
    model, batches = convnet(), PICTURES.split(2)
    found = collect(model, {"wide": {"second", "mean", "peak", "output_square"}, "head": {"mean"}}, batches)["wide"]
    with torch.no_grad():
        before = model.stem(PICTURES).relu()
        rows = F.unfold(before, 3, stride=2, padding=1).transpose(1, 2).reshape(-1, 72)
        out = model.wide(before).movedim(1, -1).reshape(-1, 16)
    assert found.count == len(rows) == len(out)
    torch.testing.assert_close(found.second, rows.mT @ rows / len(rows), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mean, rows.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.peak, rows.abs().amax(0))
    torch.testing.assert_close(found.output_square, out.square().mean(0), rtol=1e-4, atol=1e-5)


def test_two_convolutions_of_one_input_share_no_statistics_unless_their_patches_are_alike():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.same, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.one(x).sum() + self.same(x).sum() + self.other(x).sum()

    found = collect(Two(), {name: {"second"} for name in ("one", "same", "other")}, PICTURES.split(3))
    assert found["one"].second is found["same"].second
    assert found["other"].second.shape == (3, 3)


def test_lord_leaves_less_of_a_convolutions_output_than_svd_does():
    errors = {}
    for recipe in (svd, lord):
        model = convnet()
        polyad.apply(model, polyad.plan(model, functools.partial(recipe, rank=4), calibrate=PICTURES, select="wide"))
        with torch.no_grad():
            x = convnet().stem(PICTURES).relu()
            errors[recipe] = float((model.wide(x) - convnet().wide(x)).square().mean())
    assert errors[lord] < errors[svd]


def test_a_centred_convolution_keeps_the_mean_of_its_output():
    model = convnet()
    recipe = functools.partial(lord, rank=3, centre=True)
    polyad.apply(model, polyad.plan(model, recipe, calibrate=PICTURES, select="wide"))
    with torch.no_grad():
        x = convnet().stem(PICTURES).relu()
        after, before = model.wide(x).mean((0, 2, 3)), convnet().wide(x).mean((0, 2, 3))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_layers_that_cannot_be_replaced_are_named():
    model = convnet()
    with pytest.raises(ValueError, match=r"stem cannot be replaced: its class Same has a forward pass of its own"):
        compressible(model, "stem")
    with pytest.raises(ValueError, match=r"depth cannot be replaced: it is a convolution in 16 groups"):
        compressible(model, "depth")
    assert list(compressible(model, "depth", grouped=True)) == ["depth"]
    assert layer_obstacle(model.point) is None
    for stride in (1, 2, 3):
        assert "a forward pass of its own" in str(layer_obstacle(Uneven(3, 4, 3, stride=stride)))
    assert "padding is 'same'" in str(layer_obstacle(nn.Conv2d(2, 2, 3, padding="same")))
    assert "with reflect" in str(layer_obstacle(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")))
    assert "without calling it" in str(layer_obstacle(nn.MultiheadAttention(8, 2).out_proj))
    with pytest.raises(ValueError, match="ReLU has no layer to compress"):
        compressible(nn.ReLU())


def test_a_convolution_in_groups_can_be_quantised():
    model = convnet()
    polyad.apply(model, polyad.plan(model, functools.partial(round_to_nearest, bits=8), select="depth"))
    with torch.no_grad():
        torch.testing.assert_close(model(PICTURES), convnet()(PICTURES), rtol=0.02, atol=0.02)
        assert not torch.equal(model(PICTURES), convnet()(PICTURES))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"budget": "flops"}, "those of a convolution depend on the size"),
     ({"avoid_slow": True}, "avoid_slow times linear layers, and wide is a convolution"),
     ({"calibrate": tiny.ids()}, r"calibrate is a tensor of torch.int64 .* give floating-point inputs"),
     ({"calibrate": PICTURES / 0}, "calibrate of shape .* infinite"),
     ({"calibrate": "stdlib"}, "Net has no tokenizer, so text cannot be read for it")],
)  # fmt: skip
def test_what_a_convnet_cannot_be_asked_for(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        polyad.plan(convnet(), svd, keep=0.7, **{"calibrate": PICTURES, **options})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layers_that_transformers_keeps_in_float32_stay_so(tmp_path, dtype):
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    polyad.save(model, tmp_path / "t5")
    right = type(model).from_pretrained(tmp_path / "t5", dtype=dtype)
    again = polyad.load(tmp_path / "t5", dtype=dtype)
    assert {n: p.dtype for n, p in again.named_parameters()} == {n: p.dtype for n, p in right.named_parameters()}
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), right.parameters(), strict=True))
    kept = {p.dtype for n, p in again.named_parameters() if ".wo." in n}
    assert dtype != torch.float16 or kept == {torch.float32}
