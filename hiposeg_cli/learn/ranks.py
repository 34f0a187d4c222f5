"""Training by several processes, the ranks of a run; nothing else knows torch.distributed.

The rule that every loss keeps: the mean of the ranks' losses is the loss of the joined batch. Gradients are averaged over
ranks, so they are those of one process with that batch. A mean over pixels passes through `joint_mean`; what is computed
from sums over all pixels, such as prototypes, is computed by every rank alike from a `joint_sum`.

Tensors on a GPU travel by NCCL; host values (stop signals, errors, counts) by gloo, which waits for no GPU. In a process
that was not launched as one of several, every function returns what it is given.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.learn.batch import Batch
from hiposeg_cli.learn.launch import launch_of
from hiposeg_cli.learn.method import LossTerms, Progress

T = TypeVar("T")
Losses = Callable[[Batch, Progress], LossTerms]
_FAILED = HiposegError.exit_code
_BUG = 70
_CODES = 256  # exit codes fit below it
_SECONDS_TO_SAVE = 600  # after SIGTERM, for the step and the validation that are running


class EndedElsewhere(Exception):
    """Another rank failed and says why; this one ends without a word.

    Args:
        exit_code: that rank's, as far as it is known.
    """

    def __init__(self, exit_code: int = _FAILED) -> None:
        super().__init__("another process of this run failed")
        self.exit_code = exit_code


# -- joining -----------------------------------------------------------------------------------------------------------


@contextmanager
def joined() -> Iterator[None]:
    """A block in which the processes of one launch are ranks of each other. Raises EndedElsewhere when one is lost."""
    launch = launch_of(os.environ)
    if launch is None:
        yield
        return
    os.environ |= {"MASTER_ADDR": launch.address, "MASTER_PORT": str(launch.port)}
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, init_method="env://", rank=launch.rank, world_size=launch.size)
    except RuntimeError as error:
        where, why = f"{launch.address}:{launch.port}", str(error).splitlines()[0]
        raise ConfigError(where, f"the processes cannot meet here ({why})", "set MASTER_ADDR and MASTER_PORT") from None
    try:
        yield
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise EndedElsewhere from None
        raise  # the group is left as it is: other ranks may still compute, and closing it could wait for them forever
    if dist.is_initialized():  # what was agreed to fail has left already
        dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    return "gloo" in text and any(word in text for word in ("closed by peer", "Connection reset", "Broken pipe"))


# -- who is who --------------------------------------------------------------------------------------------------------


_apart = False


@contextmanager
def apart() -> Iterator[None]:
    """A block in which this rank computes as if it were alone: nothing is exchanged."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def n_ranks() -> int:
    if _apart:
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if n_ranks() > 1 else 0


def is_first() -> bool:
    """Whether this process writes, logs and speaks for all."""
    return rank() == 0


def share(rows: Sequence[T]) -> Sequence[T]:
    """This rank's part: every row belongs to exactly one rank."""
    return rows[rank() :: n_ranks()]


# -- host values -------------------------------------------------------------------------------------------------------


@contextmanager
def agreed() -> Iterator[None]:
    """A block without exchange between ranks, and without another such block, after which an error in any ends all.

    The first rank with an error raises it; the others raise EndedElsewhere.
    """
    if n_ranks() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as caught:
        failure = caught
    code = 0 if failure is None else int(getattr(failure, "exit_code", _BUG))
    verdict = torch.tensor(n_ranks() * _CODES if failure is None else rank() * _CODES + code)
    dist.all_reduce(verdict, op=dist.ReduceOp.MIN)
    speaker, code = divmod(int(verdict), _CODES)
    if speaker == n_ranks():
        return
    error = failure if failure is not None and speaker == rank() else EndedElsewhere(code)
    dist.destroy_process_group()
    raise error


@contextmanager
def one_speaks() -> Iterator[None]:
    """A block whose error may come to several ranks, each for itself: the first raises it, the others EndedElsewhere."""
    try:
        yield
    except HiposegError as error:
        if n_ranks() > 1 and not _is_first_to_fail():
            raise EndedElsewhere(error.exit_code) from None
        raise


def _is_first_to_fail() -> bool:
    try:
        return int(dist.distributed_c10d._get_default_store().add("failed", 1)) == 1
    except RuntimeError:  # the process that kept the store has failed, and is gone
        return False


def decided_by_first(decide: Callable[[], T]) -> T:
    """What the first rank decides, or the end of all when it cannot."""
    if n_ranks() == 1:
        return decide()
    decision: list[Any] = [None]
    with agreed():
        if is_first():
            decision = [decide()]
    dist.broadcast_object_list(decision, src=0)
    result: T = decision[0]
    return result


def gathered(value: T) -> list[T]:
    """The value of every rank, in their order."""
    if n_ranks() == 1:
        return [value]
    values: list[Any] = [None] * n_ranks()
    dist.all_gather_object(values, value)
    return values


def any_signal(number: int | None) -> int | None:
    """The signal that some rank received: all stop after the same step."""
    if n_ranks() == 1:
        return number
    highest = torch.tensor(number or 0)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return int(highest) or None


def add_up(counts: Any) -> None:
    """Replace an int64 array by its sum over ranks, in place."""
    if n_ranks() > 1:
        dist.all_reduce(torch.from_numpy(counts))


# -- losses ------------------------------------------------------------------------------------------------------------


class _JointSum(torch.autograd.Function):
    """Sum over ranks. Every rank computes with the sum, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def joint_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, of the same shape everywhere; differentiable."""
    if n_ranks() == 1:
        return tensor
    total: Tensor = _JointSum.apply(tensor)
    return total


def joint_mean(mean: Tensor, count: Tensor | int) -> Tensor:
    """This rank's share of the mean over the joined batch: the mean of the shares is the joint mean.

    Args:
        mean: () mean over this rank's own items; finite where there is none.
        count: () int64 number of these items.
    """
    if n_ranks() == 1:
        return mean
    own = torch.full((), count, device=mean.device) if isinstance(count, int) else count
    total = own.clone()
    dist.all_reduce(total)
    return mean * (n_ranks() * own / total.clamp(min=1))


def averaged(terms: LossTerms) -> LossTerms:
    """The loss terms of the joined batch, for reading; every rank has the same names."""
    if n_ranks() == 1:
        return terms
    values = torch.stack([terms.total, *terms.parts.values()]).detach().float()
    dist.all_reduce(values)
    total, *parts = values / n_ranks()
    return LossTerms(total, dict(zip(terms.parts, parts, strict=True)))


# -- modules -----------------------------------------------------------------------------------------------------------


class SharedStep:
    """Loss terms whose backward pass averages gradients over ranks.

    Args:
        losses: forward pass and losses of one batch, by the parameters of `modules`.
    """

    def __init__(self, losses: Losses, modules: Sequence[nn.Module]) -> None:
        self.losses = losses
        self.ddp: DistributedDataParallel | None = None
        if n_ranks() > 1:
            with warnings.catch_warnings():  # torch 2.13 renames the option, with another meaning
                warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
                self.ddp = DistributedDataParallel(
                    _Step(losses, modules), broadcast_buffers=False,
                    find_unused_parameters=True,  # heads have no gradient before their terms begin
                )  # fmt: skip

    def __call__(self, batch: Batch, progress: Progress, *, last: bool) -> LossTerms:
        """Terms of one batch; only the backward pass of the step's last one averages what has been added up."""
        if self.ddp is None:
            return self.losses(batch, progress)
        with nullcontext() if last else self.ddp.no_sync():
            total, parts = self.ddp(batch, progress)
        return LossTerms(total, parts)


class _Step(nn.Module):
    """A whole step as one forward pass, as DistributedDataParallel needs it."""

    def __init__(self, losses: Losses, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.losses, self.parts = losses, nn.ModuleList(modules)

    def forward(self, batch: Batch, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.losses(batch, progress)
        return terms.total, dict(terms.parts)


def share_norms(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Let batch norm see the joined batch, which torch can on a GPU only; keeps parameters and their names."""
    if n_ranks() > 1 and device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm  # torch's own drops the activation inside timm's norms

        for module in modules:
            convert_sync_batchnorm(module)


def average_norms(modules: Sequence[nn.Module]) -> None:
    """Give all ranks the mean of the running statistics that each measured on its own part of a batch."""
    if n_ranks() == 1:
        return
    norms = [
        norm for module in modules for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and not isinstance(norm, nn.SyncBatchNorm)
    ]  # fmt: skip
    for name, op in (("running_mean", dist.ReduceOp.SUM), ("running_var", dist.ReduceOp.SUM),
                     ("num_batches_tracked", dist.ReduceOp.MAX)):  # fmt: skip
        buffers = [buffer for norm in norms if (buffer := getattr(norm, name)) is not None]
        if buffers:
            joint = torch.cat([buffer.flatten() for buffer in buffers])
            dist.all_reduce(joint, op=op)
            if op == dist.ReduceOp.SUM:
                joint = joint / n_ranks()
            for buffer, mean in zip(buffers, joint.split([buffer.numel() for buffer in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))


def rows_in_norm(module: nn.Module, n_rows: int) -> int:
    """How many rows a batch norm inside `module` computes its statistics from, when this rank gives it `n_rows`."""
    if n_ranks() == 1 or not any(isinstance(norm, nn.SyncBatchNorm) for norm in module.modules()):
        return n_rows
    total = torch.tensor(n_rows)
    dist.all_reduce(total)
    return int(total)


# -- launching ---------------------------------------------------------------------------------------------------------


def launch(n_processes: int, arguments: Sequence[str]) -> int:
    """Run `hiposeg ARGUMENTS` as several processes on this machine, under torchrun's agent. Returns the exit code.

    Raises: HiposegError when one was killed, which it could not say itself.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the agent's reports; the processes speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_processes)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=n_processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        local_addr="localhost", max_restarts=0, shutdown_timeout=_SECONDS_TO_SAVE,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "hiposeg_cli", *arguments)
    except SignalException as ended:
        return 128 + int(ended.sigval)
    except ChildFailedError as failed:
        codes = {number: failure.exitcode for number, failure in failed.failures.items()}
        for number, code in codes.items():
            if code < 0 and code != -signal.SIGTERM:  # that is how the agent ends the others
                raise HiposegError(
                    f"process {number} of {n_processes}", f"was killed by signal {-code} (out of memory?)",
                    "continue with --resume, with fewer workers if memory was short",
                ) from None  # fmt: skip
        return next((code for code in codes.values() if code > 0), 128 + signal.SIGTERM)
    finally:
        logging.disable(logging.NOTSET)
    return 0
