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

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import Indel, Levenshtein

from groundlink.backends.ocr.reader import SEPARATORS, Color, Line, Page, Word, union
from groundlink.detections import Box

THRESHOLD = 0.8
"""A likeness below this is more often wrong than right."""
EQUALLY_GOOD = 0.05
"""Matches whose scores differ by no more are alternatives; nothing in the picture settles between them."""

_MOST = 400
"""Runs that are compared in full; more look alike only on a page of one word repeated."""

_STANDS_ALONE = 1.0
_SET_APART = 0.97
_JOINED = 0.95
_CONTAINED = 0.7
_QUOTED_PASSAGE = 0.9

_SEPARATORS = SEPARATORS + "/>→–—~<←"
_ENDS = ".!?:;…*," + _SEPARATORS
_BADGE = re.compile(r"^[(\[]?\d{1,4}\+?[)\]]?$")
_SHORTCUT = re.compile(
    r"^(?:(?:ctrl|control|alt|shift|cmd|command|option|super|meta|win|strg|[⌘⌥⇧⌃^])[+\-–]?.*|f\d{1,2}|del|esc|enter|tab)$",
    re.IGNORECASE,
)
_DROPPED = re.compile(r"[\s.,:;!?…'\"`´’‘“”„()\[\]{}*•·|_\-‐‑‒–—\u00ad\u200b-\u200f\ufeff]+")
_SKELETON = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "8": "b", "ı": "l", "¡": "l"})


def compact(text: str) -> str:
    """Return a text as it is compared: without case, spaces and punctuation; symbols alone stay as they are."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("&", "and")
    return _DROPPED.sub("", folded) or "".join(folded.split())


def likeness(wanted: str, seen: str, words: list[str]) -> float:
    """Compare two compact texts: 1 for equal, 0 for different.

    What OCR and spelling confuse costs little (accents, `l` and `I`, `rn` and `m`, a plural s), other edits twice
    their share of the text. A digit never matches another, and no single word may differ by more than a third:
    "Import data" is not "Export data", whatever their length.

    Args:
        wanted: `compact` of the name.
        seen: `compact` of the text on the page.
        words: `compact` of each word of the name, in order; together they are `wanted`.
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
    if bare_wanted.rstrip("s") == bare_seen.rstrip("s"):
        return 1.0 - 1.0 / max(len(wanted), len(seen))
    share = [0.0] * len(plain_wanted)
    total = 0.0
    edits = Levenshtein.editops(plain_wanted, plain_seen)
    for edit in edits:
        # A letter lost or doubled is a slip; two or more are another word.
        cost = 0.75 if edit.tag != "replace" and len(edits) == 1 else 1.0
        if edit.tag == "replace" and _skeleton(plain_wanted[edit.src_pos]) == _skeleton(plain_seen[edit.dest_pos]):
            cost = 0.2
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
    height: float


@dataclass(frozen=True)
class _Run:
    tokens: tuple[_Token, ...]
    compact: str


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
        runs = list(self._runs(len(wanted)))
        close = process.extract(
            wanted, [run.compact for run in runs], scorer=Indel.normalized_similarity, score_cutoff=0.5, limit=_MOST
        )
        matches = []
        for _, rough, number in close:
            run = runs[number]
            same = likeness(wanted, run.compact, words)
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

    def _runs(self, length: int) -> Iterator[_Run]:
        """Yield all runs of words of a compact length near `length`, across lines where they belong together."""
        shortest, longest = 0.6 * length - 1, 1.4 * length + 2
        for line in self._lines:
            for start in range(len(line)):
                yield from self._extend((), "", line[start:], shortest, longest)

    def _extend(
        self, before: tuple[_Token, ...], so_far: str, tokens: list[_Token], shortest: float, longest: float
    ) -> Iterator[_Run]:
        for token in tokens:
            before, so_far = (*before, token), so_far + token.compact
            if len(so_far) > longest:
                return
            if len(so_far) >= shortest:
                yield _Run(before, so_far)
        for line in self._next[tokens[-1].line]:
            yield from self._extend(before, so_far, self._lines[line], shortest, longest)

    @cached_property
    def _next(self) -> list[list[int]]:
        """For each line the lines that may go on with it: the one to the right, and those below in the same column."""
        following: list[list[int]] = []
        for number, line in enumerate(self.page.lines):
            right: list[tuple[float, int]] = []
            below: list[int] = []
            for other_number, other in enumerate(self.page.lines):
                if other_number == number or not self._lines[other_number] or line.vertical or other.vertical:
                    continue
                height = min(_height(line.box), _height(other.box))
                if max(_height(line.box), _height(other.box)) > 1.7 * height:
                    continue
                shared = min(line.box[3], other.box[3]) - max(line.box[1], other.box[1])
                if shared > 0.5 * height and other.box[0] > line.box[0]:
                    gap = other.box[0] - line.box[2]
                    if gap < 3 * height:
                        right.append((gap, other_number))
                elif -0.5 * height < other.box[1] - line.box[3] < 0.8 * height and _aligned(
                    line.box, other.box, height
                ):
                    below.append(other_number)
            following.append([other for _, other in sorted(right)[:1]] + below[:2])
        return following

    def _standing(self, run: _Run, passages: bool) -> float:
        """Return how well a run stands for itself, 0…1."""
        first, last = run.tokens[0], run.tokens[-1]
        before = self._lines[first.line][: first.number]
        after = self._lines[last.line][last.number + 1 :]
        apart = (
            not before
            or _parted(before[-1], first)
            or _recolored(before[-2:], run.tokens)
            or all(_is_drawn(token, first) for token in before)
        ) and (
            not after
            or _parted(last, after[0])
            or _recolored(after[:2], run.tokens)
            or all(_is_extra(token.text) for token in after)
        )
        if not apart:
            return _QUOTED_PASSAGE if passages else _CONTAINED
        if first.line != last.line:
            return _JOINED
        return _SET_APART if before or after else _STANDS_ALONE


def _tokens(number: int, line: Line) -> list[_Token]:
    return [
        _Token(number, place, word.text, compact(word.text), word, _height(line.box))
        for place, word in enumerate(line.words)
    ]


def _parted(left: _Token, right: _Token) -> bool:
    """Whether punctuation or a gap shows that two neighbours do not belong together."""
    if left.text[-1] in _ENDS or right.text[0] in _SEPARATORS + "(":
        return True
    return right.word.box[0] - left.word.box[2] > 0.9 * max(left.height, right.height)


def _recolored(beside: Sequence[_Token], run: Sequence[_Token]) -> bool:
    """Whether a run has another ink than the words beside it, as a link in a sentence has.

    Blur only ever weakens an ink, so the strongest of a few words is compared.
    """

    def strongest(tokens: Sequence[_Token]) -> Color:
        return max(tokens, key=lambda token: _differ(token.word.ink, token.word.paper)).word.ink

    return _differ(strongest(beside), strongest(run)) > 60


def _differ(a: Color, b: Color) -> int:
    return sum(abs(x - y) for x, y in zip(a, b))


def _is_drawn(token: _Token, name: _Token) -> bool:
    """Whether a word before a name is an icon that was read as a character."""
    if len(token.text) > 1:
        return False
    gap = name.word.box[0] - token.word.box[2]
    foreign = not token.text.isascii() and name.text.isascii()
    return foreign or token.word.score < 0.8 or gap > 0.35 * name.height


def _is_extra(text: str) -> bool:
    """Whether a word beside a name is not part of it: a badge, a shortcut, a mark."""
    return bool(_BADGE.match(text) or _SHORTCUT.match(text)) or not any(map(str.isalnum, text))


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


def _aligned(upper: Box, lower: Box, height: float) -> bool:
    """Whether two lines, one above the other, share their left edge or their middle."""
    if min(upper[2], lower[2]) <= max(upper[0], lower[0]):
        return False
    return abs(upper[0] - lower[0]) < height or abs(upper[0] + upper[2] - lower[0] - lower[2]) < height


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
