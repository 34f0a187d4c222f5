"""What flows through training, with the one shape legend.

B        images in a batch              F, C   fine and coarse classes
H, W     image height and width, px     P      cells of the network's grid in a batch, B h w
h, w     the network's output grid      N      pixels taken into a loss
                                        D0, D  channels of the decoder embedding and of its projection

Host and device: a GPU works behind the host, and whoever asks it for a value waits until it has caught up. Labels are
known on the host, so whatever depends on labels alone (which pixels are taken, how many they are) is computed there, while
the GPU is busy with the network, and sent after it (`on_device`). No loss of one process asks the GPU
for anything; see tests/test_no_sync.py.
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
        source: the batch that this one is a device's copy of; None where it is no copy.
    """

    image: Tensor
    fine: Tensor | None = None
    coarse: Tensor | None = None
    keys: tuple[str, ...] = ()
    partial: bool = False
    source: Batch | None = None

    @property
    def host(self) -> Batch:
        """The same batch where the loader left it; reading its labels never waits for a GPU."""
        return self if self.source is None else self.source

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; copies from pinned memory do not block."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        image = self.image.to(device, non_blocking=True)
        return replace(self, image=image, fine=move(self.fine), coarse=move(self.coarse), source=self.host)

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
        scales: the encoder's feature maps (B, d, h', w'), one a stride, for a method that asked for them; else none.
    """

    logits: Tensor
    embedding: Tensor
    size: tuple[int, int]
    padded_size: tuple[int, int]
    scales: tuple[Tensor, ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)"""
        return int(self.embedding.shape[2]), int(self.embedding.shape[3])

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
    h, w = output.grid
    assert output.padded_size == (H, W), "training crops need no padding"
    rows = ((torch.arange(h, device=labels.device) + 0.5) * (H / h)).long()
    columns = ((torch.arange(w, device=labels.device) + 0.5) * (W / w)).long()
    return labels[:, rows[:, None], columns[None, :]]


def at_cells(features: Tensor, cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, D) float32 features at some cells of the network's grid, gathered without a copy of the map.

    Args:
        features: (B, D, h', w') of any float type, on the grid itself or on another one over the same image, where the
            centre of a cell decides.
        cells: (N,) int64 positions in (B, h, w).
        grid: (h, w).
    """
    (h, w), (rows, columns) = grid, features.shape[2:]
    image, y, x = cells // (h * w), cells // w % h, cells % w
    found = features.permute(0, 2, 3, 1)[image, (2 * y + 1) * rows // (2 * h), (2 * x + 1) * columns // (2 * w)]
    return found.float()


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor's copy on a device; neither waits for the other."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
