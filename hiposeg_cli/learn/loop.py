"""The training loop: one for every method, exact to resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hiposeg_cli.errors import DataError, HiposegError, OutputError
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.learn.augment import Augment
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.checkpoint import RunState, save_weights
from hiposeg_cli.learn.data import StepSampler, TrainSet, drawn_batches, living_workers, steps_per_epoch, train_loader
from hiposeg_cli.learn.evaluate import enough_memory, evaluate, segment
from hiposeg_cli.learn.method import LossTerms, Method, Progress
from hiposeg_cli.learn.schedule import OptimConfig, build_optimizer, set_rate
from hiposeg_cli.metrics import none_if_nan, score
from hiposeg_cli.store import Dataset


class Interrupted(Exception):
    """Training stopped on a signal; the state is saved.

    Args:
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, signal_number: int, state_path: Path) -> None:
        super().__init__(f"stopped by signal {signal_number}; state saved in {state_path}")
        self.signal_number = signal_number


class Watcher(Protocol):
    """Whoever shows progress."""

    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...

    def scored(self, epoch: int, values: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Silent:
    """A watcher that shows nothing."""

    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...

    def scored(self, epoch: int, values: dict[str, Any]) -> None: ...


@dataclass
class Trainer:
    """One training run.

    Attributes:
        about: written into every weights file (network configuration, input size).
        stop: returns the signal that asked for an end, or None.
    """

    net: nn.Module
    method: Method
    dataset: Dataset
    augment: Augment
    optim: OptimConfig
    run_dir: Path
    about: dict[str, Any]
    batch: int = 8
    workers: int = 0
    seed: int = 0
    val_every: int = 1
    log_every: int = 10
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    amp: torch.dtype | None = None
    watcher: Watcher = field(default_factory=Silent)
    stop: Callable[[], int | None] = lambda: None

    def __post_init__(self) -> None:
        self.net.to(self.device)
        self.method.to(self.device)
        self.optimizer = build_optimizer(self.net, self.method, self.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == torch.float16)
        self.train_set = TrainSet(self.dataset, "train", self.augment, self.method.needs, self.seed)
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), self.batch)
        self.total_steps = self.optim.iterations or self.optim.epochs * self.steps_per_epoch
        self.progress: dict[str, Any] = {
            "step": 0, "best": None, "images": len(self.train_set), "total_steps": self.total_steps,
        }  # fmt: skip
        self.state = RunState({"net": self.net, "method": self.method}, self.optimizer, self.progress, self.device)
        self.state_path = self.run_dir / "state.safetensors"
        self.log = MetricsLog(self.run_dir / "metrics.jsonl")

    def resume(self) -> None:
        """Go on from the saved state. Raises DataError when there is none or the run is finished."""
        begun = load_hierarchy(self.run_dir / "hierarchy.yaml")
        begun.require_same(self.dataset.hierarchy, mine=self.run_dir, theirs=self.dataset.root)
        self.state.load(self.state_path)
        if (self.progress["images"], self.progress["total_steps"]) != (len(self.train_set), self.total_steps):
            raise DataError(
                self.dataset.root, f"has {len(self.train_set)} training images, not the run's {self.progress['images']}",
                "restore the dataset, or start a new run with --init",
            )  # fmt: skip
        if self.progress["step"] >= self.total_steps:
            raise DataError(
                self.run_dir, f"is finished ({self.total_steps} steps)", "start a new run, with --init for its weights"
            )
        if "scaler" in self.progress:
            self.scaler.load_state_dict(self.progress["scaler"])
        self.log.cut_after(self.progress["step"])

    def run(self) -> dict[str, Any]:
        """Train to the end. Returns the last validation's values.

        Raises: Interrupted after saving the state when `stop` asks for it; HiposegError when the loss is not finite.
        """
        if self.progress["step"] == 0:
            torch.manual_seed(self.seed)
        scores: dict[str, Any] = {}
        with living_workers(self.workers), closing(drawn_batches(self._loader())) as batches:
            for batch in batches:
                scores = self._advance(batch.to(self.device)) or scores
        return scores

    def _advance(self, batch: Batch) -> dict[str, Any]:
        """One step with all that follows it. Returns the values of a validation, if there was one."""
        step, started = self.progress["step"], time.perf_counter()
        with enough_memory(f"a batch of {self.batch}", f"pass --batch {max(2, self.batch // 2)}, or a smaller --crop"):
            terms = self._step(batch, Progress(step, self.total_steps, self.seed))
        self.progress["step"] = step = step + 1
        signal_number, ends = self.stop(), step == self.total_steps
        scores_now = ends or step % (self.val_every * self.steps_per_epoch) == 0
        logs = ends or step % self.log_every == 0
        values: dict[str, float] = {}
        # Reading a value waits for a GPU; but nothing is saved before the loss behind it was seen to be finite.
        if logs or scores_now or signal_number is not None or self.device.type == "cpu":
            values = self._read(terms, batch, step - 1) | {"seconds": time.perf_counter() - started}
        self.watcher.step(step, self.total_steps, values)
        if logs:
            self.log.write({"step": step, "epoch": step / self.steps_per_epoch, **values})
        scores = self._validate(step) if scores_now else {}
        if signal_number is not None and not ends:
            self._save_state()
            raise Interrupted(signal_number, self.state_path)
        return scores

    def _loader(self) -> DataLoader[Any]:
        sampler = StepSampler(len(self.train_set), self.batch, self.seed, self.progress["step"], self.total_steps)
        return train_loader(self.train_set, sampler, self.workers, pin_memory=self.device.type == "cuda")

    def _step(self, batch: Batch, progress: Progress) -> LossTerms:
        """One update."""
        self.net.train()
        self.method.train()
        set_rate(self.optimizer, self.optim.rate(progress.step, progress.total_steps))
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            output = self.net(batch.image)
        terms = self.method.losses(batch, output, progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms.total).backward()
        if self.optim.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_([*self.net.parameters(), *self.method.parameters()], self.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step()
        return terms

    def _read(self, terms: LossTerms, batch: Batch, step: int) -> dict[str, float]:
        """The values of a step. Raises HiposegError when the loss is not finite."""
        values = {"loss": _number(terms.total), **{name: _number(part) for name, part in terms.parts.items()}}
        if not math.isfinite(values["loss"]):
            raise HiposegError(
                f"step {step}", f"the loss is {values['loss']} (images {', '.join(batch.keys[:8])})",
                "lower --lr, add --set optim.clip_norm=1, or look at these images",
            )  # fmt: skip
        return values | {"lr": self.optim.rate(step, self.total_steps)}

    def _validate(self, step: int) -> dict[str, Any]:
        """Score the validation split, keep the best weights, save the state."""
        epoch = round(step / self.steps_per_epoch)
        values: dict[str, Any] = {"step": step, "epoch": step / self.steps_per_epoch}
        if self.dataset.rows.get("val"):
            self.net.eval()
            size = self.augment.options.size

            def predict(image: Any) -> Any:
                return segment(self.net, image, size=size, device=self.device, amp=self.amp)

            confusion = evaluate(self.dataset, self.dataset.split("val"), predict)
            for depth, level in enumerate(self.dataset.hierarchy.levels):
                values[f"val_{level.name}_miou"] = none_if_nan(score(confusion.matrix(depth), level).miou)
        fine = values.get(f"val_{self.dataset.hierarchy.fine.name}_miou")
        about = {**self.about, "step": step, "val_fine_miou": fine}
        save_weights(self.run_dir / "weights" / "last.safetensors", self.net, self.dataset.hierarchy, about)
        best = self.progress["best"]
        if fine is None or best is None or fine > best:
            self.progress["best"] = fine
            save_weights(self.run_dir / "weights" / "best.safetensors", self.net, self.dataset.hierarchy, about)
        self.log.write(values)
        self._save_state()
        self.watcher.scored(epoch, values)
        return values

    def _save_state(self) -> None:
        self.progress["scaler"] = self.scaler.state_dict()
        self.state.save(self.state_path)


def _number(tensor: Tensor) -> float:
    return float(tensor.detach())


class MetricsLog:
    """metrics.jsonl: one JSON object a line, in the order of steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, values: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise OutputError(self.path, f"cannot be written ({error.strerror})", "free disk space and --resume") from None

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; one that a killed run was writing is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def cut_after(self, step: int) -> None:
        """Drop what a run killed without warning had logged beyond its saved state."""
        kept = [values for values in self.read() if values["step"] <= step]
        write_bytes_atomic(self.path, "".join(json.dumps(values) + "\n" for values in kept).encode())
