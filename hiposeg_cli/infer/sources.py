"""Which photos to predict: files, folders, patterns, lists, standard input and videos, each with the name of its results."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiposeg_cli.errors import DataError, HiposegError
from hiposeg_cli.formats.files import IMAGE_SUFFIXES, walk
from hiposeg_cli.infer.prediction import Source
from hiposeg_cli.infer.video import VIDEO_SUFFIXES, count_frames
from hiposeg_cli.raw_file import file_bytes

_LIST_SUFFIX = ".txt"
_OTHER_SUFFIXES = (".gif", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm")  # of pictures, not looked for in folders


@dataclass(frozen=True)
class Sources:
    """What was found, in the order it was named, and what was refused without looking into it."""

    photos: tuple[Source, ...]
    refused: tuple[HiposegError, ...] = ()
    remarks: tuple[str, ...] = ()


def find_sources(named: Sequence[str | Path], out: Path | None = None) -> Sources:
    """Find photos.

    Args:
        named: each a photo; a folder, for all photos below it; a pattern such as `photos/**/*.jpg`; a list, as `@FILE` or
            `FILE.txt`, of photos and folders, one a line; `-` for such a list on standard input; or a video.
        out: what lies below it is results, and left out.
    Raises: DataError when a name means nothing, or when there is no photo at all.
    """
    found = _Found(None if out is None else out.resolve())
    for one in named:
        for source in _sources_of(str(one), found):
            found.add(source)
    if not found.photos and not found.refused:
        raise found.nothing(str(named[0]))
    return Sources(tuple(found.photos.values()), tuple(found.refused), tuple(found.remarks()))


class _Found:
    def __init__(self, out: Path | None) -> None:
        self.out = out
        self.photos: dict[str, Source] = {}
        self.refused: list[HiposegError] = []
        self.not_taken: list[Path] = []  # videos and pictures of other formats in folders
        self.n_below_out = 0

    def add(self, source: Source) -> None:
        """Keep a photo; one that comes twice counts once, and of two with one name the second is refused."""
        path = Path(os.path.abspath(source.path))
        if self.out is not None and self.out in source.path.resolve().parents:
            self.n_below_out += 1
            return
        other = self.photos.setdefault(source.name, source)
        if Path(os.path.abspath(other.path)) != path:
            cure = "rename one; or name their folder, or quote a pattern, so that results keep folders"
            self.refused.append(DataError(source.path, f"has the same stem as {other.path}", cure))

    def nothing(self, named: str) -> DataError:
        """Why no photo is left."""
        if self.n_below_out:
            what = f"all {self.n_below_out} images named lie below it, where results are"
            return DataError(str(self.out), what, "choose another --out")
        if self.not_taken:
            what = f"holds no images ({', '.join(IMAGE_SUFFIXES)}), but {self.not_taken[0].name}"
            return DataError(named, what, "name that file to predict it")
        return DataError(named, f"holds no images ({', '.join(IMAGE_SUFFIXES)})", "check the folder")

    def remarks(self) -> Iterator[str]:
        """What was left out of folders."""
        named = {source.path.resolve() for source in self.photos.values()}
        names = [path.name for path in self.not_taken if path.resolve() not in named]
        if names:
            n, name = len(names), min(names)
            yield f"{n} file{'s' * (n > 1)} in folders left out, such as {name}: videos and rare formats are to be named"


def list_name(named: str) -> str:
    """A word for a folder of results, after what was named: a folder, file or list, or a pattern's first folder."""
    if named == "-":
        return "stdin"
    path = Path(named if Path(named).exists() else named.removeprefix("@"))
    return (_fixed_folder(named) if glob.has_magic(named) and not path.exists() else path).resolve().stem


def _fixed_folder(pattern: str) -> Path:
    """The folders of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _sources_of(text: str, found: _Found) -> Iterator[Source]:
    path = Path(text)
    if text == "-":
        yield from _listed(sys.stdin.buffer.read(), Path(), found)
    elif text.startswith("@") and not os.path.exists(path):
        yield from _listed(file_bytes(Path(text[1:])), Path(text[1:]), found)
    elif os.path.isdir(path):
        yield from _below(path, found)
    elif os.path.exists(path):
        is_list = path.suffix.lower() == _LIST_SUFFIX
        yield from _listed(file_bytes(path), path, found) if is_list else _file(path, path.stem)
    elif glob.has_magic(text):
        yield from _matching(text, found)
    else:
        raise DataError(path, "no such file or folder", "check the path")


def _file(path: Path, name: str) -> Iterator[Source]:
    """A photo, or all frames of a video."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        yield Source(path, name)
        return
    for number in range(1, count_frames(path) + 1):
        yield Source(path, f"{name}/{number:06d}")


def _below(folder: Path, found: _Found, prefix: str = "") -> Iterator[Source]:
    """The photos below a folder, by their paths in it; videos are predicted only when they are named."""
    for path in walk(folder, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *_OTHER_SUFFIXES), root=None):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield Source(path, prefix + path.relative_to(folder).with_suffix("").as_posix())
        else:
            found.not_taken.append(path)


def _matching(pattern: str, found: _Found) -> Iterator[Source]:
    """The photos that match a pattern, by their paths below its first folder without a wildcard."""
    base, n_found = _fixed_folder(pattern), 0
    for text in sorted(glob.glob(pattern, recursive=True)):
        path = Path(text)
        if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and path.is_file():
            n_found += 1
            yield from _guarded(path, path.relative_to(base).with_suffix("").as_posix(), found)
    if not n_found:
        raise DataError(pattern, "matches no image", "check the pattern")


def _listed(data: bytes, path: Path, found: _Found) -> Iterator[Source]:
    """The photos of a list, by their paths as they are written there; a line that is wrong is refused alone.

    Paths are seen from the working folder or, where there is none, from the list's.
    """
    for line in data.split(b"\0" if b"\0" in data else b"\n"):
        text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r"))
        if not text.strip():
            continue
        photo = Path(text) if os.path.exists(text) else path.parent / text
        parts = [part for part in Path(os.path.normpath(text)).parts if part not in ("..", "/", ".")]
        if os.path.isdir(photo):
            yield from _below(photo, found, "".join(f"{part}/" for part in parts))
        elif os.path.exists(photo):
            yield from _guarded(photo, Path(*parts).with_suffix("").as_posix(), found)
        else:
            found.refused.append(DataError(text, "no such file or folder", "check the list"))


def _guarded(path: Path, name: str, found: _Found) -> Iterator[Source]:
    """`_file` of one among many: a video that cannot be opened does not stop the others."""
    try:
        yield from _file(path, name)
    except DataError as error:
        found.refused.append(error)
