"""`flat`: cross entropy of the network's scores. The baseline that puts every other number into proportion."""

from __future__ import annotations

from dataclasses import dataclass

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.method import Context, LossTerms, Method, Progress, weighted_sum
from hiposeg_cli.learn.sampling import balanced_cross_entropy, even_cells
from hiposeg_cli.learn.score_losses import ScoreLosses, class_weights


@dataclass(frozen=True)
class FlatOptions:
    """Options of `flat`.

    Attributes:
        partial_labels: pixels with only a coarse label train through the summed probability of its children.
        lambda_coarse: weight of the cross entropy of each upper level, through summed probabilities of children.
        class_weights: exponent a of class weights n_k^-a in these cross entropies, by training pixels n_k; 0 is none.
        lambda_balanced: weight of a second cross entropy over `pixels_per_class` random pixels of each class.
    """

    partial_labels: bool = False
    lambda_coarse: float = 0.0
    class_weights: float = 0.0
    lambda_balanced: float = 0.0
    pixels_per_class: int = 200


class Flat(Method):
    """Pixel-wise cross entropy; coarse results are the fine ones folded up the tree."""

    Options = FlatOptions
    options: FlatOptions

    def __init__(
        self, hierarchy: Hierarchy, embedding_dim: int, options: FlatOptions, context: Context | None = None
    ) -> None:
        super().__init__(hierarchy, embedding_dim, options, context)
        if options.pixels_per_class < 1:
            raise ConfigError("method.pixels_per_class", f"is {options.pixels_per_class}", "choose 1 or more")
        self.needs = frozenset({"fine", "coarse"} if options.partial_labels or options.lambda_coarse else {"fine"})
        self.score_losses = ScoreLosses(hierarchy, class_weights(self.context.class_pixels, options.class_weights))

    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        o = self.options
        partial = o.partial_labels and batch.partial
        terms = self.score_losses(output.full_logits(), batch, partial=partial, upper=bool(o.lambda_coarse))
        if o.lambda_balanced:
            cells = even_cells(batch, output, progress, cap=o.pixels_per_class)
            terms["balanced"] = balanced_cross_entropy(batch, output, cells)
        return weighted_sum(terms, {"ce": 1.0, "coarse": o.lambda_coarse, "balanced": o.lambda_balanced})
