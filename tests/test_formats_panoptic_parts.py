"""Cityscapes and PASCAL Panoptic Parts: uids decoded as the data sets' own tools do, and files that hold none refused."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from raw_sets import photo
from test_formats import complaint, converted, maps, only

from hiposeg_cli.formats.base import RawItem, RawLabel, Reader, ReaderOptions
from hiposeg_cli.formats.panoptic_parts import CityscapesPanopticParts, PascalPanopticParts
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy

X = 255  # ignore in 8-bit maps
XX = 65535  # and in 16-bit ones
CITY, PASCAL = "cityscapes-panoptic-parts", "pascal-panoptic-parts"
CPP, CPP_GROUPED = "cityscapes-panoptic-parts-37-19-7", "cityscapes-panoptic-parts-23-7"
PPP, PPP_EVALUATED = "pascal-panoptic-parts-277-99", "pascal-panoptic-parts-96-59"
FRAME = "bonn_000001_000019"

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@functools.cache
def preset(name: str) -> Hierarchy:
    return load_hierarchy(name)


def tif(path: Path, uids: Any, **how: Any) -> Path:
    """Write uids as the published files are: one page of 32-bit integers, LZW."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = uids if isinstance(uids, np.ndarray) else np.array(uids, np.int32)
    Image.fromarray(array).save(path, "TIFF", **{"compression": "tiff_lzw", **how})
    return path


def city_set(root: Path, uids: Any, split: str = "train", frame: str = FRAME) -> Path:
    city = frame.split("_")[0]
    path = tif(root / "gtFinePanopticParts" / split / city / f"{frame}_gtFinePanopticParts.tif", uids)
    with Image.open(path) as image:
        photo(root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png", (image.height, image.width))
    return root


def pascal_set(root: Path, uids: Any, folder: str = "training", stem: str = "2008_000001") -> Path:
    path = tif(root / folder / f"{stem}.tif", uids)
    with Image.open(path) as image:
        photo(root / "JPEGImages" / f"{stem}.jpg", (image.height, image.width))
    return root


def label(reader_class: type[Reader], uids: Any, folder: Path, hierarchy: str = "", **options: Any) -> RawLabel:
    """What a reader makes of one picture of uids."""
    tif(folder / "a.tif", uids)
    name = hierarchy or str(reader_class.default_hierarchy)
    reader = reader_class(folder, preset(name), ReaderOptions(**options))
    return reader.paint(RawItem("a", "train", folder / "a.jpg", "a.tif"), (0, 0))


@pytest.fixture(scope="module")
def tools() -> Iterator[SimpleNamespace]:
    """The data sets' own package. It takes Python 3.10 and later for 3.1, and would load torch, which it can do without."""
    if importlib.util.find_spec("panoptic_parts") is None:
        pytest.skip("the package panoptic_parts is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "python_version", lambda: "3.9.0")
        for heavy in ("torch", "tensorflow"):
            patch.setitem(sys.modules, heavy, None)
        names = {"format": "utils.format", "dataset": "specs.dataset_spec", "evaluation": "specs.eval_spec"}
        modules = {key: importlib.import_module(f"panoptic_parts.{name}") for key, name in names.items()}
        folder = Path(str(modules["dataset"].__file__)).parent
        patch.chdir(folder.parents[1])  # evaluation specifications name others relative to it
        specs = {path.stem: path for path in folder.rglob("*.yaml")}
        yield SimpleNamespace(
            decode=modules["format"].decode_uids,
            spec=functools.cache(lambda name: modules["dataset"].DatasetSpec(specs[f"{name}_datasetspec"])),
            evaluation=functools.cache(lambda name: modules["evaluation"].PartPQEvalSpec(specs[f"{name}_evalspec"])),
        )


# == by hand ===========================================================================================================


def test_cityscapes_by_hand(tmp_path: Path) -> None:
    uids = [
        [7, 23, 24, 24000, 2400000, 2400001, 2401004, 26002],  # road, sky, four kinds of person without part, torso ...
        [2600205, 2700003, 2800001, 32, 32001, 33, 29003, 0],
    ]
    dataset = converted(CITY, city_set(tmp_path / "raw", uids), tmp_path / "out")
    names = preset(CPP).fine.names
    torso, leg, chassis, light, window = map(
        names.index, ("person_torso", "person_leg", "car_chassis", "truck_light", "bus_window")
    )
    motorcycle, bicycle = names.index("motorcycle"), names.index("bicycle")
    fine = [[0, 10, X, X, X, torso, leg, X], [chassis, light, window, motorcycle, motorcycle, bicycle, X, X]]
    assert maps(dataset) == (fine, [[0, 10, 11, 11, 11, 11, 11, 13], [13, 14, 15, 17, 17, 18, X, X]])
    row = only(dataset)
    assert row.key == f"bonn/{FRAME}"
    assert (row.coarse_only_px, row.uncovered_px) == (4, 4)
    assert row.n_objects == 7  # persons 0 and 10, cars 1 and 2, truck 0, bus 0, motorcycle 1, caravan 3
    assert row.warnings == []


def test_cityscapes_grouped_parts_are_known_by_category_only(tmp_path: Path) -> None:
    uids = [[2400002, 2500002, 2600001, 2800001, 24, 28000, 33001]]
    dataset = converted(CITY, city_set(tmp_path / "raw", uids), tmp_path / "out", CPP_GROUPED)
    names = preset(CPP_GROUPED).fine.names
    head, windows, bicycle = (names.index(name) for name in ("human_head", "vehicle_windows", "bicycle"))
    assert maps(dataset) == ([[head, head, windows, windows, X, X, bicycle]], [[5, 5, 6, 6, 5, 6, 6]])


def test_cityscapes_fifth_part_of_people_is_no_part_and_is_reported(tmp_path: Path) -> None:
    uids = [[2400005, 2500105, 2500105, 2600005]]
    dataset = converted(CITY, city_set(tmp_path / "raw", uids), tmp_path / "out")
    assert maps(dataset) == ([[X, X, X, preset(CPP).fine.names.index("car_chassis")]], [[11, 12, 12, 13]])
    (said,) = only(dataset).warnings
    assert said.startswith("3 px of part 5 of a person or rider")
    assert only(dataset).uncovered_px == 3


def test_pascal_by_hand(tmp_path: Path) -> None:
    names = preset(PPP).fine.names
    uids = [
        [0, 1, 1001, 1_001_00, 1_001_01, 1_001_15, 1_001_16],  # aeroplane: no part, body, engine_10, wheel_1
        [4, 4001, 20_001_01, 20_001_02, 20001, 6_001_59, 15_002_24],
        [21, 22, 99, 84, 19_001_76, 19_001_07, 2_001_06],
    ]
    dataset = converted(PASCAL, pascal_set(tmp_path / "raw", uids), tmp_path / "out")
    row_1 = [XX, XX, XX, XX, *map(names.index, ("aeroplane_body", "aeroplane_engine", "aeroplane_wheel"))]
    row_2 = [names.index(name) for name in ("boat", "boat", "tvmonitor_screen", "tvmonitor_frame")]
    row_2 += [XX, names.index("bus_window"), names.index("person_rfoot")]
    row_3 = [names.index(name) for name in ("bag", "basket", "wood", "sky")]
    row_3 += [names.index(name) for name in ("train_croofside", "train_headlight", "bicycle_headlight")]
    coarse = [[X, 0, 0, 0, 0, 0, 0], [3, 3, 19, 19, 19, 5, 14], [20, 21, 98, 83, 18, 18, 1]]
    assert maps(dataset) == ([row_1, row_2, row_3], coarse)
    assert (only(dataset).n_objects, only(dataset).uncovered_px) == (7, 4)


def test_pascal_as_evaluated_by_hand(tmp_path: Path) -> None:
    names = preset(PPP_EVALUATED).fine.names
    uids = [[0, 2001, 2_001_03, 14001, 15001, 15_001_14, 15_001_15, 19001, 19_001_20, 22, 21, 7_001_09]]
    dataset = converted(PASCAL, pascal_set(tmp_path / "raw", uids), tmp_path / "out", PPP_EVALUATED)
    fine = [
        "bicycle_body",
        "bicycle_body",
        "motorbike_body",
        None,
        "person_upper_arm",
        "person_lower_arm",
        None,
        "train",
        None,
    ]
    fine += ["bag", "car_plate"]
    assert maps(dataset)[0] == [[X, *(X if name is None else names.index(name) for name in fine)]]
    assert maps(dataset)[1] == [[X, 1, 1, 13, 14, 14, 14, 18, 18, X, 20, 6]]


@pytest.mark.parametrize(("reader_class", "first"), [(CityscapesPanopticParts, 26), (PascalPanopticParts, 6)])
def test_object_numbers_are_scene_class_and_instance(reader_class: type[Reader], first: int, tmp_path: Path) -> None:
    uids = [[first, first * 1000, first * 1000 + 12, (first * 1000 + 12) * 100 + 1]]
    found = label(reader_class, uids, tmp_path, instances=True)
    assert found.instances is not None
    assert found.instances.dtype == np.uint16
    assert found.instances.tolist() == [[0, first * 1000, first * 1000 + 12, first * 1000 + 12]]
    assert label(reader_class, uids, tmp_path).instances is None


def test_object_numbers_that_16_bit_cannot_hold_are_refused(tmp_path: Path) -> None:
    root = pascal_set(tmp_path, [[99001, 4]])
    assert "scene class 99" in complaint(PASCAL, root, instances=True)
    assert label(PascalPanopticParts, [[99001, 4]], tmp_path).ids.tolist() == [[9900, 400]]


# == the tools of the data sets as oracle ==============================================================================


def uids_of_every_length(spec: Any) -> NDArray[np.int32]:
    """Every scene class alone, every thing with an instance, and every part there may be in a file."""
    folded = hasattr(spec, "_sid_pid_file2sid_pid")  # of PASCAL, whose decoder does not take part 0
    part_ids = sorted(spec._sid_pid_file2sid_pid if folded else spec.sid_pid2scene_class_part_class)
    uids = [0]
    for scene, name in list(spec.sid2scene_class.items())[1:]:
        uids += [scene, scene * 1000, scene * 1000 + 7] if name in spec.l_things else [scene]
        if len(spec.scene_class2part_classes[name]) > 1 and not folded:
            uids += [scene * 100_000, scene * 100_000 + 99_900]
    uids += [(part // 100 * 1000 + 23) * 100 + part % 100 for part in part_ids if part >= 100]
    return np.array([uids], np.int32)


@pytest.mark.parametrize(("name", "reader_class"), [("cpp", CityscapesPanopticParts), ("ppp", PascalPanopticParts)])
def test_decoded_as_the_official_decoder_does(
    name: str, reader_class: type[Reader], tools: SimpleNamespace, tmp_path: Path
) -> None:
    spec = tools.spec(name)
    uids = uids_of_every_length(spec)
    assert uids.size > 80
    found = label(reader_class, uids, tmp_path, instances=True)
    _, iids, pids, sids_iids, sids_pids = tools.decode(
        uids, return_sids_iids=True, return_sids_pids=True, experimental_dataset_spec=spec, experimental_correct_range=True
    )
    wanted = np.where(pids > 0, sids_pids, 100 * (sids_pids // np.where(sids_pids > 99, 100, 1)))
    assert found.ids.tolist() == wanted.tolist()
    assert found.instances is not None
    numbers = np.where(iids >= 0, sids_iids, 0)
    assert found.instances.tolist() == numbers.tolist()
    assert found.n_objects == len(set(numbers[numbers > 0].tolist()))


def test_fifth_part_of_people_as_the_official_correction(tools: SimpleNamespace, tmp_path: Path) -> None:
    uids = np.array([[2400105, 2500005, 2600005, 2400104]], np.int32)
    decoded = tools.decode(uids, experimental_dataset_spec=tools.spec("cpp"), experimental_correct_range=True)
    parts = label(CityscapesPanopticParts, uids, tmp_path).ids % 100
    assert parts.tolist() == np.maximum(decoded[2], 0).tolist() == [[0, 0, 5, 4]]


def test_cityscapes_preset_holds_the_specification(tools: SimpleNamespace) -> None:
    spec, hierarchy, plain = tools.spec("cpp"), preset(CPP), preset("cityscapes-19-7")
    table = hierarchy.source(CITY)
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    wanted: dict[int, Any] = {}
    for scene in evaluated:
        name = spec.scene_class_from_sid(scene)
        parts = spec.part_classes_from_sid(scene)[1:]
        wanted[100 * scene] = {"coarse": name} if parts else name
        wanted |= {100 * scene + k: f"{name}_{part.replace(' ', '_')}" for k, part in enumerate(parts, start=1)}
    assert dict(table.map) == wanted
    assert set(table.ignore) == {100 * scene for scene in spec.sid2scene_class if scene not in evaluated}
    assert hierarchy.coarse.names == plain.fine.names
    assert hierarchy.levels[2].names == plain.coarse.names
    parents = [hierarchy.levels[2].find(node.parent or "") for node in hierarchy.coarse.nodes]
    assert parents == plain.parent.tolist()
    partless = [node.name for node in hierarchy.fine.nodes if node.parent == node.name]
    assert (len(partless), hierarchy.n_fine - len(partless)) == (14, 23)
    for name in partless:
        assert hierarchy.fine.nodes[hierarchy.fine.find(name) or 0].color == tuple(spec.scene_class2color[name])


def test_cityscapes_flat_part_names_of_the_evaluation_are_known(tools: SimpleNamespace) -> None:
    names = tools.evaluation("ppq_cpp_19_23_cvpr21_default").eval_pid_flat2scene_part_label
    fine = preset(CPP).fine
    parts = [node.id for node in fine.nodes if node.parent != node.name]
    assert [fine.find(str(names[k]).replace("-", "_")) for k in range(1, 24)] == parts


def test_cityscapes_grouped_preset_holds_the_evaluation(tools: SimpleNamespace) -> None:
    evaluation, hierarchy = tools.evaluation("ppq_cpp_19_23_cvpr21_grouped"), preset(CPP_GROUPED)
    labels = evaluation.eval_pid_flat2scene_part_label
    table = hierarchy.source(CITY).map
    wanted = {int(k): str(labels[v]).replace("-", "_") for k, v in evaluation.eval_sid_pid2eval_pid_flat.items()}
    assert {k: target for k, target in table.items() if int(k) % 100} == wanted
    assert len(set(wanted.values())) == 9
    plain = preset("cityscapes-19-7")
    for scene, name in evaluation.eval_sid2scene_label.items():
        category = plain.fine.nodes[plain.fine.find(name) or 0].parent
        target = table[100 * scene]
        if scene in evaluation.eval_sid_parts:
            assert target == {"coarse": category}
        else:
            assert target == name
            assert hierarchy.fine.nodes[hierarchy.fine.find(name) or 0].parent == category
    parents = {name: hierarchy.fine.nodes[hierarchy.fine.find(name) or 0].parent for name in set(wanted.values())}
    assert parents == {name: name.partition("_")[0] for name in parents}


def test_pascal_preset_holds_the_specification(tools: SimpleNamespace) -> None:
    spec, hierarchy = tools.spec("ppp"), preset(PPP)
    names, targets = [], {}
    for scene, name in list(spec.sid2scene_class.items())[1:]:
        parts = spec.part_classes_from_sid(scene)[1:]
        names += [f"{name}_{part}" for part in parts] or [name]
        targets[100 * scene] = {"coarse": name} if parts else name
        targets |= {100 * scene + k: f"{name}_{part}" for k, part in enumerate(parts, start=1)}
    assert (len(names), len(spec.l_allparts) - 1, len(spec.l) - 1) == (277, 194, 99)
    assert hierarchy.fine.names == names
    assert dict(hierarchy.source(PASCAL).map) == targets
    assert hierarchy.source(PASCAL).ignore == (0,)
    assert hierarchy.coarse.names == spec.l[1:]
    assert [list(node.color) for node in hierarchy.coarse.nodes] == [spec.scene_color_from_sid(k) for k in range(1, 100)]
    assert {node.name for node in hierarchy.coarse.nodes if node.kind == "thing"} == set(spec.l_things)
    raw = preset("pascal-part-raw").fine
    mirrors = {node.name: node.mirror for node in raw.nodes if node.mirror}
    assert {node.name: node.mirror for node in hierarchy.fine.nodes if node.mirror} == mirrors


def test_pascal_evaluated_preset_holds_the_evaluation(tools: SimpleNamespace) -> None:
    evaluation, hierarchy = tools.evaluation("ppq_ppp_59_57_cvpr21_default"), preset(PPP_EVALUATED)
    fine, table = hierarchy.fine, hierarchy.source(PASCAL)
    kept = {k: str(name) for k, name in evaluation.eval_sid2scene_label.items()}
    assert hierarchy.coarse.names == [kept[scene] for scene in sorted(kept)]
    assert {int(k) // 100 for k in table.map} == set(kept)
    assert set(table.ignore) == {100 * scene for scene in range(100) if scene not in kept}
    labels = evaluation.eval_pid_flat2scene_part_label
    for k in range(1, 58):
        voc_object, part = str(labels[k]).split("-")
        spellings = {voc_object} if part == voc_object else {f"{voc_object}_{part}", f"{voc_object}-{part}"}
        assert k - 1 in {fine.find(spelling) for spelling in spellings}, labels[k]
        assert fine.nodes[k - 1].parent == voc_object
    assert fine.names[:57] == preset("pascal-part-58").fine.names[1:]
    flat = evaluation.eval_sid_pid2eval_pid_flat
    for raw_id, target in table.map.items():
        scene, part = divmod(int(raw_id), 100)
        if scene > 20:
            assert target == kept[scene]
            continue
        found = evaluation.dataset_sid_pid2eval_sid_pid.get(int(raw_id) if part else scene, "IGNORED")
        wanted = {"coarse": kept[scene]} if found == "IGNORED" else fine.names[flat[found] - 1]
        assert target == wanted, raw_id
    partful = {k for k in evaluation.dataset_sid_pid2eval_sid_pid if isinstance(k, int) and k >= 100 and k % 100}
    assert {int(k) for k in table.map if int(k) % 100} == partful


# == layouts ===========================================================================================================


def test_cityscapes_splits_and_the_folder_of_the_archive(tmp_path: Path) -> None:
    root = city_set(tmp_path / "raw", [[7, 23]])
    city_set(root, [[8, 23]], "val", "ulm_000000_000000")
    city_set(root, [[8, 23]], "test", "bielefeld_000000_000000")  # there are none, and none would be read
    dataset = converted(CITY, root, tmp_path / "out")
    assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
        "train": [f"bonn/{FRAME}"], "val": ["ulm/ulm_000000_000000"],
    }  # fmt: skip
    (root / "gtFinePanopticParts_trainval").mkdir()
    (root / "gtFinePanopticParts").rename(root / "gtFinePanopticParts_trainval" / "gtFinePanopticParts")
    (root / "leftImg8bit").rename(tmp_path / "photos")
    again = converted(CITY, root, tmp_path / "again", images=tmp_path / "photos")
    assert sorted(again.rows) == ["train", "val"]


@pytest.mark.parametrize("place", ["", "labels", "pascal_panoptic_parts_v2"])
def test_pascal_splits_wherever_the_labels_lie(place: str, tmp_path: Path) -> None:
    root = pascal_set(tmp_path / "raw", [[21, 22]], f"{place}/training".lstrip("/"))
    pascal_set(root, [[21, 22]], f"{place}/validation".lstrip("/"), "2008_000002")
    dataset = converted(PASCAL, root, tmp_path / "out")
    assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
        "train": ["2008_000001"], "val": ["2008_000002"],
    }  # fmt: skip
    (root / "JPEGImages").rename(tmp_path / "photos")
    assert sorted(converted(PASCAL, root, tmp_path / "again", images=tmp_path / "photos").rows) == ["train", "val"]


def test_missing_folders_and_photos(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    assert "gtFinePanopticParts" in complaint(CITY, root)
    assert "training or validation" in complaint(PASCAL, root)
    city_set(root, [[7]])
    (root / "leftImg8bit" / "train" / "bonn" / f"{FRAME}_leftImg8bit.png").unlink()
    assert f"{FRAME}_gtFinePanopticParts.tif" in complaint(CITY, root)
    assert "no such folder" in complaint(CITY, root, images=tmp_path / "nowhere")
    (root / "leftImg8bit" / "train" / "bonn").rmdir()
    (root / "leftImg8bit" / "train").rmdir()
    assert f"{FRAME}_gtFinePanopticParts.tif" in complaint(CITY, root)
    pascal_set(root, [[21]])
    (root / "JPEGImages" / "2008_000001.jpg").unlink()
    assert "2008_000001.tif" in complaint(PASCAL, root)
    (root / "training" / "2008_000001.tif").unlink()
    assert "training,validation" in complaint(PASCAL, root)


# == malformed files ===================================================================================================


@pytest.mark.parametrize(
    ("uids", "says"),
    [
        ([[7, 100]], ["1 px", "100", "digits"]),
        ([[7, 999]], ["999"]),
        ([[7, -1]], ["1 px", "-1"]),
        ([[-24001, -24001]], ["2 px", "-24001"]),
        ([[10_000_000, 7]], ["10000000"]),
        ([[2**31 - 1, 7]], ["2147483647"]),
        (np.array([[4_000_000_000, 7]], np.uint32), ["px hold no uid"]),
        ([[35, 7]], ["3500 (1 px)"]),
        ([[2600106, 2600106]], ["2606 (2 px)"]),
        ([[700101, 7]], ["701 (1 px)"]),
    ],
    ids=["3-digits", "999", "minus-one", "negative", "8-digits", "overflow", "unsigned", "scene", "part", "part-of-road"],
)
def test_numbers_that_are_no_uids(uids: Any, says: list[str], tmp_path: Path) -> None:
    said = complaint(CITY, city_set(tmp_path, uids))
    assert f"{FRAME}_gtFinePanopticParts.tif" in said
    assert [word for word in says if word not in said] == []


@pytest.mark.parametrize("part_id", [26, 99])
def test_pascal_parts_beyond_the_numbered_ones_are_unknown(part_id: int, tmp_path: Path) -> None:
    said = complaint(PASCAL, pascal_set(tmp_path, [[100100 + part_id, 21]]))
    assert f"1{part_id:02d} (1 px)" in said


def _eight_bit(path: Path) -> None:
    tif(path, np.array([[7, 23]], np.uint8))


def _sixteen_bit(path: Path) -> None:
    tif(path, np.array([[7, 24001]], np.uint16))


def _floats(path: Path) -> None:
    tif(path, np.array([[7, 23]], np.float32))


def _colours(path: Path) -> None:
    tif(path, np.zeros((1, 2, 3), np.uint8))


def _pages(path: Path) -> None:
    page = Image.fromarray(np.array([[7, 23]], np.int32))
    page.save(path, "TIFF", save_all=True, append_images=[page])


def _size(path: Path) -> None:
    tif(path, [[7, 23, 23]])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _page_of_the_web(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>log in</body></html>")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    """A header that promises 20000 x 20000 pixels and has no data."""
    fields = [(256, 4, 1, 20000), (257, 4, 1, 20000), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    fields += [(277, 3, 1, 1), (279, 4, 1, 4), (339, 3, 1, 2)]
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + n.to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, n, value in fields
    )
    path.write_bytes(b"II*\0" + (8).to_bytes(4, "little") + len(fields).to_bytes(2, "little") + entries + bytes(4))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_eight_bit, "32-bit"), (_sixteen_bit, "32-bit"), (_floats, "32-bit"), (_colours, "32-bit"), (_pages, "2 pages"),
        (_size, "3x1"), (_empty, "empty"), (_pointer, "LFS"), (_page_of_the_web, "HTML"), (_half, ""),
        (_huge, "100000000"),
    ],
)  # fmt: skip
def test_bad_tiffs(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    root = city_set(tmp_path, [[7, 23]])
    spoil(root / "gtFinePanopticParts" / "train" / "bonn" / f"{FRAME}_gtFinePanopticParts.tif")
    said = complaint(CITY, root)
    assert f"{FRAME}" in said
    assert says in said


@pytest.mark.parametrize("how", [{}, {"compression": None}, {"compression": "tiff_adobe_deflate"}])
def test_every_cut_of_a_tiff_is_refused_or_harmless(how: dict[str, Any], tmp_path: Path) -> None:
    uids = np.arange(600, dtype=np.int32).reshape(20, 30) * 37 % 90
    root = city_set(tmp_path, uids)
    path = root / "gtFinePanopticParts" / "train" / "bonn" / f"{FRAME}_gtFinePanopticParts.tif"
    data = tif(path, uids, **how).read_bytes()
    reader = CityscapesPanopticParts(root, preset(CPP), ReaderOptions(unknown="ignore"))
    (item,) = reader.items()
    whole = reader.paint(item, (20, 30)).ids
    refused = 0
    for length in range(0, len(data), 11):
        path.write_bytes(data[:length])
        said = complaint_of(reader, item)
        refused += said is not None
        if said is None:
            assert np.array_equal(reader.paint(item, (20, 30)).ids, whole)
    assert refused > 0.8 * (len(data) / 11)


def complaint_of(reader: Reader, item: RawItem) -> str | None:
    from hiposeg_cli.errors import DataError

    try:
        reader.paint(item, (20, 30))
    except DataError as error:
        return str(error)
    return None


# == genuine Cityscapes ids ============================================================================================


@pytest.mark.slow
def test_genuine_instance_ids_without_parts_are_the_scene_classes(
    sample_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Published uids without their parts are the instance ids of Cityscapes, so these make a uid file."""
    source = sample_data("cityscapes")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "leftImg8bit").symlink_to(source / "leftImg8bit")
    files = sorted((source / "gtFine" / "train").rglob("*_instanceIds.png"))[:2]
    for path in files:
        with Image.open(path) as image:
            uids = np.asarray(image).astype(np.int32)
        name = path.name.replace("_gtFine_instanceIds.png", "_gtFinePanopticParts.tif")
        tif(tmp_path / "raw" / "gtFinePanopticParts" / "train" / path.parent.name / name, uids)
    dataset = converted(CITY, tmp_path / "raw", tmp_path / "out", instances=True, follow_symlinks=True)
    plain = converted("cityscapes", source, tmp_path / "plain", instances=True)
    wanted = {row.key: row for row in plain.rows["train"]}
    names = np.array([preset(CPP).fine.find(name) or -1 for name in preset("cityscapes-19-7").fine.names])
    names[0] = 0
    divided = [11, 12, 13, 14, 15]
    assert len(dataset.rows["train"]) == len(files)
    for row in dataset.rows["train"]:
        labels, other = dataset.labels(row), plain.labels(wanted[row.key])
        assert np.array_equal(labels.coarse, other.fine)
        without = np.isin(other.fine, [*divided, X])
        assert (labels.fine[without] == X).all()
        assert np.array_equal(labels.fine[~without], names[other.fine[~without]])
        numbers = plain.instances(wanted[row.key])
        assert numbers is not None
        assert np.array_equal(np.asarray(dataset.instances(row)), numbers)
