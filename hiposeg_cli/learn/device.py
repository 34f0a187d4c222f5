"""Where and in what precision a network computes, from the words a user gives."""

from __future__ import annotations

import torch

from hiposeg_cli.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's GPU, then the CPU. Raises ConfigError for a device this machine lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}", "is no device", "use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}", f"this machine has {torch.cuda.device_count()} CUDA devices", "use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps", "is not available here", "use --device cpu")
    return device


def pick_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Autocast type; `auto` is bf16 on CUDA devices that have it, else none."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
