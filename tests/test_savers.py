"""Savers of `predict --save`: what each writes is read back, by Pillow or NumPy, as the maps it was given."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from saver_cases import DEEP, PAIR, VOID_COLOR, WIDE, Ids, as_ids, hierarchy, label_map, prediction

from hiposeg_cli.errors import OutputError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.infer.prediction import NEEDS, Prediction, Saver, Source
from hiposeg_cli.infer.savers.color import Color
from hiposeg_cli.infer.savers.confidence import Confidence
from hiposeg_cli.infer.savers.overlay import Overlay
from hiposeg_cli.infer.savers.probs import Probs
from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.registry import SAVERS

TREES = st.sampled_from([PAIR, DEEP, WIDE])
SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 13))
SEEDS = st.integers(0, 2**32 - 1)
ALL = pytest.mark.parametrize("name", SAVERS.names())


def save(saver: Saver, given_: Prediction, out: Path) -> Path:
    """Save a prediction where `predict` would."""
    path = out / saver.name / f"{given_.source.name}{saver.suffix}"
    saver.save(given_, path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- every saver -------------------------------------------------------------------------------------------------------


@ALL
def test_its_name_is_the_registered_one_and_its_needs_are_known(name: str) -> None:
    saver = SAVERS.load(name)()
    assert saver.name == name
    assert saver.needs <= NEEDS
    assert saver.suffix.startswith(".")


@ALL
@pytest.mark.parametrize("photo", ["a", "sub dir/日本.v2", "x/y/z", os.fsdecode(b"caf\xe9")])
def test_the_file_is_where_it_was_asked_for_and_nothing_is_left_beside(name: str, photo: str, tmp_path: Path) -> None:
    """`predict` resumes by these paths; a name may hold folders, dots and bytes that are no text."""
    saver = SAVERS.load(name)()
    source = Path(f"/photos/{photo}.jpg")
    path = save(saver, prediction(DEEP, name=photo, photo=source), tmp_path)
    saver.finish(tmp_path)
    assert path.is_file()
    assert not [found for found in files(tmp_path) if found.endswith(".tmp")]


@ALL
def test_the_same_prediction_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    for out in ("one", "two"):
        saver = SAVERS.load(name)()
        save(saver, prediction(WIDE, seed=3), tmp_path / out)
        saver.finish(tmp_path / out)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@ALL
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_maps_of_void_alone_and_of_one_pixel_a_side(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    saver = SAVERS.load(name)()
    full = prediction(WIDE, shape=shape)
    void = tuple(label_map(level, np.full(shape, -1)) for level in WIDE.levels)
    save(saver, full, tmp_path)
    save(
        saver, Prediction(Source(Path("/b.png"), "b"), full.image, WIDE, void, full.confidence, full.probabilities), tmp_path
    )
    saver.finish(tmp_path)


@ALL
def test_a_level_whose_name_is_a_path_stays_in_the_output_folder(name: str, tmp_path: Path) -> None:
    tree = Hierarchy("odd", (PAIR.fine, Level("../../up", PAIR.coarse.nodes)))
    saver = SAVERS.load(name)()
    save(saver, prediction(tree), tmp_path / "deep" / "out")
    saver.finish(tmp_path / "deep" / "out")
    assert all(path.startswith("deep/out/") for path in files(tmp_path))


@ALL
def test_a_full_disk_is_named_and_leaves_no_half_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save(SAVERS.load(name)(), prediction(DEEP), tmp_path)
    assert files(tmp_path) == {}


# -- color -------------------------------------------------------------------------------------------------------------


def color_files(tree: Hierarchy, out: Path) -> list[Path]:
    """The documented places, finest level first."""
    return [out / (f"color_{level.name}" if depth else "color") / "a.png" for depth, level in enumerate(tree.levels)]


def ids_of_colors(level: Level, rgb: LabelArray) -> Ids:
    """Ids by colour, -1 for the colour of void."""
    table = {node.color: node.id for node in level.nodes} | {VOID_COLOR: -1}
    return np.array([[table[tuple(pixel)] for pixel in row] for row in rgb.tolist()])


@settings(max_examples=60, deadline=None)
@given(TREES, SHAPES, SEEDS)
def test_color_is_read_back_on_every_level(tree: Hierarchy, shape: tuple[int, int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = prediction(tree, shape=shape, seed=seed)
        save(Color(), said, Path(folder))
        for level, labels, path in zip(tree.levels, said.maps, color_files(tree, Path(folder)), strict=True):
            with Image.open(path) as picture:
                assert picture.mode == ("P" if len(level) <= 255 else "RGB")
                assert (ids_of_colors(level, np.array(picture.convert("RGB"))) == as_ids(labels)).all()
                if picture.mode == "P":
                    indices = np.array(picture)
                    assert (np.where(indices == 255, -1, indices.astype(int)) == as_ids(labels)).all()


def test_color_of_255_classes_keeps_its_indices() -> None:
    """Such a map has 16 bits and 65535 for void, but 255 is still free in a palette; at 256 classes it is not."""
    for count, mode in ((254, "P"), (255, "P"), (256, "RGB")):
        tree = hierarchy(count, 2)
        ids = np.array([[0, count - 1, -1]])
        maps = (label_map(tree.fine, ids), label_map(tree.coarse, ids * 0))
        said = Prediction(Source(Path("/a.jpg"), "a"), np.zeros((1, 3, 3), np.uint8), tree, maps)
        with tempfile.TemporaryDirectory() as folder, Image.open(save(Color(), said, Path(folder))) as picture:
            assert picture.mode == mode
            assert (ids_of_colors(tree.fine, np.array(picture.convert("RGB"))) == ids).all()
            if mode == "P":
                assert np.array(picture).tolist() == [[0, count - 1, 255]]


# -- confidence, probs, overlay ----------------------------------------------------------------------------------------


def test_confidence_by_hand(tmp_path: Path) -> None:
    said = prediction(PAIR, shape=(1, 5))
    values = np.array([[0, 0.5, 1, 1.0001, 0.6]], dtype=np.float32)  # 0.6 * 255 = 153
    path = save(Confidence(), Prediction(said.source, said.image, PAIR, said.maps, values), tmp_path)
    with Image.open(path) as picture:
        assert picture.mode == "L"
        assert np.array(picture).tolist() == [[0, 128, 255, 255, 153]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_confidence_is_read_back_to_half_a_step(dtype: type[np.floating], tmp_path: Path) -> None:
    said = prediction(PAIR, shape=(64, 64))
    values = np.random.default_rng(0).random((64, 64)).astype(dtype)
    before = values.copy()
    path = save(Confidence(), Prediction(said.source, said.image, PAIR, said.maps, values), tmp_path)
    with Image.open(path) as picture:
        assert np.abs(np.array(picture) / 255 - values.astype(np.float64)).max() <= 0.5 / 255 + 1e-6
    assert (values == before).all()


def test_probs_are_read_back_by_numpy_without_pickle(tmp_path: Path) -> None:
    said = prediction(WIDE)
    with np.load(save(Probs(), said, tmp_path), allow_pickle=False) as read:
        assert set(read.files) == {"probabilities", "classes"}
        assert read["probabilities"].dtype == np.float16
        assert (read["probabilities"] == said.probabilities).all()
        assert read["classes"].tolist() == WIDE.fine.names


def test_overlay_shows_every_level(tmp_path: Path) -> None:
    for tree in (PAIR, DEEP):
        with Image.open(save(Overlay(), prediction(tree, shape=(320, 330)), tmp_path)) as picture:
            assert picture.width == 330 * (1 + len(tree.levels))


def test_overlay_of_a_huge_photo_is_a_fraction_of_it_with_the_whole_legend() -> None:
    """Blending 200 megapixels took 25 GB; a class of one pixel, which the smaller picture may miss, is still named."""
    from hiposeg_cli.report.overlay import overlay

    level = Level("fine", (ClassNode(0, "sky", (0, 0, 0)), ClassNode(1, "leg", (200, 0, 0))))
    labels = np.zeros((3000, 6000), dtype=np.uint8)
    labels[1, 1] = 1
    picture = overlay(np.full((3000, 6000, 3), 100, dtype=np.uint8), [(level, labels)])
    line_px = 3000 // 50
    assert picture.size == (2 * 3000, 1500 + line_px + 4)  # 18 megapixels at half their size
    legend = np.asarray(picture)[1500:, 3000:].reshape(-1, 3)
    assert (legend == (200, 0, 0)).all(axis=1).any()
