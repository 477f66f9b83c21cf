"""A backend as a stranger would write one, behind an entry point: answers by the words of the phrase."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import ClassVar

from groundlink import BackendInfo, Busy, Context, Found, OpenedImage, Outcome, Query

started: list[str] = []
seen_cancelled: list[str] = []
closed: list[bool] = []


class SlowBackend:
    """Phrases: "N boxes" streams N boxes 20 ms apart, "sleep S" blocks without a look at the clock, "fail KIND"."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="slow", tasks=("gui", "point"), points=True, scores=True, streams=True, license="public domain"
    )

    def __init__(self, *, pace: float = 0.02) -> None:
        self._pace = pace

    @classmethod
    def problem(cls) -> str | None:
        return None

    def run(self, image: OpenedImage, query: Query, context: Context) -> Generator[Found, None, Outcome]:
        number, word = query.phrases[0].split()[:2]
        started.append(query.phrases[0])
        if number == "sleep":
            time.sleep(float(word))
            yield Found("late", box=(0, 0, 1, 1))
        elif number == "fail":
            if word == "memory":
                raise MemoryError
            if word == "busy":
                raise Busy("later")
            if word == "score":
                yield Found("x", box=(0, 0, 1, 1), score=7.0)
            raise RuntimeError("a bug")
        elif number == "outside":
            yield Found("gone", box=(-9, -9, -1, -1))
            yield Found("swapped", box=(30, 20, 10, 5), spread=(1, 2, 3, 4))
        else:
            try:
                for place in range(int(number)):
                    yield Found(f"box {place}", box=(place, 0, place + 1, 1), score=1.0 - place / 100)
                    time.sleep(self._pace)
            except GeneratorExit:
                seen_cancelled.append(query.phrases[0])
                raise
        return Outcome(status="ambiguous" if word == "twins" else None, raw=(word,), timings_ms={"think": 1.0})

    def close(self) -> None:
        closed.append(True)


class BrokenBackend(SlowBackend):
    """One that says what it lacks."""

    info: ClassVar[BackendInfo] = BackendInfo(name="broken", tasks=("gui",))

    @classmethod
    def problem(cls) -> str | None:
        return "its key is missing: set it in the settings"
