"""Parts of the training engine, each alone: weight average, label check, rare-class sampling, the log, compilation."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hiposeg_cli.errors import ConfigError, DataError, HiposegError
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.learn import compilation
from hiposeg_cli.learn.compilation import can_compile, training_pass
from hiposeg_cli.learn.data import StepSampler, living_workers
from hiposeg_cli.learn.label_check import check_labels
from hiposeg_cli.learn.metrics_log import MetricsLog
from hiposeg_cli.learn.rare_classes import RareClasses, rare_classes
from hiposeg_cli.learn.schedule import OptimConfig, build_optimizer
from hiposeg_cli.learn.weight_average import WeightAverage
from hiposeg_cli.store import Dataset, Row

HIERARCHY = """
schema: hiposeg/hierarchy@1
name: letters
levels: [fine, coarse]
classes:
  coarse: [{id: 0, name: ground, kind: background}, {id: 1, name: letter}]
  fine:
    - {id: 0, name: ground, parent: ground, kind: background}
    - {id: 1, name: a, parent: letter}
    - {id: 2, name: b, parent: letter}
    - {id: 3, name: c, parent: letter}
    - {id: 4, name: d, parent: letter}
    - {id: 5, name: e, parent: letter}
    - {id: 6, name: f, parent: letter}
"""


def row(key: str, fine: dict[int, int], split: str = "train", coarse: dict[int, int] | None = None, side: int = 10) -> Row:
    if coarse is None:
        coarse = {0: fine.get(0, 0), 1: sum(n for class_id, n in fine.items() if class_id)}
    return Row(
        key=key, split=split, image_path=f"{key}.png", image_sha256="", width=side, height=side, fine_sha256="",
        coarse_sha256="", fine_counts={str(c): n for c, n in fine.items()},
        coarse_counts={str(c): n for c, n in coarse.items() if n}, ignore_px=0, coarse_only_px=0, n_objects=0, overlap_px=0,
        part_overlap_px=0, uncovered_px=0, source="", warnings=[],
    )  # fmt: skip


def dataset_of(train: list[Row], val: list[Row]) -> Dataset:
    hierarchy = parse_hierarchy(HIERARCHY, Path("h.yaml"))
    rows = {"train": tuple(train), "val": tuple(replace(one, split="val") for one in val)}
    return Dataset(Path("data"), hierarchy, Path(), rows, True)


# -- weight average ----------------------------------------------------------------------------------------------------


def test_weight_average_by_hand() -> None:
    """decay min(0.5, (1 + n) / (10 + n)): 1/10, then 2/11; much later 1/2."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    average = WeightAverage(net, 0.5)
    net.weight.data.fill_(1.0)
    average.update(net, 0)
    assert average.net.weight.item() == pytest.approx(0.9)  # 0.1 * 0 + 0.9 * 1
    net.weight.data.fill_(3.0)
    average.update(net, 1)
    assert average.net.weight.item() == pytest.approx(2 / 11 * 0.9 + 9 / 11 * 3.0)
    before = average.net.weight.item()
    net.weight.data.fill_(7.0)
    average.update(net, 10_000)
    assert average.net.weight.item() == pytest.approx(0.5 * before + 3.5)


def test_weight_average_follows_batch_norm_and_is_never_trained() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = WeightAverage(net, 0.999)
    net.train()
    for n in range(3):
        net(torch.full((2, 1, 3, 3), float(n)))
        average.update(net, n)
    mine, theirs = average.net[1], net[1]
    assert mine.num_batches_tracked == theirs.num_batches_tracked == 3
    assert not torch.equal(mine.running_mean, theirs.running_mean), "averaged, not copied"
    assert not average.net.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_weight_average_of_unchanged_weights_is_the_weights() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to(memory_format=torch.contiguous_format)
    average = WeightAverage(net, 0.9)
    for n in range(5):
        average.update(net, n)
    assert all(torch.equal(a, b) for a, b in zip(average.net.state_dict().values(), net.state_dict().values(), strict=True))
    net[0].weight.data.add_(1)
    assert not torch.equal(average.net[0].weight, net[0].weight), "a copy, not the same memory"


def test_the_optimizer_never_sees_the_average() -> None:
    net = nn.Linear(2, 2)
    n_before = sum(len(group["params"]) for group in build_optimizer(net, nn.Identity(), OptimConfig()).param_groups)
    WeightAverage(net, 0.9)
    after = build_optimizer(net, nn.Identity(), OptimConfig())
    assert sum(len(group["params"]) for group in after.param_groups) == n_before == 2


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_that_can_be_learned_raise_no_warning() -> None:
    dataset = dataset_of([row("x", {0: 50, 1: 50})], [row("y", {0: 99, 1: 1})])
    assert check_labels(dataset, frozenset({"fine", "coarse"})) == []


def test_no_fine_label_is_an_error_only_for_methods_that_need_one() -> None:
    objects_only = dataset_of([row("x", {}, coarse={0: 60, 1: 40})], [row("y", {}, coarse={0: 1, 1: 1})])
    with pytest.raises(DataError, match=r"'train' has no pixel with a fine label.*--method"):
        check_labels(objects_only, frozenset({"fine"}))
    assert check_labels(objects_only, frozenset({"coarse"})) == []
    zeros = dataset_of([row("x", {1: 0}, coarse={0: 1, 1: 1})], [])
    with pytest.raises(DataError, match="no pixel with a fine label"):
        check_labels(zeros, frozenset({"fine", "coarse"}))


def test_one_class_is_a_warning_on_its_level() -> None:
    one = dataset_of([row("x", {1: 60, 2: 40})], [row("y", {1: 1, 2: 1})])
    warnings = check_labels(one, frozenset({"fine", "coarse"}))
    assert warnings == ["every coarse label of the split 'train' is 'letter': there is nothing to tell apart"]


def test_classes_of_validation_alone_are_named_five_at_most() -> None:
    train = [row("x", {0: 50, 1: 50})]
    (warning,) = check_labels(dataset_of(train, [row("y", {0: 1, 3: 5})]), frozenset({"fine", "coarse"}))
    assert warning == "1 fine class occurs in 'val' but never in 'train', and cannot be learned: 'c'"
    train = [row("x", {0: 100})]
    several = check_labels(dataset_of(train, [row("y", {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1})]), frozenset({"fine"}))
    assert several[-1].endswith("cannot be learned: 'a', 'b', 'c', 'd', 'e', ...")
    assert several[-1].startswith("6 fine classes occur in 'val'")


def test_missing_and_unlabelled_validation_are_said() -> None:
    train = [row("x", {0: 50, 1: 50})]
    (warning,) = check_labels(dataset_of(train, []), frozenset({"fine"}))
    assert "no split 'val'" in warning
    (warning,) = check_labels(dataset_of(train, [row("y", {})]), frozenset({"fine"}))
    assert "'val' has no pixel with a fine label" in warning


@pytest.mark.parametrize("class_id", ["7", "-1", "x"])
def test_an_id_beyond_the_hierarchy_is_named_with_its_manifest(class_id: str) -> None:
    broken = replace(row("x", {0: 50}), fine_counts={"0": 50, class_id: 3})
    with pytest.raises(DataError, match=rf"train\.jsonl.*fine class {class_id}.*0 to 6"):
        check_labels(dataset_of([broken], []), frozenset({"fine"}))


# -- rare classes ------------------------------------------------------------------------------------------------------

ROWS = (row("p", {0: 100}), row("q", {0: 60, 1: 40}), row("r", {0: 40, 1: 40, 2: 20}))


def test_class_probabilities_by_hand() -> None:
    """200 of 300 pixels are ground, 80 class 1, 20 class 2; exp((1 - f) / T)."""
    weights = [math.exp((1 - n / 300) / 0.2) for n in (200, 80, 20)]
    rare = rare_classes(ROWS, frozenset({"fine"}), 0.2)
    assert rare.probabilities == pytest.approx([w / sum(weights) for w in weights])
    assert [list(images) for images in rare.images] == [[0, 1, 2], [1, 2], [2]]
    assert rare_classes(ROWS, frozenset({"fine"}), 1e6).probabilities == pytest.approx([1 / 3] * 3)
    assert rare_classes(ROWS, frozenset({"fine"}), 1e-4).probabilities == pytest.approx([0, 0, 1])


def test_coarse_classes_have_counts_of_their_own() -> None:
    rare = rare_classes(ROWS, frozenset({"coarse"}), 1e-4)
    assert rare.probabilities == pytest.approx([0, 1])
    assert list(rare.images[1]) == [1, 2]


def test_images_that_barely_show_a_class_serve_only_where_none_shows_more() -> None:
    """3000 of 2048 x 1024 pixels is 0.143 %: of 100 x 100 pixels, 15."""
    rows = (row("p", {0: 9986, 1: 14}, side=100), row("q", {0: 9985, 1: 15}, side=100), row("r", {0: 9999, 2: 1}, side=100))
    assert [list(images) for images in rare_classes(rows, frozenset({"fine"}), 0.01).images] == [[0, 1, 2], [1], [2]]


def test_images_with_coarse_labels_only_are_drawn_at_their_share() -> None:
    """Two of five images; a method that cannot use them never draws them, nor one without any label."""
    above = replace(row("s", {}), coarse_counts={"1": 50})
    rows = (*ROWS, above, replace(above, key="t"), row("u", {}))
    rare = rare_classes(rows, frozenset({"fine", "coarse"}), 0.01)
    assert rare.probabilities[-1] == pytest.approx(2 / 5)
    assert list(rare.images[-1]) == [3, 4]
    assert rare.probabilities[:-1] == pytest.approx(3 / 5 * rare_classes(ROWS, frozenset({"fine"}), 0.01).probabilities)
    assert len(rare_classes(rows, frozenset({"fine"}), 0.01).images) == 3


def test_draws_follow_the_probabilities() -> None:
    rare = RareClasses(np.array([0.25, 0.75]), (np.array([0, 1]), np.array([2])))
    drawn = Counter(rare.draw(np.random.default_rng(0), 20_000))
    assert drawn[2] / 20_000 == pytest.approx(0.75, abs=0.015)
    assert drawn[0] / drawn[1] == pytest.approx(1, abs=0.1)


def test_sampling_by_class_depends_on_seed_and_step_only() -> None:
    rare = rare_classes(ROWS, frozenset({"fine"}), 0.1)
    whole = list(StepSampler(3, 4, seed=1, start_step=0, total_steps=10, rare=rare))
    assert whole[6:] == list(StepSampler(3, 4, seed=1, start_step=6, total_steps=10, rare=rare))
    assert whole != list(StepSampler(3, 4, seed=2, start_step=0, total_steps=10, rare=rare))
    draws = [draw for batch in whole for draw in batch]
    assert len(set(draws)) == len(draws) == 40, "an image drawn twice is cropped twice"


# -- loader processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset"), EOFError(), RuntimeError("DataLoader worker (pid 1) died")]
)
def test_a_lost_loader_process_is_named_however_torch_reports_it(error: Exception, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    with (
        pytest.raises(HiposegError, match=r"--workers 2: a loader process was killed.* begin again"),
        living_workers(2, state),
    ):
        raise error
    state.touch()
    cure = f"continue with --resume {tmp_path}, with fewer workers, such as --workers 1"
    with pytest.raises(HiposegError, match=cure), living_workers(2, state):
        raise error


class Faulty(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        raise RuntimeError("shapes differ")

    def __len__(self) -> int:
        return 1


def test_other_errors_are_not_taken_for_a_lost_loader_process(tmp_path: Path) -> None:
    """An error inside a loader process arrives as one that names the process."""
    state = tmp_path / "state.safetensors"
    loader = torch.utils.data.DataLoader(Faulty(), num_workers=1)
    with pytest.raises(RuntimeError, match=r"(?s)DataLoader worker process 0.*shapes differ"), living_workers(1, state):
        list(loader)
    with pytest.raises(ConnectionResetError), living_workers(0, state):
        raise ConnectionResetError(104, "reset")


# -- accumulation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_class", [False, True])
def test_accumulated_batches_draw_what_the_joined_batch_draws(by_class: bool) -> None:
    rare = rare_classes(ROWS, frozenset({"fine"}), 0.1) if by_class else None
    n_rows = 3 if by_class else 20
    joined = list(StepSampler(n_rows, 6, seed=3, start_step=0, total_steps=7, rare=rare))
    parts = StepSampler(n_rows, 2, seed=3, start_step=0, total_steps=7, accumulate=3, rare=rare)
    batches = list(parts)
    assert len(batches) == len(parts) == 21
    steps = [batches[first : first + 3] for first in range(0, 21, 3)]
    assert [[draw for batch in step for draw in batch] for step in steps] == joined
    assert batches[12:] == list(StepSampler(n_rows, 2, seed=3, start_step=4, total_steps=7, accumulate=3, rare=rare))


# -- the log -----------------------------------------------------------------------------------------------------------


def test_tensorboard_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"loop\.tensorboard: needs the package tensorboard.*hiposeg-cli\[tensorboard\]"):
        MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
    assert list(tmp_path.iterdir()) == []
    MetricsLog(tmp_path / "metrics.jsonl").write({"step": 1, "loss": 2.0})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 2.0}


def test_tensorboard_gets_every_number_by_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5 * step, "val_fine_miou": None})
    resumed = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
    resumed.write({"step": 3, "loss": 9.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]


# -- compilation -------------------------------------------------------------------------------------------------------


def test_without_a_compiler_training_goes_on_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    net, device = nn.Linear(2, 2), torch.device("cpu")
    assert training_pass(net, device, compiled=False) == (net, "")

    def compile_nothing(function: Any) -> Any:
        def fail(*arguments: Any) -> Any:
            raise RuntimeError("\nNo working C++ compiler found\nmore")

        return fail

    monkeypatch.setattr(compilation.torch, "compile", compile_nothing)
    forward, warning = training_pass(net, device, compiled=True)
    assert forward is net
    assert warning == "loop.compile has no effect: nothing can be compiled here (No working C++ compiler found)"


@pytest.mark.slow
def test_a_compiled_pass_computes_the_same_with_the_same_parameters() -> None:
    device = torch.device("cpu")
    if reason := can_compile(device):
        pytest.skip(f"nothing can be compiled here: {reason}")
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    forward, warning = training_pass(net, device, compiled=True)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert warning == ""
    assert forward is not net
    assert torch.allclose(forward(x), net(x), atol=1e-6)
    forward(x).sum().backward()
    assert net[0].weight.grad is not None
