"""Malformed input 21 of the format specification: what is no strict JSON. A JSON of any size (20) is in test_scale.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from malformed_check import accepts, crossed, refuses, refuses_image, refuses_source
from malformed_sets import JSON_SETS, Raw, draw, rewrite

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ONE_FILE = JSON_SETS
PER_IMAGE = ("cityscapes-polygons", "labelme", "ade20k")
ALL = (*ONE_FILE, *PER_IMAGE)


def json_set(name: str, world: Path) -> tuple[Raw, Path]:
    """A set and its JSON file (of the second image)."""
    raw = draw(name, world)
    return raw, raw.label.with_name("b.json") if name == "ade20k" else raw.label


def refused(name: str, raw: Raw, *words: str) -> None:
    """Refuse the image that the JSON is of, or the whole set."""
    if name in PER_IMAGE:
        refuses_image(raw, *words)
    else:
        refuses_source(raw, *words)


# -- 21: what is no strict JSON ----------------------------------------------------------------------------------------


def before_the_end(text: str, insertion: str) -> str:
    """Insert something before the brace that closes the file."""
    body = text.rstrip()
    return f"{body[:-1]}{insertion}{body[-1]}"


def duplicate(text: str) -> str:
    """Write the file's first key twice."""
    key = text[1 : text.index(":")]
    return before_the_end(text, f", {key}: 1")


FAULTS: dict[str, tuple[Callable[[str], str | bytes], list[str]]] = {
    "21a-truncated": (lambda text: text[: len(text) * 2 // 3], [":1:", "JSON"]),
    "21a-unfinished": (lambda text: text[:-1], [":1:", "JSON"]),
    "21b-trailing-comma": (lambda text: before_the_end(text, ","), [":1:", "JSON"]),
    "21d-utf-16": (lambda text: text.encode("utf-16"), ["UTF-16", "UTF-8"]),
    "21d-utf-16-unmarked": (lambda text: text.encode("utf-16-le"), ["UTF-16", "UTF-8"]),
    "21d-utf-32": (lambda text: text.encode("utf-32"), ["UTF-32", "UTF-8"]),
    "21d-utf-32-unmarked": (lambda text: text.encode("utf-32-be"), ["UTF-32", "UTF-8"]),
    "21e-nan": (lambda text: before_the_end(text, ', "x": NaN'), ["NaN"]),
    "21e-infinity": (lambda text: before_the_end(text, ', "x": [-Infinity]'), ["Infinity"]),
    "21f-list": (lambda text: f"[{text}]", []),
    "21f-text": (lambda text: '"text"', []),
    "21g-duplicate-key": (duplicate, ["twice"]),
    "21g-inner-duplicate-key": (lambda text: before_the_end(text, ', "x": [{"y": 1, "y": 2}]'), ["'y'", "twice"]),
    "21h-nested": (lambda text: before_the_end(text, f', "x": {"[" * 100_000}{"]" * 100_000}'), ["nested"]),
    "21h-nested-objects": (lambda text: before_the_end(text, ', "x": ' + '{"y":' * 100_000), []),
    "03-zero-byte": (lambda text: "", ["empty"]),
    "04-lfs-pointer": (lambda text: "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["LFS"]),
    "04-html-page": (lambda text: "<!DOCTYPE html><html>Sign in</html>", ["HTML"]),
    "21-not-utf-8": (lambda text: before_the_end(text, ', "x": "caf').encode() + b'\xe9"}', ["UTF-8"]),
    "21-more-behind": (lambda text: text + "{}", [":1:"]),
    "21-many-digits": (lambda text: before_the_end(text, ', "x": 1' + "0" * 5000), []),
}  # fmt: skip


def spoilt(path: Path, change: Callable[[str], str | bytes]) -> None:
    text = change(path.read_text(encoding="utf-8"))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


CORE = ("21a-truncated", "21d-utf-16", "21e-nan", "21g-inner-duplicate-key", "21h-nested", "03-zero-byte")


@pytest.mark.parametrize(
    ("name", "case"), crossed(FAULTS, ["coco", "labelme"], [*ONE_FILE[1:], "cityscapes-polygons", "ade20k"], CORE)
)
def test_json_that_is_not_strict(case: str, name: str, tmp_path: Path) -> None:
    raw, path = json_set(name, tmp_path)
    change, words = FAULTS[case]
    spoilt(path, change)
    refused(name, raw, path.name, *words)


def test_21_ade20k_in_latin_1(tmp_path: Path) -> None:
    """As some of its own files are."""
    raw, path = json_set("ade20k", tmp_path)
    spoilt(path, FAULTS["21-not-utf-8"][0])
    accepts(raw)


@pytest.mark.parametrize("name", ALL)
def test_21c_byte_order_mark_is_accepted_with_a_note(name: str, tmp_path: Path) -> None:
    """One for the file, however many images it lists."""
    raw, path = json_set(name, tmp_path)
    spoilt(path, lambda text: text.encode("utf-8-sig"))
    accepts(raw, path.name, "byte order mark")


def test_21c_byte_order_mark_is_noted_once_where_listing_reads_the_file_too(tmp_path: Path) -> None:
    raw, path = json_set("labelme", tmp_path)
    path = path.rename(path.with_name("c.json"))  # so that its photo is found by imagePath
    spoilt(path, lambda text: text.encode("utf-8-sig"))
    accepts(raw, "c.json", "byte order mark")


KEYS = [
    *((name, key) for name in ONE_FILE for key in ("images", "annotations", "categories")),
    ("cityscapes-polygons", "imgWidth"), ("cityscapes-polygons", "imgHeight"), ("cityscapes-polygons", "objects"),
    ("labelme", "shapes"), ("labelme", "imagePath"), ("ade20k", "annotation"),
]  # fmt: skip


@pytest.mark.parametrize("value", ["absent", None, "text"])
@pytest.mark.parametrize(("name", "key"), KEYS, ids=[f"21f-{name}-{key}" for name, key in KEYS])
def test_key_that_is_missing_or_holds_something_else(name: str, key: str, value: object, tmp_path: Path) -> None:
    raw, path = json_set(name, tmp_path)
    rewrite(path, lambda data: data.pop(key) if value == "absent" else data.update({key: value}))
    refused(name, raw, path.name, *([key] if value == "absent" else []))


@pytest.mark.parametrize("key", ["id", "file_name"])
def test_21f_key_missing_in_an_image(key: str, tmp_path: Path) -> None:
    raw = draw("coco", tmp_path)
    rewrite(raw.label, lambda data: data["images"][1].pop(key))
    refuses_source(raw, raw.label.name, "images", key)


def config(raw: Raw, text: str | bytes) -> None:
    (raw.root / "config_v2.0.json").write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("case", CORE)
def test_config_of_mapillary(case: str, tmp_path: Path) -> None:
    raw = draw("mapillary", tmp_path)
    change, words = FAULTS[case]
    config(raw, change('{"version": 2, "labels": []}'))
    refuses_source(raw, "config_v2.0.json", *words)


@pytest.mark.parametrize("name", ["coco", "coco-panoptic-json", "paco", "labelme"])
def test_21_lone_surrogate_in_a_name(name: str, tmp_path: Path) -> None:
    """JSON can spell half a character, which no file name and no terminal can hold."""
    raw, path = json_set(name, tmp_path)
    if name == "labelme":
        raw.photo.unlink()
        rewrite(path, lambda data: data.update(imagePath="\udc80.jpg"))
    else:
        rewrite(path, lambda data: data["images"][1].update(file_name="\udc80.jpg"))
    refuses(raw, path.name)


@pytest.mark.parametrize("name", ["coco", "paco", "labelme"])
def test_21_lone_surrogate_in_a_class_name(name: str, tmp_path: Path) -> None:
    raw, path = json_set(name, tmp_path)
    if name == "labelme":
        rewrite(path, lambda data: data["shapes"][0].update(label="\udc80"))
    else:
        rewrite(path, lambda data: data["categories"][1].update(name="\udc80"))
    refused(name, raw, path.name, "udc80")
