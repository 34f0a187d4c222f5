"""Drawn label maps for the tests of `eval`: a prepared dataset of the toy hierarchy and predictions in folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from command_line import run
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.hierarchy_yaml import load_hierarchy

CITYSCAPES = load_hierarchy("cityscapes-19-7")
IDS = {CITYSCAPES.fine.find(str(name)): int(label_id) for label_id, name in CITYSCAPES.source("cityscapes").map.items()}
LabelMap = NDArray[np.uint8]


def blocks(rng: np.random.Generator, ids: list[int], size: tuple[int, int] = (24, 20)) -> LabelMap:
    """(H, W) blocks of 4 x 4 pixels."""
    return np.kron(rng.choice(ids, (size[0] // 4, size[1] // 4)), np.ones((4, 4))).astype(np.uint8)


def wrong_in_places(rng: np.random.Generator, truth: LabelMap, ids: list[int], share: float = 0.3) -> LabelMap:
    """The truth, some of its pixels replaced."""
    return np.where(rng.random(truth.shape) < share, rng.choice(ids, truth.shape), truth).astype(np.uint8)


def save(path: Path, ids: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def save_all(folder: Path, maps: Mapping[str, NDArray[Any]], suffix: str = "") -> Path:
    for name, ids in maps.items():
        save(folder / f"{name}{suffix}.png", ids)
    return folder


def draw_masks(raw: Path, names: list[str], seed: int = 0) -> dict[str, LabelMap]:
    """Photos and raw ids of the toy hierarchy (7 is `car` without a part, 255 ignored) in the layout of `masks`."""
    rng, maps = np.random.default_rng(seed), {}
    for name in names:
        maps[name] = blocks(rng, [*range(8), 255])
        save(raw / "val" / "images" / f"{name}.png", rng.integers(0, 256, (*maps[name].shape, 3)).astype(np.uint8))
        save(raw / "val" / "labels" / f"{name}.png", maps[name])
    return maps


def prepared_masks(root: Path, names: list[str], hierarchy: Path) -> Path:
    """`draw_masks` in `root/raw`, prepared in `root/data`."""
    draw_masks(root / "raw", names)
    result = run("prepare", "masks", root / "raw", root / "data", "--hierarchy", hierarchy, "--workers", 1)
    assert result.exit_code == 0, result.output
    return root / "data"


def draw_cityscapes(raw: Path, n: int = 3, seed: int = 0) -> dict[str, LabelMap]:
    """Frames of label ids, void ones among them, with instance maps and grey photos; by key."""
    rng, maps = np.random.default_rng(seed), {}
    for number in range(n):
        key = f"ulm/ulm_00000{number}_000019"
        ids = blocks(rng, [*IDS.values(), 0, 4], (32, 40))
        numbers = ids.astype(np.uint16)
        numbers[ids >= 24] = ids[ids >= 24] * np.uint16(1000) + blocks(rng, [0, 1, 2], (32, 40))[ids >= 24]
        save(raw / "gtFine" / "val" / f"{key}_gtFine_labelIds.png", ids)
        save(raw / "gtFine" / "val" / f"{key}_gtFine_instanceIds.png", numbers)
        save(raw / "leftImg8bit" / "val" / f"{key}_leftImg8bit.png", np.zeros((32, 40, 3), np.uint8))
        maps[key] = ids
    return maps
