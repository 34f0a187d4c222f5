"""`hiposeg hierarchy list | show | check`: the taxonomies, in the terminal and as graphs."""

from __future__ import annotations

from typing import Annotated

import typer

from hiposeg_cli.commands import console

app = typer.Typer(no_args_is_help=True, help="Taxonomies: list the shipped ones, show one as a tree or graph, check a file.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped taxonomy or a YAML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the shipped taxonomies and where they are."""
    from rich.table import Table

    from hiposeg_cli.hierarchy import preset_dir, preset_paths
    from hiposeg_cli.hierarchy_yaml import load_hierarchy

    found = [load_hierarchy(name) for name in preset_paths()]
    if as_json:
        rows = [{"name": h.name, "levels": {lv.name: len(lv) for lv in h.levels}, "formats": list(h.sources)} for h in found]
        console.out(console.envelope("hierarchy list", {"folder": str(preset_dir()), "hierarchies": rows}))
        return
    table = Table("name", "fine", "coarse", "formats", "classes from", box=None, pad_edge=False)
    for h in found:
        table.add_row(h.name, str(h.n_fine), str(h.n_coarse), ", ".join(h.sources), h.doc.split(". ")[0][:90])
    console.out_table(table)
    console.say(f"in {preset_dir()}")


@app.command()
def show(
    name: Name,
    export: Annotated[
        str | None, typer.Option("--as", metavar="FORMAT", help="dot, graphml or json instead of a tree.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a taxonomy as a tree with ids and colours, or export it as a graph."""
    from hiposeg_cli.errors import ConfigError, did_you_mean
    from hiposeg_cli.graph import GRAPH_FORMATS, export_graph
    from hiposeg_cli.hierarchy_yaml import load_hierarchy

    hierarchy = load_hierarchy(name)
    if export is not None and export not in GRAPH_FORMATS:
        raise ConfigError(f"--as {export}", "is no graph format", did_you_mean(export, GRAPH_FORMATS))
    if as_json or export == "json":
        import json

        graph = json.loads(export_graph(hierarchy, "json"))
        console.out(
            console.envelope("hierarchy show", graph) if as_json else json.dumps(graph, indent=1, ensure_ascii=False)
        )
    elif export is not None:
        console.out(export_graph(hierarchy, export).rstrip("\n"))
    else:
        from hiposeg_cli.report.tables import hierarchy_tree

        console.out_table(hierarchy_tree(hierarchy))


@app.command()
def check(name: Name, as_json: AsJson = False) -> None:
    """Check a taxonomy file; findings are remarks, an invalid file is an error (exit 2)."""
    from hiposeg_cli.graph import findings
    from hiposeg_cli.hierarchy_yaml import load_hierarchy

    hierarchy = load_hierarchy(name)
    notes = findings(hierarchy)
    data = {"name": hierarchy.name, "digest": hierarchy.digest, "levels": {lv.name: len(lv) for lv in hierarchy.levels}}
    if as_json:
        console.out(console.envelope("hierarchy check", data, warnings=notes))
        return
    counts = ", ".join(f"{len(level)} {level.name}" for level in hierarchy.levels)
    console.out(f"{hierarchy.name}: valid, {counts} classes")
    for note in notes:
        console.out(f"  note: {note}")
