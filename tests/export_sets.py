"""Tiny prepared datasets for the export tests, and their labels read back without hiposeg."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from raw_sets import ids_png, masks_set

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.exports.base import ExportOptions
from hiposeg_cli.exports.export import Exported, export
from hiposeg_cli.store import open_dataset

Ids = NDArray[np.int64]
FINE = ["background", "wheel", "window", "body", "left_light", "right_light", "sky"]
COARSE = ["background", "car", "sky"]
ODD_NAMES = ["car: wheel", "naïve, ünï", "日本", "#hash", 'a "quoted" \\ name']
WIDE_COARSE = ["thing: one", "two", "c7"]  # c7 is also the name of a fine class, one of many children of "two"
N_WIDE = 300


def blocks(seed: int, height: int = 24, width: int = 30) -> NDArray[np.uint8]:
    """Random 3x3 blocks of the toy source's ids 0..6, 7 (car without a part) and a line of 255 (ignore)."""
    ids = np.random.default_rng(seed).integers(0, 8, (height // 3, width // 3))
    full = np.kron(ids, np.ones((3, 3), np.int64)).astype(np.uint8)
    full[0, :5] = 255
    return full


def toy_data(root: Path, hierarchy: Path) -> Path:
    """Splits train (a, `b c`, sub/d), val (a, v) and test (t); two images share a name across splits."""
    masks_set(root / "raw", {"a": blocks(1), "b c": blocks(2, 21, 33), "sub/d": blocks(3)}, split="train")
    masks_set(root / "raw", {"a": blocks(4), "v": blocks(5)}, split="val")
    masks_set(root / "raw", {"t": blocks(6)}, split="test")
    prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(hierarchy)))
    return root / "data"


def wide_data(root: Path) -> Path:
    """300 fine classes in 16 bit, names that need quoting everywhere, no background, colours shared by many classes."""
    names = [*ODD_NAMES, *(f"c{number}" for number in range(len(ODD_NAMES), N_WIDE))]
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    parents = [json.dumps(name, ensure_ascii=False) for name in WIDE_COARSE]
    lines = ["schema: hiposeg/hierarchy@1", "name: wide", "levels: [fine, coarse]", "classes:", "  coarse:"]
    lines += [f"    - {{id: {k}, name: {name}}}" for k, name in enumerate(parents)]
    lines += ["  fine:"]
    lines += [
        f"    - {{id: {k}, name: {q}, parent: {parents[k % 3]}, color: [{k % 7}, 3, 4]}}" for k, q in enumerate(quoted)
    ]
    lines += ["sources:", "  masks:", "    ignore: [65535]", "    map:"]
    lines += [f"      {k}: {name}" for k, name in enumerate(quoted)] + ["      400: {coarse: two}"]
    (root / "wide.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    generator = np.random.default_rng(0)
    for split, keys in (("train", "ab"), ("val_2", "c")):
        maps = {}
        for key in keys:
            ids = np.kron(generator.choice([*range(N_WIDE), 400, 65535], (8, 10)), np.ones((3, 3), np.int64))
            ids[:2], ids[2, :4], ids[2, 4:8] = generator.integers(0, N_WIDE, (2, 30)), 400, 65535
            maps[key] = ids.astype(np.uint16)
        masks_set(root / "raw", maps, split=split)
    prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(root / "wide.yaml")))
    return root / "data"


def add_instances(data: Path, numbers: dict[tuple[str, str], NDArray[np.uint16]]) -> None:
    """Give some images of a prepared dataset object numbers, as `prepare --instances` would."""
    for (split, key), array in numbers.items():
        path = ids_png(data / "labels" / "inst" / split / f"{key}.png", array)
        manifest = data / "manifest" / f"{split}.jsonl"
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        for row in rows:
            if row["key"] == key:
                row["inst_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))


def labels_of(data: Path, level: str) -> dict[tuple[str, str], Ids]:
    """(split, key) -> (H, W) ids with -1 for ignore, straight from the PNGs."""
    folder = data / "labels" / level
    found = {}
    for path in sorted(folder.rglob("*.png")):
        split, *rest = path.relative_to(folder).with_suffix("").parts
        stored = np.array(Image.open(path))
        ids = stored.astype(np.int64)
        ids[stored == (255 if stored.dtype == np.uint8 else 65535)] = -1
        found[split, "/".join(rest)] = ids
    return found


def photos_of(data: Path) -> dict[tuple[str, str], Path]:
    """(split, key) -> the photo that was prepared."""
    root = Path(json.loads((data / "dataset.json").read_text())["images_root"])
    lines = [line for path in sorted((data / "manifest").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return {(row["split"], row["key"]): root / row["image_path"] for row in map(json.loads, lines)}


def write(
    data: Path, layout: str, out: Path, *, level: str | None = None, splits: tuple[str, ...] = (),
    images: str | None = None, workers: int = 1, overwrite: bool = False,
) -> Exported:  # fmt: skip
    """Export a prepared dataset through the library."""
    return export(open_dataset(data), layout, out, ExportOptions(level, splits, images, workers), overwrite=overwrite)
