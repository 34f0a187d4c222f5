"""The README's tables of evidence are those of the runs that the project holds."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tables_of(results: Path) -> list[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "evidence_tables.py"), str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split("\n\n")


def test_the_readme_shows_the_tables_of_the_recorded_runs() -> None:
    tables = tables_of(ROOT / "docs" / "evidence.jsonl")
    readme = (ROOT / "README.md").read_text()
    assert len(tables) >= 2
    assert [table.splitlines()[0] for table in tables if table not in readme] == []


def test_differences_pair_equal_seeds_only(tmp_path: Path) -> None:
    others = {"coarse": 90, "rare": 50, "severity": 1, "coarse_sum": 90, "consistency": 100, "seconds": 1}
    runs = [("flat", 0, 70), ("flat", 1, 80), ("flat", 2, 60), ("hiposeg", 0, 71), ("hiposeg", 1, 79)]
    lines = [json.dumps({"row": row, "set": "wbc", "seed": seed, "fine": fine, **others}) for row, seed, fine in runs]
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    methods, differences = tables_of(tmp_path / "results.jsonl")
    assert "| flat | 3 | 70.00 ± 10.00 |" in methods
    assert "| hiposeg less flat | +0.00 ± 1.41 (1 of 2) | +0.00 ± 0.00 (0 of 2) |" in differences
