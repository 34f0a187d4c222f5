"""One taxonomy file's fields: texts that survive being written and read, and errors that name file and line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from hiposeg_cli.errors import HierarchyError, did_you_mean
from hiposeg_cli.strict_yaml import Mapping, Retyped


class Inherited(int):
    """A line of another file, for what a taxonomy took over by `extends`."""

    path: str

    def __new__(cls, line: int, path: object) -> Inherited:
        self = super().__new__(cls, line)
        self.path = str(path)
        return self


class Fields:
    """Reads fields of one file; holds where it came from so that every error can say it."""

    def __init__(self, where: object) -> None:
        self.where = where

    def fail(self, line: int | None, what: str, cure: str = "") -> HierarchyError:
        """The error for something written on a line (0 and None: nobody wrote it on a line)."""
        if isinstance(line, Inherited):
            origin = f"{line.path}:{int(line)}" if line else line.path
            return HierarchyError(f"{self.where} (inherits {origin})", what, cure)
        return HierarchyError(f"{self.where}:{line}" if line else self.where, what, cure)

    def text(self, item: Mapping, key: str, line: int | None) -> str:
        """A required text value."""
        if key not in item:
            raise self.fail(line, f"`{key}` is missing", "add it")
        return self.word(item[key], item.lines.get(key, line), f"`{key}`")

    def texts(self, item: Mapping, key: str) -> list[str]:
        """A list of texts; empty where the key is absent."""
        values = item.get(key, [])
        if not isinstance(values, list):
            raise self.fail(item.lines[key], f"`{key}` must be a list", 'write ["a", "b"]')
        return [self.word(value, item.lines[key], f"`{key}`") for value in values]

    def word(self, value: Any, line: int | None, what: str) -> str:
        """A text that YAML reads as text and that survives being written and read again."""
        if not isinstance(value, str):
            shown = value.text if isinstance(value, Retyped) else str(value)
            line = getattr(value, "line", line)
            if isinstance(value, Retyped | int | float):
                raise self.fail(line, f"YAML does not read {what} {shown} as text", f'write "{shown}"')
            raise self.fail(line, f"{what} is {shown[:60]!r}, not text", "write one word or a quoted text")
        kept = value.replace("\n", " ").replace("\t", " ") if what == "`doc`" else value
        if not kept.strip() or any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in kept):
            raise self.fail(line, f"{what} {value!r} is empty or has control characters", "rewrite it")
        return value

    def known_keys(self, item: Mapping, known: Iterable[str], what: str) -> None:
        """Refuse keys nobody reads, naming the closest known one."""
        for key in item:
            if key not in known:
                raise self.fail(item.lines[key], f"unknown key {key!r} in {what}", did_you_mean(str(key), known))


def named(name: str, line: int) -> Mapping:
    """The class a bare word stands for."""
    item = Mapping()
    item["name"], item.line = name, line
    item.lines["name"] = line
    return item
