"""quimb's tensor networks."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from polyad.einsum import symbol
from polyad.formats import Network
from polyad.formats.networks.arithmetic import split_einsum
from polyad.formats.networks.multilinear import Multilinear

__all__ = ["from_quimb", "to_quimb"]


def to_quimb(format: Multilinear) -> Any:
    """A format that states one einsum as ``quimb.tensor.TensorNetwork``: bonds b0, b1, … and modes k0, k1, ….

    The torch tensors are shared. Raises ValueError for batches, for modes made of several axes and for other
    formats, ImportError where quimb is missing.

    >>> from polyad.formats import CP
    >>> to_quimb(CP((torch.ones(3, 2), torch.ones(4, 2)))).num_tensors
    2
    """
    try:
        from quimb.tensor import Tensor as Node
        from quimb.tensor import TensorNetwork
    except ImportError:
        raise ImportError("quimb is not installed; pip install 'polyad[interop]' brings it") from None
    if not isinstance(format, Multilinear):
        raise ValueError(
            f"{format!r} is no tensor network; give a format that states one einsum, such as CP, Tucker or "
            "TensorTrain"
        )
    terms, modes = split_einsum(format.network()[0])
    if format.batch or any(len(mode) != 1 for mode in modes):
        raise ValueError(
            f"{format!r} has batch dimensions or modes made of several axes, which quimb does not have; convert the "
            "members of a batch one by one, and fused modes after splitting them"
        )
    names = {mode: f"k{i}" for i, mode in enumerate(modes)}
    for letter in dict.fromkeys("".join(terms)):
        names.setdefault(letter, f"b{len(names) - len(modes)}")
    nodes = [
        Node(data=cast(Any, x), inds=[names[c] for c in term])
        for term, x in zip(terms, format.network()[1], strict=True)
    ]
    return TensorNetwork(nodes, virtual=True)


def from_quimb(network: Any, modes: tuple[str, ...] | None = None) -> Network:
    """A network of quimb's as a ``Network``; ``modes`` orders its outer indices, by default as quimb does.

    >>> from polyad.formats import CP
    >>> from_quimb(to_quimb(CP((torch.ones(3, 2), torch.ones(4, 2)))), ("k1", "k0")).shape
    (4, 3)
    """
    outer = tuple(network.outer_inds()) if modes is None else tuple(modes)
    letters: dict[str, str] = {}
    for node in network.tensors:
        for name in node.inds:
            letters.setdefault(name, symbol(len(letters)))
    missing = [name for name in outer if name not in letters]
    if missing:
        raise ValueError(f"modes={modes} names {missing}, which the network does not have")
    terms = ",".join("".join(letters[name] for name in node.inds) for node in network.tensors)
    operands = [
        node.data if isinstance(node.data, Tensor) else torch.as_tensor(node.data) for node in network.tensors
    ]
    scale = 10.0 ** float(network.exponent)
    return Network(f"{terms}->{''.join(letters[name] for name in outer)}", (operands[0] * scale, *operands[1:]))
