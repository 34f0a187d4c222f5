"""`eval` of label PNGs: the numbers are those of a recount, whatever names, types, layout and number of processes."""

import json
import os
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import data_of, refused, run
from eval_sets import (
    CITYSCAPES,
    IDS,
    LabelMap,
    blocks,
    draw_cityscapes,
    draw_masks,
    prepared_masks,
    save,
    save_all,
    wrong_in_places,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hiposeg_cli.errors import DataError, HiposegError
from hiposeg_cli.evaluation.calibration import Calibration
from hiposeg_cli.evaluation.counting import Wanted
from hiposeg_cli.evaluation.encoding import encode, encode_fine
from hiposeg_cli.evaluation.predictions import FolderPredictions, RunPredictions
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.evaluation.scoring import evaluate_pairs
from hiposeg_cli.evaluation.truth import PreparedTruth
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import TwoLevelMap
from hiposeg_cli.lookup import LookUp
from hiposeg_cli.metrics import PROTOCOLS, Confusion, summarize
from hiposeg_cli.store import open_dataset

NAMES = [f"{folder}/{number}" for folder, number in product("ab", range(6))]
FINE = list(range(7))
HIPOSEG = Wanted(PROTOCOLS["hiposeg"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """A prepared dataset of twelve toy images in two folders."""
    return prepared_masks(tmp_path_factory.mktemp("eval"), NAMES, toy_yaml)


@pytest.fixture(scope="module")
def maps(data: Path) -> dict[str, LabelMap]:
    """Predictions for all of its images, void in places."""
    rng, dataset = np.random.default_rng(1), open_dataset(data)
    return {row.key: wrong_in_places(rng, dataset.labels(row).fine, [*FINE, 255]) for row in dataset.split("val")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, maps: dict[str, LabelMap]) -> Path:
    return save_all(tmp_path_factory.mktemp("predicted"), maps)


def score(folder: Path, data: Path, wanted: Wanted = HIPOSEG, **options: Any) -> EvalResult:
    truth = PreparedTruth(data, "val")
    return evaluate_pairs(truth, FolderPredictions(folder, truth), wanted, {}, **options)


def recount(data: Path, maps: dict[str, LabelMap], keys: list[str]) -> Confusion:
    """The counts of some images, one after the other."""
    dataset = open_dataset(data)
    confusion = Confusion(dataset.hierarchy)
    for row in dataset.split("val"):
        if row.key in keys:
            confusion.add(dataset.labels(row), maps[row.key])
    return confusion


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_recount(data: Path, folder: Path, maps: dict[str, LabelMap]) -> None:
    answer = data_of(run("eval", folder, data, "--json", "--workers", 1))
    expected = summarize(recount(data, maps, NAMES))
    assert {key: answer[key] for key in expected} == json.loads(json.dumps(expected))
    assert (answer["kind"], answer["problems"], len(answer["per_image"])) == ("label maps", [], 12)
    fine = np.array(answer["confusion"]["fine"]["counts"])
    assert fine.sum() == sum(entry["pixels"] for entry in answer["levels"]["fine"]["classes"])


def test_any_number_of_processes_gives_the_same_answer(data: Path, folder: Path) -> None:
    options = ["--json", "--boundary", "--worst", 3]
    answers = [run("eval", folder, data, *options, "--workers", workers).stdout for workers in (1, 2, 3)]
    assert answers[0] == answers[1] == answers[2]


def test_a_perfect_prediction_scores_one_on_every_level(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data)
    truth = save_all(tmp_path, {row.key: dataset.labels(row).fine for row in dataset.split("val")})
    result = score(truth, data)
    assert result.summary["levels"]["fine"]["miou"] == 1
    assert result.summary["sqiou"]["fine"]["sqiou"] == 1
    # Object pixels without a part are void on the finest level, so the coarse level misses them.
    assert result.summary["levels"]["coarse"]["miou"] < 1


def test_palette_and_16_bit_files_say_the_same(data: Path, folder: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    expected = score(folder, data).summary
    for name, ids in maps.items():
        picture = Image.fromarray(ids, "P")
        picture.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 7)])
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "p" / f"{name}.png")
        save(tmp_path / "16" / f"{name}.png", np.where(ids == 255, 65535, ids.astype(np.uint16)))
    for kind in ("p", "16"):
        assert score(tmp_path / kind, data).summary == expected


def test_folders_of_levels_are_scored_by_themselves(data: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    """Half of the pixels with a predicted part get another object on the coarse map."""
    dataset, confusion = open_dataset(data), Confusion(open_dataset(data).hierarchy)
    rng, tree = np.random.default_rng(5), open_dataset(data).hierarchy
    agreeing = said = 0
    for row in dataset.split("val"):
        fine = maps[row.key]
        parents = np.append(tree.parent, [255] * 249).astype(np.uint8)[fine]
        coarse = np.where(rng.random(fine.shape) < 0.5, parents, rng.integers(0, 3, fine.shape)).astype(np.uint8)
        save_all(tmp_path, {f"fine/{row.key}": fine, f"coarse/{row.key}": coarse})
        truth = dataset.labels(row)
        confusion.add(truth, fine, above=[coarse])
        known = (fine != 255) & (truth.coarse != 255)
        agreeing, said = agreeing + int((parents == coarse)[known].sum()), said + int(known.sum())
    answer = data_of(run("eval", tmp_path, data, "--json", "--workers", 1))
    expected = json.loads(json.dumps(summarize(confusion)))
    assert (answer["protocol"], answer["consistency"]["coarse"]) == ("own", agreeing / said)
    assert {key: answer[key] for key in expected} == expected
    assert 0 < answer["chains"]["secs"] < 1
    text = run("eval", tmp_path, data, "--workers", 1).stdout
    for words in ("SeCS", "coarse own: mIoU", "coarse merged: mIoU", "consistency with the predicted fine class"):
        assert words in text


def test_a_network_and_its_label_maps_score_the_same(data: Path, folder: Path, maps: dict[str, LabelMap]) -> None:
    truth = PreparedTruth(data, "val")
    photos = {truth.photo(image).tobytes(): maps[image.key] for image in truth.images}
    network = RunPredictions(Path("net"), lambda photo: (photos[photo.tobytes()],))
    assert evaluate_pairs(truth, network, HIPOSEG, {}).summary == score(folder, data).summary


def test_a_photo_that_does_not_fit_into_memory_is_named_and_the_rest_is_done(data: Path, maps: dict[str, LabelMap]) -> None:
    truth = PreparedTruth(data, "val")
    photos = {truth.photo(image).tobytes(): maps[image.key] for image in truth.images}
    large = truth.images[3]

    def label_maps(photo: Any) -> tuple[LabelMap]:
        if photo.tobytes() == truth.photo(large).tobytes():
            raise HiposegError("a photo of 20x24 px", "does not fit into memory", "pass a smaller --size")
        return (photos[photo.tobytes()],)

    result = evaluate_pairs(truth, RunPredictions(Path("net"), label_maps), HIPOSEG, {})
    (problem,) = result.problems
    assert (problem.kind, problem.key, problem.where) == ("unreadable", large.key, str(large.photo))
    assert str(problem).endswith("does not fit into memory - pass a smaller --size")
    assert len(result.images) == len(truth.images) - 1


def test_what_is_odd_about_files_is_a_warning(data: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    folder = save_all(tmp_path / "predicted", maps)
    for key in ("a/1", "b/2"):
        grey = Image.fromarray(maps[key])
        Image.merge("LA", (grey, Image.new("L", grey.size, 255))).save(folder / f"{key}.png")
    warnings = json.loads(run("eval", folder, data, "--json", "--workers", 1).stdout)["warnings"]
    assert any("alpha" in text and "(2 images, such as a/1)" in text for text in warnings)
    assert "(2 images, such as a/1)" in run("eval", folder, data, "--workers", 1).stderr


def test_averages_over_objects_are_printed_where_the_protocol_has_them(data: Path, folder: Path) -> None:
    text = run("eval", folder, data, "--protocol", "pascal-part", "--workers", 1)
    answer = data_of(run("eval", folder, data, "--protocol", "pascal-part", "--json", "--workers", 1))
    miou, square = answer["levels"]["fine"]["miou_avg"], answer["sqiou"]["fine"]["sqiou_avg"]
    assert f"Avg over objects {100 * miou:.2f}" in text.stdout
    assert f"Avg over objects {100 * square:.2f}" in text.stdout
    coarse = answer["levels"]["coarse"]
    others = f"({100 * coarse['miou_of_classes_with_several_leaves']:.2f} without these)"
    assert f"{coarse['single_leaf_classes']} of them of a single leaf {others}" in text.stdout
    assert "Avg over objects" not in run("eval", folder, data, "--protocol", "mmseg", "--workers", 1).stdout


def test_a_page_holds_names_that_are_no_text(data: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    folder = save_all(tmp_path / "predicted", maps)
    try:
        save(folder / os.fsdecode(b"\xff.png"), maps["a/1"])
    except OSError:
        pytest.skip("this file system holds names of text only")
    assert run("eval", folder, data, "--html", tmp_path / "page.html", "--workers", 1).exit_code == 1
    assert "\\udcff.png" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_a_bare_miou_hides_is_printed(data: Path, folder: Path) -> None:
    text = run("eval", folder, data, "--per-class", "--boundary", "--worst", 2, "--workers", 1)
    assert text.exit_code == 0, text.output
    words = (
        "fine: mIoU ", "(95 % over images: ", " over 7 classes", "without background", "protocol merged", "rules hiposeg",
        "background in the mean", "absent classes: zero", "single scale, at the size of the truth", "12 images of val",
        f"label maps of {folder}", "sibling mIoU", "severity of mistakes", "sqIoU", "Boundary IoU (2 % of the diagonal)",
        "true pixels", "images", "worst images", "a/",
    )  # fmt: skip
    for word in words:
        assert word in text.stdout, word
    skipped = run("eval", folder, data, "--absent", "skip", "--bootstrap", 0, "--workers", 1).stdout
    assert "absent classes: skip" in skipped
    assert "over images" not in skipped


def test_certain_wrong_pixels_are_the_calibration_error(data: Path, maps: dict[str, LabelMap]) -> None:
    """Probabilities of 0 and 1 are right as often as pixels are: ECE is 1 less the pixel accuracy, on every level."""
    truth = PreparedTruth(data, "val")
    photos = {truth.photo(image).tobytes(): np.where(maps[image.key] == 255, 0, maps[image.key]) for image in truth.images}

    def one_hot(photo: Any) -> Any:
        return (np.arange(7)[:, None, None] == photos[photo.tobytes()]).astype(np.float32)

    network = RunPredictions(
        Path("net"), lambda photo: (photos[photo.tobytes()].astype(np.uint8),), probabilities=one_hot
    )  # fmt: skip
    summary = evaluate_pairs(truth, network, Wanted(PROTOCOLS["hiposeg"], calibration=True), {}).summary
    for level in ("fine", "coarse"):
        error = 1 - summary["levels"][level]["pixel_accuracy"]
        assert summary["calibration"][level]["ece"] == pytest.approx(error, abs=1e-12)
        assert summary["calibration"][level]["ece_merged"] == pytest.approx(error, abs=1e-12)
    assert summary["calibration"]["fine"]["cwece"] > 0


def test_calibration_by_hand(toy_hierarchy: Hierarchy) -> None:
    """The best leaf is sky with .35; the object is car with .25 + .2 = .45, and that is true."""
    leaf = np.array([0.2, 0.25, 0.2, 0, 0, 0, 0.35], np.float32).reshape(7, 1, 1)
    calibration = Calibration(toy_hierarchy)
    calibration.add(TwoLevelMap(np.array([[1]], np.uint8), np.array([[1]], np.uint8)), leaf)
    coarse = calibration.summary()["coarse"]
    assert coarse["ece"] == pytest.approx(1 - 0.45)
    assert coarse["ece_merged"] == pytest.approx(0.35)
    assert calibration.summary()["fine"]["ece"] == calibration.summary()["fine"]["ece_merged"] == pytest.approx(0.35)


def test_intervals_hold_the_value_and_leave_out_what_the_protocol_leaves_out(data: Path, folder: Path) -> None:
    for name in ("hiposeg", "cityscapes", "pascal-part"):
        summary = score(folder, data, Wanted(PROTOCOLS[name]), draws=200, seed=3).summary
        for level, found in summary["intervals"].items():
            assert found["value"] == pytest.approx(summary["levels"][level]["miou"], abs=1e-15)
            assert found["low"] < found["value"] < found["high"]
    levels = score(folder, data, Wanted(PROTOCOLS["cityscapes"])).summary["levels"]
    assert levels["fine"]["miou"] == levels["fine"]["miou_without_background"]


def test_worst_and_drawn_images(data: Path, folder: Path, maps: dict[str, LabelMap]) -> None:
    result = score(folder, data)
    by_hand = {key: summarize(recount(data, maps, [key]))["levels"]["fine"]["miou"] for key in NAMES}
    worst = result.worst("fine", 4)
    assert [image.key for image in worst] == sorted(by_hand, key=by_hand.__getitem__)[:4]
    assert [image.miou["fine"] for image in worst] == sorted(by_hand.values())[:4]
    assert [image.key for image in result.drawn(5, 0)] == [image.key for image in score(folder, data).drawn(5, 0)]
    assert len({tuple(image.key for image in result.drawn(5, seed)) for seed in range(8)}) > 1
    shown = result.shown(worst[0])
    assert np.array_equal(shown.predicted[0], maps[worst[0].key])
    assert shown.photo.shape == (24, 20, 3)
    for path in (worst[0].photo, *worst[0].truth.values(), *worst[0].predicted.values()):
        assert Path(path).is_file()


# -- official ids and raw truth ----------------------------------------------------------------------------------------


def cityscapes_predictions(truth: dict[str, LabelMap]) -> dict[str, LabelMap]:
    """Our ids for each frame, void where the truth is and in places."""
    table, rng = np.full(256, 255, np.uint8), np.random.default_rng(7)
    table[list(IDS.values())] = list(IDS)
    return {key: wrong_in_places(rng, table[ids], [*range(19), 255]) for key, ids in truth.items()}


def test_raw_truth_and_official_ids_score_as_prepared_truth_and_ours(tmp_path: Path) -> None:
    truth = draw_cityscapes(tmp_path / "raw")
    maps = cityscapes_predictions(truth)
    official = np.zeros(256, np.uint8)
    official[list(IDS)] = list(IDS.values())
    prepared = run("prepare", "cityscapes", tmp_path / "raw", tmp_path / "data", "--instances", "--workers", 1)
    assert prepared.exit_code == 0, prepared.output
    ours = save_all(tmp_path / "ours", maps)
    flat = {f"{key.split('/')[1]}_leftImg8bit": ids for key, ids in maps.items()}
    train_ids = save_all(tmp_path / "train_ids", flat, "_pred")
    label_ids = save_all(tmp_path / "ids", {f"{key}_gtFine_labelIds": official[ids] for key, ids in maps.items()})
    rules = ["--protocol", "cityscapes", "--json", "--workers", 1, "--boundary"]
    raw = [tmp_path / "raw", "--format", "cityscapes", "--instances"]
    answers = [
        run("eval", ours, tmp_path / "data", *rules),
        run("eval", ours, *raw, *rules),
        run("eval", label_ids, *raw, *rules, "--pred-ids", "cityscapes"),
        run("eval", label_ids, tmp_path / "data", *rules, "--pred-ids", "cityscapes"),
        run("eval", train_ids, *raw, *rules, "--pred-ids", "cityscapes-train-ids", "--pred-suffix", "_pred"),
        run("eval", train_ids, tmp_path / "data", *rules, "--pred-suffix", "_pred"),  # ours are the train ids
    ]
    numbers = ("levels", "tree", "sqiou", "iiou", "boundary", "intervals", "confusion", "images", "rules")
    for answer in answers:
        assert answer.exit_code == 0, answer.output
        assert {key: data_of(answer)[key] for key in numbers} == {key: data_of(answers[0])[key] for key in numbers}
    assert data_of(answers[0])["iiou"]["fine"]["iiou"] is not None


@pytest.mark.slow
def test_numbers_from_files_are_those_of_cityscapes_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason="cityscapesScripts is not installed"
    )
    truth = draw_cityscapes(tmp_path / "raw", n=4, seed=3)
    rng = np.random.default_rng(4)
    maps = {key: wrong_in_places(rng, ids, [*IDS.values(), 0, 9]) for key, ids in truth.items()}
    save_all(tmp_path / "ids", maps)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    for option, value in {"evalInstLevelScore": True, "JSONOutput": False, "quiet": True}.items():
        monkeypatch.setattr(official.args, option, value)
    theirs = official.evaluateImgLists(
        [str(tmp_path / "ids" / f"{key}.png") for key in maps],
        [str(tmp_path / "raw/gtFine/val" / f"{key}_gtFine_labelIds.png") for key in maps], official.args,
    )  # fmt: skip
    raw = [tmp_path / "raw", "--format", "cityscapes", "--instances", "--pred-ids", "cityscapes"]
    mine = data_of(run("eval", tmp_path / "ids", *raw, "--protocol", "cityscapes", "--json", "--workers", 2))
    for level, short in (("fine", "class"), ("coarse", "category")):
        for entry in mine["levels"][level]["classes"]:
            assert entry["iou"] == theirs[f"{short}Scores"][entry["name"]]
        for name, value in mine["iiou"][level]["classes"].items():
            assert value == pytest.approx(theirs[f"{short}InstScores"][name], rel=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(-2, 300), st.integers(0, 6) | st.none(), min_size=1), st.integers(0, 2**32 - 1))
def test_tables_of_256_ids_say_what_look_ups_say(toy_hierarchy: Hierarchy, table: Any, seed: int) -> None:
    """Any table, and ids of which some are unknown: the same classes, or the same error."""
    parent = [*toy_hierarchy.parent.tolist(), 1]  # a class known on the coarse level only
    lookup = LookUp({k: (None if v is None else v, parent[-1 if v is None else v]) for k, v in table.items()}, toy_hierarchy)
    rng = np.random.default_rng(seed)
    known = [k for k in table if 0 <= k < 256]
    ids = rng.choice(known or [0], (5, 7)).astype(np.uint8)
    if seed % 4 == 0:
        ids[0, 0] = rng.integers(0, 256)
    try:
        expected = lookup.encode(ids, "x")
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            encode(lookup, ids, "x")
        return
    found = encode(lookup, ids, "x")
    assert np.array_equal(found.fine, expected.fine)
    assert np.array_equal(found.coarse, expected.coarse)
    assert np.array_equal(encode_fine(lookup, ids, "x"), expected.fine)


def test_codings_of_coco_stuff(tmp_path: Path) -> None:
    """Every coding of one prediction, against a truth whose hierarchy knows only the first of them."""
    from hiposeg_cli.evaluation.predictions import pred_lookup
    from hiposeg_cli.formats.coco_stuff import CODINGS
    from hiposeg_cli.hierarchy_yaml import load_hierarchy

    class Stuff:
        hierarchy = load_hierarchy("coco-stuff-171-27")

    published = np.array([[0, 12, 181, 91]])
    truth: Any = Stuff()
    expected = pred_lookup("coco-stuff", truth).encode(published, "x").fine
    for name, coding in CODINGS.items():
        back = {meant: value for value, meant in coding.classes.items()}
        raw = np.array([[back[value] for value in published[0].tolist()] + [coding.unlabelled]])
        found = pred_lookup(f"coco-stuff-{name}", truth).encode(raw, "x").fine[0]
        assert found[:-1].tolist() == expected[0].tolist()
        assert found[-1] == 255


def test_coarse_only_official_ids_are_void_on_the_finest_level_alone(data: Path, tmp_path: Path) -> None:
    """Raw id 7 of the toy hierarchy is `car` without a part."""
    dataset = open_dataset(data)
    for row in dataset.split("val"):
        labels = dataset.labels(row)
        raw = np.where(labels.coarse_only(), 7, labels.fine)
        save(tmp_path / f"{row.key}.png", raw.astype(np.uint8))
    answer = data_of(run("eval", tmp_path, data, "--pred-ids", "masks", "--json", "--workers", 1))
    assert answer["protocol"] == "own"
    assert answer["levels"]["coarse"]["miou"] == answer["levels"]["fine"]["miou"] == 1
    assert answer["merged"]["coarse"]["miou"] < 1


# -- what is named -----------------------------------------------------------------------------------------------------


def test_every_file_that_cannot_be_scored_is_named_and_the_rest_is_done(
    data: Path, maps: dict[str, LabelMap], tmp_path: Path
) -> None:
    """One fault of each kind; the others score as a recount of them."""
    folder = save_all(tmp_path / "predicted", maps)
    (folder / "a/0.png").unlink()
    save(folder / "b/9.png", maps["b/0"])
    save(folder / "more/a/1.png", maps["a/1"])
    save(folder / "5.png", maps["b/5"])
    save(folder / "a/2.png", maps["a/2"][:-1])
    save(folder / "a/3.png", np.full((24, 20), 7, np.uint8))
    (folder / "a/4.png").write_bytes((folder / "a/4.png").read_bytes()[:-20])
    save(folder / "b/1.png", np.zeros((24, 20, 3), np.uint8))
    left = ["a/1", "a/5", "b/0", "b/2", "b/3", "b/4", "b/5"]
    result = run("eval", folder, data, "--json", "--workers", 1)
    assert result.exit_code == 1
    answer = data_of(result)
    expected = summarize(recount(data, maps, left))
    assert {key: answer[key] for key in expected} == json.loads(json.dumps(expected))
    assert sorted(entry["key"] for entry in answer["per_image"]) == left
    counts = {"missing": 1, "extra": 2, "ambiguous": 1, "size": 1, "ids": 1, "unreadable": 2}
    assert answer["problem_counts"] == counts
    named = {(entry["kind"], Path(entry["where"]).relative_to(folder).as_posix()) for entry in answer["problems"]}
    assert named >= {
        ("extra", "b/9.png"), ("extra", "more/a/1.png"), ("ambiguous", "5.png"), ("size", "a/2.png"), ("ids", "a/3.png"),
        ("unreadable", "a/4.png"), ("unreadable", "b/1.png"),
    }  # fmt: skip
    assert any("a/0" in entry["what"] for entry in answer["problems"] if entry["kind"] == "missing")
    text = run("eval", folder, data, "--workers", 1)
    for words in ("warning: ", "a/0", "a map is 20x23, the truth is 20x24", "7 of 12 images", "1 images without a pred"):
        assert words in text.stderr


def test_two_files_for_one_image_are_both_refused(data: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    folder = save_all(tmp_path, maps)
    save(folder / "val/a/0.png", maps["a/0"])
    answer = data_of(run("eval", folder, data, "--json", "--workers", 1))
    assert answer["problem_counts"] == {"duplicate": 1}
    assert "a/0" not in [entry["key"] for entry in answer["per_image"]]


def test_a_level_without_its_file_is_missing(data: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    save_all(tmp_path / "fine", maps)
    save_all(tmp_path / "coarse", {key: np.minimum(ids, 2) for key, ids in maps.items() if key != "b/3"})
    answer = data_of(run("eval", tmp_path, data, "--json", "--workers", 1))
    assert answer["problem_counts"] == {"missing": 1}
    assert "no coarse prediction for the image b/3" in answer["problems"][0]["what"]
    (tmp_path / "fine/b/3.png").unlink()
    answer = data_of(run("eval", tmp_path, data, "--json", "--workers", 1))
    assert (answer["problem_counts"], len(answer["problems"])) == ({"missing": 1}, 2), "one image, on two levels"


def test_a_broken_label_of_the_truth_is_named(toy_yaml: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    draw_masks(tmp_path / "raw", NAMES)
    save(tmp_path / "raw/val/labels/a/1.png", np.full((24, 20), 99, np.uint8))
    (tmp_path / "raw/val/images/a/2.png").unlink()
    folder = save_all(tmp_path / "predicted", maps)
    raw = ["--format", "masks", "--hierarchy", toy_yaml]
    answer = data_of(run("eval", folder, tmp_path / "raw", *raw, "--json", "--workers", 1))
    assert answer["problem_counts"] == {"extra": 1, "truth": 2}
    assert len(answer["per_image"]) == 10


def test_nothing_to_score_is_one_line(data: Path, tmp_path: Path) -> None:
    refused(run("eval", tmp_path / "none", data), "no such run or folder")
    refused(run("eval", tmp_path, data), "holds neither weights nor *.png")
    save(tmp_path / "other" / "zebra.png", blocks(np.random.default_rng(0), FINE))
    refused(run("eval", tmp_path / "other", data), "zebra.png", "none named after an image", "--pred-suffix")
    save(tmp_path / "small" / "a/0.png", np.zeros((2, 2), np.uint8))
    refused(run("eval", tmp_path / "small", data, "--workers", 1), "a map is 2x2", "no image could be scored")


def test_predictions_made_with_another_tree_are_refused(data: Path, maps: dict[str, LabelMap], tmp_path: Path) -> None:
    folder = save_all(tmp_path / "fine", maps).parent
    about = {"hierarchy_digest": CITYSCAPES.digest}
    (folder / "predictions.json").write_text(json.dumps(about))
    refused(run("eval", folder, data), "another hierarchy")
    (folder / "predictions.json").write_text(json.dumps({"hierarchy_digest": open_dataset(data).hierarchy.digest}))
    assert run("eval", folder, data, "--workers", 1).exit_code == 0


def test_mistakes_before_any_work(data: Path, folder: Path, tmp_path: Path) -> None:
    refused(run("eval", folder, data, "--protocol", "citiscapes"), "citiscapes", "did you mean 'cityscapes'")
    refused(run("eval", folder, data, "--protocol", "voc", "--absent", "skip"), "--absent", "--protocol voc")
    refused(run("eval", folder, data, "--level", "corse"), "--level corse", "did you mean 'coarse'")
    refused(run("eval", folder, data, "--pred-ids", "mask"), "--pred-ids mask", "did you mean 'masks'")
    refused(run("eval", folder, data, "--hierarchy", "demo"), "--hierarchy", "--format")
    refused(run("eval", folder, data, "--calibration"), "--calibration", "label maps")
    refused(run("eval", folder, data, "--decode", "sum"), "--decode", "label maps")
    refused(run("eval", folder, data, "--boundary-ratio", 2), "--boundary-ratio 2")
    refused(run("eval", folder, data, "--against", folder, "--bootstrap", 0), "--bootstrap 0", "--against")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    refused(run("eval", folder, data, "--csv", tmp_path / "empty"), "is a folder, and --csv writes a file")
    refused(run("eval", folder, data, "--confusion", tmp_path / "file", "--overwrite"), "is a file, and --confusion writes")
    refused(run("eval", folder, data, "--split", "vla"), "vla", "did you mean 'val'")
    refused(run("eval", folder, tmp_path, "--format", "mask"), "mask", "did you mean 'masks'")
