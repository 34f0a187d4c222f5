"""nnU-Net v2: a raw dataset of RGB PNGs, its fine classes as labels and its coarse classes as regions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.base import Exporter, Results, flat_names
from hiposeg_cli.exports.folder import write_json
from hiposeg_cli.exports.joint import JointLabels, level_classes, level_map, unique_names
from hiposeg_cli.exports.photos import place_png
from hiposeg_cli.labelmap import LabelArray, write_label_png
from hiposeg_cli.store import Row

_BACKGROUND, _IGNORE = "background", "ignore"  # keys of `labels` with a meaning of their own
_TEST = "test"


class NNUNet(Exporter[None]):
    """imagesTr/CASE_0000.png, labelsTr/CASE.png, imagesTs and labelsTs of the split `test`, dataset.json, splits_final.json.

    nnU-Net wants background to be 0 and the other labels to follow without a gap. So label 0 is the hierarchy's
    background, or stays unused where there is none, and the other classes follow in id order; ignore is the highest.
    On the fine level, a coarse class is the region of its fine classes and of one more label, that of its pixels without
    a fine class.
    """

    name = "nnunet"
    image_modes = ("copy",)

    def check(self) -> None:
        self._joint = None if self.level == "coarse" else JointLabels(self.hierarchy)
        self._classes = self._joint.classes if self._joint else level_classes(self.classes)
        kinds: dict[int | None, str | None] = {node.id: node.kind for node in self.classes.nodes}
        self._background = next((k for k, e in enumerate(self._classes) if kinds.get(e.fine_id) == "background"), None)
        others = [k for k in range(len(self._classes)) if k != self._background]
        self._values = np.zeros(len(self._classes) + 1, dtype=np.int64)
        self._values[others] = np.arange(1, len(others) + 1)
        self._values[-1] = len(others) + 1  # ignore is -1 in the joint map
        self._cases = flat_names(self.rows())
        if self._background is not None and (name := self._classes[self._background].name) != _BACKGROUND:
            self.warnings.append(f"the class {name!r} is called {_BACKGROUND!r}, as nnU-Net wants")

    def check_folder(self, out: Path) -> None:
        """Refuse a name by which nnU-Net would not find the dataset."""
        if not re.fullmatch(r"Dataset\d{3,}_.+", out.name):
            raise ConfigError(out, "is no name nnU-Net finds a dataset by", "name the folder like Dataset500_NAME")

    def write(self, folder: Path, results: Results[None]) -> None:
        for split in self.splits:
            for _ in results(split):
                pass
        labels, order = self._labels()
        training = [row for row in self.rows() if row.split != _TEST]
        about: dict[str, Any] = {
            "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": labels, "numTraining": len(training),
            "file_ending": ".png", "overwrite_image_reader_writer": "NaturalImage2DIO",
        }  # fmt: skip
        write_json(folder / "dataset.json", about | ({"regions_class_order": order} if order else {}))
        fold = {"train": [self._case(row) for row in training if row.split != "val"]}
        fold["val"] = [self._case(row) for row in training if row.split == "val"]
        if fold["train"] and fold["val"]:
            write_json(folder / "splits_final.json", [fold])
        if not training:
            self.warnings.append(f"only the split {_TEST!r} was exported: there is nothing to train on")

    def _labels(self) -> tuple[dict[str, int | list[int]], list[int] | None]:
        """`labels` of dataset.json, regions first so that their parts are painted over them, and regions_class_order."""
        names = unique_names((_BACKGROUND, _IGNORE, *(entry.name for entry in self._classes)), "class")[2:]
        regions: dict[str, int | list[int]] = {}
        singles: dict[str, int | list[int]] = {}
        order: list[int] = []
        for k, entry in enumerate(self._classes):
            children = self.hierarchy.children(entry.coarse_id) if entry.fine_id is None else []
            if not children or self._background in children:
                singles |= {names[k]: int(self._values[k])} if k != self._background else {}
            else:
                regions[names[k]] = [*(int(self._values[child]) for child in children), int(self._values[k])]
                order.append(int(self._values[k]))
        order += [value for value in singles.values() if isinstance(value, int)]
        ignored = any(row.ignore_px for row in self.rows())
        labels = {_BACKGROUND: 0, **regions, **singles, **({_IGNORE: int(self._values[-1])} if ignored else {})}
        return labels, order if regions else None

    def _case(self, row: Row) -> str:
        return self._cases[row.split, row.key]

    def convert(self, row: Row, folder: Path) -> None:
        """Write one case: the photo's pixels and the labels as PNGs."""
        labels = self.labels(row)
        joint = self._joint.encode(labels) if self._joint else level_map(labels.coarse)
        part = "Ts" if row.split == _TEST else "Tr"
        narrow = self._values[-1] < 256
        values: LabelArray = self._values[joint].astype(np.uint8) if narrow else self._values[joint].astype(np.uint16)
        place_png(self.dataset, row, folder / f"images{part}" / f"{self._case(row)}_0000.png")
        write_label_png(folder / f"labels{part}" / f"{self._case(row)}.png", values)
