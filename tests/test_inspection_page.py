"""The inspection page: whole, self-contained, safe against names, and showing the labels as they are."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image
from raw_sets import ids_png, masks_set, photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.inspection.overview import inspect_dataset
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.report.inspect_page import inspection_page
from hiposeg_cli.report.inspect_pictures import LONG_SIDE_PX, picture

VOID = {"meta", "img", "input", "br"}
SCRIPT_NAME = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Collects a page's elements and checks that they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """Three training images and one of val, which repeats a photo of train."""
    root = tmp_path_factory.mktemp("page")
    ids = np.array([[0, 1, 2, 3], [0, 0, 6, 6], [7, 7, 255, 255]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    masks_set(root / "raw", {f"img{k}": np.roll(ids, 3 * k, axis=1) for k in range(3)})
    photo(root / "raw" / "val" / "images" / "again.jpg", (24, 32), seed=1)
    ids_png(root / "raw" / "val" / "labels" / "again.png", ids)
    assert prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(toy_yaml))).failures == ()
    return root / "data"


def page_of(root: Path, samples: int = 12) -> str:
    return inspection_page(inspect_dataset(root, samples=samples))


def test_page_is_well_formed_and_asks_for_nothing_outside(data: Path) -> None:
    text = page_of(data)
    page = Page(text)
    sources = [attrs[name] for _, attrs in page.elements for name in ("src", "href", "action", "srcset") if name in attrs]
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert all(url.startswith("data:image/") for url in re.findall(r"url\(([^)]*)\)", text))
    assert not re.search(r"https?:|@import|//[a-z]", re.sub(r"data:image/[^\")]*", "", text))
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    targets = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert {source[1:] for source in sources if source.startswith("#")} <= targets


def test_page_shows_every_class_below_its_parent(data: Path, toy_hierarchy: Hierarchy) -> None:
    rows = [attrs for tag, attrs in Page(page_of(data)).elements if tag == "tr" and "data-id" in attrs]
    assert len(rows) == toy_hierarchy.n_fine + toy_hierarchy.n_coarse
    parents = {attrs["data-id"]: attrs.get("data-parent") for attrs in rows}
    for node in toy_hierarchy.fine.nodes:
        assert parents[f"0-{node.id}"] == f"1-{toy_hierarchy.parent[node.id]}"
    assert [parents[f"1-{node.id}"] for node in toy_hierarchy.coarse.nodes] == [None] * 3
    order = [attrs["data-id"] for attrs in rows]
    assert order.index("1-1") < order.index("0-1") < order.index("1-2")


def test_page_tells_numbers_leaks_and_samples(data: Path) -> None:
    page = Page(page_of(data))
    words = " ".join(page.text)
    for expected in (
        "wheel",
        "sky",
        "train 3",
        "1 of val are also in train",
        "val/again",
        "32 \u00d7 24",
    ):
        assert expected in words
    assert "Near-duplicates were not looked for" in words
    assert page.count("figure") == 4
    assert Page(page_of(data, samples=0)).count("figure") == 0
    assert Page(page_of(data, samples=2)).count("figure") == 2


def test_equal_datasets_give_equal_pages(data: Path) -> None:
    assert page_of(data) == page_of(data)


def test_names_are_escaped_wherever_they_stand(tmp_path: Path, toy_yaml: Path) -> None:
    """A key, a split, a class and the dataset itself, named to break out of their place."""
    name = '"><img src=x onerror=alert(1)>'
    yaml = tmp_path / "evil.yaml"
    yaml.write_text(toy_yaml.read_text().replace("wheel", json.dumps(name)), encoding="utf-8")
    ids = np.array([[0, 1, 2, 6]] * 4, np.uint8)
    masks_set(tmp_path / "raw", {"a": ids})
    root = tmp_path / "<b>bold"
    options = PrepareOptions(hierarchy=str(yaml), copy_images=True)
    assert prepare("masks", tmp_path / "raw", root, options).failures == ()
    for path in sorted(root.rglob("a.*")):
        folder = path.parent.with_name("<i>split")
        (folder / SCRIPT_NAME).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{SCRIPT_NAME}{path.suffix}")
    row = json.loads((root / "manifest" / "train.jsonl").read_text())
    row |= {"key": SCRIPT_NAME, "split": "<i>split", "image_path": row["image_path"]}
    (root / "manifest" / "<i>split.jsonl").write_text(json.dumps(row) + "\n")
    about = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(about | {"splits": {"<i>split": 1}}))
    text = page_of(root)
    page = Page(text)
    assert page.count("script") == 1
    assert not any(attrs.get("src") == "x" or "onerror" in attrs for _, attrs in page.elements)
    for raw in (SCRIPT_NAME, name, "<b>bold", "<i>split"):
        assert raw not in text
    words = "".join(page.text)
    for shown in (SCRIPT_NAME, "<i>split", name, "<b>bold"):
        assert shown in words


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_label_pictures_are_the_classes_colours_and_clear_elsewhere(toy_hierarchy: Hierarchy) -> None:
    fine = np.array([[0, 1, 2], [3, 6, 255]], np.uint8)
    coarse = lift(fine, toy_hierarchy).copy()
    shown = picture(
        np.full((2, 3, 3), 90, np.uint8), TwoLevelMap(fine, coarse), toy_hierarchy.fine, toy_hierarchy.coarse
    )  # fmt: skip
    pixels = np.asarray(decoded(shown.fine).convert("RGBA"))
    for y, x in np.ndindex(2, 3):
        if fine[y, x] in (0, 255):  # background, ignore
            assert pixels[y, x, 3] == 0
        else:
            assert tuple(pixels[y, x]) == (*toy_hierarchy.fine.nodes[fine[y, x]].color, 255)
    assert decoded(shown.photo).size == (3, 2)
    assert [node.name for node in shown.coarse_classes] == ["car", "background", "sky"]


def test_large_samples_are_shrunk_by_nearest(toy_hierarchy: Hierarchy) -> None:
    rng = np.random.default_rng(0)
    fine = rng.choice(np.array([1, 2, 6], np.uint8), (1200, 800))
    shown = picture(
        rng.integers(0, 255, (1200, 800, 3), dtype=np.uint8), TwoLevelMap(fine, lift(fine, toy_hierarchy)),
        toy_hierarchy.fine, toy_hierarchy.coarse,
    )  # fmt: skip
    assert (shown.width, shown.height) == (320, LONG_SIDE_PX)
    colours = {tuple(color) for color in np.asarray(decoded(shown.fine).convert("RGB")).reshape(-1, 3)}
    assert colours == {toy_hierarchy.fine.nodes[k].color for k in (1, 2, 6)}


# -- the command -------------------------------------------------------------------------------------------------------


def test_html_option_writes_the_page_once(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "pages" / "page.html"
    result = run("inspect", data, "--html", path, "--json", "--samples", 1)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["data"]["html"] == str(path)
    assert path.read_text(encoding="utf-8") == page_of(data, samples=1)
    again = run("inspect", data, "--html", path)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert run("inspect", data, "--html", path, "--overwrite").exit_code == 0
    assert path.read_text(encoding="utf-8") == page_of(data)


def test_a_lost_photo_of_a_sample_is_named(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data.parent, tmp_path / "copy")) / "data"
    about = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(about | {"images_root": str(tmp_path)}))
    result = run("inspect", root, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "img0.jpg: no such file" in result.stderr
    assert not (tmp_path / "page.html").exists()
