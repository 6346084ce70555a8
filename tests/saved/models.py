"""Models: every format in a layer, every kind of layer and attention, in one file and in several."""

import copy
import functools

import torch
from torch import nn

import polyad
from polyad import attention, compress
from polyad.data import Calibration
from polyad.decompose import svd
from polyad.formats import Dense, LowRank, Product, Sparse, Sum, kinds
from polyad.layers import Conv, Embedding, Linear
from polyad.models import decoder_linears, replace
from polyad.quantize import block_floating_point, least_distortion, round_to_nearest
from saved.reading import built, contents, inputs
from saved.shelf import ASKED, case, keep_model, llama, on_grid, tokenizer

X = inputs(ASKED)


def weight(model, path):
    return model.get_submodule(path).weight.detach()


def keep(name, holds, model, **how):
    with case("model", name, holds, **ASKED) as made:
        keep_model(made, model, X, **how)


def plain():
    keep("plain", "an untouched Llama with its tokenizer, as transformers loads it", llama(), tokenizer=tokenizer())
    keep("two-layers", "a Llama of two layers", llama(num_hidden_layers=2))
    narrow = llama()
    cut(narrow.model.layers[0].mlp, 10)
    keep("narrow", "one MLP width less than the configuration said, which it can state", narrow)
    uneven = llama(num_hidden_layers=2)
    cut(uneven.model.layers[1].mlp, 10)
    keep("uneven", "MLPs of two widths, which no configuration states", uneven)
    keep("shards", "a Llama in several files with an index", llama(), max_shard_size=1500)
    keep("half", "a Llama stored in bfloat16", llama(), dtype=torch.bfloat16)
    keep("tied", "embeddings and head are one tensor", llama(tie_word_embeddings=True))
    mixture = llama("Mixtral", num_local_experts=3, num_experts_per_tok=2)
    keep("mixture", "a mixture of three experts", mixture)
    keep("fused", "one projection for queries, keys and values, one for the gate and up", llama("Phi3"))
    keep("biased", "linear layers with biases, one of low rank", with_bias())


def cut(mlp, width):
    for role in ("gate_proj", "up_proj", "down_proj"):
        old = getattr(mlp, role).weight.detach()
        new = old[:, :width] if role == "down_proj" else old[:width]
        setattr(mlp, role, nn.Linear(new.shape[1], new.shape[0], bias=False))
        getattr(mlp, role).weight.data = new.clone()


def with_bias():
    made = llama("Qwen2")
    for path in ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"):
        old = made.get_submodule(path)
        replace(made, {path: Linear(svd(old.weight.detach(), 3), old.bias.detach())})
    return made


def formats():
    """Every kind of format in a layer of two models of two layers."""
    waiting = [kind for name, kind in sorted(kinds().items()) if name != "Tubal"]  # which is no matrix
    waiting.sort(key=lambda kind: kind.fits((12, 8)))  # square ones first, into square layers
    for number in (1, 2):
        model = llama(num_hidden_layers=2)
        paths = sorted(decoder_linears(model), key=lambda path: weight(model, path).shape != (8, 8))
        put = {}
        for i, path in enumerate(paths):
            if waiting:
                shape = tuple(weight(model, path).shape)
                kind = next(k for k in waiting if k.fits(shape))
                waiting.remove(kind)
                put[path] = Linear(on_grid(kind.random(shape, generator=torch.Generator().manual_seed(i))))
        replace(model, put)
        names = ", ".join(type(m.weight()).__name__ for m in put.values())
        keep(f"formats-{number}", f"layers of {names}", model)
        if number == 1:
            keep("formats-shards", f"the same in several files, stored in bfloat16: {names}", copy.deepcopy(model),
                 max_shard_size=4000, dtype=torch.bfloat16)  # fmt: skip
    assert not waiting, f"no layer was left for {waiting}"


def codes():
    """Codes of all widths, with zero points and without, in sums and in products."""
    model = llama(num_hidden_layers=2)
    put = {}
    for i, path in enumerate([*decoder_linears(model), "lm_head"]):
        bits, symmetric = i // 2 + 1, bool(i % 2)
        put[path] = Linear(round_to_nearest(weight(model, path), bits, group=8, symmetric=symmetric))
    rough = round_to_nearest(weight(model, "model.embed_tokens"), 8, symmetric=True)
    replace(model, {**put, "model.embed_tokens": Embedding(rough)})
    keep("codes", "1 to 8 bits, by turns with a zero point and without; 8 bits in the embedding", model)

    model = llama()
    w = functools.partial(weight, model)
    layers = list(decoder_linears(model))
    made = [
        round_to_nearest(w(layers[0]), 4, group=(4, 4)),
        round_to_nearest(w(layers[1]), 4, zero_dtype=torch.float32, scale_dtype=torch.float32),
        round_to_nearest(w(layers[2]), 5, scale_dtype=torch.float16, zero_dtype=torch.float16),
        block_floating_point(w(layers[3]), 4, group=8),
        least_distortion(w(layers[4]), 3, group=8),
        Sum((rough := round_to_nearest(w(layers[5]), 2, group=8), svd(w(layers[5]) - rough.to_dense(), 2))),
        Product(tuple([round_to_nearest(p.contiguous(), 8) for p in factors(w(layers[6]))])),
    ]
    replace(model, {path: Linear(own) for path, own in zip(layers, made, strict=True)})
    keep("codes-mixed", "other blocks, scales and zero points; codes in a sum and in a product", model)
    keep("codes-half", "the same stored in bfloat16", model, dtype=torch.bfloat16)


def factors(x):
    cut = svd(x, 4)
    return cut.left, cut.right


def nested():
    model = llama()
    q, k, _, _, _, up, _ = decoder_linears(model)
    one = svd(weight(model, q), 4)
    dense = weight(model, up)
    replace(model, {
        q: Linear(Sum((one, LowRank(one.left, torch.ones(4, 8))))),
        k: Linear(Product((Dense(torch.eye(4)), Sum((svd(weight(model, k), 2), Dense(weight(model, k))))))),
        up: Linear(Sparse.from_dense(dense * (dense.abs() > 0.2))),
    })  # fmt: skip
    keep("nested", "terms of a sum that share a tensor, a sum in a product, sparse numbers", model)
    model = llama(tie_word_embeddings=True)
    replace(model, {"model.embed_tokens": Embedding(svd(weight(model, "model.embed_tokens"), 3))})
    keep("tied-factors", "embeddings of low rank, tied to the head", model)
    model = llama(tie_word_embeddings=True)
    rough = round_to_nearest(weight(model, "model.embed_tokens"), 4)
    rest = svd(weight(model, "model.embed_tokens") - rough.to_dense(), 2)
    replace(model, {"model.embed_tokens": Embedding(Sum((rough, rest)))})
    keep("tied-sum", "embeddings of codes and a correction, tied to the head", model)


def heads():
    """Attention of other widths, and of another form."""
    text = Calibration(torch.randint(1, 32, (4, 16), generator=torch.Generator().manual_seed(1)), X[:1], {"ids": "0"})
    for name, model in (
        ("heads", llama(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)),
        ("heads-window", llama("Mistral", sliding_window=4)),
    ):
        recipe = functools.partial(compress.modegpt, keep=1)
        polyad.apply(model, polyad.plan(model, recipe, calibrate=text))
        keep(name, "every block cut to one channel or pair by modegpt: uneven heads, kept rotation pairs", model)
    model = llama(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    recipe = functools.partial(compress.modegpt, rules="qk-mlp")
    polyad.apply(model, polyad.plan(model, recipe, keep=0.8, calibrate=text))
    keep("heads-budget", "queries, keys and MLPs cut by a budget", model)
    model = llama("Qwen2", num_attention_heads=4, num_key_value_heads=2)
    attention.convert(model)
    keep("latent", "attention converted to a latent without loss, with biases", model)
    model = llama(num_attention_heads=4, num_key_value_heads=2)
    attention.convert(model, rank=6, rope=2, windows=list(text.windows))
    path = "model.layers.0.self_attn.o_proj"
    replace(model, {path: Linear(svd(weight(model, path), 3))})
    keep("latent-cut", "attention converted to a latent of 6 numbers, its output projection of low rank", model)


def foreign():
    """Modules that no configuration describes, loaded into another of their kind."""

    def call(name, *args, **options):
        return {"call": name, "args": list(args), "options": options}

    like = call(
        "torch.nn.Sequential", call("torch.nn.Conv2d", 3, 6, 3, padding=1), call("torch.nn.BatchNorm2d", 6),
        call("torch.nn.Conv2d", 6, 8, 3, stride=2, bias=False), call("torch.nn.ReLU"), call("torch.nn.Flatten"),
        call("torch.nn.Linear", 72, 3),
    )  # fmt: skip

    def pictures():
        torch.manual_seed(0)
        made = built(like)
        made(torch.randn(4, 3, 8, 8))  # moves the running numbers
        return made.eval()

    x = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
    for name, limit in (("pictures", 10**9), ("pictures-shards", 1500)):
        model = pictures()
        kernel = svd(model[2].weight.detach().flatten(1), 3)
        put = {
            "2": Conv.like(model[2], kernel),
            "5": Linear(round_to_nearest(weight(model, "5"), 8), model[5].bias.detach()),
        }
        replace(model, put)
        with case("model", name, "a convolution network, a kernel of low rank, codes in its head", input=[1, 3, 8, 8],
                  like=like) as made:  # fmt: skip
            keep_model(made, model, x, max_shard_size=limit)
    with case("model", "pictures-plain", "a convolution network as it was", input=[1, 3, 8, 8], like=like) as made:
        keep_model(made, pictures(), x)
    model = nn.Sequential(nn.Conv1d(4, 6, 3, dilation=2), nn.Conv1d(6, 4, 2, padding=1))
    signal_like = call(
        "torch.nn.Sequential",
        call("torch.nn.Conv1d", 4, 6, 3, dilation=2),
        call("torch.nn.Conv1d", 6, 4, 2, padding=1),
    )
    tucker = polyad.decompose.hooi(model[0].weight.detach().flatten(1), (3, 4))
    replace(model, {"0": Conv.like(model[0], tucker)})
    with case("model", "signals", "convolutions in one dimension, one with a Tucker kernel", input=[2, 4, 9],
              like=signal_like) as made:  # fmt: skip
        keep_model(made, model, torch.linspace(-1, 1, 72).reshape(2, 4, 9))
    for kind in ("tpa", "mla"):
        torch.manual_seed(0)
        options = {"width": 8, "layers": 1, "heads": 2, "hidden": 40}
        model = attention.decoder(kind, 32, **options).eval()
        path = next(p for p, m in model.named_modules() if type(m) is nn.Linear)
        replace(model, {path: Linear(svd(weight(model, path), 2))})
        with case("model", f"decoder-{kind}", f"a decoder of polyad's with attention {kind}, one layer of low rank",
                  like=call("polyad.attention.decoder", kind, 32, **options), **ASKED) as made:  # fmt: skip
            keep_model(made, model, X)


def pretrained():
    """What transformers' own ``save_pretrained`` writes of compressed models."""
    whole = llama(tie_word_embeddings=True, num_hidden_layers=2)
    table = round_to_nearest(weight(whole, "model.embed_tokens"), 6, group=8)
    put = {
        "model.embed_tokens": Embedding(table),
        "model.layers.0.mlp.up_proj": Linear(on_grid(svd(weight(whole, "model.layers.0.mlp.up_proj"), 3))),
        "model.layers.1.mlp.down_proj": Linear(round_to_nearest(weight(whole, "model.layers.1.mlp.down_proj"), 3)),
    }
    replace(whole, put)
    narrow = llama(num_hidden_layers=2)
    cut(narrow.model.layers[1].mlp, 10)
    path = "model.layers.0.self_attn.o_proj"
    replace(narrow, {path: Linear(svd(weight(narrow, path), 2))})
    for parameter in narrow.parameters():
        parameter.data = parameter.data.bfloat16()
    biased = llama()
    more = nn.Linear(12, 8)
    torch.manual_seed(0)
    for parameter in more.parameters():
        parameter.data.normal_()
    replace(biased, {"model.layers.0.mlp.down_proj": more})
    for name, holds, model, limit in (
        ("tied", "a tied table of codes, factors and codes in layers, in several files", whole, 1500),
        ("narrow", "MLPs of two widths, and one layer of low rank in bfloat16", narrow, "5GB"),
        ("more", "a bias that the architecture does not have", biased, "5GB"),
    ):
        with case("pretrained", name, holds, **ASKED) as made:
            made.before = contents(model, X)
            model.save_pretrained(made.saved, max_shard_size=limit)


MAKE = (plain, formats, codes, nested, heads, foreign, pretrained)
