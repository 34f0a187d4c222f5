"""Lock files: which process holds a folder, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiposeg_cli.errors import DataError, OutputError

LOCK = ".lock"


def me() -> str:
    """What this process writes into a lock."""
    return f"{os.getpid()} {socket.gethostname()}"


def owner(lock: Path) -> str:
    """The process that holds a lock; empty when it is gone. One on another machine counts as alive."""
    try:
        process_id, _, host = lock.read_text().strip().partition(" ")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if host not in ("", socket.gethostname()):
        return f"{process_id} on {host}"
    return process_id if process_id.isdigit() and is_alive(int(process_id)) else ""


@contextmanager
def held(folder: Path, cure: str) -> Iterator[None]:
    """A block in which this process alone writes a folder. Raises DataError while another one holds it."""
    lock = folder / LOCK
    if found := owner(lock):
        raise DataError(folder, f"is being written by process {found}", cure)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.write_text(me())
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "choose another folder") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def is_alive(process_id: int) -> bool:
    """Whether another process of this machine lives under this id; this one itself does not count."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_id != os.getpid()
