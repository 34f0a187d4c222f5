"""What a run writes down while it trains: metrics.jsonl always, TensorBoard's events where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import ConfigError, OutputError
from hiposeg_cli.labelmap import write_bytes_atomic


class MetricsLog:
    """metrics.jsonl: one JSON object a line, in the order of steps.

    Args:
        events_dir: folder for the same numbers as TensorBoard events; None writes none.
    """

    def __init__(self, path: Path, events_dir: Path | None = None) -> None:
        self.path = path
        self.events = TensorBoardEvents(events_dir) if events_dir is not None else None

    def write(self, values: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise OutputError(self.path, f"cannot be written ({error.strerror})", "free disk space and --resume") from None
        if self.events is not None:
            self.events.write(values)

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


class TensorBoardEvents:
    """Every number of the log as a scalar, by step. Raises ConfigError where tensorboard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "loop.tensorboard", "needs the package tensorboard", "pip install 'hiposeg-cli[tensorboard]'"
            ) from None
        self.folder, self.writer_class = folder, SummaryWriter
        self.writer: Any = None

    def write(self, values: dict[str, Any]) -> None:
        """Values that are no numbers, and scores that are None, are left out."""
        step = values["step"]
        if self.writer is None:  # a viewer hides what an earlier, killed process wrote from this step on
            self.writer = self.writer_class(str(self.folder), purge_step=step)
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, step)
        self.writer.flush()
