"""`hssn`: tree-min and tree-triplet losses, the baseline after "Deep Hierarchical Semantic Segmentation" (CVPR 2022).

L = lambda_ce CE(leaves) + lambda_parent_ce sum of CE(upper levels) + lambda_tree_min L^TM + w(t) L^TT, on any number of
levels.

Weights, margin, pixels per class and the growth of w follow the public code for Cityscapes (qhanghu/HSSN_pytorch). Where
this departs from it:

- Inference. HSSN's network emits leaf and parent scores and adds a leaf's ancestors to it before the argmax (`path-sum`).
  Here the parent scores come from a head of the method, so the saved network is exactly that of `flat`, and inference is
  the leaf argmax.
- Pixels without a label train nothing. The public code overwrites them with class 0, in place, before all of its losses.
- Triplets are drawn at random, not from the first pixels of the batch; embeddings are projected decoder features, not
  the backbone's output.
- Pixels known on the coarse level only are trained where they can be: see `ScoreLosses`, `tree_min` and `draw_triplets`.

The losses on scores run at full resolution, as the public code's do; triplets on the network's grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output, at_cells, grid_labels, on_device
from hiposeg_cli.learn.class_tree import ClassTree
from hiposeg_cli.learn.method import Context, LossTerms, Method, Progress
from hiposeg_cli.learn.projection import Projection
from hiposeg_cli.learn.sampling import balanced_cross_entropy, draw_seed, even_cells, sample_pixels
from hiposeg_cli.learn.score_losses import ScoreLosses, pixel_cross_entropy
from hiposeg_cli.learn.tree_losses import draw_triplets, tree_min, tree_triplet

_DRAW_SEED = 2**62  # keeps the draw of triplets apart from that of pixels, which has the same seed and step


@dataclass(frozen=True)
class HSSNOptions:
    """Weights and shape of the losses.

    Attributes:
        lambda_ce, lambda_parent_ce: cross entropy on leaves; on every upper level.
        lambda_tree_min: weight of the tree-min loss.
        focal_gamma: its focal exponent; 0 is plain binary cross entropy.
        lambda_balanced: weight of a second cross entropy over `pixels_per_class` random pixels of each class.
        lambda_triplet: weight that the tree-triplet loss grows to.
        triplet_start, triplet_growth: shares of the run after which, and over which, it grows.
        margin: how much nearer a sibling class must be than another parent's.
        pixels_per_class: most pixels of one class in a batch's triplets.
        embed_dim: width of the projected embedding.
    """

    lambda_ce: float = 1.0
    lambda_parent_ce: float = 1.0
    lambda_tree_min: float = 5.0
    focal_gamma: float = 0.0
    lambda_balanced: float = 0.0
    lambda_triplet: float = 0.5
    triplet_start: float = 0.0
    triplet_growth: float = 1.0
    margin: float = 0.6
    pixels_per_class: int = 200
    embed_dim: int = 256


class HSSN(Method):
    """Scores for every class of the tree, trained to obey it; see the module's head."""

    Options = HSSNOptions
    needs = frozenset({"fine", "coarse"})
    options: HSSNOptions

    def __init__(
        self, hierarchy: Hierarchy, embedding_dim: int, options: HSSNOptions, context: Context | None = None
    ) -> None:
        super().__init__(hierarchy, embedding_dim, options, context)
        _check(options)
        self.score_losses = ScoreLosses(hierarchy)
        self.parents = nn.Conv2d(embedding_dim, sum(self.tree.sizes[1:]), kernel_size=1)
        self.projection = Projection(embedding_dim, options.embed_dim)

    @property
    def tree(self) -> ClassTree:
        return self.score_losses.tree

    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        assert batch.fine is not None
        assert batch.coarse is not None
        o, logits = self.options, output.full_logits()
        ce = self.score_losses(logits, batch, partial=batch.partial, upper=False)["ce"]
        total, parts = o.lambda_ce * ce, {"ce": ce.detach()}

        def balanced() -> Tensor:
            return balanced_cross_entropy(batch, output, even_cells(batch, output, progress, cap=o.pixels_per_class))

        with torch.autocast(output.embedding.device.type, enabled=False):
            terms = self._score_terms(logits, batch.fine, batch.coarse, output)
            terms["balanced"] = (o.lambda_balanced, balanced)
            terms["triplet"] = (self.triplet_weight(progress), lambda: self._triplet(batch, output, progress))
            for name, (weight, term) in terms.items():
                if weight:
                    value = term()
                    total, parts[name] = total + weight * value, value.detach()
        return LossTerms(total, parts)

    def triplet_weight(self, progress: Progress) -> float:
        """w(t): from 0 at the start along half a cosine to lambda_triplet; of the global step only.

        With the defaults (lambda_triplet / 2) (1 + cos(pi (t - T) / T)), as the public code has it.
        """
        o = self.options
        if not progress.reached(o.triplet_start):
            return 0.0
        span = o.triplet_growth * progress.total_steps
        done = 1.0 if span == 0 else min(1.0, (progress.step - o.triplet_start * progress.total_steps) / span)
        return o.lambda_triplet * 0.5 * (1 - math.cos(math.pi * done))

    def _score_terms(
        self, logits: Tensor, fine: Tensor, coarse: Tensor, output: Output
    ) -> dict[str, tuple[float, Callable[[], Tensor]]]:
        """Weight and computation of the losses on scores; what they share is computed where one of them is on.

        Args:
            logits: (B, F, H, W) float32.
            fine, coarse: (B, H, W) int64 with `IGNORE`.
        """
        o = self.options
        if not (o.lambda_parent_ce or o.lambda_tree_min):
            return {}
        labels = self.tree.labels(fine, coarse)
        upper = replace(output, logits=self.parents(output.embedding.float())).full_logits()
        scores = [logits, *upper.split(self.tree.sizes[1:], dim=1)]

        def parent_ce() -> Tensor:
            pairs = zip(scores[1:], labels[1:], strict=True)
            return torch.stack([pixel_cross_entropy(level, target) for level, target in pairs]).sum()

        return {
            "parent_ce": (o.lambda_parent_ce, parent_ce),
            "tree_min": (o.lambda_tree_min, lambda: tree_min(self.tree, scores, labels, gamma=o.focal_gamma)),
        }

    def _triplet(self, batch: Batch, output: Output, progress: Progress) -> Tensor:
        """Tree-triplet loss on a class-balanced sample of the labelled pixels on the network's grid."""
        host, n_fine = batch.host, self.hierarchy.n_fine
        assert host.fine is not None
        assert host.coarse is not None
        fine, coarse = grid_labels(host.fine, output).flatten(), grid_labels(host.coarse, output).flatten()
        classes = torch.where(fine != IGNORE, fine, coarse + n_fine)
        cells = sample_pixels(classes, coarse != IGNORE, cap=self.options.pixels_per_class, progress=progress)
        generator = torch.Generator().manual_seed((draw_seed(progress) + _DRAW_SEED) % 2**63)
        device = output.embedding.device
        triplets = draw_triplets(fine[cells], coarse[cells], n_fine, generator).to(device)
        chosen = on_device(torch.stack([cells, fine[cells]]), device)
        z = self.projection(at_cells(output.embedding, chosen[0], output.grid))
        return tree_triplet(z, chosen[1], triplets, n_fine, margin=self.options.margin)


def _check(options: HSSNOptions) -> None:
    for name in ("embed_dim", "pixels_per_class"):
        if getattr(options, name) < 1:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose 1 or more")
    if options.focal_gamma < 0:
        raise ConfigError("method.focal_gamma", f"is {options.focal_gamma}", "choose 0 (plain) or more")
    for name in ("triplet_start", "triplet_growth"):
        if not 0 <= getattr(options, name) <= 1:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose a share of the run, from 0 to 1")
