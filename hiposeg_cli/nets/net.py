"""`SegmentationNet`: one segmentation_models_pytorch decoder over one timm backbone, behind the `Net` seam.

Owns input scaling and padding. Projection heads and prototypes belong to the method, so every method trains and saves
exactly these parameters.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiposeg_cli.errors import ConfigError, did_you_mean
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.nets.compat import import_torchvision

ARCHITECTURES = {
    "deeplabv3plus": "DeepLabV3Plus", "fpn": "FPN", "unet": "Unet", "upernet": "UPerNet", "segformer": "Segformer",
    "deeplabv3": "DeepLabV3", "manet": "MAnet", "linknet": "Linknet", "unetplusplus": "UnetPlusPlus",
}  # fmt: skip
STRIDE_PX = 32  # the coarsest feature map of every decoder; inputs are padded up to a multiple


class SegmentationNet(nn.Module):
    """Class scores and decoder embedding of an image batch.

    Args:
        model: a segmentation_models_pytorch model; its segmentation head's upsampling is left to `Output`.
        mean, std: (3,) input scaling on the 0..1 range, as the backbone was trained with.

    Attributes:
        scale_dims: channels of the encoder's feature maps, the finest first.
        gives_scales: whether `Output.scales` holds these maps in training; outside of it they are never kept.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, n_fine: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.encoder: nn.Module = model.encoder
        self.decoder: nn.Module = model.decoder
        self.classifier: nn.Module = model.segmentation_head[0]
        self.n_fine = n_fine
        self.scale_dims = tuple(int(d) for d in model.encoder.out_channels[1:] if d)  # the first is the image
        self.gives_scales = False
        self.embedding_dim = int(model.segmentation_head[0].in_channels)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Output:
        """Segment a batch.

        Args:
            image: (B, 3, H, W) uint8 RGB of any size.
        Returns: logits (B, F, h, w) and embedding (B, D0, h, w), on the padded image's grid.
        """
        _, _, H, W = image.shape
        padded = self.scaled(image)
        features = self.encoder(padded)
        embedding = self.decoder(features)
        scales = tuple(scale for scale in features[1:] if scale.shape[1]) if self.gives_scales and self.training else ()
        return Output(
            logits=self.classifier(embedding), embedding=embedding, size=(H, W),
            padded_size=(int(padded.shape[2]), int(padded.shape[3])), scales=scales,
        )  # fmt: skip

    def scaled(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float as the encoder takes it, its sides padded to multiples of `STRIDE_PX`."""
        _, _, H, W = image.shape
        scaled = ((image.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return F.pad(scaled, (0, -W % STRIDE_PX, 0, -H % STRIDE_PX), mode="replicate")


def build_net(architecture: str, backbone: str, n_fine: int) -> SegmentationNet:
    """An untrained network. Raises ConfigError for an unknown decoder or backbone, or one that does not fit it."""
    import_torchvision()
    import segmentation_models_pytorch as smp
    import timm

    if architecture not in ARCHITECTURES:
        raise ConfigError(f"--net {architecture}", "unknown decoder", did_you_mean(architecture, ARCHITECTURES))
    backbones = timm.list_models()
    if backbone.split(".")[0] not in backbones:
        raise ConfigError(f"--backbone {backbone}", "unknown timm backbone", did_you_mean(backbone, backbones))
    try:
        model = smp.create_model(
            ARCHITECTURES[architecture], encoder_name=f"tu-{backbone}", encoder_weights=None, classes=n_fine
        )
    except (ValueError, KeyError, NotImplementedError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(
            f"--backbone {backbone}", f"does not fit the decoder {architecture} ({str(error).splitlines()[0]})",
            "choose another backbone or --net",
        ) from None  # fmt: skip
    config = timm.get_pretrained_cfg(backbone)
    mean, std = (config.mean, config.std) if config else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    net = SegmentationNet(model, n_fine, tuple(mean), tuple(std))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
