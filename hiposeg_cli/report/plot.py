"""A picture of a taxonomy: columns of names for small ones and DAGs, rings for trees of many classes.

All coordinates are points, so that a letter takes the same room in every picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import ClassNode, Color, Dag, Hierarchy, Level, Taxonomy

KINDS = ("png", "svg")
_MOST_IN_COLUMNS = 60
_DPI, _MOST_PX = 150, 8000  # fewer dots an inch for a picture that would be larger
_FONT, _TITLE_FONT = 9.0, 15.0
_MARGIN, _HEAD = 26.0, 76.0
_ROW, _GAP, _PILL, _PAD, _BEND, _WIDE_BEND = 17.0, 7.0, 13.5, 6.0, 70.0, 150.0  # of the columns
_LEAF, _RING_FONT, _RING_PAD, _RIM = 10.5, 8.0, 7.0, 9.0  # of the rings; _LEAF is one class's share of a circle
_GREY = "#666666"


def render_plot(taxonomy: Taxonomy, path: Path) -> bytes:
    """The PNG or SVG file of a taxonomy's picture, whichever the name of `path` asks for.

    Raises: ConfigError for another suffix, or where matplotlib is missing.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise ConfigError(path, "is neither a .png nor a .svg file", "choose a name that ends in .png or .svg")
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("hierarchy plot", "needs matplotlib", "pip install 'hiposeg-cli[plot]'") from None
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hiposeg", "svg.fonttype": "none"}):  # the same bytes every time
        figure = draw(taxonomy)
        dpi = min(_DPI, _MOST_PX / max(figure.get_size_inches()))
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def draw(taxonomy: Taxonomy) -> Any:
    """The picture as a matplotlib figure."""
    if isinstance(taxonomy, Hierarchy) and len(taxonomy.fine) > _MOST_IN_COLUMNS:
        return _Rings(taxonomy).figure()
    return _Columns(taxonomy).figure()


class _Page:
    """A white page measured in points, with the origin at the lower left."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height = height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """A label; names are shown as they are, dollar signs included."""
        options: dict[str, Any] = {"fontsize": _FONT, "va": "center_baseline", "rotation_mode": "anchor"}
        self.axes.text(x, y, words, parse_math=False, **options | style)


def _width(words: str, size: float, weight: str = "normal") -> float:
    """Width of a text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight=weight)
    return float(TextToPath().get_text_width_height_descent(words, font, ismath=False)[0])


def _rgb(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _luminance(color: Color) -> float:
    red, green, blue = color
    return (299 * red + 587 * green + 114 * blue) / 255_000


def _ink(color: Color) -> str:
    """Black or white, whichever is read on a colour."""
    return "white" if _luminance(color) < 0.55 else "black"


def _edge(color: Color) -> Any:
    """A line around a patch: grey where the patch alone would fade into the page."""
    return "#bbbbbb" if _luminance(color) > 0.85 else _rgb(color)


def _counts(taxonomy: Taxonomy) -> str:
    return ", ".join(f"{len(level)} {level.name}" for level in taxonomy.levels)


# -- columns -----------------------------------------------------------------------------------------------------------


@dataclass
class _Column:
    """One level, or one axis of a level: its classes from top to bottom, and where they stand."""

    title: str
    nodes: list[ClassNode]
    y: dict[str, float] = field(default_factory=dict)
    left: float = 0.0

    @cached_property
    def width(self) -> float:
        return max(_width(node.name, _FONT) for node in self.nodes) + 2 * _PAD


class _Columns:
    """The coarsest level on the left, the finest on the right; the further axes of a DAG follow behind it."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        fine, *above = taxonomy.levels
        axes: list[str | None] = [None]
        if isinstance(taxonomy, Dag):
            axes = sorted(taxonomy.axes, key=lambda axis: axis != taxonomy.projection)
        self.before = [column for level in reversed(above) if (column := _on_axis(level, axes[0])).nodes]
        self.behind = [
            [column for level in above if (column := _on_axis(level, axis)).nodes] for axis in axes[1:]
        ]  # by axis, from the fine level upwards
        self.fine = _Column(fine.name, list(fine.nodes))
        for upper, lower in itertools.pairwise([*self.before, self.fine]):
            order = {node.name: number for number, node in enumerate(upper.nodes)}
            lower.nodes.sort(key=lambda node, order=order: (_first_parent(node, order), node.id))  # type: ignore[misc]

    def figure(self) -> Any:
        columns = [*self.before, self.fine, *(column for axis in self.behind for column in axis)]
        lowest = self._place()
        left = _MARGIN
        for column in columns:
            column.left = left
            left += column.width + (_BEND if column in self.before or not self.behind else _WIDE_BEND)
        title = max(_width(self.taxonomy.name, _TITLE_FONT, "bold"), _width(_counts(self.taxonomy), _FONT))
        height = _HEAD - lowest + _MARGIN
        right = max(columns[-1].left + columns[-1].width, _MARGIN + title)
        page = _Page(right + _MARGIN, height)
        page.text(_MARGIN, height - 24, self.taxonomy.name, fontsize=_TITLE_FONT, weight="bold")
        page.text(_MARGIN, height - 40, _counts(self.taxonomy), color=_GREY)
        for column in columns:
            column.y = {name: height - _HEAD + y for name, y in column.y.items()}
        for upper, lower in itertools.pairwise([*self.before, self.fine]):
            _draw_lines(page, upper, lower)
        for axis in self.behind:
            for lower, upper in itertools.pairwise([self.fine, *axis]):
                _draw_lines(page, upper, lower)
        for column in columns:
            _draw_column(page, column)
        return page.figure

    def _place(self) -> float:
        """Give each class its height below the first one; the lowest."""
        y, parent = 0.0, self.fine.nodes[0].parent
        for node in self.fine.nodes:
            y -= 0 if node.parent == parent else _GAP
            parent = node.parent
            self.fine.y[node.name] = y
            y -= _ROW
        for chain in ([*reversed(self.before)], *self.behind):
            below = self.fine
            for column in chain:
                _place_above(column, below)
                below = column
        columns = [self.fine, *self.before, *(column for axis in self.behind for column in axis)]
        highest = max(y for column in columns for y in column.y.values())
        for column in columns:
            column.y = {name: y - highest for name, y in column.y.items()}
        return min(y for column in columns for y in column.y.values())


def _on_axis(level: Level, axis: str | None) -> _Column:
    title = level.name if axis is None else f"{level.name}: {axis}"
    return _Column(title, [node for node in level.nodes if node.axis == axis])


def _first_parent(node: ClassNode, order: dict[str, int]) -> int:
    return min((order[name] for name in node.parents if name in order), default=len(order))


def _place_above(column: _Column, below: _Column) -> None:
    """Put each class in the middle of its children, as near as its neighbours allow."""
    spans: dict[str, list[float]] = {node.name: [] for node in column.nodes}
    for child in below.nodes:
        for parent in child.parents:
            if parent in spans:
                spans[parent].append(below.y[child.name])
    last = min(below.y.values()) - _ROW
    wish = {name: (max(ys) + min(ys)) / 2 if ys else last for name, ys in spans.items()}
    column.nodes.sort(key=lambda node: -wish[node.name])
    places = _spread([wish[node.name] for node in column.nodes])
    column.y = {node.name: y for node, y in zip(column.nodes, places, strict=True)}


def _spread(wishes: Sequence[float]) -> list[float]:
    """The falling heights nearest to the wished ones (least squares) that are at least a row apart.

    The pool-adjacent-violators algorithm on heights from which the rows above have been taken.
    """
    pools: list[list[float]] = []
    for number, wish in enumerate(wishes):
        pools.append([wish + number * _ROW])
        while len(pools) > 1 and _mean(pools[-2]) < _mean(pools[-1]):
            violator = pools.pop()
            pools[-1] += violator
    level = [_mean(pool) for pool in pools for _ in pool]
    return [height - number * _ROW for number, height in enumerate(level)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _draw_lines(page: _Page, upper: _Column, lower: _Column) -> None:
    """A bent line from each class to its parent in another column, in the colour of the class."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    turn = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    for child in lower.nodes:
        for parent in child.parents:
            if parent not in upper.y:
                continue
            ends = (upper.left + upper.width, lower.left)
            if upper.left > lower.left:
                ends = (upper.left, lower.left + lower.width)
            middle = sum(ends) / 2
            points = [(ends[0], upper.y[parent]), (middle, upper.y[parent]), (middle, lower.y[child.name])]
            curve = Curve([*points, (ends[1], lower.y[child.name])], turn)
            page.axes.add_patch(PathPatch(curve, fill=False, edgecolor=_edge(child.color), linewidth=1.3, alpha=0.8))


def _draw_column(page: _Page, column: _Column) -> None:
    from matplotlib.patches import FancyBboxPatch

    page.text(column.left + 1, page.height - _HEAD + 19, column.title, color=_GREY, fontsize=_FONT - 1)
    for node in column.nodes:
        corner = (column.left, column.y[node.name] - _PILL / 2)
        box = FancyBboxPatch(
            corner, column.width, _PILL, boxstyle="round,pad=0,rounding_size=3.5", facecolor=_rgb(node.color),
            edgecolor=_edge(node.color), linewidth=0.8,
        )  # fmt: skip
        page.axes.add_patch(box)
        page.text(column.left + _PAD, column.y[node.name], node.name, color=_ink(node.color))


# -- rings -------------------------------------------------------------------------------------------------------------


class _Rings:
    """The coarsest level innermost; the finest is a coloured rim with its names around it."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        depths = range(len(hierarchy.levels) - 1, -1, -1)
        self.paths = sorted(zip(*(hierarchy.ancestors(depth).tolist() for depth in depths), strict=True))
        self.step = 360 / len(self.paths)

    def figure(self) -> Any:
        above = list(reversed(self.hierarchy.levels[1:]))
        widths = [max(_width(name, _RING_FONT) for name in level.names) + 2 * _RING_PAD for level in above]
        start = max(self._hole(), len(self.paths) * _LEAF / (2 * math.pi) - sum(widths))
        for number in range(len(above)):  # the inner ends of a ring's names are where they are closest
            least = min(len(leaves) for leaves in self._sectors(number))
            start = max(start, len(self.paths) * _LEAF / (2 * math.pi * least) - _RING_PAD - sum(widths[:number]))
        rim = start + sum(widths)
        longest = max(_width(name, _RING_FONT) for name in self.hierarchy.fine.names)
        half = rim + _RIM + 5 + longest + _MARGIN
        page = _Page(2 * half, 2 * half)
        for number, (level, width) in enumerate(zip(above, widths, strict=True)):
            self._draw_ring(page, half, level, number, start + sum(widths[: number + 1]), width)
        self._draw_rim(page, half, rim)
        scale = max(1, start / self._hole() / 2)
        page.text(half, half + 9 * scale, self.hierarchy.name, ha="center", fontsize=_TITLE_FONT * scale, weight="bold")
        page.text(half, half - 9 * scale, _counts(self.hierarchy), ha="center", color=_GREY, fontsize=_FONT * scale)
        return page.figure

    def _hole(self) -> float:
        """Radius of the hole that the title needs."""
        words = ((self.hierarchy.name, _TITLE_FONT, "bold"), (_counts(self.hierarchy), _FONT, "normal"))
        return max(_width(*word) for word in words) / 2 + 2 * _PAD

    def _draw_ring(self, page: _Page, centre: float, level: Level, number: int, outer: float, width: float) -> None:
        first = 0
        for leaves in self._sectors(number):
            node = level.nodes[leaves[0][number]]
            _sector(page, centre, node.color, outer, width, self._angle(first + len(leaves)), self._angle(first))
            angle = self._angle(first + len(leaves) / 2)
            _radial_text(page, centre, node.name, outer - width / 2, angle, ha="center", color=_ink(node.color))
            first += len(leaves)

    def _draw_rim(self, page: _Page, centre: float, inner: float) -> None:
        for position, path in enumerate(self.paths):
            node = self.hierarchy.fine.nodes[path[-1]]
            _sector(page, centre, node.color, inner + _RIM, _RIM, self._angle(position + 1), self._angle(position))
            angle = self._angle(position + 0.5)
            _radial_text(page, centre, node.name, inner + _RIM + 5, angle, ha="left", color="black")

    def _sectors(self, number: int) -> list[list[tuple[int, ...]]]:
        """The leaves below each class of a ring, in the order they are drawn."""
        groups = itertools.groupby(self.paths, key=lambda path: path[: number + 1])
        return [list(leaves) for _, leaves in groups]

    def _angle(self, leaves: float) -> float:
        """Degrees, clockwise from the top, after so many leaves."""
        return 90 - leaves * self.step


def _sector(page: _Page, centre: float, color: Color, outer: float, width: float, start: float, end: float) -> None:
    from matplotlib.patches import Wedge

    bright = _luminance(color) > 0.85
    wedge = Wedge(
        (centre, centre), outer - bright * 0.5, start, end, width=width - bright, facecolor=_rgb(color),
        edgecolor=_edge(color) if bright else "white", linewidth=0.7, zorder=2 if bright else 1,
    )  # fmt: skip
    page.axes.add_patch(wedge)


def _radial_text(page: _Page, centre: float, words: str, radius: float, angle: float, *, ha: str, color: str) -> None:
    """A text along a ray, never upside down."""
    turn = math.radians(angle)
    x, y = centre + radius * math.cos(turn), centre + radius * math.sin(turn)
    if math.cos(turn) < 0:
        angle, ha = angle + 180, {"left": "right", "center": "center"}[ha]
    page.text(x, y, words, ha=ha, rotation=angle % 360, color=color, fontsize=_RING_FONT)
