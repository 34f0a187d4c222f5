"""Leaf scores -> label maps: the rules by which one trained network speaks on every level of its tree.

    leaf      argmax over the leaves; a level above is the parent
    sum       argmax on each level, where a class's probability is the sum over its leaves; levels may disagree
    top-down  argmax of those sums on the coarsest level, then among the children of what was chosen
    path-sum  argmax over the leaves of a leaf's log-probability plus those of its ancestors
    back-off  the argmax leaf where its probability reaches a threshold, else its nearest ancestor that does, else void

The network scores leaves only, so an ancestor's score is the log of its leaves' summed probability, also in `path-sum`,
which HSSN (Li et al. 2022) defines on scores that the parents have of their own.

Sums are taken in log space and float32. Scores that differ by one constant for all classes of a pixel lead to the same
argmax, so that only back-off, which compares with a threshold, divides by the sum over all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiposeg_cli.errors import ConfigError, require_choice
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, ignore_value, label_dtype
from hiposeg_cli.learn.upsample import Scores

RULES = ("leaf", "sum", "top-down", "path-sum", "back-off")
THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the curve that `eval` shows

LevelMaps = tuple[LabelArray, ...]  # label maps (H, W), finest level first; levels that are not there are the parents


@dataclass(frozen=True)
class Decode:
    """A rule, and the probability in 0..1 that `back-off` needs."""

    rule: str = "leaf"
    threshold: float | None = None

    def __post_init__(self) -> None:
        require_choice("--decode", self.rule, RULES)
        if self.rule == "back-off" and self.threshold is None:
            raise ConfigError("--decode back-off", "needs a probability", "add --confidence, for example 0.7")
        if self.threshold is None:
            return
        if self.rule != "back-off":
            raise ConfigError(
                f"--confidence {self.threshold:g}", f"has no meaning for --decode {self.rule}", "pass --decode back-off"
            )
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"--confidence {self.threshold:g}", "is no probability", "choose between 0 and 1")

    @property
    def name(self) -> str:
        """The rule with its threshold."""
        return self.rule if self.threshold is None else f"{self.rule}-{self.threshold!r}"

    def read(self, scores: Scores, hierarchy: Hierarchy) -> LevelMaps:
        """`maps` of scores on the network's grid."""
        return (scores.best_ids(),) if self.rule == "leaf" else self.maps(scores.full(), hierarchy)

    def maps(self, logits: Tensor, hierarchy: Hierarchy) -> LevelMaps:
        """Label maps of one photo.

        Args:
            logits: (F, H, W) leaf scores, float.
        Returns: the fine map where every level above is its parent; else one map for each level, void where a level is
            withheld.
        """
        if self.rule == "leaf":
            return (leaf_map(logits),)
        if self.threshold is not None:
            return chain(logits, hierarchy).said(self.threshold)
        scores = level_scores(logits, hierarchy)
        if self.rule == "sum":
            return tuple(leaf_map(level) for level in scores)
        best = _top_down(scores, hierarchy) if self.rule == "top-down" else _path_sum(scores, hierarchy)
        return (_labels(best, hierarchy.n_fine),)


def leaf_map(scores: Tensor) -> LabelArray:
    """(K, H, W) scores -> (H, W) ids of the best class."""
    return _labels(scores.argmax(dim=0), scores.shape[0])


def _labels(ids: Tensor, n_classes: int) -> LabelArray:
    """(H, W) int64 ids on any device -> the smallest label type."""
    values = ids.cpu().numpy()
    return values.astype(np.uint8) if label_dtype(n_classes) == np.uint8 else values.astype(np.uint16)


# -- scores of the levels above ----------------------------------------------------------------------------------------


def families(hierarchy: Hierarchy, depth: int) -> list[list[int]]:
    """For each class of `levels[depth]` (1 or more) the ids of its children on the level below."""
    step = np.full(len(hierarchy.levels[depth - 1]), -1, dtype=np.int64)
    step[hierarchy.ancestors(depth - 1)] = hierarchy.ancestors(depth)
    found: list[list[int]] = [np.flatnonzero(step == node).tolist() for node in range(len(hierarchy.levels[depth]))]
    assert all(found), "a hierarchy gives every class a leaf"
    return found


def level_scores(logits: Tensor, hierarchy: Hierarchy) -> list[Tensor]:
    """Log of the summed probability of each class of each level, up to one constant for each pixel.

    Args:
        logits: (F, H, W) leaf scores.
    Returns: one (K, H, W) float32 a level, finest first; a class is never below one of its children, also after rounding.
    """
    scores = [logits.float()]
    for depth in range(1, len(hierarchy.levels)):
        below = scores[-1]
        above = below.new_empty((len(hierarchy.levels[depth]), *below.shape[1:]))
        for node, ids in enumerate(families(hierarchy, depth)):
            above[node] = below[ids[0]] if len(ids) == 1 else below[ids].logsumexp(dim=0)
        scores.append(above)
    return scores


# -- rules -------------------------------------------------------------------------------------------------------------


def _top_down(scores: list[Tensor], hierarchy: Hierarchy) -> Tensor:
    """(H, W) int64 leaves found by descending from the best class of the coarsest level to the best child each time."""
    chosen = scores[-1].argmax(dim=0)
    for depth in range(len(scores) - 1, 0, -1):
        below, children = scores[depth - 1], torch.zeros_like(chosen)
        for node, ids in enumerate(families(hierarchy, depth)):
            children = torch.where(chosen == node, _best_of(below, ids)[1], children)
        chosen = children
    return chosen


def _path_sum(scores: list[Tensor], hierarchy: Hierarchy) -> Tensor:
    """(H, W) int64 leaves whose own score and those of their ancestors sum to the most."""
    value, chosen = scores[0].new_full(scores[0].shape[1:], -torch.inf), torch.zeros_like(scores[0][0], dtype=torch.int64)
    for ids in families(hierarchy, 1):  # siblings share their ancestors, so the best of them is known before
        best, leaf = _best_of(scores[0], ids)
        for depth in range(1, len(scores)):
            best = best + scores[depth][int(hierarchy.ancestors(depth)[ids[0]])]
        better = best > value
        value, chosen = torch.where(better, best, value), torch.where(better, leaf, chosen)
    return chosen


def _best_of(scores: Tensor, ids: list[int]) -> tuple[Tensor, Tensor]:
    """The largest score among some classes, (H, W), and whose it is, (H, W) int64."""
    value, position = scores[ids].max(dim=0)
    return value, torch.tensor(ids, device=scores.device)[position]


@dataclass(frozen=True)
class Chain:
    """The best leaf of each pixel with all its ancestors, and how probable each is.

    Attributes:
        ids: one label map a level, finest first, without void.
        probabilities: one (H, W) float32 a level; never falls from a level to the one above.
    """

    ids: LevelMaps
    probabilities: tuple[NDArray[np.float32], ...]

    def said(self, threshold: float) -> LevelMaps:
        """The same maps, void where the probability does not reach `threshold`."""
        return tuple(
            np.where(probability >= np.float32(threshold), ids, ids.dtype.type(ignore_value(ids.dtype)))
            for ids, probability in zip(self.ids, self.probabilities, strict=True)
        )


def chain(logits: Tensor, hierarchy: Hierarchy) -> Chain:
    """What back-off chooses from, for whatever threshold.

    Args:
        logits: (F, H, W) leaf scores.
    """
    scores = level_scores(logits, hierarchy)
    total = scores[-1].logsumexp(dim=0)
    leaf = scores[0].argmax(dim=0)
    ids, probabilities = [], []
    for depth, level in enumerate(scores):
        at = torch.from_numpy(hierarchy.ancestors(depth)).to(leaf.device)[leaf]
        ids.append(_labels(at, level.shape[0]))
        probabilities.append((level.gather(0, at[None])[0] - total).exp().cpu().numpy())
    return Chain(tuple(ids), tuple(probabilities))
