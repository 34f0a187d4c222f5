"""One job over many items: in this process, in several, or on a Dask cluster; in order, with a bounded number in flight."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hiposeg_cli.errors import ConfigError, HiposegError, OutputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
_BATCH = 4  # items sent to a worker at once: sending one costs about as much as checking a small file


@dataclass(frozen=True)
class Workers:
    """Where jobs run.

    Attributes:
        count: processes on this machine; 1 or less runs in this one.
        cluster: address of a Dask scheduler (`tcp://host:8786`), which is then used instead.
    """

    count: int = 1
    cluster: str | None = None


def mapped(
    job: Callable[[Item], Result], items: Iterable[Item], *, total: int, workers: Workers, progress: Progress
) -> Iterator[Result]:
    """Yield `job(item)` for every item, in order.

    Args:
        job: called in a worker process unless there is only this one, so it and its results must pickle.
        items: consumed as results are taken, never all at once.
        total: expected number of items, for `progress`.
    Raises: OutputError when a worker is killed or lost, ConfigError when the cluster cannot be reached.
    """
    progress(0, total)
    done = 0
    if workers.cluster is None and (workers.count <= 1 or total <= 1):
        for item in items:
            yield job(item)
            done += 1
            progress(done, total)
        return
    engine = _on_cluster(job, workers.cluster) if workers.cluster else _in_processes(job, workers.count)
    with engine as (submit, n_running):
        source, waiting = iter(items), deque[Future[list[Result]]]()
        while True:
            while len(waiting) < 4 * n_running and (batch := list(itertools.islice(source, _BATCH))):
                waiting.append(submit(batch))
            if not waiting:
                return
            for result in _result(waiting.popleft(), workers):
                yield result
                done += 1
                progress(done, total)


Submit = Callable[[list[Any]], "Future[list[Any]]"]


def _result(future: Future[list[Result]], workers: Workers) -> list[Result]:
    try:
        return future.result()
    except BrokenProcessPool:
        where, what = f"--workers {workers.count}", "a worker process was killed (out of memory?)"
        raise OutputError(where, what, "use fewer workers") from None
    except HiposegError:
        raise
    except (CancelledError, Exception) as error:
        if workers.cluster is None or not _is_of_cluster(error):
            raise
        what = f"the cluster lost a worker or its scheduler ({type(error).__name__})"
        raise OutputError(f"--dask {workers.cluster}", what, "mend it, and run again") from None


def _is_of_cluster(error: BaseException) -> bool:
    """Whether an error is the cluster's own, not one of the job's."""
    return isinstance(error, CancelledError | OSError) or type(error).__module__.startswith("distributed")


@contextmanager
def _in_processes(job: Callable[[Any], Any], count: int) -> Iterator[tuple[Submit, int]]:
    with ProcessPoolExecutor(count, initializer=_start_worker, initargs=(job,)) as pool:
        yield _submitter(pool, _run_batch), count


@contextmanager
def _on_cluster(job: Callable[[Any], Any], address: str) -> Iterator[tuple[Submit, int]]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("--dask", "needs the package distributed", "pip install 'hiposeg-cli[dask]'") from None
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"--dask {address}", f"no scheduler answers there ({error})", "check the address") from None
    with client:
        n_threads = sum(client.ncores().values())
        if not n_threads:
            raise ConfigError(f"--dask {address}", "the cluster has no workers", "start `dask worker ADDRESS`")
        shared = client.scatter(job, broadcast=True)  # sent to each worker once, not with every batch
        yield _submitter(client.get_executor(), _run_shared, shared), n_threads


def _submitter(pool: Executor, run: Callable[..., list[Any]], *first: Any) -> Submit:
    def submit(batch: list[Any]) -> Future[list[Any]]:
        return pool.submit(run, *first, batch)

    return submit


def _run_shared(job: Callable[[Any], Any], batch: list[Any]) -> list[Any]:
    return [job(item) for item in batch]


_job: Callable[[Any], Any] | None = None


def _start_worker(job: Callable[[Any], Any]) -> None:
    global _job
    _job = job
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this worker when its parent was killed, which an executor's workers do not notice by themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_batch(batch: list[Any]) -> list[Any]:
    assert _job is not None
    return _run_shared(_job, batch)
