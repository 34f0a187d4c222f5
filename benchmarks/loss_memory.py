"""Peak memory of the losses of one step, beyond what the network itself gives: methods against cross entropy alone.

Each case runs in a process of its own, whose resident memory is read before the losses, after them, and after their
backward pass. One unit is a float32 for each pixel of the image and fine class, the size of the softmax (1.17 GiB by
default). Run: python benchmarks/loss_memory.py (needs 8 GiB)
"""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine
from torch import Tensor

from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.method import Context, Method, Progress
from hiposeg_cli.methods.flat import Flat, FlatOptions
from hiposeg_cli.methods.hiposeg import HiPoSeg, HiPoSegOptions

SCALE_DIMS, SCALE_STRIDES = (24, 40, 112, 320), (4, 8, 16, 32)


@dataclass(frozen=True)
class Case:
    """A method with its options, on batches with or without pixels that have a coarse label only."""

    name: str
    method: Callable[..., Method]
    options: Any
    partial: bool = False


REMEDIES = HiPoSegOptions(
    lambda_coarse=1.0, lambda_balanced=1.0, class_weights=0.5, embedding="multi-scale", pixel_sampling="boundary"
)
CASES = (
    Case("flat", Flat, FlatOptions()),
    Case("hiposeg", HiPoSeg, HiPoSegOptions()),
    Case("hiposeg, all pixels", HiPoSeg, HiPoSegOptions(pixel_sampling="all")),
    Case("flat, partial labels", Flat, FlatOptions(partial_labels=True), partial=True),
    Case("hiposeg, partial labels", HiPoSeg, HiPoSegOptions(), partial=True),
    Case("flat, lambda_coarse", Flat, FlatOptions(lambda_coarse=1.0)),
    Case("hiposeg, all remedies", HiPoSeg, REMEDIES),
)


@dataclass(frozen=True)
class Peaks:
    """Bytes beyond those before the losses: most of the forward pass, left by it, and most of both passes."""

    forward: int
    kept: int
    both: int


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def most_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peaks_of(case: Case, options: argparse.Namespace) -> Peaks:
    tree = tree_of(*options.classes)
    context = Context(SCALE_DIMS, tuple(np.arange(1, len(level) + 1) for level in tree.levels))
    method = case.method(tree, options.dim, case.options, context).train()
    batch = batch_of(tree, options.batch, options.image, partial=case.partial)
    output = output_of(options.batch, tree.n_fine, options)
    small = (torch.ones(8, 8, requires_grad=True) @ torch.ones(8, 8)).sum()
    small.backward()  # torch's own start
    before = resident()
    terms = method.losses(batch, output, Progress(99, 100))
    forward, kept = most_resident(), resident()
    terms.total.backward()
    return Peaks(forward - before, kept - before, most_resident() - before)


def tree_of(n_fine: int, n_coarse: int) -> Hierarchy:
    """Two levels with families of nearly equal size."""
    coarse = tuple(ClassNode(i, f"c{i}", (0, 0, 0)) for i in range(n_coarse))
    fine = tuple(ClassNode(j, f"f{j}", (0, 0, 0), parent=f"c{j % n_coarse}") for j in range(n_fine))
    return Hierarchy("benchmark", (Level("fine", fine), Level("coarse", coarse)))


def batch_of(tree: Hierarchy, n_images: int, size: Sequence[int], *, partial: bool) -> Batch:
    """Labels in patches of 16 px; with `partial` every second row of pixels has a coarse label only."""
    H, W = size
    small = torch.randint(0, tree.n_fine, (n_images, H // 16, W // 16), generator=torch.Generator().manual_seed(0))
    fine = small.repeat_interleave(16, 1).repeat_interleave(16, 2)
    coarse = torch.from_numpy(tree.parent)[fine]
    if partial:
        fine[:, ::2] = IGNORE
    return Batch(torch.zeros(n_images, 3, 1, 1, dtype=torch.uint8), fine, coarse, partial=partial)


def output_of(n_images: int, n_fine: int, options: argparse.Namespace) -> Output:
    (H, W), (h, w) = options.image, options.grid

    def trained(channels: int, rows: int, columns: int) -> Tensor:
        return torch.randn(n_images, channels, rows, columns).requires_grad_()

    scales = tuple(trained(d, H // s, W // s) for d, s in zip(SCALE_DIMS, SCALE_STRIDES, strict=True))
    return Output(trained(n_fine, h, w), trained(options.dim, h, w), (H, W), (H, W), scales)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs=2, default=(150, 15), metavar=("FINE", "COARSE"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--image", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--grid", type=int, nargs=2, default=(128, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--dim", type=int, default=256, help="channels of the embedding")
    options = parser.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # read by the processes below: glibc gives back what is freed
    H, W = options.image
    unit = 4 * options.batch * options.classes[0] * H * W
    print(
        f"{options.batch} images of {H}x{W} px, {options.classes[0]} + {options.classes[1]} classes, embeddings "
        f"{options.dim}x{options.grid[0]}x{options.grid[1]} ({machine()}); unit: {unit / 2**30:.2f} GiB\n"
        f"{'':26}forward   kept   both passes"
    )
    for case in CASES:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            peaks = apart.submit(peaks_of, case, options).result()
        row = f"{peaks.forward / unit:7.2f}{peaks.kept / unit:7.2f}{peaks.both / unit:14.2f}"
        print(f"{case.name:26}{row}", flush=True)


if __name__ == "__main__":
    main()
