"""`--save probs`: the probability of every finest class at every pixel, as NumPy reads it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.labelmap import write_bytes_atomic


class Probs(Saver):
    """OUT/probs/PHOTO.npz: `probabilities` (F, H, W) float16 and `classes` (F,) text, names in id order; zlib inside.

    Two bytes a class and pixel before compression: 58 classes at 500 x 375 are 22 MB, 19 at 2048 x 1024 are 80 MB. Read
    with `numpy.load(path)["probabilities"]`; nothing in it is pickled.
    """

    name = "probs"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    suffix = ".npz"

    def save(self, prediction: Prediction, path: Path) -> None:
        assert prediction.probabilities is not None
        scores = prediction.probabilities.astype(np.float16, copy=False)
        arrays = {"probabilities": scores, "classes": np.array(prediction.hierarchy.fine.names, dtype=np.str_)}
        buffer = io.BytesIO()
        # What numpy.savez_compressed writes, but at level 1: level 6 takes twice as long and saves a few percent.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for name, array in arrays.items():
                with packed.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        write_bytes_atomic(path, buffer.getvalue())
