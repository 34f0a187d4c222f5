"""The composition root: settings -> network + method + data + loop. The only file that knows all parts."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import torch

from hiposeg_cli.config import dump
from hiposeg_cli.errors import ConfigError, DataError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy
from hiposeg_cli.infer.model import weights_path
from hiposeg_cli.joined import joined
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.learn import ranks
from hiposeg_cli.learn.augment import Augment, AugmentOptions
from hiposeg_cli.learn.checkpoint import apply_weights, load_weights
from hiposeg_cli.learn.device import choose_kernels, pick_amp, pick_device
from hiposeg_cli.learn.label_check import check_labels, level_pixels, shown_classes
from hiposeg_cli.learn.launch import launch_of
from hiposeg_cli.learn.loop import Trainer
from hiposeg_cli.learn.memory import NO_ROOM, FoundBatch, Trial, enough_memory, largest_batch, trial_memory, tried_batch
from hiposeg_cli.learn.method import Context, Method
from hiposeg_cli.learn.watcher import Silent, Watcher
from hiposeg_cli.nets.net import SegmentationNet, build_net
from hiposeg_cli.nets.weights import load_backbone
from hiposeg_cli.plan import PLANNED_FOR, Device, Plan, most_in_batch, plan
from hiposeg_cli.registry import METHODS
from hiposeg_cli.run_config import RunConfig
from hiposeg_cli.store import Dataset, Row, open_dataset

RUN_FILES = (
    "config.yaml", "env.json", "eval.json", "hierarchy.yaml", "metrics.jsonl", "report.html", "results.csv",
    "state.safetensors",
    *(f"weights/{which}{suffix}" for which in ("best", "last") for suffix in (".safetensors", ".onnx", ".pt2")),
)  # fmt: skip
_BY_FRACTION = 2**30  # keeps the choice of images apart from other draws of the seed


@dataclass(frozen=True)
class Built:
    """The parts of a run, ready to train."""

    net: SegmentationNet
    method: Method
    weights_from: str
    warnings: list[str]


def build_parts(
    config: RunConfig, hierarchy: Hierarchy, init: Path | None = None, *, pretrained: bool = True,
    rows: Sequence[Row] = (),
) -> Built:  # fmt: skip
    """Network and method, initialised from the seed, the pretrained backbone and, if given, a checkpoint's weights.

    Args:
        rows: the training split, for methods that count its pixels.
    """
    torch.manual_seed(config.loop.seed)
    net = build_net(config.net.architecture, config.net.backbone, hierarchy.n_fine)
    weights_from = load_backbone(net, config.net.backbone, config.net.weights if pretrained and init is None else "none")
    if init is not None:
        checkpoint = load_weights(weights_path(init))
        hierarchy.require_same(checkpoint.hierarchy, mine="the dataset", theirs=checkpoint.path)
        apply_weights(net, checkpoint)
        weights_from = str(checkpoint.path)
    # The method draws its own random numbers, so that every method starts from the same network.
    torch.manual_seed(config.loop.seed + 1)
    context = Context(net.scale_dims, level_pixels(rows, hierarchy) if rows else ())
    method: Method = METHODS.load(config.method)(hierarchy, net.embedding_dim, config.options, context)
    net.gives_scales = method.needs_scales
    return Built(net, method, weights_from, method.warnings())


def open_training_data(config: RunConfig) -> Dataset:
    """The datasets of a run as one, with the share of the training images that is used. Raises DataError without any."""
    datasets = [open_dataset(Path(path)) for path in (config.data.path, *config.data.also)]
    for one in datasets:
        if not one.rows.get("train"):
            raise DataError(one.root, "has no split 'train'", "prepare one, for example with --val")
    dataset = joined(datasets)
    rows = dataset.split("train")
    if config.data.fraction == 1:
        return dataset
    order = np.random.default_rng([config.loop.seed, _BY_FRACTION]).permutation(len(rows))
    kept = sorted(order[: max(1, round(config.data.fraction * len(rows)))])
    return replace(dataset, rows=dataset.rows | {"train": tuple(rows[index] for index in kept)})


def plan_run(config: RunConfig) -> Plan:
    """What the dataset and this machine suggest for the settings that nobody chose."""
    typed, dataset = config.typed, open_training_data(config)
    shown_classes(dataset, "train", "fine")  # the plan counts them, so one beyond the hierarchy is named first
    chosen = {
        key: typed[key]
        for key, origin in config.origins.items()
        if (origin != "defaults" or key in PLANNED_FOR) and (key, typed[key]) != ("data.batch", "auto")
    }
    device = pick_device(config.loop.device)
    launch = launch_of(os.environ)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return plan(
        dataset,
        device=cast(Device, device.type),
        cores=max(1, (os.cpu_count() or 1) // (launch.local_size if launch else 1)),
        gpu_bytes=memory,
        chosen=chosen,
    )


def find_batch(config: RunConfig) -> FoundBatch:
    """The batch of a run with `--batch auto`: on GPUs the largest that fits into the smallest, elsewhere the planned one.

    Every process of a run calls this. Raises HiposegError when not even two images fit.
    """
    device, n_processes = pick_device(config.loop.device), ranks.n_ranks()
    if device.type != "cuda":
        planned = plan_run(replace(config, origins=config.origins | {"data.batch": "defaults"}))
        return FoundBatch(planned.settings["data.batch"], planned.reasons["data.batch"])
    choose_kernels(deterministic=config.loop.deterministic)
    dataset = open_training_data(config)
    rows = dataset.split("train")
    most = most_in_batch(len(rows), config.optim.accumulate * n_processes)
    with ranks.agreed(), enough_memory("the network", NO_ROOM), trial_memory(device), ranks.apart():
        built = build_parts(config, dataset.hierarchy, pretrained=False, rows=rows)
        trial = Trial(
            built.net.to(device).train(), built.method.to(device).train(), config.optim, config.data.crop, device,
            pick_amp(config.loop.amp, device), any(row.coarse_only_px for row in rows), n_processes,
        )  # fmt: skip
        own = largest_batch(trial, most)
        del built, trial  # what was tried is to leave the memory
    return tried_batch(min(ranks.gathered(own)), most, config.data.crop)


def make_trainer(
    config: RunConfig, run_dir: Path, *, init: Path | None = None, resuming: bool = False,
    watcher: Watcher | None = None, stop: Callable[[], int | None] = lambda: None,
) -> tuple[Trainer, Built]:  # fmt: skip
    """Everything a run needs; nothing has been written yet."""
    device = pick_device(config.loop.device)
    choose_kernels(deterministic=config.loop.deterministic)
    dataset = open_training_data(config)
    built = build_parts(config, dataset.hierarchy, init, pretrained=not resuming, rows=dataset.split("train"))
    about_labels = check_labels(dataset, built.method.needs)
    data, loop = config.data, config.loop
    if data.batch == "auto":
        raise ConfigError("data.batch", "is 'auto', but a trainer needs a number", "choose one, such as 8")
    augment = Augment(
        AugmentOptions(crop=data.crop, size=data.size, scale=data.scale, flip=data.flip, jitter=data.jitter),
        dataset.hierarchy,
    )
    about = {
        "architecture": config.net.architecture, "backbone": config.net.backbone, "size": data.size, "method": config.method,
        "seed": config.loop.seed, "amp": config.loop.amp, "hiposeg_version": version("hiposeg-cli"),
    }  # fmt: skip
    trainer = Trainer(
        built.net, built.method, dataset, augment, config.optim, run_dir, about, config.deciding, batch=data.batch,
        workers=data.workers, seed=loop.seed, val_every=loop.val_every, save_every=loop.save_every,
        log_every=loop.log_every, patience=loop.patience, rare_class_sampling=data.rare_class_sampling,
        compiled=loop.compile, tensorboard=loop.tensorboard, device=device, amp=pick_amp(loop.amp, device),
        watcher=watcher or Silent(), stop=stop,
    )  # fmt: skip
    warnings = [*built.warnings, *about_labels, *([trainer.warning] if trainer.warning else [])]
    return trainer, replace(built, warnings=warnings)


def write_run_files(run_dir: Path, config: RunConfig, hierarchy: Hierarchy) -> None:
    """config.yaml, env.json and hierarchy.yaml of a new run; files of an older one in this folder are removed first.

    env.json also says where each setting that is no default came from.
    """
    with _written(run_dir):
        for path in (*(run_dir / name for name in RUN_FILES), *(run_dir / "tensorboard").glob("events.out.tfevents.*")):
            path.unlink(missing_ok=True)
    packages = ("hiposeg-cli", "torch", "timm", "segmentation-models-pytorch", "numpy", "pillow")
    env = {
        "python": platform.python_version(), "platform": platform.platform(), "command": sys.argv,
        "threads": torch.get_num_threads(), "processes": ranks.n_ranks(), "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in packages},
        "settings": {key: origin for key, origin in config.origins.items() if origin != "defaults"},
    }  # fmt: skip
    write_bytes_atomic(run_dir / "config.yaml", dump(config.values).encode())
    write_bytes_atomic(run_dir / "env.json", (json.dumps(env, indent=1) + "\n").encode())
    write_bytes_atomic(run_dir / "hierarchy.yaml", dump_hierarchy(hierarchy).encode())


def new_run_dir(base: Path, name: str) -> Path:
    """Make the first free numbered folder `base/name-N`; making it claims it. Raises OutputError where it cannot."""
    number = 1
    while True:
        folder = base / f"{name}-{number}"
        try:
            with _written(base):
                folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Make a folder and let the block change it; what cannot be done there is an OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error.strerror})", "choose another folder") from None
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "choose another folder") from None
