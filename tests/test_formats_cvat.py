"""CVAT for images 1.1: what each shape covers, which split and object it belongs to, and XML that is refused."""

from __future__ import annotations

import math
import os
import pickle
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from conversion import complaint, converted, keys_by_split, only
from PIL import Image
from raw_sets import photo

from hiposeg_cli.convert import PrepareOptions, open_reader
from hiposeg_cli.errors import DataError
from hiposeg_cli.formats import cvat_xml
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.cvat_xml import CvatXml
from hiposeg_cli.store import Dataset

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

X = 255
SIZE = (6, 8)
WHEEL, WINDOW, BODY, SKY = 1, 2, 3, 6
CAR = 1
META = "<version>1.1</version><meta><task><name>t</name><labels><label><name>wheel</name></label></labels></task></meta>"


def image(*shapes: str, name: str = "a.jpg", size: tuple[int, int] = SIZE, extra: str = "") -> str:
    return f'<image id="0" name="{name}" {extra} width="{size[1]}" height="{size[0]}">{"".join(shapes)}</image>'


def polygon(label: str, points: str, extra: str = "") -> str:
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" {extra}></polygon>'


def box(label: str, left: float, top: float, right: float, bottom: float, extra: str = "") -> str:
    """Covers columns left..right-1 and rows top..bottom-1."""
    return f'<box label="{label}" occluded="0" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" {extra}></box>'


def mask(label: str, rle: str, left: int, top: int, width: int, height: int, extra: str = "") -> str:
    where = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'<mask label="{label}" occluded="0" rle="{rle}" {where} {extra}></mask>'


def ellipse(label: str, x: float, y: float, rx: float, ry: float, extra: str = "") -> str:
    return f'<ellipse label="{label}" occluded="0" cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" {extra}></ellipse>'


def xml_file(path: Path, *images: str, head: str = '<?xml version="1.0" encoding="utf-8"?>\n') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}<annotations>{META}{''.join(images)}</annotations>\n", encoding="utf-8")
    return path


def cvat_set(root: Path, *shapes: str, size: tuple[int, int] = SIZE) -> Path:
    photo(root / "images" / "a.jpg", size)
    xml_file(root / "annotations.xml", image(*shapes, size=size))
    return root


def maps(dataset: Dataset) -> tuple[list[list[int]], list[list[int]]]:
    labels = dataset.labels(only(dataset))
    return labels.fine.tolist(), labels.coarse.tolist()


def filled(size: tuple[int, int], *boxes: tuple[int, int, int, int, int]) -> list[list[int]]:
    """Zeros with boxes (value, left, top, right, bottom), right and bottom not included, one over another."""
    array = np.zeros(size, int)
    for value, left, top, right, bottom in boxes:
        array[top:bottom, left:right] = value
    return array.tolist()


# -- what is drawn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "covers"),
    [
        (polygon("wheel", "1.00,1.00;5.00,1.00;5.00,4.00;1.00,4.00"), ["........", ".####...", ".####...", ".####..."]),
        (box("wheel", 2, 0, 4, 2), ["..##....", "..##....", "........", "........"]),
        (box("wheel", 1, 1, 5, 3, 'rotation="90.00"'), ["..##....", "..##....", "..##....", "..##...."]),
        (box("wheel", 1, 1, 5, 3, 'rotation="180"'), ["........", ".####...", ".####...", "........"]),
        (mask("wheel", "1, 2, 1, 2", 3, 1, 3, 2), ["........", "....##..", "....##..", "........"]),
        (mask("wheel", "0, 4, 2", 5, 2, 3, 2), ["........", "........", ".....###", ".....#.."]),
        (ellipse("wheel", 4, 2, 2, 1), ["........", "..####..", "..####..", "........"]),
        (ellipse("wheel", 4, 2, 2, 1, 'rotation="90"'), ["...##...", "...##...", "...##...", "...##..."]),
    ],
    ids=["polygon", "box", "box 90", "box 180", "mask", "mask from the first pixel", "ellipse", "ellipse 90"],
)
def test_each_kind_of_shape_by_hand(entry: str, covers: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw", entry, size=(4, 8))
    dataset = converted("cvat", root, tmp_path / "out", toy_yaml)
    assert ["".join("#" if value == WHEEL else "." for value in line) for line in maps(dataset)[0]] == covers
    assert only(dataset).warnings == []


def test_ellipses_cover_the_pixels_whose_centre_they_contain(tmp_path: Path, toy_yaml: Path) -> None:
    """Against the definition by foci: the two distances sum to at most the long axis."""
    rng = np.random.default_rng(3)
    size = 24, 30
    for number in range(12):
        x, y = rng.uniform(-4, 34), rng.uniform(-4, 28)
        short, long = sorted(rng.uniform(1, 12, 2).round(2))
        turn = round(float(rng.uniform(-180, 180)), 2)
        root = cvat_set(
            tmp_path / f"raw{number}", ellipse("wheel", x, y, long, short, f'rotation="{turn}"'), size=size
        )  # fmt: skip
        fine = np.array(maps(converted("cvat", root, tmp_path / f"out{number}", toy_yaml))[0])
        focus = math.sqrt(long**2 - short**2) * np.exp(1j * math.radians(turn))
        centres = (np.arange(30) + 0.5)[None] + 1j * (np.arange(24) + 0.5)[:, None] - (x + 1j * y)
        inside = abs(centres - focus) + abs(centres + focus) <= 2 * long
        assert (fine == np.where(inside, WHEEL, 0)).all()


def test_higher_z_order_is_on_top_and_file_order_decides_ties(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [
        box("sky", 0, 0, 4, 4, 'z_order="2"'),
        box("car", 1, 1, 6, 5, 'z_order="-1"'),
        box("body", 2, 2, 6, 5),
        box("wheel", 3, 3, 8, 6),
    ]
    dataset = converted("cvat", cvat_set(tmp_path / "raw", *shapes), tmp_path / "out", toy_yaml)
    fine, coarse = maps(dataset)
    assert fine == filled(SIZE, (X, 1, 1, 6, 5), (BODY, 2, 2, 6, 5), (WHEEL, 3, 3, 8, 6), (SKY, 0, 0, 4, 4))
    assert coarse == filled(SIZE, (CAR, 1, 1, 6, 5), (CAR, 3, 3, 8, 6), (2, 0, 0, 4, 4))
    assert only(dataset).overlap_px == 9
    assert only(dataset).part_overlap_px == 6


def test_what_covers_no_pixels_is_counted(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [
        box("sky", 0, 0, 8, 6), '<points label="nose" points="1,1;2,2"/>', '<points label="nose" points="1,1"/>',
        '<polyline label="lane" points="1,1;5,5"/>', '<tag label="night"/>', '<cuboid label="lorry" xtl1="0"/>',
        '<skeleton label="person"><points label="knee" outside="0" points="1,1"/></skeleton>',
        box("car", 0, 0, 8, 6, 'outside="1"'),
    ]  # fmt: skip
    dataset = converted("cvat", cvat_set(tmp_path / "raw", *shapes), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 8, 6))
    assert sorted(only(dataset).warnings) == [
        "1 cuboid not drawn", "1 polyline not drawn", "1 skeleton not drawn", "1 tag not drawn", "2 points not drawn"
    ]  # fmt: skip


def test_groups_join_pieces_and_parts(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [
        box("car", 0, 0, 2, 2, 'group_id="3"'), box("car", 4, 0, 6, 2, 'group_id="3"'),
        box("wheel", 5, 1, 6, 2, 'group_id="3"'), box("car", 0, 4, 2, 6, 'group_id="0"'), box("car:wheel", 4, 4, 6, 6),
    ]  # fmt: skip
    root = cvat_set(tmp_path / "raw", *shapes)
    reader = open_reader("cvat", root, PrepareOptions(str(toy_yaml), ReaderOptions(instances=True)))
    (item,) = reader.items()
    label = pickle.loads(pickle.dumps(reader)).read(pickle.loads(pickle.dumps(item)))
    assert label.n_objects == 3
    assert label.instances.tolist() == filled(
        SIZE, (1, 0, 0, 2, 2), (1, 4, 0, 6, 2), (2, 0, 4, 2, 6), (3, 4, 4, 6, 6)
    )  # fmt: skip
    encoded = reader.lookup.encode(label.ids, "here")
    assert encoded.fine[1, 5] == WHEEL
    assert encoded.fine[4, 4] == WHEEL


def test_unlabelled_pixels_by_option_and_unknown_labels(tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw", box("sky", 0, 0, 8, 3), box("weel", 0, 5, 8, 6))
    said = complaint("cvat", root, toy_yaml)
    assert "unknown label (hierarchy 'toy') 'weel'" in said
    assert "did you mean 'wheel'" in said
    dataset = converted("cvat", root, tmp_path / "out", toy_yaml, unlabelled="ignore", unknown="ignore")
    assert maps(dataset)[1] == filled(SIZE, (2, 0, 0, 8, 3), (X, 0, 3, 8, 6))


# -- folders, splits and photos ----------------------------------------------------------------------------------------


def test_subsets_of_a_project_are_splits(tmp_path: Path, toy_yaml: Path) -> None:
    root = tmp_path / "raw"
    for number, place in enumerate(("Train/a.jpg", "Validation/a.jpg", "extra/b.jpg", "default/c.png")):
        photo(root / "images" / place, SIZE, seed=number)
    entries = [
        image(name="a.jpg", extra='subset="Train" task_id="1"'), image(name="a.jpg", extra='subset="Validation"'),
        image(name="b.jpg", extra='subset="extra"'), image(name="c.png"),
    ]  # fmt: skip
    xml_file(root / "annotations.xml", *entries)
    dataset = converted("cvat", root, tmp_path / "out", toy_yaml)
    assert keys_by_split(dataset) == {"extra": ["b"], "train": ["a", "c"], "val": ["a"]}
    paths = {row.split + "/" + row.key: row.image_path for rows in dataset.rows.values() for row in rows}
    assert paths["train/a"] == "images/Train/a.jpg"
    assert paths["val/a"] == "images/Validation/a.jpg"


def test_several_tasks_in_folders(tmp_path: Path, toy_yaml: Path) -> None:
    root = tmp_path / "raw"
    for task in ("train", "val", "task_7"):
        photo(root / task / "images" / "day" / "a.jpg", SIZE)
        xml_file(root / task / "annotations.xml", image(box("sky", 0, 0, 8, 6), name="day/a.jpg"))
    dataset = converted("cvat", root, tmp_path / "out", toy_yaml)
    assert keys_by_split(dataset) == {"train": ["day/a", "task_7/day/a"], "val": ["day/a"]}


def test_frames_of_a_video_are_named_without_suffix(tmp_path: Path, toy_yaml: Path) -> None:
    root = tmp_path / "raw"
    photo(root / "images" / "frame_000000.PNG", SIZE)
    xml_file(root / "annotations.xml", image(name="frame_000000"))
    assert only(converted("cvat", root, tmp_path / "out", toy_yaml)).key == "frame_000000"
    photo(root / "images" / "frame_000000.jpg", SIZE)
    assert "same stem" in complaint("cvat", root, toy_yaml)


def test_photos_elsewhere(tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw", box("sky", 0, 0, 8, 6))
    (root / "images").rename(tmp_path / "photos")
    said = complaint("cvat", root, toy_yaml)
    assert "its image a.jpg is missing" in said
    assert "--images" in said
    dataset = converted("cvat", root, tmp_path / "out", toy_yaml, images=tmp_path / "photos")
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 8, 6))
    assert "no such folder" in complaint("cvat", root, toy_yaml, images=tmp_path / "nowhere")


def test_photo_of_another_size_or_turned(tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw")
    photo(root / "images" / "a.jpg", (8, 6))
    assert "is 6x8, the annotations say 8x6" in complaint("cvat", root, toy_yaml)
    picture = Image.new("RGB", (8, 6))
    exif = picture.getexif()
    exif[0x0112] = 2
    picture.save(root / "images" / "a.jpg", exif=exif)
    said = complaint("cvat", root, toy_yaml)
    assert "EXIF orientation 2" in said
    assert "CVAT applies" in said


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "C:/a.jpg", "x\\a.jpg"])
def test_image_names_that_leave_their_folder(name: str, tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw")
    xml_file(root / "annotations.xml", image(name=name))
    said = complaint("cvat", root, toy_yaml)
    assert "annotations.xml" in said
    assert "leaves its folder" in said


def test_a_folder_without_annotations(tmp_path: Path, toy_yaml: Path) -> None:
    assert "holds no annotations.xml" in complaint("cvat", tmp_path, toy_yaml)


# -- the file ----------------------------------------------------------------------------------------------------------

BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{BOMB}<annotations>&c;</annotations>", ["document type or entities"]),
        (f"{OUTSIDE}<annotations>&x;</annotations>", ["document type or entities"]),
        ("<!DOCTYPE annotations><annotations/>", ["document type or entities"]),
        ("", ["is an empty file"]),
        ("<annotations>\n<image></annotations>", ["annotations.xml:2:", "broken XML", "mismatched tag"]),
        ("<annotations><image name='a.jpg'>", ["broken XML"]),
        ("not xml", ["annotations.xml:1:1", "broken XML"]),
        ("<annotation><filename>a.jpg</filename></annotation>", ["starts with <annotation>", "CVAT"]),
        ("<annotations><meta/></annotations>", ["lists no images"]),
        ("<annotations><track id='0' label='car'/></annotations>", ["CVAT for video", "CVAT for images 1.1"]),
        (f"<annotations>{image(name='')}</annotations>", ["image 0 has no name"]),
        (f"<annotations>{image()}{image()}</annotations>", ["lists the image a.jpg twice"]),
        ("<annotations><image name='a.jpg' width='-8' height='6'/></annotations>", ["width '-8'"]),
        ("<?xml version='1.0' encoding='latin-1'?><annotations/>", ["latin-1 text", "UTF-8"]),
        ("version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer"]),
        (f"<annotations>{image(box('sky', 0, 0, 1, 1, 'z_order=' + chr(34) + 'top' + chr(34)))}</annotations>",
         ["z_order 'top'"]),
        (f"<annotations>{image(box('', 0, 0, 1, 1))}</annotations>", ["a box of a.jpg has no label"]),
        (f"<annotations>{image(extra='subset=' + chr(34) + 'a/b' + chr(34))}</annotations>", ["subset 'a/b'"]),
        (f"<annotations>{image(extra='subset=' + chr(34) + '..' + chr(34))}</annotations>", ["leaves its folder"]),
    ],
)  # fmt: skip
def test_files_that_are_refused(text: str, says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw")
    (root / "annotations.xml").write_text(text, encoding="utf-8")
    said = complaint("cvat", root, toy_yaml)
    assert all(part in said for part in ["annotations.xml", *says]), said


def test_other_encodings_are_named_and_a_byte_order_mark_is_skipped(tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw", box("sky", 0, 0, 8, 6))
    path = root / "annotations.xml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert maps(converted("cvat", root, tmp_path / "out", toy_yaml))[0] == filled(SIZE, (SKY, 0, 0, 8, 6))
    path.write_bytes(path.read_text(encoding="utf-8-sig").replace("utf-8", "utf-16").encode("utf-16"))
    assert "UTF-16" in complaint("cvat", root, toy_yaml)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_the_index_finds_each_image_whatever_lies_around_it(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elements read by byte range equal those of a parser that holds the whole file."""
    monkeypatch.setattr(cvat_xml, "_PIECE", piece)
    entries = [
        image(box("sky", 0, 0, 1, 1), name="a.jpg"),
        "\n  <!-- between -->\n  ",
        '<image id="1" name="b &amp; c.jpg" width="3"/>',
        '<image id="2" name="d.jpg"><box><attribute name="n">a &lt; b <![CDATA[<image>]]></attribute></box>\n</image >',
        "<?note?>",
        image(name="é 車.jpg", extra='subset="s"'),
        '<image id="4" name="e.jpg"></image><image id="5" name="f.jpg"/>',
        "\r\n\t",
    ]  # fmt: skip
    path = xml_file(tmp_path / "annotations.xml", *entries)
    table = CvatXml(path)
    wanted = ET.parse(path).getroot().findall("image")
    assert [entry.name for entry in table.images] == [element.get("name") for element in wanted]
    assert [entry.subset for entry in table.images] == ["", "", "", "s", "", ""]
    assert table.images[1].size == (None, 3)
    sent = pickle.loads(pickle.dumps(table))
    assert not hasattr(sent, "images")
    for entry, element in zip(table.images, wanted, strict=True):
        found = sent.read(entry.span)
        assert ET.tostring(found).strip() == ET.tostring(element).strip()


def test_a_file_that_changes_after_it_was_indexed_is_noticed(tmp_path: Path) -> None:
    path = xml_file(tmp_path / "annotations.xml", image())
    table = CvatXml(path)
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match="changed while it was being read"):
        table.read(table.images[0].span)


# -- shapes that cannot be drawn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (polygon("car", "1,1;2,2"), "no polygon of three finite points"),
        (polygon("car", ""), "its points are ''"),
        (polygon("car", "1,1;2;3,3"), "its points are '1,1;2;3,3'"),
        (polygon("car", "1,1;2,x;3,3"), "its points are"),
        (polygon("car", "1,1;5,nan;3,3"), "no polygon of three finite points"),
        (polygon("car", "1,1;5,inf;3,3"), "no polygon of three finite points"),
        (polygon("car", "1,1;5,1;3,99999"), "no polygon of three finite points near the image"),
        (box("car", 1, 1, math.nan, 3), "its xbr is 'nan'"),
        ('<box label="car" xtl="1" ytl="1" xbr="2"/>', "its ybr is None"),
        (box("car", 1, 1, 3, 3, 'rotation="inf"'), "its rotation is 'inf'"),
        (ellipse("car", 1, 1, 0, 2), "its radii are 0 and 2"),
        (ellipse("car", 1, 1, 2000, 2), "far outside the image"),
        (mask("car", "3, 2", 0, 0, 3, 2), "sum to 5, its box holds 6 pixels"),
        (mask("car", "-1, 7", 0, 0, 3, 2), "sum to 6"),
        (mask("car", "1.5, 4.5", 0, 0, 3, 2), "not whole numbers"),
        (mask("car", "0, 6", 6, 0, 3, 2), "its box of 3x2 at (6, 0) leaves the image"),
        (mask("car", "0, 6", 0, -1, 3, 2), "leaves the image"),
        (mask("car", "0", 0, 0, 0, 0), "leaves the image"),
        (mask("car", "1000000000000, 2", 0, 0, 1, 1), "its box holds 1 pixels"),
        ('<mask label="car" left="0" top="0" width="1" height="1"/>', "not whole numbers"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_skipped_and_said(bad: str, says: str, tmp_path: Path, toy_yaml: Path) -> None:
    root = cvat_set(tmp_path / "raw", box("sky", 0, 0, 8, 6), bad)
    dataset = converted("cvat", root, tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 8, 6))
    (warning,) = only(dataset).warnings
    assert "'car'" in warning
    assert says in warning
    assert warning.endswith("; skipped")
    assert warning.count("skipped") == 1


def test_shapes_partly_and_wholly_outside_the_image_are_clipped_and_counted(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [box("sky", -4, -4, 2, 2), ellipse("sky", -20, -20, 3, 3)]
    dataset = converted("cvat", cvat_set(tmp_path / "raw", *shapes), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 2, 2))
    assert sorted(only(dataset).warnings) == ["2 shapes reach outside the image; clipped", "ellipse 'sky' covers no pixel"]
