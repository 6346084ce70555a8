"""Models in one GGUF file, with their tokenizer."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from polyad.models.gguf_header import check_header
from polyad.models.quiet import quiet

MAGIC = b"GGUF"


def from_gguf(path: Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """The model and the tokenizer in a GGUF file, weights dequantised to ``dtype`` (float32 if None)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _look_at(path)
    try:
        with quiet():
            kwargs: dict[str, Any] = {"gguf_file": path.name, "dtype": dtype or torch.float32}
            loaded: Any = AutoModelForCausalLM.from_pretrained(path.parent, output_loading_info=True, **kwargs)
            model, notes = loaded
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs more packages: pip install 'polyad[gguf]' ({error})") from None
    except Exception as error:  # what reads these files checks nothing, and so raises anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be read ({said}); it is truncated or damaged, or of an architecture that transformers "
            "does not read from GGUF: get the file again, or give a folder of safetensors"
        ) from error
    if notes["missing_keys"]:  # transformers would fill them with random numbers
        names = ", ".join(sorted(notes["missing_keys"])[:3])
        raise ValueError(f"{path} holds no numbers for {names}; the file is not whole: get it again")
    # The weights are plain tensors by now; what is left of the quantiser would forbid saving them.
    plain: Any = model
    plain.hf_quantizer = None
    plain.config.__dict__.pop("quantization_config", None)
    return model, _drop_added_tokens(tokenizer, model.get_input_embeddings().num_embeddings)


def _look_at(path: Path) -> None:
    """Refuse files that are no GGUF at all."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no GGUF file at {path}")
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise ValueError(f"{path} is no GGUF file (it does not begin with {MAGIC.decode()}); get the file again")
    check_header(path)


def _drop_added_tokens(tokenizer: Any, rows: int) -> Any:
    """The tokenizer without tokens that are not the file's: transformers adds an end of text where there is none."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    if len(tokenizer) <= rows or len(vocabulary) > rows:
        return tokenizer
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as place, quiet():
        tokenizer.save_pretrained(place)
        for name, key in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", "added_tokens_decoder")):
            file = Path(place, name)
            stated = json.loads(file.read_text(encoding="utf-8"))
            tokens = stated.get(key, [])
            if isinstance(tokens, dict):
                stated[key] = {i: token for i, token in tokens.items() if int(i) < rows}
            elif tokens:
                stated[key] = [token for token in tokens if token["id"] < rows]
            file.write_text(json.dumps(stated), encoding="utf-8")
        return AutoTokenizer.from_pretrained(place)
