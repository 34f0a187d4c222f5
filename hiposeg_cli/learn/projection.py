"""The projection head g of methods that compare pixel embeddings: per-pixel linear layers, in training only."""

from __future__ import annotations

from torch import Tensor, nn

from hiposeg_cli.learn.prototypes import unit
from hiposeg_cli.learn.ranks import rows_in_norm


class Projection(nn.Sequential):
    """g: linear layers (1x1 convolutions) with batch norm and ReLU between them, then unit length.

    Args:
        d_in: channels D0 of the decoder embedding.
        d_out: width D of the projection.
        layers: 1 or more.
    """

    def __init__(self, d_in: int, d_out: int, layers: int = 2) -> None:
        modules: list[nn.Module] = []
        for _ in range(layers - 1):
            modules += [nn.Linear(d_in, d_in, bias=False), nn.BatchNorm1d(d_in), nn.ReLU(inplace=True)]
        super().__init__(*modules, nn.Linear(d_in, d_out))

    def forward(self, features: Tensor) -> Tensor:
        """(N, D0) -> (N, D) unit length; batch statistics need two pixels, so one or none goes by the running ones."""
        if not self.training or rows_in_norm(self, len(features)) > 1:
            return unit(super().forward(features))
        self.eval()
        projected = super().forward(features)
        self.train()
        return unit(projected)
