"""Settings in layers: the last one wins and says where it came from; nothing unknown or of a wrong type gets in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.config import (
    Layer,
    build,
    defaults,
    dump,
    environment_layer,
    flatten,
    merge,
    nest,
    parse_assignment,
)
from hiposeg_cli.errors import ConfigError
from hiposeg_cli.strict_yaml import parse_yaml, plain

WORD = st.text("abcdefgh_", min_size=1, max_size=5)
TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=10).filter(
    lambda text: text.isprintable() or not text
)
LEAF = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | TEXT | st.lists(st.integers())
TREE = st.recursive(LEAF, lambda inner: st.dictionaries(WORD, inner, min_size=1, max_size=4), max_leaves=10).filter(
    lambda tree: isinstance(tree, dict)
)
KNOWN = ("optim.lr", "optim.steps", "optim.crop", "optim.decay", "optim.warm_up", "net.name")


@dataclass(frozen=True)
class Optim:
    lr: float = 0.1
    steps: int = 10
    crop: tuple[int, int] = (4, 6)
    decay: Literal["poly", "cosine"] = "poly"
    warm_up: int | None = None


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("HIPOSEG_")]:
        monkeypatch.delenv(variable)


def test_flatten_and_nest_by_hand() -> None:
    tree = {"optim": {"lr": 0.1, "decay": {"kind": "poly"}}, "seed": 3}
    flat = {"optim.lr": 0.1, "optim.decay.kind": "poly", "seed": 3}
    assert flatten(tree) == flat
    assert nest(flat) == tree


@settings(max_examples=40, deadline=None)
@given(TREE)
def test_nest_undoes_flatten(tree: dict[str, Any]) -> None:
    flat = flatten(tree)
    assert nest(flat) == tree
    assert flatten(nest(flat)) == flat
    assert not any(isinstance(value, dict) for value in flat.values())


@settings(max_examples=60, deadline=None)
@given(TREE)
def test_a_dumped_configuration_is_read_back_unchanged(tree: dict[str, Any]) -> None:
    """Resuming a run depends on it."""
    flat = flatten(tree)
    again = flatten(plain(parse_yaml(dump(flat), "config.yaml")))
    assert again == flat
    assert [type(value) for value in again.values()] == [type(value) for value in flat.values()]


def test_dump_writes_tuples_as_lists() -> None:
    assert dump({"optim.crop": (4, 6), "optim.lr": 1e-05}) == "optim:\n  crop:\n  - 4\n  - 6\n  lr: 1.0e-05\n"


LAYERS = st.lists(st.dictionaries(st.sampled_from(KNOWN), st.integers(0, 9), max_size=4), max_size=5)


@settings(max_examples=40, deadline=None)
@given(LAYERS)
def test_the_last_layer_that_names_a_setting_wins(contents: list[dict[str, int]]) -> None:
    values, origins = merge([Layer(f"layer {n}", content) for n, content in enumerate(contents)], KNOWN)
    for key in KNOWN:
        naming = [n for n, content in enumerate(contents) if key in content]
        assert (key in values) == (key in origins) == bool(naming)
        if naming:
            assert values[key] == contents[naming[-1]][key]
            assert origins[key] == f"layer {naming[-1]}"


def test_unknown_setting_names_its_layer_and_the_closest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        merge([Layer("defaults", {"optim.lr": 1}), Layer("my.yaml", {"optim.stepz": 2})], KNOWN)
    assert str(caught.value) == "my.yaml: unknown setting 'optim.stepz' - did you mean 'optim.steps'?"


def test_environment_settings_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPOSEG_OPTIM_LR", "0.5")
    monkeypatch.setenv("HIPOSEG_OPTIM_CROP", "[8, 9]")
    monkeypatch.setenv("HIPOSEG_OPTIM_WARM_UP", "null")
    monkeypatch.setenv("OPTIM_STEPS", "77")
    layer = environment_layer(KNOWN)
    assert layer == Layer("environment", {"optim.lr": 0.5, "optim.crop": [8, 9], "optim.warm_up": None})
    values, origins = merge([Layer("file", {"optim.lr": 1.0}), layer], KNOWN)
    assert (values["optim.lr"], origins["optim.lr"]) == (0.5, "environment")


def test_unknown_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPOSEG_OPTIM_STEP", "3")
    with pytest.raises(ConfigError) as caught:
        environment_layer(KNOWN)
    assert "HIPOSEG_OPTIM_STEP: names no setting" in str(caught.value)
    assert "did you mean 'HIPOSEG_OPTIM_STEPS'?" in str(caught.value)


def test_broken_value_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPOSEG_OPTIM_CROP", "[1, 2")
    with pytest.raises(ConfigError, match=r"HIPOSEG_OPTIM_CROP.*not valid YAML"):
        environment_layer(KNOWN)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optim.lr=0.01", 0.01), ("optim.lr=1e-3", "1e-3"), ("optim.lr=.5", 0.5), ("optim.lr=[1, 2]", [1, 2]),
        ("optim.lr=null", None), ("optim.lr=", None), ("optim.lr=no", False), ("optim.lr=a=b", "a=b"),
        (" optim.lr =7", 7),
    ],
)  # fmt: skip
def test_assignments_are_read_as_yaml(text: str, value: object) -> None:
    layer = parse_assignment(text)
    assert layer.values == {"optim.lr": value}
    assert "--set" in layer.origin
    assert "optim.lr" in layer.origin


@pytest.mark.parametrize("text", ["optim.lr", "=3", " =3", ""])
def test_an_assignment_needs_key_and_equals_sign(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--set .*is not KEY=VALUE"):
        parse_assignment(text)


def test_broken_value_of_an_assignment_names_it() -> None:
    with pytest.raises(ConfigError, match=r"--set optim\.crop.*not valid YAML"):
        parse_assignment("optim.crop=[1, 2")


def test_defaults_then_build_gives_the_defaults() -> None:
    values = defaults(Optim, "optim")
    assert values == {
        "optim.lr": 0.1, "optim.steps": 10, "optim.crop": [4, 6], "optim.decay": "poly", "optim.warm_up": None,
    }  # fmt: skip
    assert build(Optim, values, "optim") == Optim()


def test_build_converts_what_yaml_leaves_as_text_or_lists() -> None:
    values = {"optim.lr": "1e-3", "optim.crop": [8, 9], "optim.decay": "cosine", "net.lr": 5}
    assert build(Optim, values, "optim") == Optim(lr=0.001, crop=(8, 9), decay="cosine")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", "fast"), ("optim.lr", None), ("optim.steps", 2.5), ("optim.steps", [1]), ("optim.crop", [1, 2, 3]),
        ("optim.crop", 4), ("optim.crop", ["a", "b"]), ("optim.decay", "polly"), ("optim.warm_up", "soon"),
    ],
)  # fmt: skip
def test_a_wrong_type_names_setting_value_and_origin(key: str, value: object) -> None:
    values, origins = merge([Layer("defaults", defaults(Optim, "optim")), Layer("my.yaml", {key: value})], KNOWN)
    with pytest.raises(ConfigError) as caught:
        build(Optim, values, "optim", origins)
    message = str(caught.value)
    assert message.startswith(f"{key} (from my.yaml): {value!r} is not allowed")


def test_a_wrong_assignment_is_named_once() -> None:
    layer = parse_assignment("optim.steps=many")
    values, origins = merge([layer], KNOWN)
    with pytest.raises(ConfigError, match=r"^optim\.steps: 'many' is not allowed"):
        build(Optim, values, "optim", origins)
