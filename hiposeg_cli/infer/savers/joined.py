"""Formats with one file over all photos: what each photo adds lies in a file of its own until a run ends.

A photo's piece is OUT/NAME/PHOTO.json. What all photos share, the categories, is kept once in OUT/.NAME.json. `finish`
reads the pieces in the order of their names and numbers the photos from 1, so the joined files depend on the pieces alone:
not on the order they were made in, nor on how many runs or shards made them. Pieces stay, for the next run to join.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.infer.savers.levels import level_name, remove_torn, saver_folder
from hiposeg_cli.infer.savers.photo import photo_name
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.strict_json import load_json

Categories = list[dict[str, Any]]
_head_lock = threading.Lock()  # threads of one process share the name of a temporary file


@dataclass(frozen=True)
class Piece:
    """What one photo adds.

    Attributes:
        image: its entry in the list of images, `id` included.
        name: the name its results have.
        levels: its entries by level.
    """

    image: dict[str, Any]
    name: str
    levels: dict[str, list[Any]]


class JoinedSaver(Saver):
    """A saver whose pieces are joined when a run ends."""

    @abstractmethod
    def categories(self, hierarchy: Hierarchy, depth: int) -> Categories:
        """The categories of one level."""

    @abstractmethod
    def join(self, target: Path, level: str, categories: Categories, pieces: Pieces) -> None:
        """Write the joined file of one level at `target`, and others beside it."""

    def save_piece(self, prediction: Prediction, path: Path, entries: Sequence[list[Any]]) -> None:
        """Keep a photo's entries, a list for every level; `path` is that of the saver's file."""
        self._keep_head(saver_folder(prediction, path), prediction.hierarchy)
        height, width = prediction.maps[0].shape
        levels = {level.name: found for level, found in zip(prediction.hierarchy.levels, entries, strict=True)}
        piece = {
            "hierarchy": prediction.hierarchy.digest, "file_name": photo_name(prediction.source), "width": width,
            "height": height, "levels": levels,
        }  # fmt: skip
        write_bytes_atomic(path.with_suffix(".json"), _line(piece))

    def _keep_head(self, folder: Path, hierarchy: Hierarchy) -> None:
        head = folder.with_name(f".{folder.name}.json")
        levels = {level.name: self.categories(hierarchy, depth) for depth, level in enumerate(hierarchy.levels)}
        data = _line({"hierarchy": hierarchy.digest, "levels": levels})
        with _head_lock:
            if not head.is_file() or head.read_bytes() != data:
                write_bytes_atomic(head, data)

    def finish(self, out: Path) -> None:
        head = out / f".{self.name}.json"
        if head.is_file():  # else no photo was saved
            self._join_levels(out, head)
        remove_torn(out, self.name)

    def _join_levels(self, out: Path, head: Path) -> None:
        with _locked(head):
            shared = load_json(head)
            pieces = Pieces(out / self.name, shared["hierarchy"])
            for depth, (level, categories) in enumerate(shared["levels"].items()):
                self.join(out / f"{level_name(self.name, level, depth)}.json", level, categories, pieces)


class Pieces:
    """The pieces of all photos, in the order of their names; each pass reads them again, one at a time.

    Args:
        digest: of the hierarchy they all must be of.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder, self.digest = folder, digest
        self.names = sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))

    def __iter__(self) -> Iterator[Piece]:
        for image_id, name in enumerate(self.names, start=1):
            path = self.folder / f"{name}.json"
            data = load_json(path)
            if not isinstance(data, dict) or data.get("hierarchy") != self.digest:
                raise DataError(path, "was made with another hierarchy", "remove it, or predict into another --out")
            image = {"id": image_id, **{key: data[key] for key in ("file_name", "width", "height")}}
            yield Piece(image, name, data["levels"])

    def images(self) -> Iterator[dict[str, Any]]:
        """The `images` entries of COCO."""
        return (piece.image for piece in self)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to; the file there takes the place of `target` when the block ends well.

    Raises: OutputError when it cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        cure = "free disk space or choose another folder"
        raise OutputError(target, f"cannot be written ({error.strerror})", cure) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time join: the last of them then sees the pieces of all."""
    with path.open("rb") as file:
        with contextlib.suppress(OSError):  # a file system without locks; two that end at once are rare
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _line(data: Any) -> bytes:
    return (json.dumps(data, ensure_ascii=False) + "\n").encode()
