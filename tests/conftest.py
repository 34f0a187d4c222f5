"""Fixtures shared by all tests: the genuine sample sets, where they are at hand, and a toy hierarchy."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Toy tensors on many threads are slower than on one, and tests may run beside other work. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import parse_hierarchy

DATA_DIR = Path(__file__).resolve().parents[1].parent / "shared" / "data"

TOY_YAML = """
schema: hiposeg/hierarchy@1
name: toy
levels: [fine, coarse]
classes:
  coarse:
    - {id: 0, name: background, kind: background}
    - {id: 1, name: car, kind: thing}
    - {id: 2, name: sky, kind: stuff}
  fine:   # sky has no parts, so fine id 6 is its implicit copy
    - {id: 0, name: background, parent: background, kind: background}
    - {id: 1, name: wheel, parent: car}
    - {id: 2, name: window, parent: car}
    - {id: 3, name: body, parent: car}
    - {id: 4, name: left_light, parent: car, mirror: right_light}
    - {id: 5, name: right_light, parent: car, mirror: left_light}
sources:
  masks:
    map: {0: background, 1: wheel, 2: window, 3: body, 4: left_light, 5: right_light, 6: sky, 7: {coarse: car}}
    ignore: [255]
  coco:
    unlabelled: background
    map: {wheel: wheel, window: window, body: body, sky: sky, car: {coarse: car}}
"""


@pytest.fixture(scope="session")
def sample_data() -> Callable[[str], Path]:
    """Give the folder of a genuine sample set, or skip the test where it is absent."""

    def folder(name: str) -> Path:
        path = DATA_DIR / name
        if not path.is_dir():
            pytest.skip(f"sample data ../shared/data/{name} is not beside the checkout")
        return path

    return folder


@pytest.fixture(scope="session")
def toy_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the toy hierarchy."""
    path = tmp_path_factory.mktemp("toy") / "toy.yaml"
    path.write_text(TOY_YAML, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def toy_hierarchy() -> Hierarchy:
    """background, car {wheel, window, body, left_light, right_light} and a sky without parts."""
    return parse_hierarchy(TOY_YAML, "toy.yaml")


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """A process that a test leaves behind fails the suite; the interpreter would wait for it without end."""
    yield
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert not left


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The malformed suite runs a whole command for each case, so `make check` leaves it out."""
    for item in items:
        if item.path.name.startswith("test_malformed"):
            item.add_marker("slow")
