"""A prepared dataset as it lies on disk, read row by row and trusted in nothing.

`store.open_dataset` refuses a dataset at its first fault; here a fault is raised only when nothing can be read at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import DataError
from hiposeg_cli.store import FORMAT_VERSION, STATE, Row, read_json

_TYPES: dict[str, type] = {"str": str, "int": int, "dict": dict, "list": list}
AGAIN = "prepare the data again"


@dataclass(frozen=True)
class Folder:
    """What dataset.json says.

    Attributes:
        about: dataset.json, parsed.
        images_root: the folder that photo paths are relative to.
        splits: split -> number of images.
    """

    root: Path
    about: Mapping[str, Any]
    images_root: Path
    splits: Mapping[str, int]

    @property
    def hierarchy_path(self) -> Path:
        return self.root / "hierarchy.yaml"

    @property
    def n_images(self) -> int:
        return sum(self.splits.values())

    def manifest(self, split: str) -> Path:
        return self.root / "manifest" / f"{split}.jsonl"

    def lines(self, split: str) -> Iterator[tuple[int, str]]:
        """(line number, text) of one manifest, read piece by piece. Raises DataError when it cannot be read."""
        path = self.manifest(split)
        try:
            with path.open(encoding="utf-8") as file:
                yield from enumerate(file, start=1)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(path, f"cannot be read ({error})", AGAIN) from None

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of one split, read as they are asked for. Raises DataError naming the line that is no row."""
        for number, line in self.lines(split):
            yield parse_row(line, f"{self.manifest(split)}:{number}")

    def image_path(self, row: Row) -> Path:
        return self.images_root / row.image_path


def open_folder(root: Path) -> Folder:
    """Read dataset.json. Raises DataError when the folder holds no finished hiposeg dataset."""
    path = root / "dataset.json"
    if not root.exists():
        raise DataError(root, "no such folder", "check the path")
    if not path.is_file():
        if any(root.glob(f"{STATE}*")):
            raise DataError(root, "is an unfinished preparation", "run `hiposeg prepare` again with --resume")
        raise DataError(
            root,
            "is not a prepared dataset (no dataset.json)",
            "run `hiposeg prepare FORMAT SRC OUT` first; `hiposeg doctor SRC --format FORMAT` checks raw data",
        )
    about = read_json(path)
    if about.get("format") != "hiposeg-prepared" or about.get("format_version") != FORMAT_VERSION:
        raise DataError(path, "is not a hiposeg-prepared v1 dataset", "prepare the data with this version")
    wanted = {"hierarchy_sha256": str, "hierarchy_digest": str, "splits": dict, "images_root": str,
              "coarse_is_function_of_fine": bool}  # fmt: skip
    for key, kind in wanted.items():
        if not isinstance(about.get(key), kind):
            raise DataError(path, f"{key!r} is missing or no {kind.__name__}", AGAIN)
    for split, count in about["splits"].items():
        if not isinstance(count, int) or "/" in split or split in ("", ".", ".."):
            raise DataError(path, f"split {split!r} with {count!r} images is no split", AGAIN)
    return Folder(root, about, root / about["images_root"], about["splits"])


def parse_row(line: str, where: object) -> Row:
    """One manifest line as a row with the right types. Raises DataError in words."""
    try:
        entry = json.loads(line)
        row = Row(**entry)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(where, f"is not a manifest row ({error})", AGAIN) from None
    for entry_field in fields(Row):
        value, kind = getattr(row, entry_field.name), _TYPES.get(str(entry_field.type).split("[")[0])
        if kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise DataError(where, f"{entry_field.name} is {value!r}, not of type {kind.__name__}", AGAIN)
    if row.width < 1 or row.height < 1:
        raise DataError(where, f"the size is {row.width}x{row.height}", AGAIN)
    for name in ("fine_counts", "coarse_counts"):
        for key, value in getattr(row, name).items():
            if not (key.isascii() and key.isdigit()) or type(value) is not int or value < 0:
                raise DataError(where, f"{name} says {key!r}: {value!r}", AGAIN)
    return row
