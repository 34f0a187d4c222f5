"""The output folder of an export: claimed, filled under a temporary name beside it, and renamed when it is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.locks import is_alive

MARKER = "hiposeg/export.json"  # in a folder of its own: some tools look through all files beside theirs
_SUFFIX = ".export-tmp"


@contextmanager
def staged(out: Path, data: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to write into; it becomes `out` when the block ends well, and vanishes when it does not.

    Args:
        data: the prepared dataset; `out` may not lie in it, nor it in `out`.
        overwrite: replace an export that hiposeg wrote there; anything else is refused.
    Raises: DataError when `out` may not be written, OutputError when it cannot.
    """
    out = Path(os.path.abspath(out))  # not resolved: a link to a folder is refused below, not written through
    _refuse(out, data, overwrite=overwrite)
    stage = out.with_name(f".{out.name}.{os.getpid()}{_SUFFIX}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        stage.mkdir()
        yield stage
        _put_in_place(stage, out)
    except BaseException as error:
        shutil.rmtree(stage, ignore_errors=True)
        if isinstance(error, OSError):
            where = error.filename or out
            raise OutputError(
                where, f"cannot be read or written ({error.strerror or error})", "choose another folder"
            ) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file with \\n line ends; makes its folder."""
    write_bytes_atomic(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON, names as they are."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _refuse(out: Path, data: Path, *, overwrite: bool) -> None:
    target, root = out.resolve(), data.resolve()
    if target == root or root in target.parents or target in root.parents:
        raise DataError(out, f"lies in the prepared dataset {data}, or the other way round", "write somewhere else")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DataError(out, "is a file or a link", "name a new folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not is_export(out):
        raise DataError(out, "is not empty and was not made by hiposeg export", "name a new folder")
    if not overwrite:
        raise DataError(out, "already holds an export", "pass --overwrite to replace it, or name another folder")


def is_export(folder: Path) -> bool:
    """Whether a folder was written by this package; another program's is not to be touched."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("format") == "hiposeg-export"


def _put_in_place(stage: Path, out: Path) -> None:
    """Swap the finished folder in; an old export is removed only when the new one stands."""
    old = stage.with_name(f"{stage.name}.old")
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(stage, out)
    except OSError:
        if old.exists():
            os.rename(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """Clear what runs for the same folder left that were killed."""
    for path in out.parent.glob(f".{out.name}.*{_SUFFIX}"):
        owner = path.name.removeprefix(f".{out.name}.").removesuffix(_SUFFIX)
        if owner.isdigit() and not is_alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
