"""Reading a prepared dataset beside a plain torch dataset over the raw PNGs of the same frames, one process, taking turns.

The plain dataset does what most training code does: open photo and `labelIds` PNG with Pillow, look trainIds up, and make
tensors. Run: python benchmarks/load_speed.py SAMPLES   (the folder that holds cityscapes/)
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from common import machine
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.store import open_dataset

warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class Plain(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Photos and labels straight from the raw folders."""

    def __init__(self, root: Path) -> None:
        self.labels = sorted((root / "gtFine").rglob("*_labelIds.png"))
        self.photos = sorted((root / "leftImg8bit").rglob("*.png"))
        hierarchy = load_hierarchy("cityscapes-19-7")
        self.table = np.full(256, 255, np.uint8)
        for label_id, name in hierarchy.source("cityscapes").map.items():
            fine_id = hierarchy.fine.find(name)
            self.table[int(label_id)] = 255 if fine_id is None else fine_id

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        photo = np.array(Image.open(self.photos[index]).convert("RGB"))
        return torch.from_numpy(photo), torch.from_numpy(self.table[np.array(Image.open(self.labels[index]))])

    def __len__(self) -> int:
        return len(self.labels)


def main() -> None:
    root = Path(sys.argv[1]) / "cityscapes"
    with tempfile.TemporaryDirectory() as folder:
        prepare("cityscapes", root, Path(folder) / "data", PrepareOptions())
        dataset = open_dataset(Path(folder) / "data")
        rows, plain = dataset.split("train"), Plain(root)
        times: dict[str, list[float]] = {
            "prepared, two levels": [],
            "plain, one level": [],
            "labels prepared": [],
            "labels plain": [],
        }
        for _ in range(5):
            for name, act in {
                "prepared, two levels": lambda k: (torch.from_numpy(dataset.image(rows[k])), dataset.labels(rows[k])),
                "plain, one level": lambda k: plain[k],
                "labels prepared": lambda k: dataset.labels(rows[k]),
                "labels plain": lambda k: plain.table[np.array(Image.open(plain.labels[k]))],
            }.items():
                started = time.perf_counter()
                for k in range(len(rows)):
                    act(k)
                times[name].append((time.perf_counter() - started) / len(rows))
        print(f"{len(rows)} frames of 2048x1024; {machine()}")
        for name, seconds in times.items():
            print(f"{name}: {1000 * min(seconds):.1f} ms an image")


if __name__ == "__main__":
    main()
