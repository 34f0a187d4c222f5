"""The settings of a run: typed, merged from their layers, checked; every key is `section.name`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from hiposeg_cli.config import Layer, build, defaults, environment_layer, flatten, merge
from hiposeg_cli.errors import ConfigError, did_you_mean
from hiposeg_cli.learn.schedule import OptimConfig
from hiposeg_cli.methods.presets import preset_options
from hiposeg_cli.nets.net import STRIDE_PX
from hiposeg_cli.registry import METHODS
from hiposeg_cli.runs import require_run
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
        also: further prepared datasets of the same tree, whose training images are used too.
        rare_class_sampling: temperature at which images are drawn by class, rare ones more often (0.01 in DAFormer);
            0 shows every image once an epoch.
        fraction: share of the training images that are used, drawn by the seed: how much data does a method need?
    """

    path: str = ""
    also: tuple[str, ...] = ()
    size: int | None = None
    crop: Annotated[tuple[int, int], BeforeValidator(_height_width)] = (256, 256)
    batch: int | Literal["auto"] = 8
    workers: int = 1
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3
    rare_class_sampling: float = 0.0
    fraction: float = 1.0


@dataclass(frozen=True)
class LoopConfig:
    """Everything else about a run.

    Attributes:
        val_every: epochs from one validation to the next.
        save_every: steps after which the state is saved at the latest; it is with every validation too.
        patience: validations without a better fine mIoU after which training stops; 0 never stops it.
        compile: run the training pass through torch.compile, where this machine has a compiler.
        tensorboard: also write the log as TensorBoard events (extra `tensorboard`).
    """

    seed: int = 0
    device: str = "auto"
    amp: Annotated[Literal["auto", "off", "bf16", "fp16"], BeforeValidator(_off_is_a_word)] = "auto"
    val_every: int = 5
    save_every: int = 500
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

    @property
    def typed(self) -> dict[str, Any]:
        """Dotted settings as their dataclasses hold them."""
        sections: dict[str, Any] = {
            "method": self.options, "net": self.net, "data": self.data, "optim": self.optim, "loop": self.loop
        }  # fmt: skip
        return {"method.name": self.method} | flatten({name: asdict(section) for name, section in sections.items()})

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that a resumed run has to repeat, as JSON holds them."""
        free = {"data.path", "data.also", "data.workers", "net.weights"}
        chosen = {key: value for key, value in self.typed.items() if key not in free and not key.startswith("loop.")}
        decided: dict[str, Any] = json.loads(json.dumps(chosen | {"loop.seed": self.loop.seed}))
        return decided


_POSITIVE = ("data.batch", "optim.lr", "optim.accumulate", "loop.val_every", "loop.save_every", "loop.log_every")
_NOT_NEGATIVE = (
    "data.workers", "data.rare_class_sampling", "optim.iterations", "optim.clip_norm", "optim.weight_decay",
    "optim.poly_power", "optim.backbone_lr", "optim.weight_average", "loop.seed", "loop.patience",
)  # fmt: skip
_SHARES = ("data.flip", "data.jitter", "optim.momentum", "optim.warmup")
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
    outer = [_length_settled(layer) for layer in (*files, environment_layer([*base, *_all_method_keys()]), *layers)]
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


def _length_settled(layer: Layer) -> Layer:
    """A layer whose epochs win over the steps of the layers before it."""
    if "optim.epochs" not in layer.values:
        return layer
    return Layer(layer.origin, {"optim.iterations": 0, **layer.values}, layer.reasons)


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
    typed = config.typed
    for key, value in typed.items():
        numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if isinstance(number, float)]
        if not all(math.isfinite(number) for number in numbers):
            raise ConfigError(key, f"is {config.values[key]}", "choose a finite number")
    for key in _POSITIVE:
        if typed[key] != "auto" and typed[key] <= 0:
            raise ConfigError(key, f"is {config.values[key]}", "choose a value above 0")
    for key in (*_NOT_NEGATIVE, *(key for key in typed if key.startswith("method.lambda_"))):
        if typed[key] < 0:
            raise ConfigError(key, f"is {config.values[key]}", "choose 0 or more")
    for key in _SHARES:
        if not 0 <= typed[key] <= 1:
            raise ConfigError(key, f"is {config.values[key]}", "choose a value from 0 to 1")
    if config.loop.seed >= 2**63:
        raise ConfigError("loop.seed", f"is {config.loop.seed}", f"choose one below {2**63}")
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
    if not 0 < config.data.fraction <= 1:
        raise ConfigError("data.fraction", f"is {config.data.fraction}", "choose a share above 0, at most 1")


def load_run_config(run_dir: Path, layers: Sequence[Layer] = ()) -> RunConfig:
    """The saved configuration of a run, with some settings replaced. Raises ConfigError when the folder is no run."""
    require_run(run_dir)
    path = run_dir / "config.yaml"
    settings = _settings_file(path)
    try:
        return resolve_config([Layer("--resume", settings), *layers])
    except ConfigError as error:
        if error.where.startswith("environment"):
            raise
        what = error.what if error.where == "--resume" else f"{error.where}: {error.what}"
        raise ConfigError(path, what.replace(" (from --resume)", ""), error.cure) from None
