"""Two folders that mirror each other: label PNGs, and the photo of the same stem for each of them."""

from __future__ import annotations

from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem
from hiposeg_cli.formats.files import index_images, safe_key, walk


def paired_items(split: str, image_dir: Path, label_dir: Path, *, root: Path, link_root: Path | None) -> list[RawItem]:
    """The labelled images of one split, sorted by key; photos without labels are left out.

    Args:
        root: the dataset, which the labels' paths are relative to.
        link_root: symbolic links may not lead out of this folder; None follows them.
    Raises: DataError for a missing folder, labels without a photo, or a folder without labels.
    """
    for folder in (image_dir, label_dir):
        if not folder.is_dir():
            raise DataError(folder, "no such folder", "photos and labels lie in folders of their own; extract both")
    images = index_images(image_dir, root=link_root)
    items = []
    for path in walk(label_dir, (".png",), root=link_root):
        stem = path.relative_to(label_dir).as_posix()[: -len(path.suffix)]
        if stem not in images:
            raise DataError(path, f"has no image {image_dir / stem}.*", "add the image or remove the labels")
        items.append(RawItem(safe_key(stem), split, images[stem], path.relative_to(root).as_posix()))
    if not items:
        raise DataError(label_dir, "holds no *.png", "extract the labels")
    return sorted(items, key=lambda item: item.key)
