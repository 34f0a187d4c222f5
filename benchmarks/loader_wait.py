"""Share of training that waits for the loader: time blocked in asking for a batch over wall time; limit 5 %.

The first steps, in which the loader's processes start and fill their queues, are left out. Nothing is written to the
dataset. Run: python benchmarks/loader_wait.py DATA [--steps 40] [--workers 2]   (a prepared dataset)
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from common import machine

from hiposeg_cli.config import Layer
from hiposeg_cli.learn.data import drawn_batches, living_workers
from hiposeg_cli.learn.loop import Trainer
from hiposeg_cli.run import make_trainer
from hiposeg_cli.run_config import resolve_config

WARM_UP = 5  # steps


def measured(trainer: Trainer, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of waiting and of the whole step, for every step after the first ones."""
    waits, totals = [], []
    with living_workers(trainer.workers, trainer.state_path), closing(drawn_batches(trainer._loader())) as batches:
        for _ in range(WARM_UP + steps):
            started = time.perf_counter()
            drawn = list(islice(batches, trainer.optim.accumulate))
            waits.append(time.perf_counter() - started)
            trainer._advance(drawn)
            totals.append(time.perf_counter() - started)
    return waits[WARM_UP:], totals[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="hiposeg")
    parser.add_argument("--net", default="fpn")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    settings = {
        "data.path": str(options.data.resolve()), "method.name": options.method, "net.architecture": options.net,
        "net.backbone": options.backbone, "net.weights": "none", "data.crop": options.crop, "data.batch": options.batch,
        "data.workers": options.workers, "loop.device": options.device, "loop.val_every": 1_000_000,
        "optim.iterations": 2 * (WARM_UP + options.steps),  # the half that is measured ends in the last stage's terms
    }  # fmt: skip
    config = resolve_config([Layer("--benchmark", settings)])
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = make_trainer(config, Path(folder))
        waits, totals = measured(trainer, options.steps)
    busy, cores = os.getloadavg()[0], os.cpu_count()
    print(
        f"waiting for {options.workers} loader processes: {100 * sum(waits) / sum(totals):.1f} % of {options.steps} steps "
        f"(limit 5 %)\n"
        f"  median wait {1000 * statistics.median(waits):.1f} ms, longest {1000 * max(waits):.0f} ms, "
        f"of a median step of {1000 * statistics.median(totals):.0f} ms\n"
        f"  {options.method}, {options.net} {options.backbone}, crop {options.crop}, batch {options.batch}, "
        f"{options.device} with {torch.get_num_threads()} threads\n"
        f"  {options.data.name}; {machine()}; load {busy:.1f} on {cores} cores, this run included"
    )


if __name__ == "__main__":
    main()
