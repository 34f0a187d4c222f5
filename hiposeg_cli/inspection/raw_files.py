"""One raw image through its reader: the files, then everything the reader and the look-up check, as findings."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.base import RawItem, Reader
from hiposeg_cli.image_file import image_header
from hiposeg_cli.inspection.findings import Finding
from hiposeg_cli.inspection.reader_checks import finding_of, remark
from hiposeg_cli.labelmap import TwoLevelMap, png_bytes
from hiposeg_cli.remarks import collected

COUNTS = ("n_objects", "overlap_px", "part_overlap_px", "uncovered_px")


@dataclass(frozen=True)
class RawTask:
    """One image to read; `measure` also tells how large its label files will be."""

    item: RawItem
    measure: bool


@dataclass
class RawOutcome:
    """What one image gave.

    Attributes:
        sha256: of the photo; None where it could not be read.
        kind: format and mode of the photo, such as `JPEG RGB`.
        counts: total pixels, ignored pixels and `COUNTS`; empty where the labels could not be read.
        label_bytes: size of both label files, where asked for.
    """

    split: str
    key: str
    findings: list[Finding] = field(default_factory=list)
    sha256: str | None = None
    kind: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    label_bytes: int | None = None


class RawCheck:
    """Reads single images; sent to every worker."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, task: RawTask) -> RawOutcome:
        item = task.item
        outcome = RawOutcome(item.split, item.key)
        try:
            self._read(task, outcome)
        except HiposegError as error:
            outcome.findings.append(finding_of(error, layout=False))
            return outcome
        self._photo(item.image_path, outcome)
        return outcome

    def _read(self, task: RawTask, outcome: RawOutcome) -> None:
        """Everything `prepare` does to an image except writing. Raises HiposegError for what it would refuse."""
        item = task.item
        source = self.reader.root / item.source
        where = source if source.exists() else item.image_path
        with collected() as remarks:
            raw = self.reader.read(item)
        assert raw.photo is not None
        outcome.sha256 = raw.photo.sha256
        labels, tally = self.reader.lookup.encode_and_tally(raw.ids, where)
        labels.check(self.reader.hierarchy, where)
        outcome.counts = {"total": raw.ids.size, "ignore_px": tally.ignore_px, "coarse_only_px": tally.coarse_only_px}
        outcome.counts |= {name: getattr(raw, name) for name in COUNTS}
        outcome.findings += [remark(found.where, found.what) for found in remarks]
        outcome.findings += [remark(source, words) for words in raw.warnings]
        if tally.unknown_px:
            outcome.findings.append(remark(where, f"{tally.unknown_px} px of unknown labels ignored"))
        if tally.ignore_px == raw.ids.size:
            outcome.findings.append(remark(where, "every pixel is ignore"))
        if task.measure:
            outcome.label_bytes = _label_bytes(labels)

    def _photo(self, path: Path, outcome: RawOutcome) -> None:
        """R6: format and mode of a photo that decodes."""
        try:
            with image_header(path) as image:
                outcome.kind = f"{image.format} {image.mode}"
        except (OSError, ValueError, struct.error):  # read well a moment ago
            what = "changed while it was being read"
            outcome.findings.append(Finding("R8", str(path), what, "run again", "error"))


def _label_bytes(labels: TwoLevelMap) -> int:
    return len(png_bytes(labels.fine)) + len(png_bytes(labels.coarse))
