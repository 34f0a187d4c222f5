"""What the manifests alone tell: rows that are rows, keys, sums, ignored pixels, equal photos, classes seen.

Rows are read one at a time; what is kept of a row is its key and half the hash of its photo.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import fold
from hiposeg_cli.inspection.findings import Findings
from hiposeg_cli.inspection.folder import AGAIN, Folder, parse_row
from hiposeg_cli.inspection.leaks import Duplicates, split_order
from hiposeg_cli.store import Row

_KEY = re.compile(r"[A-Za-z0-9._%/-]+")
_MAX_KEY_BYTES = 200


@dataclass
class ManifestCheck:
    """Reads all manifests once, reporting P33, P37, P38, P39 and P40 as far as they need no other file.

    Attributes:
        keys: split -> key, folded -> key as written.
        pixels: split -> total, ignore and coarse_only pixels.
        classes: split -> (level, class id) -> pixels.
        complete: every row could be read, so a file that no row names belongs to none.
    """

    folder: Folder
    found: Findings
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    pixels: dict[str, Counter[str]] = field(default_factory=dict)
    classes: dict[str, Counter[tuple[str, int]]] = field(default_factory=dict)
    duplicates: Duplicates = field(default_factory=Duplicates)
    complete: bool = True

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are sound enough to look for their files, `train` first."""
        for split in split_order(self.folder.splits):
            self.keys[split], self.pixels[split], self.classes[split] = {}, Counter(), Counter()
            try:
                yield from self._split_rows(split)
            except DataError as error:
                self._reject("P33", error.where, error.what, error.cure)

    def _reject(self, check: str, where: str, what: str, cure: str) -> None:
        self.complete = False
        self.found.error(check, where, what, cure)

    def _split_rows(self, split: str) -> Iterator[Row]:
        manifest, n_rows = self.folder.manifest(split), 0
        split_list = _SplitList(self.folder.root / "splits" / f"{split}.txt", self.found)
        for n_rows, line in self.folder.lines(split):
            where = f"{manifest}:{n_rows}"
            self.found.did("P33")
            try:
                row = parse_row(line, where)
            except DataError as error:
                self._reject("P33", error.where, error.what, error.cure)
                split_list.skip()
                continue
            split_list.expect(row.key)
            if row.split != split:
                self._reject("P33", where, f"the row says split {row.split!r}", AGAIN)
            elif self._key_is_good(row, where):
                self._sums(row, where)
                self._photo(row, where)
                yield row
        split_list.expect_end()
        if n_rows != self.folder.splits[split]:
            what = f"lists {n_rows} images, dataset.json says {self.folder.splits[split]}"
            self.found.error("P33", manifest, what, AGAIN)

    def _key_is_good(self, row: Row, where: str) -> bool:
        """P40: a key is a safe relative path, and unique however a file system compares names."""
        self.found.did("P40")
        if not _KEY.fullmatch(row.key) or any(part in ("", ".", "..") for part in row.key.split("/")):
            cure = "keys are relative paths of A-Z a-z 0-9 . _ - / and %XX; prepare again"
            self._reject("P40", where, f"the key {row.key!r} is no safe file name", cure)
            return False
        if len(row.key.encode()) > _MAX_KEY_BYTES:
            what = f"the key {row.key[:40]!r}... is longer than {_MAX_KEY_BYTES} bytes"
            self.found.error("P40", where, what, "shorten the photo's name, prepare again")
        keys, slot = self.keys[row.split], fold(row.key)
        if slot in keys:
            how = "is there twice" if keys[slot] == row.key else f"equals {keys[slot]!r} where case does not count"
            self._reject("P40", where, f"the key {row.key!r} {how}", "rename one photo, prepare again")
            return False
        keys[slot] = row.key
        return True

    def _sums(self, row: Row, where: str) -> None:
        """P37: the counts of a row add up to its size. P38: an image that teaches nothing."""
        area, fine, coarse = row.width * row.height, sum(row.fine_counts.values()), sum(row.coarse_counts.values())
        if coarse + row.ignore_px != area or fine + row.coarse_only_px + row.ignore_px != area:
            what = (f"{row.key}: pixels do not add up to {row.width}x{row.height}: {fine} fine, {coarse} coarse, "
                    f"{row.coarse_only_px} coarse only, {row.ignore_px} ignore")  # fmt: skip
            self.found.error("P37", where, what, AGAIN)
        self.found.did("P38")
        if not coarse:
            self.found.error("P38", where, f"{row.key}: 100 % of the pixels are ignore", "label it, or leave it out")
        self.pixels[row.split].update(total=area, ignore=row.ignore_px, coarse_only=row.coarse_only_px)
        for level, counts in (("fine", row.fine_counts), ("coarse", row.coarse_counts)):
            self.classes[row.split].update({(level, int(class_id)): pixels for class_id, pixels in counts.items()})

    def _photo(self, row: Row, where: str) -> None:
        """P39: the same file in two splits."""
        self.found.did("P39")
        leak = self.duplicates.add(row.split, row.key, row.image_sha256)
        if leak is not None:
            what = f"{row.key} is the same file as {leak.other_key} of {leak.other_split}"
            self.found.warning("P39", where, what, "keep a picture in one split")


class _SplitList:
    """P33: splits/SPLIT.txt, which names the keys of the manifest in the same order; reports the first difference."""

    def __init__(self, path: Path, found: Findings) -> None:
        self.path, self.found, self.number, self.done = path, found, 0, False
        self.lines = self._read()

    def _read(self) -> Iterator[str]:
        try:
            with self.path.open(encoding="utf-8") as file:
                for line in file:
                    yield line.rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            self._differs(f"cannot be read ({error})")

    def _differs(self, what: str) -> None:
        if not self.done:
            self.found.error("P33", f"{self.path}:{self.number}" if self.number else self.path, what, AGAIN)
        self.done = True

    def skip(self) -> None:
        self.number += 1
        next(self.lines, None)

    def expect(self, key: str) -> None:
        name = next(self.lines, None)
        self.number += 1
        if name != key:
            self._differs(f"the manifest has {key!r} here, the list {'ends' if name is None else f'has {name!r}'}")

    def expect_end(self) -> None:
        name = next(self.lines, None)
        self.number += 1
        if name is not None:
            self._differs(f"lists {name!r}, which is not in the manifest")
