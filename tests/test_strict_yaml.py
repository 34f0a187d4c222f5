"""Strict YAML: every surprise of the format is refused with its line, everything else reads as JSON would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli import strict_yaml
from hiposeg_cli.errors import ConfigError
from hiposeg_cli.strict_yaml import MAX_DEPTH, Mapping, Retyped, load_yaml, parse_yaml, plain

TEXT = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
# Characters with a meaning in YAML, so that short random texts reach the odd corners of the grammar.
SYNTAX = st.text(" \n\t-:{}[],&*!'\"#ab01289_.x~|>%@?e+<=", max_size=30)


def _refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "file.yaml")
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_json_reads_as_the_json_reader_does(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert plain(parse_yaml(text, "file.yaml")) == json.loads(text)


@settings(max_examples=60, deadline=None)
@given(SYNTAX)
def test_any_text_parses_or_is_refused_in_words(text: str) -> None:
    try:
        parse_yaml(text, "file.yaml")
    except ConfigError as error:
        assert str(error).startswith("file.yaml")  # noqa: PT017 - most texts are fine, so nothing need be raised


def test_values_by_hand() -> None:
    text = "a: 12\nb: -3\nc: 0.25\nd: word\ne: [x, 2]\nf:\n  g: '5'\n"
    value = parse_yaml(text, "file.yaml")
    assert value == {"a": 12, "b": -3, "c": 0.25, "d": "word", "e": ["x", 2], "f": {"g": "5"}}
    assert type(value["a"]) is int
    assert isinstance(value["f"], Mapping)
    assert value.lines == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
    assert value["f"].lines == {"g": 7}


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a: 1\nb: 2\na: 3\n", 1, 3),
        ("top:\n  x: 1\n\n  x: 1\n", 2, 4),
        ("list:\n- {k: 1,\n   k: 2}\n", 2, 3),
        ('a: 1\n"a": 2\n', 1, 2),
        ("7: 1\n7: 2\n", 1, 2),
    ],
)
def test_duplicate_key_names_both_lines(text: str, first: int, second: int) -> None:
    message = _refusal(text)
    assert message.startswith(f"file.yaml:{second}: duplicate key")
    assert f"first on line {first}" in message


def test_a_number_and_its_text_are_two_keys() -> None:
    assert parse_yaml('7: a\n"7": b\n', "file.yaml") == {7: "a", "7": "b"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &x 1\n", 1),
        ("a: 1\nb: &x [1]\n", 2),
        ("a: 1\n\nb: &x {c: 1}\n", 3),
        ("b: &x 1\nc: *x\n", 1),
        ("a: 1\nb: *x\n", 2),
    ],
)
def test_anchors_and_aliases_are_refused_with_their_line(text: str, line: int) -> None:
    message = _refusal(text)
    assert message.startswith(f"file.yaml:{line}:")
    assert "anchors and aliases" in message


def test_anchor_bomb_is_refused_unexpanded() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert "file.yaml:1:" in _refusal(bomb)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/name:os.system x",
        "!!python/object/apply:os.system [echo]",
        "!!python/tuple [1, 2]",
        "!!python/object:os.Thing {a: 1}",
        "!local x",
        "!local [x]",
        "!local {x: 1}",
        "!!binary aGk=",
        "!!set {x}",
    ],
)
def test_tags_are_refused_with_their_line(value: str) -> None:
    message = _refusal(f"a: 1\nb: {value}\n")
    assert message.startswith("file.yaml:2:")
    assert "tag" in message


def test_a_tag_cannot_smuggle_yaml_inside_a_string() -> None:
    """`!!int` around quoted text used to be parsed again, aliases included."""
    assert "file.yaml:2:" in _refusal("a: 1\nb: !!int '[&x [1, 1], *x, *x]'\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", False), ("off", False), ("on", True), ("yes", True), ("true", True), ("1_000", 1000), ("12:30", 750),
        ("010", 8), ("0x1F", 31), ("~", None), ("null", None), (".5", 0.5), ("+5", 5),
    ],
)  # fmt: skip
def test_retyped_words_keep_their_text_and_line(text: str, value: object) -> None:
    read = parse_yaml(f"a: 1\nb: {text}\n", "file.yaml")["b"]
    assert isinstance(read, Retyped)
    assert (read.text, read.line, repr(read)) == (text, 2, text)
    assert plain(read) == value
    assert plain(read) == yaml.safe_load(text)


def test_a_date_is_retyped_and_keeps_its_text() -> None:
    read = parse_yaml("a: 2024-05-06\n", "file.yaml")["a"]
    assert isinstance(read, Retyped)
    assert read.text == "2024-05-06"


@pytest.mark.parametrize("text", ["08", "-09", "0o17", "1e5", "1.E3", ".5e1"])
def test_what_only_newer_yaml_reads_as_a_number_is_retyped(text: str) -> None:
    """PyYAML reads YAML 1.1, in which these are text; to most other tools they are the numbers of YAML 1.2."""
    assert isinstance(yaml.safe_load(text), str)
    read = parse_yaml(f"a: {text}\n", "file.yaml")["a"]
    assert isinstance(read, Retyped)
    assert (read.text, plain(read)) == (text, text)  # settings are converted by their own types
    for quoted in (f'"{text}"', f"'{text}'"):
        assert parse_yaml(f"a: {quoted}\n", "file.yaml") == {"a": text}


@pytest.mark.parametrize("text", ["08x", "1e", "e5", "0o8", "1.2.3", "0-8", "+"])
def test_words_with_digits_stay_text(text: str) -> None:
    assert parse_yaml(f"a: {text}\n", "file.yaml") == {"a": text}


@pytest.mark.parametrize("text", ["no", "off", "on", "yes", "1_000", "12:30", "010", "08", "1e5", "~", "null", "2024-05-06"])
def test_retyped_keys_are_refused_with_the_quoted_form(text: str) -> None:
    message = _refusal(f"a: 1\n{text}: 2\n")
    assert message.startswith("file.yaml:2:")
    assert f"the key {text} as" in message
    assert f'write "{text}"' in message


@pytest.mark.parametrize("text", ["no", "off", "1_000", "12:30", "08", "null", "2024-05-06"])
def test_quoting_makes_any_word_text(text: str) -> None:
    assert parse_yaml(f'"{text}": "{text}"\n', "file.yaml") == {text: text}


@pytest.mark.parametrize("text", ["2024-13-45", "0000-01-01", "2024-01-01 25:00:00", "0x_", "0b_", "9" * 5000])
def test_impossible_dates_and_numbers_are_no_traceback(text: str) -> None:
    """The stock constructor raises ValueError for these."""
    try:
        read = parse_yaml(f"a: 1\nb: {text}\n", "file.yaml")["b"]
    except ConfigError as error:
        assert "file.yaml:2" in str(error)  # noqa: PT017 - keeping the text is as good as refusing it
    else:
        assert repr(read) == text


@pytest.mark.parametrize("text", ["? [a]\n: 1\n", "1.5: a\n", "? {a: 1}\n: 1\n"])
def test_keys_are_text_or_whole_numbers(text: str) -> None:
    assert "file.yaml:1: a key must be text or a whole number" in _refusal(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a:\n\tb: 1\n", 2),
        ("a: [1, 2\n", 2),
        ("a: 'x\n", 2),
        ("a: 1\nb: x: y\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\nb\n", 3),
    ],
)
def test_broken_yaml_names_the_line(text: str, line: int) -> None:
    assert _refusal(text).startswith(f"file.yaml:{line}: is not valid YAML")


def test_control_characters_are_refused() -> None:
    assert "is not valid YAML" in _refusal("a: \x07\n")


@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 300, 1500])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_deep_nesting_is_refused(depth: int, opening: str, closing: str) -> None:
    assert "is nested too deeply" in _refusal(opening * depth + "1" + closing * depth)


def test_nesting_up_to_the_limit_is_read() -> None:
    value = parse_yaml("[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH, "file.yaml")
    for _ in range(MAX_DEPTH):
        (value,) = value
    assert value == 1


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_yaml, "MAX_NODES", 50)
    assert len(parse_yaml("[" + "1," * 40 + "]", "file.yaml")) == 40
    assert "more than 50 nodes" in _refusal("[" + "1," * 60 + "]")


def test_empty_text_is_none() -> None:
    assert parse_yaml("# only a comment\n", "file.yaml") is None


def test_file_with_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: \xc3\xa9t\xc3\xa9\n")
    assert load_yaml(path) == {"name": "\u00e9t\u00e9"}


@pytest.mark.parametrize(("data", "byte"), [(b"name: caf\xe9\n", 9), ("name: a\n".encode("utf-16"), 0)])
def test_file_that_is_not_utf8_names_the_byte(tmp_path: Path, data: bytes, byte: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"is not UTF-8 text \(byte {byte}\)") as caught:
        load_yaml(path)
    assert caught.value.where == str(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)
