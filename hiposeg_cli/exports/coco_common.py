"""What the COCO layouts share: the head of the file, the list of images, and where their photos are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiposeg_cli.exports.base import Exporter
from hiposeg_cli.exports.photos import photo_path, photo_suffix, place_photo
from hiposeg_cli.exports.stream import JsonStream
from hiposeg_cli.store import Row


def coco_head(file: JsonStream, exporter: Exporter[Any], split: str) -> None:
    """`info` and `licenses`; where photos are only referred to, `info` says what their names are relative to."""
    info = {"description": f"{exporter.hierarchy.name}, split {split}, written by hiposeg export --as {exporter.name}"}
    root = "images/" + split if exporter.images != "reference" else str(exporter.dataset.images_root)
    file.field("info", info | {"image_root": root})
    file.field("licenses", [])


def coco_images(exporter: Exporter[Any], split: str, first_id: int) -> Iterator[dict[str, Any]]:
    """The `images` entries of a split."""
    for image_id, row in enumerate(exporter.dataset.split(split), start=first_id):
        yield {"id": image_id, "file_name": coco_file_name(exporter, row), "width": row.width, "height": row.height}


def coco_file_name(exporter: Exporter[Any], row: Row) -> str:
    """A photo's name relative to the `image_root` of `info`."""
    return row.image_path if exporter.images == "reference" else row.key + photo_suffix(row)


def place_coco_photo(exporter: Exporter[Any], row: Row, folder: Path) -> None:
    """Put a photo at images/SPLIT/KEY, or check that the one referred to is there."""
    if exporter.images == "reference":
        photo_path(exporter.dataset, row)
        return
    assert exporter.images is not None
    target = folder / "images" / row.split / (row.key + photo_suffix(row))
    place_photo(exporter.dataset, row, target, exporter.images)
