"""Draw a small dataset of scenes in the raw layout of PASCAL-Part.

Owns the scenes and the files they are written to; the figures in them are `figures.py`, the class table is
`hierarchies/demo.yaml`, and the files are read back by the ordinary PASCAL-Part reader.

What makes it hard on purpose: cars and buses share wheels, windows and paint, cats, dogs and horses share
legs, tails and coats, so a part can only be named by the object it belongs to.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from hiposeg_cli.demo.figures import (
    COATS,
    FIGURES,
    GREENS,
    PAINTS,
    WALLS,
    WOOD,
    Colour,
    Points,
    Shape,
    box,
    curve,
    ellipse,
    limb,
    pick,
    rgb,
    smooth,
    wheel,
    windows,
)

Field = NDArray[np.float64]  # (H, W)
Mask = NDArray[np.bool_]  # (H, W)

VOC_INDEX = {"boat": 4, "bus": 6, "car": 7, "cat": 8, "dog": 12, "horse": 13}  # alphabetical VOC order, from 1
VAL_OFFSET = 500_000  # val pictures are numbered from here, so that none depends on n_train
SUPERSAMPLING = 4
MIN_VISIBLE_PX = 6
MAT_HEADER = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2026"


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
        window = (slice(y0, y1), slice(x0, x1))
        round_ = ndimage.gaussian_filter(alpha, 0.12 * min(alpha.shape) + 0.6, mode="constant")
        light = 1 + puff * (round_ - 0.65) + 0.4 * puff * np.linspace(0.8, -0.8, alpha.shape[0])[:, None]
        tone = colour * (light * self.grain[window])[..., None]
        self.pixels[window] += alpha[..., None] * (tone - self.pixels[window])
        covered[window] = alpha >= 0.5
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


def _noise(rng: Generator, size: int, cells: int) -> Field:
    """Smooth noise around 0, (size, size), with about `cells` bumps along a side."""
    knots = Image.fromarray(rng.normal(0, 0.5, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(knots.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)


def _ground(rng: Generator, scene: str, horizon: float, size: int) -> NDArray[np.float64]:
    """Paint sky and ground (H, W, 3): two gradients, and noise of several scales."""
    rows = np.arange(size, dtype=np.float64)[:, None, None]
    soil = {"street": ("86868a", "9a948a"), "meadow": GREENS, "shore": ("d2bd92", "c3ab80")}[scene]
    near, far, sky = pick(rng, soil), pick(rng, soil), pick(rng, ("9fc0de", "c9d4dc", "e6cfae", "8fb0d0"))
    t = np.clip((rows - horizon) / (size - horizon), 0, 1)
    land = (far + t * (near - far)) * (1 - 0.12 * t)
    rough = sum(w * _noise(rng, size, c) for w, c in ((0.10, 4), (0.10, 16), (0.08, size // 2)))
    land = land * (1 + np.asarray(rough)[..., None])
    if scene == "shore":
        beach = horizon + rng.uniform(0.3, 0.5) * (size - horizon) + 0.03 * size * _noise(rng, size, 4)[:1, :, None]
        ripples = 1 + 0.12 * np.sin(rows * rng.uniform(0.9, 1.6) + 3 * _noise(rng, size, 8)[..., None])
        land = np.where(rows < beach, pick(rng, ("4f7f98", "5c93a0", "426f90")) * ripples, land)
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
            easel.fill(box(x, base - height, width, height), pick(rng, WALLS), puff=0.1)
            for y in np.arange(base - height + 0.05 * size, base - 0.06 * size, 0.09 * size):
                for pane in windows(rng, box(x + 0.12 * width, y, 0.76 * width, 0.05 * size), 3, None):
                    easel.fill(pane.outline, pane.colour, puff=0.1)
        else:
            crown = ellipse(x + width / 2, horizon - 0.1 * size, 0.45 * width, 0.45 * height)
            easel.fill(box(x + 0.45 * width, base - 0.12 * size, 0.025 * size, 0.12 * size), rgb(WOOD))
            easel.fill(crown + rng.normal(0, 0.008 * size, crown.shape), 0.8 * pick(rng, GREENS))
        x += width * rng.uniform(1.0, 1.6)


def _litter(rng: Generator, easel: Easel, x: float, y: float) -> None:
    """Leave something in the background that looks like a part: a wheel, a pane, a leg."""
    size, kind = len(easel.grain), int(rng.integers(3))
    width, height = rng.uniform(0.06, 0.16, 2) * size
    shapes = wheel(rng, 0, 0.4 * width, None)
    if kind == 1:
        frame = Shape(box(-2, -2, width + 4, height + 4), pick(rng, PAINTS))
        shapes = [frame, *windows(rng, box(0, 0, width, height), int(rng.integers(1, 3)), None)]
    elif kind == 2:
        (x1, y1), (x2, y2) = rng.normal(0, 0.08, (2, 2)) * size
        shapes = [Shape(limb(curve((0, 0), (x1, y1), (x2, y2)), 0.4 * width, 0.35 * width), pick(rng, COATS))]
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
    shadow = ellipse(x_px, ground, 0.95 * scale, 0.08 * scale)
    easel.fill(shadow, rgb("3a3b36"), puff=0.1)
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
        post = box(x, ground - rng.uniform(0.25, 0.6) * size, 0.035 * size, ground)
        post[2:, 1] = ground
        return easel.fill(post, pick(rng, (WOOD, "8d9298", "5b5f58")))
    radius = rng.uniform(0.06, 0.13) * size
    bush = ellipse(x, ground, 1.3 * radius, radius)
    return easel.fill(smooth(bush + rng.normal(0, 0.12 * radius, bush.shape), 1), pick(rng, GREENS))


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
