"""Read small JSON files without their surprises: no duplicate keys, NaN, other encodings or endless nesting.

Files too large to hold are `formats.coco_json`'s business.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, NoReturn

from hiposeg_cli.errors import DataError
from hiposeg_cli.raw_file import disguise, file_bytes
from hiposeg_cli.remarks import remark

_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


def load_json(path: Path, *, fallback: str | None = None) -> Any:
    """Parse one JSON file strictly; a byte order mark is skipped, with a remark.

    Args:
        fallback: encoding of a file that is not UTF-8; None refuses it.
    Raises: DataError naming line and column, or the key.
    """
    raw = file_bytes(path)
    if what := disguise(raw[:200]):
        raise DataError(path, what, "replace the file")
    for mark, name in _ENCODINGS.items():
        if raw.startswith(mark):
            raise DataError(path, f"is {name} text", "save it as UTF-8")
    remark_on_mark(path, raw)
    if b"\0" in raw[:4]:
        raise DataError(path, "is UTF-16 or UTF-32 text", "save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise DataError(path, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
        text = raw.decode(fallback)
    return parse_json(text, path)


def remark_on_mark(where: Path, head: bytes) -> None:
    """Remark on the byte order mark that JSON should not begin with."""
    if head.startswith(codecs.BOM_UTF8):
        remark(where, "JSON that begins with a UTF-8 byte order mark; it is skipped")


def parse_json(text: str, where: object) -> Any:
    """Parse JSON text strictly; see `load_json`."""

    def no_constant(constant: str) -> NoReturn:
        raise DataError(where, f"holds the value {constant}, which is not JSON", "repair the exporter")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(where, f"an object has the key {twice!r} twice", "keep one of them")
        return entry

    try:
        return json.loads(text, parse_constant=no_constant, object_pairs_hook=no_repeats)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}:{error.lineno}:{error.colno}", f"is broken JSON: {error.msg}", "repair it") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(where, f"is broken JSON: {error}", "repair it") from None
    except RecursionError:
        raise DataError(where, "is nested too deeply", "is this the right file?") from None
