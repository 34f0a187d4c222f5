"""Evaluation protocols by name: the choices that make two mIoUs comparable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiposeg_cli.errors import ConfigError, did_you_mean
from hiposeg_cli.metrics.confusion import CoarsePixels, Confusion, Uncovered
from hiposeg_cli.metrics.scores import Absent, Scores, foreground, score
from hiposeg_cli.metrics.values import Values


@dataclass(frozen=True)
class Protocol:
    """What is counted and what is averaged.

    Attributes:
        absent: what a class scores that is predicted but not in the truth.
        background: whether the mean IoU holds the background class. Its pixels count in any case.
        coarse_pixels: whether pixels with only a coarse label count above the finest level.
        uncovered: whether these pixels are ignored on the finest level, or background there.
        object_average: whether mIoU.Avg is reported.
        text: one line for people.
    """

    name: str
    absent: Absent
    background: bool
    coarse_pixels: CoarsePixels
    uncovered: Uncovered
    object_average: bool
    text: str

    def scores(self, confusion: Confusion, depth: int) -> Scores:
        """Scores of a level, folded from the fine predictions."""
        matrix = confusion.matrix(depth, self.coarse_pixels, self.uncovered)
        return score(matrix, confusion.hierarchy.levels[depth], self.absent)

    def own_scores(self, confusion: Confusion, depth: int) -> Scores:
        """Scores of a level from the predictions' own maps of it."""
        if depth == 0:
            return self.scores(confusion, depth)
        return score(confusion.own_matrix(depth), confusion.hierarchy.levels[depth], self.absent)

    def averaged(self, scores: Scores) -> Values:
        """(K,) IoU of the classes in this protocol's mean, nan for those that are not."""
        return scores.iou if self.background else np.where(foreground(scores.level), scores.iou, np.nan)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "hiposeg", "zero", True, "labelled", "ignore", True,
            "all classes, background included; predicted but absent from the truth scores 0; pixels with only a coarse "
            "label count above the finest level",
        ),
        Protocol(
            "cityscapes", "zero", False, "labelled", "ignore", False,
            "cityscapesScripts: predicted but absent from the truth scores 0, predicted void is a miss, no background",
        ),
        Protocol(
            "coco-stuff", "skip", True, "labelled", "ignore", False,
            "CocoStuffEval: only classes with true pixels are averaged, even if others are predicted",
        ),
        Protocol(
            "voc", "zero", True, "labelled", "ignore", False,
            "PASCAL VOC: background is a class of the mean; predicted but absent from the truth scores 0",
        ),
        Protocol(
            "mmseg", "zero", True, "labelled", "ignore", False,
            "mmsegmentation's IoUMetric: mean over the classes in truth or prediction, before its rounding to 0.01 points",
        ),
        Protocol(
            "pascal-part", "zero", True, "labelled", "background", True,
            "PASCAL-Part tables: background is a class, object pixels without a part are background on the finest level, "
            "mIoU.Avg over objects",
        ),
    )
}  # fmt: skip


def find_protocol(name: str) -> Protocol:
    """The protocol of a name. Raises ConfigError when there is none."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name!r}", "is unknown", did_you_mean(name, PROTOCOLS))
    return PROTOCOLS[name]
