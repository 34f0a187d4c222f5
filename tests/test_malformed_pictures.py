"""Malformed inputs 1 to 8 and 18 of the format specification: pictures that are broken, hold no ids, or are too large.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from malformed_check import accepts, crossed, hiposeg, refuses_image
from malformed_sets import IDS, SHAPE, draw, rewrite
from PIL import Image, ImageFile
from raw_sets import grey_png, ids_png, photo, png_chunk

from hiposeg_cli import image_file, store
from hiposeg_cli.commands import prepare as commands

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GREY = (
    "masks", "cityscapes", "pascal-context", "coco-stuff", "partimagenet", "sceneparse150", "mapillary", "lip", "cihp",
)  # fmt: skip
COLOURED = ("coco-panoptic", "ade20k")
TIFFS = ("cityscapes-panoptic-parts", "pascal-panoptic-parts")
MATS = ("pascal-part", "pascal-context-mat", "coco-stuff-10k")
Spoil = Callable[[Path], None]

# -- 1 to 4: files that are not what they should be --------------------------------------------------------------------


def cut(path: Path) -> None:
    """Cut a file off in the middle of its picture data (for what has no marker of it: in the middle)."""
    data = path.read_bytes()
    start = next((data.index(mark) for mark in (b"IDAT", b"\xff\xda") if mark in data), 0)
    path.write_bytes(data[: (start + len(data)) // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def without_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def bad_crc(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT")
    data[start + 4 + int.from_bytes(data[start - 4 : start], "big")] ^= 1
    path.write_bytes(bytes(data))


def bad_crc_of_a_remark(path: Path) -> None:
    """A chunk that no decoder needs; its damage shows that the file is not what was written."""
    data = path.read_bytes()
    chunk = png_chunk(b"tEXt", b"Software\0drawn")
    path.write_bytes(data[:33] + chunk[:-1] + bytes([chunk[-1] ^ 1]) + data[33:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")


def html(path: Path) -> None:
    path.write_text("\n <!DOCTYPE html><html><body>Sign in</body></html>")


ANY_PICTURE = {
    "03-zero-byte": (empty, ["empty"]),
    "04-lfs-pointer": (lfs, ["LFS"]),
    "04-html-page": (html, ["HTML"]),
}  # fmt: skip
ANY_PNG = {
    "01-truncated-png": (cut, ["truncated", "bytes"]),
    "01-png-without-data": (cut_in_the_header, ["truncated", "bytes"]),
    "02-no-iend": (without_end, ["truncated", "bytes"]),
    "02-bad-crc": (bad_crc, ["IDAT", "checksum"]),
    "02-bad-crc-of-a-remark": (bad_crc_of_a_remark, ["tEXt", "checksum"]),
    **ANY_PICTURE,
}


@pytest.mark.parametrize(
    ("name", "case"),
    crossed(ANY_PNG, ("masks", *COLOURED), GREY[1:], ["01-truncated-png", "03-zero-byte"]),
)
def test_broken_label_png(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    spoil, words = ANY_PNG[case]
    spoil(raw.label)
    refuses_image(raw, raw.label.name, *words)


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("case", ["01-truncated-tiff", *ANY_PICTURE])
def test_broken_label_tiff(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    spoil, words = ANY_PICTURE.get(case, (cut, []))
    spoil(raw.label)
    refuses_image(raw, raw.label.name, *words)


@pytest.mark.parametrize(("name", "case"), crossed(ANY_PNG, ["cityscapes"]))
def test_broken_png_photo(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    spoil, words = ANY_PNG[case]
    spoil(raw.photo)
    refuses_image(raw, raw.photo.name, *words)


def without_eoi(path: Path) -> None:
    data = path.read_bytes()
    assert data.endswith(b"\xff\xd9")
    path.write_bytes(data[:-2])


ANY_JPEG = {
    "01-truncated-jpeg": (cut, ["truncated", "bytes"]),
    "01-no-eoi": (without_eoi, ["no end marker", "bytes"]),
    **ANY_PICTURE,
}


@pytest.mark.parametrize(
    ("name", "case"),
    crossed(ANY_JPEG, ["masks", "coco"], ["pascal-part", "labelme", "cvat", "yolo-seg"], ["01-truncated-jpeg"]),
)
def test_broken_jpeg_photo(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    photo(raw.photo, (6, 8))
    spoil, words = ANY_JPEG[case]
    spoil(raw.photo)
    refuses_image(raw, raw.photo.name, *words)


def test_01_pillow_is_never_told_to_accept_truncated_images(tmp_path: Path) -> None:
    accepts(draw("masks", tmp_path))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# -- 5 to 8: pictures that hold no ids ---------------------------------------------------------------------------------


def saved(array: Any, mode: str | None = None) -> Spoil:
    return lambda path: Image.fromarray(array, mode).save(path)


GREY_RGB = np.repeat(IDS[..., None], 3, axis=2)
OPAQUE = np.full((*SHAPE, 1), 255, np.uint8)
HALF = np.where(np.arange(8) < 4, 255, 100).astype(np.uint8)[None, :, None].repeat(6, axis=0)
COLOURS = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
NO_IDS = {
    "05-rgb": (saved(COLOURS), ["RGB", "coloured", "labelIds"]),
    "05-grey-rgb": (saved(GREY_RGB), ["RGB"]),
    "07-rgba": (saved(np.concatenate([COLOURS, OPAQUE], axis=2)), ["RGBA"]),
    "07-rgba-half-transparent": (saved(np.concatenate([GREY_RGB, HALF], axis=2)), ["RGBA"]),
    "07-la-half-transparent": (saved(np.concatenate([IDS[..., None], HALF], axis=2)), ["LA"]),
    "07-1-bit": (saved(IDS > 2), ["1"]),
}


@pytest.mark.parametrize(("name", "case"), crossed(NO_IDS, ["masks"], GREY[1:], ["05-rgb"]))
def test_picture_without_ids(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    spoil, words = NO_IDS[case]
    spoil(raw.label)
    refuses_image(raw, raw.label.name, *words)


@pytest.mark.parametrize("name", COLOURED)
def test_05_grey_where_colours_hold_the_ids(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    ids_png(raw.label, IDS)
    refuses_image(raw, raw.label.name, "RGB")


@pytest.mark.parametrize("bands", [(GREY_RGB, OPAQUE), (IDS[..., None], OPAQUE)], ids=["07-opaque-rgba", "07-opaque-la"])
def test_grey_ids_behind_a_constant_alpha(bands: tuple[Any, Any], tmp_path: Path) -> None:
    raw = draw("masks", tmp_path)
    saved(np.concatenate(bands, axis=2))(raw.label)
    accepts(raw, "b.png", "alpha")
    assert_same_labels(raw.out)


def assert_same_labels(out: Path) -> None:
    """Both images have the labels of the set, however they were stored."""
    dataset = store.open_dataset(out)
    first, second = (dataset.labels(row) for row in dataset.split("train"))
    assert np.array_equal(first.fine, second.fine)
    assert first.fine[0].tolist() == [1, 2, 3, 4, 5, 6, 255, 255]


@pytest.mark.parametrize("case", ["06-palette", "08-16-bit"])
def test_ids_in_other_encodings(case: str, tmp_path: Path) -> None:
    raw = draw("masks", tmp_path)
    if case == "06-palette":
        ids_png(raw.label, IDS, palette=True)
    else:
        ids_png(raw.label, IDS.astype(np.uint16))
        assert Image.open(raw.label).mode in ("I;16", "I")
    accepts(raw)
    assert_same_labels(raw.out)


@pytest.mark.parametrize("value", [-1, 65_536, 2.5])
@pytest.mark.parametrize("name", ["pascal-context-mat", "coco-stuff-10k"])
def test_08_values_beyond_16_bits_in_a_mat_file(name: str, value: float, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    field = "S" if name == "coco-stuff-10k" else "LabelMap"
    scipy.io.savemat(raw.label, {field: np.where(IDS == 3, value, IDS.astype(float))})
    refuses_image(raw, raw.label.name, field)


@pytest.mark.parametrize("value", [-1, 12_345_678])
@pytest.mark.parametrize("name", TIFFS)
def test_08_numbers_that_are_no_uid(name: str, value: int, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    Image.fromarray(np.where(IDS == 3, value, IDS.astype(np.int32))).save(raw.label)
    refuses_image(raw, raw.label.name, str(value))


# -- 18: decompression bombs -------------------------------------------------------------------------------------------


def bomb(path: Path) -> None:
    path.write_bytes(grey_png(30_000, 30_000, 8, [b"\0" * 10]))


def large(path: Path) -> None:
    """Below the limit at which Pillow itself warns or refuses."""
    path.write_bytes(grey_png(12_000, 9_000, 8, [b"\0" * 10]))


@pytest.mark.parametrize("where", ["label", "photo"])
@pytest.mark.parametrize("name", ["masks", "coco-panoptic"])
@pytest.mark.parametrize("spoil", [bomb, large], ids=["18-bomb", "18-over-the-limit"])
def test_bomb(spoil: Spoil, name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as other packages leave it
    raw = draw(name, tmp_path)
    path: Path = getattr(raw, where)
    spoil(path)
    refuses_image(raw, path.name, "pixels", "tiles")


def test_18_limit_of_the_user(tmp_path: Path) -> None:
    raw = draw("masks", tmp_path)
    photo(raw.photo, (12, 10))
    ids_png(raw.label, np.ones((12, 10), np.uint8))
    refuses_image(raw.told("--max-pixels", 100), "b.jpg", "120", "--max-pixels")


@pytest.mark.parametrize("name", ["masks", "cityscapes-panoptic-parts"])
def test_18_limit_of_the_user_for_label_files(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    with Image.open(raw.label) as label:
        label.resize((10, 12), Image.Resampling.NEAREST).save(raw.label)
    refuses_image(raw.told("--max-pixels", 100), raw.label.name, "10x12", "120", "--max-pixels")


def test_18_limit_of_the_command_is_that_of_the_library() -> None:
    assert signature(commands.prepare).parameters["max_pixels"].default == image_file.MAX_PIXELS


def test_18_what_was_prepared_with_a_higher_limit_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (image_file, store):
        monkeypatch.setattr(module, "MAX_PIXELS", 20)
    raw = draw("masks", tmp_path)
    accepts(raw.told("--max-pixels", SHAPE[0] * SHAPE[1]))
    assert_same_labels(raw.out)
    dataset = store.open_dataset(raw.out)
    assert {dataset.image(row).shape for row in dataset.split("train")} == {(*SHAPE, 3)}
    answer = hiposeg("doctor", raw.root, "--format", "masks", *raw.options, "--workers", 1, "--max-pixels", 20)
    assert "8x6 = 48 pixels, over 20" in answer.stdout
    assert hiposeg("doctor", raw.out, "--full", "--workers", 1).exit_code == 0


@pytest.mark.parametrize("name", TIFFS)
def test_18_tiff_bomb(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    data = raw.label.read_bytes()
    for value, side in ((8, 30_000), (6, 30_000)):  # width and height in the directory of tags
        old, new = value.to_bytes(4, "little"), side.to_bytes(4, "little")
        tag = {8: b"\x00\x01", 6: b"\x01\x01"}[value]
        start = data.index(tag + b"\x03\x00") if tag + b"\x03\x00" in data else data.index(tag + b"\x04\x00")
        assert data[start + 8 : start + 12] == old
        data = data[: start + 8] + new + data[start + 12 :]
    raw.label.write_bytes(data)
    refuses_image(raw, raw.label.name, "pixels")


def test_18_bomb_inside_a_labelme_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as importing labelme leaves it
    raw = draw("labelme", tmp_path)
    mask = base64.b64encode(grey_png(30_000, 30_000, 8, [b"\0" * 10])).decode()
    shape = {"label": "wheel", "points": [[0, 0], [2, 2]], "shape_type": "mask", "mask": mask}
    rewrite(raw.label, lambda data: data["shapes"].append(shape))
    accepts(raw, raw.label.name, "30000x30000", "skipped")
