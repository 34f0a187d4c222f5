"""Losses on pixel embeddings and prototypes; those on scores are in `score_losses`.

An empty sum is 0 with a gradient; targets are never written to.

In a run of several processes a mean over pixels is that over all of them; see `ranks`. What acts on prototypes only needs
no care: those are the same in every process.

Equations of HiPoSeg (ICLR 2026) are named L_fh, L_fl, L_hh, L_ll, L_align as in the paper.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.prototypes import similarity
from hiposeg_cli.learn.ranks import joint_mean
from hiposeg_cli.learn.score_losses import weight_of

Distance = Literal["squared", "euclidean"]
Reduction = Literal["mean", "sum"]
_EPS = 1e-12


def pull(
    z: Tensor, target: Tensor, prototypes: Tensor, allowed: Tensor, *, tau: float, weights: Tensor | None = None,
    is_unit: bool = True,
) -> Tensor:  # fmt: skip
    """L_fh / L_fl: draw each pixel to its own prototype and away from the others.

    -(1/N) sum_n log( exp(s(z_n, P[y_n]) / tau) / sum over allowed k of exp(s(z_n, P[k]) / tau) )

    Args:
        z: (N, D) float32, unit length.
        target: (N,) int64 class with `IGNORE`; its prototype is always allowed.
        prototypes: (K, D) float32, unit length but for `is_unit`.
        allowed: (K,) or (N, K) bool: prototypes in the denominator (those seen; or siblings only).
        tau: temperature > 0.
        weights: (K,) float32 weights of the classes, 1 or more; None weighs all alike.
        is_unit: whether all prototypes have unit length, here and below.
    Returns: () float32.
    """
    # The lowest number, not -inf: of an ignored pixel no prototype at all may be allowed.
    scores = (similarity(z, prototypes, is_unit=is_unit) / tau).masked_fill(~allowed, torch.finfo(z.dtype).min)
    total, count = F.cross_entropy(scores, target, weights, ignore_index=IGNORE, reduction="sum"), weight_of(target, weights)
    return joint_mean(total / count.clamp(min=1), count)


def repel(
    prototypes: Tensor, anchors: Tensor, others: Tensor, *, kappa: float,
    form: Literal["logsumexp", "mean_exp", "margin"] = "logsumexp", is_unit: bool = True,
) -> Tensor:  # fmt: skip
    """L_hh / L_ll: push prototypes of one level apart.

    logsumexp: mean over i in anchors of log(1 + sum over k != i of exp(s(p_i, p_k) / kappa)): 0 for a single prototype,
    log K when K coincide. mean_exp: mean of exp(s / kappa) over pairs. margin: mean of max(0, 1 - ||p_i - p_k||^2).

    Args:
        prototypes: (K, D) float32, with gradient where the batch provides them.
        anchors: (K,) bool, classes present in the batch.
        others: (K, K) bool, which k repels which i (seen; or siblings only); the diagonal is ignored.
    """
    s = similarity(prototypes, prototypes, is_unit=is_unit)
    pairs = others & anchors[:, None] & ~torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    if form == "logsumexp":
        # log(1 + sum exp) is a logsumexp with one extra zero; excluded pairs weigh nothing.
        padded = F.pad((s / kappa).masked_fill(~pairs, float("-inf")), (1, 0))
        per_class = torch.logsumexp(padded, dim=1)
        return torch.where(anchors, per_class, 0).sum() / anchors.sum().clamp(min=1)
    values = torch.exp(s / kappa) if form == "mean_exp" else (1 + s).clamp(min=0)
    return torch.where(pairs, values, 0).sum() / pairs.sum().clamp(min=1)


def align_in(
    children: Tensor, parents: Tensor, pairs: Tensor, *, sigma: float, distance: Distance, reduction: Reduction = "mean",
    is_unit: bool = True,
) -> Tensor:  # fmt: skip
    """L_align, inner part: max(0, delta(l_j, h_par[j]) - sigma) over the children that take part.

    Args:
        children, parents: (F, D) float32; row j of `parents` is child j's parent.
        pairs: (F,) bool, children that take part (both seen, not an only child).
        distance: delta, squared or Euclidean.
    """
    if is_unit:
        squared = (2 - 2 * (children * parents).sum(dim=1)).clamp(min=0, max=4)
    else:
        squared = (children - parents).square().sum(dim=1)
    return _reduce((_delta(squared, distance) - sigma).clamp(min=0), pairs, reduction)


def align_out(
    parents: Tensor, seen: Tensor, *, sigma: float, distance: Distance, reduction: Reduction = "mean", is_unit: bool = True
) -> Tensor:
    """L_align, outer part: max(0, sigma - delta(h_i, h_k)) over ordered pairs of different seen parents.

    Args:
        parents: (C, D) float32.
        seen: (C,) bool.
    """
    pairs = seen[:, None] & seen[None, :] & ~torch.eye(len(parents), dtype=torch.bool, device=parents.device)
    squared = -similarity(parents, parents, is_unit=is_unit)
    return _reduce((sigma - _delta(squared, distance)).clamp(min=0), pairs, reduction)


def _delta(squared: Tensor, distance: Distance) -> Tensor:
    # The root has an infinite derivative at 0, where both margins' terms are flat or the pair is the same point.
    return squared if distance == "squared" else squared.clamp(min=_EPS).sqrt()


def _reduce(values: Tensor, mask: Tensor, reduction: Reduction) -> Tensor:
    total = torch.where(mask, values, 0).sum()
    return total if reduction == "sum" else total / mask.sum().clamp(min=1)
