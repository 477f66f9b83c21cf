"""Drawing an answer on its image, legible on light and dark, on small pictures and large, for one box or hundreds."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from groundlink.detections import Box, Detection, Detections
from groundlink.image import ImageLike, ImageStore

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]
Boxes = npt.NDArray[np.float64]

# Eight hues far apart for people with and without red-green blindness, all dark enough under white letters.
_COLORS: tuple[Color, ...] = (
    (190, 20, 60),
    (0, 92, 175),
    (196, 60, 0),
    (0, 122, 94),
    (160, 40, 130),
    (120, 88, 0),
    (90, 60, 190),
    (70, 84, 94),
)
_WHITE: Color = (255, 255, 255)
_FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
_FONT_NAMES = ("NotoSansCJK", "NotoSans-", "DejaVuSans.", "wqy", "Arial Unicode", "PingFang", "msyh", "arial")
_CROWDED = 40
"""With more detections than this, labels shrink to numbers."""


def draw(image: ImageLike, answer: Detections, *, numbered: bool = False) -> Image.Image:
    """Return a copy of the image (RGB) with the answer drawn on it.

    Boxes and points are outlined in colour, around what they hold, between two white lines: they show on any ground.
    The spread of a coordinate, where known, is a dashed frame one standard deviation outside the box. Labels carry the
    score and stand beside their box, off other labels and boxes while there is room. With more than forty detections,
    or with `numbered`, a label is the detection's number, counted from 1.

    Raises:
        BadImage: the image cannot be opened.
        BadData: the answer belongs to an image of another size.
    """
    from groundlink.errors import BadData

    picture = ImageStore(max_pixels=max(answer.size[0] * answer.size[1], 1)).open(image).pil()
    if picture.size != answer.size:
        raise BadData(
            f"the answer is for an image of {answer.size[0]}×{answer.size[1]}, but this one has "
            f"{picture.width}×{picture.height}"
        )
    canvas = ImageDraw.Draw(picture)
    crowded = len(answer) > _CROWDED
    width = _line_width(picture.size, crowded)
    labels = list(dict.fromkeys(detection.label for detection in answer))
    ambiguous = answer.status == "ambiguous"
    colors = [
        _COLORS[(number if ambiguous else labels.index(detection.label)) % len(_COLORS)]
        for number, detection in enumerate(answer)
    ]
    for detection, color in zip(answer, colors):
        _mark(canvas, detection, color, width)
    places = _Places(picture.size, [_extent(detection) for detection in answer])
    size = _font_size(picture.size, crowded)
    for place, (detection, color) in enumerate(zip(answer, colors)):
        number = str(place + 1) if numbered or crowded or ambiguous else ""
        text = number if numbered or crowded else f"{number} {_label(detection)}".strip()
        _write(canvas, places, place, text, color, size)
    return picture


def _label(detection: Detection) -> str:
    label = detection.label if len(detection.label) <= 40 else detection.label[:39] + "…"
    return label if detection.score is None else f"{label} {detection.score:.2f}"


def _line_width(size: tuple[int, int], crowded: bool) -> int:
    """2 pixels on a small picture, 6 at 4K; thinner where hundreds of boxes would cover everything."""
    return max(1 if crowded else 2, round(math.sqrt(size[0] * size[1]) / (1000 if crowded else 480)))


def _font_size(size: tuple[int, int], crowded: bool) -> int:
    """11 pixels at 300, 19 at 1080p, 38 at 4K."""
    return max(9 if crowded else 11, round(math.sqrt(size[0] * size[1]) / (130 if crowded else 75)))


def _mark(canvas: ImageDraw.ImageDraw, detection: Detection, color: Color, width: int) -> None:
    if detection.box is not None:
        x1, y1, x2, y2 = detection.box
        for grow, line, ink in ((width + 1, 1, _WHITE), (width, width, color), (0, 1, _WHITE)):
            _rectangle(canvas, (x1 - grow, y1 - grow, x2 - 1 + grow, y2 - 1 + grow), ink, line)
        if detection.spread is not None:
            a, b, c, d = detection.spread
            _dashed(canvas, (x1 - a - width, y1 - b - width, x2 + c + width, y2 + d + width), color, width)
    elif detection.point is not None:
        x, y = detection.point
        radius = 4 * width
        for grow, ink in ((2, _WHITE), (0, color)):
            canvas.ellipse(_around(x, y, radius + grow, radius + grow), outline=ink, width=width + grow)
        canvas.ellipse(_around(x, y, width, width), fill=color, outline=_WHITE)
        if detection.spread is not None:
            a, b = detection.spread
            canvas.ellipse(_around(x, y, radius + a, radius + b), outline=color, width=1)


def _around(x: float, y: float, a: float, b: float) -> Box:
    return (x - a, y - b, x + a, y + b)


def _rectangle(canvas: ImageDraw.ImageDraw, box: Box, color: Color, width: int) -> None:
    x1, y1, x2, y2 = box
    if x2 > x1 and y2 > y1:
        canvas.rectangle(box, outline=color, width=width)


def _dashed(canvas: ImageDraw.ImageDraw, box: Box, color: Color, width: int) -> None:
    x1, y1, x2, y2 = box
    dash = 4 * width
    for start, end, at, horizontal in (
        (x1, x2, y1, True),
        (x1, x2, y2, True),
        (y1, y2, x1, False),
        (y1, y2, x2, False),
    ):
        position = start
        while position < end:
            stop = min(position + dash, end)
            line = (position, at, stop, at) if horizontal else (at, position, at, stop)
            canvas.line(line, fill=_WHITE, width=width + 1)
            canvas.line(line, fill=color, width=max(1, width - 1))
            position += 2 * dash


def _write(canvas: ImageDraw.ImageDraw, places: _Places, number: int, text: str, color: Color, font_size: int) -> None:
    font = _font(font_size, text)
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    pad = max(2, font_size // 5)
    spot = places.take(number, right - left + 2 * pad, bottom - top + 2 * pad, pad)
    canvas.rectangle(spot, fill=color, outline=_WHITE)
    canvas.text((spot[0] + pad - left, spot[1] + pad - top), text, fill=_WHITE, font=font)


class _Places:
    """Where labels may stand: beside their box, off other labels first and off other boxes next."""

    def __init__(self, size: tuple[int, int], boxes: list[Box]) -> None:
        self._size = size
        self._boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        self._labels = np.empty((0, 4))

    def take(self, number: int, width: float, height: float, gap: float) -> Box:
        """Return the place of the label of box `number`, width × height pixels, and keep it."""
        x1, y1, x2, y2 = (float(value) for value in self._boxes[number])
        above, below, start, end = y1 - height - gap, y2 + gap, x1, x2 - width
        corners = [(start, above), (start, below), (end, above), (end, below)]
        corners += [(x2 + gap, (y1 + y2 - height) / 2), (x1 - width - gap, (y1 + y2 - height) / 2), (x1, y1)]
        spots = np.array([self._inside(corner, width, height) for corner in corners])
        moved = np.abs(spots[:, :2] - np.array(corners)).sum(axis=1)
        cost = 10 * _shared(spots, self._labels) + 3 * _shared(spots, self._boxes) + moved
        best = spots[int(np.argmin(cost))]
        self._labels = np.vstack([self._labels, best])
        return (float(best[0]), float(best[1]), float(best[2]), float(best[3]))

    def _inside(self, corner: tuple[float, float], width: float, height: float) -> Box:
        """Move a label into the picture; one that is larger than the picture keeps its beginning."""
        x = max(0.0, min(corner[0], self._size[0] - width - 1))
        y = max(0.0, min(corner[1], self._size[1] - height - 1))
        return (x, y, x + width, y + height)


def _shared(spots: Boxes, others: Boxes) -> Boxes:
    """Return for each of the spots (N×4) the area that it shares with others (M×4), shape N."""
    low = np.maximum(spots[:, None, :2], others[None, :, :2])
    high = np.minimum(spots[:, None, 2:], others[None, :, 2:])
    shared: Boxes = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    return shared


def _extent(detection: Detection) -> Box:
    if detection.box is not None:
        return detection.box
    assert detection.point is not None
    return _around(*detection.point, 8, 8)


def _font(size: int, text: str) -> Font:
    """Return Pillow's own font, or the system font that has more of the text's characters."""
    best: Font = ImageFont.load_default(size)
    lacking = _lacking(best, text)
    for path in _system_fonts() if lacking else []:
        try:
            font = ImageFont.truetype(path, size)
        except OSError:
            continue
        if (missing := _lacking(font, text)) < lacking:
            best, lacking = font, missing
        if not lacking:
            break
    return best


def _lacking(font: Font, text: str) -> int:
    """Count the characters that the font lacks: it draws them like a code point that no font has."""
    missing = bytes(font.getmask("\U0010ffff"))
    return sum(bytes(font.getmask(character)) == missing for character in set(text) if not character.isspace())


@lru_cache(maxsize=1)
def _system_fonts() -> list[str]:
    found = []
    for folder in _FONT_FOLDERS:
        for path in sorted(Path(folder).rglob("*")) if Path(folder).is_dir() else []:
            if path.suffix.lower() in {".ttf", ".ttc", ".otf"} and path.name.startswith(_FONT_NAMES):
                found.append(str(path))
    return sorted(found, key=lambda path: [Path(path).name.startswith(name) for name in _FONT_NAMES], reverse=True)
