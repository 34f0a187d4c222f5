"""Running out of memory, in words; and the largest batch that does not, found by trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hiposeg_cli.errors import HiposegError
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.method import Method, Progress
from hiposeg_cli.learn.schedule import OptimConfig

RESERVE = 0.1  # of the memory that is free before training, left for what a trial cannot see
NO_ROOM = "free memory on this device, or choose another --device or a smaller --backbone"
_CELL_PX = 16  # side of the patches of one class in a trial's labels
# Host allocators raise these as plain RuntimeErrors; the last two are tensors that kernels cannot index.
_WORDS = ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "INT_MAX", "32BitIndexMath")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a tensor did not fit, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


@contextmanager
def enough_memory(where: str, cure: str) -> Iterator[None]:
    """Turn running out of memory, on any device, into an error a user can act on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise HiposegError(where, "does not fit into memory", cure) from None


def smaller_step(batch: int, accumulate: int, run: Path | None = None, *, on_gpu: bool = False) -> str:
    """What to pass for a step of as many images in less memory.

    Args:
        run: one that was resumed, which keeps its settings: another has to go on from its weights.
        on_gpu: whether `--batch auto` finds what fits.
    """
    half, start = batch // 2, "pass" if run is None else f"start a new run with --init {run} and"
    if half < 2:
        return f"{start} a smaller --crop" + (" or --backbone" if run is None else "")
    auto = ", --batch auto, which tries what fits," if on_gpu else ","
    return f"{start} --batch {half} --accumulate {accumulate * -(-batch // half)}{auto} or a smaller --crop"


# -- the largest batch -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundBatch:
    """The number of images that `--batch auto` stands for, and why."""

    images: int
    reason: str


def tried_batch(images: int, most: int, crop: tuple[int, int]) -> FoundBatch:
    """What trials found, in words; see `largest_batch`."""
    shape = "x".join(str(side) for side in crop)
    if images + 2 > most:
        return FoundBatch(images, f"tried at a crop of {shape} px: fits, and more would leave few steps in a pass")
    left = f"{100 * RESERVE:.0f} % of the free memory left"
    return FoundBatch(images, f"tried at a crop of {shape} px: the largest even number that fits, with {left}")


def largest_batch(attempt: Callable[[int], None], most: int) -> int:
    """The largest even number of images, from 2 to `most`, that `attempt` can take.

    It is found by doubling and then halving the gap, so that few attempts fail; whatever takes a number is assumed to take
    every smaller one.

    Args:
        attempt: raises an error of `is_out_of_memory` for a number that is too large.
    Raises: HiposegError when not even 2 fit.
    """
    fits, fails, failed = 0, most // 2 + 1, False  # in pairs of images
    while fits + 1 < fails:
        tried = (fits + fails) // 2 if failed else min(max(1, 2 * fits), fails - 1)
        if _fits(attempt, 2 * tried):
            fits = tried
        else:
            fails, failed = tried, True
    if not fits:
        raise HiposegError("--batch auto", "not even a batch of 2 fits into memory", smaller_step(2, 1))
    return 2 * fits


@contextmanager
def trial_memory(device: torch.device) -> Iterator[None]:
    """A block that may take all but `RESERVE` of a GPU's free memory, and leaves no trace: random state, cache, peak."""
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    free, total = torch.cuda.mem_get_info(device)
    share = (1 - RESERVE) * (free + torch.cuda.memory_reserved(device)) / total
    torch.cuda.set_per_process_memory_fraction(share, device)
    try:
        with torch.random.fork_rng(devices=[device]):
            yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _fits(attempt: Callable[[int], None], n_images: int) -> bool:
    try:
        attempt(n_images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


@dataclass(frozen=True)
class Trial:
    """Training steps on noise, of a network and a method that are thrown away; weights do not move.

    Attributes:
        crop: (height, width) in px.
        partial: whether some pixels have a coarse label only, which costs memory of its own.
        n_ranks: processes of the run, which keep buckets of gradients when there are several.
    """

    net: nn.Module
    method: Method
    optim: OptimConfig
    crop: tuple[int, int]
    device: torch.device
    amp: torch.dtype | None = None
    partial: bool = False
    n_ranks: int = 1

    def __call__(self, n_images: int) -> None:
        """Forward and backward passes of one step, beside all that training keeps. Raises when memory is short."""
        self.net.zero_grad(set_to_none=True)
        self.method.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        kept = self._kept()
        batch = self._noise(n_images).to(self.device)
        for _ in range(min(2, self.optim.accumulate)):  # the second runs beside the gradients of the first
            with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
                output = self.net(batch.image)
            self.method.losses(batch, output, Progress(1, 1)).total.backward()
            self.method.after_step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        del kept

    def _kept(self) -> list[Tensor]:
        """As much memory as moments, averaged weights and buckets of gradients take."""
        copies = 2 if self.optim.optimizer == "adamw" else 1
        copies += (self.optim.weight_average > 0) + (self.n_ranks > 1)
        parameters = [*self.net.parameters(), *self.method.parameters()]
        return [torch.empty_like(parameter) for parameter in parameters for _ in range(copies)]

    def _noise(self, n_images: int) -> Batch:
        """Images and labels in patches, so that every class occurs."""
        H, W = self.crop
        generator, hierarchy = torch.Generator().manual_seed(0), self.method.hierarchy
        image = torch.randint(0, 256, (n_images, 3, H, W), dtype=torch.uint8, generator=generator)
        cells = (n_images, -(-H // _CELL_PX), -(-W // _CELL_PX))
        small = torch.randint(0, hierarchy.n_fine, cells, generator=generator)
        fine = small.repeat_interleave(_CELL_PX, 1).repeat_interleave(_CELL_PX, 2)[:, :H, :W]
        coarse = torch.from_numpy(hierarchy.parent).long()[fine]
        batch = Batch(image, fine, coarse, partial=self.partial)
        if self.partial:
            batch = replace(batch, fine=fine.masked_fill(torch.rand(fine.shape, generator=generator) < 0.1, IGNORE))
        needs = self.method.needs
        return replace(
            batch, fine=batch.fine if "fine" in needs else None, coarse=batch.coarse if "coarse" in needs else None
        )
