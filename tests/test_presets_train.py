"""Presets of methods: complete, of the documented values, and between the defaults and everything a user says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hiposeg_cli.app import app
from hiposeg_cli.config import Layer
from hiposeg_cli.errors import ConfigError
from hiposeg_cli.methods.presets import PRESETS, preset_options
from hiposeg_cli.registry import METHODS
from hiposeg_cli.run_config import resolve_config

NAMED = [(method, name) for method, presets in PRESETS.items() for name in presets]


@pytest.mark.parametrize(("method", "name"), NAMED)
def test_a_preset_names_every_option_of_its_method(method: str, name: str) -> None:
    """Else a new option, or a new default, would change it silently."""
    options = METHODS.load(method).Options
    assert set(preset_options(method, name)) == {field.name for field in dataclasses.fields(options)}
    assert resolve_config([Layer("--method", {"method.name": method})], preset=name).options == options(
        **preset_options(method, name)
    )


def test_the_paper_preset_holds_what_the_specification_says() -> None:
    """Sections 3 to 5 and 7, which the defaults may leave."""
    said = {
        "lambda_ce": 1, "lambda_fh": 0.1, "lambda_hh": 0.01, "lambda_fl": 0.1, "lambda_ll": 0.01, "lambda_align": 0.1,
        "tau_coarse": 0.1, "tau_fine": 0.05, "kappa": 0.1, "sigma_in": 0.25, "sigma_out": 1, "ema_momentum": 0.9,
        "start_coarse": 0.075, "start_fine": 0.225, "start_align": 0.375, "embed_dim": 256, "proj_layers": 2,
        "pixels_per_class": 200, "parent_mean": "pixel", "align_distance": "squared", "update": "after",
    }  # fmt: skip
    paper = preset_options("hiposeg", "paper")
    assert {name: paper[name] for name in said} == said


def test_a_preset_lies_above_defaults_and_plan_and_below_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("method: {sigma_in: 0.3}\n")
    monkeypatch.setenv("HIPOSEG_METHOD_KAPPA", "0.2")
    planned = Layer("plan", {"method.tau_fine": 9.0, "optim.epochs": 7})
    config = resolve_config([Layer("--set", {"method.tau_coarse": 0.4})], [tmp_path / "a.yaml"], planned, "paper")
    options = config.options
    assert (options.sigma_in, options.kappa, options.tau_coarse, options.tau_fine) == (0.3, 0.2, 0.4, 0.05)
    assert config.optim.epochs == 7
    origins = {name: config.origins[f"method.{name}"] for name in ("sigma_in", "kappa", "tau_coarse", "tau_fine")}
    assert origins == {
        "sigma_in": str(tmp_path / "a.yaml"), "kappa": "environment", "tau_coarse": "--set", "tau_fine": "preset paper",
    }  # fmt: skip


def test_show_config_names_the_preset() -> None:
    result = CliRunner().invoke(app, ["train", "--preset", "paper", "--set", "method.kappa=0.5", "--show-config", "--json"])
    settings = json.loads(result.stdout)["data"]
    assert settings["method.sigma_in"] == {"value": 0.25, "from": "preset paper"}
    assert settings["method.kappa"]["value"] == 0.5
    assert settings["optim.lr"]["from"] == "defaults"


@pytest.mark.parametrize(("method", "name"), [("hiposeg", "papr"), ("flat", "paper")])
def test_an_unknown_preset_is_one_line_that_lists_what_there_is(method: str, name: str) -> None:
    result = CliRunner().invoke(app, ["train", "--method", method, "--preset", name, "--show-config"])
    assert result.exit_code == 2
    line = f"hiposeg: --preset {name}: is no preset of the method {method!r} - presets: paper of hiposeg\n"
    assert result.stderr == line
    with pytest.raises(ConfigError):
        preset_options(method, name)
