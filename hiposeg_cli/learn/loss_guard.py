"""Losses and weights that are not finite.

The first such loss of a run is remembered on the device: to read every loss would be to wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LossGuard:
    """Watches the losses of a run's steps."""

    def __init__(self, device: torch.device) -> None:
        self.step = torch.full((), -1, device=device)
        self.loss = torch.zeros((), device=device)

    def note(self, loss: Tensor, step: int) -> None:
        """Take in the loss () of a step."""
        first = (self.step < 0) & ~loss.isfinite()
        self.step = torch.where(first, step, self.step)
        self.loss = torch.where(first, loss.float(), self.loss)

    def fault(self) -> tuple[int, float] | None:
        """The step whose loss was the first that is not finite, and that loss. Waits for the device."""
        step = int(self.step)
        return None if step < 0 else (step, float(self.loss))


def not_finite(modules: Mapping[str, nn.Module]) -> str | None:
    """The first of some modules with a value that is not finite: the update after a finite loss can break weights too."""
    for name, module in modules.items():
        tensors = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            return name
    return None
