"""Random geometry and colour for one image and its labels. Labels are resized by nearest only; padding is ignore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import IGNORE, LabelArray, TwoLevelMap, ignore_value

Labels = NDArray[np.int64]
Pixels = TypeVar("Pixels", bound=NDArray[Any])


@dataclass(frozen=True)
class AugmentOptions:
    """How training images vary.

    Attributes:
        crop: (height, width) of the training crop in px.
        size: long side in px an image is brought to first; None keeps its own size.
        scale: range of the random zoom, uniform in the logarithm.
        flip: probability of a left-right flip; left and right classes change places with it.
        jitter: strength of random brightness, contrast and saturation.
    """

    crop: tuple[int, int]
    size: int | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3


class Augment:
    """Turns an image and its labels into one training crop."""

    def __init__(self, options: AugmentOptions, hierarchy: Hierarchy) -> None:
        self.options = options
        self.mirror = {"fine": hierarchy.fine.mirror_ids(), "coarse": hierarchy.coarse.mirror_ids()}

    def __call__(
        self, image: NDArray[np.uint8], labels: dict[str, LabelArray], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], dict[str, Labels]]:
        """Crop one image.

        Args:
            image: (H, W, 3) uint8.
            labels: level name -> (H, W) label map.
        Returns: (h, w, 3) uint8 crop and (h, w) int64 labels with `IGNORE`.
        """
        window = self._window(image.shape[0], image.shape[1], rng)
        crop = self._photo(image, window, rng)
        flipped = rng.random() < self.options.flip
        cut = {level: to_int64(window.cut_labels(values)) for level, values in labels.items()}
        if flipped:
            crop = np.ascontiguousarray(crop[:, ::-1])
            cut = {level: flip_labels(values, self.mirror[level]) for level, values in cut.items()}
        return crop, cut

    def _window(self, height: int, width: int, rng: np.random.Generator) -> Window:
        low, high = self.options.scale
        zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if self.options.size is not None:
            zoom *= self.options.size / max(height, width)
        crop_height, crop_width = self.options.crop
        top, bottom = _span(height * zoom, crop_height, rng.random())
        left, right = _span(width * zoom, crop_width, rng.random())
        offset_y, offset_x = (
            int(rng.integers(crop_height - (bottom - top) + 1)),
            int(rng.integers(crop_width - (right - left) + 1)),
        )
        box = (left / zoom, top / zoom, min(right / zoom, width), min(bottom / zoom, height))
        return Window(box, (bottom - top, right - left), (offset_y, offset_x), self.options.crop)

    def _photo(self, image: NDArray[np.uint8], window: Window, rng: np.random.Generator) -> NDArray[np.uint8]:
        picture = window.cut_photo(image)
        strength = self.options.jitter
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            factor = float(rng.uniform(1 - strength, 1 + strength))
            if strength:
                picture = enhance(picture).enhance(factor)
        return window.place(np.asarray(picture), fill=127)


@dataclass(frozen=True)
class Window:
    """A part of the image, resized, and where it lies in the crop.

    Attributes:
        box: (left, top, right, bottom) in source px.
        size: (height, width) it is resized to.
        offset: (y, x) of its corner in the crop; the rest is padding.
        crop: (height, width) of the crop.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    offset: tuple[int, int]
    crop: tuple[int, int]

    def cut_photo(self, image: NDArray[np.uint8]) -> Image.Image:
        height, width = self.size
        return Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=self.box)

    def cut_labels(self, labels: LabelArray) -> LabelArray:
        """Nearest neighbour by index: the source pixel under each target pixel's centre."""
        left, top, right, bottom = self.box
        rows = _centres(top, bottom, self.size[0], labels.shape[0])
        columns = _centres(left, right, self.size[1], labels.shape[1])
        cut: LabelArray = labels[rows[:, None], columns[None, :]]
        return self.place(cut, fill=ignore_value(labels.dtype))

    def place(self, patch: Pixels, fill: int) -> Pixels:
        if patch.shape[:2] == self.crop:
            return patch
        canvas = cast(Pixels, np.full((*self.crop, *patch.shape[2:]), fill, dtype=patch.dtype))
        y, x = self.offset
        canvas[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
        return canvas


def _span(length: float, crop: int, where: float) -> tuple[int, int]:
    """Start and end of the crop along one axis of the zoomed image; the whole axis when it is shorter."""
    whole = max(1, round(length))
    if whole <= crop:
        return 0, whole
    start = int(where * (whole - crop + 1))
    return start, start + crop


def _centres(start: float, end: float, n: int, limit: int) -> NDArray[np.int64]:
    centres = start + (np.arange(n) + 0.5) * (end - start) / n
    return np.clip(centres.astype(np.int64), 0, limit - 1)


def to_int64(labels: LabelArray) -> Labels:
    """(H, W) int64 with `IGNORE` in place of the type's own ignore value."""
    values = labels.astype(np.int64)
    values[labels == ignore_value(labels.dtype)] = IGNORE
    return values


def flip_labels(labels: Labels, mirror: NDArray[np.int64]) -> Labels:
    """Flip (H, W) labels left to right, exchanging each class with its mirror class; IGNORE stays."""
    flipped = labels[:, ::-1]
    return np.where(flipped == IGNORE, IGNORE, mirror[flipped])


def resize_long_side(image: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """(H, W, 3) image with its long side brought to `size` px, bilinear; unchanged when `size` is None."""
    height, width = image.shape[:2]
    if size is None or max(height, width) == size:
        return image
    factor = size / max(height, width)
    new = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))


def as_labels(labels: TwoLevelMap, needs: frozenset[str]) -> dict[str, LabelArray]:
    """Only the levels a method needs: no other label reaches it."""
    levels = {"fine": labels.fine, "coarse": labels.coarse}
    return {level: levels[level] for level in ("fine", "coarse") if level in needs}
