"""`hiposeg train DATA`: train a network on a prepared dataset."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiposeg_cli.commands import console
from hiposeg_cli.commands.training_view import TrainingView

if TYPE_CHECKING:
    from hiposeg_cli.config import Layer
    from hiposeg_cli.learn.loop import Trainer
    from hiposeg_cli.run_config import RunConfig

_FREE = {"data.workers", "loop.device"}  # what a resumed run may change: neither decides its result


def train(
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Prepared dataset.")] = None,
    also: Annotated[
        list[Path] | None, typer.Option(metavar="DATA", help="Train on this dataset too, of the same tree; repeatable.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="hiposeg (default), flat or hssn.")] = None,
    preset: Annotated[str | None, typer.Option(help="Named options of the method: paper.")] = None,
    net: Annotated[
        str | None, typer.Option(help="Decoder: deeplabv3plus (default), fpn, unet, upernet, segformer, ...")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Any timm backbone.")] = None,
    weights: Annotated[str | None, typer.Option(help="Backbone weights: auto, none, hub or a file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps; replaces --epochs.")] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Images at once, in each process; auto: what fits into memory.")
    ] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches a step, their gradients added.")] = None,
    crop: Annotated[str | None, typer.Option(help="Training crop, HxW or one side, in px.")] = None,
    size: Annotated[int | None, typer.Option(help="Bring images to this long side first, in px.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    schedule: Annotated[str | None, typer.Option(help="poly, cosine or constant.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes, of each process.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps, or several GPUs: 0,1.")] = None,
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
    """Train a network; validates on both levels and keeps the best and last weights.

    On several GPUs with --device 0,1, and on several machines under torchrun or Slurm's srun.
    """
    flags = {
        "method.name": method, "net.architecture": net, "net.backbone": backbone, "net.weights": weights,
        "optim.epochs": epochs, "optim.iterations": iterations, "data.crop": crop, "data.size": size,
        "optim.lr": lr, "optim.optimizer": optimizer, "optim.schedule": schedule, "data.workers": workers,
        "loop.device": device, "loop.amp": amp, "loop.seed": seed, "loop.deterministic": deterministic,
        "loop.val_every": val_every, "loop.patience": patience, "optim.accumulate": accumulate,
        "data.batch": int(batch) if batch and batch.isdecimal() else batch,
        "optim.weight_average": ema, "data.path": str(data.resolve()) if data else None,
        "data.also": [str(path.resolve()) for path in also] if also else None,
    }  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    request = _Request(
        given, assign or [], config or [], preset, out, resume, init, overwrite=overwrite, show_config=show_config,
        as_json=as_json,
    )  # fmt: skip
    with _as_ranks():
        exit_code = _train(request)
    if exit_code:
        raise typer.Exit(exit_code)


@dataclass(frozen=True)
class _Request:
    """What was typed."""

    given: dict[str, Any]
    assign: list[str]
    config: list[Path]
    preset: str | None
    out: Path | None
    resume: Path | None
    init: Path | None
    overwrite: bool
    show_config: bool
    as_json: bool


@dataclass(frozen=True)
class _Job:
    """What is trained, and where it is written; the same in every process of a run."""

    config: RunConfig
    run_dir: Path


@contextlib.contextmanager
def _as_ranks() -> Iterator[None]:
    """Join the processes of one launch, of which the first speaks; one that ends because of another ends silently."""
    from hiposeg_cli.learn.launch import launch_of

    if launch_of(os.environ) is not None:  # every process would warn that looking for unused parameters found none
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported
    from hiposeg_cli.learn import ranks

    try:
        with ranks.joined():
            if not ranks.is_first():
                console.set_quiet(True)
            yield
    except ranks.EndedElsewhere as ended:
        raise typer.Exit(ended.exit_code) from None


def _train(request: _Request) -> int:
    """Train, or show the settings. Returns the exit code."""
    from hiposeg_cli.errors import HiposegError
    from hiposeg_cli.learn.ranks import decided_by_first

    job = decided_by_first(lambda: _decide(request))
    if not isinstance(job, _Job):
        return job
    try:
        if job.config.data.batch == "auto" and request.resume is None:
            job = _with_batch(job, request)
        return _run_training(job, request)
    except HiposegError:
        if request.out is None and request.resume is None:
            with contextlib.suppress(OSError):
                job.run_dir.rmdir()  # succeeds only when nothing was written to it
        raise


def _decide(request: _Request) -> _Job | int:
    """The settings and the folder of a run, or the exit code where everything is done by now."""
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.run_config import load_run_config

    if request.resume is not None:
        others = (request.assign, request.config, request.preset, request.init, request.out)
        if any(others) or request.given.keys() - _FREE or request.overwrite or request.show_config:
            cure = "drop the options other than --workers and --device"
            raise ConfigError("--resume", "continues a run exactly as it was begun", cure)
        saved = load_run_config(request.resume, _layers(request.given))
        exit_code = _on_several_gpus(saved)
        return _Job(saved, request.resume) if exit_code is None else exit_code
    if request.init is not None and "net.weights" in request.given:
        raise ConfigError("--init", "already gives every weight", "drop --weights")
    config, exit_code = _resolve(request)
    if exit_code is not None:
        return exit_code
    if request.show_config:
        _show_config(config, as_json=request.as_json)
        return 0
    if not config.data.path:
        raise ConfigError("DATA", "is missing", "name a prepared dataset, or a run with --resume")
    return _Job(config, _claim(request.out, Path(config.data.path), config.method, overwrite=request.overwrite))


def _on_several_gpus(config: RunConfig) -> int | None:
    """Run this command again as one process a GPU, where several are named. Returns their exit code."""
    from hiposeg_cli.learn import ranks
    from hiposeg_cli.learn.device import gpu_list

    gpus = gpu_list(config.loop.device) if ranks.n_ranks() == 1 else []
    return ranks.launch(len(gpus), sys.argv[1:]) if len(gpus) > 1 else None


def _show_config(run_config: RunConfig, *, as_json: bool) -> None:
    if as_json:
        settings = {key: {"value": value, "from": run_config.origins[key]} for key, value in run_config.values.items()}
        console.out(console.envelope("train", settings))
        return
    for key, value in run_config.values.items():
        console.out(f"{key} = {value}  ({run_config.origins[key]})")


def _with_batch(job: _Job, request: _Request) -> _Job:
    """The same with a number for `--batch auto`, to which the rest of the plan is fitted."""
    from hiposeg_cli.learn.ranks import decided_by_first
    from hiposeg_cli.run import find_batch

    found = find_batch(job.config)
    console.say(f"data.batch = {found.images} ({found.reason})")
    return decided_by_first(lambda: replace(job, config=_resolve(request, found.images)[0]))


def _resolve(request: _Request, batch: int | None = None) -> tuple[RunConfig, int | None]:
    """The settings of a run; those that nobody chose are planned for the dataset, and the plan is shown.

    Args:
        batch: what was found for `--batch auto`; as long as it is to be found, the plan is not shown.
    Returns: the settings, and the exit code where they named several GPUs and the run is over.
    """
    from hiposeg_cli.config import Layer, parse_assignment
    from hiposeg_cli.run import plan_run
    from hiposeg_cli.run_config import resolve_config

    chosen = [*(parse_assignment(text) for text in request.assign), *_layers(request.given)]
    if batch is not None:
        chosen.append(Layer("--batch auto", {"data.batch": batch}))
    config = resolve_config(chosen, request.config, preset=request.preset)
    if not config.data.path:
        return config, None
    exit_code = None if request.show_config else _on_several_gpus(config)
    if exit_code is not None:
        return config, exit_code
    planned = plan_run(config)
    for line in planned.lines() if config.data.batch != "auto" else ():
        console.say(line)
    return resolve_config(chosen, request.config, planned.layer(), request.preset), None


def _layers(given: dict[str, Any]) -> list[Layer]:
    """Settings from flags, each under its flag's name."""
    from hiposeg_cli.config import Layer

    names = {
        "net.architecture": "--net", "method.name": "--method", "data.path": "DATA", "optim.weight_average": "--ema",
    }  # fmt: skip
    return [Layer(names.get(key, "--" + key.split(".")[1].replace("_", "-")), {key: value}) for key, value in given.items()]


def _claim(out: Path | None, data: Path, method: str, *, overwrite: bool) -> Path:
    """The run's folder: a new one, or an old run's that may be replaced. Nothing is removed here."""
    from hiposeg_cli.errors import DataError
    from hiposeg_cli.run import new_run_dir
    from hiposeg_cli.runs import is_run

    if out is None:
        return new_run_dir(Path("runs/train"), f"{data.resolve().name}-{method}")
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file", "name a folder with --out")
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        if not is_run(out):
            raise DataError(out, "is not empty and holds no run", "choose another --out")
        if not overwrite:
            raise DataError(out, "already holds a run", "pass --resume RUN to continue it, --overwrite, or another --out")
    return out


def _run_training(job: _Job, request: _Request) -> int:
    """Train or resume; signals save the state. Returns the exit code."""
    from hiposeg_cli import locks
    from hiposeg_cli.learn import ranks
    from hiposeg_cli.learn.loop import Interrupted
    from hiposeg_cli.learn.memory import NO_ROOM, enough_memory
    from hiposeg_cli.run import make_trainer, write_run_files

    config, run_dir, resuming = job.config, job.run_dir, request.resume is not None
    with _Signals(several=ranks.n_ranks() > 1) as signals, TrainingView() as view, contextlib.ExitStack() as until_end:
        with ranks.agreed(), enough_memory("the network", NO_ROOM):
            trainer, built = make_trainer(
                config, run_dir, init=request.init, resuming=resuming, watcher=view, stop=signals.received
            )
            for text in built.warnings if ranks.is_first() else ():
                console.warn(text)
            if ranks.is_first():
                gone = f"if it is gone, remove {run_dir / locks.LOCK}"
                cure = f"wait for it; {gone}" if resuming else f"wait for it, or choose another --out; {gone}"
                until_end.enter_context(locks.held(run_dir, cure))
            if resuming:
                trainer.resume()
            elif ranks.is_first():
                write_run_files(run_dir, config, trainer.dataset.hierarchy)
        weights_from = "from the saved state" if resuming else built.weights_from
        processes = f"{ranks.n_ranks()} processes of " if ranks.n_ranks() > 1 else ""
        console.say(
            f"{config.method} on {trainer.dataset.root.name}: {len(trainer.train_set)} images, "
            f"{trainer.total_steps} steps, {processes}{trainer.device.type if processes else trainer.device}, "
            f"backbone weights: {weights_from}"
        )
        try:
            trainer.run()
        except Interrupted as stopped:
            again = " (with as many processes)" if processes else ""
            console.say(f"{stopped}; continue with: hiposeg train --resume {run_dir}{again}")
            if request.as_json and ranks.is_first():
                found = {"run": str(run_dir), "step": trainer.progress["step"], "stopped_by": stopped.signal_number}
                console.out(console.envelope("train", found, status="problems", warnings=built.warnings))
            return 128 + stopped.signal_number
        with ranks.agreed():
            if ranks.is_first():
                _report(trainer, built.warnings, as_json=request.as_json)
    return 0


def _report(trainer: Trainer, warnings: list[str], *, as_json: bool) -> None:
    """Write results.csv and say where the run is."""
    rows = [values for values in trainer.log.read() if "loss" not in values]
    _write_results(trainer.run_dir / "results.csv", rows)
    found = {"run": str(trainer.run_dir), **rows[-1], "best_val_fine_miou": trainer.progress["best"]}
    console.out(console.envelope("train", found, warnings=warnings) if as_json else str(trainer.run_dir))


def _write_results(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line a validation, for spreadsheets."""
    import csv
    import io

    from hiposeg_cli.labelmap import write_bytes_atomic

    table = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))  # a resumed run may have another patience
    writer = csv.DictWriter(table, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes_atomic(path, table.getvalue().encode())


class _Signals:
    """Remembers SIGINT and SIGTERM while training; a second Ctrl-C acts at once, a second SIGTERM may be a scheduler's echo.

    Args:
        several: whether this is one process of several, to which a launcher and a terminal may both pass Ctrl-C on.
    """

    def __init__(self, *, several: bool = False) -> None:
        self.several = several
        self.number: int | None = None

    def received(self) -> int | None:
        return self.number

    def __enter__(self) -> _Signals:
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number is not None, self.number or number
        if not again:
            with contextlib.suppress(RuntimeError):  # raised where the step itself is writing to stderr
                console.say("stopping after this step" + ("" if self.several else " (Ctrl-C once more to stop at once)"))
        elif number == signal.SIGINT and not self.several:
            raise KeyboardInterrupt

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
