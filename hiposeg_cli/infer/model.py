"""A trained network, rebuilt from its weights file alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.onnx_net import OnnxNet
from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.learn.checkpoint import Checkpoint, apply_weights, load_weights
from hiposeg_cli.learn.decode import Chain, Decode, LevelMaps, chain
from hiposeg_cli.learn.device import pick_amp, pick_device
from hiposeg_cli.learn.evaluate import Read, read_photo
from hiposeg_cli.learn.upsample import Scores
from hiposeg_cli.nets.net import build_net
from hiposeg_cli.store import sha256_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A trained network, ready for photos."""

    net: nn.Module
    checkpoint: Checkpoint
    device: torch.device
    amp: torch.dtype | None
    decode: Decode = field(default_factory=Decode)

    @property
    def hierarchy(self) -> Hierarchy:
        return self.checkpoint.hierarchy

    @property
    def identity(self) -> str:
        """Names weights, input size, precision and decoding rule, so that results are never mixed."""
        rule = "" if self.decode == Decode() else f"-{self.decode.name}"
        precision = "" if self.amp is None else f"-{self.amp}".replace("torch.", "")
        return f"{sha256_file(self.checkpoint.path)}-{self.checkpoint.about['size'] or 'unscaled'}{precision}{rule}"

    def segment(self, image: NDArray[np.uint8]) -> LabelArray:
        """(H, W, 3) uint8 photo -> (H, W) fine ids."""
        return self.label_maps(image)[0]

    def label_maps(self, image: NDArray[np.uint8]) -> LevelMaps:
        """(H, W, 3) uint8 photo -> (H, W) fine ids and, where the rule may speak otherwise than by parents, every level."""
        return self._read(image, lambda scores: self.decode.read(scores, self.hierarchy))

    def chain(self, image: NDArray[np.uint8]) -> Chain:
        """(H, W, 3) uint8 photo -> what back-off chooses from, for any threshold."""
        return self._read(image, lambda scores: chain(scores.full(), self.hierarchy))

    def _read(self, image: NDArray[np.uint8], read: Callable[[Scores], Read]) -> Read:
        return read_photo(self.net, image, read, size=self.checkpoint.about["size"], device=self.device, amp=self.amp)


def weights_path(run: Path, which: str = "best") -> Path:
    """The weights file behind a run folder or a .safetensors path."""
    if run.suffix == ".safetensors":
        return run
    if not run.is_dir():
        raise DataError(run, "no such run", "name a run folder or a .safetensors file")
    return run / "weights" / f"{which}.safetensors"


def load_model(run: Path, *, which: str = "best", device: str = "auto") -> Model:
    """Rebuild a run's network from its weights file alone; it computes in the precision it was trained with.

    Args:
        run: a run folder, a .safetensors file, or an .onnx file that `hiposeg export` wrote.
        which: `best` or `last` weights of a run folder.
    """
    if which != "best" and run.is_file():
        raise ConfigError(f"--weights {which}", f"chooses from a run folder, and {run} is one file", "leave it out")
    if run.suffix == ".onnx":
        return _exported(run, device)
    if run.suffix == ".pt2":
        raise DataError(run, "is never read: such files may hold code", "name the run, or export it as onnx")
    checkpoint = load_weights(weights_path(run, which))
    about = checkpoint.about
    net = build_net(about["architecture"], about["backbone"], checkpoint.hierarchy.n_fine)
    apply_weights(net, checkpoint)
    picked = pick_device(device)
    logger.info("%s: %s over %s, step %s", checkpoint.path, about["architecture"], about["backbone"], about["step"])
    return Model(net.to(picked).eval(), checkpoint, picked, pick_amp(about["amp"], picked))


def _exported(path: Path, device: str) -> Model:
    """A network in an ONNX file, which computes on the CPU in float32."""
    if device != "auto" and pick_device(device).type != "cpu":
        raise ConfigError(f"--device {device}", "an ONNX file runs on the CPU here", "pass --device cpu, or name the run")
    net = OnnxNet(path)
    checkpoint = Checkpoint(path, {}, net.described.hierarchy, net.described.about)
    logger.info("%s: an exported network, through onnxruntime", path)
    return Model(net, checkpoint, torch.device("cpu"), None)


def with_size(model: Model, size: int | None) -> Model:
    """The same model looking at photos of another size (long side in px)."""
    return model if size is None else _sized(model, size)


def unscaled(model: Model) -> Model:
    """The same model looking at photos at their own size."""
    return _sized(model, None)


def _sized(model: Model, size: int | None) -> Model:
    return replace(model, checkpoint=replace(model.checkpoint, about={**model.checkpoint.about, "size": size}))


def with_decode(model: Model, decode: Decode) -> Model:
    """The same model speaking by another rule."""
    return replace(model, decode=decode)
