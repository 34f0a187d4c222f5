"""One annotations.xml of CVAT, of any size: read once, checked, and indexed by image, so that no process holds it whole.

The index keeps byte ranges; a worker parses the one `<image>` it needs. All parsing is defusedxml's: no DTD, no entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError

_ENCODING = re.compile(rb"<\?xml[^>]*encoding=[\"']([^\"']+)[\"']")
_PIECE = 1 << 20


@dataclass(frozen=True)
class ImageEntry:
    """An image as CVAT lists it; `size` is (height, width), None for what it does not say; `span` its bytes in the file."""

    number: int
    name: str
    subset: str
    size: tuple[int | None, int | None]
    span: NDArray[np.int64]


class CvatXml:
    """An indexed file.

    Raises: DataError naming line and column for broken XML, and for a file that is no "CVAT for images" export.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = _Index(path)
        self._stat = _size_and_time(path)
        _feed(path, index)
        self.images = index.finished()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to read spans: not the index itself."""
        return {key: value for key, value in vars(self).items() if key != "images"}

    def read(self, span: NDArray[np.int64]) -> Any:
        """The `<image>` element (xml.etree) in a byte range. Raises DataError when the file changed since it was indexed."""
        start, end = int(span[0]), int(span[1])
        try:
            if _size_and_time(self.path) != self._stat:
                raise ValueError
            with self.path.open("rb") as file:
                file.seek(start)
                return ElementTree.fromstring(file.read(end - start), forbid_dtd=True)
        except (OSError, ValueError, ElementTree.ParseError):
            raise DataError(self.path, "changed while it was being read", "run again") from None


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class _Index:
    """Receives the parser's events and notes where each image starts and ends.

    An image ends where the next event after its end tag starts, so its bytes are one whole element.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._expat: Any = None
        self._depth = 0
        self._open: tuple[dict[str, str], int] | None = None
        self._closed = False
        self._images: list[ImageEntry] = []
        self._names: set[tuple[str, str]] = set()

    def follow(self, parser: Any) -> None:
        self._expat = parser.parser

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._end_of_image()
        self._depth += 1
        if self._depth == 1 and tag != "annotations":
            raise DataError(self._path, f"starts with <{tag}>, not <annotations>", "is this a CVAT file?")
        if self._depth == 2 and tag == "track":
            raise DataError(self._path, "holds tracks, so it is 'CVAT for video'", "export it as 'CVAT for images 1.1'")
        if self._depth == 2 and tag == "image":
            self._open = attributes, self._expat.CurrentByteIndex

    def end(self, tag: str) -> None:
        self._end_of_image()
        self._depth -= 1
        self._closed = self._depth == 1 and tag == "image"

    def data(self, text: str) -> None:
        self._end_of_image()

    def close(self) -> None:
        """Nothing to build."""

    def _end_of_image(self) -> None:
        if not self._closed or self._open is None:
            return
        attributes, start = self._open
        self._open, self._closed = None, False
        name, subset = attributes.get("name", ""), attributes.get("subset", "")
        if not name:
            raise DataError(self._path, f"image {attributes.get('id', '?')} has no name", "repair it")
        if (subset, name) in self._names:
            raise DataError(self._path, f"lists the image {name} twice", "keep one, or put them in different subsets")
        self._names.add((subset, name))
        size = self._side(attributes, "height"), self._side(attributes, "width")
        span = np.array([start, self._expat.CurrentByteIndex])
        self._images.append(ImageEntry(len(self._images), name, subset, size, span))

    def _side(self, attributes: dict[str, str], side: str) -> int | None:
        value = attributes.get(side)
        if value is not None and not value.isdecimal():
            raise DataError(self._path, f"image {attributes.get('name')} has {side} {value!r}", "write a whole number")
        return None if value is None else int(value)

    def finished(self) -> list[ImageEntry]:
        if not self._images:
            raise DataError(self._path, "lists no images", "export the task as 'CVAT for images 1.1'")
        return self._images


def _feed(path: Path, index: _Index) -> None:
    """Run the whole file through the parser."""
    parser = ElementTree.DefusedXMLParser(target=index, forbid_dtd=True)
    index.follow(parser)
    try:
        for piece in _pieces(path):
            parser.feed(piece)
        parser.close()
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(f"{path}:{line}:{column + 1}", f"is broken XML: {error.msg}", "export it again") from None
    except DefusedXmlException:
        raise DataError(path, "declares a document type or entities, which CVAT never writes", "export it again") from None


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            piece = file.read(_PIECE)
            _check_encoding(path, piece)
            while piece:
                yield piece
                piece = file.read(_PIECE)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from None


def _check_encoding(path: Path, head: bytes) -> None:
    if not head:
        raise DataError(path, "is an empty file", "export it again")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
        raise DataError(path, "is UTF-16 or UTF-32 text", "save it as UTF-8")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(path, "is a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`")
    stated = _ENCODING.match(head.removeprefix(b"\xef\xbb\xbf"))
    if stated and stated[1].lower() not in (b"utf-8", b"us-ascii"):
        raise DataError(path, f"is {stated[1].decode('latin-1')} text", "save it as UTF-8")
