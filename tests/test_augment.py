"""Augmentation: photo and labels stay on one another, labels are never mixed, padding is ignore."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import IGNORE, LabelArray, TwoLevelMap, lift
from hiposeg_cli.learn.augment import (
    Augment,
    AugmentOptions,
    Window,
    as_labels,
    flip_labels,
    resize_long_side,
    to_int64,
)

SEEDS = st.integers(0, 2**32 - 1)
COLORS = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], dtype=np.uint8)
_PARENTS = ("ground", "hands", "hands", "left_foot", "right_foot")
_FINE_MIRROR = {"left_hand": "right_hand", "right_hand": "left_hand", "left_toe": "right_toe", "right_toe": "left_toe"}
_COARSE_MIRROR = {"left_foot": "right_foot", "right_foot": "left_foot"}
_FINE = ("ground", "left_hand", "right_hand", "left_toe", "right_toe")
_COARSE = ("ground", "hands", "left_foot", "right_foot")
BODY = Hierarchy(
    "body",
    (
        Level("fine", tuple(
            ClassNode(k, name, (0, 0, 0), _PARENTS[k], mirror=_FINE_MIRROR.get(name)) for k, name in enumerate(_FINE)
        )),
        Level("coarse", tuple(
            ClassNode(k, name, (0, 0, 0), mirror=_COARSE_MIRROR.get(name)) for k, name in enumerate(_COARSE)
        )),
    ),
)  # fmt: skip
FINE_SWAP = [0, 2, 1, 4, 3]


def _labels(fine: LabelArray) -> dict[str, LabelArray]:
    return {"fine": fine, "coarse": lift(fine, BODY)}


def _squares(rng: np.random.Generator, height: int, width: int) -> LabelArray:
    """Labels with a square of each class, some of it ignored."""
    fine = np.zeros((height, width), dtype=np.uint8)
    for value in (1, 2, 3, 4, 255):
        side = max(1, min(height, width) // 3)
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        fine[y : y + side, x : x + side] = value
    return fine


def _paint(fine: LabelArray) -> NDArray[np.uint8]:
    return COLORS[np.where(fine == 255, 0, fine)]


@st.composite
def options(draw: st.DrawFn, **fixed: Any) -> AugmentOptions:
    low = draw(st.floats(0.3, 1.5))
    chosen: dict[str, Any] = {
        "crop": draw(st.tuples(st.integers(1, 40), st.integers(1, 40))), "size": draw(st.none() | st.integers(1, 60)),
        "scale": (low, low * draw(st.floats(1, 3))), "flip": draw(st.sampled_from([0.0, 0.5, 1.0])), "jitter": 0.3,
    }  # fmt: skip
    return AugmentOptions(**(chosen | fixed))


SIDES = st.integers(1, 50)


@settings(max_examples=40, deadline=None)
@given(options(), SIDES, SIDES, SEEDS)
def test_crop_is_always_of_the_asked_size_and_type(chosen: AugmentOptions, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fine = _squares(rng, height, width)
    crop, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), rng)
    assert crop.shape == (*chosen.crop, 3)
    assert crop.dtype == np.uint8
    for values in cut.values():
        assert values.shape == chosen.crop
        assert values.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(options(), SIDES, SIDES, SEEDS)
def test_only_class_ids_of_the_source_appear(chosen: AugmentOptions, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = [0, 3]  # an interpolation would make 1 or 2 of them
    fine: LabelArray = rng.choice([*source, 255], (height, width)).astype(np.uint8)
    _, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), rng)
    allowed = {IGNORE, 0, 3} if chosen.flip == 0 else {IGNORE, 0, 4} if chosen.flip == 1 else {IGNORE, 0, 3, 4}
    assert set(np.unique(cut["fine"]).tolist()) <= allowed


@settings(max_examples=40, deadline=None)
@given(options(), SIDES, SIDES, SEEDS)
def test_both_levels_are_cut_alike(chosen: AugmentOptions, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fine = _squares(rng, height, width)
    _, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), rng)
    known = cut["fine"] != IGNORE
    assert np.array_equal(cut["coarse"][known], BODY.parent[cut["fine"][known]])
    assert (cut["coarse"][~known] == IGNORE).all()


@settings(max_examples=40, deadline=None)
@given(options(jitter=0.0, crop=(40, 48)), st.integers(24, 60), st.integers(24, 60), SEEDS)
def test_the_colour_of_a_pixel_tells_its_label(chosen: AugmentOptions, height: int, width: int, seed: int) -> None:
    """Photo and labels go through different code, so a shift of one against the other would show here."""
    rng = np.random.default_rng(seed)
    fine = _squares(rng, height, width)
    crop, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), rng)
    seen = np.abs(crop[:, :, None].astype(int) - COLORS).sum(axis=-1).argmin(axis=-1)
    if chosen.flip == 0.5:  # the flip is not known from outside; try both
        straight, turned = (_agreement(seen, labels) for labels in (cut["fine"], _swap_back(cut["fine"])))
        assert max(straight, turned) > 0.97
    else:
        assert _agreement(seen, cut["fine"] if chosen.flip == 0 else _swap_back(cut["fine"])) > 0.97


def _swap_back(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undo the exchange of left and right, which the photo's colours know nothing of."""
    return np.where(labels == IGNORE, IGNORE, np.array(FINE_SWAP)[labels])


def _agreement(seen: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of right pixels among the labelled ones whose neighbours within 2 px carry the same label."""
    padded = np.pad(labels, 2, mode="edge")
    height, width = labels.shape
    inner = labels != IGNORE
    for dy in range(5):
        for dx in range(5):
            inner &= padded[dy : dy + height, dx : dx + width] == labels
    return float((seen == labels)[inner].mean()) if inner.any() else 1.0


def test_registration_is_exact_where_nothing_is_resized() -> None:
    rng = np.random.default_rng(3)
    fine: LabelArray = rng.integers(0, 5, (20, 30)).astype(np.uint8)
    chosen = AugmentOptions(crop=(12, 16), scale=(1.0, 1.0), flip=0.0, jitter=0.0)
    for seed in range(10):
        crop, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), np.random.default_rng(seed))
        assert np.array_equal(crop, COLORS[cut["fine"]])
        windows = np.lib.stride_tricks.sliding_window_view(fine, (12, 16)).reshape(-1, 12, 16)
        assert (windows == cut["fine"]).all(axis=(1, 2)).sum() == 1


@settings(max_examples=40, deadline=None)
@given(options(flip=0.0, size=None), SIDES, SIDES, SEEDS)
def test_flipping_is_the_mirror_image_with_left_and_right_exchanged(
    chosen: AugmentOptions, height: int, width: int, seed: int
) -> None:
    fine = _squares(np.random.default_rng(seed), height, width)
    turned = AugmentOptions(chosen.crop, chosen.size, chosen.scale, 1.0, chosen.jitter)
    crop, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), np.random.default_rng(seed))
    flipped_crop, flipped_cut = Augment(turned, BODY)(_paint(fine), _labels(fine), np.random.default_rng(seed))
    assert np.array_equal(flipped_crop, crop[:, ::-1])
    for y in range(chosen.crop[0]):
        for x in range(chosen.crop[1]):
            before = int(cut["fine"][y, chosen.crop[1] - 1 - x])
            assert flipped_cut["fine"][y, x] == (IGNORE if before == IGNORE else FINE_SWAP[before])


def test_flip_by_hand() -> None:
    labels = np.array([[0, 1, IGNORE], [3, 2, 4]], dtype=np.int64)
    assert flip_labels(labels, BODY.fine.mirror_ids()).tolist() == [[IGNORE, 2, 0], [3, 1, 4]]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_flipping_labels_twice_changes_nothing(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, 5, (4, 5))
    swap = BODY.fine.mirror_ids()
    assert swap.tolist() == FINE_SWAP
    assert np.array_equal(flip_labels(flip_labels(labels, swap), swap), labels)


@settings(max_examples=40, deadline=None)
@given(options(), SIDES, SIDES, SEEDS)
def test_the_same_seed_gives_the_same_crop(chosen: AugmentOptions, height: int, width: int, seed: int) -> None:
    fine = _squares(np.random.default_rng(seed), height, width)
    image = _paint(fine)
    before = image.copy(), fine.copy()
    first, second = (Augment(chosen, BODY)(image, _labels(fine), np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert all(np.array_equal(first[1][level], second[1][level]) for level in ("fine", "coarse"))
    assert np.array_equal(image, before[0])
    assert np.array_equal(fine, before[1])


def test_different_seeds_give_different_crops() -> None:
    fine = _squares(np.random.default_rng(0), 40, 40)
    augment = Augment(AugmentOptions(crop=(16, 16)), BODY)
    crops = {augment(_paint(fine), _labels(fine), np.random.default_rng(seed))[1]["fine"].tobytes() for seed in range(8)}
    assert len(crops) > 1


def test_the_levels_asked_for_do_not_change_the_photo() -> None:
    """Runs that see fewer labels must still see the same photos."""
    fine = _squares(np.random.default_rng(0), 30, 30)
    augment = Augment(AugmentOptions(crop=(16, 16)), BODY)
    both, coarse = _labels(fine), {"coarse": lift(fine, BODY)}
    with_both = augment(_paint(fine), both, np.random.default_rng(5))
    with_coarse = augment(_paint(fine), coarse, np.random.default_rng(5))
    assert np.array_equal(with_both[0], with_coarse[0])
    assert np.array_equal(with_both[1]["coarse"], with_coarse[1]["coarse"])
    assert list(with_coarse[1]) == ["coarse"]


def test_padding_is_ignore_by_hand() -> None:
    chosen = AugmentOptions(crop=(10, 12), scale=(1.0, 1.0), flip=0.0, jitter=0.0)
    fine: LabelArray = np.arange(20, dtype=np.uint8).reshape(4, 5) % 5
    crop, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), np.random.default_rng(1))
    inside = cut["fine"] != IGNORE
    ys, xs = np.nonzero(inside)
    top, left = int(ys.min()), int(xs.min())
    assert inside.sum() == 20
    assert np.array_equal(cut["fine"][top : top + 4, left : left + 5], fine)
    assert (crop[~inside] == 127).all()
    assert np.array_equal(crop[top : top + 4, left : left + 5], _paint(fine))


@pytest.mark.parametrize(("size", "expected"), [(10, (5, 10)), (20, (10, 20)), (30, (15, 30)), (None, (10, 20))])
def test_size_sets_the_long_side(size: int | None, expected: tuple[int, int]) -> None:
    chosen = AugmentOptions(crop=(40, 40), size=size, scale=(1.0, 1.0), flip=0.0, jitter=0.0)
    fine = np.ones((10, 20), dtype=np.uint8)
    _, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), np.random.default_rng(2))
    ys, xs = np.nonzero(cut["fine"] == 1)
    assert (int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1) == expected
    assert len(ys) == expected[0] * expected[1]


def test_scale_bounds_the_zoom() -> None:
    chosen = AugmentOptions(crop=(90, 90), scale=(0.5, 2.0), flip=0.0, jitter=0.0)
    fine = np.ones((40, 40), dtype=np.uint8)
    sides = []
    for seed in range(60):
        _, cut = Augment(chosen, BODY)(_paint(fine), _labels(fine), np.random.default_rng(seed))
        sides.append(math.isqrt(int((cut["fine"] == 1).sum())))
    assert 20 <= min(sides) < 26
    assert 64 < max(sides) <= 80
    assert 30 < np.median(sides) < 52  # uniform in the logarithm: the middle is 40, not 50


def test_whole_image_is_reached_by_the_crops() -> None:
    chosen = AugmentOptions(crop=(4, 4), scale=(1.0, 1.0), flip=0.0, jitter=0.0)
    place = np.arange(48, dtype=np.uint8).reshape(6, 8)
    seen: set[int] = set()
    for seed in range(80):
        _, cut = Augment(chosen, BODY)(np.zeros((6, 8, 3), np.uint8), {"fine": place}, np.random.default_rng(seed))
        seen |= set(cut["fine"].ravel().tolist())
    assert seen == set(range(48))


def test_jitter_changes_colours_and_nothing_else() -> None:
    fine = _squares(np.random.default_rng(0), 30, 30)
    photo = np.random.default_rng(1).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    plain = AugmentOptions(crop=(16, 16), jitter=0.0)
    strong = AugmentOptions(crop=(16, 16), jitter=0.5)
    crop, cut = Augment(plain, BODY)(photo, _labels(fine), np.random.default_rng(7))
    jittered, same_cut = Augment(strong, BODY)(photo, _labels(fine), np.random.default_rng(7))
    assert not np.array_equal(crop, jittered)
    assert np.array_equal(cut["fine"], same_cut["fine"])


@settings(max_examples=60, deadline=None)
@given(st.data(), SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), SEEDS)
def test_labels_are_cut_as_pillow_cuts_by_nearest(
    data: st.DataObject, height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    left, top = data.draw(st.floats(0, width - 1)), data.draw(st.floats(0, height - 1))
    right, bottom = data.draw(st.floats(left + 0.5, width)), data.draw(st.floats(top + 0.5, height))
    labels: LabelArray = np.random.default_rng(seed).integers(0, 250, (height, width)).astype(np.uint8)
    box, size = (left, top, right, bottom), (new_height, new_width)
    cut = Window(box, size, (0, 0), size).cut_labels(labels)
    expected = np.asarray(Image.fromarray(labels).resize((new_width, new_height), Image.Resampling.NEAREST, box=box))
    # Where a centre falls on the edge of a source pixel, rounding may go either way.
    clear_y, clear_x = _off_the_edges(top, bottom, new_height), _off_the_edges(left, right, new_width)
    clear = clear_y[:, None] & clear_x[None, :]
    assert np.array_equal(cut[clear], expected[clear])


def _off_the_edges(start: float, end: float, n: int) -> NDArray[np.bool_]:
    centres = np.array([start + (k + 0.5) * (end - start) / n for k in range(n)])
    return np.abs(centres - np.round(centres)) > 1e-3


def test_nearest_by_hand() -> None:
    labels = np.array([[1, 2, 3, 4]], dtype=np.uint8)
    assert Window((0, 0, 4, 1), (1, 2), (0, 0), (1, 2)).cut_labels(labels).tolist() == [[2, 4]]
    assert Window((0, 0, 4, 1), (2, 8), (0, 0), (2, 8)).cut_labels(labels).tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]] * 2
    assert Window((1, 0, 3, 1), (1, 2), (1, 1), (2, 4)).cut_labels(labels).tolist() == [[255] * 4, [255, 2, 3, 255]]


def test_ignore_becomes_minus_one_in_either_type() -> None:
    assert to_int64(np.array([[0, 254, 255]], dtype=np.uint8)).tolist() == [[0, 254, -1]]
    assert to_int64(np.array([[0, 255, 65535]], dtype=np.uint16)).tolist() == [[0, 255, -1]]


@pytest.mark.parametrize("needs", [{"fine"}, {"coarse"}, {"fine", "coarse"}, set()])
def test_only_the_needed_levels_are_handed_on(needs: set[str]) -> None:
    fine, coarse = np.zeros((2, 2), dtype=np.uint8), np.ones((2, 2), dtype=np.uint8)
    given_labels = as_labels(TwoLevelMap(fine, coarse), frozenset(needs))
    assert set(given_labels) == needs
    for level, values in given_labels.items():
        assert np.array_equal(values, {"fine": fine, "coarse": coarse}[level])


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(1, 80))
def test_resizing_brings_the_long_side_to_size_and_keeps_the_shape(height: int, width: int, size: int) -> None:
    resized = resize_long_side(np.full((height, width, 3), 9, dtype=np.uint8), size)
    assert max(resized.shape[:2]) == size
    long, short = max(height, width), min(height, width)
    assert abs(min(resized.shape[:2]) - max(1, short * size / long)) <= 0.5
    assert (resized.shape[0] >= resized.shape[1]) == (height >= width) or resized.shape[0] == resized.shape[1]
    assert (resized == 9).all()


def test_resizing_to_none_or_to_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    assert np.array_equal(resize_long_side(image, None), image)
    assert np.array_equal(resize_long_side(image, 8), image)
