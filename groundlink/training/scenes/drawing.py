"""Shapes, icons and words as ink: masks drawn large and made small, so that edges are smooth and boxes exact.

A mask is an 8-bit picture of coverage. All outlines live in the unit square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]
Points = list[tuple[float, float]]

_FINE = 4  # masks are drawn this many times as large
_IS_INK = [0] * 101 + [255] * 155  # coverage that counts when the edge of a thing is looked for


def _star(points: int, inner: float) -> Points:
    radius = [0.5, inner]
    turn = [math.pi * i / points - math.pi / 2 for i in range(2 * points)]
    return [(0.5 + radius[i % 2] * math.cos(a), 0.5 + radius[i % 2] * math.sin(a)) for i, a in enumerate(turn)]


def _heart() -> Points:
    turn = [math.tau * i / 40 for i in range(40)]
    return [
        (
            0.5 + math.sin(t) ** 3 / 2,
            0.45 - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 32,
        )
        for t in turn
    ]


def _round(radius: float) -> Points:
    return [(0.5 + radius * math.cos(math.tau * i / 48), 0.5 + radius * math.sin(math.tau * i / 48)) for i in range(48)]


_A, _B = 0.33, 0.67
SHAPES: dict[str, list[Points]] = {
    # The second outline, where there is one, is a hole.
    "circle": [_round(0.5)],
    "square": [[(0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96)]],
    "triangle": [[(0.5, 0.02), (1.0, 0.95), (0.0, 0.95)]],
    "star": [_star(5, 0.21)],
    "diamond": [[(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)]],
    "cross": [
        [(_A, 0), (_B, 0), (_B, _A), (1, _A), (1, _B), (_B, _B), (_B, 1), (_A, 1), (_A, _B), (0, _B), (0, _A), (_A, _A)]
    ],
    "ring": [_round(0.5), _round(0.3)],
    "heart": [_heart()],
}


def shape_mask(name: str, width: float, height: float, degrees: float) -> Image.Image:
    """Return a shape's mask, cut to its ink, at about this size."""
    side = math.ceil(1.5 * max(width, height)) * _FINE
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    for number, outline in enumerate(SHAPES[name]):
        around = [((x - 0.5) * width * _FINE, (y - 0.5) * height * _FINE) for x, y in outline]
        turned = [(side / 2 + x * cosine - y * sine, side / 2 + x * sine + y * cosine) for x, y in around]
        draw.polygon(turned, fill=0 if number else 255)
    return _cut(mask)


def _cut(mask: Image.Image) -> Image.Image:
    small = mask.reduce(_FINE)
    return small.crop(small.point(_IS_INK).getbbox())


class _Pen:
    """Draws in the unit square."""

    def __init__(self, side: int, width: float) -> None:
        self.side, self.width = side, max(1, round(width))
        self.mask = Image.new("L", (side, side))
        self.draw = ImageDraw.Draw(self.mask)

    def _at(self, points: Points) -> Points:
        return [(x * (self.side - 1), y * (self.side - 1)) for x, y in points]

    def line(self, *points: tuple[float, float]) -> None:
        self.draw.line(self._at(list(points)), fill=255, width=self.width, joint="curve")

    def fill(self, *points: tuple[float, float], ink: int = 255) -> None:
        self.draw.polygon(self._at(list(points)), fill=ink)

    def box(self, x1: float, y1: float, x2: float, y2: float, solid: bool = False) -> None:
        corners = self._at([(x1, y1), (x2, y2)])
        self.draw.rectangle(corners, fill=255 if solid else None, outline=255, width=self.width)

    def oval(self, x1: float, y1: float, x2: float, y2: float, solid: bool = False, ink: int = 255) -> None:
        corners = self._at([(x1, y1), (x2, y2)])
        self.draw.ellipse(corners, fill=ink if solid else None, outline=ink, width=self.width)

    def arc(self, x1: float, y1: float, x2: float, y2: float, start: float, end: float) -> None:
        self.draw.arc(self._at([(x1, y1), (x2, y2)]), start, end, fill=255, width=self.width)


def _save(p: _Pen) -> None:
    p.line((0.08, 0.08), (0.75, 0.08), (0.92, 0.25), (0.92, 0.92), (0.08, 0.92), (0.08, 0.05))
    p.box(0.28, 0.55, 0.72, 0.92)
    p.box(0.3, 0.08, 0.62, 0.32, solid=True)


def _trash(p: _Pen) -> None:
    p.line((0.08, 0.2), (0.92, 0.2))
    p.line((0.36, 0.2), (0.36, 0.06), (0.64, 0.06), (0.64, 0.2))
    p.line((0.18, 0.2), (0.25, 0.95), (0.75, 0.95), (0.82, 0.2))
    p.line((0.41, 0.36), (0.42, 0.8))
    p.line((0.59, 0.36), (0.58, 0.8))


def _search(p: _Pen) -> None:
    p.oval(0.06, 0.06, 0.66, 0.66)
    p.line((0.57, 0.57), (0.94, 0.94))


def _settings(p: _Pen) -> None:
    for i in range(8):
        a = math.tau * i / 8
        p.line((0.5 + 0.3 * math.cos(a), 0.5 + 0.3 * math.sin(a)), (0.5 + 0.48 * math.cos(a), 0.5 + 0.48 * math.sin(a)))
    p.oval(0.18, 0.18, 0.82, 0.82)
    p.oval(0.4, 0.4, 0.6, 0.6, solid=True)


def _menu(p: _Pen) -> None:
    for y in (0.2, 0.5, 0.8):
        p.line((0.05, y), (0.95, y))


def _close(p: _Pen) -> None:
    p.line((0.1, 0.1), (0.9, 0.9))
    p.line((0.9, 0.1), (0.1, 0.9))


def _arrow(turns: int) -> Callable[[_Pen], None]:
    def draw(p: _Pen) -> None:
        lines: list[Points] = [[(0.06, 0.5), (0.94, 0.5)], [(0.6, 0.15), (0.94, 0.5), (0.6, 0.85)]]
        for line in lines:
            for _ in range(turns):
                line = [(1 - y, x) for x, y in line]  # noqa: PLW2901
            p.line(*line)

    return draw


def _home(p: _Pen) -> None:
    p.line((0.05, 0.52), (0.5, 0.08), (0.95, 0.52))
    p.line((0.18, 0.45), (0.18, 0.93), (0.82, 0.93), (0.82, 0.45))
    p.box(0.42, 0.62, 0.58, 0.93, solid=True)


def _plus(p: _Pen) -> None:
    p.line((0.5, 0.06), (0.5, 0.94))
    p.line((0.06, 0.5), (0.94, 0.5))


def _check(p: _Pen) -> None:
    p.line((0.08, 0.55), (0.38, 0.85), (0.92, 0.18))


def _user(p: _Pen) -> None:
    p.oval(0.3, 0.06, 0.7, 0.46, solid=True)
    p.fill((0.1, 0.94), (0.14, 0.7), (0.32, 0.56), (0.68, 0.56), (0.86, 0.7), (0.9, 0.94))


def _mail(p: _Pen) -> None:
    p.box(0.04, 0.18, 0.96, 0.82)
    p.line((0.06, 0.22), (0.5, 0.56), (0.94, 0.22))


def _bell(p: _Pen) -> None:
    p.fill((0.14, 0.76), (0.26, 0.6), (0.28, 0.34), (0.42, 0.14), (0.58, 0.14), (0.72, 0.34), (0.74, 0.6), (0.86, 0.76))
    p.oval(0.41, 0.78, 0.59, 0.96, solid=True)


def _download(p: _Pen) -> None:
    p.line((0.5, 0.06), (0.5, 0.64))
    p.line((0.26, 0.4), (0.5, 0.66), (0.74, 0.4))
    p.line((0.08, 0.66), (0.08, 0.92), (0.92, 0.92), (0.92, 0.66))


def _edit(p: _Pen) -> None:
    p.fill((0.66, 0.12), (0.88, 0.34), (0.32, 0.9), (0.1, 0.68))
    p.fill((0.06, 0.94), (0.09, 0.72), (0.28, 0.91))


def _lock(p: _Pen) -> None:
    p.box(0.16, 0.45, 0.84, 0.94, solid=True)
    p.arc(0.28, 0.08, 0.72, 0.76, 180, 360)


ICONS: dict[str, Callable[[_Pen], None]] = {
    "save": _save,
    "trash": _trash,
    "search": _search,
    "settings": _settings,
    "menu": _menu,
    "close": _close,
    "right arrow": _arrow(0),
    "down arrow": _arrow(1),
    "left arrow": _arrow(2),
    "up arrow": _arrow(3),
    "home": _home,
    "plus": _plus,
    "check": _check,
    "user": _user,
    "mail": _mail,
    "bell": _bell,
    "download": _download,
    "edit": _edit,
    "lock": _lock,
}


def icon_mask(name: str, size: float, stroke: float) -> Image.Image:
    """Return an icon's mask, cut to its ink; `stroke` is the width of its lines in pixels."""
    pen = _Pen(round(size) * _FINE, stroke * _FINE)
    ICONS[name](pen)
    return _cut(pen.mask)


@cache
def fonts() -> tuple[str, ...]:
    """Return the fonts that come with matplotlib, the same on every machine; the empty name is Pillow's own."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif")
    return ("", *(str(folder / f"{name}.ttf") for name in names))


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Open a font at a size in pixels."""
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


@lru_cache(maxsize=20_000)
def word_mask(text: str, name: str, size: int) -> Image.Image:
    """Return the mask of a text, cut to its ink."""
    face = font(name, size)
    x1, y1, x2, y2 = face.getbbox(text)
    mask = Image.new("L", (math.ceil(x2 - x1) + 4, math.ceil(y2 - y1) + 4))
    ImageDraw.Draw(mask).text((2 - x1, 2 - y1), text, fill=255, font=face)
    return mask.crop(mask.point(_IS_INK).getbbox())
