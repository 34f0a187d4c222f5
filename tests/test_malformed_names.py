"""Malformed inputs 12 to 15 and 19 of the format specification: missing files, names, and archives.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import shutil
import tarfile
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from malformed_check import accepts, crossed, refuses, refuses_source
from malformed_sets import ANY_NAME, JSON_SETS, LISTS, SETS, SHAPE, draw, rename_photo, rewrite, write_list
from raw_sets import photo

from hiposeg_cli.registry import FORMATS

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# -- 12: what lists and images lack ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTS)
def test_12_listed_image_without_annotation(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    write_list(raw, LISTS[name], "a", "missing")
    refuses(raw, "missing")


@pytest.mark.parametrize("name", LISTS)
def test_12_annotation_of_an_unlisted_image_is_left_out(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    write_list(raw, LISTS[name], "a")
    raw.label.write_bytes(b"never read")
    accepts(raw, images=1)


@pytest.mark.parametrize("name", ["masks", "cityscapes", "pascal-part", "coco-stuff", "sceneparse150", "mapillary"])
def test_12_photo_without_annotation_is_left_out(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    raw.label.unlink()
    accepts(raw, images=1)


@pytest.mark.parametrize("name", SETS)
def test_12_annotation_without_photo(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    raw.photo.unlink()
    if name == "yolo-seg":  # its lists of images are the folders, so this photo is not listed
        accepts(raw, images=1)
    else:
        refuses(raw, raw.photo.stem)


def test_12_sidecar_that_the_annotation_needs(tmp_path: Path) -> None:
    raw = draw("ade20k", tmp_path / "json")
    raw.label.with_name("b.json").unlink()
    refuses(raw, "b_seg.png", "b.json")
    raw = draw("coco-panoptic", tmp_path / "png")
    raw.label.unlink()
    refuses(raw, "b.png", "JSON names it")


# -- 13 and 14: names that clash ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "case"),
    crossed(
        ["13-two-photos"], ["masks", "pascal-part", "pascal-context", "labelme", "pascal-panoptic-parts", "mapillary"],
    ),
)  # fmt: skip
def test_two_photos_of_one_stem(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    photo(raw.photo.with_suffix(".png"), SHAPE)
    refuses(raw, "b.png", "b.jpg")


@pytest.mark.parametrize("name", [*JSON_SETS, "cvat", "yolo-seg", "partimagenet"])
def test_13_two_images_of_one_stem(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    photo(raw.photo.with_suffix(".png"), SHAPE)
    if name in JSON_SETS:
        rewrite(raw.label, lambda data: data["images"].append({**data["images"][1], "id": 3, "file_name": "b.png"}))
    if name == "coco-panoptic-json":
        rewrite(raw.label, lambda data: data["annotations"].append({**data["annotations"][1], "image_id": 3}))
    if name == "cvat":
        text = raw.label.read_text()
        raw.label.write_text(
            text.replace("</annotations>", '<image id="2" name="b.png" width="8" height="6"/></annotations>')
        )
    refuses(raw, "b.png", raw.photo.name)


PAIRS = {
    "14-case": ("Ab", "aB"),
    "14-case-of-umlauts": ("\u00c4", "\u00e4"),
    "14-nfc-nfd": tuple(unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD")),
}


@pytest.mark.parametrize(
    "name", ["masks", "cityscapes", "pascal-part", "coco", "coco-panoptic", "labelme", "yolo-seg", "cvat"]
)
@pytest.mark.parametrize("case", PAIRS)
def test_clash_of_names(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    first, second = PAIRS[case]
    rename_photo(replace(raw, photo=raw.photo.with_name(f"a{raw.photo.name[1:]}")), first)
    rename_photo(raw, second)
    if name == "cvat":
        raw.label.write_text(raw.label.read_text(encoding="utf-8").replace("a.jpg", f"{first}.jpg"), encoding="utf-8")
    if len({path.name for path in raw.photo.parent.iterdir()}) < 2:
        pytest.skip("this file system does not tell the two names apart")
    refuses_source(raw, "clashes with", "rename one")


# -- 15: unusual names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["day one b\u00fccher \u65e5\u672c", "a#b%20;'\"$(x)", "-x.y.z"])
@pytest.mark.parametrize("name", ANY_NAME)
def test_15_unusual_name_is_kept(name: str, new: str, tmp_path: Path) -> None:
    if name == "cvat" and '"' in new:
        new = new.replace('"', "")
    raw = draw(name, tmp_path)
    rename_photo(raw, new)
    accepts(raw)


CONTROLS = {"15-newline": "b\nc", "15-escape": "b\x1b[31m"}


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *crossed(["15-newline"], ANY_NAME),
        *crossed(["15-escape"], [name for name in ANY_NAME if name != "cvat"]),  # which XML cannot hold
    ],
)
def test_control_characters(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    rename_photo(raw, CONTROLS[case])
    refuses(raw, "control characters")


@pytest.mark.parametrize("name", [name for name in ANY_NAME if name not in ("coco", "coco-panoptic", "cvat")])
def test_15_name_in_no_encoding(name: str, tmp_path: Path) -> None:
    """As an archive from another system is unpacked: bytes that are no UTF-8."""
    raw = draw(name, tmp_path)
    rename_photo(raw, "b\udcff")
    refuses(raw, "udcff", "not UTF-8")


# -- 19: archives ------------------------------------------------------------------------------------------------------


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.txt", "evil")
        archive.writestr("/evil.txt", "evil")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("../evil.txt")
        archive.addfile(member)


ARCHIVES = {"19-zip": zipped, "19-tar": tarred}


@pytest.mark.parametrize(
    ("name", "case"), crossed(ARCHIVES, ["masks"], [name for name in SETS if name != "masks"], ["19-zip"])
)
def test_archive_instead_of_a_folder(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    shutil.rmtree(raw.root)
    ARCHIVES[case](raw.root)
    refuses_source(raw, "raw: is", "extract")


@pytest.mark.parametrize(
    ("text", "word"), [("<html>Sign in</html>", "HTML"), ("version https://git-lfs.github.com/spec/v1\n", "LFS")]
)
def test_04_download_that_is_no_archive(text: str, word: str, tmp_path: Path) -> None:
    raw = draw("masks", tmp_path)
    shutil.rmtree(raw.root)
    raw.root.write_text(text)
    refuses_source(raw, "raw: is", word)


def test_every_format_has_a_toy_set(tmp_path: Path) -> None:
    assert {draw(name, tmp_path / name).format for name in SETS} == set(FORMATS.names())
