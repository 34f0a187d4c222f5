"""Raw ids -> two-level map: one table per level, applied to whole images, with every unknown id counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, label_dtype

MAX_RAW_ID = 1_000_000  # a look-up table holds every id up to the largest
Target = tuple[int | None, int | None]
"""(fine id, coarse id) of a raw id; None is ignore on that level."""


@dataclass(frozen=True)
class Tally:
    """Pixels of one image by class, counted before anything is painted.

    Attributes:
        fine, coarse: class id -> pixels, absent classes left out.
        ignore_px: pixels that are ignore on both levels.
        coarse_only_px: pixels with a coarse class and no fine one.
        unknown_px: pixels whose raw id the hierarchy does not know, ignored because that was asked for.
    """

    fine: dict[int, int]
    coarse: dict[int, int]
    ignore_px: int
    coarse_only_px: int
    unknown_px: int


class LookUp:
    """The two look-up tables of a source.

    Args:
        targets: raw id -> (fine id or None, coarse id or None); None is ignore on that level.
        hierarchy: fixes the label types.
        where: what names the raw ids, for messages.
        ignore_unknown: ids without a target become ignore instead of an error.
    """

    def __init__(
        self,
        targets: Mapping[int, Target],
        hierarchy: Hierarchy,
        where: object = "label ids",
        *,
        ignore_unknown: bool = False,
    ) -> None:
        for raw_id, (fine_id, coarse_id) in targets.items():
            if abs(raw_id) > MAX_RAW_ID:
                raise DataError(where, f"the label id {raw_id} is beyond {MAX_RAW_ID}", "number the raw classes from 0 or 1")
            assert fine_id is None or hierarchy.parent[fine_id] == coarse_id, (raw_id, fine_id, coarse_id)
        self.ignore_unknown = ignore_unknown
        self.offset = min((0, *targets))
        size = max((0, *targets)) - self.offset + 1
        fine_type, coarse_type = label_dtype(hierarchy.n_fine), label_dtype(hierarchy.n_coarse)
        self.fine: LabelArray = np.full(size, ignore_value(fine_type), dtype=fine_type)
        self.coarse: LabelArray = np.full(size, ignore_value(coarse_type), dtype=coarse_type)
        self.known = np.zeros(size, dtype=bool)
        for raw_id, (fine_id, coarse_id) in targets.items():
            slot = raw_id - self.offset
            self.known[slot] = True
            if fine_id is not None:
                self.fine[slot] = fine_id
            if coarse_id is not None:
                self.coarse[slot] = coarse_id

    def encode(self, raw: NDArray[np.integer], where: object) -> TwoLevelMap:
        """Look every raw id up.

        Args:
            raw: (H, W) any integer type, ids as published.
        Raises: DataError naming the unknown ids and their pixel counts.
        """
        return self.encode_and_tally(raw, where)[0]

    def encode_and_tally(self, raw: NDArray[np.integer], where: object) -> tuple[TwoLevelMap, Tally]:
        """Look every raw id up, and count the classes from the counts of the raw ids; see `encode`."""
        values, lengths = _runs(raw)
        slots = values.astype(np.intp) - self.offset
        outside = (slots < 0) | (slots >= len(self.known))
        beyond = _weighted_counts(values[outside], lengths[outside])
        slots[outside] = len(self.known)
        counts = np.bincount(slots, weights=lengths, minlength=len(self.known) + 1).astype(np.int64)  # exact below 2**53
        tally = self._tally(counts[:-1], beyond, where)
        fine: LabelArray = _extended(self.fine)[slots].repeat(lengths).reshape(raw.shape)
        coarse: LabelArray = _extended(self.coarse)[slots].repeat(lengths).reshape(raw.shape)
        return TwoLevelMap(fine, coarse), tally

    def _tally(self, counts: NDArray[np.int64], beyond: Mapping[int, int], where: object) -> Tally:
        """Class counts from the pixels of each slot, and of the ids beyond the table."""
        strangers = np.flatnonzero(~self.known & (counts > 0))
        beyond_px = sum(beyond.values())
        unknown_px = int(counts[strangers].sum()) + beyond_px
        if unknown_px and not self.ignore_unknown:
            found = dict(zip((strangers + self.offset).tolist(), counts[strangers].tolist(), strict=True))
            raise _unknown(found | dict(beyond), where)
        ignored = (self.fine == ignore_value(self.fine.dtype)), (self.coarse == ignore_value(self.coarse.dtype))
        return Tally(
            fine=_by_class(counts, self.fine), coarse=_by_class(counts, self.coarse), unknown_px=unknown_px,
            ignore_px=int(counts[ignored[0] & ignored[1]].sum()) + beyond_px,
            coarse_only_px=int(counts[ignored[0] & ~ignored[1]].sum()),
        )  # fmt: skip


def _extended(table: LabelArray) -> LabelArray:
    """A table with one slot more, ignore, where ids beyond it point."""
    longer: LabelArray = np.full(len(table) + 1, ignore_value(table.dtype), dtype=table.dtype)
    longer[:-1] = table
    return longer


def _runs(ids: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Values and lengths of the runs of equal ids: looking up a run instead of its pixels is several times faster."""
    flat = ids.ravel()
    starts = np.concatenate((np.zeros(min(1, flat.size), dtype=np.intp), np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return flat[starts], np.diff(starts, append=flat.size)


def _weighted_counts(values: NDArray[np.integer], lengths: NDArray[np.int64]) -> dict[int, int]:
    """Value -> pixels of its runs."""
    ids, which = np.unique(values, return_inverse=True)
    pixels = np.bincount(which, weights=lengths, minlength=len(ids)).astype(np.int64)
    return dict(zip(ids.tolist(), pixels.tolist(), strict=True))


def _by_class(counts: NDArray[np.int64], table: LabelArray) -> dict[int, int]:
    """Class id -> pixels, from the pixels of each raw id."""
    totals = np.bincount(table, weights=counts, minlength=1)  # exact: float64 holds every count below 2**53
    totals[ignore_value(table.dtype) :] = 0
    return {int(class_id): int(totals[class_id]) for class_id in np.flatnonzero(totals)}


def _unknown(found: Mapping[int, int], where: object) -> DataError:
    ids = sorted(found)
    listed = ", ".join(f"{raw_id} ({found[raw_id]} px)" for raw_id in ids[:5])
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    if ids == [255]:
        cure = "if 255 is ignore here, add `ignore: [255]` to the source of the hierarchy"
    else:
        cure = "map them or list them under `ignore` in the source of the hierarchy, or pass --unknown ignore"
    return DataError(where, f"label ids unknown to the hierarchy: {listed}{more}", cure)
