"""Pictures of taxonomies: every name is there, none overlaps another, the same bytes every time."""

from __future__ import annotations

import builtins
import itertools
import math
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level, Taxonomy
from hiposeg_cli.hierarchy_yaml import load_taxonomy, parse_taxonomy

pytest.importorskip("matplotlib", reason="matplotlib is the extra `plot`")

from hiposeg_cli.report.plot import _ROW, _spread, draw, render_plot

DAG = """schema: hiposeg/hierarchy@1
name: parts
structure: dag
axes: [object, part_type]
levels: [fine, coarse, top]
classes:
  top: [{name: thing, axis: object}, {name: shape, axis: part_type}]
  coarse:
    - {name: car, axis: object, parent: thing}
    - {name: bus, axis: object, parent: thing}
    - {name: wheels, axis: part_type, parent: shape}
    - {name: glass, axis: part_type, parent: shape}
  fine:
    - {name: car wheel, parent: [car, wheels]}
    - {name: bus wheel, parent: [bus, wheels]}
    - {name: car window, parent: [car, glass]}
    - {name: bus body, parent: bus}
"""


def boxes(figure: Any) -> list[tuple[str, np.ndarray]]:
    """Each text with the corners of its box, (4, 2) in pixels, turned as it is drawn."""
    renderer = figure.canvas.get_renderer()
    found = []
    for text in figure.axes[0].texts:
        turn = math.radians(text.get_rotation())
        text.set_rotation(0)
        box = text.get_window_extent(renderer)
        anchor = figure.axes[0].transData.transform(text.get_position())
        corners = np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]) - anchor
        spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        found.append((text.get_text(), corners @ spin.T + anchor))
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two convex boxes overlap: no line parallel to a side keeps them apart."""
    for box in (a, b):
        for side in (box[1] - box[0], box[3] - box[0]):
            if (a @ side).max() <= (b @ side).min() or (b @ side).max() <= (a @ side).min():
                return False
    return True


def check(taxonomy: Taxonomy) -> None:
    figure = draw(taxonomy)
    placed = boxes(figure)
    names = [node.name for level in taxonomy.levels for node in level.nodes]
    assert set(names) <= {name for name, _ in placed}
    assert len(placed) >= len(names)
    width, height = figure.get_size_inches() * 72
    for name, box in placed:
        assert box.min() >= 0, name
        assert (box.max(axis=0) <= (width, height)).all(), name
    low, high = (np.array([pick(box, axis=0) for _, box in placed]) for pick in (np.min, np.max))
    near = (low[:, None] < high[None]).all(axis=2) & (low[None] < high[:, None]).all(axis=2)
    for first, second in np.argwhere(np.triu(near, k=1)):
        (a, box_a), (b, box_b) = placed[first], placed[second]
        assert not overlap(box_a, box_b), (a, b)


@pytest.mark.parametrize("name", ["wbc-3-2", "cityscapes-19-7", "demo", "ccp-59-7", "coco-80-12", "pascal-part-108"])
def test_no_name_overlaps_another_or_leaves_the_page(name: str) -> None:
    check(load_taxonomy(name))


def test_a_dag_shows_its_axes_on_both_sides_of_the_fine_classes() -> None:
    dag = parse_taxonomy(DAG)
    check(dag)
    place = {text.get_text(): text.get_position()[0] for text in draw(dag).axes[0].texts}
    assert place["thing"] < place["car"] < place["car wheel"] < place["wheels"] < place["shape"]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.sampled_from(["short", "a rather longer name of a class"]))
def test_any_tree_is_drawn_without_overlap(sizes: list[int], word: str) -> None:
    top = Level("top", tuple(ClassNode(k, f"{word} {'ab'[k]}", (99, 9 * k, 9)) for k in range(min(2, len(sizes)))))
    coarse = [ClassNode(k, f"{word} {k}", (k * 9 % 256, 9, 9), parent=top.names[-min(k, 1)]) for k in range(len(sizes))]
    parents = [node.name for node, size in zip(coarse, sizes, strict=True) for _ in range(size)]
    fine = [ClassNode(k, f"{word}/{k}", (k % 256, 255, 255), parent=parent) for k, parent in enumerate(parents)]
    check(Hierarchy("drawn", (Level("fine", tuple(fine)), Level("coarse", tuple(coarse)), top)))


@given(st.lists(st.floats(-500, 500), max_size=12).map(lambda wishes: sorted(wishes, reverse=True)))
def test_spread_keeps_a_row_between_neighbours_and_moves_no_more_than_needed(wishes: list[float]) -> None:
    places = _spread(wishes)
    assert all(a - b >= _ROW - 1e-6 for a, b in itertools.pairwise(places))
    assert sum(places) == pytest.approx(sum(wishes), abs=1e-6)  # the least squares solution keeps the mean
    if all(a - b >= _ROW for a, b in itertools.pairwise(wishes)):
        assert places == pytest.approx(wishes)


def test_png_and_svg_are_readable_and_repeatable() -> None:
    tree = load_taxonomy("wbc-3-2")
    png, svg = render_plot(tree, Path("a.png")), render_plot(tree, Path("a.SVG"))
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    for node in (node for level in tree.levels for node in level.nodes):
        assert (pixels == np.array(node.color)).all(axis=2).any(), node.name
    assert {"wbc-3-2", "cytoplasm", "nucleus"} <= set(re.findall(r">([^<>]+)</text>", svg.decode()))
    assert render_plot(tree, Path("b.png")) == png
    assert render_plot(tree, Path("b.svg")) == svg


def test_names_are_never_read_as_formulas() -> None:
    coarse = Level("coarse", (ClassNode(0, "$x^2$", (1, 1, 1)),))
    fine = Level("fine", (ClassNode(0, "a_b $\\frac$", (2, 2, 2), parent="$x^2$"),))
    svg = render_plot(Hierarchy("cost in $", (fine, coarse)), Path("a.svg")).decode()
    assert {"cost in $", "$x^2$", "a_b $\\frac$"} <= set(re.findall(r">([^<>]+)</text>", svg))


def test_another_suffix_and_a_missing_matplotlib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = load_taxonomy("wbc-3-2")
    with pytest.raises(ConfigError, match=r"a\.pdf: is neither a \.png nor a \.svg file"):
        render_plot(tree, Path("a.pdf"))
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=re.escape("pip install 'hiposeg-cli[plot]'")):
        render_plot(tree, Path("a.png"))
