"""Make timm and segmentation_models_pytorch importable beside any torch build.

A torchvision wheel built for CUDA does not import beside a CPU-only torch ("operator torchvision::nms does not exist"),
although nothing here uses a torchvision operator.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # a schema lives as long as its library object


def import_torchvision() -> bool:
    """Import torchvision; declare its missing operator schemas only when the plain import fails for want of them.

    Declaring them first would abort the process on a healthy install.

    Returns: whether the import needed the repair.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)
        importlib.import_module("torchvision")
    return bool(_libraries)
