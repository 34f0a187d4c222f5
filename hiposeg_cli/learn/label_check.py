"""Whether a dataset's labels can be learned from, seen from the manifest alone, before the first step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.store import Dataset, Row

_MOST_NAMES = 5


def check_labels(dataset: Dataset, needs: frozenset[str]) -> list[str]:
    """Look at the class counts of the training and validation rows, for the levels that a method needs.

    Returns: warnings about validation: none at all, without labels, or with classes that training never shows; and
        about a training split of a single class, or with images that a method without coarse labels cannot use.
    Raises: DataError when training has no labelled pixel of a level, or counts a class beyond the hierarchy.
    """
    warnings = []
    if not dataset.rows.get("val"):
        warnings.append(f"{dataset.root} has no split 'val': nothing is scored, and best weights are the last")
    if "coarse" not in needs:
        alone = sum(bool(row.coarse_counts) and not row.fine_counts for row in dataset.split("train"))
        if alone:
            warnings.append(f"{alone} training images have coarse labels only, and this method learns from fine ones")
    for kind, level in (("fine", dataset.hierarchy.fine), ("coarse", dataset.hierarchy.coarse)):
        if kind in needs:
            shown = {split: shown_classes(dataset, split, kind) for split in ("train", "val")}
            warnings += _compare(dataset, kind, level, shown["train"], shown["val"])
    return warnings


def class_pixels(rows: Iterable[Row], kind: str) -> Counter[str]:
    """Pixels of each class of the level `kind` (`fine` or `coarse`) in some rows, by class id as a manifest writes it."""
    pixels: Counter[str] = Counter()
    for row in rows:
        pixels.update(row.fine_counts if kind == "fine" else row.coarse_counts)
    return pixels


def level_pixels(rows: Iterable[Row], hierarchy: Hierarchy) -> tuple[NDArray[np.int64], ...]:
    """(n_v,) int64 labelled pixels of each class in some rows, one array a level, finest first."""
    rows = tuple(rows)
    levels = []
    for kind, level in (("fine", hierarchy.fine), ("coarse", hierarchy.coarse)):
        found = class_pixels(rows, kind)
        levels.append(np.array([found[str(node.id)] for node in level.nodes], dtype=np.int64))
    for depth in range(2, len(hierarchy.levels)):
        upwards = np.empty(hierarchy.n_coarse, dtype=np.int64)  # every coarse class has a leaf below it
        upwards[hierarchy.parent] = hierarchy.ancestors(depth)
        levels.append(np.bincount(upwards, weights=levels[1]).astype(np.int64))
    return tuple(levels)


def shown_classes(dataset: Dataset, split: str, kind: str) -> set[int]:
    """Ids of the level `kind` (`fine`, `coarse`) in a split. Raises DataError for one that the hierarchy lacks."""
    level = dataset.hierarchy.fine if kind == "fine" else dataset.hierarchy.coarse
    found = class_pixels(dataset.rows.get(split, ()), kind)
    known = {str(node.id) for node in level.nodes}
    for class_id in found:
        if class_id not in known:
            raise DataError(
                dataset.root / "manifest" / f"{split}.jsonl", f"counts pixels of the {kind} class {class_id}, but the "
                f"hierarchy has the classes 0 to {len(level) - 1}", "prepare the data again",
            )  # fmt: skip
    return {int(class_id) for class_id, n_pixels in found.items() if n_pixels > 0}


def _compare(dataset: Dataset, kind: str, level: Level, train: set[int], val: set[int]) -> list[str]:
    if not train:
        raise DataError(
            dataset.root, f"the split 'train' has no pixel with a {kind} label, which this method learns from",
            "prepare labelled images, or choose a --method that needs no such labels",
        )  # fmt: skip
    warnings = []
    if len(train) == 1:
        name = level.names[min(train)]
        warnings.append(f"every {kind} label of the split 'train' is {name!r}: there is nothing to tell apart")
    if dataset.rows.get("val") and not val:
        warnings.append(f"the split 'val' has no pixel with a {kind} label: its scores on this level will be empty")
    unseen = [level.names[class_id] for class_id in sorted(val - train)]
    if unseen:
        named = ", ".join(repr(name) for name in unseen[:_MOST_NAMES]) + (", ..." if len(unseen) > _MOST_NAMES else "")
        classes = "class occurs" if len(unseen) == 1 else "classes occur"
        warnings.append(f"{len(unseen)} {kind} {classes} in 'val' but never in 'train', and cannot be learned: {named}")
    return warnings
