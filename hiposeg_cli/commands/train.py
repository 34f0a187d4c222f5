"""`hiposeg train DATA`: train a network on a prepared dataset."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiposeg_cli.commands import console

if TYPE_CHECKING:
    from hiposeg_cli.config import Layer
    from hiposeg_cli.run import RunConfig


def train(
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Prepared dataset.")] = None,
    method: Annotated[str | None, typer.Option(help="hiposeg (default), flat or hssn.")] = None,
    net: Annotated[
        str | None, typer.Option(help="Decoder: deeplabv3plus (default), fpn, unet, upernet, segformer, ...")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Any timm backbone.")] = None,
    weights: Annotated[str | None, typer.Option(help="Backbone weights: auto, none, hub or a file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps; replaces --epochs.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images at once.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches a step, their gradients added.")] = None,
    crop: Annotated[str | None, typer.Option(help="Training crop, HxW or one side, in px.")] = None,
    size: Annotated[int | None, typer.Option(help="Bring images to this long side first, in px.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    schedule: Annotated[str | None, typer.Option(help="poly, cosine or constant.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, off, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="Deterministic kernels where torch has them.")
    ] = None,
    val_every: Annotated[int | None, typer.Option(help="Validate every so many epochs.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many validations without a better score.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of a moving average of the weights, saved instead.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, exactly; default runs/train/NAME-N.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in --out.")] = False,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run exactly.")] = None,
    init: Annotated[Path | None, typer.Option(metavar="RUN", help="Start from a run's weights.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="YAML settings; may repeat, later wins.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as method.tau_fine=0.03.")
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print every setting and its origin, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train a network; validates on both levels and keeps the best and last weights."""
    from hiposeg_cli.errors import ConfigError, HiposegError

    flags = {
        "method.name": method, "net.architecture": net, "net.backbone": backbone, "net.weights": weights,
        "optim.epochs": epochs, "optim.iterations": iterations, "data.batch": batch, "data.crop": crop, "data.size": size,
        "optim.lr": lr, "optim.optimizer": optimizer, "optim.schedule": schedule, "data.workers": workers,
        "loop.device": device, "loop.amp": amp, "loop.seed": seed, "loop.deterministic": deterministic,
        "loop.val_every": val_every, "loop.patience": patience, "optim.accumulate": accumulate,
        "optim.weight_average": ema, "data.path": str(data.resolve()) if data else None,
    }  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    if resume is not None:
        if given or assign or config or init or out or overwrite or show_config:
            raise ConfigError("--resume", "continues a run exactly as it was begun", "drop the other options")
        _run_training(None, resume, init=None, as_json=as_json)
        return
    if init is not None and weights is not None:
        raise ConfigError("--init", "already gives every weight", "drop --weights")
    run_config = _resolve(given, assign or [], config or [])
    if show_config:
        _show_config(run_config, as_json=as_json)
        return
    if not run_config.data.path:
        raise ConfigError("DATA", "is missing", "name a prepared dataset, or a run with --resume")
    run_dir = _claim(out, Path(run_config.data.path), run_config.method, overwrite=overwrite)
    try:
        _run_training(run_config, run_dir, init=init, as_json=as_json)
    except HiposegError:
        if out is None:
            with contextlib.suppress(OSError):
                run_dir.rmdir()  # succeeds only when nothing was written to it
        raise


def _show_config(run_config: RunConfig, *, as_json: bool) -> None:
    if as_json:
        settings = {key: {"value": value, "from": run_config.origins[key]} for key, value in run_config.values.items()}
        console.out(console.envelope("train", settings))
        return
    for key, value in run_config.values.items():
        console.out(f"{key} = {value}  ({run_config.origins[key]})")


def _resolve(given: dict[str, Any], assign: list[str], files: list[Path]) -> RunConfig:
    """The settings of a run; those that nobody chose are planned for the dataset, and the plan is shown."""
    from hiposeg_cli.config import Layer, parse_assignment
    from hiposeg_cli.run import plan_run, resolve_config

    names = {
        "net.architecture": "--net", "method.name": "--method", "data.path": "DATA", "optim.weight_average": "--ema",
    }  # fmt: skip
    layers: list[Layer] = [
        Layer(names.get(key, "--" + key.split(".")[1].replace("_", "-")), {key: value}) for key, value in given.items()
    ]
    chosen = [*(parse_assignment(text) for text in assign), *layers]
    config = resolve_config(chosen, files)
    if not config.data.path:
        return config
    planned = plan_run(config)
    for line in planned.lines():
        console.say(line)
    return resolve_config(chosen, files, planned.layer())


def _claim(out: Path | None, data: Path, method: str, *, overwrite: bool) -> Path:
    """The run's folder: a new one, or an old run's that may be replaced. Nothing is removed here."""
    from hiposeg_cli.errors import DataError
    from hiposeg_cli.run import is_run, new_run_dir

    if out is None:
        return new_run_dir(Path("runs/train"), f"{data.resolve().name}-{method}")
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file", "name a folder with --out")
    if out.is_dir() and any(out.iterdir()):
        if not is_run(out):
            raise DataError(out, "is not empty and holds no run", "choose another --out")
        if not overwrite:
            raise DataError(out, "already holds a run", "pass --resume RUN to continue it, --overwrite, or another --out")
    return out


def _run_training(config: RunConfig | None, run_dir: Path, *, init: Path | None, as_json: bool) -> None:
    """Train or, without a configuration, resume; signals save the state."""
    from hiposeg_cli.learn.loop import Interrupted
    from hiposeg_cli.run import load_run_config, make_trainer, write_run_files

    resuming = config is None
    run_config = load_run_config(run_dir) if config is None else config
    with _Signals() as signals, TrainingView() as view:
        trainer, built = make_trainer(run_config, run_dir, init=init, resuming=resuming, watcher=view, stop=signals.received)
        for text in built.warnings:
            console.warn(text)
        if resuming:
            trainer.resume()
        else:
            write_run_files(run_dir, run_config, trainer.dataset.hierarchy)
        weights_from = "from the saved state" if resuming else built.weights_from
        console.say(
            f"{run_config.method} on {trainer.dataset.root.name}: {len(trainer.train_set)} images, "
            f"{trainer.total_steps} steps, {trainer.device}, backbone weights: {weights_from}"
        )
        try:
            trainer.run()
        except Interrupted as stopped:
            console.say(f"{stopped}; continue with: hiposeg train --resume {run_dir}")
            raise typer.Exit(128 + stopped.signal_number) from None
    rows = [values for values in trainer.log.read() if "loss" not in values]
    _write_results(run_dir / "results.csv", rows)
    if as_json:
        console.out(
            console.envelope("train", {"run": str(run_dir), **rows[-1], "best_val_fine_miou": trainer.progress["best"]})
        )
    else:
        console.out(str(run_dir))


def _write_results(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line a validation, for spreadsheets."""
    import csv
    import io

    from hiposeg_cli.labelmap import write_bytes_atomic

    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes_atomic(path, table.getvalue().encode())


class _Signals:
    """Remembers SIGINT and SIGTERM while training; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def received(self) -> int | None:
        return self.number

    def __enter__(self) -> _Signals:
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        console.say("stopping after this step (once more to stop at once)")

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


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
        console.say(f"{self.label}: epoch {epoch} step {values['step']} | {scores} | {self._terms()}")
        if values.get("stopped_early"):
            console.say(f"{self.label}: stopped early, no better fine mIoU in {values['stale']} validations")
