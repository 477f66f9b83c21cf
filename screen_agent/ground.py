"""From a description and a picture of the screen to the one thing that is meant, or an error that says why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

import groundlink
from groundlink.detections import Box, Detection, Detections
from groundlink.errors import BadQuery, DeadlineExceeded, TargetAmbiguous, TargetNotFound
from groundlink.locator import Locator
from groundlink.query import Query, Task
from screen_agent.capture import Shot
from screen_agent.words import AGREEING, matches_in

POINT_SIDE = 24
"""The side in pixels of the box around a point, for a backend that gives points."""
CLOSE = 0.3
"""Candidates below this score are not worth telling of."""
# `benchmarks/zoom.py` has the figures: a second look pays with a model that sees large pictures scaled down. Text that
# is read gains nothing that a click needs, so the embedded default takes none.
ZOOM_SIDE = 28
"""A thing whose shorter side is below this many pixels is looked at again, larger."""
ZOOM_CONTEXT = 10
"""Side of the part that is looked at again, in shorter sides of the thing."""
ZOOM_FACTOR = 2
ZOOM_SHARE = 0.5
"""A part that has more than this share of the picture is not looked at again: little would be larger."""

_TASKS: tuple[Task, ...] = ("gui", "ground_one", "ground", "point")


@dataclass(frozen=True)
class Target:
    """One thing on the screen.

    Attributes:
        description: what was asked for.
        box: `(x1, y1, x2, y2)` in desktop pixels; around a point where the backend gives points.
        pixel: the desktop pixel to press.
        score: 0…1, or None where the backend gives none.
        text: what is written there, where that was read.
        shot: the picture in which it was found.
        number: its place among the candidates, from 1, in reading order.
    """

    description: str
    box: Box
    pixel: tuple[int, int]
    score: float | None
    text: str | None
    shot: Shot = field(repr=False, compare=False)
    number: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return everything but the picture."""
        return {
            "description": self.description,
            "box": [round(value, 2) for value in self.box],
            "pixel": list(self.pixel),
            "score": None if self.score is None else round(self.score, 4),
            "text": self.text,
        }


@dataclass(frozen=True)
class Choice:
    """What settles which of several candidates is meant; everything None: there must be only one.

    `nth` counts from 1 in reading order, from the end where it is negative; `near` is a place or a box in desktop
    pixels; `threshold` drops what has a lower score.
    """

    nth: int | None = None
    near: Box | None = None
    threshold: float | None = None


class Finder:
    """Asks a locator about pictures of the screen, and reads the text on them.

    `seconds` is the time that backends have taken so far; `end`, on the monotonic clock, is when they have to be done,
    None where they may take their time.
    """

    def __init__(
        self,
        load: Callable[[], Locator],
        *,
        task: Task | None = None,
        threshold: float | None = None,
        zoom: bool | None = None,
        reader: Callable[[], Locator] | None = None,
    ) -> None:
        self._load = load
        self._load_reader = reader
        self._locator: Locator | None = None
        self._reader: Locator | None = None
        self._task = task
        self._threshold = threshold
        self._zoom = zoom
        self._lock = threading.Lock()
        self._asked: Shot | None = None
        self.seconds = 0.0
        self.end: float | None = None

    @property
    def locator(self) -> Locator:
        """The backend that finds things, loaded at first use."""
        with self._lock:
            if self._locator is None:
                self._locator = self._load()
            return self._locator

    @property
    def reader(self) -> Locator:
        """What reads text: the locator itself where that is the embedded default, else that beside it."""
        locator = self.locator
        with self._lock:
            if self._reader is None:
                if self._load_reader is not None:
                    self._reader = self._load_reader()
                elif locator.info.name == groundlink.EMBEDDED_DEFAULT:
                    self._reader = locator
                else:
                    self._reader = groundlink.load(groundlink.EMBEDDED_DEFAULT)
            return self._reader

    def close(self, *, locator: bool) -> None:
        """Close the reader if it was loaded here, and the locator if asked to."""
        with self._lock:
            if self._reader is not None and self._reader is not self._locator and self._load_reader is None:
                self._reader.close()
            if locator and self._locator is not None:
                self._locator.close()

    def ask(
        self, shot: Shot, description: str, *, everything: bool = False, threshold: float | None = None
    ) -> Detections:
        """Ask where something is in a picture."""
        return self._timed(self.locator, shot, self._query(description, everything), threshold)

    def find(self, shot: Shot, description: str, choice: Choice) -> Target:
        """Return the one thing in a picture that is meant.

        Raises:
            TargetNotFound: there is none, with the closest candidates, or fewer than `nth`.
            TargetAmbiguous: there are several, and nothing settles between them.
        """
        self._asked = shot
        answer = self.ask(shot, description, threshold=choice.threshold)
        if choice.nth is not None and 1 < abs(choice.nth) > len(answer) > 0 and "ground" in self.locator.info.tasks:
            # A backend that names one thing only may know of more when asked for all.
            everything = self.ask(shot, description, everything=True, threshold=choice.threshold)
            answer = everything if len(everything) > len(answer) else answer
        if not len(answer):
            raise self._missing(shot, description, answer, choice)
        return self._second_look(self._choose(shot, description, answer, choice), choice)

    def find_all(self, shot: Shot, description: str, threshold: float | None = None) -> list[Target]:
        """Return everything that a description fits, in the backend's order (reading order for text)."""
        answer = self.ask(shot, description, everything=True, threshold=threshold)
        return [target_of(description, found, shot, number) for number, found in enumerate(answer, start=1)]

    def read(self, shot: Shot) -> Detections:
        """Return all text on a picture, one detection for each line, in reading order."""
        return self._timed(self.reader, shot, groundlink.read(), None)

    def was_asked(self, shot: Shot) -> bool:
        """Whether the reader has read this picture already, so that asking again costs next to nothing."""
        return shot is self._asked and self.reader is self.locator

    def text_at(self, target: Target, shot: Shot, dialog: Box) -> list[str]:
        """Return the words in and right around a target, from a picture of it: each line, and all lines together.

        Labels are broken over lines, between words and within. Where the target only agrees to something, as "OK" does,
        the questions and sentences above it in its `dialog`, a box of the desktop, are what it says.
        """
        x1, y1, x2, y2 = target.box
        reach = max(8.0, 0.75 * min(y2 - y1, x2 - x1))
        box = shot.view.box_to_picture((x1 - reach, y1 - reach, x2 + reach, y2 + reach))
        read = self.read(shot)
        lines = [text for found in read if (text := _words_in(found, box))]
        there = [text for text in (target.text or "", *lines, "\n".join(lines) if len(lines) > 1 else "") if text]
        if agrees(target.description, *there):
            above = shot.view.box_to_picture((dialog[0], dialog[1], dialog[2], y2))
            there += [text for found in read if _is_sentence(text := _words_in(found, above))]
        return there

    def moved(self, target: Target, now: Shot) -> Target | None:
        """Return a target where exactly the same pixels are now; None where they are nowhere, or more than once."""
        x1, y1, x2, y2 = target.shot.pixels(target.box)
        if target.shot.view.scale != now.view.scale or not (x1 < x2 and y1 < y2):
            return None
        patch, frame = target.shot.frame[y1:y2, x1:x2], now.frame
        if patch.shape[0] > frame.shape[0] or patch.shape[1] > frame.shape[1]:
            return None
        whole, part = ((pixels >> 8).astype(np.uint8) for pixels in (frame, patch))  # green says enough
        if np.ptp(part) < 16:  # plain ground is everywhere
            return None
        differs = cv2.matchTemplate(whole, part, cv2.TM_SQDIFF)
        height, width = patch.shape
        # The sums come from Fourier transforms, so that equal is only nearly 0.
        places = [
            (int(x), int(y))
            for y, x in np.argwhere(differs < patch.size + 1)[:100]
            if np.array_equal(frame[y : y + height, x : x + width], patch)
        ]
        if len(places) != 1:
            return None
        old, new = target.shot.view.to_desktop(x1, y1), now.view.to_desktop(*places[0])
        dx, dy = round(new[0] - old[0]), round(new[1] - old[1])
        a, b, c, d = target.box
        box, pixel = (a + dx, b + dy, c + dx, d + dy), (target.pixel[0] + dx, target.pixel[1] + dy)
        return replace(target, box=box, pixel=pixel, shot=now)

    def _timed(self, locator: Locator, shot: Shot, query: Query, threshold: float | None) -> Detections:
        started = time.perf_counter()
        left = None if self.end is None else max(0.001, self.end - time.monotonic())
        try:
            wanted = self._threshold if threshold is None else threshold
            answer = locator.locate(shot.rgb, query, threshold=wanted, deadline=left)
            if answer.incomplete_reason == "deadline":
                # What was found by then may not be all: acting on it would be a guess.
                raise DeadlineExceeded(
                    f"{locator.info.name} did not finish its answer in time; nothing was done with it"
                )
            return answer
        finally:
            self.seconds += time.perf_counter() - started

    def _query(self, description: str, everything: bool) -> Query:
        tasks = self.locator.info.tasks
        if everything and "ground" in tasks:
            return Query("ground", (description,))
        if self._task is not None:
            return Query(self._task, (description,))
        return Query(next((task for task in _TASKS if task in tasks), tasks[0]), (description,))

    def _choose(self, shot: Shot, description: str, answer: Detections, choice: Choice) -> Target:
        targets = [target_of(description, found, shot, number) for number, found in enumerate(answer, start=1)]
        if choice.nth is not None:
            place = choice.nth - 1 if choice.nth > 0 else len(targets) + choice.nth
            if not 0 <= place < len(targets):
                raise TargetNotFound(
                    f'nth={choice.nth} was asked for, but "{description}" is there {_times(len(targets))}',
                    targets,
                    _numbered(shot, answer),
                )
            return targets[place]
        if len(targets) == 1:
            return targets[0]
        if choice.near is not None:
            near = choice.near
            targets.sort(key=lambda target: _distance(target.box, near))
            first, second = (_distance(target.box, near) for target in targets[:2])
            if second - first >= 1:
                return targets[0]
        places = "; ".join(f"{target.number}: {_place(target, shot)}" for target in targets[:9])
        raise TargetAmbiguous(
            f'"{description}" is there {_times(len(targets))} ({places}{"; …" if len(targets) > 9 else ""}); '
            "settle it with nth=, near=, within=, or more words",
            sorted(targets, key=lambda target: target.number),
            _numbered(shot, answer),
        )

    def _missing(self, shot: Shot, description: str, answer: Detections, choice: Choice) -> TargetNotFound:
        """Say what was not found, with the candidates that come closest where scores can tell."""
        close: Detections | None = None
        info = self.locator.info
        if info.scores and info.name == groundlink.EMBEDDED_DEFAULT:  # another model would compute it all anew
            close = self.ask(shot, description, everything=True, threshold=CLOSE)
        reason = f": {answer.reason}" if answer.reason else ""
        message = f'"{description}" is not on the screen{reason}'
        if close is None or not len(close):
            return TargetNotFound(message, (), shot.image)
        best = sorted(close, key=lambda found: -(found.score or 0.0))[:5]
        kept = replace(close, detections=tuple(found for found in close if found in best), status="ambiguous")
        targets = [target_of(description, found, shot, number) for number, found in enumerate(kept, start=1)]
        return TargetNotFound(message, targets, _numbered(shot, kept))

    def _second_look(self, target: Target, choice: Choice) -> Target:
        """Look again at a small thing, larger, and take its place from there."""
        x1, y1, x2, y2 = target.box
        side = min(x2 - x1, y2 - y1)
        zoom = self.locator.info.name != groundlink.EMBEDDED_DEFAULT if self._zoom is None else self._zoom
        if not zoom or side >= ZOOM_SIDE:
            return target
        reach = ZOOM_CONTEXT * side / 2
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        part = target.shot.crop((min(x1, x - reach), min(y1, y - reach), max(x2, x + reach), max(y2, y + reach)))
        if part.frame.size > ZOOM_SHARE * target.shot.frame.size:
            return target
        larger = part.enlarged(ZOOM_FACTOR)
        again = [
            target_of(target.description, found, larger, target.number)
            for found in self.ask(larger, target.description, threshold=choice.threshold)
        ]
        near = [found for found in again if _distance(found.box, target.box) == 0 and _alike(found.box, target.box)]
        if len(near) != 1:
            return target
        return replace(near[0], shot=target.shot)


def target_of(description: str, found: Detection, shot: Shot, number: int) -> Target:
    """Return a detection in a picture of the screen as a target; `number` is its place among the candidates."""
    if found.box is not None:
        box = found.box
    else:
        assert found.point is not None
        x, y = found.point
        box = (x - POINT_SIDE / 2, y - POINT_SIDE / 2, x + POINT_SIDE / 2, y + POINT_SIDE / 2)
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return Target(
        description,
        shot.view.box_to_desktop(box),
        shot.view.pixel(*centre),
        found.score,
        found.text,
        shot,
        number,
    )


def _numbered(shot: Shot, answer: Detections) -> Any:
    return groundlink.draw(shot.image, answer, numbered=True)


def _words_in(line: Detection, box: Box) -> str:
    """Return the words of a line that lie in a box, or reach into it, judged by the place of their letters."""
    if line.text is None or line.box is None:
        return ""
    x1, y1, x2, y2 = line.box
    if not (x1 < box[2] and box[0] < x2 and y1 < box[3] and box[1] < y2):
        return ""
    pitch = (x2 - x1) / max(1, len(line.text))
    kept, position = [], 0
    for word in line.text.split():
        start = line.text.index(word, position)
        position = start + len(word)
        if x1 + start * pitch < box[2] and box[0] < x1 + position * pitch:
            kept.append(word)
    return " ".join(kept)


def agrees(*texts: str) -> bool:
    """Return whether one of the texts of a target is no more than a word of agreement, such as "OK"."""
    return bool(matches_in(texts, AGREEING))


def _is_sentence(text: str) -> bool:
    """Whether a text says or asks something, and is not another button's label."""
    return text.rstrip().endswith(("?", "？", "؟")) or len(text.split()) >= 4


def _distance(a: Box, b: Box) -> float:
    """The gap between two boxes; 0 where they touch."""
    across = max(0.0, a[0] - b[2], b[0] - a[2])
    down = max(0.0, a[1] - b[3], b[1] - a[3])
    return float((across**2 + down**2) ** 0.5)


def _alike(a: Box, b: Box) -> bool:
    """Whether two boxes may be of one thing: neither is more than three times as wide or high."""
    return all(
        max(a[end] - a[start], b[end] - b[start]) <= 3 * max(1.0, min(a[end] - a[start], b[end] - b[start]))
        for start, end in ((0, 2), (1, 3))
    )


def _place(target: Target, shot: Shot) -> str:
    text = f'"{target.text[:40]}" ' if target.text else ""
    return f"{text}at {target.pixel[0]}, {target.pixel[1]}"


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def check_choice(nth: Any, threshold: Any) -> None:
    """Raise BadQuery where what settles a choice cannot be."""
    if nth is not None and (isinstance(nth, bool) or not isinstance(nth, int) or nth == 0):
        raise BadQuery(f"nth counts from 1, or from the end: -1 is the last; not {nth!r}")
    if threshold is not None and not (isinstance(threshold, (int, float)) and 0 <= threshold <= 1):
        raise BadQuery(f"threshold is a number in 0…1, or None; not {threshold!r}")
