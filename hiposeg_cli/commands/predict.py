"""`hiposeg predict RUN SRC...`: class-id PNGs for photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiposeg_cli.commands import console


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or .safetensors weights.")],
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="Photos or folders of photos.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default runs/predict/NAME-N.")] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write pictures with legend.")] = False,
    weights: Annotated[str, typer.Option(help="best or last weights of the run.")] = "best",
    size: Annotated[int | None, typer.Option(min=32, help="Long side the network sees, in px; default as trained.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Segment photos: OUT/fine and OUT/coarse hold class-id PNGs at each photo's own size."""
    from hiposeg_cli.errors import ConfigError, did_you_mean
    from hiposeg_cli.infer.predictor import find_sources
    from hiposeg_cli.infer.predictor import predict as run_predictor
    from hiposeg_cli.run import load_model, new_run_dir, with_size

    if weights not in ("best", "last"):
        raise ConfigError(f"--weights {weights}", "is not a choice", did_you_mean(weights, ("best", "last")))
    found = find_sources(sources, out)
    model = with_size(load_model(run, which=weights, device=device), size)
    target = out or new_run_dir(Path("runs/predict"), sources[0].resolve().stem)
    with console.progress("predict") as progress:
        result = run_predictor(model, found, target, with_overlay=overlay, overwrite=overwrite, progress=progress)
    failures = [str(error) for error in result.failures]
    if as_json:
        data = {"out": str(target), "done": result.done, "skipped": result.skipped, "failures": failures}
        console.out(console.envelope("predict", data, status="problems" if failures else "ok"))
    else:
        for line in failures:
            console.warn(line)
        console.say(f"{result.done} predicted, {result.skipped} already there, {len(failures)} failed")
        console.out(str(target))
    if failures:
        raise typer.Exit(1)
