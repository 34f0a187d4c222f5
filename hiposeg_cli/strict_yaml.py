"""Read YAML without its surprises: no duplicate keys, aliases, tags or silently retyped names.

Owns the parsing of untrusted text into plain values. What the values mean is the caller's business.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hiposeg_cli.errors import ConfigError

MAX_NODES = 200_000
MAX_DEPTH = 64
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp")}


class Mapping(dict[Any, Any]):
    """A YAML mapping that remembers the line each key was written on (1-based)."""

    def __init__(self) -> None:
        super().__init__()
        self.line = 0
        self.lines: dict[Any, int] = {}


class Retyped:
    """A plain scalar that YAML reads as something other than text (`no`, `12:30`, `1_000`, a date, null).

    Kept apart so that a name written without quotes is refused with the text as the user wrote it.
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
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(f"{where}:{line}", "anchors and aliases are not allowed", "write the value out")
            if number > MAX_NODES:
                raise ConfigError(where, f"has more than {MAX_NODES} nodes", "is this the right file?")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{where}:{line}", f"is not valid YAML: {error.problem}", "fix the line") from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"is not valid YAML: {str(error).splitlines()[0]}", "fix the file") from None
    except RecursionError:
        raise ConfigError(where, "is nested too deeply", f"use at most {MAX_DEPTH} levels") from None
    return _build(node, where, 0) if node is not None else None


def _build(node: yaml.Node, where: object, depth: int) -> Any:
    line = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}:{line}", "is nested too deeply", f"use at most {MAX_DEPTH} levels")
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, where, depth + 1) for child in node.value]
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, where, depth)
    assert isinstance(node, yaml.ScalarNode)
    if node.tag not in _PLAIN_TAGS:
        raise ConfigError(f"{where}:{line}", f"the tag {node.tag!r} is not allowed", "write a plain value")
    return _scalar(node, line)


def _build_mapping(node: yaml.MappingNode, where: object, depth: int) -> Mapping:
    result = Mapping()
    result.line = node.start_mark.line + 1
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _build(key_node, where, depth + 1)
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
        result[key] = _build(value_node, where, depth + 1)
        result.lines[key] = line
    return result


def _scalar(node: yaml.ScalarNode, line: int) -> str | int | float | Retyped:
    text = str(node.value)
    if node.tag == "tag:yaml.org,2002:str":
        return text
    if re.fullmatch(r"-?(0|[1-9]\d*)", text):
        return int(text)
    if node.tag == "tag:yaml.org,2002:float" and re.fullmatch(r"-?\d+\.\d*([eE][-+]?\d+)?", text):
        return float(text)
    value = yaml.safe_load(text) if text else None
    return Retyped(text, value, line)


def _kind(value: object) -> str:
    if value is None:
        return "nothing (null)"
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
