"""Shared by the benchmarks: where this ran, and repeated timing."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable


def machine() -> str:
    """One line about this machine."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def best_of(act: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs in seconds, after one to warm up: the least disturbed by a noisy machine."""
    act()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return min(times)
