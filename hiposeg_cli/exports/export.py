"""Prepared dataset -> a folder in another tool's layout: the one function behind `hiposeg export`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from hiposeg_cli.exports.base import Exporter, ExportOptions, Results
from hiposeg_cli.exports.folder import MARKER, staged, write_json
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.pool import Progress, Workers, mapped
from hiposeg_cli.registry import EXPORTS
from hiposeg_cli.store import Dataset, Row


@dataclass(frozen=True)
class Exported:
    """What was written; also the content of the export's marker file.

    Attributes:
        level: `fine`, `coarse` or `both`.
        images: how the photos got into the export.
        splits: images by split.
        warnings: what the layout could not hold or was changed for it, in words.
    """

    layout: str
    level: str
    images: str
    splits: dict[str, int]
    hierarchy: str
    hierarchy_digest: str
    warnings: list[str]


def export(
    dataset: Dataset, layout: str, out: Path, options: ExportOptions, *,
    overwrite: bool = False, progress: Progress = lambda done, total: None,
) -> Exported:  # fmt: skip
    """Write a prepared dataset in another tool's layout.

    Args:
        layout: a name of `registry.EXPORTS`.
        out: a new folder; it appears when the export is complete, never before.
        overwrite: replace an earlier export in `out`.
        progress: called with (images done, images in all).
    Raises: HiposegError for an unknown layout, an option it does not take, unreadable data or an unusable `out`.
    """
    exporter_class: type[Exporter[object]] = EXPORTS.load(layout)
    exporter = exporter_class(dataset, options)
    exporter.check_folder(out)
    with staged(out, dataset.root, overwrite=overwrite) as folder:
        exporter.write(folder, _results(exporter, folder, options.workers, progress))
        write_bytes_atomic(folder / "hiposeg" / "hierarchy.yaml", (dataset.root / "hierarchy.yaml").read_bytes())
        exported = Exported(
            layout, exporter.level or "both", exporter.images or "", _counts(exporter),
            dataset.hierarchy.name, dataset.hierarchy.digest, exporter.warnings,
        )  # fmt: skip
        marker = {"format": "hiposeg-export", "format_version": 1, "hiposeg": version("hiposeg-cli"), **asdict(exported)}
        write_json(folder / MARKER, marker)
    return exported


def _results(exporter: Exporter[object], folder: Path, workers: int, progress: Progress) -> Results[object]:
    """Convert the rows of a split when they are asked for, in order, a bounded number in flight."""
    total, done = len(exporter.rows()), 0
    progress(0, total)

    def results(split: str) -> Iterator[tuple[Row, object]]:
        nonlocal done
        rows = exporter.dataset.split(split)
        job = partial(exporter.convert, folder=folder)
        found = mapped(job, rows, total=len(rows), workers=Workers(workers), progress=lambda *_: None)
        for row, result in zip(rows, found, strict=True):
            yield row, result
            done += 1
            progress(done, total)

    return results


def _counts(exporter: Exporter[object]) -> dict[str, int]:
    return {split: len(exporter.dataset.split(split)) for split in exporter.splits}
