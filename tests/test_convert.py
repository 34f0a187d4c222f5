"""`prepare` as a whole: repeatable, parallel, resumable, careful with what already lies in its output folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from raw_sets import RawObject, box, files_below, ids_png, masks_set, pascal_set

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, DataError, HierarchyError, HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.inspection.prepared import CheckOptions, check_prepared
from hiposeg_cli.shard import Shard
from hiposeg_cli.store import label_path, open_dataset

N_IMAGES = 9


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Nine pictures of 12x16 with the ids of the toy hierarchy, 255 and the coarse-only 7 among them."""
    rng = np.random.default_rng(3)
    choices = np.array([0, 1, 2, 3, 4, 5, 6, 7, 255], np.uint8)
    return masks_set(tmp_path / "raw", {f"img{k}": rng.choice(choices, (12, 16)) for k in range(N_IMAGES)})


@pytest.fixture
def options(toy_yaml: Path) -> PrepareOptions:
    return PrepareOptions(hierarchy=str(toy_yaml))


def undisturbed(raw: Path, out: Path, options: PrepareOptions) -> dict[str, bytes]:
    assert prepare("masks", raw, out, options).failures == ()
    return files_below(out)


def n_errors(root: Path) -> int:
    """What the full check of a prepared dataset finds wrong."""
    return check_prepared(root, CheckOptions(full=True)).totals["error"]


def interrupted(raw: Path, out: Path, options: PrepareOptions, after: int) -> None:
    """Leave an unfinished preparation: an error of another program while `after` images are done."""

    class Unplugged(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == after:
            raise Unplugged

    with pytest.raises(Unplugged):
        prepare("masks", raw, out, options, progress=stop)
    assert not (out / "dataset.json").exists()


# -- repeatable --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy_images", [False, True])
def test_two_runs_and_two_workers_give_the_same_bytes(
    copy_images: bool, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    options = replace(options, copy_images=copy_images)
    first = undisturbed(raw, tmp_path / "one", options)
    assert undisturbed(raw, tmp_path / "two", options) == first
    assert undisturbed(raw, tmp_path / "parallel", replace(options, workers=2)) == first
    wanted = {f"labels/{level}/train/img{k}.png" for level in ("fine", "coarse") for k in range(N_IMAGES)}
    wanted |= {f"images/train/img{k}.jpg" for k in range(N_IMAGES) if copy_images}
    wanted |= {"dataset.json", "hierarchy.yaml", "report.json", "manifest/train.jsonl", "splits/train.txt"}
    assert set(first) == wanted


def test_copied_images_are_the_photos_and_are_read_after_the_source_is_gone(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    undisturbed(raw, tmp_path / "out", replace(options, copy_images=True))
    photos = {path.name: path.read_bytes() for path in (raw / "train" / "images").iterdir()}
    shutil.rmtree(raw)
    (tmp_path / "out").rename(tmp_path / "moved")
    dataset = open_dataset(tmp_path / "moved")
    for row in dataset.split("train"):
        assert (dataset.images_root / row.image_path).read_bytes() == photos[f"{row.key}.jpg"]
        assert dataset.image(row).shape == (12, 16, 3)
    assert n_errors(dataset.root) == 0


def test_order_of_the_files_on_disk_does_not_matter(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    first = undisturbed(raw, tmp_path / "one", options)
    for folder in ("images", "labels"):
        for path in sorted((raw / "train" / folder).iterdir(), reverse=True):
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
    assert undisturbed(raw, tmp_path / "two", options) == first


def test_progress_counts_every_image_once(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    for workers in (1, 2):
        seen: list[tuple[int, int]] = []
        prepare(
            "masks", raw, tmp_path / f"out{workers}", replace(options, workers=workers),
            progress=lambda done, total, seen=seen: seen.append((done, total)),
        )  # fmt: skip
        assert seen == [(done, N_IMAGES) for done in range(N_IMAGES + 1)]


# -- check mode --------------------------------------------------------------------------------------------------------


def test_check_mode_writes_nothing_and_reports_the_same(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    before = files_below(tmp_path)
    checked = prepare("masks", raw, None, options)
    assert files_below(tmp_path) == before
    written = prepare("masks", raw, tmp_path / "out", options)
    assert checked.report == written.report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert checked.report["images"] == {"train": N_IMAGES}
    raw_ids = np.concatenate(
        [np.frombuffer(_pixels(path), np.uint8) for path in sorted((raw / "train" / "labels").iterdir())]
    )
    pixels = checked.report["pixels"]
    assert pixels["total"] == raw_ids.size == N_IMAGES * 12 * 16
    assert pixels["ignore_px"] == int((raw_ids == 255).sum())
    assert pixels["coarse_only_px"] == int((raw_ids == 7).sum())
    assert [entry["pixels"]["train"] for entry in checked.report["fine"]] == [int((raw_ids == k).sum()) for k in range(7)]


def _pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as image:
        return image.tobytes()


# -- what lies in the output folder ------------------------------------------------------------------------------------


def test_an_existing_dataset_is_refused_and_left_alone(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    out = tmp_path / "out"
    before = undisturbed(raw, out, options)
    with pytest.raises(DataError, match=r"out: already holds a prepared dataset .*--overwrite"):
        prepare("masks", raw, out, options)
    assert files_below(out) == before


def test_an_unfinished_preparation_is_refused_without_resume(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    out = tmp_path / "out"
    interrupted(raw, out, options, after=3)
    before = files_below(out)
    with pytest.raises(DataError, match=r"out: holds an unfinished preparation .*--resume"):
        prepare("masks", raw, out, options)
    assert files_below(out) == before
    with pytest.raises(DataError, match=r"out: is an unfinished preparation"):
        open_dataset(out)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", ["notes.txt", "images/holiday.jpg", "labels/mine.png"])
def test_a_foreign_folder_is_never_written_to(
    foreign: str, overwrite: bool, resume: bool, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    (out / foreign).parent.mkdir(parents=True)
    (out / foreign).write_text("mine")
    with pytest.raises(DataError, match="was not made by hiposeg"):
        prepare("masks", raw, out, options, resume=resume, overwrite=overwrite)
    assert files_below(out) == {foreign: b"mine"}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("text", ['{"name": "nnU-Net task", "labels": {}}', "[1, 2]", "not json"])
def test_the_dataset_json_of_another_program_does_not_make_a_folder_ours(
    text: str, resume: bool, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    """Other tools write a dataset.json beside images/ and labels/, too; --overwrite must not delete those."""
    out = tmp_path / "out"
    for name in ("images/mine.jpg", "labels/mine.png"):
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
    (out / "dataset.json").write_text(text)
    before = files_below(out)
    with pytest.raises(HiposegError, match="out"):
        prepare("masks", raw, out, options, overwrite=not resume, resume=resume)
    assert files_below(out) == before


def test_overwrite_replaces_all_of_an_older_dataset_and_nothing_else(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    undisturbed(raw, out, replace(options, copy_images=True, val=2))
    (out / "notes.txt").write_text("mine")
    (raw / "train" / "labels" / "img0.png").unlink()
    fresh = undisturbed(raw, tmp_path / "fresh", options)
    prepare("masks", raw, out, options, overwrite=True)
    assert files_below(out) == fresh | {"notes.txt": b"mine"}


def test_overwrite_replaces_an_unfinished_preparation(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    fresh = undisturbed(raw, tmp_path / "fresh", options)
    interrupted(raw, tmp_path / "out", replace(options, val=2), after=4)
    prepare("masks", raw, tmp_path / "out", options, overwrite=True)
    assert files_below(tmp_path / "out") == fresh


def test_overwrite_with_a_broken_source_leaves_the_old_dataset(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    out = tmp_path / "out"
    before = undisturbed(raw, out, options)
    with pytest.raises(HierarchyError, match="typo"):
        prepare("masks", raw, out, replace(options, hierarchy="typo"), overwrite=True)
    shutil.rmtree(raw / "train" / "labels")
    with pytest.raises(DataError, match="raw"):
        prepare("masks", raw, out, options, overwrite=True)
    assert files_below(out) == before


@pytest.mark.parametrize("place", ["raw", "raw/out", "raw/train/labels", "."])
def test_output_and_source_inside_each_other(place: str, raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    before = files_below(tmp_path)
    with pytest.raises(DataError, match="source folder"):
        prepare("masks", raw, tmp_path / place, options, overwrite=True)
    assert files_below(tmp_path) == before


def test_output_inside_the_source_by_way_of_a_link(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    (tmp_path / "link").symlink_to(raw, target_is_directory=True)
    with pytest.raises(DataError, match="source folder"):
        prepare("masks", raw, tmp_path / "link" / "out", options)
    with pytest.raises(DataError, match="source folder"):
        prepare("masks", tmp_path / "link", raw / "out", options)


@pytest.mark.parametrize("place", ["photos/out", "photos"])
def test_output_inside_the_folder_of_photos(place: str, tmp_path: Path) -> None:
    """--overwrite on a dataset there would delete what it is about to read."""
    root = pascal_set(tmp_path / "raw", [RawObject("boat", box((4, 5), 0, 0, 2, 2))], (4, 5))
    (root / "JPEGImages").rename(tmp_path / "photos")
    before = files_below(tmp_path)
    with pytest.raises(DataError, match="photos"):
        prepare(
            "pascal-part", root, tmp_path / place, PrepareOptions(reader=ReaderOptions(images=tmp_path / "photos")),
            overwrite=True,
        )  # fmt: skip
    assert files_below(tmp_path) == before


def test_output_that_cannot_be_a_folder(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file: is a file"):
        prepare("masks", raw, tmp_path / "file", options)
    with pytest.raises(DataError, match="cannot be written"):
        prepare("masks", raw, tmp_path / "file" / "out", options)


def test_an_empty_folder_is_fine(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    fresh = undisturbed(raw, tmp_path / "fresh", options)
    (tmp_path / "out").mkdir()
    assert undisturbed(raw, tmp_path / "out", options) == fresh


# -- stopped and resumed -----------------------------------------------------------------------------------------------

_KILL_SELF = """
import os, signal, sys
from pathlib import Path
from hiposeg_cli.convert import PrepareOptions, prepare

raw, out, hierarchy, name, when = sys.argv[1:]
genuine, calls = getattr(os, name), 0

def deadly(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(when):
        os.kill(os.getpid(), signal.SIGKILL)
    return genuine(*args, **kwargs)

setattr(os, name, deadly)
prepare("masks", Path(raw), Path(out), PrepareOptions(hierarchy=hierarchy))
"""
_PLAIN = """
import sys
from pathlib import Path
from hiposeg_cli.convert import PrepareOptions, prepare

raw, out, hierarchy, workers = sys.argv[1:]
prepare("masks", Path(raw), Path(out), PrepareOptions(hierarchy=hierarchy, workers=int(workers)))
"""


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("replace", 1),  # before the first label file is in place
        ("replace", 2),  # between the two maps of one image
        ("replace", 12),  # in the middle
        ("replace", 2 * N_IMAGES + 1),  # all labels, no manifest
        ("replace", 2 * N_IMAGES + 4),  # before report.json
        ("replace", 2 * N_IMAGES + 5),  # before dataset.json
        ("unlink", 1),  # after dataset.json, before the state is removed
    ],
)
def test_a_killed_run_that_is_resumed_equals_the_undisturbed_one(
    name: str, when: int, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", _KILL_SELF, str(raw), str(out), str(options.hierarchy), name, str(when)]
    killed = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out / ".lock").exists()
    assert files_below(out) != whole
    assert prepare("masks", raw, out, options, resume=True).failures == ()
    assert files_below(out) == whole
    assert n_errors(out) == 0


def test_a_parallel_run_killed_from_outside_and_resumed_equals_the_undisturbed_one(
    tmp_path: Path, options: PrepareOptions
) -> None:
    rng = np.random.default_rng(8)
    raw = masks_set(tmp_path / "raw", {f"k{n}": rng.integers(0, 8, (60, 80), dtype=np.uint8) for n in range(60)})
    whole = undisturbed(raw, tmp_path / "whole", options)
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", _PLAIN, str(raw), str(out), str(options.hierarchy), "2"]
    with subprocess.Popen(arguments, start_new_session=True) as run:
        state = out / ".state.jsonl"
        deadline = time.monotonic() + 60
        while not (state.exists() and state.read_bytes().count(b"\n") > 5) and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(run.pid, signal.SIGKILL)  # the run and its workers, nothing else
    prepare("masks", raw, out, replace(options, workers=2), resume=True)
    assert files_below(out) == whole


@pytest.mark.parametrize("after", [0, 1, 5, N_IMAGES])
def test_an_exception_in_the_middle_leaves_a_resumable_state(
    after: int, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    out = tmp_path / "out"
    interrupted(raw, out, options, after=after)
    assert not (out / ".lock").exists()
    seen: list[tuple[int, int]] = []
    prepare("masks", raw, out, options, resume=True, progress=lambda done, total: seen.append((done, total)))
    assert files_below(out) == whole
    assert seen[-1] == (N_IMAGES, N_IMAGES)
    assert len(seen) - 1 <= N_IMAGES - max(0, after - 1)  # what was done is not done again


@pytest.mark.parametrize("damage", ["changed", "empty", "deleted"])
@pytest.mark.parametrize("level", ["fine", "coarse"])
@pytest.mark.parametrize("finished", [False, True])
def test_resume_redoes_a_label_file_that_is_no_longer_what_was_written(
    damage: str, level: str, finished: bool, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    out = tmp_path / "out"
    if finished:
        undisturbed(raw, out, options)
    else:
        interrupted(raw, out, options, after=6)
    path = label_path(out, level, "train", "img2")
    if damage == "changed":
        ids_png(path, np.zeros((12, 16), np.uint8))
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    prepare("masks", raw, out, options, resume=True)
    assert files_below(out) == whole


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_resume_redoes_a_copied_photo_that_is_no_longer_what_was_written(
    damage: str, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    options = replace(options, copy_images=True)
    whole = undisturbed(raw, tmp_path / "whole", options)
    interrupted(raw, tmp_path / "out", options, after=6)
    path = tmp_path / "out" / "images" / "train" / "img2.jpg"
    if damage == "changed":
        path.write_bytes(b"rubbish")
    else:
        path.unlink()
    prepare("masks", raw, tmp_path / "out", options, resume=True)
    assert files_below(tmp_path / "out") == whole


def test_resume_survives_a_half_written_line_of_state(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    interrupted(raw, tmp_path / "out", options, after=5)
    state = tmp_path / "out" / ".state.jsonl"
    state.write_bytes(state.read_bytes()[:-40])
    prepare("masks", raw, tmp_path / "out", options, resume=True)
    assert files_below(tmp_path / "out") == whole


def test_resume_of_a_finished_dataset_changes_nothing(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    whole = undisturbed(raw, tmp_path / "out", options)
    prepare("masks", raw, tmp_path / "out", options, resume=True)
    assert files_below(tmp_path / "out") == whole


def test_resume_of_nothing_starts_from_nothing(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    prepare("masks", raw, tmp_path / "out", options, resume=True)
    assert files_below(tmp_path / "out") == whole


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", ["val", "seed", "copy", "suffix", "hierarchy", "ignore", "source"])
def test_resume_with_other_options_is_refused_and_touches_nothing(
    change: str, finished: bool, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    options = replace(options, val=3, reader=ReaderOptions(label_suffix=""))
    out = tmp_path / "out"
    if finished:
        undisturbed(raw, out, options)
    else:
        interrupted(raw, out, options, after=6)
    before = files_below(out)
    text = Path(str(options.hierarchy)).read_text()
    other = tmp_path / "other.yaml"
    changed = options
    if change == "val":
        changed = replace(options, val=2)
    elif change == "seed":
        changed = replace(options, seed=1)
    elif change == "copy":
        changed = replace(options, copy_images=True)
    elif change == "suffix":
        changed = replace(options, reader=ReaderOptions())
    elif change == "hierarchy":
        other.write_text(
            text.replace("name: wheel,", "name: tyre,").replace("1: wheel", "1: tyre").replace("wheel: wheel", "")
        )
        other.write_text(other.read_text().replace("map: {, ", "map: {"))
        changed = replace(options, hierarchy=str(other))
    elif change == "ignore":
        other.write_text(text.replace("1: wheel, 2: window", "1: window, 2: wheel"))
        changed = replace(options, hierarchy=str(other))
    elif change == "source":
        shutil.copytree(raw, tmp_path / "raw2")
        raw = tmp_path / "raw2"
    with pytest.raises(DataError, match="made from another source, hierarchy or options"):
        prepare("masks", raw, out, changed, resume=True)
    assert files_below(out) == before


@pytest.mark.parametrize("finished", [False, True])
def test_resume_adds_images_that_came_later(finished: bool, raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    out = tmp_path / "out"
    if finished:
        undisturbed(raw, out, options)
    else:
        interrupted(raw, out, options, after=6)
    for folder, suffix in (("images", "jpg"), ("labels", "png")):
        shutil.copyfile(raw / "train" / folder / f"img0.{suffix}", raw / "train" / folder / f"new.{suffix}")
    assert prepare("masks", raw, out, options, resume=True).failures == ()
    assert files_below(out) == undisturbed(raw, tmp_path / "fresh", options)


def test_an_image_without_its_photo_is_a_failure_of_its_own_and_mended_by_resume(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    photo = raw / "train" / "images" / "img4.jpg"
    photo.rename(tmp_path / "img4.jpg")
    out = tmp_path / "out"
    result = prepare("masks", raw, out, options)
    assert ["img4.png: has no image" in str(error) for error in result.failures] == [True]
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(out)
    skipped = prepare("masks", raw, tmp_path / "skipped", replace(options, skip_bad=True))
    assert skipped.report["failures"] == [str(error) for error in skipped.failures] != []
    assert len(open_dataset(tmp_path / "skipped").split("train")) == N_IMAGES - 1
    (tmp_path / "img4.jpg").rename(photo)
    assert prepare("masks", raw, out, options, resume=True).failures == ()
    assert files_below(out) == whole


# -- locks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("resume", [False, True])
def test_the_lock_of_a_live_process_is_respected(
    resume: bool, sleeper: subprocess.Popen[bytes], raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    interrupted(raw, out, options, after=4)
    (out / ".lock").write_text(str(sleeper.pid))
    before = files_below(out)
    with pytest.raises(DataError, match=f"process {sleeper.pid}"):
        prepare("masks", raw, out, options, resume=resume, overwrite=not resume)
    assert files_below(out) == before


def test_the_lock_of_a_dead_process_is_taken_over(
    sleeper: subprocess.Popen[bytes], raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    sleeper.kill()
    sleeper.wait()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text(str(sleeper.pid))
    assert undisturbed(raw, tmp_path / "out", options) == whole


# -- splits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("val", "n_val"), [(1, 1), (4, 4), (8, 8), (0.34, 3), (0.5, 4)])
def test_val_is_disjoint_complete_and_fixed_by_the_seed(
    val: float, n_val: int, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    options = replace(options, val=val)
    first = undisturbed(raw, tmp_path / "one", options)
    assert undisturbed(raw, tmp_path / "two", replace(options, workers=2)) == first
    train, val_keys = (first[f"splits/{split}.txt"].decode().split() for split in ("train", "val"))
    assert len(val_keys) == n_val
    assert sorted(train + val_keys) == [f"img{k}" for k in range(N_IMAGES)]
    for split, keys in (("train", train), ("val", val_keys)):
        assert sorted(Path(name).stem for name in first if name.startswith(f"labels/fine/{split}/")) == keys


def test_another_seed_chooses_other_images(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    chosen = set()
    for seed in range(6):
        files = undisturbed(raw, tmp_path / str(seed), replace(options, val=4, seed=seed))
        chosen.add(files["splits/val.txt"])
    assert len(chosen) > 1


@pytest.mark.parametrize("val", [9, 20, 0.01, 0.99, -1])
def test_val_that_leaves_nothing(val: float, raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    with pytest.raises(ConfigError, match="--val"):
        prepare("masks", raw, tmp_path / "out", replace(options, val=val))
    assert not (tmp_path / "out").exists()


def test_val_when_the_source_has_one(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    masks_set(raw, {"other": np.zeros((12, 16), np.uint8)}, split="val")
    assert set(prepare("masks", raw, None, options).report["images"]) == {"train", "val"}
    with pytest.raises(ConfigError, match="--val"):
        prepare("masks", raw, None, replace(options, val=2))


# -- broken images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_image_leaves_the_rest_done_and_resumable(
    workers: int, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    options = replace(options, workers=workers)
    whole = undisturbed(raw, tmp_path / "whole", options)
    out, bad = tmp_path / "out", raw / "train" / "labels" / "img4.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:-20])
    result = prepare("masks", raw, out, options)
    assert [str(bad) in str(error) for error in result.failures] == [True]
    assert not (out / "dataset.json").exists()
    assert len(list((out / "labels" / "fine" / "train").iterdir())) == N_IMAGES - 1
    again = prepare("masks", raw, out, options, resume=True)
    assert len(again.failures) == 1
    bad.write_bytes(good)
    assert prepare("masks", raw, out, options, resume=True).failures == ()
    assert files_below(out) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_skip_bad_finishes_without_the_broken_image_and_says_so(
    workers: int, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    whole = undisturbed(raw, tmp_path / "whole", options)
    bad = raw / "train" / "labels" / "img4.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    out = tmp_path / "out"
    result = prepare("masks", raw, out, replace(options, workers=workers, skip_bad=True))
    assert [str(bad) in str(error) for error in result.failures] == [True]
    dataset = open_dataset(out)
    assert [row.key for row in dataset.split("train")] == [f"img{k}" for k in range(N_IMAGES) if k != 4]
    assert n_errors(dataset.root) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["failures"] == [str(error) for error in result.failures]
    assert report["images"] == {"train": N_IMAGES - 1}
    bad.write_bytes(good)
    prepare("masks", raw, out, options, resume=True)  # the mended image is added
    assert files_below(out) == whole


def test_all_images_broken(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    for path in (raw / "train" / "labels").iterdir():
        path.write_bytes(b"")
    for out in (tmp_path / "out", None):
        result = prepare("masks", raw, out, replace(options, skip_bad=True))
        assert ["is an empty file" in str(error) for error in result.failures] == [True] * N_IMAGES
        assert not result.complete
    assert not (tmp_path / "out").exists()


def test_a_shard_whose_images_are_all_broken_leaves_them_for_the_report(
    raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    """The last shard counts what the others could not convert, so their states have to stay."""
    options = replace(options, skip_bad=True)
    first = sorted((raw / "train" / "labels").iterdir())[::2]
    for path in first:
        path.write_bytes(b"")
    result = prepare("masks", raw, tmp_path / "out", replace(options, shard=Shard(1, 2)))
    assert (len(result.failures), result.missing, result.complete) == (len(first), N_IMAGES - len(first), False)
    result = prepare("masks", raw, tmp_path / "out", replace(options, shard=Shard(2, 2)))
    assert result.complete
    assert len(result.report["failures"]) == len(first)


def test_pixel_limit_is_raised_and_lowered_in_worker_processes(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    """It changes no label, so a run may be resumed with another one."""
    small = replace(options, workers=2, reader=ReaderOptions(max_pixels=5))
    failures = prepare("masks", raw, tmp_path / "out", small).failures
    assert ["over 5" in str(error) and "--max-pixels" in str(error) for error in failures] == [True] * N_IMAGES
    interrupted(raw, tmp_path / "half", options, after=3)
    large = replace(options, workers=2, reader=ReaderOptions(max_pixels=10**9))
    prepare("masks", raw, tmp_path / "whole", options)
    assert prepare("masks", raw, tmp_path / "half", large, resume=True).complete
    assert files_below(tmp_path / "half") == files_below(tmp_path / "whole")


def test_output_that_cannot_be_written_is_not_a_broken_image(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    """A full disk (here: a file in the way) must not make --skip-bad declare the data bad and finish."""
    out = tmp_path / "out"
    interrupted(raw, out, options, after=3)
    for path in (out / "labels" / "coarse").iterdir():
        shutil.rmtree(path)
    (out / "labels" / "coarse" / "train").write_text("in the way")
    with pytest.raises(HiposegError, match="coarse"):
        prepare("masks", raw, out, replace(options, skip_bad=True), resume=True)
    assert not (out / "dataset.json").exists()


# -- opening  ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name": "wheel"', '"name": "tyre"'),
        (
            '"name": "window", "color": [0, 128, 0], "parent": "car"',
            '"name": "window", "color": [0, 128, 0], "parent": "sky"',
        ),
        ('"mirror": "right_light"', '"mirror": "left_light"'),
        ('"kind": "background"', '"kind": "stuff"'),
        ('"color": [0, 128, 0]', '"color": [1, 2, 3]'),
    ],
    ids=["name", "parent", "mirror", "kind", "color"],
)
def test_a_hierarchy_changed_after_preparing_is_refused(
    old: str, new: str, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    undisturbed(raw, tmp_path / "out", options)
    path = tmp_path / "out" / "hierarchy.yaml"
    text = path.read_text()
    assert old in text
    changed = text.replace(old, new)
    if old.startswith('"mirror"'):  # a valid file again: both classes mirror themselves
        changed = changed.replace('"mirror": "left_light"', '"doc": "x"')
    path.write_text(changed)
    with pytest.raises((DataError, HierarchyError), match=r"hierarchy\.yaml"):
        open_dataset(tmp_path / "out")


@pytest.mark.parametrize(
    "key", ["format", "format_version", "hierarchy_digest", "images_root", "splits", "coarse_is_function_of_fine"]
)
def test_a_dataset_json_without_a_key_is_refused_by_name(
    key: str, raw: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    undisturbed(raw, tmp_path / "out", options)
    path = tmp_path / "out" / "dataset.json"
    about = json.loads(path.read_text())
    del about[key]
    path.write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"dataset\.json"):
        open_dataset(tmp_path / "out")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_broken_manifest_is_refused(text: str, raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    undisturbed(raw, tmp_path / "out", options)
    (tmp_path / "out" / "manifest" / "train.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"train\.jsonl"):
        open_dataset(tmp_path / "out")


def test_opening_what_is_no_dataset(tmp_path: Path, raw: Path) -> None:
    for path in (tmp_path / "nowhere", raw):
        with pytest.raises(DataError, match="is not a prepared dataset"):
            open_dataset(path)


def test_a_photo_whose_size_changed_is_refused_when_read(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    undisturbed(raw, tmp_path / "out", options)
    dataset = open_dataset(tmp_path / "out")
    row = dataset.split("train")[0]
    masks_set(tmp_path / "other", {row.key: np.zeros((5, 5), np.uint8)})
    shutil.copyfile(tmp_path / "other" / "train" / "images" / f"{row.key}.jpg", raw / "train" / "images" / f"{row.key}.jpg")
    with pytest.raises(DataError, match=r"5x5.*16x12"):
        dataset.image(row)


def test_an_unknown_split_is_named(raw: Path, tmp_path: Path, options: PrepareOptions) -> None:
    undisturbed(raw, tmp_path / "out", options)
    with pytest.raises(DataError, match=r"'tran'.*did you mean 'train'"):
        open_dataset(tmp_path / "out").split("tran")
