"""Photos shared among processes: parts that a user names, processes of torchrun or srun, and one process a GPU.

The processes exchange nothing: each takes its part of the same list, and the parts' results lie side by side in OUT.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hiposeg_cli.errors import ConfigError
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


@dataclass(frozen=True)
class Joined:
    """What several processes did together.

    Attributes:
        errors: what kept processes from doing their part, each once.
        exit_code: the largest of theirs.
    """

    done: int
    skipped: int
    failures: tuple[str, ...]
    remarks: tuple[str, ...]
    errors: tuple[str, ...]
    exit_code: int


def require_own_list(sources: Sequence[str], device: str, environment: Mapping[str, str]) -> None:
    """Refuse a list on standard input, which only one process can read, where there are several. Raises ConfigError."""
    if "-" in sources and (launch_of(environment) is not None or len(gpu_list(device)) > 1):
        raise ConfigError("-", "is one list, and several processes share the photos", "write it to a file and name @FILE")


def run_on_gpus(device: str, arguments: Sequence[str]) -> Joined | None:
    """Run `hiposeg ARGUMENTS` once for each GPU where `device` names several, each process with its part.

    Unlike torchrun this lets the others end when one has failed photos. None for one GPU.
    """
    gpus = gpu_list(device) if launch_of(os.environ) is None else []
    return run_together(len(gpus), arguments) if len(gpus) > 1 else None


def run_together(n_processes: int, arguments: Sequence[str]) -> Joined:
    """Run `hiposeg ARGUMENTS` as several processes that take a part each; the first shows its progress."""
    shared = {
        "WORLD_SIZE": str(n_processes), "LOCAL_WORLD_SIZE": str(n_processes), "MASTER_ADDR": "localhost", "MASTER_PORT": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // n_processes)),
    }  # fmt: skip
    words = [*arguments, *([] if "--json" in arguments else ["--json"])]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "hiposeg_cli", *(["-q"] if rank else []), *words], stdout=subprocess.PIPE,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(n_processes)
    ]  # fmt: skip
    with _ended_with_this_one(processes):
        answers = [_answer(process.communicate()[0]) for process in processes]
    return _joined(answers, max(process.wait() % 256 for process in processes))


def _answer(text: bytes) -> dict[str, Any]:
    """The JSON object of a process; empty where it was killed before it could print one."""
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return answer


def _joined(answers: Sequence[dict[str, Any]], exit_code: int) -> Joined:
    found = [answer.get("data", {}) for answer in answers]
    killed = [f"process {number} of {len(answers)}: was killed (out of memory?) - continue with --resume"
              for number, answer in enumerate(answers, start=1) if not answer]  # fmt: skip
    return Joined(
        done=sum(data.get("done", 0) for data in found),
        skipped=sum(data.get("skipped", 0) for data in found),
        failures=tuple(failure for data in found for failure in data.get("failures", ())),
        remarks=tuple(remark for answer in answers for remark in answer.get("warnings", ())),
        errors=tuple(dict.fromkeys([*(data["error"] for data in found if "error" in data), *killed])),
        exit_code=exit_code,
    )


@contextmanager
def _ended_with_this_one(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """A block that ends some processes when it is left early, also by SIGTERM."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
        signal.signal(signal.SIGTERM, before)


def exit_code_of(n_failures: int, environment: Mapping[str, str]) -> int:
    """1 where photos failed; 0 under torchrun, which would end the other processes for it before they are done."""
    return 1 if n_failures and "TORCHELASTIC_RUN_ID" not in environment else 0
