"""The same bands as faster-coco-eval 1.8.0, which holds the boundary part of boundary-iou-api."""

from __future__ import annotations

import numpy as np
import pytest
from metric_cases import DEEP, TOY
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics.boundary import RATIO, band, band_px, boundary_counts
from hiposeg_cli.metrics.images import ImageCounts
from hiposeg_cli.metrics.scores import iou_of

coco_masks = pytest.importorskip("faster_coco_eval.core.mask", reason="faster-coco-eval is not installed (extra parity)")


def _official_band(mask: NDArray[np.bool_], ratio: float) -> NDArray[np.bool_]:
    encoded = coco_masks.encode(np.asfortranarray(mask[..., None].astype(np.uint8)))[0]
    found: NDArray[np.bool_] = coco_masks.decode([coco_masks.rleToBoundary(encoded, ratio)])[..., 0].astype(bool)
    return found


def _drawn(rng: np.random.Generator, n: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Blocks of ids, no two maps with the same grid."""
    size = int(rng.integers(3, 12))
    blocks = rng.integers(0, n, (shape[0] // size + 1, shape[1] // size + 1))
    return np.kron(blocks, np.ones((size, size)))[: shape[0], : shape[1]].astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "ratio"),
    [((60, 90), 0.005), ((60, 90), RATIO), ((60, 90), 0.1), ((37, 41), 0.1), ((9, 200), RATIO), ((3, 4), RATIO)],
)
def test_bands_of_every_class(shape: tuple[int, int], ratio: float) -> None:
    """faster-coco-eval loses pixels where the image is no higher than two bands; boundary-iou-api, as tested against scipy
    in test_metrics_boundary, has the whole mask there."""
    rng = np.random.default_rng(0)
    assert min(shape) > 2 * band_px(shape, ratio)
    for _ in range(4):
        labels = _drawn(rng, 5, shape)
        mine = band(labels, band_px(shape, ratio))
        for label in np.unique(labels):
            assert ((mine == label) == _official_band(labels == label, ratio)).all()


@pytest.mark.parametrize("tree", [TOY, DEEP], ids=["toy", "deep"])
def test_boundary_iou_of_every_class_and_level_by_mask(tree: Hierarchy) -> None:
    rng, counted = np.random.default_rng(1), ImageCounts(tree)
    totals = [np.zeros((2, len(level))) for level in tree.levels]
    for n in range(4):
        fine, predicted = _drawn(rng, tree.n_fine, (60, 90)), _drawn(rng, tree.n_fine, (60, 90))
        counted.add(str(n), boundary_counts(tree, TwoLevelMap(fine, lift(fine, tree)), predicted))
        for depth, level in enumerate(tree.levels):
            for label in range(len(level)):
                true, said = (_official_band(tree.ancestors(depth)[labels] == label, RATIO) for labels in (fine, predicted))
                totals[depth][:, label] += [(true & said).sum(), (true | said).sum()]
    for depth, (shared, union) in enumerate(totals):
        assert (iou_of(counted.total(depth)) == shared / union).all()
