"""The hub of models: refusal of names that it does not give."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

UNREACHED = ("couldn't connect", "offline", "connection", "local_files_only")
"""Words with which transformers says that it did not reach the hub."""
PATIENCE = 3.0
"""Seconds within which the hub answers, or counts as out of reach."""


@contextmanager
def reading_hub(name: str) -> Iterator[None]:
    """Within it a model is read by its name on the hub; what fails is said in plain words.

    A name of which nothing is in the cache is refused at once while the hub cannot be reached.
    """
    if not _is_cached(name) and not _reaches_hub():
        raise FileNotFoundError(unreached(name))
    try:
        yield
    except OSError as error:
        if any(sign in str(error).lower() for sign in UNREACHED):
            raise FileNotFoundError(unreached(name)) from None
        reason = str(error).split("\n")[0]
        raise FileNotFoundError(
            f"no model called {name!r}: it is neither a folder here, nor 'smollm2', nor could it be had from the "
            f"hub ({reason})"
        ) from None


def unreached(name: str) -> str:
    """The sentence on a model that is on the hub alone, which cannot be reached."""
    return (
        f"{name!r} is no folder here, nothing of it is in the hub's cache, and the hub cannot be reached (no "
        f"network, or offline); give a folder, or fetch one where there is a network: hf download {name} --local-dir "
        "FOLDER"
    )


def _is_cached(name: str) -> bool:
    """True where a configuration of this name is on this machine; what is no name of the hub's is left to it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return True


def _reaches_hub() -> bool:
    """False where no connection to the hub can be made; through a proxy that is not tried."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), PATIENCE).close()
    except OSError:
        return False
    return True
