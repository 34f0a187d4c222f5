"""MMSegmentation: img_dir and ann_dir by split, the class table, and a dataset configuration that reads them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.base import Exporter, Results, label_bytes
from hiposeg_cli.exports.folder import write_text
from hiposeg_cli.exports.photos import photo_suffix, place_photo, place_png
from hiposeg_cli.labelmap import ignore_value, label_dtype, write_bytes_atomic
from hiposeg_cli.store import Row

_CONFIG_HEAD = """\
# Datasets of an MMSegmentation 1.x configuration: put this file's path into `_base_`.
# Ids are class ids from 0 and 255 is ignore, so nothing is shifted: reduce_zero_label stays False.
_base_ = ["./mmseg_metainfo.py"]

data_root = "{{ fileDirname }}"
load_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
"""
_CONFIG_SPLIT = """
{split}_dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    ann_file="splits/{name}.txt",
    data_prefix=dict(img_path="img_dir/{name}", seg_map_path="ann_dir/{name}"),
    img_suffix="{suffix}",
    seg_map_suffix=".png",
    metainfo={{{{_base_.METAINFO}}}},
    ignore_index=255,
    reduce_zero_label=False,
    pipeline=load_pipeline,
)
"""


class MMSeg(Exporter[None]):
    """img_dir/SPLIT/KEY.jpg, ann_dir/SPLIT/KEY.png, splits/SPLIT.txt, mmseg_metainfo.py and mmseg_dataset.py."""

    name = "mmseg"

    def check(self) -> None:
        """Refuse what mmseg reads wrongly: its LoadAnnotations casts every label map to uint8."""
        if label_dtype(len(self.classes)).itemsize > 1:
            raise ConfigError(
                f"--as {self.name}", f"holds 254 classes, and the level {self.classes.name!r} has {len(self.classes)}: "
                "mmsegmentation reads label maps as 8 bit, and ids from 256 on would wrap around",
                "export --level coarse" if self.level == "fine" else "choose another format",
            )  # fmt: skip
        assert ignore_value(label_dtype(len(self.classes))) == 255
        suffixes = {photo_suffix(row) for row in self.rows()}
        self._suffix = suffixes.pop() if len(suffixes) == 1 else ".png"
        if suffixes:
            self.warnings.append("photos of several kinds were all written as PNG: mmseg takes one file ending a dataset")

    def write(self, folder: Path, results: Results[None]) -> None:
        classes = tuple(self.classes.names)
        palette = [list(node.color) for node in self.classes.nodes]
        write_text(
            folder / "mmseg_metainfo.py", f"METAINFO = dict(\n    classes={classes!r},\n    palette={palette!r},\n)\n"
        )
        config = _CONFIG_HEAD
        for split in self.splits:
            config += _CONFIG_SPLIT.format(split=_identifier(split), name=split, suffix=self._suffix)
            keys = [row.key for row, _ in results(split)]
            write_text(folder / "splits" / f"{split}.txt", "".join(f"{key}\n" for key in keys))
        write_text(folder / "mmseg_dataset.py", config)
        if self.level == "fine" and (lost := sum(row.coarse_only_px for row in self.rows())):
            self.warnings.append(f"{lost} pixels with a coarse class only are ignore here; --level coarse keeps them")

    def convert(self, row: Row, folder: Path) -> None:
        """Put one image and its label PNG, as it was prepared, in place."""
        target = folder / "img_dir" / row.split / f"{row.key}{self._suffix}"
        if photo_suffix(row) == self._suffix:
            assert self.images is not None
            place_photo(self.dataset, row, target, self.images)
        else:
            place_png(self.dataset, row, target)
        assert self.level is not None
        path = folder / "ann_dir" / row.split / PurePosixPath(f"{row.key}.png")
        write_bytes_atomic(path, label_bytes(self.dataset, row, self.level))


def _identifier(split: str) -> str:
    """A split's name as part of a Python variable."""
    text = "".join(char if char.isalnum() else "_" for char in split)
    return text if text[:1].isalpha() else f"split_{text}"
