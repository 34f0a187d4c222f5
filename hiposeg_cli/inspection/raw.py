"""Checks R1 to R30 of raw annotations: the layout, every image through its reader, and the set as a whole."""

from __future__ import annotations

import platform
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hiposeg_cli.convert import PrepareOptions, open_reader
from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, Reader, require_unique_keys
from hiposeg_cli.formats.files import IMAGE_SUFFIXES
from hiposeg_cli.inspection.findings import Diagnosis, Findings
from hiposeg_cli.inspection.leaks import Duplicates, split_order
from hiposeg_cli.inspection.raw_files import RawCheck, RawOutcome, RawTask
from hiposeg_cli.inspection.reader_checks import checks_of, finding_of, remark
from hiposeg_cli.pool import Progress, Workers, mapped
from hiposeg_cli.remarks import collected

# Format, start of the preset's name, published number of images by split.
_TOTALS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("pascal-part", "pascal-p", {"train": 4998, "val": 5105}),
    ("cityscapes", "cityscapes-", {"train": 2975, "val": 500}),
    ("coco", "coco-8", {"train": 118_287, "val": 5000}),
    ("coco-panoptic", "coco-panoptic-", {"train": 118_287, "val": 5000}),
    ("sceneparse150", "sceneparse150-", {"train": 20_210, "val": 2000}),
    ("mapillary", "mapillary-", {"train": 18_000, "val": 2000}),
)
_PACKAGES = ("hiposeg-cli", "numpy", "pillow", "pycocotools", "scipy")
_LICENCE = re.compile(r"licen[cs]e|copying|terms|readme", re.IGNORECASE)
_MEASURED = 16  # images whose label files are made, to estimate all
_ROW_BYTES = 2000  # of one image in the manifest


@dataclass
class _Whole:
    """What is gathered over all images."""

    found: Findings
    duplicates: Duplicates = field(default_factory=Duplicates)
    keys: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    n_read: int = 0
    n_same_key: int = 0


def check_raw(
    format_name: str, source: Path, options: PrepareOptions, progress: Progress = lambda done, total: None
) -> Diagnosis:
    """Make all checks that apply to a raw dataset; nothing is written.

    Raises: ConfigError, HierarchyError, or DataError where there is no such folder.
    """
    found, facts = Findings(), {"format": format_name, "versions": _versions(), "notices": []}
    source = source.resolve()
    found.did("R1")
    try:
        with collected() as remarks:
            reader = open_reader(format_name, source, options)
            facts |= {"hierarchy": reader.hierarchy.name, "overlap_rule": reader.overlap_rule}
            items = reader.items()
        require_unique_keys(items)
        found.extend(finding_of(fault, layout=True) for fault in reader.faults)
        found.extend(remark(odd.where, odd.what) for odd in remarks)
    except DataError as error:
        if not source.is_dir():
            raise
        found.add(finding_of(error, layout=True))
        return Diagnosis("raw", str(source), found, facts)
    rank = {split: place for place, split in enumerate(split_order({item.split for item in items}))}
    items = sorted(items, key=lambda item: rank[item.split])
    _totals(reader, items, found)
    _orphans(reader, items, found)
    whole = _Whole(found)
    workers = Workers(options.workers)
    outcomes = mapped(RawCheck(reader), _tasks(items), total=len(items), workers=workers, progress=progress)
    for outcome in outcomes:
        _take(outcome, whole)
    facts |= _finish(reader, items, whole)
    return Diagnosis("raw", str(source), found, facts)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _tasks(items: list[RawItem]) -> Iterator[RawTask]:
    step = max(1, len(items) // _MEASURED)
    for number, item in enumerate(items):
        yield RawTask(item, measure=number % step == 0)


def _totals(reader: Reader, items: list[RawItem], found: Findings) -> None:
    """R2, for the published datasets read with their own taxonomies."""
    images = Counter(item.split for item in items)
    for format_name, preset, totals in _TOTALS:
        if reader.name != format_name or not reader.hierarchy.name.startswith(preset):
            continue
        for split in images.keys() & totals.keys():
            found.did("R2")
            if images[split] != totals[split]:
                what = f"{split} has {images[split]} images, the published set has {totals[split]}"
                found.warning("R2", reader.root, what, "add what is missing, unless a part is meant")


def _orphans(reader: Reader, items: list[RawItem], found: Findings) -> None:
    """R5: files beside those that are used, which nothing uses."""
    photos, labels = {item.image_path for item in items}, {reader.root / item.source for item in items}
    tails = {_tail(item) for item in items if (reader.root / item.source).is_file()}
    for folder in sorted({path.parent for path in photos}):
        names = [name for name in _names(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
        _report_orphans(folder, [n for n in names if {folder / n}.isdisjoint(photos | labels)], "labels", found)
    if len(tails) == 1 and (tail := tails.pop()):
        for folder in sorted({path.parent for path in labels}):
            names = [name for name in _names(folder) if name.endswith(tail)]
            _report_orphans(folder, [n for n in names if {folder / n}.isdisjoint(photos | labels)], "images", found)


def _tail(item: RawItem) -> str:
    """What a label file's name has after the part it shares with the photo's."""
    name, photo = Path(item.source).name, item.image_path.stem
    shared = next(
        (place for place, (a, b) in enumerate(zip(name, photo, strict=False)) if a != b), min(len(name), len(photo))
    )
    return name[shared:]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _report_orphans(folder: Path, names: list[str], lacking: str, found: Findings) -> None:
    found.did("R5")
    if names:
        what = f"{len(names)} files have no {lacking} in this dataset, such as {names[0]}"
        found.note("R5", folder, what, "nothing to do if they are meant to be left out")


def _take(outcome: RawOutcome, whole: _Whole) -> None:
    whole.found.extend(outcome.findings)
    whole.n_read += 1
    whole.counts.update(outcome.counts)
    if outcome.kind:
        whole.kinds[outcome.kind] += 1
    if outcome.label_bytes is not None:
        whole.sizes.append(outcome.label_bytes)
    other = whole.keys.setdefault(outcome.key, outcome.split)
    whole.n_same_key += other != outcome.split
    leak = whole.duplicates.add(outcome.split, outcome.key, outcome.sha256) if outcome.sha256 else None
    if leak is not None:
        where, what = f"{outcome.split}/{outcome.key}", f"is the same photo as {leak.other_split}/{leak.other_key}"
        add = whole.found.error if leak.key == leak.other_key else whole.found.warning
        add("R3", where, what, "keep a photo in one split")


def _finish(reader: Reader, items: list[RawItem], whole: _Whole) -> dict[str, Any]:
    """The checks on the whole; returns facts for the report."""
    found = whole.found
    for check in checks_of(reader):
        found.did(check, whole.n_read)
    for check in ("R3", "R4"):
        found.did(check, len(items))
    if whole.n_same_key:
        what = f"{whole.n_same_key} names occur in two splits, with different photos"
        found.note("R3", reader.root, what, "fine where every split is numbered on its own")
    if len(whole.kinds) > 1:
        listed = ", ".join(f"{kind} {count}" for kind, count in whole.kinds.most_common())
        found.note("R6", reader.root, f"photos are of several kinds: {listed}", "all are read as RGB")
    _overlaps(reader, whole)
    _disk(items, whole)
    found.did("R30")
    notices = sorted(path.name for path in reader.root.iterdir() if path.is_file() and _LICENCE.search(path.name))
    return {
        "images": dict(Counter(item.split for item in items)), "pixels": dict(whole.counts), "photos": dict(whole.kinds),
        "notices": notices,
    }  # fmt: skip


def _overlaps(reader: Reader, whole: _Whole) -> None:
    """R15: how much was contested or left over."""
    total = max(1, whole.counts["total"])
    words = {
        "overlap_px": "were claimed by several objects", "part_overlap_px": "by several parts of one object",
        "uncovered_px": "belong to an object and none of its parts",
    }  # fmt: skip
    shares = [f"{100 * whole.counts[name] / total:.2f} % {text}" for name, text in words.items() if whole.counts[name]]
    if shares:
        what = f"of all pixels {', '.join(shares)}"
        whole.found.note("R15", reader.root, what, f"decided by the rule: {reader.overlap_rule}")


def _disk(items: list[RawItem], whole: _Whole) -> None:
    """R29: whether the label files of all images fit on the disk of the current folder."""
    if not whole.sizes:
        return
    whole.found.did("R29")
    here = Path.cwd()
    needed = (sum(whole.sizes) // len(whole.sizes) + _ROW_BYTES) * len(items)
    free = shutil.disk_usage(here).free
    what = f"the prepared labels will take about {_bytes(needed)}, {_bytes(free)} are free"
    if needed > free:
        whole.found.warning("R29", here, what, "prepare onto another disk")
    else:
        whole.found.note("R29", here, what)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
