"""Commands as a user meets them: results, exit codes, one-line errors, nothing lost."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import data_of, refused, run
from PIL import Image

from hiposeg_cli.demo.draw import draw_dataset
from hiposeg_cli.store import open_dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a raw demo set, its prepared form and a briefly trained run."""
    root = tmp_path_factory.mktemp("world")
    draw_dataset(root / "raw", n_train=6, n_val=3, size_px=64)
    assert run("prepare", "pascal-part", root / "raw", root / "data", "--hierarchy", "demo", "--workers", 1).exit_code == 0
    options = ["--net", "fpn", "--crop", 64, "--batch", 2, "--iterations", 2, "--workers", 0, "--device", "cpu"]
    result = run("train", root / "data", *options, "--out", root / "run", "--json")
    assert result.exit_code == 0, result.output
    assert data_of(result)["run"] == str(root / "run")
    return root


# -- the ordinary way --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_folder_holds_what_is_promised(world: Path) -> None:
    names = {path.relative_to(world / "run").as_posix() for path in (world / "run").rglob("*") if path.is_file()}
    expected = {"config.yaml", "env.json", "hierarchy.yaml", "metrics.jsonl", "results.csv", "state.safetensors"}
    assert names == expected | {"weights/best.safetensors", "weights/last.safetensors"}


@pytest.mark.slow
def test_eval_reports_both_levels_in_text_json_and_csv(world: Path) -> None:
    text = run("eval", world / "run", world / "data", "--per-class")
    assert text.exit_code == 0, text.output
    for word in ("fine: mIoU", "coarse: mIoU", "protocol merged", "horse_tail", "absent classes: zero"):
        assert word in text.stdout
    csv_path = world / "scores.csv"
    scores = data_of(run("eval", world / "run", world / "data", "--json", "--csv", csv_path))
    assert {"fine", "coarse"} == set(scores["levels"])
    assert len(scores["levels"]["fine"]["classes"]) == 20
    assert len(csv_path.read_text().splitlines()) == 1 + 20 + 7
    refused(run("eval", world / "run", world / "data", "--csv", csv_path), "scores.csv", "--overwrite")


@pytest.mark.slow
def test_predict_writes_ids_at_the_original_size_and_skips_what_is_done(world: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "in ner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = {"a": (50, 70), "in ner/ü b": (33, 41), "one": (1, 1), "long": (10, 300)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(photos / f"{name}.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    result = run("predict", world / "run", photos, "--out", tmp_path / "out", "--overlay", "--json")
    assert result.exit_code == 1
    answer = data_of(result)
    assert (answer["done"], answer["skipped"], len(answer["failures"])) == (4, 0, 1)
    assert "broken.jpg" in answer["failures"][0]
    for name, size in sizes.items():
        fine = np.asarray(Image.open(tmp_path / "out" / "fine" / f"{name}.png"))
        coarse = np.asarray(Image.open(tmp_path / "out" / "coarse" / f"{name}.png"))
        assert fine.shape == coarse.shape == size
        assert fine.max() < 20
        assert coarse.max() < 7
        assert (tmp_path / "out" / "overlay" / f"{name}.jpg").exists()
    (photos / "broken.jpg").unlink()
    again = data_of(run("predict", world / "run", photos, "--out", tmp_path / "out", "--overlay", "--json"))
    assert (again["done"], again["skipped"]) == (0, 4)


@pytest.mark.slow
def test_predictions_of_another_model_are_not_mixed(world: Path, tmp_path: Path) -> None:
    photo = world / "raw" / "JPEGImages" / "demo_000000.jpg"
    assert run("predict", world / "run", photo, "--out", tmp_path / "out").exit_code == 0
    other = run(
        "train", world / "data", "--net", "fpn", "--crop", 64, "--batch", 2, "--iterations", 1, "--out", tmp_path / "b"
    )
    assert other.exit_code == 0, other.output
    refused(run("predict", tmp_path / "b", photo, "--out", tmp_path / "out"), "another model", "--overwrite")


@pytest.mark.slow
def test_results_of_other_photos_and_other_sizes_are_not_mixed(world: Path, tmp_path: Path) -> None:
    """Equal names in two folders, and a second call with another --size: neither may pass for done."""
    for folder, shade in (("a", 10), ("b", 200)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40), (shade,) * 3).save(tmp_path / folder / "x.png")
    assert run("predict", world / "run", tmp_path / "a", "--out", tmp_path / "out").exit_code == 0
    other = run("predict", world / "run", tmp_path / "b", "--out", tmp_path / "out", "--json")
    assert other.exit_code == 1
    assert "would replace those of" in data_of(other)["failures"][0]
    refused(run("predict", world / "run", tmp_path / "a", "--out", tmp_path / "out", "--size", 64), "input size")
    inside = data_of(run("predict", world / "run", tmp_path, "--out", tmp_path / "out2", "--json"))
    again = data_of(run("predict", world / "run", tmp_path, "--out", tmp_path / "out2", "--json"))
    assert inside["done"] > 0
    assert (again["done"], again["skipped"]) == (0, inside["done"])


def ids(path: Path) -> Any:
    return np.asarray(Image.open(path))


@pytest.mark.slow
def test_eval_under_each_decoding_rule(world: Path) -> None:
    leaf = data_of(run("eval", world / "run", world / "data", "--json"))
    assert (leaf["decode"], leaf["confidence"], leaf["protocol"]) == ("leaf", None, "merged")
    assert (
        "protocol merged (coarse = parent of the predicted fine class), decode leaf,"
        in run("eval", world / "run", world / "data").stdout
    )
    for rule in ("top-down", "path-sum"):
        scores = data_of(run("eval", world / "run", world / "data", "--decode", rule, "--json"))
        assert (scores["decode"], scores["protocol"]) == (rule, "merged")
        assert "merged" not in scores
    csv_path = world / "sum.csv"
    answer = run("eval", world / "run", world / "data", "--decode", "sum", "--json", "--csv", csv_path)
    scores = data_of(answer)
    assert scores["protocol"] == "own"
    assert scores["levels"]["fine"] == leaf["levels"]["fine"]
    assert scores["merged"]["coarse"] == leaf["levels"]["coarse"]  # its fine map is the leaf rule's
    assert 0 <= scores["consistency"]["coarse"] <= 1
    lines = csv_path.read_text().splitlines()
    assert lines[0].endswith(",protocol")
    assert [line.rsplit(",")[-1] for line in lines[1:]] == ["own"] * 27 + ["merged"] * 7
    text = run("eval", world / "run", world / "data", "--decode", "sum", "--per-class").stdout
    for word in ("protocol own", "decode sum", "coarse own: mIoU", "coarse merged: mIoU", "merged IoU", "class: coarse "):
        assert word in text


@pytest.mark.slow
def test_eval_of_a_run_and_of_its_predictions_agree(world: Path, tmp_path: Path) -> None:
    """The label maps that `predict` writes, under any rule, score as the run itself does."""
    photos = tmp_path / "photos"
    photos.mkdir()
    dataset = open_dataset(world / "data")
    for row in dataset.split("val"):
        (photos / Path(row.image_path).name).symlink_to(dataset.images_root / row.image_path)
    for rule in ("leaf", "sum"):
        out = tmp_path / rule
        assert run("predict", world / "run", photos, "--out", out, "--decode", rule).exit_code == 0
        scores = data_of(run("eval", world / "run", world / "data", "--decode", rule, "--json"))
        kept = data_of(run("eval", out, world / "data", "--json", "--workers", 1))
        for key in ("levels", "tree", "sqiou", "intervals", "images"):
            assert kept[key] == scores[key]
        assert kept["protocol"] == "own"
        assert kept["consistency"]["coarse"] == (1 if rule == "leaf" else scores["consistency"]["coarse"])
    text = run("eval", world / "run", world / "data", "--against", tmp_path / "leaf", "--per-class")
    assert text.exit_code == 0, text.output
    assert "too few images to tell" in " ".join(text.stdout.split())


@pytest.mark.slow
def test_eval_of_a_run_measures_calibration(world: Path) -> None:
    scores = data_of(run("eval", world / "run", world / "data", "--calibration", "--json"))
    for level in ("fine", "coarse"):
        found = scores["calibration"][level]
        assert 0 <= found["ece"] <= 1
        assert sum(bin["pixels"] for bin in found["diagram"]) == sum(e["pixels"] for e in scores["levels"][level]["classes"])
    assert "ECE" in run("eval", world / "run", world / "data", "--calibration").stdout


@pytest.mark.slow
def test_eval_of_back_off_is_a_curve_or_one_of_its_points(world: Path) -> None:
    leaf = data_of(run("eval", world / "run", world / "data", "--json"))
    csv_path = world / "curve.csv"
    curve = data_of(run("eval", world / "run", world / "data", "--decode", "back-off", "--json", "--csv", csv_path))
    assert curve["levels"] == leaf["levels"]
    thresholds = [point["threshold"] for point in curve["curve"]]
    assert thresholds[0] == 0
    assert thresholds == sorted(thresholds)
    assert curve["curve"][0]["accuracy"] == leaf["levels"]["fine"]["pixel_accuracy"]
    assert curve["curve"][0]["levels"]["fine"]["share"] == 1
    lines = csv_path.read_text().splitlines()
    assert lines[0].endswith(",threshold,share")
    assert len(lines) == 1 + 20 + 7 + 3 * len(thresholds)
    point = curve["curve"][2]
    one = data_of(
        run("eval", world / "run", world / "data", "--decode", "back-off", "--confidence", point["threshold"], "--json")
    )
    assert one["curve"] == [point]
    assert (one["protocol"], one["confidence"]) == ("own", point["threshold"])
    assert one["consistency"]["coarse"] in (1, None)
    text = run("eval", world / "run", world / "data", "--decode", "back-off").stdout
    for word in ("accuracy of what is said", "said as fine", "0.99", "decode back-off"):
        assert word in text


@pytest.mark.slow
def test_predictions_by_different_rules_are_not_mixed(world: Path, tmp_path: Path) -> None:
    photo, out = world / "raw" / "JPEGImages" / "demo_000000.jpg", tmp_path / "out"
    rule = ("--decode", "back-off", "--confidence", 0.6)
    answer = data_of(run("predict", world / "run", photo, "--out", out, *rule, "--json"))
    assert (answer["done"], answer["decode"], answer["confidence"]) == (1, "back-off", 0.6)
    assert data_of(run("predict", world / "run", photo, "--out", out, *rule, "--json"))["skipped"] == 1
    for other in ((), ("--decode", "sum"), ("--decode", "back-off", "--confidence", 0.5)):
        refused(run("predict", world / "run", photo, "--out", out, *other), "decoding rule", "--overwrite")
    assert run("predict", world / "run", photo, "--out", tmp_path / "leaf").exit_code == 0
    fine, coarse = ids(out / "fine/demo_000000.png"), ids(out / "coarse/demo_000000.png")
    leaf = ids(tmp_path / "leaf/fine/demo_000000.png")
    assert np.array_equal(fine[fine != 255], leaf[fine != 255])
    whole = ids(tmp_path / "leaf/coarse/demo_000000.png")
    assert np.array_equal(coarse[coarse != 255], whole[coarse != 255])
    assert (coarse[fine != 255] != 255).all()
    assert 0 < (fine == 255).mean() < 1


@pytest.mark.slow
def test_wrong_decoding_options_are_one_line(world: Path, tmp_path: Path) -> None:
    photo = world / "raw" / "JPEGImages" / "demo_000000.jpg"
    for command in (["eval", world / "run", world / "data"], ["predict", world / "run", photo, "--out", tmp_path / "o"]):
        refused(run(*command, "--decode", "topdown"), "--decode topdown", "did you mean 'top-down'")
        refused(run(*command, "--decode", "back-off", "--confidence", 7), "--confidence 7", "between 0 and 1")
        refused(run(*command, "--confidence", 0.7), "--confidence 0.7", "--decode back-off")
    refused(run(*command, "--decode", "back-off"), "--decode back-off", "--confidence")
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_overwrite_replaces_a_run_and_nothing_else(world: Path, tmp_path: Path) -> None:
    options = ["--net", "fpn", "--crop", 64, "--batch", 2, "--iterations", 1, "--workers", 0, "--overwrite"]
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.yaml").write_text("mine: true")
    refused(run("train", world / "data", *options, "--out", tmp_path / "project"), "holds no run")
    assert run("train", world / "data", *options, "--out", tmp_path / "r").exit_code == 0
    (tmp_path / "r" / "notes.txt").write_text("precious")
    before = (tmp_path / "r" / "config.yaml").read_text()
    refused(run("train", tmp_path / "typo", *options, "--out", tmp_path / "r"), "typo")
    assert (tmp_path / "r" / "config.yaml").read_text() == before
    assert run("train", world / "data", *options, "--out", tmp_path / "r", "--seed", 3).exit_code == 0
    assert (tmp_path / "r" / "notes.txt").read_text() == "precious"
    assert "seed: 3" in (tmp_path / "r" / "config.yaml").read_text()


@pytest.mark.slow
def test_doctor_finds_a_tampered_label(world: Path, tmp_path: Path) -> None:
    assert run("doctor", world / "data").exit_code == 0
    assert run("prepare", "pascal-part", world / "raw", tmp_path / "d", "--hierarchy", "demo", "--workers", 1).exit_code == 0
    label = next((tmp_path / "d" / "labels" / "fine" / "train").glob("*.png"))
    Image.new("L", Image.open(label).size, 3).save(label)
    result = run("doctor", tmp_path / "d")
    assert result.exit_code == 1
    assert label.name in result.stdout


@pytest.mark.slow
def test_doctor_checks_the_environment_with_a_short_run() -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    names = [check["name"] for check in data_of(result)["checks"]]
    assert {"torch", "torchvision", "hierarchies", "train and eval"} <= set(names)


@pytest.mark.slow
def test_whole_demo_runs_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hiposeg_cli.commands import demo

    monkeypatch.setattr(demo, "_SETTINGS", {**demo._SETTINGS, "data.crop": 64, "data.batch": 4, "optim.iterations": 2})
    monkeypatch.setattr(demo, "_PICTURES", {"n_train": 8, "n_val": 3, "size_px": 64})
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    for word in ("flat IoU", "hiposeg IoU", "cat_torso", "overlay"):
        assert word in result.stdout
    assert len(list((tmp_path / "demo" / "predictions" / "overlay").glob("*.jpg"))) == 3
    refused(run("demo", "--out", tmp_path / "demo"), "exists")


def test_hierarchy_commands() -> None:
    assert "cityscapes-19-7" in run("hierarchy", "list").stdout
    names = [entry["name"] for entry in data_of(run("hierarchy", "list", "--json"))["hierarchies"]]
    assert "pascal-part-108" in names
    tree = run("hierarchy", "show", "cityscapes-19-7").stdout
    assert "traffic light" in tree
    assert "digraph" in run("hierarchy", "show", "demo", "--as", "dot").stdout
    assert "19 fine, 7 coarse" in run("hierarchy", "check", "cityscapes-19-7").stdout


def test_check_writes_nothing(world: Path, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    result = run("prepare", "pascal-part", world / "raw", "--hierarchy", "demo", "--check", "--workers", 1)
    assert result.exit_code == 0
    assert "6" in result.stdout
    assert sorted(os.listdir(tmp_path)) == before


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_mistakes_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    refused(run("prepare", "pascal-prat", tmp_path / "full", tmp_path / "o"), "pascal-prat", "did you mean 'pascal-part'")
    refused(run("prepare", "masks", tmp_path / "none", tmp_path / "o", "--hierarchy", "wbc-3-2"), "none", "no such folder")
    refused(run("prepare", "masks", tmp_path / "full", tmp_path / "o"), "--hierarchy", "hierarchy list")
    refused(
        run("prepare", "masks", tmp_path / "full", tmp_path / "o", "--hierarchy", "wbc"), "wbc", "did you mean 'wbc-3-2'"
    )
    refused(run("prepare", "masks", tmp_path, "--hierarchy", "wbc-3-2"), "OUT", "--check")
    refused(
        run("prepare", "cityscapes", tmp_path / "full", tmp_path / "o", "--part-order", "area"), "--part-order", "cityscapes"
    )
    refused(run("train"), "DATA")
    refused(run("train", tmp_path / "full"), "full", "hiposeg prepare")
    refused(run("train", "--resume", tmp_path / "full"), "full", "not a run")
    refused(run("train", tmp_path, "--config", tmp_path / "none.yaml"), "none.yaml")
    refused(run("train", tmp_path, "--set", "optim.lrr=3"), "optim.lrr", "did you mean")
    refused(run("train", tmp_path, "--set", "lr"), "KEY=VALUE")
    refused(run("eval", tmp_path / "none", tmp_path), "not a prepared dataset")
    refused(run("predict", tmp_path / "none", tmp_path / "full"), "full", "no images")
    refused(run("hierarchy", "show", "citysapes-19-7"), "citysapes", "did you mean 'cityscapes-19-7'")
    refused(run("doctor", tmp_path / "full"), "not a prepared dataset")
    assert (tmp_path / "full" / "mine.txt").read_text() == "precious"


@pytest.mark.slow
def test_mistakes_with_runs_and_data(world: Path, tmp_path: Path) -> None:
    options = ["--net", "fpn", "--crop", 64, "--batch", 2, "--iterations", 1]
    refused(run("train", world / "data", *options, "--out", world / "run"), "already holds a run", "--resume")
    refused(run("train", world / "data", *options, "--out", world / "raw"), "holds no run")
    refused(run("train", world / "data", *options, "--crop", 50, "--out", tmp_path / "x"), "--crop", "64")
    refused(run("train", world / "data", *options, "--device", "cuda:7", "--out", tmp_path / "x"), "cuda:7")
    refused(run("eval", world / "run", world / "data", "--split", "vla"), "vla", "did you mean 'val'")
    refused(run("eval", world / "run", world / "data", "--absent", "none"), "--absent")
    refused(run("predict", world / "run", tmp_path / "nothing"), "nothing", "no such")
    refused(run("train", "--resume", world / "run", "--lr", 1), "--resume")
    assert not (tmp_path / "x").exists()
    (tmp_path / "h.yaml").write_text((world / "data" / "hierarchy.yaml").read_text().replace("dog_tail", "dog_tale"))
    other = run(
        "prepare", "pascal-part", world / "raw", tmp_path / "other", "--hierarchy", tmp_path / "h.yaml", "--workers", 1
    )
    assert other.exit_code == 0, other.output
    refused(run("eval", world / "run", tmp_path / "other"), "another hierarchy", "dog_tail", "dog_tale")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((world / "run" / "weights" / "best.safetensors").read_bytes()[:1000])
    refused(run("eval", broken, world / "data"), "broken.safetensors", "not a readable")


def test_usage_errors_are_typers_own_with_exit_2(tmp_path: Path) -> None:
    for arguments in (
        ["no-such-command"],
        ["train", "--no-such-option"],
        ["prepare"],
        ["train", str(tmp_path), "--epochs", "x"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        assert json.loads(run(*arguments, "--json").stdout)["status"] == "error"


def test_errors_fill_the_json_envelope(tmp_path: Path) -> None:
    result = run("train", tmp_path / "none", "--json")
    assert result.exit_code == 2
    envelope = json.loads(result.stdout)
    assert envelope["status"] == "error"
    assert "none" in envelope["data"]["error"]


def test_a_bug_of_ours_is_exit_70_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from hiposeg_cli import hierarchy_yaml

    def broken(name: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(hierarchy_yaml, "load_taxonomy", broken)
    refused(run("hierarchy", "show", "demo"), "ZeroDivisionError", "a bug in hiposeg", code=70)
    for place in (("--debug", "hierarchy", "show", "demo"), ("hierarchy", "show", "demo", "--debug")):
        assert isinstance(run(*place).exception, ZeroDivisionError)


def test_what_stands_behind_two_dashes_is_no_switch() -> None:
    assert run("hierarchy", "list", "-q").exit_code == 0
    refused(run("hierarchy", "show", "--", "-q"), "-q")
