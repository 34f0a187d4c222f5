"""Colours for classes whose source names none: distinct within a level, the same every time, families alike."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator

from hiposeg_cli.hierarchy import Color

_GOLDEN = 0.618034  # successive hues are as far apart as they can be
_TONES = ((0.72, 0.86), (0.55, 0.65), (0.85, 0.98), (0.40, 0.80), (0.90, 0.55))
_SHADES = ((0.55, 0.95), (0.85, 0.60), (0.35, 0.80), (0.95, 0.85), (0.60, 0.45), (0.25, 0.98))


def root_colors(count: int, taken: Iterable[Color]) -> list[Color]:
    """Colours for classes without a parent; none of `taken` is used again."""
    used = set(taken)
    hues = ((0.58 + _GOLDEN * k) % 1 for k in range(count))
    tones = ((hue, *_TONES[k // 7 % len(_TONES)]) for k, hue in enumerate(hues))
    return [_free(colorsys.hsv_to_rgb(*tone), used) for tone in tones]


def child_colors(parent: Color, count: int, taken: set[Color]) -> list[Color]:
    """Shades of the parent's colour; an only child gets the colour itself. They are added to `taken`."""
    red, green, blue = (value / 255 for value in parent)
    if count == 1:
        return [_free((red, green, blue), taken)]
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    found = []
    for k in range(count):
        weight, value = _SHADES[k % len(_SHADES)]
        turned = (hue + 0.09 * (k / max(1, count - 1) - 0.5)) % 1
        colour = colorsys.hsv_to_rgb(turned, weight if saturation > 0.1 else 0.08 * (k % 5), value)
        found.append(_free(colour, taken))
    return found


def _free(rgb: tuple[float, float, float], used: set[Color]) -> Color:
    """The nearest free colour to one wished for; it is used from now on. Black is left to the background."""
    red, green, blue = (round(255 * value) for value in rgb)
    for step in _steps():
        colour = ((red + step) % 256, (green + 3 * step) % 256, (blue + 7 * step) % 256)
        if colour not in used and colour != (0, 0, 0):
            used.add(colour)
            return colour
    raise AssertionError("more classes than colours")


def _steps() -> Iterator[int]:
    yield 0
    for k in range(1, 1 << 16):
        yield 5 * k
