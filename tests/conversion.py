"""Converting raw data in a test, and what is said against raw data that cannot be converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.store import Dataset, Row, open_dataset


def _options(hierarchy: object, reader: dict[str, Any]) -> PrepareOptions:
    return PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))


def converted(format_name: str, root: Path, out: Path, hierarchy: object = None, **reader: Any) -> Dataset:
    """Prepare everything; the format's own taxonomy unless another is named."""
    result = prepare(format_name, root, out, _options(hierarchy, reader))
    assert [str(error) for error in result.failures] == []
    return open_dataset(out)


def complaint(format_name: str, root: Path, hierarchy: object = None, **reader: Any) -> str:
    """The one thing `prepare` says against a source, raised or collected; any other exception fails the test."""
    try:
        result = prepare(format_name, root, None, _options(hierarchy, reader))
    except HiposegError as error:
        said = str(error)
    else:
        assert result.failures, "nothing was refused"
        said = str(result.failures[0])
    assert "\n" not in said
    return said


def rows_of(dataset: Dataset) -> list[Row]:
    return [row for rows in dataset.rows.values() for row in rows]


def only(dataset: Dataset) -> Row:
    (row,) = rows_of(dataset)
    return row


def keys_by_split(dataset: Dataset) -> dict[str, list[str]]:
    return {split: [row.key for row in rows] for split, rows in dataset.rows.items()}
