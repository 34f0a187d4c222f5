"""Remarks on raw files: what is odd about one and was handled, left by whatever reads it for whoever asked to be told.

What is wrong with a file is an error instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

_taken: ContextVar[list[Remark] | None] = ContextVar("remarks", default=None)


@dataclass(frozen=True)
class Remark:
    """Something odd, in words, and the file it was found in."""

    where: Path
    what: str

    def __str__(self) -> str:
        return f"{self.where.name}: {self.what}"


def remark(where: Path, what: str) -> None:
    """Leave a remark with the innermost `collected` of this context; without one it is dropped."""
    found = _taken.get()
    if found is not None:
        found.append(Remark(where, what))


@contextmanager
def collected() -> Iterator[list[Remark]]:
    """Take the remarks that are left while the block runs; outer blocks do not see them."""
    found: list[Remark] = []
    token = _taken.set(found)
    try:
        yield found
    finally:
        _taken.reset(token)
