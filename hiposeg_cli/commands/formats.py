"""`hiposeg formats`: what `prepare` can read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console


def formats(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the annotation formats: where their files lie, their variants and default taxonomy."""
    from rich.table import Table

    from hiposeg_cli.formats.base import Reader
    from hiposeg_cli.registry import FORMATS

    rows: list[dict[str, Any]] = []
    for name in FORMATS.names():
        reader: type[Reader] = FORMATS.load(name)
        given = reader.default_hierarchy
        taxonomies = [given] if isinstance(given, str) else sorted(set((given or {}).values()))
        rows.append(
            {
                "name": name, "layout": " ".join((reader.__doc__ or "").split("\n\n")[0].split()).rstrip("."),
                "variants": list(reader.variants), "options": sorted(reader.honours), "taxonomies": taxonomies,
            }
        )  # fmt: skip
    if as_json:
        console.out(console.envelope("formats", {"formats": rows}))
        return
    table = Table("format", "SRC", "variants", "default taxonomy", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["layout"], ", ".join(row["variants"]), ", ".join(row["taxonomies"]) or "--hierarchy")
    console.out_table(table)
