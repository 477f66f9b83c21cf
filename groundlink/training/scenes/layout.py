"""Scenes: pictures drawn from a seed, with the truth about everything on them.

Four kinds: loose shapes, words and icons on a busy ground; windows with controls; documents; words alone.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from groundlink.training.scenes.drawing import ICONS, SHAPES, Box, fonts, icon_mask, shape_mask, word_mask

RNG = np.random.Generator
Rgb = tuple[int, int, int]

# Hue, saturation and value of each colour's middle.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.0, 0.85, 0.85),
    "orange": (0.08, 0.92, 0.98),
    "yellow": (0.15, 0.88, 0.95),
    "green": (0.34, 0.75, 0.62),
    "cyan": (0.5, 0.75, 0.85),
    "blue": (0.62, 0.8, 0.82),
    "purple": (0.77, 0.65, 0.65),
    "pink": (0.92, 0.45, 0.98),
    "black": (0.0, 0.0, 0.1),
    "gray": (0.0, 0.0, 0.5),
}

HELD_OUT = frozenset(
    {
        ("purple", "star"),
        ("cyan", "triangle"),
        ("orange", "heart"),
        ("green", "ring"),
        ("pink", "square"),
        ("yellow", "cross"),
        ("red", "diamond"),
        ("blue", "circle"),
    }
)
"""Colours with shapes that training never shows together, to see whether the model puts together what it learned."""

# fmt: off
WORDS = (
    "Save", "Open", "Close", "Cancel", "Delete", "Edit", "Copy", "Print", "Search", "Find", "Help", "Home", "Back",
    "Next", "Login", "Email", "Password", "Name", "Phone", "Address", "City", "Date", "Start", "Stop", "Send",
    "Share", "Submit", "Yes", "No", "OK", "Menu", "Settings", "Profile", "Image", "Video", "Music",
)
# fmt: on

SMALL, LARGE = 26, 42  # pixels: shapes below are small, above large


@dataclass(frozen=True)
class Item:
    """One thing on a scene.

    Attributes:
        kind: `shape`, `icon`, `text`, `button`, `field`, `checkbox`, `tab`, `title`, `paragraph`, `picture`, `table`.
        name: which shape or icon; the words of a text or control.
        box: x1, y1, x2, y2 in pixels, of the whole thing, also where something lies over a part of it.
        colour: one of COLOURS, where the thing has one to speak of.
        on: of a check box: checked; of a tab: the open one.
    """

    kind: str
    name: str
    box: Box
    colour: str | None = None
    on: bool = False

    @property
    def size(self) -> str | None:
        """`small`, `large`, or neither."""
        longest = max(self.box[2] - self.box[0], self.box[3] - self.box[1])
        return "small" if longest < SMALL else "large" if longest > LARGE else None


@dataclass
class Scene:
    """A picture and everything on it."""

    image: Image.Image
    items: list[Item] = field(default_factory=list)


def make_scene(rng: RNG, width: int, height: int, held_out: bool, most: int = 30) -> Scene:
    """Draw a scene.

    Args:
        rng: what is drawn by.
        width, height: of the picture, in pixels.
        held_out: whether it shows the colours and shapes of HELD_OUT, or none of them.
        most: things after which nothing more is put on it; a row of controls is finished.
    """
    kind = rng.choice(4, p=(0.8, 0.08, 0.04, 0.08) if held_out else (0.45, 0.37, 0.08, 0.1))
    canvas = _Canvas(rng, width, height)
    canvas.most = most
    if kind == 0:
        _loose(canvas, held_out)
    elif kind == 1:
        _windows(canvas)
    elif kind == 2:
        _document(canvas)
    else:
        _words(canvas)
    return Scene(canvas.image, canvas.items)


def tint(rng: RNG, colour: str) -> Rgb:
    """Return a colour near the middle of its name."""
    hue, saturation, value = COLOURS[colour]
    if saturation:
        hue += rng.uniform(-0.018, 0.018)
        saturation = min(1.0, saturation * rng.uniform(0.85, 1.15))
        value = min(1.0, value * rng.uniform(0.88, 1.1))
    else:
        value = min(1.0, max(0.0, value + rng.uniform(-0.08, 0.08)))
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def overlap(a: Box, b: Box) -> float:
    """Return how much of the smaller box lies in the other, 0…1."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))


class _Canvas:
    def __init__(self, rng: RNG, width: int, height: int) -> None:
        self.rng, self.width, self.height = rng, width, height
        self.items: list[Item] = []
        self.most = 0
        self.dark = bool(rng.random() < 0.2)
        level = int(rng.integers(20, 60)) if self.dark else int(rng.integers(205, 256))
        self.ground = self._near(level)
        self.image = Image.new("RGB", (width, height), self.ground)
        self.draw = ImageDraw.Draw(self.image)

    def _near(self, level: int, spread: int = 14) -> Rgb:
        r, g, b = (int(np.clip(level + v, 0, 255)) for v in self.rng.integers(-spread, spread + 1, 3))
        return r, g, b

    def ink(self) -> Rgb:
        """Return a colour that can be read on the ground."""
        return self._near(225 if self.dark else 40, 20)

    def paste(self, mask: Image.Image, x: float, y: float, colour: Rgb) -> Box:
        left, top = round(x), round(y)
        self.image.paste(colour, (left, top), mask)
        return float(left), float(top), float(left + mask.width), float(top + mask.height)

    def add(self, kind: str, name: str, box: Box, colour: str | None = None, on: bool = False) -> None:
        self.items.append(Item(kind, name, box, colour, on))

    def text(self, text: str, x: float, middle: float, size: int, face: str, colour: Rgb) -> Box:
        mask = word_mask(text, face, size)
        box = self.paste(mask, x, middle - mask.height / 2, colour)
        self.add("text", text, box)
        return box

    def clutter(self) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(0, 7))):
            x, y = rng.uniform(0, self.width), rng.uniform(0, self.height)
            u, v = x + rng.normal(0, 60), y + rng.normal(0, 60)
            faint = tuple(int(np.clip(c + rng.integers(-32, 33), 0, 255)) for c in self.ground)
            if rng.random() < 0.5:
                self.draw.line((x, y, u, v), fill=faint, width=int(rng.integers(1, 4)))
            else:
                self.draw.ellipse((min(x, u), min(y, v), max(x, u), max(y, v)), fill=faint)

    def noise(self) -> None:
        if self.rng.random() < 0.3:
            pixels = np.asarray(self.image, np.int16)
            grain = self.rng.integers(-8, 9, pixels.shape, dtype=np.int16)
            self.image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))

    def free(self, box: Box, most: float = 0.0, gap: float = 2) -> bool:
        wide = (box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap)
        return all(overlap(wide if most == 0 else box, item.box) <= most for item in self.items)


def _colour_and_shape(rng: RNG, held_out: bool) -> tuple[str, str]:
    while True:
        pair = str(rng.choice(list(COLOURS))), str(rng.choice(list(SHAPES)))
        if pair not in HELD_OUT:
            return pair
        if held_out:
            return pair


def _loose(canvas: _Canvas, held_out: bool) -> None:
    rng = canvas.rng
    canvas.clutter()
    count = min(canvas.most, int(rng.integers(1, 11)))
    palette = [_colour_and_shape(rng, held_out) for _ in range(int(rng.integers(1, 6)))]
    if held_out:
        pairs = sorted(HELD_OUT)
        palette[:2] = [pairs[i] for i in rng.choice(len(pairs), 2, replace=False)]
    for number in range(count):
        for _ in range(12):
            draw = rng.random()
            if draw < 0.8 or number == 0:
                # Some things come several times, others share a colour or a shape.
                colour, shape = palette[int(rng.integers(len(palette)))]
                if rng.random() < 0.35:
                    other = palette[int(rng.integers(len(palette)))][0]
                    colour = other if held_out or (other, shape) not in HELD_OUT else colour
                kind, name, tone = "shape", shape, tint(rng, colour)
                if sum(abs(a - b) for a, b in zip(tone, canvas.ground, strict=True)) < 110:
                    continue
                side = rng.choice((rng.uniform(15, 24), rng.uniform(28, 40), rng.uniform(46, 76)))
                mask = shape_mask(shape, side * rng.uniform(0.9, 1.1), side * rng.uniform(0.9, 1.1), rng.uniform(-9, 9))
            elif draw < 0.92:
                kind, name = "icon", str(rng.choice(list(ICONS)))
                colour, tone = "", canvas.ink()
                side = rng.uniform(14, 34)
                mask = icon_mask(name, side, max(1.2, side * rng.uniform(0.07, 0.12)))
            else:
                kind, name = "text", str(rng.choice(WORDS))
                colour, tone = "", canvas.ink()
                mask = word_mask(name, str(rng.choice(fonts())), int(rng.integers(13, 23)))
            if mask.width >= canvas.width - 4 or mask.height >= canvas.height - 4:
                continue
            x, y = int(rng.integers(1, canvas.width - mask.width)), int(rng.integers(1, canvas.height - mask.height))
            box = (float(x), float(y), float(x + mask.width), float(y + mask.height))
            if canvas.free(box, 0.15 if kind == "shape" and rng.random() < 0.3 else 0.0):
                canvas.paste(mask, x, y, tone)
                canvas.add(kind, name, box, colour or None)
                break
    canvas.noise()


def _words(canvas: _Canvas) -> None:
    rng = canvas.rng
    canvas.clutter()
    for _ in range(min(canvas.most, int(rng.integers(1, 9)))):
        text = " ".join(rng.choice(WORDS, int(rng.choice((1, 1, 2)))))
        mask = word_mask(text, str(rng.choice(fonts())), int(rng.integers(13, 27)))
        if mask.width >= canvas.width - 4:
            continue
        for _ in range(12):
            x, y = int(rng.integers(1, canvas.width - mask.width)), int(rng.integers(1, canvas.height - mask.height))
            box = (float(x), float(y), float(x + mask.width), float(y + mask.height))
            if canvas.free(box, gap=4):
                canvas.paste(mask, x, y, canvas.ink())
                canvas.add("text", text, box)
                break
    canvas.noise()


def _document(canvas: _Canvas) -> None:
    rng = canvas.rng
    margin = float(rng.integers(8, 22))
    face = str(rng.choice(fonts()))
    ink = canvas.ink()
    columns = int(rng.choice((1, 2)))
    gap = 10.0
    wide = (canvas.width - 2 * margin - gap * (columns - 1)) / columns
    top = margin
    if rng.random() < 0.8:
        mask = word_mask(" ".join(rng.choice(WORDS, 2)), face, int(rng.integers(15, 20)))
        if mask.width < canvas.width - 2 * margin:
            box = canvas.paste(mask, margin, top, ink)
            canvas.add("title", "", box)
            top = box[3] + 10
    for column in range(columns):
        x, y = margin + column * (wide + gap), top
        while True:
            kind = str(rng.choice(("paragraph", "paragraph", "picture", "table")))
            tall = float(rng.integers(28, 76))
            if y + tall > canvas.height - margin or len(canvas.items) >= canvas.most:
                break
            box = (x, y, x + wide, y + tall)
            canvas.add(kind, "", _blocks[kind](canvas, box, ink))
            y = canvas.items[-1].box[3] + float(rng.integers(9, 16))
    canvas.noise()


def _paragraph(canvas: _Canvas, box: Box, ink: Rgb) -> Box:
    rng = canvas.rng
    pitch = float(rng.integers(7, 10))
    y, right = box[1], box[0]
    faint = tuple((a + b) // 2 for a, b in zip(ink, canvas.ground, strict=True))
    lines = int((box[3] - box[1]) // pitch)
    for line in range(lines):
        end = box[2] if line < lines - 1 else box[0] + (box[2] - box[0]) * rng.uniform(0.3, 0.9)
        x = box[0]
        while x < end - 4:
            step = min(float(rng.integers(6, 22)), end - x)
            canvas.draw.rectangle((x, y, x + step - 1, y + 3), fill=faint)
            right = max(right, x + step)
            x += step + 3
        y += pitch
    return box[0], box[1], right, y - pitch + 4


def _picture(canvas: _Canvas, box: Box, ink: Rgb) -> Box:
    rng = canvas.rng
    x1, y1, x2, y2 = (round(v) for v in box)
    canvas.draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=tint(rng, "cyan"))
    middle = x1 + (x2 - x1) * rng.uniform(0.3, 0.6)
    canvas.draw.polygon(((x1, y2 - 1), (middle, y1 + (y2 - y1) * 0.35), (x2 - 1, y2 - 1)), fill=tint(rng, "green"))
    canvas.draw.ellipse((x2 - 16, y1 + 4, x2 - 6, y1 + 14), fill=tint(rng, "yellow"))
    return float(x1), float(y1), float(x2), float(y2)


def _table(canvas: _Canvas, box: Box, ink: Rgb) -> Box:
    rng = canvas.rng
    x1, y1, x2, y2 = (round(v) for v in box)
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    for row in range(rows + 1):
        y = round(y1 + (y2 - 1 - y1) * row / rows)
        canvas.draw.line((x1, y, x2 - 1, y), fill=ink)
    for column in range(columns + 1):
        x = round(x1 + (x2 - 1 - x1) * column / columns)
        canvas.draw.line((x, y1, x, y2 - 1), fill=ink)
    return float(x1), float(y1), float(x2), float(y2)


_blocks = {"paragraph": _paragraph, "picture": _picture, "table": _table}


@dataclass(frozen=True)
class _Theme:
    face: str
    size: int
    ink: Rgb
    panel: Rgb
    line: Rgb
    fill: Rgb
    accent: Rgb
    radius: int


def _windows(canvas: _Canvas) -> None:
    rng = canvas.rng
    theme = _Theme(
        face=str(rng.choice(fonts())),
        size=int(rng.integers(12, 17)),
        ink=canvas.ink(),
        panel=canvas._near(45 if canvas.dark else 246, 8),
        line=canvas._near(110 if canvas.dark else 165, 12),
        fill=canvas._near(80 if canvas.dark else 222, 10),
        accent=tint(rng, str(rng.choice(("blue", "green", "purple", "red", "orange", "gray")))),
        radius=int(rng.choice((0, 2, 4, 8))),
    )
    words = [str(word) for word in rng.permutation(WORDS)]
    if rng.random() < 0.15:  # the same name twice
        words[3:5] = words[0:2]
    left, top = float(rng.integers(0, 14)), float(rng.integers(0, 14))
    right, bottom = canvas.width - float(rng.integers(0, 14)), canvas.height - float(rng.integers(0, 14))
    canvas.draw.rounded_rectangle(
        (left, top, right - 1, bottom - 1), theme.radius, fill=theme.panel, outline=theme.line
    )
    y = top + 4
    pad = float(rng.integers(6, 12))
    rows = [_toolbar, _fields, _fields, _checks, _buttons, _buttons, _labels]
    if rng.random() < 0.5 and canvas.most > 5:
        y = _title_bar(canvas, theme, left, right, y, words)
    if rng.random() < 0.4 and canvas.most > 3:
        y = _tabs(canvas, theme, left + pad, right - pad, y, words)
    while True:
        row = rows[int(rng.integers(len(rows)))]
        tall = theme.size + float(rng.integers(10, 18))
        if y + tall > bottom - 4 or len(canvas.items) >= canvas.most:
            break
        row(canvas, theme, left + pad, right - pad, y, tall, words)
        y += tall + float(rng.integers(2, 9))
    canvas.noise()


def _title_bar(canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, words: list[str]) -> float:
    tall = theme.size + 12.0
    canvas.draw.rectangle((left + 1, y - 3, right - 2, y + tall), fill=theme.fill)
    canvas.text(words.pop(), left + 8, y + tall / 2, theme.size, theme.face, theme.ink)
    _icon(canvas, "close", right - 22, y + tall / 2, 11.0, theme.ink)
    return y + tall + 6


def _icon(canvas: _Canvas, name: str, x: float, middle: float, size: float, colour: Rgb) -> Box:
    mask = icon_mask(name, size, max(1.1, size * canvas.rng.uniform(0.075, 0.11)))
    box = canvas.paste(mask, x, middle - mask.height / 2, colour)
    canvas.add("icon", name, box)
    return box


def _tabs(canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, words: list[str]) -> float:
    tall, x, chosen = theme.size + 13.0, left, int(canvas.rng.integers(3))
    for number in range(int(canvas.rng.integers(2, 5))):
        mask = word_mask(words[-1], theme.face, theme.size)
        end = x + mask.width + 14
        if end > right:
            break
        box = (float(round(x)), float(round(y)), float(round(end)), float(round(y + tall)))
        on = number == chosen
        canvas.draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=theme.panel if on else theme.fill)
        canvas.draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=theme.line)
        if on:
            canvas.draw.rectangle((box[0], box[3] - 3, box[2] - 1, box[3] - 1), fill=theme.accent)
        word = words.pop()
        canvas.add("tab", word, box, on=on)
        canvas.text(word, x + 7, y + tall / 2, theme.size, theme.face, theme.ink)
        x = end
    canvas.draw.line((left, y + tall, right, y + tall), fill=theme.line)
    return y + tall + 6


def _toolbar(
    canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, tall: float, words: list[str]
) -> None:
    rng = canvas.rng
    size, x = min(tall - 4, float(rng.integers(13, 22))), left
    for name in rng.permutation(list(ICONS))[: int(rng.integers(2, 7))]:
        if x + size > right:
            break
        x = _icon(canvas, str(name), x, y + tall / 2, size, theme.ink)[2] + float(rng.integers(8, 20))


def _fields(canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, tall: float, words: list[str]) -> None:
    if len(words) < 2:
        return
    rng, word = canvas.rng, words.pop()
    mask = word_mask(word, theme.face, theme.size)
    inside = rng.random() < 0.25
    start = left if inside else left + mask.width + float(rng.integers(6, 14))
    end = min(right, start + float(rng.integers(70, 200)))
    if end - start < 40:
        return
    box = (float(round(start)), float(round(y)), float(round(end)), float(round(y + tall)))
    ground = canvas._near(60 if canvas.dark else 252, 3)
    corners = (box[0], box[1], box[2] - 1, box[3] - 1)
    canvas.draw.rounded_rectangle(corners, theme.radius, fill=ground, outline=theme.line)
    canvas.add("field", word, box)
    x = start + 6 if inside else left
    faint = (theme.line[0], theme.line[1], theme.line[2])
    canvas.text(word, x, y + tall / 2, theme.size, theme.face, faint if inside else theme.ink)


def _checks(canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, tall: float, words: list[str]) -> None:
    rng, x = canvas.rng, left
    side = float(rng.integers(11, 15))
    for _ in range(int(rng.integers(1, 3))):
        mask = word_mask(words[-1], theme.face, theme.size)
        if x + side + 6 + mask.width > right or len(words) < 2:
            break
        word, on = words.pop(), bool(rng.random() < 0.5)
        top = float(round(y + (tall - side) / 2))
        square = (float(round(x)), top, float(round(x)) + side, top + side)
        corners = (square[0], square[1], square[2] - 1, square[3] - 1)
        canvas.draw.rounded_rectangle(corners, min(3, theme.radius), fill=theme.accent if on else None)
        canvas.draw.rounded_rectangle(corners, min(3, theme.radius), outline=theme.line)
        if on:
            tick = icon_mask("check", side - 4, 1.6)
            canvas.paste(tick, square[0] + 2, square[1] + 3, (255, 255, 255))
        place = len(canvas.items)
        text = canvas.text(word, square[2] + 6, y + tall / 2, theme.size, theme.face, theme.ink)
        whole = (square[0], min(square[1], text[1]), text[2], max(square[3], text[3]))
        canvas.items.insert(place, Item("checkbox", word, whole, None, on))
        x = text[2] + float(rng.integers(12, 26))


def _buttons(
    canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, tall: float, words: list[str]
) -> None:
    rng, x = canvas.rng, left
    for _ in range(int(rng.integers(1, 4))):
        mask = word_mask(words[-1], theme.face, theme.size)
        wide = mask.width + float(rng.integers(12, 34))
        if x + wide > right or len(words) < 2:
            break
        word, loud = words.pop(), rng.random() < 0.4
        box = (float(round(x)), float(round(y)), float(round(x + wide)), float(round(y + tall)))
        corners = (box[0], box[1], box[2] - 1, box[3] - 1)
        fill = theme.accent if loud else theme.fill
        canvas.draw.rounded_rectangle(corners, theme.radius, fill=fill, outline=None if loud else theme.line)
        canvas.add("button", word, box)
        ink = (255, 255, 255) if loud else theme.ink
        canvas.text(word, (box[0] + box[2] - mask.width) / 2, y + tall / 2, theme.size, theme.face, ink)
        x = box[2] + float(rng.integers(6, 18))


def _labels(canvas: _Canvas, theme: _Theme, left: float, right: float, y: float, tall: float, words: list[str]) -> None:
    mask = word_mask(words[-1], theme.face, theme.size)
    if left + mask.width < right and len(words) > 1:
        canvas.text(words.pop(), left, y + tall / 2, theme.size, theme.face, theme.ink)
