"""Models in one GGUF file, with their tokenizer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from polyad.models.gguf.header import Header, read_header, refuse_partial, widths_by_layer
from polyad.models.gguf.keys import check_frequencies, take_keys
from polyad.models.gguf.limits import check_header
from polyad.models.gguf.tensors import refuse_unused
from polyad.models.quiet import quiet

MAGIC = b"GGUF"


def from_gguf(path: Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """The model and the tokenizer in a GGUF file, weights dequantised to ``dtype`` (float32 if None).

    Every tensor and every key that changes the function is used, or the file is refused by its name.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    _look_at(path)
    with _plain_errors(path):
        header = read_header(path)
    refuse_partial(header)
    with tempfile.TemporaryDirectory() as place, quiet():  # files beside it in its folder belong to other models
        link = Path(place, "model.gguf")
        link.symlink_to(path.resolve())
        source: dict[str, Any] = {"gguf_file": link.name, "trust_remote_code": False}
        with _plain_errors(path, header):
            config = AutoConfig.from_pretrained(place, **source)
        take_keys(config, header)
        options = {"dtype": dtype or torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
        with _plain_errors(path, header):
            loaded: Any = AutoModelForCausalLM.from_pretrained(place, config=config, **source, **options)
            tokenizer = AutoTokenizer.from_pretrained(place, **source)
    if header.keys.get("tokenizer.ggml.add_space_prefix") is False:
        _drop_first_space(tokenizer)
    model, notes = loaded
    refuse_unused(model, header, notes)
    check_frequencies(model, header)
    # The weights are plain tensors by now; what is left of the quantiser would forbid saving them.
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    model.config.name_or_path = str(path)
    return model, _drop_added_tokens(tokenizer, model.get_input_embeddings().num_embeddings)


@contextmanager
def _plain_errors(path: Path, header: Header | None = None) -> Iterator[None]:
    """Errors of the readers of GGUF in plain words."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs more packages: pip install 'polyad[gguf]' ({error})") from None
    except Exception as error:  # what reads these files checks nothing, and so raises anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        differing = widths_by_layer(header) if header is not None else []
        if differing:
            raise ValueError(
                f"{path} states {', '.join(differing)} layer by layer, and no configuration of transformers for "
                f"{header and header.architecture} does; give a folder of safetensors instead"
            ) from error
        raise ValueError(
            f"{path} cannot be read ({said}); it is truncated or damaged, or of an architecture that transformers "
            "does not read from GGUF: get the file again, or give a folder of safetensors"
        ) from error


def _look_at(path: Path) -> None:
    """Refuse files that are no GGUF at all."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no GGUF file at {path}")
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise ValueError(f"{path} is no GGUF file (it does not begin with {MAGIC.decode()}); get the file again")
    check_header(path)


def _drop_first_space(tokenizer: Any) -> None:
    """Let a tokenizer of pieces put no space before a text: transformers' reader does not look at that key."""
    from tokenizers import Tokenizer

    stated = json.loads(tokenizer.backend_tokenizer.to_str())
    rule, decoder = stated.get("pre_tokenizer") or {}, stated.get("decoder") or {}
    if rule.get("type") != "Metaspace":
        return
    rule["prepend_scheme"] = "never"
    decoder["decoders"] = [step for step in decoder.get("decoders", []) if step["type"] != "Strip"]
    whole = Tokenizer.from_str(json.dumps(stated))
    tokenizer.backend_tokenizer.pre_tokenizer, tokenizer.backend_tokenizer.decoder = (
        whole.pre_tokenizer,
        whole.decoder,
    )


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
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
