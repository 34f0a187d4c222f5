"""Counting one Cityscapes-sized pair, 1024x2048 and 19 classes, beside the usual ways to do it, taking turns.

- cityscapesScripts' `evaluatePair`: one confusion matrix, from files and from images already decoded;
- three histograms (intersection, prediction, truth) of the valid pixels, as mmsegmentation's IoUMetric has them, with
  `numpy.histogram` and with `torch.histc`.

Ours counts both levels and keeps the whole matrix. Two predictions: a smooth one, as networks make them, and the same with
2 % of the pixels at random, which no run of equal ids survives. All ways must give the same counts, or this fails.
Run: python benchmarks/eval_speed.py [SAMPLES]   (the folder that holds cityscapes/; without it the maps are drawn)
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official  # noqa: N813
from common import machine
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift, read_label_png, write_label_png
from hiposeg_cli.metrics import Confusion

HIERARCHY = load_hierarchy("cityscapes-19-7")
IDS = np.full(256, 0, np.uint8)  # fine id -> Cityscapes label id, for the official script
for label_id, name in HIERARCHY.source("cityscapes").map.items():
    IDS[HIERARCHY.fine.find(name)] = label_id
RULES = SimpleNamespace(evalInstLevelScore=False, evalPixelAccuracy=False, evalLabels=[])
REPEATS = 15
LabelMap = NDArray[np.uint8]  # (1024, 2048)


def truth_map(samples: Path | None) -> LabelMap:
    """Fine ids with ignored pixels, of a real frame or drawn."""
    if samples is not None:
        path = sorted((samples / "cityscapes/gtFine").rglob("*_labelIds.png"))[0]
        table = np.full(256, 255, np.uint8)
        table[IDS[:19]] = np.arange(19)
        return table[np.array(Image.open(path))]
    blocks = np.random.default_rng(0).integers(0, 20, (32, 64)).astype(np.uint8)
    blocks[blocks == 19] = 255
    return np.kron(blocks, np.ones((32, 32), np.uint8))


def smooth(truth: LabelMap) -> LabelMap:
    """The truth moved by five pixels, void nowhere, 5 % of the 32x32 blocks wrong."""
    moved = np.roll(truth, 5, axis=1)
    moved[moved == 255] = 8
    wrong = np.kron(np.random.default_rng(1).random((32, 64)) < 0.05, np.ones((32, 32), np.bool_))
    moved[wrong] = (moved[wrong] + 1) % 19
    return moved


def noisy(truth: LabelMap) -> LabelMap:
    """The same with 2 % of the pixels at random."""
    rng, moved = np.random.default_rng(2), smooth(truth)
    wrong = rng.random(truth.shape) < 0.02
    moved[wrong] = rng.integers(0, 19, int(wrong.sum()))
    return moved


class Pair:
    """A truth and a prediction in every form the ways want, and what each way found."""

    def __init__(self, truth: LabelMap, predicted: LabelMap, folder: Path) -> None:
        self.truth, self.predicted, self.found = truth, predicted, {}
        self.labels = TwoLevelMap(truth, lift(truth, HIERARCHY))
        self.tensors = torch.from_numpy(truth.ravel()), torch.from_numpy(predicted.ravel())
        self.opened = {"truth": Image.fromarray(IDS[truth]), "prediction": Image.fromarray(IDS[predicted])}
        self.paths = {name: folder / f"{name}.png" for name in ("prediction", "truth", "prediction_ids", "truth_ids")}
        for name, values in zip(self.paths, (predicted, truth, IDS[predicted], IDS[truth]), strict=True):
            write_label_png(self.paths[name], values)
        self.blank = official.generateMatrix(RULES)

    def ours(self) -> None:
        self.found["ours"] = Confusion(HIERARCHY)
        self.found["ours"].add(self.labels, self.predicted)

    def ours_from_files(self) -> None:
        fine = read_label_png(self.paths["truth"])
        labels = TwoLevelMap(fine, lift(fine, HIERARCHY))
        Confusion(HIERARCHY).add(labels, read_label_png(self.paths["prediction"]))

    def official_decoded(self) -> None:
        official.Image = SimpleNamespace(open=self.opened.__getitem__)
        self._official("prediction", "truth")
        official.Image = Image

    def official_from_files(self) -> None:
        self._official(str(self.paths["prediction_ids"]), str(self.paths["truth_ids"]))

    def _official(self, predicted: str, truth: str) -> None:
        self.found["official"] = self.blank.copy()
        official.evaluatePair(predicted, truth, self.found["official"], {}, {}, RULES)

    def numpy_histograms(self) -> None:
        self.found["numpy"] = areas(self.truth, self.predicted, lambda x: np.histogram(x, bins=19, range=(0, 18))[0])

    def torch_histograms(self) -> None:
        self.found["torch"] = areas(*self.tensors, lambda x: torch.histc(x.float(), bins=19, min=0, max=18).numpy())

    def check(self) -> None:
        """Fail unless all ways found the same counts."""
        leaf = self.found["ours"].matrix(0)
        for name in ("numpy", "torch"):
            for mine, theirs in zip((np.diagonal(leaf), leaf[:, :-1].sum(0), leaf.sum(1)), self.found[name], strict=True):
                assert (mine == theirs).all(), name
        assert (leaf[:, :-1] == self.found["official"][np.ix_(IDS[:19], IDS[:19])]).all()


def areas(truth: Any, predicted: Any, histogram: Callable[[Any], Any]) -> list[Any]:
    """Areas of intersection, prediction and truth over the valid pixels."""
    valid = truth != 255
    truth, predicted = truth[valid], predicted[valid]
    return [histogram(predicted[predicted == truth]), histogram(predicted), histogram(truth)]


def interleaved(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each way, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS + 1):
        for name, act in ways.items():
            started = time.perf_counter()
            act()
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(act: Callable[[], None]) -> float:
    """Most memory allocated at once during an act."""
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / (1 << 20)


def compare(pair: Pair, title: str) -> None:
    """Time all ways on one pair and print them."""
    ways = {
        "ours": pair.ours, "cityscapesScripts": pair.official_decoded, "numpy.histogram x3": pair.numpy_histograms,
        "torch.histc x3": pair.torch_histograms, "ours from files": pair.ours_from_files,
        "cityscapesScripts from files": pair.official_from_files,
    }  # fmt: skip
    seconds = interleaved(ways)
    pair.check()
    print(f"{title} prediction, identical counts:")
    for name, value in seconds.items():
        base = seconds["ours from files" if name.endswith("files") else "ours"]
        memory = "" if name.startswith("torch") else f"  {peak_mib(ways[name]):6.1f} MiB"  # torch's own is not traced
        print(f"  {name:30} {1000 * value:6.1f} ms  {value / base:5.1f} times ours{memory}")


def main() -> None:
    truth = truth_map(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"1024x2048, 19 classes, medians of {REPEATS} turns, torch threads {torch.get_num_threads()}; {machine()}")
    print(f"cityscapesScripts' compiled counter: {'in use' if official.CSUPPORT else 'not in its wheel, Python in use'}")
    with tempfile.TemporaryDirectory() as folder:
        for predict in (smooth, noisy):
            compare(Pair(truth, predict(truth), Path(folder)), predict.__name__)


if __name__ == "__main__":
    main()
