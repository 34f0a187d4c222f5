"""The same numbers as cityscapesScripts 2.3.0, bit for bit: class IoU, category IoU, iIoU; and its panoptic quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.hierarchy import Level
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics import PROTOCOLS, Confusion
from hiposeg_cli.metrics.instances import InstanceIoU
from hiposeg_cli.metrics.panoptic import PanopticQuality, Segments
from hiposeg_cli.metrics.values import mean_of_defined

official = pytest.importorskip(
    "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason="cityscapesScripts is not installed (extra parity)"
)
panoptic = pytest.importorskip(
    "cityscapesscripts.evaluation.evalPanopticSemanticLabeling", reason="cityscapesScripts is not installed (extra parity)"
)

HIERARCHY = load_hierarchy("cityscapes-19-7")
TRAIN_ID = np.full(256, 255, np.uint8)  # Cityscapes label id -> fine id
for label_id, name in HIERARCHY.source("cityscapes").map.items():
    TRAIN_ID[int(label_id)] = HIERARCHY.fine.find(str(name))
EVALUATED = np.flatnonzero(TRAIN_ID != 255).astype(np.uint8)
Pair = tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]  # label ids, instance ids, predicted label ids


def drawn_pair(rng: np.random.Generator, void: bool) -> Pair:
    """Blocks of label ids, ignored ones among them, with instances of things, and a prediction wrong in a third."""
    truth = np.kron(rng.integers(0, 34, (9, 12)), np.ones((7, 8))).astype(np.uint8)
    instances = truth.astype(np.uint16)
    thing = (truth >= 24) & (rng.random((9, 12)).repeat(7, 0).repeat(8, 1) < 0.8)  # the others are groups
    instances[thing] = truth[thing] * np.uint16(1000) + np.kron(rng.integers(0, 4, (9, 12)), np.ones((7, 8)))[thing]
    choices = np.append(EVALUATED, [0, 1, 9]) if void else EVALUATED
    return (
        truth,
        instances,
        np.where(rng.random(truth.shape) < 0.35, rng.choice(choices, truth.shape), truth).astype(np.uint8),
    )


def official_results(pairs: list[Pair], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the script on files."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # gone from numpy 2.4; the script calls it for instances
    args = official.args
    for option, value in {"evalInstLevelScore": True, "JSONOutput": False, "quiet": True}.items():
        monkeypatch.setattr(args, option, value)
    paths: tuple[list[str], list[str]] = ([], [])
    for n, (truth, numbers, predicted) in enumerate(pairs):
        names = [str(folder / f"{n:03}_{kind}.png") for kind in ("pred", "gtFine_labelIds", "gtFine_instanceIds")]
        for name, values in zip(names, (predicted, truth, numbers), strict=True):
            Image.fromarray(values).save(name)
        paths[0].append(names[0])
        paths[1].append(names[1])
    results: dict[str, Any] = official.evaluateImgLists(*paths, args)
    return results


def ours(pairs: list[Pair]) -> tuple[Confusion, InstanceIoU]:
    confusion, instances = Confusion(HIERARCHY), InstanceIoU(HIERARCHY)
    for n, (truth, numbers, predicted) in enumerate(pairs):
        fine = TRAIN_ID[truth]
        labels = TwoLevelMap(fine, lift(fine, HIERARCHY))
        confusion.add(labels, TRAIN_ID[predicted])
        instances.add(f"{n:03}", labels, np.where(numbers > 1000, numbers, 0), TRAIN_ID[predicted])
    return confusion, instances


def assert_equal(mine: NDArray[np.float64], level: Level, theirs: dict[str, float], mean: float) -> None:
    """Every class is bit for bit the same, and what is not evaluated is nan; the mean may be summed in another order."""
    assert {name: value for name, value in theirs.items() if not math.isnan(value)} == {
        name: value for name, value in zip(level.names, mine.tolist(), strict=True) if not math.isnan(value)
    }
    assert mean_of_defined(mine) == pytest.approx(mean, rel=1e-15, nan_ok=True)


def compare(pairs: list[Pair], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = official_results(pairs, folder, monkeypatch)
    confusion, instances = ours(pairs)
    for depth, (short, kind) in enumerate((("class", "Classes"), ("category", "Categories"))):
        level, iou = HIERARCHY.levels[depth], PROTOCOLS["cityscapes"].scores(confusion, depth).iou
        assert_equal(iou, level, theirs[f"{short}Scores"], theirs[f"averageScore{kind}"])
        iiou = instances.scores(confusion, depth)
        assert_equal(iiou, level, theirs[f"{short}InstScores"], theirs[f"averageScoreInst{kind}"])
    matrix = np.array(theirs["confMatrix"])
    assert (matrix[np.ix_(EVALUATED, EVALUATED)] == confusion.matrix(0)[:, :-1]).all()


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_drawn_labels(seed: int, void: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`void`: the prediction holds ids that are not evaluated, which are misses and nobody's false positive."""
    rng = np.random.default_rng(seed)
    compare([drawn_pair(rng, void) for _ in range(4)], tmp_path, monkeypatch)


def test_classes_in_truth_only_in_prediction_only_and_in_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.full((6, 8), 7, np.uint8)
    truth[:, :2] = 11  # building, never predicted
    predicted = np.full((6, 8), 7, np.uint8)
    predicted[:, 6:] = 26  # car, never true
    compare([(truth, truth.astype(np.uint16), predicted)], tmp_path, monkeypatch)


def test_real_frames(sample_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame predicted as it is moved by some pixels, so that void moves onto classes as well.

    Predicted caravans and trailers are taken out: the script counts them as vehicles in the category iIoU, while in 19
    classes they are void.
    """
    pairs = []
    for path in sorted((sample_data("cityscapes") / "gtFine").rglob("*_labelIds.png"))[:2]:
        truth = np.array(Image.open(path))
        instances = np.array(Image.open(str(path).replace("labelIds", "instanceIds"))).astype(np.uint16)
        moved = np.roll(truth, 9, axis=1)
        pairs.append((truth, instances, np.where(np.isin(moved, (29, 30)), 0, moved).astype(np.uint8)))
    assert pairs
    assert any((np.isin(t, EVALUATED) & ~np.isin(p, EVALUATED)).any() for t, _i, p in pairs)
    compare(pairs, tmp_path, monkeypatch)


# -- panoptic quality --------------------------------------------------------------------------------------------------


def drawn_segments(rng: np.random.Generator, level: Level) -> tuple[Segments, Segments]:
    """Blocks of segments with void and crowds, and a prediction with moved borders, other classes and void."""
    true = np.kron(rng.integers(0, 9, (4, 5)), np.ones((6, 6))).astype(np.int64)
    classes = {number: int(rng.integers(0, len(level))) for number in range(1, 9)}
    crowd = {classes[number]: number for number in range(1, 9) if rng.random() < 0.3}  # one of a class, as the script has it
    said = np.where(rng.random(true.shape) < 0.15, 0, np.roll(true, int(rng.integers(0, 4)), axis=1))
    renamed = {n: c if rng.random() < 0.8 else int(rng.integers(0, len(level))) for n, c in classes.items()}
    return Segments(true, classes, frozenset(crowd.values())), Segments(said, renamed)


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality(seed: int, tmp_path: Path) -> None:
    rng, level = np.random.default_rng(seed), HIERARCHY.coarse
    counted, annotations = PanopticQuality(level), []
    for n in range(6):
        truth, predicted = drawn_segments(rng, level)
        counted.add(truth, predicted)
        both = []
        for kind, segments in (("gt", truth), ("pred", predicted)):
            (tmp_path / kind).mkdir(exist_ok=True)
            colours = np.zeros((*segments.numbers.shape, 3), np.uint8)
            colours[..., 0] = segments.numbers
            Image.fromarray(colours).save(tmp_path / kind / f"{n}.png")
            present = [number for number in np.unique(segments.numbers).tolist() if number]
            info = [
                {"id": number, "category_id": segments.classes[number], "iscrowd": int(number in segments.crowd),
                 "area": int((segments.numbers == number).sum())} for number in present
            ]  # fmt: skip
            both.append({"image_id": n, "file_name": f"{n}.png", "segments_info": info})
        annotations.append(tuple(both))
    categories = {node.id: {"isthing": int(node.kind == "thing"), "name": node.name} for node in level.nodes}
    theirs = panoptic.pq_compute_single_core(0, annotations, str(tmp_path / "gt"), str(tmp_path / "pred"), categories)
    stats = [theirs[node.id] for node in level.nodes]
    assert counted.counts.tolist() == [[getattr(stat, name) for stat in stats] for name in ("tp", "fp", "fn")]
    assert counted.counts.min(axis=1).max() >= 0
    assert all(counted.counts.sum(axis=1) > 0), "nothing was compared"
    results, summary = panoptic.average_pq(theirs, categories), counted.summary()
    for name in ("All", "Things", "Stuff"):
        group = summary[name.lower()]
        assert group["classes"] == results[name]["n"]
        assert [group[key] for key in ("pq", "sq", "rq")] == pytest.approx(
            [results[name][key] for key in ("pq", "sq", "rq")], rel=1e-14
        )
