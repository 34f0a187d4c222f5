"""Malformed input 34 of the format specification: what disturbs a run from outside.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL
import pytest
from malformed_check import Disk, finished, prepare, problems, refuses_source, the_problem
from malformed_sets import Raw, coco_data, draw
from raw_sets import files_below

import hiposeg_cli.formats.base as reader_base
from hiposeg_cli import formats

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# -- 34: what disturbs a run -------------------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return draw("masks", tmp_path)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """Another live process."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    "options", [[], ["--resume"], ["--overwrite"], ["--skip-bad"]], ids=lambda options: "34-" + "".join(options)
)
def test_output_that_another_run_writes(options: list[str], sleeper: int, raw: Raw) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, 4, KeyboardInterrupt())
        assert prepare(raw).exit_code == 130
    (raw.out / ".lock").write_text(str(sleeper))
    before = files_below(raw.out)
    words = [f"process {sleeper}", "remove .lock"] if options not in ([], ["--skip-bad"]) else ["unfinished"]
    the_problem(prepare(raw, *options), 2, words)
    assert files_below(raw.out) == before


def test_34_two_runs_that_start_together(sleeper: int, raw: Raw) -> None:
    raw.out.mkdir()
    (raw.out / ".lock").write_text(str(sleeper))
    the_problem(prepare(raw), 2, [f"is being written by process {sleeper}", "wait for it"])
    assert set(files_below(raw.out)) == {".lock"}


@pytest.mark.parametrize(("name", "which"), [
    ("masks", "label"), ("masks", "photo"), ("pascal-part", "label"), ("cityscapes-panoptic-parts", "label"),
    ("labelme", "label"), ("yolo-seg", "label"), ("coco-panoptic", "label"), ("coco", "photo"), ("cvat", "photo"),
])  # fmt: skip
def test_34_file_that_changes_while_it_is_read(
    name: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = draw(name, tmp_path)
    path: Path = getattr(raw, which)
    good, genuine = path.read_bytes(), vars(reader_base)["check_photo"]

    def disturbed(photo: Path) -> Any:
        checked = genuine(photo)
        if photo == raw.photo:
            path.write_bytes(good)
            os.utime(path, ns=(1, 1))
        return checked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_base, "check_photo", disturbed)
        os.utime(path, ns=(2, 2))
        the_problem(prepare(raw, "--check"), 1, ["changed while it was being read", "run again"])
        os.utime(path, ns=(2, 2))
        the_problem(prepare(raw), 2, ["changed while it was being read", "run again"])
    assert prepare(raw, "--resume").exit_code == 0


@pytest.mark.parametrize("name", ["coco", "coco-panoptic-json", "paco", "cvat"])
def test_34_annotation_file_that_changes_during_the_run(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    genuine = vars(reader_base)["check_photo"]

    def disturbed(photo: Path) -> Any:
        raw.label.write_bytes(raw.label.read_bytes() + b"\n")
        return genuine(photo)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_base, "check_photo", disturbed)
        result = prepare(raw, "--check")
    assert result.exit_code == 1
    assert problems(result)
    assert all("changed while it was being read" in line for line in problems(result))


PACKAGES = {
    "34-scipy": ("pascal-part", "scipy", "scipy.io"),
    "34-scipy-of-coco-stuff": ("coco-stuff-10k", "scipy", "scipy.io"),
    "34-scipy-of-pascal-context": ("pascal-context-mat", "scipy", "scipy.io"),
    "34-pycocotools": ("coco", "pycocotools", "pycocotools"),
    "34-pycocotools-of-paco": ("paco", "pycocotools", "pycocotools"),
    "34-pycocotools-of-cvat": ("cvat", "pycocotools", "pycocotools"),
    "34-pycocotools-of-yolo": ("yolo-seg", "pycocotools", "pycocotools"),
    "34-defusedxml": ("cvat", "defusedxml", "defusedxml"),
}  # fmt: skip


@pytest.mark.parametrize("case", PACKAGES)
def test_missing_package(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, package, module = PACKAGES[case]
    raw = draw(name, tmp_path)
    if name == "cvat":  # imported anew, and what is there now is put back afterwards
        for reader in ("cvat", "cvat_xml"):
            monkeypatch.setattr(formats, reader, importlib.import_module(f"hiposeg_cli.formats.{reader}"))
            monkeypatch.delitem(sys.modules, f"hiposeg_cli.formats.{reader}")
    for missing in (package, module):
        monkeypatch.setitem(sys.modules, missing, None)
    refuses_source(raw, package, "pip install")


def test_34_pillow_below_the_tested_range(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL, "__version__", "9.3.0")
    result = prepare(raw)
    assert result.exit_code == 0
    assert "warning: Pillow 9.3.0" in result.stderr
    assert "10.4" in result.stderr
    assert [text for text in finished(raw.out)["warnings"] if "Pillow 9.3.0" in text]
    monkeypatch.setattr(PIL, "__version__", "10.4.0.dev0")
    assert "Pillow" not in prepare(raw, "--check").stderr


_CHECK = "import sys; from hiposeg_cli.app import main; sys.argv[0] = 'hiposeg'; main()"


def in_c_locale(raw: Raw) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", _CHECK, "prepare", raw.format, raw.root, raw.out, *raw.options, "--workers", 1]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    return subprocess.run([str(word) for word in arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["masks", "coco"])
def test_34_text_files_in_a_locale_without_utf_8(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    taxonomy = tmp_path / "toy.yaml"
    taxonomy.write_text(taxonomy.read_text().replace("window", "fen\u00eatre"), encoding="utf-8")
    if name == "coco":
        raw.label.write_text(
            json.dumps(coco_data(names=("wheel", "fen\u00eatre", "sky")), ensure_ascii=False), encoding="utf-8"
        )
    result = in_c_locale(raw)
    assert "Traceback" not in result.stderr
    assert result.returncode == 0, result.stderr
    assert "fen\u00eatre" in (raw.out / "hierarchy.yaml").read_text(encoding="utf-8")
    finished(raw.out)


def test_34_file_names_in_a_locale_without_utf_8(raw: Raw) -> None:
    for path in (raw.label, raw.photo):
        path.rename(path.with_name(path.name.replace("b", "b\u00fccher")))
    result = in_c_locale(raw)
    assert "Traceback" not in result.stderr
    assert result.returncode in (0, 2), result.stderr
