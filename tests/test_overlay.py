"""Overlay pictures: their size, colours and legend, whatever the shape of the photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.hierarchy import ClassNode, Level
from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.report.overlay import _present, overlay

TOY = Level("fine", (ClassNode(0, "sky", (0, 0, 0), kind="background"), ClassNode(1, "leg", (200, 0, 0)),
                     ClassNode(2, "head", (0, 100, 0))))  # fmt: skip
MANY = Level("fine", tuple(ClassNode(k, f"class {k}", (k, 255 - k, 0)) for k in range(200)))
WIDE = Level("fine", tuple(ClassNode(k, f"class {k}", (k % 256, k // 256, 0)) for k in range(300)))


def _photo(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_size_by_hand() -> None:
    labels = np.zeros((400, 640), dtype=np.uint8)
    assert overlay(_photo(400, 640), [(TOY, labels)]).size == (2 * 640, 400 + 18 + 4)
    assert overlay(_photo(400, 640), [(TOY, labels)] * 2).size == (3 * 640, 400 + 18 + 4)
    assert overlay(_photo(400, 640), []).size == (640, 404)


def test_colours_by_hand() -> None:
    labels = np.full((10, 400), 255, dtype=np.uint8)
    labels[:, 200:] = 1
    picture = np.asarray(overlay(_photo(10, 400), [(TOY, labels)]))
    assert picture[5, 20].tolist() == [100, 100, 100]  # the photo
    assert picture[5, 400 + 20].tolist() == [100, 100, 100]  # ignored pixels stay as they are
    assert picture[5, 400 + 300].tolist() == [160, 40, 40]  # 0.4 * 100 + 0.6 * (200, 0, 0)
    assert picture[5, 400 + 200].tolist() == [64, 16, 16]  # the line between the two


def test_background_stays_nearly_clear() -> None:
    picture = np.asarray(overlay(_photo(10, 400), [(TOY, np.zeros((10, 400), dtype=np.uint8))]))
    assert picture[5, 500].tolist() == [85, 85, 85]


def test_legend_by_hand_lists_the_largest_class_first() -> None:
    labels = np.array([[2, 2, 2, 255], [1, 0, 0, 255]], dtype=np.uint8)
    assert _present(TOY, labels) == [("head", (0, 100, 0)), ("sky", (0, 0, 0)), ("leg", (200, 0, 0))]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(TOY, np.uint8), (MANY, np.uint8), (WIDE, np.uint16)]))
def test_legend_lists_exactly_the_present_classes(seed: int, kind: tuple[Level, type[np.unsignedinteger]]) -> None:
    level, dtype = kind
    rng = np.random.default_rng(seed)
    ids = [*rng.choice(len(level), size=2), int(np.iinfo(dtype).max)]
    labels: LabelArray = rng.choice(ids, size=(4, 4)).astype(dtype)
    expected = {level.nodes[k].name for row in labels.tolist() for k in row if k != ids[-1]}
    legend = _present(level, labels)
    assert {name for name, _ in legend} == expected
    assert len(legend) == len(expected)
    sizes = [int((labels == level.find(name)).sum()) for name, _ in legend]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_map_that_is_all_ignore_shows_the_photo_and_no_legend(dtype: type[np.unsignedinteger]) -> None:
    labels = np.full((320, 320), np.iinfo(dtype).max, dtype=dtype)
    picture = overlay(_photo(320, 320), [(TOY, labels)])
    assert picture.size == (640, 324)
    pixels = np.asarray(picture)
    assert np.array_equal(pixels[:320, :320], pixels[:320, 320:])
    assert _present(TOY, labels) == []


def test_two_hundred_classes_get_a_legend_line_each_two_columns_wide() -> None:
    labels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    picture = overlay(_photo(10, 20), [(MANY, labels)])
    assert picture.size == (640, 160 + 100 * 18 + 4)  # 20 px are enlarged to 320, where two columns fit
    legend = np.asarray(picture)[160:, 320:]
    assert (legend[-22:] != 255).any()  # the last line is inside the picture


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(1, 1, (640, 320 + 22)), (1, 3, (640, 107 + 22)), (2, 5000, (10_000, 2 + 22)), (3, 320, (640, 3 + 22))],
)
def test_tiny_and_very_wide_photos(height: int, width: int, size: tuple[int, int]) -> None:
    labels = np.ones((height, width), dtype=np.uint8)
    assert overlay(_photo(height, width), [(TOY, labels)]).size == size


def test_a_narrow_photo_does_not_become_a_poster() -> None:
    """Enlarging a strip until it is 320 px wide made a 32 x 1 photo 10240 px high, and larger ones unsaveable."""
    picture = overlay(_photo(32, 1), [(TOY, np.ones((32, 1), dtype=np.uint8))])
    assert max(picture.size) <= 10 * 320


def test_the_inputs_are_left_alone() -> None:
    photo, labels = _photo(5, 5), np.array([[0, 1, 2, 255, 0]] * 5, dtype=np.uint8)
    before = photo.copy(), labels.copy()
    overlay(photo, [(TOY, labels)])
    assert np.array_equal(photo, before[0])
    assert np.array_equal(labels, before[1])
