"""`hiposeg doctor`: is this installation sound, and is this dataset?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console

_SHOWN = 20  # findings of one check and level on the terminal; --json has more
_WORDS = {"error": "ERROR", "warning": "warning", "note": "note"}


def doctor(
    data: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="Dataset to check.")] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="DATA holds raw annotations of this format.")
    ] = None,
    hierarchy: Annotated[str | None, typer.Option(help="Raw data: taxonomy, a shipped name or a YAML file.")] = None,
    variant: Annotated[str | None, typer.Option(help="Raw data: which release or encoding of the format.")] = None,
    images: Annotated[Path | None, typer.Option(help="Raw data: folder of the photos, where it is not found.")] = None,
    label_suffix: Annotated[str | None, typer.Option(help="Raw data: what follows the stem in a label's name.")] = None,
    instances: Annotated[bool, typer.Option("--instances", help="Raw data: read the instance maps, too.")] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Raw data: pictures of more pixels are errors (100 MP).")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Prepared data: read no whole files, trust their hashes.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Prepared data: decode every label map, not a sample.")] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Prepared data: find photos that look alike in two splits.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the environment; or, with DATA, a prepared dataset or (with --format) raw annotations.

    Exit code 1 when something is wrong; notes do not count. docs/checks.md explains every check.
    """
    from hiposeg_cli.errors import ConfigError

    raw = {"--hierarchy": hierarchy, "--variant": variant, "--images": images, "--label-suffix": label_suffix,
           "--instances": instances, "--max-pixels": max_pixels}  # fmt: skip
    prepared = {"--fast": fast, "--full": full, "--near-duplicates": near_duplicates}
    if data is None and (format_name or any(raw.values()) or any(prepared.values())):
        raise ConfigError("DATA", "is missing", "name the dataset to check, or drop the options")
    if data is None:
        _show_environment(_environment(), as_json=as_json)
        return
    for flag, value in (raw if format_name is None else prepared).items():
        if value:
            cure = "name the raw data's --format" if format_name is None else "drop it, or drop --format"
            raise ConfigError(flag, "does not apply here", cure)
    if fast and full:
        raise ConfigError("--fast", "is the opposite of --full", "choose one")
    n_workers = workers or os.cpu_count() or 1
    if format_name is None:
        diagnosis = _prepared(data, n_workers, fast=fast, full=full, near=near_duplicates)
    else:
        choices: dict[str, Any] = {"max_pixels": max_pixels} if max_pixels else {}
        choices |= {"variant": variant, "images": images, "label_suffix": label_suffix, "instances": instances}
        diagnosis = _raw(data, format_name, n_workers, hierarchy, choices)
    _show_diagnosis(diagnosis, as_json=as_json)


def _prepared(data: Path, workers: int, *, fast: bool, full: bool, near: bool) -> Any:
    from hiposeg_cli.inspection.prepared import CheckOptions, check_prepared
    from hiposeg_cli.pool import Workers

    with console.progress("doctor") as progress:
        return check_prepared(data, CheckOptions(fast, full, near, Workers(workers)), progress)


def _raw(data: Path, format_name: str, workers: int, hierarchy: str | None, choices: dict[str, Any]) -> Any:
    from hiposeg_cli.convert import PrepareOptions
    from hiposeg_cli.formats.base import ReaderOptions
    from hiposeg_cli.inspection.raw import check_raw

    options = PrepareOptions(hierarchy=hierarchy, reader=ReaderOptions(**choices), workers=workers)
    with console.progress("doctor") as progress:
        return check_raw(format_name, data, options, progress)


def _show_diagnosis(diagnosis: Any, *, as_json: bool) -> None:
    """Print the checks that were made and everything they found. Raises typer.Exit(1) unless clean."""
    data = diagnosis.as_json()
    if as_json:
        console.out(console.envelope("doctor", data, status="ok" if diagnosis.clean else "problems"))
    else:
        images = ", ".join(f"{split} {count}" for split, count in data["facts"].get("images", {}).items())
        console.out(f"{diagnosis.where}: {data['kind']} dataset, hierarchy {data['facts'].get('hierarchy')}; {images}")
        for check in data["checks"]:
            _show_check(check, [finding for finding in data["findings"] if finding["check"] == check["id"]])
        totals = ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in data["totals"].items())
        console.say(totals)
    if not diagnosis.clean:
        raise typer.Exit(1)


def _show_check(check: dict[str, Any], findings: list[dict[str, Any]]) -> None:
    if not (check["error"] or check["warning"]):
        console.out(f"ok      {check['id']} {check['title']} ({check['examined']} looked at)")
    for level, word in _WORDS.items():
        listed = [finding for finding in findings if finding["level"] == level]
        for finding in listed[:_SHOWN]:
            cure = f" - {finding['cure']}" if finding["cure"] else ""
            console.out(f"{word:8}{check['id']} {finding['where']}: {finding['what']}{cure}")
        if check[level] > _SHOWN:
            console.out(f"{word:8}{check['id']} and {check[level] - _SHOWN} more; --json lists up to 1000")


# -- the environment ---------------------------------------------------------------------------------------------------


def _show_environment(checks: list[dict[str, Any]], *, as_json: bool) -> None:
    problems = [check for check in checks if check["problem"]]
    if as_json:
        console.out(console.envelope("doctor", {"checks": checks}, status="problems" if problems else "ok"))
    else:
        for check in checks:
            console.out(f"{'PROBLEM' if check['problem'] else 'ok':8}{check['name']}: {check['text']}")
    if problems:
        raise typer.Exit(1)


def _check(name: str, text: str, *, problem: bool = False) -> dict[str, Any]:
    return {"name": name, "text": text, "problem": problem}


def _environment() -> list[dict[str, Any]]:
    import platform

    import torch

    from hiposeg_cli import __version__
    from hiposeg_cli.hierarchy import preset_dir, preset_paths
    from hiposeg_cli.hierarchy_yaml import load_hierarchy
    from hiposeg_cli.nets.compat import import_torchvision

    checks = [_check("hiposeg", f"{__version__}, Python {platform.python_version()}")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    checks.append(_check("torch", f"{torch.__version__}, {torch.get_num_threads()} threads, CUDA device: {device}"))
    checks.append(_torchvision(import_torchvision))
    for package in ("timm", "segmentation-models-pytorch", "pycocotools", "scipy", "pillow", "safetensors"):
        checks.append(_installed(package))
    names = preset_paths()
    for name in names:
        load_hierarchy(name)
    found = f"{len(names)} in {preset_dir()}"
    checks.append(_check("hierarchies", found, problem=not names))
    try:
        checks.append(_five_second_run())
    except Exception as error:  # whatever a broken installation raises is the finding
        checks.append(_check("train and eval", f"fails: {type(error).__name__}: {error}", problem=True))
    return checks


def _torchvision(import_torchvision: Any) -> dict[str, Any]:
    try:
        repaired = import_torchvision()
    except (ImportError, RuntimeError) as error:
        return _check("torchvision", f"does not import ({error}) - install the version made for this torch", problem=True)
    from importlib.metadata import version

    text = "built for another torch; worked around, nothing to do" if repaired else "matches torch"
    return _check("torchvision", f"{version('torchvision')}, {text}")


def _installed(package: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return _check(package, version(package))
    except PackageNotFoundError:
        return _check(package, f"is not installed - pip install {package}", problem=True)


def _five_second_run() -> dict[str, Any]:
    """Train a few steps on the demo's pictures and score them, in a temporary folder."""
    import tempfile
    import time

    from hiposeg_cli.config import Layer
    from hiposeg_cli.convert import PrepareOptions
    from hiposeg_cli.convert import prepare as convert
    from hiposeg_cli.demo.draw import draw_dataset
    from hiposeg_cli.run import make_trainer
    from hiposeg_cli.run_config import resolve_config

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        raw, data = Path(folder) / "raw", Path(folder) / "data"
        draw_dataset(raw, n_train=4, n_val=2, size_px=96)
        convert("pascal-part", raw, data, PrepareOptions(hierarchy="demo"))
        settings = {"data.path": str(data), "data.crop": 64, "data.batch": 2, "data.workers": 0, "optim.iterations": 2}
        trainer, _ = make_trainer(resolve_config([Layer("--doctor", settings)]), Path(folder) / "run")
        scores = trainer.run()
    seconds = time.perf_counter() - started
    return _check(
        "train and eval", f"two steps of hiposeg in {seconds:.1f} s, loss terms finite, scored {len(scores)} values"
    )
