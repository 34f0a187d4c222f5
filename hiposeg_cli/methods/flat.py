"""`flat`: cross entropy on the fine level only. The baseline that puts every other number into proportion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.losses import pixel_cross_entropy
from hiposeg_cli.learn.method import LossTerms, Method, Progress


@dataclass(frozen=True)
class FlatOptions:
    """`flat` has no options."""


class Flat(Method):
    """Pixel-wise cross entropy; coarse results are the fine ones folded up the tree."""

    Options = FlatOptions
    needs: ClassVar[frozenset[str]] = frozenset({"fine"})

    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        assert batch.fine is not None
        loss = pixel_cross_entropy(output.full_logits(), batch.fine)
        return LossTerms(loss, {"ce": loss.detach()})
