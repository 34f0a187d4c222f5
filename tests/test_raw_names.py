"""Raw names against a source table: exact before glob, ambiguity refused, and the table of a taxonomy's own names."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import Hierarchy, SourceTable, fold
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.raw_names import by_name, match_name

TABLE = {"wing": "exact", "?wing": "side", "wheel_*": "wheel", "[lr]eye": "eye", "Head": "head", 7: "seven"}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("wing", "exact"),
        ("lwing", "side"),
        ("LWING", "side"),
        ("wheel_3", "wheel"),
        ("Wheel_12", "wheel"),
        ("wheel", None),
        ("reye", "eye"),
        ("xeye", None),
        ("HEAD", "head"),
        ("7", "seven"),
        ("tail", None),
        ("", None),
    ],
)
def test_exact_name_then_the_one_glob(name: str, entry: str | None) -> None:
    assert match_name(TABLE, name, "toy") == entry


def test_an_exact_name_wins_over_globs_that_also_match() -> None:
    assert match_name({"*": 1, "l*": 2, "leg": 3}, "leg", "toy") == 3
    assert match_name({"*": 1, "l*": 2, "LEG": 3}, "leg", "toy") == 3


def test_the_same_letters_written_in_two_ways_are_one_name() -> None:
    decomposed = unicodedata.normalize("NFD", "caña")
    assert match_name({"caña": 1}, decomposed, "toy") == 1
    assert match_name({decomposed + "*": 1}, "CAÑA_2", "toy") == 1


def test_two_globs_are_an_error_naming_both() -> None:
    with pytest.raises(HierarchyError, match=r"toy.yaml: 'lwing' matches both '\?wing' and 'l\*'"):
        match_name({"?wing": 1, "l*": 2}, "lwing", "toy.yaml")


def test_two_keys_equal_up_to_case_are_an_error_unless_one_is_written_exactly_so() -> None:
    table = {"Leg": 1, "leg": 2}
    assert (match_name(table, "Leg", "toy"), match_name(table, "leg", "toy")) == (1, 2)
    with pytest.raises(HierarchyError, match="'LEG' matches both 'Leg' and 'leg'"):
        match_name(table, "LEG", "toy")


NAMED = """
schema: hiposeg/hierarchy@1
name: toy
levels: [fine, coarse]
classes:
  coarse:
    - {name: void, kind: background}
    - {name: Car, aliases: [auto, WHEEL]}
    - {name: sky}
  fine:
    - {name: nothing, parent: void, kind: background}
    - {name: wheel, parent: car, aliases: [tyre]}
    - {name: "what?", parent: car}
"""


def test_by_name_by_hand() -> None:
    table = by_name(parse_hierarchy(NAMED))
    assert table == SourceTable(
        map={
            "nothing": "nothing", "wheel": "wheel", "tyre": "wheel", "what[?]": "what?", "sky": "sky",
            "void": {"coarse": "void"}, "Car": {"coarse": "Car"}, "auto": {"coarse": "Car"},
            "__ignore__": "ignore", "_background_": "nothing",
        },
        unlabelled="background",
    )  # fmt: skip
    assert match_name(table.map, "what?", "toy") == "what?"
    assert match_name(table.map, "whats", "toy") is None


def test_by_name_without_a_background_ignores_what_nobody_drew() -> None:
    table = by_name(parse_hierarchy(NAMED.replace(", kind: background", "")))
    assert (table.unlabelled, "_background_" in table.map) == ("ignore", False)


@given(st.sampled_from(["wheel", "tyre", "what?", "nothing", "sky"]), st.booleans())
def test_every_fine_spelling_finds_its_class(name: str, upper: bool) -> None:
    tree: Hierarchy = parse_hierarchy(NAMED)
    found = match_name(by_name(tree).map, name.upper() if upper else name, "toy")
    assert tree.fine.find(str(found)) == tree.fine.find(name)
    assert fold(str(found)) in [fold(node.name) for node in tree.fine.nodes]
