"""Scoring a folder of Cityscapes-sized label PNGs: `hiposeg eval` with one and two processes beside cityscapesScripts.

Truth and predictions are drawn label ids, 1024x2048, in the published layout, and are read from their files by all. The ways
take turns; all must give the same class IoU to the last bit, or this fails. Beside them the time that one process needs to
decode the PNGs alone, which nothing that reads them can go below. Ours also counts every image by itself, for the worst
images, sqIoU and intervals. Processor time is that of all processes: two processes that need as much as one are twice as
fast wherever two cores are free, which the clock shows only on an idle machine.
Run: python benchmarks/eval_folder.py [IMAGES] [TURNS]
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official  # noqa: N813
from common import machine
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.evaluation.counting import Wanted
from hiposeg_cli.evaluation.predictions import FolderPredictions, pred_lookup
from hiposeg_cli.evaluation.scoring import evaluate_pairs
from hiposeg_cli.evaluation.truth import RawTruth
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.metrics import PROTOCOLS

HEIGHT, WIDTH = 1024, 2048
EVALUATED = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33], np.uint8)
Ious = dict[str, float]  # class name -> IoU, those that are defined


def drawn(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(1024, 2048) label ids in regions with curved edges, a few of them void."""
    best, ids = np.full((HEIGHT, WIDTH), -np.inf, np.float32), np.zeros((HEIGHT, WIDTH), np.uint8)
    for label in (*EVALUATED, 0, 4):
        field = Image.fromarray(rng.random((24, 48)).astype(np.float32)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        values = np.asarray(field)
        ids[values > best] = label
        np.maximum(best, values, out=best)
    return ids


def predicted(rng: np.random.Generator, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The truth moved by five pixels, 5 % of its 32x32 blocks of another class, and no void."""
    moved = np.roll(truth, 5, axis=1)
    wrong = np.kron(rng.random((32, 64)) < 0.05, np.ones((32, 32), np.bool_))
    moved[wrong] = rng.choice(EVALUATED)
    moved[~np.isin(moved, EVALUATED)] = 21
    return moved


class Folder:
    """A drawn dataset with predictions, and the ways to score them."""

    def __init__(self, root: Path, n_images: int) -> None:
        self.root, self.pairs = root, []
        photo = Image.new("RGB", (WIDTH, HEIGHT))
        for number in range(n_images):
            rng, name = np.random.default_rng(number), f"ulm/ulm_{number:06}_000019"
            truth = drawn(rng)
            paths = [root / "pred" / f"{name}.png", root / "raw/gtFine/val" / f"{name}_gtFine_labelIds.png"]
            pictures = [Image.fromarray(predicted(rng, truth)), Image.fromarray(truth)]
            paths.append(root / "raw/leftImg8bit/val" / f"{name}_leftImg8bit.png")
            for path, picture in zip(paths, [*pictures, photo], strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
            self.pairs.append((paths[0], paths[1]))

    def ours(self, workers: int) -> Ious:
        truth = RawTruth("cityscapes", self.root / "raw", "val", None, ReaderOptions())
        folder = FolderPredictions(self.root / "pred", truth, lookup=pred_lookup("cityscapes", truth))
        result = evaluate_pairs(truth, folder, Wanted(PROTOCOLS["cityscapes"]), {}, workers=workers)
        assert not result.problems
        classes = result.summary["levels"]["fine"]["classes"]
        return {entry["name"]: entry["iou"] for entry in classes if entry["iou"] is not None}

    def official(self) -> Ious:
        for option, value in {"evalInstLevelScore": False, "JSONOutput": False, "quiet": True}.items():
            setattr(official.args, option, value)
        predictions, truths = ([str(path) for path in paths] for paths in zip(*self.pairs, strict=True))
        scores = official.evaluateImgLists(predictions, truths, official.args)["classScores"]
        return {name: value for name, value in scores.items() if not math.isnan(value)}

    def decode(self) -> Ious:
        for pair in self.pairs:
            for path in pair:
                read_label_png(path)
        return {}


def processor_seconds() -> float:
    """Of this process and those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def arguments() -> tuple[int, int]:
    """Numbers of images and of turns."""
    given = [int(text) for text in sys.argv[1:]]
    return (*given, *(48, 5)[len(given) :])[:2]


def main() -> None:
    n_images, turns = arguments()
    load = os.getloadavg()[0]
    print(f"{n_images} images {HEIGHT}x{WIDTH}, medians of {turns} turns; {machine()}, load {load:.1f} before it began")
    print(f"cityscapesScripts' compiled counter: {'in use' if official.CSUPPORT else 'not in its wheel, Python in use'}")
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root), n_images)
        ways: dict[str, Callable[[], Ious]] = {
            "decoding alone": folder.decode, "hiposeg, 1 process": lambda: folder.ours(1),
            "hiposeg, 2 processes": lambda: folder.ours(2), "cityscapesScripts": folder.official,
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        processor: dict[str, list[float]] = {name: [] for name in ways}
        for _turn in range(turns):
            found = {}
            for name, act in ways.items():
                started, used = time.perf_counter(), processor_seconds()
                found[name] = act()
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(processor_seconds() - used)
            assert found["hiposeg, 1 process"] == found["hiposeg, 2 processes"] == found["cityscapesScripts"]
    one = statistics.median(seconds["hiposeg, 1 process"])
    for name, values in seconds.items():
        clock, busy = (1000 * statistics.median(times) / n_images for times in (values, processor[name]))
        print(
            f"  {name:22} {clock:6.1f} ms an image, {1000 * one / n_images / clock:.2f} times as fast as 1 process", end=""
        )
        print(f"; {busy:6.1f} ms of processor time")


if __name__ == "__main__":
    main()
