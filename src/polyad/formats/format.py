"""The interface of every format: a tensor stored as something smaller than itself."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.formats._spec import build, encode
from polyad.formats._tree import map_tensors, move_tensors, named_tensors, number_parts, register, stored_bytes
from polyad.formats.batch_entries import batch_entries
from polyad.formats.describe import dense_array, describe_format, relative_error
from polyad.formats.kinds_by_name import KindsByName
from polyad.formats.patches import convolve_patches

_kinds = KindsByName()


def kinds() -> dict[str, type[Format]]:
    """Every concrete format by name."""
    return _kinds.whole()


class Format:
    """A tensor stored as factors, codes or other parts. Subclasses are frozen dataclasses.

    Fields are tensors, formats, tuples of these, or plain values (numbers, strings, None, dtypes, tuples of
    them). A subclass gives at least ``shape``, ``to_dense``, ``linear``, ``transpose``, ``flops`` and ``random``;
    the rest follows. Formats are pytrees, compare by identity and never change after they are made.
    """

    exact: ClassVar[frozenset[str]] = frozenset()
    """Names of fields whose dtype ``to`` keeps (scales, for example). Integer tensors always keep theirs."""

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        super().__init_subclass__()
        if not abstract:
            register(cls)
            _kinds[cls.__name__] = cls

    no_round_because: ClassVar[str] = "it has no rank to lower; decompose its to_dense() into a kind that has"
    """Why a kind has no ``round``, and what to do instead."""

    # Defined by a subclass ------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor number_parts, leading batch dimensions included."""
        raise NotImplementedError

    def to_dense(self) -> Tensor:
        """The tensor itself, in ``dtype``. Explicit: nothing calls it behind the caller's back."""
        raise NotImplementedError

    def linear(self, x: Tensor) -> Tensor:
        """``x @ W.mT`` in x's dtype for W of shape (*batch, out, in), x of shape (*batch, …, in)."""
        raise NotImplementedError

    def transpose(self) -> Format:
        """The format of ``W.mT``."""
        raise NotImplementedError

    def flops(self, batch: int) -> int:
        """Floating-point operations of ``linear`` on ``batch`` rows (a multiplication and an addition are two)."""
        raise NotImplementedError

    @classmethod
    def fits(cls, shape: tuple[int, ...]) -> bool:
        """True where tensors of this shape can be of this kind: by default matrices and batches of them."""
        return len(shape) >= 2

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """A random instance of this shape, one that ``fits``, for contract tests and planted structure."""
        raise NotImplementedError

    def rows(self, index: Tensor) -> Tensor:
        """``W[index]`` of shape (*index.shape, columns) for a matrix W: an embedding's look-up."""
        raise NotImplementedError

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        """Convolution of x, ([batch,] in, *space), with W, (out, in * prod(kernel)); ``geometry`` as torch."""
        return convolve_patches(self, x, kernel, **geometry)

    # Derived from these ---------------------------------------------------------------------------

    def added_to(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        """``weight + scale · W`` as a new tensor, formed with as little traffic as the kind allows."""
        return torch.add(weight, self.to_dense(), alpha=scale)

    def combine(self, weights: Tensor) -> Tensor:
        """``weights @ W`` in weights' dtype, weights of shape (*batch, …, rows): weighted sums of W's rows."""
        return self.transpose().linear(weights)

    def growth(self) -> dict[str, int] | None:
        """For each tensor by dotted name, how many rows of W one row of it stands for; 0 where all rows share it.

        Formats that share all tensors of growth 0 can be joined row by row. None where rows cannot be appended.
        """
        return None

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:  # noqa: ARG002
        """This format of other tensors, which stand for this number of rows."""
        return self.replace(tensors)

    def select(self, index: Tensor) -> Format:
        """These entries (n,) of the batch that the first dimension counts; tensors expanded over it stay so."""
        return self.with_rows({name: batch_entries(t, index) for name, t in self.tensors().items()}, self.shape[-2])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of ``to_dense``."""
        for part in number_parts(self):
            return part.dtype
        raise TypeError(f"{type(self).__name__} has no floating-point tensor, and so no dtype")

    @property
    def device(self) -> torch.device:
        """The device of the first tensor."""
        return next(iter(self.tensors().values())).device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def parameters(self) -> int:
        """Numbers represented by what is stored: a code counts one, indices and scales none."""
        return sum(part.numel() if isinstance(part, Tensor) else part.parameters for part in number_parts(self))

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales, zeros, indices and padding; a shared tensor once, views compacted."""
        return stored_bytes(self.tensors().values())

    def field_names(self) -> tuple[str, ...]:
        """The names of the fields, in order; asked of the instance, since a tracer does not take the class."""
        return tuple([field.name for field in dataclasses.fields(self)])  # pyright: ignore[reportArgumentType]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, by dotted name (``terms.0.codes``). ``replace`` inverts it."""
        return named_tensors(self)

    def replace(self, tensors: dict[str, Tensor]) -> Self:
        """This format with these tensors in place of its own; every dotted name must be given."""
        missing = self.tensors().keys() - tensors.keys()
        if missing:
            raise KeyError(f"tensors lacks {sorted(missing)}; give every name that tensors() has")
        return map_tensors(self, lambda name, _tensor, _exact: tensors[name])

    def to(self, *target: Any, dtype: torch.dtype | None = None, device: Any = None) -> Self:
        """Cast and move, as ``Tensor.to``; integers and the fields named in ``exact`` keep their dtype."""
        return move_tensors(self, target, dtype, device)

    def spec(self) -> dict[str, Any]:
        """JSON that describes this format without its numbers. ``from_spec`` makes an empty one of it."""
        return {"kind": type(self).__name__, "fields": {f: encode(getattr(self, f)) for f in self.field_names()}}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], device: torch.device | str = "meta") -> Format:
        """An uninitialised format of this description, by default on the meta device."""
        return build(spec, _kinds, device)

    def round(self, rank: Any = None, *, tol: float | None = None) -> Format:
        """The same kind with lower ranks: at most ``rank``, or of relative error ``tol``; some kinds refuse."""
        raise ValueError(f"{self!r} cannot be rounded to rank={rank} or tol={tol}: {self.no_round_because}")

    def __add__(self, other: Format) -> Format:
        """The sum, as a ``Sum``; kinds that can hold a sum of two of themselves give that instead."""
        make_sum: Any = _kinds["Sum"]  # by name, since that kind is built on this class
        return make_sum((self, other)) if isinstance(other, Format) else NotImplemented

    def __neg__(self) -> Format:
        return self * -1

    def __sub__(self, other: Format) -> Format:
        return self + -other

    def __mul__(self, other: Any) -> Format:
        return NotImplemented

    def __rmul__(self, other: Any) -> Format:
        return self * other

    def error(self, x: Any, *, mask: Any = None) -> float:
        """The relative Frobenius error ``‖W - x‖ / ‖x‖`` against a dense tensor or array, over what a mask shows."""
        return relative_error(x, self.to_dense(), mask)

    def numpy(self) -> Any:
        """The tensor itself as a NumPy array, formed as ``to_dense`` does."""
        return dense_array(self.to_dense())

    def __repr__(self) -> str:
        return describe_format(self)
