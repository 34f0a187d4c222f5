"""Draw a small dataset of scenes in the raw layout of PASCAL-Part.

Owns the scenes, the figures in them and the files they are written to. Does not own the class table
(`hierarchies/demo.yaml`) nor any conversion: the files are read back by the ordinary PASCAL-Part adapter.

What makes it hard on purpose: cars and buses share wheels, windows and paint, cats, dogs and horses share
legs, tails and coats, so a part can only be named by the object it belongs to.

Figures live in their own frame: x forward, y down, the ground at y = 0, about two units long.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Points = NDArray[np.float64]  # (n, 2) x, y
Colour = NDArray[np.float64]  # (3,) red, green, blue in 0..1
Field = NDArray[np.float64]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)

VOC_INDEX = {"boat": 4, "bus": 6, "car": 7, "cat": 8, "dog": 12, "horse": 13}  # alphabetical VOC order, from 1
VAL_OFFSET = 500_000  # val pictures are numbered from here, so that none depends on n_train
SUPERSAMPLING = 4
MIN_VISIBLE_PX = 6
MAT_HEADER = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2026"

PAINTS = ("b8382f", "2f6396", "dba830", "e8e5de", "4f8270", "8f959d", "cc7438", "6a5590", "414a57")
COATS = ("6f4a33", "956a3e", "bd8f60", "63605e", "3a3431", "cdbd9f", "a2602f", "8a8175")
GREENS = ("5a7840", "76894a", "4c6845", "869556")
WALLS = ("a58f7c", "b7aa97", "8c8f96", "9c6f5b", "c4b59a", "74808a")
DARK, WOOD = "26262a", "6e5a48"


@dataclass(frozen=True)
class Shape:
    """One filled outline of a figure; one that hides takes its pixels from the parts under it."""

    outline: Points
    colour: Colour
    part: str | None = None
    hides: bool = True


@dataclass
class Figure:
    """What is still visible of one drawn object: its silhouette and its parts in painting order."""

    class_name: str
    mask: Mask
    parts: dict[str, Mask] = field(default_factory=dict)

    def keep(self, visible: Mask) -> None:
        """Drop the pixels that something in front now hides."""
        self.mask &= visible
        for mask in self.parts.values():
            mask &= visible


@dataclass(frozen=True)
class Easel:
    """The picture being painted: pixels (H, W, 3) in 0..1 and the grain (H, W) laid over every stroke."""

    pixels: NDArray[np.float64]
    grain: Field

    def fill(self, outline: Points, colour: Colour, *, puff: float = 0.5) -> Mask:
        """Paint an outline given in pixels, shaded like a rounded body; return the pixels it covers."""
        covered = np.zeros(self.grain.shape, dtype=np.bool_)
        x0, y0 = np.clip(np.floor(outline.min(axis=0)).astype(int) - 1, 0, len(covered))
        x1, y1 = np.clip(np.ceil(outline.max(axis=0)).astype(int) + 2, 0, len(covered))
        if x0 >= x1 or y0 >= y1:
            return covered
        big = Image.new("L", (SUPERSAMPLING * int(x1 - x0), SUPERSAMPLING * int(y1 - y0)))
        ImageDraw.Draw(big).polygon(((outline - (x0, y0)) * SUPERSAMPLING).ravel().tolist(), fill=255)
        alpha = np.asarray(big.reduce(SUPERSAMPLING), dtype=np.float64) / 255
        box = (slice(y0, y1), slice(x0, x1))
        round_ = ndimage.gaussian_filter(alpha, 0.12 * min(alpha.shape) + 0.6, mode="constant")
        light = 1 + puff * (round_ - 0.65) + 0.4 * puff * np.linspace(0.8, -0.8, alpha.shape[0])[:, None]
        tone = colour * (light * self.grain[box])[..., None]
        self.pixels[box] += alpha[..., None] * (tone - self.pixels[box])
        covered[box] = alpha >= 0.5
        return covered


def draw_dataset(out_dir: Path, *, n_train: int = 480, n_val: int = 80, size_px: int = 128, seed: int = 0) -> None:
    """Write JPEGImages, Annotations_Part and ImageSets/Main under `out_dir`; same seed, same bytes."""
    for folder in ("JPEGImages", "Annotations_Part", "ImageSets/Main"):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    for split, first, count in (("train", 0, n_train), ("val", VAL_OFFSET, n_val)):
        names = {index: f"demo_{index:06d}" for index in range(first, first + count)}
        for index, name in names.items():
            rng = np.random.default_rng([seed, index])
            photo, figures = draw_scene(rng, size_px)
            photo.save(out_dir / "JPEGImages" / f"{name}.jpg", quality=int(rng.integers(80, 91)))
            (out_dir / "Annotations_Part" / f"{name}.mat").write_bytes(_mat_bytes(name, figures))
        listing = "".join(f"{name}\n" for name in names.values())
        (out_dir / "ImageSets" / "Main" / f"{split}.txt").write_text(listing, encoding="utf-8", newline="\n")


def draw_scene(rng: Generator, size_px: int) -> tuple[Image.Image, list[Figure]]:
    """Draw one photo, far to near, and return it with the figures that remain visible."""
    scene = str(rng.choice(["street", "meadow", "shore"]))
    horizon = rng.uniform(0.3, 0.46) * size_px
    grain = 1 + 0.08 * _noise(rng, size_px, size_px // 2) + 0.12 * _noise(rng, size_px, size_px // 8)
    easel = Easel(_ground(rng, scene, horizon, size_px), grain)
    _backdrop(rng, easel, scene, horizon)
    for _ in range(int(rng.integers(1, 4))):
        _litter(rng, easel, rng.uniform(0.1, 0.9) * size_px, rng.uniform(horizon + 4, 0.95 * size_px))
    figures: list[Figure] = []
    water = rng.uniform(0.1, 0.6) if scene == "shore" else 0.0  # what is farther than this is a boat
    n_figures = 1 + int(rng.choice(4, p=[0.45, 0.36, 0.14, 0.05]))
    depths = np.sort(rng.uniform(0, 1, n_figures))
    for slot, depth in zip(rng.permutation(n_figures), depths, strict=True):
        x_px = size_px * (slot + rng.uniform(0.2, 0.8)) / n_figures
        figure = _place(rng, easel, x_px, horizon, float(depth), shore=scene == "shore", afloat=bool(depth < water))
        hidden = figure.mask.copy()
        if rng.uniform() < 0.35:
            clutter = _clutter(rng, easel, x_px + rng.normal(0, 0.2) * size_px, horizon, float(depth))
            figure.keep(~clutter)
            hidden |= clutter
        for earlier in figures:
            earlier.keep(~hidden)
        figures.append(figure)
    return _photograph(rng, easel.pixels), [f for f in figures if f.mask.sum() >= MIN_VISIBLE_PX]


def _rgb(code: str) -> Colour:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float64) / 255


def _pick(rng: Generator, codes: Sequence[str], *, spread: float = 0.035) -> Colour:
    """Choose a colour and vary it a little."""
    return np.clip(_rgb(codes[int(rng.integers(len(codes)))]) + rng.normal(0, spread, 3), 0.05, 0.95)


def _poly(*xy: tuple[float, float]) -> Points:
    return np.array(xy, dtype=np.float64)


def _smooth(outline: Points, rounds: int = 2) -> Points:
    """Cut the corners of a closed outline (Chaikin 1974)."""
    for _ in range(rounds):
        ahead = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * ahead, 0.25 * outline + 0.75 * ahead], axis=1).reshape(-1, 2)
    return outline


def _box(x: float, y: float, width: float, height: float) -> Points:
    return _poly((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def _limb(spine: Points, width0: float, width1: float) -> Points:
    """Thicken a line into a tapering limb, `width0` wide where it starts and `width1` where it ends."""
    along = np.gradient(spine, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = along[:, ::-1] * (-0.5, 0.5) * np.linspace(width0, width1, len(spine))[:, None]
    return _smooth(np.concatenate([spine + across, (spine - across)[::-1]]), 1)


def _curve(start: tuple[float, float], *steps: tuple[float, float]) -> Points:
    """Follow steps from a start point with a smooth line of 12 points."""
    knots = np.cumsum(np.array([start, *steps], dtype=np.float64), axis=0)
    t = np.linspace(0, len(knots) - 1, 12)
    line = np.stack([np.interp(t, np.arange(len(knots)), knots[:, i]) for i in (0, 1)], axis=1)
    return np.asarray(ndimage.gaussian_filter1d(line, 1.0, axis=0, mode="nearest"), dtype=np.float64)


def _wheel(rng: Generator, x: float, radius: float, part: str | None) -> list[Shape]:
    """Draw the one wheel that cars, buses and mere litter share."""
    tyre, hub, inner = rng.uniform(0.8, 1.5), rng.uniform(0.6, 1.05), radius * rng.uniform(0.4, 0.6)
    return [
        Shape(_ellipse(x, -0.9 * radius, radius, radius), _rgb(DARK) * tyre, part, hides=False),
        Shape(_ellipse(x, -0.9 * radius, inner, inner), _rgb("a9abae") * hub, hides=False),
    ]


def _windows(rng: Generator, band: Points, count: int, part: str | None) -> list[Shape]:
    """Divide a four-cornered band, clockwise from top left, into the panes that cars, buses and houses share."""
    glass = _pick(rng, ("46586a", "5f7488", "36434f"))
    panes: list[Shape] = []
    for k in range(count):
        cut = np.array([k + 0.06, k + 0.94])[:, None] / count
        top, bottom = (line[0] + cut * (line[1] - line[0]) for line in (band[:2], band[:1:-1]))
        name = f"{part}_{k + 1}" if part else None
        panes.append(Shape(np.concatenate([top, bottom[::-1]]), glass * rng.uniform(0.9, 1.1), name, hides=False))
    return panes


def _vehicle(rng: Generator, near: str, wall: Points, panes: list[Shape], radius: float, axles: Points) -> list[Shape]:
    """Put a painted wall on wheels; the roof rim and the bumpers around it belong to no part."""
    paint, (x0, _), (x1, low) = _pick(rng, PAINTS), wall.min(axis=0) - 0.09, wall.max(axis=0) + (0.09, 0)
    bumper = _smooth(_poly((x0, low), (x0, -0.33), (x1, -0.33), (x1, low)))
    wall = _smooth(np.repeat(wall, 2, axis=0))
    side = "rightside" if near == "r" else "leftside"
    rim = Shape(wall * (1, 1.06) - (0, 0.02), 0.75 * paint)
    wheels = [_wheel(rng, x, radius, f"wheel_{k}") for k, x in enumerate(axles + rng.uniform(-0.06, 0.06), start=1)]
    return [rim, Shape(bumper, _rgb("4a4d52")), Shape(wall, paint, side), *panes, *itertools.chain(*wheels)]


def _car(rng: Generator, near: str) -> list[Shape]:
    radius, belt = rng.uniform(0.18, 0.23), rng.uniform(0.46, 0.6)
    roof, back, front = belt + rng.uniform(0.3, 0.5), rng.uniform(-0.9, -0.45), rng.uniform(0.1, 0.55)
    screen, low = front + rng.uniform(0.22, 0.36), -0.5 * radius
    cabin = [(back - 0.14, -belt), (back, -roof), (front, -roof), (screen, -belt)]
    wall = _poly((-1, low), (-1, -belt), *cabin, (0.9, -0.9 * belt), (1, -0.7 * belt), (1, low))
    sill = [(screen - 0.1, -belt - 0.01), (back - 0.02, -belt - 0.01)]
    band = _poly((back + 0.07, 0.07 - roof), (front - 0.04, 0.07 - roof), *sill)
    panes = _windows(rng, band, int(rng.integers(2, 5)), "window")
    return _vehicle(rng, near, wall, panes, radius, np.array([-0.62, 0.62]))


def _bus(rng: Generator, near: str) -> list[Shape]:
    radius, half = rng.uniform(0.16, 0.21), rng.uniform(1.0, 1.25)
    roof, belt, low = rng.uniform(0.88, 1.15), rng.uniform(0.48, 0.6), -0.45 * radius
    wall = _poly((-half, low), (-half, -roof), (half - 0.1, -roof), (half, -belt), (half, low))
    band = _poly((0.07 - half, 0.1 - roof), (half - 0.14, 0.1 - roof), (half - 0.08, -belt), (0.07 - half, -belt))
    panes = _windows(rng, band, int(rng.integers(3, 6)), "window")
    axles = (-0.62, 0.6) if rng.uniform() < 0.7 else (-0.72, -0.36, 0.62)
    return _vehicle(rng, near, wall, panes, radius, half * np.array(axles))


def _boat(rng: Generator, near: str) -> list[Shape]:
    """Build a hull with sails or with a cabin; it has a silhouette only, even where it has windows."""
    hull = _smooth(_poly((-0.85, 0), (-0.85, 0), (-1, -0.4), (-1, -0.4), (1.2, -0.44), (1.1, -0.42), (0.75, 0), (0.75, 0)))
    if rng.uniform() < 0.6:
        top, cloth = rng.uniform(1.1, 1.5), _rgb("e9e2d0") * rng.uniform(0.8, 1.05)
        sail, jib = ((0.02, -0.5), (0.02, -top), (-0.75, -0.52)), ((0.12, -0.5), (0.12, 0.1 - top), (0.8, -0.5))
        rig = [
            Shape(_box(0.0, -top, 0.14, top), _rgb(WOOD)),
            Shape(_poly(*sail), cloth),
            Shape(_poly(*jib), 0.93 * cloth),
        ]
        return [*rig, Shape(hull, _pick(rng, PAINTS))]
    cabin = np.repeat(_poly((-0.6, -0.3), (-0.55, -0.8), (0.3, -0.8), (0.45, -0.3)), 2, axis=0)
    panes = _windows(rng, _poly((-0.48, -0.7), (0.26, -0.7), (0.34, -0.48), (-0.5, -0.48)), 3, None)
    return [Shape(_smooth(cabin), _rgb("e2dfd6")), *panes, Shape(hull, _pick(rng, PAINTS))]


def _trunk(rng: Generator, near: str, coat: Colour, leg: float, girth: float, tail: Points, leg_parts: str) -> list[Shape]:
    """Build what all animals share: tail, torso and legs, whose upper and lower half may be named apart."""
    far, sock = ("l" if near == "r" else "r"), coat if rng.uniform() < 0.6 else _pick(rng, COATS)
    width, back, belly = rng.uniform(0.22, 0.28), -leg - girth, 0.1 - leg
    legs: list[Shape] = []
    for side, shade, shift in ((far, 0.8, 0.18), (near, 1.0, 0.0)):
        for end, hip in (("b", -0.62), ("f", 0.5)):
            swing = rng.uniform(-0.14, 0.14)
            line = _curve((hip + shift, -leg - 0.1), (swing, 0.55 * leg), (-0.6 * swing, 0.45 * leg + 0.1))
            lower, foot = _limb(line[6:], 0.75 * width, 0.7 * width), _ellipse(line[-1, 0] + 0.05, -0.06, 0.13, 0.07)
            upper_name, lower_name = (f"{side}{end}{half}" for half in leg_parts.split())
            legs += [Shape(lower, sock * shade, lower_name), Shape(foot, 0.9 * shade * sock, lower_name)]
            legs.append(Shape(_limb(line[:8], 1.35 * width, 0.8 * width), coat * shade, upper_name))
    spine = [(-0.84, back + 0.1), (-0.4, back), (0.1, back + 0.04), (0.6, back - 0.02), (0.82, back + 0.25)]
    torso = _smooth(_poly(*spine, (0.68, belly), (0.1, belly), (-0.4, belly - 0.06), (-0.84, belly)))
    patch = _ellipse(rng.uniform(-0.4, 0.3), 0.55 * back + 0.45 * belly, 0.25, 0.3 * girth)
    tail = _limb(tail, rng.uniform(0.22, 0.28), rng.uniform(0.2, 0.28))
    shapes = [Shape(tail, 0.85 * coat, "tail"), *legs[:6], Shape(torso, coat, "torso")]
    if rng.uniform() < 0.35:
        shapes.append(Shape(patch, _pick(rng, COATS), hides=False))
    return shapes + legs[6:]


def _dot(x: float, y: float, radius: float, part: str | None = None) -> Shape:
    return Shape(_ellipse(x, y, radius, 1.1 * radius), _rgb(DARK), part, hides=False)


def _cat(rng: Generator, near: str) -> list[Shape]:
    coat, leg, girth = _pick(rng, COATS), rng.uniform(0.45, 0.65), rng.uniform(0.45, 0.58)
    tail = _curve((-0.74, -leg - 0.8 * girth), (-0.3, -0.1), (-0.12, -rng.uniform(0.3, 0.6)), (0.16, -0.22))
    shapes = _trunk(rng, near, coat, leg, girth, tail, "leg leg")
    x, y, far = 0.84, -leg - girth - rng.uniform(0.05, 0.2), "l" if near == "r" else "r"
    for side, ear_x in ((far, x - 0.24), (near, x + 0.22)):
        ear = _poly((ear_x - 0.14, y - 0.12), (ear_x, y - rng.uniform(0.5, 0.58)), (ear_x + 0.14, y - 0.12))
        shapes.append(Shape(ear, 0.85 * coat, f"{side}ear"))
    eyes = [_dot(x - 0.1, y - 0.03, 0.06, f"{far}eye"), _dot(x + 0.18, y - 0.03, 0.06, f"{near}eye")]
    return [*shapes, Shape(_ellipse(x, y, 0.39, 0.34), coat, "head"), *eyes, _dot(x + 0.05, y + 0.14, 0.05)]


def _dog(rng: Generator, near: str) -> list[Shape]:
    coat, leg, girth = _pick(rng, COATS), rng.uniform(0.55, 0.8), rng.uniform(0.42, 0.55)
    tail = _curve((-0.74, -leg - 0.85 * girth), (-0.26, rng.uniform(-0.35, 0.1)), (-0.2, -0.3))
    shapes = _trunk(rng, near, coat, leg, girth, tail, "leg leg")
    x, y = 0.82, -leg - girth - rng.uniform(0.12, 0.28)
    neck = _limb(_curve((0.62, -leg - 0.75 * girth), (x - 0.7, y + leg + 0.75 * girth)), 0.5, 0.4)
    muzzle = _smooth(_poly((x, y - 0.12), (x + 0.56, y - 0.02), (x + 0.58, y + 0.24), (x, y + 0.26)))
    shapes += [Shape(neck, 0.95 * coat), Shape(_ellipse(x, y, 0.31, 0.3), coat, "head"), Shape(muzzle, coat, "head")]
    drop = rng.uniform(0.35, 0.5) if rng.uniform() < 0.65 else -0.38
    ear = _limb(_curve((x - 0.12, y - 0.2), (-0.1, drop)), 0.24, 0.2 if drop > 0 else 0.08)
    eye = _dot(x + 0.13, y - 0.07, 0.05, f"{near}eye")
    return [*shapes, Shape(ear, 0.7 * coat, f"{near}ear"), eye, _dot(x + 0.5, y + 0.05, 0.07)]


def _horse(rng: Generator, near: str) -> list[Shape]:
    coat, leg, girth = _pick(rng, COATS), rng.uniform(0.75, 0.95), rng.uniform(0.48, 0.6)
    tail = _curve((-0.8, -leg - 0.85 * girth), (-0.2, 0.05), (-0.08, 0.45), (0.03, 0.3))
    shapes = _trunk(rng, near, coat, leg, girth, tail, "uleg lleg")
    x, y = 1.0, -leg - girth - rng.uniform(0.4, 0.6)
    neck = _curve((0.58, -leg - 0.6 * girth), (x - 0.62, y + leg + 0.6 * girth))
    shapes.append(Shape(_limb(neck - (0.13, 0.05), 0.3, 0.2), 0.5 * coat))  # the mane
    shapes.append(Shape(_limb(neck, 0.56, 0.32), coat, "neck" if rng.uniform() < 0.5 else None))
    ear = _poly((x - 0.1, y - 0.02), (x - 0.05, y - 0.3), (x + 0.07, y - 0.04))
    skull = _limb(_curve((x - 0.08, y), (0.28, 0.16), (0.26, 0.26)), 0.42, 0.28)
    eye = _dot(x + 0.12, y + 0.02, 0.05, f"{near}eye")
    return [*shapes, Shape(ear, 0.8 * coat, f"{near}ear"), Shape(skull, coat, "head"), eye]


FIGURES = {"boat": _boat, "bus": _bus, "car": _car, "cat": _cat, "dog": _dog, "horse": _horse}


def _noise(rng: Generator, size: int, cells: int) -> Field:
    """Smooth noise around 0, (size, size), with about `cells` bumps along a side."""
    knots = Image.fromarray(rng.normal(0, 0.5, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(knots.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)


def _ground(rng: Generator, scene: str, horizon: float, size: int) -> NDArray[np.float64]:
    """Paint sky and ground (H, W, 3): two gradients, and noise of several scales."""
    rows = np.arange(size, dtype=np.float64)[:, None, None]
    soil = {"street": ("86868a", "9a948a"), "meadow": GREENS, "shore": ("d2bd92", "c3ab80")}[scene]
    near, far, sky = _pick(rng, soil), _pick(rng, soil), _pick(rng, ("9fc0de", "c9d4dc", "e6cfae", "8fb0d0"))
    t = np.clip((rows - horizon) / (size - horizon), 0, 1)
    land = (far + t * (near - far)) * (1 - 0.12 * t)
    rough = sum(w * _noise(rng, size, c) for w, c in ((0.10, 4), (0.10, 16), (0.08, size // 2)))
    land = land * (1 + np.asarray(rough)[..., None])
    if scene == "shore":
        beach = horizon + rng.uniform(0.3, 0.5) * (size - horizon) + 0.03 * size * _noise(rng, size, 4)[:1, :, None]
        ripples = 1 + 0.12 * np.sin(rows * rng.uniform(0.9, 1.6) + 3 * _noise(rng, size, 8)[..., None])
        land = np.where(rows < beach, _pick(rng, ("4f7f98", "5c93a0", "426f90")) * ripples, land)
    clouds = np.clip(_noise(rng, size, 5) + 0.4 * _noise(rng, size, 12), 0, 1)[..., None]
    air = sky + (1 - sky) * (0.35 * rows / horizon + 0.4 * clouds)
    return np.where(rows < horizon, air, land)


def _backdrop(rng: Generator, easel: Easel, scene: str, horizon: float) -> None:
    """Line the horizon with houses or trees; house windows are the panes of cars and buses."""
    size = len(easel.grain)
    x, base = rng.uniform(-0.2, 0.1) * size, horizon + 0.03 * size
    while x < size and scene != "shore":
        width, height = rng.uniform(0.16, 0.34) * size, rng.uniform(0.14, 0.36) * size
        if scene == "street":
            easel.fill(_box(x, base - height, width, height), _pick(rng, WALLS), puff=0.1)
            for y in np.arange(base - height + 0.05 * size, base - 0.06 * size, 0.09 * size):
                for pane in _windows(rng, _box(x + 0.12 * width, y, 0.76 * width, 0.05 * size), 3, None):
                    easel.fill(pane.outline, pane.colour, puff=0.1)
        else:
            crown = _ellipse(x + width / 2, horizon - 0.1 * size, 0.45 * width, 0.45 * height)
            easel.fill(_box(x + 0.45 * width, base - 0.12 * size, 0.025 * size, 0.12 * size), _rgb(WOOD))
            easel.fill(crown + rng.normal(0, 0.008 * size, crown.shape), 0.8 * _pick(rng, GREENS))
        x += width * rng.uniform(1.0, 1.6)


def _litter(rng: Generator, easel: Easel, x: float, y: float) -> None:
    """Leave something in the background that looks like a part: a wheel, a pane, a leg."""
    size, kind = len(easel.grain), int(rng.integers(3))
    width, height = rng.uniform(0.06, 0.16, 2) * size
    shapes = _wheel(rng, 0, 0.4 * width, None)
    if kind == 1:
        frame = Shape(_box(-2, -2, width + 4, height + 4), _pick(rng, PAINTS))
        shapes = [frame, *_windows(rng, _box(0, 0, width, height), int(rng.integers(1, 3)), None)]
    elif kind == 2:
        (x1, y1), (x2, y2) = rng.normal(0, 0.08, (2, 2)) * size
        shapes = [Shape(_limb(_curve((0, 0), (x1, y1), (x2, y2)), 0.4 * width, 0.35 * width), _pick(rng, COATS))]
    for shape in shapes:
        easel.fill(shape.outline + (x, y), shape.colour, puff=0.2)


def _place(rng: Generator, easel: Easel, x_px: float, horizon: float, depth: float, *, shore: bool, afloat: bool) -> Figure:
    """Draw a figure of a random class at a depth (0 far, 1 near) and return what is visible of it."""
    size = len(easel.grain)
    class_name = "boat" if afloat else str(rng.choice(sorted(set(FIGURES) - {"boat"})))
    down = 0.1 + 0.3 * depth if afloat else (0.5 + 0.46 * depth if shore else 0.16 + 0.8 * depth)
    ground = horizon + down * (0.98 * size - horizon)
    forward = 1 if rng.uniform() < 0.5 else -1
    scale = 0.5 * size * (0.56 + 0.32 * depth) * rng.uniform(0.87, 1.15)
    tilt = np.deg2rad(rng.normal(0, 4))
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]) * scale
    shadow = _ellipse(x_px, ground, 0.95 * scale, 0.08 * scale)
    easel.fill(shadow, _rgb("3a3b36"), puff=0.1)
    figure = Figure(class_name, np.zeros((size, size), dtype=np.bool_))
    for shape in FIGURES[class_name](rng, "r" if forward == 1 else "l"):
        covered = easel.fill((shape.outline * (forward, 1)) @ turn + (x_px, ground), shape.colour)
        figure.mask |= covered
        for name, mask in figure.parts.items():
            if shape.hides and name != shape.part:
                mask &= ~covered
        if shape.part is not None:
            figure.parts[shape.part] = figure.parts.get(shape.part, np.zeros_like(covered)) | covered
    return figure


def _clutter(rng: Generator, easel: Easel, x: float, horizon: float, depth: float) -> Mask:
    """Put a post or a bush in front of what is drawn so far; return the pixels it hides."""
    size = len(easel.grain)
    ground = horizon + (0.22 + 0.8 * depth) * (0.98 * size - horizon)
    if rng.uniform() < 0.5:
        post = _box(x, ground - rng.uniform(0.25, 0.6) * size, 0.035 * size, ground)
        post[2:, 1] = ground
        return easel.fill(post, _pick(rng, (WOOD, "8d9298", "5b5f58")))
    radius = rng.uniform(0.06, 0.13) * size
    bush = _ellipse(x, ground, 1.3 * radius, radius)
    return easel.fill(_smooth(bush + rng.normal(0, 0.12 * radius, bush.shape), 1), _pick(rng, GREENS))


def _photograph(rng: Generator, pixels: NDArray[np.float64]) -> Image.Image:
    """Light the scene from one side, blur it slightly and add the noise of a sensor."""
    size = pixels.shape[0]
    yy, xx = np.mgrid[0:size, 0:size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.05, 0.3) * (np.cos(angle) * xx + np.sin(angle) * yy)
    tint = rng.uniform(0.85, 1.2) * (1 + rng.normal(0, 0.04, 3))
    photo = ndimage.gaussian_filter(pixels * light[..., None] * tint, (*[rng.uniform(0.2, 0.55)] * 2, 0))
    photo = photo + rng.normal(0, rng.uniform(0.008, 0.022), photo.shape)
    return Image.fromarray((255 * np.clip(photo, 0, 1) + 0.5).astype(np.uint8))


def _mat_bytes(image_id: str, figures: list[Figure]) -> bytes:
    """Encode one annotation as the genuine files are: MATLAB v5, one 1x1 struct `anno`."""
    objects = np.empty((1, len(figures)), dtype=[(name, "O") for name in ("class", "class_ind", "mask", "parts")])
    for i, figure in enumerate(figures):
        visible = {name: mask for name, mask in figure.parts.items() if mask.any()}
        parts = np.empty((1 if visible else 0, len(visible)), dtype=[("part_name", "O"), ("mask", "O")])
        for j, (name, mask) in enumerate(visible.items()):
            parts[0, j] = (name, mask.astype(np.uint8))
        index = np.array([[VOC_INDEX[figure.class_name]]], dtype=np.uint8)
        objects[0, i] = (figure.class_name, index, figure.mask.astype(np.uint8), parts)
    anno = np.empty((1, 1), dtype=[("imname", "O"), ("objects", "O")])
    anno[0, 0] = (image_id, objects)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"anno": anno}, do_compression=True)
    return MAT_HEADER.ljust(116) + buffer.getvalue()[116:]  # scipy writes the time of day here
