"""--fail-under: scores that must reach a value, such as `fine.miou=0.6`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from hiposeg_cli.errors import ConfigError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy

_OF_LEVELS = (
    "miou", "miou_without_background", "pixel_accuracy", "mean_accuracy", "mean_dice", "frequency_weighted_iou", "miou_avg",
    "miou_of_classes_with_several_leaves",
)  # fmt: skip
_BESIDE = {
    "sqiou": "sqiou",
    "sqiou_avg": "sqiou",
    "boundary_iou": "boundary",
    "iiou": "iiou",
    "pq": "pq",
    "part_pq": "part_pq",
}  # metric -> part of the summary
_FLAGS = {
    "boundary": "--boundary", "iiou": "--protocol cityscapes, with object numbers", "pq": "--panoptic",
    "part_pq": "--panoptic, with a taxonomy of parts",
}  # fmt: skip
_OF_TREES = ("sibling_miou", "cousin_miou", "h_precision", "h_recall", "h_f_score")


@dataclass(frozen=True)
class Gate:
    """A score by name, and the least it may be, a share."""

    name: str
    least: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """`NAME=SHARE`. Raises ConfigError for anything else."""
        name, equals, value = text.rpartition("=")
        flag = f"--fail-under {text}"
        try:
            least = float(value)
        except ValueError:
            least = float("nan")
        if not equals or not name or least != least:
            raise ConfigError(flag, "is not NAME=SHARE", "write for example fine.miou=0.6")
        if not 0 <= least <= 1:
            raise ConfigError(flag, "scores are shares from 0 to 1, not percent", f"write {name}={least / 100:g}")
        return cls(name, least)

    def require_known(self, hierarchy: Hierarchy) -> None:
        """Raise ConfigError when there is no such score for a hierarchy."""
        known = _names(hierarchy)
        if self.name not in known:
            short = [name for name in known if ".iou." not in name]
            raise ConfigError(f"--fail-under {self.name}", "is no score", did_you_mean(self.name, short))

    def require_measured(self, measured: Container[str]) -> None:
        """Raise ConfigError for a score that needs a flag which was not given; `measured` names parts of the summary."""
        part = _BESIDE.get(self.name.rpartition(".")[2])
        if part in _FLAGS and part not in measured:
            raise ConfigError(f"--fail-under {self.name}", "is not measured", f"pass {_FLAGS[part]} too")

    def failure(self, summary: Mapping[str, Any]) -> str:
        """Why a summary does not pass, in words; empty when it does."""
        value = _values(summary).get(self.name)
        if value is None:
            return f"{self.name} is undefined or was not measured, wanted {self.least:g}"
        return f"{self.name} is {value:.6g}, below {self.least:g}" if value < self.least else ""


def _names(hierarchy: Hierarchy) -> set[str]:
    names = {f"tree.{metric}" for metric in _OF_TREES}
    for level in hierarchy.levels:
        names |= {f"{level.name}.{metric}" for metric in (*_OF_LEVELS, *_BESIDE) if metric != "part_pq"}
        names |= {f"{level.name}.iou.{name}" for name in level.names}
    names.add(f"{hierarchy.coarse.name}.part_pq")
    for level in hierarchy.levels[1:]:
        names |= {f"merged.{level.name}.{metric}" for metric in _OF_LEVELS} | {f"consistency.{level.name}"}
    return names


def _values(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Every score that a gate may name; None or not there where undefined."""
    values: dict[str, float | None] = {}
    for prefix, levels in (("", summary["levels"]), ("merged.", summary.get("merged", {}))):
        for name, level in levels.items():
            values |= {f"{prefix}{name}.{metric}": level.get(metric) for metric in _OF_LEVELS}
            if not prefix:
                values |= {f"{name}.iou.{entry['name']}": entry["iou"] for entry in level["classes"]}
    for metric, part in _BESIDE.items():
        for name in summary["levels"]:
            values[f"{name}.{metric}"] = summary.get(part, {}).get(name, {}).get(metric)
    values |= {f"tree.{metric}": (summary["tree"] or {}).get(metric) for metric in _OF_TREES}
    return values | {f"consistency.{name}": value for name, value in summary.get("consistency", {}).items()}
