"""opt_einsum's expressions: a format as a string and operands for ``opt_einsum.contract``, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.formats import Network
from polyad.formats.networks.arithmetic import split_einsum
from polyad.formats.networks.multilinear import Multilinear

__all__ = ["from_opt_einsum", "to_opt_einsum"]


def to_opt_einsum(format: Multilinear) -> tuple[str, tuple[Tensor, ...]]:
    """The einsum of a format and its operands: ``opt_einsum.contract(expression, *operands)`` is ``to_dense()``.

    Batch dimensions become the ellipsis of every term. The tensors are shared. Raises ValueError for formats that
    state no einsum, and for modes made of several axes, which no einsum can write.

    >>> from polyad.formats import LowRank
    >>> expression, operands = to_opt_einsum(LowRank(torch.ones(3, 2), torch.ones(2, 4)))
    >>> expression.count(","), len(operands)
    (1, 2)
    """
    if not isinstance(format, Multilinear):
        raise ValueError(
            f"{format!r} is no tensor network; give a format that states one einsum, such as CP, Tucker or "
            "TensorTrain"
        )
    expression, operands = format.network()
    terms, modes = split_einsum(expression)
    if any(len(mode) != 1 for mode in modes):
        raise ValueError(f"{format!r} has modes made of several axes, which no einsum can write")
    lead = "..." if format.batch else ""
    return f"{','.join(lead + term for term in terms)}->{lead}{''.join(modes)}", tuple(operands)


def from_opt_einsum(expression: str, *operands: Any) -> Network:
    """The ``Network`` of the tensor that ``opt_einsum.contract(expression, *operands)`` computes, not contracted.

    An expression without an arrow has the letters that stand once as its modes, in the order of the alphabet, as
    opt_einsum has it. An ellipsis stands for batch dimensions, which every operand must have. Operands of other
    packages are copied. Raises ValueError for ellipses in some terms only, and for whatever ``Network`` refuses.

    >>> from_opt_einsum("ab,bc", torch.ones(3, 2), torch.ones(2, 4)).shape
    (3, 4)
    """
    plain = expression.replace(" ", "")
    terms, arrow, output = plain.partition("->")
    if not arrow:
        letters = [c for c in terms if c not in ",."]
        output = "..." * ("..." in terms) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    parts = [*terms.split(","), output]
    begun = [part.startswith("...") for part in parts]
    if any(begun) != all(begun) or any("." in part.removeprefix("...") for part in parts):
        raise ValueError(
            f"expression={expression!r}: an ellipsis is a batch, which every term and the output must begin with"
        )
    bare = [part.removeprefix("...") for part in parts]
    tensors = tuple([x if isinstance(x, Tensor) else torch.as_tensor(x) for x in operands])
    return Network(f"{','.join(bare[:-1])}->{bare[-1]}", tensors)
