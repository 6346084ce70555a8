"""torchTT's class of trains by polyad's formats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.peers_suites.stand_ins import Calls, NotOffered
from torch import Tensor

from polyad.decompose import tt_svd
from polyad.formats import TensorTrain


class TT:
    """A train, or the train of a matrix whose modes are pairs, as torchTT spells it."""

    def __init__(self, source: Any, shape: Any = None, eps: float = 1e-10, rmax: int | None = None) -> None:
        Calls.count += 1
        del rmax  # larger than all ranks wherever the tests give it
        self.pairs: list[tuple[int, int]] | None = None
        if isinstance(source, list):
            cores = source
            if cores[0].ndim == 4:
                self.pairs = [(core.shape[1], core.shape[2]) for core in cores]
                cores = [core.flatten(1, 2) for core in cores]
            self.train = TensorTrain.from_three_way(cores, like=cores[0])
            return
        if shape is not None and isinstance(shape[0], tuple):
            self.pairs = list(shape)
            count = len(shape)
            source = source.permute([i + part * count for i in range(count) for part in (0, 1)])
            source = source.reshape([m * n for m, n in shape])
        self.train = tt_svd(source, tol=max(eps, 1e-15))

    @classmethod
    def of(cls, train: TensorTrain, pairs: Any) -> TT:
        other = cls.__new__(cls)
        other.train, other.pairs = train, pairs
        return other

    @property
    def is_ttm(self) -> bool:
        return self.pairs is not None

    @property
    def R(self) -> list[int]:  # noqa: N802 - torchTT's name
        return [1, *self.train.rank, 1]

    @property
    def N(self) -> list[int]:  # noqa: N802 - torchTT's name
        return [n for _, n in self.pairs] if self.pairs else list(self.train.shape)

    @property
    def cores(self) -> list[Tensor]:
        cores = self.train.three_way()
        return [c.unflatten(1, pair) for c, pair in zip(cores, self.pairs, strict=True)] if self.pairs else cores

    def full(self) -> Tensor:
        Calls.count += 1
        dense = self.train.to_dense()
        if not self.pairs:
            return dense
        count = len(self.pairs)
        dense = dense.reshape([size for pair in self.pairs for size in pair])
        return dense.permute([2 * i + part for part in (0, 1) for i in range(count)])

    def round(self, eps: float = 1e-12) -> TT:
        Calls.count += 1
        return TT.of(self.train.round(tol=max(eps, 1e-15)), self.pairs)

    def norm(self) -> Tensor:
        return self.train.norm()

    def __getattr__(self, name: str) -> Any:
        raise NotOffered(f"TT.{name}")


def random(shape: list[Any], ranks: list[int], dtype: torch.dtype = torch.float64) -> TT:
    """Normal cores."""
    sizes = [size if isinstance(size, tuple) else (size,) for size in shape]
    return TT([torch.randn(ranks[i], *size, ranks[i + 1], dtype=dtype) for i, size in enumerate(sizes)])


def _orthogonal(cores: list[Tensor], centre: int) -> tuple[list[Tensor], list[int]]:
    pairs = [(c.shape[1], c.shape[2]) for c in cores] if cores[0].ndim == 4 else None
    train = TT(list(cores)).train.orthogonalised(centre)
    turned = TT.of(train, pairs)
    return turned.cores, turned.R


def _refuse(name: str) -> Any:
    def call(*_args: Any, **_named: Any) -> Any:
        raise NotOffered(name)

    return call


class Module(SimpleNamespace):
    """The package; what is not here is not offered."""

    def __getattr__(self, name: str) -> Any:
        return _refuse(f"torchtt.{name}")


PACKAGE = Module(
    TT=TT, random=random, randn=random,
    _decomposition=SimpleNamespace(
        lr_orthogonal=lambda cores, _ranks, _ttm: _orthogonal(cores, len(cores) - 1),
        rl_orthogonal=lambda cores, _ranks, _ttm: _orthogonal(cores, 0),
    ),
)  # fmt: skip

TABLE = {"tntt": PACKAGE}
SUITE = ("tests/test_decomposition.py",)
OTHERWISE: dict[str, str] = {}
