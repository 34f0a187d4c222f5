"""YOLO segmentation: a text file per image with one polygon per region, and the data.yaml that ultralytics reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.base import Exporter, Results, class_of, flat_names, segment_map
from hiposeg_cli.exports.contours import Points, join_lines, regions_of
from hiposeg_cli.exports.folder import write_text
from hiposeg_cli.exports.photos import photo_suffix, place_photo
from hiposeg_cli.labelmap import ranked
from hiposeg_cli.store import Row

_MIN_SIDE_PX = 10  # ultralytics drops smaller images as corrupt


class YoloSeg(Exporter[None]):
    """images/SPLIT/NAME.jpg, labels/SPLIT/NAME.txt and data.yaml.

    Ids are those of the level without its background class, which is what YOLO has no polygons for.
    """

    name = "yolo-seg"

    def check(self) -> None:
        self._names = {place: name for split in self.splits for place, name in flat_names(self.dataset.split(split)).items()}
        kept = [node for node in self.classes.nodes if node.kind != "background"]
        if not kept:
            raise ConfigError(f"--as {self.name}", f"the level {self.classes.name!r} has only a background class", "")
        self._ids = {node.id: number for number, node in enumerate(kept)}
        self._class_names = {number: node.name for number, node in enumerate(kept)}

    def write(self, folder: Path, results: Results[None]) -> None:
        for split in self.splits:
            for _ in results(split):
                pass
        data = {**self._paths(), "names": self._class_names}
        write_text(folder / "data.yaml", yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=1_000_000))
        if ignored := self.ignored_px():
            self.warnings.append(f"{ignored} pixels without a class at this level become background: YOLO has no ignore")
        if small := sum(min(row.width, row.height) < _MIN_SIDE_PX for row in self.rows()):
            self.warnings.append(f"{small} images have a side below {_MIN_SIDE_PX} pixels; ultralytics leaves them out")

    def _paths(self) -> dict[str, str]:
        """`train` and `val`, both of which ultralytics wants, and the other splits; relative to data.yaml."""
        paths = {split: f"images/{split}" for split in self.splits}
        for needed in ("train", "val"):
            if needed not in paths:
                other = next(name for name in ("val", "train", *self.splits) if name in self.splits)
                paths[needed] = f"images/{other}"
                self.warnings.append(f"there is no split {needed!r}, which data.yaml must name; it names {other!r} instead")
        order = dict.fromkeys(("train", "val", *sorted(paths)))
        return {split: paths[split] for split in order}

    def convert(self, row: Row, folder: Path) -> None:
        """Write the polygons of one image; an image without any gets an empty file."""
        labels = self.labels(row)
        segments = segment_map(self.class_map(labels), self.dataset.instances(row))
        lines = [f"{class_id} {_text(points, row)}\n" for class_id, points in self._polygons(segments)]
        name = self._names[row.split, row.key]
        assert self.images is not None
        place_photo(self.dataset, row, folder / "images" / row.split / f"{name}{photo_suffix(row)}", self.images)
        write_text(folder / "labels" / row.split / f"{name}.txt", "".join(lines))

    def _polygons(self, segments: NDArray[np.int64]) -> Iterator[tuple[int, Points]]:
        """(class number, closed line): one per region, or one per object with its pieces joined."""
        values, ranks = ranked(segments)
        for rank, box in enumerate(ndimage.find_objects(ranks + 1)):
            segment = int(values[rank])
            class_id = self._ids.get(class_of(segment)) if segment >= 0 else None
            if class_id is None:
                continue
            corner = np.array([box[1].start, box[0].start])
            lines = [region.joined() + corner for region in regions_of(segments[box] == segment)]
            is_object = segment & 0xFFFF > 0
            for line in [join_lines(lines)] if is_object else lines:
                yield class_id, line


def _text(points: Points, row: Row) -> str:
    """Coordinates as shares of the image's width and height."""
    shares = points / np.array([row.width, row.height])
    return " ".join(f"{share:.9g}" for share in shares.ravel().tolist())
