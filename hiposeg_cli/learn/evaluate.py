"""One photo through the network, and a whole split scored at the size of its ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.learn import ranks
from hiposeg_cli.learn.augment import resize_long_side
from hiposeg_cli.learn.memory import enough_memory
from hiposeg_cli.learn.upsample import Scores
from hiposeg_cli.metrics import Confusion
from hiposeg_cli.store import Dataset, Row

Photo = NDArray[np.uint8]  # (H, W, 3)
Segment = Callable[[Photo], LabelArray]
Read = TypeVar("Read")


@torch.inference_mode()
def read_photo(
    net: nn.Module, image: Photo, read: Callable[[Scores], Read], *, size: int | None, device: torch.device,
    amp: torch.dtype | None = None,
) -> Read:  # fmt: skip
    """What `read` makes of a photo's leaf scores.

    Args:
        image: (H, W, 3) uint8.
        read: takes the scores, not yet at the photo's size.
        size: long side in px the network sees; None keeps the photo's own.
    """
    H, W = image.shape[:2]
    resized = resize_long_side(image, size)
    tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None]
    with enough_memory(f"a photo of {W}x{H} px", "pass a smaller --size, or cut the photo into tiles"):
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            output = net(tensor.to(device))
        return read(Scores.of(output, 0, (H, W)))


def segment(
    net: nn.Module, image: Photo, *, size: int | None, device: torch.device, amp: torch.dtype | None = None
) -> LabelArray:
    """(H, W) fine ids of one photo at its own size, by leaf argmax; see `read_photo`."""
    return read_photo(net, image, Scores.best_ids, size=size, device=device, amp=amp)


def evaluate(dataset: Dataset, rows: Sequence[Row], predict: Segment) -> Confusion:
    """Count every image of some rows against the fine map of `predict`, one image in memory at a time."""
    confusion = Confusion(dataset.hierarchy)
    for row in rows:
        confusion.add(dataset.labels(row), predict(dataset.image(row)), row.key)
    return confusion


def evaluate_jointly(dataset: Dataset, rows: Sequence[Row], predict: Segment) -> Confusion:
    """`evaluate` by all processes of a run: each counts its share of the rows, and every one gets the sum."""
    with ranks.agreed():
        confusion = evaluate(dataset, ranks.share(rows), predict)
    n_images = np.array([confusion.n_images])
    ranks.add_up(confusion.counts)
    ranks.add_up(n_images)
    confusion.n_images = int(n_images[0])
    return confusion
