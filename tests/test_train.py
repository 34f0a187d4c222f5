"""Training end to end on toy data: exact resume, equal saved networks, withheld labels, overfitting, interruption."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hiposeg_cli.app import app
from hiposeg_cli.commands.training_view import TrainingView
from hiposeg_cli.config import Layer
from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, DataError, HiposegError
from hiposeg_cli.infer.model import load_model
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.checkpoint import load_weights
from hiposeg_cli.learn.data import StepSampler, TrainSet, collate
from hiposeg_cli.learn.evaluate import evaluate
from hiposeg_cli.learn.loop import Interrupted, Trainer
from hiposeg_cli.learn.method import Progress
from hiposeg_cli.metrics import none_if_nan, score
from hiposeg_cli.run import make_trainer, write_run_files
from hiposeg_cli.run_config import resolve_config
from hiposeg_cli.store import open_dataset

HIERARCHY = """
schema: hiposeg/hierarchy@1
name: squares
levels: [fine, coarse]
classes:
  coarse: [{id: 0, name: ground, kind: background}, {id: 1, name: box}]
  fine:
    - {id: 0, name: ground, parent: ground, kind: background}
    - {id: 1, name: left half, parent: box, mirror: right half}
    - {id: 2, name: right half, parent: box, mirror: left half}
sources:
  masks: {map: {0: ground, 1: left half, 2: right half, 3: {coarse: box}}, ignore: [255]}
"""


def draw_squares(root: Path, split: str, count: int, size: int = 48) -> None:
    """Bright boxes on a dark ground; the left half is redder; a rim of the box has a coarse label only."""
    rng = np.random.default_rng(len(split))
    for folder in ("images", "labels"):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        labels = np.zeros((size, size), dtype=np.uint8)
        y, x = rng.integers(4, size - 26, 2)
        labels[y - 2 : y + 22, x - 2 : x + 22] = 3
        labels[y : y + 20, x : x + 10] = 1
        labels[y : y + 20, x + 10 : x + 20] = 2
        labels[0, :3] = 255
        palette = np.array([[40, 60, 40], [220, 120, 90], [150, 160, 220], [180, 180, 180]], dtype=np.uint8)
        photo = palette[np.where(labels == 255, 0, labels)]
        photo = np.clip(photo + rng.normal(0, 8, photo.shape), 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(root / split / "images" / f"{number:03}.png")
        Image.fromarray(labels).save(root / split / "labels" / f"{number:03}.png")


def prepared_squares(
    root: Path, n_train: int, n_val: int, *, hierarchy: str = HIERARCHY, edit: Callable[[Path], None] | None = None
) -> Path:
    """A prepared toy dataset in `root/data`; `edit` changes the raw images first."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "h.yaml").write_text(hierarchy)
    draw_squares(root / "raw", "train", n_train)
    draw_squares(root / "raw", "val", n_val)
    if edit is not None:
        edit(root / "raw")
    prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(root / "h.yaml")))
    return root / "data"


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 training and 4 validation images."""
    return prepared_squares(tmp_path_factory.mktemp("squares"), 10, 4)


def trainer_of(data: Path, run_dir: Path, method: str = "hiposeg", **settings: Any) -> Trainer:
    values = {
        "data.path": str(data), "method.name": method, "net.architecture": "fpn", "data.crop": 32, "data.batch": 4,
        "data.workers": 0, "optim.iterations": 6, "loop.val_every": 1, "loop.log_every": 1, "loop.device": "cpu",
        **({"method.embed_dim": 16} if method == "hiposeg" else {}),
    }  # fmt: skip
    config = resolve_config([Layer("--test", values | {key.replace("__", "."): value for key, value in settings.items()})])
    trainer, _ = make_trainer(config, run_dir)
    write_run_files(run_dir, config, trainer.dataset.hierarchy)
    return trainer


def resumed(run_dir: Path) -> Trainer:
    from hiposeg_cli.run_config import load_run_config

    trainer, _ = make_trainer(load_run_config(run_dir), run_dir, resuming=True)
    trainer.resume()
    return trainer


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    parts = {"net": trainer.net, "method": trainer.method} | ({"average": trainer.average} if trainer.average else {})
    return {f"{name}.{key}": t for name, part in parts.items() for key, t in part.state_dict().items()}


# -- data --------------------------------------------------------------------------------------------------------------


def test_a_fraction_of_the_training_images_is_nested_and_drawn_by_the_seed(squares: Path, tmp_path: Path) -> None:
    def keys(fraction: float, seed: int = 0) -> set[str]:
        trainer = trainer_of(squares, tmp_path / f"{fraction}-{seed}", data__fraction=fraction, loop__seed=seed)
        assert len(trainer.dataset.split("val")) == len(whole.dataset.split("val"))
        return {row.key for row in trainer.train_set.rows}

    whole = trainer_of(squares, tmp_path / "whole")
    n = len(whole.train_set)
    quarter, half = keys(0.25), keys(0.5)
    assert (len(quarter), len(half), len(keys(1.0))) == (round(n / 4), round(n / 2), n)
    assert quarter < half
    assert keys(1e-9), "one image at least"
    assert len({frozenset(keys(0.5, seed)) for seed in range(4)}) > 1
    with pytest.raises(ConfigError, match=r"data\.fraction.*0\.0"):
        keys(0.0)


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resume_equals_the_straight_run_bit_for_bit(squares: Path, tmp_path: Path, stop_at: int, optimizer: str) -> None:
    """Stopped after any step, in the middle of an epoch or at its end, inside any stage of the curriculum."""
    straight = trainer_of(squares, tmp_path / "straight", optim__optimizer=optimizer)
    straight.run()
    broken = trainer_of(squares, tmp_path / "broken", optim__optimizer=optimizer)
    require_equal_runs(straight, broken_and_resumed(broken, stop_at))


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 3])
def test_resume_is_exact_with_accumulation_weight_average_patience_and_rare_classes(
    squares: Path, tmp_path: Path, stop_at: int
) -> None:
    settings = {
        "data__batch": 2, "optim__accumulate": 2, "optim__weight_average": 0.99, "loop__patience": 50,
        "data__rare_class_sampling": 0.1,
    }  # fmt: skip
    straight = trainer_of(squares, tmp_path / "straight", **settings)
    straight.run()
    broken = trainer_of(squares, tmp_path / "broken", **settings)
    require_equal_runs(straight, broken_and_resumed(broken, stop_at))


def broken_and_resumed(broken: Trainer, stop_at: int) -> Trainer:
    """The trainer that ends a run that was stopped after a step."""
    broken.stop = lambda: signal.SIGTERM if broken.progress["step"] == stop_at else None
    with pytest.raises(Interrupted):
        broken.run()
    second = resumed(broken.run_dir)
    assert second.progress["step"] == stop_at
    second.run()
    return second


def require_equal_runs(one: Trainer, other: Trainer) -> None:
    """Equal to the bit: everything trained, the saved weights, the logged losses and scores."""
    mine, theirs = state_of(one), state_of(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
    for which in ("best", "last"):
        file = Path("weights") / f"{which}.safetensors"
        assert (one.run_dir / file).read_bytes() == (other.run_dir / file).read_bytes()

    def logged(run: Trainer) -> list[dict[str, Any]]:
        return [{name: value for name, value in entry.items() if name != "seconds"} for entry in run.log.read()]

    assert logged(one) == logged(other)


@pytest.mark.slow
def test_loader_processes_do_not_change_the_result(squares: Path, tmp_path: Path) -> None:
    one, two = trainer_of(squares, tmp_path / "a"), trainer_of(squares, tmp_path / "b", data__workers=2)
    one.run()
    two.run()
    assert all(torch.equal(tensor, state_of(two)[name]) for name, tensor in state_of(one).items())


@pytest.mark.slow
def test_sigterm_saves_and_exits_143_and_the_run_goes_on(squares: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "hiposeg_cli", "train", str(squares), "--net", "fpn", "--crop", "32", "--batch", "4",
        "--workers", "0", "--iterations", "100000", "--out", str(run), "--set", "loop.log_every=1", "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = run / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=120)
    assert process.returncode == 143, talk
    assert "--resume" in talk
    assert "Traceback" not in talk
    assert (run / "state.safetensors").exists()
    assert resumed(run).progress["step"] >= 2


@pytest.mark.slow
def test_finished_run_is_not_resumed(squares: Path, tmp_path: Path) -> None:
    trainer_of(squares, tmp_path / "run", optim__iterations=2).run()
    with pytest.raises(DataError, match="finished"):
        resumed(tmp_path / "run")


# -- accumulated steps -------------------------------------------------------------------------------------------------


def random_batch(count: int, seed: int, class_id: int | None = None) -> Batch:
    """Noise, with every pixel labelled: at random, or all the same."""
    rng = torch.Generator().manual_seed(seed)
    fine = torch.randint(0, 3, (count, 32, 32), generator=rng) if class_id is None else torch.full((count, 32, 32), class_id)
    image = torch.randint(0, 256, (count, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return Batch(image, fine, torch.tensor([0, 1, 1])[fine], tuple(f"image {number}" for number in range(count)))


def test_an_accumulated_step_moves_the_weights_like_the_joined_batch(squares: Path, tmp_path: Path) -> None:
    """With equally many labelled pixels, and batch norm (which sees one batch at a time) switched off."""
    joined, moved = random_batch(4, seed=0), []
    halves = [replace(joined, image=joined.image[at], fine=joined.fine[at]) for at in (slice(0, 2), slice(2, 4))]
    for batches in ([joined], halves):
        settings = {"data__batch": 4 // len(batches), "optim__accumulate": len(batches), "optim__optimizer": "sgd"}
        trainer = trainer_of(squares, tmp_path / "run", "flat", **settings, optim__lr=0.1, optim__warmup=0.0)
        trainer.net.train = lambda mode=True, net=trainer.net: torch.nn.Module.train(net, False)
        before = {name: tensor.clone() for name, tensor in trainer.net.state_dict().items()}
        terms = trainer._step(batches, Progress(0, 10))
        moved.append((trainer.net.state_dict(), float(terms.total), float(terms.parts["ce"])))
    (whole, loss, ce), (parts, mean_loss, mean_ce) = moved
    assert loss == ce
    assert (mean_loss, mean_ce) == pytest.approx((loss, ce), rel=1e-5)
    assert any(not torch.equal(whole[name], before[name]) for name in whole)
    for name, tensor in whole.items():
        assert torch.allclose(tensor - before[name], parts[name] - before[name], rtol=1e-3, atol=1e-6), name


def test_every_accumulated_batch_reaches_the_prototypes(squares: Path, tmp_path: Path) -> None:
    """The second batch shows another class only; what the first showed has moved its prototype all the same."""
    trainer = trainer_of(squares, tmp_path / "run", data__batch=2, optim__accumulate=2, method__ema_momentum=0.5)
    bank = trainer.method.banks[0]
    bank.vectors.copy_(torch.eye(3, 16))
    bank.seen.fill_(True)
    trainer._step([random_batch(2, 0, class_id=1), random_batch(2, 1, class_id=0)], Progress(0, 10))
    kept = (bank.vectors * torch.eye(3, 16)).sum(dim=1)
    assert kept[2] == 1, "shown by neither"
    assert kept[0] < 0.999
    assert kept[1] < 0.999


def test_accumulation_counts_steps_and_not_batches(squares: Path, tmp_path: Path) -> None:
    trainer = trainer_of(squares, tmp_path / "run", "flat", data__batch=2, optim__accumulate=2, optim__iterations=3)
    assert trainer.steps_per_epoch == 2
    trainer.run()
    assert [entry["step"] for entry in trainer.log.read() if "loss" in entry] == [1, 2, 3]
    assert int(trainer.optimizer.state_dict()["state"][0]["step"]) == 3


# -- weight average ----------------------------------------------------------------------------------------------------


def test_the_average_is_what_is_scored_and_saved(squares: Path, tmp_path: Path) -> None:
    trainer = trainer_of(squares, tmp_path / "run", "flat", optim__weight_average=0.9, optim__iterations=3, optim__lr=1e-2)
    trainer.run()
    saved = load_weights(tmp_path / "run" / "weights" / "last.safetensors").tensors
    assert trainer.average is not None
    averaged, trained = trainer.average.net.state_dict(), trainer.net.state_dict()
    assert saved.keys() == averaged.keys() == trained.keys()
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in saved.items())
    assert any(not torch.equal(tensor, trained[name]) for name, tensor in saved.items())
    model = load_model(tmp_path / "run", which="last", device="cpu")
    confusion = evaluate(trainer.dataset, trainer.dataset.split("val"), model.segment)
    logged = trainer.log.read()[-1]["val_fine_miou"]
    assert logged == none_if_nan(score(confusion.matrix(0), trainer.dataset.hierarchy.fine).miou)


# -- early stop --------------------------------------------------------------------------------------------------------


def scored_as(trainer: Trainer, scores: list[float]) -> Trainer:
    """The trainer, with a validation every two steps that finds these scores."""
    coming = iter(scores)
    trainer._scores = lambda net: {"val_fine_miou": next(coming)}  # type: ignore[method-assign]
    return trainer


def test_patience_ends_the_run_and_resuming_keeps_the_count(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"loop__patience": 2, "optim__iterations": 30}
    first = scored_as(trainer_of(squares, tmp_path / "run", "flat", **settings), [0.5, 0.6, 0.6])
    first.stop = lambda: signal.SIGTERM if first.progress["step"] == 7 else None
    with pytest.raises(Interrupted):
        first.run()
    second = scored_as(resumed(tmp_path / "run"), [0.55, 0.9])
    second.watcher = TrainingView("train")
    last = second.run()
    assert last["step"] == 8
    assert "stopped early, no better fine mIoU in 2 validations" in capsys.readouterr().err
    rows = [entry for entry in second.log.read() if "loss" not in entry]
    assert [entry["stale"] for entry in rows] == [0, 0, 1, 2]
    assert [entry["stopped_early"] for entry in rows] == [False, False, False, True]
    assert load_weights(tmp_path / "run" / "weights" / "best.safetensors").about["val_fine_miou"] == 0.6
    with pytest.raises(DataError, match=r"finished \(8 steps, stopped early\)"):
        resumed(tmp_path / "run")


def test_without_patience_a_run_goes_on(squares: Path, tmp_path: Path) -> None:
    trainer = scored_as(trainer_of(squares, tmp_path / "run", "flat", optim__iterations=6), [0.6, 0.5, 0.4])
    assert trainer.run()["step"] == 6
    assert not any("stale" in entry for entry in trainer.log.read())


# -- what is saved -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("other", ["hiposeg", "hssn"])
def test_a_hiposeg_run_saves_exactly_the_flat_network(squares: Path, tmp_path: Path, other: str) -> None:
    saved = {}
    for method in ("flat", other):
        trainer_of(squares, tmp_path / method, method, optim__iterations=2).run()
        saved[method] = load_weights(tmp_path / method / "weights" / "best.safetensors").tensors
    assert list(saved["flat"]) == list(saved[other])
    assert {n: t.shape for n, t in saved["flat"].items()} == {n: t.shape for n, t in saved[other].items()}
    assert sum(t.numel() for t in saved["flat"].values()) == sum(t.numel() for t in saved[other].values())


@pytest.mark.slow
def test_without_prototype_terms_hiposeg_trains_like_flat_to_the_last_digit(squares: Path, tmp_path: Path) -> None:
    off = {f"method__lambda_{name}": 0.0 for name in ("fh", "hh", "fl", "ll", "align", "balanced")}
    flat = trainer_of(squares, tmp_path / "f", "flat", method__partial_labels=True)
    hiposeg = trainer_of(squares, tmp_path / "h", "hiposeg", **off)
    flat.run()
    hiposeg.run()
    for name, tensor in flat.net.state_dict().items():
        assert torch.equal(tensor, hiposeg.net.state_dict()[name]), name


@pytest.mark.slow
def test_loaded_model_predicts_what_the_trained_one_does(squares: Path, tmp_path: Path) -> None:
    trainer = trainer_of(squares, tmp_path / "run", optim__iterations=2)
    trainer.run()
    model = load_model(tmp_path / "run", which="last", device="cpu")
    image = trainer.dataset.image(trainer.dataset.split("val")[0])
    from hiposeg_cli.learn.evaluate import segment

    trainer.net.eval()
    assert np.array_equal(model.segment(image), segment(trainer.net, image, size=None, device=torch.device("cpu")))


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_a_method_does_not_need_never_reach_it(squares: Path, tmp_path: Path) -> None:
    for method, expected in (("flat", {"fine"}), ("hiposeg", {"fine", "coarse"}), ("hssn", {"fine", "coarse"})):
        trainer = trainer_of(squares, tmp_path / method, method)
        sample = trainer.train_set[(0, 0)]
        assert set(sample.labels) == expected
        batch = collate([sample, trainer.train_set[(0, 1)]])
        assert (batch.coarse is None) == (method == "flat")


def test_coarse_only_pixels_reach_training(squares: Path, tmp_path: Path) -> None:
    sample = trainer_of(squares, tmp_path / "run").train_set[(0, 0)]
    fine, coarse = sample.labels["fine"], sample.labels["coarse"]
    assert ((fine == IGNORE) & (coarse == 1)).any()
    assert (coarse[fine == 0] == 0).all()


def test_samples_depend_on_seed_epoch_and_index_only(squares: Path, tmp_path: Path) -> None:
    data: TrainSet = trainer_of(squares, tmp_path / "run").train_set
    first, again = data[(3, 1)], data[(3, 1)]
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, data[(4, 1)].image)


def test_each_epoch_shows_every_image_once_and_resuming_skips_nothing() -> None:
    whole = list(StepSampler(10, 5, seed=1, start_step=0, total_steps=6))
    for epoch in range(3):
        shown = [index for batch in whole[2 * epoch : 2 * epoch + 2] for _, index in batch]
        assert sorted(shown) == list(range(10))
    assert whole[3:] == list(StepSampler(10, 5, seed=1, start_step=3, total_steps=6))
    assert len(next(iter(StepSampler(3, 8, seed=0, start_step=0, total_steps=1)))) == 8


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["flat", "hiposeg", "hssn"])
def test_one_batch_can_be_learned_by_heart(tmp_path: Path, method: str) -> None:
    """Without the rims, which are coarse labels alone: no score on the fine level asks for them."""

    def without_rims(raw: Path) -> None:
        for path in raw.rglob("labels/*.png"):
            labels = np.array(Image.open(path))
            Image.fromarray(np.where(labels == 3, 255, labels).astype(np.uint8)).save(path)

    squares = prepared_squares(tmp_path, 4, 1, edit=without_rims)
    trainer = trainer_of(
        squares, tmp_path / "run", method, optim__iterations=60, data__scale=[1.0, 1.0], data__flip=0.0, data__jitter=0.0,
        data__crop=64, optim__lr=2e-3, loop__val_every=100,
    )  # fmt: skip
    trainer.run()
    dataset = open_dataset(squares)
    model = load_model(tmp_path / "run", which="last", device="cpu")
    confusion = evaluate(dataset, dataset.split("train"), model.segment)
    assert score(confusion.matrix(0), dataset.hierarchy.fine).pixel_accuracy > 0.99


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_photo_is_named_whichever_process_meets_it(tmp_path: Path, workers: int) -> None:
    (tmp_path / "h.yaml").write_text(HIERARCHY)
    draw_squares(tmp_path / "raw", "train", 4)
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(tmp_path / "h.yaml")))
    (tmp_path / "raw" / "train" / "images" / "002.png").unlink()
    with pytest.raises(DataError, match=r"002\.png: photo of the prepared dataset is missing"):
        trainer_of(tmp_path / "data", tmp_path / "run", data__workers=workers).run()
    assert multiprocessing.active_children() == [], "a loader process outlives the run, and would hold the end of this one"


@pytest.mark.slow
def test_a_killed_loader_process_ends_the_run_in_words(squares: Path, tmp_path: Path) -> None:
    """The other process ends too: it ignores SIGTERM, and would hold the end of this one."""
    trainer = trainer_of(squares, tmp_path / "run", data__workers=2, optim__iterations=100)

    def kill_one() -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    trainer.stop = kill_one
    with pytest.raises(HiposegError, match=r"--workers 2: a loader process was killed.*--resume") as held:
        trainer.run()
    assert held.value is not None
    assert multiprocessing.active_children() == []


def test_a_changed_label_file_is_named_before_it_is_trained_on(squares: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(squares, tmp_path / "data")
    about = json.loads((squares / "dataset.json").read_text())
    assert Path(about["images_root"]).is_absolute()
    label = tmp_path / "data" / "labels" / "fine" / "train" / "003.png"
    for change, message in ((np.full((48, 48), 77, np.uint8), "id 77"), (np.zeros((40, 48), np.uint8), "48x40")):
        Image.fromarray(change).save(label)
        with pytest.raises(DataError, match=rf"003\.png.*{message}"):
            trainer_of(tmp_path / "data", tmp_path / "run").run()


@pytest.mark.slow
def test_resume_refuses_a_dataset_that_changed(squares: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(squares, tmp_path / "data")
    trainer = trainer_of(tmp_path / "data", tmp_path / "run")
    trainer.stop = lambda: signal.SIGINT if trainer.progress["step"] == 2 else None
    with pytest.raises(Interrupted):
        trainer.run()
    hierarchy = tmp_path / "run" / "hierarchy.yaml"
    hierarchy.write_text(hierarchy.read_text().replace("left half", "first half"))
    with pytest.raises(HiposegError, match="another hierarchy"):
        resumed(tmp_path / "run")


def test_infinite_loss_is_reported_with_its_images(squares: Path, tmp_path: Path) -> None:
    trainer = trainer_of(squares, tmp_path / "run", optim__lr=1e30, optim__warmup=0.0, optim__iterations=20)
    with pytest.raises(HiposegError, match=r"loss is .*images 00"):
        trainer.run()


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.crop", 100, "try 96"),
        ("data.batch", 1, "two images"),
        ("optim.lrr", 1, r"optim\.lr"),
        ("optim.lr", "x", r"optim\.lr"),
        ("optim.epochs", 0, "at least one epoch"),
        ("optim.iterations", -5, "0 or more"),
        ("loop.log_every", 0, "above 0"),
        ("loop.seed", -1, "0 or more"),
        ("data.workers", -1, "0 or more"),
        ("data.size", 5, "32 or more"),
        ("data.rare_class_sampling", -0.1, "0 or more"),
        ("optim.accumulate", 0, "above 0"),
        ("optim.accumulate", 1.5, "not allowed"),
        ("optim.weight_average", 1.0, "below 1"),
        ("optim.weight_average", -0.1, "0 or more"),
        ("loop.patience", -1, "0 or more"),
        ("method.tau_fine", 0, "above 0"),
        ("method.name", "hipposeg", "did you mean 'hiposeg'"),
        ("loop.device", "cuda:99", "CUDA"),
        ("loop.device", "xpu", "is no device"),
        ("net.architecture", "fpm", "did you mean 'fpn'"),
        ("data.jitter", -1, "from 0 to 1"),
        ("data.flip", 7, "from 0 to 1"),
        ("data.scale", [0.5, float("inf")], "finite"),
        ("optim.lr", float("nan"), "finite"),
        ("optim.momentum", -1, "from 0 to 1"),
        ("optim.weight_decay", -0.1, "0 or more"),
        ("optim.backbone_lr", -1, "0 or more"),
        ("loop.seed", 2**64, "choose one below"),
        ("method.lambda_balanced", -1, "0 or more"),
        ("method.lambda_coarse", -0.5, "0 or more"),
        ("method.kappa", float("nan"), "finite"),
    ],
)
def test_wrong_settings_are_named_with_the_cure(squares: Path, tmp_path: Path, key: str, value: Any, message: str) -> None:
    values = {"data.path": str(squares), "data.crop": 32, key: value}
    with pytest.raises(ConfigError, match=message):
        make_trainer(resolve_config([Layer("--test", values)]), tmp_path / "run")


def test_off_is_a_word_and_not_false(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("loop: {amp: off}\n")
    assert resolve_config([], [tmp_path / "a.yaml"]).loop.amp == "off"
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list\.yaml"):
        resolve_config([], [tmp_path / "list.yaml"])


def test_settings_override_in_the_stated_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("optim: {lr: 0.1, epochs: 3}\ndata: {crop: 64x96}\n")
    (tmp_path / "b.yaml").write_text("optim: {lr: 0.2}\n")
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    config = resolve_config([], files)
    assert (config.optim.lr, config.optim.epochs, config.data.crop) == (0.2, 3, (64, 96))
    monkeypatch.setenv("HIPOSEG_OPTIM_LR", "0.3")
    assert resolve_config([], files).optim.lr == 0.3
    assert resolve_config([Layer("--lr", {"optim.lr": 0.4})], files).optim.lr == 0.4
    assert resolve_config([Layer("--lr", {"optim.lr": 0.4})], files).origins["optim.lr"] == "--lr"


@pytest.mark.slow
def test_weights_of_another_hierarchy_are_refused(squares: Path, tmp_path: Path) -> None:
    trainer_of(squares, tmp_path / "run", optim__iterations=2).run()
    renamed = re.sub(r"(name|parent|coarse): box", r"\1: crate", HIERARCHY)
    (tmp_path / "h.yaml").write_text(renamed)
    draw_squares(tmp_path / "raw", "train", 4)
    prepare("masks", tmp_path / "raw", tmp_path / "other", PrepareOptions(hierarchy=str(tmp_path / "h.yaml")))
    settings = {"data.path": str(tmp_path / "other"), "data.crop": 32, "net.architecture": "fpn"}
    config = resolve_config([Layer("--test", settings)])
    with pytest.raises(HiposegError, match=r"another hierarchy.*'box'.*'crate'|another hierarchy.*'crate'.*'box'"):
        make_trainer(config, tmp_path / "new", init=tmp_path / "run")


def test_flags_of_the_engine_reach_their_settings() -> None:
    flags = ["--accumulate", "2", "--patience", "3", "--ema", "0.99"]
    result = CliRunner().invoke(app, ["train", *flags, "--show-config", "--json"])
    settings = json.loads(result.stdout)["data"]
    for key, value, flag in (
        ("optim.accumulate", 2, "--accumulate"), ("loop.patience", 3, "--patience"), ("optim.weight_average", 0.99, "--ema"),
    ):  # fmt: skip
        assert settings[key] == {"value": value, "from": flag}
    off = {"data.rare_class_sampling": 0.0, "loop.compile": False, "loop.tensorboard": False}
    assert {key: settings[key]["value"] for key in off} == off


def test_what_the_labels_lack_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "h.yaml").write_text(HIERARCHY)
    draw_squares(tmp_path / "raw", "train", 4)
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(tmp_path / "h.yaml")))
    settings = {"data.path": str(tmp_path / "data"), "data.crop": 32, "net.architecture": "fpn", "net.weights": "none"}
    _, built = make_trainer(resolve_config([Layer("--test", settings)]), tmp_path / "run")
    assert any("no split 'val'" in warning for warning in built.warnings)
    manifest = tmp_path / "data" / "manifest" / "train.jsonl"
    manifest.write_text(re.sub(r'"fine_counts": \{[^}]*\}', '"fine_counts": {}', manifest.read_text()))
    with pytest.raises(DataError, match="no pixel with a fine label"):
        make_trainer(resolve_config([Layer("--test", settings)]), tmp_path / "run")


def test_environment_does_not_leak_into_other_tests() -> None:
    assert not [name for name in os.environ if name.startswith("HIPOSEG_")]
