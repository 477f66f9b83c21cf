"""Backends for tests and benchmarks of the ROS node: what they answer stands in the picture and in the phrase.

Put this folder on `PYTHONPATH`, and groundlink finds them by name. The first box of every answer says which frame was
looked at: its left edge is the frame's number / 1024 (`paint` writes the number into the pixels, `number_of` reads it
back from the edge). A phrase may begin with a command:

    "count 5"    five boxes, one by one, each after `seconds`
    "slow 2"     sleeps two seconds in one call, which nothing interrupts
    "raise"      a box, then a RuntimeError
    "memory"     a MemoryError
    "path"       an error about a file whose name is no UTF-8
    "nothing"    no box
    "twins"      two boxes, and which one was meant is open
    "cut"        a box, and the answer breaks off (token_limit)
    "bright"     the extent of what is bright below the written number
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from groundlink import BackendInfo, BackendUnavailable, Context, Found, OpenedImage, Outcome, Query

BITS = 16
DARK, LIGHT = 40, 230


def paint(number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return a picture (height×width×3) that has a number of 0…65535 in its top eighth, and a bright patch below."""
    pixels = np.full((height, width, 3), DARK, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            pixels[: height // 8, bit * width // BITS : (bit + 1) * width // BITS] = LIGHT
    x1, y1, x2, y2 = patch(width, height)
    pixels[y1:y2, x1:x2] = LIGHT
    return pixels


def patch(width: int, height: int) -> tuple[int, int, int, int]:
    """Where the bright patch of `paint` is."""
    return width // 4, height // 2, width // 2, 3 * height // 4


def read(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the number that `paint` wrote; whatever is there in other pictures."""
    height, width = pixels.shape[:2]
    row = pixels[height // 16]
    return sum(1 << bit for bit in range(BITS) if row[(2 * bit + 1) * width // (2 * BITS)].mean() > (DARK + LIGHT) / 2)


def number_of(left: float) -> int:
    """Return the number of the frame from the left edge of an answer's first box, or from its point."""
    return round(left * 1024)


class SleepBackend:
    """Takes `seconds` a question, looks up often whether it is still wanted, and finds `found` boxes a phrase.

    `record` names a file that gets a line of JSON for each thing that happens: made, asked, answered, stopped, closed.
    `megabytes` is memory that it holds as long as it lives.
    """

    info: ClassVar[BackendInfo] = BackendInfo(
        name="stub_sleep",
        tasks=("detect", "ground", "point", "read"),
        points=True,
        scores=True,
        streams=True,
        license="public domain",
        description="answers with the number of the frame",
    )
    score: ClassVar[float | None] = 0.9

    def __init__(
        self,
        *,
        seconds: float = 0.02,
        found: int = 1,
        record: str = "",
        megabytes: int = 0,
        model: str = "",
        device: str = "",
    ) -> None:
        self._seconds = seconds
        self._found = found
        self._record = record
        self._held = np.ones(megabytes * 2**20, np.uint8)
        self._note("made", model=model, device=device)

    @classmethod
    def problem(cls) -> str | None:
        return None

    def run(self, image: OpenedImage, query: Query, context: Context) -> Generator[Found, None, Outcome]:
        number = read(image.pixels)
        self._note("asked", number=number, task=query.task, phrases=query.phrases)
        outcome = Outcome()
        try:
            for phrase in query.phrases or ("words",):
                outcome = yield from self._answer(image, number, query.task, phrase, context)
        except BaseException:
            self._note("stopped", number=number)
            raise
        self._note("answered", number=number)
        return outcome

    def close(self) -> None:
        self._note("closed")

    def _answer(
        self, image: OpenedImage, number: int, task: str, phrase: str, context: Context
    ) -> Generator[Found, None, Outcome]:
        command, _, rest = phrase.partition(" ")
        if command == "slow":
            time.sleep(float(rest))
        else:
            self._work(context)
        count = {"nothing": 0, "twins": 2}.get(command, self._found)
        if command == "count":
            count = int(rest)
        if command == "memory":
            raise MemoryError
        if command == "path":
            raise BackendUnavailable("cannot read caf\udce9.bin")
        if command == "bright":
            rows, columns = np.nonzero(image.pixels[image.size[1] // 8 :, :, 0] > (DARK + LIGHT) / 2)
            top = rows.min() + image.size[1] // 8
            yield self._make(task, phrase, (columns.min(), top, columns.max() + 1, rows.max() + image.size[1] // 8 + 1))
            return Outcome()
        for place in range(count):
            if place and command == "count":
                self._work(context)
            left, top = number / 1024, image.size[1] * (place + 1) / (count + 2)
            yield self._make(task, phrase, (left, top, left + image.size[0] / 4, top + image.size[1] / (count + 2)))
            if command == "raise":
                raise RuntimeError("a fault in the stub")
        if command == "twins":
            return Outcome(status="ambiguous", reason="two fit equally")
        if command == "cut":
            return Outcome(incomplete_reason="token_limit", reason="the answer broke off")
        return Outcome(timings_ms={"think": self._seconds * 1000})

    def _make(self, task: str, phrase: str, box: tuple[float, float, float, float]) -> Found:
        if task == "point":
            return Found(phrase, point=box[:2], score=self.score, spread=(2.0, 4.0))
        return Found(phrase, box=box, score=self.score, spread=(1.0, 2.0, 3.0, 4.0))

    def _work(self, context: Context) -> None:
        end = time.monotonic() + self._seconds
        while (left := end - time.monotonic()) > 0:
            context.check()
            time.sleep(min(left, 0.005))
        context.check()

    def _note(self, event: str, **what: Any) -> None:
        if self._record:
            with Path(self._record).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, **what}) + "\n")


class StubbornBackend(SleepBackend):
    """Sleeps in one call and never looks up."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="stub_stubborn", tasks=("detect", "ground"), scores=True, license="public domain"
    )

    def _work(self, context: Context) -> None:
        time.sleep(self._seconds)


class RaisesBackend(SleepBackend):
    """Fails in the middle, after a box, on frames with an odd number."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="stub_raises", tasks=("detect",), scores=True, streams=True, license="public domain"
    )

    def _answer(
        self, image: OpenedImage, number: int, task: str, phrase: str, context: Context
    ) -> Generator[Found, None, Outcome]:
        return super()._answer(image, number, task, "raise" if number % 2 else phrase, context)


class UnscoredBackend(SleepBackend):
    """Gives boxes without scores and without spreads."""

    info: ClassVar[BackendInfo] = BackendInfo(name="stub_unscored", tasks=("detect",), license="public domain")
    score: ClassVar[float | None] = None

    def _make(self, task: str, phrase: str, box: tuple[float, float, float, float]) -> Found:
        return Found(phrase, box=box)


class PointsBackend(SleepBackend):
    """Points only, and one phrase a question."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="stub_points", tasks=("point",), boxes=False, points=True, scores=True, license="public domain"
    )


class SlowLoadBackend(SleepBackend):
    """Takes `load_seconds` to be made, in one call that nothing interrupts."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="stub_slow_load", tasks=("detect",), scores=True, license="public domain"
    )

    def __init__(self, *, load_seconds: float = 10.0, **settings: Any) -> None:
        super().__init__(**settings)
        time.sleep(load_seconds)


class NoLoadBackend(SleepBackend):
    """Cannot be loaded as long as the file `unless_gone` exists."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="stub_no_load", tasks=("detect",), scores=True, license="public domain"
    )

    def __init__(self, *, unless_gone: str, **settings: Any) -> None:
        if Path(unless_gone).exists():
            raise BackendUnavailable(f"the stub is not to be had; remove {unless_gone}")
        super().__init__(**settings)
