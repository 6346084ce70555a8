"""Folders of peft's with LoRA on the experts of a mixture, and with single rows of embeddings that were trained."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.pytorch_utils import Conv1D

from polyad.adapters import Adapters
from polyad.interop.peft import from_peft

IDS = torch.arange(1, 13)[None]
MIXTURE = Qwen3MoeConfig(
    hidden_size=16, intermediate_size=24, moe_intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8, num_experts=3, num_experts_per_tok=2, vocab_size=40, decoder_sparse_step=1,
)  # fmt: skip


def mixture():
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(MIXTURE).eval()


def llama(tied):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, tie_word_embeddings=tied, **sizes)).eval()


def written(model, folder, **settings):
    """What peft computes with random numbers in an adapter, which it saves."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], **settings))
    for i, (name, tensor) in enumerate(wrapped.named_parameters()):
        if "lora_" in name or "trainable_tokens_delta" in name:
            torch.nn.init.normal_(tensor.data, std=0.3, generator=torch.Generator().manual_seed(i))
    wrapped.save_pretrained(folder)
    return wrapped.eval()(IDS).logits.detach()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize(
    "targets",
    [["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], ["mlp.experts.down_proj", "gate_up_proj"], ["down_proj"]],
)
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_experts_compute_what_they_did(tmp_path, targets, rank_stabilised):
    expected = written(mixture(), tmp_path, target_parameters=targets, use_rslora=rank_stabilised)
    model = mixture()
    plain = logits(model)
    adapters = Adapters(model)
    from_peft(adapters, tmp_path)
    torch.testing.assert_close(logits(model), expected)
    adapters.merge()
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    adapters.unmerge()
    adapters.detach("peft")
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize(
    ("tied", "rows"),
    [
        (False, [3, 5]),
        (False, {"embed_tokens": [3], "lm_head": [4, 6]}),
        (True, [3, 5]),
        (True, {"embed_tokens": [7]}),
    ],
)
def test_rows_of_embeddings_compute_what_they_did(tmp_path, tied, rows):
    expected = written(llama(tied), tmp_path / "peft", trainable_token_indices=rows)
    model = llama(tied)
    plain = logits(model)
    adapters = Adapters(model)
    from_peft(adapters, tmp_path / "peft")
    torch.testing.assert_close(logits(model), expected)
    adapters.save("peft", tmp_path / "polyad")
    adapters.activate([])
    assert torch.equal(logits(model), plain)
    again = llama(tied)
    Adapters(again).load(tmp_path / "polyad")
    torch.testing.assert_close(logits(again), expected)


class Transposed(torch.nn.Module):
    """Layers whose weight lies (in, out), one of them square, and one that lies the usual way."""

    def __init__(self):
        super().__init__()
        self.first, self.square, self.last = Conv1D(20, 10), Conv1D(20, 20), torch.nn.Linear(20, 2)

    def forward(self, x):
        return self.last(torch.relu(self.square(torch.relu(self.first(x)))))


@pytest.mark.parametrize("targets", [["first.weight"], ["square.weight"], ["square.weight", "last.weight"]])
def test_parameters_of_two_dimensions_compute_what_they_did(tmp_path, targets):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Transposed())
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    wrapped = peft.get_peft_model(models[0], peft.LoraConfig(r=4, target_modules=[], target_parameters=targets))
    for i, (name, tensor) in enumerate(wrapped.named_parameters()):
        if "lora_" in name:
            torch.nn.init.normal_(tensor.data, std=0.3, generator=torch.Generator().manual_seed(i))
    wrapped.save_pretrained(tmp_path)
    from_peft(Adapters(models[1]), tmp_path)
    torch.testing.assert_close(models[1](x), wrapped(x))


def change(folder, settings=None, tensors=None):
    """Changes what a folder states, or holds."""
    stated = json.loads((folder / "adapter_config.json").read_text()) | (settings or {})
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    held = load_file(folder / "adapter_model.safetensors")
    held = tensors(held) if tensors else held
    save_file({name: tensor.contiguous() for name, tensor in held.items()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"trainable_token_indices": [3, 40]}}, "2 rows of model.embed_tokens, the last of them 40"),
        ({"settings": {"trainable_token_indices": [3]}}, "for 1 rows of model.embed_tokens"),
        ({"settings": {"trainable_token_indices": {"other": [3, 5]}}}, "names no rows of model.embed_tokens"),
        ({"settings": {"trainable_token_indices": ["3", 5]}}, "names no rows of model.embed_tokens"),
        ({"tensors": lambda held: {k.replace("embed_tokens", "norm"): v for k, v in held.items()}}, "no embedding"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, changed, said):
    written(llama(False), tmp_path, trainable_token_indices=[3, 5])
    change(tmp_path, **changed)
    adapters = Adapters(llama(False))
    with pytest.raises(ValueError, match=said):
        from_peft(adapters, tmp_path)
    assert not adapters.layers()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (lambda held: {k: v for k, v in held.items() if ".base_layer." not in k}, "names .*gate_up_proj, of which"),
        (
            lambda held: {k: v[:5] if "experts.lora_A" in k else v for k, v in held.items()},
            "has 3 experts and lora_A",
        ),
    ],
)
def test_experts_that_do_not_fit_are_refused(tmp_path, tensors, said):
    written(mixture(), tmp_path, target_parameters=["gate_up_proj", "mlp.experts.down_proj"])
    change(tmp_path, tensors=tensors)
    adapters = Adapters(mixture())
    with pytest.raises(ValueError, match=said):
        from_peft(adapters, tmp_path)
    assert not adapters.layers()
