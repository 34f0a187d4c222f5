"""Photos -> class-id PNGs on every label-map level, at the photo's own size; one image in memory at a time."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError, HiposegError
from hiposeg_cli.formats.base import IMAGE_SUFFIXES
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, lift, read_rgb, write_bytes_atomic, write_label_png
from hiposeg_cli.report.overlay import overlay
from hiposeg_cli.store import sha256_file

_RECORD = "predictions.json"


class Segmenter(Protocol):
    """A model as the predictor sees it."""

    @property
    def hierarchy(self) -> Hierarchy: ...

    def segment(self, image: NDArray[np.uint8]) -> LabelArray: ...


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


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Photos named directly, or all below the folders named. Raises DataError when there are none or names clash."""
    found: dict[str, Source] = {}
    for path in paths:
        if not path.exists():
            raise DataError(path, "no such file or folder", "check the path")
        for source in _below(path):
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
    model: Segmenter, weights: Path, sources: Sequence[Source], out: Path, *, with_overlay: bool = False,
    overwrite: bool = False, progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:  # fmt: skip
    """Segment photos into OUT/fine, OUT/coarse and, if asked, OUT/overlay.

    Photos whose results are there are skipped; a broken one is reported and the rest goes on.
    Raises: DataError when OUT holds the results of another model and `overwrite` is not given.
    """
    _claim(out, model, weights, overwrite=overwrite)
    done = skipped = 0
    failures: list[HiposegError] = []
    for number, source in enumerate(sources, start=1):
        targets = _targets(out, source, with_overlay=with_overlay)
        if not overwrite and all(path.exists() for path in targets):
            skipped += 1
        else:
            try:
                _predict_one(model, source, out, with_overlay=with_overlay)
                done += 1
            except HiposegError as error:
                failures.append(error)
        progress(number, len(sources))
    return Predicted(done, skipped, tuple(failures))


def _targets(out: Path, source: Source, *, with_overlay: bool) -> list[Path]:
    labels = [out / level / f"{source.name}.png" for level in ("fine", "coarse")]
    return [*labels, out / "overlay" / f"{source.name}.jpg"] if with_overlay else labels


def _predict_one(model: Segmenter, source: Source, out: Path, *, with_overlay: bool) -> None:
    image = read_rgb(source.path)
    fine = model.segment(image)
    coarse = lift(fine, model.hierarchy)
    targets = _targets(out, source, with_overlay=with_overlay)
    write_label_png(targets[0], fine)
    write_label_png(targets[1], coarse)
    if with_overlay:
        buffer = io.BytesIO()
        picture = overlay(image, [(model.hierarchy.fine, fine), (model.hierarchy.coarse, coarse)])
        picture.save(buffer, "JPEG", quality=90)
        write_bytes_atomic(targets[2], buffer.getvalue())


def _claim(out: Path, model: Segmenter, weights: Path, *, overwrite: bool) -> None:
    """Mark OUT as this model's, or refuse when it is another's."""
    record = {"weights_sha256": sha256_file(weights), "hierarchy_digest": model.hierarchy.digest}
    record["id"] = hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]
    path = out / _RECORD
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file", "name a folder with --out")
    if path.exists() and not overwrite:
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            theirs = {}
        if theirs.get("id") != record["id"]:
            raise DataError(out, "holds the predictions of another model", "choose another --out, or pass --overwrite")
    elif out.is_dir() and any(out.iterdir()) and not overwrite:
        raise DataError(out, "is not empty and holds no predictions of hiposeg", "choose another --out, or pass --overwrite")
    classes = {level.name: level.names for level in model.hierarchy.levels[:2]}
    write_bytes_atomic(path, (json.dumps({**record, "classes": classes}, indent=1) + "\n").encode())
