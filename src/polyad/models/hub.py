"""Models by their names on the hub, and what to do where it cannot be reached."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

import torch

from polyad.models.pretrained import load_pretrained, load_tokenizer

UNREACHED = ("couldn't connect", "offline", "connection", "local_files_only")
"""Words with which transformers says that it did not reach the hub."""
PATIENCE = 3.0
"""Seconds within which the hub answers, or counts as out of reach."""


def from_hub(name: str, dtype: torch.dtype | None, trust_remote_code: bool) -> tuple[Any, Any]:
    """The model and the tokenizer of a hub name; at once a sentence where neither hub nor cache has them."""
    if not _is_cached(name) and not _reaches_hub():
        raise FileNotFoundError(_unreached(name))
    try:
        model = load_pretrained(name, dtype, trust_remote_code=trust_remote_code)
        return model, load_tokenizer(name, trust_remote_code=trust_remote_code)
    except OSError as error:
        reason = str(error).split("\n")[0]
        if any(sign in str(error).lower() for sign in UNREACHED):
            raise FileNotFoundError(_unreached(name)) from None
        raise FileNotFoundError(
            f"no model called {name!r}: it is neither a folder here, nor 'smollm2', nor could it be had from the "
            f"hub ({reason})"
        ) from None


def _unreached(name: str) -> str:
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
