"""Keys and values in uncorrelated coordinates, with more bits where they matter more to the model's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.allocate import Curve, greedy
from polyad.cache.codec import Place
from polyad.cache.codecs.latents import Basis, Latents
from polyad.formats import Product
from polyad.linalg import roots

CHOICES = (0, 2, 3, 4, 6)
"""Bits that a coordinate may take."""
LOST = {0: 1.0, 1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.0025, 6: 0.00069}
"""The share of a normal distribution's variance that rounding of least distortion loses, by number of bits."""
RUN = 8
"""Coordinates that get the same bits: whole bytes at any number of bits."""
RIDGE = 1e-2
"""Of the mean information: what is added for directions that calibration saw too little of."""


@method(
    "codec",
    name="transform_coding",
    makes=Product,
    example={"rate": 3.0},
    exact={"rate": None},
    needs={"keys", "key_mean", "key_fisher", "values", "value_mean", "value_fisher"},
    papers=(
        Paper(
            "Huang, Schultheiss", 1963, "Block Quantization of Correlated Gaussian Random Variables",
            "doi:10.1109/TCOM.1963.1088759",
            adds="principal coordinates with bits by their variance, here in the metric of Fisher information",
        ),
    ),
)  # fmt: skip
class TransformCoding(Latents):
    """Keys before rotation and values of all heads together, in coordinates rounded to bits of their own, by token.

    For rows x with mean m, covariance C and Fisher information F, an error e costs eᵀ F e. The coordinates are the
    eigenvectors of F^½ C F^½: uncorrelated, their errors add up, and the eigenvalue is what leaving one out costs.
    Each is divided by its standard deviation and takes 0, 2, 3, 4 or 6 bits, runs of eight the same. Those of equal
    bits share a step for a token, one byte, chosen for the least squared error. ``rate`` is the number of bits for
    each number of keys and values, steps included; ``water_filling`` spends it over all layers, else each layer gets
    as much. With neither, all coordinates are kept as they are. Tokens leave the window ``block`` at a time, since
    finding the steps of one costs as many calls as of many.

    The first token's keys and values are far from those of all others: use it with ``sinks`` in ``cache_for`` and
    ``observe``. A token takes ``rate`` · 2 H d / 8 bytes a layer.

    >>> eye, mean = torch.eye(8), torch.zeros(8)
    >>> seen = {
    ...     "keys": eye,
    ...     "values": eye,
    ...     "key_fisher": eye,
    ...     "value_fisher": eye,
    ...     "key_mean": mean,
    ...     "value_mean": mean,
    ... }
    >>> codec = TransformCoding(Place(0, torch.nn.Identity(), 2, 2, seen), rate=8.0)
    >>> x = torch.linspace(-1, 1, 40).reshape(1, 2, 5, 4)
    >>> keys, _ = codec.encode(x, x, x)
    >>> keys.factors[0].nbytes, bool((codec.keys(keys) - x).abs().max() < 0.2)
    (25, True)
    """

    before_rotation = True

    def __init__(self, place: Place, *, rate: float | None = None, block: int = 16) -> None:
        _check.at_least("block", block, 1)
        record = place.seen
        if rate is not None and "key_bits" not in record:
            (record,) = water_filling([{name: place.need(name) for name in (*_names("key"), *_names("value"))}], rate)
        bases = []
        for side in ("key", "value"):
            statistics = {name: place.need(name) for name in _names(side)}
            into, out = _maps(record, side) or coordinates(statistics, side)[:2]
            bits = record.get(f"{side}_bits")
            used = torch.arange(len(out)) if bits is None else bits.nonzero()[:, 0]
            if not len(used):  # a basis holds something
                used = used.new_zeros(1)
            widths = None if bits is None else [max(b, 1) for b in bits[used].tolist()]
            mean = record[f"{side}_mean"].reshape(1, 1, -1)
            basis = Basis(
                into[None, :, used], out[None, used], widths, len(used), by_token=True, mean=mean, centred=True
            )
            bases.append(basis)
        super().__init__(bases[0], bases[1], place.key_heads)
        self.block = block


def _maps(seen: Mapping[str, Tensor], side: str) -> tuple[Tensor, Tensor] | None:
    """The maps that ``water_filling`` left, so that a cache for every prompt need not work them out."""
    into, out = seen.get(f"{side}_into"), seen.get(f"{side}_out")
    return None if into is None or out is None else (into, out)


def _names(side: str) -> tuple[str, str, str]:
    return f"{side}s", f"{side}_mean", f"{side}_fisher"


def coordinates(seen: dict[str, Tensor], side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Maps into and out of the coordinates of unit variance, and what each costs to leave out, largest first."""
    moment, mean, information = (seen[name] for name in _names(side))
    n = len(moment)
    eye = torch.eye(n, dtype=moment.dtype, device=moment.device)
    level = information.diagonal().mean().clamp_min(torch.finfo(moment.dtype).tiny)
    root, inverse = roots(information + RIDGE * level * eye)
    values, vectors = torch.linalg.eigh((root @ (moment - torch.outer(mean, mean)) @ root).double())
    values, vectors = values.flip(0), vectors.flip(1)
    values = values.clamp_min(float(values[0].clamp_min(1e-300)) * 1e-12)
    size = values.sqrt()
    into, out = root.double() @ vectors / size, size.unsqueeze(1) * (vectors.mT @ inverse.double())
    return into.to(moment.dtype), out.to(moment.dtype), values


def water_filling(seen: Sequence[dict[str, Tensor]], rate: float) -> list[dict[str, Tensor]]:
    """Add the coordinates of all layers' keys and values for ``TransformCoding``, and their bits, to the statistics.

    The sum of all coordinates' costs is made least, for ``rate`` bits for each number, the bytes of the steps
    included.

    >>> eye, mean = torch.eye(16), torch.zeros(16)
    >>> seen = [{"keys": eye * s, "values": eye, "key_mean": mean, "value_mean": mean} for s in (1.0, 100.0)]
    >>> seen = [{**s, "key_fisher": eye, "value_fisher": eye} for s in seen]
    >>> [s["key_bits"].tolist()[::8] for s in water_filling(seen, 5.0)]
    [[2, 2], [6, 6]]
    """
    curves: dict[str, Curve] = {}
    total, layers = 0.0, [dict(layer) for layer in seen]
    for number, layer in enumerate(seen):
        for side in ("key", "value"):
            into, out, weights = coordinates(layer, side)
            layers[number] |= {f"{side}_into": into, f"{side}_out": out}
            total += rate * len(weights) - 8 * (len(CHOICES) - 1)
            for start in range(0, len(weights), RUN):
                part = weights[start : start + RUN]
                costs = np.array(CHOICES, dtype=float) * len(part)
                errors = np.array([LOST[bits] for bits in CHOICES]) * float(part.sum())
                curves[f"{number} {side} {start}"] = Curve(np.array(CHOICES), costs, errors)
    if total < 0:
        raise ValueError(f"rate={rate} bits a number are fewer than the steps alone take; choose a higher rate")
    chosen = greedy(curves, total)
    for number, layer in enumerate(layers):
        for side in ("key", "value"):
            n = len(layer[f"{side}_mean"])
            bits = [chosen[f"{number} {side} {start}"] for start in range(0, n, RUN)]
            layer[f"{side}_bits"] = torch.tensor(bits).repeat_interleave(RUN)[:n]
    return layers
