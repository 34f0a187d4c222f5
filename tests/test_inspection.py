"""Statistics, leaks and samples of a prepared dataset, against numbers worked out otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from PIL import Image
from raw_sets import ids_png, photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.inspection.leaks import Duplicates, Leak, dhash, near_duplicates, split_order
from hiposeg_cli.inspection.overview import inspect_dataset, overview_json
from hiposeg_cli.inspection.samples import Samples
from hiposeg_cli.inspection.statistics import Tally
from hiposeg_cli.pool import Workers
from hiposeg_cli.store import Row


def row(key: str, fine: dict[int, int], coarse: dict[int, int], split: str = "train", **changes: Any) -> Row:
    """A manifest row of 10 x 10 px; what the coarse counts leave is ignore."""
    known = sum(coarse.values())
    defaults: dict[str, Any] = {
        "image_path": f"{key}.jpg", "image_sha256": key.encode().hex().ljust(64, "0"), "width": 10, "height": 10,
        "fine_sha256": "", "coarse_sha256": "", "ignore_px": 100 - known, "coarse_only_px": known - sum(fine.values()),
        "n_objects": 1, "overlap_px": 2, "part_overlap_px": 3, "uncovered_px": 4, "source": key, "warnings": [],
    }  # fmt: skip
    counts = {"fine_counts": {str(k): n for k, n in fine.items()}, "coarse_counts": {str(k): n for k, n in coarse.items()}}
    return Row(key=key, split=split, **(defaults | counts | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """Seven training and three validation images of two sizes with random ids, some of them ignored."""
    root, rng = tmp_path_factory.mktemp("inspected"), np.random.default_rng(5)
    choices = np.array([0, 1, 2, 3, 6, 7, 255], np.uint8)  # no lights
    for split, count in (("train", 7), ("val", 3)):
        for k in range(count):
            shape = (12, 16) if k % 2 else (10, 20)
            present = rng.choice(choices, 3, replace=False)
            photo(root / "raw" / split / "images" / f"{split}{k}.jpg", shape, seed=k + 100 * (split == "val"))
            ids_png(root / "raw" / split / "labels" / f"{split}{k}.png", rng.choice(present, shape))
    assert prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(toy_yaml))).failures == ()
    return root / "data"


# -- statistics --------------------------------------------------------------------------------------------------------


def test_classes_regions_and_shares_by_hand(toy_hierarchy: Hierarchy) -> None:
    tally = Tally(toy_hierarchy)
    tally.add(row("a", {0: 50, 1: 10, 2: 30}, {0: 50, 1: 45}))
    tally.add(row("b", {1: 20, 6: 80}, {1: 20, 2: 80}))
    tally.add(row("c", {1: 60}, {1: 60}, split="val"))
    numbers = tally.finish()
    assert numbers.images == {"train": 2, "val": 1}
    assert numbers.pixels["train"] == {
        "total": 200, "ignore_px": 5, "coarse_only_px": 5, "uncovered_px": 8, "overlap_px": 4, "part_overlap_px": 6,
    }  # fmt: skip
    wheel, window = numbers.levels["fine"][1], numbers.levels["fine"][2]
    assert (wheel.name, wheel.pixels, wheel.images) == ("wheel", {"train": 30, "val": 60}, {"train": 2, "val": 1})
    assert wheel.region == (10, 20.0, 60)
    assert window.region == (30, 30.0, 30)
    assert numbers.levels["fine"][4].region is None
    car = numbers.levels["coarse"][1]
    assert (car.parent, car.total_px, car.total_images, car.region) == (None, 125, 3, (20, 45.0, 60))
    assert numbers.cooccurrence.tolist() == [[1, 1, 0], [1, 3, 1], [0, 1, 1]]


def test_imbalance_is_that_of_the_training_images(toy_hierarchy: Hierarchy) -> None:
    tally = Tally(toy_hierarchy)
    tally.add(row("a", {0: 60, 1: 1, 2: 9, 3: 20}, {0: 60, 1: 30}))
    tally.add(row("b", {1: 100}, {1: 100}, split="val"))
    fine = tally.finish().imbalance["fine"]
    assert (fine.split, fine.ratio) == ("train", 60.0)
    assert fine.rarest == ("wheel", "window")  # a third of the four that occur, rounded up
    assert fine.rarest_share == pytest.approx(10 / 90)
    assert fine.absent == ("left_light", "right_light", "sky")
    only_val = Tally(toy_hierarchy)
    only_val.add(row("b", {1: 100}, {1: 100}, split="val"))
    assert only_val.finish().imbalance["fine"].split == "all"


def test_levels_above_coarse_are_added_up_per_image() -> None:
    text = (
        "schema: hiposeg/hierarchy@1\nname: three\nlevels: [part, object, world]\nclasses:\n"
        "  world: [{name: alive}, {name: dead}]\n"
        "  object: [{name: cat, parent: alive}, {name: dog, parent: alive}, {name: stone, parent: dead}]\n"
        "  part: [{name: paw, parent: cat}, {name: tail, parent: cat}, {name: snout, parent: dog}, "
        "{name: rock, parent: stone}]\n"
    )
    tally = Tally(parse_hierarchy(text))
    tally.add(row("a", {0: 10, 2: 20}, {0: 15, 1: 20}))
    tally.add(row("b", {3: 7}, {2: 7}))
    levels = tally.finish().levels
    assert list(levels) == ["part", "object", "world"]
    alive, dead = levels["world"]
    assert (alive.pixels, alive.images, alive.region) == ({"train": 35}, {"train": 1}, (35, 35.0, 35))
    assert (dead.pixels, dead.images) == ({"train": 7}, {"train": 1})
    assert [entry.parent for entry in levels["part"]] == [0, 0, 1, 2]


def test_sizes(toy_hierarchy: Hierarchy) -> None:
    tally = Tally(toy_hierarchy)
    for key, width, height in (("a", 10, 20), ("b", 30, 20), ("c", 30, 20), ("d", 50, 10)):
        tally.add(row(key, {}, {}, width=width, height=height))
    sizes = tally.finish().sizes
    assert sizes is not None
    assert (sizes.width, sizes.height, sizes.distinct) == ((10, 30.0, 50), (10, 20.0, 20), 3)
    assert sizes.commonest[0] == ((30, 20), 2)


def test_statistics_equal_a_recount_of_the_label_files(data: Path, toy_hierarchy: Hierarchy) -> None:
    """The manifests' sums against the decoded PNGs, counted another way."""
    numbers = inspect_dataset(data).statistics
    for name, level in (("fine", toy_hierarchy.fine), ("coarse", toy_hierarchy.coarse)):
        maps = {path: np.asarray(Image.open(path)) for path in sorted((data / "labels" / name).rglob("*.png"))}
        for entry in numbers.levels[name]:
            regions = {path: int((ids == entry.id).sum()) for path, ids in maps.items()}
            for split in ("train", "val"):
                mine = [pixels for path, pixels in regions.items() if path.parent.name == split]
                assert entry.pixels[split] == sum(mine)
                assert entry.images[split] == sum(pixels > 0 for pixels in mine)
            seen = [pixels for pixels in regions.values() if pixels]
            assert entry.region == ((min(seen), float(np.median(seen)), max(seen)) if seen else None)
        if name == "coarse":
            shown = np.array([[(ids == k).any() for k in range(len(level))] for ids in maps.values()]).astype(int)
            assert (numbers.cooccurrence == shown.T @ shown).all()


def test_a_broken_manifest_is_refused_with_its_line(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "copy"))
    path = root / "manifest" / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{}\n", *lines[2:]]))
    with pytest.raises(DataError, match=r"train\.jsonl:2: is not a manifest row"):
        inspect_dataset(root)
    path.write_text("".join([json.dumps(json.loads(lines[0]) | {"coarse_counts": {"9": 200}}) + "\n", *lines[1:]]))
    with pytest.raises(DataError, match="id 9 of level coarse"):
        inspect_dataset(root)
    (root / "hierarchy.yaml").write_text("changed")
    with pytest.raises(DataError, match="was changed"):
        inspect_dataset(root)


# -- leaks -------------------------------------------------------------------------------------------------------------


def test_equal_files_leak_to_the_first_split_that_has_them() -> None:
    duplicates = Duplicates()
    assert duplicates.add("train", "a", "00" * 32) is None
    assert duplicates.add("train", "b", "00" * 32) is None
    assert duplicates.add("val", "c", "00" * 32) == Leak("val", "c", "train", "a")
    assert duplicates.add("val", "d", "11" * 32) is None
    assert duplicates.add("test", "e", "no hash") is None
    assert duplicates.leaked == {("val", "train"): 1}
    assert duplicates.repeated == {"train": 1}
    assert split_order({"val", "test", "train"}) == ["train", "test", "val"]


def test_dhash_by_hand(tmp_path: Path) -> None:
    """Rows of nine cells: rising, falling, and up and down by turns."""
    cells = np.tile(np.linspace(10, 240, 9), (8, 1))
    cells[1] = cells[1, ::-1]
    cells[2] = [0, 200, 0, 200, 0, 200, 0, 200, 0]
    image = Image.fromarray(cells.astype(np.uint8))
    expected = int.from_bytes(bytes([0xFF, 0x00, 0b10101010, *[0xFF] * 5]), "big")
    image.save(tmp_path / "small.png")
    assert dhash(tmp_path / "small.png") == expected
    large = image.resize((900, 800), Image.Resampling.NEAREST)
    large.convert("RGB").save(tmp_path / "large.jpg", quality=90)
    large.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.asarray(large).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("large.jpg", "palette.png", "deep.png"):
        assert dhash(tmp_path / name) == expected, name
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        dhash(tmp_path / "broken.jpg")


def nearest_by_comparing_all(hashes: list[int], splits: list[str], limit: int) -> dict[int, int]:
    """Picture -> smallest distance to one of an earlier split, where it is within the limit."""
    rank = {split: place for place, split in enumerate(split_order(splits))}
    found = {}
    for number, (mine, split) in enumerate(zip(hashes, splits, strict=True)):
        others = [h for h, s in zip(hashes, splits, strict=True) if rank[s] < rank[split]]
        distance = min(((mine ^ other).bit_count() for other in others), default=65)
        if distance <= limit:
            found[number] = distance
    return found


@pytest.mark.parametrize("n_centres", [1, 4, 400])
def test_near_duplicates_are_those_that_comparing_all_finds(n_centres: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiposeg_cli.inspection.leaks._FEW", 8)  # so that the bands are used on few pictures too
    rng = np.random.default_rng(n_centres)
    centres = rng.integers(1, 2**63, n_centres)
    hashes, splits = [], []
    for _ in range(700):
        value = int(rng.choice(centres))
        for bit in rng.integers(0, 64, int(rng.integers(0, 7))):
            value ^= 1 << int(bit)
        hashes.append(value)
        splits.append(str(rng.choice(["train", "val", "test"])))
    keys = [str(number) for number in range(len(hashes))]
    found = near_duplicates(hashes, splits, keys)
    assert {int(leak.key): leak.distance for leak in found} == nearest_by_comparing_all(hashes, splits, 4)
    for leak in found:
        other = int(leak.other_key)
        assert (leak.split, leak.other_split) == (splits[int(leak.key)], splits[other])
        assert (hashes[int(leak.key)] ^ hashes[other]).bit_count() == leak.distance


def test_many_pictures_are_not_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 different pictures make 200 million pairs; the bands leave less than a hundredth of them."""
    from hiposeg_cli.inspection import leaks

    compared = 0
    compare = leaks._Search._compare

    def counting(self: Any, members: Any) -> None:
        nonlocal compared
        compared += len(members) ** 2 // 2
        compare(self, members)

    monkeypatch.setattr(leaks._Search, "_compare", counting)
    hashes = np.random.default_rng(0).integers(1, 2**63, 20_000).tolist()
    splits = ["train" if k % 5 else "val" for k in range(len(hashes))]
    assert near_duplicates(hashes, splits, [str(k) for k in range(len(hashes))]) == []
    assert compared < 2_000_000


def test_flat_pictures_are_no_duplicates_and_no_pictures_are_none() -> None:
    assert near_duplicates([0, 0, 2**64 - 1, 2**64 - 1], ["train", "val"] * 2, list("abcd")) == []
    assert near_duplicates([], [], []) == []
    assert near_duplicates([5, 5], ["train", "train"], ["a", "b"]) == []


# -- samples -----------------------------------------------------------------------------------------------------------


def test_samples_show_every_coarse_class_first() -> None:
    rows = [row(f"plain{k}", {0: 100}, {0: 100}) for k in range(50)]
    rows[17] = row("car", {0: 80, 1: 20}, {0: 80, 1: 20})
    rows[40] = row("speck", {0: 98, 6: 2}, {0: 98, 2: 2})
    rows[41] = row("sky", {0: 50, 6: 50}, {0: 50, 2: 50})
    samples = Samples(2, len(rows))
    for entry in rows:
        samples.add(entry)
    assert [entry.key for entry in samples.choose()] == ["car", "sky"]


def test_samples_are_filled_up_from_the_whole_dataset() -> None:
    rows = [row(f"plain{k:02}", {0: 100}, {0: 100}) for k in range(40)]
    samples = Samples(5, len(rows))
    for entry in rows:
        samples.add(entry)
    keys = [entry.key for entry in samples.choose()]
    assert len(set(keys)) == 5
    assert keys == sorted(keys)
    assert keys[-1] >= "plain24"
    few = Samples(100, len(rows))
    for entry in rows:
        few.add(entry)
    assert len(few.choose()) == len(rows)
    assert Samples(0, 3).choose() == []


# -- the command -------------------------------------------------------------------------------------------------------


def test_json_of_inspect(data: Path) -> None:
    result = run("inspect", data, "--json", "--near-duplicates", "--workers", 1, "--samples", 2)
    assert result.exit_code == 0, result.output
    envelope = json.loads(result.stdout)
    assert (envelope["schema"], envelope["command"], envelope["status"]) == ("hiposeg/inspect@1", "inspect", "ok")
    answer = envelope["data"]
    assert set(answer) == {
        "root", "hierarchy", "images", "objects", "pixels", "ignore_share", "levels", "imbalance", "cooccurrence", "sizes",
        "warnings", "leaks", "samples", "html",
    }  # fmt: skip
    assert answer["images"] == {"train": 7, "val": 3}
    for classes in answer["levels"].values():
        for entry in classes:
            assert set(entry) == {"id", "name", "parent", "color", "kind", "pixels", "images", "region_px"}
            assert set(entry["region_px"]) == {"min", "median", "max"}
    for entry in answer["imbalance"].values():
        assert set(entry) == {"split", "ratio", "rarest_third", "rarest_third_share", "absent"}
    assert set(answer["sizes"]) == {"width", "height", "commonest", "distinct"}
    assert set(answer["leaks"]) == {"same_file", "repeated", "examples", "near", "unreadable"}
    assert answer["leaks"]["near"] == []
    assert answer["cooccurrence"]["names"] == ["background", "car", "sky"]
    assert len(answer["samples"]) == 2
    assert json.loads(run("inspect", data, "--json").stdout)["data"]["leaks"]["near"] is None


def test_tables_of_inspect(data: Path) -> None:
    result = run("inspect", data)
    assert result.exit_code == 0, result.output
    for words in (
        "train 7, val 3", "10..12 px", "pixels ignored on both levels", "imbalance, fine", "never seen (2): left_light",
        "images with both", "leakage across splits: none found", "--near-duplicates",
    ):  # fmt: skip
        assert words in result.stdout


def test_near_duplicates_are_the_same_in_several_processes_and_lost_photos_are_named(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data.parent, tmp_path / "copy")) / "data"
    about = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(about | {"images_root": str(tmp_path / "copy" / "raw")}))
    images = tmp_path / "copy" / "raw"
    (images / "train" / "images" / "train1.jpg").unlink()
    with Image.open(images / "train" / "images" / "train2.jpg") as image:
        image.load()
    image.save(images / "val" / "images" / "val0.jpg", quality=90)
    one = overview_json(inspect_dataset(root, near=True))
    assert overview_json(inspect_dataset(root, near=True, workers=Workers(2))) == one
    assert [(leak["key"], leak["other_key"]) for leak in one["leaks"]["near"]] == [("val0", "train2")]
    assert len(one["leaks"]["unreadable"]) == 1
    assert "train1.jpg" in one["leaks"]["unreadable"][0]
    text = run("inspect", root, "--near-duplicates", "--workers", 1).stdout
    assert "val/val0 = train/train2" in text
    assert "photos that could not be read: 1" in text


def test_inspect_refuses_what_is_no_dataset(tmp_path: Path) -> None:
    result = run("inspect", tmp_path)
    assert result.exit_code == 2
    assert "not a prepared dataset" in result.stderr
