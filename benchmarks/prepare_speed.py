"""Converting COCO and Cityscapes beside the field's own tools, in one run, on genuine files where they are given.

COCO: painting an image's annotations against painting `annToMask` one by one (same rule, equal to the pixel), and the whole
of `prepare` against the pure cost of decoding the photos and encoding the label PNGs. Cityscapes: label maps by look-up
against cityscapesScripts' json2labelImg (polygons traced from genuine label maps or drawn, since the samples have none).

Run: python benchmarks/prepare_speed.py SAMPLES   (the folder that holds coco_instances/)
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import best_of, machine
from PIL import Image

from hiposeg_cli.convert import PrepareOptions, open_reader, prepare
from hiposeg_cli.exports.contours import area, regions_of
from hiposeg_cli.formats.cityscapes import LABELS
from hiposeg_cli.formats.coco import Coco
from hiposeg_cli.labelmap import PNG_LEVEL, png_bytes, read_label_png
from hiposeg_cli.store import label_path, open_dataset, write_labels

warnings.filterwarnings("ignore", message="__array__", category=DeprecationWarning)


def coco(source: Path, folder: Path) -> None:
    from pycocotools.coco import COCO

    reader = open_reader("coco", source, PrepareOptions(hierarchy="coco-81-13"))
    assert isinstance(reader, Coco)
    items = reader.items()
    sizes = {item.key: Image.open(item.image_path).size[::-1] for item in items}
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(next((source / "annotations").glob("instances_*.json"))))

    def ours() -> list[np.ndarray]:
        return [reader.paint(item, sizes[item.key]).ids for item in items]

    def peer() -> list[np.ndarray]:
        return [_one_by_one(api, int(item.source.rpartition(":")[2]), sizes[item.key]) for item in items]

    free = max(api.getCatIds()) + 1
    for mine, theirs in zip(ours(), peer(), strict=True):
        assert np.array_equal(np.where(mine == free + 1, 255, mine), np.where(theirs == 0, free, theirs))
    mine_s, peer_s = _interleaved(ours, peer)
    n = len(items)
    print(
        f"COCO, {n} images, {len(api.anns)} annotations: painting {1000 * mine_s / n:.2f} ms an image, annToMask one by one"
    )
    print(f"  {1000 * peer_s / n:.2f} ms: {peer_s / mine_s:.2f}x, equal to the pixel")
    _whole_prepare("coco", _enlarged(source, folder / "many"), folder, "coco-81-13")


def _one_by_one(api: object, image_id: int, size: tuple[int, int]) -> np.ndarray:
    """The usual loop: one mask of the whole image for each annotation, small ones last."""
    annotations = api.loadAnns(api.getAnnIds(imgIds=[image_id]))  # type: ignore[attr-defined]
    masks = [(entry, api.annToMask(entry)) for entry in annotations]  # type: ignore[attr-defined]
    ids = np.zeros(size, dtype=np.int32)
    for entry, mask in sorted(masks, key=lambda pair: (-int(pair[1].sum()), pair[0]["id"])):
        if not entry["iscrowd"]:
            ids[mask == 1] = entry["category_id"]
    for entry, mask in masks:
        if entry["iscrowd"]:
            ids[(mask == 1) & (ids == 0)] = 255
    return ids


def _enlarged(source: Path, root: Path, times: int = 10) -> Path:
    """The same set several times over, by links, so that what a run costs once does not show."""
    (json_path,) = (source / "annotations").glob("instances_*.json")
    data = json.loads(json_path.read_text())
    photos = {path.name: path for path in source.rglob("*.jpg")}
    shift = max(entry["id"] for entry in [*data["images"], *data["annotations"]]) + 1
    many: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": data["categories"]}
    for number in range(times):
        for image in data["images"]:
            name = f"{number}_{image['file_name']}"
            many["images"].append({**image, "id": image["id"] + number * shift, "file_name": name})
            (root / "train2017").mkdir(parents=True, exist_ok=True)
            (root / "train2017" / name).write_bytes(photos[image["file_name"]].read_bytes())
        for entry in data["annotations"]:
            moved = {"id": entry["id"] + number * shift, "image_id": entry["image_id"] + number * shift}
            many["annotations"].append({**entry, **moved})
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(many))
    return root


def _interleaved(one: Callable[[], object], two: Callable[[], object], repeats: int = 5) -> tuple[float, float]:
    """Best times of two acts that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for act, seconds in zip((one, two), times, strict=True):
            started = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


def _whole_prepare(format_name: str, source: Path, folder: Path, hierarchy: str) -> None:
    options = {n: PrepareOptions(hierarchy=hierarchy, workers=n) for n in (1, 2)}
    prepare(format_name, source, folder / "first", options[1])
    dataset = open_dataset(folder / "first")
    rows = [row for split in dataset.rows.values() for row in split]
    maps = [dataset.labels(row) for row in rows]

    def pure(encode: Callable[[np.ndarray], bytes]) -> None:
        for row, labels in zip(rows, maps, strict=True):
            Image.open(dataset.images_root / row.image_path).load()
            for level, array in (("fine", labels.fine), ("coarse", labels.coarse)):
                path = label_path(folder / "pure", level, row.split, row.key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(array))

    def whole() -> None:
        prepare(format_name, source, folder / "whole", options[1], overwrite=True)

    def whole_two() -> None:
        prepare(format_name, source, folder / "two", options[2], overwrite=True)

    pure_s, whole_s = _interleaved(lambda: pure(_pillow_png), whole, 3)
    own_s = best_of(lambda: pure(png_bytes), 2)
    one_s, two_s = _interleaved(whole, whole_two, 3)
    n = len(rows)
    print(f"  prepare of {n} images {1000 * whole_s / n:.1f} ms each; the photo decoded and two label PNGs encoded alone")
    print(f"  {1000 * pure_s / n:.1f} ms with Pillow: {whole_s / pure_s:.2f}x ({1000 * own_s / n:.1f} ms with our encoder: "
          f"{whole_s / own_s:.2f}x); two workers {one_s / two_s:.2f} times as fast")  # fmt: skip


def _pillow_png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def cityscapes(source: Path | None, folder: Path) -> None:
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    root = folder / "cityscapes"
    if source is None:
        kind = "drawn frames"
        for number in range(6):
            _draw_frame(root, f"aachen_{number:06}_000019", seed=number)
    else:
        kind = "genuine frames (polygons traced from their label maps)"
        for path in sorted((source / "gtFine").rglob("*_labelIds.png")):
            _trace_frame(root, path)
    jsons = sorted((root / "gtFine").rglob("*_polygons.json"))
    for path in jsons:
        label_ids = Path(str(path).replace("polygons.json", "labelIds.png"))
        if not label_ids.exists():
            json2labelImg(str(path), str(label_ids), "ids")
    reader = open_reader("cityscapes", root, PrepareOptions())
    items = reader.items()

    def ours() -> None:
        for item in items:
            raw = reader.paint(item, (1024, 2048)).ids
            write_labels(folder / "labels", item.split, item.key, reader.lookup.encode_and_tally(raw, item.source)[0])

    def peer() -> None:
        for path in jsons:
            json2labelImg(str(path), str(folder / "peer.png"), "trainIds")

    ours_s, peer_s = _interleaved(ours, peer)
    n = len(items)
    print(f"Cityscapes, {n} {kind}, 2048x1024: {1000 * ours_s / n:.1f} ms a frame for two label maps,")
    print(f"  json2labelImg {1000 * peer_s / n:.1f} ms for one: {2 * peer_s / ours_s:.2f}x a map")


def _trace_frame(root: Path, label_ids: Path) -> None:
    """A genuine frame with polygons about as coarse as clicked ones: every fourth corner of its regions' outlines."""
    ids = read_label_png(label_ids)
    shapes = []
    for label_id in np.unique(ids):
        for region in regions_of(ids == label_id):
            outline = region.outline[::4] if len(region.outline) > 40 else region.outline
            shapes.append((abs(area(region.outline)), LABELS[label_id], outline))
    shapes.sort(key=lambda shape: -shape[0])  # a region inside another is drawn over it
    objects = [{"label": label, "polygon": outline.tolist()} for _, label, outline in shapes]
    city = root / "gtFine" / "train" / "aachen"
    city.mkdir(parents=True, exist_ok=True)
    (city / label_ids.name).write_bytes(label_ids.read_bytes())
    content = json.dumps({"imgHeight": 1024, "imgWidth": 2048, "objects": objects})
    (city / label_ids.name.replace("labelIds.png", "polygons.json")).write_text(content)
    _blank_photo(root, label_ids.name.removesuffix("_gtFine_labelIds.png"))


def _blank_photo(root: Path, stem: str) -> None:
    photo = root / "leftImg8bit" / "train" / "aachen" / f"{stem}_leftImg8bit.png"
    photo.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2048, 1024)).save(photo)


def _draw_frame(root: Path, stem: str, *, seed: int) -> None:
    """A frame with as many polygons and points as an average Cityscapes one (about 60 of about 30 points)."""
    rng = np.random.default_rng(seed)
    labels = ("road", "sidewalk", "building", "vegetation", "sky", "car", "person", "pole", "traffic sign", "terrain")
    objects = []
    for number in range(60):
        angle = np.linspace(0, 2 * np.pi, int(rng.integers(10, 50)), endpoint=False)
        radius = (700 if number < 5 else rng.uniform(10, 200)) * rng.uniform(0.8, 1, angle.size)
        points = np.stack([rng.uniform(0, 2047) + radius * np.cos(angle), rng.uniform(0, 1023) + radius * np.sin(angle)], 1)
        inside = np.clip(np.round(points), 0, (2047, 1023)).astype(int)
        objects.append({"label": str(rng.choice(labels)), "polygon": inside.tolist()})
    path = root / "gtFine" / "train" / "aachen" / f"{stem}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": 1024, "imgWidth": 2048, "objects": objects}))
    _blank_photo(root, stem)


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        if samples is not None:
            coco(samples / "coco_instances", Path(folder))
        cityscapes(samples and samples / "cityscapes", Path(folder))


if __name__ == "__main__":
    main()
