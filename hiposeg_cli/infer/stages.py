"""The stages of predict on this machine, one after the other and each timed by itself; then predict as it is.

predict reads and writes in threads while the network runs, so it takes less than the sum of its stages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.image_file import read_hashed_rgb
from hiposeg_cli.infer.model import Model
from hiposeg_cli.infer.prediction import Source
from hiposeg_cli.infer.predictor import PredictOptions, predict
from hiposeg_cli.infer.said import read
from hiposeg_cli.infer.sources import Sources
from hiposeg_cli.infer.video import VIDEO_SUFFIXES
from hiposeg_cli.infer.views import Looker, Views
from hiposeg_cli.labelmap import LabelArray, on_every_level, png_bytes, write_bytes_atomic
from hiposeg_cli.learn.upsample import Scores

STAGES = {
    "decode": "read the photo's file, hash it, decode it to RGB",
    "resize": "bring the photo to the size the network sees",
    "forward": "copy to the device, scaling, padding and network, until the device is done; a batch of one photo repeated",
    "upsample": "scores to the photo's size, class of each pixel, look-up of the coarser levels",
    "encode": "compress a PNG for every level",
    "write": "write and rename the PNGs",
}
WHOLE = "predict"
_WHOLE_IS = "all photos through predict, stages side by side, with its record; time over photos"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """Milliseconds a photo, one number for each photo and repeat."""

    stage: str
    what: str
    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return median(self.times_ms)


@dataclass(frozen=True)
class Plan:
    """What is timed, and how often.

    Attributes:
        batch: photos in a pass.
        repeats: passes over all photos, after one to warm up.
    """

    batch: int
    repeats: int


def time_stages(model: Model, photos: Sequence[Source], plan: Plan, progress: Callable[[int, int], None]) -> list[Timing]:
    """Time every stage on every photo, then predict on all of them.

    Raises: HiposegError for a photo that cannot be read.
    """
    if any(photo.path.suffix.lower() in VIDEO_SUFFIXES for photo in photos):
        raise ConfigError("SRC", "names a video", "name photos: the stages are timed on files")
    total = (plan.repeats + 1) * (len(photos) + 1)
    options = PredictOptions(batch=plan.batch)
    with TemporaryDirectory() as folder:
        stopwatch, looker, done = _Stopwatch(), Looker(model, Views()), 0
        for number in range(plan.repeats + 1):
            for photo in photos:
                _through_stages(stopwatch, looker, photo.path, Path(folder), plan.batch)
                progress(done := done + 1, total)
            out = Path(folder) / f"predict-{number}"
            stopwatch.time(WHOLE, partial(predict, model, Sources(tuple(photos)), out, options), len(photos))
            progress(done := done + 1, total)
            if number == 0:
                stopwatch.times_ms.clear()
    texts = STAGES | {WHOLE: _WHOLE_IS}
    return [Timing(name, what, tuple(stopwatch.times_ms[name])) for name, what in texts.items()]


class _Stopwatch:
    """Times by stage."""

    def __init__(self) -> None:
        self.times_ms: dict[str, list[float]] = {}

    def time(self, stage: str, act: Callable[[], Result], n_photos: int = 1) -> Result:
        started = time.perf_counter()
        result = act()
        self.times_ms.setdefault(stage, []).append(1e3 * (time.perf_counter() - started) / n_photos)
        return result


def _through_stages(stopwatch: _Stopwatch, looker: Looker, path: Path, folder: Path, batch: int) -> None:
    """One photo through every stage."""
    model = looker.model
    photo = stopwatch.time("decode", lambda: read_hashed_rgb(path)[0])
    views = stopwatch.time("resize", lambda: looker.seen(photo, model.checkpoint.about["size"]))
    size = photo.shape[0], photo.shape[1]

    def forward() -> Scores:
        scores = looker.look([views] * batch, [size] * batch)[0]
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        elif model.device.type == "mps":
            torch.mps.synchronize()
        return scores

    def upsample() -> tuple[LabelArray, ...]:
        return on_every_level(read(scores, model.decode, model.hierarchy, frozenset()).maps, model.hierarchy)

    def write() -> None:
        for level, data in zip(model.hierarchy.levels, files, strict=True):
            write_bytes_atomic(folder / f"{level.folder}.png", data)

    scores = stopwatch.time("forward", forward, batch)
    maps = stopwatch.time("upsample", upsample)
    files = stopwatch.time("encode", lambda: [png_bytes(labels) for labels in maps])
    stopwatch.time("write", write)
