"""Folders of label PNGs: one for each image with the same stem, in any of the usual folder layouts.

A second folder may hold what is known of the coarse level, for pixels whose fine label is ignored.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.colour_table import ColourTable, is_colour
from hiposeg_cli.formats.files import index_images, safe_key, walk
from hiposeg_cli.formats.id_hints import explain_ids
from hiposeg_cli.formats.targets import id_targets, resolve_target
from hiposeg_cli.labelmap import RawIds, histogram, ignore_value, read_label_png
from hiposeg_cli.lookup import Target

_IMAGE_DIRS = ("images", "image", "img_dir", "imgs", "JPEGImages")
_LABEL_DIRS = ("labels", "label", "ann_dir", "annotations", "masks", "SegmentationClass")
_COARSE = 1 << 16  # raw ids of pixels known on the coarse level only start here, above all that a PNG can hold


class Masks(Reader):
    """SRC/SPLIT/images + SRC/SPLIT/labels, SRC/images/SPLIT + SRC/labels/SPLIT, or SRC/images + SRC/labels.

    The map's keys are ids, or colours such as "#ff0000" for coloured PNGs. A folder `labels_coarse` or `coarse` beside
    `labels` holds a PNG of the same name for each label PNG: ids of the hierarchy's coarse level, 255 (65535 in 16 bits)
    where nothing is known. It must agree with the parents of the fine labels, and fills in where those are ignored.
    """

    name = "masks"
    honours = frozenset({"label_suffix"})

    def targets(self) -> dict[int, Target]:
        where = self.labels_from()
        self._colours: ColourTable | None = None
        if any(is_colour(key) for key in self.table.map):
            if self.table.ignore:
                raise ConfigError(where, "`ignore` lists ids, but the map's keys are colours", "map those colours to ignore")
            self._colours = ColourTable(self.table.map, where)
            entries = enumerate(self.table.map.values())
            targets = {raw_id: resolve_target(target, self.hierarchy) for raw_id, target in entries}
        else:
            targets = id_targets(self.table, self.hierarchy, where)
        if self._coarse_dirs:
            targets |= {_COARSE + coarse_id: (None, coarse_id) for coarse_id in range(self.hierarchy.n_coarse)}
        return targets

    def items(self) -> list[RawItem]:
        items = []
        for split, (image_dir, label_dir) in self._folders.items():
            images = index_images(image_dir, root=self.link_root)
            labels = self._label_files(label_dir)
            coarse_dir = self._coarse_dirs.get(label_dir)
            coarse = self._label_files(coarse_dir) if coarse_dir else labels
            for stem in sorted(labels):
                with self.each_image():
                    if stem not in images:
                        what, cure = f"has no image {image_dir / stem}.*", "add the image or remove the labels"
                        raise DataError(labels[stem], what, cure)
                    if stem not in coarse:
                        cure = "add it, or remove the folder to go without coarse labels"
                        raise DataError(labels[stem], f"has no coarse labels in {coarse_dir}", cure)
                    source = labels[stem].relative_to(self.root).as_posix()
                    items.append(RawItem(safe_key(stem), split, images[stem], source))
            if not labels:
                raise DataError(label_dir, f"holds no *{self._suffix}", "check the folder, or pass --label-suffix")
        return items

    @property
    def _suffix(self) -> str:
        return (self.options.label_suffix or "") + ".png"

    def _label_files(self, folder: Path) -> dict[str, Path]:
        """Relative stem -> label PNG."""
        paths = walk(folder, (self._suffix.lower(),), root=self.link_root)
        return {path.relative_to(folder).as_posix().removesuffix(self._suffix): path for path in paths}

    @cached_property
    def _folders(self) -> dict[str, tuple[Path, Path]]:
        """Split -> (image folder, label folder), for whichever layout is found."""
        pair = _pair(self.root)
        if pair is None:
            splits = {path.name: _pair(path) for path in sorted(self.root.iterdir()) if path.is_dir()}
            found = {name: split_pair for name, split_pair in splits.items() if split_pair is not None}
            if found:
                return found
            raise DataError(
                self.root, "no folders of images and labels found (SPLIT/images + SPLIT/labels, or images + labels)",
                f"image folders may be named {', '.join(_IMAGE_DIRS)}; label folders {', '.join(_LABEL_DIRS)}",
            )  # fmt: skip
        image_dir, label_dir = pair
        names = [path.name for path in sorted(label_dir.iterdir()) if path.is_dir() and (image_dir / path.name).is_dir()]
        if names and not any(label_dir.glob("*.png")):
            return {name: (image_dir / name, label_dir / name) for name in names}
        return {"train": pair}

    @cached_property
    def _coarse_dirs(self) -> dict[Path, Path]:
        """Label folder -> folder of coarse labels, for those that have one."""
        found: dict[Path, Path] = {}
        for _, label_dir in self._folders.values():
            in_split = label_dir.name not in _LABEL_DIRS  # labels/SPLIT
            base, below = (label_dir.parent, label_dir.name) if in_split else (label_dir, "")
            for name in (f"{base.name}_coarse", "coarse"):
                if (base.parent / name / below).is_dir():
                    found.setdefault(label_dir, base.parent / name / below)
        return found

    def raw_files(self, item: RawItem) -> list[Path]:
        coarse_path = self._coarse_path(item)
        return [*super().raw_files(item), *([coarse_path] if coarse_path else [])]

    def _coarse_path(self, item: RawItem) -> Path | None:
        path = self.root / item.source
        for label_dir, coarse_dir in self._coarse_dirs.items():
            if path.is_relative_to(label_dir):
                return coarse_dir / path.relative_to(label_dir)
        return None

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path, coarse_path = self.root / item.source, self._coarse_path(item)
        if self._colours is not None:
            ids: RawIds = self._colours.decode(path, ignore_unknown=self.ignore_unknown)
        else:
            ids = read_label_png(path)
            if not self.ignore_unknown:
                self._check_known(ids, path)
        return RawLabel(ids if coarse_path is None else self._filled(ids, path, coarse_path))

    def _check_known(self, ids: RawIds, path: Path) -> None:
        """Refuse unknown ids, saying which numbering they fit where one does."""
        counts = histogram(ids.astype(np.uint8, copy=False)) if ids.dtype == np.uint8 else np.bincount(ids.ravel())
        found = np.flatnonzero(counts)
        if self._known_ids.issuperset(found.tolist()):
            return
        hint = explain_ids(found.tolist(), self.name, self.table, self.hierarchy)
        try:
            self.lookup.encode(ids, path)
        except DataError as error:
            raise DataError(path, error.what, f"{hint} Otherwise {error.cure}" if hint else error.cure) from None

    @cached_property
    def _known_ids(self) -> frozenset[int]:
        """The ids that the map knows."""
        return frozenset(int(slot) + self.lookup.offset for slot in np.flatnonzero(self.lookup.known) if slot < _COARSE)

    def _filled(self, ids: RawIds, path: Path, coarse_path: Path) -> NDArray[np.int32]:
        """The ids, with those of the coarse map where the fine label is ignored. Raises DataError where they disagree."""
        given = read_label_png(coarse_path)
        if given.shape != ids.shape:
            what = f"is {given.shape[1]}x{given.shape[0]}, but the fine labels are {ids.shape[1]}x{ids.shape[0]}"
            raise DataError(coarse_path, what, "pair files of one image")
        stated = given != ignore_value(given.dtype)
        self._check_coarse_ids(given, stated, coarse_path)
        slots = (ids.astype(np.intp) - self.lookup.offset).clip(0, len(self.lookup.known) - 1)
        known = (slots + self.lookup.offset == ids) & self.lookup.known[slots]
        implied = self.lookup.coarse[slots]
        silent = implied == ignore_value(implied.dtype)
        differs = known & stated & ~silent & (implied != given)
        if differs.any():
            y, x = np.argwhere(differs)[0]
            names = self.hierarchy.coarse.names
            raise DataError(
                coarse_path, f"disagrees with {path.name} on {int(differs.sum())} px, the first at ({x}, {y}): "
                f"{names[int(given[y, x])]!r}, but the fine label belongs to {names[int(implied[y, x])]!r}",
                "correct one of them",
            )  # fmt: skip
        filled = ids.astype(np.int32)
        fill = known & stated & silent
        filled[fill] = _COARSE + given[fill].astype(np.int32)
        return filled

    def _check_coarse_ids(self, given: RawIds, stated: NDArray[np.bool_], path: Path) -> None:
        ids, counts = np.unique(given[stated & (given >= self.hierarchy.n_coarse)], return_counts=True)
        if ids.size:
            listed = ", ".join(
                f"{int(coarse_id)} ({count} px)" for coarse_id, count in zip(ids[:5], counts[:5], strict=True)
            )
            last, void = self.hierarchy.n_coarse - 1, ignore_value(given.dtype)
            cure = f"use ids 0..{last} of the level {self.hierarchy.coarse.name!r}, and {void} for unknown"
            raise DataError(path, f"coarse ids unknown to the hierarchy: {listed}", cure)


def _pair(folder: Path) -> tuple[Path, Path] | None:
    image_dir = next((folder / name for name in _IMAGE_DIRS if (folder / name).is_dir()), None)
    label_dir = next((folder / name for name in _LABEL_DIRS if (folder / name).is_dir()), None)
    return (image_dir, label_dir) if image_dir and label_dir else None
