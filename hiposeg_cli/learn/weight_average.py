"""The moving average of a network's weights: a second network, never trained, that is scored and saved in its place."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """Exponential moving average of weights: average <- d average + (1 - d) weights.

    Early on d = min(decay, (1 + n) / (10 + n)) after n updates, so that a short run is not held back by its random
    start. Batch norm's running mean and variance are averaged like the weights they belong to, rather than copied: what
    they measured belongs to weights that the average is behind of. Counters are copied.

    Args:
        net: starts the average; it is copied.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.net = deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module, n_updates: int) -> None:
        """Move towards the weights of `net`, after `n_updates` earlier calls."""
        decay = min(self.decay, (1 + n_updates) / (10 + n_updates))
        pairs = list(zip(_tensors(self.net), _tensors(net), strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        # One launch for all tensors; one each would cost a GPU as much as a small network's forward pass.
        torch._foreach_lerp_([mine for mine, _ in moving], [theirs for _, theirs in moving], 1 - decay)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)


def _tensors(net: nn.Module) -> chain[Tensor]:
    return chain(net.parameters(), net.buffers())
