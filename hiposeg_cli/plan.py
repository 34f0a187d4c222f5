"""Training settings from what a prepared dataset records about itself and from the machine, each with its reason.

The rules are few and monotone: larger photos never get a smaller crop, more photos never a smaller batch, a rarer class
never a shorter run. They follow nnU-Net (crop from the median size, batch from the memory, a length that does not shrink
with the dataset) at the usual figures of semantic segmentation (crops of 512 px, batches of 16, 20,000 to 80,000 steps).
The learning rate is planned where one was measured, and classes are balanced where one of them is rare. No picture is
opened. What is not planned (network, optimizer, flips, colour) keeps its default.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from hiposeg_cli.config import Layer
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.store import Dataset, Row

Device = Literal["cpu", "cuda", "mps"]

_STRIDE_PX = 32  # crop sides are multiples of it, as every decoder asks
_SMALLEST_CROP_PX = 256  # no machine is planned a smaller crop; small photos are
_BYTES_A_PIXEL = 4000  # of a training step; 2430 are saved activations (float32, default network), the rest is headroom
_GPU_SHARE = 0.8  # of its memory that a step may take
_GPU_BYTES = 8 << 30  # assumed where it is not known
_SECONDS_A_PIXEL = 0.060 / 256**2  # forward and backward on a CPU, default network
_CPU_S = 20 * 60
_LEAST_BATCH = 4  # batch normalisation of fewer is noise
_STEPS_AN_EPOCH = 8  # at least, before the batch grows
_PASSES, _MOST_PASSES = 20, 1000
_SIGHTINGS = 1000  # of the rarest class
_VALIDATIONS = 20
_LONG_RUN = 100_000  # photos shown, from which the full zoom range pays off
_SMALLEST_REGION_PX = 8  # two cells of the decoders' grid of 4 px
_RARE = 0.1  # of the pixels that an average class has
PLANNED_FOR = ("method.name", "net.backbone", "optim.optimizer")  # not planned themselves: what others are planned for
_RATES = {("tf_efficientnet_lite0", "adamw"): 2e-3}  # by backbone and optimizer; LOG.md, 2026-11-22


@dataclass(frozen=True)
class _Limits:
    """What one kind of machine trains in a sensible time; the two lengths count photos shown."""

    crop_px: int
    long_px: int
    batch: int
    least: int
    most: int | None
    workers: int


_LIMITS: dict[Device, _Limits] = {
    "cpu": _Limits(crop_px=320, long_px=512, batch=8, least=12_000, most=None, workers=1),
    "cuda": _Limits(crop_px=512, long_px=2048, batch=16, least=20_000 * 16, most=80_000 * 16, workers=8),
    "mps": _Limits(crop_px=512, long_px=1024, batch=8, least=5_000 * 8, most=20_000 * 8, workers=4),
}


@dataclass(frozen=True)
class Fingerprint:
    """What the manifests say about the training photos.

    Attributes:
        height, width, long_px: medians in px; `longest_px` is the largest long side.
        rarest: name of the fine class in the fewest photos and the share of them it is in; None without fine labels.
        scarcest: name of the fine class with the fewest pixels, and their number by that of an average class; classes
            without any count as absent. None without fine labels.
        smallest: name of the fine class whose regions are smallest, and the side in px of a square as large as its median.
    """

    images: int
    height: float
    width: float
    long_px: float
    longest_px: int
    rarest: tuple[str, float] | None
    scarcest: tuple[str, float] | None
    smallest: tuple[str, float] | None


@dataclass(frozen=True)
class Plan:
    """Planned settings by dotted key, and one sentence of reason for each."""

    settings: Mapping[str, Any]
    reasons: Mapping[str, str]

    def lines(self) -> list[str]:
        """One line a setting, for people."""
        return [f"{key} = {value} ({self.reasons[key]})" for key, value in self.settings.items()]

    def layer(self) -> Layer:
        """The settings as a layer of the configuration, to lie between defaults and files."""
        return Layer("plan", self.settings, self.reasons)


def plan(
    dataset: Dataset, *, device: Device, cores: int, gpu_bytes: int | None, chosen: Mapping[str, Any] | None = None
) -> Plan:
    """Plan a training run.

    Args:
        cores: processor cores this process may use.
        gpu_bytes: memory of the GPU; None where it is not known, or there is none.
        chosen: settings that a user fixed, as their dataclasses hold them, and those of PLANNED_FOR, whoever chose them.
            They are not planned, and what is planned fits them. With epochs or steps among them no length is planned:
            planned steps would override a user's epochs.
    Raises: DataError when there are no training images.
    """
    rows, fixed = dataset.split("train"), dict(chosen or {})
    if not rows:
        raise DataError(dataset.root, "the split 'train' is empty", "prepare the data again")
    seen, limits = fingerprint(rows, dataset.hierarchy), _LIMITS[device]
    found: dict[str, tuple[Any, str]] = {}
    memory_px = None if device == "cpu" else int(_GPU_SHARE * (gpu_bytes or _GPU_BYTES) / _BYTES_A_PIXEL)

    def settle(key: str, choice: tuple[Any, str]) -> Any:
        if key in fixed:
            return fixed[key]
        found[key] = choice
        return choice[0]

    size = settle("data.size", _size(seen, limits, device))
    factor = (size or seen.long_px) / seen.long_px
    height, width = settle("data.crop", _crop(seen, limits, factor, memory_px))
    batch = settle("data.batch", _batch(seen, limits, height * width, memory_px))
    settle("data.workers", _workers(limits, cores, device))
    shown, why = _length(seen, limits, height * width)
    settle("data.scale", _scale(seen, shown, factor))
    if fixed.get("method.name") == "hiposeg" and seen.scarcest is not None and seen.scarcest[1] >= _RARE:
        settle("method.lambda_balanced", _unbalanced(*seen.scarcest))
    trained = (fixed.get("net.backbone"), fixed.get("optim.optimizer"))
    if trained in _RATES:
        settle("optim.lr", (_RATES[trained], "best of 0.0005 to 0.004 for flat training of {} with {}".format(*trained)))
    if not fixed.keys() & {"optim.epochs", "optim.iterations"}:
        for key, choice in _schedule(seen.images, shown, batch, why).items():
            settle(key, choice)
    return Plan({key: value for key, (value, _) in found.items()}, {key: reason for key, (_, reason) in found.items()})


def most_in_batch(images: int, batches: int) -> int:
    """The most images of a batch that can be chosen by memory alone: a pass over the dataset keeps several steps.

    Args:
        batches: how many of these make a step, over all processes and accumulated.
    """
    steps = max(_LEAST_BATCH, images // (_STEPS_AN_EPOCH * batches))
    return max(2, min(images // batches, steps))


# -- the fingerprint ---------------------------------------------------------------------------------------------------


def fingerprint(rows: Sequence[Row], hierarchy: Hierarchy) -> Fingerprint:
    """Sizes and tallies of some rows, at least one."""
    regions = [array("I") for _ in hierarchy.fine.nodes]
    for row in rows:
        for class_id, pixels in row.fine_counts.items():
            if pixels:
                regions[int(class_id)].append(pixels)
    seen = {name: found for name, found in zip(hierarchy.fine.names, regions, strict=True) if found}
    average = sum(map(sum, seen.values())) / max(1, len(seen))
    long_sides = [max(row.width, row.height) for row in rows]
    return Fingerprint(
        images=len(rows), height=median(row.height for row in rows), width=median(row.width for row in rows),
        long_px=median(long_sides), longest_px=max(long_sides),
        rarest=_least({name: len(found) / len(rows) for name, found in seen.items()}),
        scarcest=_least({name: sum(found) / average for name, found in seen.items()}),
        smallest=_least({name: math.sqrt(median(found)) for name, found in seen.items()}),
    )  # fmt: skip


def _least(values: Mapping[str, float]) -> tuple[str, float] | None:
    return min(values.items(), key=lambda item: item[::-1], default=None)


# -- the rules ---------------------------------------------------------------------------------------------------------


def _size(seen: Fingerprint, limits: _Limits, device: Device) -> tuple[int | None, str]:
    if seen.longest_px <= limits.long_px:
        return None, f"no photo is longer than the {limits.long_px} px planned for {device}, so all keep their size"
    size = max(_STRIDE_PX, min(round(seen.long_px), limits.long_px))
    return size, (
        f"photos are up to {seen.longest_px} px long; they are brought to their median, but to no more than "
        f"{limits.long_px} px on {device}"
    )


def _crop(seen: Fingerprint, limits: _Limits, factor: float, memory_px: int | None) -> tuple[list[int], str]:
    most = limits.crop_px
    if memory_px is not None:  # the smallest batch has to fit
        fitting = math.isqrt(memory_px // _LEAST_BATCH) // _STRIDE_PX * _STRIDE_PX
        most = min(most, max(_SMALLEST_CROP_PX, fitting))
    needed = [round(side * factor, 6) for side in (seen.height, seen.width)]
    crop = [min(most, max(1, math.ceil(side / _STRIDE_PX)) * _STRIDE_PX) for side in needed]
    shape = "x".join(f"{side:.0f}" for side in needed)
    return crop, f"the median photo then is {shape} px (height x width); a side is a multiple of 32 and at most {most} px"


def _batch(seen: Fingerprint, limits: _Limits, crop_px: int, memory_px: int | None) -> tuple[int, str]:
    most = min(limits.batch, seen.images // _STEPS_AN_EPOCH, limits.batch if memory_px is None else memory_px // crop_px)
    batch = max(_LEAST_BATCH, 1 << max(0, most.bit_length() - 1))
    memory = "" if memory_px is None else f", fits {memory_px / 1e6:.1f} million pixels a step into the memory"
    return batch, (
        f"a power of two from {_LEAST_BATCH} to {limits.batch} that leaves {_STEPS_AN_EPOCH} steps in a pass over "
        f"{seen.images} images{memory}"
    )


def _workers(limits: _Limits, cores: int, device: Device) -> tuple[int, str]:
    workers = max(0, min(limits.workers, cores - 1))
    return workers, f"{cores} cores, one of them left to training; {limits.workers} at most on {device}"


def _length(seen: Fingerprint, limits: _Limits, crop_px: int) -> tuple[int, str]:
    """Photos shown over the whole run."""
    cost_s = _SECONDS_A_PIXEL * crop_px
    most, most_why = (limits.most, "the longest run planned here") if limits.most else (
        int(_CPU_S / cost_s), f"{_CPU_S // 60} minutes at {1000 * cost_s:.0f} ms a photo (default network, two cores)"
    )  # fmt: skip
    wanted = [(limits.least, "the shortest run planned here"), (_PASSES * seen.images, f"{_PASSES} passes over the images")]
    if seen.rarest is not None:
        name, share = seen.rarest
        met = f"{name} (in {100 * share:.2g} % of the images) is met {_SIGHTINGS} times"
        wanted.append((math.ceil(_SIGHTINGS / share), met))
    least = max(wanted)
    return min(least, (most, most_why), (_MOST_PASSES * seen.images, f"{_MOST_PASSES} passes over the images"))


def _scale(seen: Fingerprint, shown: int, factor: float) -> tuple[list[float], str]:
    if shown < _LONG_RUN:
        return [0.75, 1.5], f"a run of {shown} photos is too short to learn more zoom"
    if seen.smallest is not None and 0.5 * factor * seen.smallest[1] < _SMALLEST_REGION_PX:
        return [0.75, 2.0], (
            f"at half size {seen.smallest[0]} would be less than {_SMALLEST_REGION_PX} px across "
            f"({factor * seen.smallest[1]:.0f} px at full size)"
        )
    return [0.5, 2.0], "the run is long enough, and every class large enough, for the usual zoom"


def _unbalanced(name: str, share: float) -> tuple[float, str]:
    return 0.0, f"{name}, the class with the fewest pixels, has {100 * share:.2g} % of an average one's: none is rare"


def _schedule(images: int, shown: int, batch: int, why: str) -> dict[str, tuple[Any, str]]:
    """Length and validations; in steps only where a whole pass is too long."""
    if shown < images:
        return {"optim.iterations": (max(1, shown // batch), f"{shown} photos, less than one pass over {images}: {why}")}
    epochs = shown // images
    every = max(1, epochs // _VALIDATIONS)
    return {
        "optim.epochs": (epochs, f"about {shown} photos in all: {why}"),
        "loop.val_every": (every, f"about {_VALIDATIONS} validations in a run"),
    }
