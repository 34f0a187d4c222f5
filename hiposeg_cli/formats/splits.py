"""Split names as tools write them."""

from __future__ import annotations

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
           "testing": "test"}  # fmt: skip


def split_named(name: str) -> str | None:
    """`train`, `val` or `test` for a folder or subset of one of their usual names; None for any other."""
    return _SPLITS.get(name.casefold())
