"""Look-ups between the levels of a hierarchy, as tensors. Levels count from the finest, 0, as in `Hierarchy.levels`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import IGNORE


class ClassTree(nn.Module):
    """Look-ups between the levels of a hierarchy, as buffers that follow the method to its device.

    Attributes:
        sizes: classes of each level.
        parent_ids: for each level but the coarsest, the id one level up of each class; on the host.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__()
        self.n_levels, self.n_fine, self.n_coarse = len(hierarchy.levels), hierarchy.n_fine, hierarchy.n_coarse
        self.sizes = [len(level) for level in hierarchy.levels]
        self.family_sizes: list[list[int]] = []
        self.parent_ids: list[list[int]] = []
        for v, (n_below, n_above) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            parent = np.empty(n_below, dtype=np.int64)  # every class of every level has a leaf below it
            parent[hierarchy.ancestors(v)] = hierarchy.ancestors(v + 1)
            self.parent_ids.append(parent.tolist())
            self.family_sizes.append(np.bincount(parent, minlength=n_above).tolist())
            self._keep(f"parent_{v}", torch.from_numpy(np.append(parent, IGNORE)))  # one row more, for IGNORE
            self._keep(f"families_{v}", torch.from_numpy(np.argsort(parent, kind="stable")))
        for v, size in enumerate(self.sizes):  # rows of what a pixel of some class is known not to be
            rows = ~torch.eye(size, dtype=torch.bool)
            if v == 0:  # of a pixel that is known on the coarse level only, the own parent's leaves are unknown
                coarse_ids = torch.arange(self.n_coarse)[:, None]
                rows = torch.cat([rows, torch.from_numpy(hierarchy.parent)[None, :] != coarse_ids])
            self._keep(f"others_{v}", F.pad(rows, (0, 0, 0, 1)))

    def _keep(self, name: str, table: Tensor) -> None:
        self.register_buffer(name, table, persistent=False)

    def parent(self, v: int) -> Tensor:
        """(n_v,) int64: the id one level up of each class of level v."""
        return self.get_buffer(f"parent_{v}")[:-1]

    def siblings(self, v: int) -> Tensor:
        """(n_v, n_v) bool: classes of level v with one parent, each with itself."""
        parent = self.parent(v)
        return parent[:, None] == parent[None, :]

    def labels(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        """(B, H, W) int64 labels of every level, IGNORE where unknown; those above coarse follow from coarse."""
        labels = [fine, coarse]
        for v in range(1, self.n_levels - 1):
            below = labels[-1]
            labels.append(self.get_buffer(f"parent_{v}")[torch.where(below == IGNORE, self.sizes[v], below)])
        return labels

    def negatives(self, v: int, labels: Sequence[Tensor]) -> Tensor:
        """(B, n_v, H, W) bool: the classes of level v that each pixel is known not to show; none where it has no label.

        Args:
            labels: as `labels` returns them.
        """
        row = torch.where(labels[v] == IGNORE, self.sizes[v], labels[v])
        if v == 0:
            coarse_row = torch.where(labels[1] == IGNORE, self.n_coarse, labels[1])
            row = torch.where(labels[0] == IGNORE, self.n_fine + coarse_row, row)
        negatives: Tensor = self.get_buffer(f"others_{v}")[row].movedim(-1, 1)
        return negatives

    def with_descendants(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """The largest score among each class and all its descendants; level v is (B, n_v, H, W)."""
        highest = [scores[0]]
        for v, own in enumerate(scores[1:]):
            families = highest[v][:, self.get_buffer(f"families_{v}")].split(self.family_sizes[v], dim=1)
            children = torch.stack([family.max(dim=1).values for family in families], dim=1)
            highest.append(torch.maximum(own, children))
        return highest
