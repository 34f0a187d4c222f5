"""What a network says about a photo, as arrays: a map of every level and, where asked for, how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import ignore_value
from hiposeg_cli.learn.decode import Decode, LevelMaps
from hiposeg_cli.learn.upsample import Scores


@dataclass(frozen=True)
class Said:
    """Attributes as in `Prediction`; `maps` may lack the levels that are parents of the finest."""

    maps: LevelMaps
    confidence: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float16] | None = None


@torch.inference_mode()
def read(scores: Scores, decode: Decode, hierarchy: Hierarchy, needs: frozenset[str]) -> Said:
    """Decode the scores of one photo, or of a part of it.

    The confidence is the probability of the class the finest map says; where it says none, that of the best class.
    """
    if not needs & {"confidence", "probabilities"}:
        return Said(decode.read(scores, hierarchy))
    logits = scores.full()
    maps, probabilities = decode.maps(logits, hierarchy), logits.softmax(dim=0)
    fine = torch.from_numpy(maps[0].astype(np.int64)).to(logits.device)
    void = fine == ignore_value(maps[0].dtype)
    said = probabilities.gather(0, fine.masked_fill(void, 0)[None])[0]
    confidence = torch.where(void, probabilities.amax(dim=0), said)
    half = probabilities.half().cpu().numpy() if "probabilities" in needs else None
    return Said(maps, confidence.cpu().numpy() if "confidence" in needs else None, half)
