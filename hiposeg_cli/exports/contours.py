"""Outlines of pixel regions along the pixel borders, and their holes joined in by bridges of no width.

Points are (x, y) corners of pixels: pixel (x, y) covers the square from (x, y) to (x + 1, y + 1). Outlines run clockwise
as seen on the screen, holes the other way round, so that filling by either rule (even-odd or non-zero) gives the region.
Pixels that meet at a corner only are not connected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Points = NDArray[np.int64]
"""(N, 2) int64 corners (x, y) of a closed line, the first not repeated."""


@dataclass(frozen=True)
class Region:
    """One connected region: its outline and those of its holes."""

    outline: Points
    holes: tuple[Points, ...]

    def joined(self) -> Points:
        """One closed line around the region that leads to each hole and back along the same way."""
        line = self.outline
        turned = [np.roll(hole, -np.lexsort((hole[:, 1], hole[:, 0]))[0], axis=0) for hole in self.holes]
        for hole in sorted(turned, key=lambda points: (int(points[0, 0]), int(points[0, 1]))):
            line = _bridge_left(line, hole)
        return line


def regions_of(mask: NDArray[np.bool_]) -> list[Region]:
    """The connected regions of a (H, W) mask, in the order of their first pixels, row by row."""
    labels, _ = ndimage.label(mask)
    outlines: dict[int, Points] = {}
    holes: dict[int, list[Points]] = {}
    for points in _loops(mask):
        x, y = points[0]  # every loop starts with a line to the right, which has its region below
        region = int(labels[y, x])
        if region in outlines:
            holes.setdefault(region, []).append(points)
        else:  # of all loops of a region, the one around it comes first
            outlines[region] = points
    return [Region(outline, tuple(holes.get(region, ()))) for region, outline in outlines.items()]


def join_lines(lines: Iterable[Points]) -> Points:
    """One closed line through several, from the first corner of each to the nearest corner of those before it."""
    joined, *others = lines
    for line in others:
        nearest = int(np.abs(joined - line[0]).sum(axis=1).argmin())
        joined = _insert(joined, nearest + 1, joined[nearest], line)
    return joined


def area(points: Points) -> int:
    """Pixels inside a closed line: positive for outlines, negative for holes, the difference for joined lines."""
    x, y = points[:, 0], points[:, 1]
    return int((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) // 2


def _loops(mask: NDArray[np.bool_]) -> list[Points]:
    """All closed border lines with the mask on their right, each from its first line to the right, row by row."""
    n_columns = mask.shape[1] + 1
    n_corners = (mask.shape[0] + 1) * n_columns
    lines, following = _unit_lines(mask)
    directions, corners = (part.tolist() for part in np.divmod(lines, n_corners))
    successors = following.tolist()
    seen = bytearray(len(successors))
    loops = []
    for start in range(int(np.searchsorted(lines, n_corners))):  # the lines to the right come first
        position, before, found = start, -1, []
        while not seen[position]:
            seen[position] = 1
            if directions[position] != before:
                found.append(corners[position])
                before = directions[position]
            position = successors[position]
        if found:
            y, x = np.divmod(np.array(found, dtype=np.int64), n_columns)
            loops.append(np.stack([x, y], axis=1))
    return loops


def _unit_lines(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Border lines one pixel long, and the position of the line that follows each.

    Directions are 0 right, 1 down, 2 left, 3 up. At a corner where two pixels meet, the line turns right and so stays
    with its own pixel.

    Returns: direction * number of corners + start corner, ascending; and positions in that array. Both (N,) int64.
    """
    padded = np.pad(mask, 1)
    above_left, above = padded[:-1, :-1], padded[:-1, 1:]
    left, here = padded[1:, :-1], padded[1:, 1:]
    leaves = np.stack([here & ~above, left & ~here, above_left & ~left, above & ~above_left])
    n_corners = here.size
    leaves = leaves.reshape(4, n_corners)
    lines = np.flatnonzero(leaves).astype(np.int64)
    direction, corner = np.divmod(lines, n_corners)
    n_columns = mask.shape[1] + 1
    end = corner + np.array([1, n_columns, -1, -n_columns])[direction]
    right, left_turn = (direction + 1) % 4, (direction + 3) % 4
    turned = np.where(leaves[right, end], right, np.where(leaves[direction, end], direction, left_turn))
    return lines, np.searchsorted(lines, turned * n_corners + end).astype(np.int64)


def _bridge_left(line: Points, hole: Points) -> Points:
    """Join a hole that starts with its leftmost corner: straight to the left, to whatever line comes first."""
    x, y = hole[0]
    ends = np.roll(line, -1, axis=0)
    low, high = np.minimum(line[:, 1], ends[:, 1]), np.maximum(line[:, 1], ends[:, 1])
    met = (line[:, 0] == ends[:, 0]) & (low <= y) & (y <= high) & (line[:, 0] < x)
    place = int(np.where(met, line[:, 0], -1).argmax())
    assert met[place], "a hole lies inside its outline"
    return _insert(line, place + 1, np.array([line[place, 0], y]), hole)


def _insert(line: Points, place: int, at: Points, loop: Points) -> Points:
    """Leave a line at a point on it, go round a loop, and come back to the point."""
    before, after = line[:place], line[place:]
    there = [] if (before[-1] == at).all() else [at[None]]
    back = [] if (line[place % len(line)] == at).all() else [at[None]]
    return np.concatenate([before, *there, loop, loop[:1], *back, after])
