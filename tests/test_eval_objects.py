"""`eval --panoptic`: PQ on every level and PartPQ, from COCO panoptic predictions or object numbers beside label maps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import data_of, refused, run
from eval_sets import CITYSCAPES, IDS, draw_cityscapes, save, save_all
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.hierarchy import preset_dir
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.metrics.objects import has_parts, things

LabelIds = NDArray[np.uint8]


def numbers_of(raw: Path, key: str, split: str = "val") -> NDArray[np.uint16]:
    return np.array(Image.open(raw / "gtFine" / split / f"{key}_gtFine_instanceIds.png")).astype(np.uint16)


def write_panoptic(path: Path, maps: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Path:
    """X.json and X/: each (class ids, object numbers) as segments, one for each pair; class 0 is void."""
    annotations = []
    for key, (classes, numbers) in maps.items():
        segments = np.where(classes > 0, numbers.astype(np.int64) * 256 + classes, 0)
        found = [number for number in np.unique(segments).tolist() if number]
        rgb = np.stack([segments & 255, segments >> 8 & 255, segments >> 16], axis=-1).astype(np.uint8)
        save(path.with_suffix("") / f"{key}.png", rgb)
        info = [
            {"id": n, "category_id": n & 255, "iscrowd": 0, "area": int((segments == n).sum()), "bbox": [0, 0, 1, 1]}
            for n in found
        ]
        annotations.append({"image_id": Path(key).name, "file_name": f"{key}.png", "segments_info": info})
    path.write_text(json.dumps({"annotations": annotations}))
    return path


def moved(rng: np.random.Generator, ids: LabelIds, numbers: NDArray[np.uint16]) -> tuple[LabelIds, NDArray[np.uint16]]:
    """What a network might say: borders moved, some pixels void, classes that are not evaluated void."""
    ids, numbers = np.roll(ids, 1, axis=1), np.roll(numbers, 1, axis=1)
    void = (rng.random(ids.shape) < 0.05) | ~np.isin(ids, list(IDS.values()))
    return np.where(void, 0, ids).astype(np.uint8), np.where(void, 0, numbers % 1000 * (numbers >= 1000)).astype(np.uint16)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn frames in `raw` and, prepared with their objects, in `data`; predictions in pred.json, pred/ and maps/."""
    root, rng = tmp_path_factory.mktemp("objects"), np.random.default_rng(7)
    said = {key: moved(rng, ids, numbers_of(root / "raw", key)) for key, ids in draw_cityscapes(root / "raw", 4).items()}
    assert run("prepare", "cityscapes", root / "raw", root / "data", "--instances", "--workers", 1).exit_code == 0
    write_panoptic(root / "pred.json", said)
    class_of = np.full(256, 255, np.uint8)
    class_of[list(IDS.values())] = [class_id for class_id in IDS if class_id is not None]
    save_all(root / "maps" / "fine", {key: class_of[ids] for key, (ids, _) in said.items()})
    save_all(root / "maps" / "inst", {key: ids.astype(np.uint16) * 100 + numbers for key, (ids, numbers) in said.items()})
    return root


def quality(*arguments: object) -> dict[str, Any]:
    data = data_of(run("eval", *arguments, "--panoptic", "--bootstrap", 0, "--json"))
    return {key: data[key] for key in ("pq", "part_pq") if key in data}


def test_every_form_gives_the_same(city: Path) -> None:
    first = quality(city / "pred.json", city / "data", "--pred-ids", "cityscapes")
    assert 0 < first["pq"]["fine"]["pq"] < 1
    assert first["pq"]["coarse"]["things"]["classes"] == 2
    assert "part_pq" not in first, "no class of Cityscapes has parts"
    assert quality(city / "maps", city / "data") == first
    assert quality(city / "maps", city / "data", "--workers", 1) == first
    assert quality(city / "pred.json", city / "raw", "--format", "cityscapes", "--pred-ids", "cityscapes") == first


def test_category_ids_are_class_ids_plus_one_unless_said_otherwise(city: Path, tmp_path: Path) -> None:
    """The truth, exported, is its own perfect prediction; groups have no number and are nobody's."""
    result = run("export", city / "data", tmp_path / "out", "--as", "coco-panoptic")
    assert result.exit_code == 0, result.output
    found = quality(tmp_path / "out" / "annotations" / "panoptic_val.json", city / "data")
    for level in ("fine", "coarse"):
        assert [found["pq"][level]["all"][key] for key in ("pq", "sq", "rq")] == [1, 1, 1]


@pytest.mark.parametrize("genuine", [False, True])
def test_equal_to_cityscapes_scripts(
    genuine: bool, tmp_path: Path, sample_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and qualities of every class, from the same files, through both command lines."""
    preparation = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs", reason="extra parity")
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPanopticSemanticLabeling", reason="extra parity")
    split = "train" if genuine else "val"
    raw = sample_data("cityscapes") if genuine else tmp_path / "raw"
    if not genuine:
        draw_cityscapes(raw, 4)
    rng, truth = np.random.default_rng(3), tmp_path / "truth"
    truth.mkdir()
    preparation.convert2panoptic(str(raw / "gtFine"), str(truth), False, [split])
    paths = sorted((raw / "gtFine" / split).rglob("*_labelIds.png"))[: 2 if genuine else None]
    said = {}
    for path in paths:
        key = f"{path.parent.name}/{path.name.removesuffix('_gtFine_labelIds.png')}"
        shift = 9 if genuine else 1
        ids, numbers = np.array(Image.open(path)), numbers_of(raw, key, split)
        said[key] = moved(rng, np.roll(ids, shift, axis=1), np.roll(numbers, shift, axis=1))
    predictions = write_panoptic(tmp_path / "pred.json", said)

    listed = json.loads((truth / f"cityscapes_panoptic_{split}.json").read_text())
    wanted = {Path(key).name for key in said}
    listed["annotations"] = [entry for entry in listed["annotations"] if entry["image_id"] in wanted]
    (tmp_path / "listed.json").write_text(json.dumps(listed))
    monkeypatch.setattr(official, "pq_compute_multi_core", lambda *given: official.pq_compute_single_core(0, *given))
    theirs = official.evaluatePanoptic(
        str(tmp_path / "listed.json"), str(truth / f"cityscapes_panoptic_{split}"), str(predictions),
        str(tmp_path / "pred"), str(tmp_path / "results.json"),
    )  # fmt: skip
    found = quality(
        predictions, raw, "--format", "cityscapes", "--pred-ids", "cityscapes", "--split", split
    )["pq"]["fine"]  # fmt: skip
    for entry in found["classes"]:
        other = theirs["per_class"][IDS[CITYSCAPES.fine.find(entry["name"])]]
        assert [entry[key] or 0 for key in ("pq", "sq", "rq")] == pytest.approx(
            [other[key] for key in ("pq", "sq", "rq")], rel=1e-14
        )
    for name in ("All", "Things", "Stuff"):
        ours = found[name.lower()]
        assert ours["classes"] == theirs[name]["n"] > 0
        assert [ours[key] for key in ("pq", "sq", "rq")] == pytest.approx([theirs[name][k] for k in ("pq", "sq", "rq")])


def test_categories_are_read_by_name(city: Path, tmp_path: Path) -> None:
    """In any order, with any ids; those of another level are refused instead of being taken for the finest."""
    first = quality(city / "pred.json", city / "data", "--pred-ids", "cityscapes")
    content = json.loads((city / "pred.json").read_text())
    names = {label_id: CITYSCAPES.fine.names[k] for k, label_id in IDS.items() if k is not None}
    content["categories"] = [{"id": label_id, "name": name} for label_id, name in reversed(names.items())]
    (tmp_path / "pred").symlink_to(city / "pred")
    path = tmp_path / "pred.json"
    path.write_text(json.dumps(content))
    assert quality(path, city / "data") == first
    content["categories"][0]["name"] = "vehicle"
    path.write_text(json.dumps(content))
    refused(run("eval", path, city / "data"), "pred.json", "is 'vehicle', no class of the level fine")
    content["categories"][0] = {"id": 65535, "name": "road"}
    path.write_text(json.dumps(content))
    refused(run("eval", path, city / "data"), "category id 65535 is not 0..65534")
    content["categories"] = [3]
    path.write_text(json.dumps(content))
    refused(run("eval", path, city / "data"), "a category without id and name")


def test_official_names_of_coco_panoptic(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The genuine truth is its own prediction against prepared data: `categories` hold raw names, and ids with gaps."""
    raw, data = sample_data("coco_panoptic"), tmp_path / "data"
    result = run("prepare", "coco-panoptic", raw, data, "--instances")
    assert result.exit_code == 0, result.output
    found = quality(raw / "annotations" / "panoptic_train2017.json", data, "--split", "train")
    assert [found["pq"][level]["all"]["pq"] for level in ("fine", "coarse")] == [1, 1]
    path = raw / "annotations" / "panoptic_train2017.json"
    told = run("eval", path, data, "--split", "train", "--pred-ids", "coco-panoptic")
    refused(told, "--pred-ids coco-panoptic", "by names, not by ids")


def test_things_without_numbers_are_said(city: Path, tmp_path: Path) -> None:
    (tmp_path / "fine").symlink_to(city / "maps" / "fine")
    for path in (city / "maps" / "inst").rglob("*.png"):
        save(tmp_path / "inst" / path.relative_to(city / "maps" / "inst"), np.zeros((32, 40), np.uint8))
    result = run("eval", tmp_path, city / "data", "--panoptic")
    assert result.exit_code == 0, result.output
    assert "4 of 4 images have predicted things without an object number" in result.stderr


def test_parts_of_objects(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Genuine PASCAL-Part annotations predict themselves; with all objects of an image as one they do not."""
    raw, data = sample_data("pascal_part"), tmp_path / "data"
    options = ("--instances", "--workers", 1, "--hierarchy", "pascal-part-58", "--val", 0)
    result = run("prepare", "pascal-part", raw, data, *options)
    assert result.exit_code == 0, result.output
    dataset_labels, said = data / "labels", tmp_path / "said"
    split = next(path.name for path in (dataset_labels / "fine").iterdir())
    for level in ("fine", "coarse", "inst"):
        for path in (dataset_labels / level / split).rglob("*.png"):
            save(said / level / path.relative_to(dataset_labels / level / split), np.array(Image.open(path)))
    whole = quality(said, data, "--split", split)
    parts = whole["part_pq"]["coarse"]
    assert parts["with_parts"]["classes"] > 1
    assert (parts["part_pq"], parts["with_parts"]["pq"], parts["without_parts"]["pq"]) == (1, 1, 1)
    assert whole["pq"]["coarse"]["pq"] == 1
    for path in (said / "inst").rglob("*.png"):
        save(path, np.minimum(np.array(Image.open(path)), 1).astype(np.uint16))  # all objects are one
    merged = quality(said, data, "--split", split)
    assert merged["part_pq"]["coarse"]["part_pq"] < 1
    assert merged["pq"]["coarse"]["all"]["rq"] < 1


def test_lines_gates_csv_and_page(city: Path, tmp_path: Path) -> None:
    given = ("eval", city / "maps", city / "data", "--panoptic", "--bootstrap", 0)
    result = run(
        *given, "--per-class", "--fail-under", "fine.pq=0.99", "--csv", tmp_path / "c.csv", "--html", tmp_path / "page.html"
    )
    assert result.exit_code == 1
    assert "--fail-under: fine.pq is 0." in result.stderr
    assert "PQ fine " in result.stdout
    assert re.search(r"precision +PQ +SQ +RQ +true pixels", result.stdout)
    assert "PQ coarse " in result.stdout
    head, *lines = (tmp_path / "c.csv").read_text().splitlines()
    assert head.endswith(",pq,sq,rq")
    assert any(line.split(",")[-3] for line in lines)
    assert ">PQ</" in (tmp_path / "page.html").read_text()
    refused(run(*given, "--fail-under", "fine.pqq=0.5"), "fine.pqq", "fine.pq")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({}, ("has no list annotations",)),
        ({"annotations": [3]}, ("annotation without file_name",)),
        ({"annotations": [{"file_name": "a.png"}]}, ("has no list segments_info",)),
        ({"annotations": [{"file_name": "a.png", "segments_info": []}] * 2}, ("two annotations of a.png",)),
        ({"annotations": [{"file_name": "a.png", "segments_info": [{"id": 0, "category_id": 1}]}]}, ("a segment of id 0",)),
        ({"annotations": [{"file_name": "a.png", "segments_info": [{"id": 1}]}]}, ("unknown category_id None",)),
        (
            {"annotations": [{"file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1 << 40}]}]},
            ("unknown category_id 1099511627776",),
        ),
    ],
)
def test_broken_json(city: Path, tmp_path: Path, file: object, words: tuple[str, ...]) -> None:
    path = write_panoptic(tmp_path / "p.json", {key: (np.zeros((4, 4), int),) * 2 for key in ["ulm/ulm_000000_000019"]})
    path.write_text(json.dumps(file))
    refused(run("eval", path, city / "data", "--panoptic"), "p.json", *words)


def test_a_taxonomy_without_things_is_refused(city: Path, tmp_path: Path) -> None:
    """Its objects would all be stuff, whatever their numbers."""
    hierarchy = tmp_path / "plain.yaml"
    text = (preset_dir() / "cityscapes-19-7.yaml").read_text()
    hierarchy.write_text(re.sub(r", kind: \w+", "", text))
    given = ("--format", "cityscapes", "--hierarchy", hierarchy, "--pred-ids", "cityscapes", "--panoptic")
    refused(run("eval", city / "pred.json", city / "raw", *given), "--panoptic", "no class", "kind: thing")


def test_what_has_no_objects_is_refused(city: Path, tmp_path: Path) -> None:
    data, maps = city / "data", city / "maps"
    refused(run("eval", tmp_path / "no.json", data, "--panoptic"), "no.json", "no such file")
    (tmp_path / "alone.json").write_text('{"annotations": []}')
    refused(run("eval", tmp_path / "alone.json", data, "--panoptic"), "alone.json", "folder of its id PNGs, alone/")
    masks = run("eval", maps, city / "raw", "--format", "masks", "--hierarchy", "cityscapes-19-7", "--panoptic")
    refused(masks, "--panoptic", "the format 'masks' has none")
    refused(run("eval", maps / "fine", data, "--panoptic"), "object numbers have no place")
    refused(run("eval", maps, data, "--panoptic", "--decode", "sum"), "--decode", "needs a network")
    assert run("prepare", "cityscapes", city / "raw", tmp_path / "plain", "--workers", 1).exit_code == 0
    refused(run("eval", maps, tmp_path / "plain", "--panoptic"), "keeps none", "--instances")
    refused(run("eval", maps, data, "--panoptic", "--against", tmp_path / "best.onnx"), "best.onnx is a network")
    save_all(tmp_path / "bare" / "fine", {"ulm/ulm_000000_000019": np.zeros((32, 40), np.uint8)})
    refused(run("eval", tmp_path / "bare", data, "--panoptic"), "has no folder inst")


def test_single_images_without_objects_are_named_and_the_rest_is_scored(city: Path, tmp_path: Path) -> None:
    keys = sorted(path.relative_to(city / "maps" / "fine").with_suffix("").as_posix() for path in
                  (city / "maps" / "fine").rglob("*.png"))  # fmt: skip
    for level in ("fine", "inst"):
        maps = {key: np.array(Image.open(city / "maps" / level / f"{key}.png")) for key in keys}
        if level == "inst":
            del maps[keys[0]]
            maps[keys[1]] = maps[keys[1]][:-1]
        save_all(tmp_path / level, maps)
    result = run("eval", tmp_path, city / "data", "--panoptic", "--json")
    assert result.exit_code == 1
    data = data_of(result)
    assert data["problem_counts"] == {"missing": 1, "size": 1}
    assert any(found["kind"] == "size" and "/inst/" in found["where"] for found in data["problems"])
    assert "no object-number prediction" in next(found["what"] for found in data["problems"] if found["kind"] == "missing")
    assert data["images"] == 2


def test_a_png_outside_the_json_is_one_image_s_problem(city: Path, tmp_path: Path) -> None:
    content = json.loads((city / "pred.json").read_text())
    for entry in content["annotations"]:
        source = city / "pred" / entry["file_name"]
        save(tmp_path / "p" / entry["file_name"], np.array(Image.open(source)))
    content["annotations"][1]["segments_info"].pop()
    content["annotations"][2]["segments_info"][0]["category_id"] = 99
    del content["annotations"][0]
    (tmp_path / "p.json").write_text(json.dumps(content))
    data = data_of(run("eval", tmp_path / "p.json", city / "data", "--pred-ids", "cityscapes", "--panoptic", "--json"))
    assert data["problem_counts"] == {"unreadable": 2, "ids": 1}
    whats = " | ".join(found["what"] for found in data["problems"])
    assert "is in no annotation of p.json" in whats
    assert "does not list" in whats
    assert "99 (" in whats
    assert data["images"] == 1


@pytest.mark.parametrize(
    ("name", "n_things"),
    [("pascal-part-58", [57, 20]), ("pascal-panoptic-parts-96-59", [57, 20]), ("paco-458-75", [458, 75]),
     ("partimagenet-41-12", [40, 11]), ("ade20k-part-234-44", [234, 44])],
)  # fmt: skip
def test_taxonomies_of_parts(name: str, n_things: list[int]) -> None:
    """Parts are those of things, whose objects with several have parts."""
    hierarchy = load_hierarchy(name)
    assert [int(things(hierarchy, depth).sum()) for depth in range(2)] == n_things
    several = np.bincount(hierarchy.parent, minlength=hierarchy.n_coarse) > 1
    assert (has_parts(hierarchy) == several).all()


@pytest.mark.parametrize(
    ("name", "n_things", "with_parts"),
    [("cityscapes-19-7", [8, 2], []), ("coco-panoptic-133-27", [80, 12], []), ("car-parts", [0, 0], []),
     ("mapillary-2.0-116-44", [70, 24, 2], []),
     ("cityscapes-panoptic-parts-37-19-7", [26, 8, 2], ["person", "rider", "car", "truck", "bus"])],
)  # fmt: skip
def test_taxonomies_of_kinds(name: str, n_things: list[int], with_parts: list[str]) -> None:
    """Cars and buses are no parts of vehicles."""
    hierarchy = load_hierarchy(name)
    assert [int(things(hierarchy, depth).sum()) for depth in range(len(hierarchy.levels))] == n_things
    assert [hierarchy.coarse.names[k] for k in np.flatnonzero(has_parts(hierarchy))] == with_parts
