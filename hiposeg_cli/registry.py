"""Name -> "module:attribute", resolved only when asked for, so that listing names imports nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any

from hiposeg_cli.errors import ConfigError, did_you_mean


class Registry:
    """One kind of plug-in.

    Args:
        kind: what the plug-ins are, for messages ("format", "method").
        entries: name -> "module:attribute" below `hiposeg_cli`.
    """

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind, self.entries = kind, entries

    def names(self) -> list[str]:
        return sorted(self.entries)

    def load(self, name: str) -> Any:
        """Import and return one plug-in. Raises ConfigError with a suggestion for an unknown name."""
        if name not in self.entries:
            raise ConfigError(f"{self.kind} {name!r}", "is unknown", did_you_mean(name, self.entries))
        module, attribute = self.entries[name].split(":")
        try:
            return getattr(importlib.import_module(f"hiposeg_cli.{module}"), attribute)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            raise ConfigError(f"{self.kind} {name!r}", f"needs the package {package}", f"pip install {package}") from None


FORMATS = Registry(
    "format",
    {
        "pascal-part": "formats.pascal_part:PascalPart",
        "cityscapes-panoptic-parts": "formats.panoptic_parts:CityscapesPanopticParts",
        "pascal-panoptic-parts": "formats.panoptic_parts:PascalPanopticParts",
        "cityscapes": "formats.cityscapes:Cityscapes",
        "coco": "formats.coco:Coco",
        "coco-panoptic": "formats.coco_panoptic:CocoPanoptic",
        "coco-stuff": "formats.coco_stuff:CocoStuff",
        "paco": "formats.paco:Paco",
        "partimagenet": "formats.part_imagenet:PartImageNet",
        "ade20k": "formats.ade20k:Ade20k",
        "sceneparse150": "formats.sceneparse150:SceneParse150",
        "mapillary": "formats.mapillary:Mapillary",
        "pascal-context": "formats.pascal_context:PascalContext",
        "lip": "formats.human_parsing:Lip",
        "cihp": "formats.human_parsing:Cihp",
        "labelme": "formats.labelme:Labelme",
        "cvat": "formats.cvat:Cvat",
        "yolo-seg": "formats.yolo_seg:YoloSeg",
        "masks": "formats.masks:Masks",
    },
)
EXPORTS = Registry(
    "export format",
    {
        "coco-panoptic": "exports.coco_panoptic:CocoPanoptic",
        "coco-rle": "exports.coco_rle:CocoRle",
        "cvat": "exports.cvat:Cvat",
        "hf": "exports.hf:HuggingFace",
        "mmseg": "exports.mmseg:MMSeg",
        "nnunet": "exports.nnunet:NNUNet",
        "yolo-seg": "exports.yolo_seg:YoloSeg",
    },
)
BUILDERS = Registry(
    "kind of source",
    {
        "ade20k": "builders.ade20k:ade20k",
        "cityscapes": "builders.tables:cityscapes",
        "coco": "builders.coco:coco",
        "csv": "builders.tables:table",
        "cvat": "builders.cvat:cvat",
        "graphml": "builders.graphs:graphml",
        "json": "builders.graphs:node_link",
        "mapillary": "builders.mapillary:mapillary",
        "names": "builders.text:names",
        "text": "builders.text:text",
    },
)
METHODS = Registry(
    "method", {"flat": "methods.flat:Flat", "hiposeg": "methods.hiposeg:HiPoSeg", "hssn": "methods.hssn:HSSN"}
)
SAVERS = Registry(
    "--save format",
    {
        "color": "infer.savers.color:Color",
        "confidence": "infer.savers.confidence:Confidence",
        "labelme": "infer.savers.labelme:Labelme",
        "overlay": "infer.savers.overlay:Overlay",
        "panoptic": "infer.savers.panoptic:Panoptic",
        "polygons": "infer.savers.polygons:Polygons",
        "probs": "infer.savers.probs:Probs",
        "rle": "infer.savers.rle:Rle",
    },
)
