"""`hiposeg runs list | compare`: the training runs on this disk, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiposeg_cli.commands import console

if TYPE_CHECKING:
    from hiposeg_cli.runs import Comparison, SavedRun

app = typer.Typer(no_args_is_help=True, help="Training runs: list them, or compare configurations over several seeds.")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder with runs, at any depth.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder with their last validation."""
    from hiposeg_cli.errors import HiposegError
    from hiposeg_cli.report.tables import runs_list
    from hiposeg_cli.runs import find_runs, read_run

    rows, broken = [], []
    for path in find_runs(folder):
        try:
            rows.append(_facts(read_run(path)))
        except HiposegError as error:
            broken.append(str(error))
    if as_json:
        console.out(console.envelope("runs list", {"runs": rows}, status="problems" if broken else "ok", warnings=broken))
    elif rows:
        console.out_table(runs_list(rows))
    elif not broken:
        console.say(f"no run below {folder}")
    if broken:
        for text in () if as_json else broken:
            console.warn(text)
        raise typer.Exit(1)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; the first run's row is the baseline.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Score every run on this prepared dataset; else their own validation is taken.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of --data; default val.")] = None,
    weights: Annotated[
        str, typer.Option(help="last or best weights; best were chosen on the validation images themselves.")
    ] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; for --data.")] = "auto",
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write the table here, one line a row and measure.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --csv file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs: one row a configuration, mean and spread over its seeds, difference to the first row.

    An evaluation made for --data is kept in RUN/eval.json and made again when weights or data change.
    """
    from hiposeg_cli.errors import ConfigError, DataError, require_choice
    from hiposeg_cli.report.tables import runs_comparison
    from hiposeg_cli.runs import check_comparable, read_run
    from hiposeg_cli.runs import compare as group

    require_choice("--weights", weights, ("best", "last"))
    if split is not None and data is None:
        raise ConfigError(f"--split {split}", "needs a dataset to score on", "pass --data")
    if csv_path is not None and csv_path.exists() and not overwrite:
        raise DataError(csv_path, "exists", "pass --overwrite or another --csv")
    runs = [read_run(folder) for folder in folders]
    remarks = check_comparable(runs, one_evaluation=data is not None)
    if data is None:
        source = f"{weights} validation of each run, merged protocol, absent classes: zero; pass --data for all measures"
        which: Any = weights
        comparison = group(runs, [run.validated(which) for run in runs], source=source)
    else:
        comparison = _scored(runs, data, split or "val", weights, device, remarks)
    if csv_path is not None:
        _write_csv(csv_path, comparison)
    if as_json:
        console.out(console.envelope("runs compare", comparison.as_dict(), warnings=remarks))
        return
    for text in remarks:
        console.warn(text)
    for part in runs_comparison(comparison):
        console.out_table(part)


def _scored(
    runs: list[SavedRun], data: Path, split: str, weights: Any, device: str, remarks: list[str]
) -> Comparison:  # fmt: skip
    """Every run's weights on one split, scored now unless its eval.json holds the result."""
    from hiposeg_cli.runs import compare as group
    from hiposeg_cli.runs import evaluation, measures_of, rarest_third
    from hiposeg_cli.store import open_dataset

    dataset = open_dataset(data)
    dataset.split(split)
    dataset.hierarchy.require_same(runs[0].hierarchy, mine=data, theirs=runs[0].folder)

    def score(run: SavedRun) -> dict[str, Any]:
        from hiposeg_cli.commands.evaluate import score_run

        with console.progress(f"eval {run.folder.name}") as progress:
            return score_run(run.folder, data, split=split, which=weights, device=device, progress=progress)

    summaries = [evaluation(run, dataset, split, weights, lambda run=run: score(run)) for run in runs]  # type: ignore[misc]
    precisions = sorted({str(summary["precision"]) for summary in summaries})
    if len(precisions) > 1:
        remarks.append(f"the runs were scored in several precisions: {', '.join(precisions)}")
    rarest, first = rarest_third(dataset), summaries[0]
    source = (
        f"{weights} weights on {first['images']} images of {split} in {data}, protocol {first['protocol']}, "
        f"absent classes: {first['absent_rule']}, {first['scale']} scale, at the size of the truth"
    )
    return group(runs, [measures_of(summary, rarest) for summary in summaries], source=source, rarest=rarest)


def _facts(run: SavedRun) -> dict[str, Any]:
    """What the list shows of a run."""
    from hiposeg_cli.errors import DataError

    try:
        scores = run.validated("last")
    except DataError:
        scores = {}
    keys = ("net.architecture", "net.backbone", "data.path")
    return {
        "run": str(run.folder), "method": run.method, "seed": run.seed, "step": run.step, "total_steps": run.total_steps,
        "hierarchy": run.hierarchy.name, **{key: run.settings.get(key) for key in keys}, "scores": scores,
    }  # fmt: skip


def _write_csv(path: Path, comparison: Comparison) -> None:
    """One line for each row and measure; scores as shares, not percent."""
    import csv
    import io

    from hiposeg_cli.labelmap import write_bytes_atomic

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ["mean", "deviation", "low", "high"]
    writer.writerow([*comparison.differing, "seeds", "measure", *numbers, "difference", "verdict"])
    for group in comparison.groups:
        for name, spread in group.measures.items():
            change = group.differences.get(name)
            cells = [None if spread is None else getattr(spread, number) for number in numbers]
            cells += [None, None] if change is None else [change.value, change.verdict]
            label = [group.settings[key] for key in comparison.differing]
            writer.writerow([*label, len(group.seeds), name, *("" if cell is None else cell for cell in cells)])
    write_bytes_atomic(path, text.getvalue().encode())
