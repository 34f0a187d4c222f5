"""`loop.compile`: the training pass through torch.compile, where this machine can."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from hiposeg_cli.learn.batch import Output


def can_compile(device: torch.device) -> str:
    """Why nothing can be compiled for a device here; empty when it can.

    A trivial function is compiled: that finds a missing C++ compiler, Triton and Python header alike.
    """
    try:
        torch.compile(lambda x: (x + 1).sin())(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return ""


def training_pass(net: nn.Module, device: torch.device, *, compiled: bool) -> tuple[Callable[..., Output], str]:
    """The function that training calls with images, and a warning ("" for none).

    The compiled one computes with the network's own parameters, so whatever is saved or averaged does not change.
    Validation, where sizes differ from photo to photo, uses the network itself.
    """
    if not compiled:
        return net, ""
    reason = can_compile(device)
    if reason:
        return net, f"loop.compile has no effect: nothing can be compiled here ({reason})"
    return torch.compile(net), ""
