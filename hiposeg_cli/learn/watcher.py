"""Who is told how training gets on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Watcher(Protocol):
    """Whoever shows progress."""

    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...

    def scored(self, epoch: int, values: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Silent:
    """A watcher that shows nothing."""

    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...

    def scored(self, epoch: int, values: dict[str, Any]) -> None: ...
