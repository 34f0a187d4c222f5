"""The composition root: settings -> network + method + data + loop. The only file that knows all parts."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BeforeValidator

from hiposeg_cli.config import Layer, build, defaults, dump, environment_layer, flatten, merge
from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy
from hiposeg_cli.infer.model import weights_path
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.learn import ranks
from hiposeg_cli.learn.augment import Augment, AugmentOptions
from hiposeg_cli.learn.checkpoint import apply_weights, load_weights
from hiposeg_cli.learn.device import choose_kernels, pick_amp, pick_device
from hiposeg_cli.learn.label_check import check_labels, level_pixels
from hiposeg_cli.learn.launch import launch_of
from hiposeg_cli.learn.loop import Silent, Trainer, Watcher
from hiposeg_cli.learn.memory import FoundBatch, Trial, largest_batch, trial_memory, tried_batch
from hiposeg_cli.learn.method import Context, Method
from hiposeg_cli.learn.schedule import OptimConfig
from hiposeg_cli.methods.presets import preset_options
from hiposeg_cli.nets.net import STRIDE_PX, SegmentationNet, build_net
from hiposeg_cli.nets.weights import load_backbone
from hiposeg_cli.plan import Device, Plan, most_in_batch, plan
from hiposeg_cli.registry import METHODS
from hiposeg_cli.store import Dataset, Row, open_dataset
from hiposeg_cli.strict_yaml import load_yaml, plain


def _height_width(value: Any) -> Any:
    """`256`, `256x320` or [256, 320] -> (height, width)."""
    if isinstance(value, str) and "x" in value:
        return tuple(value.split("x"))
    return (value, value) if isinstance(value, int | str) else value


def _off_is_a_word(value: Any) -> Any:
    """YAML reads `off` as false."""
    return "off" if value is False else value


@dataclass(frozen=True)
class NetConfig:
    """The network; `weights` is auto, none, hub or a file."""

    architecture: str = "deeplabv3plus"
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"


@dataclass(frozen=True)
class DataConfig:
    """Training data and how it is shown; see `AugmentOptions`.

    Attributes:
        batch: images that go through the network at once, in each process of a run; `optim.accumulate` of these make a
            step. `auto` is replaced by what `find_batch` finds before a run begins.
        workers: loader processes, of each process of a run.
        rare_class_sampling: temperature at which images are drawn by class, rare ones more often (0.01 in DAFormer);
            0 shows every image once an epoch.
    """

    path: str = ""
    size: int | None = None
    crop: Annotated[tuple[int, int], BeforeValidator(_height_width)] = (256, 256)
    batch: int | Literal["auto"] = 8
    workers: int = 1
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3
    rare_class_sampling: float = 0.0


@dataclass(frozen=True)
class LoopConfig:
    """Everything else about a run.

    Attributes:
        val_every: epochs from one validation to the next.
        patience: validations without a better fine mIoU after which training stops; 0 never stops it.
        compile: run the training pass through torch.compile, where this machine has a compiler.
        tensorboard: also write the log as TensorBoard events (extra `tensorboard`).
    """

    seed: int = 0
    device: str = "auto"
    amp: Annotated[Literal["auto", "off", "bf16", "fp16"], BeforeValidator(_off_is_a_word)] = "auto"
    val_every: int = 5
    log_every: int = 10
    deterministic: bool = False
    patience: int = 0
    compile: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class RunConfig:
    """A whole run's settings, and where each value came from."""

    method: str
    options: Any
    net: NetConfig
    data: DataConfig
    optim: OptimConfig
    loop: LoopConfig
    values: dict[str, Any]
    origins: dict[str, str]


_SECTIONS = {"net": NetConfig, "data": DataConfig, "optim": OptimConfig, "loop": LoopConfig}


def resolve_config(
    layers: Sequence[Layer], config_files: Sequence[Path] = (), planned: Layer | None = None, preset: str | None = None
) -> RunConfig:
    """Merge defaults, plan, the method's preset, configuration files, environment and given layers, later ones winning.

    Raises: ConfigError naming the setting, its origin and the cure.
    """
    files = [Layer(str(path), _settings_file(path)) for path in config_files]
    # The method's name decides which options exist, so it is settled first, among all layers.
    base = {key: value for section, cls in _SECTIONS.items() for key, value in defaults(cls, section).items()}
    outer = [*files, environment_layer([*base, *_all_method_keys()]), *layers]
    method = "hiposeg"
    for layer in outer:
        method = str(layer.values.get("method.name", method))
    options_class = METHODS.load(method).Options
    own = {"method.name": method} | defaults(options_class, "method")
    known = [*own, *base]
    for layer in layers:
        for key in layer.values.keys() & (set(_all_method_keys()) - set(known)):
            raise ConfigError(layer.origin, f"{key!r} is no option of the method {method!r}", did_you_mean(key, own))
    inner = [Layer("defaults", own | base), *([planned] if planned else [])]
    if preset is not None:
        options = preset_options(method, preset)
        inner.append(Layer(f"preset {preset}", {f"method.{name}": value for name, value in options.items()}))
    values, origins = merge([*inner, *_relevant(outer, known, method)], known)
    config = RunConfig(
        method=method, options=build(options_class, values, "method", origins), values=values, origins=origins,
        net=build(NetConfig, values, "net", origins), data=build(DataConfig, values, "data", origins),
        optim=build(OptimConfig, values, "optim", origins), loop=build(LoopConfig, values, "loop", origins),
    )  # fmt: skip
    _check(config)
    return config


def _settings_file(path: Path) -> dict[str, Any]:
    """Dotted settings of a YAML file. Raises ConfigError when it holds something else."""
    data = plain(load_yaml(path))
    if data is not None and not isinstance(data, dict):
        raise ConfigError(path, "does not hold settings", "write sections such as `optim: {lr: 0.001}`")
    return flatten(data or {})


def _all_method_keys() -> list[str]:
    return ["method.name", *(key for name in METHODS.names() for key in defaults(METHODS.load(name).Options, "method"))]


def _relevant(layers: Sequence[Layer], known: Sequence[str], method: str) -> list[Layer]:
    """Layers without options of other methods when they come from files or the environment, which may serve several."""
    others = set(_all_method_keys()) - set(known)
    return [
        layer if layer.origin.startswith("--") else Layer(
            layer.origin, {key: value for key, value in layer.values.items() if key not in others}
        )
        for layer in layers
    ]  # fmt: skip


def _check(config: RunConfig) -> None:
    for side in config.data.crop:
        if side < STRIDE_PX or side % STRIDE_PX:
            nearest = max(STRIDE_PX, round(side / STRIDE_PX) * STRIDE_PX)
            raise ConfigError("--crop", f"{side} is not a multiple of {STRIDE_PX}", f"try {nearest}")
    batch = config.data.batch
    for key in ("data.batch", "optim.lr", "optim.accumulate", "loop.val_every", "loop.log_every"):
        if config.values[key] != "auto" and float(config.values[key]) <= 0:
            raise ConfigError(key, f"is {config.values[key]}", "choose a value above 0")
    for key in ("data.workers", "data.rare_class_sampling", "optim.iterations", "optim.clip_norm", "optim.warmup",
                "optim.weight_average", "loop.seed", "loop.patience"):  # fmt: skip
        if float(config.values[key]) < 0:
            raise ConfigError(key, f"is {config.values[key]}", "choose 0 or more")
    if config.data.size is not None and config.data.size < STRIDE_PX:
        raise ConfigError("--size", f"is {config.data.size}", f"choose {STRIDE_PX} or more")
    if batch != "auto" and batch < 2:
        raise ConfigError("--batch", "is 1, but batch normalisation needs two images", "use 2 or more")
    if config.optim.epochs <= 0 and config.optim.iterations <= 0:
        raise ConfigError("--epochs", f"is {config.optim.epochs}", "train for at least one epoch")
    if config.optim.weight_average >= 1:
        raise ConfigError(
            "optim.weight_average", f"is {config.optim.weight_average}", "choose a decay below 1, or 0 for none"
        )
    if not 0 < config.data.scale[0] <= config.data.scale[1]:
        raise ConfigError("data.scale", f"is {config.data.scale}", "give a range such as [0.5, 2.0]")


# -- training ----------------------------------------------------------------------------------------------------------


RUN_FILES = (
    "config.yaml", "env.json", "eval.json", "hierarchy.yaml", "metrics.jsonl", "results.csv", "state.safetensors",
    "weights/best.safetensors", "weights/last.safetensors",
)  # fmt: skip


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
    """The dataset of a run. Raises DataError when it has no training images."""
    dataset = open_dataset(Path(config.data.path))
    if not dataset.rows.get("train"):
        raise DataError(dataset.root, "has no split 'train'", "prepare one, for example with --val")
    return dataset


def _typed(config: RunConfig) -> dict[str, Any]:
    """Dotted settings as their dataclasses hold them, without the method's."""
    sections: dict[str, Any] = {"net": config.net, "data": config.data, "optim": config.optim, "loop": config.loop}
    return flatten({name: asdict(section) for name, section in sections.items()})


def _deciding(config: RunConfig) -> dict[str, Any]:
    """The settings that a resumed run has to repeat, as JSON holds them."""
    free = {"data.path", "data.workers", "net.weights"}
    every = {"method.name": config.method} | flatten({"method": asdict(config.options)}) | _typed(config)
    chosen = {key: value for key, value in every.items() if key not in free and not key.startswith("loop.")}
    decided: dict[str, Any] = json.loads(json.dumps(chosen | {"loop.seed": config.loop.seed}))
    return decided


def plan_run(config: RunConfig) -> Plan:
    """What the dataset and this machine suggest for the settings that nobody chose."""
    typed = _typed(config)
    chosen = {
        key: typed[key]
        for key, origin in config.origins.items()
        if origin != "defaults" and key in typed and (key, typed[key]) != ("data.batch", "auto")
    }
    device = pick_device(config.loop.device)
    launch = launch_of(os.environ)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return plan(
        open_training_data(config),
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
    with ranks.agreed(), trial_memory(device), ranks.apart():
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
        built.net, built.method, dataset, augment, config.optim, run_dir, about, _deciding(config), batch=data.batch,
        workers=data.workers, seed=loop.seed, val_every=loop.val_every, log_every=loop.log_every, patience=loop.patience,
        rare_class_sampling=data.rare_class_sampling, compiled=loop.compile, tensorboard=loop.tensorboard, device=device,
        amp=pick_amp(loop.amp, device), watcher=watcher or Silent(), stop=stop,
    )  # fmt: skip
    warnings = [*built.warnings, *about_labels, *([trainer.warning] if trainer.warning else [])]
    return trainer, replace(built, warnings=warnings)


def write_run_files(run_dir: Path, config: RunConfig, hierarchy: Hierarchy) -> None:
    """config.yaml, env.json and hierarchy.yaml of a new run; files of an older one in this folder are removed first."""
    for path in (*(run_dir / name for name in RUN_FILES), *(run_dir / "tensorboard").glob("events.out.tfevents.*")):
        path.unlink(missing_ok=True)
    packages = ("hiposeg-cli", "torch", "timm", "segmentation-models-pytorch", "numpy", "pillow")
    env = {
        "python": platform.python_version(), "platform": platform.platform(), "command": sys.argv,
        "threads": torch.get_num_threads(), "processes": ranks.n_ranks(), "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in packages},
    }  # fmt: skip
    write_bytes_atomic(run_dir / "config.yaml", dump(config.values).encode())
    write_bytes_atomic(run_dir / "env.json", (json.dumps(env, indent=1) + "\n").encode())
    write_bytes_atomic(run_dir / "hierarchy.yaml", dump_hierarchy(hierarchy).encode())


def is_run(folder: Path) -> bool:
    """Whether a folder is what `write_run_files` makes."""
    env = folder / "env.json"
    return (folder / "config.yaml").is_file() and env.is_file() and "hiposeg-cli" in env.read_text(encoding="utf-8")


def load_run_config(run_dir: Path) -> RunConfig:
    """The saved configuration of a run. Raises ConfigError when the folder is no run."""
    if not is_run(run_dir):
        raise ConfigError(run_dir, "is not a run folder (no config.yaml)", "name the folder that `hiposeg train` wrote")
    path = run_dir / "config.yaml"
    settings = _settings_file(path)
    try:
        return resolve_config([Layer("--resume", settings)])
    except ConfigError as error:
        if error.where.startswith("environment"):
            raise
        what = error.what if error.where == "--resume" else f"{error.where}: {error.what}"
        raise ConfigError(path, what.replace(" (from --resume)", ""), error.cure) from None


def new_run_dir(base: Path, name: str) -> Path:
    """Make the first free numbered folder `base/name-N`; making it claims it."""
    number = 1
    while True:
        folder = base / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
