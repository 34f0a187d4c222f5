"""Two folders that mirror each other: label PNGs, and the photo of the same stem for each of them."""

from __future__ import annotations

from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, Reader
from hiposeg_cli.formats.files import index_images, safe_key, walk


def paired_items(reader: Reader, split: str, image_dir: Path, label_dir: Path) -> list[RawItem]:
    """The labelled images of one split, sorted by key; photos without labels are left out.

    Labels without a photo are faults of the reader. Raises DataError for a missing folder, or one without labels.
    """
    for folder in (image_dir, label_dir):
        if not folder.is_dir():
            raise DataError(folder, "no such folder", "photos and labels lie in folders of their own; extract both")
    images = index_images(image_dir, root=reader.link_root)
    items, n_labels = [], 0
    for path in walk(label_dir, (".png",), root=reader.link_root):
        n_labels += 1
        stem = path.relative_to(label_dir).as_posix()[: -len(path.suffix)]
        with reader.each_image():
            if stem not in images:
                raise DataError(path, f"has no image {image_dir / stem}.*", "add the image or remove the labels")
            items.append(RawItem(safe_key(stem), split, images[stem], path.relative_to(reader.root).as_posix()))
    if not n_labels:
        raise DataError(label_dir, "holds no *.png", "extract the labels")
    return sorted(items, key=lambda item: item.key)
