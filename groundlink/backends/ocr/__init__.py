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
    from groundlink.backends.ocr.matching import Match, PageIndex
    from groundlink.backends.ocr.phrases import Wanted

CACHE_BYTES = 64 * 2**20
WORTH_NAMING = 0.3
"""Candidates below this score are noise, and not named where nothing was found."""
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
            matches, outcome = _answer(index, query.task, query.phrases[0], context.threshold)
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


def _answer(index: PageIndex, task: Task, phrase: str, threshold: float | None) -> tuple[Sequence[Match], Outcome]:
    from groundlink.backends.ocr.matching import EQUALLY_GOOD, THRESHOLD
    from groundlink.backends.ocr.phrases import understand

    wanted = understand(phrase)
    enough = THRESHOLD if threshold is None else threshold
    closest: list[Match] = []
    for name in wanted.names:
        candidates = index.find(name, passages=task == "text")
        good = [match for match in candidates if match.score >= enough]
        if good:
            if task == "ground":
                return _by_reading(good), Outcome(reason=_told(name, wanted, len(good)))
            equal = [match for match in good if match.score >= good[0].score - EQUALLY_GOOD]
            # "Delete account" and "Delete account..." are two names where both are there.
            equal = [match for match in equal if _literal(match.text) == _literal(name)] or equal
            if len(equal) == 1:
                return equal, Outcome(reason=_told(name, wanted, 1))
            reason = f'{len(equal)} places read "{name}" equally well, and nothing in the phrase settles between them'
            return _by_reading(equal), Outcome("ambiguous", reason + _unused(wanted))
        closest += candidates
    if wanted.picture:
        closest += index.find(wanted.picture)
    return (), Outcome("not_found", _missed(wanted, closest, bool(index.page.lines)))


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
