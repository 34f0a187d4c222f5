"""Folders of id PNGs: one label PNG per image with the same stem, in any of the usual folder layouts."""

from __future__ import annotations

from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import index_images, safe_key, walk
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.lookup import Target

_IMAGE_DIRS = ("images", "image", "img_dir", "imgs", "JPEGImages")
_LABEL_DIRS = ("labels", "label", "ann_dir", "annotations", "masks", "SegmentationClass")


class Masks(Reader):
    """SRC/SPLIT/images + SRC/SPLIT/labels, SRC/images/SPLIT + SRC/labels/SPLIT, or SRC/images + SRC/labels."""

    name = "masks"
    honours = frozenset({"label_suffix"})

    def targets(self) -> dict[int, Target]:
        return id_targets(self.table, self.hierarchy, self.labels_from())

    def items(self) -> list[RawItem]:
        items = []
        for split, (image_dir, label_dir) in self._folders().items():
            images = index_images(image_dir, root=self.link_root)
            suffix = (self.options.label_suffix or "") + ".png"
            labels = {
                path.relative_to(label_dir).as_posix().removesuffix(suffix): path
                for path in walk(label_dir, (suffix.lower(),), root=self.link_root)
            }
            for stem in sorted(labels):
                if stem not in images:
                    raise DataError(labels[stem], f"has no image {image_dir / stem}.*", "add the image or remove the labels")
                source = labels[stem].relative_to(self.root).as_posix()
                items.append(RawItem(safe_key(stem), split, images[stem], source))
            if not labels:
                raise DataError(label_dir, f"holds no *{suffix}", "check the folder, or pass --label-suffix")
        return items

    def _folders(self) -> dict[str, tuple[Path, Path]]:
        """Split -> (image folder, label folder), for whichever layout is found."""
        pair = _pair(self.root)
        if pair is None:
            splits = {path.name: _pair(path) for path in sorted(self.root.iterdir()) if path.is_dir()}
            found = {name: split_pair for name, split_pair in splits.items() if split_pair is not None}
            if found:
                return found
            raise DataError(
                self.root, "no folders of images and labels found (SPLIT/images + SPLIT/labels, or images + labels)",
                f"image folders may be named {', '.join(_IMAGE_DIRS)}; label folders {', '.join(_LABEL_DIRS)}",
            )  # fmt: skip
        image_dir, label_dir = pair
        names = [path.name for path in sorted(label_dir.iterdir()) if path.is_dir() and (image_dir / path.name).is_dir()]
        if names and not any(label_dir.glob("*.png")):
            return {name: (image_dir / name, label_dir / name) for name in names}
        return {"train": pair}

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        return RawLabel(read_label_png(self.root / item.source))


def _pair(folder: Path) -> tuple[Path, Path] | None:
    image_dir = next((folder / name for name in _IMAGE_DIRS if (folder / name).is_dir()), None)
    label_dir = next((folder / name for name in _LABEL_DIRS if (folder / name).is_dir()), None)
    return (image_dir, label_dir) if image_dir and label_dir else None
