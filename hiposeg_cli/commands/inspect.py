"""`hiposeg inspect DATA`: what is in a prepared dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hiposeg_cli.commands import console


def inspect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Prepared dataset.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with tables and pictures.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Images shown on the page.")] = 12,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Also find photos that look alike in two splits (decodes each).")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes for that; 0 takes one per core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --html file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count classes, regions, image sizes, ignored pixels and leaks on every level, and show samples."""
    from hiposeg_cli.errors import DataError
    from hiposeg_cli.inspection.overview import inspect_dataset, overview_json
    from hiposeg_cli.pool import Workers

    if html is not None and html.exists() and not overwrite:
        raise DataError(html, "exists", "pass --overwrite or another --html")
    with console.progress("inspect") as progress:
        overview = inspect_dataset(
            data, samples=samples, near=near_duplicates, workers=Workers(workers or os.cpu_count() or 1), progress=progress
        )
    if html is not None:
        from hiposeg_cli.labelmap import write_bytes_atomic
        from hiposeg_cli.report.inspect_page import inspection_page

        write_bytes_atomic(html, inspection_page(overview).encode())
    if as_json:
        console.out(console.envelope("inspect", {**overview_json(overview), "html": str(html) if html else None}))
        return
    from hiposeg_cli.report.inspect_tables import inspection_tables

    for part in inspection_tables(overview):
        console.out_table(part)
    if html is not None:
        console.say(f"wrote {html}")
