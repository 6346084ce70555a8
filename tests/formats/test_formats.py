"""Every kind of format, and the variants that ``random`` does not draw, held to the public contract."""

import copy
import dataclasses

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

from polyad.formats import Dense, Format, Kronecker, LowRank, Product, Quantized, Sparse, Sum, Tucker, kinds
from polyad.testing import formats

SUBJECTS = kinds() | formats.variants()
CASES = {
    f"{name}-{check.__name__}": (subject, check)
    for name, subject in SUBJECTS.items()
    for check in formats.CHECKS
    if isinstance(subject, type) or check is not formats.batches
}


@pytest.mark.parametrize(("subject", "check"), CASES.values(), ids=list(CASES))
def test_contract(subject, check):
    check(subject)


def drawn(kind, *shape):
    return kind.random(shape, generator=torch.Generator().manual_seed(0))


def test_structure_is_cheaper_than_dense():
    dense = drawn(Dense, 64, 48)
    low = LowRank(torch.randn(64, 4), torch.randn(4, 48))
    kronecker = Kronecker(torch.randn(1, 8, 6), torch.randn(1, 8, 8))
    tucker = Tucker(torch.randn(4, 4), (torch.randn(64, 4), torch.randn(48, 4)))
    assert low.flops(1) == 2 * 4 * (64 + 48)
    assert kronecker.flops(1) == min(2 * (8 * 6 * 8 + 8 * 8 * 8), 2 * (8 * 6 * 8 + 8 * 8 * 6))
    for format in (low, kronecker, tucker):
        for batch in (1, 16, 1000):
            assert format.flops(batch) < dense.flops(batch)


def test_sparse_operations_are_those_of_the_product_that_runs():
    few = Sparse(torch.ones(3), torch.tensor([0, 9, 700]), (32, 32))
    many = Sparse.from_dense((torch.arange(1024).reshape(32, 32) % 2).float())
    assert few.flops(5) == 2 * 5 * 3
    assert many.flops(5) == drawn(Dense, 32, 32).flops(5)


def test_a_product_refuses_groups_that_its_factors_would_mix():
    product = Product((drawn(Dense, 4, 4), drawn(Dense, 4, 6)))
    with pytest.raises(ValueError, match="grouped convolution"):
        product.convolve(torch.ones(1, 4, 5), (3,), groups=2)


def test_nothing_is_registered_under_a_name_that_modules_use():
    for name in ("forward", "half", "training", "_parameters"):
        with pytest.raises(TypeError, match=r"torch\.nn\.Module uses itself"):
            type("Unwelcome", (Format,), {"__annotations__": {name: torch.Tensor}})
    assert "Unwelcome" not in kinds()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LowRank(torch.ones(4, 2), torch.ones(3, 5)), r"left of shape \(4, 2\).*\(3, 5\)"),
        (lambda: LowRank(torch.ones(4, 2), torch.ones(7, 2, 5)), r"\(7, 2, 5\) do not agree"),
        (lambda: Kronecker(torch.ones(2, 2, 2), torch.ones(3, 3)), r"first of shape \(2, 2, 2\)"),
        (lambda: Tucker(torch.ones(2, 3), (torch.ones(4, 2), torch.ones(5, 2))), r"core of shape \(2, 3\)"),
        (lambda: Sum(()), "terms is empty"),
        (lambda: Sum((drawn(Dense, 2, 3), drawn(Dense, 3, 2))), r"shapes \[\(2, 3\), \(3, 2\)\]"),
        (lambda: Product(()), "factors is empty"),
        (lambda: Product((drawn(Dense, 2, 3), drawn(Dense, 2, 3))), "cannot be multiplied"),
        (lambda: Format.from_spec({"kind": "Nothing"}), "kind='Nothing' is no format"),
        (lambda: drawn(Tucker, 2, 3, 4).linear(torch.ones(4)), "3 modes; linear needs a matrix"),
    ],
)
def test_bad_parts_are_refused_with_a_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bits": 9}, "bits=9 cannot be packed"),
        ({"codes": torch.zeros(4, 5, dtype=torch.uint8)}, "do not hold 8 columns of 4 bits"),
        ({"codes": torch.zeros(3, 4, dtype=torch.uint8)}, "are not those of a tensor of size"),
        ({"block": (1, 0)}, r"block=\(1, 0\) must give"),
        ({"block": (4,)}, r"block=\(4,\) must give"),
        ({"scale": torch.ones(4, 1)}, r"scale of shape \(4, 1\) does not fit the block grid \(4, 2\)"),
        ({"zero": torch.ones(1, 2)}, r"zero of shape \(1, 2\) does not fit"),
    ],
)
def test_bad_quantised_parts_are_refused_with_a_sentence(change, said):
    good = Quantized(torch.zeros(4, 4, dtype=torch.uint8), torch.ones(4, 2), None, 4, (4, 8), (1, 4))
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(good, **change)


LINEAR, ROWS, CONVOLVE, REPLACE, TENSORS = (
    getattr(LowRank, name) for name in ("linear", "rows", "convolve", "replace", "tensors")
)
SPOILT = {
    "dense": ("to_dense", lambda self: (self.left @ self.right).double()),
    "linear": ("linear", lambda self, x: 1.01 * LINEAR(self, x)),
    "precision": ("linear", lambda self, x: LINEAR(self, x.float())),
    "transpose": ("transpose", lambda self: LowRank(self.right.mT, 2 * self.left.mT)),
    "rows": ("rows", lambda self, index: ROWS(self, index % 6)),
    "gradients": ("linear", lambda self, x: LINEAR(LowRank(self.left.detach(), self.right), x)),
    "operations": ("flops", lambda self, batch: batch**2),
    "convolve": ("convolve", lambda self, x, kernel, **given: CONVOLVE(self, x, kernel, **given | {"dilation": 1})),
    "uneven": ("convolve", lambda self, x, kernel, **given: CONVOLVE(self, x, kernel, **given | {"stride": 1})),
    "channel_groups": (
        "convolve",
        lambda self, x, kernel, **given: Dense(2 * self.to_dense()).convolve(x, kernel, **given),
    ),
    "tensors": ("replace", lambda self, tensors: self),
    "spec": ("spec", lambda self: Dense(self.to_dense()).spec()),
    "storage": ("replace", lambda self, tensors: REPLACE(self, {name: 2 * t for name, t in tensors.items()})),
    "size": ("nbytes", property(lambda self: 80 if self.left.is_contiguous() else 160)),
    "cast": ("to", lambda self, dtype=None, device=None: self),
    "tree": ("tensors", lambda self: {name: t.clone() for name, t in TENSORS(self).items()}),
    "copies": ("__deepcopy__", lambda self, memo: copy.copy(self)),
    "batches": ("linear", lambda self, x: LINEAR(self, x)[..., :1]),
    "addition": ("__add__", lambda self, other: Sum((self, other))),
    "hadamard": ("__mul__", lambda self, other: LowRank(self.left * other.left, self.right)),
    "inner": ("inner", lambda self, other: (self.left @ other.right).sum()),
    "indexing": ("entries", lambda self, index: self.left[index[..., 0], 0]),
    "contraction": ("multiply", lambda self, x, mode: self),
    "stacks": ("batch", 0),
    "rounding": ("round", lambda self, rank=None, *, tol=None: LowRank(self.left[..., :1], self.right[..., :1, :])),
}


@pytest.mark.parametrize("prop", [check.__name__ for check in formats.CHECKS])
def test_each_check_catches_a_format_that_breaks_it(prop, monkeypatch):
    monkeypatch.setattr(LowRank, *SPOILT[prop], raising=False)
    with pytest.raises((AssertionError, GradcheckError)):
        getattr(formats, prop)(LowRank)
