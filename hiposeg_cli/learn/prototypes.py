"""Prototypes: unit-length class means of pixel embeddings, in a batch and in a bank kept by moving average.

Notation of HiPoSeg (ICLR 2026): fine prototypes l_j, coarse prototypes h_i. Everything here is float32, whatever the
autocast mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiposeg_cli.learn.ranks import joint_sum

_EPS = 1e-12


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors along the last axis to length 1; a zero vector stays zero and has a finite gradient."""
    return F.normalize(vectors, dim=-1, eps=_EPS)


def similarity(a: Tensor, b: Tensor, *, is_unit: bool = True) -> Tensor:
    """s(a, b) = -||a - b||^2: (N, D) and (K, D) -> (N, K); of vectors of unit length, in [-4, 0]."""
    if not is_unit:
        return (2 * a @ b.T - a.square().sum(dim=1)[:, None] - b.square().sum(dim=1)).clamp(max=0)
    return (2 * a @ b.T - 2).clamp(min=-4, max=0)


@dataclass(frozen=True)
class BatchPrototypes:
    """Prototypes of one batch, differentiable.

    Attributes:
        vectors: (K, D) float32, unit length where `counts` > 0.
        counts: (K,) int64 pixels behind each.
    """

    vectors: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """(K,) bool."""
        return self.counts > 0


def batch_prototypes(z: Tensor, target: Tensor, n_classes: int) -> BatchPrototypes:
    """Normalised class means: b[k] = unit(sum of z over pixels with target k).

    Sums and counts are over the pixels of all processes of a run, so that every one has the same prototypes.

    Args:
        z: (N, D) float32, unit length.
        target: (N,) int64 in 0..K-1, no ignore.
    """
    sums = torch.zeros(n_classes, z.shape[1], dtype=z.dtype, device=z.device).index_add(0, target, z)
    return BatchPrototypes(unit(joint_sum(sums)), joint_sum(count_classes(target, n_classes)))


def count_classes(target: Tensor, n_classes: int) -> Tensor:
    """(K,) int64 items of each class, as `torch.bincount`, which on a GPU waits to learn how many classes there are.

    Args:
        target: (N,) int64 in 0..K-1.
    """
    return target.new_zeros(n_classes).index_add(0, target, torch.ones_like(target))


def balanced_parents(children: BatchPrototypes, parent: Tensor, n_coarse: int) -> BatchPrototypes:
    """Coarse prototypes in which each present child counts once: b_c[i] = unit(sum of b_f[j] over children j of i)."""
    weight = children.present.to(children.vectors.dtype)[:, None]
    sums = torch.zeros(n_coarse, children.vectors.shape[1], dtype=children.vectors.dtype, device=parent.device)
    counts = torch.zeros(n_coarse, dtype=torch.long, device=parent.device).index_add(0, parent, children.counts)
    return BatchPrototypes(unit(sums.index_add(0, parent, children.vectors * weight)), counts)


class PrototypeBank(nn.Module):
    """One prototype per class, moved towards the batch's by an exponential moving average; never by gradient.

    Args:
        momentum: weight m of the old prototype: P <- unit(m P + (1 - m) b).
        reference_count: when > 0, count-aware momentum m^min(1, n / reference_count), so that a class seen in few
            pixels moves little.
        renormalise: bring prototypes back to unit length after the update.
    """

    vectors: Tensor
    seen: Tensor

    def __init__(
        self, n_classes: int, dim: int, *, momentum: float = 0.9, reference_count: int = 0, renormalise: bool = True
    ) -> None:
        super().__init__()
        self.momentum, self.reference_count, self.renormalise = momentum, reference_count, renormalise
        self.register_buffer("vectors", torch.zeros(n_classes, dim))
        self.register_buffer("seen", torch.zeros(n_classes, dtype=torch.bool))

    @torch.no_grad()
    def initialise(self, batch: BatchPrototypes) -> None:
        """Set the prototypes of classes never seen before; no zero prototype ever enters a distance."""
        new = batch.present & ~self.seen
        self.vectors.copy_(torch.where(new[:, None], batch.vectors, self.vectors))
        self.seen |= new

    @torch.no_grad()
    def update(self, batch: BatchPrototypes) -> None:
        """Move the prototypes of classes present in the batch."""
        self.initialise(batch)
        moved = self._blend(batch)
        self.vectors.copy_(torch.where(batch.present[:, None], moved, self.vectors))

    def in_loss(self, batch: BatchPrototypes, *, blended: bool) -> Tensor:
        """(K, D) prototypes for terms between prototypes: the batch's where present, with gradient, else the bank's.

        Args:
            blended: use m * bank + (1 - m) * batch instead, which scales the gradient by about 1 - m.
        """
        present = self._blend(batch) if blended else batch.vectors
        return torch.where(batch.present[:, None], present, self.vectors)

    def _blend(self, batch: BatchPrototypes) -> Tensor:
        share = torch.ones_like(batch.counts, dtype=self.vectors.dtype)
        if self.reference_count > 0:
            share = (batch.counts / self.reference_count).clamp(max=1)
        m = (self.momentum**share)[:, None]
        moved = m * self.vectors + (1 - m) * batch.vectors
        return unit(moved) if self.renormalise else moved
