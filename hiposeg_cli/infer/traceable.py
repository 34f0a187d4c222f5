"""A network as it is traced for pictures of any size: equal in what it computes, but free of what such graphs lack."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiposeg_cli.nets.compat import import_torchvision
from hiposeg_cli.nets.net import SegmentationNet


class Graph(nn.Module):
    """Pictures in, scores out, and nothing else; on the CPU in float32.

    `SegmentationNet.forward` itself cannot be traced: it writes down the padded size as a plain number, which fixes it.
    """

    def __init__(self, net: SegmentationNet) -> None:
        import_torchvision()
        from timm.layers.conv2d_same import Conv2dSame

        super().__init__()
        self.net = copy.deepcopy(net).cpu().float().eval()
        for parent in list(self.net.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                    setattr(parent, name, BinMeans(child.output_size))
                elif isinstance(child, Conv2dSame):
                    setattr(parent, name, PaddedConv(child))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, F, h, w) float32."""
        net = self.net
        logits: Tensor = net.classifier(net.decoder(net.encoder(net.scaled(image))))
        return logits


class PaddedConv(nn.Module):
    """timm's `Conv2dSame` with the padding of maps whose sides are multiples of its stride, as all are here.

    Where the padding is worked out for each map, tracing takes minutes.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        (bottom, right), (top, left) = self._halves(1), self._halves(0)
        self.padding = (left, right, top, bottom)

    def _halves(self, rest: int) -> tuple[int, int]:
        """The smaller half of the padding of rows and of columns, or the larger one."""
        sides = zip(self.conv.kernel_size, self.conv.dilation, self.conv.stride, strict=True)
        rows, columns = ((max((kernel - 1) * dilation + 1 - stride, 0) + rest) // 2 for kernel, dilation, stride in sides)
        return rows, columns

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D', h / stride, w / stride)."""
        conv = self.conv
        padded = F.pad(maps, self.padding)
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


class BinMeans(nn.Module):
    """`AdaptiveAvgPool2d` as two matrix products: ONNX has no operator for it."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
        self.rows, self.columns = int(rows), int(columns)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, rows, columns)."""
        h, w = maps.shape[2:]
        return _bins(self.rows, h, maps) @ maps @ _bins(self.columns, w, maps).T


def _bins(n_bins: int, length: int, like: Tensor) -> Tensor:
    """(n_bins, length) weights of cells in means over the bins from floor(i length / n) to ceil((i + 1) length / n)."""
    bins = torch.arange(n_bins, device=like.device)[:, None]
    cells = torch.arange(length, device=like.device)[None]
    inside = (cells >= bins * length // n_bins) & (cells < ((bins + 1) * length + n_bins - 1) // n_bins)
    weights = inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)
