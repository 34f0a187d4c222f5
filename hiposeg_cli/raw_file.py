"""Files a user was given: read with our own errors, and seen through when they are not what their names say."""

from __future__ import annotations

from pathlib import Path

from hiposeg_cli.errors import DataError


def file_bytes(path: Path, most: int = -1) -> bytes:
    """A file read whole, or its first bytes. Raises DataError for one that is not there or cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise DataError(path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise DataError(path, "is a folder, not a file", "check the path") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None


def disguise(head: bytes) -> str:
    """What a file is that is only called what it should be, given its first bytes; empty when they give nothing away."""
    if not head:
        return "is an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is an HTML page (a failed download?)"
    return ""
