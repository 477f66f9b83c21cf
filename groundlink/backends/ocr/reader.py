"""Reading a picture: what the detector is shown, and what rapidocr reads there."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from groundlink.backend import Context
from groundlink.backends.ocr.words import Array, Line, blanks, place_words
from groundlink.detections import Box
from groundlink.image import Pixels

MAX_SIDE = 2000
"""Larger pictures are scaled down or cut to find the lines; they are read at full size."""
MIN_TEXT_SCORE = 0.3
_CHUNK = 24
"""Lines read between two looks at the deadline."""
_SHRINK = 1.35
"""Text is found as well on a picture that is scaled down by as much; a larger one is cut instead."""
_MAX_AREA = 12_000_000
"""Pixels that the detector looks at; 4K has eight million."""
_DETECTOR_SIDE = 736
"""A picture whose shorter side is below this is enlarged to it, as rapidocr does, …"""
_ENLARGE = 2.0
"""… but never by more than this, …"""
_SPENT = 0.5
"""… and what is left of a nearly empty one up to this share of its pixels."""
_SMALLEST = 32
"""Pixels of a side that the detector can take."""
_ROW_GAP, _COLUMN_GAP = 24, 48
"""Pixels that are left of a stretch without change: less, and the detector joins what stood apart."""


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
        """Bytes that the page takes in memory, with what matching keeps of it; rather too many than too few."""
        return 500 + sum(800 + len(line.text) * 8 + 1200 * len(line.words) for line in self.lines)


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
        bgr = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), dtype=np.uint8)
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
        # What was saved is spent on small pictures and on what is left of nearly empty ones: they are enlarged.
        spared = math.sqrt(_SPENT * bgr.size / dense.size)
        enlarge = min(_ENLARGE, max(1.0, _DETECTOR_SIDE / min(bgr.shape[:2]), spared))
        quads = []
        for piece, x, y in _parts(dense, self._max_side):
            for quad in (self._detect(piece, enlarge) + (x, y)) / shrink:
                across = np.interp(quad[:, 0], np.arange(len(columns)), columns)
                down = np.interp(quad[:, 1], np.arange(len(rows)), rows)
                quads.append(np.stack([across, down], axis=1))
        return quads

    def _detect(self, bgr: Pixels, enlarge: float) -> Array:
        """Return what the detector finds in one piece, shape N×4×2."""
        from rapidocr.utils.process_img import apply_vertical_padding, map_boxes_to_original

        engine, (height, width) = self._engine, bgr.shape[:2]
        scaled, record = engine.preprocess_img(bgr)
        padded, record = apply_vertical_padding(scaled, record, engine.width_height_ratio, engine.min_height)
        detector = engine._load_det_model()
        # Left alone, rapidocr enlarges whatever has a side below 736 pixels, also a thin strip.
        detector.limit_side_len = enlarge * min(scaled.shape[:2])
        found = detector(padded)
        if found.boxes is None:
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
                    line = place_words(bgr, quads[number], text, float(score), columns)
                    if line is not None:
                        yield line


def _eventful(bgr: Pixels, axis: int, gap: int) -> npt.NDArray[np.intp]:
    """Return the rows (axis 0) or columns (axis 1) to keep, where long runs of equal ones are cut down to `gap`."""
    height, width = bgr.shape[:2]
    length = bgr.shape[axis]
    if length < 2 * gap:
        return np.arange(length)
    flat = bgr.reshape(height, width * 3)
    if axis == 0:
        changes = cv2.absdiff(flat[1:], flat[:-1]).max(axis=1) > 2
    else:
        changes = cv2.absdiff(flat[:, 3:], flat[:, :-3]).max(axis=0).reshape(width - 1, 3).max(axis=1) > 2
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
        starts, ends = blanks(busy > busy.min() + 0.02 * np.ptp(busy))
        longest = int(np.argmax(ends - starts))
        borders.append(middle - reach + int(starts[longest] + ends[longest]) // 2)
    for start, end in pairwise([*borders, length]):
        yield start, bgr[start:end] if axis == 0 else bgr[:, start:end]


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
