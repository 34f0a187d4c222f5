"""JSON files of any length, written piece by piece: one object whose arrays are taken from iterators."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any


class JsonStream:
    """One JSON object on disk; fields are written in the order of the calls, names as they are."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._between = "{"

    def field(self, name: str, value: Any) -> None:
        """One small field."""
        self._file.write(f"{self._between}\n{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
        self._between = ","

    def array(self, name: str, items: Iterable[Any]) -> None:
        """One array, an item a line."""
        self._file.write(f"{self._between}\n{json.dumps(name)}: [")
        between = ""
        for item in items:
            self._file.write(f"{between}\n{json.dumps(item, ensure_ascii=False)}")
            between = ","
        self._file.write("\n]")
        self._between = ","

    def __enter__(self) -> JsonStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._file.write("\n}\n")
        self._file.close()
