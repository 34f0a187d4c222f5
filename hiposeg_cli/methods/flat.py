"""`flat`: cross entropy on the fine level only. The baseline that puts every other number into proportion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.losses import partial_cross_entropy, pixel_cross_entropy
from hiposeg_cli.learn.method import LossTerms, Method, Progress
from hiposeg_cli.learn.sampling import balanced_cross_entropy


@dataclass(frozen=True)
class FlatOptions:
    """Options of `flat`.

    Attributes:
        partial_labels: pixels with only a coarse label train through the summed probability of its children.
        lambda_balanced: weight of a second cross entropy over `pixels_per_class` random pixels of each class.
    """

    partial_labels: bool = False
    lambda_balanced: float = 0.0
    pixels_per_class: int = 200


class Flat(Method):
    """Pixel-wise cross entropy; coarse results are the fine ones folded up the tree."""

    Options = FlatOptions
    options: FlatOptions
    parent: Tensor

    def __init__(self, hierarchy: Hierarchy, embedding_dim: int, options: FlatOptions) -> None:
        super().__init__(hierarchy, embedding_dim, options)
        if options.pixels_per_class < 1:
            raise ConfigError("method.pixels_per_class", f"is {options.pixels_per_class}", "choose 1 or more")
        self.needs = frozenset({"fine", "coarse"} if options.partial_labels else {"fine"})
        self.register_buffer("parent", torch.from_numpy(hierarchy.parent), persistent=False)

    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        assert batch.fine is not None
        logits = output.full_logits()
        if batch.partial and batch.coarse is not None:
            loss = partial_cross_entropy(logits, batch.fine, batch.coarse, self.parent)
        else:
            loss = pixel_cross_entropy(logits, batch.fine)
        parts = {"ce": loss.detach()}
        if self.options.lambda_balanced:
            balanced = balanced_cross_entropy(batch, output, progress, cap=self.options.pixels_per_class)
            loss, parts = loss + self.options.lambda_balanced * balanced, parts | {"balanced": balanced.detach()}
        return LossTerms(loss, parts)
