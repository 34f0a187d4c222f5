"""COCO results and panoptic predictions: read back by pycocotools and Pillow; joined alike in whatever order they came."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from saver_cases import DEEP, PAIR, WIDE, Ids, as_ids, hierarchy, prediction
from test_savers import files, save

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.infer.savers.panoptic import Panoptic
from hiposeg_cli.infer.savers.rle import Rle
from hiposeg_cli.registry import SAVERS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
JOINED = pytest.mark.parametrize("name", ["rle", "panoptic"])
NAMES = ["b", "a/c", "a b", "é", "a/b/c"]


def photos(tree: Hierarchy) -> dict[str, Prediction]:
    """Photos of several sizes by name, in the order of their names."""
    return {
        name: prediction(tree, shape=(7 + k, 15 - k), seed=k, name=name, photo=Path(f"/in/{name}.jpg"))
        for k, name in enumerate(sorted(NAMES))
    }


def write(saver: Saver, said: dict[str, Prediction], out: Path, order: list[str]) -> None:
    for name in order:
        save(saver, said[name], out)
    saver.finish(out)


def level_files(out: Path, tree: Hierarchy, name: str) -> list[Path]:
    """The documented places of the joined files, finest level first."""
    return [out / (f"{name}_{level.name}.json" if depth else f"{name}.json") for depth, level in enumerate(tree.levels)]


# -- read back ---------------------------------------------------------------------------------------------------------


def painted(coco: COCO, image: dict[str, Any]) -> Ids:
    back = np.full((image["height"], image["width"]), -1)
    annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
    for annotation in annotations:
        mask = coco.annToMask(annotation).astype(bool)
        assert mask.any()
        assert (back[mask] == -1).all()
        back[mask] = annotation["category_id"]
    assert len({annotation["category_id"] for annotation in annotations}) == len(annotations)  # one entry a class
    return back


@pytest.mark.parametrize("tree", [PAIR, DEEP, WIDE], ids=["pair", "deep", "wide"])
def test_rle_is_read_back_by_pycocotools(tree: Hierarchy, tmp_path: Path) -> None:
    said = photos(tree)
    write(Rle(), said, tmp_path, NAMES)
    for depth, path in enumerate(level_files(tmp_path, tree, "rle")):
        results = COCO(path.with_suffix(".images.json")).loadRes(str(path))
        level = tree.levels[depth]
        assert {k: (entry["name"], tuple(entry["color"])) for k, entry in results.cats.items()} == {
            node.id: (node.name, node.color) for node in level.nodes
        }
        assert [entry["supercategory"] for entry in results.cats.values()] == [n.parent or n.name for n in level.nodes]
        assert [image["id"] for image in results.dataset["images"]] == list(range(1, len(said) + 1))
        for image, (name, one) in zip(results.dataset["images"], said.items(), strict=True):
            assert image["file_name"] == f"{name}.jpg"
            assert (painted(results, image) == as_ids(one.maps[depth])).all()
            assert all(entry["file_name"] == f"{name}.jpg" for entry in results.imgToAnns[image["id"]])


@pytest.mark.parametrize("tree", [PAIR, DEEP, WIDE], ids=["pair", "deep", "wide"])
def test_panoptic_is_read_back_as_panopticapi_reads_it(tree: Hierarchy, tmp_path: Path) -> None:
    said = photos(tree)
    write(Panoptic(), said, tmp_path, NAMES)
    for depth, path in enumerate(level_files(tmp_path, tree, "panoptic")):
        data = json.loads(path.read_text(encoding="utf-8"))
        classes = {entry["id"]: entry["name"] for entry in data["categories"]}
        assert not any(entry["isthing"] for entry in data["categories"])
        images = {image["id"]: image for image in data["images"]}
        assert len(images) == len(data["annotations"]) == len(said)
        for annotation, (name, one) in zip(data["annotations"], said.items(), strict=True):
            assert images[annotation["image_id"]]["file_name"] == f"{name}.jpg"
            rgb = np.array(Image.open(path.with_suffix("") / annotation["file_name"])).astype(np.int64)
            ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
            segments = {segment["id"]: segment for segment in annotation["segments_info"]}
            assert len(segments) == len(annotation["segments_info"])
            assert set(segments) == set(ids.ravel().tolist()) - {0}
            back = np.full(ids.shape, -1)
            for number, segment in segments.items():
                rows, columns = np.nonzero(ids == number)
                left, top, width, height = segment["bbox"]
                assert segment["area"] == rows.size
                assert (left, left + width - 1) == (columns.min(), columns.max())
                assert (top, top + height - 1) == (rows.min(), rows.max())
                back[ids == number] = tree.levels[depth].names.index(classes[segment["category_id"]])
            assert (back == as_ids(one.maps[depth])).all()


# -- joined ------------------------------------------------------------------------------------------------------------


@JOINED
def test_order_runs_and_shards_leave_the_same_bytes(name: str, tmp_path: Path) -> None:
    said = photos(DEEP)
    write(SAVERS.load(name)(), said, tmp_path / "straight", NAMES)
    write(SAVERS.load(name)(), said, tmp_path / "turned", NAMES[::-1])
    write(SAVERS.load(name)(), said, tmp_path / "resumed", NAMES[:2])  # killed after two, joined on the way
    write(SAVERS.load(name)(), said, tmp_path / "resumed", NAMES[2:])
    shards = [SAVERS.load(name)() for _ in range(2)]
    for number, key in enumerate(NAMES):
        save(shards[number % 2], said[key], tmp_path / "sharded")
    for shard in shards:
        shard.finish(tmp_path / "sharded")
    straight = files(tmp_path / "straight")
    assert all(files(tmp_path / other) == straight for other in ("turned", "resumed", "sharded"))
    shards[0].finish(tmp_path / "sharded")
    assert files(tmp_path / "sharded") == straight


@JOINED
def test_a_run_that_saved_nothing_joins_nothing(name: str, tmp_path: Path) -> None:
    SAVERS.load(name)().finish(tmp_path)
    assert files(tmp_path) == {}


@JOINED
def test_joining_waits_for_another_that_joins(name: str, tmp_path: Path) -> None:
    """Else a shard that read its list before the other's last photo could write its file after the other's."""
    said = photos(PAIR)
    saver = SAVERS.load(name)()
    save(saver, said["b"], tmp_path)
    joined = threading.Thread(target=saver.finish, args=(tmp_path,))
    with (tmp_path / f".{name}.json").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        joined.start()
        joined.join(timeout=0.3)
        assert joined.is_alive()
        save(saver, said["é"], tmp_path)
    joined.join(timeout=30)
    data = (tmp_path / f"{name}.json").read_text(encoding="utf-8")
    assert "é.jpg" in data or "é.png" in data


@JOINED
def test_threads_may_save_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All write what photos share at the start; the name of its temporary file is one for a whole process."""
    replace = os.replace

    def slow(source: Path, target: Path) -> None:
        time.sleep(0.05)
        replace(source, target)

    monkeypatch.setattr(os, "replace", slow)
    saver = SAVERS.load(name)()
    with ThreadPoolExecutor(4) as threads:
        said = [prediction(WIDE, name=str(number)) for number in range(4)]
        list(threads.map(partial(save, saver, out=tmp_path), said))
    saver.finish(tmp_path)
    assert {f"{name}/{number}.json" for number in range(4)} < set(files(tmp_path))


@pytest.mark.parametrize("name", ["rle", "panoptic", "color"])
def test_what_a_killed_run_left_half_written_goes_when_the_next_one_ends(name: str, tmp_path: Path) -> None:
    said = photos(PAIR)
    saver = SAVERS.load(name)()
    write(saver, said, tmp_path, NAMES)
    whole = files(tmp_path)
    for path in whole:
        target = tmp_path / path
        torn = target.with_name(f".{target.name}.4194304.tmp")
        torn.write_bytes(b"half")
        os.utime(torn, ns=(0, target.stat().st_mtime_ns - 10**9))
    for path in tmp_path.glob(f"{name}*.json"):  # killed while it joined for the first time
        (tmp_path / path).unlink()
    writing = tmp_path / name / f".b{saver.suffix}.4194305.tmp"  # of another shard, at this moment
    writing.write_bytes(b"half")
    os.utime(writing, ns=(0, (tmp_path / name / f"b{saver.suffix}").stat().st_mtime_ns + 10**9))
    saver.finish(tmp_path)
    assert files(tmp_path) == whole | {writing.relative_to(tmp_path).as_posix(): b"half"}


@JOINED
def test_a_broken_piece_is_named_and_the_old_file_stays(name: str, tmp_path: Path) -> None:
    saver = SAVERS.load(name)()
    write(saver, photos(PAIR), tmp_path, NAMES)
    (tmp_path / name / "a" / "c.json").write_text('{"torn')
    before = files(tmp_path)
    with pytest.raises(DataError, match=r"a/c\.json"):
        saver.finish(tmp_path)
    assert files(tmp_path) == before


@JOINED
def test_pieces_of_two_hierarchies_are_not_joined(name: str, tmp_path: Path) -> None:
    save(SAVERS.load(name)(), photos(PAIR)["b"], tmp_path)
    other = prediction(hierarchy(8, 3), name="x")
    with pytest.raises(DataError, match=r"b\.json: was made with another hierarchy"):
        write(SAVERS.load(name)(), {"x": other}, tmp_path, ["x"])


@JOINED
def test_a_disk_that_fills_while_joining_leaves_no_half_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = photos(PAIR)
    saver = SAVERS.load(name)()
    save(saver, said["b"], tmp_path)
    before = files(tmp_path)

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=rf"{name}\.json: cannot be written \(No space left on device\)"):
        saver.finish(tmp_path)
    assert files(tmp_path) == before


def test_joining_holds_one_piece_at_a_time(tmp_path: Path) -> None:
    """150 pieces of noise, as large as pieces get: all of them at once would be far above the bound."""
    saver = Rle()
    first = save(saver, prediction(WIDE, shape=(150, 150)), tmp_path)
    piece = first.read_bytes()
    for number in range(150):
        (tmp_path / "rle" / f"p{number}.json").write_bytes(piece)
    tracemalloc.start()
    saver.finish(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15 * len(piece)
