"""Checks P31 to P40 of a prepared dataset: every manifest row, its files, and the dataset as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.graph import findings as graph_remarks
from hiposeg_cli.hierarchy import Hierarchy, Level, fold
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.inspection.findings import Diagnosis, Findings
from hiposeg_cli.inspection.folder import AGAIN, Folder, open_folder
from hiposeg_cli.inspection.label_files import FileCheck, Task
from hiposeg_cli.inspection.leaks import near_duplicates
from hiposeg_cli.inspection.manifest import ManifestCheck
from hiposeg_cli.labelmap import label_dtype
from hiposeg_cli.pool import Progress, Workers, mapped
from hiposeg_cli.store import Row, sha256_file

SAMPLE = 200  # label maps decoded where hashes hold and not all are asked for
_MOSTLY_IGNORED = 0.5


@dataclass(frozen=True)
class CheckOptions:
    """How thoroughly.

    Attributes:
        fast: read no file as a whole; existence, kind and size only.
        full: decode every label map, not only a sample and those whose hash differs.
        near: look for near-duplicates across splits, which decodes every photo once.
    """

    fast: bool = False
    full: bool = False
    near: bool = False
    workers: Workers = field(default_factory=Workers)


def check_prepared(root: Path, options: CheckOptions, progress: Progress = lambda done, total: None) -> Diagnosis:
    """Make all checks on a prepared dataset. Raises DataError when the folder holds none that can be read."""
    folder, found = open_folder(root), Findings()
    facts: dict[str, Any] = {"images": dict(folder.splits), "hierarchy": folder.about.get("hierarchy")}
    hierarchy = _hierarchy(folder, found)
    if hierarchy is not None:
        facts |= _check_rows(folder, hierarchy, options, found, progress)
    return Diagnosis("prepared", str(root), found, facts)


def _hierarchy(folder: Folder, found: Findings) -> Hierarchy | None:
    """P31 and P32; None when the taxonomy cannot be used, which ends the checks."""
    path, about = folder.hierarchy_path, folder.about
    found.did("P31")
    try:
        hierarchy = load_hierarchy(path)
    except HierarchyError as error:
        found.error("P31", error.where, error.what, error.cure or AGAIN)
        found.note("P31", path, "nothing else was checked, since everything hangs on the hierarchy")
        return None
    for remark in graph_remarks(hierarchy):
        found.note("P31", path, remark)
    found.did("P32")
    if hierarchy.digest != about["hierarchy_digest"]:
        what = f"its tree has the digest {hierarchy.digest[:12]}..., dataset.json says {about['hierarchy_digest'][:12]}..."
        found.error("P32", path, what, "restore the file the dataset was prepared with, or prepare again")
    elif sha256_file(path) != about["hierarchy_sha256"]:
        what = "was changed after the dataset was prepared (the tree is the same)"
        found.error("P32", path, what, "restore the file, or prepare again")
    return hierarchy


def _check_rows(
    folder: Folder, hierarchy: Hierarchy, options: CheckOptions, found: Findings, progress: Progress
) -> dict[str, Any]:
    """P33 to P40; returns facts for the report."""
    with_photos = folder.images_root.is_dir()
    if not with_photos:
        cure = f"put the raw data back, or set `images_root` in {folder.root / 'dataset.json'}"
        found.error("P33", folder.images_root, "the folder of the photos is missing; no photo was checked", cure)
    manifest = ManifestCheck(folder, found)
    job = FileCheck(
        folder.root, folder.images_root, hierarchy, bool(folder.about["coarse_is_function_of_fine"]),
        with_hashes=not options.fast, with_photos=with_photos, near=options.near,
    )  # fmt: skip
    looks: dict[tuple[str, str], int] = {}
    n_decoded = 0
    tasks = _tasks(manifest.rows(), folder.n_images, options)
    for outcome in mapped(job, tasks, total=folder.n_images, workers=options.workers, progress=progress):
        found.extend(outcome.findings)
        found.examined.update(outcome.examined)
        n_decoded += outcome.examined["P36"]
        if outcome.look is not None:
            looks[outcome.split, outcome.key] = outcome.look
    _classes(manifest, "fine", hierarchy.fine)
    _classes(manifest, "coarse", hierarchy.coarse)
    _ignored(manifest)
    _photos(manifest, looks)
    _exporters(folder, hierarchy, found)
    if manifest.complete:
        _extra_files(manifest)
    leaked = sorted(manifest.duplicates.leaked.items())
    return {
        "ignore_share": {split: _share(pixels["ignore"], pixels["total"]) for split, pixels in manifest.pixels.items()},
        "hashed": not options.fast, "label_maps_decoded": n_decoded, "near_duplicates_searched": options.near,
        "leaks": [{"split": split, "other_split": other, "images": count} for (split, other), count in leaked],
    }  # fmt: skip


def _tasks(rows: Iterator[Row], n_images: int, options: CheckOptions) -> Iterator[Task]:
    """Every row, marked whether its label maps are decoded even if their hashes hold: evenly spread over the rows."""
    step = 1 if options.full else max(1, -(-n_images // SAMPLE))
    for number, row in enumerate(rows):
        yield Task(row, decode=not options.fast and number % step == 0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _classes(manifest: ManifestCheck, name: str, level: Level) -> None:
    """P37: classes that are never seen, or only where nothing is learnt."""
    found, path = manifest.found, manifest.folder.hierarchy_path
    seen = {
        split: {class_id for (at, class_id), pixels in counts.items() if at == name and pixels}
        for split, counts in manifest.classes.items()
    }
    found.did("P37", len(level))
    everywhere = set().union(*seen.values())
    beyond = sorted(everywhere - set(range(len(level))))
    if beyond:
        what = f"counts {name} id {beyond[0]}, but the level has {len(level)} classes"
        found.error("P37", manifest.folder.root / "manifest", what, AGAIN)
    never = [node.name for node in level.nodes if node.id not in everywhere]
    if never:
        found.note("P37", path, f"{len(never)} of {len(level)} {name} classes have no pixel: {_some(never)}")
    if "train" in seen:
        elsewhere = set().union(*(ids for split, ids in seen.items() if split != "train"))
        untrained = [node.name for node in level.nodes if node.id in elsewhere - seen["train"]]
        if untrained:
            what = (
                f"{len(untrained)} of {len(level)} {name} classes occur in other splits but not in train: {_some(untrained)}"
            )
            found.note("P37", path, what, "move images to train, or leave the classes out of the evaluation")


def _ignored(manifest: ManifestCheck) -> None:
    """P38 by split."""
    for split, pixels in manifest.pixels.items():
        share = _share(pixels["ignore"], pixels["total"])
        if share > _MOSTLY_IGNORED:
            what = f"{100 * share:.1f} % of the pixels are ignore"
            manifest.found.note("P38", manifest.folder.manifest(split), what, "nothing is learnt or scored there")


def _photos(manifest: ManifestCheck, looks: dict[tuple[str, str], int]) -> None:
    """P39 beyond equal files: photos repeated in one split, and near-equal ones in two."""
    found, cure = manifest.found, "look at both, and keep them in one split if they show one scene"
    for split, count in manifest.duplicates.repeated.items():
        found.note("P39", manifest.folder.manifest(split), f"holds photos more than once: {count}", "keep one of each")
    looks = {place: look for place, look in looks.items() if place not in manifest.duplicates.leaking}
    for leak in near_duplicates(list(looks.values()), [split for split, _ in looks], [key for _, key in looks]):
        where = manifest.folder.manifest(leak.split)
        what = f"{leak.key} looks like {leak.other_key} of {leak.other_split} ({leak.distance} of 64 hash bits differ)"
        found.warning("P39", where, what, cure)


def _exporters(folder: Folder, hierarchy: Hierarchy, found: Findings) -> None:
    """P40: what other programs would misread."""
    if label_dtype(hierarchy.n_fine).itemsize > 1:
        what = f"{hierarchy.n_fine} fine classes are stored with 16 bits, which mmsegmentation 0.x reads as 8"
        found.note("P40", folder.root / "labels" / "fine", what, "use mmsegmentation 1.x")


def _extra_files(manifest: ManifestCheck) -> None:
    """P40: files in the dataset's own folders that no row names."""
    root = manifest.folder.root
    named = {root / folder / f"{split}{suffix}" for split in manifest.keys
             for folder, suffix in (("manifest", ".jsonl"), ("splits", ".txt"))}  # fmt: skip
    n_extra, first = 0, ""
    for top in ("labels", "images", "manifest", "splits"):
        for path in (root / top).rglob("*"):
            if path.is_file() and path not in named and not _belongs(path.relative_to(root), manifest):
                n_extra, first = n_extra + 1, min(first or str(path), str(path))
    if n_extra:
        what = "is in no manifest" + (f", like {n_extra - 1} more files" if n_extra > 1 else "")
        manifest.found.warning("P40", first, what, "remove what does not belong there, or prepare again")


def _belongs(path: Path, manifest: ManifestCheck) -> bool:
    """Whether a label map (labels/LEVEL/SPLIT/KEY.png) or copied photo (images/SPLIT/KEY.*) is one a row names."""
    place = path.parts[1:] if path.parts[0] == "images" else path.parts[2:]
    if path.parts[0] not in ("images", "labels") or len(place) < 2:
        return False
    if path.parts[0] == "labels" and (path.parts[1] not in ("fine", "coarse", "inst") or path.suffix != ".png"):
        return False
    key = "/".join(place[1:]).removesuffix(path.suffix)
    return manifest.keys.get(place[0], {}).get(fold(key)) == key


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
