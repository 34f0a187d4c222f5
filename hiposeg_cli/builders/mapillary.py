"""Taxonomies from the config files of Mapillary Vistas, whose dotted label names are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft, level_names
from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.strict_json import load_json

_SEPARATOR = "--"


def _mapillary(path: Path, options: BuildOptions) -> Draft:
    """Evaluated labels in file order, named by their whole path; above them the first token, or more with --levels.

    Labels that are not evaluated are ignored. A path shorter than a level's prefix stands for itself there.
    """
    labels = _labels(path)
    deepest = max(len(label["name"].split(_SEPARATOR)) for label in labels)
    count = options.levels or 2
    if not 2 <= count <= deepest:
        raise ConfigError("--levels", f"is {count}, but the names have 2 to {deepest} parts", f"choose 2 to {deepest}")
    draft = Draft(path, level_names(count))
    for label in labels:
        if not label.get("evaluate", True):
            continue
        tokens = label["name"].split(_SEPARATOR)
        prefixes = [_SEPARATOR.join(tokens[:number]) for number in range(count - 1, 0, -1)]
        for number in range(count - 1, 0, -1):
            draft.add(draft.levels[number], prefixes[number - 1], *prefixes[number : number + 1])
        copied = label["name"] == prefixes[0] or None
        kind = "thing" if label.get("instances") else "stuff"
        draft.add("fine", label["name"], prefixes[0], kind=kind, color=label.get("color"), implicit=copied)
    targets = {label["name"]: label["name"] if label.get("evaluate", True) else "ignore" for label in labels}
    draft.sources["mapillary"] = {"map": targets}
    return draft


def _labels(path: Path) -> list[dict[str, Any]]:
    data = load_json(path)
    labels = data.get("labels") if isinstance(data, dict) else None
    if not isinstance(labels, list) or not labels:
        raise DataError(path, "lacks the list 'labels'", "name the config_v2.0.json or config_v1.2.json of the release")
    for position, label in enumerate(labels):
        name = label.get("name") if isinstance(label, dict) else None
        if not isinstance(name, str) or "" in name.split(_SEPARATOR) or _SEPARATOR not in name:
            raise DataError(path, f"label {position} is named {name!r}", "a name is a path like nature--sky")
    return labels


mapillary = Builder(_mapillary, "config_v2.0.json or config_v1.2.json of Mapillary Vistas", frozenset({"levels"}))
