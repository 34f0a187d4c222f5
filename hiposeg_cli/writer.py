"""Writes a prepared dataset: claims the folder, keeps a state that any interruption can be resumed from, and completes it.

Several shards may write one folder at the same time, each with a state and a lock of its own; whichever finds that
nothing is missing any more completes the dataset. `store` reads what is written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hiposeg_cli import locks
from hiposeg_cli.errors import ConfigError, DataError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.shard import Shard
from hiposeg_cli.store import FORMAT_VERSION, STATE, Row, label_path, read_json, read_rows, sha256_file

_FINISHING = f"{locks.LOCK}-finish"
Place = tuple[str, str]  # (split, key)


@dataclass(frozen=True)
class Stamp:
    """Size and time of the raw files an image was made from; another stamp means that they changed."""

    values: tuple[int, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Stamp:
        values: list[int] = []
        for path in paths:
            try:
                stat = path.stat()
                values += (stat.st_size, stat.st_mtime_ns)
            except OSError:
                values += (-1, -1)
        return cls(tuple(values))


_WHOLE = Shard()


class Writer:
    """Claims an output folder, collects rows, and completes the dataset.

    Args:
        root: the output folder.
        fingerprint: identifies source, hierarchy and options; an unfinished run with another one is not resumed.
        places: all images of the source.
        stamp_of: what an image's raw files are like now; resuming an unfinished run redoes images whose files changed. Of a
            finished dataset nothing is redone: resuming it adds images.
        shard: which part of the images this process converts.
        resume: continue an unfinished run; finished label files are kept when their hashes still hold.
        overwrite: replace a dataset or unfinished run that hiposeg wrote there; anything else is refused.
        copies_images: photos are part of the dataset, so a resumed run checks them too.
    """

    def __init__(
        self, root: Path, *, fingerprint: str, places: Set[Place], stamp_of: Callable[[Place], Stamp],
        shard: Shard = _WHOLE, copies_images: bool = False, resume: bool = False, overwrite: bool = False,
    ) -> None:  # fmt: skip
        self.root, self.fingerprint, self.shard = root, fingerprint, shard
        self.places, self.stamp_of = places, stamp_of
        self._listed = hashlib.sha256(json.dumps(sorted(places)).encode()).hexdigest()
        self.copies_images = copies_images
        self.done: dict[Place, Row] = {}
        self.failed: dict[Place, str] = {}
        self._state_path = root / f"{STATE}{shard.suffix}"
        self._lock_path = root / f"{locks.LOCK}{shard.suffix}"
        self._claim(resume=resume, overwrite=overwrite)

    # -- claiming the folder -------------------------------------------------------------------------------------------

    def _claim(self, *, resume: bool, overwrite: bool) -> None:
        if overwrite and self.shard.count > 1:
            raise ConfigError("--overwrite", "with --shard would delete what other shards wrote", "empty OUT first")
        if self.root.exists() and not self.root.is_dir():
            raise DataError(self.root, "is a file", "name a new folder")
        # In this order, as other shards may be at work: a run writes its state first and drops it last.
        filled = self.root.exists() and not all(_is_ours_alone(path) for path in self.root.iterdir())
        states = [path for path in self.root.glob(f"{STATE}*") if is_ours(path, "fingerprint")]
        finished = is_ours(self.root / "dataset.json", "format")
        begun = self._state_path in states or (self.shard.count == 1 and bool(states))
        if filled:
            if not finished and not states:
                raise DataError(self.root, "is not empty and was not made by hiposeg", "name a new folder")
            if (finished or begun) and not (resume or overwrite):
                what = "already holds a prepared dataset" if finished else "holds an unfinished preparation"
                cure = "pass --resume to continue it, --overwrite to replace it, or another folder"
                raise DataError(self.root, what, cure)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock()
        except OSError as error:
            raise OutputError(self.root, f"cannot be written ({error.strerror})", "choose another folder") from None
        try:
            self._begin(finished=finished, clear=overwrite and not resume)
        except BaseException:
            self._lock_path.unlink(missing_ok=True)
            raise

    def _lock(self) -> None:
        """Refuse a folder that another live process writes as a whole, or the same shard of it."""
        others = [path for path in self.root.glob(f"{locks.LOCK}*") if self._conflicts(path)]
        for path in others:
            if owner := locks.owner(path):
                raise DataError(
                    self.root, f"is being written by process {owner}", f"wait for it; if it is gone, remove {path.name}"
                )
            path.unlink(missing_ok=True)
        self._lock_path.write_text(locks.me())

    def _conflicts(self, path: Path) -> bool:
        return self.shard.count == 1 or path.name in (locks.LOCK, self._lock_path.name)

    def _begin(self, *, finished: bool, clear: bool) -> None:
        """Read or remove what earlier runs left, and open the state file."""
        if clear:
            self._clear()
        elif finished:
            self._read_finished()
        else:
            self._read_states()
        if not self._state_path.exists():
            first = {"fingerprint": self.fingerprint, "listed": self._listed}
            write_bytes_atomic(self._state_path, (json.dumps(first) + "\n").encode())
        self._state = self._state_path.open("a", encoding="utf-8")
        self._state.write("\n")  # ends a line that a kill cut off

    def _clear(self) -> None:
        for name in (*_FOLDERS, "overlays"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for path in (*self.root.glob(f"{STATE}*"), *(self.root / name for name in _FILES)):
            path.unlink(missing_ok=True)

    # -- what is done already ------------------------------------------------------------------------------------------

    def _require_same_run(self, fingerprint: object) -> None:
        if fingerprint != self.fingerprint:
            raise DataError(
                self.root, "was made from another source, hierarchy or options", "pass --overwrite to start over"
            )

    def _require_same_list(self, path: Path, listed: object) -> None:
        """Shards divide the list of images by position, so all of them must see the same one."""
        if self.shard.count > 1 and listed != self._listed:
            raise DataError(path, "its shard found other images in the source", "pass --resume without --shard")

    def _read_finished(self) -> None:
        about = read_json(self.root / "dataset.json")
        self._require_same_run(about.get("fingerprint"))
        for split in about["splits"]:
            for row in read_rows(self.root / "manifest" / f"{split}.jsonl"):
                self._keep(row, None)

    def _read_states(self) -> None:
        """Take over what every shard recorded."""
        for path in sorted(self.root.glob(f"{STATE}*")):
            lines = _json_lines(path)
            if lines:
                self._require_same_run(lines[0].get("fingerprint"))
                self._require_same_list(path, lines[0].get("listed"))
            for entry in lines[1:]:
                self._take_over(entry)

    def _take_over(self, entry: dict[str, Any]) -> None:
        if "row" in entry:
            try:
                row, stamp = Row(**entry["row"]), Stamp(tuple(entry["stamp"]))
            except (TypeError, KeyError):
                raise DataError(self.root, "was begun by another version of hiposeg", "pass --overwrite") from None
            self._keep(row, stamp)
            return
        place = entry["split"], entry["key"]
        if "failed" not in entry:
            self.failed.pop(place, None)
        elif place in self.places and place not in self.done:
            self.failed[place] = entry["failed"]

    def _keep(self, row: Row, stamp: Stamp | None) -> None:
        """Count a row as done when its label files are what was written, and its raw files what they were made from."""
        place = row.split, row.key
        if place in self.done:
            self.failed.pop(place, None)
        elif place in self.places and self._intact(row) and stamp in (None, self.stamp_of(place)):
            self.done[place] = row
            self.failed.pop(place, None)

    def _intact(self, row: Row) -> bool:
        for level, expected in row.label_hashes().items():
            path = label_path(self.root, level, row.split, row.key)
            if not path.is_file() or sha256_file(path) != expected:
                return False
        copy = self.root / row.image_path
        if row.image_path.startswith("images/") and self.copies_images:
            return copy.is_file() and sha256_file(copy) == row.image_sha256
        return True

    # -- writing -------------------------------------------------------------------------------------------------------

    def add(self, row: Row, stamp: Stamp) -> None:
        """Record one converted image; its label files are already in place."""
        self.done[row.split, row.key] = row
        self.failed.pop((row.split, row.key), None)
        self._record(f'{{"row": {row.as_json()}, "stamp": {list(stamp.values)}}}')

    def retry(self, place: Place) -> None:
        """Record that an image which failed before is being converted again."""
        if self.failed.pop(place, None) is not None:
            self._record(json.dumps({"split": place[0], "key": place[1]}))

    def fail(self, place: Place, message: str) -> None:
        """Record an image that could not be converted."""
        self.failed[place] = message
        self._record(json.dumps({"split": place[0], "key": place[1], "failed": message}))

    def _record(self, line: str) -> None:
        try:
            self._state.write(line + "\n")
            self._state.flush()
        except OSError as error:
            cure = "free disk space or choose another folder, and --resume"
            raise OutputError(self._state_path, f"cannot be written ({error.strerror})", cure) from None

    def missing(self) -> int:
        """Images that no shard has converted or failed yet; other shards' files are only checked when that is none."""
        if self.shard.count > 1:
            if stated := self._stated_missing():
                return stated
            self._read_states()
        return 0 if self._completed else len(self.places - self.done.keys() - self.failed.keys())

    def _stated_missing(self) -> int:
        """`missing` as the states tell it."""
        found: set[Place] = set()
        for path in self.root.glob(f"{STATE}*"):
            for entry in _json_lines(path)[1:]:
                place = entry.get("row", entry)["split"], entry.get("row", entry)["key"]
                (found.add if "row" in entry or "failed" in entry else found.discard)(place)
        return 0 if self._completed else len(self.places - found)

    @property
    def _completed(self) -> bool:
        """Whether another shard found nothing missing and completed the dataset, which removes all states."""
        return not self._state_path.exists()

    def finish(self, hierarchy: Hierarchy, about: dict[str, Any], report: dict[str, Any]) -> None:
        """Write manifests, splits, hierarchy, report and, last, dataset.json; then drop the states.

        Of several shards that find nothing missing at the same time, one does it and the others wait for it.
        """
        lock = self.root / _FINISHING
        mine = lock.with_name(f"{lock.name}-{os.getpid()}")
        mine.write_text(locks.me())
        try:
            while not self._completed:
                try:
                    os.link(mine, lock)  # atomic, and never seen empty
                except FileExistsError:
                    self._wait_for(lock)
                    continue
                try:
                    if not self._completed:
                        self._complete(hierarchy, about, report)
                finally:
                    lock.unlink(missing_ok=True)
        finally:
            mine.unlink(missing_ok=True)

    def _wait_for(self, lock: Path) -> None:
        """Wait a moment while another process completes the dataset. Raises DataError when that may never end."""
        owner = locks.owner(lock)
        if " on " in owner:
            cure = f"if it is gone, remove {lock.name}, and --resume"
            raise DataError(self.root, f"is being completed by process {owner}", cure)
        if not owner:
            lock.unlink(missing_ok=True)
        time.sleep(0.05)

    def _complete(self, hierarchy: Hierarchy, about: dict[str, Any], report: dict[str, Any]) -> None:
        self._remove_leftovers()
        rows = sorted(self.done.values(), key=lambda row: (row.split, row.key))
        splits = sorted({row.split for row in rows})
        text = dump_hierarchy(hierarchy)
        self._write("hierarchy.yaml", text)
        for split in splits:
            mine = [row for row in rows if row.split == split]
            self._write(f"manifest/{split}.jsonl", "".join(row.as_json() + "\n" for row in mine))
            self._write(f"splits/{split}.txt", "".join(f"{row.key}\n" for row in mine))
        self._write("report.json", json.dumps(report, indent=1) + "\n")
        dataset = {
            "format": "hiposeg-prepared", "format_version": FORMAT_VERSION, **about,
            "fingerprint": self.fingerprint, "hierarchy": hierarchy.name, "hierarchy_digest": hierarchy.digest,
            "hierarchy_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "splits": {split: sum(row.split == split for row in rows) for split in splits},
            "coarse_is_function_of_fine": all(row.coarse_only_px == 0 for row in rows),
        }  # fmt: skip
        os.sync()  # all label files are on disk before the file that says so
        self._write("dataset.json", json.dumps(dataset, indent=1) + "\n")
        self._state.close()
        for path in self.root.glob(f"{STATE}*"):
            path.unlink(missing_ok=True)
        for path in self.root.glob(f"{locks.LOCK}*"):  # of runs that were killed
            if not locks.owner(path):
                path.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what killed runs left between write and rename, and labels of images that are no longer in the source."""
        for folder in (self.root, *(self.root / name for name in _FOLDERS)):
            for path in folder.glob("*") if folder == self.root else folder.rglob("*"):
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        for path in self.root.glob(f"{STATE}*"):
            for entry in _json_lines(path)[1:]:
                row = entry.get("row")
                if row and (row["split"], row["key"]) not in self.places:
                    for level in ("fine", "coarse", "inst"):
                        label_path(self.root, level, row["split"], row["key"]).unlink(missing_ok=True)

    def _discard(self) -> None:
        """Leave nothing behind of a run that converted no image; labels of an earlier one stay, with their state."""
        self._state.close()
        self._lock_path.unlink(missing_ok=True)
        if all(path == self._state_path for path in self.root.iterdir()):
            self._state_path.unlink(missing_ok=True)
            self.root.rmdir()

    def _write(self, name: str, text: str) -> None:
        write_bytes_atomic(self.root / name, text.encode())

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.done and (error is not None or self.shard.count == 1):
            self._discard()
        self._state.close()
        self._lock_path.unlink(missing_ok=True)


_FILES = ("dataset.json", "hierarchy.yaml", "report.json")
_FOLDERS = ("labels", "images", "manifest", "splits")
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # as `write_bytes_atomic` names them


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Entries of a state file; the line being written when a run was stopped is left out, a file that is gone is empty."""
    entries: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return entries
    for line in text.splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def _is_ours_alone(path: Path) -> bool:
    """Whether a file is what a run shows before it begins, or leaves when it is killed by then, or is gone by now."""
    if path.name.startswith(locks.LOCK) and path.is_file():
        with contextlib.suppress(OSError):
            return re.fullmatch(r"(\d+( \S+)?)?", path.read_text(errors="replace").strip()) is not None
    return not os.path.lexists(path) or (path.name.startswith(f".{STATE}") and path.name.endswith(".tmp"))


def is_ours(path: Path, key: str) -> bool:
    """Whether a dataset.json or state file was written by this module; another program's is not to be touched."""
    try:
        text = path.read_text(encoding="utf-8")
        first = json.loads(text if key == "format" else text.splitlines()[0])
    except (OSError, ValueError, IndexError):
        return False
    return isinstance(first, dict) and (first.get(key) == "hiposeg-prepared" if key == "format" else key in first)
