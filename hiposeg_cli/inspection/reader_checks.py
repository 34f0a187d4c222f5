"""What the readers check of the list R1 to R30: by format, and by the words of an error or warning.

Readers stop or warn in plain words and know nothing of this list. What matches no rule is reported as `READER`, so a
message that changes its words loses its number, never itself; tests hold the words of every format's messages.
"""

from __future__ import annotations

import re

from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.base import Reader
from hiposeg_cli.inspection.findings import READER, Finding, Severity

OF_ALL = ("R6", "R7", "R8", "R9", "R28")
_ID_PNG, _COCO = ("R16", "R17"), ("R13", "R15", "R21", "R22", "R23", "R25")
# By format, or by format and variant where they differ.
_OF_FORMAT: dict[str, tuple[str, ...]] = {
    "ade20k": ("R13", "R16", "R21"),
    "cihp": _ID_PNG,
    "cityscapes": (*_ID_PNG, "R18"),
    "cityscapes polygons": ("R13", "R21", "R23"),
    "cityscapes-panoptic-parts": ("R17", "R27"),
    "coco": _COCO,
    "coco-panoptic": ("R13", "R21", "R22", "R26"),
    "coco-stuff": (*_ID_PNG, "R19"),
    "cvat": ("R13", "R15", "R21", "R23", "R25"),
    "labelme": ("R13", "R15", "R21", "R23"),
    "lip": _ID_PNG,
    "mapillary": (*_ID_PNG, "R21"),
    "masks": _ID_PNG,
    "paco": _COCO,
    "partimagenet": _ID_PNG,
    "partimagenet json": _COCO,
    "pascal-context": _ID_PNG,
    "pascal-context mat": ("R10", "R11", "R17"),
    "pascal-panoptic-parts": ("R17", "R27"),
    "pascal-part": ("R10", "R11", "R12", "R13", "R14", "R15"),
    "sceneparse150": (*_ID_PNG, "R19"),
    "yolo-seg": ("R13", "R15", "R23"),
}
_COMPARES_INSTANCES = ("cityscapes", "mapillary")

# The first rule whose words occur decides; the order goes from the particular to the general.
_RULES: tuple[tuple[str, str], ...] = (
    ("R9", r"empty file|Git LFS pointer|HTML page|is not an image|is an archive"),
    ("R10", r"v7\.3|MATLAB v5"),
    ("R18", r"trainIds \("),
    ("R19", r"renumbered|coding never uses|reduced by one"),
    ("R27", r"\buids?\b|part 5 of a"),
    ("R26", r"segments?_info|segment \d+|a segment of id"),
    ("R25", r"\bRLE\b|\brle,|run lengths"),
    ("R28", r"leaves its folder|(links|leads) (out|back)|control characters|longer than \d+ bytes|be a folder name"),
    ("R7", r"^labels are \d+x\d+ but|is \d+x\d+, (the|but)|has masks of|\(height, width\)|for an image of|imageHeight"),
    ("R14", r"parts are numbered from"),
    ("R12", r"empty mask|px outside its object|2-d array|covers no pixel|px of parts lie|no part of that"),
    ("R23", r"polygon|segmentation; skipped|point|coordinate|radii|far outside|leaves the image|shapes? outside|rectangles"),
    ("R8", r"truncated|wrong checksum|is broken \(|PNG is broken|cannot be read|no end marker|changed while"),
    ("R6", r"EXIF|several pictures|pixels, over|has more than \d+ pixels"),
    ("R11", r"class_ind|lacks the field|not the structure|has no objects|has no variable|^calls "),
    ("R22", r"unknown (image_id|category_id)|its object .* is (not|a) "),
    ("R21", r"JSON|XML|UTF-|is \S+ text$|the key .* twice|lacks the list|lists no|no object with the list|whole-number id"),
    ("R21", r"(id|the image) .* twice|two annotations|nested too deeply|has no (name|file_name)|document type"),
    ("R21", r"is not an ADE20K annotation"),
    ("R20", r"disagrees with the label ids"),
    (
        "R17",
        r"unknown to the hierarchy|every pixel is ignore|unknown labels ignored|holds code|whole objects|label id \d+ is",
    ),
    ("R13", r"^unknown |unknown (part|object|category|label|class|shape_type)|could belong to|^class \d+ is not"),
    ("R16", r"not class ids|bit grey PNG|which may alter ids|colou?r|alpha of|no ADE20K mask|masks are RGB|are no ids"),
    ("R3", r"listed twice|in two splits"),
    ("R4", r"has no (image|photo|label|annotation)|missing|no such file|of the folders|in several folders|same (stem|name)"),
    ("R4", r"lists .*, (which is not in|but there is no)"),
)
_HARMLESS = r"unknown labels ignored|byte order mark|images have a part of"  # chosen, or of no consequence
_CURES = {
    "R6": "check that this is the labelled picture, turned as its labels are",
    "R12": "look at the annotation; the rest of the image is used",
    "R15": "look at the annotation",
}


def checks_of(reader: Reader) -> tuple[str, ...]:
    """Ids of the checks a reader makes on every image, beside those that are made for all formats."""
    checks = _OF_FORMAT.get(f"{reader.name} {reader.variant}", _OF_FORMAT.get(reader.name, ()))
    compares = reader.options.instances and reader.name in _COMPARES_INSTANCES
    return (*OF_ALL, *checks, *(["R20"] if compares else []))


def check_of(words: str, *, layout: bool) -> str:
    """Id of the check a message belongs to; `layout` says it came up before any single image was read."""
    for check, pattern in _RULES:
        if re.search(pattern, words):
            return check
    return "R1" if layout else READER


def finding_of(error: HiposegError, *, layout: bool) -> Finding:
    """An error as a finding."""
    return Finding(check_of(error.what, layout=layout), error.where, error.what, error.cure, "error")


def remark(where: object, words: str) -> Finding:
    """A reader's warning as a finding: something odd that was handled."""
    check = check_of(words, layout=False)
    level: Severity = "note" if re.search(_HARMLESS, words) else "warning"
    return Finding(
        check, str(where), words, _CURES.get(check, "mend it at its source; the rest of the image is used"), level
    )
