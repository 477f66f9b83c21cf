"""What the agent sees: pictures of its part of the screen, what is covered in them, and when they are at rest."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundlink.detections import Box
from groundlink.errors import GroundlinkError, NoDisplay, TargetNotFound
from screen_agent.capture import PixelBox, Screen, Shot
from screen_agent.changes import Idle, changed
from screen_agent.windows import Windows
from screen_agent.x11 import WAYLAND

SETTLE_LIMIT = 1.0
"""Seconds to wait at most for a moving screen to rest."""
SAMPLE_SECONDS = 0.15
"""How often the screen is looked at while the backend is busy."""
WORDS_AROUND = (200, 40)
"""Pixels beside and above a box that words may begin in."""
FRAME_SECONDS = 0.015
"""Between two looks at a screen that is waited for; about one frame of a monitor."""


@dataclass(frozen=True)
class _Secret:
    """A part of the screen that is never shown: in a window's own coordinates, or the desktop's."""

    window: int | None
    box: Box


class Sight:
    """Takes pictures of a monitor, a region, a window, or everything; `idle` learns what changes by itself.

    `check` is called in every wait, and may raise to end it.
    """

    def __init__(
        self,
        screen: Screen,
        windows: Windows | None,
        check: Callable[[], None],
        *,
        monitor: int | None = None,
        region: Box | None = None,
        window: str | None = None,
    ) -> None:
        self.screen = screen
        self.windows = windows
        self.idle = Idle()
        self._check = check
        self._monitor, self._region, self._window = monitor, region, window
        self._secrets: list[_Secret] = []
        self._seen: Shot | None = None
        self._parts: dict[Box, Shot] = {}

    def area(self) -> PixelBox:
        """Return what is looked at now, in desktop pixels.

        Raises:
            NoDisplay: there is no screen, or it may not be looked at.
            TargetNotFound, TargetAmbiguous: no window has the title, or several have.
        """
        if self.windows is not None and self.windows.is_xwayland():
            raise NoDisplay(WAYLAND)
        if self._window is not None:
            return self.screen.area(region=(self.windows or Windows()).find(self._window).box)
        return self.screen.area(self._monitor, self._region)

    def grab(self, box: Box | None = None) -> Shot:
        """Take a picture with nothing covered, for comparing only: of all, or of what a box of the desktop shows of it.

        Of all, too, where the box shows nothing of it.
        """
        area = self.area()
        if box is not None:
            x1, y1 = max(area[0], math.floor(box[0])), max(area[1], math.floor(box[1]))
            x2, y2 = min(area[2], math.ceil(box[2])), min(area[3], math.ceil(box[3]))
            area = (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else area
        return self.screen.grab(area)

    def look(self, within: Box | None = None) -> Shot:
        """Take a picture of all, or of a box of the desktop, as others may see it.

        The same object comes again where nothing has changed, so that nothing is computed anew for it.
        """
        raw = self.grab()
        self.idle.see(raw.frame, raw.at)
        shot = self.veiled(raw)
        if self._seen is not None and self._seen.view == shot.view and np.array_equal(self._seen.frame, shot.frame):
            shot = self._seen
        else:
            self._seen, self._parts = shot, {}
        if within is None:
            return shot
        if within not in self._parts:
            self._parts[within] = shot.crop(within)
        return self._parts[within]

    def around(self, box: Box) -> Shot:
        """Take a picture of a box of the desktop and what is around it, also outside of what is looked at.

        There is room around it for the words that the box may be a part of.
        """
        x1, y1, x2, y2 = box
        area = self.screen.area(
            region=(x1 - WORDS_AROUND[0], y1 - WORDS_AROUND[1], x2 + WORDS_AROUND[0], y2 + WORDS_AROUND[1])
        )
        return self.veiled(self.screen.grab(area))

    def is_all(self, shot: Shot) -> bool:
        """Whether a picture shows the whole desktop."""
        return shot.view.area == self.screen.area()

    def hide(self, box: Box) -> None:
        """Cover a box of the desktop in every picture from now on; it moves and goes with its window."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        window = None if self.windows is None else self.windows.at(x, y)
        if window is None:
            self._secrets.append(_Secret(None, box))
        else:
            left, top = window.box[:2]
            self._secrets.append(_Secret(window.id, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)))

    def veiled(self, shot: Shot) -> Shot:
        """Return a picture with everything covered that is to be hidden."""
        boxes = []
        for secret in self._secrets:
            if secret.window is None or self.windows is None:
                boxes.append(secret.box)
            elif (window := self.windows.current(secret.window)) is not None:
                x, y = window.box[:2]
                boxes.append((secret.box[0] + x, secret.box[1] + y, secret.box[2] + x, secret.box[3] + y))
        return shot.veiled(boxes)

    def alive(self) -> tuple[PixelBox, ...]:
        """Return what changes all the time, in pixels of the pictures."""
        return self.idle.parts(time.monotonic(), often=True)

    def parking(self) -> tuple[int, int]:
        """Return a place for the pointer at the right edge, away from the corners and the ends of scroll bars."""
        _, y1, x2, y2 = self.area()
        return x2 - 1, y1 + (y2 - y1) * 2 // 5

    def wait(self, seconds: float) -> None:
        """Sleep, unless what is checked in every wait ends it."""
        self._check()
        time.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Sleep for long, looking now and then for what ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.wait(min(0.1, left))

    def wait_quiet(self, box: Box | None = None, *, limit: float = SETTLE_LIMIT, least: float = 0.06) -> None:
        """Wait until a part of the screen rests for `least` seconds, but no longer than `limit`.

        What always moves does not count, unless a box is given.
        """
        start = rested = time.monotonic()
        last: Shot | None = None
        while (now := time.monotonic()) - start < limit:
            shot = self.grab(box)
            alive = self.alive() if box is None else ()
            if last is None or last.view != shot.view or changed(last.frame, shot.frame, alive):
                rested = now
            last = shot
            if now - rested >= least:
                return
            self.wait(FRAME_SECONDS)

    def until(
        self,
        look: Callable[[Shot], Any],
        timeout: float,
        within: Callable[[], Box | None] = lambda: None,
        absent: Callable[[TargetNotFound], Any] = lambda error: None,
    ) -> Any:
        """Look until `look` returns something, showing it only pictures that have changed; None at the end.

        `within` says each time which box of the desktop to look at, None for all. `absent` is asked instead of `look`
        while that, or the window that is looked at, is not there.
        """
        end = time.monotonic() + timeout
        last: Shot | None = None
        while True:
            self._check()
            try:
                shot = self.look(within())
            except TargetNotFound as error:
                last, found = None, absent(error)
            else:
                found = None if shot is last else look(shot)
                last = shot
            if found is not None:
                return found
            if time.monotonic() >= end:
                return None
            self.wait(min(0.1, max(0.0, end - time.monotonic())))

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Look at the screen now and then while the backend is busy, to learn what changes by itself."""
        over = threading.Event()

        def sample() -> None:
            while not over.wait(SAMPLE_SECONDS):
                try:
                    shot = self.grab()
                except GroundlinkError:
                    return
                if not over.is_set():
                    self.idle.see(shot.frame, shot.at)

        thread = threading.Thread(target=sample, name="groundlink-idle", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
