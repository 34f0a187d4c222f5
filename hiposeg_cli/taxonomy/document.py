"""A taxonomy file made by a program: plain values in the form that a parsed file has."""

from __future__ import annotations

from typing import Any

from hiposeg_cli.strict_yaml import Mapping, Sequence


def as_document(value: Any, line: int = 0) -> Any:
    """Turn dicts and lists into what the YAML reader gives, all written on one line (0: on none).

    Parts that already have lines keep them.
    """
    if isinstance(value, Mapping | Sequence):
        return value
    if isinstance(value, dict):
        mapping = Mapping()
        mapping.line = line
        for key, item in value.items():
            mapping[key], mapping.lines[key] = as_document(item, line), line
        return mapping
    if isinstance(value, list | tuple):
        items = [as_document(item, line) for item in value]
        return Sequence(items, [getattr(item, "line", line) for item in items])
    return value
