"""Genuine annotations: `prepare` equals an independent reading of the raw files, pixel for pixel."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.inspection.prepared import CheckOptions, check_prepared
from hiposeg_cli.labelmap import TwoLevelMap
from hiposeg_cli.store import Dataset, Row, open_dataset

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

IGNORE = 255
Sample = Callable[[str], Path]


@dataclass(frozen=True)
class Expected:
    """What one image must become: both maps (H, W) uint8, and the counts that a manifest row states."""

    fine: NDArray[np.uint8]
    coarse: NDArray[np.uint8]
    overlap_px: int = 0
    part_overlap_px: int = 0
    uncovered_px: int = 0
    n_objects: int = 0


def convert(format_name: str, source: Path, out: Path, hierarchy: str | None = None, **reader: Any) -> Dataset:
    result = prepare(format_name, source, out, PrepareOptions(hierarchy=hierarchy, reader=ReaderOptions(**reader)))
    assert result.failures == ()
    assert sum(result.report["images"].values()) > 0
    return open_dataset(out)


def rows_of(dataset: Dataset) -> list[Row]:
    return [row for split in dataset.rows.values() for row in split]


def png(path: Path) -> NDArray[np.uint8]:
    """Read one written label file without any of hiposeg's code."""
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def require_equal(dataset: Dataset, row: Row, expected: Expected) -> None:
    """Compare an image by the dataset's own reader, by its PNG files, and by its manifest row."""
    labels: TwoLevelMap = dataset.labels(row)
    files = [png(dataset.root / "labels" / level / row.split / f"{row.key}.png") for level in ("fine", "coarse")]
    for found, file, wanted in zip((labels.fine, labels.coarse), files, (expected.fine, expected.coarse), strict=True):
        assert np.array_equal(file, wanted), f"{row.key}: {int((file != wanted).sum())} pixels differ"
        assert np.array_equal(found, wanted), f"{row.key}: {int((found != wanted).sum())} pixels differ"
    for counts, file in zip((row.fine_counts, row.coarse_counts), files, strict=True):
        ids, pixels = np.unique(file[file != IGNORE], return_counts=True)
        assert counts == dict(zip(map(str, ids.tolist()), pixels.tolist(), strict=True))
    assert (row.height, row.width) == files[0].shape
    assert row.ignore_px == int((files[1] == IGNORE).sum())
    assert row.coarse_only_px == int(((files[0] == IGNORE) & (files[1] != IGNORE)).sum())
    found_counts = (row.overlap_px, row.part_overlap_px, row.uncovered_px, row.n_objects)
    assert found_counts == (expected.overlap_px, expected.part_overlap_px, expected.uncovered_px, expected.n_objects)


def contested(masks: Iterable[NDArray[np.bool_]], ids: Iterable[int], shape: tuple[int, int]) -> int:
    """Pixels that lie in masks of two different ids."""
    lowest, highest = np.full(shape, 10**6), np.full(shape, -1)
    for mask, number in zip(masks, ids, strict=True):
        lowest[mask] = np.minimum(lowest[mask], number)
        highest[mask] = np.maximum(highest[mask], number)
    return int((lowest < highest).sum())


# -- PASCAL-Part -------------------------------------------------------------------------------------------------------


@functools.cache
def raw_objects(path: Path) -> list[tuple[str, NDArray[np.bool_], list[tuple[str, NDArray[np.bool_]]]]]:
    """Objects of a .mat as (class, mask, [(part, mask)]), read with the other style of scipy's reader."""
    anno = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)["anno"]
    found = []
    for entry in np.atleast_1d(anno.objects):
        parts = [(part.part_name, part.mask.astype(bool)) for part in np.atleast_1d(entry.parts)]
        found.append((str(entry.__dict__["class"]), entry.mask.astype(bool), parts))
    return found


def folded(part: str) -> str:
    stem, _, number = part.rpartition("_")
    return f"{stem}_*" if number.isdigit() else part


def pascal_expected(path: Path, table: published.PartTable, *, by_area: bool, to_background: bool) -> Expected:
    """Decide each pixel from its owner (the last object there) and its winning part, without painting."""
    objects = raw_objects(path)
    shape = objects[0][1].shape
    covering = np.stack([mask for _, mask, _ in objects])
    owner = len(objects) - 1 - np.argmax(covering[::-1], axis=0)
    owner[~covering.any(axis=0)] = -1
    fine = np.zeros(shape, np.uint8)
    coarse = np.zeros(shape, np.uint8)
    part_overlap_px, uncovered = 0, np.zeros(shape, bool)
    for number, (name, mask, parts) in enumerate(objects):
        mine = owner == number
        rest = table.fine.get((name, "OBJECT"))
        names = [folded(part) for part, _ in parts]
        kinds = sorted(set(names))
        part_overlap_px += contested([m & mask for _, m in parts], [kinds.index(n) for n in names], shape)
        strength = np.full(shape, -1.0)
        best = np.full(shape, -1)
        for position, (_, part_mask) in enumerate(parts):
            rank = (1.0 / max(1, part_mask.sum())) if by_area else float(position)
            wins = part_mask & (rank >= strength)
            strength[wins], best[wins] = rank, position
        is_background = rest is None and to_background
        lookup = [table.fine[name, folded_name] for folded_name in names] + [0 if is_background else rest]
        values = np.array([IGNORE if value is None else value for value in lookup])
        fine[mine] = values[best[mine]]  # -1, no part, takes the last entry
        coarse[mine] = published.VOC.index(name) + 1
        bare = mine & (best < 0)
        uncovered |= bare
        if is_background:
            coarse[bare] = 0
    overlap_px = contested([mask for _, mask, _ in objects], [published.VOC.index(name) for name, _, _ in objects], shape)
    return Expected(fine, coarse, overlap_px, part_overlap_px, int(uncovered.sum()), len(objects))


@pytest.mark.parametrize("preset", sorted(published.PART_TABLES))
@pytest.mark.parametrize("part_order", ["published", "area"])
@pytest.mark.parametrize("uncovered", ["object-only", "background"])
def test_pascal_part(preset: str, part_order: str, uncovered: str, sample_data: Sample, tmp_path: Path) -> None:
    source = sample_data("pascal_part")
    dataset = convert("pascal-part", source, tmp_path / "out", preset, part_order=part_order, uncovered=uncovered)
    rows = rows_of(dataset)
    assert [row.key for row in rows] == sorted(path.stem for path in (source / "Annotations_Part").glob("*.mat"))
    table = published.PART_TABLES[preset]
    for row in rows:
        path = source / "Annotations_Part" / f"{row.key}.mat"
        wanted = pascal_expected(path, table, by_area=part_order == "area", to_background=uncovered == "background")
        require_equal(dataset, row, wanted)


def test_pascal_part_orders_and_uncovered_rules_do_differ_on_the_samples(sample_data: Sample) -> None:
    """The four expectations above are four different ones, so the comparisons tell them apart."""
    folder, table = sample_data("pascal_part") / "Annotations_Part", published.PART_108
    plain = [pascal_expected(path, table, by_area=False, to_background=False) for path in sorted(folder.glob("*.mat"))]
    area = [pascal_expected(path, table, by_area=True, to_background=False) for path in sorted(folder.glob("*.mat"))]
    bare = [pascal_expected(path, table, by_area=False, to_background=True) for path in sorted(folder.glob("*.mat"))]
    assert any((a.fine != b.fine).any() for a, b in zip(plain, area, strict=True))
    assert all((a.coarse == b.coarse).all() for a, b in zip(plain, area, strict=True))
    assert any((a.coarse != b.coarse).any() for a, b in zip(plain, bare, strict=True))
    plates = [published.PART_108.names.index(f"{name}_fliplate") for name in ("car", "bus")]
    assert sum(int(np.isin(image.fine, plates).sum()) for image in plain) == 0  # all erased in file order
    assert sum(int(np.isin(image.fine, plates).sum()) for image in area) > 0


def test_pascal_part_uncovered_pixels_measured_when_the_format_was_described(sample_data: Sample, tmp_path: Path) -> None:
    """A cat with 6,359 px outside its parts, and a television with 1,158 px outside its screen."""
    dataset = convert("pascal-part", sample_data("pascal_part"), tmp_path / "out", "pascal-part-108")
    rows = {row.key: row for row in rows_of(dataset)}
    assert rows["2010_005275"].uncovered_px == 6359
    labels = dataset.labels(rows["2010_005243"])
    assert int(((labels.coarse == 20) & (labels.fine == IGNORE)).sum()) == 1158


# -- Cityscapes --------------------------------------------------------------------------------------------------------


def test_cityscapes(sample_data: Sample, tmp_path: Path) -> None:
    truth = sorted((sample_data("cityscapes") / "gtFine").rglob("*_gtFine_labelIds.png"))[:4]
    for path in truth:
        photo = Path(str(path).replace("gtFine_labelIds", "leftImg8bit").replace("/gtFine/", "/leftImg8bit/"))
        for file in (path, photo):
            target = tmp_path / "raw" / file.relative_to(sample_data("cityscapes"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    dataset = convert("cityscapes", tmp_path / "raw", tmp_path / "out")
    fine_of, coarse_of = np.full(256, IGNORE, np.uint8), np.full(256, IGNORE, np.uint8)
    for label_id, train_id in published.CITYSCAPES_TRAIN_IDS.items():
        fine_of[label_id], coarse_of[label_id] = train_id, published.CITYSCAPES_PARENTS[train_id]
    rows = rows_of(dataset)
    assert [row.source for row in rows] == [str(path.relative_to(sample_data("cityscapes"))) for path in truth]
    for row, path in zip(rows, truth, strict=True):
        raw = np.array(Image.open(path))
        require_equal(dataset, row, Expected(fine_of[raw], coarse_of[raw]))
        instance = np.array(Image.open(str(path).replace("labelIds", "instanceIds"))).astype(int)
        from_instances = fine_of[np.where(instance >= 1000, instance // 1000, instance)]
        assert np.array_equal(dataset.labels(row).fine, from_instances)  # a second, separately published file


# -- COCO and car parts ------------------------------------------------------------------------------------------------


def coco_expected(api: COCO, image_id: int, fine_of: dict[int, int], parent: list[int], rest: tuple[int, int]) -> Expected:
    """Keep, at each pixel, the annotation of least area (the larger id where equal), in no particular order."""
    record = api.imgs[image_id]
    shape = (record["height"], record["width"])
    least, best_id = np.full(shape, np.inf), np.full(shape, -1)
    category, crowd = np.full(shape, -1), np.zeros(shape, bool)
    masks, ids, n_drawn = [], [], 0
    for annotation in api.imgToAnns[image_id]:
        mask = api.annToMask(annotation).astype(bool)
        n_drawn += 1
        if annotation["iscrowd"]:
            crowd |= mask
            continue
        masks.append(mask)
        ids.append(annotation["category_id"])
        area = mask.sum()
        wins = mask & ((area < least) | ((area == least) & (annotation["id"] > best_id)))
        least[wins], best_id[wins], category[wins] = area, annotation["id"], annotation["category_id"]
    fine, coarse = np.full(shape, rest[0], np.uint8), np.full(shape, rest[1], np.uint8)
    fine[crowd], coarse[crowd] = IGNORE, IGNORE
    for category_id, fine_id in fine_of.items():
        fine[category == category_id], coarse[category == category_id] = fine_id, parent[fine_id]
    return Expected(fine, coarse, overlap_px=contested(masks, ids, shape), n_objects=n_drawn)


def quiet_coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


@pytest.mark.parametrize(("preset", "first"), [("coco-80-12", 0), ("coco-81-13", 1)])
def test_coco_instances(preset: str, first: int, sample_data: Sample, tmp_path: Path) -> None:
    source = sample_data("coco_instances")
    api = quiet_coco(source / "annotations" / "instances_train2017.json")
    dataset = convert("coco", source, tmp_path / "out", preset)
    fine_of = {category_id: number for number, category_id in enumerate(published.COCO, start=first)}
    groups = list(published.COCO_SIZES)
    parent = [0] * first + [groups.index(group) + first for _, group in published.COCO.values()]
    rest = (0, 0) if first else (IGNORE, IGNORE)
    rows = rows_of(dataset)
    assert len(rows) == len(api.imgs)
    crowds = [annotation["image_id"] for annotation in api.anns.values() if annotation["iscrowd"]]
    assert len(crowds) == 8
    checked = [row for row in rows if int(row.key) in crowds] + rows[:30] if first else rows
    for row in checked:
        require_equal(dataset, row, coco_expected(api, int(row.key), fine_of, parent, rest))


CAR_PARTS_KINDS = {  # kind of part -> category names, from the description of the data set
    0: "_background_", 1: "back_bumper front_bumper", 2: "back_glass front_glass",
    3: "back_left_door back_right_door front_left_door front_right_door",
    4: "back_left_light back_right_light front_left_light front_right_light", 5: "left_mirror right_mirror",
    6: "hood tailgate trunk", 7: "wheel",
}  # fmt: skip


def test_car_parts(sample_data: Sample, tmp_path: Path) -> None:
    source = sample_data("carparts")
    data = json.loads((source / "annotations.json").read_text(encoding="utf-8"))
    data["images"] = data["images"][::10]  # 40 of 400
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [annotation for annotation in data["annotations"] if annotation["image_id"] in kept]
    raw = tmp_path / "raw"
    (raw / "JPEGImages").mkdir(parents=True)
    for image in data["images"]:
        shutil.copyfile(source / image["path"], raw / image["path"])
    (raw / "annotations.json").write_text(json.dumps(data), encoding="utf-8")
    dataset = convert("coco", raw, tmp_path / "out", "car-parts")
    api = quiet_coco(raw / "annotations.json")
    fine_of = {category["id"]: category["id"] - 1 for category in data["categories"]}
    names = {category["name"]: category["id"] - 1 for category in data["categories"]}
    parent = [0] * len(names)
    for kind, members in CAR_PARTS_KINDS.items():
        for name in members.split():
            parent[names[name]] = kind
    rows = rows_of(dataset)
    assert len(rows) == 40
    by_key = {Path(image["file_name"]).stem: image["id"] for image in data["images"]}
    for row in rows:
        require_equal(dataset, row, coco_expected(api, by_key[row.key], fine_of, parent, (0, 0)))


# -- folders of id PNGs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "preset", "step", "modes"),
    [("camvid", "camvid-11-7", 16, {"P"}), ("ccp", "ccp-59-7", 30, {"P"}), ("wbc", "wbc-3-2", 6, {"P"})],
)
def test_palette_masks(name: str, preset: str, step: int, modes: set[str], sample_data: Sample, tmp_path: Path) -> None:
    source = sample_data(name)
    labels = sorted(source.glob("*/labels/*.png"))[::step]
    assert len({path.parent.parent.name for path in labels}) > 1  # more than one split
    for path in labels:
        photo = path.parent.parent / "images" / f"{path.stem}.jpg"
        for file in (path, photo):
            target = tmp_path / "raw" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    dataset = convert("masks", tmp_path / "raw", tmp_path / "out", preset)
    parents = json.loads((source / "hierarchy.json").read_text(encoding="utf-8"))["part_id_to_object_id"]
    coarse_of = np.full(256, IGNORE, np.uint8)
    coarse_of[: len(parents)] = parents
    rows = rows_of(dataset)
    assert sorted((row.split, row.key) for row in rows) == sorted((p.parent.parent.name, p.stem) for p in labels)
    assert {Image.open(path).mode for path in labels} == modes
    for row in rows:
        raw = np.array(Image.open(source / row.split / "labels" / f"{row.key}.png"))
        require_equal(dataset, row, Expected(raw, coarse_of[raw]))
    assert check_prepared(dataset.root, CheckOptions(full=True)).totals["error"] <= (preset == "wbc-3-2")  # a genuine leak
