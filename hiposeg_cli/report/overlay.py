"""Pictures of label maps over photos, with a legend of the classes that occur."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, count_ids, valid_pixels, write_bytes_atomic

_ALPHA = 0.6
_MIN_PANEL_PX = 320
_MAX_ENLARGED_PX = 2048
_MAX_SIDE_PX = 60_000  # JPEG ends at 65535
_MAX_PIXELS = 1 << 24  # of a photo that is shown in full; blending takes about 100 bytes for each
_LINE_PX = 18


def overlay(image: NDArray[np.uint8], maps: list[tuple[Level, LabelArray]]) -> Image.Image:
    """Photo and coloured label maps side by side, each with its legend below.

    Args:
        image: (H, W, 3) uint8; one above 16 megapixels is shown at a fraction of its size.
        maps: levels with their (H, W) label maps; ignored pixels stay uncoloured.
    """
    legends = [_present(level, labels) for level, labels in maps]
    image, maps = _reduced(image, maps)
    panels = [Image.fromarray(image), *(Image.fromarray(_blend(image, level, labels)) for level, labels in maps)]
    enlarged = max(1.0, min(_MIN_PANEL_PX / image.shape[1], _MAX_ENLARGED_PX / image.shape[0]))
    factor = min(enlarged, _MAX_SIDE_PX / image.shape[0], _MAX_SIDE_PX / (len(maps) + 1) / image.shape[1])
    width, height = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    rows = max((len(legend) for legend in legends), default=0)
    line_px = max(_LINE_PX, min(width, 2 * height) // 50)
    columns = max(1, width // (8 * line_px))
    lines = -(-rows // columns)
    canvas = Image.new("RGB", (width * len(panels), height + lines * line_px + 4), "white")
    resampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    for position, panel in enumerate(panels):
        canvas.paste(panel.resize((width, height), resampling), (position * width, 0))
    for position, legend in enumerate(legends, start=1):
        _draw_legend(canvas, legend, (position * width + 4, height + 4), columns, width // columns, line_px)
    return canvas


def write_overlay(path: Path, image: NDArray[np.uint8], hierarchy: Hierarchy, labels: TwoLevelMap) -> None:
    """Write the overlay of both levels as a JPEG, atomically."""
    write_panels(path, image, [(hierarchy.fine, labels.fine), (hierarchy.coarse, labels.coarse)])


def write_panels(path: Path, image: NDArray[np.uint8], maps: list[tuple[Level, LabelArray]]) -> None:
    """Write the overlay of any levels as a JPEG, atomically."""
    buffer = io.BytesIO()
    overlay(image, maps).save(buffer, "JPEG", quality=90)
    write_bytes_atomic(path, buffer.getvalue())


def _reduced(
    image: NDArray[np.uint8], maps: list[tuple[Level, LabelArray]]
) -> tuple[NDArray[np.uint8], list[tuple[Level, LabelArray]]]:
    """Photo and maps at the largest 1/n of their size that has at most `_MAX_PIXELS`."""
    step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _MAX_PIXELS))
    if step <= 1:
        return image, maps
    reduced = np.asarray(Image.fromarray(image).reduce(step))
    return reduced, [(level, labels[::step, ::step]) for level, labels in maps]


def _blend(image: NDArray[np.uint8], level: Level, labels: LabelArray) -> NDArray[np.uint8]:
    """Class colours over the photo, with a dark line between classes; background stays nearly clear."""
    valid = valid_pixels(labels)
    ids = np.where(valid, labels, 0)
    alpha = np.array([0.15 if node.kind == "background" else _ALPHA for node in level.nodes])[ids] * valid
    mixed = image * (1 - alpha[..., None]) + level.colors()[ids] * alpha[..., None]
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed[edge] *= 0.4
    blended: NDArray[np.uint8] = mixed.astype(np.uint8)
    return blended


def _present(level: Level, labels: LabelArray) -> list[tuple[str, tuple[int, int, int]]]:
    counts = count_ids(labels, len(level))
    return [(level.nodes[k].name, level.nodes[k].color) for k in np.argsort(-counts) if counts[k]]


def _draw_legend(
    canvas: Image.Image,
    legend: list[tuple[str, tuple[int, int, int]]],
    corner: tuple[int, int],
    columns: int,
    step: int,
    line_px: int,
) -> None:
    """Draw class names with their colours, `columns` to a line, lettering in proportion to the picture."""
    draw, box_px = ImageDraw.Draw(canvas), round(0.65 * line_px)
    font = ImageFont.load_default(round(0.67 * line_px))
    for number, (name, color) in enumerate(legend):
        x, y = corner[0] + number % columns * step, corner[1] + number // columns * line_px
        draw.rectangle((x, y + 2, x + box_px, y + 2 + box_px), fill=color, outline="black")
        draw.text((x + box_px + 5, y), name, fill="black", font=font)
