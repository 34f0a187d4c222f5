"""What `hiposeg eval` scores: a truth, and a run or label PNGs; where networks meet the numpy side of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiposeg_cli.evaluation.counting import Wanted
    from hiposeg_cli.evaluation.predictions import Predictions
    from hiposeg_cli.evaluation.result import EvalResult
    from hiposeg_cli.evaluation.truth import Truth


@dataclass(frozen=True)
class Raw:
    """How raw annotations are read; see `formats.base.ReaderOptions`. Without a format the data are prepared.

    With `objects` the truth must have object numbers.
    """

    format: str | None = None
    hierarchy: str | None = None
    variant: str | None = None
    images: Path | None = None
    instances: bool = False
    objects: bool = False


@dataclass(frozen=True)
class LabelMaps:
    """How label PNGs are read: their official ids, what follows an image's name in theirs, if objects are wanted."""

    ids: str | None = None
    suffix: str = ""
    objects: bool = False
    workers: int = 0

    def check(self, sides: Sequence[Path]) -> None:
        """Refuse networks where objects are wanted, and settings of label maps where there are none. Raises ConfigError."""
        from hiposeg_cli.errors import ConfigError

        runs = [path for path in sides if is_run(path)]
        if runs and self.objects:
            raise ConfigError("--panoptic", f"needs object numbers, and {runs[0]} is a network", "name label maps")
        given = {"--pred-ids": self.ids is not None, "--pred-suffix": bool(self.suffix), "--workers": self.workers > 1}
        for flag, is_given in given.items():
            if is_given and len(runs) == len(sides):
                raise ConfigError(flag, f"needs label maps, and {runs[0]} is a network", "leave it out")


@dataclass(frozen=True)
class Network:
    """How a run is evaluated."""

    weights: str = "best"
    size: int | None = None
    decode: str = "leaf"
    confidence: float | None = None
    device: str = "auto"
    calibration: bool = False

    def check(self, sides: Sequence[Path]) -> None:
        """Refuse wrong values, and settings of networks where there is none. Raises ConfigError."""
        from hiposeg_cli.errors import ConfigError, require_choice

        require_choice("--weights", self.weights, ("best", "last"))
        if any(is_run(path) or not (path.is_dir() or is_panoptic(path)) for path in sides):
            return
        given = {"--decode": self.decode != "leaf", "--confidence": self.confidence is not None}
        given |= {"--size": self.size is not None, "--calibration": self.calibration}
        given |= {"--weights": self.weights != "best", "--device": self.device != "auto"}
        for flag, is_given in given.items():
            if is_given:
                raise ConfigError(flag, f"needs a network, and {sides[0]} holds label maps", "leave it out, or name a run")


@dataclass(frozen=True)
class Side:
    """One side to score: what it predicts, what is said of it, and the thresholds of its curve of back-off."""

    predictions: Predictions
    about: dict[str, Any]
    thresholds: tuple[float, ...] = ()
    calibration: bool = False


def is_run(path: Path) -> bool:
    """Whether a path is meant as a run; a folder without its files holds label maps."""
    return path.suffix in (".safetensors", ".onnx") or (path / "weights").is_dir() or (path / "config.yaml").is_file()


def is_panoptic(path: Path) -> bool:
    """Whether a path is meant as COCO panoptic predictions."""
    return path.suffix == ".json"


def open_side(path: Path, truth: Truth, network: Network, png: LabelMaps) -> Side:
    """A run or a folder, ready to be scored. Raises HiposegError for what is neither, or does not fit the truth."""
    from hiposeg_cli.evaluation.panoptic_json import PanopticPredictions
    from hiposeg_cli.evaluation.predictions import FolderPredictions, pred_lookup

    if is_run(path):
        return _run_side(path, truth, network)
    lookup = pred_lookup(png.ids, truth) if png.ids else None
    predictions: Predictions
    if is_panoptic(path):
        predictions = PanopticPredictions(path, truth, suffix=png.suffix, lookup=lookup)
    else:
        predictions = FolderPredictions(path, truth, suffix=png.suffix, lookup=lookup, objects=png.objects)
    return Side(predictions, {"kind": "label maps", "predictions": str(path), "ids": png.ids})


def _run_side(run: Path, truth: Truth, network: Network) -> Side:
    import torch

    from hiposeg_cli.evaluation.predictions import RunPredictions
    from hiposeg_cli.infer.model import Model, load_model, with_decode, with_size
    from hiposeg_cli.learn.decode import THRESHOLDS, Decode
    from hiposeg_cli.learn.evaluate import read_photo

    backs_off = network.decode == "back-off"
    thresholds = THRESHOLDS if network.confidence is None else (network.confidence,)
    rule = Decode(network.decode, thresholds[0] if backs_off else network.confidence)
    model: Model = with_decode(with_size(load_model(run, which=network.weights, device=network.device), network.size), rule)
    truth.hierarchy.require_same(model.hierarchy, mine=truth.name, theirs=run)

    def probabilities(photo: Any) -> Any:
        def read(scores: Any) -> Any:
            return scores.full().softmax(dim=0).cpu().numpy()

        return read_photo(model.net, photo, read, size=model.checkpoint.about["size"], device=model.device, amp=model.amp)

    side = RunPredictions(
        run, model.label_maps, chain=model.chain if backs_off else None, thresholds=thresholds,
        probabilities=probabilities if network.calibration else None,
    )  # fmt: skip
    about = {
        "kind": "run", "run": str(run), "weights": network.weights if run.is_dir() else str(run),
        "size": model.checkpoint.about["size"], "precision": str(model.amp or torch.float32).removeprefix("torch."),
        "decode": network.decode, "confidence": network.confidence,
    }  # fmt: skip
    return Side(side, about, thresholds if backs_off else (), network.calibration)


def score_side(side: Side, truth: Truth, wanted: Wanted, **options: Any) -> EvalResult:
    """Score one side; `options` are those of `evaluation.scoring.evaluate_pairs`."""
    from hiposeg_cli.evaluation.scoring import evaluate_pairs

    wanted = replace(wanted, thresholds=side.thresholds, calibration=side.calibration)
    return evaluate_pairs(truth, side.predictions, wanted, side.about, **options)


def open_truth(data: Path, split: str, raw: Raw) -> Truth:
    """The data to score against. Raises HiposegError when they cannot be read, and for options of raw data without any."""
    truth = _open_truth(data, split, raw)
    if raw.objects:
        _require_objects(truth)
    return truth


def _require_objects(truth: Truth) -> None:
    """Raises ConfigError for a truth without object numbers, or without a class whose objects are told apart."""
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.metrics.objects import things

    if not truth.has_instances:
        raise ConfigError("--panoptic", f"needs object numbers, and {truth.name} keeps none", "prepare it with --instances")
    if not things(truth.hierarchy, 0).any():
        what = f"tells apart the objects of things, and no class of the hierarchy {truth.hierarchy.name!r} is one"
        raise ConfigError("--panoptic", what, "give classes `kind: thing` in its file, and prepare again")


def _open_truth(data: Path, split: str, raw: Raw) -> Truth:
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.evaluation.truth import PreparedTruth, RawTruth
    from hiposeg_cli.formats.base import ReaderOptions

    if raw.format is not None:
        options = ReaderOptions(images=raw.images, variant=raw.variant, instances=raw.instances or raw.objects)
        try:
            return RawTruth(raw.format, data, split, raw.hierarchy, options)
        except ConfigError as error:
            if error.where == "--instances" and not raw.instances:
                what = f"needs object numbers, which the format {raw.format!r} has none of"
                raise ConfigError("--panoptic", what, "leave it out") from None
            raise
    for name in ("hierarchy", "variant", "images", "instances"):
        if getattr(raw, name):
            raise ConfigError(f"--{name}", "is about raw annotations", "pass --format too, or leave it out")
    return PreparedTruth(data, split)
