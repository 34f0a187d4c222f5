"""Upsampling with argmax: the same ids as interpolating everything and then taking the best, bit for bit, on any scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hiposeg_cli.learn import upsample
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.upsample import Scores

SIDES = st.integers(1, 40)


def plain(scores: Scores) -> Tensor:
    """The way the rest is measured by: all classes at once, on contiguous scores."""

    def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False) if maps.shape[2:] != size else maps

    H, W = scores.seen_size
    full = resized(scores.logits[None].contiguous().float(), scores.padded_size)[..., :H, :W]
    return resized(full, scores.size).argmax(1)[0]


def drawn(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Scores of some kind: rounding decides nearly nothing, or much, or all of it."""
    values = rng.normal(size=shape)
    if kind == "draws":  # few values, so that several classes are best at once
        values = np.round(values)
    elif kind == "nearly draws":  # classes that differ in the last bits
        values = 1 + np.round(values) * 2.0**-23
    elif kind == "large and small":
        values = values * 10.0 ** rng.integers(-30, 30, shape)
    elif kind == "equal":
        values = np.full(shape, -0.0)
    elif kind in ("nan", "inf"):
        values[rng.random(shape) < 0.02] = {"nan": np.nan, "inf": np.inf}[kind] * rng.choice([-1, 1])
    tensor = torch.from_numpy(values.astype(np.float32))
    return tensor.bfloat16() if kind == "bfloat16" else tensor


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["plain", "draws", "nearly draws", "large and small", "equal", "nan", "inf", "bfloat16"]),
    n_classes=st.sampled_from([1, 2, 3, 4, 5, 8, 19, 254, 300]), grid=st.tuples(SIDES, SIDES),
    stride=st.sampled_from([1, 2, 4, 8]), cut=st.tuples(st.integers(0, 31), st.integers(0, 31)),
    factor=st.sampled_from([0.3, 0.9, 1.0, 1.37, 2.0, 3.21]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_ids_are_those_of_the_plain_way(
    kind: str, n_classes: int, grid: tuple[int, int], stride: int, cut: tuple[int, int], factor: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    padded = (grid[0] * stride, grid[1] * stride)
    seen = (max(1, padded[0] - cut[0]), max(1, padded[1] - cut[1]))
    size = (max(1, round(seen[0] * factor)), max(1, round(seen[1] * factor)))
    scores = Scores(drawn(kind, (n_classes, *grid), rng), padded, seen, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "_SMALL_PX", 130)  # torch's other kernel is for 128 and less
        patch.setattr(upsample, "_PLANES_BYTES", 1 << 14)
        patch.setattr(upsample, "_SLAB_PX", 500)
        ids = scores.best_ids()
    assert ids.dtype == (np.uint8 if n_classes <= 254 else np.uint16)
    assert np.array_equal(ids, plain(scores).numpy())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("threads", [1, 2])
def test_layout_and_threads_do_not_matter(layout: torch.memory_format, threads: int) -> None:
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    logits = torch.randn(2, 7, 40, 70, generator=generator)
    output = Output(logits.contiguous(memory_format=layout), logits, (150, 270), (160, 280))
    torch.set_num_threads(threads)
    try:
        for index in (0, 1):
            scores = Scores.of(output, index, (333, 555))
            assert np.array_equal(scores.best_ids(), plain(scores).numpy())
            assert torch.equal(scores.full().argmax(0), plain(scores))
    finally:
        torch.set_num_threads(before)


def test_scores_at_their_size_are_left_alone() -> None:
    logits = torch.randn(3, 200, 300, generator=torch.Generator().manual_seed(1))
    scores = Scores.at_size(logits)
    assert torch.equal(scores.full(), logits)
    assert np.array_equal(scores.best_ids(), logits.argmax(0).numpy())
