"""What an evaluation found, in one plain structure: for the terminal, for JSON and CSV, and for a page with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.evaluation.predictions import Predictions
from hiposeg_cli.evaluation.truth import Truth, TruthImage
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.image_file import read_rgb
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap
from hiposeg_cli.metrics import Confusion, Protocol
from hiposeg_cli.metrics.images import ImageCounts

Kind = Literal["missing", "extra", "duplicate", "ambiguous", "size", "ids", "unreadable", "truth"]
KINDS: dict[Kind, str] = {
    "missing": "images without a prediction", "extra": "predictions of no image", "duplicate": "images with several files",
    "ambiguous": "files that fit several images", "size": "predictions of another size",
    "ids": "predictions with unknown ids", "unreadable": "predictions that cannot be read or made",
    "truth": "images whose truth cannot be read",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Something that could not be scored, or a file that belongs nowhere.

    Attributes:
        key: the image's; empty for files that belong to none.
        where: the file; `what` is wrong with it; `cure` is what to do.
    """

    kind: Kind
    key: str
    where: str
    what: str
    cure: str = ""

    @property
    def error(self) -> DataError:
        """The same as an error."""
        return DataError(self.where, self.what, self.cure)

    def __str__(self) -> str:
        return str(self.error)


@dataclass(frozen=True)
class ImageResult:
    """One scored image.

    Attributes:
        key: its name in the dataset, unique in the split.
        height, width: of truth and prediction, px.
        photo: its file, which may be gone; `truth` and `predicted` are the label files by level name. A run has no
            predicted files, and a level that is looked up has none either.
        miou: level name -> mean IoU over the classes in its truth or prediction; None where there are none.
        wrong_share: share of the pixels with a true fine class that are predicted otherwise; None without such pixels.
        remarks: what is odd about its files and was handled.
    """

    key: str
    height: int
    width: int
    photo: str
    truth: Mapping[str, str]
    predicted: Mapping[str, str]
    miou: Mapping[str, float | None]
    wrong_share: float | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """The pixels of one image, for a picture.

    Attributes:
        photo: (H, W, 3) uint8; None where it is gone.
        predicted: the prediction's own (H, W) maps, finest level first; levels that are not there are the parents.
    """

    photo: Any
    truth: TwoLevelMap
    predicted: tuple[LabelArray, ...]


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found.

    Attributes:
        summary: all numbers as plain values: what was evaluated, what `metrics.summarize` gives, and by level name
            `sqiou`, `intervals` and, where asked for, `boundary`, `iiou`, `calibration`, `pq`, `part_pq`; `chains` and
            `curve` where there are any.
        confusion: the counts over the set, from which every level's matrix is folded.
        counts: true positives, false positives and misses of each image, level and class, under the protocol.
        images: sorted by key.
        problems: what was not scored, and why.
        truth, predictions: the two sides, to read single images again; see `shown`.
    """

    hierarchy: Hierarchy
    protocol: Protocol
    summary: dict[str, Any]
    confusion: Confusion
    counts: ImageCounts
    images: tuple[ImageResult, ...]
    problems: tuple[Problem, ...]
    truth: Truth
    predictions: Predictions

    @property
    def is_own(self) -> bool:
        """Whether predictions have their own maps of the levels above the finest."""
        return bool(self.confusion.own)

    def problem_counts(self) -> dict[Kind, int]:
        """Kind of problem -> how many images, or files that belong to none, in the order of `KINDS`."""
        found = Counter(kind for kind, _ in {(problem.kind, problem.key or problem.where) for problem in self.problems})
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def remark_lines(self) -> list[str]:
        """What is odd about files, each once with the number of images it is true of."""
        counts = Counter(remark for image in self.images for remark in set(image.remarks))
        first = {remark: image.key for image in reversed(self.images) for remark in image.remarks}
        return [f"{what} ({n} image{'s' * (n > 1)}, such as {first[what]})" for what, n in sorted(counts.items())]

    def worst(self, level: str, n: int) -> list[ImageResult]:
        """The n images of lowest mean IoU on a level, lowest first; images without a class on it are left out."""
        rated = [(image.miou[level], image.key, image) for image in self.images]
        ordered = sorted((iou, key, image) for iou, key, image in rated if iou is not None)
        return [image for _iou, _key, image in ordered[:n]]

    def drawn(self, n: int, seed: int) -> list[ImageResult]:
        """n images at random, sorted by key: the same ones for the same images and seed."""
        order = np.random.default_rng(seed).permutation(len(self.images))
        return [self.images[place] for place in sorted(order[:n].tolist())]

    def matrix(self, depth: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(K, K + 1) int64 of a level as it is scored: true against predicted class, void last."""
        if self.is_own and depth:
            return self.confusion.own_matrix(depth)
        return self.confusion.matrix(depth, self.protocol.coarse_pixels, self.protocol.uncovered)

    def shown(self, image: ImageResult) -> Shown:
        """Read one image again; a run predicts it again. Raises DataError when a file is gone."""
        source = self._source(image.key)
        truth = self.truth.read(source).labels
        files = {level: Path(path) for level, path in image.predicted.items()}
        predicted = self.predictions.read(source, files, self.truth).maps
        path = Path(image.photo)
        with self.truth.allowed(source):
            photo = read_rgb(path) if path.is_file() else None
        return Shown(photo, truth, predicted)

    def _source(self, key: str) -> TruthImage:
        return next(source for source in self.truth.images if source.key == key)

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values: the summary, every image, every matrix, every problem."""
        return {
            **self.summary,
            "confusion": {
                level.name: {"classes": level.names, "counts": self.matrix(depth).tolist()}
                for depth, level in enumerate(self.hierarchy.levels)
            },
            "per_image": [asdict(image) for image in self.images],
            "problem_counts": self.problem_counts(),
            "problems": [asdict(problem) for problem in self.problems],
        }
