"""COCO-Stuff: the published class table, the four codings of its ids, and how a wrong one is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from conversion import complaint, converted, keys_by_split, only, rows_of
from numpy.typing import NDArray
from PIL import Image
from raw_sets import ids_png, photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.hierarchy_yaml import load_hierarchy

X = 255  # ignore

# Group (in id order): the pixel values and names of its classes in the 164k release; values in parentheses were never
# annotated. Copied from the table of the specification, whose sources are labels.txt and the map of hynnsk/HP.
ROWS = {
    "electronic-things": "71 tv, 72 laptop, 73 mouse, 74 remote, 75 keyboard, 76 cell phone",
    "appliance-things": "77 microwave, 78 oven, 79 toaster, 80 sink, 81 refrigerator, (82 blender)",
    "food-things": "51 banana, 52 apple, 53 sandwich, 54 orange, 55 broccoli, 56 carrot, 57 hot dog, 58 pizza, 59 donut, "
    "60 cake",
    "furniture-things": "61 chair, 62 couch, 63 potted plant, 64 bed, (65 mirror), 66 dining table, (67 window), (68 desk), "
    "69 toilet, (70 door)",
    "indoor-things": "83 book, 84 clock, 85 vase, 86 scissors, 87 teddy bear, 88 hair drier, 89 toothbrush, (90 hair brush)",
    "kitchen-things": "43 bottle, (44 plate), 45 wine glass, 46 cup, 47 fork, 48 knife, 49 spoon, 50 bowl",
    "accessory-things": "(25 hat), 26 backpack, 27 umbrella, (28 shoe), (29 eye glasses), 30 handbag, 31 tie, 32 suitcase",
    "animal-things": "15 bird, 16 cat, 17 dog, 18 horse, 19 sheep, 20 cow, 21 elephant, 22 bear, 23 zebra, 24 giraffe",
    "outdoor-things": "9 traffic light, 10 fire hydrant, (11 street sign), 12 stop sign, 13 parking meter, 14 bench",
    "person-things": "0 person",
    "sports-things": "33 frisbee, 34 skis, 35 snowboard, 36 sports ball, 37 kite, 38 baseball bat, 39 baseball glove, "
    "40 skateboard, 41 surfboard, 42 tennis racket",
    "vehicle-things": "1 bicycle, 2 car, 3 motorcycle, 4 airplane, 5 bus, 6 train, 7 truck, 8 boat",
    "ceiling-stuff": "101 ceiling-other, 102 ceiling-tile",
    "floor-stuff": "100 carpet, 113 floor-marble, 114 floor-other, 115 floor-stone, 116 floor-tile, 117 floor-wood",
    "food-stuff": "120 food-other, 121 fruit, 152 salad, 169 vegetable",
    "furniture-stuff": "97 cabinet, 106 counter, 107 cupboard, 109 desk-stuff, 111 door-stuff, 122 furniture-other, "
    "129 light, 132 mirror-stuff, 155 shelf, 160 stairs, 164 table",
    "rawmaterial-stuff": "99 cardboard, 131 metal, 138 paper, 142 plastic",
    "textile-stuff": "91 banner, 92 blanket, 103 cloth, 104 clothes, 108 curtain, 130 mat, 136 napkin, 140 pillow, 151 rug, "
    "166 textile-other, 167 towel",
    "wall-stuff": "170 wall-brick, 171 wall-concrete, 172 wall-other, 173 wall-panel, 174 wall-stone, 175 wall-tile, "
    "176 wall-wood",
    "window-stuff": "179 window-blind, 180 window-other",
    "building-stuff": "94 bridge, 95 building-other, 127 house, 150 roof, 157 skyscraper, 165 tent",
    "ground-stuff": "110 dirt, 124 gravel, 125 ground-other, 135 mud, 139 pavement, 143 platform, 144 playingfield, "
    "146 railroad, 148 road, 153 sand, 158 snow",
    "plant-stuff": "93 branch, 96 bush, 118 flower, 123 grass, 128 leaves, 133 moss, 141 plant-other, 162 straw, 168 tree",
    "sky-stuff": "105 clouds, 156 sky-other",
    "solid-stuff": "126 hill, 134 mountain, 149 rock, 159 solid-other, 161 stone, 181 wood",
    "structural-stuff": "98 cage, 112 fence, 137 net, 145 railing, 163 structural-other",
    "water-stuff": "119 fog, 147 river, 154 sea, 177 water-other, 178 waterdrops",
}
ENTRIES = [(group, entry) for group, row in ROWS.items() for entry in row.split(", ")]
NEVER = {int(entry[1:-1].split()[0]): entry[1:-1].split(" ", 1)[1] for _, entry in ENTRIES if entry.startswith("(")}
CLASSES = {
    int(entry.split()[0]): (entry.split(" ", 1)[1], group) for group, entry in ENTRIES if not entry.startswith("(")
}  # value in the 164k release -> (name, group)
VALUES = sorted(CLASSES)
SUPERS = {
    "indoor-super-things": 6, "outdoor-super-things": 6, "indoor-super-stuff": 8, "outdoor-super-stuff": 7,
}  # fmt: skip
"""Names of the level above the groups -> how many groups each has, in the order of ROWS."""


# -- the presets -------------------------------------------------------------------------------------------------------


def test_the_table_typed_here_is_the_published_one() -> None:
    assert len(CLASSES) == 171
    assert set(NEVER) == {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    assert set(CLASSES) | set(NEVER) == set(range(182))
    assert [list(ROWS).index(CLASSES[value][1]) for value in (0, 77, 171, 181)] == [9, 1, 18, 24]


def test_preset_names_groups_and_levels_are_the_published_ones() -> None:
    hierarchy = load_hierarchy("coco-stuff-171-27")
    assert hierarchy.fine.names == [CLASSES[value][0] for value in VALUES]
    assert [node.parent for node in hierarchy.fine.nodes] == [CLASSES[value][1] for value in VALUES]
    assert hierarchy.coarse.names == list(ROWS)
    supers = [name for name, n_groups in SUPERS.items() for _ in range(n_groups)]
    assert [node.parent for node in hierarchy.coarse.nodes] == supers
    assert [level.name for level in hierarchy.levels] == ["fine", "coarse", "super", "kind"]
    assert hierarchy.levels[2].names == list(SUPERS)
    assert hierarchy.levels[3].names == ["things", "stuff"]
    assert hierarchy.ancestors(3).tolist() == [0] * 80 + [1] * 91
    assert [node.kind for node in hierarchy.fine.nodes] == ["thing"] * 80 + ["stuff"] * 91


@pytest.mark.parametrize("name", ["coco-stuff-171-27", "coco-stuff-27-2"])
def test_preset_maps_every_pixel_value_and_ignores_what_was_never_annotated(name: str) -> None:
    hierarchy = load_hierarchy(name)
    table = hierarchy.source("coco-stuff")
    meant = {value: CLASSES[value][0 if name == "coco-stuff-171-27" else 1] for value in VALUES}
    assert dict(table.map) == meant
    assert set(table.ignore) == {*NEVER, 255}
    assert table.unlabelled == "ignore"


def test_preset_of_the_27_groups() -> None:
    hierarchy = load_hierarchy("coco-stuff-27-2")
    assert hierarchy.fine.names == list(ROWS)
    assert hierarchy.coarse.names == ["things", "stuff"]
    assert hierarchy.parent.tolist() == [0] * 12 + [1] * 15


@pytest.mark.parametrize(("spelling", "group"), [("wall", "wall-stuff"), ("raw-material", "rawmaterial-stuff")])
def test_groups_are_found_by_the_supercategories_of_coco_panoptic(spelling: str, group: str) -> None:
    coarse = load_hierarchy("coco-stuff-171-27").coarse
    assert coarse.find(spelling) == coarse.names.index(group)


# -- codings and layouts -----------------------------------------------------------------------------------------------

# One map of all 171 classes and some unlabelled pixels, as class ranks (-1 unlabelled), and what each coding makes of it.
RANKS = np.concatenate([np.arange(171), [-1, -1, -1, 0]]).reshape(7, 25)
FINE = np.where(RANKS < 0, X, RANKS).astype(np.uint8)
COARSE = np.array([list(ROWS).index(CLASSES[VALUES[rank]][1]) if rank >= 0 else X for rank in RANKS.flat]).reshape(7, 25)
PUBLISHED = np.array([VALUES[rank] if rank >= 0 else 255 for rank in RANKS.flat], np.uint8).reshape(7, 25)
CODED: dict[str, NDArray[np.uint8]] = {
    "164k": PUBLISHED,
    "10k": np.where(RANKS < 0, 0, PUBLISHED.astype(int) + 1).astype(np.uint8),  # ids of labels.txt
    "164k-train-ids": FINE,
    "10k-train-ids": (RANKS + 1).astype(np.uint8),
}


def stored_name(stem: str, variant: str) -> str:
    return f"{stem}_labelTrainIds.png" if variant.endswith("train-ids") else f"{stem}.png"


def stuff_set(root: Path, ids: NDArray[Any], variant: str = "164k", stem: str = "000000000139") -> Path:
    """annotations/val2017 with images/val2017, as the authors' README has it."""
    photo(root / "images" / "val2017" / f"{stem}.jpg", (ids.shape[0], ids.shape[1]))
    ids_png(root / "annotations" / "val2017" / stored_name(stem, variant), ids)
    return root


@pytest.mark.parametrize("variant", list(CODED))
def test_every_coding_gives_the_same_labels(variant: str, tmp_path: Path) -> None:
    root = stuff_set(tmp_path / "raw", CODED[variant], variant)
    dataset = converted("coco-stuff", root, tmp_path / "out", variant=variant)
    labels = dataset.labels(only(dataset))
    assert labels.fine.tolist() == FINE.tolist()
    assert labels.coarse.tolist() == COARSE.tolist()
    assert keys_by_split(dataset) == {"val": ["000000000139"]}


@pytest.mark.parametrize(
    ("variant", "published", "coded"),
    [
        ("164k-train-ids", 12, 11), ("164k-train-ids", 26, 24), ("164k-train-ids", 30, 26), ("164k-train-ids", 45, 40),
        ("164k-train-ids", 66, 60), ("164k-train-ids", 69, 61), ("164k-train-ids", 83, 73), ("164k-train-ids", 181, 170),
        ("10k-train-ids", 12, 12), ("10k-train-ids", 91, 81), ("10k-train-ids", 181, 171), ("10k", 181, 182),
    ],
)  # fmt: skip
def test_codings_agree_with_the_tables_of_mmsegmentation(variant: str, published: int, coded: int) -> None:
    """Pairs read off clsID_to_trID in coco_stuff164k.py and coco_stuff10k.py (whose ids are those of labels.txt)."""
    assert CODED[variant].flat[VALUES.index(published)] == coded


@pytest.mark.parametrize(
    ("label_dir", "image_dir"),
    [
        ("annotations/val2017", "images/val2017"), ("stuffthingmaps/val2017", "val2017"), ("val2017", "val2017"),
        ("stuffthingmaps_trainval2017/val2017", "images/val2017"), ("val_label", "val_img"),
    ],
)  # fmt: skip
def test_usual_layouts(label_dir: str, image_dir: str, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    photo(root / image_dir / "000000000139.jpg", (1, 3))
    ids_png(root / label_dir / "000000000139.png", [[0, 181, 255]])
    (root / "annotations").mkdir(exist_ok=True)  # as mmdetection has it, full of other files
    (root / "annotations" / "instances_val2017.json").write_text("{}")
    dataset = converted("coco-stuff", root, tmp_path / "out")
    assert dataset.labels(only(dataset)).fine.tolist() == [[0, 170, X]]
    assert keys_by_split(dataset) == {"val": ["000000000139"]}


def test_photos_elsewhere_and_both_splits(tmp_path: Path) -> None:
    for split, stem in (("train2017", "000000000009"), ("val2017", "000000000139")):
        photo(tmp_path / "coco" / split / f"{stem}.jpg", (1, 2))
        ids_png(tmp_path / "stuff" / split / f"{stem}.png", [[0, 255]])
    root = tmp_path / "stuff"
    assert "--images" in complaint("coco-stuff", root)
    dataset = converted("coco-stuff", root, tmp_path / "out", images=tmp_path / "coco")
    assert keys_by_split(dataset) == {"train": ["000000000009"], "val": ["000000000139"]}


def test_train_ids_beside_the_published_maps_are_not_mixed_with_them(tmp_path: Path) -> None:
    root = stuff_set(tmp_path / "raw", CODED["164k"])
    ids_png(root / "annotations" / "val2017" / "000000000139_labelTrainIds.png", CODED["164k-train-ids"])
    for variant in ("164k", "164k-train-ids"):
        dataset = converted("coco-stuff", root, tmp_path / variant, variant=variant)
        assert dataset.labels(only(dataset)).fine.tolist() == FINE.tolist()


def mat(path: Path, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, fields)
    return path


def ten_k(root: Path, **fields: Any) -> Path:
    """annotations/*.mat with images/ and imageLists/: the 10k release, one image in each split."""
    (root / "imageLists").mkdir(parents=True)
    for split, stem in (("train", "COCO_train2014_000000000077"), ("test", "COCO_train2014_000000119938")):
        photo(root / "images" / f"{stem}.jpg", (7, 25))
        mat(root / "annotations" / f"{stem}.mat", **({"S": CODED["10k"], "names": "x", "captions": "y"} | fields))
        (root / "imageLists" / f"{split}.txt").write_text(f"{stem}\n")
    return root


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_10k_release_as_published(dtype: Any, tmp_path: Path) -> None:
    root = ten_k(tmp_path / "raw", S=CODED["10k"].astype(dtype))
    mat(root / "annotations" / "unlisted.mat", S=np.zeros((2, 2)))
    dataset = converted("coco-stuff", root, tmp_path / "out", variant="10k")
    assert keys_by_split(dataset) == {
        "train": ["COCO_train2014_000000000077"], "test": ["COCO_train2014_000000119938"]
    }  # fmt: skip
    for row in rows_of(dataset):
        assert dataset.labels(row).fine.tolist() == FINE.tolist()


# -- the wrong coding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", list(CODED))
@pytest.mark.parametrize("stored", list(CODED))
def test_ids_of_another_coding_are_refused_with_the_variant_to_pass(stored: str, asked: str, tmp_path: Path) -> None:
    root = stuff_set(tmp_path / "raw", CODED[stored], asked)
    if stored == asked:
        converted("coco-stuff", root, tmp_path / "out", variant=asked)
        return
    said = complaint("coco-stuff", root, variant=asked)
    assert f"--variant {stored}," in said


@pytest.mark.parametrize(
    ("stored", "asked"), [("10k", "164k"), ("164k-train-ids", "164k"), ("164k", "10k"), ("10k-train-ids", "164k-train-ids")]
)
def test_one_telling_image_among_many_stops_the_run_before_anything_is_written(
    stored: str, asked: str, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    for number in range(200):
        stuff_set(root, CODED[stored][:1, 1:3], asked, stem=f"{number:012}")  # two classes that every coding has
    stuff_set(root, CODED[stored], asked, stem=f"{72:012}")
    with pytest.raises(HiposegError, match=f"--variant {stored}"):
        prepare("coco-stuff", root, tmp_path / "out", PrepareOptions(reader=ReaderOptions(variant=asked), skip_bad=True))
    assert not (tmp_path / "out").exists()


def test_a_telling_image_that_was_not_sampled_fails_by_itself(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for number in range(100):
        stuff_set(root, CODED["10k"] if number == 99 else CODED["10k"][:1, 1:3], stem=f"{number:012}")
    said = complaint("coco-stuff", root)
    assert f"{99:012}.png" in said
    assert "--variant 10k" in said


def test_classes_that_every_coding_has_are_read_as_the_variant_says(tmp_path: Path) -> None:
    root = stuff_set(tmp_path / "raw", np.array([[1, 2]], np.uint8))
    dataset = converted("coco-stuff", root, tmp_path / "out")
    names = [dataset.hierarchy.fine.names[k] for k in dataset.labels(only(dataset)).fine[0]]
    assert names == ["bicycle", "car"]  # person and bicycle, had the map been of the 10k release


def test_a_class_that_was_never_annotated_is_ignored_with_a_remark(tmp_path: Path) -> None:
    root = stuff_set(tmp_path / "raw", np.array([[82, 181, 255]], np.uint8))  # 181 and 255 together fit no other coding
    dataset = converted("coco-stuff", root, tmp_path / "out")
    assert dataset.labels(only(dataset)).fine.tolist() == [[X, 170, X]]
    assert "82" in "; ".join(only(dataset).warnings)


def test_a_hierarchy_may_give_a_class_to_an_id_that_was_never_annotated(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "schema: hiposeg/hierarchy@1\nname: mine\nlevels: [fine, coarse]\nclasses:\n  coarse: [all]\n"
        "  fine: [{name: person, parent: all}, {name: blender, parent: all}]\n"
        "sources: {coco-stuff: {map: {0: person, 82: blender}, ignore: [255]}}\n"
    )
    root = stuff_set(tmp_path / "raw", np.array([[82, 0, 255]], np.uint8))
    dataset = converted("coco-stuff", root, tmp_path / "out", tmp_path / "mine.yaml")
    assert dataset.labels(only(dataset)).fine.tolist() == [[1, 0, X]]


@pytest.mark.parametrize(("variant", "cure"), [("164k-train-ids", "--variant 164k-train-ids"), ("10k", "--variant 10k")])
def test_files_of_another_variant_only(variant: str, cure: str, tmp_path: Path) -> None:
    root = ten_k(tmp_path) if variant == "10k" else stuff_set(tmp_path, CODED[variant], variant)
    assert cure in complaint("coco-stuff", root)


# -- malformed input ---------------------------------------------------------------------------------------------------


def _coloured(path: Path) -> None:
    Image.fromarray(np.zeros((7, 25, 3), np.uint8)).save(path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other_size(path: Path) -> None:
    ids_png(path, CODED["164k"].T.copy())


def _unknown_id(path: Path) -> None:
    ids_png(path, np.where(CODED["164k"] == 3, 200, CODED["164k"]).astype(np.uint8))


def _unpaired(path: Path) -> None:
    path.rename(path.with_name("000000000140.png"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_coloured, ["RGB"]), (_cut, ["truncated"]), (_empty, ["empty"]), (_other_size, ["7x25", "25x7"]),
        (_unknown_id, ["200 (1 px)"]), (_unpaired, ["000000000140.jpg"]),
    ],
)  # fmt: skip
def test_bad_label_map(spoil: Callable[[Path], None], says: list[str], tmp_path: Path) -> None:
    root = stuff_set(tmp_path, CODED["164k"])
    spoil(root / "annotations" / "val2017" / "000000000139.png")
    said = complaint("coco-stuff", root)
    assert "0000000001" in said
    assert [word for word in says if word not in said] == []


def test_an_unknown_id_may_be_ignored(tmp_path: Path) -> None:
    root = stuff_set(tmp_path / "raw", np.array([[0, 200]], np.uint8))
    dataset = converted("coco-stuff", root, tmp_path / "out", unknown="ignore")
    assert dataset.labels(only(dataset)).fine.tolist() == [[0, X]]


def test_missing_folders_and_photos(tmp_path: Path) -> None:
    assert "annotations/train2017" in complaint("coco-stuff", tmp_path)
    ids_png(tmp_path / "annotations" / "val2017" / "000000000139.png", [[0]])
    assert "--images" in complaint("coco-stuff", tmp_path)
    assert "elsewhere" in complaint("coco-stuff", tmp_path, images=tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"S": np.zeros((7, 25, 3))}, "2-d"), ({"S": np.full((7, 25), 0.5)}, "no ids"), ({"S": -np.ones((7, 25))}, "no ids"),
        ({"S": "text"}, "2-d"), ({"S": np.zeros((0, 0))}, "2-d"), ({"S": np.full((7, 25), np.nan)}, "no ids"),
        ({"S": np.full((7, 25), 183, np.uint8)}, "183 (175 px)"), ({"S": np.ones((25, 7), np.uint8)}, "7x25"),
    ],
)  # fmt: skip
def test_bad_mat_fields(fields: dict[str, Any], says: str, tmp_path: Path) -> None:
    said = complaint("coco-stuff", ten_k(tmp_path, **fields), variant="10k")
    assert ".mat" in said
    assert says in said


def _hdf5(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _without_s(path: Path) -> None:
    mat(path, names="x")


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(("spoil", "says"), [(_hdf5, "7.3"), (_half, "MATLAB"), (_without_s, "'S'"), (_gone, "imageLists")])
def test_bad_mat_file(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    root = ten_k(tmp_path)
    spoil(root / "annotations" / "COCO_train2014_000000000077.mat")
    said = complaint("coco-stuff", root, variant="10k")
    assert "COCO_train2014_000000000077.mat" in said
    assert says in said


# -- genuine files -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_genuine_label_maps_read_array_by_array(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = sample_data("coco_stuff")
    dataset = converted("coco-stuff", root, tmp_path / "out")
    rows = rows_of(dataset)
    assert len(rows) == len(list((root / "val_label").glob("*.png"))) == 8
    for row in rows:
        values = np.asarray(Image.open(root / "val_label" / f"{row.key}.png"))
        labels = dataset.labels(row)
        for value in np.unique(values):
            name, group = CLASSES.get(int(value), (None, None))
            fine = X if name is None else dataset.hierarchy.fine.names.index(name)
            coarse = X if group is None else list(ROWS).index(group)
            assert set(labels.fine[values == value].tolist()) == {fine}
            assert set(labels.coarse[values == value].tolist()) == {coarse}


@pytest.mark.slow
def test_genuine_label_maps_under_the_wrong_variant(sample_data: Callable[[str], Path]) -> None:
    assert "--variant 164k" in complaint("coco-stuff", sample_data("coco_stuff"), variant="10k")
