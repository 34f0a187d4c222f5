"""`hiposeg doctor`: is this installation sound, and is this dataset?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console


def doctor(
    data: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="Prepared dataset to verify.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the environment and, with DATA, every file of a prepared dataset (exit 1 on findings)."""
    checks = _environment() if data is None else _dataset(data)
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


def _dataset(data: Path) -> list[dict[str, Any]]:
    from hiposeg_cli.store import open_dataset, verify

    dataset = open_dataset(data)
    findings = verify(dataset)
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in dataset.rows.items())
    head = _check("dataset", f"{data}: {counts}; hierarchy {dataset.hierarchy.name}")
    return [head, *(_check("file", finding, problem=True) for finding in findings)]


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
    from hiposeg_cli.run import make_trainer, resolve_config

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
