"""Raw annotations -> prepared dataset: read, encode, check, write, in parallel and resumable."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from hiposeg_cli.errors import ConfigError, DataError, HiposegError, OutputError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader, ReaderOptions, require_unique_keys
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.lookup import Tally
from hiposeg_cli.pool import Progress, Workers, mapped
from hiposeg_cli.registry import FORMATS
from hiposeg_cli.remarks import Remark, collected
from hiposeg_cli.shard import Shard
from hiposeg_cli.store import Row, write_labels
from hiposeg_cli.writer import Place, Stamp, Writer


@dataclass(frozen=True)
class PrepareOptions:
    """How to convert.

    Attributes:
        hierarchy: preset name or path; None takes the format's own preset.
        val: images moved from split `train` to `val`: a count (>= 1) or a share (< 1); 0 keeps the source's splits.
        seed: seed of that choice.
        copy_images: copy the photos into the dataset instead of referring to them.
        skip_bad: leave broken images out and report them instead of failing.
        allow_empty: keep images whose id map holds nothing but ignore.
        workers: processes; 1 converts in this one.
        cluster: address of a Dask scheduler to convert on instead.
        shard: the part of the images this run converts; the run that leaves none missing completes the dataset.
    """

    hierarchy: str | None = None
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    val: float = 0.0
    seed: int = 0
    copy_images: bool = False
    skip_bad: bool = False
    allow_empty: bool = False
    workers: int = 1
    cluster: str | None = None
    shard: Shard = field(default_factory=Shard)


@dataclass(frozen=True)
class Prepared:
    """What a conversion found.

    Attributes:
        report: what is also written to report.json.
        failures: why images failed, of this shard.
        missing: images that other shards have still to convert.
        complete: the dataset is finished and can be opened.
    """

    report: dict[str, Any]
    failures: tuple[HiposegError, ...]
    missing: int = 0
    complete: bool = False


def open_reader(format_name: str, source: Path, options: PrepareOptions) -> Reader:
    """The reader of a raw dataset, with its hierarchy. Raises ConfigError, HierarchyError or DataError."""
    reader_class: type[Reader] = FORMATS.load(format_name)
    name = options.hierarchy or reader_class.default_for(options.reader)
    if name is None:
        raise ConfigError("--hierarchy", f"is needed for the format {format_name!r}", "see `hiposeg hierarchy list`")
    images = options.reader.images
    reader_options = replace(options.reader, images=images.resolve() if images else None)
    return reader_class(source, load_hierarchy(name), reader_options)


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
    try:
        source = source.resolve()
    except RuntimeError:  # Python < 3.13
        raise DataError(source, "is a link that leads in a circle", "name the folder itself") from None
    if out is not None:
        for folder in (source, *([options.reader.images.resolve()] if options.reader.images else [])):
            _refuse_nesting(folder, out.resolve())
    with collected() as remarks:
        reader = open_reader(format_name, source, options)
        items = _with_validation(reader.items(), options)
    require_unique_keys(items)
    if out is None:
        results = list(_converted(reader, options.shard.of(items), None, options, progress))
        rows = sorted((result[0] for result in results if isinstance(result, tuple)), key=_place)
        failures = [*reader.faults, *(error for error in results if isinstance(error, HiposegError))]
        return Prepared(_report(reader, rows, remarks, [str(error) for error in failures]), tuple(failures))
    by_place = {(item.split, item.key): item for item in items}
    with Writer(
        out.resolve(), fingerprint=_fingerprint(reader, options), shard=options.shard,
        places=by_place.keys(), stamp_of=lambda place: Stamp.of(reader.raw_files(by_place[place])),
        copies_images=options.copy_images, resume=resume, overwrite=overwrite,
    ) as writer:  # fmt: skip
        return _write(reader, items, remarks, writer, options, progress)


def _write(
    reader: Reader, items: list[RawItem], remarks: list[Remark], writer: Writer, options: PrepareOptions, progress: Progress
) -> Prepared:
    """Convert what is not done yet of this shard and, unless an image failed, complete the dataset."""
    mine = options.shard.of(items)
    todo = [item for item in mine if (item.split, item.key) not in writer.done]
    n_done = len(mine) - len(todo)
    failures: dict[Place, HiposegError] = {}
    for item in todo:
        writer.retry((item.split, item.key))

    def overall(done: int, total: int) -> None:
        progress(done + n_done, total + n_done)

    for item, result in zip(todo, _converted(reader, todo, writer.root, options, overall), strict=True):
        if isinstance(result, HiposegError):
            failures[item.split, item.key] = result
            writer.fail((item.split, item.key), str(result))
        else:
            writer.add(*result)
    missing = writer.missing()
    rows = sorted(writer.done.values(), key=_place)
    failed = [*map(str, reader.faults), *(writer.failed[place] for place in sorted(writer.failed))]
    if not rows and not missing and not failed:
        raise DataError(reader.root, "holds no images", "check the folder")
    report = _report(reader, rows, remarks, failed)
    complete = bool(rows) and not missing and (not failed or options.skip_bad)
    if complete:
        writer.finish(reader.hierarchy, _about(reader, options), report)
    return Prepared(report, (*reader.faults, *failures.values()), missing, complete)


def _place(row: Row) -> Place:
    return row.split, row.key


def _refuse_nesting(source: Path, out: Path) -> None:
    if source == out or source in out.parents or out in source.parents:
        raise DataError(out, f"lies in the source folder {source}, or the other way round", "write somewhere else")


def _with_validation(items: list[RawItem], options: PrepareOptions) -> list[RawItem]:
    """Move a random, seed-fixed part of `train` to `val`."""
    train = sorted(item.key for item in items if item.split == "train")
    if options.val == 0:
        return items
    if not math.isfinite(options.val):
        raise ConfigError("--val", f"is {options.val}", "give a count or a share")
    n_val = round(options.val * len(train)) if options.val < 1 else round(options.val)
    if not 0 < n_val < len(train):
        raise ConfigError("--val", f"{options.val:g} of {len(train)} training images leaves an empty split", "choose less")
    if any(item.split == "val" for item in items):
        raise ConfigError("--val", "the source already has a split 'val'", "drop the option")
    chosen = set(np.random.default_rng(options.seed).permutation(train)[:n_val].tolist())
    return [replace(item, split="val") if item.split == "train" and item.key in chosen else item for item in items]


def _fingerprint(reader: Reader, options: PrepareOptions) -> str:
    """What must be equal for a run to be resumed; images may come and go in between."""
    tables = reader.lookup.fine.tobytes() + reader.lookup.coarse.tobytes()
    identity = {
        "format": reader.name, "root": str(reader.root), "hierarchy": reader.hierarchy.digest,
        "lookup": hashlib.sha256(tables).hexdigest(), "options": reader.options.given(), "copy": options.copy_images,
        "val": [options.val, options.seed] if options.val else [],
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


def untested_versions() -> list[str]:
    """What is installed that is older than hiposeg was tested with, in words."""
    stated = next(found for text in requires("hiposeg-cli") or () if (found := re.match(r"pillow\s*>=\s*([\d.]+)", text)))
    oldest = stated[1]
    if _numbers(PIL.__version__) >= _numbers(oldest):
        return []
    return [f"Pillow {PIL.__version__} is older than {oldest}, the oldest that hiposeg is tested with; labels may differ"]


def _numbers(release: str) -> tuple[int, ...]:
    """Major and minor number."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _images_root(reader: Reader) -> Path:
    """The folder that photo paths are relative to: the source, or what it shares with a folder given as --images."""
    roots = [reader.root, *([reader.options.images.resolve()] if reader.options.images else [])]
    return Path(os.path.commonpath(roots))


# -- one image, in whichever process -----------------------------------------------------------------------------------


Converted = tuple[Row, Stamp] | HiposegError


class _Job:
    """Converts single images; sent to every worker once."""

    def __init__(self, reader: Reader, out: Path | None, options: PrepareOptions) -> None:
        self.reader, self.out, self.images_root = reader, out, _images_root(reader)
        self.copy_images, self.allow_empty = options.copy_images, options.allow_empty

    def __call__(self, item: RawItem) -> Converted:
        try:
            before = Stamp.of(self.reader.raw_files(item))
            row = self.convert(item)
            if Stamp.of(self.reader.raw_files(item)) != before:
                raise DataError(self.reader.root / item.source, "changed while it was being read", "run again")
            return row, before
        except OutputError:
            raise
        except HiposegError as error:
            return error

    def convert(self, item: RawItem) -> Row:
        with collected() as remarks:
            raw = self.reader.read(item)
        source = self.reader.root / item.source
        where = source if source.exists() else item.image_path
        labels, tally = self.reader.lookup.encode_and_tally(raw.ids, where)
        assert raw.photo is not None
        of_files = [odd.what if odd.where == source else str(odd) for odd in remarks]
        warnings = [*of_files, *raw.warnings, *self._remarks(tally, raw, where)]
        hashes = {"fine_sha256": "", "coarse_sha256": ""}
        if self.out:
            hashes = write_labels(self.out, item.split, item.key, labels, raw.instances)
        height, width = labels.shape
        return Row(
            key=item.key, split=item.split, image_path=self._image(item), image_sha256=raw.photo.sha256,
            width=width, height=height,
            fine_counts={str(k): n for k, n in tally.fine.items()},
            coarse_counts={str(k): n for k, n in tally.coarse.items()},
            ignore_px=tally.ignore_px, coarse_only_px=tally.coarse_only_px,
            n_objects=raw.n_objects, overlap_px=raw.overlap_px, part_overlap_px=raw.part_overlap_px,
            uncovered_px=raw.uncovered_px, source=item.source, warnings=warnings, **hashes,
        )  # fmt: skip

    def _remarks(self, tally: Tally, raw: RawLabel, where: Path) -> list[str]:
        """What is odd about the labels. Raises DataError for an id map without a single label."""
        remarks = [f"{tally.unknown_px} px of unknown labels ignored"] if tally.unknown_px else []
        if tally.ignore_px < raw.ids.size:
            return remarks
        if not (self.allow_empty or self.reader.lists_objects):
            raise DataError(where, "every pixel is ignore", "remove the image, or pass --allow-empty to keep it")
        return [*remarks, "every pixel is ignore"]

    def _image(self, item: RawItem) -> str:
        """Path of the photo relative to `images_root`, after copying it if asked."""
        if not self.copy_images or self.out is None:
            return os.path.relpath(item.image_path.resolve(), self.images_root)
        target = self.out / "images" / item.split / f"{item.key}{item.image_path.suffix.lower()}"
        write_bytes_atomic(target, item.image_path.read_bytes())
        return target.relative_to(self.out).as_posix()


def _converted(
    reader: Reader, items: list[RawItem], out: Path | None, options: PrepareOptions, progress: Progress
) -> Iterator[Converted]:
    """Convert items in order."""
    job = _Job(reader, out, options)
    return mapped(job, items, total=len(items), workers=Workers(options.workers, options.cluster), progress=progress)


# -- the report --------------------------------------------------------------------------------------------------------


def _report(reader: Reader, rows: list[Row], remarks: list[Remark], failures: list[str]) -> dict[str, Any]:
    """Totals over all images, by level and class, with what was decided for contested and uncovered pixels."""
    hierarchy: Hierarchy = reader.hierarchy
    splits = sorted({row.split for row in rows})
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
        "fine": _class_totals(hierarchy.fine, splits, ((row.split, row.fine_counts) for row in rows)),
        "coarse": _class_totals(hierarchy.coarse, splits, ((row.split, row.coarse_counts) for row in rows)),
        "warnings": [
            *untested_versions(), *map(str, remarks), *(f"{row.source}: {text}" for row in rows for text in row.warnings)
        ],
        "failures": failures,
    }  # fmt: skip


def _class_totals(level: Level, splits: list[str], counted: Iterable[tuple[str, dict[str, int]]]) -> list[dict[str, Any]]:
    """For each class, its pixels and the images it is seen in, by split."""
    totals: list[dict[str, Any]] = [
        {"id": node.id, "name": node.name, "pixels": dict.fromkeys(splits, 0), "images": dict.fromkeys(splits, 0)}
        for node in level.nodes
    ]
    for split, counts in counted:
        for class_id, pixels in counts.items():
            totals[int(class_id)]["pixels"][split] += pixels
            totals[int(class_id)]["images"][split] += 1
    return totals
