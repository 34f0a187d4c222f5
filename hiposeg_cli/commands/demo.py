"""`hiposeg demo`: the whole way on an embedded dataset, from raw annotations to predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console

_SETTINGS = {
    "net.architecture": "fpn", "data.crop": 128, "data.batch": 16, "data.workers": 1, "data.scale": [0.85, 1.2],
    "optim.epochs": 8, "optim.lr": 1e-3, "optim.schedule": "cosine", "loop.val_every": 4,
}  # fmt: skip

_PICTURES = {"n_train": 480, "n_val": 80, "size_px": 128}


def demo(
    out: Annotated[Path | None, typer.Option(help="New folder for all it makes; default runs/demo-N.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of pictures and training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw a part dataset, prepare, train flat and hiposeg, evaluate and predict; minutes on two CPU cores."""
    from hiposeg_cli.commands.evaluate import score_run
    from hiposeg_cli.convert import PrepareOptions
    from hiposeg_cli.convert import prepare as convert
    from hiposeg_cli.demo.draw import draw_dataset
    from hiposeg_cli.errors import DataError
    from hiposeg_cli.report.tables import level_line, per_class_table, protocol_line
    from hiposeg_cli.run import new_run_dir

    out = out or new_run_dir(Path("runs"), "demo")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(out, "exists", "remove it, or choose another --out")
    raw, data = out / "raw", out / "data"
    console.say(f"1/5 drawing pictures in the PASCAL-Part layout: {raw}")
    draw_dataset(raw, **_PICTURES, seed=seed)
    console.say(f"2/5 hiposeg prepare pascal-part {raw} {data} --hierarchy demo")
    with console.progress("prepare") as progress:
        convert("pascal-part", raw, data, PrepareOptions(hierarchy="demo", workers=2), progress=progress)
    for method in ("flat", "hiposeg"):
        console.say(f"3/5 training {method}")
        _train(method, data, out / method, seed)
    console.say(f"4/5 hiposeg eval {out}/METHOD {data} --per-class")
    columns = [(method, score_run(out / method, data)) for method in ("flat", "hiposeg")]
    console.say(f"5/5 hiposeg predict {out}/hiposeg PHOTOS --overlay --out {out}/predictions")
    predicted = _predict(data, out)
    if as_json:
        console.out(console.envelope("demo", {"scores": dict(columns), "predictions": str(predicted)}))
        return
    for level in ("coarse", "fine"):
        console.out_table(per_class_table(columns, level))
    for method, summary in columns:
        for name, level in summary["levels"].items():
            console.out(f"{method} {level_line(name, level)}")
    console.out(protocol_line(columns[0][1]))
    console.out(f"pictures: {predicted / 'overlay'}  label maps: {predicted / 'fine'}, {predicted / 'coarse'}")


def _train(method: str, data: Path, run_dir: Path, seed: int) -> None:
    """Train one method with the demo's recipe, the same for both."""
    from hiposeg_cli.commands.training_view import TrainingView
    from hiposeg_cli.config import Layer
    from hiposeg_cli.run import make_trainer, write_run_files
    from hiposeg_cli.run_config import resolve_config

    settings: dict[str, Any] = {**_SETTINGS, "method.name": method, "data.path": str(data), "loop.seed": seed}
    config = resolve_config([Layer("--demo", settings)])
    with TrainingView(method) as view:
        trainer, _ = make_trainer(config, run_dir, watcher=view)
        write_run_files(run_dir, config, trainer.dataset.hierarchy)
        trainer.run()


def _predict(data: Path, out: Path) -> Path:
    """Segment the first validation photos with the hiposeg run."""
    from hiposeg_cli.infer.model import load_model
    from hiposeg_cli.infer.predictor import PredictOptions
    from hiposeg_cli.infer.predictor import predict as run_predictor
    from hiposeg_cli.infer.sources import find_sources
    from hiposeg_cli.store import open_dataset

    dataset = open_dataset(data)
    photos = [dataset.images_root / row.image_path for row in dataset.split("val")[:12]]
    target = out / "predictions"
    model = load_model(out / "hiposeg")
    run_predictor(model, find_sources(photos), target, PredictOptions(save=("overlay",)))
    return target
