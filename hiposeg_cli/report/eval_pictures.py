"""Small pictures of scored images: the photo, and for each level truth, prediction and mistakes to lay over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.evaluation.result import Shown
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, count_ids, on_every_level, valid_pixels
from hiposeg_cli.metrics.protocols import Protocol
from hiposeg_cli.report.inspect_pictures import data_uri, nearest, photo_uri, small_size, tint

LONG_SIDE_PX = 640
RIGHT, IGNORED, RELATED, WRONG = range(4)  # of a map of mistakes
COLOURS = {IGNORED: (128, 128, 128), RELATED: (255, 176, 0), WRONG: (230, 0, 126)}


@dataclass(frozen=True)
class LevelPicture:
    """One level of an image as data URIs of PNGs, which are clear on background and ignored pixels.

    Attributes:
        wrong: the mistakes, in `COLOURS`.
        classes: those in truth or prediction, largest first.
    """

    truth: str
    prediction: str
    wrong: str
    classes: tuple[ClassNode, ...]


@dataclass(frozen=True)
class ComparedPicture:
    """One scored image: a JPEG as data URI, empty where the photo is gone, and its levels, finest first."""

    width: int
    height: int
    photo: str
    levels: tuple[LevelPicture, ...]


def compared_picture(shown: Shown, hierarchy: Hierarchy, protocol: Protocol) -> ComparedPicture:
    """Shrink one image to `LONG_SIDE_PX`; labels by nearest."""
    size = small_size(shown.truth.shape, LONG_SIDE_PX)
    truths = on_every_level((_scored_fine(shown, hierarchy, protocol), shown.truth.coarse), hierarchy)
    predictions = on_every_level(shown.predicted, hierarchy)
    levels = []
    for depth, (level, true, predicted) in enumerate(zip(hierarchy.levels, truths, predictions, strict=True)):
        parents = hierarchy.parents(depth) if depth + 1 < len(hierarchy.levels) else None
        wrong = mistakes(nearest(true, size), nearest(predicted, size), parents)
        pictures = (tint(true, level, size), tint(predicted, level, size), _mistake_uri(wrong))
        levels.append(LevelPicture(*pictures, _present(level, true, predicted)))
    photo = "" if shown.photo is None else photo_uri(shown.photo, size)
    return ComparedPicture(*size, photo, tuple(levels))


def mistakes(truth: LabelArray, predicted: LabelArray, parents: NDArray[np.int64] | None) -> NDArray[np.uint8]:
    """(H, W) uint8: `RIGHT`, `IGNORED` where there is no truth, `RELATED` inside the true class's parent, or `WRONG`.

    Args:
        parents: (K,) the parent of each class; None on the top level, where no two classes are related.
    """
    result = np.full(truth.shape, WRONG, np.uint8)
    both = valid_pixels(truth) & valid_pixels(predicted)
    if parents is not None:
        result[both] = np.where(parents[truth[both]] == parents[predicted[both]], RELATED, WRONG)
    result[both & (truth == predicted)] = RIGHT
    result[~valid_pixels(truth)] = IGNORED
    return result


def _scored_fine(shown: Shown, hierarchy: Hierarchy, protocol: Protocol) -> LabelArray:
    """The true fine classes as the protocol scores them: object pixels without a part may be background."""
    fine = shown.truth.fine
    if protocol.uncovered == "background" and hierarchy.background is not None:
        return np.where(shown.truth.coarse_only(), fine.dtype.type(hierarchy.background), fine)
    return fine


def _mistake_uri(wrong: NDArray[np.uint8]) -> str:
    image = Image.fromarray(wrong)
    image.putpalette([0, 0, 0, *(value for color in COLOURS.values() for value in color)])
    return data_uri(image, "PNG", transparency=bytes([0, 130, 255, 255]), optimize=True)


def _present(level: Level, *maps: LabelArray) -> tuple[ClassNode, ...]:
    counts = sum(count_ids(labels, len(level)) for labels in maps)
    order = np.argsort(-np.asarray(counts), kind="stable")
    return tuple(level.nodes[int(k)] for k in order if np.asarray(counts)[k])
