"""Malformed inputs 27, 32 and 33 of the format specification: taxonomy files, and taxonomies that data disagree with.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed_check import accepts, hiposeg, prepare, refuses_image, refuses_source, the_problem
from malformed_sets import IDS, SHAPE, Raw, draw
from numpy.typing import NDArray
from PIL import Image
from raw_sets import ids_png

from hiposeg_cli.store import open_dataset

HEAD = (
    "schema: hiposeg/hierarchy@1\nname: odd\nlevels: [fine, coarse]\nclasses:\n  coarse:\n"
    "    - {name: car}\n    - {name: sky}\n  fine:\n"
)
FINE = "    - {name: wheel, parent: car}\n    - {name: cloud, parent: sky}\n"
SOURCE = "sources: {masks: {map: {1: wheel, 2: cloud, 3: wheel, 4: wheel, 5: wheel, 6: cloud, 7: cloud}}}\n"
WHOLE = HEAD + FINE + SOURCE


def told(raw: Raw, text: str | bytes) -> Raw:
    """The set, read with another taxonomy."""
    path = raw.world / "odd.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return raw.told("--hierarchy", path)


def refuses_taxonomy(text: str | bytes, tmp_path: Path, *words: str) -> None:
    """Refused by `prepare` before anything is written, and by `hierarchy check`."""
    raw = told(draw("masks", tmp_path), text)
    refuses_source(raw, "odd.yaml", *words)
    the_problem(hiposeg("hierarchy", "check", raw.world / "odd.yaml"), 2, ["odd.yaml", *words])


def test_the_sound_taxonomy_of_these_tests(tmp_path: Path) -> None:
    accepts(told(draw("masks", tmp_path), WHOLE))


# -- 27: no tree -------------------------------------------------------------------------------------------------------


def classes(*entries: str) -> str:
    """Lines of classes, given as NAME: PARENT."""
    named = (entry.rpartition(": ") for entry in entries)
    return "".join(f"    - {{name: {name}, parent: {parent}}}\n" for name, _, parent in named)


NO_TREES: dict[str, tuple[str, list[str]]] = {
    "27-cycle": (HEAD + classes("a: b", "b: c", "c: a"), [":9:", "a -> b -> c -> a"]),
    "27-self-parent": (HEAD + "    - {name: a, parent: a}\n", [":9:", "a -> a"]),
    "27-parent-on-its-own-level": (HEAD + FINE + "    - {name: a, parent: wheel}\n", [":11:", "'a'", "'wheel'"]),
    "27-missing-parent": (HEAD + "    - {name: a, parent: bus}\n", [":9:", "'a'", "'bus'"]),
    "27-parent-typo": (HEAD + "    - {name: a, parent: carr}\n", [":9:", "did you mean 'car'"]),
    "27-no-parent": (HEAD + "    - {name: a}\n", [":9:", "'a'", "no parent"]),
    "27-two-parents": (HEAD + "    - {name: a, parent: [car, sky]}\n", [":9:", "2 parents", "structure: dag"]),
    "27-duplicate-name": (HEAD + FINE + "    - {name: wheel, parent: sky}\n", [":11:", "'wheel'", "share the name"]),
    "27-duplicate-up-to-case": (HEAD + FINE + "    - {name: Wheel, parent: sky}\n", [":11:", "'Wheel'", "'wheel'"]),
    "27-duplicate-up-to-nfd": (
        HEAD + FINE + classes("caf\u00e9: sky", "cafe\u0301: sky"), [":12:", "share the name"]
    ),
    "27-duplicate-key-of-a-class": (HEAD + "    - {name: a, parent: car, parent: sky}\n", [":9:", "'parent'", "line 9"]),
    "27-duplicate-level": (WHOLE.replace("sources:", "  coarse: [bus]\nsources:"), [":11:", "'coarse'", "line 5"]),
    "27-duplicate-id": (HEAD + classes("a, id: 0: car", "b, id: 0: sky"), [":8:", "gaps or repeats"]),
    "27-level-name-twice": (WHOLE.replace("[fine, coarse]", "[fine, fine]"), [":3:", "fine"]),
    "27-one-level": (WHOLE.replace("[fine, coarse]", "[fine]"), [":3:", "two levels"]),
    "27-empty": ("", ["not a hierarchy"]),
    "27-list": ("- a\n", ["not a hierarchy"]),
    "27-other-schema": (WHOLE.replace("@1", "@2"), [":1:", "@2"]),
    "27-unknown-key": (WHOLE.replace("sources:", "soruces:"), [":11:", "did you mean 'sources'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_TREES)
def test_taxonomy_that_is_no_tree(case: str, tmp_path: Path) -> None:
    text, words = NO_TREES[case]
    refuses_taxonomy(text, tmp_path, *words)


def test_27_files_that_extend_each_other(tmp_path: Path) -> None:
    raw = draw("masks", tmp_path)
    for name, other in (("odd", "even"), ("even", "odd")):
        (tmp_path / f"{name}.yaml").write_text(f"schema: hiposeg/hierarchy@1\nname: {name}\nextends: {other}.yaml\n")
    refuses_source(raw.told("--hierarchy", tmp_path / "odd.yaml"), "odd.yaml -> even.yaml -> odd.yaml")


# -- 32: what YAML makes of it -----------------------------------------------------------------------------------------

OF_ONE_VERSION = ["08", "0o17", "1e5"]  # text to YAML 1.1, numbers to YAML 1.2
RETYPED = [
    *OF_ONE_VERSION, "no", "off", "on", "yes", "true", "1_000", "12:30", "0x1F", "12", ".5", "null", "~", "2024-05-06",
]  # fmt: skip


@pytest.mark.parametrize("word", RETYPED)
def test_32_name_that_yaml_reads_as_something_else(word: str, tmp_path: Path) -> None:
    refuses_taxonomy(HEAD + FINE + f"    - {{name: {word}, parent: car}}\n", tmp_path, ":11:", f'write "{word}"')


@pytest.mark.parametrize("word", RETYPED)
def test_32_parent_that_yaml_reads_as_something_else(word: str, tmp_path: Path) -> None:
    text = HEAD.replace("{name: sky}", f'{{name: "{word}"}}') + f"    - {{name: wheel, parent: {word}}}\n"
    refuses_taxonomy(text, tmp_path, ":9:", f'write "{word}"')


@pytest.mark.parametrize("word", [word for word in RETYPED if word != "12"])
def test_32_key_that_yaml_reads_as_something_else(word: str, tmp_path: Path) -> None:
    """A raw name in the table of a source; 12 is a raw id there."""
    text = HEAD + FINE + f"sources:\n  labelme:\n    map:\n      {word}: wheel\n"
    refuses_taxonomy(text, tmp_path, ":14:", f'write "{word}"')


@pytest.mark.parametrize("word", RETYPED)
def test_32_quoted_words_are_names(word: str, tmp_path: Path) -> None:
    text = HEAD + FINE + f'    - {{name: "{word}", parent: car}}\n' + SOURCE.replace("3: wheel", f'3: "{word}"')
    accepts(told(draw("masks", tmp_path), text))


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
NO_YAML: dict[str, tuple[str | bytes, list[str]]] = {
    "32-tab": (WHOLE.replace("  fine:", "\tfine:"), [":8:", "YAML"]),
    "32-anchor-bomb": (BOMB, [":1:", "anchors"]),
    "32-alias": (HEAD + "    - &a {name: wheel, parent: car}\n    - *a\n", [":9:", "anchors"]),
    "32-merge-key": (HEAD + "    - {<<: {name: wheel}, parent: car}\n", ["<<"]),
    "32-latin-1": (WHOLE.replace("wheel", "caf\u00e9").encode("latin-1"), ["UTF-8", f"byte {WHOLE.index('wheel') + 3}"]),
    "32-utf-16": (WHOLE.encode("utf-16"), ["UTF-8"]),
    "32-utf-16-unmarked": (WHOLE.encode("utf-16-le"), ["odd.yaml"]),
    "32-control-character": (WHOLE.replace("wheel", "whe\x07el"), ["YAML"]),
    "32-escaped-control-character": (WHOLE.replace("wheel", '"whe\\u0007el"'), [":9:", "control"]),
    "32-lone-surrogate": (WHOLE.replace("wheel", '"\\ud800"'), ["odd.yaml"]),
    "32-too-many-nodes": (WHOLE + f"doc: [{'x,' * 200_001}]\n", ["200000 nodes"]),
    "32-nested": (WHOLE + f"doc: {'[' * 10_000}{']' * 10_000}\n", ["nested"]),
    "32-two-documents": (WHOLE + "---\n" + WHOLE, ["YAML"]),
    "30-yaml-tag": (WHOLE + "doc: !!python/object/apply:os.system ['touch evil.txt']\n", [":12:", "tag"]),
    "30-yaml-tag-of-a-name": (WHOLE.replace("name: odd", "name: !!python/name:os.system x"), [":2:", "tag"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_YAML)
def test_file_that_is_no_plain_yaml(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, words = NO_YAML[case]
    refuses_taxonomy(text, tmp_path, *words)
    assert not (tmp_path / "evil.txt").exists()


def test_32_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    accepts(told(draw("masks", tmp_path), WHOLE.encode("utf-8-sig")))


@pytest.mark.parametrize("word", ["no", "1_000", "12:30", "~", "2024-05-06"])
def test_32_class_names_of_yolo(word: str, tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    (raw.root / "data.yaml").write_text(f"train: images/train\nnames:\n  0: wheel\n  1: {word}\n")
    refuses_source(raw, "data.yaml:4", f'write "{word}"')


@pytest.mark.parametrize(("text", "words"), [
    ("train: images/train\nnames: &x [wheel, body]\nother: *x\n", [":2", "anchors"]),
    ("train: images/train\nnames: !!python/tuple [wheel, body]\n", [":2", "tag"]),
    ("train: images/train\ntrain: images/val\nnames: [wheel, body]\n", [":2", "'train'", "line 1"]),
    ("train: images/train\nnames:\n\t0: wheel\n", [":3", "YAML"]),
], ids=["32-anchor", "30-yaml-tag", "27-duplicate-key", "32-tab"])  # fmt: skip
def test_data_yaml_of_yolo(text: str, words: list[str], tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    (raw.root / "data.yaml").write_text(text)
    refuses_source(raw, "data.yaml", *words)


# -- 33: taxonomy and data disagree ------------------------------------------------------------------------------------


def test_33_id_beyond_the_names(tmp_path: Path) -> None:
    raw = told(draw("masks", tmp_path), WHOLE.replace(", 7: cloud", ""))
    ids_png(raw.root / "train" / "labels" / "a.png", np.ones(SHAPE, np.uint8))
    refuses_image(raw, "b.png", "unknown to the hierarchy: 7 (12 px)")


@pytest.mark.parametrize("names", ["[wheel]", "{0: wheel}"])
def test_33_names_of_yolo_shorter_than_the_ids_used(names: str, tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    (raw.root / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    raw.label.write_text("1 0.1 0.1 0.9 0.1 0.9 0.9\n")
    refuses_image(raw, "b.txt:1", "class 1", "add its name to data.yaml")


@pytest.mark.parametrize(("data", "words"), [
    ("names: {0: wheel, 2: body}", ["0..1"]), ("nc: 3\nnames: [wheel, body]", ["`nc` is 3", "2 names"]),
], ids=["33-gap", "33-nc"])  # fmt: skip
def test_names_of_yolo_that_disagree(data: str, words: list[str], tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    (raw.root / "data.yaml").write_text(f"train: images/train\n{data}\n")
    refuses_source(raw, "data.yaml", *words)


def test_33_class_never_seen_is_shown(tmp_path: Path) -> None:
    raw = told(draw("masks", tmp_path), HEAD + FINE + "    - {name: spare, parent: car}\n" + SOURCE)
    assert "never seen (1): spare" in prepare(raw, "--check", tables=True).stdout
    assert accepts(raw)["fine"][2]["pixels"] == {"train": 0}


def test_33_ignore_value_that_is_a_class_too(tmp_path: Path) -> None:
    raw = told(draw("masks", tmp_path), WHOLE.replace("}}}", "}, ignore: [7]}}"))
    refuses_source(raw, "'odd'", "id 7", "both mapped and ignored")


@pytest.mark.parametrize("value", [0, 7, 254, 65_535])
def test_33_ignore_index_that_is_not_the_one_on_disk(value: int, tmp_path: Path) -> None:
    text = WHOLE.replace("[fine, coarse]", f"[{{name: fine, ignore_index: {value}}}, {{name: coarse}}]")
    refuses_taxonomy(text, tmp_path, ":3:", f"is {value}", "write 255")


def many(n_classes: int) -> str:
    """A taxonomy of n fine classes, read from 16-bit maps by their own ids."""
    lines = [f"    - {{name: c{number}, parent: car}}" for number in range(n_classes)]
    table = ", ".join(f"{number}: c{number}" for number in range(n_classes))
    return HEAD.replace("    - {name: sky}\n", "") + "\n".join(lines) + f"\nsources: {{masks: {{map: {{{table}}}}}}}\n"


@pytest.mark.parametrize(("n_classes", "mode", "ignore"), [(254, "L", 255), (255, "I;16", 65_535), (300, "I;16", 65_535)])
def test_33_more_classes_than_8_bits_hold_go_to_16(n_classes: int, mode: str, ignore: int, tmp_path: Path) -> None:
    raw = told(draw("masks", tmp_path), many(n_classes)).told("--unknown", "ignore")
    ids = np.full(SHAPE, n_classes - 1, np.uint16)
    ids[0, 0] = 400  # unknown, so ignored
    ids_png(raw.label, ids)
    accepts(raw, "b.png", "1 px of unknown labels")
    dataset = open_dataset(raw.out)
    fine = dataset.labels(dataset.split("train")[1]).fine
    assert (fine[0, 0], fine[0, 1]) == (ignore, n_classes - 1)
    with Image.open(raw.out / "labels" / "fine" / "train" / "b.png") as image:
        assert image.mode in (mode, "I" if mode == "I;16" else mode)


@pytest.mark.parametrize(("change", "words"), [
    (lambda text: text.replace("{name: cloud", "{id: 2, name: cloud"), ["id 1", "without gaps"]),
    (lambda text: text.replace("{name: cloud", "{id: -1, name: cloud"), ["-1"]),
    (lambda text: text.replace("{name: cloud", "{id: x, name: cloud"), ["'x'"]),
    (lambda text: text.replace("{name: cloud", "{id: 1.0, name: cloud"), ["1.0"]),
    (lambda text: text.replace("{name: cloud", "{id: yes, name: cloud"), ["yes"]),
], ids=["33-gap", "33-negative", "33-word", "33-fraction", "33-boolean"])  # fmt: skip
def test_ids_that_are_not_contiguous(change: Callable[[str], str], words: list[str], tmp_path: Path) -> None:
    refuses_taxonomy(change(WHOLE), tmp_path, *words)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("2: cloud", "2: clowd", ["clowd", "cloud"]),
    ("2: cloud", "2: {coarse: skyy}", ["skyy", "sky"]),
    ("2: cloud", "two: cloud", ["'two'"]),
    ("2: cloud", f"{10**9}: cloud", [str(10**9)]),
    ("2: cloud", f"{10**30}: cloud", [str(10**30)]),
], ids=["33-class", "33-coarse-class", "33-key", "33-large-id", "33-huge-id"])  # fmt: skip
def test_source_table_that_means_nothing(old: str, new: str, words: list[str], tmp_path: Path) -> None:
    refuses_source(told(draw("masks", tmp_path), WHOLE.replace(old, new)), *words)


def test_33_taxonomy_of_another_format(tmp_path: Path) -> None:
    refuses_source(draw("masks", tmp_path).told("--hierarchy", "cityscapes-19-7"), "cityscapes-19-7", "masks")


@pytest.mark.parametrize(("name", "ids", "words"), [
    ("cityscapes", np.where(IDS == 7, 255, IDS), ["trainIds", "labelIds"]),
    ("sceneparse150", np.where(IDS == 7, 255, IDS), ["reduced by one"]),
    ("partimagenet", np.where(IDS == 7, 158, IDS), ["whole objects"]),
], ids=["33-train-ids", "33-reduced-ids", "33-whole-objects"])  # fmt: skip
def test_ids_of_another_coding(name: str, ids: NDArray[Any], words: list[str], tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    ids_png(raw.label, ids.astype(np.uint8))
    refuses_image(raw, raw.label.name, *words)


def test_33_ids_of_the_other_release_of_coco_stuff(tmp_path: Path) -> None:
    raw = draw("coco-stuff", tmp_path)
    ids_png(raw.label, np.where(IDS == 7, 182, IDS).astype(np.uint8))
    result = prepare(raw)
    the_problem(result, 2, ["182", "10k", "--variant 10k"])
    assert not raw.out.exists()
