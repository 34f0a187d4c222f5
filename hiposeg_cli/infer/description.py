"""What a file with a network's graph says about it: classes, hierarchy, palette, preprocessing, and how to read its scores.

All of it is text under plain names, in ONNX as metadata_props and in torch.export as extra files, for programs without
hiposeg. With it hiposeg uses the graph as it uses the run that it is of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import DataError, HierarchyError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, parse_hierarchy
from hiposeg_cli.learn.checkpoint import Checkpoint
from hiposeg_cli.nets.net import STRIDE_PX, SegmentationNet
from hiposeg_cli.store import sha256_file

SCHEMA = "hiposeg/network@1"
_INPUT = "uint8 (B, 3, H, W) RGB of any number and size; scaling and padding are inside"
_OUTPUT = (
    "float32 (B, F, h, w) scores of the finest classes over the picture padded to multiples of stride_px at its bottom and "
    "right: resize them to the padded size (bilinear, align_corners=False), cut to (H, W), argmax"
)


def description(net: SegmentationNet, checkpoint: Checkpoint) -> dict[str, str]:
    """The texts for a network; `mean` and `std` are on the scale 0..255, `size` is the long side in px or null."""
    hierarchy = checkpoint.hierarchy
    plain = {
        "schema": SCHEMA, "hiposeg_version": version("hiposeg-cli"), "weights_sha256": sha256_file(checkpoint.path),
        "hierarchy": dump_hierarchy(hierarchy), "input": _INPUT, "output": _OUTPUT,
    }  # fmt: skip
    values: dict[str, Any] = {
        "classes": {level.name: level.names for level in hierarchy.levels},
        "palette": {level.name: level.colors().tolist() for level in hierarchy.levels},
        "mean": net.mean.flatten().tolist(), "std": net.std.flatten().tolist(),
        "size": checkpoint.about["size"], "stride_px": STRIDE_PX, "about": checkpoint.about,
    }  # fmt: skip
    return plain | {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


@dataclass(frozen=True)
class Described:
    """What a file says about the graph in it."""

    hierarchy: Hierarchy
    about: dict[str, Any]
    stride_px: int


def parse_description(texts: dict[str, str], path: Path) -> Described:
    """Read what `description` wrote. Raises DataError for anything else."""
    schema = texts.get("schema")
    if schema is None:
        raise DataError(path, "was not written by hiposeg", "name a file of `hiposeg export RUN --as onnx`")
    if schema != SCHEMA:
        raise DataError(path, f"has the schema {schema!r}, not {SCHEMA}", "export it again with this version")
    try:
        hierarchy = parse_hierarchy(texts["hierarchy"], path)
        about, stride = json.loads(texts["about"]), json.loads(texts["stride_px"])
    except (KeyError, ValueError, HierarchyError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if type(stride) is not int or stride < 1:
        raise _damaged(path, f"stride_px {stride!r}")
    size = about.get("size", "missing") if isinstance(about, dict) else "missing"
    if size is not None and (type(size) is not int or size < 1):
        raise _damaged(path, f"size {size!r}")
    return Described(hierarchy, about, stride)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(path, f"holds a damaged description ({reason})", "export it again")
