"""Methods side by side on genuine data: equal network, data, budget and seeds; one line of scores for each run.

Run: python benchmarks/evidence.py SAMPLES OUT [--sets NAME ...] [--rows NAME ...] [--seeds N ...] [--set KEY=VALUE ...]

SAMPLES holds wbc/, carparts/, camvid/ and ccp/ in their published layouts. OUT/results.jsonl gets a line a run (row, set,
seed, scores of the last weights on the validation split); runs that it holds are not run again. The table is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import machine

from hiposeg_cli.commands.evaluate import score_run
from hiposeg_cli.config import Layer, parse_assignment
from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.run import make_trainer, resolve_config, write_run_files
from hiposeg_cli.store import Dataset, open_dataset

COMMON = {
    "net.architecture": "fpn", "optim.schedule": "poly", "data.scale": [0.75, 1.5], "data.workers": 1,
    "loop.val_every": 1000, "loop.device": "auto",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A sample set: how it is prepared, and the budget that every method gets."""

    format: str
    hierarchy: str
    settings: dict[str, Any]
    val: float = 0.0


SETS = {
    "wbc": Recipe("masks", "wbc-3-2", {"data.size": 128, "data.crop": 128, "data.batch": 16, "optim.epochs": 16}),
    "carparts": Recipe(
        "coco", "car-parts", {"data.size": 192, "data.crop": 192, "data.batch": 8, "optim.epochs": 16}, val=50
    ),
    "camvid": Recipe(
        "masks", "camvid-11-7", {"data.size": 320, "data.crop": [224, 288], "data.batch": 8, "optim.epochs": 8}
    ),
    "ccp": Recipe("masks", "ccp-59-7", {"data.size": 256, "data.crop": [256, 160], "data.batch": 8, "optim.epochs": 8}),
}
ROWS: dict[str, dict[str, Any]] = {"flat": {"method.name": "flat"}, "hiposeg": {"method.name": "hiposeg"}}


@dataclass(frozen=True)
class Scored:
    """The scores of one run, in percent but for the severity."""

    row: str
    set: str
    seed: int
    fine: float
    coarse: float
    rare: float
    severity: float
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)


def prepared(samples: Path, out: Path, name: str) -> Dataset:
    folder, recipe = out / "data" / name, SETS[name]
    if not (folder / "dataset.json").exists():
        options = PrepareOptions(hierarchy=recipe.hierarchy, workers=2, val=recipe.val)
        prepare(recipe.format, samples / name, folder, options, resume=folder.exists())
    return open_dataset(folder)


def rarest_third(dataset: Dataset) -> list[str]:
    """Fine classes with the fewest training pixels, a third of those that the validation split holds."""
    pixels = {split: np.zeros(dataset.hierarchy.n_fine, dtype=np.int64) for split in ("train", "val")}
    for split, counts in pixels.items():
        for row in dataset.split(split):
            for class_id, number in row.fine_counts.items():
                counts[int(class_id)] += number
    held = [class_id for class_id in np.argsort(pixels["train"], kind="stable") if pixels["val"][class_id]]
    return [dataset.hierarchy.fine.names[class_id] for class_id in held[: max(1, len(held) // 3)]]


def run_once(dataset: Dataset, out: Path, row: str, set_name: str, seed: int, settings: dict[str, Any]) -> Scored:
    run_dir = out / "runs" / f"{set_name}-{row}-{seed}"
    layers = [
        Layer("evidence", COMMON | SETS[set_name].settings),
        Layer("row", settings | {"loop.seed": seed, "data.path": str(dataset.root)}),
    ]
    config = resolve_config(layers)
    started = time.perf_counter()
    trainer, _ = make_trainer(config, run_dir)
    write_run_files(run_dir, config, dataset.hierarchy)
    trainer.run()
    seconds = time.perf_counter() - started
    summary = score_run(run_dir, dataset.root, which="last")
    fine, coarse = (summary["levels"][level.name] for level in dataset.hierarchy.levels[:2])
    ious = {entry["name"]: entry["iou"] for entry in fine["classes"]}
    rare = statistics.mean(ious[name] or 0.0 for name in rarest_third(dataset))
    return Scored(
        row, set_name, seed, 100 * fine["miou"], 100 * coarse["miou"], 100 * rare, summary["mistake_severity"], seconds,
        settings,
    )  # fmt: skip


def table(results: Iterable[Scored]) -> None:
    groups: dict[tuple[str, str], list[Scored]] = {}
    for result in results:
        groups.setdefault((result.set, result.row), []).append(result)
    print("| data | method | seeds | fine mIoU | coarse mIoU | rarest third | severity | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for (set_name, row), runs in sorted(groups.items()):
        cells = [spread([getattr(run, name) for run in runs]) for name in ("fine", "coarse", "rare", "severity")]
        minutes = statistics.mean(run.seconds for run in runs) / 60
        print(f"| {set_name} | {row} | {len(runs)} | {' | '.join(cells)} | {minutes:.1f} |")


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variant", default="", help="name for runs with the settings of --set")
    parser.add_argument("--set", dest="extra", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    results_path = arguments.out / "results.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = results_path.read_text().splitlines() if results_path.exists() else []
    results = [Scored(**json.loads(line)) for line in lines]
    done = {(result.row, result.set, result.seed) for result in results}
    extra: dict[str, Any] = {}
    for text in arguments.extra:
        extra |= parse_assignment(text).values
    print(machine())
    for set_name in arguments.sets:
        for seed in arguments.seeds:
            for base in arguments.rows:
                row = base + arguments.variant
                if (row, set_name, seed) in done:
                    continue
                dataset = prepared(arguments.samples, arguments.out, set_name)
                result = run_once(dataset, arguments.out, row, set_name, seed, ROWS[base] | extra)
                results.append(result)
                with results_path.open("a") as file:
                    file.write(json.dumps(result.__dict__) + "\n")
                print(result, flush=True)
    table(results)


if __name__ == "__main__":
    main()
