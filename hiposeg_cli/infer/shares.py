"""Photos shared among processes: parts that a user names, processes of torchrun or srun, and one process a GPU.

The processes exchange nothing: each takes its part of the same list, and the parts' results lie side by side in OUT.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hiposeg_cli.learn.device import gpu_list
from hiposeg_cli.learn.launch import launch_of
from hiposeg_cli.shard import Shard


@dataclass(frozen=True)
class Share:
    """A process's part of the photos, and the device it computes on."""

    shard: Shard
    device: str


def share_of(shard: Shard, device: str, environment: Mapping[str, str]) -> Share:
    """The share of this process: of several that were launched, its part of the part that was asked for.

    Raises: ConfigError when the environment contradicts itself, or the machine lacks a GPU that is named.
    """
    launch = launch_of(environment)
    if launch is None:
        return Share(shard, device)
    part = Shard(shard.number + shard.count * launch.rank, shard.count * launch.size)
    gpus = gpu_list(device)
    if device in ("auto", "cuda"):
        gpus = list(range(torch.cuda.device_count()))
    return Share(part, f"cuda:{gpus[launch.local_rank % len(gpus)]}" if gpus else device)


def run_on_gpus(device: str, arguments: Sequence[str]) -> int | None:
    """Run `hiposeg ARGUMENTS` once for each GPU where `device` names several, each process with its part.

    Unlike torchrun this lets the others end when one has failed photos. Returns the largest exit code; None for one GPU.
    """
    gpus = gpu_list(device) if launch_of(os.environ) is None else []
    return run_together(len(gpus), arguments) if len(gpus) > 1 else None


def run_together(n_processes: int, arguments: Sequence[str]) -> int:
    """Run `hiposeg ARGUMENTS` as several processes that take a part each. Returns the largest exit code."""
    shared = {
        "WORLD_SIZE": str(n_processes), "LOCAL_WORLD_SIZE": str(n_processes), "MASTER_ADDR": "localhost", "MASTER_PORT": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // n_processes)),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "hiposeg_cli", *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(n_processes)
    ]
    return max(process.wait() % 256 for process in processes)


def exit_code_of(n_failures: int, environment: Mapping[str, str]) -> int:
    """1 where photos failed; 0 under torchrun, which would end the other processes for it before they are done."""
    return 1 if n_failures and "TORCHELASTIC_RUN_ID" not in environment else 0
