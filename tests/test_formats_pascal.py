"""The PASCAL-Part variants: their tables, which images they select, and what the reader makes of every kind of pixel."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import scipy.io
from numpy.typing import NDArray
from raw_sets import RawObject, box, ids_png, pascal_set, photo
from test_formats import complaint, converted, maps, only

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, HierarchyError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.masks import Masks
from hiposeg_cli.formats.pascal_part import RAW_PARTS, PascalPart
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy, parse_hierarchy
from hiposeg_cli.lookup import Target
from hiposeg_cli.store import Dataset

X = 255  # ignore
PARTLESS = {"boat", "chair", "table", "sofa"}


@functools.cache
def preset(name: str) -> Hierarchy:
    return load_hierarchy(name)


def voc(name: str, mask: Any, *parts: tuple[str, Any]) -> RawObject:
    """An object with the class_ind of its class."""
    return RawObject(name, mask, parts, published.VOC.index(name) + 1)


def fine_ids(name: str, *classes: str) -> list[int]:
    return [preset(name).fine.names.index(class_name) for class_name in classes]


# == the tables ========================================================================================================

# OV-PARTS: object -> parts in id order, as registered there ("bus's license plate")
OV_PARTS = {
    "aeroplane": "body, stern, wing, tail, engine, wheel",
    "bicycle": "wheel, saddle, handlebar, chainwheel, headlight",
    "bird": "wing, tail, head, eye, beak, torso, neck, leg, foot",
    "bottle": "body, cap",
    "bus": "wheel, headlight, front, side, back, roof, mirror, license plate, door, window",
    "car": "wheel, headlight, front, side, back, roof, mirror, license plate, door, window",
    "cat": "tail, head, eye, torso, neck, leg, nose, paw, ear",
    "cow": "tail, head, eye, torso, neck, leg, ear, muzzle, horn",
    "dog": "tail, head, eye, torso, neck, leg, nose, paw, ear, muzzle",
    "horse": "tail, head, eye, torso, neck, leg, ear, muzzle, hoof",
    "motorbike": "wheel, saddle, handlebar, headlight",
    "person": "head, eye, torso, neck, leg, foot, nose, ear, eyebrow, mouth, hair, lower arm, upper arm, hand",
    "pottedplant": "pot, plant",
    "sheep": "tail, head, eye, torso, neck, leg, ear, muzzle, horn",
    "train": "headlight, head, front, side, back, roof, coach",
    "tvmonitor": "screen",
}
FIRST_116 = {
    "aeroplane": 0, "bicycle": 6, "bird": 11, "bottle": 20, "bus": 22, "car": 32, "cat": 42, "cow": 51, "dog": 60,
    "horse": 70, "motorbike": 79, "person": 83, "pottedplant": 97, "sheep": 99, "train": 108, "tvmonitor": 115,
}  # fmt: skip
# what a raw name says in full, once sides are forgotten: the first pattern that fits
MEANING_116 = [
    (r"[fb]wheel|wheel_", "wheel"), (r"[lr]?wing", "wing"), (r"(left|right)mirror", "mirror"),
    (r"[fb]liplate", "license plate"), (r"[hc]?frontside_?", "front"), (r"[hc]?(left|right)side_?", "side"),
    (r"[hc]?backside_?", "back"),
    (r"[hc]?roofside_?", "roof"), (r"[lr][fb]pa", "paw"), (r"[lr][fb]ho", "hoof"), (r"[lr]larm", "lower arm"),
    (r"[lr]uarm", "upper arm"), (r"[lr][lufb]{0,2}leg", "leg"), (r"[lr]ebrow", "eyebrow"),
    (r"[lr](eye|ear|horn|foot|hand)", r"\1"), (r"(\w+?)_?", r"\1"),
]  # fmt: skip

# FLOAT: 200 classes in id order from 1, object by object; `*` is the rest of an object
FLOAT_ORDER = {
    "aeroplane": "body engine lwing rwing stern tail wheel",
    "bicycle": "bwheel chainwheel body* fwheel handlebar headlight saddle",
    "bird": "beak head leye lfoot lleg lwing neck reye rfoot rleg rwing tail torso",
    "boat": "*",
    "bottle": "body cap",
    "bus": "bliplate backside door fliplate frontside headlight leftmirror leftside rightmirror rightside roofside wheel "
    "window",
    "car": "bliplate backside door fliplate frontside headlight leftmirror leftside rightmirror rightside roofside wheel "
    "window",
    "cat": "head lbleg lbpa lear leye lfleg lfpa neck nose rbleg rbpa rear reye rfleg rfpa tail torso",
    "chair": "*",
    "cow": "head lblleg lbuleg lear leye lflleg lfuleg lhorn muzzle neck rblleg rbuleg rear reye rflleg rfuleg rhorn tail "
    "torso",
    "table": "*",
    "dog": "head lbleg lbpa lear leye lfleg lfpa muzzle neck nose rbleg rbpa rear reye rfleg rfpa tail torso",
    "horse": "head lbho lblleg lbuleg lear leye lfho lflleg lfuleg muzzle neck rbho rblleg rbuleg rear reye rfho rflleg "
    "rfuleg tail torso",
    "motorbike": "bwheel body* fwheel handlebar headlight saddle",
    "person": "hair head lear leye lebrow lfoot lhand llarm llleg luarm luleg mouth neck nose rear reye rebrow rfoot rhand "
    "rlarm rlleg ruarm ruleg torso",
    "pottedplant": "plant pot",
    "sheep": "head lblleg lbuleg lear leye lflleg lfuleg lhorn muzzle neck rblleg rbuleg rear reye rflleg rfuleg rhorn tail "
    "torso",
    "sofa": "*",
    "train": "cbackside cfrontside cleftside crightside croofside coach head hbackside hfrontside hleftside hrightside "
    "hroofside headlight",
    "tvmonitor": "frame* screen",
}
FIRST_201 = {
    "aeroplane": 1, "bicycle": 8, "bird": 15, "boat": 28, "bottle": 29, "bus": 31, "car": 44, "cat": 57, "chair": 74,
    "cow": 75, "table": 94, "dog": 95, "horse": 113, "motorbike": 134, "person": 140, "pottedplant": 164, "sheep": 166,
    "sofa": 185, "train": 186, "tvmonitor": 199,
}  # fmt: skip
RAW_COUNTS = {
    "aeroplane": 7, "bicycle": 6, "bird": 13, "boat": 0, "bottle": 2, "bus": 13, "car": 13, "cat": 17, "chair": 0, "cow": 19,
    "table": 0, "dog": 18, "horse": 21, "motorbike": 5, "person": 24, "pottedplant": 2, "sheep": 19, "sofa": 0, "train": 13,
    "tvmonitor": 1,
}  # fmt: skip
LEFT_OF_A_PAIR = {
    "lwing", "leye", "lear", "lebrow", "lhorn", "llarm", "luarm", "lhand", "llleg", "luleg", "lfoot", "lleg", "lfleg",
    "lbleg", "lfpa", "lbpa", "lfuleg", "lflleg", "lbuleg", "lblleg", "lfho", "lbho", "leftside", "leftmirror", "hleftside",
    "cleftside",
}  # fmt: skip
PERSON_7 = {
    "head": "head leye reye lear rear lebrow rebrow nose mouth hair", "torso": "neck torso", "upper_arm": "luarm ruarm",
    "lower_arm": "llarm lhand rlarm rhand", "upper_leg": "luleg ruleg", "lower_leg": "llleg lfoot rlleg rfoot",
}  # fmt: skip


def plain(part: str) -> str:
    return part.rstrip("_")


def class_116(voc_object: str, part: str) -> str:
    """The class of a raw part by what its name says."""
    for pattern, meaning in MEANING_116:
        found = re.fullmatch(pattern, part)
        if found:
            return f"{voc_object}'s {found.expand(meaning)}"
    raise AssertionError(part)


def targets_of(name: str, folder: Path, **options: Any) -> dict[int, Target]:
    return PascalPart(folder, preset(name), ReaderOptions(**options)).targets()


def by_part(targets: Mapping[int, Target]) -> dict[tuple[str, str], Target]:
    """(object, raw part) -> target; the part `""` is the rest of the object."""
    found = {}
    for number, (voc_object, parts) in enumerate(RAW_PARTS.items(), start=1):
        for position, part in enumerate(("", *parts)):
            found[voc_object, part] = targets[100 * number + position]
    return found


def test_116_has_the_published_classes_in_the_published_order() -> None:
    hierarchy = preset("pascal-part-116")
    published_names = [f"{name}'s {part}" for name, parts in OV_PARTS.items() for part in parts.split(", ")]
    assert len(published_names) == 116
    assert [hierarchy.fine.find(name) for name in published_names] == list(range(116))
    assert {name: hierarchy.children(k)[0] for k, name in enumerate(hierarchy.coarse.names)} == FIRST_116
    assert hierarchy.background is None


def test_116_every_raw_part_becomes_the_class_its_name_says(tmp_path: Path) -> None:
    hierarchy = preset("pascal-part-116")
    found = by_part(targets_of("pascal-part-116", tmp_path))
    for (voc_object, part), target in found.items():
        coarse = hierarchy.coarse.find(voc_object)
        wanted = (hierarchy.fine.find(class_116(voc_object, part)) if part else None, coarse)
        assert target == wanted, (voc_object, part)
    assert {name for name, part in found if not part and found[name, part] == (None, None)} == PARTLESS
    assert targets_of("pascal-part-116", tmp_path)[0] == (None, None)


def test_116_names_its_novel_objects() -> None:
    assert re.search(r"novel\) objects are bird, car, dog, sheep and motorbike", preset("pascal-part-116").doc)


def test_201_has_the_reconstructed_order(tmp_path: Path) -> None:
    hierarchy = preset("pascal-part-201")
    wanted = {("", ""): 0}
    for voc_object, row in FLOAT_ORDER.items():
        assert len(wanted) == FIRST_201[voc_object]
        for name in row.split():
            wanted[voc_object, name] = len(wanted)
    assert len(wanted) == 201 == hierarchy.n_fine
    names = [o if part == "*" else f"{o}_{part}".rstrip("*") for o, part in list(wanted)[1:]]
    assert hierarchy.fine.names == ["background", *names]
    found = by_part(targets_of("pascal-part-201", tmp_path))
    for (voc_object, part), target in found.items():
        rest = [name for name in FLOAT_ORDER[voc_object].split() if name.endswith("*")]
        name = plain(part) if part else (rest[0] if rest else None)
        fine_id = None if name is None else wanted[voc_object, name]
        assert target == (fine_id, published.VOC.index(voc_object) + 1), (voc_object, part)


@pytest.mark.parametrize(
    ("fine_id", "name"),
    [
        (4, "aeroplane_rwing"), (10, "bicycle_body"), (27, "bird_torso"), (28, "boat"), (56, "car_window"), (94, "table"),
        (112, "dog_torso"), (135, "motorbike_body"), (139, "motorbike_saddle"), (149, "person_luarm"), (163, "person_torso"),
        (185, "sofa"), (192, "train_head"), (199, "tvmonitor_frame"), (200, "tvmonitor_screen"),
    ],
)  # fmt: skip
def test_201_ids_read_off_the_evaluation_code(fine_id: int, name: str) -> None:
    assert preset("pascal-part-201").fine.names[fine_id] == name


def test_raw_keeps_every_part_of_the_table(tmp_path: Path) -> None:
    hierarchy = preset("pascal-part-raw")
    assert {name: len(parts) for name, parts in RAW_PARTS.items()} == RAW_COUNTS
    assert sum(RAW_COUNTS.values()) == 193
    names = [f"{o}_{plain(part)}" if part else o for o, parts in RAW_PARTS.items() for part in parts or ("",)]
    assert hierarchy.fine.names == ["background", *names]
    found = by_part(targets_of("pascal-part-raw", tmp_path))
    for (voc_object, part), target in found.items():
        name = f"{voc_object}_{plain(part)}" if part else voc_object
        fine_id = hierarchy.fine.find(name) if part or voc_object in PARTLESS else None
        assert target == (fine_id, published.VOC.index(voc_object) + 1), (voc_object, part)


@pytest.mark.parametrize("name", ["pascal-part-raw", "pascal-part-201"])
def test_left_and_right_mirror_each_other_and_nothing_else_does(name: str) -> None:
    fine = preset(name).fine
    for node in fine.nodes:
        part = node.name.partition("_")[2]
        right = part.replace("left", "right") if "left" in part else f"r{part[1:]}"
        if part in LEFT_OF_A_PAIR:
            assert node.mirror == f"{node.parent}_{right}", node.name
    mirrored = {node.name for node in fine.nodes if node.mirror}
    lefts = {n.name for n in fine.nodes if n.name.partition("_")[2] in LEFT_OF_A_PAIR}
    assert mirrored == lefts | {str(node.mirror) for node in fine.nodes if node.name in lefts}
    assert len(mirrored) == 2 * len(lefts)


@pytest.mark.parametrize("name", ["pascal-person-part-7-2", "pascal-person-part-7-3-2"])
def test_person_parts_are_grouped_as_published(name: str, tmp_path: Path) -> None:
    hierarchy = preset(name)
    assert hierarchy.fine.names == ["background", *PERSON_7]
    found = by_part(targets_of(name, tmp_path))
    wanted = {part: class_name for class_name, parts in PERSON_7.items() for part in parts.split()}
    assert set(wanted) == set(RAW_PARTS["person"])
    for (voc_object, part), (fine_id, coarse_id) in found.items():
        if voc_object != "person":
            assert (fine_id, coarse_id) == (0, 0)
        elif part:
            assert (hierarchy.fine.names[fine_id or 0], coarse_id) == (wanted[part], hierarchy.parent[fine_id or 0])


def test_person_levels() -> None:
    two, three = preset("pascal-person-part-7-2"), preset("pascal-person-part-7-3-2")
    assert two.parent.tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert three.parent.tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert three.coarse.names == ["background", "upper_body", "lower_body"]
    assert three.ancestors(2).tolist() == two.parent.tolist()
    assert three.levels[2].names == two.coarse.names == ["background", "person"]


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("pascal-part-58", 58), ("pascal-part-108", 108), ("pascal-part-116", 116), ("pascal-part-201", 201),
        ("pascal-person-part-7-2", 7), ("pascal-person-part-7-3-2", 7),
    ],
)  # fmt: skip
def test_downloaded_label_pngs_are_read_with_their_ids(name: str, n: int, tmp_path: Path) -> None:
    hierarchy = preset(name)
    photo(tmp_path / "raw" / "JPEGImages" / "2008_000008.jpg", (1, 4))
    ids_png(tmp_path / "raw" / "labels" / "2008_000008.png", [[0, 1, n - 1, 255]])
    targets = Masks(tmp_path / "raw", hierarchy, ReaderOptions()).targets()
    assert targets == {k: (k, int(hierarchy.parent[k])) for k in range(n)} | {255: (None, None)}
    fine, coarse = maps(converted("masks", tmp_path / "raw", tmp_path / "out", name))
    assert fine == [[0, 1, n - 1, X]]
    assert coarse == [[*hierarchy.parent[[0, 1, n - 1]].tolist(), X]]


# == pixels by hand ====================================================================================================

SHAPE = (1, 6)


def tv_set(root: Path) -> Path:
    """A television over columns 0..3 with its screen in column 1, and a boat in column 4."""
    television = voc("tvmonitor", box(SHAPE, 0, 0, 1, 4), ("screen", box(SHAPE, 0, 1, 1, 2)))
    return pascal_set(root, [television, voc("boat", box(SHAPE, 0, 4, 1, 5))], SHAPE)


@pytest.mark.parametrize(
    ("uncovered", "fine", "coarse"), [("object-only", X, 20), ("ignore", X, X), ("background", 0, 0), (None, X, 20)]
)
def test_uncovered_pixels_in_every_way(uncovered: str | None, fine: int, coarse: int, tmp_path: Path) -> None:
    root = tv_set(tmp_path / "raw")
    screen, boat = fine_ids("pascal-part-108", "tvmonitor_screen", "boat")
    dataset = converted("pascal-part", root, tmp_path / "out", uncovered=uncovered)
    assert maps(dataset) == ([[fine, screen, fine, fine, boat, 0]], [[coarse, 20, coarse, coarse, 4, 0]])
    assert only(dataset).uncovered_px == 4
    assert only(dataset).coarse_only_px == (3 if coarse == 20 else 0)


TINY = """
schema: hiposeg/hierarchy@1
name: tiny
levels: [fine, coarse]
classes:
  coarse: [{name: nothing, kind: background}, tvmonitor]
  fine: [{name: nothing, parent: nothing, kind: background}, {name: screen, parent: tvmonitor}]
sources:
  pascal-part:
    %s
    map: {tvmonitor: {screen: screen}, %s}
"""


def tiny(folder: Path, line: str = "", rest: str = '"*": {__object__: nothing}') -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY % (line, rest), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "pixel"),
    [("", (X, 1)), ("uncovered: object-only", (X, 1)), ("uncovered: ignore", (X, X)), ("uncovered: background", (0, 0))],
)
def test_a_hierarchy_chooses_what_uncovered_pixels_become(line: str, pixel: tuple[int, int], tmp_path: Path) -> None:
    fine, coarse = maps(converted("pascal-part", tv_set(tmp_path / "raw"), tmp_path / "out", tiny(tmp_path, line)))
    assert fine == [[pixel[0], 1, pixel[0], pixel[0], 0, 0]]
    assert coarse == [[pixel[1], 1, pixel[1], pixel[1], 0, 0]]


def test_uncovered_takes_no_other_word(tmp_path: Path) -> None:
    with pytest.raises(HierarchyError, match=r"tiny\.yaml:10.*'object'.*object-only, ignore or background"):
        load_hierarchy(tiny(tmp_path, "uncovered: object"))


def test_background_for_uncovered_pixels_needs_a_background_class(tmp_path: Path) -> None:
    said = complaint("pascal-part", tv_set(tmp_path), "pascal-part-116", uncovered="background")
    assert "no class of kind background" in said


# -- `*`: the objects a map does not list ------------------------------------------------------------------------------


def crowd(root: Path) -> Path:
    """Three images: a person with a torso in front of a car, a person without parts, a car."""
    shape = (1, 5)
    person = voc("person", box(shape, 0, 1, 1, 4), ("torso", box(shape, 0, 1, 1, 2)), ("lfoot", box(shape, 0, 2, 1, 3)))
    car = voc("car", box(shape, 0, 0, 1, 2), ("wheel_1", box(shape, 0, 0, 1, 1)))
    pascal_set(root, [car, person], shape, "2008_1")
    pascal_set(root, [voc("person", box(shape, 0, 1, 1, 4))], shape, "2008_2")
    return pascal_set(root, [car], shape, "2008_3")


def keys(dataset: Dataset) -> list[str]:
    return [row.key for split in dataset.rows.values() for row in split]


def test_person_parts_beside_other_objects_and_only_images_that_have_them(tmp_path: Path) -> None:
    root = crowd(tmp_path / "raw")
    two = converted("pascal-part", root, tmp_path / "two", "pascal-person-part-7-2")
    assert keys(two) == ["2008_1"]
    torso, lower_leg = fine_ids("pascal-person-part-7-2", "torso", "lower_leg")
    assert maps(two) == ([[0, torso, lower_leg, X, 0]], [[0, 1, 1, 1, 0]])
    three = converted("pascal-part", root, tmp_path / "three", "pascal-person-part-7-3-2")
    assert maps(three) == ([[0, torso, lower_leg, X, 0]], [[0, 1, 2, X, 0]])
    lost = converted("pascal-part", root, tmp_path / "lost", "pascal-person-part-7-3-2", uncovered="background")
    assert maps(lost) == ([[0, torso, lower_leg, 0, 0]], [[0, 1, 2, 0, 0]])
    assert only(two).n_objects == 2
    assert only(two).overlap_px == 1


def test_a_map_without_star_keeps_every_image(tmp_path: Path) -> None:
    assert keys(converted("pascal-part", crowd(tmp_path / "raw"), tmp_path / "out")) == ["2008_1", "2008_2", "2008_3"]


def test_116_leaves_out_images_without_any_part_and_ignores_partless_objects(tmp_path: Path) -> None:
    root = crowd(tmp_path / "raw")
    shape = (1, 3)
    pascal_set(root, [voc("boat", box(shape, 0, 0, 1, 2))], shape, "2008_4")
    pascal_set(
        root, [voc("boat", box(shape, 0, 0, 1, 2)), voc("bottle", box(shape, 0, 1, 1, 3), ("cap", box(shape, 0, 2, 1, 3)))],
        shape, "2008_5",
    )  # fmt: skip
    dataset = converted("pascal-part", root, tmp_path / "out", "pascal-part-116")
    assert keys(dataset) == ["2008_1", "2008_3", "2008_5"]
    labels = dataset.labels(dataset.rows["train"][2])
    (cap,) = fine_ids("pascal-part-116", "bottle_cap")
    assert labels.fine.tolist() == [[X, X, cap]]
    assert labels.coarse.tolist() == [[X, 3, 3]]


def test_an_unreadable_file_is_not_left_out_silently(tmp_path: Path) -> None:
    root = crowd(tmp_path)
    (root / "Annotations_Part" / "2008_2.mat").write_bytes(b"broken")
    assert "2008_2.mat" in complaint("pascal-part", root, "pascal-person-part-7-2")


def test_no_image_with_parts_of_the_listed_objects(tmp_path: Path) -> None:
    root = pascal_set(tmp_path, [voc("car", box((1, 2), 0, 0, 1, 1), ("wheel_1", box((1, 2), 0, 0, 1, 1)))], (1, 2))
    said = complaint("pascal-part", root, "pascal-person-part-7-2")
    assert "no part of person is annotated" in said


@pytest.mark.parametrize("rest", ['"*": nothing', '"*": {head: nothing}', '"*": {__object__: nothing, head: nothing}'])
def test_star_can_only_say_what_whole_objects_become(rest: str, tmp_path: Path) -> None:
    hierarchy = parse_hierarchy(TINY % ("", rest))
    with pytest.raises(ConfigError, match=r"whole objects.*__object__"):
        PascalPart(tmp_path, hierarchy, ReaderOptions())


def test_star_may_ignore_or_be_known_on_the_coarse_level_only(tmp_path: Path) -> None:
    for rest, target in (("ignore", (None, None)), ("{coarse: tvmonitor}", (None, 1))):
        hierarchy = parse_hierarchy(TINY % ("", f'"*": {{__object__: {rest}}}'))
        assert PascalPart(tmp_path, hierarchy, ReaderOptions()).targets()[700] == target


# -- lists, names, numbers ---------------------------------------------------------------------------------------------


def listed(root: Path, folder: str, **lists: str) -> Path:
    for split, text in lists.items():
        path = root / folder / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_listed_image_without_annotation_is_named_with_its_list(tmp_path: Path) -> None:
    root = listed(tv_set(tmp_path), ".", train="2008_000001\n", val="2008_000009\n2008_000007\n")
    faults = prepare("pascal-part", root, None, PrepareOptions()).failures
    assert len(faults) == 2
    for stem, error in zip(("2008_000007", "2008_000009"), faults, strict=True):
        assert "val.txt" in str(error)
        assert f"Annotations_Part/{stem}.mat" in str(error)


def test_annotation_and_photo_that_no_list_names_are_left_alone(tmp_path: Path) -> None:
    root = listed(tv_set(tmp_path / "raw"), ".", train="2008_000001\n")
    photo(root / "JPEGImages" / "2008_000002.jpg", SHAPE)
    (root / "Annotations_Part" / "2008_000003.mat").write_bytes(b"never read")
    assert keys(converted("pascal-part", root, tmp_path / "out")) == ["2008_000001"]


def test_lists_lie_beside_the_photos_of_the_voc_archive(tmp_path: Path) -> None:
    root = tv_set(tmp_path / "raw")
    (root / "VOCdevkit" / "VOC2010").mkdir(parents=True)
    (root / "JPEGImages").rename(root / "VOCdevkit" / "VOC2010" / "JPEGImages")
    listed(root, "VOCdevkit/VOC2010", val="2008_000001\n")
    assert list(converted("pascal-part", root, tmp_path / "out").rows) == ["val"]
    listed(root, ".", train="2008_000001\n")  # one's own lists come first
    assert list(converted("pascal-part", root, tmp_path / "own").rows) == ["train"]


def test_two_annotations_of_one_name(tmp_path: Path) -> None:
    root = tv_set(tmp_path)
    (root / "Annotations_Part" / "more").mkdir()
    (root / "Annotations_Part" / "more" / "2008_000001.mat").write_bytes(b"")
    assert "more/2008_000001.mat: has the same stem as" in complaint("pascal-part", root)


@pytest.mark.parametrize(
    ("part", "remark"),
    [
        ("wheel_1", ""), ("wheel_10", ""), ("window_20", ""), ("wheel_0", "wheel_0: these parts are numbered from 1 to 10"),
        ("wheel_11", "from 1 to 10"), ("window_21", "from 1 to 20"), ("window_0", "from 1 to 20"),
    ],
)  # fmt: skip
def test_number_of_a_part_out_of_its_range_is_reported(part: str, remark: str, tmp_path: Path) -> None:
    shape = (1, 2)
    bus = voc("bus", box(shape, 0, 0, 1, 2), (part, box(shape, 0, 0, 1, 1)))
    row = only(converted("pascal-part", pascal_set(tmp_path / "raw", [bus], shape), tmp_path / "out"))
    assert remark in "; ".join(row.warnings)
    assert bool(row.warnings) == bool(remark)


def test_unknown_objects_and_parts_become_ignore_where_that_is_asked_for(tmp_path: Path) -> None:
    shape = (1, 6)
    zebra = RawObject("zebra", box(shape, 0, 0, 1, 2), (("torso", box(shape, 0, 0, 1, 1)),), 21)
    cat = voc("cat", box(shape, 0, 2, 1, 5), ("torso", box(shape, 0, 2, 1, 3)), ("whisker", box(shape, 0, 3, 1, 4)))
    root = pascal_set(tmp_path / "raw", [zebra, cat], shape)
    assert "--unknown ignore" in complaint("pascal-part", root)
    dataset = converted("pascal-part", root, tmp_path / "out", unknown="ignore")
    (torso,) = fine_ids("pascal-part-108", "cat_torso")
    assert maps(dataset) == ([[X, X, torso, X, X, 0]], [[X, X, 8, X, 8, 0]])
    assert "3 px of unknown labels ignored" in "; ".join(only(dataset).warnings)
    fewer = converted("pascal-part", tv_set(tmp_path / "tv"), tmp_path / "fewer", tiny(tmp_path, rest=""), unknown="ignore")
    assert maps(fewer) == ([[X, 1, X, X, X, 0]], [[1, 1, 1, 1, X, 0]])


def test_object_numbers_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    shape = (1, 5)
    objects = [voc("boat", box(shape, 0, 0, 1, 2)), voc("cat", box(shape, 0, 0, 0, 0)), voc("boat", box(shape, 0, 1, 1, 4))]
    dataset = converted("pascal-part", pascal_set(tmp_path / "raw", objects, shape), tmp_path / "out", instances=True)
    numbers = dataset.instances(only(dataset))
    assert numbers is not None
    assert numbers.tolist() == [[1, 3, 3, 3, 0]]


def test_masks_of_other_number_types_and_memory_orders_are_read_alike(tmp_path: Path) -> None:
    """Masks count as set where they are positive, whatever their type."""
    shape = (3, 4)
    wanted = None
    for number, kind in enumerate((np.uint8, np.int16, np.float64, np.bool_)):
        mask, part = box(shape, 0, 0, 2, 3).astype(kind), box(shape, 1, 1, 3, 4).astype(kind)
        if kind in (np.int16, np.float64):
            part[0, 0] = -1
            mask *= 7
        dog = voc("dog", np.ascontiguousarray(mask), ("head", np.asfortranarray(part)))
        root = pascal_set(tmp_path / f"raw{number}", [dog], shape)
        found = maps(converted("pascal-part", root, tmp_path / f"out{number}"))
        wanted = wanted or found
        assert found == wanted
    (head,) = fine_ids("pascal-part-108", "dog_head")
    assert wanted == ([[X, X, X, 0], [X, head, head, 0], [0] * 4], [[12, 12, 12, 0], [12, 12, 12, 0], [0] * 4])


# == genuine annotations ===============================================================================================

RawParts = list[tuple[str, NDArray[np.bool_], list[tuple[str, NDArray[np.bool_]]]]]


@functools.cache
def raw_objects(path: Path) -> RawParts:
    """Objects of a .mat as (class, mask, [(part without its number, mask)]), read with the other style of scipy's reader."""
    anno = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)["anno"]
    found = []
    for entry in np.atleast_1d(anno.objects):
        parts = [(re.sub(r"_\d+$", "", p.part_name), p.mask.astype(bool)) for p in np.atleast_1d(entry.parts)]
        found.append((str(entry.__dict__["class"]), entry.mask.astype(bool), parts))
    return found


def seen(path: Path) -> NDArray[np.object_]:
    """(H, W) of (object, part): what lies on top of each pixel, taken from the top down; None for nothing."""
    objects = raw_objects(path)
    top = np.full(objects[0][1].shape, None, dtype=object)
    taken = np.zeros(top.shape, bool)
    for name, mask, parts in reversed(objects):
        mine = mask & ~taken
        taken |= mask
        for part, part_mask in reversed(parts):
            here = mine & part_mask
            mine &= ~part_mask
            top[here] = f"{name} {part}"
        top[mine] = f"{name} "
    return top


def pixel_116(voc_object: str, part: str) -> tuple[int, int]:
    hierarchy = preset("pascal-part-116")
    if voc_object in PARTLESS or not voc_object:
        return X, X
    fine = hierarchy.fine.find(class_116(voc_object, part)) if part else X
    assert fine is not None
    return fine, list(OV_PARTS).index(voc_object)


def pixel_201(voc_object: str, part: str) -> tuple[int, int]:
    if not voc_object:
        return 0, 0
    names = [name if not name.endswith("*") else "" for name in FLOAT_ORDER[voc_object].split()]
    fine = FIRST_201[voc_object] + names.index(part) if part in names else X
    return fine, published.VOC.index(voc_object) + 1


def pixel_raw(voc_object: str, part: str) -> tuple[int, int]:
    if not voc_object:
        return 0, 0
    number = published.VOC.index(voc_object)
    first = 1 + sum(max(1, RAW_COUNTS[name]) for name in published.VOC[:number])
    parts = [plain(name) for name in RAW_PARTS[voc_object]] or [""]
    return first + parts.index(part) if part in parts else X, number + 1


def pixel_7(voc_object: str, part: str) -> tuple[int, int]:
    if voc_object != "person":
        return 0, 0
    groups = [part in parts.split() for parts in PERSON_7.values()]
    return groups.index(True) + 1 if part else X, 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("pascal-part-116", pixel_116), ("pascal-part-201", pixel_201), ("pascal-part-raw", pixel_raw),
        ("pascal-person-part-7-2", pixel_7),
    ],
)  # fmt: skip
def test_genuine_annotations_pixel_by_pixel(
    name: str, pixel: Callable[[str, str], tuple[int, int]], sample_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source = sample_data("pascal_part")
    dataset = converted("pascal-part", source, tmp_path / "out", name)
    owners = {"pascal-part-116": set(published.VOC) - PARTLESS, "pascal-person-part-7-2": {"person"}}.get(name)
    paths = sorted((source / "Annotations_Part").glob("*.mat"))
    chosen = [p for p in paths if owners is None or any(o in owners and parts for o, _, parts in raw_objects(p))]
    assert keys(dataset) == [path.stem for path in chosen]
    assert (len(chosen) < len(paths)) == (owners is not None)
    for row, path in zip(dataset.rows["train"], chosen, strict=True):
        top = seen(path)
        labels = dataset.labels(row)
        for what in set(top[top != None].tolist()) | {None}:  # noqa: E711 - compares pixel by pixel
            here = np.equal(top, what)
            voc_object, _, part = (what or " ").partition(" ")
            pairs = set(zip(labels.fine[here].tolist(), labels.coarse[here].tolist(), strict=True))
            assert pairs == {pixel(voc_object, part)}, (path.stem, what)
