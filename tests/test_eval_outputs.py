"""Gates, CSV and confusion files, comparisons: what `eval` makes of its numbers."""

import csv
from pathlib import Path

import numpy as np
import pytest
from command_line import data_of, refused, run
from eval_sets import prepared_masks, save_all, wrong_in_places

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.evaluation.comparison import BEYOND, TOO_FEW, WITHIN, compare_results
from hiposeg_cli.evaluation.counting import Wanted
from hiposeg_cli.evaluation.gates import Gate
from hiposeg_cli.evaluation.matching import match
from hiposeg_cli.evaluation.predictions import FolderPredictions
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.evaluation.scoring import averaged_counts, evaluate_pairs
from hiposeg_cli.evaluation.truth import PreparedTruth, TruthImage
from hiposeg_cli.metrics import PROTOCOLS, Protocol
from hiposeg_cli.metrics.scores import iou_of
from hiposeg_cli.store import open_dataset

NAMES = [f"{number:02}" for number in range(14)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """`data` with 14 images, and predictions of three qualities: `good`, `fair` (two of its files less) and `poor`."""
    root = tmp_path_factory.mktemp("eval")
    dataset, rng = open_dataset(prepared_masks(root, NAMES, toy_yaml)), np.random.default_rng(2)
    for name, share in {"good": 0.1, "fair": 0.12, "poor": 0.6}.items():
        for row in dataset.split("val"):
            labels = wrong_in_places(rng, dataset.labels(row).fine, list(range(7)), share)
            save_all(root / name, {row.key: labels})
    for key in NAMES[:2]:
        (root / "fair" / f"{key}.png").unlink()
    return root


def result_of(world: Path, name: str, protocol: Protocol = PROTOCOLS["hiposeg"]) -> EvalResult:
    truth = PreparedTruth(world / "data", "val")
    return evaluate_pairs(truth, FolderPredictions(world / name, truth), Wanted(protocol), {})


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "owner"),
    [
        ("a/x.png", "a/x"), ("val/a/x.png", "a/x"), ("b/x.png", "b/x"), ("x.png", "ambiguous"), ("y.png", "y z"),
        ("y%20z.png", "y z"), ("photos/y z.png", "y z"), ("w.PNG", "w"), ("w_pred.png", "extra"), ("c/x.png", "extra"),
        ("ax.png", "extra"), ("e\u0301.png", "e"),
    ],
)  # fmt: skip
def test_which_file_is_for_which_image(file: str, owner: str, tmp_path: Path) -> None:
    """Whole trailing parts of a key, photo path or label path; accents in either spelling."""
    names = {
        "a/x": ("val/a/x", "/data/photos/a/x"), "b/x": ("val/b/x", "/data/photos/b/x"),
        "ba/x": ("val/ba/x", "/data/photos/ba/x"), "w": ("val/w", "/data/photos/w"),
        "y z": ("val/y%20z", "/data/photos/y z", "labels/y"), "e": ("val/%C3%A9", "/data/photos/\u00e9"),
    }  # fmt: skip
    images = [TruthImage(key, Path(), {}, found, None) for key, found in names.items()]  # type: ignore[arg-type]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = match(tmp_path, images)
    if owner in ("ambiguous", "extra"):
        assert not found.files
        assert len(found.extra) == (owner == "extra")
        assert len(found.ambiguous) == (owner == "ambiguous")
    else:
        assert found.files == {owner: path}


# -- gates -------------------------------------------------------------------------------------------------------------


def test_gates_say_which_did_not_hold(world: Path) -> None:
    scores = data_of(run("eval", world / "good", world / "data", "--json", "--workers", 1))
    fine = scores["levels"]["fine"]["miou"]
    passed = ["--fail-under", f"fine.miou={fine}", "--fail-under", "coarse.pixel_accuracy=0.1", "--workers", 1]
    assert run("eval", world / "good", world / "data", *passed).exit_code == 0
    failed = run("eval", world / "good", world / "data", *passed, "--fail-under", f"fine.miou={fine + 1e-6}")
    assert failed.exit_code == 1
    assert f"fine.miou is {fine:.6g}, below" in failed.stderr
    assert "coarse" not in failed.stderr
    both = run("eval", world / "good", world / "data", "--fail-under", "fine.iou.sky=1", "--json", "--workers", 1)
    assert both.exit_code == 1
    assert data_of(both)["gates_failed"][0].startswith("fine.iou.sky is ")
    for gate, flag in (("fine.boundary_iou", "--boundary"), ("coarse.pq", "--panoptic"), ("fine.iiou", "--protocol")):
        refused(run("eval", world / "good", world / "data", "--fail-under", f"{gate}=0.1"), gate, "not measured", flag)


def test_no_output_replaces_another_or_is_lost(world: Path, tmp_path: Path) -> None:
    given = ("eval", world / "good", world / "data", "--workers", 1)
    refused(run(*given, "--csv", tmp_path / "x", "--html", tmp_path / "x"), "--html", "is what --csv writes to")
    inside = run(*given, "--csv", tmp_path / "x" / "fine.csv", "--confusion", tmp_path / "x")
    refused(inside, "--csv", "is what --confusion writes to")
    refused(run(*given, "--csv", "/proc/none/c.csv"), "/proc/none/c.csv", "cannot be written")
    assert not list(tmp_path.iterdir())


def test_settings_of_the_other_kind_of_predictions_are_refused(world: Path, tmp_path: Path) -> None:
    maps, data = world / "good", world / "data"
    for flags in (("--device", "cpu"), ("--weights", "last")):
        refused(run("eval", maps, data, *flags), flags[0], "needs a network")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"")
    for flags in (("--pred-ids", "cityscapes"), ("--pred-suffix", "_p"), ("--workers", "2")):
        refused(run("eval", weights, data, *flags), flags[0], "needs label maps")
    refused(run("eval", weights, data, "--weights", "last"), "--weights last", "is one file")


def test_wrong_gates_are_one_line(world: Path) -> None:
    for text, words in {
        "fine.miou": "NAME=SHARE", "fine.miou=x": "NAME=SHARE", "fine.miou=60": "write fine.miou=0.6", "=0.5": "NAME=SHARE",
        "fine.moiu=0.5": "did you mean 'fine.miou'", "middle.miou=0.5": "fine.miou", "fine.miou=nan": "NAME=SHARE",
    }.items():  # fmt: skip
        refused(run("eval", world / "good", world / "data", "--fail-under", text), "--fail-under", words)
    with pytest.raises(ConfigError):
        Gate.parse("fine.miou=-0.1")


# -- files -------------------------------------------------------------------------------------------------------------


def test_confusion_files_add_up(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "confusion"
    shown = run("eval", world / "poor", world / "data", "--confusion", out, "--workers", 1)
    assert shown.exit_code == 0, shown.output
    assert {path.name for path in out.iterdir()} == {"fine.csv", "coarse.csv", "fine_in_1_car.csv"}
    with (out / "fine.csv").open() as file:
        fine = list(csv.reader(file))
    with (out / "fine_in_1_car.csv").open() as file:
        inside = list(csv.reader(file))
    result = result_of(world, "poor")
    assert fine[0][1:] == [*result.hierarchy.fine.names, "void"]
    assert [[int(cell) for cell in line[1:]] for line in fine[1:]] == result.matrix(0).tolist()
    children = result.hierarchy.children(1)
    assert inside[0][1:] == [*(result.hierarchy.fine.names[k] for k in children), "elsewhere", "void"]
    for line, child in zip(inside[1:], children, strict=True):
        assert sum(map(int, line[1:])) == result.matrix(0)[child].sum()
        assert [int(cell) for cell in line[1:-2]] == result.matrix(0)[child, children].tolist()
    for words in ("true fine \\ predicted", "true fine in car", "true coarse", "elsewhere"):
        assert words in shown.stdout
    refused(run("eval", world / "poor", world / "data", "--confusion", out), "confusion", "--overwrite")
    again = run("eval", world / "poor", world / "data", "--confusion", out, "--overwrite", "--workers", 1)
    assert again.exit_code == 0, again.output


def test_class_csv_has_a_row_a_class(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    options = ["--csv", path, "--boundary", "--json", "--workers", 1]
    answer = data_of(run("eval", world / "fair", world / "data", *options))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 + 3
    for row, entry in zip(rows, answer["levels"]["fine"]["classes"], strict=False):
        assert (row["level"], row["name"], float(row["iou"])) == ("fine", entry["name"], entry["iou"])
    squares = {entry["name"]: entry["sqiou"] for entry in answer["sqiou"]["coarse"]["classes"]}
    assert {row["name"]: float(row["sqiou"]) for row in rows if row["level"] == "coarse"} == squares
    assert all(0 <= float(row["boundary_iou"]) <= 1 for row in rows)


def test_one_level_is_shown_where_asked(world: Path) -> None:
    text = run("eval", world / "fair", world / "data", "--level", "coarse", "--per-class", "--worst", 2, "--workers", 1)
    assert text.exit_code == 1  # two files are missing
    assert "coarse: mIoU" in text.stdout
    assert "fine: mIoU" not in text.stdout
    assert text.stdout.count("worst images") == 1


# -- comparisons -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["hiposeg", "cityscapes", "coco-stuff"])
def test_differences_of_means_are_those_of_the_plain_bootstrap(world: Path, protocol: str) -> None:
    """A loop over the draws."""
    good, poor = (result_of(world, name, PROTOCOLS[protocol]) for name in ("good", "poor"))
    found = compare_results(good, poor, draws=150, seed=5)
    rng, draws = np.random.default_rng(5), []
    for size in (64, 64, 22):
        draws += list(rng.integers(0, len(NAMES), (size, len(NAMES))))
    for depth, level in enumerate(found.levels):
        means = []
        for result in (good, poor):
            images = averaged_counts(result.counts, result.protocol)
            entries, dense = images.entries(depth), np.zeros((len(NAMES), len(result.hierarchy.levels[depth]), 3), np.int64)
            dense[entries.image, entries.label] = entries.counts.T
            means.append([np.nanmean(iou_of(dense[drawn].sum(axis=0).T, result.protocol.absent)) for drawn in draws])
        mean, differences = level.mean, np.subtract(*means)
        assert mean.difference == pytest.approx(mean.first - mean.second, abs=1e-14)  # type: ignore[operator]
        assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-14)
        assert mean.p_value == pytest.approx(2 / 151)
        assert min(differences) > 0
        assert mean.verdict == BEYOND
        assert mean.first == good.summary["levels"][level.level]["miou"]


def test_classes_are_compared_on_the_same_draws(world: Path) -> None:
    """A loop over draws and images."""
    good, fair = result_of(world, "good"), result_of(world, "fair")
    found = compare_results(good, fair, draws=70, seed=1)
    assert (found.n_images, found.left_out) == (12, ("00", "01"))
    keys, rng, draws = NAMES[2:], np.random.default_rng(1), []
    for size in (64, 6):
        draws += rng.integers(0, 12, (size, 12)).tolist()
    truth = open_dataset(world / "data").hierarchy
    for label in range(truth.n_fine):
        by_image = [averaged_counts(result.counts, result.protocol, keys) for result in (good, fair)]
        differences = []
        for drawn in draws:
            ious = []
            for images in by_image:
                entries = images.entries(0)
                total = np.zeros((3, 1), np.int64)
                for image in drawn:
                    total[:, 0] += entries.counts[:, (entries.image == image) & (entries.label == label)].sum(axis=1)
                ious.append(iou_of(total)[0])
            differences.append(ious[0] - ious[1])
        entry = found.levels[0].classes[label]
        assert (entry.low, entry.high) == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-14)


def test_a_side_does_not_differ_from_itself(world: Path) -> None:
    good = result_of(world, "good")
    for level in compare_results(good, good, draws=50).levels:
        for entry in (level.mean, *level.classes):
            assert (entry.difference, entry.low, entry.high, entry.p_value, entry.verdict) == (0, 0, 0, 1, WITHIN)


def test_the_verdict_fits_p_and_interval(world: Path) -> None:
    """25 of 1000 draws on the other side of 0 would leave 0 out of the interval, at a p of 0.052."""
    good, fair, poor = (result_of(world, name) for name in ("good", "fair", "poor"))
    found = [
        compare_results(one, other, draws=200, seed=seed) for one, other in ((good, fair), (good, poor)) for seed in range(5)
    ]
    entries = [entry for result in found for level in result.levels for entry in (level.mean, *level.classes)]
    assert {entry.verdict for entry in entries} == {BEYOND, WITHIN}
    for entry in entries:
        assert entry.p_value is not None
        assert entry.low is not None
        assert entry.high is not None
        assert (entry.verdict == BEYOND) == (entry.p_value < 0.05)
        assert entry.verdict == WITHIN or entry.low > 0 or entry.high < 0


def test_few_images_decide_nothing(world: Path, tmp_path: Path) -> None:
    for name in ("good", "poor"):
        for key in NAMES[:5]:
            target = tmp_path / name / f"{key}.png"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((world / name / f"{key}.png").read_bytes())
    answer = data_of(
        run("eval", tmp_path / "good", world / "data", "--against", tmp_path / "poor", "--json", "--workers", 1)
    )
    assert answer["comparison"]["images"] == 5
    assert {level["mean"]["verdict"] for level in answer["comparison"]["levels"].values()} == {TOO_FEW}


def test_a_comparison_in_words(world: Path) -> None:
    arguments = ["eval", world / "good", world / "data", "--against", world / "poor", "--workers", 1]
    text = run(*arguments)
    assert text.exit_code == 0, text.output
    for words in (BEYOND, "14 images", "by chance", "against: protocol merged"):
        assert words in " ".join(text.stdout.split())
    assert WITHIN in " ".join(run(*arguments[:4], world / "fair", "--per-class", "--workers", 1).stdout.split())
    missing = run(*arguments[:4], world / "fair", "--workers", 1)
    assert missing.exit_code == 1
    assert "12 images, 2 scored by one only" in " ".join(missing.stdout.split())
