"""Which prediction file belongs to which image.

One rule: a file belongs to the image whose key, photo path or label path ends as the file's path below the folder does,
suffixes left out and whole names compared. So `b/x.png` is the prediction for `photos/b/x.jpg` and not for `photos/a/x.jpg`,
and `x.png` alone would fit both. A file that fits several images is refused, and so are several files for one image.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiposeg_cli.evaluation.truth import TruthImage
from hiposeg_cli.formats.files import walk


@dataclass(frozen=True)
class Matched:
    """The files of a folder, sorted out.

    Attributes:
        files: key of an image -> its file.
        extra: files that fit no image.
        ambiguous: files that fit several images, with the keys of two of these.
        duplicates: key of an image -> its files, of those with several.
    """

    files: dict[str, Path]
    extra: list[Path]
    ambiguous: list[tuple[Path, str, str]]
    duplicates: dict[str, list[Path]]


def match(folder: Path, images: Sequence[TruthImage], suffix: str = "") -> Matched:
    """Sort out the *.png below a folder.

    Args:
        suffix: what follows an image's name in all of them, such as `_pred`.
    Raises: DataError when the folder cannot be listed.
    """
    index = _index(images)
    owners: dict[str, list[Path]] = {}
    found = Matched({}, [], [], {})
    for path in walk(folder, (".png",), root=None):
        stem = path.relative_to(folder).as_posix()[: -len(path.suffix)]
        keys = _owners(_normal(stem[: len(stem) - len(suffix)]), index) if stem.endswith(suffix) else []
        if not keys:
            found.extra.append(path)
        elif len(keys) > 1:
            found.ambiguous.append((path, keys[0], keys[1]))
        else:
            owners.setdefault(keys[0], []).append(path)
    for key, paths in owners.items():
        if len(paths) == 1:
            found.files[key] = paths[0]
        else:
            found.duplicates[key] = paths
    return found


@dataclass(frozen=True)
class _Name:
    """One of the names of an image, with a slash before it."""

    path: str
    key: str


def _index(images: Sequence[TruthImage]) -> dict[str, list[_Name]]:
    """Last part of a name -> all names that end in it."""
    index: dict[str, list[_Name]] = {}
    for image in images:
        for name in dict.fromkeys(map(_normal, image.names)):
            index.setdefault(name.rpartition("/")[2], []).append(_Name(f"/{name}", image.key))
    return index


def _owners(stem: str, index: dict[str, list[_Name]]) -> list[str]:
    """Keys of the images with a name that ends in the stem, each once."""
    names = index.get(stem.rpartition("/")[2], ())
    return list(dict.fromkeys(name.key for name in names if name.path.endswith(f"/{stem}")))


def _normal(name: str) -> str:
    """One spelling of accents: some file systems take them apart."""
    return unicodedata.normalize("NFC", name)
