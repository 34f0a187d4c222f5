"""What every command prints with: data to stdout, talk to stderr, one JSON envelope, progress bars.

rich is imported where it is used, so that `--help` stays fast.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence everything but results and errors."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    return _quiet


def stderr_console() -> Any:
    """rich console for talk; honours NO_COLOR."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One line of talk."""
    if not _quiet:
        _talk(text)


def warn(text: str) -> None:
    """One line a user should not miss."""
    _talk(f"warning: {text}")


def _talk(text: str) -> None:
    """A line on stderr. Where nobody reads it any more, as after Ctrl-C in `2>&1 | tee log`, the work goes on without."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process


def out(text: str) -> None:
    """Data."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def out_table(table: Any) -> None:
    """A rich table as data; as wide as it needs where stdout is no terminal."""
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=160, highlight=False)
    console.print(table)


def envelope(command: str, data: Any, *, status: str = "ok", warnings: list[str] | None = None) -> str:
    """The one JSON object a command prints with --json."""
    record = {
        "schema": f"hiposeg/{command}@1",
        "command": command,
        "status": status,
        "data": data,
        "warnings": warnings or [],
    }
    return json.dumps(record, ensure_ascii=False)


def fail(command: str, message: str, code: int, *, as_json: bool) -> None:
    """Report an error: one line on stderr, or the envelope on stdout."""
    if as_json:
        out(envelope(command, {"error": message, "exit_code": code}, status="error"))
    else:
        _talk(f"hiposeg: {message}")


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total): a bar with rate and ETA on a terminal, a plain line now and then elsewhere."""
    if _quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with bar() as rich_bar:
            task = rich_bar.add_task(label, total=None)
            yield lambda done, total: rich_bar.update(task, completed=done, total=total)
    else:
        yield _PlainProgress(label)


def bar() -> Any:
    """A rich progress bar: label, count, rate, time left, and a free text field `note`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    class Note(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(str(task.fields.get("note", "")))

    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), Rate(), TimeRemainingColumn(),
        Note(table_column=Column(no_wrap=True, overflow="ellipsis")), console=stderr_console(),
    )  # fmt: skip


class _PlainProgress:
    """Progress as lines, at most one every ten seconds and one at the end."""

    def __init__(self, label: str) -> None:
        self.label, self.started, self.last = label, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0 or (done < total and now - self.last < 10):
            return
        self.last = now
        rate = done / max(now - self.started, 1e-9)
        say(f"{self.label}: {done}/{total} ({rate:.1f}/s, {(total - done) / rate:.0f} s left)")
