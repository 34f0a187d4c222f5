"""What `hiposeg prepare` does with a toy set, as a user meets it: exit codes, one line a problem, nothing elsewhere."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from malformed_sets import Raw
from typer.main import get_command

from hiposeg_cli import convert
from hiposeg_cli.app import app
from hiposeg_cli.commands import console
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy, parse_hierarchy

_preset, _toy, _version = cache(load_hierarchy), cache(parse_hierarchy), cache(version)


def _loaded_once(name: str) -> Hierarchy:
    """Shipped taxonomies and the toy one are read once, any other file each time."""
    path = Path(name)
    if path.name == "toy.yaml":
        return _toy(path.read_text(encoding="utf-8"), path.name)
    return load_hierarchy(name) if path.suffix else _preset(name)


_command = get_command(app)  # building the parser takes as long as a toy preparation, so it is done once


@dataclass(frozen=True)
class Answer:
    exit_code: int
    stdout: str
    stderr: str


def hiposeg(*arguments: object, tables: bool = False) -> Answer:
    """Run a command in this process; an exception that is no exit, or the exit code for one, fails the test.

    Args:
        tables: draw the tables of classes, which takes longer than a toy preparation.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "load_hierarchy", _loaded_once)
        patch.setattr(convert, "version", _version)
        if not tables:
            patch.setattr(console, "out_table", lambda table: None)
        patch.setattr(os, "sync", lambda: None)  # it waits for the other programs' files, too
        with pytest.raises(SystemExit) as stop:
            _command.main([str(argument) for argument in arguments], prog_name="hiposeg")
    code = stop.value.code or 0
    assert code in (0, 1, 2, 130), stderr.getvalue()
    assert "Traceback" not in stderr.getvalue() + stdout.getvalue()
    return Answer(int(code), stdout.getvalue(), stderr.getvalue())


def prepare(raw: Raw, *options: object, tables: bool = False) -> Answer:
    """`hiposeg prepare FORMAT SRC OUT` with the options of the set and these; see `hiposeg`."""
    return hiposeg("prepare", raw.format, raw.root, raw.out, *raw.options, *options, "--workers", 1, tables=tables)


def problems(result: Answer) -> list[str]:
    """The lines that report a problem."""
    return [line for line in result.stderr.splitlines() if line.startswith(("hiposeg: ", "warning: "))]


def snapshot(world: Path) -> dict[str, bytes | str]:
    """Everything below a folder, links and folders too, but for WORLD/out."""
    found: dict[str, bytes | str] = {}
    for path in sorted(world.rglob("*")):
        if path.is_relative_to(world / "out"):
            continue
        kept = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        found[path.relative_to(world).as_posix()] = kept
    return found


def the_problem(result: Answer, code: int, words: Sequence[str]) -> str:
    """The one line about the one problem: where, what and the cure, with these words; and the exit code."""
    assert result.exit_code == code, result.stderr
    lines = problems(result)
    assert len(lines) == 1, result.stderr
    assert [word for word in words if word not in lines[0]] == [], lines[0]
    assert re.search(r": .+ - .+", lines[0]), f"no cure: {lines[0]}"
    return lines[0].partition(": ")[2]


def finished(out: Path) -> dict[str, Any]:
    """The report of a completed dataset without remains of the run."""
    assert not [path for path in out.rglob(".*") if path.is_file()]
    about = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert about["splits"] == report["images"]
    return dict(report)


def refuses_image(raw: Raw, *words: str) -> None:
    """The fault is found by --check, stops a run that can be resumed, and costs one image under --skip-bad."""
    before = snapshot(raw.world)
    said = the_problem(prepare(raw, "--check"), 1, words)
    assert not raw.out.exists()
    assert the_problem(prepare(raw), 2, words) == said
    assert not (raw.out / "dataset.json").exists()
    assert the_problem(prepare(raw, "--resume", "--skip-bad"), 1, words) == said
    report = finished(raw.out)
    assert report["failures"] == [said]
    assert sum(report["images"].values()) == 1
    assert snapshot(raw.world) == before


def refuses(raw: Raw, *words: str) -> None:
    """The fault stops the run, whether it is found while the images are listed or when one is converted."""
    before = snapshot(raw.world)
    said = the_problem(prepare(raw), 2, words)
    assert not (raw.out / "dataset.json").exists()
    checked = prepare(raw, "--check")
    is_of_one_image = checked.stderr.splitlines()[-1].startswith("warning: ")
    assert the_problem(checked, 1 if is_of_one_image else 2, words) == said
    assert snapshot(raw.world) == before


def refuses_source(raw: Raw, *words: str) -> None:
    """Nothing is written; neither --skip-bad nor --check makes a difference."""
    before = snapshot(raw.world)
    for option in ("--skip-bad", "--check"):
        the_problem(prepare(raw, option), 2, words)
        assert not raw.out.exists()
    assert snapshot(raw.world) == before


def accepts(raw: Raw, *words: str, images: int = 2) -> dict[str, Any]:
    """Everything is converted; one warning has these words, or there is none. Gives the report."""
    before = snapshot(raw.world)
    result = prepare(raw)
    assert result.exit_code == 0, result.stderr
    assert problems(result) == []
    report = finished(raw.out)
    assert report["failures"] == []
    assert sum(report["images"].values()) == images
    assert len(report["warnings"]) == bool(words), report["warnings"]
    assert [word for word in words if word not in report["warnings"][0]] == [], report["warnings"]
    assert snapshot(raw.world) == before
    return report


# -- parameters --------------------------------------------------------------------------------------------------------


def crossed(
    cases: Iterable[str],
    every: Sequence[str],
    others: Sequence[str] = (),
    core: Sequence[str] = (),
) -> list[Any]:
    """Parameters (name of a set, case): all cases with some sets, a few with the others, which share their code."""
    return [
        pytest.param(name, case, id=f"{case}-{name}")
        for case in cases
        for name in (*every, *(others if case in core else ()))
    ]


# -- what goes wrong on the way ----------------------------------------------------------------------------------------


def fails_with(code: int) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> Any:
        raise OSError(code, os.strerror(code), str(args[0]))

    return fail


class Disk:
    """A disk on which the n-th file, or the n-th line of the state, does not fit any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fits: int, error: BaseException) -> None:
        self.written, self.fits, self.error, self.genuine = 0, fits, error, os.replace
        monkeypatch.setattr(os, "replace", self)

    def __call__(self, *args: Any) -> None:
        self.written += 1
        if self.written > self.fits:
            raise self.error
        self.genuine(*args)
