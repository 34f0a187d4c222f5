"""Layers of settings -> one strict configuration, with the origin of every value.

Keys are dotted (`optim.lr`). Later layers win; an unknown key is refused with a suggestion.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from hiposeg_cli.errors import ConfigError, did_you_mean
from hiposeg_cli.strict_yaml import parse_yaml, plain

T = TypeVar("T")
ENV_PREFIX = "HIPOSEG_"


@dataclass(frozen=True)
class Layer:
    """Some settings and where they came from ("defaults", a file, "--lr"); of some settings also why."""

    origin: str
    values: Mapping[str, Any]
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def origin_of(self, key: str) -> str:
        return f"{self.origin}: {self.reasons[key]}" if key in self.reasons else self.origin


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys -> nested mappings."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return tree


def parse_assignment(text: str) -> Layer:
    """One `--set a.b=c`; the value is read as YAML. Raises ConfigError without an equals sign."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}", "is not KEY=VALUE", "write for example --set optim.lr=0.01")
    return Layer(f"--set {key}", {key.strip(): plain(parse_yaml(value, f"--set {key}"))})


def environment_layer(known: Sequence[str]) -> Layer:
    """Settings from HIPOSEG_SECTION_NAME variables. Raises ConfigError for one that names no key."""
    names = {ENV_PREFIX + key.upper().replace(".", "_"): key for key in known}
    values = {}
    for variable, value in os.environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        if variable not in names:
            raise ConfigError(f"environment variable {variable}", "names no setting", did_you_mean(variable, names))
        values[names[variable]] = plain(parse_yaml(value, variable))
    return Layer("environment", values)


def merge(layers: Sequence[Layer], known: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Combine layers, later ones winning. Returns dotted values and their origins."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.values.items():
            if key not in known:
                raise ConfigError(layer.origin, f"unknown setting {key!r}", did_you_mean(key, known))
            values[key], origins[key] = value, layer.origin_of(key)
    return values, origins


def build(cls: type[T], values: Mapping[str, Any], section: str, origins: Mapping[str, str] | None = None) -> T:
    """A dataclass from one section's values, validated by its annotations. Raises ConfigError naming the setting."""
    hints = get_type_hints(cls, include_extras=True)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        key = f"{section}.{field.name}"
        if key not in values:
            continue
        try:
            given[field.name] = TypeAdapter(hints[field.name]).validate_python(values[key])
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            origin = (origins or {}).get(key, "")
            where = key if origin in ("", "defaults") or key in origin else f"{key} (from {origin})"
            raise ConfigError(where, f"{values[key]!r} is not allowed: {problem}", f"see `{key}` in --show-config") from None
    return cls(**given)


def defaults(cls: type[Any], section: str) -> dict[str, Any]:
    """Dotted default values of a dataclass whose fields all have one."""
    return {f"{section}.{field.name}": _plain(getattr(cls(), field.name)) for field in dataclasses.fields(cls)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def dump(values: Mapping[str, Any]) -> str:
    """Dotted values as a YAML file's text."""
    return yaml.safe_dump(nest({key: _plain(value) for key, value in values.items()}), sort_keys=False, allow_unicode=True)
