"""`hiposeg runs`: runs grouped by configuration, spread over seeds, and never compared where that would mean nothing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import yaml
from command_line import refused
from safetensors.numpy import save_file

from hiposeg_cli.config import nest
from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.demo.draw import draw_dataset
from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, parse_hierarchy
from hiposeg_cli.runs import (
    SavedRun,
    check_comparable,
    compare,
    difference,
    differing_settings,
    evaluation,
    find_runs,
    measures_of,
    rarest_third,
    read_run,
    spread,
)
from hiposeg_cli.store import open_dataset

run = partial(command_line.run, "runs")
TREE = """
schema: hiposeg/hierarchy@1
name: cups
levels: [fine, coarse]
classes:
  coarse: [{id: 0, name: ground, kind: background}, {id: 1, name: cup}]
  fine:
    - {id: 0, name: ground, parent: ground, kind: background}
    - {id: 1, name: body, parent: cup}
    - {id: 2, name: handle, parent: cup}
"""
BASE = {
    "method.name": "flat", "net.architecture": "fpn", "net.backbone": "tf_efficientnet_lite0", "data.path": "/data/cups",
    "data.workers": 1, "optim.lr": 0.001, "loop.seed": 0, "loop.log_every": 10,
}  # fmt: skip
HIPOSEG = {"method.name": "hiposeg", "method.tau_fine": 0.05}


def save_run(
    folder: Path, scores: list[tuple[float, float]], *, step: int = 20, total: int = 20, images: int = 8, tree: str = TREE,
    command: tuple[str, ...] = (), torch: str = "2.13", **settings: Any,
) -> Path:  # fmt: skip
    """A run folder as training leaves it; `scores` are (fine, coarse) mIoU of its validations."""
    (folder / "weights").mkdir(parents=True)
    values = BASE | {key.replace("__", "."): value for key, value in settings.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(nest(values)))
    versions = {"hiposeg-cli": "0.1.0", "torch": torch}
    (folder / "env.json").write_text(json.dumps({"command": ["hiposeg", "train", *command], "versions": versions}))
    (folder / "hierarchy.yaml").write_text(dump_hierarchy(parse_hierarchy(tree, "cups.yaml")))
    lines = [{"step": 10, "loss": 1.5}]
    lines += [{"step": 10 * n, "val_fine_miou": f, "val_coarse_miou": c} for n, (f, c) in enumerate(scores, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 20, "val_fi')
    progress = {"step": step, "total_steps": total, "images": images, "best": 0.5}
    save_file({"x": np.zeros(1, np.float32)}, folder / "state.safetensors", {"hiposeg": json.dumps({"progress": progress})})
    (folder / "weights" / "last.safetensors").write_bytes(folder.name.encode())
    return folder


def seeds_of(root: Path, name: str, fine: list[float], **settings: Any) -> list[SavedRun]:
    """One run for each value of fine mIoU, seeds 0, 1, ..."""
    folders = (
        save_run(root / f"{name}-{seed}", [(value, 0.8)], loop__seed=seed, **settings) for seed, value in enumerate(fine)
    )
    return [read_run(folder) for folder in folders]


# -- statistics --------------------------------------------------------------------------------------------------------


def test_spread_agrees_with_numpy_and_with_numbers_by_hand() -> None:
    """1, 2, 6: mean 3, squares (4 + 1 + 9) / 2 = 7."""
    found = spread([1.0, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.low, found.high) == (3.0, 1.0, 6.0)
    assert found.deviation == pytest.approx(7**0.5)
    values = list(np.random.default_rng(0).random(9))
    other = spread(values)
    assert other is not None
    assert (other.mean, other.deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))


def test_one_seed_has_no_deviation_and_a_missing_value_no_mean() -> None:
    found = spread([0.5])
    assert found is not None
    assert (found.mean, found.deviation) == (0.5, None)
    assert spread([0.5, None]) is None
    assert spread([]) is None


@pytest.mark.parametrize(
    ("first", "other", "verdict"),
    [
        ([0.50, 0.52], [0.60, 0.62], "beyond the spread"),  # 0.10 against 2 * 0.0141
        ([0.50, 0.60], [0.56, 0.66], "within the spread"),  # 0.06 against 2 * 0.0707
        ([0.60, 0.62], [0.50, 0.52], "beyond the spread"),  # a loss is one as well
        ([0.50], [0.90, 0.91], "one seed, no claim"),
        ([0.50, 0.51], [0.90], "one seed, no claim"),
        ([0.5, 0.5], [0.5, 0.5], "within the spread"),
    ],
)
def test_verdicts_by_hand(first: list[float], other: list[float], verdict: str) -> None:
    found = difference(spread(first), spread(other))
    assert found is not None
    assert found.verdict == verdict
    assert found.value == pytest.approx(np.mean(other) - np.mean(first))


# -- reading and grouping ----------------------------------------------------------------------------------------------


def test_read_run_takes_scores_of_the_last_or_the_best_validation(tmp_path: Path) -> None:
    found = read_run(save_run(tmp_path / "a", [(0.3, 0.5), (0.6, 0.7), (0.4, 0.9)]))
    assert found.validated("last") == {"fine mIoU": 0.4, "coarse mIoU": 0.9}
    assert found.validated("best") == {"fine mIoU": 0.6, "coarse mIoU": 0.7}
    assert (found.method, found.seed, found.step, found.total_steps, found.images) == ("flat", 0, 20, 20, 8)
    with pytest.raises(DataError, match=r"holds no validation.*--data"):
        read_run(save_run(tmp_path / "b", [])).validated("last")


def test_a_run_that_stopped_early_is_finished(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "a", [(0.5, 0.6)], step=10)
    assert not read_run(folder).finished
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            "\n" + json.dumps({"step": 10, "val_fine_miou": 0.4, "val_coarse_miou": 0.5, "stopped_early": True}) + "\n"
        )
    assert read_run(folder).finished


def test_runs_are_grouped_by_everything_but_seed_and_loader(tmp_path: Path) -> None:
    flat = seeds_of(tmp_path, "flat", [0.5, 0.52], data__workers=4)
    ours = seeds_of(tmp_path, "hiposeg", [0.6, 0.61, 0.62], loop__log_every=1, loop__save_every=9, **HIPOSEG)
    slow = seeds_of(tmp_path, "slow", [0.7], optim__lr=0.0001)
    runs = [ours[2], flat[1], ours[0], slow[0], flat[0], ours[1]]
    assert differing_settings(runs) == ("method.name", "optim.lr")
    table = compare(runs, [one.validated("last") for one in runs], source="test")
    rows = [(group.settings["method.name"], group.settings["optim.lr"], group.seeds) for group in table.groups]
    assert rows == [("hiposeg", 0.001, (0, 1, 2)), ("flat", 0.001, (0, 1)), ("flat", 0.0001, (0,))]
    first, second, third = table.groups
    fine = first.measures["fine mIoU"]
    assert fine is not None
    assert fine.values == (0.6, 0.61, 0.62)
    assert first.differences == {}
    assert second.differences["fine mIoU"] is not None
    assert second.differences["fine mIoU"].value == pytest.approx(0.51 - 0.61)
    assert second.differences["fine mIoU"].verdict == "beyond the spread"
    assert third.differences["fine mIoU"] is not None
    assert third.differences["fine mIoU"].verdict == "one seed, no claim"


def test_an_option_of_one_method_differs_only_among_its_own_runs(tmp_path: Path) -> None:
    flat = seeds_of(tmp_path, "flat", [0.5])
    warm = seeds_of(tmp_path, "warm", [0.6], **HIPOSEG)
    cold = seeds_of(tmp_path, "cold", [0.7], **(HIPOSEG | {"method.tau_fine": 0.1}))
    assert differing_settings([*flat, *warm]) == ("method.name",)
    assert differing_settings([*flat, *warm, *cold]) == ("method.name", "method.tau_fine")


def test_a_setting_that_older_runs_lack_differs(tmp_path: Path) -> None:
    new = seeds_of(tmp_path, "new", [0.5], optim__ema=0.9)
    assert differing_settings([*seeds_of(tmp_path, "old", [0.5]), *new]) == ("method.name", "optim.ema")


def test_runs_begun_from_other_weights_are_another_group(tmp_path: Path) -> None:
    """config.yaml does not know of --init; averaging over it would mix two experiments."""
    plain = seeds_of(tmp_path, "plain", [0.5])
    for name, words in (("apart", ("--init", "runs/x")), ("joined", ("--init=runs/x",))):
        begun = seeds_of(tmp_path, name, [0.6], command=words)
        assert differing_settings([*plain, *begun]) == ("method.name", "init")
        assert len(compare([*plain, *begun], [{"a": 1.0}, {"a": 2.0}], source="test").groups) == 2


def test_runs_of_several_processes_are_another_group_and_other_gpus_are_not(tmp_path: Path) -> None:
    """N processes take N batches a step; one seed on each GPU is the usual way to run several."""
    one, two = (seeds_of(tmp_path, f"gpu{n}", [0.5], loop__device=f"cuda:{n}")[0] for n in (0, 1))
    assert differing_settings([one, two]) == ("method.name",)
    (cpu,) = seeds_of(tmp_path, "cpu", [0.5], loop__device="cpu")
    assert differing_settings([one, cpu]) == ("method.name", "loop.device")
    env = json.loads((two.folder / "env.json").read_text())
    (two.folder / "env.json").write_text(json.dumps(env | {"processes": 4}))
    assert differing_settings([one, read_run(two.folder)]) == ("method.name", "processes")


def test_find_runs_at_any_depth(tmp_path: Path) -> None:
    save_run(tmp_path / "deep" / "er" / "b", [])
    save_run(tmp_path / "a", [])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "env.json").write_text("{}")
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "deep" / "er" / "b"]
    with pytest.raises(DataError, match="no such folder"):
        find_runs(tmp_path / "gone")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    first = save_run(tmp_path / "a", [(0.5, 0.6)])
    other_tree = TREE.replace("handle", "saucer")
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"tree": other_tree, "loop__seed": 1}, ("another hierarchy", "saucer")),
        ({"images": 9, "loop__seed": 1}, ("9 images", "8")),
        ({"step": 7, "loop__seed": 1}, ("not finished", "step 7 of 20", "--resume")),
        ({}, ("settings and the seed",)),
        ({"data__path": "/data/other", "loop__seed": 1}, ("/data/other", "/data/cups", "--data")),
    ]
    for number, (settings, words) in enumerate(cases):
        other = save_run(tmp_path / f"b{number}", [(0.5, 0.6)], **settings)
        refused(run("compare", first, other), str(other), *words)
    refused(run("compare", first, first), "settings and the seed")
    refused(run("compare", first, tmp_path), str(tmp_path), "is not a run folder")
    refused(run("compare", first, "--weights", "bset"), "--weights bset", "best")
    refused(run("compare", first, "--split", "test"), "--split test", "--data")
    refused(run("compare", first, "--data", tmp_path / "gone"), "gone", "prepare")


def test_runs_on_shares_of_the_images_are_compared_and_other_splits_are_not(tmp_path: Path) -> None:
    few = save_run(tmp_path / "few", [(0.4, 0.5)], images=4, data__fraction=0.5)
    every = save_run(tmp_path / "all", [(0.5, 0.6)], images=8)
    result = run("compare", few, every, "--json")
    groups = json.loads(result.stdout)["data"]["groups"]
    assert [group["settings"].get("data.fraction") for group in groups] == [0.5, None]
    other = save_run(tmp_path / "other", [(0.4, 0.5)], images=5, data__fraction=0.5, loop__seed=1)
    refused(run("compare", every, few, other), str(other), "5 images", f"{few} on 4")


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "a", [(0.5, 0.6)])
    (folder / "state.safetensors").write_bytes(b"no tensors")
    refused(run("compare", folder), "state.safetensors", "not a readable training state")
    (folder / "state.safetensors").unlink()
    assert read_run(folder).finished  # a state deleted to save space is no reason to refuse
    (folder / "metrics.jsonl").write_text('{"step": oops}\n')
    refused(run("compare", folder), "metrics.jsonl", "cannot be read")
    (folder / "config.yaml").write_text("- 1\n")
    refused(run("compare", folder), "config.yaml", "does not hold settings")
    (folder / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="is not a run folder"):
        read_run(folder)


def test_several_versions_are_a_remark(tmp_path: Path) -> None:
    runs = [*seeds_of(tmp_path, "a", [0.5]), read_run(save_run(tmp_path / "b", [(0.5, 0.5)], loop__seed=1, torch="2.6"))]
    assert check_comparable(runs, one_evaluation=False) == ["the runs were made with several versions of torch: 2.13, 2.6"]


# -- a dataset ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared demo dataset."""
    root = tmp_path_factory.mktemp("runs")
    draw_dataset(root / "raw", n_train=6, n_val=3, size_px=64)
    prepare("pascal-part", root / "raw", root / "data", PrepareOptions(hierarchy="demo"))
    return root / "data"


def test_a_dataset_that_moved_is_the_same_and_one_that_changed_is_not(data: Path, tmp_path: Path) -> None:
    import shutil

    moved, changed = tmp_path / "moved", tmp_path / "changed"
    shutil.copytree(data, moved)
    shutil.copytree(data, changed)
    manifest = changed / "manifest" / "val.jsonl"
    lines = manifest.read_text().splitlines()
    row = json.loads(lines[0])
    lines[0] = json.dumps(row | {"fine_sha256": row["fine_sha256"][::-1]})
    manifest.write_text("\n".join(lines) + "\n")
    runs = [
        read_run(save_run(tmp_path / f"r{seed}", [(0.5, 0.5)], loop__seed=seed, data__path=str(path)))
        for seed, path in enumerate((data, moved, changed))
    ]
    assert check_comparable(runs[:2], one_evaluation=False) == []
    with pytest.raises(DataError, match="changed"):
        check_comparable(runs, one_evaluation=False)
    assert check_comparable(runs, one_evaluation=True) == []


def test_rarest_third_counts_training_pixels(data: Path) -> None:
    """By decoding every training label map, where the code reads the manifests' tallies."""
    dataset = open_dataset(data)
    pixels = np.zeros(dataset.hierarchy.n_fine, np.int64)
    for row in dataset.split("train"):
        fine = dataset.labels(row).fine
        pixels += np.bincount(fine[fine < dataset.hierarchy.n_fine], minlength=len(pixels))
    present = [class_id for class_id in np.argsort(pixels, kind="stable") if pixels[class_id]]
    third = -(-len(present) // 3)
    assert rarest_third(dataset) == tuple(dataset.hierarchy.fine.names[class_id] for class_id in present[:third])


def test_measures_by_hand() -> None:
    classes = [{"name": name, "iou": iou} for name, iou in (("ground", 0.9), ("body", 0.6), ("handle", 0.2), ("rim", None))]
    levels = {"fine": {"miou": 0.55, "classes": classes}, "coarse": {"miou": 0.7, "classes": []}}
    summary = {"levels": levels, "mistake_severity": 1.25}
    expected = {"fine mIoU": 0.55, "coarse mIoU": 0.7, "rarest third mIoU": 0.4, "mistake severity": 1.25}
    assert measures_of(summary, ("handle", "body", "rim")) == pytest.approx(expected)
    assert measures_of(summary, ("rim",))["rarest third mIoU"] is None
    assert measures_of(summary, ())["rarest third mIoU"] is None


def test_an_evaluation_is_made_again_only_when_weights_data_or_split_change(data: Path, tmp_path: Path) -> None:
    dataset, one = open_dataset(data), read_run(save_run(tmp_path / "a", []))
    made: list[int] = []

    def score() -> dict[str, Any]:
        made.append(len(made))
        return {"number": made[-1]}

    assert [evaluation(one, dataset, "val", "last", score)["number"] for _ in range(2)] == [0, 0]
    assert evaluation(one, dataset, "train", "last", score)["number"] == 1
    (one.folder / "weights" / "last.safetensors").write_bytes(b"trained on")
    assert evaluation(one, dataset, "val", "last", score)["number"] == 2
    assert evaluation(one, dataset, "train", "last", score)["number"] == 3
    (one.folder / "weights" / "last.safetensors").write_bytes(b"a")
    assert evaluation(one, dataset, "val", "last", score)["number"] == 0  # every evaluation is kept
    assert len(json.loads((one.folder / "eval.json").read_text())["evaluations"]) == 4
    with pytest.raises(DataError, match=r"best\.safetensors.*no such weights"):
        evaluation(one, dataset, "val", "best", score)
    (one.folder / "eval.json").write_text('{"evaluations": 3}')
    with pytest.raises(DataError, match="changed by hand"):
        evaluation(one, dataset, "val", "last", score)


def test_digest_names_the_labels_of_a_split(data: Path) -> None:
    dataset = open_dataset(data)
    assert dataset.digest("val") == open_dataset(data).digest("val")
    assert dataset.digest("val") != dataset.digest("train")


# -- the command -------------------------------------------------------------------------------------------------------


def test_compare_prints_both_spreads_and_the_verdict(tmp_path: Path) -> None:
    """50, 52 -> 51 +- 1.41; 60, 62 -> 61 +- 1.41, 10 points above."""
    folders = [
        one.folder for one in (*seeds_of(tmp_path, "f", [0.5, 0.52]), *seeds_of(tmp_path, "h", [0.6, 0.62], **HIPOSEG))
    ]
    result = run("compare", *folders)
    assert result.exit_code == 0, result.output
    for words in (
        "51.00 +- 1.41", "50.00..52.00", "61.00 +- 1.41", "+10.00", "beyond the spread (1.41, 1.41)", "last validation",
        "no significance test",
    ):  # fmt: skip
        assert words in result.stdout
    assert "claim" not in run("compare", folders[0]).stdout  # a single row is compared with nothing
    assert "one seed, no claim" in run("compare", folders[0], folders[2]).stdout


def test_compare_as_json_and_csv(tmp_path: Path) -> None:
    folders = [
        one.folder for one in (*seeds_of(tmp_path, "f", [0.5, 0.52]), *seeds_of(tmp_path, "h", [0.6, 0.62], **HIPOSEG))
    ]
    table = tmp_path / "table.csv"
    result = run("compare", *folders, "--json", "--csv", table)
    answer = json.loads(result.stdout)
    assert (answer["schema"], answer["status"]) == ("hiposeg/runs compare@1", "ok")
    first, second = answer["data"]["groups"]
    assert first["runs"] == [str(folder) for folder in folders[:2]]
    assert second["settings"] == {"method.name": "hiposeg"}
    assert second["measures"]["fine mIoU"]["mean"] == pytest.approx(0.61)
    assert second["differences"]["fine mIoU"]["verdict"] == "beyond the spread"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method.name"], row["measure"]) for row in rows] == [
        ("flat", "fine mIoU"), ("flat", "coarse mIoU"), ("hiposeg", "fine mIoU"), ("hiposeg", "coarse mIoU"),
    ]  # fmt: skip
    assert float(rows[2]["difference"]) == pytest.approx(0.1)
    assert (rows[0]["difference"], rows[3]["verdict"]) == ("", "within the spread")
    refused(run("compare", *folders, "--csv", table), "table.csv", "--overwrite")
    assert run("compare", *folders, "--csv", table, "--overwrite").exit_code == 0


def test_list_shows_every_run(tmp_path: Path) -> None:
    save_run(tmp_path / "a", [(0.25, 0.5)], step=12)
    save_run(tmp_path / "b", [], **HIPOSEG)
    result = run("list", tmp_path)
    assert result.exit_code == 0, result.output
    for words in ("12/20", "fine mIoU 25.00, coarse mIoU 50.00", "hiposeg", "none", "cups"):
        assert words in result.stdout
    rows = json.loads(run("list", tmp_path, "--json").stdout)["data"]["runs"]
    assert [(row["method"], row["step"], row["scores"]) for row in rows] == [
        ("flat", 12, {"fine mIoU": 0.25, "coarse mIoU": 0.5}), ("hiposeg", 20, {}),
    ]  # fmt: skip


def test_list_names_broken_runs_and_shows_the_others(tmp_path: Path) -> None:
    save_run(tmp_path / "a", [(0.25, 0.5)])
    save_run(tmp_path / "b", [], loop__seed="foo")
    (save_run(tmp_path / "c", []) / "env.json").write_bytes(b'{"hiposeg-cli": "\xe9"}')
    result = run("list", tmp_path)
    assert result.exit_code == 1
    assert "fine mIoU 25.00" in result.stdout
    for words in ("loop.seed is 'foo'", "env.json"):
        assert words in result.stderr
    answer = json.loads(run("list", tmp_path, "--json").stdout)
    assert (answer["status"], len(answer["data"]["runs"]), len(answer["warnings"])) == ("problems", 1, 2)


@pytest.mark.parametrize("command", ["compare", "list"])
def test_without_data_torch_is_not_imported(tmp_path: Path, command: str) -> None:
    folder = save_run(tmp_path / "a", [(0.25, 0.5)])
    code = (
        "import sys; from hiposeg_cli.app import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules, 'torch was imported'"
    )
    target = folder if command == "compare" else tmp_path
    result = subprocess.run([sys.executable, "-c", code, "runs", command, target], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "25.00" in result.stdout


@pytest.mark.slow
def test_compare_on_a_dataset_equals_eval_and_keeps_the_result(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiposeg_cli.commands import evaluate

    options = ["--net", "fpn", "--crop", "64", "--batch", "2", "--iterations", "2", "--workers", "0", "--device", "cpu"]
    folders = [tmp_path / rate for rate in ("0.001", "0.0001")]
    for folder in folders:
        arguments = ["train", str(data), "--lr", folder.name, "--out", str(folder), *options]
        assert command_line.run(*arguments).exit_code == 0
    answer = json.loads(run("compare", *folders, "--data", data, "--json").stdout)["data"]
    for folder, group in zip(folders, answer["groups"], strict=True):
        single = command_line.run("eval", folder, data, "--weights", "last", "--json")
        expected = json.loads(single.stdout)["data"]
        found = {name: values["mean"] for name, values in group["measures"].items()}
        assert found["fine mIoU"] == expected["levels"]["fine"]["miou"]
        assert found["coarse mIoU"] == expected["levels"]["coarse"]["miou"]
        assert found["mistake severity"] == expected["mistake_severity"]
        rare = [entry["iou"] for entry in expected["levels"]["fine"]["classes"] if entry["name"] in answer["rarest"]]
        assert found["rarest third mIoU"] == pytest.approx(np.mean([iou for iou in rare if iou is not None]))

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(evaluate, "score_run", never)
    again = run("compare", *folders, "--data", data)
    assert again.exit_code == 0, again.output
    for words in ("rarest third mIoU", "mistake severity", "3 images of val", "protocol merged"):
        assert words in again.stdout
