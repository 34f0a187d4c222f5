"""Lock files: which process holds a folder, and whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def me() -> str:
    """What this process writes into a lock."""
    return f"{os.getpid()} {socket.gethostname()}"


def owner(lock: Path) -> str:
    """The process that holds a lock; empty when it is gone. One on another machine counts as alive."""
    try:
        process_id, _, host = lock.read_text().strip().partition(" ")
    except FileNotFoundError:
        return ""
    if host not in ("", socket.gethostname()):
        return f"{process_id} on {host}"
    return process_id if process_id.isdigit() and is_alive(int(process_id)) else ""


def is_alive(process_id: int) -> bool:
    """Whether another process of this machine lives under this id; this one itself does not count."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_id != os.getpid()
