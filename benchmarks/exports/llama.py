"""llama.cpp's own programs: its file of the same tensors, perplexities, and tokens a second."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

CONTEXT, CHUNKS = 512, 6


def program(name: str) -> str:
    """The path of a program in the folder that LLAMA_TOOLS names."""
    folder = os.environ.get("LLAMA_TOOLS")
    if folder is None or not Path(folder, name).is_file():
        raise SystemExit(f"LLAMA_TOOLS is to name a folder with {name}, built of llama.cpp for this processor")
    return str(Path(folder, name))


def quantize_like(ours: Path, base: Path, out: Path) -> None:
    """The file that llama.cpp makes of ``base`` with the container that each tensor has in ``ours``."""
    import gguf

    tensors = gguf.GGUFReader(str(ours)).tensors
    kinds = {t.name: t.tensor_type.name.lower() for t in tensors if len(t.shape) > 1}
    rules = out.with_suffix(".tensors")
    rules.write_text("".join(f"^{re.escape(name)}$={kind}\n" for name, kind in kinds.items() if "embd" not in name))
    table = kinds["token_embd.weight"]
    call = [program("llama-quantize"), "--tensor-type-file", str(rules), "--token-embedding-type", table,
            "--output-tensor-type", table, str(base), str(out), "q8_0", "1"]  # fmt: skip
    subprocess.run(call, check=True, capture_output=True)


def perplexity(file: Path, text: Path) -> float:
    """What ``llama-perplexity`` says of a file on the first windows of a text."""
    call = [program("llama-perplexity"), "-m", str(file), "-f", str(text), "-c", str(CONTEXT), "-b", str(CONTEXT),
            "--chunks", str(CHUNKS), "-t", "1"]  # fmt: skip
    said = subprocess.run(call, check=True, capture_output=True, text=True)
    value = re.search(r"Final estimate: PPL = ([\d.]+)", said.stdout + said.stderr)
    if value is None:
        raise ValueError(f"llama-perplexity gave no estimate: {said.stderr[-300:]}")
    return float(value[1])


def tokens_a_second(file: Path, tokens: int) -> float:
    """Decoded tokens a second by ``llama-bench``, one thread."""
    call = [program("llama-bench"), "-m", str(file), "-t", "1", "-p", "0", "-n", str(tokens), "-r", "1", "-o", "json"]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)[0]["avg_ts"]
