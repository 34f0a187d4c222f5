"""One part of a list that several machines divide among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hiposeg_cli.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1: every `count`-th image."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`. Raises ConfigError."""
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise ConfigError(f"--shard {text}", "is not a part of a whole", "write 1/4, 2/4, ...")

    def of(self, items: list[Any]) -> list[Any]:
        return items[self.number - 1 :: self.count]

    @property
    def suffix(self) -> str:
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"
