"""`hiposeg predict RUN SRC...`: class-id PNGs for photos, and whatever else is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiposeg_cli.commands import console

if TYPE_CHECKING:
    from hiposeg_cli.infer.model import Model
    from hiposeg_cli.infer.shares import Joined
    from hiposeg_cli.infer.windows import Tiling
    from hiposeg_cli.learn.decode import Decode
    from hiposeg_cli.shard import Shard

_MOST_LINES = 50


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, .safetensors or .onnx file.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Photos, folders (of photos, no videos), quoted patterns ('photos/**/*.jpg'), lists (@FILE or FILE.txt), "
            "videos, or - for a list on standard input.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default runs/predict/NAME-N.")] = None,
    save: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Also write overlay, color, probs, confidence, rle, panoptic, labelme, polygons."),
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Short for --save overlay: pictures with legend.")] = False,
    weights: Annotated[str, typer.Option(help="best or last weights of the run.")] = "best",
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Long side the network sees, in px; default as trained, with --tile the photo's own."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=32, metavar="PX", help="Look through windows of this side, for photos of any size.")
    ] = None,
    overlap: Annotated[int | None, typer.Option(min=0, metavar="PX", help="Of windows; default a quarter.")] = None,
    tta: Annotated[str, typer.Option(metavar="LIST", help="Average several looks: flip, scales, or flip,scales.")] = "",
    scales: Annotated[str, typer.Option(metavar="LIST", help="Those scales; with --tta scales 0.75,1,1.25.")] = "",
    decode: Annotated[
        str, typer.Option(metavar="RULE", help="leaf, sum, top-down, path-sum or back-off: how levels follow from scores.")
    ] = "leaf",
    confidence: Annotated[
        float | None, typer.Option(help="With --decode back-off: 0 to 1, the probability below which a class is not said.")
    ] = None,
    batch: Annotated[int, typer.Option(min=0, help="Photos or windows in a pass; 0 is 1 on a CPU, 8 on a GPU.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read, and write; 0 takes one per core.")] = 0,
    compile_net: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse pictures of more pixels.")] = 100_000_000,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Predict only this part of the photos.")] = "1/1",
    resume: Annotated[bool, typer.Option("--resume", help="Continue in --out, which must hold predictions.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, or GPUs (0,1) that share the photos.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Segment photos: OUT/fine, OUT/coarse, ... hold class-id PNGs at each photo's own size, a folder for each level.

    What OUT holds already of the same photo, model and settings is skipped, so a run that was stopped goes on where it was.
    Maps follow the pixels as they are stored: the orientation that a camera notes in EXIF data is not applied.
    With --decode sum the maps may disagree; with back-off fine, and where needed coarse, is void (255, or 65535).
    Photos that fail are named and give exit code 1; under torchrun, which would end the other processes for it, 0.
    """
    from hiposeg_cli.infer.predictor import PredictOptions
    from hiposeg_cli.infer.predictor import predict as run_predictor
    from hiposeg_cli.infer.shares import exit_code_of, require_own_list, run_on_gpus, share_of
    from hiposeg_cli.infer.sources import find_sources, list_name
    from hiposeg_cli.infer.views import parse_views
    from hiposeg_cli.learn.decode import Decode
    from hiposeg_cli.run import new_run_dir
    from hiposeg_cli.shard import Shard

    rule, views, formats = Decode(decode, confidence), parse_views(tta, scales), _formats(save or [], overlay=overlay)
    share, tiling = share_of(Shard.parse(shard), device, os.environ), _tiling(tile, overlap)
    _check(weights, out, share.shard, resume=resume, overwrite=overwrite)
    require_own_list(sources, device, os.environ)
    if (joined := run_on_gpus(device, sys.argv[1:])) is not None:
        _show_joined(joined, out, rule, as_json=as_json)
        raise typer.Exit(joined.exit_code)
    found = find_sources(sources, out)
    model = _model(run, weights, share.device, rule, size, own_size=tile is not None and size is None)
    target = out or new_run_dir(Path("runs/predict"), list_name(sources[0]))
    options = PredictOptions(
        formats, overwrite, resume, share.shard, tiling, views, batch, workers, max_pixels, compile_net
    )  # fmt: skip
    with console.progress("predict") as progress:
        result = run_predictor(model, found, target, options, progress)
    failures = [str(error) for error in result.failures]
    _show(result.done, result.skipped, failures, result.remarks, target, rule, as_json=as_json)
    if code := exit_code_of(len(result.failures), os.environ):
        raise typer.Exit(code)


def _formats(lists: list[str], *, overlay: bool) -> tuple[str, ...]:
    """The formats of all --save lists, each once. Raises ConfigError for one that is unknown."""
    from hiposeg_cli.registry import SAVERS

    words = [word.strip() for text in lists for word in text.split(",") if word.strip()]
    names = dict.fromkeys([*words, "overlay"] if overlay else words)
    names.pop("labels", None)  # always written
    for name in names:
        SAVERS.load(name)
    return tuple(names)


def _tiling(tile: int | None, overlap: int | None) -> Tiling | None:
    """Windows as asked for."""
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.infer.windows import Tiling

    if tile is not None:
        return Tiling(tile, tile // 4 if overlap is None else overlap)
    if overlap is not None:
        raise ConfigError(f"--overlap {overlap}", "has no meaning without windows", "pass --tile")
    return None


def _check(weights: str, out: Path | None, shard: Shard, *, resume: bool, overwrite: bool) -> None:
    """Refuse options that do not go together."""
    from hiposeg_cli.errors import ConfigError, require_choice

    require_choice("--weights", weights, ("best", "last"))
    if resume and overwrite:
        raise ConfigError("--resume", "keeps what --overwrite would predict again", "drop one of them")
    if out is None and (resume or shard.count > 1):
        reason = "needs the folder to continue in" if resume else "needs one folder for all parts"
        raise ConfigError("--resume" if resume else f"part {shard.number} of {shard.count}", reason, "name it with --out")


def _model(run: Path, weights: str, device: str, rule: Decode, size: int | None, *, own_size: bool) -> Model:
    """The model that predicts; with `own_size` it looks at photos as they are."""
    from hiposeg_cli.infer.model import load_model, unscaled, with_decode, with_size

    model = with_decode(load_model(run, which=weights, device=device), rule)
    return unscaled(model) if own_size else with_size(model, size)


def _show_joined(joined: Joined, out: Path | None, rule: Decode, *, as_json: bool) -> None:
    """What several processes did, or why one of them could not."""
    for text in joined.errors[:1]:
        console.fail("predict", text, joined.exit_code, as_json=as_json)
        return
    assert out is not None, "parts need a folder"
    _show(joined.done, joined.skipped, joined.failures, joined.remarks, out, rule, as_json=as_json)


def _show(
    done: int, skipped: int, failures: Sequence[str], remarks: Sequence[str], out: Path, rule: Decode, *, as_json: bool
) -> None:  # fmt: skip
    if as_json:
        counts = {"done": done, "skipped": skipped, "failures": list(failures)}
        data = {"out": str(out), "decode": rule.rule, "confidence": rule.threshold, **counts}
        status = "problems" if failures else "ok"
        console.out(console.envelope("predict", data, status=status, warnings=list(remarks)))
        return
    for line in (*remarks, *failures[:_MOST_LINES]):
        console.warn(line)
    if len(failures) > _MOST_LINES:
        console.warn(f"and {len(failures) - _MOST_LINES} more (--json lists all)")
    if rule.rule == "sum":
        console.say("decode sum: each map is decoded for itself, so coarse may differ from the parent of fine")
    console.say(f"{done} predicted, {skipped} already there, {len(failures)} failed")
    console.out(str(out))
