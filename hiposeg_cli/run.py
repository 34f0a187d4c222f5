"""The composition root: settings -> network + method + data + loop. The only file that knows all parts."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator

from hiposeg_cli.config import Layer, build, defaults, dump, environment_layer, flatten, merge
from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy
from hiposeg_cli.labelmap import LabelArray, write_bytes_atomic
from hiposeg_cli.learn.augment import Augment, AugmentOptions
from hiposeg_cli.learn.checkpoint import Checkpoint, apply_weights, load_weights
from hiposeg_cli.learn.evaluate import segment
from hiposeg_cli.learn.loop import Silent, Trainer, Watcher
from hiposeg_cli.learn.method import Method
from hiposeg_cli.learn.schedule import OptimConfig
from hiposeg_cli.nets.net import STRIDE_PX, SegmentationNet, build_net
from hiposeg_cli.nets.weights import load_backbone
from hiposeg_cli.registry import METHODS
from hiposeg_cli.store import Dataset, open_dataset, sha256_file
from hiposeg_cli.strict_yaml import load_yaml, plain

logger = logging.getLogger(__name__)


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
    """Training data and how it is shown; see `AugmentOptions`."""

    path: str = ""
    size: int | None = None
    crop: Annotated[tuple[int, int], BeforeValidator(_height_width)] = (256, 256)
    batch: int = 8
    workers: int = 1
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3


@dataclass(frozen=True)
class LoopConfig:
    """Everything else about a run; `val_every` counts epochs."""

    seed: int = 0
    device: str = "auto"
    amp: Annotated[Literal["auto", "off", "bf16", "fp16"], BeforeValidator(_off_is_a_word)] = "auto"
    val_every: int = 5
    log_every: int = 10
    deterministic: bool = False


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


def resolve_config(layers: Sequence[Layer], config_files: Sequence[Path] = ()) -> RunConfig:
    """Merge defaults, configuration files, environment and the given layers (flags), later ones winning.

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
    values, origins = merge([Layer("defaults", own | base), *_relevant(outer, known, method)], known)
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
    for key in ("data.batch", "optim.lr", "loop.val_every", "loop.log_every"):
        if config.values[key] is None or float(config.values[key]) <= 0:
            raise ConfigError(key, f"is {config.values[key]}", "choose a value above 0")
    for key in ("data.workers", "optim.iterations", "loop.seed", "optim.clip_norm", "optim.warmup"):
        if float(config.values[key]) < 0:
            raise ConfigError(key, f"is {config.values[key]}", "choose 0 or more")
    if config.data.size is not None and config.data.size < STRIDE_PX:
        raise ConfigError("--size", f"is {config.data.size}", f"choose {STRIDE_PX} or more")
    if config.data.batch < 2:
        raise ConfigError("--batch", "is 1, but batch normalisation needs two images", "use 2 or more")
    if config.optim.epochs <= 0 and config.optim.iterations <= 0:
        raise ConfigError("--epochs", f"is {config.optim.epochs}", "train for at least one epoch")
    if not 0 < config.data.scale[0] <= config.data.scale[1]:
        raise ConfigError("data.scale", f"is {config.data.scale}", "give a range such as [0.5, 2.0]")


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's GPU, then the CPU. Raises ConfigError for a device this machine lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}", "is no device", "use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}", f"this machine has {torch.cuda.device_count()} CUDA devices", "use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps", "is not available here", "use --device cpu")
    return device


def pick_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Autocast type; `auto` is bf16 on CUDA devices that have it, else none."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


# -- training ----------------------------------------------------------------------------------------------------------


RUN_FILES = (
    "config.yaml", "env.json", "hierarchy.yaml", "metrics.jsonl", "results.csv", "state.safetensors",
    "weights/best.safetensors", "weights/last.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class Built:
    """The parts of a run, ready to train."""

    net: SegmentationNet
    method: Method
    weights_from: str
    warnings: list[str]


def build_parts(config: RunConfig, hierarchy: Hierarchy, init: Path | None = None, *, pretrained: bool = True) -> Built:
    """Network and method, initialised from the seed, the pretrained backbone and, if given, a checkpoint's weights."""
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
    method: Method = METHODS.load(config.method)(hierarchy, net.embedding_dim, config.options)
    return Built(net, method, weights_from, method.warnings())


def open_training_data(config: RunConfig) -> Dataset:
    """The dataset of a run. Raises DataError when it has no training images."""
    dataset = open_dataset(Path(config.data.path))
    if not dataset.rows.get("train"):
        raise DataError(dataset.root, "has no split 'train'", "prepare one, for example with --val")
    return dataset


def make_trainer(
    config: RunConfig, run_dir: Path, *, init: Path | None = None, resuming: bool = False,
    watcher: Watcher | None = None, stop: Callable[[], int | None] = lambda: None,
) -> tuple[Trainer, Built]:  # fmt: skip
    """Everything a run needs; nothing has been written yet."""
    device = pick_device(config.loop.device)
    if config.loop.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.loop.deterministic, warn_only=True)
    dataset = open_training_data(config)
    built = build_parts(config, dataset.hierarchy, init, pretrained=not resuming)
    data = config.data
    augment = Augment(
        AugmentOptions(crop=data.crop, size=data.size, scale=data.scale, flip=data.flip, jitter=data.jitter),
        dataset.hierarchy,
    )
    about = {
        "architecture": config.net.architecture, "backbone": config.net.backbone, "size": data.size, "method": config.method,
        "seed": config.loop.seed, "amp": config.loop.amp, "hiposeg_version": version("hiposeg-cli"),
    }  # fmt: skip
    trainer = Trainer(
        built.net, built.method, dataset, augment, config.optim, run_dir, about, batch=data.batch, workers=data.workers,
        seed=config.loop.seed, val_every=config.loop.val_every, log_every=config.loop.log_every, device=device,
        amp=pick_amp(config.loop.amp, device), watcher=watcher or Silent(), stop=stop,
    )  # fmt: skip
    return trainer, built


def write_run_files(run_dir: Path, config: RunConfig, hierarchy: Hierarchy) -> None:
    """config.yaml, env.json and hierarchy.yaml of a new run; files of an older one in this folder are removed first."""
    for name in RUN_FILES:
        (run_dir / name).unlink(missing_ok=True)
    packages = ("hiposeg-cli", "torch", "timm", "segmentation-models-pytorch", "numpy", "pillow")
    env = {
        "python": platform.python_version(), "platform": platform.platform(), "command": sys.argv,
        "threads": torch.get_num_threads(), "cuda": torch.version.cuda,
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
    return resolve_config([Layer("--resume", _settings_file(run_dir / "config.yaml"))])


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


# -- inference ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A trained network, ready for photos."""

    net: SegmentationNet
    checkpoint: Checkpoint
    device: torch.device
    amp: torch.dtype | None

    @property
    def hierarchy(self) -> Hierarchy:
        return self.checkpoint.hierarchy

    @property
    def identity(self) -> str:
        """Names weights and input size, so that results are never mixed."""
        return f"{sha256_file(self.checkpoint.path)}-{self.checkpoint.about['size'] or 'unscaled'}"

    def segment(self, image: NDArray[np.uint8]) -> LabelArray:
        """(H, W, 3) uint8 photo -> (H, W) fine ids."""
        return segment(self.net, image, size=self.checkpoint.about["size"], device=self.device, amp=self.amp)


def weights_path(run: Path, which: str = "best") -> Path:
    """The weights file behind a run folder or a .safetensors path."""
    if run.suffix == ".safetensors":
        return run
    if not run.is_dir():
        raise DataError(run, "no such run", "name a run folder or a .safetensors file")
    return run / "weights" / f"{which}.safetensors"


def load_model(run: Path, *, which: str = "best", device: str = "auto") -> Model:
    """Rebuild a run's network from its weights file alone; it computes in the precision it was trained with."""
    checkpoint = load_weights(weights_path(run, which))
    about = checkpoint.about
    net = build_net(about["architecture"], about["backbone"], checkpoint.hierarchy.n_fine)
    apply_weights(net, checkpoint)
    picked = pick_device(device)
    logger.info("%s: %s over %s, step %s", checkpoint.path, about["architecture"], about["backbone"], about["step"])
    return Model(net.to(picked).eval(), checkpoint, picked, pick_amp(about["amp"], picked))


def with_size(model: Model, size: int | None) -> Model:
    """The same model looking at photos of another size (long side in px)."""
    if size is None:
        return model
    return replace(model, checkpoint=replace(model.checkpoint, about={**model.checkpoint.about, "size": size}))
