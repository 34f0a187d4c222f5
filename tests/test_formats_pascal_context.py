"""PASCAL-Context: id PNGs of 59 classes, MATLAB files of 459, and the order both are numbered in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from raw_sets import ids_png, photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.pascal_context import KEPT, LABELS
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.store import Dataset, open_dataset

X = 255  # ignore
# mmsegmentation's class list: the order of 59_labels.txt, which its PNGs do not follow
_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person pottedplant sheep sofa train "
    "tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower food grass ground "
    "keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow bedclothes track tree "
    "truck wall water window wood"
)
MMSEG_NAMES = _NAMES.split()
STEM = "2008_000002"


def context(root: Path, ids: list[list[int]], stem: str = STEM) -> Path:
    photo(root / "JPEGImages" / f"{stem}.jpg", (len(ids), len(ids[0])))
    ids_png(root / "SegmentationClassContext" / f"{stem}.png", ids)
    return root


def context_mat(root: Path, ids: Any, stem: str = STEM, **variables: Any) -> Path:
    shape = np.shape(ids)[:2] if np.ndim(ids) >= 2 else (1, 1)
    photo(root / "JPEGImages" / f"{stem}.jpg", (shape[0], shape[1]))
    (root / "trainval").mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / "trainval" / f"{stem}.mat", variables or {"LabelMap": ids}, do_compression=True)
    return root


def lists(root: Path, folder: str = "SegmentationContext", **splits: str) -> Path:
    path = root / "ImageSets" / folder
    path.mkdir(parents=True, exist_ok=True)
    for split, stems in splits.items():
        (path / f"{split}.txt").write_text("\n".join(stems.split()) + "\n")
    return root


def converted(root: Path, out: Path, hierarchy: object = None, **reader: Any) -> Dataset:
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    result = prepare("pascal-context", root, out, options)
    assert [str(error) for error in result.failures] == []
    return open_dataset(out)


def names(dataset: Dataset) -> tuple[list[list[str]], list[list[str]]]:
    (row,) = (row for rows in dataset.rows.values() for row in rows)
    labels = dataset.labels(row)
    levels = zip((dataset.hierarchy.fine.names, dataset.hierarchy.coarse.names), (labels.fine, labels.coarse), strict=True)
    fine, coarse = ([["-" if v == X else known[v] for v in line] for line in ids.tolist()] for known, ids in levels)
    return fine, coarse


def complaint(root: Path, hierarchy: object = None, **reader: Any) -> str:
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    try:
        result = prepare("pascal-context", root, None, options)
    except HiposegError as error:
        return str(error)
    assert result.failures, "nothing was refused"
    return str(result.failures[0])


# -- PNGs --------------------------------------------------------------------------------------------------------------


def test_ids_are_numbered_as_in_the_list_of_459(tmp_path: Path) -> None:
    # mmsegmentation #1940: the picture of a television by a window holds the values 0, 55 and 58
    root = context(tmp_path / "raw", [[0, 55, 58], [1, 2, 59]])
    assert names(converted(root, tmp_path / "out")) == (
        [["-", "tvmonitor", "window"], ["aeroplane", "bag", "wood"]],
        [["-", "thing", "stuff"], ["thing", "stuff", "stuff"]],
    )
    assert names(converted(root, tmp_path / "with_background", "pascal-context-60-3")) == (
        [["background", "tvmonitor", "window"], ["aeroplane", "bag", "wood"]],
        [["background", "thing", "stuff"], ["thing", "stuff", "stuff"]],
    )


@pytest.mark.parametrize("base", ["", "VOC2010", "VOCdevkit/VOC2010"])
def test_split_lists_are_followed(tmp_path: Path, base: str) -> None:
    root = tmp_path / "raw"
    for stem in ("2008_1", "2008_2", "2008_3"):
        context(root / base, [[1]], stem)
    lists(root / base, train="2008_2", val="2008_1")
    lists(root / base, "Main", train="2008_3", val="2008_1")
    dataset = converted(root, tmp_path / "out")
    assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
        "train": ["2008_2"],
        "val": ["2008_1"],
    }


def test_without_own_lists_those_of_voc_are_taken_and_without_any_all_is_train(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for stem in ("2008_1", "2008_2"):
        context(root, [[1]], stem)
    everything = converted(root, tmp_path / "all")
    assert {split: len(rows) for split, rows in everything.rows.items()} == {"train": 2}
    lists(root, "Main", train="2008_2 2008_9", val="2008_1")  # 2008_9 has no context labels, which VOC's lists may not know
    dataset = converted(root, tmp_path / "out")
    assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
        "train": ["2008_2"],
        "val": ["2008_1"],
    }


def test_photos_elsewhere(tmp_path: Path) -> None:
    root = context(tmp_path / "raw", [[1]])
    (root / "JPEGImages").rename(tmp_path / "photos")
    assert "JPEGImages" in complaint(root)
    assert names(converted(root, tmp_path / "out", images=tmp_path / "photos"))[0] == [["aeroplane"]]
    assert "no such folder" in complaint(root, images=tmp_path / "elsewhere")


# -- MATLAB files ------------------------------------------------------------------------------------------------------


def test_mat_files_hold_459_classes_of_which_59_are_kept(tmp_path: Path) -> None:
    # 2 aeroplane, 9 bag, 427 tvmonitor, 454 window, 1 accordion, 459 wool
    root = context_mat(tmp_path / "raw", np.array([[2, 9, 427], [454, 1, 459]], np.uint16))
    assert names(converted(root, tmp_path / "out", variant="mat")) == (
        [["aeroplane", "bag", "tvmonitor"], ["window", "-", "-"]],
        [["thing", "stuff", "thing"], ["stuff", "-", "-"]],
    )
    with_background = converted(root, tmp_path / "60", "pascal-context-60-3", variant="mat")
    assert names(with_background)[0] == [["aeroplane", "bag", "tvmonitor"], ["window", "background", "background"]]


def test_png_and_mat_of_one_picture_agree(tmp_path: Path) -> None:
    ids = np.random.default_rng(5).integers(0, 60, (9, 11))
    root = context(tmp_path / "raw", ids.tolist())
    original = np.array([431, *KEPT])[ids]  # the 431st class is one of the other 400
    context_mat(root, original.astype(np.uint16))
    for preset in ("pascal-context-59-2", "pascal-context-60-3"):
        both = [names(converted(root, tmp_path / f"{preset}_{v}", preset, variant=v)) for v in ("png", "mat")]
        assert both[0] == both[1]


def test_a_hierarchy_may_use_any_of_the_459_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: hiposeg/hierarchy@1\nname: mine\nlevels: [fine, coarse]\nclasses:\n  coarse: [music]\n  fine:\n"
        "    - {name: accordion, parent: music}\n    - {name: cello, parent: music}\n    - {name: other, parent: music}\n"
        'sources:\n  pascal-context:\n    map: {accordion: accordion, cello: cello, guitar: other, "*": ignore}\n'
    )
    root = context_mat(tmp_path / "raw", np.array([[1, 70, 190, 2]], np.uint16))
    assert LABELS[69] == "cello"
    fine, _ = names(converted(root, tmp_path / "out", path, variant="mat"))
    assert fine == [["accordion", "cello", "other" if LABELS[189] == "guitar" else "-", "-"]]


def labels_txt(root: Path, **renamed: str) -> Path:
    lines = [f"{number}: {renamed.get(name, name)}" for number, name in enumerate(LABELS, start=1)]
    (root / "labels.txt").write_text("\n".join(lines) + "\n")
    return root


def test_the_labels_txt_of_the_dataset_is_compared(tmp_path: Path) -> None:
    root = labels_txt(context_mat(tmp_path / "raw", np.array([[2]], np.uint16)), accordion="squeeze box", bag="b a g")
    converted(root, tmp_path / "out", variant="mat")
    labels_txt(root, bag="handbag")
    said = complaint(root, variant="mat")
    assert "labels.txt" in said
    assert "calls 9 'handbag', not 'bag'" in said


# -- malformed ---------------------------------------------------------------------------------------------------------


def png(root: Path) -> Path:
    return root / "SegmentationClassContext" / f"{STEM}.png"


def head(path: Path, data: bytes) -> None:
    path.write_bytes(data + path.read_bytes()[len(data) :])


BROKEN_PNGS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "unknown id": (lambda root: context(root, [[60, 1]]), [f"{STEM}.png", "60 (1 px)"]),
    "reduced ids": (lambda root: context(root, [[255, 1]]), [f"{STEM}.png", "255 (1 px)"]),
    "colours": (lambda root: photo(png(root), (1, 2)), [f"{STEM}.png", "RGB picture"]),
    "no photo": (lambda root: (root / "JPEGImages" / f"{STEM}.jpg").unlink(), [f"{STEM}.png", "has no image"]),
    "another size": (lambda root: ids_png(png(root), [[1]]), ["labels are 1x1", "2x1"]),
    "listed, not there": (lambda root: lists(root, train=f"{STEM} 2008_9"), ["train.txt", "2008_9"]),
    "listed twice": (lambda root: lists(root, train=STEM, val=STEM), ["val.txt", STEM, "twice"]),
    "nothing listed": (lambda root: [context(root, [[1]], "a"), lists(root, "Main", train="b")], ["holds no *.png"]),
    "no labels": (lambda root: shutil.rmtree(root / "SegmentationClassContext"), ["no folder SegmentationClassContext"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_PNGS)
def test_malformed_pngs_are_refused_in_words(tmp_path: Path, name: str) -> None:
    spoil, says = BROKEN_PNGS[name]
    root = context(tmp_path / "raw", [[1, 2]])
    spoil(root)
    said = complaint(root)
    for words in says:
        assert words in said


def mat(root: Path) -> Path:
    return root / "trainval" / f"{STEM}.mat"


BROKEN_MATS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "v7.3": (lambda root: head(mat(root), b"MATLAB 7.3 MAT-file"), [f"{STEM}.mat", "v7.3"]),
    "cut": (lambda root: mat(root).write_bytes(mat(root).read_bytes()[:150]), [f"{STEM}.mat"]),
    "text": (lambda root: mat(root).write_text("no data"), [f"{STEM}.mat", "not a readable MATLAB"]),
    "another variable": (lambda root: context_mat(root, [[1]], anno=[[1]]), [f"{STEM}.mat", "LabelMap"]),
    "a volume": (lambda root: context_mat(root, np.ones((1, 2, 3), np.uint16)), [f"{STEM}.mat", "LabelMap", "2-d"]),
    "text inside": (lambda root: context_mat(root, "labels"), [f"{STEM}.mat", "LabelMap"]),
    "unknown id": (lambda root: context_mat(root, np.array([[460, 2]], np.uint16)), [f"{STEM}.mat", "460 (1 px)"]),
    "fractions": (lambda root: context_mat(root, np.array([[1.5, 2]])), [f"{STEM}.mat", "LabelMap"]),
    "no folder": (lambda root: shutil.rmtree(root / "trainval"), ["no folder trainval"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_MATS)
def test_malformed_mats_are_refused_in_words(tmp_path: Path, name: str) -> None:
    spoil, says = BROKEN_MATS[name]
    root = context_mat(tmp_path / "raw", np.array([[2, 9]], np.uint16))
    spoil(root)
    said = complaint(root, variant="mat")
    for words in says:
        assert words in said


# -- the published tables ----------------------------------------------------------------------------------------------


def test_the_59_are_those_of_mmsegmentation_in_the_order_of_the_459() -> None:
    assert len(LABELS) == len(set(LABELS)) == 459
    assert (LABELS[0], LABELS[1], LABELS[8], LABELS[17], LABELS[18], LABELS[458]) == (
        "accordion", "aeroplane", "bag", "bed", "bedclothes", "wool",
    )  # fmt: skip
    assert list(KEPT) == sorted(KEPT)
    kept = [LABELS[label_id - 1] for label_id in KEPT]
    assert len(kept) == 59
    assert sorted(kept) == sorted(MMSEG_NAMES)
    assert load_hierarchy("pascal-context-59-2").fine.names == kept
    assert load_hierarchy("pascal-context-60-3").fine.names == ["background", *kept]


def test_things_and_classes_are_those_of_pascal_panoptic_parts() -> None:
    package = find_spec("panoptic_parts")  # found, not imported: it takes Python 3.11 for 3.1
    if package is None or package.origin is None:
        pytest.skip("panoptic_parts is not installed")
    specs = Path(package.origin).parent / "specs"
    dataset = yaml.safe_load((specs / "dataset_specs" / "ppp_datasetspec.yaml").read_text())
    evaluated = yaml.safe_load((specs / "eval_specs" / "ppq_ppp_59_57_cvpr21_default_evalspec.yaml").read_text())
    by_id = dict(enumerate(dataset["scene_class2part_classes"], start=1))
    classes = {by_id[sid] for sid, target in evaluated["dataset_sid2eval_sid"].items() if target != "IGNORED"}
    things = set(dataset["scene_classes_with_instances"])
    for name in ("pascal-context-59-2", "pascal-context-60-3"):
        nodes = [node for node in load_hierarchy(name).fine.nodes if node.kind != "background"]
        assert {node.name for node in nodes} == classes
        assert {node.name for node in nodes if node.parent == "thing"} == things == set(MMSEG_NAMES[:20])
        assert all(node.kind == node.parent for node in nodes)
