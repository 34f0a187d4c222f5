"""Frames of videos, through PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a video; whatever decoding it meets in the block becomes a DataError."""
    try:
        import av
    except ImportError:
        raise ConfigError(path, "is a video, which needs the package av", "pip install 'hiposeg-cli[video]'") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(path, "holds no pictures", "name a video")
            yield container
    except av.FFmpegError as error:
        raise DataError(path, f"cannot be read as a video ({error.strerror})", "replace the file") from None


def count_frames(path: Path) -> int:
    """How many frames a video holds, found without decoding them. Raises DataError for a file that is no video."""
    with _opened(path) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


class Frames:
    """The frames of one video, decoded one after the other; asked for in rising order by one thread."""

    def __init__(self, path: Path) -> None:
        self.path, self.decoded = path, 0
        self._frames = self._decode()

    def frame(self, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB of frame `number`, from 1; those before it are passed over. Raises DataError at the end."""
        for pixels in self._frames:
            self.decoded += 1
            if self.decoded == number:
                return np.asarray(pixels.to_ndarray(format="rgb24"), dtype=np.uint8)
        raise DataError(self.path, f"ends after {self.decoded} frames", "replace the file, if more were expected")

    def _decode(self) -> Iterator[Any]:
        with _opened(self.path) as container:
            container.streams.video[0].thread_type = "AUTO"
            yield from container.decode(video=0)
