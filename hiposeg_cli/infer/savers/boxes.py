"""Where each class of a label map lies."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hiposeg_cli.labelmap import LabelArray, valid_pixels

Box = tuple[slice, slice]
"""Rows and columns."""


def class_boxes(labels: LabelArray) -> dict[int, Box]:
    """Class id -> the smallest box around its pixels; ids ascending, only of classes that occur."""
    numbers = labels.astype(np.int32)
    numbers += 1
    numbers[~valid_pixels(labels)] = 0
    return {class_id: box for class_id, box in enumerate(ndimage.find_objects(numbers)) if box is not None}
