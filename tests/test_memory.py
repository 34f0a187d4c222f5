"""Batches and memory: `--batch auto` under a limit that is faked, and what is said when a step does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import prepared_squares, state_of, trainer_of
from typer.testing import CliRunner

from hiposeg_cli import run as run_module
from hiposeg_cli.app import app
from hiposeg_cli.config import Layer
from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.learn import ranks
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.memory import (
    FoundBatch,
    Trial,
    enough_memory,
    largest_batch,
    smaller_step,
    trial_memory,
    tried_batch,
)
from hiposeg_cli.learn.schedule import OptimConfig
from hiposeg_cli.plan import most_in_batch
from hiposeg_cli.run import build_parts, find_batch, make_trainer
from hiposeg_cli.run_config import resolve_config
from hiposeg_cli.store import open_dataset

FULL = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 training and 4 validation images."""
    return prepared_squares(tmp_path_factory.mktemp("squares"), 10, 4)


def limited(limit: int, tried: list[int]) -> Callable[[int], None]:
    def attempt(n_images: int) -> None:
        tried.append(n_images)
        if n_images > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    return attempt


# -- the search --------------------------------------------------------------------------------------------------------


@given(limit=st.integers(2, 3000), most=st.integers(2, 3000))
def test_the_largest_even_batch_is_found_in_few_attempts(limit: int, most: int) -> None:
    tried: list[int] = []
    assert largest_batch(limited(limit, tried), most) == min(limit, most) // 2 * 2
    assert len(tried) <= 2 * max(most, 2).bit_length()
    assert max(tried) <= most
    assert len(set(tried)) == len(tried)


def test_a_batch_that_never_fits_is_said_with_the_cure() -> None:
    with pytest.raises(HiposegError, match=r"--batch auto: not even a batch of 2 fits into memory - pass a smaller --crop"):
        largest_batch(limited(1, []), 64)


def test_other_errors_of_a_trial_are_not_taken_for_a_full_memory() -> None:
    def broken(n_images: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(broken, 8)


def test_most_images_by_hand() -> None:
    """400 images keep 8 steps in a pass; 10 would keep 8 with single images, but 4 are what batch norm wants."""
    assert [most_in_batch(400, parts) for parts in (1, 2, 5)] == [50, 25, 10]
    assert [most_in_batch(images, 1) for images in (1, 2, 3, 4, 10, 40)] == [2, 2, 3, 4, 4, 5]
    assert most_in_batch(6, 3) == 2, "three batches of two are all images there are"


def test_reasons_say_what_stopped_the_search() -> None:
    assert tried_batch(24, 50, (256, 320)) == FoundBatch(
        24, "tried at a crop of 256x320 px: the largest even number that fits, with 10 % of the free memory left"
    )
    assert "few steps in a pass" in tried_batch(50, 50, (32, 32)).reason
    assert "few steps in a pass" in tried_batch(50, 51, (32, 32)).reason


# -- the trial ---------------------------------------------------------------------------------------------------------


class Recorded(torch.nn.Module):
    """A network that notes how many images it was given, and in which state."""

    def __init__(self, net: torch.nn.Module, limit: int) -> None:
        super().__init__()
        self.net, self.limit, self.seen = net, limit, []

    def forward(self, image: torch.Tensor) -> Any:
        self.seen.append(len(image))
        if len(image) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.net(image)


@pytest.mark.parametrize("method", ["flat", "hiposeg", "hssn"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_trial_is_a_real_step_that_moves_no_weight_and_draws_no_random_number(
    squares: Path,
    method: str,
    partial: bool,
) -> None:
    config = resolve_config([Layer("--test", {"method.name": method, "net.architecture": "fpn", "net.weights": "none"})])
    dataset = open_dataset(squares)
    built = build_parts(config, dataset.hierarchy, rows=dataset.split("train"))
    before = [parameter.detach().clone() for parameter in built.net.parameters()]
    net, random = Recorded(built.net, limit=4), torch.get_rng_state()
    device = torch.device("cpu")
    with trial_memory(device):
        trial = Trial(net, built.method, OptimConfig(accumulate=3), (32, 64), device, partial=partial)
        assert largest_batch(trial, 8) == 4
    assert net.seen == [2, 2, 4, 4, 8, 6], "two batches a step, for the gradients that are kept"
    assert all(torch.equal(mine, old) for mine, old in zip(built.net.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    trial(2)
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in built.net.parameters())


def test_a_trial_keeps_room_for_what_training_adds() -> None:
    """AdamW's two moments, the averaged weights, and the buckets of several processes."""
    net, method = torch.nn.Linear(3, 5), torch.nn.Linear(2, 2)

    def copies(n_ranks: int = 1, **optim: Any) -> int:
        trial = Trial(net, method, OptimConfig(**optim), (32, 32), torch.device("cpu"), n_ranks=n_ranks)  # type: ignore[arg-type]
        return sum(tensor.numel() for tensor in trial._kept()) // (3 * 5 + 5 + 2 * 2 + 2)

    assert [copies(optimizer="sgd"), copies(), copies(weight_average=0.9), copies(2, weight_average=0.9)] == [1, 2, 3, 4]


# -- `--batch auto` ----------------------------------------------------------------------------------------------------

COMMAND = ["--net", "fpn", "--crop", "32", "--workers", "0", "--device", "cpu", "--iterations", "3"]


@pytest.mark.slow
def test_batch_auto_trains_like_the_number_it_finds_and_writes_it_down(
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "find_batch", lambda config: FoundBatch(6, "because"))

    def trained(batch: str) -> str:
        command = ["train", str(squares), *COMMAND, "--batch", batch, "--out", str(tmp_path / batch)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
        return result.stderr

    talk = trained("auto")
    assert "data.batch = 6 (because)" in talk
    assert talk.count("data.batch") == 1
    trained("6")
    for name in ("config.yaml", "weights/last.safetensors", "state.safetensors"):
        assert (tmp_path / "auto" / name).read_bytes() == (tmp_path / "6" / name).read_bytes(), name


def test_off_a_gpu_batch_auto_is_the_planned_batch(squares: Path) -> None:
    """10 images: 4 are the fewest that are planned."""
    settings = {"data.path": str(squares), "data.batch": "auto", "loop.device": "cpu"}
    found = find_batch(resolve_config([Layer("--test", settings)]))
    assert found.images == 4
    assert "power of two" in found.reason


def test_of_several_processes_the_smallest_decides(
    squares: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On two GPUs of different size, with a network that the CPU stands in for."""
    tried: list[int] = []
    monkeypatch.setattr(run_module, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(run_module, "trial_memory", lambda device: trial_memory(torch.device("cpu")))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    monkeypatch.setattr(run_module, "largest_batch", lambda trial, most: tried.append(most) or 4)
    monkeypatch.setattr(run_module.ranks, "gathered", lambda own: [own, 2])
    settings = {"data.path": str(squares), "data.batch": "auto", "loop.amp": "off", "net.weights": "none"}
    assert find_batch(resolve_config([Layer("--test", settings)])).images == 2
    assert tried == [4]


def test_apart_no_rank_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that fails on one GPU alone would leave the others waiting in the middle of a step."""
    monkeypatch.setattr(ranks.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(ranks.dist, "get_world_size", lambda: 2)
    assert ranks.n_ranks() == 2
    with ranks.apart():
        assert ranks.n_ranks() == 1
        assert ranks.joint_sum(torch.ones(1)) == 1
    assert ranks.n_ranks() == 2


def test_auto_is_a_word_and_a_trainer_needs_a_number(squares: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch.*'many' is not allowed"):
        resolve_config([Layer("--batch", {"data.batch": "many"})])
    config = resolve_config([Layer("--test", {"data.path": str(squares), "data.batch": "auto", "data.crop": 32})])
    with pytest.raises(ConfigError, match="needs a number"):
        make_trainer(config, tmp_path / "run")


# -- memory that is full while training --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), RuntimeError(FULL), MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
)  # fmt: skip
def test_a_full_memory_is_an_error_in_words(error: Exception) -> None:
    with pytest.raises(HiposegError, match="here: does not fit into memory - pass less"), enough_memory("here", "pass less"):
        raise error


def test_the_real_allocator_is_understood() -> None:
    with pytest.raises(HiposegError, match="does not fit"), enough_memory("here", ""):
        torch.empty(1 << 55, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("batch", "accumulate", "said"),
    [
        (8, 1, "--batch 4 --accumulate 2"), (16, 3, "--batch 8 --accumulate 6"), (5, 1, "--batch 2 --accumulate 3"),
        (3, 1, "a smaller --crop or --backbone"), (2, 2, "a smaller --crop or --backbone"),
    ],
)  # fmt: skip
def test_the_cure_keeps_the_step_or_says_that_nothing_smaller_is_left(batch: int, accumulate: int, said: str) -> None:
    assert said in smaller_step(batch, accumulate)


@pytest.mark.parametrize("place", ["forward", "backward", "update"])
def test_wherever_a_step_runs_out_of_memory_step_and_cure_are_named(
    squares: Path,
    tmp_path: Path,
    place: str,
) -> None:
    trainer = trainer_of(squares, tmp_path / "run", "flat")

    def fail(*arguments: Any, **more: Any) -> Any:
        raise RuntimeError(FULL)

    if place == "forward":
        trainer.forward = fail
    elif place == "backward":
        next(iter(trainer.net.parameters())).register_hook(fail)
    else:
        trainer.optimizer.step = fail  # type: ignore[method-assign]
    expected = r"step 1, a batch of 4: does not fit into memory - pass --batch 2 --accumulate 2, or a smaller --crop"
    with pytest.raises(HiposegError, match=expected):
        trainer.run()


def test_a_cure_can_be_passed_as_it_is_said(squares: Path, tmp_path: Path) -> None:
    """The step has as many images as before, and shows the same ones."""
    whole = trainer_of(squares, tmp_path / "a", "flat")
    parts = trainer_of(squares, tmp_path / "b", "flat", data__batch=2, optim__accumulate=2)

    def first_step(trainer: Any) -> list[str]:
        batches: list[Batch] = [batch for _, batch in zip(range(trainer.optim.accumulate), trainer._loader(), strict=False)]
        return [key for batch in batches for key in batch.keys]

    assert whole.total_steps == parts.total_steps
    assert first_step(whole) == first_step(parts)
    assert state_of(whole).keys() == state_of(parts).keys()
