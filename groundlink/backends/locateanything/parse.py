"""Reading answers: strictly, and as the model gave them. What callers see is made clean elsewhere."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from groundlink.backends.locateanything.config import COORDINATES, TokenIds
from groundlink.backends.locateanything.generate import Accepted
from groundlink.backends.locateanything.prompt import Tokenizer
from groundlink.detections import Found

FULL = COORDINATES - 1  # the coordinate of the right and the bottom edge

# A box has four numbers, a point two, nothing between them. Longer numbers than these are no coordinates.
_NUMBER = "<([0-9]{1,15})>"
_ITEM = re.compile(
    f"<box>{_NUMBER * 2}(?:{_NUMBER * 2})?</box>|<box>(?:None|none)</box>|<ref>((?:(?!<ref>|<box>).)*?)</ref>",
    re.DOTALL,
)
_NUMBERS, _LABEL = range(1, 5), 5


@dataclass(frozen=True)
class Item:
    """One box of an answer, as written.

    `values` are four coordinates of a box, two of a point, or none for `<box>None</box>`; `places` are where in the
    text each stands, and `end` where the item does. `label` is the text of the last `<ref>` before it, if any.
    """

    label: str | None
    values: tuple[int, ...]
    places: tuple[int, ...]
    end: int


def scan(text: str, start: int = 0, label: str | None = None) -> Iterator[Item]:
    """Yield the boxes in `text[start:]`, where `label` holds until the next one."""
    for match in _ITEM.finditer(text, start):
        if match.group(_LABEL) is not None:
            label = match.group(_LABEL)
            continue
        groups = [group for group in _NUMBERS if match.group(group) is not None]
        values = tuple(int(match.group(group)) for group in groups)
        places = tuple(match.start(group) - 1 for group in groups)
        yield Item(label, values, places, match.end())


def to_pixels(values: tuple[float, ...], width: int, height: int) -> tuple[float, ...]:
    """Turn thousandths of the sides, x and y by turns, into pixels."""
    return tuple(value / FULL * (height if i % 2 else width) for i, value in enumerate(values))


def parse_answer(answer: str, width: int, height: int) -> list[Found]:
    """Return the boxes and points of an answer for an image of this size, in its order.

    They stand as written: corners may be swapped or outside, and nothing is left out for being there twice.
    """
    found = []
    for item in scan(answer):
        pixels = to_pixels(item.values, width, height)
        if pixels:
            is_box = len(pixels) == 4
            found.append(Found(item.label or "", pixels if is_box else None, None if is_box else pixels))
    return found


@dataclass(frozen=True)
class Reading:
    """An item with what the model thought of it: a score in 0…1, and a spread for each value in thousandths.

    `repeat` says that the same box with the same label was there before.
    """

    item: Item
    score: float | None
    spreads: tuple[float, ...] | None
    repeat: bool


class Reader:
    """Reads an answer while it is being decoded, and notices when it goes round in circles."""

    BOX_REPEATS = 3  # the same box with the same label, coming again so often, is a circle
    STEP_REPEATS = 16  # and so is a step that takes the same tokens as the one before, so often in a row

    def __init__(self, tokenizer: Tokenizer, ids: TokenIds) -> None:
        self.text = ""
        self.repeating = False  # the answer should be stopped
        self._tokenizer = tokenizer
        self._ids = ids
        self._words: list[int] = []  # ordinary tokens whose text is not yet in `text`
        self._figures: dict[int, tuple[float, float]] = {}  # of coordinates, by their place in `text`
        self._read = 0  # how far `text` has been scanned
        self._label: str | None = None
        self._seen: Counter[tuple[str | None, tuple[int, ...]]] = Counter()
        self._last: list[int] = []
        self._same_steps = 0

    def add(self, accepted: Accepted) -> list[Reading]:
        """Take the tokens of one step; return the items that they complete."""
        for token, log_prob, spread in zip(accepted.tokens, accepted.log_probs, accepted.spreads, strict=True):
            if token not in self._tokenizer.added:
                self._words.append(token)
                continue
            self.flush()
            if self._ids.coord_start <= token <= self._ids.coord_end:
                self._figures[len(self.text)] = (log_prob, spread)
            self.text += self._tokenizer.added[token]
        self._same_steps = self._same_steps + 1 if accepted.tokens == self._last else 0
        self._last = accepted.tokens
        self.repeating |= self._same_steps >= self.STEP_REPEATS
        return list(self._new_items())

    def flush(self) -> None:
        """Put the last words into `text`; to be called when nothing more comes."""
        if self._words:
            self.text += self._tokenizer.decode(self._words)
            self._words = []

    @property
    def malformed(self) -> int:
        """How many boxes were begun that are neither a box, a point, nor None."""
        return self.text.count("<box>") - self._seen.total()

    def _new_items(self) -> Iterator[Reading]:
        for item in scan(self.text, self._read, self._label):
            self._read, self._label = item.end, item.label
            key = (item.label, item.values)
            repeats = self._seen[key]
            self._seen[key] += 1
            self.repeating |= repeats >= self.BOX_REPEATS
            # A coordinate spelled out in ordinary tokens counts as written, but has no figures.
            figures = [self._figures[place] for place in item.places if place in self._figures]
            score, spreads = None, None
            if figures and len(figures) == len(item.places):
                mean = sum(log_prob for log_prob, _ in figures) / len(figures)
                score, spreads = min(1.0, math.exp(mean)), tuple(spread for _, spread in figures)
            yield Reading(item, score, spreads, repeats > 0)
