"""Cityscapes beyond the plain label ids: instances, gtCoarse, and polygons drawn as cityscapesScripts draws them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_sets import ids_png, photo

from hiposeg_cli.convert import PrepareOptions, open_reader, prepare
from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.cityscapes import LABELS
from hiposeg_cli.store import open_dataset

FRAME = "aachen/aachen_000000_000019"
SHAPE = (8, 12)


def frame(root: Path, ids: Any = None, *, truth: str = "gtFine", split: str = "train") -> Path:
    photo(root / "leftImg8bit" / split / f"{FRAME}_leftImg8bit.png", SHAPE)
    if ids is not None:
        ids_png(root / truth / split / f"{FRAME}_{truth}_labelIds.png", ids)
    return root


def complaint(root: Path, **reader: Any) -> str:
    """What `prepare` says about a source that cannot be used."""
    try:
        result = prepare("cityscapes", root, None, PrepareOptions(reader=ReaderOptions(**reader)))
    except HiposegError as error:
        return str(error)
    assert result.failures, "nothing was refused"
    return str(result.failures[0])


def test_instance_numbers_are_kept_as_published_without_stuff_and_groups(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 7, np.uint8)
    ids[2:4, 2:4], ids[5:7, 5:7], ids[0, 0] = 26, 26, 24
    numbers = ids.astype(np.uint16)
    numbers[2:4, 2:4], numbers[5:7, 5:7] = 26_000, 26_001  # the person is a group: plain id 24
    frame(tmp_path / "raw", ids)
    ids_png(tmp_path / "raw" / "gtFine" / "train" / f"{FRAME}_gtFine_instanceIds.png", numbers)
    prepare("cityscapes", tmp_path / "raw", tmp_path / "out", PrepareOptions(reader=ReaderOptions(instances=True)))
    dataset = open_dataset(tmp_path / "out")
    (row,) = dataset.split("train")
    wanted = np.where(numbers >= 1000, numbers, 0)
    found = dataset.instances(row)
    assert found is not None
    assert np.array_equal(found, wanted)
    with Image.open(tmp_path / "out" / "labels" / "inst" / "train" / f"{FRAME}.png") as file:
        assert np.array_equal(np.asarray(file), wanted)


def test_without_the_option_no_instances_are_written(tmp_path: Path) -> None:
    frame(tmp_path / "raw", np.full(SHAPE, 7, np.uint8))
    prepare("cityscapes", tmp_path / "raw", tmp_path / "out", PrepareOptions())
    dataset = open_dataset(tmp_path / "out")
    assert dataset.instances(dataset.split("train")[0]) is None
    assert not (tmp_path / "out" / "labels" / "inst").exists()


def test_instances_of_another_frame_are_refused(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 26, np.uint8)
    frame(tmp_path, ids)
    path = tmp_path / "gtFine" / "train" / f"{FRAME}_gtFine_instanceIds.png"
    ids_png(path, np.full(SHAPE, 24_000, np.uint16))
    assert f"disagrees with the label ids on {ids.size} pixels" in complaint(tmp_path, instances=True)
    ids_png(path, np.full((3, 3), 26_000, np.uint16))
    assert "(3, 3)" in complaint(tmp_path, instances=True)
    path.unlink()
    assert "instanceIds.png: no such file" in complaint(tmp_path, instances=True)


def test_coarse_annotations_have_a_split_of_their_own(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 23, np.uint8)
    frame(tmp_path / "raw", ids, truth="gtCoarse", split="train_extra")
    options = PrepareOptions(reader=ReaderOptions(variant="coarse"))
    prepare("cityscapes", tmp_path / "raw", tmp_path / "out", options)
    (row,) = open_dataset(tmp_path / "out").split("train_extra")
    assert row.fine_counts == {"10": ids.size}
    assert "gtFine: no such folder" in complaint(tmp_path / "raw")


def test_a_variant_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--variant polygon.*did you mean 'polygons'"):
        open_reader("cityscapes", tmp_path, PrepareOptions(reader=ReaderOptions(variant="polygon")))


# -- polygons ----------------------------------------------------------------------------------------------------------


def polygons(root: Path, objects: list[dict[str, Any]], size: tuple[int, int] = SHAPE) -> Path:
    path = root / "gtFine" / "train" / f"{FRAME}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": size[0], "imgWidth": size[1], "objects": objects}))
    photo(root / "leftImg8bit" / "train" / f"{FRAME}_leftImg8bit.png", size)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_polygons_equal_json2labelimg_pixel_for_pixel(seed: int, tmp_path: Path) -> None:
    """Overlaps, deleted objects, group labels and licence plates, drawn by the official tool on this Pillow."""
    tool = pytest.importorskip("cityscapesscripts.preparation.json2labelImg", reason="cityscapesScripts is not installed")
    rng = np.random.default_rng(seed)
    names = [*LABELS, "license plate", "cargroup", "persongroup", "polegroup"]
    objects = [
        {
            "label": str(rng.choice(names)), "deleted": int(rng.random() < 0.2),
            "polygon": rng.integers(0, (60, 40), (int(rng.integers(3, 12)), 2)).tolist(),
        }
        for _ in range(40)
    ]  # fmt: skip
    for entry in objects:
        if not entry["deleted"]:
            del entry["deleted"]
    path = polygons(tmp_path, objects, (40, 60))
    tool.json2labelImg(str(path), str(tmp_path / "theirs.png"), "ids")
    reader = open_reader("cityscapes", tmp_path, PrepareOptions(reader=ReaderOptions(variant="polygons")))
    (item,) = reader.items()
    with Image.open(tmp_path / "theirs.png") as file:
        assert np.array_equal(reader.read(item).ids, np.asarray(file))
    assert "Pillow" in reader.overlap_rule


def test_a_polygon_of_two_points_is_a_line_as_json2labelimg_draws_it(tmp_path: Path) -> None:
    tool = pytest.importorskip("cityscapesscripts.preparation.json2labelImg", reason="cityscapesScripts is not installed")
    path = polygons(tmp_path, [{"label": "car", "polygon": [[1, 1], [3, 3]]}], (8, 12))
    tool.json2labelImg(str(path), str(tmp_path / "theirs.png"), "ids")
    reader = open_reader("cityscapes", tmp_path, PrepareOptions(reader=ReaderOptions(variant="polygons")))
    (item,) = reader.items()
    ids = reader.read(item).ids
    assert np.argwhere(ids == LABELS.index("car")).tolist() == [[1, 1], [2, 2], [3, 3]]
    with Image.open(tmp_path / "theirs.png") as file:
        assert np.array_equal(ids, np.asarray(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "broken JSON"), ("[]", "polygons file"), ('{"imgWidth": 12, "imgHeight": 8}', "polygons file"),
        ('{"imgWidth": 12, "imgHeight": 8, "objects": [{"label": "caar", "polygon": []}]}', "did you mean 'car'"),
        ('{"imgWidth": 12, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[1, 2], ["x", 3]]}]}', "polygons file"),
        ('{"imgWidth": 5, "imgHeight": 8, "objects": []}', "5x8"),
        ('{"imgWidth": 99999, "imgHeight": 99999, "objects": []}', "99999x99999"),
        ('{"imgWidth": -1, "imgHeight": 8, "objects": []}', "-1x8"),
    ],
    ids=["truncated", "list", "no-objects", "unknown-label", "bad-point", "other-size", "bomb", "negative"],
)  # fmt: skip
def test_bad_polygons(text: str, says: str, tmp_path: Path) -> None:
    polygons(tmp_path, []).write_text(text)
    said = complaint(tmp_path, variant="polygons")
    assert "_polygons.json" in said
    assert says in said


def test_label_names_are_those_of_the_official_table() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels", reason="cityscapesScripts is not installed").labels
    assert [label.name for label in labels if label.id >= 0] == list(LABELS)


@pytest.mark.slow
def test_genuine_instances_equal_the_files(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = sample_data("cityscapes")
    prepare("cityscapes", root, tmp_path, PrepareOptions(reader=ReaderOptions(instances=True)))
    dataset = open_dataset(tmp_path)
    rows = dataset.split("train")
    assert len(rows) == 8
    for row in rows:
        source = root / row.source.replace("labelIds", "instanceIds")
        with Image.open(source) as file:
            numbers = np.asarray(file).astype(np.int64)
        found = dataset.instances(row)
        assert found is not None
        assert np.array_equal(found, np.where(numbers >= 1000, numbers, 0))
        assert found.any()
