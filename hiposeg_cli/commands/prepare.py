"""`hiposeg prepare FORMAT SRC OUT`: raw annotations -> a two-level dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiposeg_cli.commands import console

if TYPE_CHECKING:
    from hiposeg_cli.convert import Prepared


def prepare(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="What SRC holds; `hiposeg formats` lists them.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Raw dataset in its published layout.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="New folder for the prepared dataset.")] = None,
    hierarchy: Annotated[str | None, typer.Option(help="Taxonomy: a shipped name or a YAML file.")] = None,
    check: Annotated[bool, typer.Option("--check", "--dry-run", help="Read everything, report, write nothing.")] = False,
    val: Annotated[float, typer.Option(help="Move this many (or this share of) training images to val.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that choice.")] = 0,
    images: Annotated[Path | None, typer.Option(help="Folder of the photos, where it is not found by itself.")] = None,
    copy_images: Annotated[bool, typer.Option(help="Copy photos into OUT instead of referring to them.")] = False,
    part_order: Annotated[str | None, typer.Option(help="pascal-part: published (file order) or area.")] = None,
    uncovered: Annotated[
        str | None, typer.Option(help="pascal-part: object pixels without a part: object-only, ignore or background.")
    ] = None,
    unlabelled: Annotated[str | None, typer.Option(help="coco: pixels without annotation: ignore or background.")] = None,
    label_suffix: Annotated[str | None, typer.Option(help="masks: what follows the stem, such as _labelIds.")] = None,
    variant: Annotated[str | None, typer.Option(help="Release or encoding, where a format has several.")] = None,
    instances: Annotated[bool, typer.Option("--instances", help="Keep object numbers too, in labels/inst.")] = False,
    unknown: Annotated[str | None, typer.Option(help="Labels the taxonomy does not know: ignore (else an error).")] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Keep images whose labels are all ignore.")] = False,
    follow_symlinks: Annotated[bool, typer.Option("--follow-symlinks", help="Links may lead out of SRC.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse pictures of more pixels.")] = 100_000_000,
    overlays: Annotated[
        int, typer.Option(min=0, help="Write this many pictures of labels over photos to OUT/overlays.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one per core.")] = 0,
    dask: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Convert on a Dask cluster (tcp://...).")] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Convert only this part; the last one completes OUT.")] = "1/1",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset hiposeg wrote in OUT.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave broken images out and go on (exit 1).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert raw annotations into fine and coarse label maps, with a report of what was found and decided."""
    from hiposeg_cli.convert import PrepareOptions, untested_versions
    from hiposeg_cli.convert import prepare as convert
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.formats.base import ReaderOptions
    from hiposeg_cli.shard import Shard

    _check_choices(
        {
            "--part-order": (part_order, ("published", "area")),
            "--uncovered": (uncovered, ("object-only", "ignore", "background")),
            "--unlabelled": (unlabelled, ("ignore", "background")),
            "--unknown": (unknown, ("ignore",)),
        }
    )
    if out is None and not check:
        raise ConfigError("OUT", "is missing", "name a new folder, or pass --check to write nothing")
    if val < 0:
        raise ConfigError("--val", f"is {val:g}", "give a count or a share")
    options = PrepareOptions(
        hierarchy=hierarchy, val=val, seed=seed, copy_images=copy_images, skip_bad=skip_bad,
        workers=workers or os.cpu_count() or 1, cluster=dask, shard=Shard.parse(shard), allow_empty=allow_empty,
        reader=ReaderOptions(
            images=images, part_order=part_order, uncovered=uncovered, unlabelled=unlabelled, label_suffix=label_suffix,
            variant=variant, unknown=unknown, follow_symlinks=follow_symlinks, instances=instances,
            max_pixels=max_pixels,
        ),
    )  # fmt: skip
    for line in untested_versions():
        console.warn(line)
    with console.progress("prepare") as progress:
        result = convert(
            format_name, source, None if check else out, options, resume=resume, overwrite=overwrite, progress=progress
        )
    if overlays and out is not None and result.complete:
        _write_overlays(out, overlays)
    _show(result, None if check else out, as_json=as_json)
    if result.report["failures"]:
        none_left = not (result.complete or result.missing)
        raise typer.Exit(1 if check or (skip_bad and not none_left) else 2)


def _check_choices(choices: dict[str, tuple[str | None, tuple[str, ...]]]) -> None:
    """Refuse a value that is none of a flag's choices."""
    from hiposeg_cli.errors import require_choice

    for flag, (value, allowed) in choices.items():
        if value is not None:
            require_choice(flag, value, allowed)


def _show(result: Prepared, out: Path | None, *, as_json: bool) -> None:
    report = result.report
    if as_json:
        status = "problems" if report["failures"] else "ok"
        data = {"out": str(out) if out else None, "complete": result.complete, "missing": result.missing, **report}
        console.out(console.envelope("prepare", data, status=status))
        return
    from hiposeg_cli.report.tables import prepare_report

    for part in prepare_report(report):
        console.out_table(part)
    for line in report["failures"][:20]:
        console.warn(line)
    if len(report["failures"]) > 20:
        console.warn(f"and {len(report['failures']) - 20} more broken images")
    if out is None:
        return
    if result.complete:
        console.say(f"wrote {out}")
    elif not report["images"]:
        console.say(f"nothing is written to {out}: no image could be converted")
    elif result.missing:
        console.say(f"{out}: this shard is done; {result.missing} images of other shards are still to be converted")
    else:
        console.say(f"{out} is unfinished: mend the images above and pass --resume, or pass --skip-bad")


def _write_overlays(out: Path, count: int) -> None:
    """Pictures of the first images of every split, for a person to look at."""
    from hiposeg_cli.report.overlay import write_overlay
    from hiposeg_cli.store import open_dataset

    dataset = open_dataset(out)
    for split, rows in dataset.rows.items():
        for row in rows[:count]:
            path = out / "overlays" / split / f"{row.key}.jpg"
            write_overlay(path, dataset.image(row), dataset.hierarchy, dataset.labels(row))
