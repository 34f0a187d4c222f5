"""Published class tables, copied by hand from the papers' code and the datasets' own files: what the presets must equal."""

from __future__ import annotations

from dataclasses import dataclass

LEGS_4 = "lfleg rfleg lbleg rbleg"
PAWS = "lfpa rfpa lbpa rbpa"
LEGS_8 = "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg"
HOOVES = "lfho rfho lbho rbho"
SIDES = "frontside leftside rightside backside"
TRAIN_COACH = "cfrontside_* cleftside_* crightside_* cbackside_*"

VOC = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip

# object -> "class: raw parts; ..." in id order; a class without `:` holds the raw part of its own name. `OBJECT` stands for
# object pixels outside all parts. Ids run on over all rows, from 1.
_ROWS_108 = {
    "aeroplane": "body; stern; rwing: lwing rwing; engine: engine_*; wheel: wheel_*; IGNORE: tail",
    "bicycle": "fwheel: fwheel bwheel; saddle; handlebar; chainwheel; IGNORE: headlight_*",
    "bird": "head; beak; torso; neck; rwing: lwing rwing; rleg: lleg rleg; rfoot: lfoot rfoot; tail; IGNORE: leye reye",
    "boat": ": OBJECT",
    "bottle": "cap; body",
    "bus": f"rightside: {SIDES}; roofside; rightmirror: leftmirror rightmirror; fliplate: fliplate bliplate; door: door_*; "
    "wheel: wheel_*; headlight: headlight_*; window: window_*",
    "car": f"rightside: {SIDES}; roofside; fliplate: fliplate bliplate; door: door_*; wheel: wheel_*; "
    "headlight: headlight_*; window: window_*; IGNORE: leftmirror rightmirror",
    "cat": f"head; reye: leye reye; rear: lear rear; nose; torso; neck; rfleg: {LEGS_4}; rfpa: {PAWS}; tail",
    "chair": ": OBJECT",
    "cow": f"head; rear: lear rear; muzzle; rhorn: lhorn rhorn; torso; neck; rfuleg: {LEGS_8}; tail; IGNORE: leye reye",
    "table": ": OBJECT",
    "dog": f"head; reye: leye reye; rear: lear rear; nose; torso; neck; rfleg: {LEGS_4}; rfpa: {PAWS}; tail; muzzle",
    "horse": f"head; rear: lear rear; muzzle; torso; neck; rfuleg: {LEGS_8}; tail; rfho: {HOOVES}; IGNORE: leye reye",
    "motorbike": "fwheel: fwheel bwheel; handlebar; saddle; headlight: headlight_*",
    "person": "head; reye: leye reye; rear: lear rear; nose; mouth; hair; torso; neck; ruarm: llarm luarm rlarm ruarm; "
    "rhand: lhand rhand; ruleg: llleg luleg rlleg ruleg; rfoot: lfoot rfoot; IGNORE: lebrow rebrow",
    "pottedplant": "pot; plant",
    "sheep": f"head; rear: lear rear; muzzle; rhorn: lhorn rhorn; torso; neck; rfuleg: {LEGS_8}; tail; IGNORE: leye reye",
    "sofa": ": OBJECT",
    "train": "head; hrightside: hfrontside hleftside hrightside hbackside; hroofside; headlight: headlight_*; "
    f"coach: coach_*; crightside: {TRAIN_COACH}; croofside: croofside_*",
    "tvmonitor": "screen",
}
_ROWS_58 = {
    "aeroplane": "body; engine: engine_*; wing: lwing rwing; stern: stern tail; wheel: wheel_*",
    "bicycle": "wheel: fwheel bwheel chainwheel; body: OBJECT saddle handlebar headlight_*",
    "bird": "head: head leye reye beak; wing: lwing rwing; leg: lleg lfoot rleg rfoot; torso: torso neck tail",
    "boat": ": OBJECT",
    "bottle": "cap; body",
    "bus": f"window: window_*; wheel: wheel_*; body: {SIDES} roofside leftmirror rightmirror fliplate bliplate door_* "
    "headlight_*",
    "car": "window: window_*; wheel: wheel_*; light: headlight_*; plate: fliplate bliplate; "
    f"body: {SIDES} roofside leftmirror rightmirror door_*",
    "cat": f"head: head leye reye lear rear nose; leg: {LEGS_4} {PAWS}; tail; torso: torso neck",
    "chair": ": OBJECT",
    "cow": f"head: head leye reye lear rear muzzle lhorn rhorn; tail; leg: {LEGS_8}; torso: torso neck",
    "table": ": OBJECT",
    "dog": f"head: head leye reye lear rear nose muzzle; leg: {LEGS_4} {PAWS}; tail; torso: torso neck",
    "horse": f"head: head leye reye lear rear muzzle; tail; leg: {HOOVES} {LEGS_8}; torso: torso neck",
    "motorbike": "wheel: fwheel bwheel; body: OBJECT handlebar saddle headlight_*",
    "person": "head: head leye reye lear rear lebrow rebrow nose mouth hair; torso: neck torso; "
    "lower_arm: llarm lhand rlarm rhand; upper_arm: luarm ruarm; lower_leg: llleg lfoot rlleg rfoot; upper_leg: luleg ruleg",
    "pottedplant": "pot; plant",
    "sheep": f"head: head leye reye lear rear muzzle lhorn rhorn; leg: {LEGS_8}; torso: torso neck tail",
    "sofa": ": OBJECT",
    "train": f": head hfrontside hleftside hrightside hbackside hroofside headlight_* coach_* {TRAIN_COACH} croofside_*",
    "tvmonitor": "screen; frame: OBJECT",
}


@dataclass(frozen=True)
class PartTable:
    """One published PASCAL-Part grouping.

    Attributes:
        names: fine class names by id.
        parents: fine class -> object.
        fine: (object, raw part) -> fine id, None for an ignored part; numbered parts end in `_*`; raw part `OBJECT` is
            the rest of the object, where the grouping gives it a class.
    """

    names: list[str]
    parents: dict[str, str]
    fine: dict[tuple[str, str], int | None]

    def raw_parts(self, voc_object: str) -> set[str]:
        return {part for name, part in self.fine if name == voc_object and part != "OBJECT"}


def _part_table(rows: dict[str, str]) -> PartTable:
    names, parents = ["background"], {"background": "background"}
    fine: dict[tuple[str, str], int | None] = {}
    for voc_object, row in rows.items():
        for cell in row.split(";"):
            name, colon, parts = cell.strip().partition(":")
            raw_parts = parts.split() if colon else [name]
            if name == "IGNORE":
                fine |= {(voc_object, part): None for part in raw_parts}
                continue
            fine |= {(voc_object, part): len(names) for part in raw_parts}
            class_name = f"{voc_object}_{name}" if name else voc_object
            names.append(class_name)
            parents[class_name] = voc_object
    return PartTable(names, parents, fine)


PART_108 = _part_table(_ROWS_108)
PART_58 = _part_table(_ROWS_58)
PART_TABLES = {"pascal-part-108": PART_108, "pascal-part-58": PART_58}

# Cityscapes: the 19 evaluated label ids in train id order, and the category of each train id
_CITYSCAPES_19 = "7 8 11 12 13 17 19 20 21 22 23 24 25 26 27 28 31 32 33"
CITYSCAPES_PARENTS = [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6]
CITYSCAPES_NAMES = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain", "sky",
    "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
]  # fmt: skip
CITYSCAPES_CATEGORIES = ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
CITYSCAPES_TRAIN_IDS = {int(label): train_id for train_id, label in enumerate(_CITYSCAPES_19.split())}

_COCO = {
    "person": "1 person",
    "vehicle": "2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat",
    "outdoor": "10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench",
    "animal": "16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe",
    "accessory": "27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase",
    "sports": "34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, "
    "41 skateboard, 42 surfboard, 43 tennis racket",
    "kitchen": "44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl",
    "food": "52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake",
    "furniture": "62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet",
    "electronic": "72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone",
    "appliance": "78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator",
    "indoor": "84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush",
}
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_SIZES = {
    "person": 1, "vehicle": 8, "outdoor": 5, "animal": 10, "accessory": 5, "sports": 10, "kitchen": 7, "food": 10,
    "furniture": 6, "electronic": 6, "appliance": 5, "indoor": 7,
}  # fmt: skip
COCO = {
    int(entry.split(" ", 1)[0]): (entry.split(" ", 1)[1], group) for group, row in _COCO.items() for entry in row.split(", ")
}
"""Category id -> (name, supercategory), in id order."""
