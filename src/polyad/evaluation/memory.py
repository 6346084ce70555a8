"""Peak memory of loading a model and reading a prompt, from a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path


def peak(name: str, *, tokens: int = 1024, dtype: str | None = None) -> int:
    """Bytes of the largest resident set while a fresh process loads ``name`` and reads ``tokens`` random ids."""
    command = [sys.executable, "-m", "polyad.evaluation.memory", name, str(tokens), dtype or ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the process that measures memory failed on {name}: {last}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak_memory_bytes"])


def main(name: str, tokens: int, dtype: str) -> None:
    """Measure in the fresh process; prints one JSON object."""
    import torch

    from polyad.data.calibration import window_length
    from polyad.models import load

    model = load(name, dtype=getattr(torch, dtype) if dtype else None)
    with torch.no_grad():
        model(torch.arange(window_length(model, tokens))[None] % model.config.vocab_size, logits_to_keep=1)
    print(json.dumps({"peak_memory_bytes": largest_resident_set()}))


def forget() -> bool:
    """Begin to measure ``largest`` anew, and say whether this system can; only Linux does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def largest_resident_set() -> int:
    """Bytes of this process's largest resident set.

    Linux starts ``ru_maxrss`` at what the process that forked this one held, so its own high-water mark is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
