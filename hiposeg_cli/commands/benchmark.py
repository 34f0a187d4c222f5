"""`hiposeg benchmark RUN [SRC...]`: how long each stage of predict takes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiposeg_cli.commands import console

if TYPE_CHECKING:
    from hiposeg_cli.infer.model import Model
    from hiposeg_cli.infer.prediction import Source
    from hiposeg_cli.infer.stages import Timing


def benchmark(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, .safetensors weights or .onnx file.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SRC...", help="Photos, as for predict; without them the run's val photos, or drawn ones."),
    ] = None,
    photos: Annotated[int, typer.Option(min=1, help="Of these, use so many.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Passes over them, after one to warm up.")] = 5,
    weights: Annotated[str, typer.Option(help="best or last weights of the run.")] = "best",
    size: Annotated[int | None, typer.Option(min=32, help="Long side the network sees, in px; default as trained.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Photos in a pass of the network.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Of the network on a CPU; 0 leaves the default.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every single time.")] = False,
) -> None:
    """Time decoding, resizing, network, upsampling, encoding and writing, each alone, then predict as a whole.

    Times are medians in ms a photo; every line says what it holds. Close other programs first.
    """
    import tempfile

    import torch

    from hiposeg_cli.errors import require_choice
    from hiposeg_cli.infer.model import load_model, with_size
    from hiposeg_cli.infer.stages import Plan, time_stages

    require_choice("--weights", weights, ("best", "last"))
    if threads:
        torch.set_num_threads(threads)  # onnxruntime takes as many
    model = with_size(load_model(run, which=weights, device=device), size)
    with tempfile.TemporaryDirectory() as folder, console.progress("benchmark") as progress:
        found, name = _photos(run, sources or [], photos, Path(folder))
        timings = time_stages(model, found, Plan(batch, repeats), progress)
    about = {
        "photos": name, "batch": batch, "repeats": repeats, "size": model.checkpoint.about["size"], **_machine(model)
    }  # fmt: skip
    if as_json:
        stages = [
            {"stage": one.stage, "timed": one.what, "median_ms": one.median_ms, "all_ms": one.times_ms} for one in timings
        ]
        console.out(console.envelope("benchmark", {"run": str(run), **about, "stages": stages}))
        return
    _show(timings, about)


def _photos(run: Path, sources: list[str], count: int, folder: Path) -> tuple[list[Source], str]:
    """Photos to time, and what they are."""
    from hiposeg_cli.commands.samples import sample_photos
    from hiposeg_cli.infer.prediction import Source
    from hiposeg_cli.infer.sources import find_sources

    if not sources:
        sample = sample_photos(run, count, folder)
        return [Source(path, path.stem) for path in sample.paths], sample.name
    found = find_sources(sources)
    if found.refused:
        raise found.refused[0]
    photos = list(found.photos)[:count]
    return photos, f"{len(photos)} photos of {' '.join(sources)}"


def _machine(model: Model) -> dict[str, Any]:
    """Where and with what the network runs."""
    import os
    import platform

    import torch

    engine = f"torch {torch.__version__}"
    if model.checkpoint.path.suffix == ".onnx":
        import onnxruntime  # type: ignore[import-untyped]

        engine = f"onnxruntime {onnxruntime.__version__}"
    on_gpu = model.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(model.device) if on_gpu else f"{model.device.type}, {platform.machine()}",
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "engine": engine,
        "precision": str(model.amp or torch.float32).removeprefix("torch."),
    }  # fmt: skip


def _show(timings: list[Timing], about: dict[str, Any]) -> None:
    from rich.table import Table

    seen = f"long side {about['size']} px" if about["size"] else "at their own size"
    console.out(f"{about['photos']}, seen {seen}, batch {about['batch']}, {about['repeats']} repeats")
    console.out(
        f"{about['engine']} on {about['device']}, {about['precision']}, {about['threads']} threads, {about['cores']} cores"
    )
    table = Table("stage", "ms a photo", "lowest", "highest", "what is timed")
    for one in timings:
        numbers = (f"{value:.2f}" for value in (one.median_ms, min(one.times_ms), max(one.times_ms)))
        table.add_row(one.stage, *numbers, one.what)
    console.out_table(table)
