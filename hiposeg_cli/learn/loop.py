"""The training loop: one for every method, exact to resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hiposeg_cli.errors import DataError, HiposegError
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.learn import ranks
from hiposeg_cli.learn.augment import Augment
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.checkpoint import RunState, save_weights
from hiposeg_cli.learn.compilation import training_pass
from hiposeg_cli.learn.data import StepSampler, TrainSet, drawn_batches, living_workers, steps_per_epoch, train_loader
from hiposeg_cli.learn.evaluate import evaluate_jointly, segment
from hiposeg_cli.learn.loss_guard import LossGuard, not_finite
from hiposeg_cli.learn.memory import enough_memory, smaller_step
from hiposeg_cli.learn.method import LossTerms, Method, Progress, mean_of
from hiposeg_cli.learn.metrics_log import MetricsLog
from hiposeg_cli.learn.rare_classes import rare_classes
from hiposeg_cli.learn.schedule import OptimConfig, build_optimizer, set_rate
from hiposeg_cli.learn.watcher import Silent, Watcher
from hiposeg_cli.learn.weight_average import WeightAverage
from hiposeg_cli.metrics import none_if_nan, score
from hiposeg_cli.store import Dataset

_STEADIER = "begin again with a lower --lr or --set optim.clip_norm=1"

_MOST_NAMES = 32  # of images with a loss that is not finite


class Interrupted(Exception):
    """Training stopped on a signal; the state is saved.

    Args:
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, signal_number: int, state_path: Path) -> None:
        super().__init__(f"stopped by signal {signal_number}; state saved in {state_path}")
        self.signal_number = signal_number


@dataclass
class Trainer:
    """One training run, or one process of a run of several; see `ranks`.

    Attributes:
        about: written into every weights file (network configuration, input size).
        batch: images that go through the network at once, in each process; `optim.accumulate` of these make a step.
        settings: what decides the run; resuming one with others is refused.
        save_every: steps after which the state is saved at the latest.
        patience: validations without a better fine mIoU after which training stops; 0 never stops it.
        rare_class_sampling: temperature of `rare_classes`; 0 shows every image once an epoch.
        compiled, tensorboard: as `loop.compile` and `loop.tensorboard`.
        stop: returns the signal that asked for an end, or None.
    """

    net: nn.Module
    method: Method
    dataset: Dataset
    augment: Augment
    optim: OptimConfig
    run_dir: Path
    about: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    workers: int = 0
    seed: int = 0
    val_every: int = 1
    save_every: int = 500
    log_every: int = 10
    patience: int = 0
    rare_class_sampling: float = 0.0
    compiled: bool = False
    tensorboard: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    amp: torch.dtype | None = None
    watcher: Watcher = field(default_factory=Silent)
    stop: Callable[[], int | None] = lambda: None

    def __post_init__(self) -> None:
        self.log = MetricsLog(self.run_dir / "metrics.jsonl", self.run_dir / "tensorboard" if self.tensorboard else None)
        if not ranks.is_first():
            self.watcher = Silent()
        self.net.to(self.device)
        self.method.to(self.device)
        ranks.share_norms([self.net, self.method], self.device)
        self.forward, self.warning = training_pass(self.net, self.device, compiled=self.compiled)
        decay = self.optim.weight_average
        self.average = WeightAverage(self.net, decay) if decay > 0 else None
        self.optimizer = build_optimizer(self.net, self.method, self.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == torch.float16)
        self.train_set = TrainSet(self.dataset, "train", self.augment, self.method.needs, self.seed)
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), self.batch * self.optim.accumulate * ranks.n_ranks())
        self.total_steps = self.optim.iterations or self.optim.epochs * self.steps_per_epoch
        self.progress: dict[str, Any] = {
            "step": 0, "best": None, "stale": 0, "due": False, "images": len(self.train_set),
            "data": self.dataset.training_digest, "total_steps": self.total_steps, "processes": ranks.n_ranks(),
            "settings": self.settings | {"hierarchy": self.dataset.hierarchy.digest},
        }  # fmt: skip
        modules = {"net": self.net, "method": self.method} | ({"average": self.average} if self.average is not None else {})
        self.state = RunState(modules, self.optimizer, self.progress, self.device)
        self.state_path = self.run_dir / "state.safetensors"
        self.read_at = (0, time.perf_counter())
        self.resumed_run: Path | None = None
        self.guard = LossGuard(self.device)

    @property
    def scored_net(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.net if self.average is None else self.average.net

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out before the last step."""
        stale, step = int(self.progress["stale"]), int(self.progress["step"])
        return 0 < self.patience <= stale and step < self.total_steps

    @property
    def finished(self) -> bool:
        return self.stopped_early or int(self.progress["step"]) >= self.total_steps

    def resume(self) -> None:
        """Go on from the saved state.

        Raises: DataError when there is none, the run is finished, or it was begun with other settings, images or processes.
        """
        begun = load_hierarchy(self.run_dir / "hierarchy.yaml")
        begun.require_same(self.dataset.hierarchy, mine=self.run_dir, theirs=self.dataset.root)
        data = self.progress["data"]
        self.state.load(self.state_path)
        if self.progress["processes"] != ranks.n_ranks():
            raise DataError(
                self.run_dir, f"was begun by {self.progress['processes']} processes, not {ranks.n_ranks()}",
                f"resume it with {self.progress['processes']}, or start a new run with --init",
            )  # fmt: skip
        if self.progress["data"] != data:
            raise DataError(
                self.dataset.root, "has other training or validation images or labels than the run began with",
                "restore the dataset, or start a new run with --init",
            )  # fmt: skip
        if self.progress["total_steps"] != self.total_steps:
            raise DataError(
                self.run_dir, f"was begun for {self.progress['total_steps']} steps, not {self.total_steps}",
                "restore its config.yaml, or start a new run with --init",
            )  # fmt: skip
        if self.finished and not self.progress["due"]:
            early = ", stopped early" if self.stopped_early else ""
            raise DataError(
                self.run_dir, f"is finished ({self.progress['step']} steps{early})",
                "start a new run, with --init for its weights",
            )  # fmt: skip
        if "scaler" in self.progress:
            self.scaler.load_state_dict(self.progress["scaler"])
        self.resumed_run = self.run_dir
        if ranks.is_first():
            self.log.cut_after(self.progress["step"])

    def run(self) -> dict[str, Any]:
        """Train to the end. Returns the last validation's values.

        Raises: Interrupted, the state being saved, when `stop` asks for it; HiposegError when the loss is not finite.
        """
        if self.progress["step"] == 0:
            torch.manual_seed(self.seed + ranks.rank())
        scores: dict[str, Any] = {}
        if self.progress["due"]:
            scores = self._validate(self.progress["step"])
        self.read_at = (self.progress["step"], time.perf_counter())
        with living_workers(self.workers, self.state_path), closing(drawn_batches(self._loader())) as batches:
            while not self.finished:
                scores = self._advance(self._draw(batches)) or scores
        return scores

    def _draw(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one step. Where they cannot be had, the steps so far are saved and the error is raised."""
        fewer = "pass fewer --workers or a smaller --crop"
        alone = ranks.n_ranks() == 1  # where there are others, an error parts them, and no one has all random states
        try:
            with ranks.agreed(), enough_memory("drawing a batch", fewer):
                return list(islice(batches, self.optim.accumulate))
        except Exception:
            if alone and self.progress["step"]:
                with suppress(HiposegError):
                    self._require_no_fault()
                    self._require_finite(self.progress["step"])
                    self._save_state()
            raise

    def _advance(self, batches: Sequence[Batch]) -> dict[str, Any]:
        """One step with all that follows it. Returns the values of a validation, if there was one."""
        step, accumulate = self.progress["step"], self.optim.accumulate
        where = f"step {step + 1}, a batch of {self.batch}"
        cure = smaller_step(self.batch, accumulate, self.resumed_run, on_gpu=self.device.type == "cuda")
        with ranks.one_speaks(), enough_memory(where, cure):
            terms = self._step(batches, Progress(step, self.total_steps, self.seed))
        self.guard.note(terms.total, step)
        self.progress["step"] = step = step + 1
        signal_number, ends = ranks.any_signal(self.stop()), step == self.total_steps
        scores_now = ends or step % (self.val_every * self.steps_per_epoch) == 0
        logs, saves = ends or step % self.log_every == 0, step % self.save_every == 0
        values: dict[str, float] = {}
        # Reading a value waits for a GPU; but nothing is saved before the loss behind it was seen to be finite.
        if logs or scores_now or saves or signal_number is not None or self.device.type == "cpu":
            values = self._read(terms, step - 1)
        self.watcher.step(step, self.total_steps, values)
        if logs:
            self._write({"step": step, "epoch": step / self.steps_per_epoch, **values})
        if scores_now or saves or signal_number is not None:
            self._require_finite(step)
        self.progress["due"] = scores_now
        if scores_now or saves or signal_number is not None:
            self._save_state()
        if signal_number is not None:
            raise Interrupted(signal_number, self.state_path)
        return self._validate(step) if scores_now else {}

    def _loader(self) -> DataLoader[Any]:
        sampler = self._sampler(self.progress["step"], self.total_steps, ranks.rank())
        return train_loader(self.train_set, sampler, self.workers, pin_memory=self.device.type == "cuda")

    def _sampler(self, first: int, end: int, rank: int) -> StepSampler:
        """What a process draws in some steps."""
        temperature = self.rare_class_sampling
        rare = rare_classes(self.train_set.rows, self.method.needs, temperature) if temperature > 0 else None
        return StepSampler(
            len(self.train_set), self.batch, self.seed, first, end, self.optim.accumulate, rare, rank, ranks.n_ranks(),
        )  # fmt: skip

    def _step(self, batches: Sequence[Batch], progress: Progress) -> LossTerms:
        """One update, from the mean of the batches' losses. Returns the means of all terms.

        The method's `after_step` follows every batch, not only the update: what a method keeps of a batch, such as its
        prototypes for a bank, is replaced by the next batch and would be lost.
        """
        self.net.train()
        self.method.train()
        set_rate(self.optimizer, self.optim.rate(progress.step, progress.total_steps))
        self.optimizer.zero_grad(set_to_none=True)
        terms = []
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            terms.append(self._gradients(batch.to(self.device), progress, last=last))
            if last:
                self._update()
            self.method.after_step()
        ranks.average_norms([self.net, self.method])
        if self.average is not None:
            self.average.update(self.net, progress.step)
        return mean_of(terms)

    @cached_property
    def _shared(self) -> ranks.SharedStep:
        """`_losses` with gradients averaged over the processes of a run; made when all have come to the first step."""
        return ranks.SharedStep(self._losses, [self.net, self.method])

    def _losses(self, batch: Batch, progress: Progress) -> LossTerms:
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            output = self.forward(batch.image)
        return self.method.losses(batch, output, progress)

    def _gradients(self, batch: Batch, progress: Progress, *, last: bool) -> LossTerms:
        """Add the gradients of one batch; its terms, detached.

        Args:
            last: whether the weights move next.
        """
        terms = self._shared(batch, progress, last=last)
        self.scaler.scale(terms.total / self.optim.accumulate).backward()
        return LossTerms(terms.total.detach(), terms.parts)

    def _update(self) -> None:
        """Move the weights by the gradients."""
        if self.optim.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_([*self.net.parameters(), *self.method.parameters()], self.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @property
    def _steadier(self) -> str:
        """What to do about a loss that is not finite."""
        return ("the last saved state is kept; " if self.state_path.is_file() else "") + _STEADIER

    def _require_no_fault(self) -> None:
        """Name the step and the images of the first loss that was not finite. Raises HiposegError."""
        with ranks.agreed():
            if (fault := self.guard.fault()) is not None:
                step, loss = fault
                # Losses of prototypes are joint, so the cause may be among the images of any process.
                samplers = [self._sampler(step, step + 1, rank) for rank in range(ranks.n_ranks())]
                keys = [self.train_set.rows[index].key for drawn in samplers for batch in drawn for _round, index in batch]
                named = ", ".join(keys[:_MOST_NAMES]) + (", ..." if len(keys) > _MOST_NAMES else "")
                what = f"the loss is {loss} (images {named})"
                raise HiposegError(f"step {step + 1}", what, f"{self._steadier}, or look at these images")

    def _read(self, terms: LossTerms, step: int) -> dict[str, float]:
        """The values of a step; `seconds` is the mean of the steps since the last reading, waiting for data included.

        Raises: HiposegError when a loss was not finite.
        """
        self._require_no_fault()
        joint = ranks.averaged(terms)
        values = {"loss": _number(joint.total), **{name: _number(part) for name, part in joint.parts.items()}}
        values |= {"lr": self.optim.rate(step, self.total_steps)}
        now, (last_step, last_time) = time.perf_counter(), self.read_at
        values["seconds"], self.read_at = (now - last_time) / (step + 1 - last_step), (step + 1, now)
        if self.device.type == "cuda":
            values["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return values

    def _require_finite(self, step: int) -> None:
        """Refuse to save what no run could go on from."""
        with ranks.agreed():
            if (name := not_finite(self.state.modules)) is not None:
                raise HiposegError(f"step {step}", f"the {name} has values that are not finite", self._steadier)

    def _validate(self, step: int) -> dict[str, Any]:
        """Score the validation split, keep the best weights, save the state.

        Scoring may fail on a photo, so the state was saved before it, as one whose validation is due; so are the weights.
        """
        self._save_weights("last", step, None)
        values: dict[str, Any] = {"step": step, "epoch": step / self.steps_per_epoch, **self._scores(self.scored_net.eval())}
        self.progress["due"] = False
        fine, best = values.get(f"val_{self.dataset.hierarchy.fine.name}_miou"), self.progress["best"]
        better = fine is None or best is None or fine > best
        self.progress["stale"] = 0 if better else self.progress["stale"] + 1
        if better:
            self.progress["best"] = fine
        for which in ("last", "best") if better else ("last",):
            self._save_weights(which, step, fine)
        if self.patience:
            values |= {"stale": self.progress["stale"], "stopped_early": self.stopped_early}
        self._write(values)
        self._save_state()
        self.watcher.scored(round(step / self.steps_per_epoch), values)
        self.read_at = (step, time.perf_counter())
        return values

    def _scores(self, net: nn.Module) -> dict[str, float | None]:
        """mIoU of every level on the validation split; nothing where there is none."""
        if not self.dataset.rows.get("val"):
            return {}
        size, alone = self.augment.options.size, ranks.n_ranks() == 1

        def predict(image: Any) -> Any:
            if alone and (number := self.stop()) is not None:
                raise Interrupted(number, self.state_path)
            return segment(net, image, size=size, device=self.device, amp=self.amp)

        confusion = evaluate_jointly(self.dataset, self.dataset.split("val"), predict)
        return {
            f"val_{level.name}_miou": none_if_nan(score(confusion.matrix(depth), level).miou)
            for depth, level in enumerate(self.dataset.hierarchy.levels)
        }

    def _save_weights(self, which: str, step: int, fine: float | None) -> None:
        about = {**self.about, "step": step, "val_fine_miou": fine}
        path = self.run_dir / "weights" / f"{which}.safetensors"
        with ranks.agreed():
            if ranks.is_first():
                save_weights(path, self.scored_net, self.dataset.hierarchy, about)

    def _save_state(self) -> None:
        self.progress["scaler"] = self.scaler.state_dict()
        with ranks.agreed():
            self.state.save(self.state_path)

    def _write(self, values: dict[str, Any]) -> None:
        with ranks.agreed():
            if ranks.is_first():
                self.log.write(values)


def _number(tensor: Tensor) -> float:
    return float(tensor.detach())
