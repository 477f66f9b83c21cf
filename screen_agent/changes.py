"""What changed on the screen, and what was changing anyway.

Pictures are compared exactly. Carets, clocks and videos change while nobody does anything: what was seen to
change while idle does not count as the effect of an act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import xxhash

from groundlink.detections import Box
from screen_agent.capture import Frame, PixelBox

BLOCK = 8
"""Side of the blocks of pixels that changes are gathered in; changes less than a block apart are one."""
SCENE = 0.05
"""A change of more than this share of the picture is another screen, not a part that lives."""
SMALL = 0.01
"""A change whose box has less than this share of the picture may be a caret or a clock that was not seen before."""
RHYTHM = 1.1
"""Seconds after which a caret (0.5 to 0.6 s) or a clock (1 s) has changed again."""
QUIET = 0.12
"""Seconds without change after which a change is taken for finished."""
PATIENCE = RHYTHM + QUIET
"""Seconds after which what has shown is certain, or never rests."""
REMEMBERED = 5.0
"""Seconds for which a part that changed while idle is remembered after it last did."""
ALIKE = 0.8
"""The correlation, of either sign, above which two pictures are of one thing in the same place."""
CARET = 4
"""A caret is at most so many pixels wide."""
OFTEN = 3
"""A part that changed so often while idle lives; one that did less often may be the late effect of an earlier act."""
LATE = 0.3
"""Seconds after an act whose effect nobody watched in which changes come of it, and are not learnt as living."""
CLOSELY = 0.5
"""Frames further apart than this, in seconds, say nothing of what blinked between them."""


def changed(before: Frame, after: Frame, ignored: tuple[PixelBox, ...] = ()) -> tuple[PixelBox, ...]:
    """Return the boxes of what differs between two frames of the same size, apart from `ignored` boxes.

    Boxes are `(x1, y1, x2, y2)` in pixels of the frames, x2 and y2 exclusive; differences less than a block apart are
    in one box.
    """
    differs: npt.NDArray[np.bool_] = before != after
    for x1, y1, x2, y2 in ignored:
        differs[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = False
    if not differs.any():
        return ()
    height, width = differs.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    padded = np.zeros((rows * BLOCK, columns * BLOCK), dtype=np.bool_)
    padded[:height, :width] = differs
    # Eight neighbouring bytes are one number: this is several times as fast as any() over two axes.
    blocks = (padded.view(np.uint64).reshape(rows, BLOCK, columns) != 0).any(axis=1)
    count, _, stats, _ = cv2.connectedComponentsWithStats(blocks.astype(np.uint8), connectivity=8)
    boxes = []
    for left, top, across, down, _ in (tuple(int(value) for value in row) for row in stats[1:count]):
        part = padded[top * BLOCK : (top + down) * BLOCK, left * BLOCK : (left + across) * BLOCK]
        ys, xs = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        x, y = left * BLOCK, top * BLOCK
        boxes.append((x + int(xs[0]), y + int(ys[0]), x + int(xs[-1]) + 1, y + int(ys[-1]) + 1))
    return tuple(boxes)


def alike(a: Frame, b: Frame) -> bool:
    """Whether two frames of one size show the same thing in the same place, be it in other colours.

    So it is with a button that lights up under the pointer, and not with one that has moved: their correlation tells.
    """
    if np.array_equal(a, b):
        return True
    grey = [np.stack([(part >> shift) & 0xFF for shift in (0, 8, 16)]).sum(axis=0, dtype=np.float64) for part in (a, b)]
    first, second = (part - part.mean() for part in grey)
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return spread > 0 and abs(float((first * second).sum())) > ALIKE * spread


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass
class _Part:
    """A part of the screen that changed while idle: where, how often, and when it last did."""

    box: PixelBox
    times: int
    at: float


@dataclass
class Idle:
    """What changes while nobody acts, learnt from frames that are shown to it.

    `span` is for how many seconds it has looked, closely enough to see a caret blink.
    """

    span: float = 0.0
    _last: Frame | None = None
    _at: float = 0.0
    _parts: list[_Part] = field(default_factory=list)
    _from: float = 0.0

    def see(self, frame: Frame, at: float) -> None:
        """Take a frame of an idle screen, captured at `at` seconds of the monotonic clock."""
        last, gap = self._last, at - self._at
        if last is None or last.shape != frame.shape or gap > CLOSELY or at < self._from:
            self._last, self._at, self.span = frame, at, 0.0
            return
        self._last, self._at = frame, at
        self.span += max(0.0, gap)
        boxes = changed(last, frame)
        if sum(_area(box) for box in boxes) > SCENE * frame.size:
            # Another screen: what lived on the old one says nothing about it.
            self._parts.clear()
            self.span = 0.0
            return
        for box in map(_widened, boxes):
            known = next((part for part in self._parts if overlap(part.box, box)), None)
            if known is None:
                self._parts.append(_Part(box, 1, at))
            else:
                known.box, known.times, known.at = _union(known.box, box), known.times + 1, at

    def restart(self, frame: Frame, at: float, *, watched: bool = True) -> None:
        """Begin to look anew, after an act; what lived before is remembered for a while.

        Where the effect of the act was not watched, it may be yet to come.
        """
        self._last, self._at, self.span = frame, at, 0.0
        self._from = at if watched else at + LATE

    def parts(self, now: float, *, often: bool) -> tuple[PixelBox, ...]:
        """Return the boxes of what changed while idle not long ago: at all, or as often as only a living part does."""
        self._parts = [part for part in self._parts if now - part.at < REMEMBERED]
        return tuple(part.box for part in self._parts if part.times >= OFTEN or not often)


def _widened(box: PixelBox) -> PixelBox:
    """A caret blinks in its place; of a clock other digits may change next."""
    x1, y1, x2, y2 = box
    if x2 - x1 <= CARET:
        return (x1 - 1, y1 - 1, x2 + 1, y2 + 1)
    height = y2 - y1
    return (x1 - 3 * height, y1 - height // 4 - 1, x2 + 3 * height, y2 + height // 4 + 1)


def _union(a: PixelBox, b: PixelBox) -> PixelBox:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _area(box: PixelBox) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


@dataclass(frozen=True)
class Effect:
    """What an act changed: boxes in pixels of the frame, none where nothing did; the frame at the end."""

    boxes: tuple[PixelBox, ...]
    after: Frame
    seconds: float


def watch_effect(
    before: Frame,
    idle: Idle,
    grab: Callable[[], Frame],
    wait: Callable[[float], None],
    clock: Callable[[], float],
    timeout: float,
    likely: PixelBox | None = None,
    accept: Callable[[tuple[PixelBox, ...]], tuple[PixelBox, ...]] | None = None,
    patience: float = PATIENCE,
) -> Effect:
    """Look at the screen after an act until its effect is certain, or `timeout` seconds have passed without any.

    A difference from `before` counts when it has come to rest: at once if it is large, or if the screen was looked at
    for long enough before the act to know its carets and clocks; else, and where something changed before the act
    already, after the time in which a caret or a clock changes again. What goes back and forth never counts.

    Args:
        before: the frame right before the act.
        idle: what was changing anyway.
        grab: takes a frame of the same area.
        wait: sleeps for so many seconds, and may raise to end the wait.
        clock: the monotonic clock, in seconds.
        timeout: seconds in which an effect must show.
        likely: where an effect is expected, as where text is typed: there all but a caret counts at once.
        accept: given changes that are certain, returns those that are an effect; the rest is no longer looked at, as
            it is now.
        patience: how many more seconds what has shown may take to become certain.
    """
    start = now = clock()
    ignored, suspect = idle.parts(now, often=True), idle.parts(now, often=False)
    previous = before
    later = _Later()
    due: list[PixelBox] | None = None
    while True:
        frame = grab()
        now = clock()
        if frame.shape != before.shape:  # a monitor came or went
            return Effect(((0, 0, frame.shape[1], frame.shape[0]),), frame, now - start)
        for box in changed(previous, frame, ignored):
            later.note(box, previous, frame, now)
        previous = frame
        late = now - start >= timeout
        sure: list[PixelBox] = []
        open_: list[PixelBox] = []
        for box in changed(before, frame, (*ignored, *later.blinking)):
            if due is not None and not any(overlap(box, part) for part in due):
                continue  # too late
            quiet = now - later.last(box, now)
            large = _area(box) >= SMALL * frame.size
            known = idle.span >= RHYTHM
            expected = likely is not None and overlap(box, likely) and box[2] - box[0] > CARET
            if any(overlap(box, part) for part in suspect) and not expected:
                counts = quiet >= RHYTHM
            else:
                counts = quiet >= (QUIET if known or large or expected else RHYTHM)
                counts = counts or (late and (known or expected or (large and idle.span >= 0.3)))
            (sure if counts else open_).append(box)
        effect = tuple(sure)
        if effect and accept is not None:
            effect = accept(effect)
            if not effect:
                frame, before = grab(), before.copy()
                for x1, y1, x2, y2 in sure:
                    before[y1:y2, x1:x2] = frame[y1:y2, x1:x2]
        if late and due is None:
            due = open_
        if effect or (late and not (open_ and now - start < timeout + patience)):
            return Effect(effect, frame, now - start)
        wait(0.025)


class _Later:
    """What happens on the screen after an act: when each part last changed, and what goes back and forth."""

    def __init__(self) -> None:
        self.blinking: list[PixelBox] = []
        self._events: list[tuple[float, PixelBox]] = []
        self._contents: dict[PixelBox, set[bytes]] = {}

    def note(self, box: PixelBox, previous: Frame, frame: Frame, now: float) -> None:
        if box in self.blinking:
            return
        x1, y1, x2, y2 = box
        old, new = (xxhash.xxh3_128_digest(part[y1:y2, x1:x2].tobytes()) for part in (previous, frame))
        known = self._contents.setdefault(box, set())
        if new in known:
            self.blinking.append(box)
            self._events = [(at, place) for at, place in self._events if place != box]
            return
        known |= {old, new}
        self._events.append((now, box))

    def last(self, box: PixelBox, now: float) -> float:
        """Return when something in a box last changed, apart from what blinks."""
        return max((at for at, place in self._events if overlap(place, box)), default=now)
