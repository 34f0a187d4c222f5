"""Raw annotations -> prepared dataset: read, encode, check, write, in parallel and resumable."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.errors import ConfigError, DataError, HiposegError, OutputError
from hiposeg_cli.formats.base import RawItem, Reader, ReaderOptions, require_unique_keys
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import LabelArray, count_ids, valid_pixels, write_bytes_atomic
from hiposeg_cli.registry import FORMATS
from hiposeg_cli.store import Row, Writer, sha256_file, write_labels

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """How to convert.

    Attributes:
        hierarchy: preset name or path; None takes the format's own preset.
        val: images moved from split `train` to `val`: a count (>= 1) or a share (< 1); 0 keeps the source's splits.
        seed: seed of that choice.
        copy_images: copy the photos into the dataset instead of referring to them.
        skip_bad: leave broken images out and report them instead of failing.
        workers: processes; 1 converts in this one.
    """

    hierarchy: str | None = None
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    val: float = 0.0
    seed: int = 0
    copy_images: bool = False
    skip_bad: bool = False
    workers: int = 1


@dataclass(frozen=True)
class Prepared:
    """What a conversion found: the report that is also written to report.json, and the images that failed."""

    report: dict[str, Any]
    failures: tuple[HiposegError, ...]


def open_reader(format_name: str, source: Path, options: PrepareOptions) -> Reader:
    """The reader of a raw dataset, with its hierarchy. Raises ConfigError, HierarchyError or DataError."""
    reader_class: type[Reader] = FORMATS.load(format_name)
    name = options.hierarchy or reader_class.default_hierarchy
    if name is None:
        raise ConfigError("--hierarchy", f"is needed for the format {format_name!r}", "see `hiposeg hierarchy list`")
    return reader_class(source, load_hierarchy(name), options.reader)


def prepare(
    format_name: str, source: Path, out: Path | None, options: PrepareOptions, *,
    resume: bool = False, overwrite: bool = False, progress: Progress = lambda done, total: None,
) -> Prepared:  # fmt: skip
    """Convert a raw dataset.

    Args:
        out: the dataset to write; None checks everything and writes nothing.
        progress: called with (images done, images in all).
    Raises: HiposegError when the source, hierarchy or options are unusable. Broken images are collected in
        `Prepared.failures`; without `skip_bad` the dataset is then left unfinished, and a later run can resume it.
    """
    source = source.resolve()
    if out is not None:
        for folder in (source, *([options.reader.images.resolve()] if options.reader.images else [])):
            _refuse_nesting(folder, out.resolve())
    reader = open_reader(format_name, source, options)
    items = _with_validation(reader.items(), options)
    require_unique_keys(items)
    if out is None:
        results = list(_converted(reader, items, None, options, progress))
        rows = sorted((row for row in results if isinstance(row, Row)), key=_place)
        failures = [error for error in results if isinstance(error, HiposegError)]
        return Prepared(_report(reader, rows, failures), tuple(failures))
    fingerprint = _fingerprint(reader, items, options)
    with Writer(
        out, fingerprint=fingerprint, copies_images=options.copy_images, resume=resume, overwrite=overwrite
    ) as writer:
        return _write(reader, items, writer, options, progress)


def _write(reader: Reader, items: list[RawItem], writer: Writer, options: PrepareOptions, progress: Progress) -> Prepared:
    """Convert what is not done yet and, unless an image failed, complete the dataset."""
    todo = [item for item in items if (item.split, item.key) not in writer.done]
    n_done = len(items) - len(todo)
    failures: list[HiposegError] = []

    def overall(done: int, total: int) -> None:
        progress(done + n_done, total + n_done)

    for result in _converted(reader, todo, writer.root, options, overall):
        if isinstance(result, Row):
            writer.add(result)
        else:
            failures.append(result)
    rows = sorted(writer.done.values(), key=_place)
    if not rows:
        writer.discard()
        raise failures[0] if failures else DataError(reader.root, "holds no images", "check the folder")
    report = _report(reader, rows, failures)
    if not failures or options.skip_bad:
        writer.finish(reader.hierarchy, _about(reader, options), report)
    return Prepared(report, tuple(failures))


def _place(row: Row) -> tuple[str, str]:
    return row.split, row.key


def _refuse_nesting(source: Path, out: Path) -> None:
    if source == out or source in out.parents or out in source.parents:
        raise DataError(out, f"lies in the source folder {source}, or the other way round", "write somewhere else")


def _with_validation(items: list[RawItem], options: PrepareOptions) -> list[RawItem]:
    """Move a random, seed-fixed part of `train` to `val`."""
    train = sorted(item.key for item in items if item.split == "train")
    n_val = round(options.val * len(train)) if options.val < 1 else round(options.val)
    if options.val == 0:
        return items
    if not 0 < n_val < len(train):
        raise ConfigError("--val", f"{options.val:g} of {len(train)} training images leaves an empty split", "choose less")
    if any(item.split == "val" for item in items):
        raise ConfigError("--val", "the source already has a split 'val'", "drop the option")
    chosen = set(np.random.default_rng(options.seed).permutation(train)[:n_val].tolist())
    return [replace(item, split="val") if item.split == "train" and item.key in chosen else item for item in items]


def _fingerprint(reader: Reader, items: list[RawItem], options: PrepareOptions) -> str:
    identity = {
        "format": reader.name, "root": str(reader.root), "hierarchy": reader.hierarchy.digest,
        "lookup": hashlib.sha256(reader.lookup.fine.tobytes() + reader.lookup.coarse.tobytes()).hexdigest(),
        "options": reader.options.given(), "copy": options.copy_images, "items": [(item.split, item.key) for item in items],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _about(reader: Reader, options: PrepareOptions) -> dict[str, Any]:
    packages = ("hiposeg-cli", "numpy", "pillow", "pycocotools", "scipy")
    return {
        "source": {"format": reader.name, "root": str(reader.root), "options": reader.options.given()},
        "images_root": "." if options.copy_images else str(_images_root(reader)),
        "overlap_rule": reader.overlap_rule,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }  # fmt: skip


def _images_root(reader: Reader) -> Path:
    """The folder that photo paths are relative to: the source, or what it shares with a folder given as --images."""
    roots = [reader.root, *([reader.options.images.resolve()] if reader.options.images else [])]
    return Path(os.path.commonpath(roots))


# -- one image, in whichever process -----------------------------------------------------------------------------------


class _Job:
    """Converts single images; made once in every worker."""

    def __init__(self, reader: Reader, out: Path | None, images_root: Path, copy_images: bool) -> None:
        self.reader, self.out, self.images_root, self.copy_images = reader, out, images_root, copy_images

    def __call__(self, item: RawItem) -> Row | HiposegError:
        try:
            return self.convert(item)
        except OutputError:
            raise
        except HiposegError as error:
            return error

    def convert(self, item: RawItem) -> Row:
        raw = self.reader.read(item)
        source = self.reader.root / item.source
        where = source if source.exists() else item.image_path
        labels = self.reader.lookup.encode(raw.ids, where)
        labels.check(self.reader.hierarchy, where)
        if not valid_pixels(labels.coarse).any():
            raw = replace(raw, warnings=(*raw.warnings, "every pixel is ignore"))
        hashes = write_labels(self.out, item.split, item.key, labels) if self.out else ("", "")
        height, width = labels.shape
        return Row(
            key=item.key, split=item.split, image_path=self._image(item), image_sha256=sha256_file(item.image_path),
            width=width, height=height, fine_sha256=hashes[0], coarse_sha256=hashes[1],
            fine_counts=_counts(labels.fine, self.reader.hierarchy.fine),
            coarse_counts=_counts(labels.coarse, self.reader.hierarchy.coarse),
            ignore_px=int((~valid_pixels(labels.coarse) & ~valid_pixels(labels.fine)).sum()),
            coarse_only_px=int(labels.coarse_only().sum()),
            n_objects=raw.n_objects, overlap_px=raw.overlap_px, part_overlap_px=raw.part_overlap_px,
            uncovered_px=raw.uncovered_px, source=item.source, warnings=list(raw.warnings),
        )  # fmt: skip

    def _image(self, item: RawItem) -> str:
        """Path of the photo relative to `images_root`, after copying it if asked."""
        if not self.copy_images or self.out is None:
            return os.path.relpath(item.image_path.resolve(), self.images_root)
        target = self.out / "images" / item.split / f"{item.key}{item.image_path.suffix.lower()}"
        write_bytes_atomic(target, item.image_path.read_bytes())
        return target.relative_to(self.out).as_posix()


def _counts(labels: LabelArray, level: Level) -> dict[str, int]:
    return {str(k): int(n) for k, n in enumerate(count_ids(labels, len(level))) if n}


_job: _Job | None = None


def _start_worker(job: _Job) -> None:
    global _job
    _job = job


def _run_in_worker(item: RawItem) -> Row | HiposegError:
    assert _job is not None
    return _job(item)


def _converted(
    reader: Reader, items: list[RawItem], out: Path | None, options: PrepareOptions, progress: Progress
) -> Iterator[Row | HiposegError]:
    """Convert items in order, a bounded number in flight."""
    job = _Job(reader, out, _images_root(reader), options.copy_images)
    progress(0, len(items))
    if options.workers <= 1 or len(items) < 2:
        for number, item in enumerate(items, start=1):
            yield job(item)
            progress(number, len(items))
        return
    with ProcessPoolExecutor(options.workers, initializer=_start_worker, initargs=(job,)) as pool:
        waiting: list[Future[Row | HiposegError]] = []
        queue = iter(items)
        for number in range(1, len(items) + 1):
            for item in itertools.islice(queue, 4 * options.workers - len(waiting)):
                waiting.append(pool.submit(_run_in_worker, item))
            try:
                result = waiting.pop(0).result()
            except BrokenProcessPool:
                raise OutputError(
                    f"--workers {options.workers}", "a worker process was killed (out of memory?)", "use fewer, and --resume"
                ) from None
            yield result
            progress(number, len(items))


# -- the report --------------------------------------------------------------------------------------------------------


def _report(reader: Reader, rows: list[Row], failures: list[HiposegError]) -> dict[str, Any]:
    """Totals over all images, by level and class, with what was decided for contested and uncovered pixels."""
    hierarchy: Hierarchy = reader.hierarchy
    return {
        "format": reader.name, "source": str(reader.root), "hierarchy": hierarchy.name,
        "overlap_rule": reader.overlap_rule,
        "images": dict(Counter(row.split for row in rows)),
        "pixels": {
            "total": sum(row.width * row.height for row in rows),
            **{name: sum(getattr(row, name) for row in rows)
               for name in ("ignore_px", "coarse_only_px", "overlap_px", "part_overlap_px", "uncovered_px")},
        },
        "objects": sum(row.n_objects for row in rows),
        "fine": _class_totals(hierarchy.fine, [(row.split, row.fine_counts) for row in rows]),
        "coarse": _class_totals(hierarchy.coarse, [(row.split, row.coarse_counts) for row in rows]),
        "warnings": [f"{row.source}: {text}" for row in rows for text in row.warnings],
        "failures": [str(error) for error in failures],
    }  # fmt: skip


def _class_totals(level: Level, counted: list[tuple[str, dict[str, int]]]) -> list[dict[str, Any]]:
    splits = sorted({split for split, _ in counted})
    totals = []
    for node in level.nodes:
        key = str(node.id)
        entry: dict[str, Any] = {"id": node.id, "name": node.name}
        entry["pixels"] = {split: sum(c.get(key, 0) for s, c in counted if s == split) for split in splits}
        entry["images"] = {split: sum(key in c for s, c in counted if s == split) for split in splits}
        totals.append(entry)
    return totals
