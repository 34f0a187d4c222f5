"""Windows and views: blended parts equal the whole where they should, whatever is held in memory; left and right change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from predict_toys import ByColour, BySide, ids, noise, results, run, toy_model, write_photos

from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.infer import windows
from hiposeg_cli.infer.said import read
from hiposeg_cli.infer.views import SCALES, Looker, Views, parse_views
from hiposeg_cli.infer.windows import Grid, Tiling, gaussian, segment_by_windows, starts
from hiposeg_cli.labelmap import on_every_level
from hiposeg_cli.learn.decode import Decode
from hiposeg_cli.learn.upsample import Scores

ALL = frozenset({"confidence", "probabilities"})


def by_windows(model: Any, photo: Any, tiling: Tiling, *, needs: frozenset[str] = ALL, batch: int = 2) -> Any:
    size = model.checkpoint.about["size"]
    grid = Grid(photo.shape[:2], tiling, max(photo.shape[:2]) / (size or max(photo.shape[:2])), 7)
    return segment_by_windows(Looker(model, Views()), photo, grid, size, needs, batch)


# -- windows -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 100), st.integers(1, 100))
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int, step: int) -> None:
    window, step = min(window, length), min(window, step)
    found = starts(length, window, step)
    assert found == sorted(set(found))
    covered = {pixel for start in found for pixel in range(start, start + window)}
    assert covered == set(range(length))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), side=st.integers(1, 50), share=st.floats(0, 0.99),
    batch=st.integers(1, 3), budget=st.sampled_from([1, 1 << 14, 1 << 30]),
)  # fmt: skip
def test_a_network_that_sees_single_pixels_says_the_same_through_windows(
    height: int, width: int, side: int, share: float, batch: int, budget: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, photo = toy_model(tmp_path_factory.mktemp("toy")), noise(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_PANEL_BYTES", budget)
        said = by_windows(model, photo, Tiling(side, int(side * share)), batch=batch)
    (scores,) = Looker(model, Views()).look([[photo]], [(height, width)])
    whole = read(scores, Decode(), model.hierarchy, ALL)
    assert np.array_equal(said.maps[0], whole.maps[0])
    assert np.allclose(said.confidence, whole.confidence, rtol=1e-5)
    assert np.allclose(said.probabilities, whole.probabilities, atol=2e-3)  # float16


@pytest.mark.parametrize("budget", [1, 12_000, 1 << 30])
def test_blending_is_the_weighted_mean_over_the_windows(
    budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that sees where in its window a pixel lies, against the sum over all windows at once."""
    model, photo, tiling = toy_model(tmp_path, BySide()), noise(50, 70), Tiling(24, 9)
    monkeypatch.setattr(windows, "_PANEL_BYTES", budget)
    said = by_windows(model, photo, tiling)
    sums, weights = np.zeros((7, 50, 70)), np.zeros((50, 70))
    one = torch.zeros(7, 24, 24)
    one[4, :, :12] = one[5, :, 12:] = 1
    one = one.softmax(0)
    offset = (np.arange(24) - 11.5) / 3
    weight = np.exp(-(offset[:, None] ** 2 + offset**2) / 2)
    for top in (0, 15, 26):
        for left in (0, 15, 30, 45, 46):
            sums[:, top : top + 24, left : left + 24] += weight * one.numpy()
            weights[top : top + 24, left : left + 24] += weight
    right = sums / weights
    assert np.allclose(said.probabilities, right, atol=1e-3)
    clear = np.abs(right[4] - right[5]) > 1e-5
    assert clear.mean() > 0.9
    assert np.array_equal(said.maps[0][clear], right.argmax(0)[clear])


def test_the_gaussian_is_that_of_nnunet() -> None:
    weights = gaussian(64)
    assert np.array_equal(weights, weights[::-1])
    assert weights[32] / weights[40] == pytest.approx(np.exp((8.5**2 - 0.5**2) / 2 / 8**2), rel=1e-5)
    assert weights.min() > 1e-4
    assert gaussian(1) == [1]


@pytest.mark.parametrize("decode", [Decode("sum"), Decode("path-sum"), Decode("top-down"), Decode("back-off", 0.4)])
def test_every_rule_reads_windows(decode: Decode, tmp_path: Path) -> None:
    from dataclasses import replace

    model, photo = replace(toy_model(tmp_path), decode=decode), noise(60, 80)
    said = by_windows(model, photo, Tiling(32, 8), needs=frozenset())
    whole = model.label_maps(photo)
    assert len(said.maps) == len(whole)
    for part, right in zip(on_every_level(said.maps, model.hierarchy), on_every_level(whole, model.hierarchy), strict=True):
        assert (part == right).mean() > 0.999  # logarithms of probabilities round


def test_windows_follow_the_size_the_network_sees(tmp_path: Path) -> None:
    """A photo of 200 px that the network sees as 100 px has windows of 64 px there, which are 128 px of the photo."""
    net = ByColour(7)
    model = toy_model(tmp_path, net, size=100)
    by_windows(model, noise(160, 200), Tiling(64, 16), batch=1)
    assert set(net.batches) == {(1, 3, 64, 64)}
    assert len(net.batches) == 4


def test_a_photo_no_larger_than_a_window_is_looked_at_whole(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"small": (40, 50), "wide": (30, 90), "large": (90, 90)})
    net = ByColour(7)
    model = toy_model(tmp_path, net)
    run(model, photos, tmp_path / "whole")
    net.batches.clear()
    run(model, photos, tmp_path / "out", tiling=Tiling(64, 16), batch=2)
    assert sorted(net.batches) == [(1, 3, 40, 50), (2, 3, 30, 64), (2, 3, 64, 64), (2, 3, 64, 64)]
    assert {name: data for name, data in results(tmp_path / "out").items() if "small" in name} == {
        name: data for name, data in results(tmp_path / "whole").items() if "small" in name
    }


def test_the_whole_photo_is_never_held_as_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest, genuine = [0], torch.zeros

    def noted(*shape: Any, **options: Any) -> Any:
        made = genuine(*shape, **options)
        largest[0] = max(largest[0], made.nbytes)
        return made

    monkeypatch.setattr(torch, "zeros", noted)
    monkeypatch.setattr(windows, "_PANEL_BYTES", 100_000)
    by_windows(toy_model(tmp_path), noise(1000, 900), Tiling(32, 8), needs=frozenset())
    assert 50_000 < largest[0] <= 100_000


def test_windows_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    grid = Grid((20_000, 20_000), Tiling(512, 0), 30.0, 100)
    with pytest.raises(HiposegError, match=r"GiB.*smaller --tile"):
        grid.check_memory()
    with pytest.raises(ConfigError, match="--overlap 64"):
        Tiling(64, 64)


# -- views -------------------------------------------------------------------------------------------------------------


def test_words_of_tta() -> None:
    assert parse_views("", "") == Views()
    assert parse_views("flip", "") == Views((1.0,), flip=True)
    assert parse_views("scales,flip", "") == Views(SCALES, flip=True)
    assert parse_views("", "1,0.5,1") == Views((1.0, 0.5))
    for tta, scales, word in (("flop", "", "did you mean 'flip'"), ("", "1,x", "no list"), ("", "0", "range")):
        with pytest.raises(ConfigError, match=word):
            parse_views(tta, scales)


def test_a_flip_exchanges_left_and_right(tmp_path: Path) -> None:
    """The network says left on the left of what it sees; mirrored, that is the right of the photo, on its right."""
    photo = noise(20, 30)
    (plain,) = Looker(toy_model(tmp_path, BySide()), Views()).look([[photo]], [(20, 30)])
    (both,) = Looker(toy_model(tmp_path, BySide()), Views(flip=True)).look([[photo]], [(20, 30)])
    assert torch.allclose(both.full().softmax(0), plain.full().softmax(0), atol=1e-6)
    assert (both.best_ids()[:, :15] == 4).all()
    assert (both.best_ids()[:, 15:] == 5).all()


def test_a_flip_turns_the_picture_too(tmp_path: Path) -> None:
    model, photo = toy_model(tmp_path, ByColour(7)), noise(20, 30)
    (both,) = Looker(model, Views(flip=True)).look([[photo]], [(20, 30)])
    (plain,) = Looker(model, Views()).look([[photo]], [(20, 30)])
    p = plain.full().softmax(0)
    swapped = p[[0, 1, 2, 3, 5, 4, 6]]  # a network that does not see sides says left and right alike
    assert torch.allclose(both.full().exp(), (p + swapped) / 2, atol=1e-6)


def test_scales_are_averaged_as_probabilities_at_the_photos_size(tmp_path: Path) -> None:
    net = ByColour(7)
    model, photos = toy_model(tmp_path, net), [noise(40, 60, seed) for seed in (0, 1)]
    looker = Looker(model, Views((0.5, 1.0, 1.5)))
    found = looker.look([looker.seen(photo, None) for photo in photos], [(40, 60)] * 2)
    assert net.batches == [(2, 3, 21, 32), (2, 3, 40, 60), (2, 3, 60, 90)]  # no side below 32 px
    for photo, scores in zip(photos, found, strict=True):
        total = torch.zeros(7, 40, 60)
        for side in (32, 60, 90):
            seen = np.array(Image.fromarray(photo).resize((side, round(40 * side / 60)), Image.Resampling.BILINEAR))
            output = net(torch.from_numpy(seen).permute(2, 0, 1)[None])
            total += Scores.of(output, 0, (40, 60)).full().softmax(0)
        assert torch.allclose(scores.full().exp(), total / 3, atol=1e-6)


def test_views_through_windows_and_batches(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"a": (50, 70), "b": (50, 70), "c": (20, 20)})
    model = toy_model(tmp_path)
    views = Views((1.0, 1.25))  # mirrored too, this network would find left and right equal, and rounding would decide
    for batch in (1, 2):
        done = run(model, photos, tmp_path / f"out{batch}", views=views, tiling=Tiling(32, 8), batch=batch)
        assert (done.done, done.failures) == (3, ())
    assert results(tmp_path / "out1") == results(tmp_path / "out2")
    assert ids(tmp_path / "out1" / "fine" / "a.png").shape == (50, 70)
