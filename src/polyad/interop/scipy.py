"""SciPy's sparse matrices and linear operators."""

from __future__ import annotations

from typing import Any

import numpy
import torch

from polyad.formats import Format, Sparse

__all__ = ["from_scipy", "to_scipy", "to_scipy_operator"]

_MISSING = "SciPy is not installed; pip install 'polyad[interop]' brings it"


def to_scipy(format: Sparse) -> Any:
    """A sparse matrix as ``scipy.sparse.csr_array``; the values are copied.

    Raises ValueError where the format is no matrix, ImportError where SciPy is missing.

    >>> to_scipy(Sparse.from_dense(torch.eye(3))).nnz
    3
    """
    try:
        from scipy.sparse import coo_array
    except ImportError:
        raise ImportError(_MISSING) from None
    if len(format.shape) != 2:
        raise ValueError(f"{format!r} has {len(format.shape)} modes; SciPy's sparse arrays are matrices here")
    rows, columns = numpy.divmod(format.index().cpu().numpy(), format.shape[1])
    return coo_array((format.values.detach().cpu().numpy(), (rows, columns)), shape=format.shape).tocsr()


def from_scipy(x: Any) -> Sparse:
    """A sparse matrix of SciPy's, of any layout, as a ``Sparse``; repeated entries are summed, explicit zeros kept.

    >>> from_scipy(to_scipy(Sparse.from_dense(torch.eye(3)))).to_dense().trace()
    tensor(3.)
    """
    entries = x.tocoo(copy=True)
    entries.sum_duplicates()
    rows, columns = (numpy.asarray(i, dtype=numpy.int64) for i in (entries.row, entries.col))
    flat = rows * x.shape[1] + columns
    order = flat.argsort()
    index = torch.from_numpy(flat[order])
    narrow = index if x.shape[0] * x.shape[1] >= 2**31 else index.to(torch.int32)
    return Sparse(torch.from_numpy(entries.data[order]), narrow, tuple(int(n) for n in x.shape))


def to_scipy_operator(format: Format) -> Any:
    """A matrix format as ``scipy.sparse.linalg.LinearOperator``, for SciPy's solvers; nothing is densified.

    >>> operator = to_scipy_operator(Sparse.from_dense(torch.eye(3)))
    >>> operator.matvec(numpy.ones(3, dtype=numpy.float32)).tolist()
    [1.0, 1.0, 1.0]
    """
    try:
        from scipy.sparse.linalg import LinearOperator
    except ImportError:
        raise ImportError(_MISSING) from None
    if len(format.shape) != 2:
        raise ValueError(f"{format!r} has {len(format.shape)} modes; a linear operator is a matrix")
    flipped = format.transpose()

    def multiply(matrix: Format, x: Any) -> Any:
        tensor = torch.from_numpy(numpy.ascontiguousarray(x.T)).to(format.device, format.dtype)
        return matrix.linear(tensor).detach().cpu().numpy().T

    make: Any = LinearOperator  # its stubs know the abstract class alone
    return make(
        shape=format.shape, dtype=numpy.dtype(str(format.dtype).removeprefix("torch.")),
        matvec=lambda x: multiply(format, x.reshape(-1)), matmat=lambda x: multiply(format, x),
        rmatvec=lambda x: multiply(flipped, x.reshape(-1)), rmatmat=lambda x: multiply(flipped, x),
    )  # fmt: skip
