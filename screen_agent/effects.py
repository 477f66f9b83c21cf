"""Whether an act had an effect: the screen before and after it, without what would have changed anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from groundlink.detections import Box
from groundlink.errors import ActionHadNoEffect, TargetNotFound
from screen_agent.capture import Frame, PixelBox, Shot, common, floats, inside
from screen_agent.changes import PATIENCE, changed, watch_effect
from screen_agent.ground import Finder, Target
from screen_agent.pointer import Pointer
from screen_agent.results import Clock, EffectWord, Result
from screen_agent.sight import Sight

Expect: TypeAlias = "str | Callable[[], bool]"
"""What should be true after an act: a description of what should be there, or a function."""

HOVER_LIMIT = 0.6
"""The most time that hover effects are waited for."""
HOVER_GOES = 0.25
"""What does not begin to change in so many seconds after the pointer has left is no hover effect."""


class Effects:
    """Looks at what came of acts."""

    def __init__(self, sight: Sight, finder: Finder, pointer: Pointer) -> None:
        self.sight = sight
        self.finder = finder
        self.pointer = pointer

    def checked(
        self,
        action: str,
        target: Target | None,
        before: Shot,
        expect: Expect | None,
        check: bool,
        limit: float,
        clock: Clock,
        *,
        tips: Sequence[Box] | None = None,
        secret: bool = False,
    ) -> Result:
        """Look at what came of an act that has just been done; raise ActionHadNoEffect where nothing did.

        `tips` are the tooltips that were there before an act of the pointer, None for other acts.
        """
        started = time.perf_counter()
        area = before.view.area

        def grab() -> Frame:
            return self.sight.screen.grab(area).frame

        effect: EffectWord = "unchecked"
        boxes: tuple[PixelBox, ...] = ()
        why = ""
        if check or secret:
            try:
                seen = watch_effect(
                    before.frame,
                    self.sight.idle,
                    grab,
                    self.sight.wait,
                    time.monotonic,
                    limit if expect is None or secret else 0.2,
                    likely=before.pixels(target.box) if target is not None and tips is None else None,
                    accept=None
                    if expect is not None or target is None or tips is None
                    else (lambda boxes: self._without_hover(target, before, boxes, tips)),
                    patience=PATIENCE if expect is None else 0.0,
                )
                boxes = seen.boxes
            finally:
                if secret:  # before anything else looks
                    self.hide(target, before, boxes)
            effect = "changed" if boxes else "none"
            why = f"nothing on the screen changed within {limit:g} s"
        if expect is not None:
            came, why = self._expected(expect, before, limit)
            effect = "expected" if came else "none"
        now = self.sight.screen.grab(area)
        self.sight.idle.restart(now.frame, now.at, watched=check or secret or expect is not None)
        clock.check = time.perf_counter() - started
        view = before.view
        result = Result(
            action,
            target,
            effect if check or expect is not None else "unchecked",
            tuple(view.box_to_desktop(floats(box)) for box in boxes),
            clock.timings_ms(),
            shots=(self.sight.veiled(before), self.sight.veiled(now)),
        )
        if result.effect == "none":
            on = f' on "{target.description}" at {target.pixel[0]}, {target.pixel[1]}' if target is not None else ""
            raise ActionHadNoEffect(
                f"{action.replace('_', ' ')}{on} was done once and had no effect: {why}; the pictures before and after "
                "are in .result",
                result,
            )
        return result

    def tooltips(self) -> list[Box]:
        """Return the boxes of the tooltips that are shown now, in desktop pixels."""
        return [] if self.sight.windows is None else self.sight.windows.tooltips()

    def _without_hover(
        self, target: Target, before: Shot, boxes: tuple[PixelBox, ...], tips: Sequence[Box]
    ) -> tuple[PixelBox, ...]:
        """Return what of a change is more than a hover effect or a tooltip that came late, or went.

        Only a change that keeps to the target and its row, or to a tooltip, can be one. It goes when the pointer does.
        """
        shown = [before.view.box_to_picture(tip) for tip in (*tips, *self.tooltips())]
        boxes = tuple(box for box in boxes if not any(inside(floats(box), tip) for tip in shown))
        x1, y1, x2, y2 = before.view.box_to_picture(target.box)
        reach = 14 + 0.5 * (y2 - y1)
        left, top, right, bottom = x1 - 2 * reach, y1 - reach, x2 + 2 * reach, y2 + reach
        # A row or a button lights up as a whole, which may be much wider than what is written there.
        near = all(top <= box[1] and box[3] <= bottom and box[0] < right and left < box[2] for box in boxes)
        if not boxes or not near:
            return boxes
        # Only what was in the picture of the target can be compared, where that was of a part of the screen; and only
        # where something changed: a caret or a clock beside it goes on.
        seen = self.sight.veiled(target.shot)
        area = floats(seen.view.area)
        parts = [common(before.view.box_to_desktop(floats(box)), area) for box in boxes]
        if any(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in parts):
            return boxes
        self.pointer.move(*self.sight.parking())
        start = moved = time.monotonic()
        last: list[Frame] = []
        while True:
            # It may take a while to go, and a caret in it to blink: as it once was is enough.
            now = self.sight.veiled(self.sight.grab())
            frames = [now.crop(part).frame for part in parts]
            if all(np.array_equal(seen.crop(part).frame, frame) for part, frame in zip(parts, frames)):
                return ()
            at = time.monotonic()
            if not all(map(np.array_equal, frames, last)):
                moved = at
            last = frames
            if at - start >= HOVER_LIMIT or at - moved >= HOVER_GOES:
                return boxes
            self.sight.wait(0.025)

    def _expected(self, expect: Expect, before: Shot, limit: float) -> tuple[bool, str]:
        """Wait for what the caller expects; return whether it came, and if not why."""
        if not isinstance(expect, str):
            end = time.monotonic() + limit
            while True:
                if expect():
                    return True, ""
                if time.monotonic() >= end:
                    return False, f"what was expected did not come true within {limit:g} s"
                self.sight.wait(0.05)
        missed = [""]

        def absent(error: TargetNotFound) -> None:
            missed[0] = f"; {error}"

        asked = self.sight.until(
            lambda shot: True if len(self.finder.ask(shot, expect)) else None, limit, absent=absent
        )
        if asked is None:
            return False, f'"{expect}" did not appear within {limit:g} s{missed[0]}'
        shown = self.sight.veiled(before)
        if len(self.finder.ask(shown, expect)) and not changed(
            shown.frame, self.sight.look().frame, self.sight.alive()
        ):
            return False, f'"{expect}" was there before, and nothing changed'
        return True, ""

    def hide(self, target: Target | None, before: Shot, boxes: tuple[PixelBox, ...] = ()) -> None:
        """Cover what typing a secret has changed, from now on: also when it is shown as text later, which is wider.

        Without `boxes` it is whatever differs from `before` now.
        """
        if not boxes:
            now = self.sight.screen.grab(before.view.area).frame
            boxes = changed(before.frame, now) if now.shape == before.frame.shape else ()
        spots = [before.view.box_to_desktop(floats(box)) for box in boxes]
        if target is not None:
            spots.append(target.box)
        if not spots:
            return
        x1, y1 = min(box[0] for box in spots), min(box[1] for box in spots)
        x2, y2 = max(box[2] for box in spots), max(box[3] for box in spots)
        height = y2 - y1
        box = (x1 - height, y1 - 0.4 * height, x2 + max(0.6 * (x2 - x1), 2 * height), y2 + 0.4 * height)
        self.sight.hide(box)
