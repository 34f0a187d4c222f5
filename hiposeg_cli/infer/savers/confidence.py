"""`--save confidence`: how probable the network finds what it says on the finest level, as a grey picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.labelmap import PNG_LEVEL, write_bytes_atomic


class Confidence(Saver):
    """OUT/confidence/PHOTO.png: 8-bit grey, round(255 * probability).

    Divide by 255 to read it. It is no label map: 255 stands for a probability of 1, not for pixels to ignore.
    """

    name = "confidence"
    needs: ClassVar[frozenset[str]] = frozenset({"confidence"})
    suffix = ".png"

    def save(self, prediction: Prediction, path: Path) -> None:
        assert prediction.confidence is not None
        grey = np.clip(prediction.confidence, 0, 1).astype(np.float32)  # float16 would round before we do
        grey *= 255
        buffer = io.BytesIO()
        Image.fromarray(np.rint(grey, out=grey).astype(np.uint8)).save(buffer, "PNG", compress_level=PNG_LEVEL)
        write_bytes_atomic(path, buffer.getvalue())
