"""CSV files of an evaluation: one row a class, and confusion matrices of every level and inside every parent."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.errors import ConfigError, DataError, OutputError
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.metrics.values import Matrix

_OF_CLASSES = ("iou", "accuracy", "precision", "dice")
_OF_OBJECTS = (("pq", "pq"), ("sq", "pq"), ("rq", "pq"), ("part_pq", "part_pq"))


@dataclass(frozen=True)
class ConfusionTable:
    """One confusion matrix with its names.

    Attributes:
        level: whose classes it is of.
        title: the level, or the level inside a parent.
        file_name: without folder.
        rows: true classes; `columns` predicted ones, `elsewhere` (a class of another parent) and `void`.
        counts: (rows, columns) int64 pixels.
    """

    level: str
    title: str
    file_name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Matrix

    def csv(self) -> bytes:
        """The file: true classes down, predicted ones across."""
        lines = [["true \\ predicted", *self.columns]]
        lines += [[name, *map(str, counts)] for name, counts in zip(self.rows, self.counts.tolist(), strict=True)]
        return _csv(lines)


def confusion_tables(result: EvalResult) -> list[ConfusionTable]:
    """The matrix of each level, finest first, and after each those inside the parents with several children on it."""
    tables = []
    for depth, level in enumerate(result.hierarchy.levels):
        matrix, names = result.matrix(depth), tuple(level.names)
        tables.append(ConfusionTable(level.name, level.name, f"{_safe(level.name)}.csv", names, (*names, "void"), matrix))
        above = result.hierarchy.levels[depth + 1].nodes if depth + 1 < len(result.hierarchy.levels) else ()
        for parent in above:
            ids = [node.id for node in level.nodes if node.parent == parent.name]
            if len(ids) > 1:
                file_name = f"{_safe(level.name)}_in_{parent.id}_{_safe(parent.name)}.csv"
                rows, title = tuple(names[k] for k in ids), f"{level.name} in {parent.name}"
                tables.append(
                    ConfusionTable(level.name, title, file_name, rows, (*rows, "elsewhere", "void"), _inside(matrix, ids))
                )
    return tables


def _inside(matrix: Matrix, ids: list[int]) -> Matrix:
    """(K, K + 2) of some classes: themselves, all other classes, void."""
    rows = matrix[ids]
    own, void = rows[:, ids], rows[:, -1:]
    return np.concatenate([own, rows[:, :-1].sum(axis=1, keepdims=True) - own.sum(axis=1, keepdims=True), void], axis=1)


def write_confusion(folder: Path, tables: Iterable[ConfusionTable]) -> None:
    """Write one CSV a matrix."""
    for table in tables:
        write_bytes_atomic(folder / table.file_name, table.csv())


@dataclass(frozen=True)
class Outputs:
    """Where an evaluation writes to: the per-class CSV, a folder of confusion matrices, the page; None for none."""

    csv: Path | None = None
    confusion: Path | None = None
    page: Path | None = None

    def check(self, *, overwrite: bool) -> None:
        """Refuse what would be replaced, before the work: what is there, and one output by another.

        Raises: ConfigError, DataError, and OutputError for a place that cannot be written to.
        """
        flags = {"--confusion": self.confusion, "--csv": self.csv, "--html": self.page}  # what is inside a folder after it
        given = {flag: path for flag, path in flags.items() if path is not None}
        taken: dict[Path, str] = {}
        for flag, path in given.items():
            _require_free(path, flag, overwrite=overwrite, is_folder=flag == "--confusion")
            _require_writable(path)
            place = path.resolve()
            other = next((taken[spot] for spot in (place, *place.parents) if spot in taken), flag)
            taken[place] = flag
            if other != flag:
                raise ConfigError(f"{flag} {path}", f"is what {other} writes to", "name another file")

    def write(self, result: EvalResult) -> None:
        """Write the CSV files; the page is `report`'s."""
        if self.csv is not None:
            write_class_csv(self.csv, result.summary)
        if self.confusion is not None:
            write_confusion(self.confusion, confusion_tables(result))


def _require_free(path: Path, flag: str, *, overwrite: bool, is_folder: bool = False) -> None:
    """Refuse a file, or a folder that is not empty, that would be replaced, and one in the place of the other.

    Raises: DataError.
    """
    if path.exists() and path.is_dir() != is_folder:
        is_what, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise DataError(path, f"is {is_what}, and {flag} writes {wanted}", f"name {wanted}")
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not overwrite:
        raise DataError(path, "exists", f"pass --overwrite or another {flag}")


def _require_writable(path: Path) -> None:
    """Try the nearest folder that is there. Raises OutputError."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another folder") from None


def write_class_csv(path: Path, summary: Mapping[str, Any]) -> None:
    """One row a class; with the protocol own, upper levels under both protocols; then the curve of back-off, one row a
    threshold and level, where `level` any holds the accuracy of all that is said and the share of pixels it is said on."""
    rows = []
    for protocol, levels in ((summary["protocol"], summary["levels"]), ("merged", summary.get("merged", {}))):
        for level, scores in levels.items():
            beside = {} if levels is not summary["levels"] else _beside(summary, level)
            rows += [_class_row(level, protocol, entry) | beside.get(entry["name"], {}) for entry in scores["classes"]]
    for point in summary.get("curve", ()):
        said = {**point["levels"], "any": {"accuracy": point["accuracy"], "share": point["coverage"]}}
        rows += [{"level": level, "threshold": point["threshold"], **values} for level, values in said.items()]
    names = ["level", "id", "name", *_OF_CLASSES, "true_pixels", "predicted_pixels", "images", "sqiou"]
    names += [title for title, part in (("boundary_iou", "boundary"), ("iiou", "iiou"), *_OF_OBJECTS) if part in summary]
    names += ["protocol"] if "merged" in summary else []
    names += ["threshold", "share"] if "curve" in summary else []
    write_bytes_atomic(path, _csv([names, *([row.get(name, "") for name in names] for row in rows)]))


def _class_row(level: str, protocol: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    counts = {"true_pixels": entry["pixels"], "predicted_pixels": entry["predicted"]}
    return {"level": level, "protocol": protocol, **{key: entry[key] for key in ("id", "name", *_OF_CLASSES)}, **counts}


def _beside(summary: Mapping[str, Any], level: str) -> dict[str, dict[str, Any]]:
    """Class name -> what other parts of the summary say of it."""
    found = {
        entry["name"]: {"images": entry["images"], "sqiou": entry["sqiou"]} for entry in summary["sqiou"][level]["classes"]
    }
    for entry in summary.get("boundary", {}).get(level, {}).get("classes", ()):
        found[entry["name"]]["boundary_iou"] = entry["boundary_iou"]
    for name, value in summary.get("iiou", {}).get(level, {}).get("classes", {}).items():
        found[name]["iiou"] = value
    for entry in summary.get("pq", {}).get(level, {}).get("classes", ()):
        found[entry["name"]] |= {key: entry[key] for key in ("pq", "sq", "rq")}
    for entry in summary.get("part_pq", {}).get(level, {}).get("classes", ()):
        found[entry["name"]]["part_pq"] = entry["pq"]
    return found


def _csv(lines: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
