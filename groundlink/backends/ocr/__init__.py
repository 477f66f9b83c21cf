"""The embedded default: finds text on screens and documents by reading them, on a plain CPU.

It needs no download: rapidocr carries its weights in its wheel. It sees text and nothing else: objects, colours and
icons it does not find, and says so.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from groundlink.backend import BackendInfo, Context, Outcome
from groundlink.detections import Found
from groundlink.errors import BackendUnavailable
from groundlink.image import OpenedImage
from groundlink.query import Query, Task

if TYPE_CHECKING:
    from groundlink.backends.ocr.hints import Hint, Reading
    from groundlink.backends.ocr.matching import Match, PageIndex
    from groundlink.backends.ocr.phrases import Wanted
    from groundlink.image import Pixels

CACHE_BYTES = 64 * 2**20
WORTH_NAMING = 0.3
"""Candidates below this score are noise, and not named where nothing was found."""
LITERAL = 0.95
"""A phrase that reads so much like a text is its name, also where its words could be hints."""
HINTED = 0.1
"""Matches whose scores differ by no more are among those that a hint chooses from."""
MAX_NAMED = 60
"""Characters of a line that is named as a candidate; of a longer one, its words that are like the name."""


class OcrBackend:
    """Text on screens and documents, by reading all of it once per picture.

    A page that was read is kept, so that more questions on the same pixels cost milliseconds.

    Settings:
        threads: CPU threads; None for all that the process may use.
        max_side: pictures whose longer side is larger are scaled down to it, or cut, for finding lines.
        cache_bytes: memory for pages that were read; the least recently used go first, the last one stays.
    """

    info: ClassVar[BackendInfo] = BackendInfo(
        name="ocr",
        tasks=("gui", "text", "read", "ground", "ground_one", "point"),
        boxes=True,
        points=True,
        scores=True,
        license="Apache-2.0 (PP-OCRv6, in the rapidocr wheel)",
        description="text on screens and documents, on the CPU; the embedded default",
    )

    def __init__(
        self, *, threads: int | None = None, max_side: int | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        from groundlink.backends.ocr.reader import MAX_SIDE, Reader

        _positive("threads", threads)
        _positive("max_side", max_side)
        self._reader = Reader(max_side or MAX_SIDE, threads)
        self._cache_bytes = cache_bytes
        self._pages: OrderedDict[str, PageIndex] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def problem(cls) -> str | None:
        """Return what is not installed."""
        missing = [name for name in ("rapidocr", "onnxruntime", "rapidfuzz") if find_spec(name) is None]
        return f"{' and '.join(missing)} not installed: pip install groundlink" if missing else None

    def run(self, image: OpenedImage, query: Query, context: Context) -> Generator[Found, None, Outcome]:
        """Read the page unless it is known, and match the phrase on it. One query at a time."""
        from groundlink.backends.ocr.words import union

        index, timings = self._index(image, context)
        context.check()
        started = time.perf_counter()
        if query.task == "read":
            for line in index.page.lines:
                box = union([word.box for word in line.words])
                yield Found(line.text, box=box, score=line.score, text=line.text)
            count = len(index.page.lines)
            outcome = Outcome(reason=f"read {count} line{'' if count == 1 else 's'} of text")
        else:
            matches, outcome = _answer(index, image, query.task, query.phrases[0], context.threshold)
            for match in matches:
                x1, y1, x2, y2 = match.box
                as_point = query.task == "point"
                yield Found(
                    query.phrases[0],
                    box=None if as_point else match.box,
                    point=((x1 + x2) / 2, (y1 + y2) / 2) if as_point else None,
                    score=match.score,
                    text=match.text,
                )
        timings["match"] = (time.perf_counter() - started) * 1000
        return Outcome(outcome.status, outcome.reason, timings_ms=timings)

    def close(self) -> None:
        """Forget all pages."""
        with self._lock:
            self._pages.clear()

    def _index(self, image: OpenedImage, context: Context) -> tuple[PageIndex, dict[str, float]]:
        """Return the page of an image, read now or kept from before, and what reading it took in this call."""
        from groundlink.backends.ocr.matching import PageIndex

        with self._lock:
            index = self._pages.get(image.key)
            if index is not None:
                self._pages.move_to_end(image.key)
                return index, dict.fromkeys(index.page.timings_ms, 0.0)
        index = PageIndex(self._reader.read(image.pixels, context))
        with self._lock:
            self._pages[image.key] = index
            while sum(kept.page.cost for kept in self._pages.values()) > self._cache_bytes and len(self._pages) > 1:
                self._pages.popitem(last=False)
        return index, dict(index.page.timings_ms)


def _answer(
    index: PageIndex, image: OpenedImage, task: Task, phrase: str, threshold: float | None
) -> tuple[Sequence[Match], Outcome]:
    """Answer a phrase: as a name first, then with some of its words taken for hints."""
    from groundlink.backends.ocr.hints import readings
    from groundlink.backends.ocr.matching import THRESHOLD
    from groundlink.backends.ocr.phrases import understand

    enough = THRESHOLD if threshold is None else threshold
    wanted = understand(phrase)
    plain, outcome = _by_name(index, task, wanted, enough)
    options = readings(phrase)
    # A button may really read "Last name"; then no word of it is a hint.
    if not options or (plain and not wanted.unused and max(match.score for match in plain) >= LITERAL):
        return plain, outcome
    refusals = []
    for reading in options:
        settled = _by_hints(index, image.pixels, task, reading, enough)
        if isinstance(settled, str):
            refusals += [settled] if settled else []
        else:
            return settled
    if plain and not (wanted.unused and refusals):
        return plain, outcome
    if refusals:
        return (), Outcome("not_found", refusals[0])
    return (), outcome


def _by_name(index: PageIndex, task: Task, wanted: Wanted, enough: float) -> tuple[Sequence[Match], Outcome]:
    from groundlink.backends.ocr.matching import EQUALLY_GOOD

    closest: list[Match] = []
    for name in wanted.names:
        candidates = index.find(name, passages=task == "text")
        good = [match for match in candidates if match.score >= enough]
        if good:
            if task == "ground":
                return _by_reading(good), Outcome(reason=_told(name, wanted, len(good)))
            equal = _equal(name, good, EQUALLY_GOOD)
            if len(equal) == 1:
                return equal, Outcome(reason=_told(name, wanted, 1))
            reason = f'{len(equal)} places read "{name}" equally well, and nothing in the phrase settles between them'
            return _by_reading(equal), Outcome("ambiguous", reason + _unused(wanted))
        closest += candidates
    if wanted.picture:
        closest += index.find(wanted.picture)
    return (), Outcome("not_found", _missed(wanted, closest, bool(index.page.lines)))


def _by_hints(
    index: PageIndex, pixels: Pixels, task: Task, reading: Reading, enough: float
) -> tuple[Sequence[Match], Outcome] | str:
    """Answer one reading of a phrase, or say why its hints leave nothing; say nothing where its name is not there."""
    from groundlink.backends.ocr.hints import Between, Relation
    from groundlink.backends.ocr.matching import Match
    from groundlink.backends.ocr.phrases import is_field, is_role, understand
    from groundlink.backends.ocr.places import Contradicted, Scene, field_near, settle, texts

    def find(words: str) -> Sequence[Match]:
        for name in understand(words).names:
            # What something is next to may be in the middle of a text.
            good = [match for match in index.find(name, passages=True) if match.score >= enough]
            if good:
                return _equal(name, good, HINTED)
        return ()

    scene = Scene(index.page, pixels, find)
    name, candidates = reading.words, list[Match]()
    if is_role(reading.words):
        if not any(isinstance(hint, (Relation, Between)) for hint in reading.hints):
            return ""  # "the second button": what is a button cannot be seen here
        field = field_near(reading.hints, scene) if is_field(reading.words) else None
        if field is not None:
            return [field], Outcome(reason=f"the frame of a field, {_in_words(reading.hints)}")
        candidates = texts(scene)
    else:
        for name in understand(reading.words).names:
            good = [match for match in index.find(name, passages=task == "text") if match.score >= enough]
            if good:
                candidates = _equal(name, good, HINTED)
                break
    if not candidates:
        return ""
    try:
        left, told = settle(candidates, reading.hints, scene)
    except Contradicted as error:
        count = len(candidates)
        return f'{count} place{" reads" if count == 1 else "s read"} "{name}", but {error}'
    if len(left) == 1 or task == "ground":
        return _by_reading(left), Outcome(reason=f'"{left[0].text}", {told}' if told else f'one place reads "{name}"')
    reason = f'{len(left)} places read "{name}" and are {told or "equally good"}; nothing more settles between them'
    return _by_reading(left), Outcome("ambiguous", reason)


def _equal(name: str, good: Sequence[Match], within: float) -> list[Match]:
    """Return the best matches, within so much of the best score."""
    best = max(match.score for match in good)
    equal = [match for match in good if match.score >= best - within]
    # "Delete account" and "Delete account..." are two names where both are there.
    return [match for match in equal if _literal(match.text) == _literal(name)] or equal


def _in_words(hints: Sequence[Hint]) -> str:
    """The hints of a field that was seen: what it is near."""
    from groundlink.backends.ocr.hints import Relation

    return ", ".join(f'{hint.near} "{hint.anchor}"' for hint in hints if isinstance(hint, Relation))


def _literal(text: str) -> str:
    """Return a text with its punctuation, but for the full stop or comma of a sentence around it."""
    folded = "".join(text.casefold().split())
    ended = folded[-1:] in {".", ","} and folded[-2:-1].isalpha()  # not "1.", nor "Delete account..."
    return folded[:-1] if ended else folded


def _by_reading(matches: Sequence[Match]) -> list[Match]:
    from groundlink.backends.ocr.reader import in_reading_order

    return in_reading_order(list(matches))


def _told(name: str, wanted: Wanted, count: int) -> str:
    return f'{count} place{"" if count == 1 else "s"} read{"s" if count == 1 else ""} "{name}"' + _unused(wanted)


def _unused(wanted: Wanted) -> str:
    return f"; {wanted.unused!r} was not understood and not used" if wanted.unused else ""


def _missed(wanted: Wanted, candidates: list[Match], any_text: bool) -> str:
    """Say why nothing was found: what this backend cannot see, and what comes closest."""
    reasons = []
    if not any_text:
        reasons.append("no text was found in the picture, and this backend sees nothing else")
    else:
        reasons.append(f'no text reads "{wanted.names[-1]}"')
    if wanted.picture:
        reasons.append("icons and pictures have no text, and this backend only reads")
    elif wanted.colored:
        reasons.append("colours are not judged, this backend only reads")
    best: dict[str, float] = {}
    for match in sorted(candidates, key=lambda match: -match.score):
        if match.score >= WORTH_NAMING:
            best.setdefault(match.line if len(match.line) <= MAX_NAMED else match.text, match.score)
    if best:
        listed = ", ".join(f'"{text}" ({score:.2f})' for text, score in list(best.items())[:3])
        reasons.append(f"closest: {listed}")
    return "; ".join(reasons)


def _positive(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise BackendUnavailable(f"the setting {name} is a whole number above 0, or None; not {value!r}")
