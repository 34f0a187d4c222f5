"""Training by two processes on the CPU against one process with the joined batch; run as a script, this is one of the two.

Batch norm is in eval mode wherever two processes are compared with one: torch can share its statistics on GPUs only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import prepared_squares, resumed, state_of, trainer_of
from torch import Tensor, nn
from trees import TWO as TREE

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, DataError, HiposegError
from hiposeg_cli.labelmap import IGNORE, LabelArray
from hiposeg_cli.learn import checkpoint, loop, ranks
from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.data import StepSampler, TrainSet
from hiposeg_cli.learn.device import gpu_list, pick_device
from hiposeg_cli.learn.evaluate import Photo, Segment, evaluate_jointly
from hiposeg_cli.learn.launch import first_host, launch_of
from hiposeg_cli.learn.loop import Interrupted, Trainer
from hiposeg_cli.learn.method import Context, Method, Progress
from hiposeg_cli.learn.rare_classes import RareClasses
from hiposeg_cli.methods.flat import Flat, FlatOptions
from hiposeg_cli.methods.hiposeg import HiPoSeg, HiPoSegOptions
from hiposeg_cli.methods.hssn import HSSN, HSSNOptions
from hiposeg_cli.methods.presets import preset_options
from hiposeg_cli.metrics import Confusion
from hiposeg_cli.store import Dataset, Row

N_RANKS = 2
MANY = 100_000  # a cap that no class reaches

# -- starting two processes --------------------------------------------------------------------------------------------


@contextmanager
def no_child_left(mark: str) -> Iterator[dict[str, str]]:
    """An environment for child processes; one of them, or of theirs, that outlives the block is killed, and fails."""
    name = f"RANKS_TEST_{mark}"
    try:
        yield {**os.environ, name: "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    finally:
        left = []
        for _ in range(50):  # what is being ended may take a moment
            left = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if _holds(path, name)]
            if not left:
                break
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left


def _holds(path: Path, name: str) -> bool:
    try:
        return name.encode() in path.read_bytes()
    except OSError:
        return False


def as_two(scenario: str, folder: Path, timeout: float = 240) -> list[Any]:
    """Run a scenario of this file as two ranks. Returns what each returned."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with no_child_left(uuid.uuid4().hex) as environment:
        place = {"WORLD_SIZE": str(N_RANKS), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                [sys.executable, __file__, scenario, str(folder)], stderr=subprocess.PIPE, text=True,
                env={**environment, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(N_RANKS)
        ]  # fmt: skip
        try:
            talk = [process.communicate(timeout=timeout)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(talk)
    return [torch.load(folder / f"{scenario}-{rank}.pt", weights_only=False) for rank in range(N_RANKS)]


# -- losses ------------------------------------------------------------------------------------------------------------

HIP = {"embed_dim": 8, "pixel_sampling": "all", "pixels_per_class": MANY}
CONTEXT = Context((3,), (np.array([90, 30, 10, 0, 3, 1]), np.array([90, 40, 4])))
METHODS: dict[str, Callable[[], Method]] = {
    "flat": lambda: Flat(TREE, 6, FlatOptions()),
    "flat, partial labels": lambda: Flat(TREE, 6, FlatOptions(partial_labels=True)),
    "flat, balanced": lambda: Flat(TREE, 6, FlatOptions(lambda_balanced=1.0, pixels_per_class=MANY)),
    "hiposeg": lambda: HiPoSeg(TREE, 6, HiPoSegOptions(**HIP)),
    "hiposeg, balanced parents": lambda: HiPoSeg(TREE, 6, HiPoSegOptions(**HIP, parent_mean="balanced", update="before")),
    "hiposeg, blended": lambda: HiPoSeg(TREE, 6, HiPoSegOptions(**HIP, proto_in_loss="blended", ema_reference_count=90)),
    "hiposeg, prototypes alone": lambda: HiPoSeg(
        TREE,
        6,
        HiPoSegOptions(**HIP, lambda_ce=0.0, lambda_fh=0.0, lambda_fl=0.0, lambda_balanced=0.0, sigma_in=0.0, sigma_out=4.0),
    ),
    "hiposeg, one level": lambda: HiPoSeg(TREE, 6, HiPoSegOptions(**HIP, levels="fine")),
    "flat, weighted levels": lambda: Flat(
        TREE, 6, FlatOptions(partial_labels=True, lambda_coarse=1.0, class_weights=1.0), CONTEXT
    ),
    "hiposeg, weighted, all scales": lambda: HiPoSeg(
        TREE, 6, HiPoSegOptions(**HIP, lambda_coarse=1.0, class_weights=1.0, embedding="multi-scale"), CONTEXT
    ),
    "hiposeg, boundary": lambda: HiPoSeg(
        TREE, 6, HiPoSegOptions(embed_dim=8, pixel_sampling="boundary", pixels_per_class=MANY)
    ),
    "hssn, scores": lambda: HSSN(TREE, 6, HSSNOptions(lambda_triplet=0.0, embed_dim=8)),
}
LAYOUTS = {"even": (1.0, 1.0), "uneven": (0.9, 0.1), "one rank without labels": (0.5, 0.0), "no labels": (0.0, 0.0)}


class Pixels(nn.Module):
    """A network of two 1x1 convolutions on the image itself, without norms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.classifier = nn.Conv2d(3, 6, 1), nn.Conv2d(6, TREE.n_fine, 1)

    def forward(self, image: Tensor) -> Output:
        embedding = self.features(image.float() / 64)
        size = (image.shape[2], image.shape[3])
        return Output(self.classifier(embedding), embedding, size, size, (image[..., ::2, ::2] / 64,))


def labelled(layout: str, step: int) -> Batch:
    """Four images, two a rank; of each rank a share of the pixels is labelled, some of those on the coarse level only."""
    rng = torch.Generator().manual_seed(step)
    fine = torch.randint(0, TREE.n_fine, (4, 16, 16), generator=rng)
    fine[2:] = fine[2:].clamp(max=3)  # classes that only one rank shows
    coarse = torch.from_numpy(TREE.parent)[fine]
    known = torch.rand(fine.shape, generator=rng) < torch.tensor(LAYOUTS[layout]).repeat_interleave(2)[:, None, None]
    only_coarse = torch.rand(fine.shape, generator=rng) < torch.tensor([0.3, 0.3, 0.0, 0.0])[:, None, None]
    fine, coarse = torch.where(known & ~only_coarse, fine, IGNORE), torch.where(known, coarse, IGNORE)
    image = torch.randint(0, 256, (4, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return Batch(image, fine, coarse, tuple("abcd"), bool((known & only_coarse).any()))


def part_of(batch: Batch, own: slice) -> Batch:
    assert batch.fine is not None
    assert batch.coarse is not None
    fine, coarse = batch.fine[own], batch.coarse[own]
    partial = bool(((fine == IGNORE) & (coarse != IGNORE)).any())
    return Batch(batch.image[own], fine, coarse, batch.keys[own], partial)


def measured(name: str, layout: str, own: slice) -> dict[str, Tensor]:
    """Two steps of two accumulated batches: losses, gradients and banks of the last."""
    net = Pixels()
    torch.manual_seed(1)
    method = METHODS[name]().eval()

    def losses(batch: Batch, progress: Progress) -> Any:
        return method.losses(batch, net(batch.image), progress)

    shared, found = ranks.SharedStep(losses, [net, method]), {}
    for step in range(2):
        for module in (net, method):
            module.zero_grad(set_to_none=True)
        for number in range(2):
            batch = part_of(labelled(layout, 2 * step + number), own)
            terms = shared(batch, Progress(98 + step, 100), last=number == 1)
            (terms.total / 2).backward()
            method.after_step()
            joint = ranks.averaged(terms)
            found |= {f"loss {number}": joint.total.detach(), **{f"{key} {number}": t for key, t in joint.parts.items()}}
        for module in (net, method):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter -= 0.1 * (0 if parameter.grad is None else parameter.grad)
    for prefix, module in (("net", net), ("method", method)):
        found |= {f"gradient {prefix}.{key}": p.grad for key, p in module.named_parameters() if p.grad is not None}
        found |= {f"state {prefix}.{key}": value for key, value in module.state_dict().items()}
    return found


def scenario_losses(folder: Path) -> Any:
    own = slice(2 * ranks.rank(), 2 * ranks.rank() + 2)
    return {(name, layout): measured(name, layout, own) for name in METHODS for layout in LAYOUTS}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return as_two("losses", tmp_path_factory.mktemp("losses"))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_lose_and_learn_like_one_with_the_joined_batch(of_two: list[Any], name: str, layout: str) -> None:
    one, (first, second) = measured(name, layout, slice(0, 4)), [found[name, layout] for found in of_two]
    assert one.keys() == first.keys() == second.keys()
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), f"{key} differs between the ranks"
        assert torch.isfinite(value.float()).all()
        assert torch.allclose(first[key].float(), value.float(), rtol=1e-4, atol=2e-6), key
    if layout != "no labels":
        assert any(value.abs().sum() > 0 for key, value in one.items() if key.startswith("gradient"))


# -- training ----------------------------------------------------------------------------------------------------------

LIKE_ONE = {
    "optim__optimizer": "sgd", "optim__lr": 0.05, "optim__warmup": 0.0, "optim__iterations": 3, "loop__val_every": 1,
    "optim__accumulate": 1,
}  # fmt: skip
WEIGHTS = {name: value for name, value in preset_options("hiposeg", "paper").items() if name.startswith("lambda")}
FOR_HIPOSEG = {  # small weights: with those of the defaults rounding grows to 8e-4 over the steps, 2e-7 after the first one
    **{f"method__{name}": value for name, value in WEIGHTS.items()},
    "method__pixel_sampling": "all", "method__pixels_per_class": MANY, "method__start_coarse": 0.0,
    "method__start_fine": 0.0, "method__start_align": 0.3,
}  # fmt: skip
ENGINE = {"data__batch": 2, "optim__weight_average": 0.9, "data__workers": 1, "loop__patience": 50}


def with_frozen_norms(trainer: Trainer) -> Trainer:
    for module in (trainer.net, trainer.method):
        module.train = lambda mode=True, module=module: nn.Module.train(module, False)  # type: ignore[method-assign]
    return trainer


def ran(trainer: Trainer) -> dict[str, Any]:
    drawn: list[str] = []
    step = trainer._step
    trainer._step = lambda batches, progress: (  # type: ignore[method-assign]
        drawn.extend(key for batch in batches for key in batch.keys) or step(batches, progress)
    )
    trainer.run()
    state = {name: tensor.clone() for name, tensor in state_of(trainer).items()}
    return {"keys": drawn, "state": state, "progress": dict(trainer.progress)}


def only_the_first_writes() -> None:
    """Make every way to write a file fail in the other rank."""
    if not ranks.is_first():

        def fail(*arguments: Any, **options: Any) -> None:
            raise AssertionError("the second rank writes")

        checkpoint.write_bytes_atomic = fail
        loop.save_weights = fail
        loop.MetricsLog.write = fail  # type: ignore[method-assign]


def begun(folder: Path, method: str, **settings: Any) -> Trainer:
    """As `trainer_of`, whose run files only one process may write."""
    if ranks.is_first():
        trainer = trainer_of(folder / "data", folder / method, method, **settings)
        ranks.gathered(None)
        return trainer
    ranks.gathered(None)
    return trainer_of(folder / "data", folder / "unused", method, **settings)


def no_memory(*arguments: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def scenario_training(folder: Path) -> Any:
    only_the_first_writes()
    found: dict[str, Any] = {}
    for method, own in (("flat", {}), ("hiposeg", FOR_HIPOSEG)):
        trainer = with_frozen_norms(begun(folder, method, data__batch=2, **LIKE_ONE, **own))
        found[method] = ran(trainer)
    found["straight"] = ran(begun(folder / "straight", "hiposeg", **ENGINE))
    broken = begun(folder / "broken", "hiposeg", **ENGINE)
    if ranks.rank() == 1:
        broken.stop = lambda: signal.SIGTERM if broken.progress["step"] >= 2 else None
    with pytest.raises(Interrupted) as stopped:
        broken.run()
    found["stopped"] = (stopped.value.signal_number, broken.progress["step"])
    second = resumed(folder / "broken" / "hiposeg")
    found["resumed"] = ran(second)
    full = begun(folder / "full", "flat", data__batch=2)
    full._step = no_memory  # type: ignore[method-assign]
    with pytest.raises((HiposegError, ranks.EndedElsewhere)) as failed:
        full.run()
    found["full"] = str(failed.value)
    trainer = begun(folder / "failing", "flat", data__batch=2, loop__val_every=100)
    if ranks.rank() == 1:
        read = TrainSet.__getitem__
        TrainSet.__getitem__ = lambda self, draw: (  # type: ignore[method-assign]
            read(self, draw) if trainer.progress["step"] < 2 else DataError(self.rows[draw[1]].key, "is broken")
        )
    with pytest.raises((DataError, ranks.EndedElsewhere)) as failed:
        trainer.run()
    found["failed"] = (type(failed.value).__name__, ranks.n_ranks())
    found["saved"] = trainer.state_path.exists()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    prepared_squares(folder, 10, 5)
    for name in ("straight", "broken", "failing", "full"):
        (folder / name).mkdir()
        (folder / name / "data").symlink_to(folder / "data")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[Any]:
    return as_two("training", folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["flat", "hiposeg"])
def test_a_run_of_two_equals_one_with_the_joined_batch(
    trained: list[Any], folder: Path, tmp_path: Path, method: str
) -> None:
    first, second = (found[method] for found in trained)
    own = FOR_HIPOSEG if method == "hiposeg" else {}
    trainer = with_frozen_norms(trainer_of(folder / "data", tmp_path, method, data__batch=4, **LIKE_ONE, **own))
    one = ran(trainer)
    parts = [keys[at : at + 2] for at in range(0, len(first["keys"]), 2) for keys in (first["keys"], second["keys"])]
    assert [key for part in parts for key in part] == one["keys"]
    start = state_of(with_frozen_norms(trainer_of(folder / "data", tmp_path / "start", method, **LIKE_ONE, **own)))
    assert any(not torch.allclose(tensor, start[name], atol=1e-3) for name, tensor in one["state"].items())
    for name, tensor in one["state"].items():
        assert torch.equal(first["state"][name], second["state"][name]), name
        assert torch.allclose(first["state"][name].float(), tensor.float(), rtol=1e-3, atol=1e-5), name
    mine = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in (folder / method / "metrics.jsonl").read_text().splitlines()]
    assert len(mine) == len(theirs)
    for row, other in zip(mine, theirs, strict=True):
        assert row.keys() == other.keys()
        assert [other[key] for key in row if key != "seconds"] == pytest.approx(
            [row[key] for key in row if key != "seconds"], rel=1e-3, abs=1e-4
        )


@pytest.mark.slow
def test_ranks_stay_equal_and_a_stop_on_one_resumes_exactly(trained: list[Any], folder: Path) -> None:
    first, second = trained
    for name in ("straight", "resumed"):
        for key, tensor in first[name]["state"].items():
            assert torch.equal(tensor, second[name]["state"][key]), key
        assert first[name]["progress"] == second[name]["progress"]
    assert first["stopped"] == second["stopped"] == (signal.SIGTERM, 2)
    for key, tensor in first["straight"]["state"].items():
        assert torch.equal(tensor, first["resumed"]["state"][key]), key
    straight, broken = folder / "straight" / "hiposeg", folder / "broken" / "hiposeg"
    for which in ("best", "last"):
        file = Path("weights") / f"{which}.safetensors"
        assert (straight / file).read_bytes() == (broken / file).read_bytes()


@pytest.mark.slow
def test_an_error_on_one_rank_ends_all(trained: list[Any]) -> None:
    assert [found["failed"] for found in trained] == [("EndedElsewhere", 1), ("DataError", 1)]
    assert not any(found["saved"] for found in trained), "no rank has the random states of all"


@pytest.mark.slow
def test_memory_that_runs_out_on_all_ranks_is_one_message(trained: list[Any]) -> None:
    assert sorted("fit into memory" in found["full"] for found in trained) == [False, True]


@pytest.mark.slow
def test_a_run_of_two_is_not_resumed_by_one(trained: list[Any], folder: Path) -> None:
    with pytest.raises(DataError, match="begun by 2 processes, not 1"):
        resumed(folder / "straight" / "hiposeg")


@pytest.mark.slow
def test_validation_by_two_counts_every_image_once(folder: Path) -> None:
    """Five images for two ranks: integer counts equal one process's to the last pixel."""
    counts = as_two("validation", folder)
    one = validated(folder)
    for found in counts:
        assert found["images"] == one["images"] == 5
        assert (found["counts"] == one["counts"]).all()
        assert found["scores"] == one["scores"]
    assert [found["seen"] for found in counts] == [3, 2]


def validated(folder: Path) -> dict[str, Any]:
    """Counts, scores and images of a validation, with an untrained network that is the same everywhere."""
    name = f"validation-{ranks.n_ranks()}-{ranks.rank()}"
    trainer = trainer_of(folder / "data", folder / name, "flat")
    found: dict[str, Any] = {"seen": 0}

    def kept(dataset: Dataset, rows: tuple[Row, ...], predict: Segment) -> Confusion:
        def counted(photo: Photo) -> LabelArray:
            found["seen"] += 1
            return predict(photo)

        found["confusion"] = evaluate_jointly(dataset, rows, counted)
        return found["confusion"]

    loop.evaluate_jointly = kept  # type: ignore[attr-defined]
    scores = trainer._scores(trainer.net.eval())
    loop.evaluate_jointly = evaluate_jointly  # type: ignore[attr-defined]
    confusion = found["confusion"]
    return {"scores": scores, "counts": confusion.counts, "images": confusion.n_images, "seen": found["seen"]}


def scenario_validation(folder: Path) -> Any:
    return validated(folder)


# -- the command -------------------------------------------------------------------------------------------------------

TRAIN = ["--net", "fpn", "--crop", "32", "--batch", "2", "--workers", "0", "--device", "cpu", "--method", "flat"]
LAUNCH = "import sys; from hiposeg_cli.learn.ranks import launch; sys.exit(launch(2, sys.argv[1:]))"


def started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_torchrun_trains_and_one_rank_speaks(folder: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "hiposeg_cli", "train", str(folder / "data"), *TRAIN, "--iterations", "2"]
    with no_child_left(uuid.uuid4().hex) as environment:
        process = started([*command, "--out", str(tmp_path / "run")], environment)
        out, talk = process.communicate(timeout=240)
    assert process.returncode == 0, talk
    assert out == f"{tmp_path / 'run'}\n"
    assert "2 steps, 2 processes of cpu" in talk
    assert talk.count("epoch 1 step 2") == 1
    assert "find_unused" not in talk
    assert json.loads((tmp_path / "run" / "env.json").read_text())["processes"] == 2
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_once_and_the_run_goes_on(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin = [sys.executable, "-c", LAUNCH, "train", str(folder / "data"), *TRAIN, "--out", str(run)]
    with no_child_left(uuid.uuid4().hex) as environment:
        process = started([*begin, "--iterations", "100000", "--set", "loop.log_every=1"], environment)
        wait_for_steps(process, run)
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=120)
        assert process.returncode == 143, talk
        assert talk.count("state saved") == 1
        assert "Traceback" not in talk
        process = started([sys.executable, "-c", LAUNCH, "train", "--resume", str(run)], environment)
        steps = len((run / "metrics.jsonl").read_text().splitlines())
        wait_for_steps(process, run, steps + 2)
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=120)
        assert process.returncode == 143, talk


def wait_for_steps(process: subprocess.Popen[str], run: Path, count: int = 2, timeout: float = 120) -> None:
    log, end = run / "metrics.jsonl", time.monotonic() + timeout
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > count):
        assert time.monotonic() < end, process.kill()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_broken_image_on_one_rank_is_one_message(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "raw", tmp_path / "raw")
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(folder / "h.yaml")))
    trainer = trainer_of(tmp_path / "data", tmp_path / "probe", "flat", data__batch=4)
    _, index = next(iter(StepSampler(10, 4, 0, 0, 1)))[3]  # the second image of the second rank in the first step
    broken = tmp_path / "raw" / "train" / "images" / f"{Path(trainer.train_set.rows[index].key).name}.png"
    assert broken.exists()
    broken.write_bytes(b"no picture")
    command = [sys.executable, "-c", LAUNCH, "train", str(tmp_path / "data"), *TRAIN, "--iterations", "9"]
    with no_child_left(uuid.uuid4().hex) as environment:
        process = started([*command, "--out", str(tmp_path / "run")], environment)
        _, talk = process.communicate(timeout=120)
    assert process.returncode == 2, talk
    assert talk.count("hiposeg: ") == 1
    assert broken.name in talk
    assert "Traceback" not in talk


@pytest.mark.parametrize(("launched", "code"), [(True, 2), (False, -signal.SIGABRT)])
def test_what_aborts_while_the_interpreter_winds_down_takes_no_exit_code(launched: bool, code: int) -> None:
    """As threads of a process group may; atexit functions have their turn, and nothing that was said is lost."""
    script = (
        "import atexit, os, sys\n"
        "class Thread:\n    def __del__(self, abort=os.abort):\n        abort()\n"
        "kept = Thread()\n"
        "atexit.register(print, 'tidied')\n"
        "from hiposeg_cli.app import main\n"
        "sys.argv = ['hiposeg', 'train', '--no-such-flag']\nmain()\n"
    )
    where = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    environment = {**os.environ, **(where if launched else {})}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "tidied\n"
    assert "no-such-flag" in ended.stderr


@pytest.mark.slow
def test_a_wrong_setting_is_one_message(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, "train", str(folder / "data"), "--set", "optim.lrr=1", "--out", str(tmp_path)]
    with no_child_left(uuid.uuid4().hex) as environment:
        process = started(command, environment)
        _, talk = process.communicate(timeout=120)
    assert process.returncode == 2, talk
    assert talk.splitlines() == [line for line in talk.splitlines() if "optim.lrr" in line]
    assert len(talk.splitlines()) == 1


@pytest.mark.slow
def test_a_killed_rank_ends_the_others(folder: Path, tmp_path: Path) -> None:
    run, mark = tmp_path / "run", uuid.uuid4().hex
    command = [sys.executable, "-c", LAUNCH, "train", str(folder / "data"), *TRAIN, "--out", str(run)]
    with no_child_left(mark) as environment:
        process = started([*command, "--iterations", "100000", "--set", "loop.log_every=1"], environment)
        wait_for_steps(process, run)
        ranks_now = [
            int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ")
            if _holds(path, mark) and _holds(path, "LOCAL_RANK=1")
        ]  # fmt: skip
        os.kill(ranks_now[0], signal.SIGKILL)
        _, talk = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "was killed by signal 9" in talk
    assert talk.count("Traceback") == 1  # that of this test's own call of `launch`, which the command turns into a line


# -- without a second process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("rare", [None, RareClasses(np.array([0.5, 0.5]), (np.array([0, 3]), np.array([5, 6, 7])))])
def test_ranks_draw_the_parts_of_the_joined_batch(accumulate: int, rare: RareClasses | None) -> None:
    joined = list(StepSampler(50, 6, 4, 1, 4, accumulate, rare))
    parts = [list(StepSampler(50, 2, 4, 1, 4, accumulate, rare, rank, 3)) for rank in range(3)]
    assert joined == [list(chain(*drawn)) for drawn in zip(*parts, strict=True)]
    assert len(joined) == 3 * accumulate


TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "29500"
}  # fmt: skip
SLURM = {
    "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "77",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NODELIST": "gpu[08-09]",
}  # fmt: skip


def test_torchrun_and_slurm_say_who_is_who() -> None:
    launch = launch_of(TORCHRUN | SLURM)
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_rank, launch.local_size) == (5, 8, 1, 4)
    assert (launch.address, launch.port) == ("a", 29500)
    launch = launch_of(SLURM)
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_rank, launch.local_size) == (3, 4, 1, 2)
    assert launch.address == "gpu08"
    assert 1024 < launch.port < 65536
    given = launch_of(SLURM | {"MASTER_ADDR": "b", "MASTER_PORT": "1234"})
    assert given is not None
    assert (given.address, given.port) == ("b", 1234)


def test_one_process_is_no_launch() -> None:
    assert launch_of({}) is None
    assert launch_of({"WORLD_SIZE": "1"}) is None
    assert launch_of(SLURM | {"SLURM_NTASKS": "1"}) is None
    batch_script = {key: value for key, value in SLURM.items() if "STEP" not in key}
    assert launch_of(batch_script) is None, "a batch script has a rank, but runs once"


def test_half_an_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        launch_of({key: value for key, value in TORCHRUN.items() if key != "MASTER_ADDR"})
    with pytest.raises(ConfigError, match="no list of nodes"):
        launch_of({key: value for key, value in SLURM.items() if key != "SLURM_STEP_NODELIST"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[08-11,14],x", "gpu08"), ("r[1-2]-ib", "r1-ib"), ("a,b[1-2]", "a")],
)
def test_first_host_of_a_compressed_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_more_gpus_than_there_are_is_an_error_with_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpu_list("0,1") == [0, 1]
    assert gpu_list("cuda:1") == gpu_list("auto") == []
    assert pick_device("1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="asks for 3 GPUs with numbers up to 2, but this machine has 2"):
        gpu_list("0,1,2")
    with pytest.raises(ConfigError, match="twice"):
        gpu_list("1,1")


@pytest.mark.parametrize(
    ("name", "local_rank", "size", "gpus", "device"),
    [
        ("auto", 1, 2, 2, "cuda:1"), ("3,1", 1, 2, 4, "cuda:1"), ("3,1", 0, 2, 4, "cuda:3"), ("cpu", 1, 2, 2, "cpu"),
        ("auto", 1, 2, 0, "cpu"), ("cuda", 3, 4, 2, "4 processes on this machine, but 2 GPUs"),
        ("cuda:1", 0, 2, 2, "one device for several processes"),
    ],
)  # fmt: skip
def test_each_process_takes_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str, local_rank: int, size: int, gpus: int, device: str
) -> None:
    from hiposeg_cli.learn import device as module

    monkeypatch.setattr(module, "n_ranks", lambda: size)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for key, value in (TORCHRUN | {"LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(size)}).items():
        monkeypatch.setenv(key, value)
    if " " in device:
        with pytest.raises(ConfigError, match=device):
            pick_device(name)
    else:
        assert pick_device(name) == torch.device(device)


def test_processes_that_cannot_meet_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for key, value in {**TORCHRUN, "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(ConfigError, match=rf"localhost:{port}: the processes cannot meet"), ranks.joined():
            pass


def test_alone_nothing_is_exchanged() -> None:
    value, count = torch.tensor(3.0), torch.tensor(0)
    assert ranks.joint_mean(value, count) is value
    assert ranks.joint_sum(value) is value
    assert (ranks.n_ranks(), ranks.rank(), ranks.any_signal(None), ranks.gathered(7)) == (1, 0, None, [7])
    with pytest.raises(HiposegError, match="here"), ranks.agreed():
        raise HiposegError("here", "fails")


if __name__ == "__main__":
    torch.set_num_threads(1)
    scenario, target = sys.argv[1], Path(sys.argv[2])
    with ranks.joined():
        number = ranks.rank()
        result = globals()[f"scenario_{scenario}"](target)
        torch.save(result, target / f"{scenario}-{number}.pt")
