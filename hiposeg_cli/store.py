"""A prepared dataset on disk (hiposeg-prepared v1), opened with its hierarchy checked; `writer` writes it.

Layout: dataset.json, hierarchy.yaml, labels/{fine,coarse[,inst]}/SPLIT/KEY.png, manifest/SPLIT.jsonl, splits/SPLIT.txt,
report.json. Photos stay where they are, relative to `images_root`, unless they were copied to images/SPLIT/.
`dataset.json` is written last, so its presence means the dataset is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.image_file import MAX_PIXELS, pixel_limit, read_rgb
from hiposeg_cli.labelmap import TwoLevelMap, largest_id, lift, read_label_png, write_label_png

logger = logging.getLogger(__name__)
FORMAT_VERSION = 1
_LARGE_PX = 1_000_000  # label maps from this size on are compressed side by side
STATE = ".state.jsonl"  # of an unfinished run; shards append their number


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest; sizes in pixels, counts by class id as text keys (JSON).

    `inst_sha256` is empty where no instance numbers were kept.
    """

    key: str
    split: str
    image_path: str
    image_sha256: str
    width: int
    height: int
    fine_sha256: str
    coarse_sha256: str
    fine_counts: dict[str, int]
    coarse_counts: dict[str, int]
    ignore_px: int
    coarse_only_px: int
    n_objects: int
    overlap_px: int
    part_overlap_px: int
    uncovered_px: int
    source: str
    warnings: list[str]
    inst_sha256: str = ""

    def as_json(self) -> str:
        """One line of a manifest."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    def allowed(self) -> AbstractContextManager[None]:
        """Lets files of this image's size be opened, as whoever prepared it did."""
        n_pixels = self.width * self.height
        return pixel_limit(n_pixels if n_pixels > MAX_PIXELS else None)

    def label_hashes(self) -> dict[str, str]:
        """Kind of label map -> sha256 of its file."""
        hashes = {"fine": self.fine_sha256, "coarse": self.coarse_sha256, "inst": self.inst_sha256}
        return {kind: value for kind, value in hashes.items() if value}


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def label_path(root: Path, level: str, split: str, key: str) -> Path:
    """Where the label PNG of one image lies; `level` is `fine`, `coarse` or `inst`."""
    return root / "labels" / level / split / f"{key}.png"


def write_labels(
    root: Path, split: str, key: str, labels: TwoLevelMap, instances: NDArray[np.uint16] | None = None
) -> dict[str, str]:
    """Write the label PNGs of one image; returns the sha256 of each as a `Row` names them."""
    maps = {"fine": labels.fine, "coarse": labels.coarse} | ({} if instances is None else {"inst": instances})

    def write(kind: str) -> str:
        return write_label_png(label_path(root, kind, split, key), maps[kind])

    if labels.fine.size < _LARGE_PX:
        return {f"{kind}_sha256": write(kind) for kind in maps}
    with ThreadPoolExecutor(len(maps)) as pool:  # compression does not hold the interpreter's lock
        return {f"{kind}_sha256": digest for kind, digest in zip(maps, pool.map(write, maps), strict=True)}


@dataclass(frozen=True)
class Dataset:
    """A complete prepared dataset, opened for reading."""

    root: Path
    hierarchy: Hierarchy
    images_root: Path
    rows: dict[str, tuple[Row, ...]]
    coarse_is_function_of_fine: bool

    def split(self, name: str) -> tuple[Row, ...]:
        """Rows of one split. Raises DataError naming the splits there are."""
        if name not in self.rows:
            raise DataError(self.root, f"has no split {name!r}", did_you_mean(name, self.rows))
        return self.rows[name]

    def digest(self, name: str) -> str:
        """sha256 over the tree and over keys, photos and labels of one split: equal digests mean equal scores."""
        digest = hashlib.sha256(self.hierarchy.digest.encode())
        for row in sorted(self.split(name), key=lambda row: row.key):
            digest.update(json.dumps([row.key, row.image_sha256, row.fine_sha256, row.coarse_sha256]).encode())
        return digest.hexdigest()

    @property
    def training_digest(self) -> str:
        """`digest` of the training and validation images, as far as there are any."""
        return "-".join(self.digest(split) for split in ("train", "val") if split in self.rows)

    def image(self, row: Row) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(H, W, 3) uint8 photo of a row. Raises DataError when it is gone or its size changed."""
        path = self.images_root / row.image_path
        if not path.is_file():
            raise DataError(
                path, "photo of the prepared dataset is missing",
                f"put the raw data back, or set `images_root` in {self.root / 'dataset.json'}",
            )  # fmt: skip
        with row.allowed():
            image = read_rgb(path)
        if image.shape[:2] != (row.height, row.width):
            raise DataError(
                path, f"is {image.shape[1]}x{image.shape[0]}, prepared as {row.width}x{row.height}", "prepare again"
            )
        return image

    def labels(self, row: Row) -> TwoLevelMap:
        """Both label maps of a row; coarse is looked up where it is a function of fine.

        Raises: DataError when a file is gone, of another size, or holds an id beyond the hierarchy.
        """
        path = label_path(self.root, "fine", row.split, row.key)
        with row.allowed():
            fine = read_label_png(path)
        if fine.shape != (row.height, row.width):
            raise DataError(
                path, f"is {fine.shape[1]}x{fine.shape[0]}, prepared as {row.width}x{row.height}", "prepare again"
            )
        if self.coarse_is_function_of_fine and largest_id(fine) < self.hierarchy.n_fine:
            return TwoLevelMap(fine, lift(fine, self.hierarchy))
        with row.allowed():
            labels = TwoLevelMap(fine, read_label_png(label_path(self.root, "coarse", row.split, row.key)))
        labels.check_ids(self.hierarchy, path)
        return labels

    def instances(self, row: Row) -> NDArray[np.uint16] | None:
        """(H, W) uint16 object numbers, 0 for none; None where they were not kept. Raises DataError as `labels` does."""
        if not row.inst_sha256:
            return None
        path = label_path(self.root, "inst", row.split, row.key)
        with row.allowed():
            numbers = read_label_png(path).astype(np.uint16)
        if numbers.shape != (row.height, row.width):
            raise DataError(
                path, f"is {numbers.shape[1]}x{numbers.shape[0]}, prepared as {row.width}x{row.height}", "prepare again"
            )
        return numbers


def open_dataset(root: Path) -> Dataset:
    """Open a prepared dataset. Raises DataError when it is missing, unfinished or altered."""
    about_path, hierarchy_path = root / "dataset.json", root / "hierarchy.yaml"
    if not about_path.is_file():
        if any(root.glob(f"{STATE}*")):
            raise DataError(root, "is an unfinished preparation", "run `hiposeg prepare` again with --resume")
        raise DataError(root, "is not a prepared dataset (no dataset.json)", "run `hiposeg prepare FORMAT SRC OUT` first")
    about = read_json(about_path)
    if about.get("format") != "hiposeg-prepared" or about.get("format_version") != FORMAT_VERSION:
        raise DataError(about_path, "is not a hiposeg-prepared v1 dataset", "prepare the data with this version")
    for key in ("hierarchy_sha256", "hierarchy_digest", "splits", "images_root", "coarse_is_function_of_fine"):
        if key not in about:
            raise DataError(about_path, f"lacks {key!r}", "prepare the data again")
    if not isinstance(about["splits"], dict) or not isinstance(about["images_root"], str):
        raise DataError(about_path, "was changed by hand (`splits` or `images_root`)", "prepare the data again")
    hierarchy = load_hierarchy(hierarchy_path)
    if sha256_file(hierarchy_path) != about["hierarchy_sha256"]:
        raise DataError(hierarchy_path, "was changed after the dataset was prepared", "prepare the data again")
    rows: dict[str, tuple[Row, ...]] = {}
    for split in about["splits"]:
        path = root / "manifest" / f"{split}.jsonl"
        rows[split] = read_rows(path)
        if len(rows[split]) != about["splits"][split]:
            raise DataError(path, f"lists {len(rows[split])} images, not {about['splits'][split]}", "prepare the data again")
    images_root = Path(about["images_root"])
    if not images_root.is_absolute():
        images_root = root / images_root
    logger.info("%s: hierarchy %s, images in %s", root, hierarchy.name, images_root)
    return Dataset(root, hierarchy, images_root, rows, bool(about["coarse_is_function_of_fine"]))


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a manifest. Raises DataError when it cannot be read."""
    try:
        return tuple(Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, TypeError) as error:
        raise DataError(path, f"cannot be read ({error})", "prepare the data again") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object written by hiposeg. Raises DataError when it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", "prepare the data again") from None
    if not isinstance(data, dict):
        raise DataError(path, "is not a JSON object", "prepare the data again")
    return data
