"""Remarks on files reach whoever asked for them, and nobody else."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hiposeg_cli.remarks import Remark, collected, remark

FILE = Path("folder/a.json")


def test_remarks_go_to_the_innermost_block_in_order() -> None:
    remark(FILE, "heard by nobody")
    with collected() as outer:
        remark(FILE, "first")
        with collected() as inner:
            remark(FILE, "of one image")
        remark(FILE, "second")
    remark(FILE, "too late")
    assert [odd.what for odd in outer] == ["first", "second"]
    assert inner == [Remark(FILE, "of one image")]
    assert str(inner[0]) == "a.json: of one image"


def test_a_block_that_fails_is_left_all_the_same() -> None:
    with collected() as outer:
        with pytest.raises(ValueError, match="x"), collected():
            raise ValueError("x")
        remark(FILE, "after it")
    assert [odd.what for odd in outer] == ["after it"]


def test_threads_do_not_hear_each_other() -> None:
    def own(number: int) -> list[str]:
        with collected() as found:
            for _ in range(100):
                remark(FILE, str(number))
        return sorted({odd.what for odd in found})

    with collected() as outer, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(own, range(8))) == [[str(number)] for number in range(8)]
    assert outer == []
