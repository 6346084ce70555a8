"""MATLAB files, read by SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["read_mat"]


def read_mat(path: str | Path) -> dict[str, Any]:
    """The numeric arrays of a .mat file by name, sparse ones dense; cells, structures and text are left out.

    Raises ImportError with what to install where SciPy is missing, ValueError where the file cannot be read.
    """
    try:
        from scipy import sparse
        from scipy.io import loadmat
    except ImportError:
        raise ImportError(f"{path} needs SciPy to be read; install it with pip install 'polyad[interop]'") from None
    try:
        variables = loadmat(path)
    except NotImplementedError:  # version 7.3 is another kind of file
        raise ValueError(f"{path} is of MATLAB's version 7.3, which SciPy does not read; save it with -v7") from None
    except Exception as error:  # its readers of headers and of deflated bytes raise what they like
        raise ValueError(f"{path} is no MATLAB file that SciPy reads ({error}); save it again with -v7") from None
    arrays = {k: v.toarray() if sparse.issparse(v) else v for k, v in variables.items() if not k.startswith("__")}
    return {name: array for name, array in arrays.items() if array.dtype.kind in "biufc"}
