"""Finding raw files: folders listed once, names that are safe everywhere, split lists, photos paired with labels."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from hiposeg_cli.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_MAX_KEY_BYTES = 200


def safe_key(path: str, where: object = "") -> str:
    """A key usable as a file name everywhere: NFC, with all but [A-Za-z0-9._-/] percent-encoded.

    Args:
        where: the file that names the path, for the message.
    Raises: DataError for an absolute path, one that leaves its folder, or one with control characters.
    """
    if path.startswith("/") or "\\" in path or re.match(r"^[A-Za-z]:", path) or ".." in path.split("/"):
        raise DataError(where or path, f"the file name '{path}' leaves its folder", "use relative names without '..'")
    if any("\ud800" <= char <= "\udfff" for char in path):
        raise DataError(where or ascii(path), f"the file name {path!a} is not UTF-8", "rename the file")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise DataError(where or ascii(path), f"the file name {path!r} has control characters", "rename the file")
    key = quote(unicodedata.normalize("NFC", path), safe="/._-")
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise DataError(where or path, f"the file name {path[:40]!r}... is longer than {_MAX_KEY_BYTES} bytes", "shorten it")
    return key


def walk(folder: Path, suffixes: Sequence[str], *, root: Path | None) -> Iterator[Path]:
    """Yield the files below a folder that end in one of the suffixes (lower case), sorted folder by folder.

    Each folder is listed once and nothing is asked of a file but its name.

    A file that is a link is yielded whatever it leads to: `Reader.check_links` looks at those that are used.

    Args:
        root: folders may not be links that lead out of this one; None follows them anywhere.
    Raises: DataError for such a folder, or a link back to a folder above it.
    """
    require_inside(folder, root)
    yield from _walk(folder, tuple(suffixes), root)


def _walk(folder: Path, suffixes: tuple[str, ...], root: Path | None) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(folder, f"cannot be listed ({error.strerror})", "check the folder and its permissions") from None
    for entry in listed:
        path = Path(entry.path)
        if entry.name.lower().endswith(suffixes) and not entry.name.startswith("."):
            yield path
        elif entry.is_symlink():
            target = _resolved(path)
            if target in folder.resolve().parents or target == folder.resolve():
                raise DataError(path, f"links back to {target}, a folder it lies in", "remove the link")
            if target.is_dir():
                require_inside(path, root)
                yield from _walk(path, suffixes, root)
        elif entry.is_dir():
            yield from _walk(path, suffixes, root)


def require_inside(path: Path, root: Path | None) -> None:
    """Refuse a path that symbolic links lead out of `root`; None allows all. Raises DataError."""
    if root is not None and not (target := _resolved(path)).is_relative_to(root.resolve()):
        raise DataError(path, f"links out of the dataset, to {target}", "pass --follow-symlinks if that is meant")


def _resolved(link: Path) -> Path:
    try:
        return link.resolve()
    except (RuntimeError, OSError):  # Python < 3.13 raises RuntimeError for a loop
        raise DataError(link, "is a link that leads in a circle", "remove the link") from None


class Stems(Mapping[str, Path]):
    """Stem -> file. Asking for the file of a stem that several share raises DataError, so only that image is lost."""

    def __init__(self) -> None:
        self._first: dict[str, Path] = {}
        self._others: dict[str, list[Path]] = {}

    def add(self, stem: str, path: Path) -> None:
        if self._first.setdefault(stem, path) != path:
            self._others.setdefault(stem, []).append(path)

    def __getitem__(self, stem: str) -> Path:
        if stem in self._others:
            first, second = self._first[stem], self._others[stem][0]
            named = first.name if first.parent == second.parent else first
            raise DataError(second, f"has the same stem as {named}", "keep one file per stem")
        return self._first[stem]

    def __contains__(self, stem: object) -> bool:
        return stem in self._first

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __len__(self) -> int:
        return len(self._first)

    def files(self) -> Iterator[Path]:
        """All files, those that share a stem too."""
        yield from self._first.values()
        for paths in self._others.values():
            yield from paths


def index_images(folder: Path, *, root: Path | None = None, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Stems:
    """Relative stem -> image below a folder; see `walk`."""
    found = Stems()
    prefix = len(str(folder)) + 1
    for path in walk(folder, suffixes, root=root):
        found.add(str(path)[prefix : -len(path.suffix)].replace(os.sep, "/"), path)
    return found


def first_folder(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first of several folders that exists. Raises DataError listing where it looked."""
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    raise DataError(root, f"no {what} found (looked for {', '.join(candidates)})", "check the layout, or pass --images")


def listed_stems(path: Path) -> list[str]:
    """Stems of a split list, one a line; none where there is no list. Raises DataError when it is not text."""
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8 text (byte {error.start})", "replace the list") from None


def split_lists(folder: Path, splits: Iterable[str] = ("train", "val")) -> dict[str, str]:
    """Stem -> split of `FOLDER/SPLIT.txt` lists; empty where there are none. Raises DataError for a stem in two lists."""
    found: dict[str, str] = {}
    for split in splits:
        path = folder / f"{split}.txt"
        for stem in listed_stems(path):
            if stem in found:
                raise DataError(path, f"{stem!r} is listed twice (also in {found[stem]})", "keep it in one split")
            found[stem] = split
    return found
