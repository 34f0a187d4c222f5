"""Cross entropy of the network's scores: on the finest level, and on those above through summed probabilities.

A class above the finest level is the set of its leaves, so its probability is their sum ("Flattening the Parent Bias",
CVPR 2024). With that a pixel trains the network whatever level its label is on. Of the arrays with a value for each pixel
and leaf only the log-probabilities are kept for the backward pass, which the softmax needs anyway.

An empty sum is 0 with a gradient; targets are never written to. A mean is that over the pixels of all processes of a run;
see `ranks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.class_tree import ClassTree
from hiposeg_cli.learn.ranks import joint_mean


class _FamilyLogSum(torch.autograd.Function):
    """log of the summed exponentials of each family's members, one class at a time: no array as large as the input."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, parent_ids: Sequence[int], n_families: int) -> Tensor:
        B, _, H, W = scores.shape
        highest = scores.new_full((B, n_families, H, W), -torch.inf)
        for member, family in enumerate(parent_ids):
            torch.maximum(highest[:, family], scores[:, member], out=highest[:, family])
        total = torch.zeros_like(highest)
        for member, family in enumerate(parent_ids):
            total[:, family] += (scores[:, member] - highest[:, family]).exp_()
        summed = total.log_().add_(highest)
        ctx.save_for_backward(scores, summed)
        ctx.parent_ids = parent_ids
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        scores, summed = ctx.saved_tensors
        own = torch.empty_like(scores)
        for member, family in enumerate(ctx.parent_ids):
            share = (scores[:, member] - summed[:, family]).exp_()
            own[:, member] = share.mul_(gradient[:, family])
        return own, None, None


def family_log_sum(scores: Tensor, parent_ids: Sequence[int], n_families: int) -> Tensor:
    """(B, C, H, W) log of the summed exponentials of the classes of each family.

    Args:
        scores: (B, K, H, W) float32, finite.
        parent_ids: the family of each class; none is empty.
    """
    summed: Tensor = _FamilyLogSum.apply(scores, parent_ids, n_families)
    return summed


def weight_of(target: Tensor, weights: Tensor | None) -> Tensor:
    """() what a mean over labelled pixels is divided by: their number, or the sum of the weights of their classes.

    Args:
        target: int64 of any shape, with `IGNORE`.
        weights: (K,) float32, 1 or more; None weighs all classes alike.
    """
    known = target != IGNORE
    if weights is None:
        return known.sum()
    return torch.where(known, weights[torch.where(known, target, 0)], 0).sum()


class ScoreLosses(nn.Module):
    """L_ce and its relatives on every level, for the methods that train the network's scores.

    Args:
        weights: (n_v,) float32 weights of each level's classes, finest first; see `class_weights`. Means are divided by the
            sum of the weights, so that only their ratios matter. None weighs all classes alike.
    """

    def __init__(self, hierarchy: Hierarchy, weights: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.tree = ClassTree(hierarchy)
        for v, own in enumerate(weights or ()):
            self.register_buffer(f"weights_{v}", own, persistent=False)
        self.weighted = weights is not None

    def weights(self, v: int) -> Tensor | None:
        """(n_v,) float32 weights of one level's classes."""
        return self.get_buffer(f"weights_{v}") if self.weighted else None

    def forward(self, logits: Tensor, batch: Batch, *, partial: bool, upper: bool) -> dict[str, Tensor]:
        """The terms `ce` and, if asked for, `coarse`.

        Args:
            logits: (B, F, H, W) float32.
            partial: let pixels that have only a coarse label into `ce`, by -log of the summed probability of its children.
            upper: also the sum over all levels above of the cross entropy of every pixel with a coarse label.
        """
        assert batch.fine is not None
        log_p = F.log_softmax(logits, dim=1)
        if not (partial or upper):
            return {"ce": self._mean((0, log_p, batch.fine))}
        assert batch.coarse is not None
        labels, levels = self.tree.labels(batch.fine, batch.coarse), [log_p]
        for v in range(self.tree.n_levels - 1 if upper else 1):
            levels.append(family_log_sum(levels[v], self.tree.parent_ids[v], self.tree.sizes[v + 1]))
        only = [(1, levels[1], torch.where(batch.fine == IGNORE, batch.coarse, IGNORE))] if partial else []
        terms = {"ce": self._mean((0, log_p, batch.fine), *only)}
        if upper:
            above = [self._mean((v, levels[v], labels[v])) for v in range(1, self.tree.n_levels)]
            terms["coarse"] = torch.stack(above).sum()
        return terms

    def _mean(self, *parts: tuple[int, Tensor, Tensor]) -> Tensor:
        """Mean of -log p over labelled pixels.

        Args:
            parts: a level v, its log-probabilities (B, n_v, H, W) float32, and labels (B, H, W) int64 with `IGNORE`; a
                pixel is labelled in one part at most.
        """
        total = torch.stack([_nll(log_p, target, self.weights(v)) for v, log_p, target in parts]).sum()
        count = torch.stack([weight_of(target, self.weights(v)) for v, _, target in parts]).sum()
        return joint_mean(total / count.clamp(min=1), count)


def _nll(log_p: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    return F.nll_loss(log_p, target, weights, ignore_index=IGNORE, reduction="sum")


def pixel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """L_ce: mean of -log softmax over labelled pixels; 0 with a gradient when there is none.

    Args:
        logits: (B, F, H, W), any float type; computed in float32.
        target: (B, H, W) int64 with `IGNORE`.
    """
    total, count = _nll(F.log_softmax(logits.float(), dim=1), target, None), weight_of(target, None)
    return joint_mean(total / count.clamp(min=1), count)


def class_weights(pixels: Sequence[NDArray[np.int64]], exponent: float) -> list[Tensor] | None:
    """(n_v,) float32 weights for each level: (n_max / n_k)^exponent, so that the commonest class weighs 1.

    Args:
        pixels: (n_v,) pixels of each class in the training split, finest level first; a class without any weighs 1.
        exponent: 0 weighs all classes alike (None), 1 gives every class as much weight as any other.
    Raises: ConfigError for a negative exponent.
    """
    if exponent < 0:
        raise ConfigError("method.class_weights", f"is {exponent}", "choose 0 (none), or more, for example 0.5")
    if exponent == 0:
        return None
    assert pixels, "the run counts its training pixels"
    return [torch.from_numpy(np.where(own > 0, own.max() / own.clip(min=1), 1) ** exponent).float() for own in pixels]
