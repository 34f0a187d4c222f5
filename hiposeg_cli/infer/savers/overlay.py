"""`--save overlay`: the photo beside its coloured label maps, every level with a legend, as a JPEG."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.report.overlay import write_panels


class Overlay(Saver):
    """OUT/overlay/PHOTO.jpg; a photo above 16 megapixels is shown at a fraction of its size."""

    name = "overlay"
    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    suffix = ".jpg"

    def save(self, prediction: Prediction, path: Path) -> None:
        write_panels(path, prediction.image, list(zip(prediction.hierarchy.levels, prediction.maps, strict=True)))
