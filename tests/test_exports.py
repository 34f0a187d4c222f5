"""Exports as a whole: the command, the output folder, photos, and the layouts of mmsegmentation and Hugging Face."""

from __future__ import annotations

import ast
import builtins
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import refused, run
from export_sets import COARSE, FINE, N_WIDE, ODD_NAMES, WIDE_COARSE, labels_of, photos_of, toy_data, wide_data, write
from PIL import Image, ImageOps
from raw_sets import files_below, ids_png

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, DataError, OutputError
from hiposeg_cli.exports.base import ExportOptions
from hiposeg_cli.exports.export import export
from hiposeg_cli.exports.hf import _split_names
from hiposeg_cli.exports.photos import without_orientation
from hiposeg_cli.registry import EXPORTS
from hiposeg_cli.store import open_dataset

LAYOUTS = ("coco-panoptic", "coco-rle", "cvat", "hf", "mmseg", "nnunet", "yolo-seg")


def folder_for(layout: str, root: Path) -> Path:
    """nnU-Net's folder names follow a rule."""
    return root / ("Dataset500_toy" if layout == "nnunet" else layout)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    return toy_data(tmp_path_factory.mktemp("toy_export"), toy_yaml)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide_data(tmp_path_factory.mktemp("wide_export"))


@pytest.fixture
def own(tmp_path: Path, toy_yaml: Path) -> Path:
    """A toy dataset the test may break."""
    return toy_data(tmp_path / "own", toy_yaml)


# -- the command and the folder ----------------------------------------------------------------------------------------


def test_help_names_every_registered_layout() -> None:
    assert EXPORTS.names() == list(LAYOUTS)
    text = re.sub(r"[^a-z-]+", " ", run("export", "--help").stdout)
    for name in LAYOUTS:
        assert f" {name} " in text


def test_command_reports_what_was_written_and_what_was_lost(toy: Path, tmp_path: Path) -> None:
    lost = sum(
        int(((labels_of(toy, "fine")[k] < 0) & (labels_of(toy, "coarse")[k] >= 0)).sum()) for k in labels_of(toy, "fine")
    )
    assert lost > 0
    result = run("export", toy, tmp_path / "out", "--as", "mmseg", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "images test 1, train 3, val 2" in result.stderr
    assert f"{lost} pixels with a coarse class only" in result.stderr
    result = run("export", toy, tmp_path / "out2", "--as", "mmseg", "--level", "coarse", "--split", "val", "--json")
    envelope = json.loads(result.stdout)
    assert envelope["schema"] == "hiposeg/export@1"
    assert envelope["warnings"] == []
    assert envelope["data"]["splits"] == {"val": 2}
    assert envelope["data"]["level"] == "coarse"
    assert sorted(p.name for p in (tmp_path / "out2" / "img_dir").iterdir()) == ["val"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bytes_from_one_process_and_from_two(layout: str, toy: Path, tmp_path: Path) -> None:
    first, second = folder_for(layout, tmp_path / "x"), folder_for(layout, tmp_path / "y")
    write(toy, layout, first, workers=1)
    write(toy, layout, second, workers=2)
    assert files_below(first) == files_below(second)
    marker = json.loads((first / "hiposeg" / "export.json").read_text())
    assert marker["layout"] == layout
    assert marker["hierarchy_digest"] == open_dataset(toy).hierarchy.digest
    assert (first / "hiposeg" / "hierarchy.yaml").read_bytes() == (toy / "hierarchy.yaml").read_bytes()
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [first.name]  # nothing temporary is left


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_images_over_all_splits(workers: int, toy: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    options = ExportOptions(workers=workers)
    export(open_dataset(toy), "mmseg", tmp_path / "out", options, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(7)]


def test_unusable_output_folders_are_refused_and_left_alone(toy: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("irreplaceable")
    refused(run("export", toy, mine, "--as", "hf"), "mine", "not empty", "name a new folder")
    refused(run("export", toy, mine, "--as", "hf", "--overwrite"), "not made by hiposeg export")
    assert files_below(mine) == {"thesis.txt": b"irreplaceable"}
    (tmp_path / "file").write_text("x")
    refused(run("export", toy, tmp_path / "file", "--as", "hf"), "is a file or a link")
    (tmp_path / "link").symlink_to(mine)
    refused(run("export", toy, tmp_path / "link", "--as", "hf"), "is a file or a link")
    refused(run("export", toy, toy / "out", "--as", "hf"), "lies in the prepared dataset")
    refused(run("export", toy, toy.parent, "--as", "hf", "--overwrite"), "or the other way round")
    refused(run("export", toy, toy, "--as", "hf"), "lies in the prepared dataset")
    assert not (toy / "out").exists()


def test_an_earlier_export_is_replaced_only_when_asked(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    write(toy, "mmseg", out)
    before = files_below(out)
    refused(run("export", toy, out, "--as", "yolo-seg"), "already holds an export", "--overwrite")
    assert files_below(out) == before
    write(toy, "yolo-seg", out, overwrite=True)
    assert (out / "data.yaml").exists()
    assert not (out / "img_dir").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_export_leaves_nothing_and_keeps_the_old_one(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(own, "mmseg", out)
    before = files_below(out)
    (own / "labels" / "fine" / "val" / "v.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"v\.png: differs from the manifest"):
        write(own, "mmseg", out, overwrite=True)
    assert files_below(out) == before
    with pytest.raises(DataError, match=r"v\.png"):
        write(own, "mmseg", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own"]


def test_leftovers_of_a_killed_run_are_cleared_but_not_those_of_a_running_one(toy: Path, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.4194999.export-tmp", tmp_path / f".out.{os.getppid()}.export-tmp"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "half").write_text("")
    write(toy, "mmseg", tmp_path / "out")
    assert not dead.exists()
    assert (alive / "half").exists()


def test_an_unwritable_place_is_one_line(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be read or written"):
        write(toy, "mmseg", tmp_path / "file" / "out")


# -- what a user may get wrong -----------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_a_suggestion(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(run("export", toy, out, "--as", "mmsegg"), "export format 'mmsegg'", "did you mean 'mmseg'?")
    refused(run("export", toy, out, "--as", "mmseg", "--split", "vall"), "no split 'vall'", "did you mean 'val'?")
    refused(run("export", toy, out, "--as", "mmseg", "--level", "corse"), "--level corse", "did you mean 'coarse'?")
    refused(run("export", toy, out, "--as", "hf", "--level", "fine"), "--level fine", "holds both levels")
    refused(
        run("export", toy, out, "--as", "yolo-seg", "--images", "reference"), "--images reference", "copy, hardlink, link"
    )
    refused(run("export", tmp_path, out, "--as", "hf"), "is not a prepared dataset", "hiposeg prepare")
    refused(run("export", toy, tmp_path / "toy", "--as", "nnunet"), "toy", "Dataset500_NAME")
    assert not out.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_photo_is_named(layout: str, own: Path, tmp_path: Path) -> None:
    photos_of(own)["val", "v"].unlink()
    out = folder_for(layout, tmp_path)
    refused(run("export", own, out, "--as", layout, "--workers", 2), "v.jpg", "photo of the prepared dataset is missing")
    assert not out.exists()


EXCHANGED = [("cvat", "copy"), ("hf", "copy"), ("mmseg", "link"), ("nnunet", "copy"), ("yolo-seg", "hardlink")]


@pytest.mark.parametrize(("layout", "mode"), EXCHANGED)
def test_exchanged_photo_is_refused(layout: str, mode: str, own: Path, tmp_path: Path) -> None:
    photos = photos_of(own)
    photos["val", "v"].write_bytes(photos["val", "a"].read_bytes())
    options = ("--as", layout, "--images", mode, "--workers", 1)
    refused(run("export", own, folder_for(layout, tmp_path), *options), "v.jpg", "differs from the photo")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_broken_or_exchanged_label_file_is_named(layout: str, own: Path, tmp_path: Path) -> None:
    path = own / "labels" / "fine" / "val" / "v.png"
    path.write_bytes(path.with_name("a.png").read_bytes())
    refused(run("export", own, folder_for(layout, tmp_path), "--as", layout, "--workers", 1), "v.png", "differs from the")
    path.write_bytes(path.read_bytes()[:-20])
    refused(run("export", own, folder_for(layout, tmp_path), "--as", layout, "--workers", 1), "v.png")
    path.unlink()
    refused(run("export", own, folder_for(layout, tmp_path), "--as", layout, "--workers", 1), "v.png")


def test_missing_package_is_named_with_its_extra(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_datasets(name: str, *rest: Any, **named: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    with pytest.raises(ConfigError, match=r"pip install 'hiposeg-cli\[hf\]'"):
        write(toy, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- photos ------------------------------------------------------------------------------------------------------------


def test_photos_are_copied_or_linked(toy: Path, tmp_path: Path) -> None:
    original = photos_of(toy)["train", "b%20c"]
    for mode in ("copy", "hardlink", "link"):
        write(toy, "mmseg", tmp_path / mode, images=mode)
        placed = tmp_path / mode / "img_dir" / "train" / "b%20c.jpg"
        assert placed.read_bytes() == original.read_bytes()
        assert placed.is_symlink() == (mode == "link")
        assert placed.samefile(original) == (mode != "copy")


def turned_photo(kind: str) -> bytes:
    """A 9x5 picture that asks to be shown turned by 90 degrees."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_taken_out_and_the_pixels_stay(kind: str) -> None:
    data = turned_photo(kind)
    plain = Image.open(io.BytesIO(without_orientation(data, Path("x"))))
    before = Image.open(io.BytesIO(data))
    assert ImageOps.exif_transpose(before).size == (5, 9)
    assert ImageOps.exif_transpose(plain).size == (9, 5)
    assert (np.asarray(plain) == np.asarray(before)).all()


def test_xmp_orientation_does_not_take_over_when_exif_is_gone() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x xmlns:tiff="t" tiff:Orientation="6"/>'
    data = turned_photo("JPEG")
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    plain = Image.open(io.BytesIO(without_orientation(data[:2] + segment + data[2:], Path("x"))))
    assert ImageOps.exif_transpose(plain).size == (9, 5)


@pytest.mark.parametrize("layout", ["mmseg", "hf", "yolo-seg", "nnunet"])
def test_exported_photos_fit_their_labels_in_readers_that_apply_exif(layout: str, toy_yaml: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "train"
    (raw / "images").mkdir(parents=True)
    (raw / "images" / "p.jpg").write_bytes(turned_photo("JPEG"))
    ids_png(raw / "labels" / "p.png", np.ones((5, 9), np.uint8))
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(toy_yaml)))
    out = folder_for(layout, tmp_path)
    for mode in ("copy", "link") if layout in ("mmseg", "yolo-seg") else ("copy",):
        write(tmp_path / "data", layout, out, images=mode, overwrite=True)
        if layout == "hf":
            import pyarrow.parquet

            (record,) = pyarrow.parquet.read_table(out / "data").to_pylist()
            photo: Any = io.BytesIO(record["image"]["bytes"])
        else:
            (photo,) = [path for path in out.rglob("p*.*") if path.suffix == ".jpg" or path.name == "p_0000.png"]
        shown = ImageOps.exif_transpose(Image.open(photo))
        assert shown.size == (9, 5)
        assert (np.asarray(shown) == np.asarray(Image.open(raw / "images" / "p.jpg"))).all()


def test_turned_photo_of_another_kind_is_refused() -> None:
    with pytest.raises(DataError, match="EXIF orientation"):
        without_orientation(turned_photo("WEBP"), Path("x.webp"))


# -- mmsegmentation ----------------------------------------------------------------------------------------------------


def mmseg_config(folder: Path) -> dict[str, Any]:
    """mmseg_dataset.py with the two substitutions that mmengine makes."""
    text = (folder / "mmseg_dataset.py").read_text(encoding="utf-8")
    metainfo: dict[str, Any] = {}
    exec((folder / "mmseg_metainfo.py").read_text(encoding="utf-8"), metainfo)
    text = text.replace("{{ fileDirname }}", str(folder)).replace("{{_base_.METAINFO}}", "METAINFO")
    scope = {"METAINFO": metainfo["METAINFO"]}
    exec(text, scope)
    return scope


@pytest.mark.parametrize("level", ["fine", "coarse"])
def test_mmseg_reads_back_pixel_for_pixel(level: str, toy: Path, tmp_path: Path) -> None:
    write(toy, "mmseg", tmp_path / "out", level=level)
    config = mmseg_config(tmp_path / "out")
    expected, photos = labels_of(toy, level), photos_of(toy)
    seen = 0
    for split in ("train", "val", "test"):
        entry = config[f"{split}_dataset"]
        assert (entry["type"], entry["reduce_zero_label"], entry["ignore_index"]) == ("BaseSegDataset", False, 255)
        assert list(entry["metainfo"]["classes"]) == (FINE if level == "fine" else COARSE)
        assert len(entry["metainfo"]["palette"]) == len(entry["metainfo"]["classes"])
        root = Path(entry["data_root"])
        for line in (root / entry["ann_file"]).read_text().splitlines():  # as BaseSegDataset.load_data_list does
            image = root / entry["data_prefix"]["img_path"] / (line + entry["img_suffix"])
            labels = np.array(Image.open(root / entry["data_prefix"]["seg_map_path"] / (line + entry["seg_map_suffix"])))
            assert labels.dtype == np.uint8
            assert (np.where(labels == 255, -1, labels.astype(int)) == expected[split, line]).all()
            assert image.read_bytes() == photos[split, line].read_bytes()
            seen += 1
    assert seen == len(expected) == 6


def test_mmseg_refuses_what_its_uint8_cast_would_wrap(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"300.*8 bit.*--level coarse"):
        write(wide, "mmseg", tmp_path / "out")
    write(wide, "mmseg", tmp_path / "out", level="coarse")
    config = mmseg_config(tmp_path / "out")
    assert config["val_2_dataset"]["metainfo"]["classes"] == tuple(WIDE_COARSE)
    ast.parse((tmp_path / "out" / "mmseg_dataset.py").read_text().replace("{{ fileDirname }}", ""))


def test_mmseg_photos_of_several_kinds_become_png_without_loss(toy_yaml: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "train"
    (raw / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(raw / "images" / "one.jpg")
    Image.fromarray(pixels).save(raw / "images" / "two.PNG")
    for stem in ("one", "two"):
        ids_png(raw / "labels" / f"{stem}.png", np.ones((6, 9), np.uint8))
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(toy_yaml)))
    exported = write(tmp_path / "data", "mmseg", tmp_path / "out")
    assert any("PNG" in text for text in exported.warnings)
    assert mmseg_config(tmp_path / "out")["train_dataset"]["img_suffix"] == ".png"
    for stem, name in (("one", "one.jpg"), ("two", "two.PNG")):
        placed = Image.open(tmp_path / "out" / "img_dir" / "train" / f"{stem}.png")
        assert placed.format == "PNG"
        assert (np.asarray(placed) == np.asarray(Image.open(raw / "images" / name))).all()


# -- Hugging Face ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["toy", "wide"])
def test_hf_is_read_back_by_load_dataset(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = request.getfixturevalue(name)
    exported = write(data, "hf", tmp_path / "out")
    assert exported.level == "both"
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    fine, coarse, photos = labels_of(data, "fine"), labels_of(data, "coarse"), photos_of(data)
    assert {(split, key) for split in loaded for key in loaded[split]["key"]} == set(fine)
    for split in loaded:
        names = loaded[split].features["fine_classes"].feature.names
        assert names[:5] == (ODD_NAMES if name == "wide" else FINE[:5])
        assert len(names) == (N_WIDE if name == "wide" else 7)
        for record in loaded[split]:
            place = split, record["key"]
            for level, truth in (("fine", fine[place]), ("coarse", coarse[place])):
                stored = np.array(record[level])
                ignore = 65535 if stored.dtype != np.uint8 else 255
                assert (np.where(stored == ignore, -1, stored.astype(int)) == truth).all()
                assert record[f"{level}_classes"] == sorted(set(truth.ravel().tolist()) - {-1})
            assert (np.array(record["image"]) == np.array(Image.open(photos[place]))).all()


def test_hf_card_names_splits_and_classes(wide: Path, toy_yaml: Path, tmp_path: Path) -> None:
    write(wide, "hf", tmp_path / "out")
    _, front, body = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["class_names"]["fine"][:5] == ODD_NAMES
    assert card["class_names"]["coarse"] == WIDE_COARSE
    assert card["parents"][:4] == [0, 1, 2, 0]
    assert [entry["split"] for entry in card["configs"][0]["data_files"]] == ["train", "val_2"]
    assert "| 2 | 日本 | 2 | c7 |" in body


def test_hf_splits_large_sets_into_shards_of_several_row_groups(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    monkeypatch.setattr("hiposeg_cli.exports.hf._SHARD_BYTES", 2500)
    monkeypatch.setattr("hiposeg_cli.exports.hf._GROUP_ROWS", 1)
    write(toy, "hf", tmp_path / "out", splits=("train",))
    shards = sorted((tmp_path / "out" / "data").iterdir())
    assert len(shards) == 2
    assert [shard.name[-20:] for shard in shards] == ["00000-of-00002.parquet"[-20:], "00001-of-00002.parquet"[-20:]]
    keys = [key for shard in shards for key in pyarrow.parquet.read_table(shard)["key"].to_pylist()]
    assert keys == ["a", "b%20c", "sub/d"]
    assert pyarrow.parquet.ParquetFile(shards[1]).num_row_groups == 2


def test_hf_renames_splits_it_cannot_hold(own: Path, tmp_path: Path) -> None:
    about = json.loads((own / "dataset.json").read_text())
    about["splits"] = {"train": 3, "train-2": 2}
    (own / "dataset.json").write_text(json.dumps(about))
    (own / "manifest" / "val.jsonl").rename(own / "manifest" / "train-2.jsonl")
    text = (own / "manifest" / "train-2.jsonl").read_text().replace('"split": "val"', '"split": "train-2"')
    (own / "manifest" / "train-2.jsonl").write_text(text)
    for level in ("fine", "coarse"):
        (own / "labels" / level / "val").rename(own / "labels" / level / "train-2")
    exported = write(own, "hf", tmp_path / "out")
    assert any("'train-2' is called 'train_2'" in text for text in exported.warnings)
    assert (tmp_path / "out" / "data" / "train_2-00000-of-00001.parquet").exists()


def test_hf_split_names_stay_apart() -> None:
    assert _split_names(("train", "a-b", "a_b", "a b")) == {"train": "train", "a-b": "a_b", "a_b": "a_b_", "a b": "a_b__"}
