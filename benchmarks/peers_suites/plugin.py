"""The plugin of pytest that puts stand-ins into a peer's tests and writes down how each ended."""

from __future__ import annotations

import importlib
import json
import os
import re
import tempfile
from typing import Any

import pytest
from benchmarks.peers_suites import stand_ins

PEER, STANDS_IN = os.environ["PEERS_SUITE"], os.environ.get("PEERS_STAND_IN", "")
STORE = os.environ["PEERS_STORE"]
OUTCOMES: dict[str, list[str]] = {}


def pytest_collection_modifyitems(items: list[Any]) -> None:
    peer = importlib.import_module(f"benchmarks.peers_suites.{PEER}_stand_ins")
    for module in {item.module for item in items}:
        if hasattr(peer, "prepare"):
            peer.prepare(module)
        if STANDS_IN:
            stand_ins.install(module, peer.TABLE)
    if STANDS_IN and hasattr(peer, "start"):
        peer.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any):
    stand_ins.Calls.count = 0
    name = item.nodeid.rpartition("/")[2]
    try:
        value = yield
    except pytest.skip.Exception:
        raise
    except BaseException as error:
        OUTCOMES[name] = [_verdict(error), _reason(error), str(stand_ins.Calls.count)]
        raise
    OUTCOMES[name] = ["right", "", str(stand_ins.Calls.count)]
    return value


def _reason(error: BaseException) -> str:
    """What was said, up to its remedy, without names of folders that are other ones in each run."""
    said = re.sub(rf"{re.escape(tempfile.gettempdir())}/[\w/]+", "the folder", str(error).split("; ")[0])
    return f"{type(error).__name__}: {re.sub(r'={.*}', '={…}', said)[:240]}"


def _verdict(error: BaseException) -> str:
    trace, last = error.__traceback__, ""
    while trace is not None:
        last, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    ours = "/polyad/" in last and isinstance(error, ValueError | TypeError)
    return "refused" if ours or isinstance(error, stand_ins.NotOffered) else "wrong"


def pytest_sessionfinish() -> None:
    with open(STORE, "w") as stream:  # noqa: PTH123
        json.dump(OUTCOMES, stream)
