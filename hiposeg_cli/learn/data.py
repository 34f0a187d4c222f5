"""Prepared dataset -> training batches, in an order that depends on nothing but the seed and the step."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from hiposeg_cli.errors import DataError, HiposegError
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.augment import Augment, Labels, as_labels
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.rare_classes import RareClasses
from hiposeg_cli.store import Dataset

Draw = tuple[int, int]  # (round, index of the row); the round is the epoch or, with rare-class sampling, unique
_BY_CLASS = 1  # keeps the stream that draws by class apart from those of samples


@dataclass(frozen=True)
class Sample:
    """One augmented image; see `Augment`."""

    key: str
    image: NDArray[np.uint8]
    labels: dict[str, Labels]


class TrainSet(TorchDataset[Sample | HiposegError]):
    """Augmented samples of one split. The randomness of a sample is a function of (seed, round, index) alone."""

    def __init__(self, dataset: Dataset, split: str, augment: Augment, needs: frozenset[str], seed: int) -> None:
        self.dataset, self.rows, self.augment, self.needs, self.seed = dataset, dataset.split(split), augment, needs, seed
        if not self.rows:
            raise DataError(dataset.root, f"the split {split!r} is empty", "prepare the data again")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Sample | HiposegError:
        round_, index = draw
        row = self.rows[index]
        rng = np.random.default_rng([self.seed, round_, index])
        try:
            photo, labels = self.dataset.image(row), as_labels(self.dataset.labels(row), self.needs)
        except HiposegError as error:  # raised by the loop: a loader process would wrap it in its traceback
            return error
        return Sample(row.key, *self.augment(photo, labels, rng))


def steps_per_epoch(n_rows: int, images_per_step: int) -> int:
    """Whole steps in one pass; at least one."""
    return max(1, n_rows // images_per_step)


class StepSampler(Sampler[list[Draw]]):
    """Batches of draws for steps `start_step` to `total_steps`, `accumulate` of them a step.

    A fresh permutation each epoch, the remainder dropped; or, with `rare`, images drawn by class with replacement. A
    step draws what it would in one batch of `accumulate` times the size. A set smaller than that is repeated within it.
    Of `n_ranks` processes that draw `batch` images each, number `rank` draws its part of what one would draw in batches
    of `n_ranks * batch`.
    """

    def __init__(
        self, n_rows: int, batch: int, seed: int, start_step: int, total_steps: int, accumulate: int = 1,
        rare: RareClasses | None = None, rank: int = 0, n_ranks: int = 1,
    ) -> None:  # fmt: skip
        self.n_rows, self.batch, self.seed = n_rows, batch, seed
        self.start_step, self.total_steps, self.accumulate, self.rare = start_step, total_steps, accumulate, rare
        self.rank, self.n_ranks, self.n_draws = rank, n_ranks, batch * accumulate * n_ranks

    def __len__(self) -> int:
        return (self.total_steps - self.start_step) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.total_steps):
            draws = self._by_epoch(step) if self.rare is None else self._by_class(step, self.rare)
            own = range(self.rank * self.batch, self.n_draws, self.n_ranks * self.batch)
            yield from (draws[first : first + self.batch] for first in own)

    def _by_epoch(self, step: int) -> list[Draw]:
        n_draws = self.n_draws
        epoch, position = divmod(step, steps_per_epoch(self.n_rows, n_draws))
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
        chosen = np.take(order, range(position * n_draws, (position + 1) * n_draws), mode="wrap")
        return [(epoch, int(index)) for index in chosen]

    def _by_class(self, step: int, rare: RareClasses) -> list[Draw]:
        """An image may be drawn twice in an epoch, so every draw is a round of its own: another crop each time."""
        n_draws = self.n_draws
        rng = np.random.default_rng([self.seed, step, 0, _BY_CLASS])
        return [(step * n_draws + number, index) for number, index in enumerate(rare.draw(rng, n_draws))]


def collate(drawn: list[Sample | HiposegError]) -> Batch | HiposegError:
    """Stack samples into a `Batch`; an error among them is passed on instead."""
    samples = [sample for sample in drawn if isinstance(sample, Sample)]
    for error in drawn:
        if isinstance(error, HiposegError):
            return error
    image = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    labels = {level: torch.from_numpy(np.stack([sample.labels[level] for sample in samples])) for level in samples[0].labels}
    fine, coarse = labels.get("fine"), labels.get("coarse")
    partial = fine is not None and coarse is not None and bool(((fine == IGNORE) & (coarse != IGNORE)).any())
    return Batch(image, fine, coarse, tuple(sample.key for sample in samples), partial)


def train_loader(
    data: TrainSet, sampler: StepSampler, workers: int, *, pin_memory: bool
) -> DataLoader[Sample | HiposegError]:
    """Loader over the whole run; worker count changes speed, never content.

    It has a generator of its own: an iterator draws a number when it starts, which must not come from the stream that
    dropout uses, or a resumed run would drop other units.
    """
    generator = torch.Generator().manual_seed(sampler.seed)
    return DataLoader(
        data, batch_sampler=sampler, num_workers=workers, collate_fn=collate, pin_memory=pin_memory, generator=generator,
        prefetch_factor=4 if workers else None, worker_init_fn=_one_thread if workers else None,
    )  # fmt: skip


def drawn_batches(loader: DataLoader[Sample | HiposegError]) -> Generator[Batch, None, None]:
    """Yield a loader's batches; its processes end with the generator, whatever ends that.

    Raises: the HiposegError that drawing a batch met.
    """
    batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, HiposegError):
                raise batch
            yield batch
    finally:
        # Left to the garbage collector (an error's traceback may hold the iterator) the processes would live on, and this
        # one with them, since they ignore SIGTERM. Torch has no public way to end them.
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


@contextmanager
def living_workers(workers: int, state_path: Path) -> Iterator[None]:
    """Turn the loss of a loader process, which torch may report at any line, into an error a user can act on.

    One that dies while it hands over a batch only breaks the connection. What one raised arrives as an error "Caught in
    DataLoader worker process 0", and is no loss.

    Args:
        state_path: where the run's state is, if one was saved.
    """
    try:
        yield
    except (RuntimeError, ConnectionResetError, EOFError) as error:
        if workers == 0 or (isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid")):
            raise
        what, fewer = "a loader process was killed (out of memory?)", f"with fewer workers, such as --workers {workers // 2}"
        cure = f"continue with --resume {state_path.parent}, " if state_path.is_file() else "begin again "
        raise HiposegError(f"--workers {workers}", what, cure + fewer) from None


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the loop decides when to stop; its loader waits for it
        signal.signal(number, signal.SIG_IGN)
