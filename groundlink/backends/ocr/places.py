"""Settling which of several places is meant: by ordinals, by where they are, and by what they are near.

Boxes are `(x1, y1, x2, y2)` in pixels. Distances are held against the heights of letters, so that nothing depends on
the size of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from groundlink.backends.ocr.hints import (
    Between,
    Column,
    Hint,
    Not,
    Ordinal,
    Place,
    Relation,
    Row,
    Side,
    Under,
)
from groundlink.backends.ocr.matching import Match
from groundlink.backends.ocr.reader import Page, in_reading_order
from groundlink.backends.ocr.words import union
from groundlink.detections import Box
from groundlink.image import Pixels

_ORDER = (Not, Under, Column, Row, Between, Relation, Place, Ordinal)
"""Hints that leave out places go before those that choose among what is left."""
_NUMBERED_ROWS = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1, "top": 0, "bottom": -1}
_TIE = 0.6
"""Heights of letters by which the nearest must be nearer than the next."""
_FAR = 40.0
"""Heights of letters beyond which nothing is below, above or beside."""


class Contradicted(Exception):
    """No place that reads the name is where the phrase says it is; the message says why."""


@dataclass(frozen=True)
class Scene:
    """What hints are settled on: the page, its picture, and how to find what an anchor describes."""

    page: Page
    pixels: Pixels
    find: Callable[[str], Sequence[Match]]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def settle(candidates: Sequence[Match], hints: Sequence[Hint], scene: Scene) -> tuple[list[Match], str]:
    """Return the candidates that the hints leave, and in words how they did.

    Raises:
        Contradicted: they leave none.
    """
    left = list(candidates)
    told = []
    for hint in sorted(hints, key=lambda hint: _ORDER.index(type(hint))):
        before = len(left)
        left, words = _apply(hint, left, scene)
        if not left:
            raise Contradicted(words)
        if len(left) < before or isinstance(hint, (Relation, Under, Row)):
            told.append(words)
    return left, ", ".join(told)


def texts(scene: Scene) -> list[Match]:
    """Return every line as a candidate: what "the button next to Cancel" may mean."""
    return [
        Match(line.text, line.text, union([word.box for word in line.words]), line.score)
        for line in scene.page.lines
        if line.words
    ]


def field_near(hints: Sequence[Hint], scene: Scene) -> Match | None:
    """Return the frame of an input field that stands where a hint says, relative to its label; None if there is none.

    A field is a rectangle of one colour, as high as one to four lines of its label, with text or without.
    """
    for hint in hints:
        if not isinstance(hint, Relation):
            continue
        for anchor in _anchors(hint.anchor, scene)[0]:
            frame = _frame(hint.near, anchor.box, scene.pixels)
            if frame is not None:
                inside = [line for line in scene.page.lines if _within(line.box, frame)]
                return Match(" ".join(line.text for line in inside), anchor.line, frame, anchor.score)
    return None


def _apply(hint: Hint, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    if isinstance(hint, Ordinal):
        return _ordinal(hint, candidates)
    if isinstance(hint, Place):
        return _place(hint, candidates, scene)
    if isinstance(hint, Relation):
        return _relation(hint, candidates, scene)
    if isinstance(hint, Row):
        return _row(hint, candidates, scene)
    if isinstance(hint, Column):
        anchors, why = _anchors(hint.anchor, scene)
        below = [
            match
            for match in candidates
            if any(_shared(match.box, a.box, 0) > 0 and match.box[1] >= a.box[3] - _height(a.box) / 2 for a in anchors)
        ]
        return below, why or f'in the column "{hint.anchor}"'
    if isinstance(hint, Under):
        return _under(hint, candidates, scene)
    if isinstance(hint, Between):
        return _between(hint, candidates, scene)
    return _without(hint, candidates, scene)


def _ordinal(hint: Ordinal, candidates: list[Match]) -> tuple[list[Match], str]:
    ordered = in_reading_order(candidates) if hint.side is None else sorted(candidates, key=_along(hint.side))
    count = len(ordered)
    if not -count <= hint.number < count:
        return [], f"there {'is' if count == 1 else 'are'} only {count}"
    place = hint.number % count + 1
    whence = "in reading order" if hint.side is None else f"from the {hint.side}"
    return [ordered[hint.number]], f"number {place} of {count} {whence}"


def _along(side: Side) -> Callable[[Match], float]:
    axis, sign = (0 if side in ("left", "right") else 1), (1 if side in ("left", "top") else -1)
    return lambda match: sign * _centre(match.box)[axis]


def _place(hint: Place, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    where = " ".join(side for side in ("top", "bottom", "middle", "left", "right") if side in hint.sides)
    if len(candidates) == 1:
        x, y = (value / size for value, size in zip(_centre(candidates[0].box), scene.size))
        wrong = {"top": y > 0.67, "bottom": y < 0.33, "left": x > 0.67, "right": x < 0.33, "middle": False}
        if any(wrong[side] for side in hint.sides):
            return [], f"it is not at the {where}"
        return candidates, f"at the {where}"
    left = candidates
    for side in ("top", "bottom", "left", "right", "middle"):
        if side in hint.sides:
            left = _outermost(side, left, scene)
    return left, f"at the {where}"


def _outermost(side: Side, candidates: list[Match], scene: Scene) -> list[Match]:
    """Those farthest to a side, within a line of each other."""
    if side == "middle":
        width, height = scene.size
        apart = [abs(x - width / 2) + abs(y - height / 2) for x, y in (_centre(match.box) for match in candidates)]
        nearest = min(apart)
        return [match for match, far in zip(candidates, apart) if far - nearest < _TIE * _height(match.box)]
    key = _along(side)
    first = min(candidates, key=key)
    return [match for match in candidates if key(match) - key(first) < 1.5 * _height(first.box)]


def _relation(hint: Relation, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    anchors, why = _anchors(hint.anchor, scene)
    if why:
        return [], why
    apart = [
        (min((_distance(hint.near, match.box, anchor.box) for anchor in anchors), default=np.inf), match)
        for match in candidates
        if not any(_same(match.box, anchor.box) for anchor in anchors)
    ]
    reached = sorted(((far, match) for far, match in apart if far < np.inf), key=lambda pair: pair[0])
    words = f'{hint.near if hint.near in ("below", "above", "next to") else hint.near + " of"} "{anchors[0].text}"'
    if not reached:
        return [], f"none is {words}"
    return [match for far, match in reached if far - reached[0][0] < _TIE * _height(match.box)], words


def _distance(near: str, box: Box, anchor: Box) -> float:
    """How far a box is from an anchor in a direction, in pixels; infinite where it is not there."""
    height = max(1.0, min(_height(box), _height(anchor)))
    across, down = -_shared(box, anchor, 0), -_shared(box, anchor, 1)  # gaps, negative where they overlap
    if near == "next to":
        far = max(across, 0.0) + 2 * max(down, 0.0) + (0 if down < -0.3 * height else height)
    elif near in ("below", "above"):
        gap = box[1] - anchor[3] if near == "below" else anchor[1] - box[3]
        if gap < -0.5 * height:
            return np.inf
        aligned = abs(box[0] - anchor[0]) < 2 * height or across < 0
        if not aligned and across > 8 * height:
            return np.inf
        far = max(gap, 0.0) + (0 if aligned else 2 * max(across, 0.0)) + 0.1 * abs(box[0] - anchor[0])
    else:
        gap = box[0] - anchor[2] if near == "right" else anchor[0] - box[2]
        if gap < -0.5 * height or down > 0.5 * height:
            return np.inf
        far = max(gap, 0.0) + 4 * max(down + 0.3 * height, 0.0)
    return far if far < _FAR * height or near in ("left", "right") else np.inf


def _row(hint: Row, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    number = _NUMBERED_ROWS.get(hint.anchor.lower())
    if number is not None:
        rows = _rows(candidates)
        if not -len(rows) <= number < len(rows):
            return [], f"there are only {len(rows)} rows"
        return rows[number], f"in row {number % len(rows) + 1}"
    anchors, why = _anchors(hint.anchor, scene)
    if why:
        return [], why
    others = [match for match in candidates if not any(_same(match.box, anchor.box) for anchor in anchors)]
    apart = [
        (min(abs(_centre(match.box)[1] - _centre(anchor.box)[1]) for anchor in anchors), match) for match in others
    ]
    nearest = min((far for far, _ in apart), default=np.inf)
    kept = [
        match for far, match in apart if far <= 2.2 * _height(match.box) and far - nearest < _TIE * _height(match.box)
    ]
    return kept, f'in the row of "{hint.anchor}"' if kept else f'none is in the row of "{hint.anchor}"'


def _rows(candidates: list[Match]) -> list[list[Match]]:
    rows: list[list[Match]] = []
    for match in sorted(candidates, key=lambda match: _centre(match.box)[1]):
        if rows and _centre(match.box)[1] - _centre(rows[-1][0].box)[1] < 0.7 * _height(match.box):
            rows[-1].append(match)
        else:
            rows.append([match])
    return rows


def _under(hint: Under, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    anchors, why = _anchors(hint.heading, scene)
    if why:
        return [], why
    apart = []
    for match in candidates:
        for anchor in anchors:
            height = _height(anchor.box)
            gap = match.box[1] - anchor.box[3]
            beside = abs(_centre(match.box)[1] - _centre(anchor.box)[1]) < height and match.box[0] > anchor.box[2]
            if _same(match.box, anchor.box) or (gap < -0.5 * height and not beside):
                continue
            if match.box[2] < anchor.box[0] - 2 * height:
                continue
            sideways = max(0.0, match.box[0] - anchor.box[2])
            apart.append((max(gap, 0.0) + 0.6 * sideways, match))
    if not apart:
        return [], f'none is under "{hint.heading}"'
    nearest = min(far for far, _ in apart)
    kept = [match for far, match in apart if far - nearest < _TIE * _height(match.box)]
    return list(dict.fromkeys(kept)), f'under "{hint.heading}"'


def _between(hint: Between, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    (firsts, why), (seconds, why_not) = (_anchors(words, scene) for words in (hint.first, hint.second))
    if why or why_not:
        return [], why or why_not
    kept = []
    for match in candidates:
        x, y = _centre(match.box)
        for a in firsts:
            for b in seconds:
                (ax, ay), (bx, by) = _centre(a.box), _centre(b.box)
                if _same(match.box, a.box) or _same(match.box, b.box):
                    continue
                level = abs(ay - by) < _height(a.box) and abs(y - ay) < 1.2 * _height(a.box)
                if (min(ax, bx) < x < max(ax, bx) and level) or (
                    not level and min(ay, by) < y < max(ay, by) and _shared(match.box, union([a.box, b.box]), 0) > 0
                ):
                    kept.append(match)
    words = f'between "{hint.first}" and "{hint.second}"'
    return list(dict.fromkeys(kept)), words if kept else f"none is {words}"


def _without(hint: Not, candidates: list[Match], scene: Scene) -> tuple[list[Match], str]:
    if isinstance(hint.hint, str):
        others = [match for match in scene.find(hint.hint) if match.score >= 0.9]
        kept = [match for match in candidates if not any(_same(match.box, other.box) for other in others)]
        return kept, f'not "{hint.hint}"'
    if isinstance(hint.hint, Place) and hint.hint.zone:
        place = hint.hint
        kept = [match for match in candidates if not _in_zone(match.box, place, scene)]
        return kept, "not the one there"
    out, words = _apply(hint.hint, list(candidates), scene)
    return [match for match in candidates if match not in out], f"not the one {words}"


def _in_zone(box: Box, place: Place, scene: Scene) -> bool:
    bounds = {"top": (1, 0.0, 0.14), "bottom": (1, 0.86, 1.0), "left": (0, 0.0, 0.25), "right": (0, 0.75, 1.0)}
    for side in place.sides:
        axis, low, high = bounds[side]
        if not low <= _centre(box)[axis] / scene.size[axis] <= high:
            return False
    return True


def _anchors(words: str, scene: Scene) -> tuple[Sequence[Match], str]:
    """What an anchor describes, and where it is nowhere why that is."""
    found = scene.find(words)
    return found, "" if found else f'there is no "{words}"'


def _frame(near: str, anchor: Box, pixels: Pixels) -> Box | None:
    """The rectangle of one colour that begins beside an anchor."""
    height = _height(anchor)
    y = _centre(anchor)[1]
    steps = [0.4 + 0.35 * step for step in range(9)]
    if near == "below":
        points = [(anchor[0] + 0.7 * height, anchor[3] + step * height) for step in steps]
    elif near == "above":
        points = [(anchor[0] + 0.7 * height, anchor[1] - step * height) for step in steps]
    elif near == "left":
        points = [(anchor[0] - (step + 0.5) * height, y) for step in steps]
    else:
        points = [(anchor[2] + (step + 0.5) * height * 1.5, y) for step in steps]
    bgr = np.ascontiguousarray(pixels)
    for px, py in points:
        if not (0 <= px < pixels.shape[1] and 0 <= py < pixels.shape[0]):
            return None
        box = _filled(bgr, int(px), int(py))
        if box is None:
            continue
        tall, wide = _height(box) / height, (box[2] - box[0]) / height
        if 0.9 <= tall <= 5 and wide >= 3 and not _within(anchor, box) and wide * height < 0.95 * pixels.shape[1]:
            return box
    return None


def _filled(pixels: Pixels, x: int, y: int) -> Box | None:
    """The bounds of what has the colour of a pixel and is joined to it, where that fills a rectangle."""
    mask = np.zeros((pixels.shape[0] + 2, pixels.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    area, _, _, (left, top, width, height) = cv2.floodFill(
        pixels.copy(), mask, (x, y), (0, 0, 0), (6, 6, 6), (6, 6, 6), flags
    )
    if area < 0.55 * width * height:
        return None
    edge = mask[top + 1 : top + 1 + height, left + 1 : left + 1 + width]
    # Text inside leaves holes; the rectangle's own edges are whole, but for rounded corners.
    sides = (edge[0], edge[-1], edge[:, 0], edge[:, -1])
    if min(float((side > 0).mean()) for side in sides) < 0.6:
        return None
    return (float(left), float(top), float(left + width), float(top + height))


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _height(box: Box) -> float:
    return box[3] - box[1]


def _shared(a: Box, b: Box, axis: int) -> float:
    """How much of an axis two boxes share; negative for a gap."""
    return min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis])


def _same(a: Box, b: Box) -> bool:
    return _shared(a, b, 0) > 0 and _shared(a, b, 1) > 0.3 * min(_height(a), _height(b))


def _within(inner: Box, outer: Box) -> bool:
    x, y = _centre(inner)
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]
