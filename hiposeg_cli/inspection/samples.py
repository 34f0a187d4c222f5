"""Choosing the images that are shown: every coarse class once where possible, then images spread over the dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

from hiposeg_cli.store import Row

_PER_CLASS = 3
_PLENTY = 0.2  # a class that fills this share of an image is well seen


@dataclass
class Samples:
    """Remembers a few good images of every coarse class while rows stream by.

    Args:
        count: how many images to choose.
        n_images: of the dataset, for the spread.
    """

    count: int
    n_images: int
    _best: dict[int, list[tuple[float, int, Row]]] = field(default_factory=dict)
    _spread: list[tuple[int, Row]] = field(default_factory=list)
    _number: int = 0

    def add(self, row: Row) -> None:
        if self.count < 1:
            return
        variety = 0.01 * len(row.fine_counts)
        for key in row.coarse_counts:
            score = _visible(row, key) + variety
            best = self._best.setdefault(int(key), [])
            best.append((-score, self._number, row))
            best.sort(key=lambda entry: entry[:2])
            del best[_PER_CLASS:]
        if self._number % max(1, self.n_images // self.count) == 0:
            self._spread.append((self._number, row))
        self._number += 1

    def choose(self) -> list[Row]:
        """At most `count` rows, in the order of the dataset: greedily those that show most classes not shown yet."""
        candidates = {number: row for best in self._best.values() for _, number, row in best}
        wanted = set(self._best)
        chosen: dict[int, Row] = {}
        while wanted and len(chosen) < self.count:
            gain = {number: _gain(row, wanted) for number, row in candidates.items()}
            number = max(gain, key=lambda number: (*gain[number], -number))
            chosen[number] = candidates.pop(number)
            wanted -= _classes(chosen[number])
        for number, row in self._spread:
            if len(chosen) < self.count:
                chosen.setdefault(number, row)
        return [chosen[number] for number in sorted(chosen)]


def _visible(row: Row, key: str) -> float:
    """How well a class is seen, 0 to `_PLENTY`."""
    return min(row.coarse_counts[key] / (row.width * row.height), _PLENTY)


def _gain(row: Row, wanted: set[int]) -> tuple[int, float]:
    """How many of the wanted classes an image shows, and how well."""
    shown = _classes(row) & wanted
    return len(shown), sum(_visible(row, str(class_id)) for class_id in shown)


def _classes(row: Row) -> set[int]:
    return {int(key) for key, pixels in row.coarse_counts.items() if pixels}
