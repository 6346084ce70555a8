"""The noun: a tensor stored as something smaller than itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor
from torch.utils import _pytree

from polyad.formats._tree import decode, encode, flatten, flatten_with_keys, unflatten
from polyad.formats.patches import unfold

# Names that torch.nn.Module uses itself; a field so called could not be registered on one.
_TAKEN = frozenset(name for name in (*dir(torch.nn.Module), *vars(torch.nn.Module())) if not name.startswith("__"))

_kinds: dict[str, type[Format]] = {}


def kinds() -> dict[str, type[Format]]:
    """Every concrete format by name."""
    return dict(sorted(_kinds.items()))


class Format:
    """A tensor stored as factors, codes or other parts. Subclasses are frozen dataclasses.

    Fields are tensors, formats, tuples of these, or plain values (numbers, strings, None, dtypes, tuples of
    them). A subclass gives at least ``shape``, ``to_dense``, ``linear``, ``transpose``, ``flops`` and ``random``;
    the rest follows. Formats are pytrees, compare by identity and never change after they are made.
    """

    exact: ClassVar[frozenset[str]] = frozenset()
    """Names of fields whose dtype ``to`` keeps (scales, for example). Integer tensors always keep theirs."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__name__.startswith("_"):
            return
        taken = _TAKEN.intersection(cls.__annotations__)
        if taken:
            raise TypeError(f"{cls.__name__} calls fields {sorted(taken)}, names that torch.nn.Module uses itself")
        _kinds[cls.__name__] = cls
        _pytree.register_pytree_node(
            cls,
            flatten,
            lambda leaves, context: unflatten(cls, leaves, context),
            serialized_type_name=f"polyad.formats.{cls.__name__}",
            flatten_with_keys_fn=flatten_with_keys,
        )

    unrounded: ClassVar[str] = "it has no rank to lower; decompose its to_dense() into a kind that has"
    """Why a kind has no ``round``, and what to do instead."""

    # What a subclass says of itself ------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor represented, leading batch dimensions included."""
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
        """Whether tensors of this shape can be of this kind; matrices and batches of them unless it says more."""
        return len(shape) >= 2

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """A random instance of this shape, one that ``fits``, for contract tests and planted structure."""
        raise NotImplementedError

    def rows(self, index: Tensor) -> Tensor:
        """``W[index]`` of shape (*index.shape, columns) for a matrix W: an embedding's look-up."""
        raise NotImplementedError

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        """Convolution of x with W, a matrix of shape (out, in * prod(kernel)); bias excluded.

        ``x`` is (batch, in, *space), or (in, *space) as torch's convolutions take it too. ``geometry`` is what they
        take: stride, padding, dilation (all tuples) and groups.
        """
        if geometry.get("groups", 1) != 1:
            raise ValueError(f"{type(self).__name__} cannot hold a grouped convolution; keep that layer dense")
        if x.ndim == len(kernel) + 1:
            return self.convolve(x.unsqueeze(0), kernel, **geometry).squeeze(0)
        columns, out = unfold(x, kernel, **{name: n for name, n in geometry.items() if name != "groups"})
        return self.linear(columns).transpose(1, 2).unflatten(2, out)

    # What follows ------------------------------------------------------------------------------------------

    def added_to(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        """``weight + scale · W`` as a new tensor, formed with as little traffic as the kind allows."""
        return torch.add(weight, self.to_dense(), alpha=scale)

    def combine(self, weights: Tensor) -> Tensor:
        """``weights @ W`` in weights' dtype, weights of shape (*batch, …, rows): weighted sums of W's rows."""
        return self.transpose().linear(weights)

    def growth(self) -> dict[str, int] | None:
        """For each tensor by dotted name, how many rows of W one row of it stands for; 0 where all rows share it.

        Rows are the last dimension but one of W and of the tensor. Two formats that share all tensors of growth 0
        can be joined row by row. None where rows cannot be appended.
        """
        return None

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:  # noqa: ARG002
        """This format of other tensors, which stand for this number of rows."""
        return self.replace(tensors)

    def select(self, index: Tensor) -> Format:
        """These entries (n,) of the first dimension, which counts a batch, in this order.

        A tensor that is expanded over the batch stays so.
        """
        return self.with_rows({name: entries(t, index) for name, t in self.tensors().items()}, self.shape[-2])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of ``to_dense``."""
        for name, value in self._items():
            if isinstance(value, Format):
                return value.dtype
            if value.is_floating_point() and name.split(".")[0] not in self.exact:
                return value.dtype
        raise TypeError(f"{type(self).__name__} holds no floating-point tensor to name its dtype")

    @property
    def device(self) -> torch.device:
        """The device of the first tensor held."""
        return next(iter(self.tensors().values())).device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def parameters(self) -> int:
        """Numbers represented by what is stored: a code counts one, indices and scales none."""
        count = 0
        for name, value in self._items():
            if isinstance(value, Format):
                count += value.parameters
            elif value.is_floating_point() and name.split(".")[0] not in self.exact:
                count += value.numel()
        return count

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales, zeros, indices and padding; a shared tensor once, views compacted."""
        held = {_identity(t): t.numel() * t.element_size() for t in self.tensors().values()}
        return sum(held.values())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor held, by dotted name (``terms.0.codes``). ``replace`` inverts it."""
        found: dict[str, Tensor] = {}
        for name, value in self._items():
            if isinstance(value, Tensor):
                found[name] = value
            else:
                prefix = name + "."
                found.update({prefix + inner: tensor for inner, tensor in value.tensors().items()})
        return found

    def replace(self, tensors: dict[str, Tensor]) -> Self:
        """This format with these tensors in place of its own; every dotted name must be given."""
        missing = self.tensors().keys() - tensors.keys()
        if missing:
            raise KeyError(f"{type(self).__name__} misses the tensors {sorted(missing)}")
        return self._map(lambda name, _tensor, _exact: tensors[name])

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """Cast and move. Integers and the fields named in ``exact`` keep their dtype."""

        def cast(_name: str, tensor: Tensor, exact: bool) -> Tensor:
            keeps = exact or not tensor.is_floating_point()
            return tensor.to(device=device, dtype=None if keeps else dtype)

        return self._map(cast, dtype)

    def spec(self) -> dict[str, Any]:
        """JSON that describes this format without its numbers. ``from_spec`` makes an empty one of it."""
        return {"kind": type(self).__name__, "fields": {f: encode(getattr(self, f)) for f in self._fields()}}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], device: torch.device | str = "meta") -> Format:
        """An uninitialised format of this description, by default on the meta device."""
        kind = spec.get("kind")
        if kind not in _kinds:
            raise ValueError(f"no format is called {kind!r}; this version knows {', '.join(sorted(_kinds))}")
        unknown = spec["fields"].keys() - {field.name for field in dataclasses.fields(_kinds[kind])}  # pyright: ignore
        if unknown:
            raise ValueError(
                f"a {kind} has no {' or '.join(sorted(unknown))} here; what holds it was written by a newer polyad: "
                "upgrade with pip install -U polyad"
            )
        fields = {name: decode(value, device, Format.from_spec) for name, value in spec["fields"].items()}
        return _kinds[kind](**fields)

    def round(self, rank: Any = None, *, tol: float | None = None) -> Format:
        """The same kind with lower ranks: at most ``rank``, or with a relative Frobenius error of at most ``tol``.

        Raises ValueError for kinds that cannot, with what to do instead.
        """
        raise ValueError(f"{self!r} cannot be rounded to rank={rank} or tol={tol}: {self.unrounded}")

    def __add__(self, other: Format) -> Format:
        """The sum, as a ``Sum``; kinds that can hold a sum of two of themselves give that instead."""
        from polyad.formats.composed.sum import Sum

        return Sum((self, other)) if isinstance(other, Format) else NotImplemented

    def __neg__(self) -> Format:
        return self * -1

    def __sub__(self, other: Format) -> Format:
        return self + -other

    def __mul__(self, other: Any) -> Format:
        return NotImplemented

    def __rmul__(self, other: Any) -> Format:
        return self * other

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, parameters={self.parameters}, bytes={self.nbytes})"

    def _fields(self) -> tuple[str, ...]:  # of the instance: a tracer does not take the class
        return tuple([field.name for field in dataclasses.fields(self)])  # pyright: ignore[reportArgumentType]

    def _items(self) -> Iterator[tuple[str, Tensor | Format]]:
        for name in self._fields():
            value = getattr(self, name)
            if isinstance(value, Tensor | Format):
                yield name, value
            elif isinstance(value, tuple):
                for i, inner in enumerate(value):
                    if isinstance(inner, Tensor | Format):
                        yield f"{name}.{i}", inner

    def _map(
        self,
        change: Callable[[str, Tensor, bool], Tensor],
        dtype: torch.dtype | None = None,
        prefix: str = "",
    ) -> Self:
        def visit(name: str, value: Any, exact: bool) -> Any:
            if isinstance(value, Tensor):
                return change(prefix + name, value, exact)
            if isinstance(value, Format):
                return value._map(change, dtype, f"{prefix}{name}.")
            if isinstance(value, tuple):
                return tuple(visit(f"{name}.{i}", inner, exact) for i, inner in enumerate(value))
            return dtype if dtype is not None and isinstance(value, torch.dtype) else value

        return type(self)(**{f: visit(f, getattr(self, f), f in self.exact) for f in self._fields()})


def entries(t: Tensor, index: Tensor) -> Tensor:
    """``t[index]``; of a tensor that is expanded over its first dimension a view."""
    return t[:1].expand(len(index), *t.shape[1:]) if t.stride(0) == 0 else t[index]


def _identity(t: Tensor) -> tuple[Any, ...]:
    if t.is_meta:
        return (id(t),)
    return (t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape), tuple(t.stride()))
