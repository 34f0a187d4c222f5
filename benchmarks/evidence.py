"""Methods side by side on genuine data: equal network, data, budget and seeds; one line of scores for each run.

Run: python benchmarks/evidence.py SAMPLES OUT [--sets NAME ...] [--rows NAME ...] [--seeds N ...] [--fraction SHARE]

SAMPLES holds wbc/, carparts/, camvid/ and ccp/ in their published layouts. OUT/results.jsonl gets a line a run (row, set,
seed, scores of the last weights on the validation split); runs that it holds are not run again. The tables are printed.

Rows: `flat`, `flat-balanced` (flat with hiposeg's second cross entropy), `flat-prototypes` (no parents), `hssn`,
`hiposeg-paper`, `hiposeg` (the defaults, and what `train` plans for the method); the paper's ablation is `flat` (CE),
`coarse`, `fine`, `both`, `hiposeg-paper`.
With --fraction a row's name ends in the share of the training images, which take as many steps as half of all would.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import machine
from evidence_tables import Evidence, Scored, read_runs, tables

from hiposeg_cli.commands.evaluate import score_run
from hiposeg_cli.config import Layer, parse_assignment
from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.methods.hiposeg import HiPoSegOptions
from hiposeg_cli.methods.presets import preset_options
from hiposeg_cli.run import make_trainer, plan_run, write_run_files
from hiposeg_cli.run_config import resolve_config
from hiposeg_cli.store import Dataset, open_dataset

COMMON = {
    "net.architecture": "fpn", "optim.schedule": "poly", "optim.lr": 2e-3, "data.scale": [0.75, 1.5], "data.workers": 1,
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
    "ccp": Recipe("masks", "ccp-59-7", {"data.size": 192, "data.crop": [192, 128], "data.batch": 4, "optim.epochs": 8}),
}
PAPER = {"method.name": "hiposeg"} | {f"method.{name}": value for name, value in preset_options("hiposeg", "paper").items()}
NO_COARSE = {"method.lambda_fh": 0.0, "method.lambda_hh": 0.0}
NO_FINE = {"method.lambda_fl": 0.0, "method.lambda_ll": 0.0}
NO_ALIGN = {"method.lambda_align": 0.0}
ROWS: dict[str, dict[str, Any]] = {
    "flat": {"method.name": "flat"},
    "flat-balanced": {
        "method.name": "flat",
        "method.lambda_balanced": HiPoSegOptions().lambda_balanced,
        "method.pixels_per_class": HiPoSegOptions().pixels_per_class,
    },
    "flat-prototypes": {"method.name": "hiposeg", "method.levels": "fine"},
    "hssn": {"method.name": "hssn"},
    "hiposeg-paper": PAPER,
    "hiposeg": {"method.name": "hiposeg"},
    "coarse": PAPER | NO_FINE | NO_ALIGN,
    "fine": PAPER | NO_COARSE | NO_ALIGN,
    "both": PAPER | NO_ALIGN,
}
MAIN = ("flat", "hiposeg-paper", "hiposeg")


def prepared(samples: Path, out: Path, name: str) -> Dataset:
    folder, recipe = out / "data" / name, SETS[name]
    if not (folder / "dataset.json").exists():
        options = PrepareOptions(hierarchy=recipe.hierarchy, workers=2, val=recipe.val)
        prepare(recipe.format, samples / name, folder, options, resume=folder.exists())
    return open_dataset(folder)


def half_the_steps(dataset: Dataset, recipe: Recipe) -> int:
    settings = recipe.settings
    return int(len(dataset.split("train")) // settings["data.batch"] * settings["optim.epochs"] // 2)


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
    planned = plan_run(resolve_config(layers)).settings
    method = {key: value for key, value in planned.items() if key.startswith("method.")}
    config = resolve_config(layers, planned=Layer("plan", method))
    started = time.perf_counter()
    trainer, _ = make_trainer(config, run_dir)
    write_run_files(run_dir, config, dataset.hierarchy)
    trainer.run()
    seconds = time.perf_counter() - started
    leaf, summed = (score_run(run_dir, dataset.root, which="last", decode=decode) for decode in ("leaf", "sum"))
    fine_name, coarse_name = (level.name for level in dataset.hierarchy.levels[:2])
    fine = leaf["levels"][fine_name]
    ious = {entry["name"]: entry["iou"] for entry in fine["classes"]}
    rare = statistics.mean(ious[name] or 0.0 for name in rarest_third(dataset))
    return Scored(
        row, set_name, seed, fine=100 * fine["miou"], coarse=100 * leaf["levels"][coarse_name]["miou"], rare=100 * rare,
        severity=leaf["mistake_severity"], coarse_sum=100 * summed["levels"][coarse_name]["miou"],
        consistency=100 * summed["consistency"][coarse_name], seconds=seconds, settings=settings | method,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rows", nargs="+", default=list(MAIN), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training images")
    parser.add_argument("--variant", default="", help="name for runs with the settings of --set")
    parser.add_argument("--set", dest="extra", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    results_path = arguments.out / "results.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = read_runs(results_path)
    done = {(result.row, result.set, result.seed) for result in results}
    extra: dict[str, Any] = {}
    for text in arguments.extra:
        extra |= parse_assignment(text).values
    if arguments.fraction < 1:
        extra["data.fraction"] = arguments.fraction
        arguments.variant += f"@{100 * arguments.fraction:g}%"
    print(machine())
    for set_name in arguments.sets:
        for seed in arguments.seeds:
            for base in arguments.rows:
                row = base + arguments.variant
                if (row, set_name, seed) in done:
                    continue
                dataset = prepared(arguments.samples, arguments.out, set_name)
                if arguments.fraction < 1:
                    extra["optim.iterations"] = half_the_steps(dataset, SETS[set_name])
                result = run_once(dataset, arguments.out, row, set_name, seed, ROWS[base] | extra)
                results.append(result)
                with results_path.open("a") as file:
                    file.write(json.dumps(result.__dict__) + "\n")
                print(result, flush=True)
    print("\n\n".join(tables(Evidence(results))))


if __name__ == "__main__":
    main()
