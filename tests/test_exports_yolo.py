"""YOLO segmentation: outlines against two rasterisers, and text files read by the rule of ultralytics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import yaml
from export_sets import FINE, N_WIDE, ODD_NAMES, Ids, add_instances, labels_of, toy_data, wide_data, write
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from raw_sets import masks_set
from scipy import ndimage

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.contours import Points, area, join_lines, regions_of

Mask = NDArray[np.bool_]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2


def filled(points: NDArray[np.float64] | Points, shape: tuple[int, int]) -> Mask:
    """Rasterise a closed line with pycocotools, which fills by the even-odd rule."""
    coded = coco_mask.frPyObjects([np.asarray(points, np.float64).ravel().tolist()], *shape)
    return coco_mask.decode(coded)[..., 0].astype(bool)


def filled_by_winding(points: Points, shape: tuple[int, int]) -> Mask:
    """Pixels whose centre the line winds round: the sum over all lines of the corners that cross a ray to the right."""
    ys, xs = (grid + 0.5 for grid in np.mgrid[: shape[0], : shape[1]])
    winding = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if x0 == x1:
            winding += np.where((x0 > xs) & (ys > min(y0, y1)) & (ys < max(y0, y1)), np.sign(y1 - y0), 0)
    return winding != 0


# -- outlines ----------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.2, 0.5, 0.7, 0.9]), st.integers(0, 2**32 - 1))
def test_filling_the_outlines_gives_the_mask_back(height: int, width: int, density: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    even_odd, winding = np.zeros(mask.shape, int), np.zeros(mask.shape, int)
    for region in regions_of(mask):
        line = region.joined()
        even_odd += filled(line, (height, width))
        winding += filled_by_winding(line, (height, width))
        assert area(line) == area(region.outline) + sum(area(hole) for hole in region.holes)
        assert all(area(hole) < 0 for hole in region.holes)
    assert (even_odd == mask).all()
    assert (winding == mask).all()
    assert len(regions_of(mask)) == ndimage.label(mask)[1]


def test_a_ring_by_hand() -> None:
    mask = np.ones((3, 4), bool)
    mask[1, 1] = False
    (region,) = regions_of(mask)
    assert region.outline.tolist() == [[0, 0], [4, 0], [4, 3], [0, 3]]
    assert [hole.tolist() for hole in region.holes] == [[[1, 2], [2, 2], [2, 1], [1, 1]]]
    # from the hole's top left corner straight left to the outline, and back the same way
    assert region.joined().tolist() == [
        [0, 0],
        [4, 0],
        [4, 3],
        [0, 3],
        [0, 1],
        [1, 1],
        [1, 2],
        [2, 2],
        [2, 1],
        [1, 1],
        [0, 1],
    ]
    assert area(region.joined()) == 11


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    regions = regions_of(np.array([[True, False], [False, True]]))
    assert [region.outline.tolist() for region in regions] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]


def test_holes_inside_rings_inside_holes() -> None:
    mask = np.zeros((9, 9), bool)
    for inset in (0, 2):
        mask[inset : 9 - inset, inset : 9 - inset] = True
        mask[inset + 1 : 8 - inset, inset + 1 : 8 - inset] = False
    mask[4, 4] = True
    regions = regions_of(mask)
    assert [(area(region.outline), [area(hole) for hole in region.holes]) for region in regions] == [
        (81, [-49]), (25, [-9]), (1, []),
    ]  # fmt: skip


def test_an_empty_mask_has_no_regions() -> None:
    assert regions_of(np.zeros((3, 3), bool)) == []


def test_pieces_of_an_object_become_one_line_of_the_same_area() -> None:
    mask = np.zeros((6, 9), bool)
    mask[1:3, 1:3] = mask[4:6, 5:8] = mask[0, 8] = True
    line = join_lines([region.joined() for region in regions_of(mask)])
    assert area(line) == 4 + 6 + 1
    assert (filled(line, (6, 9)) == mask).all()


# -- files, read as ultralytics reads them -----------------------------------------------------------------------------


def read_back(folder: Path, shape: tuple[int, int], split: str, name: str) -> Ids:
    """Polygons of one text file painted by class.

    The rule is that of ultralytics 8.4 (`verify_image_label`): rows of a class and pairs of shares in float32, none
    beyond [0, 1], no row of five numbers, no row twice.
    """
    back = np.full(shape, -1, np.int64)
    lines = (folder / "labels" / split / f"{name}.txt").read_text(encoding="utf-8").strip().splitlines()
    assert len(set(lines)) == len(lines)
    for line in lines:
        cells = line.split()
        assert len(cells) > 6
        assert len(cells) % 2 == 1
        shares = np.array(cells[1:], np.float32).reshape(-1, 2)
        assert 0 <= shares.min() <= shares.max() <= 1
        corners = shares.astype(np.float64) * [shape[1], shape[0]]
        assert np.abs(corners - corners.round()).max() < 1e-4
        mask = filled(corners.round(), shape)
        assert mask.any()
        assert (back[mask] == -1).all()
        back[mask] = int(cells[0])
    return back


def test_yolo_reads_back_pixel_for_pixel_without_background(tmp_path: Path, toy_yaml: Path) -> None:
    data = toy_data(tmp_path, toy_yaml)
    exported = write(data, "yolo-seg", tmp_path / "out")
    fine = labels_of(data, "fine")
    for (split, key), truth in fine.items():
        back = read_back(tmp_path / "out", truth.shape, split, key.replace("/", "__"))
        assert (back == np.where(truth > 0, truth - 1, -1)).all()  # fine class 0 is background
        image = next((tmp_path / "out" / "images" / split).glob(f"{key.replace('/', '__')}.*"))
        assert image.suffix == ".jpg"
    lost = sum(int((truth < 0).sum()) for truth in fine.values())
    assert any(f"{lost} pixels" in text and "no ignore" in text for text in exported.warnings)
    about = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert about == {"train": "images/train", "val": "images/val", "test": "images/test", "names": dict(enumerate(FINE[1:]))}
    assert [path.name for path in (tmp_path / "out").glob("*.yaml")] == ["data.yaml"]  # ultralytics wants a single one


def test_yolo_with_wide_ids_odd_names_and_no_validation_split(tmp_path: Path) -> None:
    data = wide_data(tmp_path)
    exported = write(data, "yolo-seg", tmp_path / "out")
    for (split, key), truth in labels_of(data, "fine").items():
        assert (read_back(tmp_path / "out", truth.shape, split, key) == truth).all()
    about = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text(encoding="utf-8"))
    assert about["val"] == "images/train"
    assert any("no split 'val'" in text for text in exported.warnings)
    assert list(about["names"].values())[:5] == ODD_NAMES
    assert list(about["names"]) == list(range(N_WIDE))


def test_yolo_coarse_level_counts_its_own_ids(tmp_path: Path, toy_yaml: Path) -> None:
    data = toy_data(tmp_path, toy_yaml)
    write(data, "yolo-seg", tmp_path / "out", level="coarse", splits=("val",))
    truth = labels_of(data, "coarse")["val", "v"]
    assert (read_back(tmp_path / "out", truth.shape, "val", "v") == np.where(truth > 0, truth - 1, -1)).all()
    about = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert about == {"train": "images/val", "val": "images/val", "names": {0: "car", 1: "sky"}}


def test_yolo_objects_are_one_row_each(tmp_path: Path, toy_yaml: Path) -> None:
    ids = np.zeros((12, 12), np.uint8)
    ids[1:3, 1:3] = ids[1:3, 5:7] = ids[8:10, 2:11] = 1  # three wheels in sight, the first two of one car
    masks_set(tmp_path / "raw", {"a": ids})
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(toy_yaml)))
    write(tmp_path / "data", "yolo-seg", tmp_path / "regions")
    assert len((tmp_path / "regions" / "labels" / "train" / "a.txt").read_text().splitlines()) == 3
    numbers = np.zeros(ids.shape, np.uint16)
    numbers[:5], numbers[5:] = 7, 8
    add_instances(tmp_path / "data", {("train", "a"): numbers})
    write(tmp_path / "data", "yolo-seg", tmp_path / "objects")
    rows = (tmp_path / "objects" / "labels" / "train" / "a.txt").read_text().splitlines()
    assert len(rows) == 2
    assert (read_back(tmp_path / "objects", ids.shape, "train", "a") == np.where(ids == 1, 0, -1)).all()


def test_yolo_image_without_classes_gets_an_empty_file(tmp_path: Path, toy_yaml: Path) -> None:
    masks_set(tmp_path / "raw", {"a": np.zeros((4, 12), np.uint8)})
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(toy_yaml)))
    exported = write(tmp_path / "data", "yolo-seg", tmp_path / "out")
    assert (tmp_path / "out" / "labels" / "train" / "a.txt").read_text() == ""
    assert any("below 10 pixels" in text for text in exported.warnings)


def test_yolo_refuses_a_level_of_background_only(tmp_path: Path) -> None:
    hierarchy = """
schema: hiposeg/hierarchy@1
name: empty
levels: [fine, coarse]
classes:
  coarse: [{id: 0, name: nothing, kind: background}]
  fine: [{id: 0, name: nothing, parent: nothing, kind: background}]
sources: {masks: {map: {0: nothing}}}
"""
    (tmp_path / "empty.yaml").write_text(hierarchy)
    masks_set(tmp_path / "raw", {"a": np.zeros((12, 12), np.uint8)})
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(tmp_path / "empty.yaml")))
    with pytest.raises(ConfigError, match="only a background class"):
        write(tmp_path / "data", "yolo-seg", tmp_path / "out")
