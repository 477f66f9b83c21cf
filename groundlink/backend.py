"""What a backend is: a model behind one protocol, found by name.

A third party adds one in a package of its own, with two lines in its `pyproject.toml`:

```toml
[project.entry-points."groundlink.backends"]
mine = "my_package:MyBackend"
```
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol

from groundlink.detections import Found, IncompleteReason, Status
from groundlink.errors import BackendUnavailable, Cancelled, DeadlineExceeded
from groundlink.image import OpenedImage
from groundlink.query import Query, Task

ENTRY_POINTS = "groundlink.backends"
TOO_LATE = "the deadline passed before anything was found; allow more time"


@dataclass(frozen=True)
class BackendInfo:
    """What a backend can do.

    Attributes:
        name: the name it is loaded by.
        tasks: what it can be asked; the first one is taken for a plain phrase.
        boxes: whether it answers with boxes.
        points: whether it answers with points.
        scores: whether its detections have scores.
        streams: whether detections come one by one, before the answer is whole.
        concurrency: how many queries it takes at once; more wait in the locator's queue.
        license: the licence of its weights, in a few words.
        description: what it is, in one line for people.
    """

    name: str
    tasks: tuple[Task, ...]
    boxes: bool = True
    points: bool = False
    scores: bool = False
    streams: bool = False
    concurrency: int = 1
    license: str = ""
    description: str = ""


@dataclass(frozen=True)
class Outcome:
    """How an answer ended: what a backend's `run` returns after its last detection.

    `status` None means found or not_found by the number of detections.
    """

    status: Status | None = None
    reason: str = ""
    incomplete_reason: IncompleteReason | None = None
    raw: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureMemory:
    """What a picture of a size (width, height) takes: bytes at the peak, and whether they are free; None: unknown."""

    size: tuple[int, int]
    peak: int
    fits: bool | None
    note: str = ""


@dataclass(frozen=True)
class MemoryReport:
    """What a model takes of a device's memory, and what pictures fit; in bytes, None where the system does not say.

    Attributes:
        model: which one.
        device: what it would run on, for people.
        dtype: the type of its numbers.
        total: the device's memory.
        free: what of it is free now.
        weights: what the model takes before anything is asked.
        pictures: from the smallest that is usual on.
        largest: the largest picture of 16:9 that fits; None where not any does, or nobody knows.
        note: what the peaks are of.
        advice: what to do so that more fits; empty where all do.
    """

    model: str
    device: str
    dtype: str
    total: int | None
    free: int | None
    weights: int
    pictures: tuple[PictureMemory, ...]
    largest: tuple[int, int] | None
    note: str = ""
    advice: str = ""


class Context:
    """What a backend knows of the call it works on: how long it may take, and whether it is still wanted.

    `threshold` is the score below which the caller wants nothing, None for the backend's own choice.
    """

    def __init__(
        self,
        threshold: float | None = None,
        seconds: float | None = None,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self.threshold = threshold
        self._expires = None if seconds is None else time.monotonic() + seconds
        self._cancelled = threading.Event()
        self._on_progress = on_progress

    def remaining(self) -> float | None:
        """Return the seconds left, never negative; None where there is no deadline."""
        return None if self._expires is None else max(0.0, self._expires - time.monotonic())

    def cancel(self) -> None:
        """Withdraw the question: the next `check` raises."""
        self._cancelled.set()

    def check(self) -> None:
        """Call this as often as the work allows; it raises when there is no point in going on.

        Raises:
            Cancelled: the caller has withdrawn the question.
            DeadlineExceeded: the deadline has passed.
        """
        if self._cancelled.is_set():
            raise Cancelled("the question was withdrawn before it was answered")
        if self.remaining() == 0.0:
            raise DeadlineExceeded(TOO_LATE)

    def progress(self, doing: str, fraction: float) -> None:
        """Tell how far the work is: `doing` in a few words, `fraction` in 0…1."""
        if self._on_progress is not None:
            self._on_progress(doing, fraction)


class Backend(Protocol):
    """A model that answers queries.

    The constructor takes the settings of `groundlink.load` as keyword arguments and may raise `BackendUnavailable`,
    `WeightsNotFound` or `WeightsInvalid`. If loading takes time it may take `on_progress` as well, a function that is
    told what is being done and how much of it is done, in 0…1. Importing its module should be cheap: what is heavy is
    imported in the constructor.

    A backend of a large model may also have a classmethod `memory_report(**settings) -> MemoryReport`, which takes the
    same settings and says, before anything is loaded, what will fit: `groundlink doctor --model` asks for it. It may
    raise what the constructor may.

    A backend that refuses words which are text for others may have a method `check(query) -> None` that raises
    `BadQuery` for them: `Locator.check` asks it, so that a question can be refused before there is a picture.
    """

    info: ClassVar[BackendInfo]

    @classmethod
    def problem(cls) -> str | None:
        """Return why it cannot be loaded here and what to do about it; None where it can. Must be quick."""

    def run(self, image: OpenedImage, query: Query, context: Context) -> Generator[Found, None, Outcome]:
        """Answer `query`, a task that `info` names: yield what is found as it is found, and return how it ended.

        Called from worker threads, at most `info.concurrency` at a time. May raise any `GroundlinkError`.
        """

    def close(self) -> None:
        """Free the device. Called once, when no `run` is under way."""


def backend_names() -> list[str]:
    """Return the names of all backends that installed packages offer."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def backend_class(name: str) -> type[Backend]:
    """Import a backend by name.

    Raises:
        BackendUnavailable: no installed package offers it, or its import fails.
    """
    found: list[EntryPoint] = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    if not found:
        known = ", ".join(backend_names()) or "none: is groundlink installed?"
        raise BackendUnavailable(f"there is no backend {name!r}; installed: {known}")
    try:
        loaded: Any = found[0].load()
    except Exception as error:  # a third party's import may fail in any way
        raise BackendUnavailable(
            f"the backend {name!r} cannot be imported ({type(error).__name__}: {error}); "
            f"check the package that offers it ({found[0].value})"
        ) from error
    return loaded  # type: ignore[no-any-return]
