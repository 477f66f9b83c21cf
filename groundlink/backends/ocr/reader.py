"""Reading a picture: rapidocr finds lines and reads them, we place the words.

rapidocr's own word boxes are per letter as soon as a line has one character beyond Latin; the columns of its
recogniser are kept instead, and words are cut where it read a space or left a gap.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from groundlink.backend import Context
from groundlink.detections import Box
from groundlink.image import Pixels

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Color = tuple[int, int, int]

MAX_SIDE = 2000
"""Larger pictures are scaled down or cut to find the lines; they are read at full size."""
MIN_TEXT_SCORE = 0.3
_CHUNK = 24
"""Lines read between two looks at the deadline."""
SEPARATORS = "|•·›»‹«¦"
"""What stands between two names and is often read as part of one."""
_SHRINK = 1.35
"""Text is found as well on a picture that is scaled down by as much; a larger one is cut instead."""
_MAX_AREA = 12_000_000
"""Pixels that the detector looks at; 4K has eight million."""
_DETECTOR_SIDE, _ENLARGE, _SMALLEST = 736, 2, 32
_ROW_GAP, _COLUMN_GAP = 24, 48
"""Pixels that are left of a stretch without change: less, and the detector joins what stood apart."""


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


class HasBox(Protocol):
    """Something with a place in the picture."""

    @property
    def box(self) -> Box:
        """`(x1, y1, x2, y2)` in pixels."""


Boxed = TypeVar("Boxed", bound=HasBox)


@dataclass(frozen=True)
class Page:
    """All lines of a picture, in reading order, and how long it took: milliseconds by stage."""

    lines: tuple[Line, ...]
    timings_ms: dict[str, float]

    @property
    def cost(self) -> int:
        """Bytes that the page takes in memory, about."""
        return 500 + sum(600 + len(line.text) * 4 + 420 * len(line.words) for line in self.lines)


class Reader:
    """Reads pictures with rapidocr; not thread-safe.

    Args:
        max_side: pictures whose longer side is larger are scaled down to it, or cut, for finding lines.
        threads: CPU threads; None for all that the process may use.
    """

    def __init__(self, max_side: int = MAX_SIDE, threads: int | None = None) -> None:
        from rapidocr import RapidOCR

        if threads is None:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._max_side = max_side
        self._engine: Any = RapidOCR(
            params={
                "Global.use_cls": False,
                "Global.return_word_box": True,
                "Global.text_score": MIN_TEXT_SCORE,
                "Global.max_side_len": max_side,
                "Global.log_level": "critical",
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            }
        )

    def read(self, pixels: Pixels, context: Context) -> Page:
        """Read a picture of shape H×W×3, RGB.

        Raises:
            Cancelled, DeadlineExceeded: seen between the stages, and every few lines.
        """
        started = time.perf_counter()
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        context.progress("finding text", 0.0)
        quads = self._find(bgr)
        context.check()
        found = time.perf_counter()
        lines = list(self._lines(bgr, quads, context))
        read = time.perf_counter()
        return Page(
            lines=tuple(in_reading_order(lines)),
            timings_ms={"find_text": (found - started) * 1000, "read_text": (read - found) * 1000},
        )

    def _find(self, bgr: Pixels) -> list[Array]:
        """Return the quadrilaterals of text lines, shape 4×2 each, clockwise from the top left, in pixels of `bgr`.

        The detector judges letters by the rest of what it sees: on a large empty page it overlooks a lone button.
        So it is shown the picture without its empty stretches, which costs less, too.
        """
        rows = _eventful(bgr, 0, _ROW_GAP)
        columns = _eventful(bgr[rows], 1, _COLUMN_GAP)
        dense = np.ascontiguousarray(bgr[np.ix_(rows, columns)])
        shrink = min(1.0, math.sqrt(_MAX_AREA / dense[:, :, 0].size))
        if shrink < 1.0:
            size = (max(1, round(len(columns) * shrink)), max(1, round(len(rows) * shrink)))
            dense = np.asarray(cv2.resize(dense, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        quads = []
        for piece, x, y in _parts(dense, self._max_side):
            for quad in (self._detect(piece) + (x, y)) / shrink:
                across = np.interp(quad[:, 0], np.arange(len(columns)), columns)
                down = np.interp(quad[:, 1], np.arange(len(rows)), rows)
                quads.append(np.stack([across, down], axis=1))
        return quads

    def _detect(self, bgr: Pixels) -> Array:
        """Return what the detector finds in one piece, shape N×4×2."""
        from rapidocr.main import RapidOCRError
        from rapidocr.utils.process_img import map_boxes_to_original

        height, width = bgr.shape[:2]
        # Small pieces are enlarged for the detector, but a thin strip not to its usual 736 pixels.
        self._engine._load_det_model().limit_side_len = min(_DETECTOR_SIDE, _ENLARGE * min(height, width))
        scaled, record = self._engine.preprocess_img(bgr)
        try:
            _, found = self._engine.detect_and_crop(scaled, record)
        except RapidOCRError:  # how rapidocr says that there is no text
            return np.empty((0, 4, 2))
        return np.asarray(map_boxes_to_original(found.boxes, record, height, width), dtype=np.float64)

    def _lines(self, bgr: Pixels, quads: list[Array], context: Context) -> Iterator[Line]:
        crops = self._engine.crop_text_regions(bgr, [quad.astype(np.float32) for quad in quads])
        kept = [number for number, crop in enumerate(crops) if crop.size]
        # Of like width together, since a batch is as wide as its widest line.
        kept.sort(key=lambda number: crops[number].shape[1] / crops[number].shape[0])
        for start in range(0, len(kept), _CHUNK):
            context.check()
            context.progress("reading text", start / len(kept))
            chunk = kept[start : start + _CHUNK]
            read = self._engine.recognize_txt([crops[number] for number in chunk])
            for number, text, score, columns in zip(chunk, read.txts, read.scores, read.word_results):
                if text.strip() and score >= MIN_TEXT_SCORE:
                    line = _place(bgr, quads[number], text, float(score), columns)
                    if line is not None:
                        yield line


def _eventful(bgr: Pixels, axis: int, gap: int) -> npt.NDArray[np.intp]:
    """Return the rows (axis 0) or columns (axis 1) to keep, where long runs of equal ones are cut down to `gap`."""
    ahead, behind = (bgr[1:], bgr[:-1]) if axis == 0 else (bgr[:, 1:], bgr[:, :-1])
    length = bgr.shape[axis]
    if length < 2 * gap:
        return np.arange(length)
    changes = cv2.absdiff(np.ascontiguousarray(ahead), np.ascontiguousarray(behind)).max(axis=(1 - axis, 2)) > 2
    # Every row near a change is kept: the first after it, and those that lead up to the next.
    places = np.flatnonzero(np.concatenate(([True], changes, [True])))
    number = np.arange(length)
    after = number - places[np.searchsorted(places, number, side="right") - 1]
    before = places[np.searchsorted(places, number, side="right")] - 1 - number
    return np.flatnonzero((after < gap // 2) | (before < gap // 2))


def _parts(bgr: Pixels, max_side: int) -> Iterator[tuple[Pixels, int, int]]:
    """Cut what is too large to be seen well at `max_side`; yields (piece, x offset, y offset).

    Cuts run where the picture is plain, so that they do not go through text.
    """
    for y, band in _cut(bgr, 0, max_side):
        for x, piece in _cut(band, 1, max_side):
            missing = [(0, max(0, _SMALLEST - side)) for side in piece.shape[:2]]
            yield np.pad(piece, [*missing, (0, 0)], mode="edge") if any(map(any, missing)) else piece, x, y


def _cut(bgr: Pixels, axis: int, max_side: int) -> Iterator[tuple[int, Pixels]]:
    """Cut across one axis in equal pieces, each cut moved to the plainest row or column nearby."""
    length = bgr.shape[axis]
    count = math.ceil(length / (max_side * _SHRINK))
    borders = [0]
    for number in range(1, count):
        middle, reach = length * number // count, max_side // 12
        strip = np.take(bgr, range(middle - reach, middle + reach), axis=axis).astype(np.int16)
        busy = np.abs(np.diff(strip, axis=1 - axis)).sum(axis=(1 - axis, 2))
        # The middle of the longest plain run is farthest from any text.
        starts, ends = _blanks(busy > busy.min() + 0.02 * np.ptp(busy))
        longest = int(np.argmax(ends - starts))
        borders.append(middle - reach + int(starts[longest] + ends[longest]) // 2)
    for start, end in pairwise([*borders, length]):
        yield start, bgr[start:end] if axis == 0 else bgr[:, start:end]


def _place(bgr: Pixels, quad: Array, text: str, score: float, columns: Any) -> Line | None:
    """Cut a line that was read into words with boxes. `columns` is rapidocr's `WordInfo`."""
    centres = np.array([column for word in columns.word_cols for column in word], dtype=np.float64)
    characters = [character for word in columns.words for character in word]
    if not characters or columns.line_txt_len <= 0:
        return None
    certain = [score for character, score in zip(text, columns.confs) if not character.isspace()]
    centres = (centres + 0.5) / columns.line_txt_len
    pitch = float(np.median(np.diff(centres))) if len(centres) > 1 else 1.0 / max(len(text), 1)
    vertical = _side(quad, 0, 3) >= 1.5 * _side(quad, 0, 1)
    pieces = _split(text, characters, centres, pitch)
    # Between two words the border lies half-way, so that neighbours never overlap.
    borders = [max(0.0, centres[0] - pitch)]
    borders += [(centres[first - 1] + centres[first]) / 2 for first, _ in pieces[1:]]
    borders.append(min(1.0, centres[-1] + pitch))
    boxes = [_stretch(quad, start, end, vertical) for start, end in pairwise(borders)]
    if not vertical and abs(quad[1, 1] - quad[0, 1]) < 0.2 * _side(quad, 0, 3):
        boxes = _to_the_ink(bgr, _bounds(quad), boxes)
    words = []
    for (first, last), box in zip(pieces, boxes):
        sure = float(np.mean(certain[first : last + 1]))
        words.append(Word("".join(characters[first : last + 1]), box, sure, *_colors(bgr, box)))
    return Line(" ".join(text.split()), _bounds(quad), score, tuple(words), vertical)


def _to_the_ink(bgr: Pixels, line: Box, boxes: list[Box]) -> list[Box]:
    """Tighten the boxes of a level line's words to their letters.

    The recogniser knows where a letter is to about half its width: each border between words moves to the middle of
    the widest blank nearby, the ends of the line to a gap as wide as that before an icon, then each box shrinks to
    the ink in it, with a little paper around.
    """
    x1, y1, x2, y2 = int(line[0]), int(line[1]), math.ceil(line[2]), math.ceil(line[3])
    patch = bgr[y1:y2, x1:x2].astype(np.int32)
    if min(patch.shape[:2]) < 3:
        return boxes
    difference: Array = np.abs(patch - np.median(patch.reshape(-1, 3), axis=0)).sum(axis=2)
    ink: Mask = difference > max(0.25 * float(difference.max()), 8.0)
    inked = cast(Mask, ink.any(axis=0))
    height = y2 - y1
    reach = height * 0.5
    borders = [float(x1)]
    for box in boxes[1:]:
        start = max(0, int(box[0] - x1 - reach))
        starts, ends = _blanks(inked[start : int(box[0] - x1 + reach) + 1])
        widest = int(np.argmax(ends - starts)) if len(starts) else 0
        borders.append(x1 + start + float(starts[widest] + ends[widest]) / 2 if len(starts) else box[0])
    borders.append(float(x2))
    starts, ends = _blanks(inked)
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


def _blanks(inked: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the runs of blank columns start and end (exclusive)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], inked, [True])).astype(np.int8)))
    return edges[0::2], edges[1::2]


def _split(text: str, characters: list[str], centres: Array, pitch: float) -> list[tuple[int, int]]:
    """Return the first and last character of each word: cut at spaces, wide gaps, separators and CJK characters."""
    breaks = set()
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
    paper = np.median(patch, axis=0)
    difference = np.abs(patch - paper).sum(axis=1)
    ink = np.median(patch[difference >= np.quantile(difference, 0.97)], axis=0)
    return _rgb(ink), _rgb(paper)


def _rgb(bgr: Array) -> Color:
    blue, green, red = (int(value) for value in bgr)
    return (red, green, blue)


def in_reading_order(lines: list[Boxed]) -> list[Boxed]:
    """Sort by rows from the top, and in a row from the left. Two share a row if half of the lower one overlaps."""
    rows: list[list[Boxed]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        top, bottom = line.box[1], line.box[3]
        last = rows[-1][0].box if rows else None
        if last is not None and min(bottom, last[3]) - max(top, last[1]) > 0.5 * min(bottom - top, last[3] - last[1]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]
