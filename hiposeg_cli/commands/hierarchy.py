"""`hiposeg hierarchy list | show | check | build | diff | convert | plot`: the taxonomies, seen, made and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console

app = typer.Typer(
    no_args_is_help=True,
    help="Taxonomies: list the shipped ones; show, check, compare, convert or draw one; build one from your data.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped taxonomy or a YAML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the shipped taxonomies and where they are."""
    from textwrap import shorten

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
        origin = shorten(h.doc.split(". ")[0], 80, placeholder=" ...")
        table.add_row(h.name, str(h.n_fine), str(h.n_coarse), ", ".join(h.sources), origin)
    console.out_table(table)
    console.say(f"in {preset_dir()}")


@app.command()
def show(
    name: Name,
    export: Annotated[str | None, typer.Option("--as", metavar="FORMAT", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Show a taxonomy as a tree: colours, ids, and how many classes each one has below it."""
    from hiposeg_cli.hierarchy_yaml import load_taxonomy

    if export is not None:
        convert(name, export, as_json=as_json)
        return
    taxonomy = load_taxonomy(name)
    if as_json:
        console.out(console.envelope("hierarchy show", _facts(taxonomy) | {"classes": _classes(taxonomy)}))
        return
    from hiposeg_cli.report.tables import hierarchy_tree

    console.out_table(hierarchy_tree(taxonomy))


@app.command()
def check(name: Name, as_json: AsJson = False) -> None:
    """Check a taxonomy file; findings are remarks, an invalid file is an error (exit 2)."""
    from hiposeg_cli.hierarchy import Dag
    from hiposeg_cli.hierarchy_yaml import load_taxonomy
    from hiposeg_cli.taxonomy.checks import broken_invariants, findings
    from hiposeg_cli.taxonomy.levels import tree_of

    taxonomy = load_taxonomy(name)
    notes = findings(taxonomy)
    if not isinstance(taxonomy, Dag) or taxonomy.projection:
        tree = tree_of(taxonomy, name)
        assert not broken_invariants(tree), broken_invariants(tree)
        notes += [note for note in findings(tree) if note not in notes]
    if as_json:
        console.out(console.envelope("hierarchy check", _facts(taxonomy), warnings=notes))
        return
    counts = ", ".join(f"{len(level)} {level.name}" for level in taxonomy.levels)
    console.out(f"{taxonomy.name}: valid, {counts} classes")
    for note in notes:
        console.out(f"  note: {note}")


_SOURCES = """
KIND and SOURCE:

ade20k - folder of the full release; every pair of object and part

cityscapes - CSV or JSON table: id,name,category,trainId[,color]

coco - instances or panoptic JSON; categories below supercategories

csv - table: fine,coarse[,more levels][,id,color,mirror,kind,aliases]

cvat - labels of a project as JSON, or labelmap.txt with its parts

graphml, json - what `convert` wrote, or any graph of names

mapillary - config_v2.0.json or config_v1.2.json

names - one `object:part`, `object--part` or `object's part` a line

text - names, each indented below what it belongs to
"""


@app.command(epilog=_SOURCES)
def build(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What SOURCE is; see below.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A file, or a folder for ade20k.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="YAML file to write; the terminal without it.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the taxonomy; the source's without it.")] = None,
    levels: Annotated[int | None, typer.Option("--levels", help="mapillary: how many levels of the paths to keep.")] = None,
    supercategory: Annotated[
        str | None, typer.Option("--supercategory", help="coco: coarse class of categories that name none.")
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Pair left and right classes by name.")] = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Build a taxonomy file from COCO supercategories, a table, a list of names, CVAT labels and the like.

    Left and right classes become mirror pairs; classes without a colour get one of their own.
    """
    from hiposeg_cli.builders.base import BuildOptions, build_taxonomy, render

    options = BuildOptions(name=name, mirror=mirror, levels=levels, supercategory=supercategory)
    taxonomy = build_taxonomy(kind, source, options)
    text = render(taxonomy, kind)
    _deliver("hierarchy build", text, out, _facts(taxonomy) | {"yaml": text}, overwrite=overwrite, as_json=as_json)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="A shipped taxonomy or a YAML file.")],
    new: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Name what differs from A to B on each level: added, removed, moved, renamed, ids, colours (exit 1 if anything)."""
    from hiposeg_cli.hierarchy_yaml import load_taxonomy
    from hiposeg_cli.taxonomy.diff import diff as compare

    found = compare(load_taxonomy(old), load_taxonomy(new))
    if as_json:
        console.out(console.envelope("hierarchy diff", found.as_json(), status="problems" if found else "ok"))
    else:
        for line in found.words():
            console.out(line)
        if not found:
            console.out("no difference")
    if found:
        raise typer.Exit(1)


@app.command()
def convert(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="graphml, json, dot or mermaid.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write; the terminal without it.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a taxonomy as a graph; `build graphml` and `build json` read it back."""
    from hiposeg_cli.errors import ConfigError, did_you_mean
    from hiposeg_cli.graph import GRAPH_FORMATS, export_graph
    from hiposeg_cli.hierarchy_yaml import load_taxonomy

    taxonomy = load_taxonomy(name)
    if to not in GRAPH_FORMATS:
        raise ConfigError(f"--to {to}", "is no graph format", did_you_mean(to, GRAPH_FORMATS))
    text = export_graph(taxonomy, to)
    _deliver("hierarchy convert", text, out, {"format": to, "text": text}, overwrite=overwrite, as_json=as_json)


@app.command()
def plot(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="Picture to write: .png or .svg.", show_default=False)],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw a taxonomy: columns of names, or rings for more than 60 classes."""
    from hiposeg_cli.hierarchy_yaml import load_taxonomy
    from hiposeg_cli.labelmap import write_bytes_atomic
    from hiposeg_cli.report.plot import render_plot

    taxonomy = load_taxonomy(name)
    _require_free(out, overwrite=overwrite)
    write_bytes_atomic(out, render_plot(taxonomy, out))
    if as_json:
        console.out(console.envelope("hierarchy plot", {"out": str(out)}))
    else:
        console.say(f"wrote {out}")


def _facts(taxonomy: Any) -> dict[str, Any]:
    """Name, sizes and structure of a taxonomy."""
    from hiposeg_cli.hierarchy import Dag

    facts = {"name": taxonomy.name, "doc": taxonomy.doc, "levels": {lv.name: len(lv) for lv in taxonomy.levels}}
    if isinstance(taxonomy, Dag):
        return facts | {"structure": "dag", "axes": list(taxonomy.axes), "projection": taxonomy.projection}
    return facts | {"structure": "tree", "digest": taxonomy.digest}


def _classes(taxonomy: Any) -> dict[str, list[dict[str, Any]]]:
    """Level -> its classes, each with the number of its children."""
    below: dict[str, int] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for level in taxonomy.levels:
        found[level.name] = [
            {
                "id": node.id, "name": node.name, "parents": list(node.parents), "children": below.get(node.name, 0),
                "color": list(node.color), "kind": node.kind, "mirror": node.mirror, "aliases": list(node.aliases),
                "implicit": node.implicit, "axis": node.axis,
            }
            for node in level.nodes
        ]  # fmt: skip
        parents = [parent for node in level.nodes for parent in node.parents]
        below = {parent: parents.count(parent) for parent in set(parents)}
    return found


def _deliver(command: str, text: str, out: Path | None, data: dict[str, Any], *, overwrite: bool, as_json: bool) -> None:
    """Write a text to a file or to the terminal."""
    from hiposeg_cli.labelmap import write_bytes_atomic

    if out is not None:
        _require_free(out, overwrite=overwrite)
        write_bytes_atomic(out, text.encode())
        console.say(f"wrote {out}")
    if as_json:
        console.out(console.envelope(command, data | {"out": str(out) if out else None}))
    elif out is None:
        console.out(text.rstrip("\n"))


def _require_free(path: Path, *, overwrite: bool) -> None:
    from hiposeg_cli.errors import OutputError

    if path.is_dir():
        raise OutputError(path, "is a folder", "name a file")
    if path.exists() and not overwrite:
        raise OutputError(path, "exists", "choose another --out, or pass --overwrite")
