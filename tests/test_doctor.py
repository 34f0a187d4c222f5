"""`hiposeg doctor DATA`: each check of a prepared dataset finds its own fault and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from PIL import Image
from raw_sets import files_below, ids_png, masks_set, photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import DataError
from hiposeg_cli.inspection import prepared as prepared_checks
from hiposeg_cli.inspection.findings import CHECKS, Diagnosis, Finding, Findings
from hiposeg_cli.inspection.prepared import CheckOptions, check_prepared
from hiposeg_cli.pool import Workers

IDS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 255], np.uint8)  # of the toy hierarchy; 7 is a car without a part
SHAPE = (12, 16)
Tamper = Callable[[Path], None]


def labels(seed: int) -> np.ndarray:
    ids = np.random.default_rng(seed).choice(IDS, SHAPE)
    ids.flat[: len(IDS)] = IDS  # every class in every image
    return ids


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """Four training and two validation images of 12x16, photos copied, every class in every image."""
    root = tmp_path_factory.mktemp("healthy")
    masks_set(root / "raw", {f"img{k}": labels(k) for k in range(4)})
    for k in range(2):
        photo(root / "raw" / "val" / "images" / f"img{k}.jpg", SHAPE, seed=10 + k)
        ids_png(root / "raw" / "val" / "labels" / f"img{k}.png", labels(10 + k))
    options = PrepareOptions(hierarchy=str(toy_yaml), copy_images=True)
    assert prepare("masks", root / "raw", root / "data", options).failures == ()
    return root / "data"


@pytest.fixture
def data(healthy: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(healthy, tmp_path / "data"))


def diagnose(root: Path, **options: Any) -> Diagnosis:
    return check_prepared(root, CheckOptions(**options))


def serious(diagnosis: Diagnosis) -> list[Finding]:
    return [finding for finding in diagnosis.found.sorted() if finding.level != "note"]


def edit_about(root: Path, **changes: Any) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_row(root: Path, **changes: Any) -> None:
    """Change what the manifest says about the training image img1; a function is given the old value."""
    path = root / "manifest" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["key"] == "img1":
            row.update({name: change(row[name]) if callable(change) else change for name, change in changes.items()})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def label(root: Path, level: str = "fine", key: str = "img1", split: str = "train") -> Path:
    return root / "labels" / level / split / f"{key}.png"


def replace_label(root: Path, level: str, image: Image.Image, **row: Any) -> None:
    """Put another picture in place of the label map of img1, and let the manifest agree with its hash."""
    image.save(label(root, level))
    edit_row(root, **{f"{level}_sha256": sha256(label(root, level))}, **row)


def moved(source: str, target: str, pixels: int) -> Callable[[dict[str, int]], dict[str, int]]:
    """A change of counts: some pixels of one class go to another."""
    return lambda counts: counts | {source: counts[source] - pixels, target: counts.get(target, 0) + pixels}


# -- a sound dataset ---------------------------------------------------------------------------------------------------


def test_a_sound_dataset_is_clean_and_left_alone(data: Path) -> None:
    before = files_below(data)
    for options in ({}, {"fast": True}, {"full": True, "near": True}, {"workers": Workers(2)}):
        diagnosis = diagnose(data, **options)
        assert serious(diagnosis) == []
        assert diagnosis.clean
    assert files_below(data) == before


def test_every_check_says_how_much_it_looked_at(data: Path) -> None:
    made = {check["id"]: check["examined"] for check in diagnose(data).as_json()["checks"]}
    assert list(made) == [f"P{number}" for number in range(31, 41)]
    assert made["P33"] == 6 + 6 * 3  # rows, and two label maps and a photo each
    assert (made["P34"], made["P35"], made["P36"], made["P38"]) == (12, 18, 6, 6)
    fast = {check["id"]: check["examined"] for check in diagnose(data, fast=True).as_json()["checks"]}
    assert fast["P35"] == 18
    assert "P36" not in fast


def test_the_answer_is_the_same_in_several_processes(data: Path) -> None:
    label(data).unlink()
    Image.new("L", (16, 12), 3).save(label(data, "coarse", "img0", "val"))
    assert diagnose(data, workers=Workers(2)).as_json() == diagnose(data).as_json()


def test_remarks_on_a_sound_hierarchy_are_notes(data: Path) -> None:
    notes = [finding.what for finding in diagnose(data).found.sorted() if finding.check == "P31"]
    assert any("single child" in note for note in notes)
    assert any("added for childless parents" in note for note in notes)


# -- one fault, one finding --------------------------------------------------------------------------------------------


def append_comment(root: Path) -> None:
    with (root / "hierarchy.yaml").open("a") as file:
        file.write("# a remark\n")


def rename_class(root: Path) -> None:
    path = root / "hierarchy.yaml"
    path.write_text(path.read_text().replace('"wheel"', '"tyre"'))


def reencode(root: Path) -> None:
    with Image.open(label(root)) as image:
        image.load()
    image.save(label(root), compress_level=0)


def repaint_photo(root: Path) -> None:
    photo(root / "images" / "train" / "img1.jpg", SHAPE, seed=99)


def break_line(root: Path) -> None:
    path = root / "manifest" / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:40] + "\n", *lines[2:]]))


def drop_from_list(root: Path) -> None:
    path = root / "splits" / "train.txt"
    path.write_text(path.read_text().replace("img2\n", ""))


def other_photo_size(root: Path) -> None:
    path = photo(root / "images" / "train" / "img1.jpg", (12, 20))
    edit_row(root, image_sha256=sha256(path))


def sixteen_bits(root: Path) -> None:
    replace_label(root, "fine", Image.fromarray(np.zeros(SHAPE, np.uint16)))


def colours(root: Path) -> None:
    replace_label(root, "coarse", Image.new("RGB", (16, 12)))


def palette(root: Path) -> None:
    with Image.open(label(root)) as image:
        indices = np.asarray(image)
    picture = Image.fromarray(indices)
    picture.putpalette([value for k in range(256) for value in (k, 0, 0)])
    replace_label(root, "fine", picture)


def unknown_id(root: Path) -> None:
    ids = np.asarray(Image.open(label(root))).copy()
    ids[0, :3] = 9
    replace_label(root, "fine", Image.fromarray(ids))


def instances_of_eight_bits(root: Path) -> None:
    path = ids_png(label(root, "inst"), np.zeros(SHAPE, np.uint8))
    edit_row(root, inst_sha256=sha256(path))


def other_label_size(root: Path) -> None:
    replace_label(root, "fine", Image.new("L", (16, 11)))


def break_the_tree(root: Path) -> None:
    """One wheel pixel gets the coarse class sky; hash and counts agree with it."""
    fine, coarse = (np.asarray(Image.open(label(root, level))).copy() for level in ("fine", "coarse"))
    y, x = np.argwhere(fine == 1)[0]
    assert coarse[y, x] == 1
    coarse[y, x] = 2
    replace_label(root, "coarse", Image.fromarray(coarse), coarse_counts=moved("1", "2", 1))


def wrong_counts(root: Path) -> None:
    edit_row(root, fine_counts=moved("1", "2", 3))


def wrong_sum(root: Path) -> None:
    edit_row(root, ignore_px=lambda pixels: pixels + 1)


def same_key_but_for_case(root: Path) -> None:
    for path in (label(root), label(root, "coarse"), root / "images" / "train" / "img1.jpg"):
        path.rename(path.with_name(path.name.replace("img1", "IMG0")))
    edit_row(root, key="IMG0", image_path="images/train/IMG0.jpg")
    path = root / "splits" / "train.txt"
    path.write_text(path.read_text().replace("img1", "IMG0"))


def key_that_leaves(root: Path) -> None:
    edit_row(root, key="../../img1")
    path = root / "splits" / "train.txt"
    path.write_text(path.read_text().replace("img1", "../../img1"))


FAULTS: list[tuple[str, Tamper, str, str, tuple[str, ...]]] = [
    ("broken hierarchy", lambda r: (r / "hierarchy.yaml").write_text("levels: ["), "P31", "error", ("hierarchy.yaml",)),
    ("no hierarchy", lambda r: (r / "hierarchy.yaml").unlink(), "P31", "error", ("hierarchy.yaml", "no such")),
    ("commented hierarchy", append_comment, "P32", "error", ("hierarchy.yaml", "changed", "the tree is the same")),
    ("renamed class", rename_class, "P32", "error", ("hierarchy.yaml", "digest")),
    ("label gone", lambda r: label(r).unlink(), "P33", "error", ("fine/train/img1.png", "missing")),
    ("label emptied", lambda r: label(r).write_bytes(b""), "P33", "error", ("fine/train/img1.png", "empty file")),
    ("label written again", reencode, "P33", "error", ("fine/train/img1.png", "sha256", "the manifest says")),
    ("photo gone", lambda r: (r / "images/train/img1.jpg").unlink(), "P33", "error", ("img1.jpg", "photo is missing")),
    ("another photo", repaint_photo, "P33", "error", ("img1.jpg", "photo has sha256")),
    ("half a line", break_line, "P33", "error", ("train.jsonl:2", "not a manifest row")),
    ("a number as text", lambda r: edit_row(r, width="16"), "P33", "error", ("train.jsonl:2", "width is '16'")),
    ("row of another split", lambda r: edit_row(r, split="val"), "P33", "error", ("train.jsonl:2", "split 'val'")),
    ("shorter list", drop_from_list, "P33", "error", ("splits/train.txt:3", "'img2'", "'img3'")),
    ("fewer images", lambda r: edit_about(r, splits={"train": 3, "val": 2}), "P33", "error", ("lists 4", "says 3")),
    ("16 bits", sixteen_bits, "P34", "error", ("img1.png", "16-bit grey", "7 fine classes need 8-bit")),
    ("colours", colours, "P34", "error", ("img1.png", "8-bit RGB")),
    ("palette", palette, "P34", "warning", ("img1.png", "palette", "OpenCV")),
    ("id beyond the classes", unknown_id, "P34", "error", ("img1.png", "7 fine classes", "9 (3 px)")),
    ("8-bit object numbers", instances_of_eight_bits, "P34", "error", ("inst/train/img1.png", "16-bit")),
    ("photo of another size", other_photo_size, "P35", "error", ("img1.jpg", "20x12", "16x12")),
    ("label of another size", other_label_size, "P35", "error", ("img1.png", "16x11", "16x12")),
    ("sky over a wheel", break_the_tree, "P36", "error", ("img1.png", "1 px", "'wheel' belongs to 'car', not 'sky'")),
    ("flag", lambda r: edit_about(r, coarse_is_function_of_fine=True), "P36", "error", ("coarse_is_function_of_fine",)),
    ("wrong counts", wrong_counts, "P37", "error", ("img1.png", "fine class", "the manifest says")),
    ("counts that do not add up", wrong_sum, "P37", "error", ("img1", "ignore_px")),
    ("case", same_key_but_for_case, "P40", "error", ("train.jsonl:2", "'IMG0'", "'img0'", "case")),
    ("key with dots", key_that_leaves, "P40", "error", ("train.jsonl:2", "'../../img1'", "no safe file name")),
    ("extra label", lambda r: ids_png(label(r, key="more"), [[0]]), "P40", "warning", ("more.png", "in no manifest")),
    ("extra photo", lambda r: photo(r / "images/val/p.jpg", (4, 4)), "P40", "warning", ("p.jpg", "in no manifest")),
    ("unlisted numbers", lambda r: ids_png(label(r, "inst"), [[0]]), "P40", "warning", ("inst/train/img1.png", "manifest")),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "check", "level", "words"), [entry[1:] for entry in FAULTS], ids=[e[0] for e in FAULTS])
def test_one_fault_gives_its_finding_alone(
    data: Path, tamper: Tamper, check: str, level: str, words: tuple[str, ...]
) -> None:
    tamper(data)
    diagnosis = diagnose(data)
    found = serious(diagnosis)
    assert {(finding.check, finding.level) for finding in found} == {(check, level)}, [str(f) for f in found]
    for word in words:
        assert any(word in str(finding) for finding in found), [str(f) for f in found]
    assert all(finding.cure for finding in found)
    assert not diagnosis.clean


def test_a_dropped_row_leaves_its_files_in_no_manifest(data: Path) -> None:
    path = data / "manifest" / "train.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"img1"' not in line))
    found = serious(diagnose(data))
    assert [finding.check for finding in found] == ["P33", "P33", "P40"]
    assert "like 2 more files" in found[2].what


def test_missing_photos_as_a_whole_are_one_finding(data: Path) -> None:
    edit_about(data, images_root="nowhere")
    found = serious(diagnose(data))
    assert [finding.check for finding in found] == ["P33"]
    assert "nowhere" in found[0].where
    assert "images_root" in found[0].cure


def test_a_changed_label_is_decoded_and_compared_even_when_it_is_not_in_the_sample(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_checks, "SAMPLE", 1)
    Image.new("L", (16, 12), 3).save(label(data))  # all body: another hash, other counts, wrong parents
    assert {finding.check for finding in serious(diagnose(data))} == {"P33", "P36", "P37"}


def test_only_full_recounts_what_lies_outside_the_sample(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_checks, "SAMPLE", 1)
    wrong_counts(data)
    assert serious(diagnose(data)) == []
    assert [finding.check for finding in serious(diagnose(data, full=True))] == ["P37", "P37"]


def test_fast_looks_at_existence_kind_and_size(data: Path) -> None:
    reencode(data)
    wrong_counts(data)
    assert serious(diagnose(data, fast=True)) == []
    label(data, key="img0").unlink()
    other_photo_size(data)
    assert [finding.check for finding in serious(diagnose(data, fast=True))] == ["P33", "P35"]


# -- the dataset as a whole --------------------------------------------------------------------------------------------


def made(root: Path, toy: Path, images: dict[str, tuple[np.ndarray, int]], **options: Any) -> Path:
    """Prepare a dataset from SPLIT/KEY -> (ids, seed of the photo)."""
    for name, (ids, seed) in images.items():
        split, key = name.split("/")
        photo(root / "raw" / split / "images" / f"{key}.jpg", (ids.shape[0], ids.shape[1]), seed=seed)
        ids_png(root / "raw" / split / "labels" / f"{key}.png", ids)
    assert prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(toy), **options)).failures == ()
    return root / "data"


def test_classes_that_are_never_seen_and_classes_that_are_not_trained_are_noted(tmp_path: Path, toy_yaml: Path) -> None:
    background, wheels = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    root = made(tmp_path, toy_yaml, {"train/a": (background, 0), "val/b": (wheels, 1)})
    found = [finding for finding in diagnose(root).found.sorted() if finding.check == "P37"]
    assert [(finding.level, finding.what) for finding in found] == [
        ("note", "5 of 7 fine classes have no pixel: window, body, left_light, right_light, sky"),
        ("note", "1 of 7 fine classes occur in other splits but not in train: wheel"),
        ("note", "1 of 3 coarse classes have no pixel: sky"),
        ("note", "1 of 3 coarse classes occur in other splits but not in train: car"),
    ]


def test_an_image_without_a_label_is_an_error_and_a_mostly_ignored_split_a_note(tmp_path: Path, toy_yaml: Path) -> None:
    ignored = np.full(SHAPE, 255, np.uint8)
    some = ignored.copy()
    some[0, :2] = 0
    root = made(tmp_path, toy_yaml, {"train/a": (ignored, 0), "train/b": (some, 1)}, allow_empty=True)
    found = [finding for finding in diagnose(root).found.sorted() if finding.check == "P38"]
    assert [(finding.level, finding.what) for finding in found] == [
        ("error", "a: 100 % of the pixels are ignore"), ("note", "99.5 % of the pixels are ignore"),
    ]  # fmt: skip
    assert diagnose(root).facts["ignore_share"] == {"train": pytest.approx(1 - 2 / (2 * 12 * 16))}


def test_a_photo_in_two_splits_and_one_that_only_looks_so(tmp_path: Path, toy_yaml: Path) -> None:
    plain = np.zeros((64, 80), np.uint8)
    names = {"train/a": 0, "train/again": 0, "train/b": 1, "val/c": 0, "val/d": 2, "val/e": 3}
    for name, seed in names.items():
        split, key = name.split("/")
        cells = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        path = tmp_path / "raw" / split / "images" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cells).resize((80, 64), Image.Resampling.BICUBIC).save(path, quality=95)
        ids_png(tmp_path / "raw" / split / "labels" / f"{key}.png", plain)
    images = tmp_path / "raw" / "train" / "images"
    with Image.open(images / "b.jpg") as image:  # the same scene, smaller and compressed more
        small = image.resize((60, 48))
    small.resize((80, 64)).save(tmp_path / "raw" / "val" / "images" / "d.jpg", quality=60)
    assert prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(toy_yaml))).failures == ()
    found = [finding for finding in diagnose(tmp_path / "data").found.sorted() if finding.check == "P39"]
    assert [(finding.level, finding.what) for finding in found] == [
        ("warning", "c is the same file as a of train"), ("note", "holds photos more than once: 1"),
    ]  # fmt: skip
    assert diagnose(tmp_path / "data").facts["leaks"] == [{"split": "val", "other_split": "train", "images": 1}]
    near = [f.what for f in diagnose(tmp_path / "data", near=True).found.sorted() if "looks like" in f.what]
    assert len(near) == 1
    assert near[0].startswith("d looks like b of train (")


def test_sixteen_bit_maps_are_noted_for_programs_that_read_eight(tmp_path: Path) -> None:
    fine = "".join(f"    - {{id: {k}, name: c{k}, parent: all}}\n" for k in range(256))
    table = ", ".join(f"{k}: c{k}" for k in range(256))
    text = (
        "schema: hiposeg/hierarchy@1\nname: many\nlevels: [fine, coarse]\nclasses:\n"
        f"  coarse:\n    - {{id: 0, name: all}}\n  fine:\n{fine}sources:\n  masks:\n    map: {{{table}}}\n"
    )
    (tmp_path / "many.yaml").write_text(text)
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    root = made(tmp_path, tmp_path / "many.yaml", {"train/a": (ids, 0)})
    diagnosis = diagnose(root)
    assert diagnosis.clean
    assert any(f.check == "P40" and "16 bits" in f.what and "mmsegmentation" in f.what for f in diagnosis.found.sorted())


@pytest.mark.parametrize("text", ['{"name": "nnU-Net"}', "[1]", "not json"])
def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="no such folder"):
        diagnose(tmp_path / "none")
    with pytest.raises(DataError, match=r"not a prepared dataset.*--format"):
        diagnose(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        diagnose(tmp_path)


@pytest.mark.parametrize(
    "change", [{"splits": {"../x": 3}}, {"splits": {"train": "4"}}, {"images_root": 5}, {"hierarchy_sha256": None}]
)
def test_a_dataset_json_with_nonsense_is_refused(data: Path, change: dict[str, Any]) -> None:
    edit_about(data, **change)
    with pytest.raises(DataError, match=r"dataset\.json"):
        diagnose(data)


# -- findings ----------------------------------------------------------------------------------------------------------


def test_findings_beyond_the_limit_are_counted_and_not_kept() -> None:
    found = Findings(keep=3)
    for number in range(5):
        found.error("P33", f"file{number}", "missing", "prepare again")
    found.note("P31", "hierarchy.yaml", "single child")
    assert [finding.where for finding in found.sorted()] == ["hierarchy.yaml", "file0", "file1", "file2"]
    diagnosis = Diagnosis("prepared", "data", found, {})
    assert diagnosis.totals == {"error": 5, "warning": 0, "note": 1}
    assert [check["id"] for check in diagnosis.as_json()["checks"]] == ["P31", "P33"]


def test_there_are_forty_checks_and_the_documentation_lists_them() -> None:
    assert list(CHECKS) == [f"R{number}" for number in range(1, 31)] + [f"P{number}" for number in range(31, 41)]
    lines = (Path(__file__).parent.parent / "docs" / "checks.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith(("| R", "| P"))}
    assert list(rows) == list(CHECKS)
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    package = Path(__file__).parent.parent / "hiposeg_cli"
    for check, line in rows.items():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 4, check
        for name in filter(None, (piece.strip(" `") for piece in cells[3].split(","))):
            assert name == "none" or f"def {name}(" in tests, f"{check}: no test {name}"
        for place in filter(lambda piece: piece.endswith(".py"), (p.split(":")[0].strip(" `") for p in cells[2].split(";"))):
            assert (package / place).is_file(), f"{check}: no module {place}"


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)


def test_exit_codes_and_lines_of_the_command(data: Path) -> None:
    good = run("doctor", data)
    assert good.exit_code == 0, good.output
    assert "train 4, val 2" in good.stdout.splitlines()[0]
    assert "ok      P36 coarse is the parent of fine (6 looked at)" in good.stdout
    assert not any(line.startswith(("ERROR", "warning")) for line in good.stdout.splitlines())
    label(data).unlink()
    bad = run("doctor", data)
    assert bad.exit_code == 1
    assert [line for line in bad.stdout.splitlines() if line.startswith("ERROR")] == [
        f"ERROR   P33 {label(data)}: label map is missing - prepare the data again"
    ]
    assert "1 error, 0 warnings" in bad.stderr


def test_json_of_the_command(data: Path) -> None:
    label(data).unlink()
    result = run("doctor", data, "--json", "--full")
    assert result.exit_code == 1
    envelope = json.loads(result.stdout)
    assert {key: envelope[key] for key in ("schema", "command", "status", "warnings")} == {
        "schema": "hiposeg/doctor@1", "command": "doctor", "status": "problems", "warnings": [],
    }  # fmt: skip
    answer = envelope["data"]
    assert set(answer) == {"kind", "where", "totals", "checks", "findings", "facts"}
    assert answer["kind"] == "prepared"
    assert answer["totals"]["error"] == 1
    for check in answer["checks"]:
        assert set(check) == {"id", "title", "examined", "error", "warning", "note"}
    for finding in answer["findings"]:
        assert set(finding) == {"check", "where", "what", "cure", "level"}
        assert finding["level"] in ("error", "warning", "note")
    assert set(answer["facts"]) == {
        "images", "hierarchy", "ignore_share", "hashed", "label_maps_decoded", "near_duplicates_searched", "leaks",
    }  # fmt: skip
    assert json.loads(run("doctor", data, "--json", "--fast").stdout)["data"]["facts"]["hashed"] is False


def test_many_findings_of_one_check_are_cut_short_on_the_terminal(data: Path) -> None:
    path = data / "manifest" / "train.jsonl"
    path.write_text("broken\n" * 30)
    lines = run("doctor", data).stdout.splitlines()
    assert sum(line.startswith("ERROR   P33") for line in lines) == 21
    assert any("more; --json" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hierarchy", "wbc-3-2"], ["--hierarchy", "--format"]),
        (["--fast", "--full"], ["--fast", "--full"]),
        (["--format", "masks", "--fast"], ["--fast", "--format"]),
    ],
)
def test_options_that_do_not_go_together(data: Path, arguments: list[str], words: list[str]) -> None:
    result = run("doctor", data, *arguments)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr


def test_usage_mistakes_of_the_command(tmp_path: Path) -> None:
    for arguments, word in (
        (["doctor", tmp_path / "none"], "no such folder"),
        (["doctor", tmp_path], "not a prepared dataset"),
        (["doctor", "--full"], "DATA"),
        (["doctor", "--format", "masks"], "DATA"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert word in result.stderr
        assert "Traceback" not in result.output
