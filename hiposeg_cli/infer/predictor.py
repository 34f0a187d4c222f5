"""Photos -> class-id PNGs on every label-map level, at the photo's own size; one image in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError, HiposegError, OutputError
from hiposeg_cli.formats.files import IMAGE_SUFFIXES
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.image_file import read_rgb
from hiposeg_cli.labelmap import TwoLevelMap, lift, write_bytes_atomic, write_label_png
from hiposeg_cli.learn.decode import LevelMaps
from hiposeg_cli.report.overlay import write_overlay


class Segmenter(Protocol):
    """A model as the predictor sees it; `identity` names weights, input size and decoding rule."""

    @property
    def identity(self) -> str: ...

    @property
    def hierarchy(self) -> Hierarchy: ...

    def label_maps(self, image: NDArray[np.uint8]) -> LevelMaps: ...


@dataclass(frozen=True)
class Source:
    """One photo and the name its results get."""

    path: Path
    name: str


@dataclass(frozen=True)
class Predicted:
    """What a prediction run did."""

    done: int
    skipped: int
    failures: tuple[HiposegError, ...]


def find_sources(paths: Sequence[Path], out: Path | None = None) -> list[Source]:
    """Photos named directly, or all below the folders named but not below OUT, whose pictures are results.

    Raises: DataError when there are none, or when names clash.
    """
    found: dict[str, Source] = {}
    results = out.resolve() if out is not None else None
    for path in paths:
        if not path.exists():
            raise DataError(path, "no such file or folder", "check the path")
        for source in _below(path):
            if results is not None and results in source.path.resolve().parents:
                continue
            if source.name in found:
                raise DataError(source.path, f"has the same stem as {found[source.name].path}", "rename one, or run twice")
            found[source.name] = source
    if not found:
        raise DataError(paths[0], f"holds no images ({', '.join(IMAGE_SUFFIXES)})", "check the folder")
    return list(found.values())


def _below(path: Path) -> Iterator[Source]:
    if path.is_file():
        yield Source(path, path.stem)
        return
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            yield Source(file, file.relative_to(path).with_suffix("").as_posix())


def predict(
    model: Segmenter, sources: Sequence[Source], out: Path, *, with_overlay: bool = False, overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:  # fmt: skip
    """Segment photos into OUT/fine, OUT/coarse and, if asked, OUT/overlay.

    Photos that this model has segmented into OUT before are skipped; a broken one is reported and the rest goes on.
    Raises: DataError when OUT holds results of another model or photo and `overwrite` is not given.
    """
    record = _Record(out, model, overwrite=overwrite)
    done = skipped = 0
    failures: list[HiposegError] = []
    for number, source in enumerate(sources, start=1):
        targets = _targets(out, source, with_overlay=with_overlay)
        try:
            if not overwrite and all(path.exists() for path in targets) and record.holds(source):
                skipped += 1
            else:
                _predict_one(model, source, targets)
                record.add(source)
                done += 1
        except OutputError:
            raise
        except HiposegError as error:
            failures.append(error)
        progress(number, len(sources))
    return Predicted(done, skipped, tuple(failures))


def _targets(out: Path, source: Source, *, with_overlay: bool) -> list[Path]:
    labels = [out / level / f"{source.name}.png" for level in ("fine", "coarse")]
    return [*labels, out / "overlay" / f"{source.name}.jpg"] if with_overlay else labels


def _predict_one(model: Segmenter, source: Source, targets: list[Path]) -> None:
    image = read_rgb(source.path)
    fine, *above = model.label_maps(image)
    # Where the rule decodes levels apart they may disagree; both are written as they are.
    labels = TwoLevelMap(fine, above[0] if above else lift(fine, model.hierarchy))
    write_label_png(targets[0], labels.fine)
    write_label_png(targets[1], labels.coarse)
    if len(targets) > 2:
        write_overlay(targets[2], image, model.hierarchy, labels)


class _Record:
    """What OUT holds: predictions.json says which model made it, predictions.jsonl which photo each result is of."""

    def __init__(self, out: Path, model: Segmenter, *, overwrite: bool) -> None:
        self.model_path, self.photos_path = out / "predictions.json", out / "predictions.jsonl"
        self.identity = model.identity
        self.photos: dict[str, str] = {}
        if out.exists() and not out.is_dir():
            raise DataError(out, "is a file", "name a folder with --out")
        if self.model_path.exists() and not overwrite:
            self._read(out)
        elif out.is_dir() and any(out.iterdir()) and not overwrite:
            raise DataError(
                out, "is not empty and holds no predictions of hiposeg", "choose another --out, or pass --overwrite"
            )
        classes = {level.name: level.names for level in model.hierarchy.levels[:2]}
        about = {"id": self.identity, "hierarchy_digest": model.hierarchy.digest, "classes": classes}
        write_bytes_atomic(self.model_path, (json.dumps(about, indent=1) + "\n").encode())

    def _read(self, out: Path) -> None:
        try:
            theirs = json.loads(self.model_path.read_text(encoding="utf-8")).get("id")
        except (ValueError, AttributeError):
            theirs = None
        if theirs != self.identity:
            raise DataError(
                out, "holds the predictions of another model, input size or decoding rule",
                "choose another --out, or pass --overwrite",
            )  # fmt: skip
        lines = self.photos_path.read_text(encoding="utf-8").splitlines() if self.photos_path.exists() else []
        for line in lines:
            if line.endswith("}"):  # the last one may be torn
                entry = json.loads(line)
                if entry["id"] == self.identity:
                    self.photos[entry["name"]] = entry["photo"]

    def holds(self, source: Source) -> bool:
        """Whether the results of this name are of this photo. Raises DataError when they are of another."""
        photo = self.photos.get(source.name)
        if photo is not None and photo != str(source.path.resolve()):
            raise DataError(source.path, f"its results would replace those of {photo}", "choose another --out, or rename it")
        return photo is not None

    def add(self, source: Source) -> None:
        entry = {"id": self.identity, "name": source.name, "photo": str(source.path.resolve())}
        with self.photos_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
