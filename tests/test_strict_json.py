"""JSON read strictly: what other readers pass over in silence is refused with its place."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from hiposeg_cli.errors import DataError
from hiposeg_cli.strict_json import load_json, parse_json


def test_plain_files_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + json.dumps({"a": [1, "ß"]}, ensure_ascii=False).encode())
    assert load_json(tmp_path / "a.json") == {"a": [1, "ß"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n "b": }', ("x.json:2:7:", "broken JSON")),
        ("[1, 2,]", ("x.json:1:", "broken JSON")),
        ('{"a": NaN}', ("NaN",)),
        ("[-Infinity]", ("-Infinity",)),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', ("'c' twice",)),
        ("[" * 100_000, ("nested too deeply",)),
        ("[" + "1" * 5000 + "]", ("broken JSON",)),
        ("", ("x.json:1:1:",)),
    ],
)
def test_broken_text_is_refused_with_its_place(text: str, expected: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        parse_json(text, "x.json")
    for part in expected:
        assert part in str(caught.value)


def test_files_that_are_not_text_are_named(tmp_path: Path) -> None:
    for name, raw, words in [
        ("a", "[1]".encode("utf-16"), "is UTF-16 text"),
        ("b", "[1]".encode("utf-32"), "is UTF-32 text"),
        ("c", b'["\xe9"]', "is not UTF-8 text (byte 2)"),
        ("d", b"", "is an empty file"),
        ("f", "[1]".encode("utf-16-le"), "is UTF-16 or UTF-32 text"),
        ("e", b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    ]:
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError) as caught:
            load_json(tmp_path / name)
        assert words in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        load_json(tmp_path / "none")
    with pytest.raises(DataError, match="is a folder"):
        load_json(tmp_path)
