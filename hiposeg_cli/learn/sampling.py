"""Class-balanced choice of the pixels that enter the prototype losses."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output, grid_labels
from hiposeg_cli.learn.method import Progress
from hiposeg_cli.learn.ranks import joint_mean, rank

_A_RANK = 2**40  # keeps the draws of processes apart

PixelSampling = Literal["random", "hard", "all"]


def draw_seed(progress: Progress) -> int:
    """Seed of what is drawn from this process's own batch in a step."""
    return (progress.seed * 1_000_003 + progress.step + rank() * _A_RANK) % 2**63


def sample_pixels(
    classes: Tensor, keep: Tensor, wrong: Tensor | None, *, cap: int, how: PixelSampling, progress: Progress
) -> Tensor:
    """Choose at most `cap` pixels of each class.

    A random choice, not the first ones, which would favour the top of the image. Its randomness is a function of seed
    and step, so a resumed run repeats it. Each process of a run chooses from its own batch: n processes take up to n
    times `cap` pixels of a class, where one process with the joined batch would take `cap`.

    Args:
        classes: (P,) int64 class of each pixel of the batch.
        keep: (P,) bool, pixels that may be chosen.
        wrong: (P,) bool, misclassified pixels, which `hard` takes first.
        how: `random`, `hard`, or `all` (no cap).
    Returns: (N,) int64 pixel positions.
    """
    candidates = keep.nonzero().squeeze(1)
    if how == "all" or len(candidates) == 0:
        return candidates
    generator = torch.Generator(device=classes.device)
    generator.manual_seed(draw_seed(progress))
    lot = torch.rand(len(candidates), generator=generator, device=classes.device)
    if how == "hard" and wrong is not None:
        lot = lot + (~wrong[candidates])
    by_lot = torch.argsort(lot)
    order = by_lot[torch.argsort(classes[candidates][by_lot], stable=True)]  # by class, then by lot within it
    sorted_class = classes[candidates][order]
    first = torch.searchsorted(sorted_class, sorted_class)
    position = torch.arange(len(order), device=classes.device) - first
    return candidates[order[position < cap]]


def balanced_cross_entropy(batch: Batch, output: Output, progress: Progress, *, cap: int) -> Tensor:
    """Cross entropy of the network's scores over at most `cap` random pixels of each fine class, on its own grid.

    Every class weighs about the same, however many pixels it covers.
    """
    assert batch.fine is not None
    fine = grid_labels(batch.fine, output).flatten()
    index = sample_pixels(fine, fine != IGNORE, None, cap=cap, how="random", progress=progress)
    scores = output.logits.float().permute(0, 2, 3, 1).flatten(0, 2)[index]
    own = F.cross_entropy(scores, fine[index], reduction="sum") / index.numel() if index.numel() else scores.sum()
    return joint_mean(own, index.numel())
