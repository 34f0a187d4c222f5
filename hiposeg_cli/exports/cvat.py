"""CVAT "Segmentation mask 1.1": colour PNGs by a labelmap, objects apart, and the archive that CVAT takes.

CVAT reads the archive with its own copy of datumaro, whose rules these files keep: label names without `:` and `,`,
one colour a label, at most 256 labels, at most 255 objects an image, subset names without `_`, and no label listed among
the parts of another, so that the hierarchy stands in a second labelmap, which is not in the archive.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.base import Exporter, Results
from hiposeg_cli.exports.folder import write_json, write_text
from hiposeg_cli.exports.joint import (
    JointClass,
    JointLabels,
    level_classes,
    level_map,
    unique_colors,
    unique_names,
    voc_color,
)
from hiposeg_cli.exports.photos import photo_path, photo_suffix, place_photo
from hiposeg_cli.hierarchy import Color
from hiposeg_cli.labelmap import PNG_LEVEL, ranked, write_bytes_atomic
from hiposeg_cli.store import Row

_BACKGROUND, _IGNORED = "background", "ignored"
_BLACK, _BORDER = voc_color(0), voc_color(255)  # VOC's colours for background and for pixels without a label
_MAX_LABELS, _MAX_OBJECTS = 256, 255
_HEAD = "# label:color_rgb:parts:actions\n"
_IN_ARCHIVE = ("labelmap.txt", "ImageSets", "SegmentationClass", "SegmentationObject")


class Cvat(Exporter[bool]):
    """labelmap.txt, ImageSets/, SegmentationClass/, SegmentationObject/, JPEGImages/; annotations.zip of the first four."""

    name = "cvat"
    image_modes = ("copy", "hardlink", "reference")  # no links: datumaro refuses those that leave the folder

    def check(self) -> None:
        """Choose names and colours; refuse more labels than datumaro can read."""
        self._joint = None if self.level == "coarse" else JointLabels(self.hierarchy)
        classes = self._joint.classes if self._joint else level_classes(self.classes)
        if len(classes) + 2 > _MAX_LABELS:
            raise ConfigError(
                f"--as {self.name}", f"holds {_MAX_LABELS} labels, and there would be {len(classes) + 2}",
                "export --level coarse" if self._joint else "choose another format",
            )  # fmt: skip
        self._background = next((k for k, entry in enumerate(classes) if self._is_background(entry)), -1)
        self._names = self._label_names(classes)
        self._colors = self._label_colors(classes)
        self._subsets = self._subset_names()
        keys = [row.key.casefold() for row in self.rows()]
        self._by_split = len(set(keys)) < len(keys)
        if self._by_split:
            self.warnings.append("images of different splits share names, so frames are named SPLIT/NAME")

    def _is_background(self, entry: JointClass) -> bool:
        nodes = self.classes.nodes
        return entry.fine_id is not None and nodes[entry.fine_id].kind == "background"

    def _label_names(self, classes: tuple[JointClass, ...]) -> list[str]:
        plain = [entry.name.replace(":", "/").replace(",", ";").strip("# ") or "label" for entry in classes]
        names = unique_names((_BACKGROUND, _IGNORED, *plain), "class")[2:]
        if self._background >= 0:
            names[self._background] = _BACKGROUND
        changed = [f"{entry.name!r} is {name!r}" for entry, name in zip(classes, names, strict=True) if entry.name != name]
        if changed:
            self.warnings.append("CVAT's labelmap cannot hold these names: " + ", ".join(changed))
        return names

    def _label_colors(self, classes: tuple[JointClass, ...]) -> list[Color]:
        others = [entry.color for k, entry in enumerate(classes) if k != self._background]
        colors = unique_colors(others, (_BLACK, _BORDER))
        changed = sum(old != new for old, new in zip(others, colors, strict=True))
        if changed:
            self.warnings.append(f"{changed} labels got new colours: a label is known by its colour, which must be its own")
        if self._background >= 0:
            colors.insert(self._background, _BLACK)
        return colors

    def _subset_names(self) -> dict[str, str]:
        """Split -> the name datumaro finds it by: it passes over lists with `_` in their names."""
        subsets = {split: split.replace("_", "-") for split in self.splits}
        if len(set(subsets.values())) < len(subsets):
            raise ConfigError("--as cvat", f"takes {', '.join(subsets)} for the same subset", "pass --split for one of them")
        for split, subset in subsets.items():
            if split != subset:
                self.warnings.append(f"split {split!r} is the subset {subset!r}: datumaro passes over names with _")
        return subsets

    def write(self, folder: Path, results: Results[bool]) -> None:
        merged = 0
        for split in self.splits:
            frames = []
            for row, complete in results(split):
                frames.append(self._frame(row))
                merged += not complete
            path = folder / "ImageSets" / "Segmentation" / f"{self._subsets[split]}.txt"
            write_text(path, "".join(f"{frame}\n" for frame in frames))
        if merged:
            self.warnings.append(f"{merged} images have more than {_MAX_OBJECTS} objects: one object per label there")
        write_text(folder / "labelmap.txt", _HEAD + "".join(f"{name}:{_triplet(c)}::\n" for name, c in self._named()))
        if self._joint:
            write_text(folder / "hierarchy_labelmap.txt", _HEAD + "".join(self._hierarchy_lines(self._joint)))
        labels = [{"name": n, "color": f"#{bytes(c).hex()}", "attributes": []} for n, c in self._named()[1:-1]]
        write_json(folder / "cvat_labels.json", labels)
        _pack(folder, folder / "annotations.zip")

    def _frame(self, row: Row) -> str:
        return f"{row.split}/{row.key}" if self._by_split else row.key

    def _named(self) -> list[tuple[str, Color]]:
        own = [(n, c) for k, (n, c) in enumerate(zip(self._names, self._colors, strict=True)) if k != self._background]
        return [(_BACKGROUND, _BLACK), *own, (_IGNORED, _BORDER)]

    def _hierarchy_lines(self, joint: JointLabels) -> Iterable[str]:
        """The labelmap once more, every coarse class with its fine classes as parts."""
        parts = {
            self._names[position]: [self._names[child] for child in self.hierarchy.children(entry.coarse_id)]
            for position, entry in enumerate(joint.classes)
            if entry.fine_id is None
        }
        return (f"{name}:{_triplet(color)}:{','.join(parts.get(name, ()))}:\n" for name, color in self._named())

    def convert(self, row: Row, folder: Path) -> bool:
        """Write the colour PNGs of one image; returns whether its objects could all be told apart."""
        labels = self.labels(row)
        joint = self._joint.encode(labels) if self._joint else level_map(labels.coarse)
        objects, complete = self._objects(joint, row)
        frame = self._frame(row)
        colors = np.array([*self._colors, _BORDER], dtype=np.uint8)  # -1 takes the last
        _write_rgb(folder / "SegmentationClass" / f"{frame}.png", colors[joint])
        object_colors = np.array([voc_color(number) for number in range(_MAX_OBJECTS + 1)], dtype=np.uint8)
        _write_rgb(folder / "SegmentationObject" / f"{frame}.png", object_colors[objects])
        if self.images == "reference":
            photo_path(self.dataset, row)
        else:
            assert self.images is not None
            place_photo(self.dataset, row, folder / "JPEGImages" / f"{frame}{photo_suffix(row)}", self.images)
        return complete

    def _objects(self, joint: NDArray[np.int32], row: Row) -> tuple[NDArray[np.int64], bool]:
        """(H, W) object numbers from 1, 0 for background and ignore; False where instances had to be merged."""
        absent = (joint < 0) | (joint == self._background)
        instances = self.dataset.instances(row)
        if instances is not None:
            objects = _numbered(joint.astype(np.int64) << 16 | instances, absent)
            if objects.max() <= _MAX_OBJECTS:
                return objects, True
        return _numbered(joint.astype(np.int64), absent), instances is None  # never more objects than labels


def _numbered(keys: NDArray[np.int64], absent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the keys from 1 in ascending order; absent pixels are 0."""
    values, ranks = ranked(np.where(absent, -1, keys))
    return ranks if values[0] == -1 else ranks + 1


def _triplet(color: Color) -> str:
    return ",".join(str(value) for value in color)


def _write_rgb(path: Path, pixels: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    write_bytes_atomic(path, buffer.getvalue())


def _pack(folder: Path, archive: Path) -> None:
    """Store the annotations in a zip whose bytes depend on them only."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in _IN_ARCHIVE:
            top = folder / name
            for path in [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                with path.open("rb") as source, packed.open(entry, "w") as target:
                    shutil.copyfileobj(source, target)
