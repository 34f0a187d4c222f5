"""Taxonomies from text: an indented list, or one `object:part` name a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft, level_names
from hiposeg_cli.builders.forest import Twig, forest_draft
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import fold

_COMMENT = re.compile(r"(^|\s)#.*")
_SEPARATOR = re.compile(r":|--|['\u2019]s\s")
_MAX_DEPTH = 64


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file. Raises DataError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold more than a comment, with their numbers. Raises DataError."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        kept = _COMMENT.sub("", line).rstrip()
        if kept:
            yield number, kept


def _indented(path: Path, options: BuildOptions) -> Draft:
    """A name a line, below the nearest line above that is indented less."""
    roots: list[Twig] = []
    branch: list[tuple[int, Twig]] = []  # from a root down to the last line: its indent and name
    sign = ""
    for number, line in read_lines(path):
        name = line.lstrip(" \t")
        indent = line[: len(line) - len(name)]
        sign = sign or indent[:1]
        if indent.strip(sign or " "):
            raise DataError(f"{path}:{number}", f"{name!r} is indented with tabs and spaces mixed", "use one of them")
        widths = [width for width, _ in branch]
        if branch and len(indent) <= widths[-1]:
            if len(indent) not in widths:
                raise DataError(f"{path}:{number}", f"{name!r} is indented like no name above it", "line it up with one")
            del branch[widths.index(len(indent)) :]
        if len(branch) >= _MAX_DEPTH:
            raise DataError(
                f"{path}:{number}", f"{name!r} is more than {_MAX_DEPTH} levels deep", "is this a list of names?"
            )
        twig = Twig(name, number)
        (branch[-1][1].children if branch else roots).append(twig)
        branch.append((len(indent), twig))
    return forest_draft(roots, path)


def _named(path: Path, options: BuildOptions) -> Draft:
    """`object:part`, `object--part` or `object's part` a line; a line without a part is an object of its own.

    The whole line is the name of the fine class, so that raw labels are found by it.
    """
    draft = Draft(path, level_names(2))
    lines: dict[str, int] = {}
    for number, line in read_lines(path):
        name = line.strip()
        owner, *part = _SEPARATOR.split(name, maxsplit=1)
        if not owner.strip() or (part and not part[0].strip()):
            raise DataError(f"{path}:{number}", f"{name!r} has no {'part' if owner.strip() else 'object'}", "complete it")
        if fold(name) in lines:
            raise DataError(f"{path}:{number}", f"{name!r} is there twice, first on line {lines[fold(name)]}", "keep one")
        lines[fold(name)] = number
        draft.add("coarse", owner.strip(), line=number)
        draft.add("fine", name, owner.strip(), line=number)
    if not lines:
        raise DataError(path, "holds no names", "write one `object:part` a line")
    return draft


text = Builder(_indented, "a text file, each name indented below what it belongs to")
names = Builder(_named, "a text file with one `object:part`, `object--part` or `object's part` a line")
