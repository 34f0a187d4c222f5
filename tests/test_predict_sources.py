"""How photos are named, and what their results are called."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predict_toys import ids, noise, results, run, toy_model, write_photos

from hiposeg_cli.errors import DataError
from hiposeg_cli.infer.sources import find_sources


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos below `data`, seen from the folder above."""
    write_photos(tmp_path / "data", dict.fromkeys(("x/1", "x/2", "y/1", "y/z/ü 3", "top"), (4, 4)))
    (tmp_path / "data" / "notes.md").write_text("not a photo")
    (tmp_path / "data" / ".hidden.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*named: str | Path, out: Path | None = None) -> list[str]:
    found = find_sources(named, out)
    assert not found.refused
    return [source.name for source in found.photos]


def test_folders_files_and_patterns(folder: Path) -> None:
    assert names("data") == ["top", "x/1", "x/2", "y/1", "y/z/ü 3"]
    assert names("data/x", "data/top.png") == ["1", "2", "top"]
    assert names("data/*/1.png") == ["x/1", "y/1"]
    assert names("data/**/*.png") == ["top", "x/1", "x/2", "y/1", "y/z/ü 3"]
    assert names("data/**/*") == ["top", "x/1", "x/2", "y/1", "y/z/ü 3"]
    assert names(folder / "data" / "[xy]" / "?.png") == ["x/1", "x/2", "y/1"]
    assert names("data", "data", "data/../data") == ["top", "x/1", "x/2", "y/1", "y/z/ü 3"]
    assert names("data", out=Path("data/y")) == ["top", "x/1", "x/2"]
    (folder / "data" / "[odd].png").write_bytes((folder / "data" / "top.png").read_bytes())
    assert names("data/[odd].png") == ["[odd]"]  # a file of that name is no pattern


def test_what_is_left_out_of_a_folder_is_said(folder: Path) -> None:
    for name in ("film.mp4", "b.heic", "a.gif"):
        (folder / "data" / "x" / name).write_bytes(b"")
    (remark,) = find_sources(["data"]).remarks
    assert remark.startswith("3 files in folders left out, such as a.gif")
    (remark,) = find_sources(["data", "data/x/a.gif"]).remarks
    assert remark.startswith("2 files in folders left out, such as b.heic")
    assert find_sources(["data/y"]).remarks == ()
    (folder / "films").mkdir()
    (folder / "data" / "x" / "film.mp4").rename(folder / "films" / "film.mp4")
    with pytest.raises(DataError, match=r"holds no images .*, but film\.mp4"):
        find_sources(["films"])
    with pytest.raises(DataError, match="all 1 images named lie below it"):
        find_sources(["data/top.png"], out=Path("data"))


@pytest.mark.parametrize("form", ["list.txt", "@list", "-", "- with zeros"])
def test_lists(form: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = ["data/x/1.png", "", f"{folder}/data/y/1.png", "data/y/z", "./data/x/../top.png"]
    data = ("\0" if "zeros" in form else "\r\n").join(written).encode()
    if form.startswith("-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    else:
        (folder / form.strip("@")).write_bytes(b"\xef\xbb\xbf" + data)
    found = names(form.split()[0])
    absolute = "/".join((folder / "data" / "y" / "1").parts[1:])
    assert found == ["data/x/1", absolute, "data/y/z/ü 3", "data/top"]


def test_a_list_is_seen_from_its_own_folder_too(folder: Path) -> None:
    (folder / "data" / "list.txt").write_text("x/1.png\n../data/x/2.png\n")
    assert names("data/list.txt") == ["x/1", "data/x/2"]


def test_a_wrong_line_of_a_list_is_refused_alone(folder: Path) -> None:
    Path("list.txt").write_text("data/top.png\ndata/none.png\n")
    found = find_sources(["list.txt"])
    assert [source.name for source in found.photos] == ["data/top"]
    (error,) = found.refused
    assert "data/none.png" in str(error)


def test_a_text_that_is_no_list_is_refused_line_by_line(folder: Path) -> None:
    """A line longer than any name of a file."""
    Path("notes.txt").write_text("word " * 200 + "\ndata/top.png\n")
    found = find_sources(["notes.txt"])
    assert [source.name for source in found.photos] == ["data/top"]
    assert len(found.refused) == 1


def test_of_two_photos_with_one_name_the_second_is_refused(folder: Path) -> None:
    found = find_sources(["data/x/1.png", "data/y/1.png"])
    assert [source.path for source in found.photos] == [Path("data/x/1.png")]
    (error,) = found.refused
    for word in ("data/y/1.png", "same stem as data/x/1.png", "quote"):
        assert word in str(error)


@pytest.mark.parametrize(
    ("named", "word"),
    [("nothing", "no such file"), ("data/*.jpg", "matches no image"), ("empty", "holds no images"),
     ("@none", "no such file"), ("list.txt", "holds no images")],
)  # fmt: skip
def test_names_that_mean_nothing(named: str, word: str, folder: Path) -> None:
    Path("empty").mkdir()
    Path("list.txt").write_text("\n\n")
    with pytest.raises(DataError, match=word):
        find_sources([named])


def test_names_that_are_no_text(folder: Path) -> None:
    name = os.fsdecode(b"data/\xff new\nline.png")
    try:
        Path(name).write_bytes(Path("data/top.png").read_bytes())
    except OSError:
        pytest.skip("this file system holds names of text only")
    done = run(toy_model(folder), ["data"], folder / "out")
    assert (done.done, done.failures) == (6, ())
    assert (folder / "out" / "fine" / Path(name).relative_to("data")).is_file()
    assert run(toy_model(folder), ["data"], folder / "out").skipped == 6


# -- videos ------------------------------------------------------------------------------------------------------------


def write_video(path: Path, frames: list[Any]) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.bit_rate = 20_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_frames_of_a_video(tmp_path: Path) -> None:
    shades = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(12)]
    write_video(tmp_path / "clip.mp4", shades)
    photos = write_photos(tmp_path / "photos", {"p": (48, 64)})
    model, out = toy_model(tmp_path), tmp_path / "out"
    done = run(model, [tmp_path / "clip.mp4", photos], out, batch=4)
    assert (done.done, done.failures) == (13, ())
    for number, shade in enumerate(shades, start=1):
        fine = ids(out / "fine" / "clip" / f"{number:06d}.png")
        assert (fine == model.segment(shade)).mean() > 0.9  # frames are compressed
    before = results(out)
    for number in (3, 9):
        (out / "fine" / "clip" / f"{number:06d}.png").unlink()
    again = run(model, [tmp_path / "clip.mp4", photos], out)
    assert (again.done, again.skipped) == (2, 11)
    assert results(out) == before


def test_a_broken_video_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"nonsense" * 100)
    with pytest.raises(DataError, match="cannot be read as a video"):
        find_sources([tmp_path / "clip.mp4"])
    write_video(tmp_path / "good.mp4", [noise(48, 64, seed) for seed in range(8)])
    write_photos(tmp_path, {"a": (4, 4)})
    (tmp_path / "list.txt").write_text(f"{tmp_path}/clip.mp4\n{tmp_path}/a.png\n")
    found = find_sources([tmp_path / "list.txt"])
    assert (len(found.photos), len(found.refused)) == (1, 1)


def test_videos_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(Exception, match=r"pip install 'hiposeg-cli\[video\]'"):
        find_sources([tmp_path / "clip.mp4"])
