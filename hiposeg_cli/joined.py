"""Several prepared datasets trained as one, under one hierarchy, each labelled as deeply as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.labelmap import TwoLevelMap
from hiposeg_cli.store import Dataset, Row


@dataclass(frozen=True, slots=True)
class _PartRow(Row):
    """A row that knows which of the datasets holds it."""

    part: int = 0


@dataclass(frozen=True)
class JoinedDataset(Dataset):
    """The training images of several datasets, and every other split of the first.

    Attributes:
        parts: the datasets.
    """

    parts: tuple[Dataset, ...] = ()

    def image(self, row: Row) -> NDArray[np.uint8]:
        return self._part(row).image(row)

    def labels(self, row: Row) -> TwoLevelMap:
        return self._part(row).labels(row)

    def instances(self, row: Row) -> NDArray[np.uint16] | None:
        return self._part(row).instances(row)

    def _part(self, row: Row) -> Dataset:
        return self.parts[row.part if isinstance(row, _PartRow) else 0]


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """One dataset of several. Raises HierarchyError unless they share one tree."""
    first, *others = datasets
    if not others:
        return first
    train: list[Row] = []
    for number, dataset in enumerate(datasets):
        first.hierarchy.require_same(dataset.hierarchy, mine=first.root, theirs=dataset.root)
        fields = Row.__dataclass_fields__
        train += [_PartRow(**{name: getattr(row, name) for name in fields}, part=number) for row in dataset.split("train")]
    by_parent = all(dataset.coarse_is_function_of_fine for dataset in datasets)
    rows = first.rows | {"train": tuple(train)}
    return JoinedDataset(first.root, first.hierarchy, first.images_root, rows, by_parent, tuple(datasets))
