"""Where and in what precision a network computes, from the words a user gives."""

from __future__ import annotations

import os
import re

import torch

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.learn.launch import Launch, launch_of
from hiposeg_cli.learn.ranks import n_ranks


def gpu_list(name: str) -> list[int]:
    """`0,1` -> [0, 1]; a number alone is a list of one, every other word none.

    Raises: ConfigError when one is named twice, or this machine has fewer.
    """
    if not re.fullmatch(r"\d+(,\d+)*", name):
        return []
    gpus, count = [int(number) for number in name.split(",")], torch.cuda.device_count()
    if len(set(gpus)) < len(gpus):
        raise ConfigError(f"--device {name}", "names a GPU twice", "name each once")
    if max(gpus) >= count:
        raise ConfigError(
            f"--device {name}", f"asks for {len(gpus)} GPUs with numbers up to {max(gpus)}, but this machine has {count}",
            f"use --device {','.join(str(gpu) for gpu in range(count))}" if count else "use --device cpu",
        )  # fmt: skip
    return gpus


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's GPU, then the CPU; of a list of GPUs each process of a run takes its own.

    Raises: ConfigError for a device this machine lacks.
    """
    launch = launch_of(os.environ) if n_ranks() > 1 else None
    if launch is not None:
        return _device_of_rank(name, launch)
    gpus = gpu_list(name)
    if gpus:
        return torch.device("cuda", gpus[0])
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"--device {name}", "is no device", "use auto, cpu, cuda, cuda:1, 0,1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}", f"this machine has {torch.cuda.device_count()} CUDA devices",
            "use --device cuda:0" if torch.cuda.device_count() else "use --device cpu",
        )  # fmt: skip
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps", "is not available here", "use --device cpu")
    return device


def _device_of_rank(name: str, launch: Launch) -> torch.device:
    """The device of one process among several: the CPU for all, or a GPU for each."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    gpus = gpu_list(name)
    if name in ("auto", "cuda"):
        gpus = list(range(torch.cuda.device_count()))
    elif not gpus:
        raise ConfigError(f"--device {name}", "is one device for several processes", "use auto, cpu, cuda or a list: 0,1")
    if launch.bound and len(gpus) == 1:
        gpus = gpus * launch.local_size
    needed = max(launch.local_size, launch.local_rank + 1)
    if needed > len(gpus):
        raise ConfigError(
            f"--device {name}", f"{needed} processes on this machine, but {len(gpus)} GPUs", "launch one process a GPU"
        )
    device = torch.device("cuda", gpus[launch.local_rank])
    torch.cuda.set_device(device)  # where NCCL and host values without a device of their own go
    return device


def pick_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Autocast type; `auto` is bf16 on CUDA devices that have it, else none."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def choose_kernels(*, deterministic: bool) -> None:
    """Whether to compute with kernels that give the same bits every time, where torch has them."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
