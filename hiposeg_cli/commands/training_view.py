"""What a terminal shows of a training run."""

from __future__ import annotations

import sys
from typing import Any

from hiposeg_cli.commands import console


class TrainingView:
    """Shows training: a bar with loss terms, rate and ETA on a terminal; one line a validation everywhere."""

    def __init__(self, label: str = "train") -> None:
        self.label = label
        self.bar: Any = None
        self.task: Any = None
        self.latest: dict[str, float] = {}

    def __enter__(self) -> TrainingView:
        if sys.stderr.isatty() and not console.is_quiet():
            self.bar = console.bar()
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.latest = values or self.latest
        if self.bar is None:
            return
        if self.task is None:
            self.task = self.bar.add_task(self.label, total=total, completed=step - 1)
        self.bar.update(self.task, completed=step, note=self._terms())

    def _terms(self) -> str:
        about = {"lr": "lr {:.1e}", "seconds": "{:.2f} s/step", "gpu_memory_gib": "{:.1f} GiB"}
        losses = [f"{name} {value:.3f}" for name, value in self.latest.items() if name not in about]
        return " ".join([*losses, *(form.format(self.latest[name]) for name, form in about.items() if name in self.latest)])

    def scored(self, epoch: int, values: dict[str, Any]) -> None:
        named = [
            (name.removeprefix("val_"), value)
            for name, value in values.items()
            if name.startswith("val_") and value is not None
        ]
        scores = " ".join(f"{name} {100 * value:.2f}" for name, value in named)
        parts = (f"{self.label}: epoch {epoch} step {values['step']}", scores, self._terms())
        console.say(" | ".join(part for part in parts if part))
        if values.get("stopped_early"):
            console.say(f"{self.label}: stopped early, no better fine mIoU in {values['stale']} validations")
