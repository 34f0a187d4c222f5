"""`hiposeg hierarchy ...` as a user meets it: what is printed, written and refused, and the exit codes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import command_line
import pytest
from command_line import data_of, refused

from hiposeg_cli.hierarchy_yaml import load_hierarchy, load_taxonomy, parse_hierarchy
from hiposeg_cli.registry import BUILDERS

run = partial(command_line.run, "hierarchy")
CARS = "car\n  left door\n  right door\n  wheel\nsky\n"
DAG = """schema: hiposeg/hierarchy@1
name: parts
structure: dag
axes: [object, part_type]
levels: [fine, coarse]
classes:
  coarse: [{name: car, axis: object}, {name: bus, axis: object}, {name: wheels, axis: part_type}]
  fine: [{name: car wheel, parent: [car, wheels]}, {name: bus wheel, parent: [bus, wheels]}]
"""


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    path = tmp_path / "cars.txt"
    path.write_text(CARS, encoding="utf-8")
    return path


@pytest.fixture
def dag(tmp_path: Path) -> Path:
    path = tmp_path / "parts.yaml"
    path.write_text(DAG, encoding="utf-8")
    return path


def test_show_draws_the_tree_with_its_counts() -> None:
    lines = run("show", "cityscapes-19-7").stdout.splitlines()
    assert lines[0].strip() == "cityscapes-19-7 (19 fine, 7 coarse)"
    assert "├── ■ 0 flat (2 fine, stuff)" in [line.rstrip() for line in lines]
    assert sum("■" in line for line in lines) == 26
    assert any("└── ■ 18 bicycle (thing)" in line for line in lines)


def test_show_json_counts_children() -> None:
    data = data_of(run("show", "cityscapes-19-7", "--json"))
    assert (data["name"], data["structure"], data["levels"]) == ("cityscapes-19-7", "tree", {"fine": 19, "coarse": 7})
    assert data["digest"] == load_hierarchy("cityscapes-19-7").digest
    assert {entry["name"]: entry["children"] for entry in data["classes"]["coarse"]} == {
        "flat": 2, "construction": 3, "object": 3, "nature": 2, "sky": 1, "human": 2, "vehicle": 6,
    }  # fmt: skip
    assert data["classes"]["fine"][0]["parents"] == ["flat"]


def test_show_and_check_a_dag_without_a_projection(dag: Path) -> None:
    tree = run("show", dag).stdout
    assert tree.index("axis object") < tree.index("axis part_type")
    assert tree.count("car wheel") == 2
    result = run("check", dag)
    assert result.exit_code == 0
    assert "parts: valid, 2 fine, 3 coarse classes" in result.stdout
    assert "note: no `projection`" in result.stdout
    assert data_of(run("check", dag, "--json"))["axes"] == ["object", "part_type"]
    for to in ("graphml", "dot", "mermaid", "json"):
        assert run("convert", dag, "--to", to).exit_code == 0


def test_prepare_refuses_a_dag_without_a_projection_and_says_the_cure(dag: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    arguments = ["prepare", "masks", str(tmp_path / "raw"), str(tmp_path / "out"), "--hierarchy", str(dag)]
    refused(command_line.run(*arguments), "parts.yaml: is a DAG", "add `projection: object`")


def test_check_says_what_is_wrong_in_which_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(DAG.replace("parent: [car, wheels]", "parent: [van, wheels]"), encoding="utf-8")
    refused(run("check", path), "bad.yaml:8: 'car wheel' has unknown parent 'van'")
    refused(run("check", tmp_path / "none.yaml"), "no such hierarchy file")


@pytest.mark.parametrize("name", ["pascal-part-58", "float-parts", "coco-panoptic-133-27"])
def test_shipped_taxonomies_are_valid(name: str) -> None:
    result = run("check", name)
    assert result.exit_code == 0, result.output
    assert f"{name}: valid" in result.stdout


def test_build_prints_a_file_that_check_accepts(cars: Path, tmp_path: Path) -> None:
    text = run("build", "text", cars).stdout
    assert text.startswith("# 4 fine, 2 coarse classes, built by `hiposeg hierarchy build text`")
    tree = parse_hierarchy(text)
    assert tree.name == "cars"
    assert tree.fine.nodes[0].mirror == "right door"
    out = tmp_path / "cars.yaml"
    result = run("build", "text", cars, "--out", out, "--name", "mine", "--no-mirror")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"wrote {out}" in result.stderr
    built = load_hierarchy(out)
    assert (built.name, built.fine.nodes[0].mirror) == ("mine", None)
    assert run("check", out).exit_code == 0
    assert data_of(run("build", "text", cars, "--json"))["yaml"] == text


def test_nothing_is_overwritten_unless_asked(cars: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    out.write_text("mine", encoding="utf-8")
    refused(run("build", "text", cars, "--out", out), "out.yaml: exists", "--overwrite")
    refused(run("convert", "wbc-3-2", "--to", "dot", "--out", out), "exists")
    assert out.read_text(encoding="utf-8") == "mine"
    assert run("build", "text", cars, "--out", out, "--overwrite").exit_code == 0
    assert load_hierarchy(out).n_fine == 4
    refused(run("build", "text", cars, "--out", tmp_path), "is a folder")


def test_build_refusals(cars: Path, tmp_path: Path) -> None:
    refused(run("build", "txt", cars), "kind of source 'txt': is unknown", "did you mean 'text'?")
    refused(run("build", "text", tmp_path / "none"), "no such file or folder", "indented")
    refused(run("build", "text", cars, "--levels", "3"), "--levels: does not apply to text")
    refused(run("build", "coco", cars), "broken JSON")


def test_help_of_build_names_every_kind() -> None:
    text = run("build", "--help").stdout
    for kind in BUILDERS.names():
        assert kind in text


def test_diff_says_what_differs_and_exits_with_1(cars: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert run("build", "text", cars, "--out", first).exit_code == 0
    cars.write_text(CARS.replace("  wheel", "  wheel\n  roof"), encoding="utf-8")
    assert run("build", "text", cars, "--out", second, "--name", "b").exit_code == 0
    same = run("diff", first, first)
    assert (same.exit_code, same.stdout) == (0, "no difference\n")
    result = run("diff", first, second)
    assert result.exit_code == 1
    assert "fine: added roof (below car)" in result.stdout
    assert "fine: sky: id 3 -> 4" in result.stdout
    data = data_of(run("diff", first, second, "--json"))
    assert data["equal"] is False
    assert data["levels"][0]["changes"][0] == {"name": "roof", "what": "added", "old": None, "new": "car"}
    refused(run("diff", first, tmp_path / "none.yaml"), "no such hierarchy file")


@pytest.mark.parametrize("to", ["graphml", "json"])
def test_convert_and_build_give_the_taxonomy_back(tmp_path: Path, to: str) -> None:
    out, back = tmp_path / f"demo.{to}", tmp_path / "demo.yaml"
    assert run("convert", "demo", "--to", to, "--out", out).exit_code == 0
    assert run("build", to, out, "--out", back).exit_code == 0
    assert load_taxonomy(back) == load_taxonomy("demo")
    assert run("diff", "demo", back).exit_code == 0


def test_convert_prints_and_refuses_formats() -> None:
    assert run("convert", "demo", "--to", "mermaid").stdout.startswith("flowchart LR\n")
    assert run("show", "demo", "--as", "dot").stdout.startswith('digraph "demo" {')
    assert data_of(run("convert", "demo", "--to", "dot", "--json"))["format"] == "dot"
    refused(run("convert", "demo", "--to", "graphviz"), "--to graphviz: is no graph format")
    refused(run("convert", "dem", "--to", "dot"), "did you mean 'demo'?")


def test_plot_writes_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is the extra `plot`")
    for name, head in {"tree.png": b"\x89PNG", "deep/tree.svg": b"<?xml"}.items():
        assert run("plot", "wbc-3-2", "--out", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_bytes().startswith(head)
    refused(run("plot", "wbc-3-2", "--out", tmp_path / "tree.png"), "exists")
    refused(run("plot", "wbc-3-2", "--out", tmp_path / "tree.jpg"), "neither a .png nor a .svg")
    assert run("plot", "wbc-3-2", "--out", tmp_path / "tree.png", "--overwrite").exit_code == 0
    assert data_of(run("plot", "wbc-3-2", "--out", tmp_path / "b.png", "--json")) == {"out": str(tmp_path / "b.png")}


def test_showing_and_building_imports_neither_torch_nor_matplotlib(cars: Path) -> None:
    code = (
        "import sys; sys.argv = ['hiposeg', *sys.argv[1:]]\n"
        "from hiposeg_cli.app import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'matplotlib', 'cityscapesscripts'} & set(sys.modules), 'imported early'"
    )
    for arguments in (["show", "wbc-3-2"], ["build", "text", str(cars)]):
        result = subprocess.run([sys.executable, "-c", code, "hierarchy", *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
