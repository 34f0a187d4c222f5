"""Findings: what a check found, where, and what to do about it; and the catalogue of the forty checks.

R checks look at raw annotations, P checks at a prepared dataset. What a check means and where it is made is listed in
docs/checks.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
LEVELS: tuple[Severity, ...] = ("error", "warning", "note")
MAX_KEPT = 1000  # of one check; the rest is only counted, so that memory stays bounded
READER = "reader"  # a fault found by a format's reader that has no number of its own

CHECKS: dict[str, str] = {
    "R1": "layout recognised",
    "R2": "split lists and known totals",
    "R3": "no image in two splits",
    "R4": "every label has its image, case-exact",
    "R5": "images and labels without a counterpart",
    "R6": "image headers, modes, EXIF orientation",
    "R7": "image size = annotation size",
    "R8": "files decode to their end",
    "R9": "files are what their names say",
    "R10": "MATLAB version 5",
    "R11": "fields of the annotation",
    "R12": "masks binary, not empty, parts inside objects",
    "R13": "every raw name mapped",
    "R14": "numbers of numbered parts",
    "R15": "overlapping and uncovered pixels",
    "R16": "label PNGs hold ids, not colours",
    "R17": "ids known to the hierarchy",
    "R18": "labelIds, not trainIds",
    "R19": "ids neither shifted nor renumbered",
    "R20": "instance maps agree with the labels",
    "R21": "JSON or XML parses, required keys, no id twice",
    "R22": "references between records resolve",
    "R23": "polygons usable",
    "R24": "no polygon of four numbers",
    "R25": "RLE size and counts",
    "R26": "panoptic PNG agrees with its segments",
    "R27": "panoptic-part ids decodable",
    "R28": "file names and links stay inside",
    "R29": "disk space",
    "R30": "licence notice and tool versions",
    "P31": "hierarchy valid",
    "P32": "hierarchy as when prepared",
    "P33": "manifest rows and files agree",
    "P34": "label files fit the hierarchy",
    "P35": "photo and labels have one size",
    "P36": "coarse is the parent of fine",
    "P37": "class pixels as counted, classes seen",
    "P38": "ignored pixels",
    "P39": "no image in two splits",
    "P40": "keys, exporters, files beside the manifest",
}


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        check: id of the check, a key of `CHECKS` or `READER`.
        where: the file, folder or class.
        what: what is wrong, with the value.
        cure: what to do about it.
        level: `error` (unusable or untrue), `warning` (worth stopping for), `note` (good to know).
    """

    check: str
    where: str
    what: str
    cure: str
    level: Severity

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" - {self.cure}" if self.cure else "")


@dataclass
class Findings:
    """Collects findings: counts all of them, keeps the first `keep` of each check."""

    keep: int = MAX_KEPT
    counts: dict[str, Counter[Severity]] = field(default_factory=dict)
    examined: Counter[str] = field(default_factory=Counter)
    _kept: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        self.counts.setdefault(finding.check, Counter())[finding.level] += 1
        kept = self._kept.setdefault(finding.check, [])
        if len(kept) < self.keep:
            kept.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    def error(self, check: str, where: object, what: str, cure: str) -> None:
        self.add(Finding(check, str(where), what, cure, "error"))

    def warning(self, check: str, where: object, what: str, cure: str) -> None:
        self.add(Finding(check, str(where), what, cure, "warning"))

    def note(self, check: str, where: object, what: str, cure: str = "") -> None:
        self.add(Finding(check, str(where), what, cure, "note"))

    def did(self, check: str, times: int = 1) -> None:
        """Count what a check looked at (files, images, classes); a check counted 0 times was made and had nothing."""
        self.examined[check] += times

    def sorted(self) -> tuple[Finding, ...]:
        """Kept findings in the order of the catalogue, as found within one check."""
        order = {check: place for place, check in enumerate(CHECKS)}
        checks = sorted(self._kept, key=lambda check: order.get(check, len(order)))
        return tuple(finding for check in checks for finding in self._kept[check])


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of all checks on one dataset.

    Attributes:
        kind: `prepared` or `raw`.
        where: the folder.
        facts: what was seen on the way, for the report: images by split, versions, pixel statistics.
    """

    kind: str
    where: str
    found: Findings
    facts: Mapping[str, Any]

    @property
    def totals(self) -> dict[str, int]:
        """Number of findings by level."""
        return {level: sum(counts[level] for counts in self.found.counts.values()) for level in LEVELS}

    @property
    def clean(self) -> bool:
        return not (self.totals["error"] or self.totals["warning"])

    def as_json(self) -> dict[str, Any]:
        """The data of `hiposeg doctor DATA --json`."""
        order = {check: place for place, check in enumerate((*CHECKS, READER))}
        made = sorted({*self.found.examined, *self.found.counts}, key=lambda check: order[check])
        none: Counter[Severity] = Counter()
        checks = [
            {"id": check, "title": CHECKS.get(check, "checks of the reader without a number"),
             "examined": self.found.examined.get(check, 0),
             **{level: self.found.counts.get(check, none)[level] for level in LEVELS}}
            for check in made
        ]  # fmt: skip
        return {
            "kind": self.kind, "where": self.where, "totals": self.totals, "checks": checks,
            "findings": [asdict(finding) for finding in self.found.sorted()], "facts": dict(self.facts),
        }  # fmt: skip
