"""ADE20K, full release 2021_17_01: class, instance and part masks in colours, names in one JSON per image.

The masks hold codes (R // 10 * 256 + G); the JSON next to them says what each code is called. A fine class is a pair of
object and part, because one part name occurs under many objects: the object is the one the object mask has at the part's
pixel. Which pair becomes which class is `ade20k_table`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.ade20k_table import Code, PartTable
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import first_folder, safe_key, walk
from hiposeg_cli.image_file import read_rgb_png
from hiposeg_cli.lookup import Target
from hiposeg_cli.strict_json import load_json

_SPLITS = {"training": "train", "validation": "val"}
_FOLDERS = ("images/ADE", "ADE20K_2021_17_01/images/ADE", "ADE", ".")
_SEG, _PHOTO, _JSON = "_seg.png", ".jpg", ".json"
_Stack = tuple[int, ...]  # codes of an object (0 for none), a part of it, a part of that, ...


class Ade20k(Reader):
    """SRC/images/ADE/{training,validation}/SCENE/...: NAME.jpg, NAME_seg.png, NAME_parts_1.png, ..., NAME.json.

    The source table is `map: {OBJECT: {PART: CLASS, __object__: CLASS}}`. A key is a name of the JSON, whole ("car, auto,
    automobile, machine, motorcar") or up to its first comma ("car"), a glob, or a mask code ("#401"). `__object__` is what
    object pixels without a part become. "*" stands for all objects, or all parts of an object, that the table does not
    list; without it they are refused. A part of a part is looked up under the part, then under the object; one that only
    "*" covers stays what it is a part of.
    """

    name = "ade20k"
    default_hierarchy = "ade20k-part-234-44"
    honours = frozenset({"uncovered", "instances"})
    lists_objects = True
    overlap_rule = "none: the masks hold one object per pixel; of its nested parts, the innermost the hierarchy knows"

    def targets(self) -> dict[int, Target]:
        background = self.background_target(self.table.unlabelled)
        uncovered = self.options.uncovered or self.table.uncovered
        self._parts = PartTable(
            self.table, self.hierarchy, self.labels_from(), ignore_unknown=self.ignore_unknown,
            uncovered=None if uncovered == "object-only" else self.background_target(uncovered),
        )  # fmt: skip
        return {0: background, **self._parts.targets}

    def items(self) -> list[RawItem]:
        if (self.root / "annotations").is_dir() and (self.root / "images" / "training").is_dir():
            raise DataError(self.root, "is the 150-class release (ADEChallengeData2016)", "use the format sceneparse150")
        folder = first_folder(self.root, _FOLDERS, "folder images/ADE")
        items = []
        for name, split in _SPLITS.items():
            if (folder / name).is_dir():
                items += sorted(self._of_split(folder / name, split), key=lambda item: item.key)
        if not items and not self.faults:
            raise DataError(folder, "holds no training or validation *_seg.png", "name the folder that holds images/ADE")
        return items

    def _of_split(self, folder: Path, split: str) -> Iterator[RawItem]:
        found = {str(path): path for path in walk(folder, (_SEG, _PHOTO, _JSON), root=self.link_root)}
        for path in found.values():
            if not path.name.endswith(_SEG):
                continue
            stem = str(path).removesuffix(_SEG)
            with self.each_image():
                for suffix in (_PHOTO, _JSON):
                    if stem + suffix not in found:
                        raise DataError(path, f"lies there without {Path(stem).name}{suffix}", "extract the release again")
                key = safe_key(Path(stem).relative_to(folder).as_posix())
                yield RawItem(key, split, found[stem + _PHOTO], path.relative_to(self.root).as_posix())

    def raw_files(self, item: RawItem) -> list[Path]:
        return [*super().raw_files(item), self._beside(item, _JSON), *self._part_files(item)]

    def _beside(self, item: RawItem, suffix: str) -> Path:
        return self.root / (item.source.removesuffix(_SEG) + suffix)

    def _part_files(self, item: RawItem) -> list[Path]:
        """The part masks of an image, from the outermost level."""
        found: list[Path] = []
        while (path := self._beside(item, f"_parts_{len(found) + 1}.png")).exists():
            found.append(path)
        return found

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path, json_path, part_paths = self.root / item.source, self._beside(item, _JSON), self._part_files(item)
        listed = _read_json(json_path)
        if listed.part_levels > len(part_paths):
            missing = self._beside(item, f"_parts_{len(part_paths) + 1}.png")
            raise DataError(missing, f"no such file, but {json_path.name} lists such parts", "extract the release again")
        codes, marks = _codes(path)
        parts = [_codes(part_path)[0] for part_path in part_paths]
        for part_path, part in zip(part_paths, parts, strict=True):
            if part.shape != codes.shape:
                raise DataError(part_path, f"is {part.shape}, {path.name} {codes.shape} (height, width)", "use one release")
        stacks, index = _nested(codes, parts)
        pixels = np.bincount(index.ravel(), minlength=len(stacks))
        ids, uncovered_px, warnings = np.zeros(len(stacks), np.int32), 0, []
        for number, stack in enumerate(stacks):
            own = listed.own(stack)
            if own != stack:
                warnings.append(f"{listed.words(stack)}: {pixels[number]} px left out, it is no part of that")
            if own[0]:
                named = [Code(code, listed.names.get(code)) for code in own]
                ids[number], covered = self._parts.find(named, path, json_path)
                uncovered_px += 0 if covered else int(pixels[number])
        instances = _ranks(marks) if self.options.instances else None
        return RawLabel(
            ids[index], listed.n_objects, uncovered_px=uncovered_px, warnings=tuple(warnings), instances=instances
        )


def _codes(path: Path) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """(H, W) class codes and (H, W) instance marks of one mask. Raises DataError."""
    pixels = read_rgb_png(path)
    red = pixels[..., 0]
    if (red % 10).any():
        raise DataError(path, "is no ADE20K mask (its red values are not multiples of 10)", "use the original file")
    return (red // 10).astype(np.uint16) * 256 + pixels[..., 1], pixels[..., 2]


def _ranks(marks: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Instance numbers from 1 in the order of the marks, which are spread over 1..255; 0 stays 0."""
    present = np.flatnonzero(np.bincount(marks.ravel(), minlength=256)[1:]) + 1
    table = np.zeros(256, np.uint16)
    table[present] = np.arange(1, len(present) + 1)
    return table[marks]


def _nested(codes: NDArray[np.uint16], parts: list[NDArray[np.uint16]]) -> tuple[list[_Stack], NDArray[np.intp]]:
    """The different stacks of codes and each pixel's position among them."""
    present, index = _compressed(codes.ravel().astype(np.intp))
    stacks: list[_Stack] = [(int(code),) for code in present]
    for layer in parts:
        where = np.flatnonzero(layer)
        present, local = _compressed(layer.ravel()[where].astype(np.intp))
        if not len(present):
            continue
        pairs, found = _compressed(index[where] * len(present) + local)
        index[where] = len(stacks) + found
        stacks += [(*stacks[pair // len(present)], int(present[pair % len(present)])) for pair in pairs]
    shaped: NDArray[np.intp] = index.reshape(codes.shape)
    return stacks, shaped


def _compressed(values: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The different values, sorted, and each value's position among them."""
    present = np.flatnonzero(np.bincount(values))
    table = np.zeros(int(present[-1]) + 1 if len(present) else 0, np.intp)
    table[present] = np.arange(len(present))
    return present, table[values]


# -- the JSON ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    """What the JSON of an image says.

    Attributes:
        names: mask code -> name.
        below: (code, code of an object or part it lies in), over all levels.
        part_levels: nesting depth of its parts, 0 where it lists none.
    """

    names: dict[int, str]
    below: frozenset[tuple[int, int]]
    part_levels: int
    n_objects: int

    def own(self, stack: _Stack) -> _Stack:
        """The stack without parts of something else: a mask may show a part where another object hides its owner."""
        kept = stack[:1]
        for code in stack[1:]:
            if (code, kept[-1]) in self.below:
                kept += (code,)
        return kept

    def words(self, stack: _Stack) -> str:
        """The innermost of a stack on the object, by name."""
        names = [self.names.get(code, f"code {code}" if code else "nothing").split(",")[0] for code in stack]
        return f"{names[-1]} on {names[0]}"


def _read_json(path: Path) -> _Listed:
    """Read the annotation of one image. Raises DataError."""
    annotation = load_json(path, fallback="latin-1")  # most files are ASCII, some Latin-1, and edited ones UTF-8
    try:
        entries = annotation["annotation"]["object"]
        return _listed([_entry(entry) for entry in ([entries] if isinstance(entries, dict) else entries)], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(path, f"is not an ADE20K annotation ({error!r})", "use the original file") from None


@dataclass(frozen=True)
class _Entry:
    """One object or part: its id, mask code, name, nesting level (0 is an object) and the ids of what it is a part of."""

    id: int
    code: int
    name: str
    level: int
    owners: tuple[int, ...]


def _entry(entry: dict[str, Any]) -> _Entry:
    parts = entry["parts"]
    owners = parts["ispartof"]
    owners = owners if isinstance(owners, list) else [owners]
    numbers = (entry["id"], entry["name_ndx"], parts["part_level"], *owners)
    if not all(type(number) is int for number in numbers) or not isinstance(entry["name"], str):
        raise ValueError(f"object {entry['id']!r}")
    return _Entry(entry["id"], entry["name_ndx"], entry["name"], parts["part_level"], tuple(owners))


def _listed(entries: list[_Entry], path: Path) -> _Listed:
    names: dict[int, str] = {}
    by_id = {entry.id: entry for entry in entries}
    for entry in entries:
        if names.setdefault(entry.code, entry.name) != entry.name:
            raise DataError(path, f"code {entry.code} is both {names[entry.code]!r} and {entry.name!r}", "repair the file")
    return _Listed(
        names, frozenset((entry.code, owner) for entry in entries for owner in _owner_codes(entry, by_id)),
        max((entry.level for entry in entries), default=0), sum(entry.level == 0 for entry in entries),
    )  # fmt: skip


def _owner_codes(entry: _Entry, by_id: dict[int, _Entry]) -> set[int]:
    """Codes of all that an entry lies in, from the nearest to the object."""
    seen: set[int] = set()
    todo = list(entry.owners)
    while todo:
        owner = by_id.get(todo.pop())
        if owner is not None and owner.id not in seen:
            seen.add(owner.id)
            todo += owner.owners
    return {by_id[owner_id].code for owner_id in seen}
