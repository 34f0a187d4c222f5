"""`hiposeg benchmark`: every stage once a photo and repeat, each named by what it holds."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from predict_toys import ByColour, save_untrained, toy_model, write_photos
from torch import Tensor

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.prediction import Source
from hiposeg_cli.infer.stages import STAGES, WHOLE, Plan, time_stages
from hiposeg_cli.learn.batch import Output

benchmark = partial(run, "benchmark")
SIZES = {"a": (40, 50), "b": (64, 30)}


class Slow(ByColour):
    """A network that takes at least 60 ms a pass."""

    def forward(self, image: Tensor) -> Output:
        time.sleep(0.06)
        return super().forward(image)


def sources(folder: Path) -> list[Source]:
    write_photos(folder, SIZES)
    return [Source(folder / f"{name}.png", name) for name in SIZES]


def test_each_stage_is_timed_for_each_photo_and_repeat(tmp_path: Path) -> None:
    net, calls = ByColour(7), list[tuple[int, int]]()
    timings = time_stages(
        toy_model(tmp_path, net), sources(tmp_path / "photos"), Plan(batch=3, repeats=2),
        lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert [one.stage for one in timings] == [*STAGES, WHOLE]
    assert {one.stage: len(one.times_ms) for one in timings} == {**dict.fromkeys(STAGES, 2 * 2), WHOLE: 2}
    assert all(one.what and min(one.times_ms) > 0 for one in timings)
    assert calls == [(done, 9) for done in range(1, 10)]
    assert net.batches.count((3, 3, 40, 50)) == 3  # a photo repeated; what warms up is not among the times


def test_a_slow_network_shows_in_its_own_stage_alone(tmp_path: Path) -> None:
    """Breaks when a stage is timed that is not the one named, or a batch is not divided by its photos."""
    model, photos = toy_model(tmp_path, Slow(7)), sources(tmp_path / "photos")
    for batch in (1, 10):
        found = {one.stage: one.median_ms for one in time_stages(model, photos, Plan(batch, 3), lambda done, total: None)}
        assert 60 / batch <= found["forward"] < 60 / batch + 50
        assert found[WHOLE] > 20
        assert all(found[stage] < 50 for stage in STAGES if stage != "forward")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, toy_hierarchy: Hierarchy) -> Path:
    return save_untrained(tmp_path_factory.mktemp("run") / "toy.safetensors", toy_hierarchy, size=64)


def test_what_is_timed_is_stated(weights: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", SIZES)
    options = ["--repeats", 2, "--device", "cpu", "--batch", 2]
    result = benchmark(weights, tmp_path / "photos", *options)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for word in (
        "2 photos of",
        "long side 64 px",
        "batch 2",
        "2 repeats",
        "torch",
        "float32",
        "threads",
        "cpu",
        *STAGES,
        WHOLE,
    ):
        assert word in text
    answer: dict[str, Any] = json.loads(benchmark(weights, tmp_path / "photos", *options, "--photos", 1, "--json").stdout)
    assert answer["schema"] == "hiposeg/benchmark@1"
    data = answer["data"]
    assert (data["batch"], data["size"], data["precision"], data["repeats"]) == (2, 64, "float32", 2)
    assert data["photos"].startswith("1 photos of")
    assert [len(stage["all_ms"]) for stage in data["stages"]] == [2] * 7


def test_without_photos_some_are_drawn(weights: Path) -> None:
    data = json.loads(benchmark(weights, "--photos", 1, "--repeats", 1, "--device", "cpu", "--json").stdout)["data"]
    assert data["photos"] == "1 drawn photos of 480x480 px"


def test_mistakes_are_one_line(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    for arguments, words in (
        ([tmp_path / "none"], ["no such run"]),
        ([weights, tmp_path / "broken.jpg"], ["broken.jpg"]),
        ([weights, tmp_path / "gone"], ["gone"]),
        ([weights, "--weights", "bets"], ["did you mean 'best'"]),
        ([weights, "--device", "cuda:77"], ["cuda:77"]),
    ):
        result = benchmark(*arguments)
        assert result.exit_code == 2, result.output
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("hiposeg: ")]
        assert all(word in line for word in words), line
