"""The predictions that are scored: label PNGs of any model in a folder, or a network that is run here.

Label PNGs hold the ids of the hierarchy, or official ids of a format, which go through the table of the format. A folder
holds a map for each image, or `hiposeg predict`'s folders of the levels, and then predictions have levels of their own.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError, HierarchyError, HiposegError, did_you_mean
from hiposeg_cli.evaluation.encoding import encode, encode_fine
from hiposeg_cli.evaluation.matching import Matched, match
from hiposeg_cli.evaluation.truth import RawTruth, Truth, TruthImage
from hiposeg_cli.formats.coco_stuff import CODINGS
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, ignore_value, on_every_level, read_label_png, valid_pixels
from hiposeg_cli.lookup import LookUp, Target
from hiposeg_cli.remarks import collected

Photo = NDArray[np.uint8]  # (H, W, 3)
_USUAL = ("fine", "coarse")  # folders of the label-map levels, whatever the hierarchy calls these
OBJECTS = "object-number"  # stands beside the names of levels where files are listed


class UnknownIds(DataError):
    """Official ids that the hierarchy's table of their format does not know."""


class SaidChain(Protocol):
    """The best leaf and its ancestors, one (H, W) map a level without void, and how probable each is, (H, W) float32."""

    @property
    def ids(self) -> tuple[LabelArray, ...]: ...

    @property
    def probabilities(self) -> tuple[NDArray[np.float32], ...]: ...

    def said(self, threshold: float) -> tuple[LabelArray, ...]:
        """The maps, void where the probability does not reach the threshold."""


@dataclass(frozen=True)
class Predicted:
    """What is predicted for one image.

    Attributes:
        maps: (H, W) label maps, finest level first: the finest alone where the levels above are its parents, else all.
        where: what names it in messages.
        files: level name -> file.
        chain: for the curve of back-off; None where there is none.
        probabilities: (F, H, W) float32 over the finest classes; None where they are not known.
        numbers: (H, W) object of each pixel, 0 for none; None where objects are not told apart.
        remarks: what is odd about the files and was handled.
    """

    maps: tuple[LabelArray, ...]
    where: object
    files: Mapping[str, str]
    chain: SaidChain | None = None
    probabilities: NDArray[np.float32] | None = None
    numbers: NDArray[np.integer] | None = None
    remarks: tuple[str, ...] = ()


class Predictions(ABC):
    """A side to score.

    Attributes:
        name: what the user called it.
        parallel: images may be read in several processes.
        matched: the files of each level, by its name; none for a run.
    """

    name: Path
    parallel: bool = False
    matched: Mapping[str, Matched] = {}

    @abstractmethod
    def files_of(self, key: str) -> Mapping[str, Path] | None:
        """Level name -> file of an image, none for a run; None for an image without the files it needs."""

    @abstractmethod
    def read(self, image: TruthImage, files: Mapping[str, Path], truth: Truth) -> Predicted:
        """What is predicted for one image, given what `files_of` says of it. Raises DataError when it cannot be read."""


class RunPredictions(Predictions):
    """A network, given as what it makes of an (H, W, 3) photo.

    Args:
        label_maps: as `Predicted.maps`.
        chain: what back-off chooses from, used in place of `label_maps`: the maps are those of the one threshold, and of
            several the finest of 0, which is the leaf rule's.
        probabilities: as `Predicted.probabilities`, if asked for.
    """

    def __init__(
        self, name: Path, label_maps: Callable[[Photo], tuple[LabelArray, ...]], *,
        chain: Callable[[Photo], SaidChain] | None = None, thresholds: tuple[float, ...] = (),
        probabilities: Callable[[Photo], NDArray[np.float32]] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.label_maps, self.chain = name, label_maps, chain
        self.thresholds, self.probabilities = thresholds, probabilities

    def files_of(self, key: str) -> Mapping[str, Path]:
        return {}

    def read(self, image: TruthImage, files: Mapping[str, Path], truth: Truth) -> Predicted:
        photo = truth.photo(image)
        try:
            return self._predicted(photo)
        except HiposegError as error:  # such as too little memory for this photo, which says nothing of the next
            raise DataError(image.photo, error.what, error.cure) from None

    def _predicted(self, photo: Photo) -> Predicted:
        probabilities = self.probabilities(photo) if self.probabilities else None
        if self.chain is None:
            return Predicted(self.label_maps(photo), self.name, {}, None, probabilities)
        chain = self.chain(photo)
        maps = chain.said(self.thresholds[0]) if len(self.thresholds) == 1 else chain.ids[:1]
        return Predicted(maps, self.name, {}, chain, probabilities)


class FolderPredictions(Predictions):
    """Label PNGs in a folder, paired with the images of a truth.

    Args:
        suffix: what follows an image's name in the files' names.
        lookup: from the ids in the files to the hierarchy's; None where they are the hierarchy's own.
        objects: object numbers are wanted: PNGs of 8 or 16 bits in the folder `inst` beside those of the levels.

    Attributes:
        folders: for each level, finest first, its folder, or None where the level follows from the one below.
    Raises: DataError or HierarchyError when the folder cannot be what is asked for.
    """

    parallel = True

    def __init__(
        self, root: Path, truth: Truth, *, suffix: str = "", lookup: LookUp | None = None, objects: bool = False
    ) -> None:
        self.name, self.hierarchy, self.lookup = root, truth.hierarchy, lookup
        self.folders = _level_folders(root, truth.hierarchy)
        if lookup is not None and sum(folder is not None for folder in self.folders) > 1:
            raise ConfigError("--pred-ids", f"does not apply to {root}, which has a folder for each level", "leave it out")
        _require_same_classes(root, truth)
        names = [level.name for level in truth.hierarchy.levels]
        folders = {name: folder for name, folder in zip(names, self.folders, strict=True) if folder is not None}
        folders |= {OBJECTS: _folder_of_objects(root, folders[names[0]])} if objects else {}
        self.matched = {name: match(folder, truth.images, suffix) for name, folder in folders.items()}
        if not any(found.files or found.duplicates or found.ambiguous for found in self.matched.values()):
            raise _nothing_fits(root, self.matched, truth.images, suffix)

    def files_of(self, key: str) -> Mapping[str, Path] | None:
        files = {level: found.files[key] for level, found in self.matched.items() if key in found.files}
        return files if len(files) == len(self.matched) else None

    def read(self, image: TruthImage, files: Mapping[str, Path], truth: Truth) -> Predicted:
        levels = self.hierarchy.levels
        with truth.allowed(image), collected() as remarks:
            found = {level: read_label_png(path) for level, path in files.items() if level != OBJECTS}
            numbers = _object_numbers(files[OBJECTS]) if OBJECTS in files else None
        where, finest = files[levels[0].name], found[levels[0].name]
        maps: tuple[LabelArray, ...] = (finest,)
        if self.lookup is not None:
            maps = self._mapped(finest, where)
        elif len(found) > 1:
            maps = on_every_level([found.get(level.name) for level in levels], self.hierarchy)
        names = {level: str(path) for level, path in files.items() if level in found}
        return Predicted(maps, where, names, numbers=numbers, remarks=tuple(remark.what for remark in remarks))

    def _mapped(self, ids: NDArray[np.integer], where: Path) -> tuple[LabelArray, ...]:
        """Official ids -> the hierarchy's; with maps of the levels above where an id is known on these only."""
        assert self.lookup is not None
        try:
            if not (~valid_pixels(self.lookup.fine) & valid_pixels(self.lookup.coarse)).any():
                return (encode_fine(self.lookup, ids, where),)
            labels = encode(self.lookup, ids, where)
        except DataError as error:
            raise UnknownIds(where, error.what, "check --pred-ids") from None
        return on_every_level([labels.fine, labels.coarse], self.hierarchy)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "matched": {}}  # worker processes are sent an image's files with it


def pred_lookup(name: str, truth: Truth) -> LookUp:
    """From official ids to those of the hierarchy.

    Args:
        name: a format of the hierarchy's sources; `FORMAT-train-ids` of Cityscapes; the codings of COCO-Stuff. Where the
            truth is raw data of that format, its reader's ids.
    Raises: ConfigError for a format whose labels are no ids, HierarchyError for one that the hierarchy does not know.
    """
    if isinstance(truth, RawTruth) and name == truth.reader.name:
        return with_void(truth.reader.targets(), truth.hierarchy, f"--pred-ids {name}")
    return with_void(_published(name, truth.hierarchy), truth.hierarchy, f"--pred-ids {name}")


def _published(name: str, hierarchy: Hierarchy) -> dict[int, Target]:
    where = f"hierarchy {hierarchy.name!r}, source"
    if name == "cityscapes-train-ids":
        ids = id_targets(hierarchy.source("cityscapes"), hierarchy, f"{where} cityscapes")
        return {train_id: ids.get(label_id, (None, None)) for train_id, label_id in enumerate(_CITYSCAPES_EVALUATED)}
    coding = CODINGS.get(name.removeprefix("coco-stuff-")) if name.startswith("coco-stuff-") else None
    if coding is not None:
        ids = id_targets(hierarchy.source("coco-stuff"), hierarchy, f"{where} coco-stuff")
        shifted = {value: ids.get(meant, (None, None)) for value, meant in coding.classes.items()}
        return dict.fromkeys((*coding.never, coding.unlabelled), (None, None)) | shifted
    if name not in hierarchy.sources:
        known = [*hierarchy.sources, *_more_codings(hierarchy)]
        what = f"names no source of the hierarchy {hierarchy.name!r}"
        raise HierarchyError(f"--pred-ids {name}", what, did_you_mean(name, known))
    if not all(isinstance(key, int) for key in hierarchy.source(name).map):
        what = f"is known to the hierarchy {hierarchy.name!r} by names, not by ids"
        cure = f"score against raw data with --format {name}, or name a panoptic JSON with categories and leave it out"
        raise HierarchyError(f"--pred-ids {name}", what, cure)
    return id_targets(hierarchy.source(name), hierarchy, f"{where} {name}")


_CITYSCAPES_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # by trainId


def _more_codings(hierarchy: Hierarchy) -> list[str]:
    codings = [f"coco-stuff-{name}" for name in CODINGS] if "coco-stuff" in hierarchy.sources else []
    return codings + (["cityscapes-train-ids"] if "cityscapes" in hierarchy.sources else [])


def with_void(targets: Mapping[int, Target], hierarchy: Hierarchy, where: object) -> LookUp:
    """The look-up, in which the ignore values of 8 and 16 bits are void unless they are ids."""
    void: dict[int, Target] = {ignore_value(dtype): (None, None) for dtype in (np.uint8, np.uint16)}
    return LookUp(void | dict(targets), hierarchy, where)


def _level_folders(root: Path, hierarchy: Hierarchy) -> list[Path | None]:
    """For each level its folder, if there is one; the folder itself where it has none for the finest."""
    if not root.is_dir():
        raise DataError(root, "no such run or folder", "name a run, a .safetensors file, or a folder of label PNGs")
    folders: list[Path | None] = []
    for depth, level in enumerate(hierarchy.levels):
        names = [level.folder, *_USUAL[depth : depth + 1]]
        folders.append(next((root / name for name in names if (root / name).is_dir()), None))
    return folders if folders[0] is not None else [root, *[None] * (len(folders) - 1)]


def _folder_of_objects(root: Path, finest: Path) -> Path:
    if finest == root:
        cure = "put label maps in its folder fine and object numbers in inst, or name a COCO panoptic JSON"
        raise DataError(root, "has no folder for each level, so object numbers have no place", cure)
    if not (root / "inst").is_dir():
        cure = "put PNGs of object numbers there, 0 for none, or name a COCO panoptic JSON"
        raise DataError(root, "has no folder inst, so its objects are not told apart", cure)
    return root / "inst"


def _object_numbers(path: Path) -> NDArray[np.integer]:
    try:
        return read_label_png(path)
    except DataError as error:
        raise DataError(path, error.what, "save object numbers as grey PNGs of 8 or 16 bits") from None


def _require_same_classes(root: Path, truth: Truth) -> None:
    """Refuse predictions of `hiposeg predict` that were made with another tree."""
    path = root / "predictions.json"
    if not path.is_file():
        return
    try:
        digest = json.loads(path.read_text(encoding="utf-8")).get("hierarchy_digest")
    except (OSError, ValueError, AttributeError):
        raise DataError(path, "cannot be read", "predict again, or remove the file") from None
    if digest not in (None, truth.hierarchy.digest):
        what = f"was made with another hierarchy than {truth.name}"
        raise HierarchyError(root, what, "use predictions and data of one hierarchy")


def _nothing_fits(
    root: Path, matched: Mapping[str, Matched], images: Sequence[TruthImage], suffix: str
) -> DataError:  # fmt: skip
    extra = [path for found in matched.values() for path in found.extra]
    if not extra:
        return DataError(root, "holds neither weights nor *.png", "name a run, or a folder of label PNGs")
    if not images:
        return DataError(root, f"holds {len(extra)} *.png, but there is no image to score", "check DATA and --split")
    ending = f" (with --pred-suffix {suffix})" if suffix else ""
    what = f"holds {len(extra)} *.png such as {extra[0].name}{ending}, none named after an image such as {images[0].key}"
    return DataError(root, what, "pass --pred-suffix for what follows the name, or check DATA and --split")
