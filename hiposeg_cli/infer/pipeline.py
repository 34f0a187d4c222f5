"""Photos through three stages at once: reading, the network, writing; a bounded number of pixels in flight.

Reading and writing run in threads, since decoding and compressing release Python's lock; the network runs in the thread of
whoever takes the results. Photos are taken in order, so batches do not depend on timing. A photo that fails leaves a
`Failed`; whatever else is raised ends the run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from hiposeg_cli.errors import HiposegError, OutputError
from hiposeg_cli.infer.prediction import Source
from hiposeg_cli.learn.memory import enough_memory

MOST_PX = 64_000_000  # read ahead, and waiting to be written, in each case; one photo may be larger

Seen = TypeVar("Seen")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Loaded(Generic[Seen]):
    """A photo that was read.

    Attributes:
        seen: it, as the network takes it.
        kind: only photos of one kind share a batch; None is alone of its kind.
        size: (H, W) in px.
        seconds: spent on it so far.
    """

    source: Source
    seen: Seen
    kind: object
    size: tuple[int, int]
    sha256: str
    seconds: float = 0.0

    @property
    def n_pixels(self) -> int:
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Failed:
    """A photo that could not be read, segmented or written."""

    source: Source
    error: HiposegError


@dataclass(frozen=True)
class Done:
    """A photo whose results are written."""

    source: Source
    size: tuple[int, int]
    sha256: str
    seconds: float


class Gate:
    """Lets photos in one after the other, while those inside have few enough pixels; one alone always fits."""

    def __init__(self, most_px: int) -> None:
        self.most_px, self.inside, self.next, self.closed = most_px, 0, 0, False
        self.changed = threading.Condition()

    def enter(self, ticket: int, n_pixels: int) -> None:
        """Wait for the turn of `ticket`, from 0, and for room. Raises CancelledError once closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or (self.next == ticket and self._has_room(n_pixels)))
            if self.closed:
                raise CancelledError
            self.next += 1
            self.inside += n_pixels
            self.changed.notify_all()

    def _has_room(self, n_pixels: int) -> bool:
        return self.inside == 0 or self.inside + n_pixels <= self.most_px

    def leave(self, n_pixels: int) -> None:
        with self.changed:
            self.inside -= n_pixels
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


@dataclass(frozen=True)
class Pipeline(Generic[Seen, Result]):
    """The stages of a run.

    Attributes:
        n_pixels: of a photo, from its header; 0 where it cannot be told.
        load: reads a photo.
        segment: what the network says of photos of one kind; each result is finished by whoever calls it, in a thread.
        write: writes a result.
        batch: photos that `segment` takes at once.
        readers, writers: threads.
        result_weight: memory of a pixel that waits to be written, in that of one without probabilities.
    """

    n_pixels: Callable[[Source], int]
    load: Callable[[Source], Loaded[Seen]]
    segment: Callable[[Sequence[Loaded[Seen]]], Sequence[Callable[[], Result]]]
    write: Callable[[Result], None]
    batch: int = 1
    readers: int = 1
    writers: int = 1
    result_weight: float = 1.0

    def run(self, sources: Iterable[Source]) -> Generator[Done | Failed, None, None]:
        """Yield what became of each photo, roughly in order. Raises OutputError when results cannot be written."""
        waiting: deque[tuple[Loaded[Seen], Future[Done | Failed]]] = deque()
        backlog = 0.0
        with _threads(self.writers) as pool:
            for group in self._groups(sources):
                if isinstance(group, Failed):
                    yield group
                    continue
                for photo, result in self._segmented(group):
                    if isinstance(result, Failed):
                        yield result
                        continue
                    waiting.append((photo, pool.submit(self._finish, photo, result)))
                    backlog += photo.n_pixels * self.result_weight
                while len(waiting) > 1 and (backlog > MOST_PX or len(waiting) > 4 * self.writers + self.batch):
                    oldest, future = waiting.popleft()
                    backlog -= oldest.n_pixels * self.result_weight
                    yield future.result()
            while waiting:
                yield waiting.popleft()[1].result()

    def _finish(self, photo: Loaded[Seen], result: Callable[[], Result]) -> Done | Failed:
        started = time.perf_counter()
        try:
            with enough_memory(str(photo.source.path), _CURE):
                self.write(result())
        except OutputError:
            raise
        except HiposegError as error:
            return Failed(photo.source, error)
        seconds = photo.seconds + time.perf_counter() - started
        return Done(photo.source, photo.size, photo.sha256, seconds)

    # -- the network ---------------------------------------------------------------------------------------------------

    def _segmented(self, photos: Sequence[Loaded[Seen]]) -> list[tuple[Loaded[Seen], Callable[[], Result] | Failed]]:
        """The results of a batch; of one that does not fit into memory, of each photo alone."""
        started = time.perf_counter()
        try:
            with enough_memory(str(photos[0].source.path), _CURE):
                results = self.segment(photos)
        except HiposegError as error:
            if len(photos) == 1:
                return [(photos[0], Failed(photos[0].source, error))]
            return [result for photo in photos for result in self._segmented([photo])]
        share = (time.perf_counter() - started) / len(photos)
        timed = [replace(photo, seconds=photo.seconds + share) for photo in photos]
        return list(zip(timed, results, strict=True))

    def _groups(self, sources: Iterable[Source]) -> Iterator[list[Loaded[Seen]] | Failed]:
        """Batches of photos of one kind. What has not found enough of its kind goes when too much waits."""
        kinds: dict[object, list[Loaded[Seen]]] = {}
        for photo in self._loaded(sources):
            if isinstance(photo, Failed):
                yield photo
                continue
            if photo.kind is None:
                yield [photo]
                continue
            group = kinds.setdefault(photo.kind, [])
            group.append(photo)
            if len(group) == self.batch:
                yield kinds.pop(photo.kind)
            while sum(one.n_pixels for group in kinds.values() for one in group) > MOST_PX or len(kinds) > 4 * self.batch:
                yield kinds.pop(next(iter(kinds)))
        yield from kinds.values()

    # -- reading -------------------------------------------------------------------------------------------------------

    def _loaded(self, sources: Iterable[Source]) -> Iterator[Loaded[Seen] | Failed]:
        """Photos in order, read ahead."""
        gate, ahead, tickets = Gate(MOST_PX), 2 * self.readers + self.batch, enumerate(sources)
        reading: deque[tuple[Future[Loaded[Seen] | Failed], Future[int]]] = deque()
        with _threads(self.readers) as pool:
            try:
                while True:
                    while len(reading) < ahead and (following := next(tickets, None)) is not None:
                        entered: Future[int] = Future()
                        reading.append((pool.submit(self._load, gate, *following, entered), entered))
                    if not reading:
                        return
                    photo, entered = reading.popleft()
                    loaded = photo.result()
                    gate.leave(entered.result())
                    yield loaded
            finally:
                gate.close()

    def _load(self, gate: Gate, ticket: int, source: Source, entered: Future[int]) -> Loaded[Seen] | Failed:
        n_pixels = self.n_pixels(source)
        gate.enter(ticket, n_pixels)
        entered.set_result(n_pixels)
        try:
            with enough_memory(str(source.path), _CURE):
                return self.load(source)
        except HiposegError as error:
            return Failed(source, error)


_CURE = "pass --tile 512 (a smaller one if it is given), a smaller --size, or a smaller --batch"


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that a run which ends early does not wait for longer than for what they are doing."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
