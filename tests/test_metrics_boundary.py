"""Bands agree with erosion as boundary-iou-api defines it, and with cases by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import DEEP, SEEDS, TOY, VOID, random_image
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics.boundary import RATIO, band, band_px, boundary_counts, boundary_summary
from hiposeg_cli.metrics.images import ImageCounts
from hiposeg_cli.metrics.scores import iou_of


def _eroded_band(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The mask less its erosion by 3x3, as often as the band is wide, with one pixel of outside around the image."""
    padded = np.pad(mask, 1)
    inner: NDArray[np.bool_] = mask & ~binary_erosion(padded, np.ones((3, 3)), distance, border_value=1)[1:-1, 1:-1]
    return inner


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 9), st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 6))
def test_bands_agree_with_erosion(seed: int, distance: int, shape: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.choice([0, 1, 2, VOID], (shape[0] // size + 1, shape[1] // size + 1))
    labels = np.kron(blocks, np.ones((size, size)))[: shape[0], : shape[1]].astype(np.uint8)
    found = band(labels, distance)
    for label in (0, 1, 2):
        assert np.array_equal(found == label, _eroded_band(labels == label, distance))


def test_band_by_hand() -> None:
    labels = np.ones((7, 9), np.uint8)
    labels[:, 6:] = 2
    found = band(labels, 1)
    assert np.argwhere(found == VOID).tolist() == [
        [y, x] for y in range(1, 6) for x in (*range(1, 5), 7)
    ]  # fmt: skip


def test_band_is_a_share_of_the_diagonal_and_at_least_one_pixel() -> None:
    assert band_px((300, 400)) == 10
    assert band_px((1024, 2048), 0.005) == 11
    assert band_px((3, 4)) == 1


def test_an_ignored_border_is_no_contour() -> None:
    """A perfect prediction is perfect beside ignored pixels, and what is predicted on them does not matter."""
    fine = np.ones((60, 80), np.uint8)
    fine[20:25] = 255
    fine[40:, :30] = 3
    truth = TwoLevelMap(fine, lift(fine, TOY))
    predicted = fine.copy()
    predicted[20:25] = 1
    for counts in boundary_counts(TOY, truth, predicted):
        assert counts[1:].sum() == 0
        assert counts[0].sum() > 0
    inside = np.where(band(fine, 2, transparent=True) != VOID, 1, 0)
    assert inside[16:20, 10:70].sum() == inside[25:30, 10:70].sum() == 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([TOY, DEEP]), SEEDS)
def test_counts_agree_with_masks(tree: Hierarchy, seed: int) -> None:
    """Where nothing is ignored in the truth; void may be predicted."""
    rng = np.random.default_rng(seed)
    fine = np.kron(rng.integers(0, tree.n_fine, (4, 5)), np.ones((8, 8))).astype(np.uint8)
    predicted = np.kron(rng.choice([*range(tree.n_fine), VOID], (8, 10)), np.ones((4, 4))).astype(np.uint8)
    found = boundary_counts(tree, TwoLevelMap(fine, lift(fine, tree)), predicted, ratio=0.05)
    distance = band_px(fine.shape, 0.05)
    for depth, level in enumerate(tree.levels):
        family = np.append(tree.ancestors(depth), np.full(256 - tree.n_fine, -1))
        for label in range(len(level)):
            true, said = (_eroded_band(family[labels] == label, distance) for labels in (fine, predicted))
            expected = [(true & said).sum(), (said & ~true).sum(), (true & ~said).sum()]
            assert found[depth][:, label].tolist() == expected


def test_own_maps_replace_the_fold() -> None:
    fine = np.ones((30, 40), np.uint8)
    truth = TwoLevelMap(fine, lift(fine, TOY))
    own = np.full((30, 40), 2, np.uint8)
    folded, separate = (boundary_counts(TOY, truth, fine, above) for above in ((), [own]))
    assert np.array_equal(folded[0], separate[0])
    assert iou_of(folded[1])[1] == 1
    assert iou_of(separate[1])[1:].tolist() == [0, 0]


def test_sums_over_the_set_and_means_over_images() -> None:
    """The set's score weighs images by their contours; the mean does not."""
    counted = ImageCounts(TOY)
    for key, width in (("small", 20), ("large", 200)):
        fine = np.ones((20, width), np.uint8)
        predicted = fine if key == "large" else np.full_like(fine, 2)
        counted.add(key, boundary_counts(TOY, TwoLevelMap(fine, lift(fine, TOY)), predicted, ratio=0.01))
    total = iou_of(counted.total(0))
    assert counted.square_ious(0)[1] == 1 / 2
    assert total[1] > 1 / 2
    assert math.isnan(total[0])
    summary = boundary_summary(counted)
    assert summary["fine"]["boundary_iou"] == pytest.approx((total[1] + 0) / 2)  # f2 is said, and nowhere true
    assert summary["fine"]["boundary_iou_mean_over_images"] == 1 / 2
    assert summary["fine"]["classes"][0] == {"name": "f0", "boundary_iou": None, "boundary_iou_mean_over_images": None}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_whole_of_a_small_image_is_a_contour() -> None:
    labels = np.array([[1, 1], [1, 1]], np.uint8)
    assert np.array_equal(band(labels, 1), labels)
    truth, predicted = random_image(TOY, np.random.default_rng(0), (0, 4))
    assert all(counts.sum() == 0 for counts in boundary_counts(TOY, truth, predicted, ratio=RATIO))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_255_is_a_class_in_16_bit_maps(dtype: type) -> None:
    labels = np.full((9, 9), 254 if dtype is np.uint8 else 255, dtype)
    assert (band(labels, 1) != np.iinfo(dtype).max).sum() == 81 - 49
