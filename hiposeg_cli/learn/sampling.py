"""Class-balanced choice of the pixels that enter a loss.

The choice is made on the host, by the labels there: see the legend in `batch`. Only what is taken by the network's own
predictions has to wait for a GPU (`misclassified`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output, at_cells, grid_labels, on_device
from hiposeg_cli.learn.method import Progress
from hiposeg_cli.learn.ranks import joint_mean, rank

_A_RANK = 2**40  # keeps the draws of processes apart


def draw_seed(progress: Progress) -> int:
    """Seed of what is drawn from this process's own batch in a step."""
    return (progress.seed * 1_000_003 + progress.step + rank() * _A_RANK) % 2**63


def sample_pixels(
    classes: Tensor, keep: Tensor, *, cap: int | None, progress: Progress, first: Tensor | None = None
) -> Tensor:
    """Choose at most `cap` pixels of each class, or of each finer group, such as a class in an image.

    A random choice, not the first ones, which would favour the top of the image. Its randomness is a function of seed
    and step, so a resumed run repeats it. Each process of a run chooses from its own batch: n processes take up to n
    times `cap` pixels of a class, where one process with the joined batch would take `cap`.

    Args:
        classes: (P,) int64 class, or group, of each pixel of the batch, on the host.
        keep: (P,) bool, pixels that may be chosen.
        cap: None takes them all.
        first: (P,) bool, pixels that are taken before the others.
    Returns: (N,) int64 pixel positions.
    """
    candidates = keep.nonzero().squeeze(1)
    if cap is None or len(candidates) == 0:
        return candidates
    lot = torch.rand(len(candidates), generator=torch.Generator().manual_seed(draw_seed(progress)))
    if first is not None:
        lot = lot + (~first[candidates])
    by_lot = torch.argsort(lot)
    order = by_lot[torch.argsort(classes[candidates][by_lot], stable=True)]  # by class, then by lot within it
    sorted_class = classes[candidates][order]
    position = torch.arange(len(order)) - torch.searchsorted(sorted_class, sorted_class)
    return candidates[order[position < cap]]


def on_boundary(fine: Tensor) -> Tensor:
    """(B, h, w) bool: cells with a fine label whose 3x3 neighbourhood shows another one.

    Args:
        fine: (B, h, w) int64 with `IGNORE`; a cell without a label is no neighbour.
    """
    known, own = fine != IGNORE, fine.float()
    highest = F.max_pool2d(own.masked_fill(~known, -torch.inf), 3, stride=1, padding=1)
    lowest = -F.max_pool2d((-own).masked_fill(~known, -torch.inf), 3, stride=1, padding=1)
    return known & ((highest > own) | (lowest < own))


def misclassified(fine: Tensor, output: Output) -> Tensor:
    """(P,) bool, on the host: cells whose fine label is not the network's best class. Waits for a GPU.

    Args:
        fine: (P,) int64 with `IGNORE`, on the host.
    """
    return (output.logits.detach().argmax(dim=1).flatten().cpu() != fine) & (fine != IGNORE)


def even_cells(batch: Batch, output: Output, progress: Progress, *, cap: int) -> Tensor:
    """(N,) int64, on the host: at most `cap` random cells of the network's grid of each fine class in the batch."""
    assert batch.host.fine is not None
    fine = grid_labels(batch.host.fine, output).flatten()
    return sample_pixels(fine, fine != IGNORE, cap=cap, progress=progress)


def balanced_cross_entropy(batch: Batch, output: Output, cells: Tensor) -> Tensor:
    """Cross entropy of the network's scores over some cells of its own grid, those with a fine label.

    Over `even_cells` every class weighs about the same, however many pixels it covers.
    """
    assert batch.host.fine is not None
    fine = grid_labels(batch.host.fine, output).flatten()
    cells = cells[fine[cells] != IGNORE]
    chosen = on_device(torch.stack([cells, fine[cells]]), output.logits.device)
    scores = at_cells(output.logits, chosen[0], output.grid)
    own = F.cross_entropy(scores, chosen[1], reduction="sum") / max(1, len(cells))
    return joint_mean(own, len(cells))
