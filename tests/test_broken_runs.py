"""Bad input to `train` and `train --resume`: one line that says where, what and the cure; nothing that was saved is lost."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_train import HIERARCHY, prepared_squares, require_equal_runs, resumed, trainer_of
from typer.testing import CliRunner, Result

from hiposeg_cli.app import app
from hiposeg_cli.errors import DataError, HiposegError, OutputError
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.loop import Interrupted, Trainer

FLAGS = ["--net", "fpn", "--crop", "32", "--batch", "4", "--workers", "0", "--device", "cpu", "--iterations", "2"]


prepared = partial(prepared_squares, n_train=6, n_val=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after 3 of 6 steps; tests work on copies."""
    return stopped(trainer_of(data, tmp_path_factory.mktemp("begun") / "run", "flat"))


def stopped(trainer: Trainer) -> Path:
    trainer.stop = lambda: signal.SIGTERM if trainer.progress["step"] == 3 else None
    with pytest.raises(Interrupted):
        trainer.run()
    return trainer.run_dir


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *(str(word) for word in arguments)])


def the_problem(result: Result, *words: str) -> None:
    """Exit code 2 and one line on stderr that has all these words, as regular expressions."""
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hiposeg: ")]
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert re.search(word, line), line


# -- labels ------------------------------------------------------------------------------------------------------------


def relabelled(split: str, table: dict[int, int]) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        for path in (raw / split / "labels").iterdir():
            labels = np.array(Image.open(path))
            Image.fromarray(np.array([table.get(value, value) for value in range(256)], np.uint8)[labels]).save(path)

    return edit


@pytest.mark.slow
def test_an_empty_training_split_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = prepared(tmp_path / "all", edit=lambda raw: shutil.rmtree(raw / "train"))
    the_problem(train(source, *FLAGS), "has no split 'train'", "prepare one")
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["flat", "hiposeg", "hssn"])
def test_one_class_is_trained_with_a_warning(tmp_path: Path, method: str) -> None:
    source = prepared(tmp_path / "one", edit=relabelled("train", {0: 1, 2: 1, 3: 1}))
    result = train(source, *FLAGS, "--method", method, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "warning: every fine label of the split 'train' is 'left half'" in result.stderr
    assert (
        "2 fine classes occur in 'val' but never in 'train', and cannot be learned: 'ground', 'right half'" in result.stderr
    )


@pytest.mark.slow
def test_a_class_of_validation_alone_is_a_warning(tmp_path: Path) -> None:
    source = prepared(tmp_path / "new", edit=relabelled("train", {2: 1}))
    result = train(source, *FLAGS, "--method", "flat", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "1 fine class occurs in 'val' but never in 'train', and cannot be learned: 'right half'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["flat", "hiposeg", "hssn"])
@pytest.mark.parametrize("first", [0, 2], ids=["from the first step", "later"])
def test_crops_without_any_label_do_not_stop_a_run(data: Path, tmp_path: Path, method: str, first: int) -> None:
    trainer = trainer_of(data, tmp_path / "run", method)
    step, shown = trainer._step, []

    def without_labels(batches: Any, progress: Any) -> Any:
        if first <= progress.step < first + 2:
            batches = [_unlabelled(batch) for batch in batches]
        terms = step(batches, progress)
        assert bool(terms.total.isfinite())
        shown.append(float(terms.parts["ce"]))
        return terms

    trainer._step = without_labels  # type: ignore[method-assign]
    trainer.run()
    assert len(shown) == 6
    assert shown[first : first + 2] == [0.0, 0.0]
    assert all(ce > 0 for number, ce in enumerate(shown) if not first <= number < first + 2)
    assert all(bool(tensor.isfinite().all()) for tensor in trainer.net.state_dict().values())


def _unlabelled(batch: Batch) -> Batch:
    ignored = {
        level: torch.full_like(labels, IGNORE)
        for level in ("fine", "coarse")
        if (labels := getattr(batch, level)) is not None
    }
    return replace(batch, **ignored)


# -- hierarchies -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hierarchy_that_was_edited_after_preparing_is_refused(tmp_path: Path) -> None:
    source = prepared(tmp_path / "set")
    run = stopped(trainer_of(source, tmp_path / "run", "flat"))
    saved = (run / "state.safetensors").read_bytes()
    path = source / "hierarchy.yaml"
    path.write_text(path.read_text().replace("left half", "first half"))
    words = (r"hierarchy\.yaml: was changed after the dataset was prepared", "prepare the data again")
    the_problem(train(source, *FLAGS, "--out", tmp_path / "new"), *words)
    the_problem(train("--resume", run), *words)
    assert (run / "state.safetensors").read_bytes() == saved
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_run_is_not_resumed_on_a_dataset_of_another_hierarchy(tmp_path: Path) -> None:
    run = stopped(trainer_of(prepared(tmp_path / "set"), tmp_path / "run", "flat"))
    shutil.rmtree(tmp_path / "set")
    prepared(tmp_path / "set", hierarchy=re.sub(r"(name|parent|coarse): box", r"\1: crate", HIERARCHY))
    the_problem(train("--resume", run), "another hierarchy", "'box'", "'crate'")


@pytest.mark.slow
def test_weights_of_other_classes_or_another_network_are_refused_as_a_start(begun: Path, data: Path, tmp_path: Path) -> None:
    stopped(trainer_of(data, tmp_path / "run", "flat"))
    trainer = trainer_of(data, tmp_path / "whole", "flat", optim__iterations=1)
    trainer.run()
    other = prepared(tmp_path / "set", hierarchy=re.sub(r"(name|parent|coarse): box", r"\1: crate", HIERARCHY))
    out = tmp_path / "new"
    the_problem(train(other, *FLAGS, "--init", tmp_path / "whole", "--out", out), "another hierarchy", "'box'", "'crate'")
    unet = ["--net", "unet", *FLAGS[2:]]
    the_problem(train(data, *unet, "--init", tmp_path / "whole", "--out", out), "does not fit the network at", "--net")
    the_problem(train(data, *FLAGS, "--init", tmp_path / "nowhere", "--out", out), "nowhere")
    assert not out.exists()


# -- states and settings of another run --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("hiposeg", {}, r"method\.name = hiposeg, not flat"),
        ("flat", {"net__architecture": "unet"}, r"net\.architecture = unet, not fpn"),
        ("flat", {"optim__weight_average": 0.9}, r"optim\.weight_average = 0\.9, not 0\.0"),
        ("flat", {"optim__optimizer": "sgd"}, r"optim\.optimizer = sgd, not adamw"),
        ("flat", {"loop__seed": 7}, r"loop\.seed = 7, not 0"),
    ],
)  # fmt: skip
def test_the_state_of_another_run_is_refused_by_its_first_difference(
    data: Path, begun: Path, tmp_path: Path, method: str, settings: dict[str, Any], said: str
) -> None:
    """One with averaged weights, and one of another seed, would load without a complaint."""
    shutil.copytree(begun, tmp_path / "run")
    other = stopped(trainer_of(data, tmp_path / "other", method, **settings))
    shutil.copy(other / "state.safetensors", tmp_path / "run")
    the_problem(train("--resume", tmp_path / "run"), r"state\.safetensors: was saved by a run with", said, "--init")


def garbage(whole: bytes) -> dict[str, bytes]:
    return {
        "empty": b"", "start": whole[:1000], "half": whole[: len(whole) // 2], "noise": bytes(range(256)) * 20,
        "text": b"hello",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", list(garbage(b"")))
def test_a_broken_state_is_named(begun: Path, tmp_path: Path, case: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    state = run / "state.safetensors"
    state.write_bytes(garbage(state.read_bytes())[case])
    the_problem(train("--resume", run), r"state\.safetensors: is not a readable training state", "restore the file")


@pytest.mark.slow
def test_weights_are_no_state(data: Path, begun: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    shutil.copy(run / "weights" / "last.safetensors", run / "state.safetensors")
    the_problem(train("--resume", run), r"state\.safetensors: does not fit this run")
    (run / "state.safetensors").unlink()
    the_problem(train("--resume", run), r"state\.safetensors: no such training state")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: 0.0005", "lr: -1", r"config\.yaml: optim\.lr: is -1 - choose a value above 0"),
        ("lr: 0.0005", "lr: fast", r"config\.yaml: optim\.lr: 'fast' is not allowed"),
        ("lr: 0.0005", "rl: 0.0005", r"config\.yaml: unknown setting 'optim\.rl' - did you mean 'optim\.lr'"),
        ("lr: 0.0005", "lr: 0.0007", r"was saved by a run with optim\.lr = 0\.0005, not 0\.0007"),
        ("batch: 4", "batch: 6", r"was saved by a run with data\.batch = 4, not 6"),
        ("batch: 4", "batch: auto", r"data\.batch: is 'auto', but a trainer needs a number"),
        ("iterations: 6", "iterations: 60", r"optim\.iterations = 6, not 60"),
        ("name: flat", "name: flatt", r"config\.yaml: method 'flatt': is unknown - did you mean 'flat'"),
        ("optim:", "optim: [", r"config\.yaml:\d+: is not valid YAML"),
        ("device: cpu", "device: 0,1", r"--device 0,1: asks for 2 GPUs .* has 0"),
    ],
)
def test_a_run_whose_settings_were_edited_is_not_resumed(begun: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    path, saved = run / "config.yaml", (run / "state.safetensors").read_bytes()
    assert path.read_text().count(f" {old}\n" if " " in old else f"{old}\n") == 1
    path.write_text(path.read_text().replace(old, new))
    the_problem(train("--resume", run), said)
    assert (run / "state.safetensors").read_bytes() == saved


@pytest.mark.slow
def test_what_does_not_change_a_run_may_be_edited(begun: Path, data: Path, tmp_path: Path) -> None:
    """Where the data lies, how many processes read it, how often it is logged."""
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    shutil.copytree(data, tmp_path / "moved")
    path = run / "config.yaml"
    text = re.sub(r"path: .*", f"path: {tmp_path / 'moved'}", path.read_text())
    path.write_text(text.replace("workers: 0", "workers: 1").replace("log_every: 1", "log_every: 2"))
    result = train("--resume", run)
    assert result.exit_code == 0, result.stderr


@pytest.mark.slow
def test_a_state_of_an_earlier_version_without_settings_is_resumed(begun: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    state = run / "state.safetensors"
    whole = state.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = re.sub(rb'\\"settings\\": \{.*?\}(, )?', b"", whole[8 : 8 + size]).ljust(size)
    assert header.rstrip() != whole[8 : 8 + size].rstrip()
    state.write_bytes(whole[:8] + header + whole[8 + size :])
    assert resumed(run).progress["step"] == 3


# -- machines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "there", "words"),
    [
        ("0,1,2", 2, (r"--device 0,1,2: asks for 3 GPUs", "this machine has 2", "use --device 0,1")),
        ("0,1", 0, (r"this machine has 0", "use --device cpu")),
        ("3", 1, ("numbers up to 3", "this machine has 1", "use --device 0")),
        ("cuda:5", 1, ("--device cuda:5: this machine has 1 CUDA devices", "use --device cuda:0")),
        ("0,0", 2, ("names a GPU twice",)),
        ("gpu", 0, ("--device gpu: is no device",)),
    ],
)
def test_gpus_that_are_not_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, there: int, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    the_problem(train(data, "--device", device, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_after_a_loss_that_is_not_a_number_the_last_good_state_is_there(data: Path, tmp_path: Path) -> None:
    """6 images in batches of 4: a pass and a validation a step. The fourth step fails."""
    straight = trainer_of(data, tmp_path / "straight", "flat")
    straight.run()
    trainer = trainer_of(data, tmp_path / "run", "flat")
    losses = trainer.method.losses

    def broken(batch: Batch, output: Any, progress: Any) -> Any:
        terms = losses(batch, output, progress)
        return replace(terms, total=terms.total * float("nan")) if progress.step == 3 else terms

    trainer.method.losses = broken  # type: ignore[method-assign]
    with pytest.raises(HiposegError, match=r"step 4: the loss is nan \(images 00\d, .*\) - the last saved state is kept"):
        trainer.run()
    second = resumed(tmp_path / "run")
    assert second.progress["step"] == 3
    second.run()
    require_equal_runs(straight, second)


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_weights_that_broke_after_a_finite_loss_are_never_saved(data: Path, tmp_path: Path, interrupted: bool) -> None:
    trainer = trainer_of(data, tmp_path / "run", "flat", loop__val_every=1 if not interrupted else 100)
    if interrupted:
        trainer.stop = lambda: signal.SIGTERM if trainer.progress["step"] == 4 else None
    update = trainer._update

    def breaks() -> None:
        update()
        if trainer.progress["step"] == 3:
            next(trainer.net.parameters()).data[0] = float("inf")

    trainer._update = breaks  # type: ignore[method-assign]
    with pytest.raises(HiposegError, match="step 4: the net has values that are not finite"):
        trainer.run()
    if interrupted:
        assert not trainer.state_path.exists()
    else:
        assert resumed(tmp_path / "run").progress["step"] == 3


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state.safetensors", "last.safetensors", "best.safetensors"])
def test_a_full_disk_keeps_what_was_saved_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    straight = trainer_of(data, tmp_path / "straight", "flat")
    straight.run()
    trainer, write = trainer_of(data, tmp_path / "run", "flat"), Path.write_bytes
    trainer._scores = lambda net: {"val_fine_miou": trainer.progress["step"] / 10}  # type: ignore[method-assign]

    def full(path: Path, content: bytes) -> int:
        if name in path.name and trainer.progress["step"] == 4:
            write(path, content[:100])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=rf"{name}: cannot be written \(No space left on device\) - free disk space"):
        trainer.run()
    monkeypatch.undo()
    assert not list((tmp_path / "run").rglob("*.tmp"))
    second = resumed(tmp_path / "run")
    assert second.progress["step"] == (3 if name == "state.safetensors" else 4), "the state is saved before the weights are"
    second.run()
    for mine, theirs in zip(straight.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_a_log_that_cannot_be_written_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(data, tmp_path / "run", "flat")
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be written"):
        trainer.run()
