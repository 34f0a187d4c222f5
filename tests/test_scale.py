"""Preparing at scale: shards, a Dask cluster, kills at random moments, changed sources, and the index of large JSON."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets import coco_json, coco_set, files_below, masks_set, square

from hiposeg_cli.convert import Prepared, PrepareOptions, open_reader, prepare
from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.coco_json import CocoJson
from hiposeg_cli.formats.files import walk
from hiposeg_cli.shard import Shard
from hiposeg_cli.store import open_dataset

N_IMAGES = 30


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    labels = {f"k{n:02}": rng.integers(0, 8, (40, 50), dtype=np.uint8) for n in range(N_IMAGES)}
    return masks_set(tmp_path / "raw", labels)


@pytest.fixture
def options(toy_yaml: Path) -> PrepareOptions:
    return PrepareOptions(hierarchy=str(toy_yaml))


@pytest.fixture
def whole(raw: Path, tmp_path: Path, options: PrepareOptions) -> dict[str, bytes]:
    """Every file of the undisturbed, undivided conversion."""
    assert prepare("masks", raw, tmp_path / "whole", options).failures == ()
    return files_below(tmp_path / "whole")


# -- shards ------------------------------------------------------------------------------------------------------------


def shard(raw: Path, out: Path, options: PrepareOptions, text: str, **how: bool) -> Prepared:
    return prepare("masks", raw, out, replace(options, shard=Shard.parse(text)), **how)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_together_equal_the_undivided_run(
    order: tuple[int, ...], raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    missing = [shard(raw, out, options, f"{number}/3").missing for number in order]
    assert missing == [20, 10, 0]
    assert files_below(out) == whole


def test_shards_at_the_same_time_equal_the_undivided_run(
    raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "hiposeg_cli", "-q", "prepare", "masks", str(raw), str(out), "--hierarchy",
               str(options.hierarchy), "--workers", "1", "--shard"]  # fmt: skip
    runs = [subprocess.Popen([*command, f"{number}/2"], stdout=subprocess.DEVNULL) for number in (1, 2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert files_below(out) == whole


def test_a_shard_that_begins_while_another_writes_its_first_files_joins_it(
    raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    listed = Path.iterdir

    def another_first(folder: Path) -> Iterator[Path]:
        if folder == out:
            monkeypatch.undo()
            assert shard(raw, out, options, "1/2").missing == N_IMAGES // 2
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", another_first)
    assert shard(raw, out, options, "2/2").missing == 0
    assert files_below(out) == whole


def test_a_lock_that_another_shard_just_opened_or_dropped_is_no_foreign_file(
    raw: Path, tmp_path: Path, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    opened, dropped = out / ".lock-1-of-2", out / ".lock-1-of-3"
    opened.touch()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([*listed(folder), *([dropped] if folder == out else [])]))
    assert shard(raw, out, options, "2/2").missing == N_IMAGES // 2
    assert opened.exists()


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["pipe", "folder", "link"]
)
def test_a_lock_that_is_no_file_is_foreign(
    make: Callable[[Path], None], raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make(out / ".lock-1-of-2")
    with pytest.raises(DataError, match="was not made by hiposeg"):
        shard(raw, out, options, "2/2")


def test_an_interrupted_shard_is_resumed_and_another_is_not_disturbed(
    raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"

    class Unplugged(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Unplugged

    with pytest.raises(Unplugged):
        prepare("masks", raw, out, replace(options, shard=Shard(1, 3)), progress=stop)
    assert shard(raw, out, options, "2/3").missing == N_IMAGES - 4 - 10
    with pytest.raises(DataError, match=r"unfinished.*--resume"):
        shard(raw, out, options, "1/3")
    assert shard(raw, out, options, "1/3", resume=True).missing == 10
    assert shard(raw, out, options, "3/3").missing == 0
    assert files_below(out) == whole


def test_a_whole_run_takes_over_what_shards_left(
    raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    shard(raw, out, options, "2/3")
    with pytest.raises(DataError, match="--resume"):
        prepare("masks", raw, out, options)
    prepare("masks", raw, out, options, resume=True)
    assert files_below(out) == whole


def test_a_broken_image_in_one_shard_is_reported_by_the_one_that_completes(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    (raw / "train" / "labels" / "k03.png").write_bytes(b"")  # the fourth image: shard 2 of 2
    skipping = replace(options, skip_bad=True)
    out = tmp_path / "out"
    assert len(shard(raw, out, skipping, "2/2").failures) == 1
    last = shard(raw, out, skipping, "1/2")
    assert (len(last.failures), last.missing) == (0, 0)
    assert ["k03.png" in line for line in last.report["failures"]] == [True]
    prepare("masks", raw, tmp_path / "undivided", skipping)
    assert files_below(out) == files_below(tmp_path / "undivided")


def test_without_skip_bad_a_broken_image_keeps_the_whole_unfinished(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    (raw / "train" / "labels" / "k03.png").write_bytes(b"")
    for number in (2, 1):
        shard(raw, tmp_path / "out", options, f"{number}/2")
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(tmp_path / "out")


@pytest.mark.parametrize("text", ["0/2", "3/2", "a/b", "1", "-1/2", "1/0", ""])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard"):
        Shard.parse(text)


def test_overwrite_with_a_shard_is_refused(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    shard(raw, tmp_path / "out", options, "1/2")
    before = files_below(tmp_path / "out")
    with pytest.raises(ConfigError, match="--overwrite"):
        shard(raw, tmp_path / "out", options, "2/2", overwrite=True)
    assert files_below(tmp_path / "out") == before


def test_a_shard_that_sees_other_images_is_refused(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    shard(raw, tmp_path / "out", options, "1/2")
    (raw / "train" / "labels" / "k08.png").unlink()
    with pytest.raises(DataError, match="other images"):
        shard(raw, tmp_path / "out", options, "2/2")


def test_a_mended_image_is_not_completed_with_its_old_failure(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    """A shard that finishes while another redoes a failed image must not count the old failure as final."""
    out, skipping = tmp_path / "out", replace(options, skip_bad=True)
    bad = raw / "train" / "labels" / "k00.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    assert len(shard(raw, out, options, "1/2").failures) == 1
    bad.write_bytes(good)

    class Unplugged(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Unplugged

    with pytest.raises(Unplugged):
        prepare("masks", raw, out, replace(options, shard=Shard(1, 2)), resume=True, progress=stop)
    assert not shard(raw, out, skipping, "2/2").complete
    assert shard(raw, out, skipping, "1/2", resume=True).complete
    assert len(open_dataset(out).split("train")) == N_IMAGES


def test_a_broken_image_that_is_removed_no_longer_keeps_the_dataset_unfinished(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    bad = raw / "train" / "labels" / "k05.png"
    bad.write_bytes(b"")
    assert not prepare("masks", raw, tmp_path / "out", options).complete
    bad.unlink()
    assert prepare("masks", raw, tmp_path / "out", options, resume=True).complete


def test_a_json_edited_between_two_runs_is_read_again(tmp_path: Path, toy_yaml: Path) -> None:
    options = PrepareOptions(hierarchy=str(toy_yaml))
    first, second = [{"segmentation": [square(0, 0, 2, 2)]}], [{"segmentation": [square(0, 0, 5, 5)]}]
    root = coco_set(tmp_path / "raw", coco_json(first, images=["a.jpg", "b.jpg"]))
    photo = (root / "train2017" / "b.jpg").read_bytes()
    (root / "train2017" / "b.jpg").write_bytes(b"")
    assert len(prepare("coco", root, tmp_path / "out", options).failures) == 1
    (root / "train2017" / "b.jpg").write_bytes(photo)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(coco_json(second, images=["a.jpg", "b.jpg"])))
    prepare("coco", root, tmp_path / "out", options, resume=True)
    prepare("coco", root, tmp_path / "fresh", options)
    assert files_below(tmp_path / "out") == files_below(tmp_path / "fresh")


def test_files_of_the_user_in_the_folder_survive(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    prepare("masks", raw, tmp_path / "out", options)
    (tmp_path / "out" / "notes").mkdir()
    (tmp_path / "out" / "notes" / ".draft.tmp").write_text("mine")
    prepare("masks", raw, tmp_path / "out", options, resume=True)
    assert (tmp_path / "out" / "notes" / ".draft.tmp").read_text() == "mine"


def test_a_lock_file_of_another_program_is_respected(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("not ours")
    with pytest.raises(DataError, match="not made by hiposeg"):
        prepare("masks", raw, tmp_path / "out", options)
    assert (tmp_path / "out" / ".lock").read_text() == "not ours"


def test_runs_too_long_for_the_image_are_refused_before_they_are_drawn(tmp_path: Path, toy_yaml: Path) -> None:
    """Run lengths whose sum wraps round 64 bits: they once reached C code."""
    huge = {"counts": [0, 2**62, 2**62, 2**62, 2**62, 48], "size": [6, 8]}
    text = "".join("o" * 11 + "7" for _ in range(4))
    annotations = [{"segmentation": huge}, {"segmentation": {"counts": text, "size": [6, 8]}}]
    root = coco_set(tmp_path / "raw", coco_json(annotations))
    report = prepare("coco", root, None, PrepareOptions(hierarchy=str(toy_yaml))).report
    assert len(report["warnings"]) == 2
    assert report["fine"][1]["pixels"] == {"train": 0}


@settings(max_examples=50)
@given(st.integers(0, 60), st.integers(1, 9))
def test_shards_divide_any_list(n_items: int, count: int) -> None:
    items = list(range(n_items))
    parts = [Shard(number, count).of(items) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# -- killed at any moment ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed_equals_the_undisturbed_run(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    """Each run is killed with its workers at a random moment of its life; what it left is resumed to the same bytes."""
    multiply(raw, 150)
    assert prepare("masks", raw, tmp_path / "whole", options).failures == ()
    whole = files_below(tmp_path / "whole")
    command = [sys.executable, "-m", "hiposeg_cli", "-q", "prepare", "masks", str(raw)]
    how = ["--hierarchy", str(options.hierarchy), "--workers", "2"]
    started = time.monotonic()
    subprocess.run([*command, str(tmp_path / "timed"), *how], check=True, stdout=subprocess.DEVNULL, timeout=60)
    duration = time.monotonic() - started
    rng, n_begun = random.Random(0), 0
    for attempt in range(20):
        out = tmp_path / f"out{attempt}"
        run = subprocess.Popen([*command, str(out), *how], stdout=subprocess.DEVNULL, start_new_session=True)
        while attempt >= 5 and run.poll() is None and not (out / ".state.jsonl").exists():
            time.sleep(0.001)  # the first five may die earlier than that
        time.sleep(rng.uniform(0, duration if attempt < 5 else 0.3 * duration))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        n_begun += out.exists() and files_below(out) != whole
        prepare("masks", raw, out, options, resume=True)
        assert files_below(out) == whole, f"attempt {attempt}"
    assert n_begun >= 5, "too few kills fell into the conversion for this test to say anything"


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    multiply(raw, 200)
    command = [sys.executable, "-m", "hiposeg_cli", "-q", "prepare", "masks", str(raw), str(tmp_path / "out"),
               "--hierarchy", str(options.hierarchy), "--workers", "2"]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not children.exists():
        run.wait(timeout=60)
        pytest.skip("this system has no /proc/PID/task/PID/children to find the workers by")
    workers: list[int] = []
    while run.poll() is None and len(workers) < 2:
        workers = [int(text) for text in children.read_text().split()]
    run.kill()
    run.wait()
    assert len(workers) == 2
    until = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < until, "workers live on"
        time.sleep(0.1)


def multiply(raw: Path, count: int) -> None:
    """Add the first image again under many names."""
    for number in range(count):
        for kind, suffix in (("images", "jpg"), ("labels", "png")):
            source = raw / "train" / kind / f"k00.{suffix}"
            os.link(source, source.with_name(f"more{number:03}.{suffix}"))


def alive(process_id: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False


# -- sources that change -----------------------------------------------------------------------------------------------


def test_resume_redoes_images_whose_raw_files_changed(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    out = tmp_path / "out"
    (raw / "train" / "labels" / "k29.png").rename(tmp_path / "kept.png")
    (raw / "train" / "labels" / "k29.png").write_bytes(b"")  # fails, so the run stays unfinished
    assert len(prepare("masks", raw, out, options).failures) == 1
    (raw / "train" / "labels" / "k29.png").unlink()
    (tmp_path / "kept.png").rename(raw / "train" / "labels" / "k29.png")
    masks_set(tmp_path / "other", {"k05": np.full((40, 50), 6, np.uint8)})
    (tmp_path / "other" / "train" / "labels" / "k05.png").replace(raw / "train" / "labels" / "k05.png")
    assert prepare("masks", raw, out, options, resume=True).failures == ()
    prepare("masks", raw, tmp_path / "fresh", options)
    assert files_below(out) == files_below(tmp_path / "fresh")


# -- a Dask cluster ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_gives_the_same_bytes(
    raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes]
) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    (tmp_path / "bad").mkdir()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path / "dask")
    ) as cluster:
        on_cluster = replace(options, cluster=cluster.scheduler_address)
        assert prepare("masks", raw, tmp_path / "out", on_cluster).failures == ()
        assert files_below(tmp_path / "out") == whole
        coco = coco_set(tmp_path / "coco", coco_json([{"segmentation": [square(0, 0, 2, 2)]}], images=["a.jpg", "b.jpg"]))
        prepare("coco", coco, tmp_path / "coco_dask", on_cluster)
        prepare("coco", coco, tmp_path / "coco_here", options)
        assert files_below(tmp_path / "coco_dask") == files_below(tmp_path / "coco_here")
        (raw / "train" / "labels" / "k07.png").write_bytes(b"")
        failures = prepare("masks", raw, tmp_path / "bad" / "out", on_cluster).failures
        assert ["k07.png: is an empty file" in str(error) for error in failures] == [True]


def test_a_cluster_that_does_not_answer(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with pytest.raises(ConfigError, match=r"--dask nowhere://1"):
        prepare("masks", raw, tmp_path / "out", replace(options, cluster="nowhere://1"))
    assert not (tmp_path / "out").exists()


def test_a_cluster_without_the_package_names_the_extra(
    raw: Path, tmp_path: Path, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"hiposeg-cli\[dask\]"):
        prepare("masks", raw, tmp_path / "out", replace(options, cluster="tcp://127.0.0.1:1"))


# -- the index of a large JSON -----------------------------------------------------------------------------------------


def naive(path: Path) -> dict[int, list[dict[str, object]]]:
    data = json.loads(path.read_text(encoding="utf-8-sig"))
    found: dict[int, list[dict[str, object]]] = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 5), max_size=25), st.text(max_size=8), st.sampled_from([None, 0, 2]), st.booleans(),
    st.permutations(["images", "annotations", "categories", "info"]), st.booleans(),
)  # fmt: skip
def test_the_index_finds_what_parsing_the_whole_file_finds(
    tmp_path_factory: pytest.TempPathFactory, image_ids: list[int], name: str, indent: int | None, ascii_only: bool,
    order: list[str], with_mark: bool,
) -> None:  # fmt: skip
    data = coco_json([{"image_id": number, "note": name} for number in image_ids], images=[f"{k}{k}.jpg" for k in range(5)])
    data["info"] = {"images": [1, {"annotations": name}]}  # nested lists of the same names are none of ours
    data["categories"][0]["name"] = "x" + name
    text = json.dumps({key: data[key] for key in order}, indent=indent, ensure_ascii=ascii_only)
    path = tmp_path_factory.mktemp("index") / "a.json"
    try:
        path.write_text(text, encoding="utf-8-sig" if with_mark else "utf-8")
    except UnicodeEncodeError:  # lone surrogates cannot be written as UTF-8
        return
    table = CocoJson(path)
    assert {image_id: table.read(table.spans(image_id)) for image_id in table.images} == naive(path)
    assert table.categories[1].name == "x" + name
    assert [table.images[k].file_name for k in range(1, 6)] == [f"{k}{k}.jpg" for k in range(5)]
    sent = pickle.loads(pickle.dumps(table))
    assert sent.read(table.spans(1)) == table.read(table.spans(1))
    assert not hasattr(sent, "images")


def test_a_file_that_changes_after_it_was_indexed_is_noticed(tmp_path: Path) -> None:
    coco_set(tmp_path, coco_json([{}]))
    path = tmp_path / "annotations" / "instances_train2017.json"
    table = CocoJson(path)
    path.write_text(path.read_text() + " ")
    with pytest.raises(DataError, match="changed while it was being read"):
        table.read(table.spans(1))


def test_workers_get_no_listing_and_no_index(tmp_path: Path, toy_yaml: Path) -> None:
    root = coco_set(tmp_path, coco_json([{}], images=[f"{k}.jpg" for k in range(9)]))
    reader = open_reader("coco", root, PrepareOptions(hierarchy=str(toy_yaml)))
    reader.items()
    size = len(pickle.dumps(reader))
    for number in range(500):
        (root / "train2017" / f"more{number}.jpg").write_bytes(b"")
    again = open_reader("coco", root, PrepareOptions(hierarchy=str(toy_yaml)))
    again.items()
    assert abs(len(pickle.dumps(again)) - size) < 100


# -- folders and links -------------------------------------------------------------------------------------------------


def test_links_out_of_the_dataset_are_refused_unless_allowed(
    raw: Path, tmp_path: Path, options: PrepareOptions, whole: dict[str, bytes]
) -> None:
    photo = raw / "train" / "images" / "k00.jpg"
    photo.rename(tmp_path / "elsewhere.jpg")
    photo.symlink_to(tmp_path / "elsewhere.jpg")
    (said,) = prepare("masks", raw, tmp_path / "without", options).failures
    assert re.search(r"k00\.jpg: links out of the dataset.*--follow-symlinks", str(said))
    prepare("masks", raw, tmp_path / "out", replace(options, reader=ReaderOptions(follow_symlinks=True)))
    written = files_below(tmp_path / "out")
    assert {name: data for name, data in written.items() if name.startswith("labels/")} == {
        name: data for name, data in whole.items() if name.startswith("labels/")
    }


def test_links_inside_the_dataset_are_followed(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    photo = raw / "train" / "images" / "k00.jpg"
    photo.rename(raw / "real.jpg")
    photo.symlink_to(Path("../../real.jpg"))
    assert prepare("masks", raw, tmp_path / "out", options).failures == ()


def test_a_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="links back"):
        list(walk(tmp_path, (".png",), root=None))


def test_a_folder_is_listed_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.png", "b/1.PNG", "a/x.png", "a/x.txt", ".hidden.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listed: list[str] = []
    genuine = os.scandir

    def watched(path: Path) -> object:
        listed.append(str(path))
        return genuine(path)

    monkeypatch.setattr(os, "scandir", watched)
    found = [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path, (".png",), root=tmp_path)]
    assert found == ["a/x.png", "b/1.PNG", "b/2.png", "c.png"]
    assert sorted(listed) == sorted(str(path) for path in (tmp_path, tmp_path / "a", tmp_path / "b"))
