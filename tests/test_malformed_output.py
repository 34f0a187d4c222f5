"""Malformed input 29 of the format specification: what lies in the output folder, and what stops writing to it.

Runs that are killed are in test_convert.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from malformed_check import Disk, accepts, fails_with, finished, hiposeg, prepare, problems, snapshot, the_problem
from malformed_sets import SHAPE, Raw, draw
from raw_sets import files_below, ids_png

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# -- several problems at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stems", ["b", "ab"])
def test_every_broken_image_is_named(stems: str, tmp_path: Path) -> None:
    raw = draw("masks", tmp_path)
    ids_png(raw.label.with_name("c.png"), np.ones(SHAPE, np.uint8))
    (raw.photo.with_name("c.jpg")).write_bytes(b"")
    for stem in stems:
        raw.label.with_name(f"{stem}.png").write_bytes(b"")
    for options, code in (((), 2), (("--resume", "--skip-bad"), 1 if stems == "b" else 2)):
        result = prepare(raw, *options)
        assert result.exit_code == code
        assert [Path(line.split(": ")[1]).name for line in problems(result)] == [*(f"{stem}.png" for stem in stems), "c.jpg"]


# -- 29: the output ----------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return draw("masks", tmp_path)


def test_29_output_is_a_dataset_already(raw: Raw) -> None:
    accepts(raw)
    before = files_below(raw.out)
    the_problem(prepare(raw), 2, ["out: already holds a prepared dataset", "--resume", "--overwrite"])
    the_problem(prepare(raw, "--skip-bad"), 2, ["out: already holds a prepared dataset"])
    assert files_below(raw.out) == before
    for option in ("--resume", "--overwrite"):
        assert prepare(raw, option).exit_code == 0
        assert files_below(raw.out) == before


def test_29_output_is_unfinished(raw: Raw) -> None:
    good = raw.label.read_bytes()
    raw.label.write_bytes(b"")
    assert prepare(raw).exit_code == 2
    before = files_below(raw.out)
    the_problem(prepare(raw), 2, ["out: holds an unfinished preparation", "--resume", "--overwrite"])
    assert files_below(raw.out) == before
    raw.label.write_bytes(good)
    assert prepare(raw, "--resume").exit_code == 0
    assert sum(finished(raw.out)["images"].values()) == 2


@pytest.mark.parametrize(
    "options", [[], ["--resume"], ["--overwrite"], ["--skip-bad"]], ids=lambda options: "29-" + "".join(options)
)
@pytest.mark.parametrize("name", ["notes.txt", "labels/mine.png", "dataset.json", ".state.jsonl"])
def test_output_of_someone_else(name: str, options: list[str], raw: Raw) -> None:
    (raw.out / name).parent.mkdir(parents=True)
    (raw.out / name).write_text('{"mine": true}')
    the_problem(prepare(raw, *options), 2, ["out: is not empty", "new folder"])
    assert files_below(raw.out) == {name: b'{"mine": true}'}


@pytest.mark.parametrize(
    "options", [[], ["--resume"], ["--overwrite"], ["--skip-bad"]], ids=lambda options: "29-" + "".join(options)
)
@pytest.mark.parametrize("place", ["raw", "raw/out", "raw/train/labels", ".", "raw/../raw/x", "link/out"])
def test_output_and_input_inside_each_other(place: str, options: list[str], raw: Raw) -> None:
    (raw.world / "link").symlink_to(raw.root, target_is_directory=True)
    before = snapshot(raw.world)
    result = hiposeg("prepare", "masks", raw.root, raw.world / place, *raw.options, *options, "--workers", 1)
    the_problem(result, 2, ["source folder", "write somewhere else"])
    assert snapshot(raw.world) == before


def test_29_output_inside_the_folder_of_photos(tmp_path: Path) -> None:
    raw = draw("pascal-part", tmp_path)
    (raw.root / "JPEGImages").rename(tmp_path / "out")
    before = files_below(tmp_path)
    the_problem(prepare(raw, "--images", tmp_path / "out", "--overwrite"), 2, ["source folder"])
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("below", [False, True])
def test_29_output_is_a_file(below: bool, raw: Raw) -> None:
    path = raw.out / "sub" if below else raw.out
    raw.out.write_text("mine")
    result = hiposeg("prepare", "masks", raw.root, path, *raw.options, "--workers", 1)
    the_problem(result, 2, ["out", "folder"])
    assert raw.out.read_text() == "mine"


def test_29_output_is_read_only(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.out.mkdir()
    genuine = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, *args, **kwargs: (
        fails_with(errno.EROFS)(path) if path.is_relative_to(raw.out) else genuine(path, *args, **kwargs)))  # fmt: skip
    before = snapshot(raw.world)
    the_problem(prepare(raw), 2, ["out: cannot be written", "Read-only", "another folder"])
    assert files_below(raw.out) == {}
    assert snapshot(raw.world) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_29_output_has_no_write_permission(raw: Raw) -> None:
    raw.out.mkdir(mode=0o500)
    the_problem(prepare(raw), 2, ["out: cannot be written", "another folder"])


def undisturbed(raw: Raw) -> dict[str, bytes]:
    """What a run gives that nothing disturbs."""
    report = accepts(raw)
    assert report["images"] == {"train": 2}
    files = files_below(raw.out)
    raw.out.rename(raw.world.with_name(f"{raw.world.name}-undisturbed"))
    return files


# The state, four label files, then hierarchy, manifest, split, report and dataset.json.
@pytest.mark.parametrize("fits", range(10))
@pytest.mark.parametrize("options", [[], ["--skip-bad"]], ids=["29-disk-full", "29-disk-full-skip-bad"])
def test_disk_full(options: list[str], fits: int, raw: Raw) -> None:
    whole = undisturbed(raw)
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, fits, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        before = snapshot(raw.world)
        the_problem(prepare(raw, *options), 2, ["out", "No space left on device", "free disk space"])
    assert snapshot(raw.world) == before
    assert not [path for path in raw.out.rglob("*") if path.suffix == ".tmp" or path.name.startswith(".lock")]
    assert not (raw.out / "dataset.json").exists()
    assert prepare(raw, "--resume").exit_code == 0
    assert files_below(raw.out) == whole


def test_29_disk_full_while_a_file_is_written(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = undisturbed(raw)
    genuine = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        if "coarse" not in str(path):
            return genuine(path, data)
        genuine(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        the_problem(prepare(raw), 2, ["coarse", "No space left on device"])
    assert not list((raw.out / "labels" / "coarse").rglob("*.*"))
    assert prepare(raw, "--resume").exit_code == 0
    assert files_below(raw.out) == whole


def test_29_disk_full_of_copied_photos(raw: Raw) -> None:
    raw = raw.told("--copy-images")
    whole = undisturbed(raw)
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, 3, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        the_problem(prepare(raw), 2, ["a.jpg", "No space left on device"])
    assert prepare(raw, "--resume").exit_code == 0
    assert files_below(raw.out) == whole


@pytest.mark.parametrize("fits", [1, 3, 5, 9])
def test_29_interrupt(fits: int, raw: Raw) -> None:
    whole = undisturbed(raw)
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, fits, KeyboardInterrupt())
        result = prepare(raw)
    assert result.exit_code == 130
    assert problems(result) == []
    assert not (raw.out / "dataset.json").exists()
    assert not list(raw.out.rglob("*.tmp"))
    assert prepare(raw, "--resume").exit_code == 0
    assert files_below(raw.out) == whole


def test_29_resume_proves_finished_files_again(raw: Raw) -> None:
    whole = undisturbed(raw)
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, 5, KeyboardInterrupt())
        assert prepare(raw).exit_code == 130
    ids_png(raw.out / "labels" / "fine" / "train" / "a.png", np.zeros(SHAPE, np.uint8))
    assert prepare(raw, "--resume").exit_code == 0
    assert files_below(raw.out) == whole
