"""One picture in two splits: exactly, by the hash of its file, and nearly, by a 64-bit difference hash.

Splits are ranked, `train` first; a picture leaks when an equal or near-equal one is in a split of lower rank.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.errors import DataError
from hiposeg_cli.image_file import image_header

MAX_DISTANCE = 4  # bits of 64 in which near-duplicates may differ
_BITS = 64
_FEW = 256  # compared with each other at once
_CELLS = 4_000_000  # of one table of distances


@dataclass(frozen=True)
class Leak:
    """A picture of `split` that is also, or nearly (`distance` bits of 64), in `other_split`."""

    split: str
    key: str
    other_split: str
    other_key: str
    distance: int = 0


def split_order(splits: Iterable[str]) -> list[str]:
    """Splits with `train` first, then by name."""
    return sorted(splits, key=lambda split: (split != "train", split))


@dataclass
class Duplicates:
    """Finds equal files; takes the rows split by split, in the order of `split_order`.

    Attributes:
        leaked: (split, other split) -> pictures in both.
        repeated: split -> pictures that occur in it more than once.
        leaking: (split, key) of the pictures that are also in an earlier split.
    """

    leaked: Counter[tuple[str, str]] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    leaking: set[tuple[str, str]] = field(default_factory=set)
    _first: dict[bytes, tuple[str, str]] = field(default_factory=dict)

    def add(self, split: str, key: str, sha256: str) -> Leak | None:
        """Record one picture; returns where it leaks to."""
        try:
            digest = bytes.fromhex(sha256)[:16]
        except ValueError:  # not a hash, which another check reports
            return None
        other_split, other_key = self._first.setdefault(digest, (split, key))
        if (other_split, other_key) == (split, key):
            return None
        if other_split == split:
            self.repeated[split] += 1
            return None
        self.leaked[split, other_split] += 1
        self.leaking.add((split, key))
        return Leak(split, key, other_split, other_key)


def dhash(path: Path) -> int:
    """64-bit difference hash: of 8 rows of 9 grey cells, which get brighter to the right.

    Survives resizing and recompression. Raises DataError when the picture cannot be decoded.
    """
    try:
        with image_header(path) as image:
            image.draft("L", (144, 128))  # a JPEG is decoded at a fraction of its size
            grey = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image
            cells = np.asarray(grey.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(path, f"cannot be decoded ({error})", "replace the photo") from None
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def near_duplicates(
    hashes: Sequence[int], splits: Sequence[str], keys: Sequence[str], max_distance: int = MAX_DISTANCE
) -> list[Leak]:
    """For every picture the nearest one of an earlier split, where it differs in at most `max_distance` bits.

    Pictures without any structure (all bits equal) match everything flat and are left out.
    """
    rank = {split: number for number, split in enumerate(split_order(set(splits)))}
    values = np.array(hashes, dtype=np.uint64)
    ranks = np.array([rank[split] for split in splits], dtype=np.int16)
    flat = np.isin(values, np.array([0, 2**_BITS - 1], dtype=np.uint64))
    # Equal pictures of one split are one entry: the first stands for all.
    kept: dict[tuple[int, int], list[int]] = {}
    for place in np.flatnonzero(~flat).tolist():
        kept.setdefault((int(values[place]), int(ranks[place])), []).append(place)
    first = np.array([places[0] for places in kept.values()], dtype=np.int64)
    search = _Search(values[first], ranks[first], max_distance)
    search.run(np.arange(len(first)), np.arange(_BITS))
    names = list(rank)
    found = []
    for entry in np.flatnonzero(search.distance <= max_distance).tolist():
        partner = int(first[search.partner[entry]])
        for place in kept[int(values[first[entry]]), int(ranks[first[entry]])]:
            distance = int(search.distance[entry])
            found.append(Leak(splits[place], keys[place], names[ranks[partner]], keys[partner], distance))
    return sorted(found, key=lambda leak: (leak.distance, rank[leak.split], leak.key))


class _Search:
    """Nearest entry of a lower rank, by bands: codes within d bits of each other agree wholly on one of d + 1 bands."""

    def __init__(self, codes: NDArray[np.uint64], ranks: NDArray[np.int16], max_distance: int) -> None:
        self.codes, self.ranks, self.n_bands = codes, ranks, max_distance + 1
        self.distance = np.full(len(codes), _BITS + 1, dtype=np.uint8)
        self.partner = np.full(len(codes), -1, dtype=np.int64)

    def run(self, members: NDArray[np.int64], bits: NDArray[np.int64]) -> None:
        """Compare the members, which agree on all but `bits`: all pairs, or band by band where that is cheaper."""
        if len(members) < 2 or np.ptp(self.ranks[members]) == 0:
            return
        if len(members) <= _FEW:
            self._compare(members)
            return
        groups = [(self._groups(members, band), band) for band in self._bands(bits)]
        cost = sum(len(group) ** 2 for split_up, _ in groups for group in split_up)
        if 2 * cost > len(members) ** 2:
            self._compare(members)
            return
        for split_up, band in groups:
            rest = np.setdiff1d(bits, band)
            for group in split_up:
                self.run(group, rest)

    def _bands(self, bits: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Every n-th bit makes a band, since neighbouring bits are alike."""
        return [bits[start :: self.n_bands] for start in range(self.n_bands)]

    def _groups(self, members: NDArray[np.int64], band: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Members that agree on a band, in groups of two or more."""
        mask = np.uint64(sum(1 << int(bit) for bit in band))
        values = self.codes[members] & mask
        order = np.argsort(values, kind="stable")
        edges = np.flatnonzero(np.diff(values[order])) + 1
        return [members[group] for group in np.split(order, edges) if len(group) > 1]

    def _compare(self, members: NDArray[np.int64]) -> None:
        step = max(1, _CELLS // len(members))
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            apart = np.bitwise_count(self.codes[rows, None] ^ self.codes[None, members])
            apart[self.ranks[None, members] >= self.ranks[rows, None]] = _BITS + 1
            nearest = apart.argmin(axis=1)
            distance = apart[np.arange(len(rows)), nearest]
            better = distance < self.distance[rows]
            self.distance[rows[better]] = distance[better]
            self.partner[rows[better]] = members[nearest[better]]
