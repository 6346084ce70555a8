"""What a claim finds, how it is kept, and when it has gone stale."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from polyad.claims._code import code

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """A paper's assertion as an inequality, and the figure measured here.

    ``relation`` is "<=" or ">="; ``data`` maps each text or data set to the sha256 of what was used of it;
    ``details`` holds further figures that help to read the first.
    """

    statement: str
    measured: float
    relation: str
    bound: float
    data: Mapping[str, str]
    seed: int
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the inequality is true of the measured figure."""
        return self.measured <= self.bound if self.relation == "<=" else self.measured >= self.bound


def run(handle: str, module: ModuleType, *, callback: Any = None) -> dict[str, Any]:
    """Run one claim and keep its result, the failed ones too."""
    from polyad.compress.run import versions

    own, used = source(module), code(module)  # before it runs: files may change meanwhile
    clock = time.perf_counter()
    found: Result = module.claim(callback=callback)
    record = {
        "handle": handle, **asdict(found), "holds": found.holds, "seconds": round(time.perf_counter() - clock, 1),
        "versions": versions(), "source": own, "code": used,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{handle}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return record


def read(handle: str, module: ModuleType) -> dict[str, Any] | None:
    """The kept result of a claim with its ``state``: holds, fails, or stale; and ``because``, why it is stale."""
    path = RESULTS / f"{handle}.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    because = staleness(record, module)
    state = "stale" if because else "holds" if record["holds"] else "fails"
    return {**record, "state": state, "because": because}


def staleness(record: Mapping[str, Any], module: ModuleType) -> str | None:
    """Why a record says nothing of the code as it stands; None where it does."""
    if record["source"] != source(module):
        return "the claim has changed since it was run"
    if "code" not in record:
        return "it was run before the code that it tests was recorded"
    return None if record["code"] == code(module) else "the code that it tests has changed since it was run"


def source(module: ModuleType) -> str:
    """The sha256 of a claim's own file."""
    return hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
