"""One photo through the network, and a whole split scored at the size of its ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.learn import ranks
from hiposeg_cli.learn.augment import resize_long_side
from hiposeg_cli.learn.decode import Chain, LevelMaps, leaf_map
from hiposeg_cli.learn.memory import enough_memory
from hiposeg_cli.metrics import BackOffCurve, Confusion
from hiposeg_cli.store import Dataset, Row

Photo = NDArray[np.uint8]  # (H, W, 3)
Segment = Callable[[Photo], LabelArray]
Read = TypeVar("Read")


@torch.inference_mode()
def read_photo(
    net: nn.Module, image: Photo, read: Callable[[Tensor], Read], *, size: int | None, device: torch.device,
    amp: torch.dtype | None = None,
) -> Read:  # fmt: skip
    """What `read` makes of a photo's leaf scores.

    Args:
        image: (H, W, 3) uint8.
        read: takes (F, H, W) float32 logits at the photo's size.
        size: long side in px the network sees; None keeps the photo's own.
    """
    H, W = image.shape[:2]
    resized = resize_long_side(image, size)
    tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None]
    with enough_memory(f"a photo of {W}x{H} px", "pass a smaller --size, or cut the photo into tiles"):
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            output = net(tensor.to(device))
        logits = output.full_logits()
        if logits.shape[2:] != (H, W):
            logits = F.interpolate(logits, size=(H, W), mode="bilinear", align_corners=False)
        return read(logits[0])


def segment(
    net: nn.Module, image: Photo, *, size: int | None, device: torch.device, amp: torch.dtype | None = None
) -> LabelArray:
    """(H, W) fine ids of one photo at its own size, by leaf argmax; see `read_photo`."""
    return read_photo(net, image, leaf_map, size=size, device=device, amp=amp)


def evaluate(
    dataset: Dataset,
    rows: tuple[Row, ...],
    predict: Segment,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Confusion:
    """Count every image of some rows against the fine map of `predict`, one image in memory at a time."""
    return evaluate_levels(dataset, rows, lambda image: (predict(image),), progress)


def evaluate_jointly(dataset: Dataset, rows: tuple[Row, ...], predict: Segment) -> Confusion:
    """`evaluate` by all processes of a run: each counts its share of the rows, and every one gets the sum."""
    with ranks.agreed():
        confusion = evaluate(dataset, tuple(ranks.share(rows)), predict)
    n_images = np.array([confusion.n_images])
    ranks.add_up(confusion.counts)
    ranks.add_up(n_images)
    confusion.n_images = int(n_images[0])
    return confusion


def evaluate_levels(
    dataset: Dataset,
    rows: tuple[Row, ...],
    predict: Callable[[Photo], LevelMaps],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Confusion:
    """The same for predictions that may bring their own maps of the levels above."""
    confusion = Confusion(dataset.hierarchy)
    for number, row in enumerate(rows, start=1):
        fine, *above = predict(dataset.image(row))
        confusion.add(dataset.labels(row), fine, row.key, above)
        progress(number, len(rows))
    return confusion


@dataclass(frozen=True)
class BackOff:
    """A split under back-off: the counts of its label maps, and what they say over the thresholds."""

    confusion: Confusion
    curve: BackOffCurve


def evaluate_back_off(
    dataset: Dataset,
    rows: tuple[Row, ...],
    predict: Callable[[Photo], Chain],
    thresholds: tuple[float, ...],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BackOff:
    """Count every image once for all thresholds.

    The label maps that are counted are those of the one threshold; of several, those of 0, which are the leaf rule's.
    """
    found = BackOff(Confusion(dataset.hierarchy), BackOffCurve(dataset.hierarchy, thresholds))
    for number, row in enumerate(rows, start=1):
        truth, chain = dataset.labels(row), predict(dataset.image(row))
        fine, *above = chain.said(thresholds[0]) if len(thresholds) == 1 else chain.ids[:1]
        found.confusion.add(truth, fine, row.key, above)
        found.curve.add(truth, chain.ids, chain.probabilities)
        progress(number, len(rows))
    return found
