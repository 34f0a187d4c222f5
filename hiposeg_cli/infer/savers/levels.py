"""Where the files of the levels above the finest go.

Every saver puts what it says of the finest level at OUT/NAME/PHOTO, and of a level above at OUT/NAME_LEVEL/PHOTO.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath

from hiposeg_cli.hierarchy import Level
from hiposeg_cli.infer.prediction import Prediction


def saver_folder(prediction: Prediction, path: Path) -> Path:
    """OUT/NAME of a photo's path OUT/NAME/PHOTO, which may lie in folders of its own."""
    return path.parents[len(PurePosixPath(prediction.source.name).parts) - 1]


def level_name(name: str, level: str, depth: int) -> str:
    """`name` for the finest level (depth 0), `name_LEVEL` above."""
    return f"{name}_{level.replace('/', '-')}" if depth else name


def level_paths(prediction: Prediction, path: Path) -> list[tuple[Level, Path]]:
    """Each level with its file for one photo, finest last, so that the file at `path` says that all are there."""
    folder = saver_folder(prediction, path)
    found = []
    for depth, level in enumerate(prediction.hierarchy.levels):
        found.append((level, folder.with_name(level_name(folder.name, level.name, depth)) / path.relative_to(folder)))
    return found[::-1]


def remove_torn(out: Path, name: str) -> None:
    """Delete what killed runs left half written of a saver's files: temporaries older than the file they were to become.

    One that a run of another shard is writing right now is newer than the file it will replace, and stays.
    """
    within = (path for folder in (out / name, *out.glob(f"{name}_*")) for path in folder.rglob(".*.tmp"))
    for path in [*within, *out.glob(f".*{name}*.tmp")]:
        target = path.with_name(path.name[1:].removesuffix(".tmp").rpartition(".")[0])
        with suppress(OSError):  # it is gone meanwhile, or its file is not there
            if path.stat().st_mtime_ns < target.stat().st_mtime_ns:
                path.unlink()
