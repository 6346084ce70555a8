"""The interface of an adapter, and the bank of tensors that layers share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from polyad._arguments import check_keywords
from polyad._moved import Renamed
from polyad.adapters.frozen.frozen import Frozen, Update
from polyad.statistics import Moments


class Adapter(nn.Module):
    """A trainable change of a frozen weight, made as ``method(shape, *, generator, **arguments)``.

    ``shape`` is the weight's own: (out, in), or (out, in / groups, *kernel) for a convolution, which ``matrix``
    flattens. A method states ``update``, its ΔW; the host adds ``scale`` ΔW x to the layer's product, folds it into
    the weight where that takes fewer operations, drops inputs, batches experts, merges and saves. A change that needs
    the layer's own product, or does better than ΔW x, states ``forward`` too.
    """

    scale: float = 1.0
    """The factor by which the host multiplies the update, in ``update`` and ``forward`` alike."""

    reads_output: bool = False
    """True where ``forward`` reads y; if not, y is None and the host spares itself a product without bias."""

    dropout: float = 0.0
    """The share of inputs to drop in training; the host sets it, and drops them itself unless ``drops`` is set."""

    drops: bool = False
    """True where ``forward`` and ``output`` drop inputs themselves, through ``base.add_update``."""

    optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.AdamW
    """The optimiser with which ``train`` trains the method, without decay."""

    learning_rate: ClassVar[float] = 2e-3
    """The learning rate with which ``train`` trains the method unless another is given: of those tried, the one
    with the least held-out loss after 150 steps of SmolLM2-135M on two texts, at as many numbers as LoRA of rank 8
    trains."""

    learning_rates: ClassVar[Mapping[str, float]] = {}
    """Parameters, by pattern on their name (``*.B``), that learn so many times as fast."""

    sized_by: ClassVar[str] = "rank"
    """The argument that sets how many numbers are trained; ``size_to_count`` searches it."""

    def __new__(cls, *_: Any, **named: Any) -> Self:
        """An adapter to be made; keywords that it does not have are refused in a sentence."""
        check_keywords(cls, named)
        return super().__new__(cls)

    def update(self, base: Frozen) -> Update:
        """ΔW without ``scale``, of shape ``base.shape``, or (out, the rest) of it. A method that reads
        ``base.weight`` here has no structure to apply."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor | None, base: Frozen) -> Tensor:  # noqa: ARG002
        """ΔW x without ``scale``, given the layer's product y without bias. By default the update, applied."""
        return base.apply_update(self.update(base), x)

    def bias_update(self, base: Frozen) -> Tensor | None:  # noqa: ARG002
        """Δb without ``scale``, (out,), from methods that change the layer's bias too, whose ``forward`` adds it."""
        return None

    def output(self, x: Tensor, base: Frozen) -> Tensor:
        """The layer's output with the change and with its bias. The host asks methods for it that override it, since
        they have it for less than the layer's own output and a change, where nothing else is active."""
        y = base(x)
        return base.add_bias(y + (self.scale * self(x, y, base)).to(y.dtype))

    def few(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """ΔW x without ``scale`` for a few rows x and no gradients, as in decoding, from methods whose update takes
        longer to state than to apply. None where the update is to be stated after all."""
        return None

    def derive(self, base: Frozen) -> None:
        """Work out frozen numbers that follow from the weight; called before ``init``, and on loading.

        A buffer that is made here, with ``persistent=False``, costs nothing in a file."""

    def init(self, base: Frozen, *, gradient: Tensor | None = None, moments: Moments | None = None) -> None:
        """Start from the weight, its gradient (of ``base.shape``) or its inputs' statistics; the card's ``needs``
        names what must be given (``weight``, ``gradient``, or statistics). Not called on loading."""

    def penalty(self) -> Tensor | None:
        """A term of the loss; None where the method has none."""
        return None

    @classmethod
    def before_step(cls, adapters: Sequence[Any], step: int, total: int) -> None:
        """Called with all adapters of one name before step ``step`` of ``total``, counted from 0."""

    @classmethod
    def after_backward(cls, adapters: Sequence[Any], step: int, total: int) -> None:
        """Called when gradients are there and the optimiser has not stepped."""

    @classmethod
    def after_step(cls, adapters: Sequence[Any], step: int, total: int) -> None:
        """Called when the optimiser has stepped."""

    changed = Renamed("output")

    def borrow(self, bank: Bank | None) -> Bank:
        """The host's bank, or a new one of the adapter's own where there is no host."""
        if bank is None:
            self.bank = bank = Bank()
        return bank


class Bank(nn.Module):
    """Tensors that layers of one adapter share: each is made once for a name and a shape, held and saved once.

    Frozen ones are drawn from the bank's seed and never saved. What ``trained`` and ``frozen`` return is called to
    get the tensor, since moving a model replaces it.

    >>> bank = Bank(seed=0)
    >>> one, other = (bank.frozen("A", (2, 3), lambda g: torch.randn(2, 3, generator=g)) for _ in range(2))
    >>> one() is other(), list(bank.state_dict())
    (True, [])
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def trained(self, name: str, shape: tuple[int, ...], draw: Callable[[Generator], Tensor]) -> Shared:
        """A parameter of this name and shape; ``draw`` makes the first."""
        key = self._key(name, shape)
        if key not in self._parameters:
            self.register_parameter(key, nn.Parameter(draw(generator(self.seed, key))))
        return Shared(self, key)

    def frozen(self, name: str, shape: tuple[int, ...], draw: Callable[[Generator], Tensor]) -> Shared:
        """A constant of this name and shape, a function of the bank's seed alone."""
        key = self._key(name, shape)
        if key not in self._buffers:
            self.register_buffer(key, draw(generator(self.seed, key)), persistent=False)
        return Shared(self, key)

    def hold(self, key: str, tensor: Tensor) -> None:
        """Put other numbers in the place of a frozen tensor: they follow from no seed, and are saved from now on."""
        there = self._buffers[key]
        if there is None or there.shape != tensor.shape:
            raise ValueError(
                f"{key} of shape {tuple(tensor.shape)} cannot take the place of a tensor of the bank of shape "
                f"{None if there is None else tuple(there.shape)}; give one of that shape"
            )
        self.register_buffer(key, tensor.detach().to(there.dtype).contiguous().clone())

    def _key(self, name: str, shape: tuple[int, ...]) -> str:
        return f"{name}_{'x'.join(map(str, shape))}"


class Shared:
    """A tensor of a bank; calling it gives the tensor."""

    def __init__(self, bank: Bank, key: str) -> None:
        self.bank, self.key = bank, key

    def __call__(self) -> Tensor:
        return getattr(self.bank, self.key)


def matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """(out, the rest): the matrix that a weight or kernel of this shape is.

    >>> matrix((8, 3, 5, 5))
    (8, 75)
    """
    return shape[0], math.prod(shape[1:])


def generator(seed: int, *names: str) -> Generator:
    """A generator that depends on a seed and on names, not on how often one was asked for."""
    digest = hashlib.sha256("\n".join((str(seed), *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
