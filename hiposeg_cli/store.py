"""A prepared dataset on disk (hiposeg-prepared v1): written atomically, opened with its hashes and hierarchy checked.

Layout: dataset.json, hierarchy.yaml, labels/{fine,coarse}/SPLIT/KEY.png, manifest/SPLIT.jsonl, splits/SPLIT.txt,
report.json. Photos stay where they are, relative to `images_root`, unless they were copied to images/SPLIT/.
`dataset.json` is written last, so its presence means the dataset is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hiposeg_cli.errors import DataError, OutputError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift, read_label_png, read_rgb, write_bytes_atomic, write_label_png

logger = logging.getLogger(__name__)
FORMAT_VERSION = 1
_STATE, _LOCK = ".state.jsonl", ".lock"


@dataclass(frozen=True)
class Row:
    """One image of a manifest; sizes in pixels, counts by class id as text keys (JSON)."""

    key: str
    split: str
    image_path: str
    image_sha256: str
    width: int
    height: int
    fine_sha256: str
    coarse_sha256: str
    fine_counts: dict[str, int]
    coarse_counts: dict[str, int]
    ignore_px: int
    coarse_only_px: int
    n_objects: int
    overlap_px: int
    part_overlap_px: int
    uncovered_px: int
    source: str
    warnings: list[str]


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def label_path(root: Path, level: str, split: str, key: str) -> Path:
    """Where the label PNG of one image and level lies; `level` is `fine` or `coarse`."""
    return root / "labels" / level / split / f"{key}.png"


class Writer:
    """Claims an output folder, collects rows, and completes the dataset.

    Args:
        root: the output folder.
        resume: continue an unfinished run; finished label files are kept when their hashes still hold.
        overwrite: replace a dataset or unfinished run that hiposeg wrote there; anything else is refused.
        copies_images: photos are part of the dataset, so a resumed run checks them too.
        fingerprint: identifies source, hierarchy and options; an unfinished run with another one is not resumed.
    """

    def __init__(
        self, root: Path, *, fingerprint: str, copies_images: bool = False, resume: bool = False, overwrite: bool = False
    ) -> None:
        self.root, self.fingerprint, self.copies_images = root, fingerprint, copies_images
        self.done: dict[tuple[str, str], Row] = {}
        self._claim(resume=resume, overwrite=overwrite)

    def _claim(self, *, resume: bool, overwrite: bool) -> None:
        state = self.root / _STATE
        finished, begun = _is_ours(self.root / "dataset.json", "format"), _is_ours(state, "fingerprint")
        if self.root.exists() and not self.root.is_dir():
            raise DataError(self.root, "is a file", "name a new folder")
        if self.root.exists() and any(not _is_ours_alone(path) for path in self.root.iterdir()):
            if not finished and not begun:
                raise DataError(self.root, "is not empty and was not made by hiposeg", "name a new folder")
            if not (resume or overwrite):
                what = "already holds a prepared dataset" if finished else "holds an unfinished preparation"
                raise DataError(
                    self.root, what, "pass --resume to continue it, --overwrite to replace it, or another folder"
                )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock()
        except OSError as error:
            raise OutputError(self.root, f"cannot be written ({error.strerror})", "choose another folder") from None
        try:
            self._begin(state, finished=finished, begun=begun, clear=overwrite and not resume)
        except BaseException:
            (self.root / _LOCK).unlink(missing_ok=True)
            raise

    def _begin(self, state: Path, *, finished: bool, begun: bool, clear: bool) -> None:
        """Read or remove what an earlier run left, and open the state file."""
        if clear:
            self._clear()
        elif finished:
            self._read_finished()
        elif begun:
            self._read_state(state)
        for leftover in self.root.rglob(".*.tmp"):  # a run that was killed between write and rename
            leftover.unlink()
        if clear or not begun:
            write_bytes_atomic(state, (json.dumps({"fingerprint": self.fingerprint}) + "\n").encode())
        self._state = state.open("a", encoding="utf-8")

    def _lock(self) -> None:
        path = self.root / _LOCK
        try:
            with path.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            owner = path.read_text().strip()
            if owner.isdigit() and _alive(int(owner)):
                raise DataError(self.root, f"is being written by process {owner}", "wait for it") from None
            path.write_text(str(os.getpid()))

    def _clear(self) -> None:
        for name in ("labels", "images", "manifest", "splits", "overlays"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in ("dataset.json", "hierarchy.yaml", "report.json", _STATE):
            (self.root / name).unlink(missing_ok=True)

    def _require_same_run(self, fingerprint: object) -> None:
        if fingerprint != self.fingerprint:
            raise DataError(
                self.root, "was made from another source, hierarchy or options", "pass --overwrite to start over"
            )

    def _read_finished(self) -> None:
        about = _read_json(self.root / "dataset.json")
        self._require_same_run(about.get("fingerprint"))
        for split in about["splits"]:
            self._keep_intact(_read_rows(self.root / "manifest" / f"{split}.jsonl"))

    def _keep_intact(self, rows: Iterable[Row]) -> None:
        """Count a row as done when its label files are still what was written."""
        self.done |= {(row.split, row.key): row for row in rows if self._intact(row)}

    def _read_state(self, state: Path) -> None:
        lines = state.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line being written when the run was stopped
            if number == 0:
                self._require_same_run(entry.get("fingerprint"))
            else:
                self._keep_intact([Row(**entry)])

    def _intact(self, row: Row) -> bool:
        for level, expected in (("fine", row.fine_sha256), ("coarse", row.coarse_sha256)):
            path = label_path(self.root, level, row.split, row.key)
            if not path.is_file() or sha256_file(path) != expected:
                return False
        copy = self.root / row.image_path
        if row.image_path.startswith("images/") and self.copies_images:
            return copy.is_file() and sha256_file(copy) == row.image_sha256
        return True

    def add(self, row: Row) -> None:
        """Record one converted image; its label files are already in place."""
        self.done[row.split, row.key] = row
        self._state.write(json.dumps(asdict(row)) + "\n")
        self._state.flush()

    def finish(self, hierarchy: Hierarchy, about: dict[str, Any], report: dict[str, Any]) -> None:
        """Write manifests, splits, hierarchy, report and, last, dataset.json."""
        rows = sorted(self.done.values(), key=lambda row: (row.split, row.key))
        splits = sorted({row.split for row in rows})
        text = dump_hierarchy(hierarchy)
        self._write("hierarchy.yaml", text)
        for split in splits:
            mine = [row for row in rows if row.split == split]
            self._write(f"manifest/{split}.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in mine))
            self._write(f"splits/{split}.txt", "".join(f"{row.key}\n" for row in mine))
        self._write("report.json", json.dumps(report, indent=1) + "\n")
        dataset = {
            "format": "hiposeg-prepared", "format_version": FORMAT_VERSION, **about,
            "fingerprint": self.fingerprint, "hierarchy": hierarchy.name, "hierarchy_digest": hierarchy.digest,
            "hierarchy_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "splits": {split: sum(row.split == split for row in rows) for split in splits},
            "coarse_is_function_of_fine": all(row.coarse_only_px == 0 for row in rows),
        }  # fmt: skip
        self._write("dataset.json", json.dumps(dataset, indent=1) + "\n")
        self._state.close()
        (self.root / _STATE).unlink()

    def discard(self) -> None:
        """Leave nothing behind of a run that converted no image."""
        self._state.close()
        for name in (_STATE, _LOCK):
            (self.root / name).unlink(missing_ok=True)
        if not any(self.root.iterdir()):
            self.root.rmdir()

    def _write(self, name: str, text: str) -> None:
        write_bytes_atomic(self.root / name, text.encode())

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._state.close()
        (self.root / _LOCK).unlink(missing_ok=True)


def _is_ours_alone(path: Path) -> bool:
    """Whether a file is what a run leaves that was killed before it began."""
    return path.name == _LOCK or (path.name.startswith(f".{_STATE}.") and path.name.endswith(".tmp"))


def _is_ours(path: Path, key: str) -> bool:
    """Whether a dataset.json or state file was written by this module; another program's is not to be touched."""
    try:
        text = path.read_text(encoding="utf-8")
        first = json.loads(text if key == "format" else text.splitlines()[0])
    except (OSError, ValueError, IndexError):
        return False
    return isinstance(first, dict) and (first.get(key) == "hiposeg-prepared" if key == "format" else key in first)


def _alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_id != os.getpid()


def write_labels(root: Path, split: str, key: str, labels: TwoLevelMap) -> tuple[str, str]:
    """Write both label PNGs of one image; returns their sha256 (fine, coarse)."""
    fine = write_label_png(label_path(root, "fine", split, key), labels.fine)
    return fine, write_label_png(label_path(root, "coarse", split, key), labels.coarse)


@dataclass(frozen=True)
class Dataset:
    """A complete prepared dataset, opened for reading."""

    root: Path
    hierarchy: Hierarchy
    images_root: Path
    rows: dict[str, tuple[Row, ...]]
    coarse_is_function_of_fine: bool

    def split(self, name: str) -> tuple[Row, ...]:
        """Rows of one split. Raises DataError naming the splits there are."""
        if name not in self.rows:
            raise DataError(self.root, f"has no split {name!r}", did_you_mean(name, self.rows))
        return self.rows[name]

    def image(self, row: Row) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(H, W, 3) uint8 photo of a row. Raises DataError when it is gone or its size changed."""
        path = self.images_root / row.image_path
        if not path.is_file():
            raise DataError(
                path, "photo of the prepared dataset is missing",
                f"put the raw data back, or set `images_root` in {self.root / 'dataset.json'}",
            )  # fmt: skip
        image = read_rgb(path)
        if image.shape[:2] != (row.height, row.width):
            raise DataError(
                path, f"is {image.shape[1]}x{image.shape[0]}, prepared as {row.width}x{row.height}", "prepare again"
            )
        return image

    def labels(self, row: Row) -> TwoLevelMap:
        """Both label maps of a row; coarse is looked up where it is a function of fine.

        Raises: DataError when a file is gone, of another size, or holds an id beyond the hierarchy.
        """
        path = label_path(self.root, "fine", row.split, row.key)
        fine = read_label_png(path)
        if fine.shape != (row.height, row.width):
            raise DataError(
                path, f"is {fine.shape[1]}x{fine.shape[0]}, prepared as {row.width}x{row.height}", "prepare again"
            )
        if self.coarse_is_function_of_fine and int(fine.max(initial=0)) < self.hierarchy.n_fine:
            return TwoLevelMap(fine, lift(fine, self.hierarchy))
        labels = TwoLevelMap(fine, read_label_png(label_path(self.root, "coarse", row.split, row.key)))
        labels.check_ids(self.hierarchy, path)
        return labels


def open_dataset(root: Path) -> Dataset:
    """Open a prepared dataset. Raises DataError when it is missing, unfinished or altered."""
    about_path, hierarchy_path = root / "dataset.json", root / "hierarchy.yaml"
    if not about_path.is_file():
        if (root / _STATE).exists():
            raise DataError(root, "is an unfinished preparation", "run `hiposeg prepare` again with --resume")
        raise DataError(root, "is not a prepared dataset (no dataset.json)", "run `hiposeg prepare FORMAT SRC OUT` first")
    about = _read_json(about_path)
    if about.get("format") != "hiposeg-prepared" or about.get("format_version") != FORMAT_VERSION:
        raise DataError(about_path, "is not a hiposeg-prepared v1 dataset", "prepare the data with this version")
    for key in ("hierarchy_sha256", "hierarchy_digest", "splits", "images_root", "coarse_is_function_of_fine"):
        if key not in about:
            raise DataError(about_path, f"lacks {key!r}", "prepare the data again")
    hierarchy = load_hierarchy(hierarchy_path)
    if sha256_file(hierarchy_path) != about["hierarchy_sha256"]:
        raise DataError(hierarchy_path, "was changed after the dataset was prepared", "prepare the data again")
    rows: dict[str, tuple[Row, ...]] = {}
    for split in about["splits"]:
        path = root / "manifest" / f"{split}.jsonl"
        rows[split] = _read_rows(path)
        if len(rows[split]) != about["splits"][split]:
            raise DataError(path, f"lists {len(rows[split])} images, not {about['splits'][split]}", "prepare the data again")
    images_root = Path(about["images_root"])
    if not images_root.is_absolute():
        images_root = root / images_root
    logger.info("%s: hierarchy %s, images in %s", root, hierarchy.name, images_root)
    return Dataset(root, hierarchy, images_root, rows, bool(about["coarse_is_function_of_fine"]))


def _read_rows(path: Path) -> tuple[Row, ...]:
    try:
        return tuple(Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, TypeError) as error:
        raise DataError(path, f"cannot be read ({error})", "prepare the data again") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", "prepare the data again") from None
    if not isinstance(data, dict):
        raise DataError(path, "is not a JSON object", "prepare the data again")
    return data


def verify(dataset: Dataset) -> list[str]:
    """Check every label file against its hash and the two-level invariant; returns findings in words."""
    findings = []
    for row in (row for split in dataset.rows.values() for row in split):
        for level, expected in (("fine", row.fine_sha256), ("coarse", row.coarse_sha256)):
            path = label_path(dataset.root, level, row.split, row.key)
            if not path.is_file():
                findings.append(f"{path}: missing - prepare the data again")
            elif sha256_file(path) != expected:
                findings.append(f"{path}: differs from the manifest - prepare the data again")
        photo = dataset.images_root / row.image_path
        if not photo.is_file():
            findings.append(f"{photo}: photo is missing - put the raw data back")
        elif sha256_file(photo) != row.image_sha256:
            findings.append(f"{photo}: photo differs from the one prepared - prepare the data again")
    for row in (row for split in dataset.rows.values() for row in split):
        try:
            dataset.labels(row).check(dataset.hierarchy, label_path(dataset.root, "fine", row.split, row.key))
        except DataError as error:
            findings.append(str(error))
    return findings
