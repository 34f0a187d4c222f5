"""Checkpoints in safetensors: weights that describe themselves, and the full state of an interrupted run.

Nothing here unpickles. A weights file carries its hierarchy and network configuration in its header.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, parse_hierarchy
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.learn import ranks


@dataclass(frozen=True)
class Checkpoint:
    """A weights file: the network's tensors by name, what it segments, and how it is built."""

    path: Path
    tensors: dict[str, Tensor]
    hierarchy: Hierarchy
    about: dict[str, Any]


def save_weights(path: Path, net: nn.Module, hierarchy: Hierarchy, about: dict[str, Any]) -> None:
    """Write the network's parameters and buffers with everything needed to use them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes_atomic(path, save(tensors, metadata=_header({"about": about, "hierarchy": dump_hierarchy(hierarchy)})))


def load_weights(path: Path) -> Checkpoint:
    """Read a weights file. Raises DataError when it is missing, broken or not hiposeg's."""
    tensors, header = _read(path, "weights file")
    if "hierarchy" not in header:
        raise DataError(path, "was not written by hiposeg", "name a run folder, or weights/best.safetensors inside one")
    return Checkpoint(path, tensors, parse_hierarchy(header["hierarchy"], path), header["about"])


def _header(values: dict[str, Any]) -> dict[str, str]:
    """One entry only: safetensors writes several in a random order, and equal runs must give equal files."""
    return {"hiposeg": json.dumps(values)}


def _read(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the values of `_header` ({} in a file that is not ours)."""
    if not path.is_file():
        raise DataError(path, f"no such {what}", "check the path, or train first")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("hiposeg", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(path, f"is not a readable {what} ({error})", "restore the file, or start a new run") from None


def apply_weights(net: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's tensors into a network of the same shape. Raises DataError naming the first difference."""
    own = net.state_dict()
    for name in own.keys() | checkpoint.tensors.keys():
        theirs, mine = checkpoint.tensors.get(name), own.get(name)
        if theirs is None or mine is None or theirs.shape != mine.shape:
            raise DataError(
                checkpoint.path, f"does not fit the network at {name!r}", "use the --net and --backbone it was trained with"
            )
    net.load_state_dict(checkpoint.tensors)


@dataclass
class RunState:
    """Everything that decides how a run goes on: all modules, the optimizer, random state, and plain progress values."""

    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    progress: dict[str, Any]
    device: torch.device

    def save(self, path: Path) -> None:
        """Write the state atomically. Every process of a run calls this, and the first writes, with all random states."""
        tensors: dict[str, Tensor] = {}
        for rank, states in enumerate(ranks.gathered(self._random_states())):
            tensors |= {_of_rank(key, rank): state for key, state in states.items()}
        if not ranks.is_first():
            return
        for name, module in self.modules.items():
            tensors |= {f"module/{name}/{key}": tensor for key, tensor in module.state_dict().items()}
        state = self.optimizer.state_dict()
        for index, slots in state["state"].items():
            tensors |= {f"optimizer/{index}/{key}": tensor for key, tensor in slots.items() if isinstance(tensor, Tensor)}
        header = _header({"progress": self.progress, "groups": state["param_groups"]})
        # safetensors stores memory as it lies: a copy makes channels_last and shared tensors plain.
        plain = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}
        write_bytes_atomic(path, save(plain, metadata=header))

    def load(self, path: Path) -> None:
        """Restore the state in place. Raises DataError when it does not fit these modules, or another run saved it."""
        tensors, header = _read(path, "training state")
        self._require_same_settings(path, header.get("progress", {}).get("settings", {}))
        try:
            for name, module in self.modules.items():
                prefix = f"module/{name}/"
                module.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
            slots: dict[int, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                if key.startswith("optimizer/"):
                    _, index, name = key.split("/")
                    slots.setdefault(int(index), {})[name] = tensor
            self.optimizer.load_state_dict({"state": slots, "param_groups": header["groups"]})
            self.progress.update(header["progress"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise DataError(path, f"does not fit this run ({str(error).splitlines()[0]})", "start a new run") from None
        own = {key: tensors[name] for key in ("rng/cpu", "rng/cuda") if (name := _of_rank(key, ranks.rank())) in tensors}
        if "rng/cpu" not in own:
            what = f"has no random state of process {ranks.rank()}"
            raise DataError(path, what, "start a new run with --init")
        torch.set_rng_state(own["rng/cpu"])
        if "rng/cuda" in own and self.device.type == "cuda":
            torch.cuda.set_rng_state(own["rng/cuda"], self.device)

    def _require_same_settings(self, path: Path, saved: dict[str, Any]) -> None:
        """Compare what decides a run. A state of an earlier version says nothing, or less."""
        for key, mine in self.progress.get("settings", {}).items():
            theirs = saved.get(key, mine)
            if theirs != mine:
                raise DataError(
                    path, f"was saved by a run with {key} = {theirs}, not {mine}",
                    "restore it, or config.yaml beside it, or start a new run with --init",
                )  # fmt: skip

    def _random_states(self) -> dict[str, Tensor]:
        states = {"rng/cpu": torch.get_rng_state()}
        return states | ({"rng/cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})


def _of_rank(key: str, rank: int) -> str:
    """Name of a rank's random state in the file; the first rank's is that of a run of one process."""
    return f"{key}/{rank}" if rank else key
