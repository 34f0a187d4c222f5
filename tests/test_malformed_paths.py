"""Malformed inputs 16 and 17 of the format specification: paths and links that lead elsewhere; 12 to 17 under --skip-bad.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from malformed_check import accepts, crossed, prepare, problems, refuses, refuses_image, refuses_source
from malformed_sets import JSON_SETS, LISTS, SETS, SHAPE, Raw, cvat_xml, draw, rename_photo, rewrite, write_list
from raw_sets import photo

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# -- 16: names that lead elsewhere -------------------------------------------------------------------------------------

ELSEWHERE = {
    "16-parent": "../evil.jpg",
    "16-inner-parent": "x/../../evil.jpg",
    "16-absolute": "/WORLD/evil.jpg",
    "16-drive": "C:/evil.jpg",
    "16-drive-relative": "C:evil.jpg",
    "16-backslash": "..\\evil.jpg",
    "16-unc": "\\\\server\\share\\evil.jpg",
    "16-unc-slashes": "//server/share/evil.jpg",
}  # fmt: skip


def evil(case: str, raw: Raw) -> str:
    """The name; the file it leads to exists wherever it can, so that only the check keeps it out."""
    for folder in {raw.world, raw.root, raw.photo.parent.parent}:
        shutil.copyfile(raw.photo, folder / "evil.jpg")
    return ELSEWHERE[case].replace("/WORLD", str(raw.world))


@pytest.mark.parametrize(("name", "case"), crossed(ELSEWHERE, ["coco"], JSON_SETS[1:], ["16-parent", "16-absolute"]))
def test_file_name_that_leads_elsewhere(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    path = evil(case, raw)
    rewrite(raw.label, lambda data: data["images"][1].update(file_name=path))
    refuses(raw, raw.label.name, path, "leaves its folder")


@pytest.mark.parametrize("case", ELSEWHERE)
def test_png_of_a_panoptic_json_that_leads_elsewhere(case: str, tmp_path: Path) -> None:
    raw = draw("coco-panoptic-json", tmp_path)
    path = evil(case, raw).replace(".jpg", ".png")
    rewrite(raw.label, lambda data: data["annotations"][1].update(file_name=path))
    refuses(raw, raw.label.name, path, "leaves its folder")


@pytest.mark.parametrize("case", ELSEWHERE)
def test_image_path_of_labelme_that_leads_elsewhere(case: str, tmp_path: Path) -> None:
    raw = draw("labelme", tmp_path)
    path = evil(case, raw)
    rewrite(raw.label, lambda data: data.update(imagePath=path))
    refuses_image(raw, "b.json", "imagePath", path)
    raw.photo.unlink()
    shutil.rmtree(raw.out)
    refuses(raw, "b.json", "imagePath", path)


@pytest.mark.parametrize("attribute", ["name", "subset"])
@pytest.mark.parametrize("case", ELSEWHERE)
def test_cvat_image_that_leads_elsewhere(case: str, attribute: str, tmp_path: Path) -> None:
    raw = draw("cvat", tmp_path)
    path = evil(case, raw)
    raw.label.write_text(cvat_xml(name=path) if attribute == "name" else cvat_xml(size=f'subset="{path}"'))
    refuses(raw, "annotations.xml", path)


PLACES = ["../outside", "images/../../outside", "WORLD/outside", "C:/outside", "\\\\server\\outside"]


@pytest.mark.parametrize("place", PLACES)
def test_16_folder_of_yolo_that_leads_elsewhere(place: str, tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    place = place.replace("WORLD", str(raw.world))
    photo(raw.world / "outside" / "c.jpg", SHAPE)
    data = raw.root / "data.yaml"
    data.write_text(data.read_text().replace("train: images/train", f"train: {place}"))
    refuses_source(raw, "data.yaml:2", place)


@pytest.mark.parametrize("place", PLACES)
def test_16_listed_image_of_yolo_that_leads_elsewhere(place: str, tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    place = place.replace("WORLD", str(raw.world))
    photo(raw.world / "outside" / "c.jpg", SHAPE)
    data = raw.root / "data.yaml"
    data.write_text(data.read_text().replace("train: images/train", "train: list.txt"))
    (raw.root / "list.txt").write_text(f"images/train/a.jpg\n{place}/c.jpg\n")
    refuses(raw, "list.txt:2", place)


@pytest.mark.parametrize("name", LISTS)
def test_16_list_entry_that_leads_elsewhere(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    shutil.copytree(raw.label.parent, raw.world / "outside")
    write_list(raw, LISTS[name], "a", f"../../outside/{raw.label.stem}")
    refuses(raw, "../../outside/b")


# -- 17: links ---------------------------------------------------------------------------------------------------------


def move_out(raw: Raw, path: Path) -> Path:
    """Move something out of the set, and leave a link to it behind."""
    target = raw.world / "outside" / path.name
    target.parent.mkdir()
    shutil.move(path, target)
    path.symlink_to(target)
    return path


ONE_FILE = (*JSON_SETS, "cvat")


@pytest.mark.parametrize(("name", "case"), crossed(["17-link"], list(SETS)))
def test_photo_that_is_a_link_out_of_the_set(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    path = move_out(raw, raw.photo)
    refuses(raw, path.name, "links out", "--follow-symlinks")
    shutil.rmtree(raw.out, ignore_errors=True)
    accepts(raw.told("--follow-symlinks"))


@pytest.mark.parametrize(("name", "case"), crossed(["17-link"], list(SETS)))
def test_annotation_that_is_a_link_out_of_the_set(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    path = move_out(raw, raw.label)
    if name in ONE_FILE:
        refuses_source(raw, path.name, "outside", "--follow-symlinks")
    else:
        refuses(raw, path.name, "links out", "--follow-symlinks")
        shutil.rmtree(raw.out, ignore_errors=True)
    assert prepare(raw.told("--follow-symlinks"), "--check").exit_code == 0


@pytest.mark.parametrize(("name", "case"), crossed(["17-link"], [name for name in SETS if name != "labelme"]))
def test_folder_of_photos_that_is_a_link_out_of_the_set(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    path = move_out(raw, raw.photo.parent)
    refuses_source(raw, str(path.relative_to(raw.root)), "--follow-symlinks")
    assert prepare(raw.told("--follow-symlinks"), "--check").exit_code == 0


@pytest.mark.parametrize("name", [name for name in SETS if name not in ("labelme", "cvat")])
def test_17_folder_of_annotations_that_is_a_link_out_of_the_set(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    path = move_out(raw, raw.label.parent)
    if name == "yolo-seg":  # labels are looked for image by image
        lines = problems(prepare(raw, "--check"))
        assert len(lines) == 2
        assert all("--follow-symlinks" in line for line in lines)
    else:
        refuses_source(raw, path.name, "--follow-symlinks")
    assert prepare(raw.told("--follow-symlinks"), "--check").exit_code == 0


@pytest.mark.parametrize("name", ["masks", "coco", "labelme", "cvat", "yolo-seg"])
def test_17_link_within_the_set(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    target = raw.root / "kept" / "photo.bin"
    target.parent.mkdir()
    raw.photo.rename(target)
    raw.photo.symlink_to(target)
    accepts(raw)


@pytest.mark.parametrize("name", ["masks", "coco", "labelme", "cvat", "yolo-seg"])
def test_17_link_that_leads_nowhere(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    raw.photo.unlink()
    raw.photo.symlink_to(raw.root / "gone.jpg")
    refuses_image(raw, raw.photo.name, "no such file")


@pytest.mark.parametrize("options", [[], ["--follow-symlinks"]])
@pytest.mark.parametrize(("name", "case"), crossed(["17-link"], ["masks", "coco", "labelme", "cvat", "ade20k"]))
def test_link_back_to_a_folder_above(name: str, case: str, options: list[str], tmp_path: Path) -> None:
    raw = draw(name, tmp_path).told(*options)
    (raw.photo.parent / "again").symlink_to(raw.root, target_is_directory=True)
    refuses_source(raw, "again", "links back")


def test_17_listed_photo_of_yolo_that_is_a_link_out_of_the_set(tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    data = raw.root / "data.yaml"
    data.write_text(data.read_text().replace("train: images/train", "train: list.txt"))
    (raw.root / "list.txt").write_text("images/train/a.jpg\nimages/train/b.jpg\n")
    move_out(raw, raw.photo)
    refuses_image(raw, "b.jpg", "links out", "--follow-symlinks")


@pytest.mark.parametrize("name", ["masks", "labelme"])
def test_12_to_17_photos_without_labels_are_nobodys_fault(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    for suffix in (".jpg", ".png"):
        photo(raw.photo.with_name(f"c{suffix}"), SHAPE)
    raw.photo.with_name("d.jpg").symlink_to(raw.world / "neighbour.txt")
    accepts(raw)


# -- 12 to 17 under --skip-bad: only the image is lost -----------------------------------------------------------------


def photo_gone(raw: Raw) -> None:
    raw.photo.unlink()


def photo_twice(raw: Raw) -> None:
    photo(raw.photo.with_suffix(".png"), SHAPE)


def bell_in_the_name(raw: Raw) -> None:
    rename_photo(raw, "b\x07")


def name_that_leads_elsewhere(raw: Raw) -> None:
    if raw.format == "cvat":
        raw.label.write_text(cvat_xml(name="../evil.jpg"))
    else:
        rewrite(raw.label, lambda data: data["images"][1].update(file_name="../evil.jpg"))


def photo_linked(raw: Raw) -> None:
    move_out(raw, raw.photo)


def annotation_linked(raw: Raw) -> None:
    move_out(raw, raw.label)


IMAGE_FAULTS = {
    "12-no-photo": photo_gone,
    "13-two-photos": photo_twice,
    "15-control-character": bell_in_the_name,
    "16-elsewhere": name_that_leads_elsewhere,
    "17-photo": photo_linked,
    "17-annotation": annotation_linked,
}  # fmt: skip
SKIPPED = [
    *crossed(["12-no-photo"], [name for name in SETS if name != "yolo-seg"]),
    *crossed(["13-two-photos"], ["masks", "pascal-part", "labelme", "partimagenet"]),
    *crossed(["15-control-character"], ["masks", "pascal-part", "labelme", "mapillary", "ade20k"]),
    *crossed(["15-control-character"], ["coco", "coco-panoptic", "yolo-seg"]),
    *crossed(["16-elsewhere"], ["cvat"]),
    *crossed(["16-elsewhere"], JSON_SETS),
    *crossed(["17-photo", "17-annotation"], ["yolo-seg"]),
    *crossed(["17-photo"], ["masks", "coco"]),
    *crossed(["17-annotation"], ["masks", "pascal-part", "labelme", "ade20k"]),
]


@pytest.mark.parametrize(("name", "case"), SKIPPED)
def test_only_the_image_is_lost(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    IMAGE_FAULTS[case](raw)
    refuses_image(raw)
