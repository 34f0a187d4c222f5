"""`hiposeg inspect` as a function: statistics, chosen samples and, where asked for, near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.inspection.folder import AGAIN, Folder, open_folder
from hiposeg_cli.inspection.leaks import Leak, dhash, near_duplicates, split_order
from hiposeg_cli.inspection.samples import Samples
from hiposeg_cli.inspection.statistics import ClassStatistics, Imbalance, Statistics, Tally
from hiposeg_cli.pool import Progress, Workers, mapped
from hiposeg_cli.store import Row, sha256_file

_HERE = Workers()


@dataclass(frozen=True)
class Overview:
    """What `inspect` shows.

    Attributes:
        samples: rows chosen to be looked at.
        near: photos that look like one of an earlier split; None where nobody looked.
        unreadable: photos whose look could not be taken, in words.
    """

    folder: Folder
    hierarchy: Hierarchy
    statistics: Statistics
    samples: tuple[Row, ...]
    near: tuple[Leak, ...] | None
    unreadable: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.root.resolve().name


def inspect_dataset(
    root: Path,
    *,
    samples: int = 0,
    near: bool = False,
    workers: Workers = _HERE,
    progress: Progress = lambda done, total: None,
) -> Overview:
    """Read the manifests of a prepared dataset once.

    Args:
        samples: images to choose for pictures.
        near: also compare what the photos look like, across splits; decodes a thumbnail of each.
    Raises: DataError when the dataset is missing, unfinished, altered, or has a broken manifest.
    """
    folder = open_folder(root)
    if not folder.hierarchy_path.is_file() or sha256_file(folder.hierarchy_path) != folder.about["hierarchy_sha256"]:
        raise DataError(folder.hierarchy_path, "is missing or was changed after the dataset was prepared", AGAIN)
    hierarchy = load_hierarchy(folder.hierarchy_path)
    tally, chosen = Tally(hierarchy), Samples(samples, folder.n_images)
    rows = _counted(folder, hierarchy, tally, chosen)
    if near:
        leaks, unreadable = _near(folder, rows, workers, progress, tally)
        return Overview(folder, hierarchy, tally.finish(), tuple(chosen.choose()), tuple(leaks), tuple(unreadable))
    progress(0, folder.n_images)
    for number, _ in enumerate(rows, start=1):
        progress(number, folder.n_images)
    return Overview(folder, hierarchy, tally.finish(), tuple(chosen.choose()), None, ())


def _counted(folder: Folder, hierarchy: Hierarchy, tally: Tally, chosen: Samples) -> Iterator[Row]:
    """Pass the rows on, counting each."""
    for split in split_order(folder.splits):
        for row in folder.rows(split):
            for level, counts in ((hierarchy.fine, row.fine_counts), (hierarchy.coarse, row.coarse_counts)):
                beyond = [key for key in counts if int(key) >= len(level)]
                if beyond or row.split != split:
                    what = (
                        f"{row.key}: id {beyond[0]} of level {level.name}" if beyond else f"{row.key}: split {row.split!r}"
                    )
                    raise DataError(folder.manifest(split), f"{what} does not belong here", "run `hiposeg doctor` on it")
            tally.add(row)
            chosen.add(row)
            yield row


class _Look:
    """Takes the look of one photo, in whichever process."""

    def __init__(self, images_root: Path) -> None:
        self.images_root = images_root

    def __call__(self, row: Row) -> tuple[str, str, int | str]:
        try:
            return row.split, row.key, dhash(self.images_root / row.image_path)
        except DataError as error:
            return row.split, row.key, str(error)


def _near(
    folder: Folder, rows: Iterator[Row], workers: Workers, progress: Progress, tally: Tally
) -> tuple[list[Leak], list[str]]:
    looks, unreadable = [], []
    for split, key, look in mapped(
        _Look(folder.images_root), rows, total=folder.n_images, workers=workers, progress=progress
    ):
        if isinstance(look, str):
            unreadable.append(look)
        else:
            looks.append((split, key, look))
    looks = [entry for entry in looks if entry[:2] not in tally.duplicates.leaking]
    near = near_duplicates([look for _, _, look in looks], [split for split, _, _ in looks], [key for _, key, _ in looks])
    return near, unreadable


# -- JSON --------------------------------------------------------------------------------------------------------------


def overview_json(overview: Overview) -> dict[str, Any]:
    """The data of `hiposeg inspect --json`."""
    numbers, near = overview.statistics, overview.near
    return {
        "root": str(overview.folder.root), "hierarchy": overview.hierarchy.name, "images": dict(numbers.images),
        "objects": numbers.objects, "pixels": {split: dict(counts) for split, counts in numbers.pixels.items()},
        "ignore_share": {split: counts["ignore_px"] / max(1, counts["total"]) for split, counts in numbers.pixels.items()},
        "levels": {name: [_class_json(entry) for entry in classes] for name, classes in numbers.levels.items()},
        "imbalance": {name: _imbalance_json(entry) for name, entry in numbers.imbalance.items()},
        "cooccurrence": {
            "level": overview.hierarchy.coarse.name, "names": overview.hierarchy.coarse.names,
            "images": numbers.cooccurrence.tolist(),
        },
        "sizes": _sizes_json(numbers), "warnings": numbers.warnings,
        "leaks": {
            "same_file": [{"split": a, "other_split": b, "images": n} for (a, b), n in sorted(numbers.leaked.items())],
            "repeated": dict(numbers.repeated), "examples": [_leak_json(leak) for leak in numbers.leaks[:50]],
            "near": None if near is None else [_leak_json(leak) for leak in near],
            "unreadable": list(overview.unreadable),
        },
        "samples": [{"split": row.split, "key": row.key} for row in overview.samples],
    }  # fmt: skip


def _class_json(entry: ClassStatistics) -> dict[str, Any]:
    smallest, median, largest = entry.region or (None, None, None)
    return {
        "id": entry.id, "name": entry.name, "parent": entry.parent, "color": list(entry.color), "kind": entry.kind,
        "pixels": dict(entry.pixels), "images": dict(entry.images),
        "region_px": {"min": smallest, "median": median, "max": largest},
    }  # fmt: skip


def _imbalance_json(entry: Imbalance) -> dict[str, Any]:
    return {
        "split": entry.split, "ratio": entry.ratio, "rarest_third": list(entry.rarest),
        "rarest_third_share": entry.rarest_share, "absent": list(entry.absent),
    }  # fmt: skip


def _sizes_json(numbers: Statistics) -> dict[str, Any] | None:
    if numbers.sizes is None:
        return None
    named = {axis: dict(zip(("min", "median", "max"), getattr(numbers.sizes, axis), strict=True))
             for axis in ("width", "height")}  # fmt: skip
    commonest = [{"width": w, "height": h, "images": count} for (w, h), count in numbers.sizes.commonest]
    return {**named, "commonest": commonest, "distinct": numbers.sizes.distinct}


def _leak_json(leak: Leak) -> dict[str, Any]:
    return {"split": leak.split, "key": leak.key, "other_split": leak.other_split, "other_key": leak.other_key,
            "distance": leak.distance}  # fmt: skip
