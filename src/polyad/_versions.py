"""Versions of what polyad writes to disk, so that what is newer than this polyad is refused and not misread."""

from __future__ import annotations

KEY = "polyad.version"
"""Where a safetensors file's metadata states the version; JSON states it as ``version``."""

NEWEST = {
    "model": 2,  # polyad.json of a model; one file of weights and a configuration are still written as version 1
    "pretrained": 1,  # quantization_config in a folder that transformers wrote of a compressed model
    "adapter": 3,  # polyad.json of an adapter; without trained modules it is still written as version 2
    "format": 1,  # one format in a file
    "training": 1,  # a training in the middle, to go on from
    "checkpoint": 1,  # what of adapters lies beside a model in a Trainer's checkpoint
    "optimizer": 1,  # the state dict of polyad.optim.Optimizer
    "record": 1,  # what commands print with --json and pages are made from
    "statistics": 1,  # finished statistics of a run that may be killed
    "tokens": 1,  # token ids of a text, in the cache
    "kernels": 1,  # which products were measured to be fast on a processor, in the cache
}
"""The newest version of each that is read, which is the one that is written."""


def stamp(kind: str) -> dict[str, str]:
    """Metadata of a safetensors file that states the version in which this polyad writes it.

    >>> stamp("format")
    {'polyad.version': '1'}
    """
    return {KEY: str(NEWEST[kind])}


def read_version(kind: str, place: object, stated: object) -> int:
    """The version that a file, ``place``, states; 1 where it states none, as 0.1.0 wrote it. Refuses a newer one.

    >>> read_version("format", "x.safetensors", None)
    1
    """
    try:
        version = 1 if stated is None else int(str(stated))
    except ValueError:
        version = 0
    if version < 1:
        raise ValueError(f"{place} states the version {stated!r}, which is no number from 1; copy or save it again")
    if version > NEWEST[kind]:
        raise ValueError(
            f"{place} was written by a newer polyad (format {version}; this one reads up to {NEWEST[kind]}); "
            "upgrade with: pip install -U polyad"
        )
    return version
