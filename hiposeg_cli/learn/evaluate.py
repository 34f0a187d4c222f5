"""One photo through the network, and a whole split scored at the size of its ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hiposeg_cli.errors import HiposegError
from hiposeg_cli.labelmap import LabelArray, label_dtype
from hiposeg_cli.learn.augment import resize_long_side
from hiposeg_cli.metrics import Confusion
from hiposeg_cli.store import Dataset, Row

Segment = Callable[[NDArray[np.uint8]], LabelArray]


@contextmanager
def enough_memory(where: str, cure: str) -> Iterator[None]:
    """Turn running out of memory, on any device, into an error a user can act on."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises it bare
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise HiposegError(where, "does not fit into memory", cure) from None
        raise


@torch.inference_mode()
def segment(
    net: nn.Module, image: NDArray[np.uint8], *, size: int | None, device: torch.device, amp: torch.dtype | None = None
) -> LabelArray:
    """Fine label map of one photo, by leaf argmax.

    Args:
        image: (H, W, 3) uint8.
        size: long side in px the network sees; None keeps the photo's own.
    Returns: (H, W) fine ids at the photo's size.
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
        return _argmax(logits[0])


def _argmax(logits: Tensor) -> LabelArray:
    """(F, H, W) -> (H, W) ids in the smallest label type."""
    ids = logits.argmax(dim=0).cpu().numpy()
    return ids.astype(np.uint8) if label_dtype(logits.shape[0]) == np.uint8 else ids.astype(np.uint16)


def evaluate(
    dataset: Dataset,
    rows: tuple[Row, ...],
    predict: Segment,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Confusion:
    """Count every image of some rows against the prediction of `predict`, one image in memory at a time."""
    confusion = Confusion(dataset.hierarchy)
    for number, row in enumerate(rows, start=1):
        confusion.add(dataset.labels(row), predict(dataset.image(row)), row.key)
        progress(number, len(rows))
    return confusion
