"""What comes of an act, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from groundlink.detections import Box
from screen_agent.capture import Shot
from screen_agent.ground import Finder, Target

EffectWord = Literal["changed", "expected", "none", "unchecked", "dry_run"]


@dataclass(frozen=True)
class Result:
    """What came of an act.

    Attributes:
        action: what was done: click, type, drag, ….
        target: where, with score and text; None for keys.
        effect: `changed` (the screen did), `expected` (what the caller expected is there), `none`, `unchecked`
            (nobody looked), or `dry_run` (nothing was done).
        changes: boxes in desktop pixels of what changed; what was changing anyway does not count.
        before, after: pictures of the screen right before the act and when its effect was certain, or None.
        timings_ms: `ground` in the backend, `wait` for motion to end, `decide` everything else up to the act itself,
            `act`, `check`, `total`.
        confirmation: why the policy asks for a confirmation; empty where it does not.
    """

    action: str
    target: Target | None
    effect: EffectWord
    changes: tuple[Box, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    confirmation: str = ""
    shots: tuple[Shot | None, Shot | None] = field(default=(None, None), repr=False)

    @property
    def before(self) -> Image.Image | None:
        """The screen right before the act."""
        return None if self.shots[0] is None else self.shots[0].image

    @property
    def after(self) -> Image.Image | None:
        """The screen when the effect was certain."""
        return None if self.shots[1] is None else self.shots[1].image

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pictures."""
        return {
            "action": self.action,
            "target": None if self.target is None else self.target.to_json(),
            "effect": self.effect,
            "changes": [[round(value, 2) for value in box] for box in self.changes],
            "confirmation": self.confirmation,
            "timings_ms": {name: round(value, 2) for name, value in self.timings_ms.items()},
        }


@dataclass(frozen=True)
class Sighting:
    """One event of `ScreenAgent.watch`: something appeared, moved, or is gone. `at` is seconds since the start."""

    event: Literal["appeared", "moved", "gone"]
    target: Target
    at: float


@dataclass
class Clock:
    """Where the time of one act goes, in seconds."""

    finder: Finder
    start: float = field(default_factory=time.perf_counter)
    wait: float = 0.0
    acted: float | None = None
    act: float = 0.0
    check: float = 0.0
    ground: float = 0.0

    def __post_init__(self) -> None:
        self._asked = self.finder.seconds

    def at_act(self) -> None:
        """Note that everything before the act itself is done."""
        self.acted = time.perf_counter()
        self.ground = self.finder.seconds - self._asked

    def timings_ms(self) -> dict[str, float]:
        """Return the milliseconds of each part so far, as `Result` has them."""
        now = time.perf_counter()
        ground = self.finder.seconds - self._asked if self.acted is None else self.ground
        decide = (self.acted or now) - self.start - ground - self.wait
        parts = {"ground": ground, "wait": self.wait, "decide": decide, "act": self.act, "check": self.check}
        return {name: seconds * 1000 for name, seconds in {**parts, "total": now - self.start}.items()}


def sightings(known: list[Target], now: list[Target], at: float) -> Iterator[Sighting]:
    """Compare two looks: the same box is the same thing; of the rest, pairs have moved."""
    boxes = {target.box for target in now}
    old = [target for target in known if target.box not in boxes]
    boxes = {target.box for target in known}
    new = [target for target in now if target.box not in boxes]
    for _, after in zip(old, new):
        yield Sighting("moved", after, at)
    yield from (Sighting("gone", target, at) for target in old[len(new) :])
    yield from (Sighting("appeared", target, at) for target in new[len(old) :])
