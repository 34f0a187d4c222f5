"""`hiposeg predict` as a user meets it: choices, exit codes, one-line errors, several processes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import data_of, refused, run
from predict_toys import ids, results, save_untrained, write_photos

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.shares import run_together

predict = partial(run, "predict")
SIZES = {"a": (40, 50), "b": (40, 50), "c": (64, 30), "d": (90, 200)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, toy_hierarchy: Hierarchy) -> Path:
    return save_untrained(tmp_path_factory.mktemp("run") / "toy.safetensors", toy_hierarchy)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", SIZES)


def test_what_is_written(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = data_of(predict(weights, photos, "--out", out, "--json"))
    assert found == {
        "out": str(out), "decode": "leaf", "confidence": None, "done": 4, "skipped": 0, "failures": [],
    }  # fmt: skip
    assert sorted(results(out)) == sorted([
        "predictions.json", *(f"{level}/{name}.png" for level in ("fine", "coarse") for name in SIZES)])  # fmt: skip
    for name, size in SIZES.items():
        assert ids(out / "fine" / f"{name}.png").shape == size
    assert data_of(predict(weights, photos, "--out", out, "--json", "--resume"))["skipped"] == 4


def test_formats_are_lists_that_add_up(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--save", "color, probs", "--save", "probs,labels", "--overlay"]
    assert predict(weights, photos / "a.png", "--out", out, *options).exit_code == 0
    folders = {path.relative_to(out).parts[0] for path in out.rglob("a.*")}
    assert {"fine", "coarse", "color", "probs", "overlay"} <= folders


def test_stdin_names_photos(weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = predict(weights, "-", "--out", "out", "--json", stdin="photos/a.png\nphotos/none.png\n")
    assert result.exit_code == 1
    assert data_of(result)["done"] == 1
    assert "photos/none.png" in data_of(result)["failures"][0]
    assert Path("out/fine/photos/a.png").is_file()


def test_every_choice_at_once(weights: Path, photos: Path, tmp_path: Path) -> None:
    options = ["--tile", 64, "--overlap", 20, "--tta", "flip", "--scales", "1,1.5", "--batch", 3, "--workers", 2]
    options += ["--decode", "back-off", "--confidence", 0.2, "--save", "confidence"]
    assert data_of(predict(weights, photos, "--out", tmp_path / "out", *options, "--json"))["done"] == 4
    for name, size in SIZES.items():
        assert ids(tmp_path / "out" / "fine" / f"{name}.png").shape == size


def test_mistakes_are_one_line_before_any_work(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options, words in (
        (["--save", "overlays"], ["overlays", "did you mean 'overlay'"]),
        (["--save", "color,nothing"], ["'nothing'", "is unknown"]),
        (["--weights", "bets"], ["--weights bets", "did you mean 'best'"]),
        (["--tta", "flips"], ["--tta flips", "did you mean 'flip'"]),
        (["--scales", "1,,2"], ["--scales 1,,2", "0.75,1,1.25"]),
        (["--overlap", 8], ["--overlap 8", "--tile"]),
        (["--tile", 64, "--overlap", 64], ["--overlap 64", "less than 64"]),
        (["--shard", "3/2"], ["--shard 3/2", "1/4"]),
        (["--resume"], ["holds no predictions", "--out"]),
        (["--device", "cuda:77"], ["cuda:77"]),
    ):
        refused(predict(weights, photos, "--out", out, *options), *words)
    refused(predict(weights, photos, "--resume"), "--resume", "--out")
    refused(predict(weights, photos, "--out", out, "--resume", "--overwrite"), "--resume", "--overwrite")
    refused(predict(weights, photos, "--shard", "1/2"), "part 1 of 2", "--out")
    assert not out.exists()


def test_ctrl_c_is_130_and_the_rest_follows(weights: Path, photos: Path, tmp_path: Path) -> None:
    out, genuine = tmp_path / "out", os.replace
    assert predict(weights, photos, "--out", tmp_path / "whole").exit_code == 0

    def interrupted(source: Any, target: Any) -> None:
        if "b.png" in str(target):
            raise KeyboardInterrupt
        genuine(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        assert predict(weights, photos, "--out", out).exit_code == 130
    assert predict(weights, photos, "--out", out, "--resume").exit_code == 0
    assert results(out) == results(tmp_path / "whole")


@pytest.mark.slow
def test_processes_of_one_machine_share_a_folder(weights: Path, photos: Path, tmp_path: Path) -> None:
    """A photo that fails in one process neither stops the others nor is forgotten."""
    assert predict(weights, photos, "--out", tmp_path / "whole").exit_code == 0
    (photos / "0 broken.jpg").write_bytes(b"")
    arguments = ["predict", str(weights), str(photos), "--out", str(tmp_path / "out"), "--device", "cpu"]
    joined = run_together(2, arguments)
    assert (joined.done, joined.skipped, joined.exit_code, joined.errors) == (4, 0, 1, ())
    (failure,) = joined.failures
    assert "0 broken.jpg" in failure
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    names = {path.name for path in (tmp_path / "out").glob("*.jsonl")}
    assert names == {"predictions-1-of-2.jsonl", "predictions-2-of-2.jsonl"}


@pytest.mark.slow
def test_what_keeps_several_processes_from_their_parts_is_said_once(weights: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("the user's")
    joined = run_together(2, ["predict", str(weights), str(photos), "--out", str(tmp_path / "out"), "--device", "cpu"])
    (error,) = joined.errors
    assert "is not empty and holds no predictions" in error
    assert (joined.done, joined.exit_code) == (0, 2)


def test_a_process_that_was_killed_is_named() -> None:
    """It printed nothing; what the other did is no answer for both."""
    from hiposeg_cli.infer.shares import _answer, _joined

    whole = b'{"data": {"done": 3, "skipped": 0, "failures": []}, "warnings": []}'
    found = _joined([_answer(whole), _answer(b"")], 247)
    assert found.errors == ("process 2 of 2: was killed (out of memory?) - continue with --resume",)
    assert (found.done, found.exit_code) == (3, 247)


def test_a_command_for_several_gpus_shows_what_they_did_as_one(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiposeg_cli.infer import shares

    found = [shares.Joined(7, 2, ("a.png: is empty",), ("EXIF noted (2 photos, such as b.png)",), (), 1)]
    monkeypatch.setattr(shares, "run_on_gpus", lambda device, arguments: found[0])
    result = predict(weights, photos, "--out", tmp_path / "out", "--json")
    data = data_of(result)
    assert (data["done"], data["skipped"], data["failures"]) == (7, 2, ["a.png: is empty"])
    text = predict(weights, photos, "--out", tmp_path / "out")
    assert text.exit_code == 1
    for words in ("warning: a.png: is empty", "EXIF noted", "7 predicted, 2 already there, 1 failed"):
        assert words in text.stderr
    found[0] = shares.Joined(0, 0, (), (), ("out: is full - free disk space",), 2)
    refused(predict(weights, photos, "--out", tmp_path / "out"), "out: is full - free disk space")


def test_a_list_on_standard_input_is_for_one_process(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    refused(predict(weights, "-", "--out", tmp_path / "out", stdin=f"{photos}/a.png\n"), "-: ", "several processes", "@FILE")


@pytest.mark.parametrize(
    ("named", "folder"), [("photos", "photos-1"), ("photos/**/*.png", "photos-1"), ("@list.txt", "list-1"), ("-", "stdin-1")]
)
def test_results_are_named_after_what_was_named(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("photos/a.png\n")
    assert predict(weights, named, stdin="photos/a.png\n").exit_code == 0
    assert (Path("runs/predict") / folder / "fine").is_dir()


@pytest.mark.slow
def test_compiled_or_told_why_not(weights: Path, photos: Path, tmp_path: Path) -> None:
    found = predict(weights, photos / "a.png", "--out", tmp_path / "out", "--compile", "--json")
    assert data_of(found)["done"] == 1
    assert predict(weights, photos / "a.png", "--out", tmp_path / "plain").exit_code == 0
    same = ids(tmp_path / "out" / "fine" / "a.png") == ids(tmp_path / "plain" / "fine" / "a.png")
    assert same.mean() > 0.98
