"""Cityscapes: leftImg8bit and gtFine with `*_labelIds.png` (34 ids), read by look-up and never re-drawn from polygons."""

from __future__ import annotations

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader, Target, id_png_targets, index_images, safe_key
from hiposeg_cli.labelmap import read_label_png

_LABELS, _IMAGE = "_gtFine_labelIds", "_leftImg8bit"


class Cityscapes(Reader):
    """SRC/gtFine/SPLIT/CITY/*_gtFine_labelIds.png with SRC/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png."""

    name = "cityscapes"
    default_hierarchy = "cityscapes-19-7"

    def targets(self) -> dict[int, Target]:
        return id_png_targets(self.table, self.hierarchy, self.labels_from())

    def items(self) -> list[RawItem]:
        truth_dir, image_dir = self.root / "gtFine", self.root / "leftImg8bit"
        for folder in (truth_dir, image_dir):
            if not folder.is_dir():
                raise DataError(folder, "no such folder", "extract gtFine and leftImg8bit into one folder and name it")
        items = []
        for split in ("train", "val"):
            if not (truth_dir / split).is_dir():
                continue
            images = index_images(image_dir / split)
            for path in sorted((truth_dir / split).rglob(f"*{_LABELS}.png")):
                stem = path.relative_to(truth_dir / split).as_posix().removesuffix(f"{_LABELS}.png")
                if stem + _IMAGE not in images:
                    raise DataError(path, f"has no image {image_dir / split / (stem + _IMAGE)}.png", "extract leftImg8bit")
                items.append(RawItem(safe_key(stem), split, images[stem + _IMAGE], str(path.relative_to(self.root))))
        if not items:
            raise DataError(truth_dir, f"no train or val *{_LABELS}.png found", "extract gtFine_trainvaltest.zip")
        return items

    def read(self, item: RawItem) -> RawLabel:
        path = self.root / item.source
        ids = read_label_png(path)
        self.require_size(item, ids.shape, path)
        if int(ids[ids != 255].max(initial=0)) <= 18 and (ids == 255).any():
            raise DataError(path, "looks like trainIds (0..18 and 255), not labelIds", "use the official *_labelIds.png")
        return RawLabel(ids.astype(np.int32))
