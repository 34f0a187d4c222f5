"""What ends a run or keeps it from beginning: signals, losses that are not finite, locks, changed data; joined datasets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import data_of, refused, run
from PIL import Image
from test_train import HIERARCHY, prepared_squares, require_equal_runs, resumed, trainer_of

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import DataError, HiposegError
from hiposeg_cli.learn.checkpoint import load_weights
from hiposeg_cli.learn.data import TrainSet
from hiposeg_cli.learn.loop import Interrupted
from hiposeg_cli.learn.loss_guard import LossGuard
from hiposeg_cli.locks import LOCK, held
from hiposeg_cli.store import open_dataset

FLAGS = ["--net", "fpn", "--crop", "32", "--batch", "4", "--workers", "0", "--device", "cpu", "--iterations", "2"]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_squares(tmp_path_factory.mktemp("squares"), 10, 4)


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("image", [1, 3])
def test_a_signal_while_a_split_is_scored_stops_at_once_and_scoring_is_made_up_for(
    squares: Path, tmp_path: Path, image: int
) -> None:
    straight = trainer_of(squares, tmp_path / "straight")
    straight.run()
    broken, asked = trainer_of(squares, tmp_path / "broken"), []

    def stop() -> int | None:
        if broken.progress["step"] != 4:
            return None
        asked.append(1)  # once after the step, then before each image
        return signal.SIGTERM if len(asked) > image else None

    broken.stop = stop
    with pytest.raises(Interrupted):
        broken.run()
    assert broken.progress["due"]
    again = resumed(broken.run_dir)
    again.stop = lambda: signal.SIGINT  # while the scoring is made up for
    with pytest.raises(Interrupted):
        again.run()
    second = resumed(broken.run_dir)
    second.run()
    require_equal_runs(straight, second)


@pytest.mark.slow
def test_a_run_that_is_stopped_in_its_last_scoring_goes_on(squares: Path, tmp_path: Path) -> None:
    straight = trainer_of(squares, tmp_path / "straight", "flat")
    straight.run()
    broken = trainer_of(squares, tmp_path / "broken", "flat")
    broken.stop = lambda: signal.SIGTERM if broken.finished else None
    with pytest.raises(Interrupted):
        broken.run()
    second = resumed(broken.run_dir)
    assert second.run() == straight.log.read()[-1]
    require_equal_runs(straight, second)
    with pytest.raises(DataError, match="is finished"):
        resumed(broken.run_dir)


def test_only_a_second_ctrl_c_stops_at_once() -> None:
    """At a time limit a scheduler may pass SIGTERM on twice: to the process and to its launcher."""
    from hiposeg_cli.commands.train import _Signals

    with _Signals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with _Signals(several=True) as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received() == signal.SIGINT


def test_a_signal_is_noted_where_nobody_reads_stderr() -> None:
    """Ctrl-C in `hiposeg train DATA 2>&1 | tee log` ends tee too, and often first."""
    script = (
        "import os, signal\n"
        "from hiposeg_cli.commands.train import _Signals\n"
        "with _Signals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    raise SystemExit(128 + signals.received())\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run([sys.executable, "-c", script], stderr=writer, check=False)
    finally:
        os.close(writer)
    assert ended.returncode == 130


@pytest.mark.slow
def test_a_stopped_run_says_so_in_json(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hiposeg_cli.commands.train import _Signals

    monkeypatch.setattr(_Signals, "received", lambda self: signal.SIGTERM)
    result = run("train", squares, *FLAGS, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 143
    answer = json.loads(result.stdout)
    assert answer["status"] == "problems"
    assert answer["data"] == {"run": str(tmp_path / "run"), "step": 1, "stopped_by": signal.SIGTERM}


# -- losses that are not finite ----------------------------------------------------------------------------------------


def test_the_first_fault_is_kept() -> None:
    guard = LossGuard(torch.device("cpu"))
    for step, loss in enumerate([1.0, 2.0, float("inf"), 1.0, float("nan")]):
        guard.note(torch.tensor(loss), step)
        assert guard.fault() == (None if step < 2 else (2, float("inf")))


@pytest.mark.slow
def test_a_fault_that_is_read_late_names_its_own_step_and_images(squares: Path, tmp_path: Path) -> None:
    trainer, shown = trainer_of(squares, tmp_path / "run", loop__log_every=100, loop__val_every=100), []
    trainer.device = torch.device("meta")  # stands in for a GPU: the loss is not read at every step
    step = trainer._step

    def broken(batches: Any, progress: Any) -> Any:
        shown.append([key for batch in batches for key in batch.keys])
        trainer.device = torch.device("cpu")
        terms = step(batches, progress)
        trainer.device = torch.device("meta")
        if progress.step == 2:
            terms.total.fill_(float("nan"))
        return terms

    trainer._step = broken  # type: ignore[method-assign]
    with pytest.raises(HiposegError, match="step 3: the loss is nan") as found:
        trainer.run()
    assert len(shown) == 6
    assert f"(images {', '.join(shown[2])})" in str(found.value)


# -- what went wrong on the way ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_when_an_image_cannot_be_read_the_steps_so_far_are_kept(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = trainer_of(squares, tmp_path / "straight", loop__val_every=100)
    straight.run()
    broken, drawn, read = trainer_of(squares, tmp_path / "broken", loop__val_every=100), [], TrainSet.__getitem__

    def damaged(self: TrainSet, draw: Any) -> Any:
        drawn.append(draw)
        return read(self, draw) if len(drawn) <= 5 * 4 else DataError("photo.png", "cannot be read", "replace the file")

    monkeypatch.setattr(TrainSet, "__getitem__", damaged)
    with pytest.raises(DataError, match=r"photo\.png: cannot be read"):
        broken.run()
    monkeypatch.undo()
    second = resumed(broken.run_dir)
    assert second.progress["step"] == 5
    second.run()
    require_equal_runs(straight, second)


@pytest.mark.slow
def test_when_a_validation_photo_cannot_be_read_nothing_is_lost(tmp_path: Path) -> None:
    data = prepared_squares(tmp_path, 10, 4)
    straight = trainer_of(data, tmp_path / "straight")
    straight.run()
    broken = trainer_of(data, tmp_path / "broken")
    photo = next((tmp_path / "raw" / "val" / "images").glob("*.png"))
    kept = photo.read_bytes()
    photo.unlink()
    with pytest.raises(DataError, match=photo.name):
        broken.run()
    assert load_weights(tmp_path / "broken" / "weights" / "last.safetensors").about["step"] == 2
    with pytest.raises(DataError, match=photo.name):
        resumed(broken.run_dir).run()
    photo.write_bytes(kept)
    second = resumed(broken.run_dir)
    assert second.progress["step"] == 2
    second.run()
    require_equal_runs(straight, second)


def test_results_have_the_columns_of_every_validation(tmp_path: Path) -> None:
    """Two of them are written with patience only, which may change where a run is resumed."""
    from hiposeg_cli.commands.train import _write_results

    _write_results(tmp_path / "results.csv", [{"step": 1, "stale": 0}, {"step": 2}])
    assert (tmp_path / "results.csv").read_text() == "step,stale\n1,0\n2,\n"


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_the_last_of_its_regular_states(squares: Path, tmp_path: Path) -> None:
    straight = trainer_of(squares, tmp_path / "straight", loop__val_every=100)
    straight.run()
    killed = trainer_of(squares, tmp_path / "killed", loop__val_every=100, loop__save_every=2)
    step = killed._step

    def die(batches: Any, progress: Any) -> Any:
        if progress.step == 5:
            raise KeyboardInterrupt  # nothing handles it, as nothing handles SIGKILL
        return step(batches, progress)

    killed._step = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    second = resumed(killed.run_dir)
    assert second.progress["step"] == 4
    second.run()
    require_equal_runs(straight, second)


@pytest.mark.slow
def test_a_resumed_run_may_have_other_loader_processes(squares: Path, tmp_path: Path) -> None:
    trainer = trainer_of(squares, tmp_path / "run", "flat")
    trainer.stop = lambda: signal.SIGTERM
    with pytest.raises(Interrupted):
        trainer.run()
    refused(run("train", "--resume", tmp_path / "run", "--lr", "0.1"), "--resume", "other than --workers and --device")
    assert run("train", "--resume", tmp_path / "run", "--workers", "1", "--device", "cpu").exit_code == 0


@pytest.mark.slow
def test_a_network_that_does_not_fit_into_memory_is_said(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *arguments: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    result = run("train", squares, *FLAGS, "--out", tmp_path / "run")
    refused(result, "the network: does not fit into memory", "another --device")


# -- folders -----------------------------------------------------------------------------------------------------------


def test_one_process_writes_a_folder(tmp_path: Path) -> None:
    with held(tmp_path / "run", "wait"):
        assert (tmp_path / "run" / LOCK).is_file()
    assert not (tmp_path / "run" / LOCK).exists()
    (tmp_path / "run" / LOCK).write_text(str(os.getppid()))
    with (
        pytest.raises(DataError, match=f"is being written by process {os.getppid()} - wait"),
        held(tmp_path / "run", "wait"),
    ):
        pass
    assert (tmp_path / "run" / LOCK).is_file()


@pytest.mark.slow
def test_a_run_that_is_being_written_is_neither_resumed_nor_replaced(squares: Path, tmp_path: Path) -> None:
    trainer = trainer_of(squares, tmp_path / "run", "flat")
    trainer.stop = lambda: signal.SIGTERM
    with pytest.raises(Interrupted):
        trainer.run()
    (tmp_path / "run" / LOCK).write_text(str(os.getppid()))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    remove = f"if it is gone, remove {tmp_path / 'run' / LOCK}"
    refused(run("train", "--resume", tmp_path / "run"), "is being written by process", f"wait for it; {remove}")
    replacing = run("train", squares, *FLAGS, "--out", tmp_path / "run", "--overwrite")
    refused(replacing, "is being written by process", "another --out", remove)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_that_is_replaced_leaves_nothing_of_the_old_network(squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run("train", squares, *FLAGS, "--out", out).exit_code == 0
    for name in ("best.onnx", "last.pt2"):
        (out / "weights" / name).write_bytes(b"of the old network")
    (out / "report.html").write_text("of the old network")
    (out / "notes.txt").write_text("the user's")
    found = data_of(run("train", squares, *FLAGS, "--out", out, "--overwrite", "--json"))
    assert found["run"] == str(out)
    assert not [path for path in out.rglob("*") if path.is_file() and b"old network" in path.read_bytes()]
    assert (out / "notes.txt").read_text() == "the user's"


@pytest.mark.parametrize("out", ["file/run", "file"])
def test_a_folder_that_cannot_be_made_is_named(squares: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    refused(run("train", squares, *FLAGS, "--out", tmp_path / out), "file")


def test_a_file_in_the_place_of_runs_is_named(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("")
    refused(run("train", squares, *FLAGS), "runs/train", "cannot be made")


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_run_is_not_resumed_on_other_labels(tmp_path: Path, split: str) -> None:
    data = prepared_squares(tmp_path, 6, 2)
    trainer = trainer_of(data, tmp_path / "run", "flat")
    trainer.stop = lambda: signal.SIGTERM
    with pytest.raises(Interrupted):
        trainer.run()
    path = tmp_path / "raw" / split / "labels" / "001.png"
    Image.fromarray(np.array(Image.open(path))[::-1]).save(path)
    shutil.rmtree(data)
    prepare("masks", tmp_path / "raw", data, PrepareOptions(hierarchy=str(tmp_path / "h.yaml")))
    with pytest.raises(DataError, match="other training or validation images or labels"):
        resumed(tmp_path / "run")


@pytest.mark.slow
def test_a_run_goes_on_where_its_data_moved(tmp_path: Path) -> None:
    data = prepared_squares(tmp_path, 6, 2)
    trainer = trainer_of(data, tmp_path / "run", "flat")
    trainer.stop = lambda: signal.SIGTERM
    with pytest.raises(Interrupted):
        trainer.run()
    data.rename(tmp_path / "moved")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(data), str(tmp_path / "moved")))
    resumed(tmp_path / "run").run()


# -- several datasets --------------------------------------------------------------------------------------------------


def coarse_only(raw: Path) -> None:
    """Both halves of the boxes become a box of unknown halves, and the ground, which has a fine class, unlabelled."""
    for path in raw.rglob("labels/*.png"):
        labels = np.array(Image.open(path))
        Image.fromarray(np.select([labels == 0, labels == 255], [255, 255], 3).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 training images labelled on the coarse level only."""
    return prepared_squares(tmp_path_factory.mktemp("boxes"), 6, 2, edit=coarse_only)


@pytest.mark.slow
def test_two_datasets_of_different_depth_train_together(squares: Path, boxes: Path, tmp_path: Path) -> None:
    result = run("train", squares, "--also", boxes, *FLAGS, "--out", tmp_path / "run", "--json")
    assert data_of(result)["val_fine_miou"] is not None
    trainer = trainer_of(squares, tmp_path / "joined", data__also=[str(boxes)])
    assert (len(trainer.train_set), len(trainer.dataset.split("val"))) == (16, 4)
    alone = open_dataset(boxes)
    shown = trainer.train_set.rows[10:]
    for own, joined in zip(alone.split("train"), shown, strict=True):
        assert np.array_equal(trainer.dataset.image(joined), alone.image(own))
        assert np.array_equal(trainer.dataset.labels(joined).coarse, alone.labels(own).coarse)
    assert not (trainer.dataset.labels(shown[0]).fine == trainer.dataset.labels(trainer.train_set.rows[0]).fine).all()
    trainer.stop = lambda: signal.SIGTERM
    with pytest.raises(Interrupted):
        trainer.run()
    assert len(resumed(tmp_path / "joined").train_set) == 16


@pytest.mark.slow
def test_coarse_labels_of_another_dataset_are_learned(squares: Path, boxes: Path, tmp_path: Path) -> None:
    """The first dataset's own rows give no gradient here, so what is learned is learned from the other."""
    trainer = trainer_of(squares, tmp_path / "run", data__also=[str(boxes)], optim__iterations=30, loop__val_every=100)
    rows = trainer.train_set.rows[10:]
    trainer.train_set.rows = rows
    trainer.total_steps = 30
    first = {name: tensor.clone() for name, tensor in trainer.net.named_parameters()}
    trainer.progress["images"] = len(rows)
    losses = []
    trainer.watcher = _Losses(losses)
    trainer.run()
    assert any(not torch.equal(tensor, first[name]) for name, tensor in trainer.net.named_parameters())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


class _Losses:
    def __init__(self, found: list[float]) -> None:
        self.found = found

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.found.append(values["ce"])

    def scored(self, epoch: int, values: dict[str, Any]) -> None: ...


@pytest.mark.slow
def test_images_that_flat_cannot_learn_from_are_said(squares: Path, boxes: Path, tmp_path: Path) -> None:
    result = run("train", squares, "--also", boxes, *FLAGS, "--method", "flat", "--out", tmp_path / "run", "--json")
    (said,) = [text for text in json.loads(result.stdout)["warnings"] if "coarse labels only" in text]
    assert said.startswith("6 training images")


@pytest.mark.parametrize("class_id", ["99", "-1", "x"])
def test_a_manifest_with_a_class_beyond_the_hierarchy_is_named(squares: Path, tmp_path: Path, class_id: str) -> None:
    shutil.copytree(squares, tmp_path / "data")
    manifest = tmp_path / "data" / "manifest" / "train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0]["fine_counts"][class_id] = 3
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(run("train", tmp_path / "data", "--net", "fpn"), "train.jsonl", f"fine class {class_id}")


def test_datasets_of_different_trees_do_not_train_together(squares: Path, tmp_path: Path) -> None:
    other = prepared_squares(tmp_path, 2, 1, hierarchy=HIERARCHY.replace("left half", "west half"))
    refused(run("train", squares, "--also", other, *FLAGS), "another hierarchy", "left half", "west half")
    refused(run("train", squares, "--also", tmp_path / "nothing", *FLAGS), "nothing", "is not a prepared dataset")
