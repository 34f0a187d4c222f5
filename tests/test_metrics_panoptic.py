"""Panoptic and part quality: every rule with a case by hand, and sums in any order. Official scripts are in test_parity."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from metric_cases import SEEDS, TOY
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics.panoptic import PanopticQuality, Segments, match
from hiposeg_cli.metrics.part_quality import PartQuality

LEVEL = Level("coarse", tuple(ClassNode(k, f"c{k}", (0, 0, 0), kind="stuff" if k == 0 else "thing") for k in range(3)))
PARTS = Hierarchy(  # a car {wheel, body}, a sky without parts
    "parts",
    (
        Level("fine", tuple(ClassNode(k, n, (0, 0, 0), p) for k, (n, p) in enumerate(
            [("wheel", "car"), ("body", "car"), ("sky", "sky")]))),
        Level("coarse", (ClassNode(0, "car", (0, 0, 0), kind="thing"), ClassNode(1, "sky", (0, 0, 0), kind="stuff"))),
    ),
)  # fmt: skip


def _row(*numbers: int) -> NDArray[np.int64]:
    return np.array([numbers])


def test_a_match_needs_more_than_one_half() -> None:
    classes = {1: 1}
    on_void = match(Segments(_row(1, 1, 0, 0, 0), classes), Segments(_row(1, 1, 1, 1, 1), classes), "x")
    assert (on_void.pairs.tolist(), on_void.union.tolist()) == ([[1, 1]], [2])  # void leaves the union: 2 / 2, not 2 / 5
    exactly = match(Segments(_row(1, 1, 2, 2), {1: 1, 2: 2}), Segments(_row(1, 1, 1, 1), classes), "x")
    assert exactly.pairs.tolist() == []  # 2 / 4
    assert (exactly.false_positives.tolist(), exactly.misses.tolist()) == ([1], [1, 2])


def test_counts_by_hand() -> None:
    # True: 1 (c1), 2 (c1), 3 (c2). Said: 1 on 1 with 3 of 4 pixels, 2 on 2 but as c2, nothing on 3.
    truth = Segments(_row(1, 1, 1, 1, 2, 2, 3, 3), {1: 1, 2: 1, 3: 2})
    predicted = Segments(_row(1, 1, 1, 0, 2, 2, 0, 0), {1: 1, 2: 2})
    counted = PanopticQuality(LEVEL)
    counted.add(truth, predicted)
    assert counted.counts.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 1]]
    quality = counted.quality()
    assert quality.pq.tolist()[1:] == [0.75 / 1.5, 0]
    assert quality.sq.tolist()[1:] == [0.75, 0]
    assert quality.rq.tolist()[1:] == [1 / 1.5, 0]
    summary = counted.summary()
    assert summary["all"] == {"pq": 0.25, "sq": 0.375, "rq": pytest.approx(1 / 3), "classes": 2}
    assert summary["stuff"] == {"pq": None, "sq": None, "rq": None, "classes": 0}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_background_is_in_no_mean() -> None:
    nodes = [ClassNode(k, f"c{k}", (0, 0, 0), kind=kind) for k, kind in enumerate(("background", "thing", "stuff"))]
    counted = PanopticQuality(Level("coarse", tuple(nodes)))
    counted.add(Segments(_row(1, 1, 2, 3), {1: 0, 2: 1, 3: 2}), Segments(_row(1, 2, 3, 3), {1: 0, 2: 1, 3: 2}))
    summary = counted.summary()
    assert [summary[name]["classes"] for name in ("all", "things", "stuff")] == [2, 1, 1]
    assert summary["classes"][0]["fn"] == summary["classes"][0]["fp"] == 1  # half of it is no match


def test_segments_on_void_or_on_a_crowd_of_their_class_are_no_false_positives() -> None:
    truth = Segments(_row(0, 0, 0, 0, 5, 5, 5, 5, 6), {5: 1, 6: 2}, crowd=frozenset({5}))
    predicted = Segments(_row(1, 1, 1, 2, 3, 3, 4, 4, 2), {1: 1, 2: 1, 3: 1, 4: 2})
    found = match(truth, predicted, "x")
    assert found.false_positives.tolist() == [2, 4]  # half on void is not enough; the crowd is of another class than 4
    assert found.misses.tolist() == [6]


def test_faults_are_named() -> None:
    with pytest.raises(DataError, match=r"a\.png: segment 2 has no class"):
        match(Segments(_row(1), {1: 0}), Segments(_row(2), {1: 0}), "a.png")
    with pytest.raises(DataError, match=r"a\.png: prediction is \(1, 1\), truth is \(1, 2\)"):
        match(Segments(_row(1, 1), {1: 0}), Segments(_row(1), {1: 0}), "a.png")


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_order_and_split_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(4):
        classes = {number: int(rng.integers(0, 3)) for number in range(1, 6)}
        true = rng.integers(0, 6, (3, 4)).repeat(3, 1)
        said = np.where(rng.random(true.shape) < 0.2, rng.integers(0, 6, true.shape), true)
        images.append((Segments(true, classes), Segments(said, classes)))
    whole, parts = PanopticQuality(LEVEL), [PanopticQuality(LEVEL) for _ in "ab"]
    for n in rng.permutation(4).tolist():
        whole.add(*images[n])
    for n in range(4):
        parts[n % 2].add(*images[n])
    parts[1].merge(parts[0])
    assert parts[1].summary() == whole.summary()


# -- parts -------------------------------------------------------------------------------------------------------------


def _maps(fine: list[int], coarse: list[int] | None = None) -> TwoLevelMap:
    labels = np.array([fine], np.uint8)
    return TwoLevelMap(labels, lift(labels, PARTS) if coarse is None else np.array([coarse], np.uint8))


def test_parts_by_hand() -> None:
    # One car of 4 pixels, wheel wheel body body, and sky. Said: wheel body body body, sky.
    counted = PartQuality(PARTS)
    counted.add(_maps([0, 0, 1, 1, 2, 2]), _row(1, 1, 1, 1, 0, 0), _maps([0, 1, 1, 1, 2, 2]), _row(7, 7, 7, 7, 0, 0))
    assert counted.counts.credits[0] == [pytest.approx((1 / 2 + 2 / 3 + 1) / 3)]  # the outside is a label
    assert counted.counts.credits[1] == [1]
    summary = counted.summary()
    assert summary["with_parts"]["pq"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert summary["without_parts"]["pq"] == 1
    assert [summary[name]["classes"] for name in ("all", "with_parts", "without_parts")] == [2, 1, 1]


def test_pixels_without_a_part_are_not_looked_at_in_the_truth_and_only_missed_in_the_prediction() -> None:
    counted = PartQuality(PARTS)
    # The last car pixel has no true part; the second has no predicted one.
    counted.add(
        _maps([0, 0, 1, 255, 2], [0, 0, 0, 0, 1]), _row(1, 1, 1, 1, 0), _maps([0, 255, 1, 0, 2], [0, 0, 0, 0, 1]),
        _row(1, 1, 1, 1, 0),
    )  # fmt: skip
    assert counted.counts.credits[0] == [pytest.approx((1 / 2 + 1 + 1) / 3)]


def test_a_car_without_true_parts_and_a_thing_without_number_are_crowds() -> None:
    for fine, numbers in (([255] * 4, (1, 1, 1, 1)), ([0] * 4, (0, 0, 0, 0))):
        counted = PartQuality(PARTS)
        counted.add(_maps(fine, [0] * 4), _row(*numbers), _maps([0] * 4), _row(1, 1, 1, 1))
        assert counted.counts.counts.sum() == 0


def test_stuff_is_one_segment_whatever_its_numbers() -> None:
    counted = PartQuality(PARTS)
    counted.add(_maps([2, 2, 2, 2]), _row(1, 1, 2, 2), _maps([2, 2, 2, 2]), _row(0, 0, 0, 5))
    assert counted.counts.counts.tolist() == [[0, 1], [0, 0], [0, 0]]


def test_part_quality_without_part_classes_gives_nan_not_an_error() -> None:
    summary = PartQuality(TOY).summary()
    assert summary["all"] == {"pq": None, "sq": None, "rq": None, "classes": 0}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
