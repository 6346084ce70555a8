"""The hub of models: refusal of names where it cannot be reached."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

UNREACHED = ("couldn't connect", "offline", "connection", "local_files_only")
"""Words with which transformers says that it did not reach the hub."""
PATIENCE = 3.0
"""Seconds within which the hub answers, or counts as out of reach."""


def refuse_unreached(name: str) -> None:
    """Refuse at once a name of which nothing is in the cache while the hub cannot be reached."""
    if not _is_cached(name) and not _reaches_hub():
        raise FileNotFoundError(unreached(name))


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
