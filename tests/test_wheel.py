"""The wheel carries the taxonomies, and they are found in an editable install too."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hiposeg_cli.hierarchy import preset_dir

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_wheel_holds_package_and_hierarchies(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"hiposeg_cli/hierarchies/{path.name}" for path in (ROOT / "hierarchies").glob("*.yaml")} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "hiposeg_cli").rglob("*.py")} <= names
    target = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    code = "from hiposeg_cli.hierarchy import preset_dir, preset_paths; print(preset_dir(), len(preset_paths()))"
    result = subprocess.run([sys.executable, "-c", code], cwd=target, capture_output=True, text=True, check=True)
    folder, count = result.stdout.split()
    assert Path(folder) == (target / "hiposeg_cli" / "hierarchies").resolve()
    assert int(count) == len(list((ROOT / "hierarchies").glob("*.yaml")))


def test_editable_install_finds_the_hierarchies() -> None:
    assert (preset_dir() / "cityscapes-19-7.yaml").is_file()
