"""Taxonomy files: each mistake is refused with its line; valid ones survive dump and parse unchanged."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from drawn import WORDS, hierarchies
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import (
    ClassNode,
    Hierarchy,
    Level,
    SourceTable,
    fold,
    resolve_preset,
)
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy, parse_hierarchy

COARSE = ("{name: sky, kind: background, color: [1, 2, 3]}", "{name: animal, aliases: [beast]}")
FINE = ("{name: sky, parent: sky, kind: background}", "{name: head, parent: animal}", "{name: leg, parent: animal}")


def _text(
    fine: tuple[str, ...] = FINE,
    coarse: tuple[str, ...] = COARSE,
    *,
    levels: str = "[fine, coarse]",
    name: str = "toy",
    end: str = "",
) -> str:
    """The coarse classes start on line 6, the fine ones after `fine:`, with the default coarse ones on line 9."""
    lines = ["schema: hiposeg/hierarchy@1", f"name: {name}", f"levels: {levels}", "classes:", "  coarse:"]
    lines += [f"    - {item}" for item in coarse]
    lines += ["  fine:", *(f"    - {item}" for item in fine)]
    return "\n".join([*lines, end]) + "\n"


def _refusal(text: str) -> str:
    with pytest.raises(HierarchyError) as caught:
        parse_hierarchy(text, "toy.yaml")
    return str(caught.value)


# -- one case by hand --------------------------------------------------------------------------------------------------


def test_parsed_by_hand() -> None:
    toy = parse_hierarchy(_text(end="sources: {masks: {map: {3: leg, 4: {coarse: animal}, 9: ignore}, ignore: [255]}}"))
    assert (toy.name, toy.n_fine, toy.n_coarse) == ("toy", 3, 2)
    assert toy.fine.names == ["sky", "head", "leg"]
    assert toy.parent.tolist() == [0, 1, 1]
    assert toy.children(1) == [1, 2]
    assert toy.background == 0
    assert toy.coarse.find("BEAST") == 1
    assert toy.coarse.find("plant") is None
    assert toy.coarse.colors().tolist() == [[1, 2, 3], [128, 0, 0]]  # the second is the VOC colour of id 1
    assert toy.source("masks") == SourceTable(
        {3: "leg", 4: {"coarse": "animal"}, 9: "ignore"}, (255,), "object-only", "background"
    )
    with pytest.raises(HierarchyError, match=r"says nothing about the format 'coco' \(it has: masks\)"):
        toy.source("coco")


def test_explicit_ids_order_the_classes() -> None:
    toy = parse_hierarchy(_text(("{id: 1, name: leg, parent: animal}", "{id: 0, name: sky, parent: sky}")))
    assert toy.fine.names == ["sky", "leg"]
    assert [node.id for node in toy.fine.nodes] == [0, 1]


def test_levels_may_state_their_ignore_value() -> None:
    stated = _text(levels="[{name: fine, ignore_index: 255}, {name: coarse, ignore_index: 255}]")
    assert parse_hierarchy(stated) == parse_hierarchy(_text())
    many = tuple(f"{{name: c{k}, parent: sky}}" for k in range(255))
    wide = parse_hierarchy(_text(many, ("sky",), levels="[{name: fine, ignore_index: 65535}, coarse]"))
    assert wide.n_fine == 255
    assert "write 65535" in _refusal(_text(many, ("sky",), levels="[{name: fine, ignore_index: 255}, coarse]"))


def test_mirror_self_says_that_a_class_stays() -> None:
    fine = ("{name: wing, parent: animal, mirror: self}", "{name: sky, parent: sky}")
    toy = parse_hierarchy(_text(fine))
    assert toy.fine.nodes[0].mirror is None
    assert toy.fine.mirror_ids().tolist() == [0, 1]


def test_three_levels_look_up_every_ancestor() -> None:
    text = """
schema: hiposeg/hierarchy@1
name: street
levels: [fine, coarse, realm]
classes:
  realm: [ground, object]
  coarse:
    - {name: vehicle, parent: object}
    - {name: flat, parent: ground}
    - {name: pole, parent: object}
  fine:
    - {name: road, parent: flat}
    - {name: car, parent: vehicle}
    - {name: walk, parent: flat}
    - {name: bus, parent: vehicle}
"""
    street = parse_hierarchy(text)
    assert street.fine.names == ["road", "car", "walk", "bus", "pole"]
    assert street.fine.nodes[4].implicit
    assert street.ancestors(0).tolist() == [0, 1, 2, 3, 4]
    assert street.ancestors(1).tolist() == [1, 0, 1, 0, 2]
    assert street.ancestors(2).tolist() == [0, 1, 0, 1, 1]


def test_ragged_branches_are_padded_down_to_the_finest_level() -> None:
    text = """
schema: hiposeg/hierarchy@1
name: ragged
levels: [fine, coarse, top]
classes:
  top: [{name: void, kind: background, color: [7, 8, 9]}, thing]
  coarse: [{name: animal, parent: thing}]
  fine: [{name: head, parent: animal}]
"""
    ragged = parse_hierarchy(text)
    assert [level.names for level in ragged.levels] == [["head", "void"], ["animal", "void"], ["void", "thing"]]
    assert [node.implicit for level in ragged.levels for node in level.nodes] == [False, True, False, True, False, False]
    assert ragged.fine.nodes[1].color == (7, 8, 9)
    assert ragged.background == 1
    assert ragged.ancestors(2).tolist() == [1, 0]
    assert parse_hierarchy(dump_hierarchy(ragged)) == ragged


def test_a_padded_copy_may_not_repeat_a_name_of_the_level_below() -> None:
    """Childless `tree` is copied down to the fine level, where `tree` is already a part of something else."""
    message = _refusal(_text(("{name: head, parent: animal}", "{name: tree, parent: animal}"), ("animal", "tree")))
    assert "'tree'" in message


def test_padded_copies_keep_the_mirror_of_their_classes() -> None:
    """Flipping an image must exchange the padded copies just as it exchanges the classes they stand for."""
    hands = parse_hierarchy(_text(("{name: head, parent: a}",), ("a", "{name: l, mirror: r}", "{name: r, mirror: l}")))
    fine_swap, coarse_swap = hands.fine.mirror_ids(), hands.coarse.mirror_ids()
    assert hands.parent[fine_swap].tolist() == coarse_swap[hands.parent].tolist()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_text().replace("name: toy", "nmae: toy"), ("toy.yaml:2:", "unknown key 'nmae'", "did you mean 'name'?")),
        (_text(("{name: a, parent: sky, colour: [1, 1, 1]}",)), ("toy.yaml:9:", "'colour'", "did you mean 'color'?")),
        (_text(end="sources: {masks: {map: {1: leg}, ignroe: [1]}}"), ("toy.yaml:12:", "did you mean 'ignore'?")),
        (_text().replace("  fine:", "  fein:"), ("toy.yaml:8:", "unknown level 'fein'", "did you mean 'fine'?")),
        (_text().replace("@1", "@2"), ("toy.yaml:1:", "hiposeg/hierarchy@2", "hiposeg/hierarchy@1")),
        (_text(end="structure: dag"), ("toy.yaml:12:", "`axes`")),
        (_text(end="structure: graph"), ("toy.yaml:12:", "'graph'", "tree", "dag")),
        (_text(end="axes: [a]"), ("toy.yaml:12:", "structure: dag")),
        (_text(("{name: a, parent: sky, axis: x}",)), ("toy.yaml:9:", "this is a tree")),
        (_text(end="remove: {fine: [leg]}"), ("toy.yaml:12:", "needs `extends`")),
        (_text(levels="[{name: fine, ignore_index: 254}, coarse]"), ("toy.yaml:3:", "254", "write 255")),
        (_text(levels="[{name: fine, ignore_index: 65535}, coarse]"), ("toy.yaml:3:", "'fine'", "write 255")),
        (_text(levels="[{name: fine, ignore_idx: 255}, coarse]"), ("toy.yaml:3:", "did you mean 'ignore_index'?")),
        (_text(levels="[fine]"), ("toy.yaml:3:", "at least two levels")),
        (_text(levels="[fine, fine]"), ("toy.yaml:3:", "different")),
        (_text(levels="[fine, '..']"), ("toy.yaml:3:", "'..' is no name for a level")),
        (_text(("{name: a}",)), ("toy.yaml:9:", "'a' has no parent")),
        (_text(("{name: a, parent: plant}",)), ("toy.yaml:9:", "unknown parent 'plant'")),
        (_text(("{name: a, parent: animl}",)), ("toy.yaml:9:", "did you mean 'animal'?")),
        (_text(("{name: a, parent: a}",)), ("toy.yaml:9:", "a -> a", "level 'coarse'")),
        (_text(("{name: a, parent: b}", "{name: b, parent: a}")), ("toy.yaml:9:", "cycle", "a -> b -> a")),
        (_text(("{name: c, parent: a}", "{name: a, parent: b}", "{name: b, parent: a}")), ("cycle", "c -> a -> b -> a")),
        (_text(("{name: a, parent: b}", "{name: b, parent: sky}")), ("toy.yaml:9:", "own level")),
        (_text(("{name: a, parent: [sky, animal]}",)), ("toy.yaml:9:", "2 parents")),
        (_text(coarse=("{name: sky, parent: sky}",)), ("toy.yaml:6:", "cannot have a parent")),
        (_text(("{name: Leg, parent: animal}", "{name: leg, parent: animal}")), ("toy.yaml:10:", "'Leg'", "share the name")),
        (_text(("{name: ca\u00f1a, parent: sky}", "{name: can\u0303a, parent: sky}")), ("toy.yaml:10:", "share the name")),
        (_text(("{name: STRASSE, parent: sky}", "{name: stra\u00dfe, parent: sky}")), ("toy.yaml:10:", "share the name")),
        (_text(("{id: 0, name: a, parent: sky}", "{id: 2, name: b, parent: sky}")), ("toy.yaml:8:", "not 0..1", "id 1")),
        (_text(("{id: 1, name: a, parent: sky}", "{id: 1, name: b, parent: sky}")), ("toy.yaml:8:", "not 0..1")),
        (_text(("{id: -1, name: a, parent: sky}",)), ("toy.yaml:9:", "has id -1")),
        (_text(("{name: a, parent: sky, mirror: z}",)), ("toy.yaml:9:", "mirrors unknown 'z'")),
        (_text(("{name: a, parent: sky, mirror: b}", "{name: b, parent: sky}")), ("toy.yaml:9:", "mutual")),
        (
            _text(tuple(f"{{name: {a}, parent: sky, mirror: {b}}}" for a, b in ("ab", "bc", "cb"))),
            ("toy.yaml:9:", "'a' mirrors 'b', which mirrors 'c'"),
        ),
        (_text(("{name: a, parent: sky, kind: stuf}",)), ("toy.yaml:9:", "did you mean 'stuff'?")),
        (_text(("{name: a, parent: sky, color: [0, 0, 256]}",)), ("toy.yaml:9:", "256")),
        (_text(("{name: a, parent: sky, color: [0, 0]}",)), ("toy.yaml:9:", "three numbers")),
        (_text(('{name: " ", parent: sky}',)), ("toy.yaml:9:", "empty")),
        (_text(('{name: "a\\nb", parent: sky}',)), ("toy.yaml:9:", "control characters")),
        (_text(end="sources: {masks: {map: {1: legg}}}"), ("toy.yaml:12:", "fine class 'legg'", "did you mean 'leg'?")),
        (_text(end="sources: {masks: {map: {1: {coarse: leg}}}}"), ("toy.yaml:12:", "coarse class 'leg'")),
        (_text(end="sources: {p: {map: {cow: {'?leg': leg, tail: tial}}}}"), ("toy.yaml:12:", "fine class 'tial'")),
        (_text(end="sources:\n  masks:\n    ignore: [1]"), ("toy.yaml:13:", "needs a `map`")),
        (_text(end="sources: {masks: {map: {1: leg}, ignore: 255}}"), ("toy.yaml:12:", "`ignore` must list")),
        (_text(end="sources: {masks: {map: {1: leg}, uncovered: void}}"), ("toy.yaml:12:", "'void'", "background")),
        (_text(end="sources: {masks: {map: {1: leg}}}\nsources: {}"), ("toy.yaml:13:", "duplicate key", "line 12")),
        ("- a\n", ("toy.yaml:", "top level")),
        ("", ("toy.yaml:", "not a hierarchy file")),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_line_reason_and_cure(text: str, expected: tuple[str, ...]) -> None:
    message = _refusal(text)
    for part in expected:
        assert part in message


@pytest.mark.parametrize("key", ["uncovered", "unlabelled"])
def test_background_as_a_target_needs_a_background_class(key: str) -> None:
    fine, coarse = ("{name: leg, parent: animal}",), ("animal",)
    end = f"sources: {{masks: {{map: {{1: leg}}, {key}: background}}}}"
    assert f"`{key}: background` but no class has `kind: background`" in _refusal(_text(fine, coarse, end=end))
    with_background = parse_hierarchy(_text(end=end))
    assert getattr(with_background.source("masks"), key) == "background"


@pytest.mark.parametrize("text", ["no", "12:30", "12"])
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda word: _text(name=word), 2),
        (lambda word: _text(levels=f"[{word}, coarse]"), 3),
        (lambda word: _text(coarse=(word, "sky", "animal")), 6),
        (lambda word: _text((f"{{name: {word}, parent: sky}}",)), 9),
        (lambda word: _text((f"{{name: a, parent: {word}}}",)), 9),
        (lambda word: _text((f"{{name: a, parent: sky, mirror: {word}}}",)), 9),
        (lambda word: _text((f"{{name: a, parent: sky, aliases: [{word}]}}",)), 9),
        (lambda word: _text(end=f"sources: {{masks: {{map: {{1: {word}}}}}}}"), 12),
    ],
    ids=["hierarchy", "level", "bare", "name", "parent", "mirror", "alias", "target"],
)
def test_names_yaml_retypes_are_refused_with_line_and_quoted_form(make: Callable[[str], str], line: int, text: str) -> None:
    message = _refusal(make(text))
    assert message.startswith(f"toy.yaml:{line}:")
    assert f'"{text}"' in message


@pytest.mark.parametrize("text", ["null", "~"])
def test_a_name_read_as_nothing_is_refused(text: str) -> None:
    message = _refusal(_text((f"{{name: {text}, parent: sky}}",)))
    assert message.startswith("toy.yaml:9:")
    assert f'"{text}"' in message


def test_quoted_words_are_names() -> None:
    toy = parse_hierarchy(_text(('{name: "no", parent: sky, aliases: ["12:30"]}', '{name: "08", parent: animal}')))
    assert toy.fine.names == ["no", "08"]
    assert toy.fine.find("12:30") == 0


def test_the_same_name_on_two_levels_is_allowed() -> None:
    assert parse_hierarchy(_text()).fine.nodes[0].parent == "sky"


@pytest.mark.parametrize("swap", [False, True])
def test_an_alias_may_not_be_the_name_of_another_class_in_either_order(swap: bool) -> None:
    fine = ("{name: leg, parent: animal}", "{name: limb, parent: animal, aliases: [LEG]}")
    assert "share the name" in _refusal(_text(fine[::-1] if swap else fine))


def test_two_classes_may_not_share_an_alias() -> None:
    fine = ("{name: leg, parent: animal, aliases: [x]}", "{name: arm, parent: animal, aliases: [X]}")
    assert "share the name 'x'" in _refusal(_text(fine))


def test_mirrored_classes_need_parents_that_mirror_as_well() -> None:
    """Otherwise flipping an image makes coarse differ from the parent of fine."""
    coarse = ("a", "b")
    fine = ("{name: l, parent: a, mirror: r}", "{name: r, parent: b, mirror: l}")
    with pytest.raises(HierarchyError, match="mirror"):
        parse_hierarchy(_text(fine, coarse))


def test_aliases_of_parents_become_the_parents_name() -> None:
    toy = parse_hierarchy(_text(("{name: leg, parent: Beast}", "{name: sky, parent: SKY}")))
    assert [node.parent for node in toy.fine.nodes] == ["animal", "sky"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 12), st.text(" \n:{}[],'\"-#~ab01no", max_size=6))
def test_any_damage_to_a_file_is_read_or_refused_in_words(start: int, length: int, patch: str) -> None:
    text = _text(end="sources: {masks: {map: {3: leg, 4: {coarse: animal}}, ignore: [255], uncovered: background}}")
    damaged = text[:start] + patch + text[start + length :]
    try:
        tree = parse_hierarchy(damaged, "toy.yaml")
    except HierarchyError as error:
        assert str(error).startswith("toy.yaml")  # noqa: PT017 - some damage leaves a valid file
    else:
        assert tree.n_fine >= tree.n_coarse >= 1


# -- dump, parse, digest -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(hierarchies())
def test_dump_then_parse_gives_an_equal_hierarchy(tree: Hierarchy) -> None:
    again = parse_hierarchy(dump_hierarchy(tree))
    assert again == tree
    assert again.digest == tree.digest
    assert dump_hierarchy(again) == dump_hierarchy(tree)


def test_a_source_with_an_empty_map_survives_dump_and_parse() -> None:
    toy = parse_hierarchy(_text(end="sources: {masks: {map: {}, ignore: [1]}}"))
    assert parse_hierarchy(dump_hierarchy(toy)) == toy


@settings(max_examples=40, deadline=None)
@given(hierarchies())
def test_look_ups_agree_with_following_names(tree: Hierarchy) -> None:
    for depth in range(len(tree.levels)):
        for node in tree.fine.nodes:
            walked = node
            for level in tree.levels[1 : depth + 1]:
                (walked,) = [other for other in level.nodes if other.name == walked.parent]
            assert tree.ancestors(depth)[node.id] == walked.id
    assert sorted(k for c in range(tree.n_coarse) for k in tree.children(c)) == list(range(tree.n_fine))


@settings(max_examples=40, deadline=None)
@given(hierarchies())
def test_mirroring_twice_changes_nothing(tree: Hierarchy) -> None:
    for level in tree.levels:
        swap = level.mirror_ids()
        assert np.array_equal(swap[swap], np.arange(len(level)))


@settings(max_examples=40, deadline=None)
@given(WORDS, WORDS)
def test_names_that_fold_alike_are_the_same_name(first: str, second: str) -> None:
    assume(fold(first) != fold(second))
    level = Level("fine", (ClassNode(0, first, (0, 0, 0)), ClassNode(1, second, (0, 0, 0))))
    assert level.find(unicodedata.normalize("NFD", first)) == 0
    assert level.find(unicodedata.normalize("NFC", second).upper().lower()) in (1, None)  # not every case pair is mutual
    assert level.find(second.casefold()) == 1


@pytest.mark.parametrize("char", ["\x7f", "\x85", "\u2028", "\ud800", "\ufffe"])
def test_a_name_that_cannot_be_written_back_is_refused(char: str) -> None:
    """Either the name is refused, or it survives being stored with a dataset."""
    text = _text((f"{{name: {json.dumps('a' + char + 'b')}, parent: sky}}",))
    try:
        tree = parse_hierarchy(text, "toy.yaml")
    except HierarchyError as error:
        assert "toy.yaml:9" in str(error)  # noqa: PT017 - refusing and keeping are both right
        return
    again = parse_hierarchy(dump_hierarchy(tree).encode().decode())
    assert again.fine.names == tree.fine.names
    assert again.digest == tree.digest


def test_digest_follows_names_and_parents_but_not_looks() -> None:
    toy = parse_hierarchy(_text())
    painted = parse_hierarchy(_text().replace("[1, 2, 3]", "[9, 9, 9]").replace("[beast]", "[brute]"))
    assert painted != toy
    assert painted.digest == toy.digest
    renamed = parse_hierarchy(_text((*FINE[:2], "{name: foot, parent: animal}")))
    moved = parse_hierarchy(_text((*FINE[:2], "{name: leg, parent: sky}")))
    swapped = parse_hierarchy(_text((FINE[0], FINE[2], FINE[1])))
    relevelled = replace(toy, levels=(replace(toy.fine, name="parts"), toy.coarse))
    assert len({h.digest for h in (toy, renamed, moved, swapped, relevelled)}) == 5


def test_require_same_names_the_first_difference() -> None:
    toy = parse_hierarchy(_text())
    toy.require_same(parse_hierarchy(_text(name="other")), mine="a", theirs="b")  # the tree alone counts
    renamed = parse_hierarchy(_text((FINE[0], "{name: face, parent: animal}", "{name: foot, parent: animal}")))
    with pytest.raises(HierarchyError) as caught:
        toy.require_same(renamed, mine="run.safetensors", theirs="data/prepared")
    message = str(caught.value)
    assert message.startswith("data/prepared: was made with another hierarchy than run.safetensors")
    assert "fine class 1 is 'face' (parent 'animal'), not 'head'" in message
    assert "foot" not in message
    with pytest.raises(HierarchyError, match="2 fine classes, not 3"):
        toy.require_same(parse_hierarchy(_text(FINE[:2])), mine="a", theirs="b")
    with pytest.raises(HierarchyError, match=r"'leg' .parent 'sky'., not 'leg' .'animal'."):
        toy.require_same(parse_hierarchy(_text((*FINE[:2], "{name: leg, parent: sky}"))), mine="a", theirs="b")


def test_require_same_names_a_renamed_level() -> None:
    """The message used to read "2 levels (toy), not 2 (toy)"."""
    toy = parse_hierarchy(_text())
    relevelled = replace(toy, levels=(replace(toy.fine, name="parts"), toy.coarse))
    with pytest.raises(HierarchyError, match=r"'?parts'?.* not '?fine'?"):
        toy.require_same(relevelled, mine="a", theirs="b")


# -- files -------------------------------------------------------------------------------------------------------------


def test_unknown_preset_and_missing_file_are_refused() -> None:
    with pytest.raises(HierarchyError, match=r"did you mean 'cityscapes-19-7'\?"):
        resolve_preset("cityscapes-19-8")
    with pytest.raises(HierarchyError, match="no such hierarchy file"):
        load_hierarchy("nowhere/tree.yaml")
