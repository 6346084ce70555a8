"""How a case is put on the shelf: what polyad wrote, what it is, and what this polyad reads of it."""

import json
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

import polyad
from polyad.layers import Factors
from polyad.testing.decoders import fill_randomly
from saved.reading import BITS, CASE, EXPECTED, SAVED, STORED, contents, digest, read

ROOT = Path(__file__).parent / polyad.__version__
SIZES = {
    "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 32, "max_position_embeddings": 32,
    "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
ASKED = {"input": [1, 6], "tokens": 32}
WORDS = [
    "a", "the", "of", "and", "in", "to", "is", "it", "at", "on", "one", "two", "three", "four", "five", "six", "red",
    "green", "blue", "old", "new", "big", "small", "sun", "moon", "tree",
]  # fmt: skip


class Case:
    """A case while it is written: ``saved`` is where polyad writes, ``exact`` what has no rounding beside state,
    ``before`` tensors as they were before they were saved."""

    def __init__(self, folder):
        self.folder, self.saved, self.exact, self.before = folder, folder / SAVED, set(), {}


@contextmanager
def case(kind, name, holds, **stated):
    """A new case; after the block it is read, and what is read is what later versions must read."""
    made = Case(ROOT / kind / name)
    shutil.rmtree(made.folder, ignore_errors=True)
    made.folder.mkdir(parents=True)
    yield made
    text = json.dumps({"holds": holds, "kind": kind, **stated}, indent=1)
    (made.folder / CASE).write_text(text + "\n")
    with tempfile.TemporaryDirectory() as work:
        found = read(made.folder, Path(work))
    lost = [key for key, t in made.before.items() if not torch.equal(t, found[key])]
    assert not lost, f"{name} was not saved whole: {lost}"
    stored = {key: digest(t) for key, t in found.items() if key.startswith(STORED)}
    (made.folder / BITS).write_text(json.dumps(stored, indent=0) + "\n")
    follows = {key: t.contiguous().clone() for key, t in found.items() if key not in stored}
    save_file({f"{'kept' if k in made.exact else 'near'}/{k}": t for k, t in follows.items()}, made.folder / EXPECTED)
    print(f"{kind}/{name}: {len(stored)} stored, {len(made.exact)} of {len(follows)} others to the bit")


def llama(family="Llama", **changed):
    """A tiny model of transformers, its numbers drawn."""
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **changed})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    fill_randomly(model)
    return model


def on_grid(format, step=16):
    """The format with numbers so coarse that every sum of their products is exact in float32."""
    grid = {n: (t / 2 * step).round() / step if t.is_floating_point() else t for n, t in format.tensors().items()}
    return format.replace(grid)


def unrounded(weights):
    """The names of formats whose dense numbers are the same in float64: nothing was rounded on the way."""
    return {
        f"dense/{name}"
        for name, w in weights.items()
        if torch.equal(w.to_dense().double(), w.to(torch.float64).to_dense())
    }


def keep_model(made, model, x, **how):
    """Save a model into the case."""
    if "dtype" not in how:
        made.before = contents(model, x)
    weights = {p: m.weight() for p, m in model.named_modules() if isinstance(getattr(m, "weight", None), Factors)}
    made.exact |= unrounded(weights)
    polyad.save(model, made.saved, **how)


def tokenizer():
    """A word is a token; 32 of them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<end>", "<unknown>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


def text(count=1100):
    """Words in a random order, some oftener than others."""
    shares = 1 / torch.arange(1, len(WORDS) + 1.0)
    drawn = torch.multinomial(shares, count, replacement=True, generator=torch.Generator().manual_seed(0))
    return " ".join(WORDS[i] for i in drawn.tolist()) + "\n"


def killed(act):
    """Run in a child process that kills itself, as a machine that goes down does."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run came to its end"


def kill_at(stage, step):
    """A callback that kills the process at a step of a stage."""

    def callback(now, _total, values):
        if values.get("stage") == stage and now >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    return callback


def alter(file, change, **stated):
    """Change tensors, and what is stated, of a file of state: no run from the beginning gives these numbers."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
    tensors = {key: change(key, t) for key, t in tensors.items()}
    if stated:
        metadata = {"polyad": json.dumps({**json.loads(metadata["polyad"]), **stated})}
    save_file(tensors, file, metadata)
