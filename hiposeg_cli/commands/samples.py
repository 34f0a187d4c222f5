"""Photos to check or to time a network on: of its own data where they are still there, else drawn ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_DRAWN_PX = 480


@dataclass(frozen=True)
class Sample:
    """Photos, and what they are, in words."""

    paths: tuple[Path, ...]
    name: str


def sample_photos(run: Path, count: int, folder: Path) -> Sample:
    """The first validation photos of a run's data, or drawn ones.

    Args:
        run: a run folder, or a file in its `weights`.
        folder: where drawn ones are written.
    """
    found = _val_photos(run if run.is_dir() else run.resolve().parent.parent, count)
    return found or Sample(_drawn(count, folder), f"{count} drawn photos of {_DRAWN_PX}x{_DRAWN_PX} px")


def _val_photos(run: Path, count: int) -> Sample | None:
    from hiposeg_cli.errors import HiposegError
    from hiposeg_cli.runs import is_run, read_run
    from hiposeg_cli.store import open_dataset

    if not is_run(run):
        return None
    try:
        dataset = open_dataset(Path(str(read_run(run).settings["data.path"])))
        rows = dataset.split("val")[:count]
        for row in rows:
            dataset.image(row)
    except (HiposegError, KeyError):  # moved, changed or removed since: nothing the user has to know to go on
        return None
    paths = tuple(dataset.images_root / row.image_path for row in rows)
    return Sample(paths, f"{len(paths)} val photos of {dataset.root}") if paths else None


def _drawn(count: int, folder: Path) -> tuple[Path, ...]:
    import numpy as np

    from hiposeg_cli.demo.draw import draw_scene

    paths = tuple(folder / f"drawn-{number}.jpg" for number in range(count))
    for seed, path in enumerate(paths):
        draw_scene(np.random.default_rng(seed), _DRAWN_PX)[0].save(path, quality=90)
    return paths
