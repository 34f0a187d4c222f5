"""The figures of the demo's scenes: cars, buses, boats, cats, dogs and horses as outlines with part names.

Cars and buses share wheels, windows and paint; cats, dogs and horses share legs, tails and coats. Figures live in their own
frame: x forward, y down, the ground at y = 0, about two units long. Nothing here knows pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Points = NDArray[np.float64]  # (n, 2) x, y
Colour = NDArray[np.float64]  # (3,) red, green, blue in 0..1

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


def rgb(code: str) -> Colour:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float64) / 255


def pick(rng: Generator, codes: Sequence[str], *, spread: float = 0.035) -> Colour:
    """Choose a colour and vary it a little."""
    return np.clip(rgb(codes[int(rng.integers(len(codes)))]) + rng.normal(0, spread, 3), 0.05, 0.95)


def poly(*xy: tuple[float, float]) -> Points:
    return np.array(xy, dtype=np.float64)


def smooth(outline: Points, rounds: int = 2) -> Points:
    """Cut the corners of a closed outline (Chaikin 1974)."""
    for _ in range(rounds):
        ahead = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * ahead, 0.25 * outline + 0.75 * ahead], axis=1).reshape(-1, 2)
    return outline


def box(x: float, y: float, width: float, height: float) -> Points:
    return poly((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def limb(spine: Points, width0: float, width1: float) -> Points:
    """Thicken a line into a tapering limb, `width0` wide where it starts and `width1` where it ends."""
    along = np.gradient(spine, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = along[:, ::-1] * (-0.5, 0.5) * np.linspace(width0, width1, len(spine))[:, None]
    return smooth(np.concatenate([spine + across, (spine - across)[::-1]]), 1)


def curve(start: tuple[float, float], *steps: tuple[float, float]) -> Points:
    """Follow steps from a start point with a smooth line of 12 points."""
    knots = np.cumsum(np.array([start, *steps], dtype=np.float64), axis=0)
    t = np.linspace(0, len(knots) - 1, 12)
    line = np.stack([np.interp(t, np.arange(len(knots)), knots[:, i]) for i in (0, 1)], axis=1)
    return np.asarray(ndimage.gaussian_filter1d(line, 1.0, axis=0, mode="nearest"), dtype=np.float64)


def wheel(rng: Generator, x: float, radius: float, part: str | None) -> list[Shape]:
    """Draw the one wheel that cars, buses and mere litter share."""
    tyre, hub, inner = rng.uniform(0.8, 1.5), rng.uniform(0.6, 1.05), radius * rng.uniform(0.4, 0.6)
    return [
        Shape(ellipse(x, -0.9 * radius, radius, radius), rgb(DARK) * tyre, part, hides=False),
        Shape(ellipse(x, -0.9 * radius, inner, inner), rgb("a9abae") * hub, hides=False),
    ]


def windows(rng: Generator, band: Points, count: int, part: str | None) -> list[Shape]:
    """Divide a four-cornered band, clockwise from top left, into the panes that cars, buses and houses share."""
    glass = pick(rng, ("46586a", "5f7488", "36434f"))
    panes: list[Shape] = []
    for k in range(count):
        cut = np.array([k + 0.06, k + 0.94])[:, None] / count
        top, bottom = (line[0] + cut * (line[1] - line[0]) for line in (band[:2], band[:1:-1]))
        name = f"{part}_{k + 1}" if part else None
        panes.append(Shape(np.concatenate([top, bottom[::-1]]), glass * rng.uniform(0.9, 1.1), name, hides=False))
    return panes


def _vehicle(rng: Generator, near: str, wall: Points, panes: list[Shape], radius: float, axles: Points) -> list[Shape]:
    """Put a painted wall on wheels; the roof rim and the bumpers around it belong to no part."""
    paint, (x0, _), (x1, low) = pick(rng, PAINTS), wall.min(axis=0) - 0.09, wall.max(axis=0) + (0.09, 0)
    bumper = smooth(poly((x0, low), (x0, -0.33), (x1, -0.33), (x1, low)))
    wall = smooth(np.repeat(wall, 2, axis=0))
    side = "rightside" if near == "r" else "leftside"
    rim = Shape(wall * (1, 1.06) - (0, 0.02), 0.75 * paint)
    wheels = [wheel(rng, x, radius, f"wheel_{k}") for k, x in enumerate(axles + rng.uniform(-0.06, 0.06), start=1)]
    return [rim, Shape(bumper, rgb("4a4d52")), Shape(wall, paint, side), *panes, *itertools.chain(*wheels)]


def _car(rng: Generator, near: str) -> list[Shape]:
    radius, belt = rng.uniform(0.18, 0.23), rng.uniform(0.46, 0.6)
    roof, back, front = belt + rng.uniform(0.3, 0.5), rng.uniform(-0.9, -0.45), rng.uniform(0.1, 0.55)
    screen, low = front + rng.uniform(0.22, 0.36), -0.5 * radius
    cabin = [(back - 0.14, -belt), (back, -roof), (front, -roof), (screen, -belt)]
    wall = poly((-1, low), (-1, -belt), *cabin, (0.9, -0.9 * belt), (1, -0.7 * belt), (1, low))
    sill = [(screen - 0.1, -belt - 0.01), (back - 0.02, -belt - 0.01)]
    band = poly((back + 0.07, 0.07 - roof), (front - 0.04, 0.07 - roof), *sill)
    panes = windows(rng, band, int(rng.integers(2, 5)), "window")
    return _vehicle(rng, near, wall, panes, radius, np.array([-0.62, 0.62]))


def _bus(rng: Generator, near: str) -> list[Shape]:
    radius, half = rng.uniform(0.16, 0.21), rng.uniform(1.0, 1.25)
    roof, belt, low = rng.uniform(0.88, 1.15), rng.uniform(0.48, 0.6), -0.45 * radius
    wall = poly((-half, low), (-half, -roof), (half - 0.1, -roof), (half, -belt), (half, low))
    band = poly((0.07 - half, 0.1 - roof), (half - 0.14, 0.1 - roof), (half - 0.08, -belt), (0.07 - half, -belt))
    panes = windows(rng, band, int(rng.integers(3, 6)), "window")
    axles = (-0.62, 0.6) if rng.uniform() < 0.7 else (-0.72, -0.36, 0.62)
    return _vehicle(rng, near, wall, panes, radius, half * np.array(axles))


def _boat(rng: Generator, near: str) -> list[Shape]:
    """Build a hull with sails or with a cabin; it has a silhouette only, even where it has windows."""
    hull = smooth(poly((-0.85, 0), (-0.85, 0), (-1, -0.4), (-1, -0.4), (1.2, -0.44), (1.1, -0.42), (0.75, 0), (0.75, 0)))
    if rng.uniform() < 0.6:
        top, cloth = rng.uniform(1.1, 1.5), rgb("e9e2d0") * rng.uniform(0.8, 1.05)
        sail, jib = ((0.02, -0.5), (0.02, -top), (-0.75, -0.52)), ((0.12, -0.5), (0.12, 0.1 - top), (0.8, -0.5))
        rig = [
            Shape(box(0.0, -top, 0.14, top), rgb(WOOD)),
            Shape(poly(*sail), cloth),
            Shape(poly(*jib), 0.93 * cloth),
        ]
        return [*rig, Shape(hull, pick(rng, PAINTS))]
    cabin = np.repeat(poly((-0.6, -0.3), (-0.55, -0.8), (0.3, -0.8), (0.45, -0.3)), 2, axis=0)
    panes = windows(rng, poly((-0.48, -0.7), (0.26, -0.7), (0.34, -0.48), (-0.5, -0.48)), 3, None)
    return [Shape(smooth(cabin), rgb("e2dfd6")), *panes, Shape(hull, pick(rng, PAINTS))]


def _trunk(rng: Generator, near: str, coat: Colour, leg: float, girth: float, tail: Points, leg_parts: str) -> list[Shape]:
    """Build what all animals share: tail, torso and legs, whose upper and lower half may be named apart."""
    far, sock = ("l" if near == "r" else "r"), coat if rng.uniform() < 0.6 else pick(rng, COATS)
    width, back, belly = rng.uniform(0.22, 0.28), -leg - girth, 0.1 - leg
    legs: list[Shape] = []
    for side, shade, shift in ((far, 0.8, 0.18), (near, 1.0, 0.0)):
        for end, hip in (("b", -0.62), ("f", 0.5)):
            swing = rng.uniform(-0.14, 0.14)
            line = curve((hip + shift, -leg - 0.1), (swing, 0.55 * leg), (-0.6 * swing, 0.45 * leg + 0.1))
            lower, foot = limb(line[6:], 0.75 * width, 0.7 * width), ellipse(line[-1, 0] + 0.05, -0.06, 0.13, 0.07)
            upper_name, lower_name = (f"{side}{end}{half}" for half in leg_parts.split())
            legs += [Shape(lower, sock * shade, lower_name), Shape(foot, 0.9 * shade * sock, lower_name)]
            legs.append(Shape(limb(line[:8], 1.35 * width, 0.8 * width), coat * shade, upper_name))
    spine = [(-0.84, back + 0.1), (-0.4, back), (0.1, back + 0.04), (0.6, back - 0.02), (0.82, back + 0.25)]
    torso = smooth(poly(*spine, (0.68, belly), (0.1, belly), (-0.4, belly - 0.06), (-0.84, belly)))
    patch = ellipse(rng.uniform(-0.4, 0.3), 0.55 * back + 0.45 * belly, 0.25, 0.3 * girth)
    tail = limb(tail, rng.uniform(0.22, 0.28), rng.uniform(0.2, 0.28))
    shapes = [Shape(tail, 0.85 * coat, "tail"), *legs[:6], Shape(torso, coat, "torso")]
    if rng.uniform() < 0.35:
        shapes.append(Shape(patch, pick(rng, COATS), hides=False))
    return shapes + legs[6:]


def _dot(x: float, y: float, radius: float, part: str | None = None) -> Shape:
    return Shape(ellipse(x, y, radius, 1.1 * radius), rgb(DARK), part, hides=False)


def _cat(rng: Generator, near: str) -> list[Shape]:
    coat, leg, girth = pick(rng, COATS), rng.uniform(0.45, 0.65), rng.uniform(0.45, 0.58)
    tail = curve((-0.74, -leg - 0.8 * girth), (-0.3, -0.1), (-0.12, -rng.uniform(0.3, 0.6)), (0.16, -0.22))
    shapes = _trunk(rng, near, coat, leg, girth, tail, "leg leg")
    x, y, far = 0.84, -leg - girth - rng.uniform(0.05, 0.2), "l" if near == "r" else "r"
    for side, ear_x in ((far, x - 0.24), (near, x + 0.22)):
        ear = poly((ear_x - 0.14, y - 0.12), (ear_x, y - rng.uniform(0.5, 0.58)), (ear_x + 0.14, y - 0.12))
        shapes.append(Shape(ear, 0.85 * coat, f"{side}ear"))
    eyes = [_dot(x - 0.1, y - 0.03, 0.06, f"{far}eye"), _dot(x + 0.18, y - 0.03, 0.06, f"{near}eye")]
    return [*shapes, Shape(ellipse(x, y, 0.39, 0.34), coat, "head"), *eyes, _dot(x + 0.05, y + 0.14, 0.05)]


def _dog(rng: Generator, near: str) -> list[Shape]:
    coat, leg, girth = pick(rng, COATS), rng.uniform(0.55, 0.8), rng.uniform(0.42, 0.55)
    tail = curve((-0.74, -leg - 0.85 * girth), (-0.26, rng.uniform(-0.35, 0.1)), (-0.2, -0.3))
    shapes = _trunk(rng, near, coat, leg, girth, tail, "leg leg")
    x, y = 0.82, -leg - girth - rng.uniform(0.12, 0.28)
    neck = limb(curve((0.62, -leg - 0.75 * girth), (x - 0.7, y + leg + 0.75 * girth)), 0.5, 0.4)
    muzzle = smooth(poly((x, y - 0.12), (x + 0.56, y - 0.02), (x + 0.58, y + 0.24), (x, y + 0.26)))
    shapes += [Shape(neck, 0.95 * coat), Shape(ellipse(x, y, 0.31, 0.3), coat, "head"), Shape(muzzle, coat, "head")]
    drop = rng.uniform(0.35, 0.5) if rng.uniform() < 0.65 else -0.38
    ear = limb(curve((x - 0.12, y - 0.2), (-0.1, drop)), 0.24, 0.2 if drop > 0 else 0.08)
    eye = _dot(x + 0.13, y - 0.07, 0.05, f"{near}eye")
    return [*shapes, Shape(ear, 0.7 * coat, f"{near}ear"), eye, _dot(x + 0.5, y + 0.05, 0.07)]


def _horse(rng: Generator, near: str) -> list[Shape]:
    coat, leg, girth = pick(rng, COATS), rng.uniform(0.75, 0.95), rng.uniform(0.48, 0.6)
    tail = curve((-0.8, -leg - 0.85 * girth), (-0.2, 0.05), (-0.08, 0.45), (0.03, 0.3))
    shapes = _trunk(rng, near, coat, leg, girth, tail, "uleg lleg")
    x, y = 1.0, -leg - girth - rng.uniform(0.4, 0.6)
    neck = curve((0.58, -leg - 0.6 * girth), (x - 0.62, y + leg + 0.6 * girth))
    shapes.append(Shape(limb(neck - (0.13, 0.05), 0.3, 0.2), 0.5 * coat))  # the mane
    shapes.append(Shape(limb(neck, 0.56, 0.32), coat, "neck" if rng.uniform() < 0.5 else None))
    ear = poly((x - 0.1, y - 0.02), (x - 0.05, y - 0.3), (x + 0.07, y - 0.04))
    skull = limb(curve((x - 0.08, y), (0.28, 0.16), (0.26, 0.26)), 0.42, 0.28)
    eye = _dot(x + 0.12, y + 0.02, 0.05, f"{near}eye")
    return [*shapes, Shape(ear, 0.8 * coat, f"{near}ear"), Shape(skull, coat, "head"), eye]


FIGURES = {"boat": _boat, "bus": _bus, "car": _car, "cat": _cat, "dog": _dog, "horse": _horse}
