"""Cost of a HiPoSeg step over a flat step: same network, same batch, interleaved in one run.

Every term is on (the last stage of the curriculum). Run: python benchmarks/step_time.py [--net fpn] [--steps 30]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from common import machine

from hiposeg_cli.config import Layer
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.device import pick_device
from hiposeg_cli.learn.method import Progress
from hiposeg_cli.learn.schedule import build_optimizer
from hiposeg_cli.run import build_parts
from hiposeg_cli.run_config import resolve_config


def blocky_labels(batch: int, size: int, n_classes: int, cell: int = 16) -> torch.Tensor:
    """(B, H, W) int64 labels in patches, so that every class occurs as in a photo."""
    small = torch.randint(0, n_classes, (batch, size // cell, size // cell), generator=torch.Generator().manual_seed(0))
    return small.repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="deeplabv3plus")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--hierarchy", default="demo")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device, hierarchy = pick_device(options.device), load_hierarchy(options.hierarchy)
    fine = blocky_labels(options.batch, options.size, hierarchy.n_fine)
    image = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8)
    batch = Batch(image, fine, torch.from_numpy(hierarchy.parent)[fine]).to(device)
    seconds: dict[str, list[float]] = {"flat": [], "hiposeg": []}
    steps = {}
    for method in seconds:
        settings = {
            "method.name": method,
            "net.architecture": options.net,
            "net.backbone": options.backbone,
            "net.weights": "none",
        }
        config = resolve_config([Layer("--benchmark", settings)])
        parts = build_parts(config, hierarchy)
        net, learner = parts.net.to(device).train(), parts.method.to(device).train()
        steps[method] = (net, learner, build_optimizer(net, learner, config.optim))
    for number in range(options.steps + 2):
        for method, (net, learner, optimizer) in steps.items():
            started = time.perf_counter()
            loss = learner.losses(batch, net(batch.image), Progress(number + 90, 100)).total
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            learner.after_step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 2:
                seconds[method].append(time.perf_counter() - started)
    median = {method: statistics.median(values) for method, values in seconds.items()}
    best = {method: min(values) for method, values in seconds.items()}
    print(
        f"step at {options.size}x{options.size}, batch {options.batch}, {options.net} {options.backbone}, {device} "
        f"({machine()}), {options.steps} steps each, interleaved; limit 1.10\n"
        f"  median: flat {1000 * median['flat']:.0f} ms, hiposeg {1000 * median['hiposeg']:.0f} ms, "
        f"ratio {median['hiposeg'] / median['flat']:.3f}\n"
        f"  best:   flat {1000 * best['flat']:.0f} ms, hiposeg {1000 * best['hiposeg']:.0f} ms, "
        f"ratio {best['hiposeg'] / best['flat']:.3f}"
    )


if __name__ == "__main__":
    main()
