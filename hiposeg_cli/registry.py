"""Name -> "module:attribute", resolved only when asked for, so that listing names imports nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any

from hiposeg_cli.errors import ConfigError, did_you_mean


class Registry:
    """One kind of plug-in.

    Args:
        kind: what the plug-ins are, for messages ("format", "method").
        entries: name -> "module:attribute" below `hiposeg_cli`.
    """

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind, self.entries = kind, entries

    def names(self) -> list[str]:
        return sorted(self.entries)

    def load(self, name: str) -> Any:
        """Import and return one plug-in. Raises ConfigError with a suggestion for an unknown name."""
        if name not in self.entries:
            raise ConfigError(f"{self.kind} {name!r}", "is unknown", did_you_mean(name, self.entries))
        module, attribute = self.entries[name].split(":")
        return getattr(importlib.import_module(f"hiposeg_cli.{module}"), attribute)


FORMATS = Registry(
    "format",
    {
        "pascal-part": "formats.pascal_part:PascalPart",
        "cityscapes": "formats.cityscapes:Cityscapes",
        "coco": "formats.coco:Coco",
        "masks": "formats.masks:Masks",
    },
)
METHODS = Registry("method", {"flat": "methods.flat:Flat", "hiposeg": "methods.hiposeg:HiPoSeg"})
