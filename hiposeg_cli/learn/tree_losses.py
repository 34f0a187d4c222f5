"""Losses on a whole tree of classes: tree-min on scores of every level, tree-triplet on pixel embeddings.

After HSSN ("Deep Hierarchical Semantic Segmentation", CVPR 2022), with the details of its public code
(qhanghu/HSSN_pytorch). Levels count from the finest, 0, as in `Hierarchy.levels`; n_v is the number of classes of level v.
An empty sum is 0 with a gradient; targets are never written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import on_device
from hiposeg_cli.learn.class_tree import ClassTree
from hiposeg_cli.learn.prototypes import count_classes
from hiposeg_cli.learn.ranks import joint_mean, joint_sum


def tree_min(tree: ClassTree, scores: Sequence[Tensor], labels: Sequence[Tensor], *, gamma: float = 0.0) -> Tensor:
    """Tree-min loss (HSSN, L^TM; focal with gamma > 0, L^FTM): binary cross entropy on scores that obey the tree.

    A pixel's own class v is scored with the least probability among v and its ancestors, p = min s_u, every other class
    with the largest among it and its descendants, q = max s_u:

        sum over levels of 1/(N n_v) sum over pixels of -(1 - p)^gamma log p - sum over other v of q^gamma log(1 - q)

    N counts the pixels with a label on any level. A pixel that is known on the coarse level only has no leaf of its own,
    and the leaves of its parent are no negatives. Sigmoid is monotone, so minima and maxima are taken of the scores before
    it. With cross entropy, seven float32 buffers of (B, F, H, W) live at the peak of a step (twelve with a focal gamma),
    against three for cross entropy alone.

    Args:
        scores: level v is (B, n_v, H, W) float32, before the sigmoid.
        labels: level v is (B, H, W) int64 with `IGNORE`.
    Returns: () float32.
    """
    total, lowest = scores[0].new_zeros(()), None
    highest = tree.with_descendants(scores)
    for v in reversed(range(tree.n_levels)):
        known = labels[v] != IGNORE
        own = scores[v].gather(1, torch.where(known, labels[v], 0)[:, None]).squeeze(1)
        lowest = own if lowest is None else torch.minimum(own, lowest)
        positive = torch.where(known, _penalty(-lowest, gamma), 0).sum()
        negative = torch.where(tree.negatives(v, labels), _penalty(highest[v], gamma), 0).sum()
        total = total + (positive + negative) / tree.sizes[v]
    count = (labels[1] != IGNORE).sum()
    return joint_mean(total / count.clamp(min=1), count)


def _penalty(score: Tensor, gamma: float) -> Tensor:
    """-p^gamma log(1 - p) for p = sigmoid(score), finite for every score."""
    plain = F.softplus(score)
    return plain if gamma == 0 else plain * torch.exp(-gamma * F.softplus(-score))


@dataclass(frozen=True)
class Triplets:
    """One triplet per pixel, where `valid`.

    Attributes:
        positive: (N,) int64 position of a pixel with the same parent and another leaf.
        negative: (N,) int64 position of a pixel with another parent.
        valid: (N,) bool: the pixel's leaf is known, and both kinds exist.
    """

    positive: Tensor
    negative: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> Triplets:
        """The same triplets on a device."""
        return Triplets(*(on_device(tensor, device) for tensor in (self.positive, self.negative, self.valid)))


def draw_triplets(fine: Tensor, coarse: Tensor, n_fine: int, generator: torch.Generator) -> Triplets:
    """Draw a partner of each kind for every pixel, evenly among all pixels that qualify.

    A pixel known on the coarse level only can be a negative, nothing else.

    Args:
        fine: (N,) int64 with `IGNORE`.
        coarse: (N,) int64 without.
    """
    N = len(fine)
    span = n_fine + 1  # sorted by parent, then by leaf, pixels without a leaf last: partners are whole stretches
    key = coarse * span + torch.where(fine == IGNORE, n_fine, fine)
    ordered, order = key.sort(stable=True)
    leaf_start, leaf_end = torch.searchsorted(ordered, key), torch.searchsorted(ordered, key, right=True)
    parent_start = torch.searchsorted(ordered, coarse * span)
    known_end = torch.searchsorted(ordered, coarse * span + n_fine)
    parent_end = torch.searchsorted(ordered, (coarse + 1) * span)
    n_positive = known_end - parent_start - (leaf_end - leaf_start)
    n_negative = N - (parent_end - parent_start)
    positive = parent_start + _below(n_positive, generator)
    positive = positive + (positive >= leaf_start) * (leaf_end - leaf_start)
    negative = _below(n_negative, generator)
    negative = negative + (negative >= parent_start) * (parent_end - parent_start)
    valid = (fine != IGNORE) & (n_positive > 0) & (n_negative > 0)
    return Triplets(order[torch.where(valid, positive, 0)], order[torch.where(valid, negative, 0)], valid)


def _below(limits: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) int64 random numbers, each from 0 to below its own limit; -1 where the limit is 0."""
    draws = torch.rand(len(limits), generator=generator, device=limits.device)
    return torch.minimum((draws * limits).long(), limits - 1)  # the product may round up to its limit


def tree_triplet(z: Tensor, fine: Tensor, triplets: Triplets, n_fine: int, *, margin: float) -> Tensor:
    """Tree-triplet loss (HSSN, L^TT): nearer to a sibling class than to another parent's, by a margin.

    max(0, d(a, p) - d(a, n) + margin) with the cosine distance d(a, b) = 1 - a.b, averaged over the triplets of each
    anchor class, then over the classes that have some. Both are over the triplets of all processes of a run; the partners
    of a triplet come from one process.

    Args:
        z: (N, D) float32, unit length.
        fine: (N,) int64 with `IGNORE`.
    Returns: () float32.
    """
    difference = (z * (z[triplets.negative] - z[triplets.positive])).sum(dim=1)
    hinge = torch.where(triplets.valid, (difference + margin).clamp(min=0), 0)
    leaf = torch.where(triplets.valid, fine, n_fine)  # one row more, for pixels without a triplet
    sums = torch.zeros(n_fine + 1, dtype=z.dtype, device=z.device).index_add(0, leaf, hinge)[:n_fine]
    counts = count_classes(leaf, n_fine + 1)[:n_fine]
    sums, counts = joint_sum(sums), joint_sum(counts)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
