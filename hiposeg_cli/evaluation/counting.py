"""Counting pairs of truth and prediction: each image for itself, in as many processes as wanted, then added up.

All counts are integers, so that the sum is the same for any number of processes and any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.evaluation.calibration import Calibration
from hiposeg_cli.evaluation.objects import Objects
from hiposeg_cli.evaluation.predictions import OBJECTS, Predicted, Predictions, UnknownIds
from hiposeg_cli.evaluation.result import ImageResult, Kind, Problem
from hiposeg_cli.evaluation.truth import TrueLabels, Truth, TruthImage
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.metrics import BackOffCurve, Confusion, Protocol
from hiposeg_cli.metrics.boundary import boundary_counts
from hiposeg_cli.metrics.chains import Chains
from hiposeg_cli.metrics.images import ImageCounts, image_counts
from hiposeg_cli.metrics.instances import InstanceIoU
from hiposeg_cli.metrics.objects import has_parts
from hiposeg_cli.metrics.scores import iou_of
from hiposeg_cli.metrics.values import Matrix, mean_of_defined, none_if_nan, ratio
from hiposeg_cli.pool import Progress, Workers, mapped


@dataclass(frozen=True)
class Wanted:
    """What to count.

    Attributes:
        boundary_ratio: width of the bands of Boundary IoU as a share of the diagonal; None for none.
        instances: iIoU, from the truth's object numbers.
        objects: PQ and PartPQ, from the object numbers of both.
        thresholds: of the curve of back-off; none for none.
    """

    protocol: Protocol
    boundary_ratio: float | None = None
    instances: bool = False
    objects: bool = False
    calibration: bool = False
    thresholds: tuple[float, ...] = ()

    def parts(self, hierarchy: Hierarchy) -> set[str]:
        """Names of the parts of a summary that these add."""
        given = {"boundary": self.boundary_ratio is not None, "iiou": self.instances, "pq": self.objects}
        given["part_pq"] = self.objects and bool(has_parts(hierarchy).any())
        return {name for name, is_given in given.items() if is_given}


class Counts:
    """The counts of some images; those that are not wanted are None, and `chains` where levels have no maps of their own."""

    def __init__(self, hierarchy: Hierarchy, wanted: Wanted) -> None:
        self.hierarchy, self.wanted = hierarchy, wanted
        self.confusion, self.images = Confusion(hierarchy), ImageCounts(hierarchy)
        self.chains: Chains | None = None
        self.boundary = ImageCounts(hierarchy) if wanted.boundary_ratio is not None else None
        self.instances = InstanceIoU(hierarchy) if wanted.instances else None
        self.objects = Objects(hierarchy) if wanted.objects else None
        self.curve = BackOffCurve(hierarchy, wanted.thresholds) if wanted.thresholds else None
        self.calibration = Calibration(hierarchy) if wanted.calibration else None
        self.results: list[ImageResult] = []

    def add(self, image: TruthImage, true: TrueLabels, predicted: Predicted) -> None:
        """Count the first and only image. Raises DataError when the prediction does not fit the truth."""
        assert not self.confusion.n_images, "one image; further ones are merged"
        fine, *above = predicted.maps
        self.confusion.add(true.labels, fine, predicted.where, above)
        levels = image_counts(self.confusion, self.wanted.protocol)
        self.images.add(image.key, levels)
        if self.boundary is not None and self.wanted.boundary_ratio is not None:
            ratio_of_diagonal = self.wanted.boundary_ratio
            self.boundary.add(image.key, boundary_counts(self.hierarchy, true.labels, fine, above, ratio_of_diagonal))
        if above:
            self.chains = Chains(self.hierarchy)
            self.chains.add(true.labels, predicted.maps)
        if self.instances is not None:
            assert true.numbers is not None, "asked for"
            self.instances.add(image.key, true.labels, true.numbers, fine)
        if self.objects is not None:
            assert true.numbers is not None, "asked for"
            assert predicted.numbers is not None, "asked for"
            self.objects.add(true.labels, true.numbers, predicted.maps, predicted.numbers, predicted.where)
        if self.curve is not None and predicted.chain is not None:
            self.curve.add(true.labels, predicted.chain.ids, predicted.chain.probabilities)
        if self.calibration is not None and predicted.probabilities is not None:
            self.calibration.add(true.labels, predicted.probabilities)
        self.results.append(_result(image, true, predicted, levels, self.confusion))

    def merge(self, other: Counts) -> None:
        """Add other images."""
        assert self.wanted == other.wanted
        self.confusion.merge(other.confusion)
        self.images.merge(other.images)
        if other.chains is not None:
            self.chains = self.chains or Chains(self.hierarchy)
            self.chains.merge(other.chains)
        if self.boundary is not None and other.boundary is not None:
            self.boundary.merge(other.boundary)
        if self.instances is not None and other.instances is not None:
            self.instances.merge(other.instances)
        if self.objects is not None and other.objects is not None:
            self.objects.merge(other.objects)
        if self.curve is not None and other.curve is not None:
            self.curve.merge(other.curve)
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)
        self.results += other.results


def _result(
    image: TruthImage, true: TrueLabels, predicted: Predicted, levels: list[Matrix], confusion: Confusion
) -> ImageResult:  # fmt: skip
    height, width = true.labels.shape
    names = [level.name for level in confusion.hierarchy.levels]
    miou = {name: none_if_nan(mean_of_defined(iou_of(counts))) for name, counts in zip(names, levels, strict=True)}
    hits, _, misses = levels[0].sum(axis=1)
    labels = {level: str(path) for level, path in image.labels.items()}
    wrong, remarks = none_if_nan(float(ratio(misses, hits + misses))), (*true.remarks, *predicted.remarks)
    return ImageResult(image.key, height, width, str(image.photo), labels, predicted.files, miou, wrong, remarks)


# -- one image, in whichever process -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One image and, of a folder, its files by level name."""

    image: TruthImage
    files: Mapping[str, Path]


class _Job:
    """Counts single images; sent to every worker once."""

    def __init__(self, truth: Truth, predictions: Predictions, wanted: Wanted) -> None:
        self.truth, self.predictions, self.wanted = truth, predictions, wanted

    def __call__(self, task: _Task) -> Counts | Problem:
        try:
            true = self.truth.read(task.image, instances=self.wanted.instances or self.wanted.objects)
        except DataError as error:
            return _problem("truth", task.image.key, error)
        try:
            predicted = self.predictions.read(task.image, task.files, self.truth)
        except DataError as error:
            return _problem("ids" if isinstance(error, UnknownIds) else "unreadable", task.image.key, error)
        where_numbers = task.files.get(OBJECTS, predicted.where)
        placed = [*((labels, predicted.where) for labels in predicted.maps), (predicted.numbers, where_numbers)]
        for found, where in placed:
            if found is not None and found.shape != true.labels.shape:
                return _of_other_size(task.image.key, where, found.shape, true.labels.shape)
        counts = Counts(self.truth.hierarchy, self.wanted)
        try:
            counts.add(task.image, true, predicted)
        except DataError as error:
            return _problem("ids", task.image.key, error)
        return counts


@dataclass(frozen=True)
class Counted:
    """The counts of all images that could be scored, and what could not."""

    counts: Counts
    problems: tuple[Problem, ...]


def count(
    truth: Truth, predictions: Predictions, wanted: Wanted, *, workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Counted:  # fmt: skip
    """Count all images of a truth.

    Args:
        workers: processes, for a folder; a run stays in this one.
    Raises: DataError when not a single image can be scored.
    """
    files = {image.key: predictions.files_of(image.key) for image in truth.images}
    tasks = [_Task(image, found) for image in truth.images if (found := files[image.key]) is not None]
    problems = [_problem("truth", "", fault) for fault in truth.faults]
    problems += _mismatches(predictions, truth.images)
    total, job = Counts(truth.hierarchy, wanted), _Job(truth, predictions, wanted)
    places = Workers(workers if predictions.parallel else 1)
    for outcome in mapped(job, tasks, total=len(tasks), workers=places, progress=progress):
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            total.merge(outcome)
    if not total.confusion.n_images:
        raise _nothing_scored(truth, problems)
    return Counted(total, tuple(problems))


def _mismatches(predictions: Predictions, images: Iterable[TruthImage]) -> list[Problem]:
    """What does not pair up, folder by folder."""
    problems: list[Problem] = []
    for level, found in predictions.matched.items():
        at = f"{level} " if len(predictions.matched) > 1 else ""
        for path, *keys in found.ambiguous:
            what = f"fits the images {keys[0]} and {keys[1]}"
            problems.append(Problem("ambiguous", "", str(path), what, "name it by the image's whole path"))
        for key, paths in found.duplicates.items():
            what = f"and {paths[1]} are both for the image {key}"
            problems.append(Problem("duplicate", key, str(paths[0]), what, "keep one of them"))
        for image in images:
            if image.key not in found.files and image.key not in found.duplicates:
                what, where = f"no {at}prediction for the image {image.key}", str(predictions.name)
                problems.append(Problem("missing", image.key, where, what, "predict it too"))
        for path in found.extra:
            cure = f"remove it, or check --split and the name of the folder ({predictions.name})"
            problems.append(Problem("extra", "", str(path), "is named after no image that is scored", cure))
    return problems


def _nothing_scored(truth: Truth, problems: list[Problem]) -> DataError:
    """What kept all images from being scored: rather a file that was read than one that is not there."""
    if not problems:
        return DataError(truth.name, f"has no images in {truth.split!r}", "check --split")
    first = next((problem for problem in problems if problem.kind not in ("missing", "extra")), problems[0])
    return DataError(first.where, f"{first.what}; no image could be scored, {len(problems)} problems in all", first.cure)


def _of_other_size(key: str, where: object, size: tuple[int, ...], wanted: tuple[int, int]) -> Problem:
    what = f"a map is {size[1]}x{size[0]}, the truth is {wanted[1]}x{wanted[0]}"
    return Problem("size", key, str(where), what, "predict at the original size; nothing is resized")


def _problem(kind: Kind, key: str, error: DataError) -> Problem:
    return Problem(kind, key, error.where, error.what, error.cure)
