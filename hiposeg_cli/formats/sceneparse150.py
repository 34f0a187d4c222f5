"""SceneParse150 (ADEChallengeData2016): the 150-class release of ADE20K, one 8-bit id PNG per image."""

from __future__ import annotations

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import first_folder
from hiposeg_cli.formats.pairs import paired_items
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.lookup import Target

_SPLITS = {"training": "train", "validation": "val"}


class SceneParse150(Reader):
    """SRC/images/{training,validation}/*.jpg with SRC/annotations/{training,validation}/*.png: 0 is other, 1..150."""

    name = "sceneparse150"
    default_hierarchy = "sceneparse150-150-29"

    def targets(self) -> dict[int, Target]:
        return id_targets(self.table, self.hierarchy, self.labels_from())

    def items(self) -> list[RawItem]:
        if (self.root / "images" / "ADE").is_dir():
            raise DataError(self.root, "is the full release of ADE20K", "use the format ade20k")
        labels = first_folder(self.root, ("annotations", "ADEChallengeData2016/annotations"), "label folder")
        items = []
        for name, split in _SPLITS.items():
            if (labels / name).is_dir():
                photos = labels.parent / "images" / name
                items += paired_items(self, split, photos, labels / name)
        if not items and not self.faults:
            raise DataError(labels, "has no folder training or validation", "extract ADEChallengeData2016.zip")
        return items

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        ids = read_label_png(path)
        if int(ids.max(initial=0)) in (254, 255):
            raise DataError(
                path, f"holds the value {ids.max()}, so its ids are already reduced by one (reduce_zero_label)",
                "use the annotations as published: 0 is other, classes are 1..150",
            )  # fmt: skip
        return RawLabel(ids)
