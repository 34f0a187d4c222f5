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
    decode: Annotated[
        str, typer.Option(metavar="RULE", help="leaf, sum, top-down, path-sum or back-off: how levels follow from scores.")
    ] = "leaf",
    confidence: Annotated[
        float | None, typer.Option(help="With --decode back-off: 0 to 1, the probability below which a class is not said.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Segment photos: OUT/fine and OUT/coarse hold class-id PNGs at each photo's own size.

    With --decode sum the two maps may disagree; with back-off fine, and where needed coarse, is void (255, or 65535).
    """
    from hiposeg_cli.errors import ConfigError, did_you_mean
    from hiposeg_cli.infer.model import load_model, with_decode, with_size
    from hiposeg_cli.infer.predictor import find_sources
    from hiposeg_cli.infer.predictor import predict as run_predictor
    from hiposeg_cli.learn.decode import Decode
    from hiposeg_cli.run import new_run_dir

    if weights not in ("best", "last"):
        raise ConfigError(f"--weights {weights}", "is not a choice", did_you_mean(weights, ("best", "last")))
    rule = Decode(decode, confidence)
    found = find_sources(sources, out)
    model = with_decode(with_size(load_model(run, which=weights, device=device), size), rule)
    target = out or new_run_dir(Path("runs/predict"), sources[0].resolve().stem)
    with console.progress("predict") as progress:
        result = run_predictor(model, found, target, with_overlay=overlay, overwrite=overwrite, progress=progress)
    failures = [str(error) for error in result.failures]
    if as_json:
        counts = {"done": result.done, "skipped": result.skipped, "failures": failures}
        data = {"out": str(target), "decode": decode, "confidence": confidence, **counts}
        console.out(console.envelope("predict", data, status="problems" if failures else "ok"))
    else:
        for line in failures:
            console.warn(line)
        if decode == "sum":
            console.say("decode sum: each map is decoded for itself, so coarse may differ from the parent of fine")
        console.say(f"{result.done} predicted, {result.skipped} already there, {len(failures)} failed")
        console.out(str(target))
    if failures:
        raise typer.Exit(1)
