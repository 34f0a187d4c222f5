"""PACO: the published categories, parts painted on their own objects, and annotations that do not fit together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion import complaint, converted, keys_by_split, only
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from raw_sets import box, photo

from hiposeg_cli.hierarchy_yaml import load_hierarchy

X8, X16 = 255, 65535  # ignore in maps of 8 and 16 bits
SIZE = (6, 8)

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# LVIS ids and names of the 75 objects, then the parts in id order from 2000: each part with its objects. Read off the id
# table of another reader of the same files, which shortens the seven names below; the presets were written from the names.
FULL_NAMES = {
    "car": "car_(automobile)", "drum": "drum_(musical_instrument)", "glass": "glass_(drink_container)",
    "mouse": "mouse_(computer_equipment)", "pan": "pan_(for_cooking)", "slipper": "slipper_(footwear)",
    "tape": "tape_(sticky_cloth_or_paper)",
}  # fmt: skip
OBJECTS = """
23 trash_can 35 handbag 41 ball 61 basket 88 belt 90 bench 94 bicycle 112 blender 127 book 133 bottle 139 bowl 143 box
156 broom 160 bucket 184 calculator 192 can 207 car 220 carton 230 cellular_telephone 232 chair 271 clock 324 crate 344 cup
378 dog 396 drill 399 drum 409 earphone 429 fan 498 glass 521 guitar 530 hammer 544 hat 556 helmet 591 jar 604 kettle
615 knife 621 ladder 626 lamp 631 laptop_computer 687 microwave_oven 694 mirror 705 mouse 708 mug 713 napkin 719 newspaper
751 pan 781 pen 782 pencil 804 pillow 811 pipe 818 plate 821 pliers 881 remote_control 898 plastic_bag 921 scarf
923 scissors 926 screwdriver 948 shoe 973 slipper 979 soap 999 sponge 1000 spoon 1018 stool 1042 sweater 1050 table
1061 tape 1072 telephone 1077 television_set 1093 tissue_paper 1108 towel 1117 tray 1139 vase 1156 wallet 1161 watch
1196 wrench
"""
PARTS = """
antenna: car; apron: chair table; arm: chair bench; back: chair guitar remote_control laptop_computer bench;
back_cover: telephone cellular_telephone; backstay: shoe; bar: belt; barrel: pen;
base: bottle bowl clock drum bucket handbag fan plate television_set basket can mug jar soap cup kettle tray chair pan
blender lamp glass;
base_panel: laptop_computer; basket: bicycle; bezel: telephone cellular_telephone; blade: knife fan blender pliers scissors;
body: plastic_bag bottle guitar bowl drill pencil drum sweater trash_can scarf bucket handbag plate calculator can mouse mug
jar soap towel kettle glass vase dog;
border: towel;
bottom: can bucket handbag mug bottle crate bowl jar pan box plate soap tray glass television_set trash_can carton basket;
bowl: spoon; bracket: fan; bridge: guitar; brush: broom; brush_cap: broom; buckle: belt watch; bulb: lamp; bumper: car;
button: telephone remote_control television_set cellular_telephone;
cable: clock blender lamp laptop_computer earphone kettle; camera: laptop_computer; canopy: fan; cap: pen soap carton bottle;
capsule: soap bottle; case: watch clock; clip: pen; closure: soap bottle; colied_tube: pipe; control_panel: microwave_oven;
cover: bucket jar blender drum basket book; cuff: sweater; cup: blender; decoration: clock; dial: watch microwave_oven;
door_handle: microwave_oven; down_tube: bicycle; drawer: table; drawing: mug; ear: dog; ear_pads: earphone;
embroidery: pillow; end_tip: belt; eraser: pencil; eye: dog; eyelet: shoe; face: hammer; face_shield: helmet; fan_box: fan;
fender: car; ferrule: pencil; finger_hole: scissors; fingerboard: guitar; finial: lamp clock; flap: wallet;
food_cup: blender; foot: dog vase ladder; footrest: stool; fork: bicycle; frame: belt mirror; fringes: scarf; gear: bicycle;
grille: car; grip: hammer pen; hand: watch clock;
handle: plastic_bag bottle drill hammer scissors broom screwdriver bucket handbag wrench pliers basket mug crate jar car soap
cup kettle knife spoon pan blender vase;
handlebar: bicycle; head: dog hammer wrench drum; head_tube: bicycle; headband: earphone; headlight: car; headstock: guitar;
heel: shoe bottle; hem: plastic_bag sweater towel; hole: belt guitar trash_can; hood: car; housing: earphone;
inner_body: can bucket plastic_bag handbag mug bottle wallet bowl jar blender drum glass trash_can cup table kettle;
inner_side: hat crate helmet box microwave_oven pan basket carton tray; inner_wall: plate tray; insole: shoe slipper;
jaw: pliers; joint: pliers; key: calculator guitar; keyboard: laptop_computer; label: soap bottle trash_can; lace: shoe;
lead: pencil; left_button: mouse; leg: table bench chair dog stool; lid: can crate box jar pan carton trash_can kettle;
light: fan; lining: shoe slipper; logo: hat mouse helmet fan car remote_control laptop_computer; loop: belt bucket drum;
lower_bristles: broom; lug: watch drum; mirror: car; motor: fan; mouth: vase; neck: bottle spoon vase soap dog;
neckband: sweater; nose: dog; nozzle: pipe; nozzle_stem: pipe; outer_side: tray; outsole: shoe slipper; page: book;
pedal: bicycle trash_can; pedestal_column: fan; pediment: clock; pickguard: guitar; pipe: lamp; pom_pom: hat; prong: belt;
pull_tab: can; punt: soap bottle; push_pull_cap: soap; quarter: shoe; rail: chair ladder; right_button: mouse;
rim: can bucket hat handbag mug bowl helmet jar pan car plate glass tray drum trash_can cup table basket;
ring: soap broom bottle; rod: fan; roll: tissue_paper tape; roof: car; rough_surface: sponge; runningboard: car;
saddle: bicycle; screen: telephone cellular_telephone laptop_computer; screw: scissors; scroll_wheel: mouse;
seal_ring: blender; seat: chair bench stool car; seat_stay: bicycle; seat_tube: bicycle; shade: lamp; shade_cap: lamp;
shade_inner_side: lamp; shaft: broom; shank: screwdriver; shelf: table; shoulder: sweater soap bottle;
side: crate guitar box microwave_oven pan television_set carton basket; side_button: mouse; sign: car; sipper: soap bottle;
skirt: chair; sleeve: sweater; slider: earphone; spindle: chair; splashboard: car; spout: blender soap kettle bottle;
steeringwheel: car; stem: bicycle; step: stool ladder; sticker: jar; stile: chair; strap: hat watch helmet slipper belt;
stretcher: chair table bench; string: guitar fan; switch: blender lamp kettle; swivel: chair; table_top: bench; tail: dog;
taillight: car; tank: car; tapering_top: carton; teeth: dog; terry_bar: towel;
text: can plastic_bag mug newspaper jar carton; throat: shoe; time_display: microwave_oven; tip: spoon pen screwdriver;
toe_box: shoe slipper; tongue: shoe; top: bottle microwave_oven soap television_set table carton; top_cap: ladder;
top_tube: bicycle; touchpad: laptop_computer; trunk: car; turnsignal: car; turntable: microwave_oven; vamp: shoe slipper;
vapour_cover: blender; visor: hat helmet; welt: shoe; wheel: chair car trash_can table bicycle; window: watch car;
windowpane: car; windshield: car; wiper: car; wire: mouse; yoke: sweater; zip: handbag
"""


def full(name: str) -> str:
    return FULL_NAMES.get(name, name)


def published_categories() -> dict[int, str]:
    """Category id -> name."""
    words = OBJECTS.split()
    objects = {int(number): full(name) for number, name in zip(words[::2], words[1::2], strict=True)}
    rows = (row.split(":") for row in PARTS.split(";"))
    parts = [f"{full(name)}:{part.strip()}" for part, names in rows for name in names.split()]
    return objects | dict(enumerate(parts, start=2000))


CATEGORIES = published_categories()
ID = {name: number for number, name in CATEGORIES.items()}


# -- the preset --------------------------------------------------------------------------------------------------------


def test_the_table_typed_here_has_the_published_counts_and_ends() -> None:
    assert (len(CATEGORIES), len(ID)) == (531, 531)
    assert sum(":" in name for name in ID) == 456
    assert len({name.split(":")[1] for name in ID if ":" in name}) == 200
    assert [CATEGORIES[number] for number in (2046, 2170, 2255, 2318, 2409, 2455)] == [
        "plastic_bag:body", "plastic_bag:handle", "chair:leg", "mug:rim", "dog:teeth", "handbag:zip"
    ]  # fmt: skip


def test_preset_names_and_objects_are_the_published_ones() -> None:
    hierarchy = load_hierarchy("paco-458-75")
    objects = [name for name in CATEGORIES.values() if ":" not in name]
    parts = [name for name in CATEGORIES.values() if ":" in name]
    assert hierarchy.coarse.names == objects
    assert hierarchy.fine.names == [*parts, "ball", "napkin"]
    assert [node.parent for node in hierarchy.fine.nodes] == [name.split(":")[0] for name in hierarchy.fine.names]
    table = hierarchy.source("paco")
    assert list(table.map) == list(CATEGORIES.values())
    known_as_a_whole = {"ball": "ball", "napkin": "napkin"}
    assert {name: table.map[name] for name in objects} == {n: {"coarse": n} for n in objects} | known_as_a_whole
    assert all(table.map[name] == name for name in parts)
    assert table.unlabelled == "ignore"
    assert hierarchy.background is None


def test_a_flip_swaps_the_buttons_of_a_mouse() -> None:
    fine = load_hierarchy("paco-458-75").fine
    left, right = (ID[f"mouse_(computer_equipment):{side}_button"] - 2000 for side in ("left", "right"))
    swap = fine.mirror_ids()
    assert (swap[left], swap[right]) == (right, left)
    assert (swap != np.arange(458)).sum() == 2


# -- fixtures ----------------------------------------------------------------------------------------------------------


def encoded(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask as the compressed RLE the annotation files hold."""
    found = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def annotation(number: int, name: str, mask: Any, owner: Any = None, **fields: Any) -> dict[str, Any]:
    """An object, or a part of the object `owner`."""
    segmentation = encoded(mask) if isinstance(mask, np.ndarray) else mask
    owner = number if owner is None else owner
    entry = {"id": number, "image_id": 1, "category_id": ID[name], "segmentation": segmentation, "obj_ann_id": owner}
    return entry | fields


def paco_json(annotations: list[dict[str, Any]], images: tuple[str, ...], shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "images": [
            {"id": number, "file_name": name, "height": shape[0], "width": shape[1], "neg_category_ids": [23],
             "not_exhaustive_category_ids": [94]}
            for number, name in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": "PART" if ":" in name else "OBJECT"}
            for number, name in CATEGORIES.items()
        ],
        "part_categories": [{"supercategory": "PART", "id": 0, "name": "antenna"}],
        "attributes": [], "attr_type_to_attr_idxs": {"color": [0]},
    }  # fmt: skip


def paco_set(
    root: Path, annotations: list[dict[str, Any]], images: tuple[str, ...] = ("train2017/000000000009.jpg",),
    shape: tuple[int, int] = SIZE, split: str = "train",
) -> Path:  # fmt: skip
    """annotations/paco_lvis_v1_SPLIT.json with COCO's folders of photos."""
    for number, name in enumerate(images):
        photo(root / name, shape, seed=number)
    path = root / "annotations" / f"paco_lvis_v1_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(paco_json(annotations, images, shape)))
    return root


def area(top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
    return box(SIZE, top, left, bottom, right)


def fine_of(name: str) -> int:
    return 456 + ("ball", "napkin").index(name) if name in ("ball", "napkin") else ID[name] - 2000


def coarse_of(name: str) -> int:
    return [other for other in CATEGORIES.values() if ":" not in other].index(name)


# -- conversion --------------------------------------------------------------------------------------------------------


def test_parts_on_their_objects_and_the_smaller_object_on_top(tmp_path: Path) -> None:
    """One row worked out by hand: a bicycle with two parts, a mug over it, a ball."""
    shape = (1, 8)
    strip = lambda left, right: box(shape, 0, left, 1, right)  # noqa: E731
    annotations = [
        annotation(11, "mug:handle", strip(3, 4), owner=10),
        annotation(10, "mug", strip(3, 5)),
        annotation(1, "bicycle", strip(0, 6)),
        annotation(2, "bicycle:wheel", strip(0, 4), owner=1),
        annotation(3, "bicycle:pedal", strip(1, 2), owner=1),
        annotation(20, "ball", strip(6, 7)),
    ]
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations, shape=shape), tmp_path / "out", instances=True)
    row = only(dataset)
    labels, numbers = dataset.labels(row), dataset.instances(row)
    wheel, pedal, handle, ball = map(fine_of, ("bicycle:wheel", "bicycle:pedal", "mug:handle", "ball"))
    assert labels.fine.dtype == np.uint16
    assert labels.fine.tolist() == [[wheel, pedal, wheel, handle, X16, X16, ball, X16]]
    bicycle, mug, a_ball = map(coarse_of, ("bicycle", "mug", "ball"))
    assert labels.coarse.tolist() == [[bicycle, bicycle, bicycle, mug, mug, bicycle, a_ball, X8]]
    assert numbers is not None
    assert numbers.tolist() == [[1, 1, 1, 2, 2, 1, 3, 0]]
    assert (row.n_objects, row.overlap_px, row.part_overlap_px) == (3, 2, 1)
    assert (row.uncovered_px, row.coarse_only_px, row.ignore_px) == (3, 2, 1)
    assert list(row.warnings) == []


def test_a_part_reaching_outside_its_object_is_cut_off(tmp_path: Path) -> None:
    annotations = [annotation(1, "dog", area(0, 0, 2, 2)), annotation(2, "dog:tail", area(0, 1, 1, 5), owner=1)]
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations), tmp_path / "out")
    labels = dataset.labels(only(dataset))
    assert labels.fine[0].tolist() == [X16, fine_of("dog:tail"), *[X16] * 6]
    assert labels.coarse[0].tolist() == [coarse_of("dog")] * 2 + [X8] * 6
    assert list(only(dataset).warnings) == ["3 px of parts lie outside their objects; cut off"]


def test_a_part_does_not_show_through_another_object_of_its_class(tmp_path: Path) -> None:
    annotations = [
        annotation(1, "chair", area(0, 0, 4, 4)), annotation(2, "chair:leg", area(0, 0, 4, 4), owner=1),
        annotation(3, "chair", area(0, 0, 2, 2)),
    ]  # fmt: skip
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations), tmp_path / "out")
    leg = fine_of("chair:leg")
    assert dataset.labels(only(dataset)).fine[:3, :4].tolist() == [[X16, X16, leg, leg], [X16, X16, leg, leg], [leg] * 4]
    assert only(dataset).overlap_px == 0  # both are chairs


def test_of_equal_areas_the_larger_id_is_on_top(tmp_path: Path) -> None:
    left, right, middle = area(0, 0, 1, 4), area(0, 2, 1, 6), area(0, 1, 1, 5)
    annotations = [
        annotation(8, "dog", right), annotation(7, "mug", left), annotation(31, "dog:tail", middle, owner=8),
        annotation(30, "dog:head", right, owner=8),
    ]  # fmt: skip
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations), tmp_path / "out")
    labels = dataset.labels(only(dataset))
    mug, dog, tail, head = coarse_of("mug"), coarse_of("dog"), fine_of("dog:tail"), fine_of("dog:head")
    assert labels.coarse[0, :6].tolist() == [mug, mug, dog, dog, dog, dog]
    assert labels.fine[0, :6].tolist() == [X16, X16, tail, tail, tail, head]


NAMES = ["mug", "dog", "bicycle", "ball"]
PART_NAMES = {"mug": ["handle", "rim", "body"], "dog": ["head", "tail", "leg"], "bicycle": ["wheel", "pedal"], "ball": []}


def scribble(rng: np.random.Generator) -> NDArray[np.uint8]:
    mask = np.zeros((20, 24), np.uint8)
    for _ in range(rng.integers(1, 4)):
        top, left = rng.integers(0, 18), rng.integers(0, 20)
        mask[top : top + rng.integers(1, 12), left : left + rng.integers(1, 14)] = 1
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_against_a_search_pixel_by_pixel(seed: int, tmp_path: Path) -> None:
    """For each pixel: its smallest object, then that object's smallest part; ties go to the larger id."""
    rng = np.random.default_rng(seed)
    objects, parts, annotations = [], [], []
    for number in rng.permutation(50)[:5].tolist():
        name, mask = NAMES[rng.integers(4)], scribble(rng)
        objects.append((int(mask.sum()), -number, number, name, mask))
        annotations.append(annotation(number, name, mask))
        for place, part in enumerate(PART_NAMES[name]):
            part_number, claim = 100 * (number + 1) + place, scribble(rng)
            parts.append((int(claim.sum()), -part_number, number, f"{name}:{part}", claim))
            annotations.append(annotation(part_number, f"{name}:{part}", claim, owner=number))
    rng.shuffle(annotations)  # type: ignore[arg-type]
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations, shape=(20, 24)), tmp_path / "out")
    labels = dataset.labels(only(dataset))
    for y in range(20):
        for x in range(24):
            here = sorted((entry for entry in objects if entry[4][y, x]), key=lambda entry: entry[:2])
            if not here:
                assert (labels.fine[y, x], labels.coarse[y, x]) == (X16, X8)
                continue
            _, _, number, name, _ = here[0]
            claims = sorted((e for e in parts if e[2] == number and e[4][y, x]), key=lambda entry: entry[:2])
            whole = fine_of("ball") if name == "ball" else X16
            assert labels.fine[y, x] == (fine_of(claims[0][3]) if claims else whole)
            assert labels.coarse[y, x] == coarse_of(name)


def test_splits_and_photos_of_both_coco_folders(tmp_path: Path) -> None:
    """The test split takes photos from train2017 and val2017; the JSON may lie apart from them."""
    dog = [annotation(1, "dog", area(0, 0, 2, 2))]
    root = paco_set(tmp_path / "raw", dog)
    paco_set(root, dog, ("val2017/000000000139.jpg", "train2017/000000000025.jpg"), split="test")
    dataset = converted("paco", root, tmp_path / "out")
    assert keys_by_split(dataset) == {
        "train": ["train2017/000000000009"], "test": ["train2017/000000000025", "val2017/000000000139"]
    }  # fmt: skip
    (root / "annotations").rename(tmp_path / "paco")
    apart = converted("paco", tmp_path / "paco", tmp_path / "apart", images=root)
    assert keys_by_split(apart) == keys_by_split(dataset)
    (tmp_path / "paco" / "paco_lvis_v1_train.json").unlink()
    assert list(keys_by_split(converted("paco", tmp_path / "paco", tmp_path / "one", images=root))) == ["test"]


def test_an_image_without_annotations_is_kept(tmp_path: Path) -> None:
    dataset = converted("paco", paco_set(tmp_path / "raw", []), tmp_path / "out")
    assert (dataset.labels(only(dataset)).coarse == X8).all()


def test_a_hierarchy_without_a_table_for_the_format_is_matched_by_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "schema: hiposeg/hierarchy@1\nname: mine\nlevels: [fine, coarse]\nclasses:\n"
        "  coarse: [{name: background, kind: background}, dog]\n"
        '  fine: [{name: background, parent: background, kind: background}, {name: "dog:tail", parent: dog}]\n'
    )
    annotations = [
        annotation(1, "dog", area(0, 0, 1, 3)), annotation(2, "dog:tail", area(0, 0, 1, 1), owner=1),
        annotation(3, "dog:eye", area(0, 1, 1, 2), owner=1),
    ]  # fmt: skip
    root = paco_set(tmp_path / "raw", annotations)
    assert "trash_can" in complaint("paco", root, tmp_path / "mine.yaml")
    dataset = converted("paco", root, tmp_path / "out", tmp_path / "mine.yaml", unknown="ignore")
    labels = dataset.labels(only(dataset))
    assert labels.fine[0, :4].tolist() == [1, X8, X8, 0]
    assert labels.coarse[0, :4].tolist() == [1, X8, 1, 0]
    ignored = converted("paco", root, tmp_path / "two", tmp_path / "mine.yaml", unknown="ignore", unlabelled="ignore")
    assert ignored.labels(only(ignored)).fine[0, :4].tolist() == [1, X8, X8, X8]


def test_there_is_no_background_to_make_unlabelled_pixels(tmp_path: Path) -> None:
    assert "background" in complaint("paco", paco_set(tmp_path, []), unlabelled="background")


# -- malformed input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [99, "1", None, [1], 3.5])
def test_a_part_whose_object_is_not_there_is_left_out(owner: Any, tmp_path: Path) -> None:
    annotations = [annotation(1, "dog", area(0, 0, 2, 2)), annotation(2, "dog:tail", area(0, 0, 1, 1), obj_ann_id=owner)]
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations), tmp_path / "out")
    assert (dataset.labels(only(dataset)).fine == X16).all()
    (said,) = only(dataset).warnings
    assert "annotation 2 (dog:tail)" in said
    assert repr(owner) in said


def test_a_part_of_another_kind_of_object_is_left_out(tmp_path: Path) -> None:
    annotations = [annotation(1, "dog", area(0, 0, 2, 2)), annotation(2, "mug:handle", area(0, 0, 1, 1), owner=1)]
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations), tmp_path / "out")
    assert (dataset.labels(only(dataset)).fine == X16).all()
    (said,) = only(dataset).warnings
    assert "mug:handle" in said
    assert "is a dog" in said


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [8, 6], "counts": "0"}, "size"), ({"size": [6, 8], "counts": [1, 2]}, "sum"), (None, "no segmentation"),
        ([], "no segmentation"), ({"size": [6, 8], "counts": [-1, 49]}, "whole numbers"),
        ({"size": [6, 8], "counts": "\u00e9"}, "broken"), ([[0, 0, 3, 3]], "polygon"),
    ],
)  # fmt: skip
def test_a_broken_object_takes_its_parts_with_it_and_no_other(segmentation: Any, says: str, tmp_path: Path) -> None:
    annotations = [
        annotation(1, "dog", segmentation), annotation(2, "dog:tail", area(0, 0, 1, 1), owner=1),
        annotation(3, "ball", area(5, 0, 6, 1)),
    ]  # fmt: skip
    dataset = converted("paco", paco_set(tmp_path / "raw", annotations), tmp_path / "out")
    labels = dataset.labels(only(dataset))
    assert np.argwhere(labels.coarse != X8).tolist() == [[5, 0]]
    first, second = only(dataset).warnings
    assert "annotation 1" in first
    assert says in first
    assert "annotation 2 (dog:tail)" in second


def _trailing_comma(text: str) -> str:
    return text.replace('"attributes"', ',"attributes"')


def _twice(text: str) -> str:
    return text.replace('"id": 2, "image_id"', '"id": 1, "image_id"')


def _dangling(text: str) -> str:
    return text.replace(f'"category_id": {ID["dog:tail"]}', '"category_id": 3000')


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _list(text: str) -> str:
    return f"[{text}]"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_trailing_comma, ":1:"), (_twice, "1 twice"), (_dangling, "3000"), (_cut, "broken"), (_list, "top level")],
)
def test_bad_json(spoil: Callable[[str], str], says: str, tmp_path: Path) -> None:
    root = paco_set(tmp_path, [annotation(1, "dog", area(0, 0, 2, 2)), annotation(2, "dog:tail", area(0, 0, 1, 1), owner=1)])
    path = root / "annotations" / "paco_lvis_v1_train.json"
    path.write_text(spoil(path.read_text()))
    said = complaint("paco", root)
    assert path.name in said
    assert says in said


def test_missing_files_and_photos_of_another_size(tmp_path: Path) -> None:
    assert "paco_lvis_v1_" in complaint("paco", tmp_path)
    root = paco_set(tmp_path, [annotation(1, "dog", area(0, 0, 2, 2))])
    assert "elsewhere" in complaint("paco", root, images=tmp_path / "elsewhere")
    Image.new("RGB", (9, 9)).save(root / "train2017" / "000000000009.jpg")
    assert "9x9" in complaint("paco", root)
    (root / "train2017" / "000000000009.jpg").unlink()
    assert "000000000009.jpg" in complaint("paco", root)
