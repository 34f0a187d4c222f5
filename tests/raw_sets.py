"""Tiny raw datasets in their published layouts, drawn by script."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.uint8]  # (H, W), 0 or 1
VOC_IND = {"boat": 4, "bus": 6, "car": 7, "cat": 8, "person": 15, "tvmonitor": 20}


def box(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Mask:
    """(H, W) uint8, 1 in rows top..bottom-1 and columns left..right-1."""
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def photo(path: Path, shape: tuple[int, int], seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def ids_png(path: Path, ids: NDArray[Any] | Sequence[Sequence[int]], *, palette: bool = False) -> Path:
    """Write ids as 8-bit grey, as palette indices, or (for a uint16 array) as 16-bit grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(ids) if isinstance(ids, np.ndarray) else np.array(ids, np.uint8)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([value for k in range(256) for value in (255 - k, k, 7 * k % 256)])
    image.save(path)
    return path


def masks_set(root: Path, labels: Mapping[str, NDArray[Any]], *, split: str = "train") -> Path:
    """SPLIT/images/KEY.jpg with SPLIT/labels/KEY.png."""
    for number, (key, ids) in enumerate(labels.items()):
        photo(root / split / "images" / f"{key}.jpg", (ids.shape[0], ids.shape[1]), seed=number)
        ids_png(root / split / "labels" / f"{key}.png", ids)
    return root


# -- PASCAL-Part -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RawObject:
    """One object of a PASCAL-Part file; `class_ind` None takes the right one."""

    name: str
    mask: Any
    parts: tuple[tuple[str, Any], ...] = ()
    class_ind: Any = None


def mat(path: Path, objects: Sequence[RawObject], **anno_fields: Any) -> Path:
    """Write one annotation with MATLAB's nesting: a 1x1 struct `anno`, 1xN objects, 1xM parts or 0x0 for none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.zeros((1, len(objects)), [(field, object) for field in ("class", "class_ind", "mask", "parts")])
    for number, entry in enumerate(objects):
        shape = (1, len(entry.parts)) if entry.parts else (0, 0)
        parts = np.zeros(shape, [("part_name", object), ("mask", object)])
        for place, part in enumerate(entry.parts):
            parts[0, place] = part
        class_ind = VOC_IND.get(entry.name, 1) if entry.class_ind is None else entry.class_ind
        rows[0, number] = (entry.name, np.uint8(class_ind) if isinstance(class_ind, int) else class_ind, entry.mask, parts)
    fields = {"imname": path.stem, "objects": rows} | anno_fields
    scipy.io.savemat(path, {"anno": fields}, do_compression=True)
    return path


def pascal_set(root: Path, objects: Sequence[RawObject], shape: tuple[int, int], stem: str = "2008_000001") -> Path:
    photo(root / "JPEGImages" / f"{stem}.jpg", shape)
    mat(root / "Annotations_Part" / f"{stem}.mat", objects)
    return root


# -- COCO --------------------------------------------------------------------------------------------------------------


def coco_json(
    annotations: Sequence[Mapping[str, Any]],
    shape: tuple[int, int] = (6, 8),
    names: Sequence[str] = ("wheel", "body", "sky"),
    images: Sequence[str] = ("a.jpg",),
) -> dict[str, Any]:
    """An instances JSON; annotations default to image 1, ids 1.., and no crowd."""
    defaults = {"image_id": 1, "iscrowd": 0, "category_id": 1}
    return {
        "images": [
            {"id": number, "file_name": name, "height": shape[0], "width": shape[1]}
            for number, name in enumerate(images, start=1)
        ],
        "annotations": [{"id": k, **defaults, **entry} for k, entry in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }


def coco_set(root: Path, data: dict[str, Any] | str | bytes, shape: tuple[int, int] = (6, 8)) -> Path:
    """annotations/instances_train2017.json with train2017/*.jpg of one size."""
    names = [image["file_name"] for image in data["images"]] if isinstance(data, dict) else ["a.jpg"]
    for number, name in enumerate(names):
        if ".." not in name and not name.startswith(("/", "C:")) and "\\" not in name:
            photo(root / "train2017" / name, shape, seed=number)
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data) if isinstance(data, dict) else data
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A polygon that pycocotools fills half-open: columns left..right-1, rows top..bottom-1."""
    return [left, top, right, top, right, bottom, left, bottom]


# -- PNG, byte by byte -------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def grey_png(width: int, height: int, depth: int, packed_rows: Sequence[bytes]) -> bytes:
    """A greyscale PNG of any bit depth from rows of packed samples."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in packed_rows))
    parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", data), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def files_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
