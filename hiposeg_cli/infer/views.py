"""Test-time augmentation: one photo at several scales and mirrored, and what the network says of all of them together.

Probabilities are averaged at the photo's size. A mirrored photo's left is the right of the photo itself, so classes of
one side change places with those of the other, by the hierarchy's mirror pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiposeg_cli.errors import ConfigError, require_choice
from hiposeg_cli.infer.model import Model
from hiposeg_cli.infer.onnx_net import OnnxNet
from hiposeg_cli.learn.augment import resize_long_side
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.compilation import can_compile
from hiposeg_cli.learn.upsample import Scores

SCALES = (0.75, 1.0, 1.25)
_MIN_SIDE_PX = 32
_SMALLEST = torch.finfo(torch.float32).tiny

Photo = NDArray[np.uint8]  # (h, w, 3)


@dataclass(frozen=True)
class Views:
    """How often and how a photo is looked at."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def is_plain(self) -> bool:
        return self == Views()

    @property
    def name(self) -> str:
        """Names the views where they are not the plain one."""
        return "" if self.is_plain else f"-scales{','.join(map(repr, self.scales))}{'-flip' if self.flip else ''}"


def parse_views(tta: str, scales: str) -> Views:
    """What --tta (`flip`, `scales` or both) and --scales (numbers) ask for. Raises ConfigError."""
    words = [word.strip() for word in tta.split(",") if word.strip()]
    for word in words:
        require_choice("--tta", word, ("flip", "scales"))
    factors: tuple[float, ...] = SCALES if "scales" in words else (1.0,)
    if scales:
        try:
            factors = tuple(dict.fromkeys(float(word) for word in scales.split(",")))
        except ValueError:
            raise ConfigError(f"--scales {scales}", "is no list of numbers", "write for example 0.75,1,1.25") from None
        if not all(0.1 <= factor <= 10 for factor in factors):
            raise ConfigError(f"--scales {scales}", "has a factor out of range", "choose between 0.1 and 10")
    return Views(factors, "flip" in words)


class Looker:
    """A model with its views: pictures in, scores at the size they are wanted.

    Args:
        compiled: run the network through torch.compile, where this machine can; see `warning`.
    """

    def __init__(self, model: Model, views: Views, *, compiled: bool = False) -> None:
        self.model, self.views, self.warning = model, views, ""
        self.net: Callable[[Tensor], Output] = model.net
        self.mirror = torch.from_numpy(model.hierarchy.fine.mirror_ids()).to(model.device)
        if compiled:
            reason = "an ONNX file" if isinstance(model.net, OnnxNet) else can_compile(model.device)
            self.warning = f"--compile has no effect: nothing can be compiled here ({reason})" if reason else ""
            self.net = self.net if reason else torch.compile(model.net)

    def seen(self, photo: Photo, size: int | None) -> list[Photo]:
        """A photo at the size the network sees it in, once for every scale.

        Args:
            size: its long side at scale 1; None keeps the photo's own.
        """
        side = size or max(photo.shape[:2])
        sides = [size if factor == 1 else max(_MIN_SIDE_PX, round(side * factor)) for factor in self.views.scales]
        return [resize_long_side(photo, wanted) for wanted in sides]

    @torch.inference_mode()
    def look(self, photos: Sequence[Sequence[Photo]], sizes: Sequence[tuple[int, int]]) -> list[Scores]:
        """Scores of a batch.

        Args:
            photos: what `seen` gave for each; equal shapes for equal scales.
            sizes: (H, W) of each result.
        """
        if self.views.is_plain:
            output = self._forward(np.stack([seen[0] for seen in photos]))
            return [Scores.of(output, index, size) for index, size in enumerate(sizes)]
        total: list[Tensor | None] = [None] * len(photos)
        n_views = 0
        for scaled in zip(*photos, strict=True):
            for flipped in (False, True) if self.views.flip else (False,):
                n_views += 1
                images = np.stack(scaled)
                output = self._forward(images[:, :, ::-1].copy() if flipped else images)
                for index, before in enumerate(total):
                    said = Scores.of(output, index, sizes[index]).full().softmax(dim=0)
                    said = said.flip(-1)[self.mirror] if flipped else said
                    total[index] = said if before is None else before.add_(said)
        means = [said.div_(n_views).clamp_min_(_SMALLEST).log_() for said in total if said is not None]
        return [Scores.at_size(logits) for logits in means]

    def _forward(self, images: NDArray[np.uint8]) -> Output:
        """One pass over (B, h, w, 3) uint8 pictures."""
        model, tensor = self.model, torch.from_numpy(images).permute(0, 3, 1, 2)
        if model.device.type == "cuda":
            tensor = tensor.pin_memory()
        with torch.autocast(model.device.type, dtype=model.amp, enabled=model.amp is not None):
            return self.net(tensor.to(model.device, non_blocking=True))
