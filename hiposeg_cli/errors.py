"""Errors a user can cause, each carrying where, what and the cure.

Our own broken assumptions are `assert`s; they never become one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}  # a file's name may hold any of them


class HiposegError(Exception):
    """A user's fault: shown as one line, never as a traceback.

    Args:
        where: file, folder, option or class the problem was found in.
        what: what is wrong, with the offending value.
        cure: what to do about it.
    """

    exit_code = 2

    def __init__(self, where: object, what: str, cure: str = "") -> None:
        self.where, self.what, self.cure = str(where), what, cure
        super().__init__((f"{where}: {what}" + (f" - {cure}" if cure else "")).translate(_CONTROLS))

    def __reduce__(self) -> tuple[type[HiposegError], tuple[str, str, str]]:
        # Worker processes send their errors home by pickle, which would call __init__ with the joined text.
        return type(self), (self.where, self.what, self.cure)


class ConfigError(HiposegError):
    """An option, configuration file or command line that cannot be used."""


class HierarchyError(HiposegError):
    """A taxonomy file that is not a valid hierarchy, or not the one expected."""


class DataError(HiposegError):
    """Raw or prepared data that is missing, broken or inconsistent."""


class OutputError(DataError):
    """Something that cannot be written: no image's fault, so it stops a run that would skip broken images."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the closest known spelling, or list what is known when nothing is close."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(options[:20]) + (", ..." if len(options) > 20 else "")
    return f"known: {shown}" if shown else ""


def require_choice(flag: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ConfigError with a suggestion when a flag's value is none of those allowed."""
    choices = tuple(allowed)
    if value not in choices:
        raise ConfigError(f"{flag} {value}", "is not a choice", did_you_mean(value, choices))
