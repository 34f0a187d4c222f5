"""The files of one manifest row: there, as hashed, of the right kind and size, and meaning what the manifest says."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.image_file import image_header
from hiposeg_cli.inspection.findings import Finding, Severity
from hiposeg_cli.inspection.folder import AGAIN
from hiposeg_cli.inspection.leaks import dhash
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, count_ids, label_dtype, lift, read_label_png, valid_pixels
from hiposeg_cli.store import Row, label_path, sha256_file

_PNG_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_GREY, _PALETTE = 0, 3


@dataclass(frozen=True)
class Task:
    """One row to check; `decode` reads the label maps even where their hashes hold."""

    row: Row
    decode: bool


@dataclass
class Outcome:
    """What was found in the files of one row, what each check looked at, and the photo's `dhash` where asked for."""

    split: str
    key: str
    findings: list[Finding] = field(default_factory=list)
    examined: Counter[str] = field(default_factory=Counter)
    look: int | None = None

    def add(self, check: str, where: object, what: str, cure: str = AGAIN, level: Severity = "error") -> None:
        self.findings.append(Finding(check, str(where), what, cure, level))


@dataclass(frozen=True)
class _PngHeader:
    width: int
    height: int
    depth: int
    kind: int


@dataclass(frozen=True)
class FileCheck:
    """Checks the files of single rows; sent to every worker.

    Attributes:
        with_hashes: read every file and compare its sha256; without, only existence, kind and size are checked.
        with_photos: the folder of the photos is there.
        near: also hash what the photo looks like.
    """

    root: Path
    images_root: Path
    hierarchy: Hierarchy
    coarse_from_fine: bool
    with_hashes: bool = True
    with_photos: bool = True
    near: bool = False

    def __call__(self, task: Task) -> Outcome:
        row = task.row
        outcome = Outcome(row.split, row.key)
        intact = readable = True
        for level, expected in (("fine", row.fine_sha256), ("coarse", row.coarse_sha256)):
            path = label_path(self.root, level, row.split, row.key)
            state = self._file(path, expected, outcome, "label map")
            readable &= state is not None and self._header(path, level, row, outcome)
            intact &= state is True
        self._instances(row, outcome)
        if self.with_photos:
            self._photo(row, outcome)
        if readable and (task.decode or not intact):
            self._content(row, outcome)
        return outcome

    def _file(self, path: Path, expected: str, outcome: Outcome, what: str) -> bool | None:
        """P33: None when a file is not there to be read, else whether it is what was prepared."""
        outcome.examined["P33"] += 1
        cure = AGAIN if what == "label map" else "put the photo back that was prepared, or prepare again"
        try:
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                outcome.add("P33", path, f"{what} is missing", cure)
                return None
            if size == 0:
                outcome.add("P33", path, f"{what} is an empty file", cure)
                return None
            found = sha256_file(path) if self.with_hashes else expected
        except OSError as error:
            outcome.add("P33", path, f"{what} cannot be read ({error.strerror})", "check the file and its permissions")
            return None
        if found != expected:
            outcome.add("P33", path, f"{what} has sha256 {found[:12]}..., the manifest says {expected[:12]}...", cure)
        return found == expected

    def _header(self, path: Path, level: str, row: Row, outcome: Outcome) -> bool:
        """P34 and P35 from the PNG header; whether the ids can be compared with the manifest."""
        outcome.examined["P34"] += 1
        header = _png_header(path)
        if header is None:
            outcome.add("P34", path, "is not a PNG file")
            return False
        n_classes = self.hierarchy.n_fine if level == "fine" else self.hierarchy.n_coarse
        depth = 8 * label_dtype(n_classes).itemsize
        kind = f"{header.depth}-bit {_PNG_KINDS.get(header.kind, 'unknown')}"
        fits = self._size(path, (header.width, header.height), row, outcome)
        if (header.kind, header.depth) == (_PALETTE, depth):
            cure = "prepare again; OpenCV turns palettes into colours and would read wrong ids"
            outcome.add("P34", path, f"is {kind}, not {depth}-bit grey", cure, "warning")
        elif (header.kind, header.depth) != (_GREY, depth):
            outcome.add("P34", path, f"is {kind}; {n_classes} {level} classes need {depth}-bit grey")
            return False
        return fits

    def _size(self, path: Path, size: tuple[int, int], row: Row, outcome: Outcome) -> bool:
        outcome.examined["P35"] += 1
        if size != (row.width, row.height):
            outcome.add("P35", path, f"is {size[0]}x{size[1]}, the manifest says {row.width}x{row.height}")
        return size == (row.width, row.height)

    def _instances(self, row: Row, outcome: Outcome) -> None:
        """P33 to P35 of the optional map of object numbers."""
        path = label_path(self.root, "inst", row.split, row.key)
        if not row.inst_sha256:
            if path.exists():
                outcome.add("P40", path, "is in no manifest: the row keeps no object numbers", level="warning")
            return
        if self._file(path, row.inst_sha256, outcome, "label map") is None:
            return
        outcome.examined["P34"] += 1
        header = _png_header(path)
        if header is None:
            outcome.add("P34", path, "is not a PNG file")
            return
        if (header.kind, header.depth) != (_GREY, 16):
            kind = f"{header.depth}-bit {_PNG_KINDS.get(header.kind, 'unknown')}"
            outcome.add("P34", path, f"is {kind}; object numbers need 16-bit grey")
        self._size(path, (header.width, header.height), row, outcome)

    def _photo(self, row: Row, outcome: Outcome) -> None:
        path = self.images_root / row.image_path
        if self._file(path, row.image_sha256, outcome, "photo") is None:
            return
        try:
            with image_header(path) as image:
                self._size(path, image.size, row, outcome)
            if self.near:
                outcome.look = dhash(path)
        except DataError as error:
            outcome.add("P33", path, error.what, error.cure)
        except (OSError, SyntaxError, ValueError, struct.error) as error:
            outcome.add("P33", path, f"photo cannot be read ({error})", "put the photo back that was prepared")

    def _content(self, row: Row, outcome: Outcome) -> None:
        """P34 (ids), P36 and P37 from the pixels."""
        fine_path, coarse_path = (label_path(self.root, level, row.split, row.key) for level in ("fine", "coarse"))
        try:
            with row.allowed():
                labels = TwoLevelMap(read_label_png(fine_path), read_label_png(coarse_path))
        except DataError as error:
            outcome.add("P33", error.where, error.what, error.cure)
            return
        fine_fits = self._ids(self.hierarchy.fine, labels.fine, fine_path, outcome)
        if not self._ids(self.hierarchy.coarse, labels.coarse, coarse_path, outcome) or not fine_fits:
            return
        outcome.examined["P36"] += 1
        outcome.examined["P37"] += 1
        for what in self._violations(labels):
            outcome.add("P36", coarse_path, what)
        for what in self._miscounted(row, labels):
            outcome.add("P37", fine_path, what)

    def _ids(self, level: Level, labels: LabelArray, path: Path, outcome: Outcome) -> bool:
        bad, pixels = np.unique(labels[valid_pixels(labels) & (labels >= len(level))], return_counts=True)
        if bad.size:
            listed = ", ".join(f"{i} ({n} px)" for i, n in zip(bad[:5].tolist(), pixels[:5].tolist(), strict=True))
            outcome.add("P34", path, f"holds ids beyond the {len(level)} {level.name} classes: {listed}")
        return not bad.size

    def _violations(self, labels: TwoLevelMap) -> Iterator[str]:
        """Pixels where coarse is not what fine makes it, in words."""
        known = valid_pixels(labels.fine)
        wrong = known & (lift(labels.fine, self.hierarchy) != labels.coarse)
        if wrong.any():
            y, x = (int(value) for value in np.argwhere(wrong)[0])
            fine, coarse = int(labels.fine[y, x]), int(labels.coarse[y, x])
            parent = self.hierarchy.coarse.names[int(self.hierarchy.parent[fine])]
            names = self.hierarchy.coarse.names
            given = names[coarse] if coarse < len(names) else "ignore"
            yield (f"{int(wrong.sum())} px where coarse is not the parent of fine, the first at ({x}, {y}): "
                   f"{self.hierarchy.fine.names[fine]!r} belongs to {parent!r}, not {given!r}")  # fmt: skip
        if self.coarse_from_fine and labels.coarse_only().any():
            yield (f"{int(labels.coarse_only().sum())} px with a coarse class only, but dataset.json says "
                   "coarse_is_function_of_fine, so loaders ignore them")  # fmt: skip

    def _miscounted(self, row: Row, labels: TwoLevelMap) -> Iterator[str]:
        """Numbers of the manifest that a recount does not confirm, in words."""
        for level, found, claimed in (
            (self.hierarchy.fine, labels.fine, row.fine_counts), (self.hierarchy.coarse, labels.coarse, row.coarse_counts),
        ):  # fmt: skip
            counts = count_ids(found, len(level))
            stated = np.array([claimed.get(str(class_id), 0) for class_id in range(len(level))])
            for class_id in np.flatnonzero(counts != stated).tolist():
                yield (f"{level.name} class {level.names[class_id]!r} has {counts[class_id]} px, "
                       f"the manifest says {stated[class_id]}")  # fmt: skip
        ignored = int((~valid_pixels(labels.coarse) & ~valid_pixels(labels.fine)).sum())
        for name, pixels in (("ignore_px", ignored), ("coarse_only_px", int(labels.coarse_only().sum()))):
            if getattr(row, name) != pixels:
                yield f"{name} is {pixels}, the manifest says {getattr(row, name)}"


def _png_header(path: Path) -> _PngHeader | None:
    """Size, bit depth and colour type of a PNG; None when it is none or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:
        return None
    if len(head) < 26 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    width, height, depth, kind = struct.unpack(">IIBB", head[16:26])
    return _PngHeader(width, height, depth, kind)
