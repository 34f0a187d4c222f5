"""PASCAL-Context (Mottaghi et al. 2014): all 459 classes in MATLAB files, or the usual 59 in id PNGs.

Two orders of the 59 classes circulate. The PNGs that mmsegmentation's converter writes number them as they come in the
list of 459, nearly by alphabet; the list of class names in mmsegmentation follows 59_labels.txt (VOC objects first) and
does not fit them (mmsegmentation #1940, #3021). The ids here are those of the converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import first_folder, index_images, listed_stems, safe_key, split_lists, walk
from hiposeg_cli.formats.mat_file import read_id_mat
from hiposeg_cli.formats.targets import named_targets
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.lookup import Target

_NAMES = """
accordion aeroplane airconditioner antenna artillery ashtray atrium babycarriage bag ball balloon bambooweaving barrel
baseballbat basket basketballbackboard bathtub bed bedclothes beer bell bench bicycle binoculars bird birdcage birdfeeder
birdnest blackboard board boat bone book bottle bottleopener bowl box bracelet brick bridge broom brush bucket building
bus cabinet cabinetdoor cage cake calculator calendar camel camera cameralens can candle candleholder cap car card cart
case casetterecorder cashregister cat cd cdplayer ceiling cellphone cello chain chair chessboard chicken chopstick clip
clippers clock closet cloth clothestree coffee coffeemachine comb computer concrete cone container controlbooth
controller cooker copyingmachine coral cork corkscrew counter court cow crabstick crane crate cross crutch cup curtain
cushion cuttingboard dais disc disccase dishwasher dock dog dolphin door drainer dray drinkdispenser drinkingmachine drop
drug drum drumkit duck dumbbell earphone earrings egg electricfan electriciron electricpot electricsaw electronickeyboard
engine envelope equipment escalator exhibitionbooth extinguisher eyeglass fan faucet faxmachine fence ferriswheel
fireextinguisher firehydrant fireplace fish fishtank fishbowl fishingnet fishingpole flag flagstaff flame flashlight
floor flower fly foam food footbridge forceps fork forklift fountain fox frame fridge frog fruit funnel furnace
gamecontroller gamemachine gascylinder gashood gasstove giftbox glass glassmarble globe glove goal grandstand grass
gravestone ground guardrail guitar gun hammer handcart handle handrail hanger harddiskdrive hat hay headphone heater
helicopter helmet holder hook horse horse-drawncarriage hot-airballoon hydrovalve ice inflatorpump ipod iron ironingboard
jar kart kettle key keyboard kitchenrange kite knife knifeblock ladder laddertruck ladle laptop leaves lid lifebuoy light
lightbulb lighter line lion lobster lock machine mailbox mannequin map mask mat matchbook mattress menu metal meterbox
microphone microwave mirror missile model money monkey mop motorbike mountain mouse mousepad musicalinstrument napkin net
newspaper oar ornament outlet oven oxygenbottle pack pan paper paperbox papercutter parachute parasol parterre patio
pelage pen pencontainer pencil person photo piano picture pig pillar pillow pipe pitcher plant plastic plate platform
player playground pliers plume poker pokerchip pole pooltable postcard poster pot pottedplant printer projector pumpkin
rabbit racket radiator radio rail rake ramp rangehood receiver recorder recreationalmachines remotecontrol road robot
rock rocket rockinghorse rope rug ruler runway saddle sand saw scale scanner scissors scoop screen screwdriver sculpture
scythe sewer sewingmachine shed sheep shell shelves shoe shoppingcart shovel sidecar sidewalk sign signallight sink
skateboard ski sky sled slippers smoke snail snake snow snowmobiles sofa spanner spatula speaker speedbump spicecontainer
spoon sprayer squirrel stage stair stapler stick stickynote stone stool stove straw stretcher sun sunglass sunshade
surveillancecamera swan sweeper swimring swimmingpool swing switch table tableware tank tap tape tarp telephone
telephonebooth tent tire toaster toilet tong tool toothbrush towel toy toycar track train trampoline trashbin tray tree
tricycle tripod trophy truck tube turtle tvmonitor tweezers typewriter umbrella unknown vacuumcleaner vendingmachine
videocamera videogameconsole videoplayer videotape violin wakeboard wall wallet wardrobe washingmachine watch water
waterdispenser waterpipe waterskateboard watermelon whale wharf wheel wheelchair window windowblinds wineglass wire wood
wool
"""
LABELS = tuple(_NAMES.split())
"""The 459 names by id, from 1, as in labels.txt without spaces."""

KEPT = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85,
    98, 104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296,
    308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
"""Ids of the 59 classes among the 459; their positions here, from 1, are the ids in the PNGs."""

_BASES = (".", "VOC2010", "VOCdevkit/VOC2010")
_BACKGROUND = "background"


class PascalContext(Reader):
    """SRC/SegmentationClassContext/*.png or SRC/trainval/*.mat, with SRC/JPEGImages/*.jpg; SRC may be the VOCdevkit.

    Variants: `png` (0 is background, 1..59), `mat` (`LabelMap`, 1..459). SRC/ImageSets/SegmentationContext/{train,val}.txt
    name the splits, else SRC/ImageSets/Main. The source table's keys are class names or globs; "*" stands for the
    classes it does not name.
    """

    needs = ("scipy",)
    name = "pascal-context"
    default_hierarchy = "pascal-context-59-2"
    variants = ("png", "mat")
    honours = frozenset({"images"})
    named = True

    def targets(self) -> dict[int, Target]:
        names = {0: _BACKGROUND} | dict(enumerate(LABELS, start=1))
        if self.variant == "png":
            names = {0: _BACKGROUND} | {number: LABELS[label_id - 1] for number, label_id in enumerate(KEPT, start=1)}
        return named_targets(
            names, self.table, self.hierarchy, self.labels_from(), kind="class", ignore_unknown=self.ignore_unknown
        )

    def items(self) -> list[RawItem]:
        folder, suffix = "SegmentationClassContext", ".png"
        if self.variant == "mat":
            folder, suffix = "trainval", ".mat"
        label_dir = first_folder(self.root, [f"{base}/{folder}" for base in _BASES], f"folder {folder}")
        if self.variant == "mat":
            self._check_names(label_dir)
        photos = self.options.images or first_folder(self.root, [f"{base}/JPEGImages" for base in _BASES], "image folder")
        if not photos.is_dir():
            raise DataError(photos, "no such folder", "pass --images FOLDER with the VOC2010 photos")
        images = index_images(photos, root=self.photo_root)
        labels = {path.stem: path for path in walk(label_dir, (suffix,), root=self.link_root)}
        splits = self._splits(labels, label_dir)
        items = []
        for stem in sorted(labels.keys() & splits.keys()):
            with self.each_image():
                if stem not in images:
                    cure = "pass --images FOLDER, or add the photo"
                    raise DataError(labels[stem], f"has no image {photos / stem}.jpg", cure)
                source = labels[stem].relative_to(self.root).as_posix()
                items.append(RawItem(safe_key(stem), splits[stem], images[stem], source))
        if not items and not self.faults:
            raise DataError(label_dir, f"holds no *{suffix} of the listed splits", "check the folder, or pass --variant")
        return sorted(items, key=lambda item: (item.split, item.key))

    def _splits(self, labels: Mapping[str, Path], label_dir: Path) -> dict[str, str]:
        """Stem -> split. Raises DataError for a stem that the dataset's own lists name and that has no labels."""
        for base in _BASES:
            folder = self.root / base / "ImageSets" / "SegmentationContext"
            for split in ("train", "val"):
                for stem in listed_stems(folder / f"{split}.txt"):
                    if stem not in labels:
                        raise DataError(folder / f"{split}.txt", f"lists {stem!r}, which is not in {label_dir}", "add it")
            found = split_lists(folder) or split_lists(self.root / base / "ImageSets" / "Main")
            if found:
                return found
        return dict.fromkeys(labels, "train")

    def _check_names(self, label_dir: Path) -> None:
        """Refuse a labels.txt (`9: bag` a line) that numbers the 59 classes otherwise."""
        path = next((folder / "labels.txt" for folder in (label_dir, label_dir.parent, self.root)
                     if (folder / "labels.txt").is_file()), None)  # fmt: skip
        if path is None:
            return
        lines = (line.partition(":") for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
        listed = {number.strip(): name.replace(" ", "") for number, _, name in lines}
        for label_id in KEPT:
            if listed.get(str(label_id)) != LABELS[label_id - 1]:
                raise DataError(
                    path, f"calls {label_id} {listed.get(str(label_id))!r}, not {LABELS[label_id - 1]!r}",
                    "use the labels.txt of the dataset",
                )  # fmt: skip

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        return RawLabel(read_label_png(path) if self.variant == "png" else read_id_mat(path, "LabelMap"))
