"""`Method`: what a learning method is to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.learn.batch import Batch, Output


@dataclass(frozen=True)
class Progress:
    """Where training stands; a function of the global step only, so that a resumed run lands in the same stage."""

    step: int
    total_steps: int
    seed: int = 0

    def reached(self, share: float) -> bool:
        """Whether `share` of the run lies behind; the boundary step belongs to the later stage."""
        return self.step >= ceil(share * self.total_steps)


@dataclass(frozen=True)
class LossTerms:
    """The loss to minimise and, for the log, its detached unweighted parts."""

    total: Tensor
    parts: Mapping[str, Tensor]


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> LossTerms:
    """The loss of some terms, in their order."""
    first, *others = [weights[name] * term for name, term in terms.items()]
    return LossTerms(sum(others, first), {name: term.detach() for name, term in terms.items()})


def mean_of(terms: Sequence[LossTerms]) -> LossTerms:
    """Means over batches; a part that a batch lacks counts as 0 there, as it does in that batch's total."""
    names = {name: None for one in terms for name in one.parts}
    parts = {name: torch.stack([one.parts[name] for one in terms if name in one.parts]).sum() / len(terms) for name in names}
    return LossTerms(torch.stack([one.total for one in terms]).mean(), parts)


@dataclass(frozen=True)
class Context:
    """What some methods want to know of the network and the data besides the label space.

    Attributes:
        scale_dims: channels of each of the network's `Output.scales`.
        class_pixels: (n_v,) int64 labelled pixels of each class in the training split, finest level first; () where there
            is no data.
    """

    scale_dims: tuple[int, ...] = ()
    class_pixels: tuple[NDArray[np.int64], ...] = ()


class Method(nn.Module, ABC):
    """Owns everything trained besides the network: heads, prototypes, and the losses.

    Args:
        hierarchy: the label space.
        embedding_dim: channels D0 of the network's embedding.
        options: an instance of the method's own `Options` dataclass.
        context: of the run.
    """

    Options: ClassVar[type[Any]]
    needs: frozenset[str]
    """Levels of labels that reach the method: `fine`, `coarse`."""
    needs_scales: bool = False
    """Whether training passes bring the encoder's feature maps too."""

    def __init__(self, hierarchy: Hierarchy, embedding_dim: int, options: Any, context: Context | None = None) -> None:
        super().__init__()
        self.hierarchy, self.embedding_dim, self.options = hierarchy, embedding_dim, options
        self.context = context or Context()

    @abstractmethod
    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        """Loss of one batch. Never writes to labels; finite, with a gradient, on every degenerate crop."""

    def after_step(self) -> None:
        """Called after every batch, after the optimizer's step where it ends one, for state that no gradient trains."""

    def warnings(self) -> list[str]:
        """What a user should know about these options before training."""
        return []
