"""The page of an evaluation: what it states, that it needs nothing else, and, in a real browser, that it works."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, find_browser
from command_line import data_of, refused, run
from eval_sets import prepared_masks, save, save_all, wrong_in_places
from PIL import Image
from test_inspection_page import SCRIPT_NAME, Page

from hiposeg_cli.evaluation.calibration import Calibration
from hiposeg_cli.evaluation.counting import Wanted
from hiposeg_cli.evaluation.predictions import FolderPredictions
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.evaluation.scoring import evaluate_pairs
from hiposeg_cli.evaluation.truth import PreparedTruth
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import lift
from hiposeg_cli.metrics import PROTOCOLS
from hiposeg_cli.report.eval_page import Report, evaluation_page
from hiposeg_cli.report.eval_pictures import COLOURS, IGNORED, RELATED, RIGHT, WRONG, compared_picture, mistakes
from hiposeg_cli.store import open_dataset

NAMES = [f"{number:02}" for number in range(11)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """`data` with 11 images; predictions `one` (fine only), `two` (of both levels) and `less` (a file missing)."""
    root = tmp_path_factory.mktemp("page")
    dataset, rng = open_dataset(prepared_masks(root, NAMES, toy_yaml)), np.random.default_rng(2)
    for row in dataset.split("val"):
        fine = wrong_in_places(rng, dataset.labels(row).fine, list(range(7)), 0.4)
        save_all(root / "one", {row.key: fine})
        save_all(root / "two" / "fine", {row.key: fine})
        save_all(root / "two" / "coarse", {row.key: wrong_in_places(rng, lift(fine, dataset.hierarchy), [0, 1, 2], 0.2)})
        if row.key != NAMES[0]:
            save_all(root / "less", {row.key: wrong_in_places(rng, fine, list(range(7)), 0.5)})
    return root


def result_of(world: Path, name: str) -> EvalResult:
    truth = PreparedTruth(world / "data", "val")
    about = {"kind": "label maps", "predictions": name, "ids": None}
    return evaluate_pairs(truth, FolderPredictions(world / name, truth), Wanted(PROTOCOLS["hiposeg"]), about)


def words_of(text: str) -> str:
    return " ".join(" ".join(Page(text).text).split())


# -- what it states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "two"])
def test_page_states_every_line_of_the_terminal(world: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "page.html"
    options = ["--against", world / "less", "--boundary", "--html", path, "--fail-under", "fine.miou=0.99"]
    if name == "two":
        options += ["--level", "fine", "--level", "coarse"]
        options[1] = world / "two"
    shown = run("eval", world / name, world / "data", *options, "--workers", 1)
    assert shown.exit_code == 1
    lines = [line.strip() for line in shown.stdout.splitlines() if re.match(r"\w[\w ()%.]*: |protocol ", line)]
    assert len(lines) >= 6
    words = words_of(path.read_text(encoding="utf-8"))
    for line in lines:
        assert line.removeprefix("against: ") in words, line
    gate = next(line for line in shown.stderr.splitlines() if "--fail-under" in line)
    assert gate.removeprefix("warning: ") in words


def test_tree_holds_the_scores_of_every_class(world: Path, toy_hierarchy: Hierarchy) -> None:
    result = result_of(world, "two")
    text = evaluation_page(Report(result, samples=0))
    heads = re.search(r'<table class="tree"><thead>(.*?)</thead>', text)
    assert heads is not None
    assert re.findall(r"<th[^>]*>([^<]*)", heads[1])[:5] == ["class", "own IoU", "merged IoU", "accuracy", "precision"]
    for depth, (name, level) in enumerate(result.summary["levels"].items()):
        for entry in level["classes"]:
            row = re.search(rf'<tr data-id="{depth}-{entry["id"]}"(.*?)</tr>', text)
            assert row is not None
            values = re.findall(r'data-v="([^"]*)"', row[1])
            scores = [entry["iou"], *([result.summary["merged"][name]["classes"][entry["id"]]["iou"]] if depth else [""])]
            assert values[0] == entry["name"]
            for value, score in zip(values[1:], [*scores, entry["accuracy"], entry["precision"]], strict=False):
                assert value == ("" if score in (None, "") else f"{score:.6g}")
            assert f"{float(entry['pixels']):.6g}" in values
            parent = toy_hierarchy.levels[depth].nodes[entry["id"]].parent
            if depth == 0:
                assert f'data-parent="1-{toy_hierarchy.coarse.find(str(parent))}"' in row[1]


def test_matrices_are_those_of_the_result(world: Path) -> None:
    result = result_of(world, "one")
    text = evaluation_page(Report(result, samples=0))
    assert re.findall(r'<option value="\d">([^<]*)', text) == ["fine", "fine in car", "coarse"]
    matrix, names = result.matrix(0), [*result.hierarchy.fine.names, "void"]
    for row, column in np.ndindex(*matrix.shape):
        title = f"{names[row]} as {names[column]}: {matrix[row, column]:,} px"
        assert (title in text) == bool(matrix[row, column])


def test_many_classes_are_listed_instead_of_drawn(tmp_path: Path) -> None:
    """Above 60 classes there is no matrix, and the tree starts folded."""
    raw, rng = tmp_path / "raw", np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 234, (16, 16)), np.ones((4, 4))).astype(np.uint8)
    save(raw / "val" / "images" / "a.png", np.zeros((64, 64, 3), np.uint8))
    save(raw / "val" / "labels" / "a.png", ids)
    options = ["--hierarchy", "ade20k-part-234-44", "--workers", 1]
    assert run("prepare", "masks", raw, tmp_path / "data", *options).exit_code == 0
    save(tmp_path / "pred" / "a.png", np.roll(ids, 4, axis=1))
    text = evaluation_page(Report(result_of(tmp_path, "pred"), samples=0))
    first = text[text.index('data-matrix="0"') : text.index('data-matrix="1"')]
    assert 'class="heat' not in first
    assert first.count("<tr>") == 1 + 50
    assert text.count('class="heat') == text.count("data-matrix=") - 1
    assert 'class="group folded"' in text
    assert len(text) < 2_000_000


def test_what_was_not_scored_is_named(world: Path) -> None:
    result = result_of(world, "less")
    words = words_of(evaluation_page(Report(result, samples=1)))
    assert "1 images without a prediction; 10 of 11 images are" in words
    assert str(result.problems[0]) in words


def test_calibration_is_drawn_where_it_was_measured(world: Path) -> None:
    result = result_of(world, "one")
    calibration, rng = Calibration(result.hierarchy), np.random.default_rng(0)
    leaf = rng.dirichlet(np.ones(7), (24, 20)).astype(np.float32).transpose(2, 0, 1)
    calibration.add(result.shown(result.images[0]).truth, leaf)
    summary = calibration.summary()
    measured = replace(result, summary=result.summary | {"calibration": summary})
    page = Page(evaluation_page(Report(measured, samples=0)))
    assert page.count("svg") == 2
    filled = sum(
        bool(entry["pixels"]) for level in summary.values() for key in ("diagram", "diagram_merged") for entry in level[key]
    )
    assert page.count("rect") - 2 + page.count("circle") == filled > 0
    assert Page(evaluation_page(Report(result, samples=0))).count("svg") == 0


# -- pictures ----------------------------------------------------------------------------------------------------------


def pixels_of(uri: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def test_mistakes_inside_a_family_are_told_from_others() -> None:
    truth = np.array([[1, 1, 1, 1, 255, 255]], np.uint8)
    predicted = np.array([[1, 2, 3, 255, 1, 255]], np.uint8)
    parents = np.array([0, 1, 1, 2])
    assert mistakes(truth, predicted, parents).tolist() == [[RIGHT, RELATED, WRONG, WRONG, IGNORED, IGNORED]]
    assert mistakes(truth, predicted, None).tolist() == [[RIGHT, WRONG, WRONG, WRONG, IGNORED, IGNORED]]


@pytest.mark.parametrize("name", ["one", "two"])
def test_pictures_show_the_labels_and_where_they_differ(world: Path, name: str) -> None:
    result = result_of(world, name)
    shown = result.shown(result.images[3])
    picture = compared_picture(shown, result.hierarchy, result.protocol)
    assert (picture.width, picture.height) == shown.truth.shape[::-1]
    coarse = shown.predicted[1] if name == "two" else lift(shown.predicted[0], result.hierarchy)
    pairs = ((shown.truth.fine, shown.predicted[0]), (shown.truth.coarse, coarse))
    for level, drawn, (truth, predicted) in zip(result.hierarchy.levels, picture.levels, pairs, strict=True):
        wrong = pixels_of(drawn.wrong)
        clear = (truth == predicted) & (truth != 255)
        assert ((wrong[..., 3] == 0) == clear).all()
        red = (wrong[..., :3] == COLOURS[WRONG]).all(axis=2)
        assert red.any()
        assert (truth[red] != predicted[red]).all()
        painted = pixels_of(drawn.prediction)
        for node in level.nodes[1:]:
            assert (painted[predicted == node.id] == (*node.color, 255)).all()
        assert {node.id for node in drawn.classes} == (set(np.unique(truth)) | set(np.unique(predicted))) - {255}


def test_large_images_are_shrunk_and_a_lost_photo_is_no_end(world: Path, toy_hierarchy: Hierarchy) -> None:
    shown = result_of(world, "one").shown(result_of(world, "one").images[0])
    large = replace(
        shown, photo=None, truth=replace(shown.truth, fine=big(shown.truth.fine), coarse=big(shown.truth.coarse)),
        predicted=tuple(map(big, shown.predicted)),
    )  # fmt: skip
    picture = compared_picture(large, toy_hierarchy, PROTOCOLS["hiposeg"])
    assert (picture.width, picture.height, picture.photo) == (533, 640, "")
    colours = {tuple(color) for color in pixels_of(picture.levels[0].wrong).reshape(-1, 4)[:, :3].tolist()}
    assert colours <= {(0, 0, 0), *COLOURS.values()}


def big(labels: Any) -> Any:
    return labels.repeat(50, axis=0).repeat(50, axis=1)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_page_is_well_formed_and_asks_for_nothing_outside(world: Path) -> None:
    text = evaluation_page(Report(result_of(world, "one"), samples=3))
    page = Page(text)
    sources = [attrs[key] for _, attrs in page.elements for key in ("src", "href", "action", "srcset") if key in attrs]
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert not re.search(r"https?:|@import|//[a-z]", re.sub(r'data:image/[^")]*', "", text))
    policy = next(attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    targets = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert {source[1:] for source in sources if source.startswith("#")} <= targets
    assert 3 <= page.count("figure") <= 6
    assert text == evaluation_page(Report(result_of(world, "one"), samples=3))
    assert text != evaluation_page(Report(result_of(world, "one"), samples=3, seed=1))


def test_html_option_writes_once_and_into_folders(world: Path, tmp_path: Path) -> None:
    command = ["eval", world / "one", world / "data", "--workers", 1, "--html"]
    answer = data_of(run(*command, tmp_path, "--json"))
    assert answer["html"] == str(tmp_path / "report.html")
    first = (tmp_path / "report.html").read_bytes()
    refused(run(*command, tmp_path), "report.html", "exists", "--overwrite")
    assert (tmp_path / "report.html").read_bytes() == first
    assert run(*command, tmp_path / "report.html", "--overwrite", "--worst", 2, "--seed", 3).exit_code == 0
    again = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2 at random (seed 3)" in again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]
    assert data_of(run(*command[:-1], "--json"))["html"] is None


@pytest.fixture
def evil(tmp_path: Path, toy_yaml: Path) -> str:
    """A page whose classes, split and folder try to break out of their places."""
    name = '"><img src=x onerror=alert(1)>'
    yaml = tmp_path / "evil.yaml"
    yaml.write_text(toy_yaml.read_text().replace("wheel", json.dumps(name)).replace("sky", json.dumps(SCRIPT_NAME)))
    save(tmp_path / "raw" / "images" / "<i>val" / "k.png", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "raw" / "labels" / "<i>val" / "k.png", np.full((8, 8), 1, np.uint8))
    prepared = run("prepare", "masks", tmp_path / "raw", tmp_path / "data", "--hierarchy", yaml, "--workers", 1)
    assert prepared.exit_code == 0, prepared.output
    save(tmp_path / "<u>pred" / "k.png", np.full((8, 8), 6, np.uint8))
    command = ["eval", tmp_path / "<u>pred", tmp_path / "data", "--split", "<i>val", "--html", tmp_path / "p.html"]
    evaluated = run(*command, "--against", tmp_path / "<u>pred", "--workers", 1)
    assert evaluated.exit_code == 0, evaluated.output
    return (tmp_path / "p.html").read_text(encoding="utf-8")


def test_names_are_escaped_wherever_they_stand(evil: str) -> None:
    page = Page(evil)
    assert page.count("script") == 1
    assert not any(attrs.get("src") == "x" or "onerror" in attrs for _, attrs in page.elements)
    for raw in ("<i>val", "<u>pred", SCRIPT_NAME, '"><img src=x'):
        assert raw not in evil
        assert raw in "".join(page.text)


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed (HIPOSEG_BROWSER names one elsewhere): pages are not clicked")
    with Browser(program, tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, world: Path, tmp_path: Path) -> Iterator[Browser]:
    """The page of `one`, opened; at the end nothing has been complained of and nothing else asked for."""
    path = tmp_path / "page.html"
    path.write_text(evaluation_page(Report(result_of(world, "one"), samples=2)), encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    yield browser
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]


ROWS = '[...document.querySelectorAll("table.tree tbody tr")]'


def shown_rows(page: Browser) -> list[str]:
    """Places of the classes on the screen, from the top."""
    return list(page.value(f"{ROWS}.filter(row => row.offsetHeight).map(row => row.dataset.id)"))


def test_a_column_sorts_inside_each_group(page: Browser, world: Path) -> None:
    levels = result_of(world, "one").summary["levels"]
    iou = {f"{depth}-{e['id']}": e["iou"] for depth, level in enumerate(levels.values()) for e in level["classes"]}
    before = shown_rows(page)
    page.click("table.tree th:nth-child(2)")
    after = shown_rows(page)
    assert sorted(after) == sorted(before)
    for group in (lambda place: place.startswith("1-"), lambda place: place in {f"0-{k}" for k in range(1, 6)}):
        places = [place for place in after if group(place)]
        assert places == sorted(places, key=lambda place: -iou[place])
    assert page.value('document.querySelector("table.tree th:nth-child(2)").ariaSort') == "descending"
    page.press("Enter")
    cars = [place for place in shown_rows(page) if place in {f"0-{k}" for k in range(1, 6)}]
    assert cars == sorted(cars, key=lambda place: iou[place])
    page.click("table.tree th:nth-child(1)")
    names = page.value(f'{ROWS}.filter(row => row.dataset.id.startsWith("1-")).map(row => row.cells[0].dataset.v)')
    assert names == ["background", "car", "sky"]


def test_a_family_folds_and_opens(page: Browser) -> None:
    family = {f"0-{k}" for k in range(1, 6)}
    mark = 'tr[data-id="1-1"] .fold'
    assert family < set(shown_rows(page))
    page.click(mark)
    assert not family & set(shown_rows(page))
    assert {"1-1", "0-0", "0-6"} <= set(shown_rows(page))
    assert page.value(f"document.querySelector('{mark}').ariaExpanded") == "false"
    page.press("Enter")
    assert family < set(shown_rows(page))
    page.click('button[data-fold="1"]')
    assert set(shown_rows(page)) == {"1-0", "1-1", "1-2"}
    page.click('button[data-fold="0"]')
    assert family < set(shown_rows(page))


def test_the_page_of_an_inspection_folds_and_sorts_alike(browser: Browser, world: Path, tmp_path: Path) -> None:
    path = tmp_path / "inspection.html"
    assert run("inspect", world / "data", "--html", path, "--samples", 1).exit_code == 0
    browser.complaints.clear()
    browser.open(path)
    browser.click('tr[data-id="1-1"] .fold')
    assert set(shown_rows(browser)) == {"1-0", "1-1", "1-2", "0-0", "0-6"}
    browser.click("table.tree th:nth-child(2)")
    pixels = browser.value(f'{ROWS}.filter(row => row.dataset.id.startsWith("1-")).map(row => +row.cells[1].dataset.v)')
    assert pixels == sorted(pixels, reverse=True)
    assert browser.complaints == []


def edge(page: Browser) -> float:
    """Where the left half of the first image ends, as a share of its width."""
    clip = page.value('getComputedStyle(document.querySelector(".compare .left")).clipPath')
    found = re.search(r"inset\(0px calc\(100% - ([\d.]+)%\)|inset\(0px ([\d.]+)%", clip)
    assert found is not None, clip
    return float(found[1]) / 100 if found[1] else 1 - float(found[2]) / 100


def test_the_line_between_truth_and_prediction_moves(page: Browser) -> None:
    assert edge(page) == 0.5
    page.drag(".compare .divider", 0.5, 0.2)
    assert edge(page) == pytest.approx(0.2, abs=0.03)
    dragged = edge(page)
    for _ in range(3):
        page.press("ArrowRight")
    assert edge(page) == pytest.approx(dragged + 0.03)
    page.click(".compare .divider", at=0.9)
    assert edge(page) == pytest.approx(0.9, abs=0.03)
    others = '[...document.querySelectorAll(".divider")].slice(1).map(divider => divider.value)'
    assert set(page.value(others)) == {"50"}


def test_level_and_sides_choose_the_pictures(page: Browser) -> None:
    def seen(side: str) -> list[str]:
        """Kind and level of what a half of the first image shows."""
        return list(page.value(
            f'(() => {{ const figure = document.querySelector(".compare"), half = figure.querySelector(".{side}");'
            'const tint = half.querySelector(".tint");'
            'if (tint.hidden) return ["photo", half.querySelector(".photo").src.slice(0, 15)];'
            'const source = [...figure.querySelectorAll(".source")].find(image => image.src === tint.src);'
            "return [source.dataset.kind, source.dataset.level, tint.alt, tint.naturalWidth > 0]; })()"
        ))  # fmt: skip

    key = page.value('document.querySelector(".compare figcaption").firstChild.textContent')
    assert seen("left") == ["truth", "0", f"truth, fine, {key}", True]
    assert seen("right") == ["prediction", "0", f"prediction, fine, {key}", True]
    page.click("input[name=level][value='1']")
    assert seen("left")[:3] == ["truth", "1", f"truth, coarse, {key}"]
    legends = '[...document.querySelectorAll(".compare:first-child [data-of-level]")].map(legend => legend.hidden)'
    assert page.value(legends)[:2] == [True, False]
    page.click("input[name=right][value=wrong]")
    assert seen("right")[:3] == ["wrong", "1", f"mistakes, coarse, {key}"]
    assert page.value('document.querySelector(".of-right").textContent') == "mistakes"
    page.click("input[name=left][value=photo]")
    assert seen("left") == ["photo", "data:image/jpeg"]
    page.click("input[name=left][value=photo]")
    page.press("ArrowRight")
    assert seen("left")[0] == "truth"


def test_one_matrix_is_shown_at_a_time(page: Browser) -> None:
    shown = '[...document.querySelectorAll(".matrix")].filter(card => card.offsetHeight).map(card => card.dataset.matrix)'
    assert page.value(shown) == ["0"]
    page.value('document.getElementById("matrix").focus()')
    page.value('(() => { const list = document.getElementById("matrix"); list.value = "1"; '
               'list.dispatchEvent(new Event("change")); })()')  # fmt: skip
    assert page.value(shown) == ["1"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(page: Browser, scheme: str) -> None:
    """A contrast of at least 4.5 to 1 (WCAG 2, AA) of plain and soft text, and of what can be clicked."""
    page.emulate(scheme)
    for selector in ("p.soft", "table.tree td", ".said li", "nav a", "figcaption small"):
        color, *behind = page.value(
            f'[getComputedStyle(document.querySelector("{selector}")).color,'
            '...["body", ".card"].map(name => getComputedStyle(document.querySelector(name)).backgroundColor)]'
        )
        for background in behind:
            assert contrast(color, background) >= 4.5, (selector, color, background)


def contrast(first: str, second: str) -> float:
    lights = []
    for color in (first, second):
        channels = np.array([int(value) for value in re.findall(r"\d+", color)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


def test_names_do_nothing_in_a_browser(browser: Browser, evil: str, tmp_path: Path) -> None:
    path = tmp_path / "evil_page.html"
    path.write_text(evil, encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]
    assert SCRIPT_NAME in browser.value("document.body.textContent")
