"""Finding a name on a page: which run of words says it, and how sure that is.

A score is the likeness of the texts (1 for equal, see `likeness`) times how well the run stands for itself: a button
that reads "Save" is a match for "Save", the first word of "Save as" is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import Editop, Indel, Levenshtein

from groundlink.backends.ocr.reader import Page
from groundlink.backends.ocr.words import SEPARATORS, Color, Line, Word, union
from groundlink.detections import Box

THRESHOLD = 0.8
"""A likeness below this is more often wrong than right."""
EQUALLY_GOOD = 0.05
"""Matches whose scores differ by no more are alternatives; nothing in the picture settles between them."""

_MOST = 400
"""Runs that are compared in full; more look alike only on a page of one word repeated."""

_MOST_LINES = 4
"""Lines that one name may go over."""

_STANDS_ALONE = 1.0
_SET_APART = 0.97
_JOINED = 0.95
_PUNCTUATED = 0.92
"""Behind a comma in a sentence: less than the same words on a button."""
_APART = 0.85
"""A row with its value at the other end: a caller who reads out all of it means the row."""
_FAR = 60
"""Heights of a line between the two ends of a row."""
_CONTAINED = 0.7
_QUOTED_PASSAGE = 0.9
_ICON_STUCK = 0.88
_WITH_ICON = re.compile(r"^(?:[^\x00-\u024f](?=[A-Za-z]{2})|[^\W\d_](?=[A-Z][a-z])|[\d\W](?=[^\W\d_]{2}))")
"""A character before a word that was an icon: "OCompact", "8Shared", "☆Starred"; not "Border"."""
_SURE = 0.97
"""Words read with more certainty are read right."""
_WIDE_GAP = 0.6
"""Of the height of the letters: a wider gap between two words is not a space."""

_SEPARATORS = SEPARATORS + "/>→–—~<←"
_PUNCTUATION = ".!?:;…*,"
_ENDS = _PUNCTUATION + _SEPARATORS
_BADGE = re.compile(r"^[(\[]?\d{1,4}\+?[)\]]?$")
_SHORTCUT = re.compile(
    r"^(?:(?:ctrl|control|alt|shift|cmd|command|option|super|meta|win|strg)(?:[+\-–].*)?|[⌘⌥⇧⌃^].*|f\d{1,2}|del|esc"
    r"|enter|tab)$",
    re.IGNORECASE,
)
_DROPPED = re.compile(r"[\s.,:;!?…'\"`´’‘“”„()\[\]{}*•·|_\-‐‑‒–—\u00ad\u200b-\u200f\ufeff]+")
_SKELETON = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "8": "b", "ı": "l", "¡": "l", "y": "v"})


def compact(text: str) -> str:
    """Return a text as it is compared: without case, spaces and punctuation; symbols alone stay as they are."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("&", "and")
    return _DROPPED.sub("", folded) or "".join(folded.split())


def likeness(wanted: str, seen: str, words: list[str], *, sure: bool = False) -> float:
    """Compare two compact texts: 1 for equal, 0 for different.

    What OCR and spelling confuse costs little (accents, `l` and `I`, `rn` and `m`, a plural s), other edits twice
    their share of the text. A digit never matches another, and no single word may differ by more than a third:
    "Import data" is not "Export data", whatever their length.

    Args:
        wanted: `compact` of the name.
        seen: `compact` of the text on the page.
        words: `compact` of each word of the name, in order; together they are `wanted`.
        sure: whether the text was read without doubt: what differs then is another word, but for look-alikes.
    """
    if wanted == seen:
        return 1.0
    plain_wanted, plain_seen = _without_accents(wanted), _without_accents(seen)
    if plain_wanted == plain_seen:
        return 0.98
    bare_wanted, bare_seen = _skeleton(plain_wanted), _skeleton(plain_seen)
    if bare_wanted == bare_seen:
        return 0.95
    if len(wanted) < 4 or _digits(plain_wanted, plain_seen):
        return 0.0
    if plain_wanted.rstrip("s") == plain_seen.rstrip("s"):
        return 1.0 - 1.0 / max(len(wanted), len(seen))
    share = [0.0] * len(plain_wanted)
    total = 0.0
    edits = Levenshtein.editops(plain_wanted, plain_seen)
    for edit in edits:
        # A letter lost or doubled is a slip; two or more are another word.
        cost = 0.75 if edit.tag != "replace" and len(edits) == 1 else 1.0
        if edit.tag == "replace" and _skeleton(plain_wanted[edit.src_pos]) == _skeleton(plain_seen[edit.dest_pos]):
            cost = 0.2
        elif _doubles(edit, plain_wanted, plain_seen):
            cost = 0.4
        elif sure or _touches_digit(edit, plain_wanted, plain_seen):
            return 0.0
        share[min(edit.src_pos, len(share) - 1)] += cost
        total += cost
    position = 0
    for word in words:
        length = len(_without_accents(word))
        if sum(share[position : position + length]) > length / 3:
            return 0.0
        position += length
    return max(0.0, 1.0 - 2.0 * total / max(len(plain_wanted), len(plain_seen)))


@dataclass(frozen=True)
class Match:
    """A run of words that may be what is meant, with its bounds in pixels and a score in 0…1.

    `line` is all of the text that it begins in.
    """

    text: str
    line: str
    box: Box
    score: float


@dataclass(frozen=True)
class _Token:
    """A word in its line, as it is compared."""

    line: int
    number: int
    text: str
    compact: str
    word: Word
    punctuation: bool
    height: float
    size: float


@dataclass(frozen=True)
class _Run:
    tokens: tuple[_Token, ...]
    compact: str


@dataclass(frozen=True)
class _Search:
    """What runs are looked for: their compact length, whether punctuation counts, and the words that may be in them."""

    shortest: float
    longest: float
    punctuation: bool
    fits: set[str]


class PageIndex:
    """A page prepared for matching: made once for a page, asked many times."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._lines = [_tokens(number, line) for number, line in enumerate(page.lines)]

    def find(self, name: str, *, passages: bool = False) -> list[Match]:
        """Return all runs of words that are like the name at all, the best first; no two in the same place.

        Args:
            name: the text to find.
            passages: whether words in the middle of a running text are meant too.
        """
        wanted = compact(name)
        words = [compact(word) for word in name.split()]
        if "".join(words) != wanted:  # a word of punctuation only, or one that changes with its neighbours
            words = [wanted]
        runs = list(self._runs(wanted, punctuation=not _DROPPED.sub("", name)))
        close = process.extract(
            wanted, [run.compact for run in runs], scorer=Indel.normalized_similarity, score_cutoff=0.5, limit=_MOST
        )
        matches = []
        for _, rough, number in close:
            run = runs[number]
            sure = min(token.word.score for token in run.tokens) > _SURE
            same = likeness(wanted, run.compact, words, sure=sure)
            if not same and _WITH_ICON.match(run.tokens[0].text) and compact(_text(run)[1:]) == wanted:
                same = _ICON_STUCK
            # What differs too much stays a candidate to name in a refusal, well below any threshold.
            score = same * self._standing(run, passages) if same else rough * 0.5
            matches.append(
                Match(
                    _text(run),
                    self.page.lines[run.tokens[0].line].text,
                    union([token.word.box for token in run.tokens]),
                    score,
                )
            )
        matches.sort(key=lambda match: (-match.score, len(match.text), match.box[1] - match.box[3]))
        boxes = np.array([match.box for match in matches], dtype=np.float64).reshape(-1, 4)
        kept: list[int] = []
        for number in range(len(matches)):
            if not _same_place(boxes[number], boxes[kept]).any():
                kept.append(number)
        return [matches[number] for number in kept]

    def _runs(self, wanted: str, *, punctuation: bool) -> Iterator[_Run]:
        """Yield runs of words that may be like `wanted`, across lines where they belong together.

        Words of which more than half of the letters are not in `wanted` are passed over: no run with one is like it.
        """
        letters = set(wanted)
        search = _Search(
            shortest=0.6 * len(wanted) - 1,
            longest=1.4 * len(wanted) + 2,
            punctuation=punctuation,
            fits={text for text in self._vocabulary if 2 * len(letters.intersection(text)) >= len(set(text))},
        )
        for line in self._lines:
            for start, first in enumerate(line):
                if first.compact in search.fits and (punctuation or not first.punctuation):
                    yield from self._extend((), "", line[start:], search, 0)

    def _extend(
        self, before: tuple[_Token, ...], so_far: str, tokens: list[_Token], search: _Search, crossed: int
    ) -> Iterator[_Run]:
        for token in tokens:
            counts = search.punctuation or not token.punctuation
            before, so_far = (*before, token), so_far + (token.compact if counts else "")
            if len(so_far) > search.longest or (counts and token.compact not in search.fits):
                return
            if len(so_far) >= search.shortest and counts:
                yield _Run(before, so_far)
        if crossed < _MOST_LINES - 1:
            for line in self._next[tokens[-1].line]:
                yield from self._extend(before, so_far, self._lines[line], search, crossed + 1)

    @cached_property
    def _vocabulary(self) -> set[str]:
        return {token.compact for line in self._lines for token in line}

    @cached_property
    def _next(self) -> list[list[int]]:
        """For each line the lines that may go on with it: the one to the right, and those below in the same column."""
        following: list[list[int]] = []
        boxes = np.array([line.box for line in self.page.lines], dtype=np.float64).reshape(-1, 4)
        level = np.array([not line.vertical and bool(line.words) for line in self.page.lines], dtype=bool)
        x1, y1, x2, y2 = boxes.T
        heights = y2 - y1
        for number, (left, top, right, bottom) in enumerate(boxes):
            lower, higher = np.minimum(heights, bottom - top), np.maximum(heights, bottom - top)
            like = level & level[number] & (higher <= 1.7 * lower)
            like[number] = False
            gap = x1 - right
            beside = like & (np.minimum(y2, bottom) - np.maximum(y1, top) > 0.5 * lower)
            beside &= (x1 > left) & (gap < _FAR * lower)
            nearest = np.flatnonzero(beside)
            nearest = nearest[np.argsort(gap[nearest], kind="stable")][:1]
            aligned = (np.abs(x1 - left) < lower) | (np.abs(x1 + x2 - left - right) < lower)
            aligned &= np.minimum(x2, right) > np.maximum(x1, left)
            below = like & ~beside & aligned & (y1 - bottom > -0.5 * lower) & (y1 - bottom < 0.8 * lower)
            following.append([int(other) for other in (*nearest, *np.flatnonzero(below)[:2])])
        return following

    def _standing(self, run: _Run, passages: bool) -> float:
        """Return how well a run stands for itself, 0…1."""
        first, last = run.tokens[0], run.tokens[-1]
        before = self._lines[first.line][: first.number]
        after = self._lines[last.line][last.number + 1 :]
        apart = (
            not before
            or _parted(before[-1], first)
            or _recolored(before[-1], run.tokens)
            or _restyled(before[-3:], run.tokens)
            or all(_is_drawn(token, first) for token in before)
        ) and (
            not after
            or _parted(last, after[0])
            or _recolored(after[0], run.tokens)
            or _restyled(after[:3], run.tokens)
            or all(_is_extra(token.text) for token in after)
        )
        if not apart:
            return _QUOTED_PASSAGE if passages else _CONTAINED
        if first.line != last.line:
            far = any(
                right.word.box[0] - left.word.box[2] > 3 * max(left.height, right.height)
                for left, right in pairwise(run.tokens)
                if left.line != right.line
            )
            return _APART if far else _JOINED
        if _in_sentence(before[-1:], [first]) or _in_sentence([last], after[:1]):
            return _PUNCTUATED
        return _SET_APART if before or after else _STANDS_ALONE


def _tokens(number: int, line: Line) -> list[_Token]:
    size = max((_height(word.box) for word in line.words), default=0.0)
    return [
        _Token(
            number, place, word.text, compact(word.text), word, not _DROPPED.sub("", word.text), _height(line.box), size
        )
        for place, word in enumerate(line.words)
    ]


def _in_sentence(left: Sequence[_Token], right: Sequence[_Token]) -> bool:
    """Whether only punctuation parts two neighbours, as in running text."""
    return (
        bool(left and right)
        and left[0].text[-1] in _PUNCTUATION
        and any(map(str.isalpha, left[0].text))  # not the number of an item, "1."
        and not _recolored(left[0], right)
        and not _parted(left[0], right[0], ends="")
    )


def _parted(left: _Token, right: _Token, *, ends: str = _ENDS) -> bool:
    """Whether punctuation or a gap shows that two neighbours do not belong together."""
    if left.text[-1] in ends or right.text[0] in _SEPARATORS + "(":
        return True
    if left.word.rule != right.word.rule or right.word.apart:
        return True
    pitch = max((token.word.box[2] - token.word.box[0]) / len(token.text) for token in (left, right))  # spaced letters
    return right.word.box[0] - left.word.box[2] > max(_WIDE_GAP * max(left.size, right.size), 1.6 * pitch)


def _recolored(neighbour: _Token, run: Sequence[_Token]) -> bool:
    """Whether a run has another ink than the word beside it, as a link in a sentence has.

    Blur only ever weakens an ink, towards the paper: what is left when the stronger is weakened as much is compared.
    """
    strongest = max(run, key=lambda token: _differ(token.word.ink, token.word.paper)).word
    if _differ(neighbour.word.ink, strongest.ink) <= 60:
        return False
    strong, weak = (np.subtract(word.ink, word.paper) for word in (strongest, neighbour.word))
    if np.abs(weak).sum() > np.abs(strong).sum():
        strong, weak = weak, strong
    share = float(strong @ weak) / max(1.0, float(strong @ strong))
    return share < (0.8 if len(neighbour.text) > 1 else 0.55) or float(np.abs(weak - share * strong).sum()) > 60


def _restyled(beside: Sequence[_Token], run: Sequence[_Token]) -> bool:
    """Whether a run and the words beside it have inks of their own, near as these may be: blur would mix them."""
    inks = [[token.word.ink for token in tokens if len(token.text) > 2] for tokens in (beside, run)]
    if len(inks[0]) < 2 or not inks[1]:
        return False
    even = all(_differ(a, b) <= 12 for group in inks for a, b in pairwise(group))
    return even and _differ(inks[0][0], inks[1][0]) > 45


def _differ(a: Color, b: Color) -> int:
    return sum(abs(x - y) for x, y in zip(a, b))


def _is_drawn(token: _Token, name: _Token) -> bool:
    """Whether a word before a name is an icon that was read as a character."""
    if len(token.text) > 1:
        return False
    if not token.text.isalnum() or (
        not token.number
        and token.text not in "aAIyeo"
        and (token.text.isascii() or "LATIN" not in unicodedata.name(token.text, ""))
    ):
        return True  # a mark, or the only character before a name that begins its line
    gap = name.word.box[0] - token.word.box[2]
    foreign = not token.text.isascii() and name.text.isascii() and "LATIN" not in unicodedata.name(token.text, "")
    return foreign or token.word.score < 0.8 or gap > 0.35 * name.height


def _is_extra(text: str) -> bool:
    """Whether a word beside a name is not part of it: a badge, a shortcut, a mark."""
    return bool(_BADGE.match(text) or _SHORTCUT.match(text)) or not any(map(str.isalnum, text))


def _doubles(edit: Editop, wanted: str, seen: str) -> bool:
    """Whether one of two equal letters is lost or too many: what a recogniser that merges repeats is known for."""
    text, place = (wanted, edit.src_pos) if edit.tag == "delete" else (seen, edit.dest_pos)
    return edit.tag != "replace" and text[place].isalpha() and text[place] in text[max(0, place - 1) : place + 2 : 2]


def _touches_digit(edit: Editop, wanted: str, seen: str) -> bool:
    gone, new = wanted[edit.src_pos : edit.src_pos + 1], seen[edit.dest_pos : edit.dest_pos + 1]
    return (edit.tag != "insert" and gone.isdigit()) or (edit.tag != "delete" and new.isdigit())


def _digits(wanted: str, seen: str) -> bool:
    """Whether the two have different digits, those apart that OCR takes for letters."""
    return [c for c in _skeleton(wanted) if c.isdigit()] != [c for c in _skeleton(seen) if c.isdigit()] or (
        any(map(str.isdigit, wanted))
        and any(map(str.isdigit, seen))
        and [c for c in wanted if c.isdigit()] != [c for c in seen if c.isdigit()]
    )


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _skeleton(text: str) -> str:
    """Map characters that OCR confuses to one of them."""
    return text.translate(_SKELETON).replace("rn", "m").replace("vv", "w").replace("cl", "d")


def _text(run: _Run) -> str:
    return " ".join(token.text for token in run.tokens)


def _height(box: Box) -> float:
    return box[3] - box[1]


def _same_place(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return for each of the other boxes (N×4) whether it is the same match.

    They overlap by a third of the smaller, or one is an icon that repeats the word right beside it.
    """
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    size, sizes = box[2:] - box[:2], others[:, 2:] - others[:, :2]
    overlap = np.clip(shared, 0, None).prod(axis=1) / np.maximum(np.minimum(size.prod(), sizes.prod(axis=1)), 1e-9)
    small, large = np.minimum(size[1], sizes[:, 1]), np.maximum(size[1], sizes[:, 1])
    beside = (-shared[:, 0] < 0.9 * large) & (shared[:, 1] > 0.7 * small)
    return np.asarray((overlap > 0.3) | beside, dtype=np.bool_)
