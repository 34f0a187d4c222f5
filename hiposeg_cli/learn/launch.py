"""Whether this process was launched as one of several, by torchrun or by Slurm, and where they meet."""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from hiposeg_cli.errors import ConfigError


@dataclass(frozen=True)
class Launch:
    """One process among several, and where they meet.

    Attributes:
        local_rank, local_size: place among the processes on this machine, and their number.
        bound: whether the launcher may show each process a GPU of its own only.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    bound: bool = False


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """What torchrun or, without it, Slurm's srun says about this process; None where it is the only one.

    Raises: ConfigError when the environment contradicts itself.
    """
    try:
        launch = _torchrun(environment) if "WORLD_SIZE" in environment else _slurm(environment)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            "environment", f"says that several processes were launched, but not how ({error})",
            "launch with torchrun or srun, or unset WORLD_SIZE",
        ) from None  # fmt: skip
    return launch if launch is not None and launch.size > 1 else None


def _torchrun(environment: Mapping[str, str]) -> Launch:
    size = int(environment["WORLD_SIZE"])
    if size == 1:
        return Launch(0, 1, 0, 1, "", 0)
    local_rank = int(environment["LOCAL_RANK"])
    return Launch(
        int(environment["RANK"]), size, local_rank, int(environment.get("LOCAL_WORLD_SIZE", local_rank + 1)),
        environment["MASTER_ADDR"], int(environment["MASTER_PORT"]),
    )  # fmt: skip


def _slurm(environment: Mapping[str, str]) -> Launch | None:
    """Tasks of a step that srun began. A batch script has a rank and a number of tasks too, but is one process."""
    if "SLURM_STEP_ID" not in environment or "SLURM_PROCID" not in environment:
        return None
    size = int(environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"])
    if size == 1:
        return None
    local_rank = int(environment["SLURM_LOCALID"])
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    job = int(environment.get("SLURM_JOB_ID", "0")) * 31 + int(environment["SLURM_STEP_ID"])
    return Launch(
        int(environment["SLURM_PROCID"]), size, local_rank, int(tasks.group()) if tasks else local_rank + 1,
        environment.get("MASTER_ADDR") or first_host(nodes), int(environment.get("MASTER_PORT") or 20_000 + job % 20_000),
        bound=True,
    )  # fmt: skip


def first_host(nodes: str) -> str:
    """The first of Slurm's compressed host names: `gpu[08-11,14],login1` -> `gpu08`. Raises ValueError for none."""
    found = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        raise ValueError("no MASTER_ADDR and no list of nodes")
    return "".join(part or "" for part in found.groups())


def leave_if_launched(environment: Mapping[str, str], ended: SystemExit) -> None:
    """End this process at once where it is one of several, with the exit code it was to have.

    Threads of a process group that is gone may abort an interpreter that winds down, and the exit code would be lost.
    """
    try:
        launched = launch_of(environment) is not None
    except ConfigError:
        return
    if launched:
        atexit._run_exitfuncs()  # ends the processes that read data
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
