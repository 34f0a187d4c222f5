"""`hiposeg doctor SRC --format FORMAT`: what is wrong with raw annotations, named by check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from PIL import Image
from raw_sets import RawObject, box, coco_json, coco_set, files_below, ids_png, masks_set, pascal_set, photo, square

from hiposeg_cli.convert import PrepareOptions
from hiposeg_cli.errors import ConfigError, DataError, HierarchyError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.image_file import _jpeg_has_end
from hiposeg_cli.inspection.findings import READER, Diagnosis, Finding
from hiposeg_cli.inspection.raw import check_raw
from hiposeg_cli.inspection.reader_checks import check_of

SHAPE = (6, 8)
IDS = np.array([[0, 1, 2, 3, 4, 5, 6, 7]] * 6, np.uint8)


def diagnose(root: Path, toy: Path, format_name: str = "masks", **options: Any) -> Diagnosis:
    return check_raw(format_name, root, PrepareOptions(hierarchy=str(toy), **options))


def serious(diagnosis: Diagnosis) -> list[Finding]:
    return [finding for finding in diagnosis.found.sorted() if finding.level != "note"]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Three images with all classes of the toy hierarchy."""
    return masks_set(tmp_path / "raw", {f"img{k}": IDS for k in range(3)})


# -- id PNGs -----------------------------------------------------------------------------------------------------------


def test_a_sound_set_is_clean_and_untouched(masks: Path, toy_yaml: Path) -> None:
    before = files_below(masks)
    diagnosis = diagnose(masks, toy_yaml)
    assert diagnosis.clean
    assert files_below(masks) == before
    assert diagnosis.facts["images"] == {"train": 3}
    assert diagnosis.facts["photos"] == {"JPEG RGB": 3}
    assert diagnosis.facts["pixels"]["total"] == 3 * 48
    assert diagnosis.facts["pixels"]["coarse_only_px"] == 3 * 6
    assert {"python", "pillow", "numpy"} <= set(diagnosis.facts["versions"])


def label(root: Path) -> Path:
    return root / "train" / "labels" / "img1.png"


def image(root: Path) -> Path:
    return root / "train" / "images" / "img1.jpg"


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])


def without_end_marker(root: Path) -> None:
    data = image(root).read_bytes()
    assert data.endswith(b"\xff\xd9")
    image(root).write_bytes(data[:-2] + bytes(70_000))  # a disk's zeros, which Pillow decodes without a word


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(image(root), exif=exif)


def animated(root: Path) -> None:
    first, second = Image.new("RGB", (8, 6)), Image.new("RGB", (8, 6), "white")
    first.save(image(root), format="GIF", save_all=True, append_images=[second])


def opaque(root: Path) -> None:
    Image.fromarray(np.dstack([IDS, np.full(SHAPE, 255)]).astype(np.uint8)).save(label(root))


def linked_out(root: Path) -> None:
    path = image(root)
    path.rename(root.parent / "elsewhere.jpg")
    path.symlink_to(root.parent / "elsewhere.jpg")


def bad_checksum(root: Path) -> None:
    data = bytearray(label(root).read_bytes())
    data[-1] ^= 255  # of the checksum of IEND
    label(root).write_bytes(bytes(data))


def same_photo_in_val(root: Path) -> None:
    (root / "val" / "images").mkdir(parents=True)
    (root / "val" / "images" / "other.jpg").write_bytes(image(root).read_bytes())
    ids_png(root / "val" / "labels" / "other.png", IDS)


def same_key_in_val(root: Path) -> None:
    (root / "val" / "images").mkdir(parents=True)
    (root / "val" / "images" / "img1.jpg").write_bytes(image(root).read_bytes())
    ids_png(root / "val" / "labels" / "img1.png", IDS)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FAULTS: list[tuple[str, Callable[[Path], object], str, str, tuple[str, ...]]] = [
    ("photo cut", lambda r: cut(image(r), 0.6), "R8", "error", ("img1.jpg",)),
    ("label without its end", lambda r: cut(label(r), 0.9), "R8", "error", ("img1.png", "truncated")),
    ("bad checksum", bad_checksum, "R8", "error", ("img1.png", "IEND", "checksum")),
    ("no end marker", without_end_marker, "R8", "error", ("img1.jpg", "no end marker")),
    ("empty photo", lambda r: image(r).write_bytes(b""), "R9", "error", ("img1.jpg", "empty file")),
    ("pointer", lambda r: image(r).write_bytes(LFS), "R9", "error", ("img1.jpg", "Git LFS")),
    ("login page", lambda r: label(r).write_bytes(b"<!DOCTYPE html><html>"), "R9", "error", ("img1.png", "HTML")),
    ("turned", turned, "R6", "warning", ("img1.jpg", "EXIF orientation 6")),
    ("animated", animated, "R6", "warning", ("img1.jpg", "several pictures", "first")),
    ("opaque", opaque, "R16", "warning", ("img1.png", "constant alpha")),
    ("link", linked_out, "R28", "error", ("img1.jpg", "links out")),
    ("other size", lambda r: photo(image(r), (6, 9)), "R7", "error", ("img1.png", "8x6", "9x6")),
    ("colours", lambda r: Image.new("RGB", (8, 6)).save(label(r)), "R16", "error", ("img1.png", "RGB")),
    ("unknown id", lambda r: ids_png(label(r), IDS + 20), "R17", "error", ("img1.png", "20 (6 px)")),
    ("all ignored", lambda r: ids_png(label(r), IDS * 0 + 255), "R17", "warning", ("img1.png", "every pixel is ignore")),
    ("no photo", lambda r: image(r).unlink(), "R4", "error", ("img1.png", "no image")),
    ("two photos", lambda r: photo(image(r).with_suffix(".png"), SHAPE), "R4", "error", ("img1", "same stem")),
    ("two splits", same_photo_in_val, "R3", "warning", ("val/other", "train/img1")),
    ("one key, two splits", same_key_in_val, "R3", "error", ("val/img1", "train/img1")),
]


@pytest.mark.parametrize(("tamper", "check", "level", "words"), [entry[1:] for entry in FAULTS], ids=[e[0] for e in FAULTS])
def test_one_fault_gives_its_finding_alone(
    masks: Path, toy_yaml: Path, tamper: Callable[[Path], object], check: str, level: str, words: tuple[str, ...]
) -> None:
    tamper(masks)
    diagnosis = diagnose(masks, toy_yaml)
    found = serious(diagnosis)
    assert [(finding.check, finding.level) for finding in found] == [(check, level)], [str(f) for f in found]
    for word in words:
        assert word in str(found[0])
    assert found[0].cure
    assert not diagnosis.clean


def test_all_faults_are_collected_in_one_or_several_processes(masks: Path, toy_yaml: Path) -> None:
    cut(label(masks), 0.9)
    ids_png(masks / "train" / "labels" / "img2.png", IDS + 20)
    one = diagnose(masks, toy_yaml)
    assert [finding.check for finding in serious(one)] == ["R8", "R17"]
    assert diagnose(masks, toy_yaml, workers=2).as_json() == one.as_json()


def test_other_photos_and_kinds_are_noted(masks: Path, toy_yaml: Path) -> None:
    photo(masks / "train" / "images" / "spare.jpg", SHAPE)
    Image.new("L", (8, 6)).save(image(masks))
    found = {finding.check: finding for finding in diagnose(masks, toy_yaml).found.sorted()}
    assert "1 files have no labels in this dataset, such as spare.jpg" in found["R5"].what
    assert "JPEG RGB 2, JPEG L 1" in found["R6"].what
    assert {finding.level for finding in found.values()} == {"note"}


def test_labels_that_no_split_list_names_are_noted(tmp_path: Path) -> None:
    mask = box((5, 6), 0, 0, 5, 6)
    root = pascal_set(tmp_path / "raw", [RawObject("boat", mask)], (5, 6), stem="a")
    pascal_set(root, [RawObject("boat", mask)], (5, 6), stem="b")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    notes = [finding for finding in check_raw("pascal-part", root, PrepareOptions()).found.sorted() if finding.check == "R5"]
    assert [(Path(note.where).name, note.what.split(", such as ")[1]) for note in notes] == [
        ("JPEGImages", "b.jpg"), ("Annotations_Part", "b.mat"),
    ]  # fmt: skip


def test_numbering_every_split_on_its_own_is_only_noted(masks: Path, toy_yaml: Path) -> None:
    photo(masks / "val" / "images" / "img1.jpg", SHAPE, seed=77)
    ids_png(masks / "val" / "labels" / "img1.png", IDS)
    diagnosis = diagnose(masks, toy_yaml)
    assert diagnosis.clean
    assert any(f.check == "R3" and f.level == "note" and "1 names" in f.what for f in diagnosis.found.sorted())


def test_unknown_labels_that_were_asked_to_be_ignored_are_only_noted(masks: Path, toy_yaml: Path) -> None:
    ids = IDS.copy()
    ids[0, 0] = 77
    ids_png(label(masks), ids)
    diagnosis = diagnose(masks, toy_yaml, reader=ReaderOptions(unknown="ignore"))
    assert diagnosis.clean
    assert any(f.check == "R17" and "1 px" in f.what for f in diagnosis.found.sorted())


def test_no_layout(tmp_path: Path, toy_yaml: Path) -> None:
    (tmp_path / "stuff").mkdir()
    found = serious(diagnose(tmp_path, toy_yaml))
    assert [(finding.check, finding.level) for finding in found] == [("R1", "error")]
    assert "no folders of images and labels found" in found[0].what


def test_what_cannot_be_checked_at_all_is_refused(masks: Path, toy_yaml: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        diagnose(masks / "none", toy_yaml)
    with pytest.raises(ConfigError, match="did you mean 'masks'"):
        diagnose(masks, toy_yaml, "mask")
    with pytest.raises(ConfigError, match="--hierarchy"):
        check_raw("masks", masks, PrepareOptions())
    with pytest.raises(HierarchyError, match="cityscapes"):
        diagnose(masks, toy_yaml, "cityscapes")


def test_a_full_disk_is_foretold(masks: Path, toy_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    found = serious(diagnose(masks, toy_yaml))
    assert [finding.check for finding in found] == ["R29"]
    assert "100 B are free" in found[0].what


def test_checks_that_do_not_apply_are_not_listed(masks: Path, toy_yaml: Path) -> None:
    listed = {check["id"] for check in diagnose(masks, toy_yaml).as_json()["checks"]}
    assert {"R1", "R3", "R5", "R7", "R8", "R16", "R17", "R29", "R30"} <= listed
    assert not listed & {"R10", "R18", "R21", "R25", "R27"}


# -- Cityscapes --------------------------------------------------------------------------------------------------------


def cityscapes(root: Path, ids: Any) -> Path:
    photo(root / "leftImg8bit" / "train" / "ulm" / "ulm_0_leftImg8bit.png", SHAPE)
    ids_png(root / "gtFine" / "train" / "ulm" / "ulm_0_gtFine_labelIds.png", ids)
    return root


def test_train_ids_instead_of_label_ids(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 255, np.uint8)
    ids[0] = 13
    found = serious(check_raw("cityscapes", cityscapes(tmp_path, ids), PrepareOptions()))
    assert [finding.check for finding in found] == ["R2", "R18"]
    assert "train has 1 images, the published set has 2975" in found[0].what
    assert "trainIds" in found[1].what


def test_known_totals_are_those_of_the_published_taxonomy_only(tmp_path: Path, toy_yaml: Path) -> None:
    root = coco_set(tmp_path, coco_json([{"segmentation": [square(1, 1, 3, 3)]}]))
    assert diagnose(root, toy_yaml, "coco").clean


# -- COCO --------------------------------------------------------------------------------------------------------------

GOOD = {"segmentation": [square(1, 1, 3, 3)]}
COCO_FAULTS: list[tuple[Any, str, str, str]] = [
    ('{"images": [', "R21", "error", "broken JSON"),
    ('{"images": [], "images": []}', "R21", "error", "twice"),
    (coco_json([GOOD]) | {"categories": []}, "R21", "error", "lists no categories"),
    (coco_json([GOOD, {**GOOD, "id": 1}]), "R21", "error", "twice"),
    (coco_json([{**GOOD, "image_id": 9}]), "R22", "error", "unknown image_id 9"),
    (coco_json([{**GOOD, "category_id": 9}]), "R22", "error", "unknown category_id 9"),
    (coco_json([GOOD], names=("wheel", "door")), "R13", "error", "'door'"),
    (coco_json([GOOD], images=("../a.jpg",)), "R28", "error", "leaves its folder"),
    (coco_json([{"segmentation": [[1, 1, 2, 2]]}]), "R23", "warning", "no polygon"),
    (coco_json([{"segmentation": [[1, 1, 2, 2], square(1, 1, 3, 3)]}]), "R23", "warning", "1 unusable polygon"),
    (coco_json([{"segmentation": {"size": [6, 8], "counts": [40, 7]}}]), "R25", "warning", "sum to 47, not 48"),
    (coco_json([{"segmentation": {"size": [8, 6], "counts": [48]}}]), "R25", "warning", "RLE of size [8, 6]"),
]


@pytest.mark.parametrize(("data", "check", "level", "words"), COCO_FAULTS, ids=[entry[3] for entry in COCO_FAULTS])
def test_faults_of_a_coco_file(tmp_path: Path, toy_yaml: Path, data: Any, check: str, level: str, words: str) -> None:
    found = serious(diagnose(coco_set(tmp_path / "raw", data), toy_yaml, "coco"))
    assert [(finding.check, finding.level) for finding in found] == [(check, level)], [str(f) for f in found]
    assert words in found[0].what
    assert "instances_train2017.json" in found[0].where


def test_contested_pixels_are_noted_with_the_rule(tmp_path: Path, toy_yaml: Path) -> None:
    annotations = [{"segmentation": [square(0, 0, 4, 4)]}, {"segmentation": [square(2, 2, 6, 6)], "category_id": 2}]
    diagnosis = diagnose(coco_set(tmp_path, coco_json(annotations)), toy_yaml, "coco")
    note = next(finding for finding in diagnosis.found.sorted() if finding.check == "R15")
    assert "8.33 % were claimed by several objects" in note.what  # 4 of 48
    assert "descending area" in note.cure


# -- PASCAL-Part -------------------------------------------------------------------------------------------------------

FULL = box((5, 6), 0, 0, 5, 6)
PASCAL_FAULTS: list[tuple[RawObject, str, str, str]] = [
    (RawObject("car", FULL, (("wheel_11", FULL),)), "R14", "warning", "numbered from 1"),
    (RawObject("cat", FULL, class_ind=7), "R11", "error", "class_ind"),
    (RawObject("cat", FULL, (("hat", FULL),)), "R13", "error", "'hat'"),
    (RawObject("cat", FULL, (("head", box((5, 6), 0, 0, 0, 0)),)), "R12", "warning", "empty mask"),
    (RawObject("cat", box((5, 6), 0, 0, 2, 2), (("head", FULL),)), "R12", "warning", "26 px outside its object"),
    (RawObject("cat", box((4, 6), 0, 0, 4, 6)), "R7", "error", "6x4"),
]


@pytest.mark.parametrize(("entry", "check", "level", "words"), PASCAL_FAULTS, ids=[entry[3] for entry in PASCAL_FAULTS])
def test_faults_of_a_pascal_part_file(tmp_path: Path, entry: RawObject, check: str, level: str, words: str) -> None:
    root = pascal_set(tmp_path, [entry], (5, 6))
    diagnosis = check_raw("pascal-part", root, PrepareOptions(hierarchy="pascal-part-108"))
    found = [finding for finding in serious(diagnosis) if finding.check != "R2"]
    assert [(finding.check, finding.level) for finding in found] == [(check, level)], [str(f) for f in found]
    assert words in str(found[0])


def test_a_newer_matlab_file(tmp_path: Path) -> None:
    root = pascal_set(tmp_path, [RawObject("cat", FULL)], (5, 6))
    (root / "Annotations_Part" / "2008_000001.mat").write_bytes(b"MATLAB 7.3 MAT-file" + b" " * 200)
    found = [finding.check for finding in serious(check_raw("pascal-part", root, PrepareOptions()))]
    assert found == ["R2", "R10"]


# -- other formats -----------------------------------------------------------------------------------------------------


def test_instance_maps_of_other_labels(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 26, np.uint8)  # a car everywhere, where the instance map has a person
    root = cityscapes(tmp_path, ids)
    instances = np.full(SHAPE, 24_001, np.uint16)
    ids_png(root / "gtFine" / "train" / "ulm" / "ulm_0_gtFine_instanceIds.png", instances)
    without = check_raw("cityscapes", root, PrepareOptions())
    assert [finding.check for finding in serious(without)] == ["R2"]
    assert "R20" not in {check["id"] for check in without.as_json()["checks"]}
    found = serious(check_raw("cityscapes", root, PrepareOptions(reader=ReaderOptions(instances=True))))
    assert [finding.check for finding in found] == ["R2", "R20"]
    assert "48 pixels" in found[1].what


def test_sceneparse_ids_that_were_reduced(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "training" / "a.jpg", SHAPE)
    ids_png(tmp_path / "annotations" / "training" / "a.png", np.full(SHAPE, 255, np.uint8))
    found = serious(check_raw("sceneparse150", tmp_path, PrepareOptions()))
    assert [finding.check for finding in found] == ["R2", "R19"]
    assert "reduced by one" in found[1].what


def panoptic_set(root: Path, segments: list[dict[str, Any]], pixels: Any) -> Path:
    photo(root / "train2017" / "a.jpg", SHAPE)
    colours = np.zeros((*SHAPE, 3), np.uint8)
    colours[..., 0] = pixels
    (root / "annotations" / "panoptic_train2017").mkdir(parents=True)
    Image.fromarray(colours).save(root / "annotations" / "panoptic_train2017" / "a.png")
    table = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SHAPE[0], "width": SHAPE[1]}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "person", "supercategory": "person", "isthing": 1}],
    }
    (root / "annotations" / "panoptic_train2017.json").write_text(json.dumps(table))
    return root


def test_panoptic_pngs_and_segments_that_disagree(tmp_path: Path) -> None:
    segment = {"id": 5, "category_id": 1, "area": 48, "iscrowd": 0, "bbox": [0, 0, 8, 6]}
    pixels = np.full(SHAPE, 5)
    good = check_raw("coco-panoptic", panoptic_set(tmp_path / "good", [segment], pixels), PrepareOptions())
    assert [finding.check for finding in serious(good)] == ["R2"]
    pixels[0] = 9
    found = serious(check_raw("coco-panoptic", panoptic_set(tmp_path / "bad", [segment], pixels), PrepareOptions()))
    assert [finding.check for finding in found] == ["R2", "R26"]
    assert "9 (8 px)" in found[1].what


def test_panoptic_part_ids_that_are_none(tmp_path: Path) -> None:
    photo(tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_0_leftImg8bit.png", SHAPE)
    path = tmp_path / "gtFinePanopticParts" / "train" / "ulm" / "ulm_0_gtFinePanopticParts.tif"
    path.parent.mkdir(parents=True)
    uids = np.full(SHAPE, 2_400_102, np.int32)
    uids[0, :3] = 500  # three digits
    Image.fromarray(uids).save(path)
    found = serious(check_raw("cityscapes-panoptic-parts", tmp_path, PrepareOptions()))
    assert [finding.check for finding in found] == ["R27"]
    assert "3 px" in found[0].what


# -- pieces ------------------------------------------------------------------------------------------------------------


def test_the_end_of_a_jpeg_is_not_that_of_its_thumbnail(tmp_path: Path) -> None:
    data = photo(tmp_path / "a.jpg", (40, 40)).read_bytes()
    assert _jpeg_has_end(data)
    assert _jpeg_has_end(data + b"trailing bytes of a camera")
    thumbnail = b"\xff\xe1" + (2 + len(data)).to_bytes(2, "big") + data
    assert _jpeg_has_end(data[:2] + thumbnail + data[2:])
    assert not _jpeg_has_end(data[:2] + thumbnail + data[2:-2])
    for keep in (0, 2, 3, 20, len(data) // 2):
        assert not _jpeg_has_end(data[:keep])


@pytest.mark.parametrize(
    ("words", "layout", "check"),
    [
        ("is an empty file", False, "R9"),
        ("label ids unknown to the hierarchy: 9 (3 px)", False, "R17"),
        ("unknown part 'hat'", False, "R13"),
        ("something no rule knows", False, READER),
        ("something no rule knows", True, "R1"),
    ],
)
def test_messages_are_told_apart_by_their_words(words: str, layout: bool, check: str) -> None:
    assert check_of(words, layout=layout) == check


# -- the command -------------------------------------------------------------------------------------------------------


def test_exit_codes_of_the_command(masks: Path, toy_yaml: Path) -> None:
    arguments = ["doctor", masks, "--format", "masks", "--hierarchy", toy_yaml, "--workers", 1]
    good = run(*arguments)
    assert good.exit_code == 0, good.output
    assert "raw dataset, hierarchy toy; train 3" in good.stdout
    cut(label(masks), 0.9)
    bad = run(*arguments, "--json")
    assert bad.exit_code == 1
    answer = json.loads(bad.stdout)["data"]
    assert set(answer) == {"kind", "where", "totals", "checks", "findings", "facts"}
    assert [finding["check"] for finding in answer["findings"] if finding["level"] == "error"] == ["R8"]
    for words, more in (("did you mean 'masks'", ["--format", "mask"]), ("does not apply", ["--images", masks])):
        result = run("doctor", masks, "--hierarchy", toy_yaml, "--format", "masks", *more)
        assert result.exit_code == 2
        assert words in result.stderr
