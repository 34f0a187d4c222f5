"""Mapillary Vistas 1.2 and 2.0: palette PNGs whose indices are positions in the label list of the release's config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.mapillary_labels import LABELS
from hiposeg_cli.formats.pairs import paired_items
from hiposeg_cli.formats.targets import named_targets
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.lookup import Target
from hiposeg_cli.strict_json import load_json

_SPLITS = {"training": "train", "validation": "val"}


class Mapillary(Reader):
    """SRC/{training,validation}/images/*.jpg with SRC/{training,validation}/v2.0/labels/*.png.

    Variants: `v2.0` (124 labels), `v1.2` (66 labels), which may also lie in SRC/{training,validation}/labels. The source
    table's keys are dotted label names or globs of them. SRC/config_v2.0.json must list the labels in the known order.
    """

    name = "mapillary"
    default_hierarchy: ClassVar[Mapping[str, str]] = {"v2.0": "mapillary-2.0-116-8", "v1.2": "mapillary-1.2-65-7"}
    variants = ("v2.0", "v1.2")
    honours = frozenset({"instances"})
    named = True

    def targets(self) -> dict[int, Target]:
        self._labels = LABELS[self.variant]
        names = {label_id: label.name for label_id, label in enumerate(self._labels)}
        return named_targets(
            names, self.table, self.hierarchy, f"Mapillary Vistas {self.variant}", kind="label",
            ignore_unknown=self.ignore_unknown,
        )  # fmt: skip

    def items(self) -> list[RawItem]:
        self._check_config()
        items = []
        for name, split in _SPLITS.items():
            label_dir = self._label_dir(self.root / name)
            if label_dir is not None:
                photos = self.root / name / "images"
                items += paired_items(self, split, photos, label_dir)
        if not items and not self.faults:
            raise self._not_found()
        return items

    def _label_dir(self, folder: Path) -> Path | None:
        candidates = [folder / self.variant / "labels", *([folder / "labels"] if self.variant == "v1.2" else [])]
        return next((path for path in candidates if path.is_dir()), None)

    def _not_found(self) -> DataError:
        wanted = f"training/{self.variant}/labels"
        other = next(name for name in self.variants if name != self.variant)
        if any((self.root / name / other / "labels").is_dir() for name in _SPLITS) or (
            other == "v1.2" and any((self.root / name / "labels").is_dir() for name in _SPLITS)
        ):
            return DataError(self.root, f"has no {wanted}, but labels of {other}", f"pass --variant {other}")
        return DataError(self.root, f"has no {wanted}", "name the folder that holds training/ and validation/")

    def _check_config(self) -> None:
        """Refuse a release whose label list is not the known one: every id would mean something else."""
        names = [f"config_{self.variant}.json", *(["config.json"] if self.variant == "v1.2" else [])]
        path = next((self.root / name for name in names if (self.root / name).exists()), None)
        if path is None:
            return
        config = load_json(path)
        listed = config.get("labels") if isinstance(config, dict) else None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise DataError(path, "lacks the list 'labels'", "use the config file of the release")
        found = [entry.get("name") for entry in listed]
        known = [label.name for label in self._labels]
        for label_id, (name, wanted) in enumerate(zip(found, known, strict=False)):
            if name != wanted:
                raise DataError(
                    path, f"label {label_id} is {name!r}, but {wanted!r} in {self.variant}", "choose another --variant"
                )
        if len(found) != len(known):
            raise DataError(path, f"lists {len(found)} labels, {self.variant} has {len(known)}", "choose another --variant")

    def raw_files(self, item: RawItem) -> list[Path]:
        return [*super().raw_files(item), *([self._instance_path(item)] if self.options.instances else [])]

    def _instance_path(self, item: RawItem) -> Path:
        return self.root / item.source.replace("/labels/", "/instances/", 1)

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        ids = read_label_png(self.root / item.source)
        return RawLabel(ids, instances=self._instances(item, ids) if self.options.instances else None)

    def _instances(self, item: RawItem, ids: NDArray[Any]) -> NDArray[np.uint16]:
        """Object numbers: label id * 256 + n + 1, since n runs from 0; 0 for labels whose objects are not numbered."""
        path = self._instance_path(item)
        numbers = read_label_png(path).astype(np.uint16)
        if numbers.shape != ids.shape:
            raise DataError(path, f"is {numbers.shape}, the labels {ids.shape} (height, width)", "use files of one image")
        wrong = int(np.count_nonzero(numbers // 256 != ids))
        if wrong:
            raise DataError(path, f"disagrees with the label ids on {wrong} pixels", "use files of one image and release")
        counted = np.zeros(256, bool)
        counted[[label_id for label_id, label in enumerate(self._labels) if label.instances]] = True
        return np.where(counted[ids], numbers + 1, 0).astype(np.uint16)
