"""Read YAML without its surprises: no duplicate keys, aliases, tags or silently retyped names.

Owns the parsing of untrusted text into plain values. What the values mean is the caller's business.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hiposeg_cli.errors import ConfigError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, where PyYAML was built with it
MAX_NODES = 200_000
MAX_DEPTH = 64
# Read as text by YAML 1.1, which is what PyYAML speaks, and as a number by YAML 1.2.
_NUMBER_OF_12 = re.compile(r"[-+]?\d+|0o[0-7]+|[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+")


class Mapping(dict[Any, Any]):
    """A YAML mapping that remembers the line each key was written on (1-based)."""

    def __init__(self) -> None:
        super().__init__()
        self.line = 0
        self.lines: dict[Any, int] = {}


class Sequence(list[Any]):
    """A YAML list that remembers the line of each item (1-based)."""

    def __init__(self, items: list[Any], lines: list[int]) -> None:
        super().__init__(items)
        self.lines = lines


class Retyped:
    """A plain scalar that YAML, of either version, reads as something other than text (`no`, `12:30`, `08`, a date, null).

    Kept apart so that a name written without quotes is refused with the text as the user wrote it. `value` is what PyYAML
    makes of it, text for what only YAML 1.2 reads as a number.
    """

    def __init__(self, text: str, value: object, line: int) -> None:
        self.text, self.value, self.line = text, value, line

    def __repr__(self) -> str:
        return self.text


def load_yaml(path: Path) -> Any:
    """Parse one YAML file strictly.

    Returns: `Mapping`, list, str, int, float or `Retyped` values. Only canonical integers and floats become numbers.
    Raises: ConfigError naming file, line and cure.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise ConfigError(path, "is a folder", "name a YAML file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, where: object) -> Any:
    """Parse YAML text strictly; see `load_yaml`."""
    try:
        _check_events(text, where)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{where}:{line}", f"is not valid YAML: {error.problem}", "fix the line") from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"is not valid YAML: {str(error).splitlines()[0]}", "fix the file") from None
    except RecursionError:
        raise ConfigError(where, "is nested too deeply", f"use at most {MAX_DEPTH} levels") from None
    return _build(node, where) if node is not None else None


def _check_events(text: str, where: object) -> None:
    """Refuse anchors, tags, too many nodes and too deep nesting before anything is built."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{where}:{line}", "anchors and aliases are not allowed", "write the value out")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{where}:{line}", f"the tag {tag!r} is not allowed", "write a plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where}:{line}", "is nested too deeply", f"use at most {MAX_DEPTH} levels")
        if number > MAX_NODES:
            raise ConfigError(where, f"has more than {MAX_NODES} nodes", "is this the right file?")


def _build(node: yaml.Node, where: object) -> Any:
    if isinstance(node, yaml.SequenceNode):
        lines = [child.start_mark.line + 1 for child in node.value]
        return Sequence([_build(child, where) for child in node.value], lines)
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, where)
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, node.start_mark.line + 1)


def _build_mapping(node: yaml.MappingNode, where: object) -> Mapping:
    result = Mapping()
    result.line = node.start_mark.line + 1
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _build(key_node, where)
        if isinstance(key, Retyped):
            raise ConfigError(
                f"{where}:{line}", f"YAML reads the key {key.text} as {_kind(key.value)}", f'write "{key.text}"'
            )
        if not isinstance(key, str | int):
            raise ConfigError(f"{where}:{line}", "a key must be text or a whole number", "rewrite the key")
        if key in result:
            raise ConfigError(
                f"{where}:{line}", f"duplicate key {key!r}, first on line {result.lines[key]}", "keep one of them"
            )
        result[key] = _build(value_node, where)
        result.lines[key] = line
    return result


def _scalar(node: yaml.ScalarNode, line: int) -> str | int | float | Retyped:
    text = str(node.value)
    if node.tag == "tag:yaml.org,2002:str":
        is_plain = node.style in (None, "")
        return Retyped(text, text, line) if is_plain and _NUMBER_OF_12.fullmatch(text) else text
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if node.tag == "tag:yaml.org,2002:float" and re.fullmatch(r"-?\d+\.\d*([eE][-+]?\d+)?", text):
        return float(text)
    try:
        return Retyped(text, yaml.safe_load(text) if text else None, line)
    except (ValueError, yaml.YAMLError):  # a date that does not exist, `0x_`, a tag of YAML's own such as `=`
        return Retyped(text, text, line)


def _kind(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, str) and _NUMBER_OF_12.fullmatch(value):
        return "text or a number, by its version"
    return {bool: "a true/false value", int: "a number", float: "a number"}.get(type(value), "a date")


def plain(value: Any) -> Any:
    """Turn parsed values into ordinary Python ones, for configuration where `true` and `null` are meant."""
    if isinstance(value, Retyped):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
