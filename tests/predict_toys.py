"""A network that can be followed by hand, as a model for the predictor, and photos to predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from conftest import TOY_YAML
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.infer.model import Model
from hiposeg_cli.infer.predictor import Predicted, PredictOptions, predict
from hiposeg_cli.infer.sources import find_sources
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.checkpoint import Checkpoint, save_weights
from hiposeg_cli.nets.net import build_net


class ByColour(nn.Module):
    """Scores that are a linear function of a pixel's colour, on a grid of `stride` px."""

    def __init__(self, n_classes: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = torch.randn(n_classes, 3, generator=torch.Generator().manual_seed(5))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Output:
        self.batches.append(tuple(image.shape))
        H, W = image.shape[2:]
        padded = F.pad(image.float() / 64 - 2, (0, -W % self.stride, 0, -H % self.stride), mode="replicate")
        cells = F.avg_pool2d(padded, self.stride)
        logits = torch.einsum("bchw,kc->bkhw", cells, self.weight)
        return Output(logits, logits, (H, W), (padded.shape[2], padded.shape[3]))


class BySide(nn.Module):
    """Says left_light (class 4) on the left half of whatever it is shown, right_light (5) on the right half."""

    def forward(self, image: Tensor) -> Output:
        B, _, H, W = image.shape
        logits = torch.zeros(B, 7, H, W)
        logits[:, 4, :, : W // 2] = 1
        logits[:, 5, :, W // 2 :] = 1
        return Output(logits, logits, (H, W), (H, W))


def toy_model(folder: Path, net: nn.Module | None = None, size: int | None = None) -> Model:
    """A model of the toy hierarchy around a network; its weights file only gives it a name."""
    hierarchy = parse_hierarchy(TOY_YAML, "toy.yaml")
    weights = folder / "toy.safetensors"
    weights.write_bytes(b"toy")
    net = net or ByColour(hierarchy.n_fine)
    return Model(net, Checkpoint(weights, {}, hierarchy, {"size": size}), torch.device("cpu"), None)  # type: ignore[arg-type]


def save_untrained(
    path: Path, hierarchy: Hierarchy, net: str = "fpn", backbone: str = "tf_efficientnet_lite0", size: int | None = None
) -> Path:
    """Weights of an untrained network."""
    torch.manual_seed(0)
    built = build_net(net, backbone, hierarchy.n_fine)
    about = {"architecture": net, "backbone": backbone, "size": size, "amp": "off", "step": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, built, hierarchy, about)
    return path


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A photo of coloured patches."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(4, 0).repeat(4, 1)[:height, :width])


def write_photos(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    for seed, (name, size) in enumerate(sizes.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(*size, seed)).save(path)
    return folder


def run(model: Model, photos: Any, out: Path, **options: Any) -> Predicted:
    """Predict with options by name."""
    named = photos if isinstance(photos, list) else [photos]
    return predict(model, find_sources(named, out), out, replace(PredictOptions(workers=2), **options))


def results(out: Path) -> dict[str, bytes]:
    """The files of OUT but for the record, whose lines tell times."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(".jsonl")}


def ids(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path))
