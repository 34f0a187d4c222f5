"""Malformed inputs 28 and 30 of the format specification: MATLAB files, and payloads in MATLAB, XML and pickle files.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from malformed_check import accepts, crossed, fails_with, prepare, refuses_image, refuses_source
from malformed_sets import SHAPE, cvat_xml, draw, person
from raw_sets import box, mat

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# -- 28: MATLAB files --------------------------------------------------------------------------------------------------

MATS = ("pascal-part", "pascal-context-mat", "coco-stuff-10k")


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def v73(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n" + b"\0" * 64)


def hdf5(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 500)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.with_name("evil"))))


def pickled_arrays(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), allow_pickle=True, anno=np.array([Payload(path.with_name("evil"))], object))
    path.with_suffix(".npz").rename(path)


def cells(path: Path) -> None:
    scipy.io.savemat(path, {name: np.array([[1, "a"], [2, 3]], object) for name in ("anno", "S", "LabelMap")})


def text(path: Path) -> None:
    scipy.io.savemat(path, dict.fromkeys(("anno", "S", "LabelMap"), "text"))


def another_variable(path: Path) -> None:
    scipy.io.savemat(path, {"other": np.eye(3)})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(255 - value for value in data[len(data) // 2 :])
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


NO_MATS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "28-v7.3": (v73, ["v7.3", "-v7"]),
    "28-hdf5": (hdf5, ["v7.3"]),
    "28-no-variable": (another_variable, []),
    "28-cells": (cells, []),
    "28-text": (text, []),
    "28-pickle": (pickled, ["MATLAB v5"]),
    "28-pickled-arrays": (pickled_arrays, ["MATLAB v5"]),
    "01-truncated": (cut, ["MATLAB v5"]),
    "01-flipped": (flipped, []),
    "03-zero-byte": (empty, []),
    "04-html-page": (lambda path: path.write_text("<!DOCTYPE html><html>Sign in</html>"), []),
    "04-lfs-pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), []),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "case"), crossed(NO_MATS, MATS[::2], MATS[1:2], ["28-v7.3", "28-no-variable", "28-cells", "28-pickle"])
)
def test_mat_file_that_is_none(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    spoil, words = NO_MATS[case]
    spoil(raw.label)
    field = {"pascal-part": "anno", "coco-stuff-10k": "'S'", "pascal-context-mat": "LabelMap"}[name]
    refuses_image(raw, "b.mat", *words, *([field] if case in ("28-no-variable", "28-cells", "28-text") else []))
    assert not raw.label.with_name("evil").exists()


OBJECTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "28-class_ind-of-another": ({"class_ind": 7}, ["'person'", "class_ind 7", "not 15"]),
    "28-class_ind-empty": ({"class_ind": np.zeros((0, 0))}, []),
    "28-class_ind-nan": ({"class_ind": float("nan")}, []),
    "28-mask-text": ({"mask": "text"}, ["mask"]),
    "28-mask-cells": ({"mask": np.array([[1, "a"], [2, 3]], object)}, ["mask"]),
    "28-mask-struct": ({"mask": {"field": 1.0}}, ["mask"]),
    "28-mask-3d": ({"mask": np.zeros((*SHAPE, 3), np.uint8)}, ["mask"]),
    "28-part-mask-text": ({"parts": (("torso", "text"),)}, ["mask"]),
    "28-part-mask-of-another-size": ({"parts": (("torso", box((6, 7), 0, 0, 1, 1)),)}, ["(6, 7)", "(6, 8)"]),
    "28-part-name-number": ({"parts": ((3.0, box(SHAPE, 0, 0, 1, 1)),)}, ["3"]),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_object_of_pascal_part(case: str, tmp_path: Path) -> None:
    raw = draw("pascal-part", tmp_path)
    changes, words = OBJECTS[case]
    mat(raw.label, [person(**changes)])
    refuses_image(raw, "b.mat", *words)


@pytest.mark.parametrize("field", ["class", "class_ind", "mask", "parts"])
def test_28_object_of_pascal_part_without_a_field(field: str, tmp_path: Path) -> None:
    raw = draw("pascal-part", tmp_path)
    values = {"class": "person", "class_ind": np.uint8(15), "mask": box(SHAPE, 0, 0, 1, 1), "parts": np.zeros((0, 0))}
    del values[field]
    objects = np.zeros((1, 1), [(name, object) for name in values])
    objects[0, 0] = tuple(values.values())
    scipy.io.savemat(raw.label, {"anno": {"objects": objects}})
    refuses_image(raw, "b.mat", repr(field))


@pytest.mark.parametrize("field", ["part_name", "mask"])
def test_28_part_of_pascal_part_without_a_field(field: str, tmp_path: Path) -> None:
    raw = draw("pascal-part", tmp_path)
    values = {"part_name": "torso", "mask": box(SHAPE, 0, 0, 1, 1)}
    del values[field]
    parts = np.zeros((1, 1), [(name, object) for name in values])
    parts[0, 0] = tuple(values.values())
    objects = np.zeros((1, 1), [(name, object) for name in ("class", "class_ind", "mask", "parts")])
    objects[0, 0] = ("person", np.uint8(15), box(SHAPE, 0, 0, 1, 1), parts)
    scipy.io.savemat(raw.label, {"anno": {"objects": objects}})
    refuses_image(raw, "b.mat", field)


# -- 30: payloads ------------------------------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefghi", "bcdefghij", strict=True)) + "]>\n"  # fmt: skip
XML_BOMBS: dict[str, tuple[str, list[str]]] = {
    "30-entity-bomb": (cvat_xml("<tag>&j;</tag>", head=LAUGHS), []),
    "30-entity": (cvat_xml(name="&e;.jpg", head='<!DOCTYPE a [<!ENTITY e "b">]>\n'), []),
    "30-external-entity": (cvat_xml("<tag>&e;</tag>", head='<!DOCTYPE a [<!ENTITY e SYSTEM "SECRET">]>\n'), []),
    "30-parameter-entity": (cvat_xml(head='<!DOCTYPE a [<!ENTITY % p SYSTEM "SECRET"> %p;]>\n'), []),
    "30-external-dtd": (cvat_xml(head='<!DOCTYPE a SYSTEM "SECRET">\n'), []),
    "30-undefined-entity": (cvat_xml("<tag>&nothing;</tag>"), [":4:"]),
    "01-truncated": (cvat_xml()[:200], [":4:"]),
    "03-zero-byte": ("", ["empty"]),
    "04-html-page": ("<!DOCTYPE html><html><body>Sign in</body></html>", []),
    "04-lfs-pointer": ("version https://git-lfs.github.com/spec/v1\n", ["LFS"]),
    "30-video": (cvat_xml().replace("<image ", "<track ").replace("</image>", "</track>"), ["video"]),
}


@pytest.mark.parametrize("case", XML_BOMBS)
def test_xml_that_is_no_plain_cvat(case: str, tmp_path: Path) -> None:
    raw = draw("cvat", tmp_path)
    text, words = XML_BOMBS[case]
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden words")
    raw.label.write_text(text.replace("SECRET", secret.as_uri()))
    refuses_source(raw, "annotations.xml", *words)
    assert "hidden words" not in prepare(raw).stderr


def test_30_nested_xml(tmp_path: Path) -> None:
    raw = draw("cvat", tmp_path)
    raw.label.write_text(cvat_xml("<a>" * 50_000 + "</a>" * 50_000))
    accepts(raw, "1 a not drawn")


PICKLES = {
    "30-ade20k-index": ("ade20k", "index_ade20k.pkl"),
    "30-coco-stuff-index": ("coco-stuff", "fine_to_coarse_dict.pickle"),
    "30-pascal-part-cache": ("pascal-part", "Annotations_Part/cache.pkl"),
    "30-yolo-cache": ("yolo-seg", "labels/train.cache"),
    "30-yolo-array": ("yolo-seg", "images/train/b.npy"),
    "30-masks-array": ("masks", "train/labels/b.npy"),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_pickle_beside_the_data_is_never_opened(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, place = PICKLES[case]
    raw = draw(name, tmp_path)
    (raw.root / place).write_bytes(pickle.dumps(Payload(tmp_path / "evil")))
    for function in ("load", "loads"):
        monkeypatch.setattr(pickle, function, fails_with(errno.EPERM))
    accepts(raw)
    assert not (tmp_path / "evil").exists()
