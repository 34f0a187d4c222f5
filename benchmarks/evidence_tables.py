"""The tables of the README's section Evidence, from the lines that `evidence.py` writes.

Run: python benchmarks/evidence_tables.py docs/evidence.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETS = {
    "wbc": "white blood cells (3 / 2)", "carparts": "car parts (19 / 8)", "camvid": "CamVid (11 / 7, no background)",
    "ccp": "CCP (59 / 7)",
}  # fmt: skip
MEASURES = {"fine": "fine", "coarse": "coarse", "rare": "rarest third"}
FURTHER = {"severity": "severity", "coarse_sum": "sum: coarse", "consistency": "agree"}
METHODS = ("flat", "flat-balanced", "flat-prototypes", "hssn", "hiposeg-paper", "hiposeg")
CONTROLS = ("flat-balanced", "flat-prototypes")
ABLATION = {
    "flat": "CE", "coarse": "CE + coarse", "fine": "CE + fine", "both": "CE + coarse + fine",
    "hiposeg-paper": "CE + coarse + fine + alignment",
}  # fmt: skip
SHARES = ("10%", "25%", "50%")


@dataclass(frozen=True)
class Scored:
    """The scores of one run, in percent but for the severity.

    Attributes:
        fine, coarse, rare, severity: by leaf argmax; `rare` is the mean IoU of the third of the classes with fewest pixels.
        coarse_sum, consistency: by summed probabilities on each level: coarse mIoU, and the share of pixels where the
            coarse class is the parent of the fine one, which it always is by leaf argmax.
    """

    row: str
    set: str
    seed: int
    fine: float
    coarse: float
    rare: float
    severity: float
    coarse_sum: float
    consistency: float
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)


class Evidence:
    """Runs by set, row and seed."""

    def __init__(self, runs: Iterable[Scored]) -> None:
        self.runs: dict[tuple[str, str], dict[int, Scored]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            self.runs.setdefault((run.set, run.row), {})[run.seed] = run

    def rows(self, set_name: str) -> list[str]:
        """Rows of a set on all its images, those of the README first; the ablation's own have a table of theirs."""
        known = [row for row in METHODS if self.of(set_name, row)]
        others = {row for name, row in self.runs if name == set_name and "@" not in row} - set(known) - set(ABLATION)
        return known + sorted(others)

    def of(self, set_name: str, row: str) -> dict[int, Scored]:
        return self.runs.get((set_name, row), {})

    def scores(self, set_name: str, row: str, measures: Iterable[str]) -> list[str]:
        """Number of seeds, then mean and standard deviation of each measure."""
        runs = list(self.of(set_name, row).values())
        return [str(len(runs)), *(spread([getattr(run, name) for run in runs]) for name in measures)]

    def differences(self, set_name: str, row: str, reference: str) -> list[str]:
        """Mean and standard deviation of the differences at equal seeds, and how many of them are above zero."""
        if row == reference:
            return [""] * len(MEASURES)
        runs, base = self.of(set_name, row), self.of(set_name, reference)
        pairs = [(runs[seed], base[seed]) for seed in runs if seed in base]
        cells = []
        for name in MEASURES:
            values = [getattr(one, name) - getattr(other, name) for one, other in pairs]
            cells.append(
                f"{spread(values, sign='+')} ({sum(value > 0 for value in values)} of {len(values)})" if values else ""
            )
        return cells


def spread(values: list[float], sign: str = "") -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"


def table(header: Iterable[str], rows: Iterable[list[str]]) -> str:
    """Markdown; a first cell that repeats the one above stays empty."""
    header = list(header)
    lines, above = [header, ["---"] * len(header)], ""
    for row in rows:
        lines.append(["" if row[0] == above else row[0], *row[1:]])
        above = row[0]
    return "\n".join("| " + " | ".join(line) + " |" if line[0] != "---" else "|---" * len(line) + "|" for line in lines)


def methods(evidence: Evidence) -> str:
    measures = MEASURES | FURTHER
    rows = [
        [title, row, *evidence.scores(name, row, measures)] for name, title in SETS.items() for row in evidence.rows(name)
    ]
    return table(["data (classes)", "method", "seeds", *measures.values()], rows)


def differences(evidence: Evidence) -> str:
    rows = []
    for name, title in SETS.items():
        pairs = [(row, "flat") for row in evidence.rows(name)] + [("hiposeg", row) for row in CONTROLS]
        rows += [
            [title, f"{row} less {reference}", *evidence.differences(name, row, reference)]
            for row, reference in pairs
            if row != reference and evidence.of(name, row) and evidence.of(name, reference)
        ]
    return table(["data (classes)", "methods", *MEASURES.values()], rows)


def ablation(evidence: Evidence) -> str:
    """Over the seeds that all its rows have."""
    rows = []
    for name, title in SETS.items():
        seeds = set.intersection(*(set(evidence.of(name, row)) for row in ABLATION))
        same = Evidence(evidence.of(name, row)[seed] for row in ABLATION for seed in seeds)
        rows += [
            [title, losses, *same.scores(name, row, MEASURES), *same.differences(name, row, "flat")]
            for row, losses in ABLATION.items()
            if seeds
        ]
    return table(
        ["data (classes)", "losses", "seeds", *MEASURES.values(), *(f"{name} less CE" for name in MEASURES.values())], rows
    )


def low_data(evidence: Evidence) -> str:
    rows = [
        [f"{title}, {share} of the images", row, *evidence.scores(name, f"{row}@{share}", MEASURES),
         *evidence.differences(name, f"{row}@{share}", f"flat@{share}")]
        for name, title in SETS.items() for share in SHARES for row in METHODS if evidence.of(name, f"{row}@{share}")
    ]  # fmt: skip
    return table(
        ["data (classes)", "method", "seeds", *MEASURES.values(), *(f"{name} less flat" for name in MEASURES.values())], rows
    )


def read_runs(path: Path) -> list[Scored]:
    return [Scored(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def tables(evidence: Evidence) -> list[str]:
    """Those of the four tables that have a row."""
    made = [act(evidence) for act in (methods, differences, ablation, low_data)]
    return [text for text in made if text.count("\n") > 1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    print("\n\n".join(tables(Evidence(read_runs(parser.parse_args().results)))))


if __name__ == "__main__":
    main()
