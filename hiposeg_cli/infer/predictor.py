"""Photos -> a class-id PNG for every level at the photo's own size, and whatever else is asked for.

Every photo's files lie at OUT/LEVEL/NAME.png and OUT/FORMAT/NAME.SUFFIX. What is there already, of the same model, settings
and photo, is skipped. The pixels are those a photo stores: its EXIF orientation is not applied, as in training.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.image_file import image_header, pixel_limit, read_hashed_rgb
from hiposeg_cli.infer.model import Model
from hiposeg_cli.infer.pipeline import Done, Failed, Loaded, Pipeline
from hiposeg_cli.infer.prediction import Prediction, Saver, Source
from hiposeg_cli.infer.record import Entry, Record, entry_of
from hiposeg_cli.infer.said import Said, read
from hiposeg_cli.infer.savers.levels import level_name
from hiposeg_cli.infer.sources import Sources
from hiposeg_cli.infer.video import VIDEO_SUFFIXES, Frames
from hiposeg_cli.infer.views import Looker, Photo, Views
from hiposeg_cli.infer.windows import Grid, Tiling, segment_by_windows
from hiposeg_cli.labelmap import on_every_level, write_label_png
from hiposeg_cli.registry import SAVERS
from hiposeg_cli.remarks import collected
from hiposeg_cli.shard import Shard
from hiposeg_cli.store import sha256_file

_MOST_WORKERS = 16
_GPU_BATCH = 8
_USUAL_BYTES = 8  # of a pixel that waits to be written: photo, label maps, confidence


@dataclass(frozen=True)
class PredictOptions:
    """How photos are predicted.

    Attributes:
        save: formats besides the label maps.
        overwrite: predict again what is there, and replace results of another model.
        resume: refuse an OUT that holds no results yet.
        shard: the part of the photos that this process predicts.
        tiling: windows; None looks at each photo whole.
        batch: photos, or windows, in a pass; 0 is 1 on a CPU and 8 on a GPU.
        workers: threads that read, and as many that write; 0 is one for each core.
        max_pixels: of a photo; None is `image_file.MAX_PIXELS`.
    """

    save: tuple[str, ...] = ()
    overwrite: bool = False
    resume: bool = False
    shard: Shard = field(default_factory=Shard)
    tiling: Tiling | None = None
    views: Views = field(default_factory=Views)
    batch: int = 0
    workers: int = 0
    max_pixels: int | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Predicted:
    """What a prediction run did."""

    done: int
    skipped: int
    failures: tuple[HiposegError, ...]
    remarks: tuple[str, ...] = ()


def predict(
    model: Model, sources: Sources, out: Path, options: PredictOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:  # fmt: skip
    """Predict photos into OUT; one that fails is reported and the rest goes on.

    Raises: DataError when OUT holds results of another model or settings, OutputError when it cannot be written.
    """
    return Predictor(model, out, options or PredictOptions()).run(sources, progress)


@dataclass(frozen=True)
class _Seen:
    """A photo (H, W, 3), and as the network sees it at each scale; no views where it goes through windows."""

    photo: Photo
    views: tuple[Photo, ...] = ()


class Predictor:
    """One run over photos."""

    def __init__(self, model: Model, out: Path, options: PredictOptions) -> None:
        self.model, self.out, self.options = model, out, options
        self.savers: list[Saver] = [SAVERS.load(name)() for name in options.save]
        self.needs = frozenset[str]().union(*(saver.needs for saver in self.savers))
        self.looker = Looker(model, options.views, compiled=options.compiled)
        on_gpu = model.device.type == "cuda"
        self.batch = options.batch or (_GPU_BATCH if on_gpu else 1)
        self.workers = options.workers or min(_MOST_WORKERS, os.cpu_count() or 1)
        # On a GPU scores of all classes are upsampled at once; of one photo at a time, whatever the number of writers.
        self.decoding: AbstractContextManager[object] = threading.Lock() if on_gpu else nullcontext()
        self.remarks = _Remarks()
        self._require_folders()
        self.videos: dict[Path, _Video] = {}

    def _require_folders(self) -> None:
        """Refuse levels and formats whose files would lie in one folder. Raises ConfigError."""
        owners: dict[str, str] = {}
        named = [(level.folder, f"the level {level.name!r}") for level in self.model.hierarchy.levels]
        names = [level.name for level in self.model.hierarchy.levels]
        for one in self.savers:
            named += [(level_name(one.name, name, depth), f"--save {one.name}") for depth, name in enumerate(names)]
        for folder, owner in named:
            if folder in owners:
                raise ConfigError(
                    owner, f"would write into the folder of {owners[folder]}", "rename the level, or leave it out"
                )
            owners[folder] = owner

    @property
    def identity(self) -> str:
        """Names everything that results depend on but for rounding: what a batch holds may move a score's last bit."""
        tiling = self.options.tiling
        return f"{self.model.identity}{tiling.name if tiling else ''}{self.options.views.name}"

    def targets(self, source: Source) -> list[Path]:
        """The files of a photo: the label maps, finest first, then those of the savers."""
        levels = [self.out / level.folder / f"{source.name}.png" for level in self.model.hierarchy.levels]
        return levels + [self.out / saver.name / f"{source.name}{saver.suffix}" for saver in self.savers]

    def run(self, sources: Sources, progress: Callable[[int, int], None]) -> Predicted:
        """Predict this part of the photos."""
        options, hierarchy = self.options, self.model.hierarchy
        photos = options.shard.of(list(sources.photos))
        classes = {level.name: level.names for level in hierarchy.levels}
        about = {"hierarchy_digest": hierarchy.digest, "classes": classes}
        suffix, again = options.shard.suffix, {"overwrite": options.overwrite, "resume": options.resume}
        names = {source.name for source in sources.photos}
        record = Record(self.out, self.identity, about, names, suffix=suffix, **again)
        failures = list(sources.refused) if options.shard.number == 1 else []
        done, total = 0, len(photos) + len(failures)
        wanted, skipped = self._wanted(photos, record, failures)
        progress(total - len(wanted), total)
        try:
            for outcome in self._pipeline(wanted).run(wanted):
                if isinstance(outcome, Failed):
                    failures.append(outcome.error)
                    record.add(entry_of(self.identity, outcome.source, error=str(outcome.error)))
                else:
                    done += 1
                    record.add(self._entry(outcome))
                progress(skipped + done + len(failures), total)
        finally:
            with suppress(HiposegError):  # what ended the run is more to the point
                record.close(photos)
        for saver in self.savers:
            saver.finish(self.out)
        warnings = [self.looker.warning] if self.looker.warning else []
        warnings += sources.remarks if options.shard.number == 1 else []
        return Predicted(done, skipped, tuple(failures), (*warnings, *self.remarks.lines()))

    def _entry(self, done: Done) -> Entry:
        return entry_of(self.identity, done.source, sha256=done.sha256, size=done.size, seconds=done.seconds)

    def _wanted(self, photos: Sequence[Source], record: Record, failures: list[HiposegError]) -> tuple[list[Source], int]:
        """The photos without results, and how many have them; those in the way of others' results are failures."""
        if self.options.overwrite:
            return list(photos), 0
        record.remove_torn(lambda: {target for source in photos for target in self.targets(source)})
        wanted, skipped = [], 0
        for source in photos:
            try:
                if record.holds(source, self.targets(source)):
                    skipped += 1
                else:
                    wanted.append(source)
            except HiposegError as error:
                failures.append(error)
        return wanted, skipped

    # -- the stages ----------------------------------------------------------------------------------------------------

    def _pipeline(self, photos: Sequence[Source]) -> Pipeline[_Seen, Prediction]:
        has_video = any(source.path.suffix.lower() in VIDEO_SUFFIXES for source in photos)
        readers = 1 if has_video else self.workers  # frames are decoded one after the other
        heavy = 1 + 2 * self.model.hierarchy.n_fine / _USUAL_BYTES if "probabilities" in self.needs else 1.0
        return Pipeline(_n_pixels, self._load, self._segment, self._write, self.batch, readers, self.workers, heavy)

    def _load(self, source: Source) -> Loaded[_Seen]:
        started = time.perf_counter()
        with collected() as remarks, pixel_limit(self.options.max_pixels):
            photo, sha256 = self._pixels(source)
        self.remarks.add(source, [remark.what for remark in remarks])
        size = photo.shape[0], photo.shape[1]
        grid = self._grid(size)
        if grid is None or grid.is_one:
            views = tuple(self.looker.seen(photo, self._size))
            seen, kind = _Seen(photo, views), tuple(view.shape for view in views)
        else:
            seen, kind = _Seen(photo), None
        return Loaded(source, seen, kind, size, sha256, time.perf_counter() - started)

    def _pixels(self, source: Source) -> tuple[Photo, str]:
        if source.path.suffix.lower() not in VIDEO_SUFFIXES:
            return read_hashed_rgb(source.path)
        if source.path not in self.videos:
            self.videos.clear()  # videos come one after the other
            self.videos[source.path] = _Video(Frames(source.path), sha256_file(source.path))
        video = self.videos[source.path]
        return video.frames.frame(int(source.name.rpartition("/")[2])), video.sha256

    @property
    def _size(self) -> int | None:
        size: int | None = self.model.checkpoint.about["size"]
        return size

    def _grid(self, size: tuple[int, int]) -> Grid | None:
        """The windows over a photo; None where photos are looked at whole."""
        if self.options.tiling is None:
            return None
        return Grid(size, self.options.tiling, max(size) / (self._size or max(size)), self.model.hierarchy.n_fine)

    def _segment(self, photos: Sequence[Loaded[_Seen]]) -> list[Callable[[], Prediction]]:
        """Results of photos of one kind; on a GPU, scores are decoded while it computes the next ones."""
        if not photos[0].seen.views:
            return [self._by_windows(photo) for photo in photos]
        model = self.model
        found = self.looker.look([photo.seen.views for photo in photos], [photo.size for photo in photos])
        later = [partial(read, scores, model.decode, model.hierarchy, self.needs) for scores in found]
        if model.device.type != "cuda":
            later = [partial(_itself, one()) for one in later]
        return [partial(self._prediction, photo, one) for photo, one in zip(photos, later, strict=True)]

    def _by_windows(self, photo: Loaded[_Seen]) -> Callable[[], Prediction]:
        grid = self._grid(photo.size)
        assert grid is not None, "only windows leave a photo without views"
        said = segment_by_windows(self.looker, photo.seen.photo, grid, self._size, self.needs, self.batch)
        return partial(self._prediction, photo, partial(_itself, said))

    def _prediction(self, photo: Loaded[_Seen], later: Callable[[], Said]) -> Prediction:
        with self.decoding:
            said = later()
        hierarchy = self.model.hierarchy
        maps = on_every_level(said.maps, hierarchy)
        return Prediction(photo.source, photo.seen.photo, hierarchy, maps, said.confidence, said.probabilities)

    def _write(self, prediction: Prediction) -> None:
        targets = self.targets(prediction.source)
        n_levels = len(prediction.maps)
        for path, labels in zip(targets[:n_levels], prediction.maps, strict=True):
            write_label_png(path, labels)
        for path, saver in zip(targets[n_levels:], self.savers, strict=True):
            saver.save(prediction, path)


@dataclass(frozen=True)
class _Video:
    """A video that is being decoded, and the hash of its file."""

    frames: Frames
    sha256: str


class _Remarks:
    """What is odd about photos, each said once with the number of photos it is true of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, source: Source, remarks: Sequence[str]) -> None:
        with self._lock:
            for what in remarks:
                self._counts[what] += 1
                self._found[what] = min(self._found.get(what, source.path.name), source.path.name)

    def lines(self) -> list[str]:
        return sorted(
            f"{what} ({count} photo{'s' * (count > 1)}, such as {self._found[what]})" for what, count in self._counts.items()
        )


def _itself(said: Said) -> Said:
    return said


def _n_pixels(source: Source) -> int:
    """Pixels of a photo by its header; 0 where there is none to read, which reading the photo explains."""
    try:
        with image_header(source.path) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, struct.error):
        return 0
