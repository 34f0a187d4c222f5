"""Optimizers and learning rates; the rate is a function of the global step only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """How weights move.

    Attributes:
        epochs: passes over the training split; `iterations` overrides it when above 0.
        warmup: share of the run over which the rate rises linearly from 0.
        poly_power: exponent of the poly schedule.
        backbone_lr: factor on the rate of the pretrained backbone.
        clip_norm: largest gradient norm; 0 does not clip.
        accumulate: batches whose gradients make one step; `iterations` and the schedule count steps. Each batch weighs
            the same, so with equally many labelled pixels in each the gradient of a mean over pixels is that of the
            joined batch. Batch norm sees one batch at a time, and so do prototypes, pixel sampling and banks: their
            moving averages advance once a batch.
        weight_average: decay of the moving average of the network's weights, which is then what is validated and saved;
            0 keeps none. See `WeightAverage`.
    """

    epochs: int = 40
    iterations: int = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    poly_power: float = 0.9
    warmup: float = 0.02
    backbone_lr: float = 1.0
    clip_norm: float = 0.0
    accumulate: int = 1
    weight_average: float = 0.0

    def rate(self, step: int, total_steps: int) -> float:
        """Learning rate of one step."""
        done = step / max(1, total_steps)
        if done < self.warmup:
            return self.lr * (step + 1) / max(1, math.ceil(self.warmup * total_steps))
        if self.schedule == "poly":
            return self.lr * float((1 - done) ** self.poly_power)
        return self.lr * (0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1.0)


def build_optimizer(net: nn.Module, method: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Optimizer over network and method; norms and biases are not decayed, the backbone has its own rate factor."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in (("net", net), ("method", method)):
        for name, parameter in module.named_parameters():
            factor = config.backbone_lr if prefix == "net" and name.startswith("encoder.") else 1.0
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": decay, "factor": factor} for (factor, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(settings, lr=config.lr)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
