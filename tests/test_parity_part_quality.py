"""The same numbers as panoptic_parts 2.0rc6's PartPQ on Cityscapes Panoptic Parts, evaluation specification 19_23."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap
from hiposeg_cli.metrics.part_quality import PartQuality

HIERARCHY = load_hierarchy("cityscapes-panoptic-parts-37-19-7")
SCENES = (7, 11, 23, 24, 26, 28, 31, 33)  # road, building, sky, person, car, bus, train, bicycle
THINGS, PARTS = (24, 26, 28, 31, 33), {24: 4, 26: 5, 28: 5}
UNKNOWN = 255  # a predicted pixel without a part
Maps = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]  # (H, W) scene, instance and part ids


@pytest.fixture(scope="module")
def official() -> Any:
    """The module and its specification. It compares versions as decimals, so 3.11 is too old for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "python_version", lambda: "3.9.0")
        evaluation = pytest.importorskip(
            "panoptic_parts.utils.evaluation_PartPQ", reason="panoptic_parts or scikit-learn is not installed (extra parity)"
        )
        from panoptic_parts.specs.eval_spec import PartPQEvalSpec
    package = Path(evaluation.__file__).parents[1]
    here = Path.cwd()
    os.chdir(package.parent)  # the specification names its dataset's relative to here
    try:
        evaluation.spec = PartPQEvalSpec(str(package / "specs/eval_specs/ppq_cpp_19_23_cvpr21_default_evalspec.yaml"))
    finally:
        os.chdir(here)
    return evaluation


def drawn_scene(rng: np.random.Generator) -> tuple[Maps, Maps]:
    """Stuff with rectangles of things over it, and the same with borders moved, classes and parts changed, some left out.

    In the truth some things have no number (groups), some no parts, and some pixels are void or have no part.
    """
    scene = np.kron(rng.choice(SCENES[:3], (3, 4)), np.ones((20, 20))).astype(np.int32)
    true: Maps = (scene, np.zeros_like(scene), np.zeros_like(scene))
    said: Maps = (scene.copy(), np.zeros_like(scene), np.zeros_like(scene))
    for number in range(1, 9):
        label, (top, left), (height, width) = int(rng.choice(THINGS)), rng.integers(0, 50, 2), rng.integers(8, 22, 2)
        parts = np.kron(rng.integers(0, PARTS.get(label, 0) + 1, (4, 4)), np.ones((6, 6)))[:height, :width].astype(np.int32)
        kind = rng.random()
        _paint(true, top, left, label, 0 if kind < 0.15 else number, np.zeros_like(parts) if kind > 0.85 else parts)
        if rng.random() < 0.15:
            continue
        other = label if rng.random() < 0.85 else int(rng.choice(THINGS))
        shown = np.where(rng.random(parts.shape) < 0.2, rng.integers(0, PARTS.get(other, 0) + 1, parts.shape), parts)
        shown = np.where((shown == 0) | (shown > PARTS.get(other, 0)), UNKNOWN, shown) if other in PARTS else shown * 0
        _paint(said, top + int(rng.integers(0, 4)), left, other, number, shown.astype(np.int32))
    true[0][rng.random(scene.shape) < 0.03] = 0
    for labels in true[1:]:
        labels[true[0] == 0] = 0
    return true, said


def _paint(maps: Maps, top: int, left: int, label: int, number: int, parts: NDArray[np.int32]) -> None:
    place = (slice(top, top + parts.shape[0]), slice(left, left + parts.shape[1]))
    shown = parts[: maps[0][place].shape[0], : maps[0][place].shape[1]]
    for labels, value in zip(maps, (label, number, shown if number else shown * 0), strict=True):
        labels[place] = value


def uids(maps: Maps) -> NDArray[np.int32]:
    """The truth as the file format packs it: scene, then three digits of instance, then two of part."""
    scene, number, part = maps
    packed = np.where(part > 0, scene * 100_000 + number * 100 + part, scene * 1000 + number)
    return np.where(number > 0, packed, scene).astype(np.int32)


def two_level(maps: Maps, hierarchy: Hierarchy) -> TwoLevelMap:
    """The same as hiposeg keeps it: scene classes above, parts below, none where there is no part."""
    table = hierarchy.source("cityscapes-panoptic-parts").map
    fine, coarse = np.full(10_000, 255, np.uint8), np.full(10_000, 255, np.uint8)
    for key, target in table.items():
        if isinstance(target, dict):
            coarse[int(key)] = hierarchy.coarse.find(target["coarse"])
        elif target != "ignore":
            fine[int(key)] = hierarchy.fine.find(target)
            coarse[int(key)] = hierarchy.parent[fine[int(key)]]
    codes = maps[0] * 100 + np.where(maps[2] == UNKNOWN, 0, maps[2])
    return TwoLevelMap(fine[codes], coarse[codes])


def official_counts(evaluation: Any, true: Maps, said: Maps) -> Any:
    """TP, FP, FN and sum of IoU of one image, by the steps of its `evaluate_single_core`."""
    spec, packed = evaluation.spec, uids(true)
    truth, extra = evaluation.annotation_parsing(spec, packed)
    predicted = evaluation.prediction_parsing(spec.cat_definition, *said)
    ignored = evaluation.generate_ignore_info_tiff(packed, spec)
    ignored[extra != 0] = extra[extra != 0]
    crowds = evaluation.ignore_img_parsing(ignored, spec.cat_definition)
    return evaluation.pq_part(predicted, truth, crowds, spec.cat_definition, spec.ignore_label)


@pytest.mark.parametrize("seed", range(6))
def test_part_quality(seed: int, official: Any) -> None:
    rng, counted, theirs = np.random.default_rng(seed), PartQuality(HIERARCHY), official.PQStat()
    for _ in range(3):
        true, said = drawn_scene(rng)
        counted.add(two_level(true, HIERARCHY), true[1], two_level(said, HIERARCHY), said[1])
        theirs += official_counts(official, true, said)
    names = official.spec.eval_sid2scene_label
    order = [HIERARCHY.coarse.find(names[entry["sem_cls"][0]]) for entry in official.spec.cat_definition["cat_def"]]
    mine = counted.counts
    for position, label in enumerate(order):
        stat = theirs[position]
        assert mine.counts[:, label].tolist() == [stat.tp, stat.fp, stat.fn], HIERARCHY.coarse.names[label]
        assert sum(mine.credits[label]) == pytest.approx(stat.iou, rel=1e-12)
    assert mine.counts[0].sum() > 5, "hardly anything matched"
    assert len({label for label in range(HIERARCHY.n_coarse) if mine.counts[0, label]} & {*order}) > 2
    (everything, with_parts, without_parts), _classes = theirs.pq_average(official.spec.cat_definition)
    summary = counted.summary()
    for name, group, suffix in (
        ("all", everything, ""), ("with_parts", with_parts, "_parts"), ("without_parts", without_parts, "_noparts"),
    ):  # fmt: skip
        expected = [group[f"Part{kind}{suffix}"] for kind in ("PQ", "SQ", "RQ")]
        assert [summary[name][kind] for kind in ("pq", "sq", "rq")] == pytest.approx(expected, rel=1e-12)
