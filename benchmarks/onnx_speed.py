"""An exported network against the network it is of, on the CPU: forward passes of eager torch and of onnxruntime.

Both get the same pictures, which lie in memory, and the same number of threads; they take turns, so that both meet the
same disturbances. Pictures are noise: neither engine is faster on one picture than on another.

Run: python benchmarks/onnx_speed.py RUN [--sizes 320x240,640x480] [--batch 1] [--threads 2] [--rounds 15]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common import machine
from torch import Tensor, nn

from hiposeg_cli.infer.model import Model, load_model
from hiposeg_cli.infer.portable import export_network


@dataclass(frozen=True)
class Turns:
    """Seconds of each round."""

    torch: list[float]
    onnx: list[float]

    def __str__(self) -> str:
        ratio = np.median([ours / theirs for ours, theirs in zip(self.torch, self.onnx, strict=True)])
        ours, theirs = (
            f"median {np.median(times) * 1e3:.1f}, lowest {min(times) * 1e3:.1f} ms" for times in (self.torch, self.onnx)
        )
        return f"torch {ours}; onnxruntime {theirs}; {ratio:.2f}x as fast (median of rounds)"


def exported(model: Model, folder: Path) -> Model:
    """The model through an ONNX file."""
    photos = [np.random.default_rng(seed).integers(0, 256, (240, 320, 3), dtype=np.uint8) for seed in range(2)]
    path = folder / "net.onnx"
    print(f"export: {export_network(model, 'onnx', path, photos)}")
    return load_model(path)


@torch.inference_mode()
def compare(ours: nn.Module, theirs: nn.Module, images: Tensor, rounds: int) -> Turns:
    """Forward passes in turns, after three to warm up."""
    turns = Turns([], [])
    for number in range(-3, rounds):
        for net, times in ((ours, turns.torch), (theirs, turns.onnx)):
            started = time.perf_counter()
            net(images)
            if number >= 0:
                times.append(time.perf_counter() - started)
    return turns


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="run folder or .safetensors weights")
    parser.add_argument("--sizes", default="320x240,640x480")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = load_model(chosen.run, device="cpu")
    about, versions = model.checkpoint.about, f"torch {torch.__version__}, onnxruntime {version('onnxruntime')}"
    print(f"{machine()}, {versions}, {chosen.threads} threads; {about['architecture']} over {about['backbone']}")
    with tempfile.TemporaryDirectory() as folder:
        other = exported(model, Path(folder))
        for size in chosen.sizes.split(","):
            width, height = map(int, size.split("x"))
            images = torch.randint(0, 256, (chosen.batch, 3, height, width), dtype=torch.uint8)
            print(f"{size}, batch {chosen.batch}: {compare(model.net, other.net, images, chosen.rounds)}", flush=True)


if __name__ == "__main__":
    main()
