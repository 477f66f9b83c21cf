"""From a line that was read to words with boxes, inks and what parts them.

rapidocr's own word boxes are per letter as soon as a line has one character beyond Latin; the columns of its
recogniser are kept instead, words are cut where it read a space or left a gap, and boxes are drawn around the ink.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from groundlink.detections import Box
from groundlink.image import Pixels

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Color = tuple[int, int, int]

SEPARATORS = "|•·›»‹«¦"
"""What stands between two names and is often read as part of one."""
_APART = 1.1
"""Two letters whose middles are farther apart than this share of the line's height have more than a space between."""


@dataclass(frozen=True)
class Word:
    """A run of characters without a space; of scripts without spaces, one character.

    `box` is in pixels, `score` 0…1 the recogniser's certainty, `ink` and `paper` the RGB of letters and background.
    """

    text: str
    box: Box
    score: float
    ink: Color
    paper: Color
    rule: int = 0
    """Which underline of its line the word stands on, from 1; 0 for none. Neighbouring links have one each."""
    apart: bool = False
    """Whether there is more than a space before it: a wide blank, or something that was not read, as a check box."""


@dataclass(frozen=True)
class Line:
    """Words that the detector saw as one piece of text.

    `text` is what was read, with its spaces; `box` is the detector's, with some paper around the letters.
    """

    text: str
    box: Box
    score: float
    words: tuple[Word, ...]
    vertical: bool


def place_words(bgr: Pixels, quad: Array, text: str, score: float, columns: Any) -> Line | None:
    """Cut a line that was read into words with boxes. `columns` is rapidocr's `WordInfo`."""
    centres = np.array([column for word in columns.word_cols for column in word], dtype=np.float64)
    characters = [character for word in columns.words for character in word]
    if not characters or columns.line_txt_len <= 0:
        return None
    certain = [score for character, score in zip(text, columns.confs) if not character.isspace()]
    centres = (centres + 0.5) / columns.line_txt_len
    pitch = float(np.median(np.diff(centres))) if len(centres) > 1 else 1.0 / max(len(text), 1)
    vertical = _side(quad, 0, 3) >= 1.5 * _side(quad, 0, 1)
    level = not vertical and abs(quad[1, 1] - quad[0, 1]) < 0.2 * _side(quad, 0, 3)
    ink = _ink(bgr, _bounds(quad)) if level else None
    wide = [] if ink is None else _wideblanks(ink.letters)
    cuts = {number for number in map(int, np.searchsorted(centres, wide)) if 0 < number < len(centres)}
    # Where a space was read a blank says nothing: those of fixed-width letters are wide.
    cuts -= {first for first, _ in _split(text, characters, centres, pitch, set())}
    pieces = _split(text, characters, centres, pitch, cuts)
    # Between two words the border lies half-way, so that neighbours never overlap.
    borders = [max(0.0, centres[0] - pitch)]
    borders += [(centres[first - 1] + centres[first]) / 2 for first, _ in pieces[1:]]
    borders.append(min(1.0, centres[-1] + pitch))
    boxes = [_stretch(quad, start, end, vertical) for start, end in pairwise(borders)]
    rules = [0] * len(boxes)
    if ink is not None:
        boxes = _to_the_ink(ink.letters, _bounds(quad), boxes)
        rules = _rules(ink, _bounds(quad), boxes)
    along, across = (_side(quad, 0, 3), _side(quad, 0, 1)) if vertical else (_side(quad, 0, 1), _side(quad, 0, 3))
    words = []
    for (first, last), box, rule in zip(pieces, boxes, rules):
        sure = float(np.mean(certain[first : last + 1]))
        step = centres[first] - centres[first - 1] if first else 0.0
        far = (step * along > _APART * across and step > 3 * pitch) or first in cuts
        words.append(Word("".join(characters[first : last + 1]), box, sure, *_colors(bgr, box), rule, far))
    return Line(" ".join(text.split()), _bounds(quad), score, tuple(words), vertical)


@dataclass(frozen=True)
class _Ink:
    """Where the letters of a level line are, and where the rules under them: masks of the line's pixels and columns."""

    letters: Mask
    ruled: Mask


def _ink(bgr: Pixels, line: Box) -> _Ink | None:
    x1, y1, x2, y2 = int(line[0]), int(line[1]), math.ceil(line[2]), math.ceil(line[3])
    patch = bgr[y1:y2, x1:x2].astype(np.int32)
    if min(patch.shape[:2]) < 3:
        return None
    flat = patch.reshape(-1, 3)
    paper = np.partition(flat, len(flat) // 2, axis=0)[len(flat) // 2]
    difference = np.abs(patch - paper).sum(axis=2)
    letters: Mask = difference > max(0.25 * float(difference.max()), 8.0)
    height = y2 - y1
    # A row in the lower part that is inked for longer than letters that touch is a rule.
    ruled = np.zeros(x2 - x1, bool)
    for row in np.flatnonzero(letters[height // 2 :].sum(axis=1) > 2 * height) + height // 2:
        starts, ends = blanks(~letters[row])
        if len(starts) and (ends - starts).max() > 2 * height:
            for start, end in zip(starts, ends):
                ruled[start:end] |= bool(end - start > 0.3 * height)
            letters[row] = False
    return _Ink(letters, ruled)


def _wideblanks(letters: Mask) -> list[float]:
    """Return the middles, 0…1 along the line, of blanks that are wider than a space."""
    starts, ends = blanks(cast(Mask, letters.any(axis=0)))
    rows = np.flatnonzero(letters.any(axis=1))
    high = rows[-1] - rows[0] + 1 if len(rows) else 0
    inner = (starts > 0) & (ends < letters.shape[1])
    # Spaced letters have a blank between any two of them.
    usual = float(np.median((ends - starts)[inner])) if inner.any() else 0.0
    least = max(0.65 * high, 3.5 * usual)
    return [float(s + e) / 2 / letters.shape[1] for s, e in zip(starts[inner], ends[inner]) if e - s > least]


def _rules(ink: _Ink, line: Box, boxes: list[Box]) -> list[int]:
    """Return for each word the number of the rule that it stands on."""
    inked = cast(Mask, ink.letters.any(axis=0))
    rules: list[int] = []
    for number, box in enumerate(boxes):
        start, end = (int(min(max(value - line[0], 0), len(inked) - 1)) for value in (box[0], box[2]))
        # Rules leave out the columns of letters that reach below them.
        if not ink.ruled[start : end + 1].mean() > 0.4:
            rules.append(0)
            continue
        if not number or not rules[-1]:
            rules.append(max(rules, default=0) + 1)
            continue
        middle = (boxes[number - 1][2] + box[0]) / 2 - line[0]
        reach = max(6, round((line[3] - line[1]) / 2))
        low, high = max(0, int(middle) - reach), min(len(inked), int(middle) + reach + 1)
        starts, ends = blanks(inked[low:high])
        inner = [(s, e) for s, e in zip(starts, ends) if s > 0 and e < high - low]
        if not inner:
            rules.append(rules[-1])
            continue
        between = min(inner, key=lambda blank: abs(blank[0] + blank[1] - 2 * (middle - low)))
        whole = ink.ruled[low + between[0] : low + between[1]].mean() > 0.5
        rules.append(rules[-1] if whole else max(rules) + 1)
    return rules


def _to_the_ink(ink: Mask, line: Box, boxes: list[Box]) -> list[Box]:
    """Tighten the boxes of a level line's words to their letters.

    The recogniser knows where a letter is to about half its width: each border between words moves to the middle of
    the widest blank nearby, the ends of the line to a gap as wide as that before an icon, then each box shrinks to
    the ink in it, with a little paper around.
    """
    x1, y1, x2, y2 = int(line[0]), int(line[1]), math.ceil(line[2]), math.ceil(line[3])
    inked = cast(Mask, ink.any(axis=0))
    height = y2 - y1
    reach = height * 0.5
    borders = [float(x1)]
    for box in boxes[1:]:
        start = max(0, int(box[0] - x1 - reach))
        starts, ends = blanks(inked[start : int(box[0] - x1 + reach) + 1])
        widest = int(np.argmax(ends - starts)) if len(starts) else 0
        borders.append(x1 + start + float(starts[widest] + ends[widest]) / 2 if len(starts) else box[0])
    borders.append(float(x2))
    starts, ends = blanks(inked)
    gaps = [(s + e) / 2 for s, e in zip(starts, ends) if e - s > 0.22 * height and s > 0 and e < len(inked)]
    before = [gap for gap in gaps if x1 + gap < boxes[0][0] + 0.4 * height]
    after = [gap for gap in gaps if x1 + gap > boxes[-1][2] - 0.4 * height]
    if before and x1 + before[-1] < borders[1]:
        borders[0] = x1 + before[-1]
    if after and x1 + after[0] > borders[-2]:
        borders[-1] = x1 + after[0]
    pad = max(2, height // 10)
    tight = []
    for box, left, right in zip(boxes, borders, borders[1:]):
        start, end = max(0, round(left - x1)), min(len(inked), round(right - x1))
        columns = np.flatnonzero(inked[start:end])
        rows = np.flatnonzero(ink[:, start:end].any(axis=1))
        if not len(columns):
            tight.append(box)
            continue
        tight.append(
            (
                float(max(x1, x1 + start + columns[0] - pad)),
                float(max(y1, y1 + rows[0] - pad)),
                float(min(x2, x1 + start + columns[-1] + 1 + pad)),
                float(min(y2, y1 + rows[-1] + 1 + pad)),
            )
        )
    return tight


def blanks(inked: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the runs of blank columns start and end (exclusive)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], inked, [True])).astype(np.int8)))
    return edges[0::2], edges[1::2]


def _split(text: str, characters: list[str], centres: Array, pitch: float, wide: set[int]) -> list[tuple[int, int]]:
    """Return the first and last character of each word: cut at spaces, wide gaps, separators and CJK characters."""
    breaks = set(wide)
    position = 0
    for number, character in enumerate(characters):
        found = text.find(character, position)
        if found > position and text[position:found].isspace():
            breaks.add(number)
        position = max(found, position) + 1
        if number and (
            centres[number] - centres[number - 1] > 3.5 * pitch
            or _stands_alone(character)
            or _stands_alone(characters[number - 1])
            or character in SEPARATORS
            or characters[number - 1] in SEPARATORS
            or (number == 1 and character.isalnum() and unicodedata.category(characters[0]) in {"So", "Sm"})
        ):
            breaks.add(number)
    starts = sorted({0} | breaks)
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], len(characters)])]


def _stands_alone(character: str) -> bool:
    """Whether the script has no spaces between words: Chinese characters, kana."""
    return "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff"


def _stretch(quad: Array, start: float, end: float, vertical: bool) -> Box:
    """Return the bounds of the part of a line from `start` to `end`, 0…1 along its text."""
    a, b, c, d = quad  # from the top left, clockwise
    near, far = ((a, b), (d, c)) if vertical else ((a, d), (b, c))
    corners = np.array([n + (f - n) * t for n, f in zip(near, far) for t in (start, end)])
    return _bounds(corners)


def union(boxes: list[Box]) -> Box:
    """Return the smallest box around some boxes."""
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _bounds(points: Array) -> Box:
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return (float(x1), float(y1), float(x2), float(y2))


def _side(quad: Array, start: int, end: int) -> float:
    return float(np.linalg.norm(quad[start] - quad[end]))


def _colors(bgr: Pixels, box: Box) -> tuple[Color, Color]:
    """Return the colours (RGB) of ink and paper: the few pixels that differ most from the median, and the median.

    Thin letters are blurred into the paper; only their strongest pixels have the colour that was meant.
    """
    x1, y1, x2, y2 = (int(value) for value in box)
    patch = bgr[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].reshape(-1, 3).astype(np.int32)
    if not len(patch):
        return (0, 0, 0), (255, 255, 255)
    # Ranks by partition: medians and quantiles of NumPy take ten times as long on a few hundred pixels.
    paper = np.partition(patch, len(patch) // 2, axis=0)[len(patch) // 2]
    difference = np.abs(patch - paper).sum(axis=1)
    rank = int(0.97 * (len(patch) - 1))
    strongest = patch[difference >= np.partition(difference, rank)[rank]]
    ink = np.partition(strongest, len(strongest) // 2, axis=0)[len(strongest) // 2]
    return _rgb(ink), _rgb(paper)


def _rgb(bgr: npt.NDArray[np.int32]) -> Color:
    blue, green, red = (int(value) for value in bgr)
    return (red, green, blue)
