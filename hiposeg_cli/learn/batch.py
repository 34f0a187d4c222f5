"""What flows through training, with the one shape legend.

B        images in a batch              F, C   fine and coarse classes
H, W     image height and width, px     N      pixels taken into a loss
h, w     the network's output grid      D0, D  channels of the decoder embedding and of its projection
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images and the labels the method asked for; labels it did not ask for are None.

    Attributes:
        image: (B, 3, H, W) uint8 RGB.
        fine, coarse: (B, H, W) int64, `labelmap.IGNORE` where unknown.
        partial: whether some pixels have a coarse label and no fine one; known before the batch moves to a device.
    """

    image: Tensor
    fine: Tensor | None = None
    coarse: Tensor | None = None
    keys: tuple[str, ...] = ()
    partial: bool = False

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; copies from pinned memory do not block."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        image = self.image.to(device, non_blocking=True)
        return replace(self, image=image, fine=move(self.fine), coarse=move(self.coarse))

    def pin_memory(self) -> Batch:
        """Called by the loader when it pins memory."""

        def pin(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.pin_memory()

        return replace(self, image=self.image.pin_memory(), fine=pin(self.fine), coarse=pin(self.coarse))


@dataclass(frozen=True)
class Output:
    """What every network returns; the whole seam between networks and methods.

    Attributes:
        logits: (B, F, h, w) class scores.
        embedding: (B, D0, h, w) decoder features.
        size: (H, W) of the image.
        padded_size: (H', W') of the padded image that (h, w) covers.
    """

    logits: Tensor
    embedding: Tensor
    size: tuple[int, int]
    padded_size: tuple[int, int]

    def full_logits(self) -> Tensor:
        """(B, F, H, W) float32 logits at the image's own size, bilinear without aligned corners."""
        H, W = self.size
        if tuple(self.logits.shape[2:]) == self.padded_size:
            return self.logits[..., :H, :W].float()
        full = F.interpolate(self.logits.float(), size=self.padded_size, mode="bilinear", align_corners=False)
        return full[..., :H, :W]


def grid_labels(labels: Tensor, output: Output) -> Tensor:
    """(B, h, w) int64 labels on the network's grid: the nearest pixel to each cell's centre.

    Args:
        labels: (B, H, W) int64 at the image's size, which must be the padded one (training crops are).
    """
    _, H, W = labels.shape
    h, w = output.embedding.shape[2:]
    assert output.padded_size == (H, W), "training crops need no padding"
    rows = ((torch.arange(h, device=labels.device) + 0.5) * (H / h)).long()
    columns = ((torch.arange(w, device=labels.device) + 0.5) * (W / w)).long()
    return labels[:, rows[:, None], columns[None, :]]
