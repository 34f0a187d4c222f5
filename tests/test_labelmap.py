"""Label maps: encoding, the two-level invariant, and files that are read right or refused, never read wrong."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.image_file import check_photo, opened, pixel_limit, read_rgb
from hiposeg_cli.labelmap import (
    LabelArray,
    TwoLevelMap,
    count_ids,
    ignore_value,
    label_dtype,
    lift,
    png_bytes,
    read_label_png,
    valid_pixels,
    write_bytes_atomic,
    write_label_png,
)
from hiposeg_cli.lookup import LookUp
from hiposeg_cli.remarks import collected
from hiposeg_cli.store import write_labels

DTYPES = st.sampled_from([np.uint8, np.uint16])
SEEDS = st.integers(0, 2**32 - 1)


def _tree(parents: list[int], n_coarse: int | None = None) -> Hierarchy:
    coarse = [ClassNode(k, f"c{k}", (k % 256, 0, 0)) for k in range(n_coarse or max(parents) + 1)]
    fine = [ClassNode(k, f"f{k}", (0, k % 256, 0), parent=f"c{parent}") for k, parent in enumerate(parents)]
    return Hierarchy("toy", (Level("fine", tuple(fine)), Level("coarse", tuple(coarse))))


TOY = _tree([0, 1, 1])
PARENTS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def _png(depth: int, color_type: int, rows: bytes, width: int, height: int = 1) -> bytes:
    """A PNG file made by hand: colour type 0 grey, 3 palette; each row starts with its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(200, 212))) if color_type == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# -- ids in memory -----------------------------------------------------------------------------------------------------


def test_254_classes_are_the_most_that_fit_eight_bits() -> None:
    assert label_dtype(254) == np.uint8
    assert label_dtype(255) == np.uint16
    assert (ignore_value(np.uint8), ignore_value(np.uint16)) == (255, 65535)


def test_counts_by_hand() -> None:
    labels = np.array([[0, 2, 2], [255, 2, 0]], dtype=np.uint8)
    assert count_ids(labels, 4).tolist() == [2, 0, 3, 0]
    assert valid_pixels(labels).tolist() == [[True, True, True], [False, True, True]]


def test_encode_by_hand() -> None:
    look_up = LookUp({-1: (None, None), 7: (2, 1), 9: (None, 1), 0: (0, 0)}, TOY)
    encoded = look_up.encode(np.array([[-1, 7], [9, 0]], dtype=np.int16), "x.png")
    assert encoded.fine.tolist() == [[255, 2], [255, 0]]
    assert encoded.coarse.tolist() == [[255, 1], [1, 0]]
    assert encoded.coarse_only().tolist() == [[False, False], [True, False]]
    assert encoded.shape == (2, 2)
    encoded.check(TOY, "x.png")


RAW_TARGETS = st.dictionaries(
    st.integers(-40, 300),
    st.sampled_from([(0, 0), (1, 1), (2, 1), (None, 0), (None, 1), (None, None)]),  # each fine id with its own parent
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(RAW_TARGETS, SEEDS, st.sampled_from([np.int16, np.int32, np.int64]), st.booleans())
def test_encode_agrees_with_looking_up_pixel_by_pixel(
    targets: dict[int, tuple[int | None, int | None]], seed: int, dtype: type[np.integer], large: bool
) -> None:
    tree = _tree([0, 1, 1] + [0] * 300) if large else TOY
    raw = np.random.default_rng(seed).choice(list(targets), size=(5, 7)).astype(dtype)
    encoded, tally = LookUp(targets, tree).encode_and_tally(raw, "x.png")
    ignore = 65535 if large else 255
    for counts, labels, void in ((tally.fine, encoded.fine, ignore), (tally.coarse, encoded.coarse, 255)):
        assert counts == {i: n for i, n in Counter(labels.ravel().tolist()).items() if i != void}
    for y in range(5):
        for x in range(7):
            fine, coarse = targets[int(raw[y, x])]
            assert encoded.fine[y, x] == (ignore if fine is None else fine)
            assert encoded.coarse[y, x] == (255 if coarse is None else coarse)


@settings(max_examples=40, deadline=None)
@given(RAW_TARGETS, st.lists(st.integers(-400, 400), min_size=1, max_size=20))
def test_encode_accepts_exactly_the_known_ids(targets: dict[int, tuple[int | None, int | None]], ids: list[int]) -> None:
    raw, look_up = np.array([ids], dtype=np.int32), LookUp(targets, TOY)
    unknown = sorted({i for i in ids if i not in targets})
    if not unknown:
        assert look_up.encode(raw, "x.png").shape == raw.shape
        return
    with pytest.raises(DataError) as caught:
        look_up.encode(raw, "x.png")
    for raw_id in unknown[:5]:
        assert f"{raw_id} ({ids.count(raw_id)} px)" in str(caught.value)


def test_unknown_ids_are_listed_with_their_pixels() -> None:
    raw = np.array([[1, 1, -7], [0, 300, 1]], dtype=np.int32)
    with pytest.raises(DataError) as caught:
        LookUp({0: (0, 0)}, TOY).encode(raw, "dir/x.png")
    assert str(caught.value).startswith("dir/x.png: label ids unknown to the hierarchy: -7 (1 px), 1 (3 px), 300 (1 px)")
    with pytest.raises(DataError, match=r"and 15 more"):
        LookUp({}, TOY).encode(np.arange(1, 21, dtype=np.uint8)[None], "x.png")
    with pytest.raises(DataError, match=r"add `ignore: \[255\]`"):
        LookUp({0: (0, 0)}, TOY).encode(np.array([[0, 255]], dtype=np.uint8), "x.png")


@pytest.mark.parametrize(("raw_id", "dtype"), [(2**32 + 5, np.int64), (2**32 - 1, np.uint32), (2**32 - 1, np.int64)])
def test_a_raw_id_beyond_32_bits_is_unknown_not_wrapped_around(raw_id: int, dtype: type[np.integer]) -> None:
    """The id used to be cut to 32 bits, which made it 5 or -1."""
    with pytest.raises(DataError, match=str(raw_id)):
        LookUp({5: (0, 0), -1: (None, None)}, TOY).encode(np.array([[raw_id]], dtype=dtype), "x.png")


def test_a_raw_id_too_large_for_a_table_is_refused() -> None:
    for raw_id in (10**10, -(10**10)):
        with pytest.raises(DataError, match=f"^toy.yaml: the label id {raw_id} is beyond"):
            LookUp({0: (0, 0), raw_id: (1, 1)}, TOY, "toy.yaml")


@pytest.mark.parametrize(
    ("fine", "coarse", "expected"),
    [
        ([[0, 1]], [[0], [1]], "fine is (1, 2) but coarse is (2, 1)"),
        ([[0, 3, 3]], [[0, 1, 1]], "fine id 3 on 2 pixels, but the level has 3 classes"),
        ([[0, 255]], [[0, 2]], "coarse id 2 on 1 pixels, but the level has 2 classes"),
        ([[0, 1], [0, 2]], [[0, 1], [1, 0]], "2 pixels where coarse is not the parent of fine, the first at (0, 1)"),
        ([[0, 1]], [[0, 255]], "the first at (1, 0): fine 'f1', coarse 255"),
    ],
)
def test_check_names_each_violation(fine: list[list[int]], coarse: list[list[int]], expected: str) -> None:
    labels = TwoLevelMap(np.array(fine, dtype=np.uint8), np.array(coarse, dtype=np.uint8))
    with pytest.raises(DataError) as caught:
        labels.check(TOY, "a/b.png")
    assert str(caught.value).startswith("a/b.png: ")
    assert expected in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(PARENTS, SEEDS, DTYPES)
def test_lifted_maps_satisfy_the_invariant(parents: list[int], seed: int, dtype: type[np.unsignedinteger]) -> None:
    tree = _tree(parents, n_coarse=4)
    ids = [*range(len(parents)), int(np.iinfo(dtype).max)]
    fine: LabelArray = np.random.default_rng(seed).choice(ids, size=(6, 5)).astype(dtype)
    coarse = lift(fine, tree)
    assert coarse.tolist() == [[255 if k == ids[-1] else parents[k] for k in row] for row in fine.tolist()]
    labels = TwoLevelMap(fine, coarse)
    labels.check(tree, "x")
    assert not labels.coarse_only().any()
    wrong = coarse.copy()
    at = tuple(np.random.default_rng(seed).integers((6, 5)))
    wrong[at] = (int(wrong[at]) + 1) % 4 if fine[at] != ids[-1] else wrong[at]
    if fine[at] != ids[-1]:
        with pytest.raises(DataError, match="1 pixels where coarse is not the parent"):
            TwoLevelMap(fine, wrong).check(tree, "x")


def test_255_is_a_class_like_any_other_in_16_bit_maps() -> None:
    tree = _tree([k % 2 for k in range(300)])
    fine = np.array([[254, 255, 299, 65535]], dtype=np.uint16)
    coarse = lift(fine, tree)
    assert coarse.tolist() == [[0, 1, 1, 255]]
    TwoLevelMap(fine, coarse).check(tree, "x")
    assert valid_pixels(fine).tolist() == [[True, True, True, False]]
    assert count_ids(fine, 300)[255] == 1


# -- label files -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(DTYPES, st.integers(1, 9), st.integers(1, 9), SEEDS)
def test_written_labels_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, dtype: type[np.unsignedinteger], height: int, width: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("labels") / "sub" / "a.png"
    top = int(np.iinfo(dtype).max)
    labels: LabelArray = np.random.default_rng(seed).choice([0, 1, 17, 253, 254, 255, top], (height, width)).astype(dtype)
    digest = write_label_png(path, labels)
    read = read_label_png(path)
    assert read.dtype == labels.dtype
    assert np.array_equal(read, labels)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    photo = check_photo(path)
    assert (photo.height, photo.width) == (height, width)
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_png_bytes_depend_on_the_ids_alone() -> None:
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert png_bytes(labels) == png_bytes(labels.copy())
    assert png_bytes(labels.T) == png_bytes(np.ascontiguousarray(labels.T))
    assert png_bytes(labels[::2, ::-2]) == png_bytes(labels[::2, ::-2].copy())
    assert png_bytes(labels) != png_bytes(labels.astype(np.uint16))


@pytest.mark.parametrize(("dtype", "depth"), [(np.uint8, 8), (np.uint16, 16)])
def test_written_png_is_grey_without_palette_or_timestamps(dtype: type[np.unsignedinteger], depth: int) -> None:
    data = png_bytes(np.zeros((3, 4), dtype=dtype))
    assert struct.unpack(">IIBB", data[16:26]) == (4, 3, depth, 0)
    kinds, position = set(), 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kinds.add(data[position + 4 : position + 8])
        position += 12 + length
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}


def test_palette_files_give_indices_not_luma(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)
    picture = Image.fromarray(ids, mode="L").convert("P")
    picture.putdata(ids.ravel().tolist())
    picture.putpalette([value for k in range(256) for value in (255 - k, k // 2, 7)])
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as reread:
        assert reread.mode == "P"
        assert not np.array_equal(np.asarray(reread.convert("L")), ids)
    assert np.array_equal(read_label_png(tmp_path / "a.png"), ids)


def test_packed_palette_files_give_indices(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(2, 3, b"\x00\x1b", width=4))
    assert read_label_png(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("depth", "row", "ids"), [(2, b"\x00\x1b", [0, 1, 2, 3]), (4, b"\x00\x12", [1, 2])])
def test_packed_grey_files_never_give_scaled_ids(tmp_path: Path, depth: int, row: bytes, ids: list[int]) -> None:
    """Pillow stretches 2-bit and 4-bit grey to 0..255, so that id 1 becomes 85 or 17."""
    (tmp_path / "a.png").write_bytes(_png(depth, 0, row, width=len(ids)))
    try:
        read = read_label_png(tmp_path / "a.png")
    except DataError:
        return
    assert read.tolist() == [ids]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "LA"])
def test_pictures_that_hold_no_ids_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png: is a {mode} picture, not class ids.*_labelIds"):
        read_label_png(tmp_path / "a.png")


@pytest.mark.parametrize("file_format", ["JPEG", "BMP", "GIF"])
def test_labels_in_another_format_are_refused_even_when_named_png(tmp_path: Path, file_format: str) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.png", file_format)
    with pytest.raises(DataError, match=f"labels are {file_format}.*save labels as PNG"):
        read_label_png(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_png_cut_off_anywhere_is_refused(tmp_path: Path, dtype: type[np.unsignedinteger]) -> None:
    data, path = png_bytes(np.array([[0, 1, 2], [3, 255, 1]], dtype=dtype)), tmp_path / "a.png"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.png"):
            read_label_png(path)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_label_png_with_any_byte_changed_is_refused(tmp_path: Path, flip: int) -> None:
    data, path = png_bytes(np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)), tmp_path / "a.png"
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
        with pytest.raises(DataError, match=r"a\.png"):
            read_label_png(path)


def test_wrong_checksum_names_its_chunk(tmp_path: Path) -> None:
    data = png_bytes(np.zeros((3, 3), dtype=np.uint8))
    crc_at = data.index(b"IEND") - 8  # the four bytes of IDAT's checksum end where IEND's length field begins
    (tmp_path / "a.png").write_bytes(data[:crc_at] + bytes([data[crc_at] ^ 1]) + data[crc_at + 1 :])
    with pytest.raises(DataError, match="chunk IDAT has a wrong checksum"):
        read_label_png(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html>login</html>", "HTML page"),
        (b"hello", "is not an image"),
    ],
)
def test_files_that_are_no_image_are_named_for_what_they_are(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_label_png, read_rgb, check_photo):
        with pytest.raises(DataError, match=what):
            read(tmp_path / "a.png")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for read in (read_label_png, read_rgb, check_photo):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "none.png")
        with pytest.raises(DataError, match="is a folder"):
            read(tmp_path)
        with pytest.raises(DataError, match="file/a"):
            read(tmp_path / "file" / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 20_000, 2**31 - 1])
def test_a_header_over_the_pixel_limit_is_refused_undecoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(_png(8, 0, b"\x00", width=side, height=side))
    for read in (read_label_png, read_rgb, check_photo):
        with pytest.raises(DataError, match="100000000"):
            read(tmp_path / "a.png")


def test_an_image_under_our_limit_gives_no_warning_of_pillow(tmp_path: Path) -> None:
    data = _png(8, 0, b"\x00", width=10_000, height=9_900)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(tmp_path / "a.png", data) as image:  # the header alone: decoding 99 MP is no test for every day
            assert image.size == (10_000, 9_900)


def test_grey_behind_a_constant_alpha_is_taken_with_a_remark(tmp_path: Path) -> None:
    ids, path = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8), tmp_path / "a.png"
    opaque = np.full_like(ids, 255)
    for bands in ([ids, opaque], [ids, ids, ids, opaque]):
        Image.fromarray(np.dstack(bands)).save(path)
        with collected() as remarks:
            assert np.array_equal(read_label_png(path), ids)
        assert [odd.where for odd in remarks] == [path]
    almost = opaque.copy()
    almost[1, 2] = 254
    for bands in ([ids, almost], [ids, ids, ids, almost], [ids, ids, ids ^ (almost ^ 255), opaque]):
        Image.fromarray(np.dstack(bands)).save(path)
        with pytest.raises(DataError, match="not class ids"):
            read_label_png(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{}, {"compress_level": 0}, {"optimize": True}])
def test_pngs_of_another_encoder_are_read_exactly(
    tmp_path: Path, dtype: type[np.unsignedinteger], options: dict[str, Any]
) -> None:
    """With row filters, which our own files go without, and more than one chunk of pixels."""
    ids = np.cumsum(np.random.default_rng(0).integers(0, 3, (300, 401)), axis=1).astype(dtype)
    Image.fromarray(ids).save(tmp_path / "a.png", **options)
    read = read_label_png(tmp_path / "a.png")
    assert (read.dtype, read.tolist()) == (np.dtype(dtype), ids.tolist())


def test_label_png_is_read_exactly_where_pillow_does_not_decode_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another release of Pillow may do."""
    ids = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)
    write_label_png(tmp_path / "a.png", ids)

    genuine = PngImageFile.load_prepare

    def prepare_anew(image: PngImageFile) -> None:
        image.im = Image.core.new(image.mode, image.size)
        genuine(image)

    monkeypatch.setattr(PngImageFile, "load_prepare", prepare_anew)
    assert np.array_equal(read_label_png(tmp_path / "a.png"), ids)


def test_pixel_limit_of_the_user(tmp_path: Path) -> None:
    """It holds in its block and thread alone, and above the limit of Pillow, which stays as it was."""
    path, before = tmp_path / "a.png", Image.MAX_IMAGE_PIXELS
    write_label_png(path, np.zeros((3, 4), np.uint8))
    huge = _png(8, 0, b"\x00", width=20_000, height=20_000)

    def size_elsewhere() -> tuple[int, ...]:
        return read_label_png(path).shape

    for read in (read_label_png, read_rgb, check_photo):
        with pixel_limit(11), pytest.raises(DataError, match=r"4x3 = 12 pixels, over 11 .* --max-pixels"):
            read(path)
        with pixel_limit(12):
            read(path)
    with pixel_limit(1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(size_elsewhere).result() == (3, 4)
    with pixel_limit(400_000_000), opened(path, huge) as image:
        assert image.size == (20_000, 20_000)
    with pytest.raises(DataError, match=r"over 100000000 - split it into tiles$"), opened(path, huge):
        pass
    assert before == Image.MAX_IMAGE_PIXELS


# -- photos ------------------------------------------------------------------------------------------------------------


def test_photos_of_every_mode_become_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    red = {"RGB": (250, 0, 0), "RGBA": (250, 0, 0, 9), "CMYK": (5, 255, 255, 0)}
    for mode, color in red.items():
        Image.new(mode, (3, 2), color).save(path)
        assert read_rgb(path).tolist() == [[[250, 0, 0]] * 3] * 2
    Image.new("L", (3, 2), 77).save(path)
    assert read_rgb(path).tolist() == [[[77, 77, 77]] * 3] * 2
    Image.new("1", (3, 2), 1).save(path)
    assert read_rgb(path).tolist() == [[[255, 255, 255]] * 3] * 2
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(path)
    assert read_rgb(path).tolist() == [[[10, 20, 30]] * 3] * 2


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - [255, 0, 0]).max() <= 4


def test_16_bit_photos_keep_their_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 0x1234, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    read = read_rgb(tmp_path / "a.png")
    assert read.dtype == np.uint8
    assert read.tolist() == [[[v, v, v] for v in (0, 0, 1, 0x12, 255)]]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF"])
def test_photo_cut_off_anywhere_is_refused_or_complete(tmp_path: Path, file_format: str) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, file_format)
    data, path = buffer.getvalue(), tmp_path / "a.img"
    path.write_bytes(data)
    whole = read_rgb(path)
    refused = 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            read = read_rgb(path)
        except DataError:
            refused += 1
        else:
            assert np.array_equal(read, whole)
    assert refused > 0.7 * len(data)


def test_a_checked_png_photo_is_complete_to_its_end_marker(tmp_path: Path) -> None:
    """Pillow shows a PNG without its last bytes as if nothing were missing."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)).save(buffer, "PNG")
    data, path = buffer.getvalue(), tmp_path / "a.png"
    path.write_bytes(data)
    assert (check_photo(path).height, check_photo(path).width) == (3, 4)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.png"):
            check_photo(path)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_bytes_atomic(path, b"old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(DataError, match="No space left on device"):
        write_bytes_atomic(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.png": b"old"}


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(tmp_path / "a.png", b"new")
    assert list(tmp_path.iterdir()) == []


def test_writing_over_a_folder_is_refused_without_remains(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes_atomic(tmp_path / "a.png", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_writing_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes_atomic(tmp_path / "file" / "sub" / "a.png", b"x")


def test_writing_makes_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    write_bytes_atomic(path, b"one")
    write_bytes_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_large_maps_are_written_like_small_ones(tmp_path: Path) -> None:
    """They are compressed side by side."""
    rng = np.random.default_rng(0)
    maps = [np.repeat(rng.integers(0, 9, (1000, 10), dtype=np.uint8), 101, axis=1) for _ in range(2)]
    instances = maps[0].astype(np.uint16) * 300
    digests = write_labels(tmp_path, "train", "k", TwoLevelMap(maps[0], maps[1]), instances)
    for kind, values in (("fine", maps[0]), ("coarse", maps[1]), ("inst", instances)):
        written = (tmp_path / "labels" / kind / "train" / "k.png").read_bytes()
        assert written == png_bytes(values)
        assert digests[f"{kind}_sha256"] == hashlib.sha256(written).hexdigest()
