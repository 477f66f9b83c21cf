"""Pictures of the screen, and where on the desktop they are from.

Desktop pixels are the units that the pointer moves in: physical pixels on X11 and Windows, points on macOS. Their
origin is the top-left corner of the first monitor; monitors to its left or above have negative coordinates.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from groundlink.detections import Box
from groundlink.errors import BackendUnavailable, BadQuery, NoDisplay
from groundlink.image import Pixels
from screen_agent.x11 import display, supported

Frame: TypeAlias = npt.NDArray[np.uint32]
"""A captured picture, H×W, one number 0xRRGGBB for each pixel: compared in a millisecond."""
PixelBox: TypeAlias = tuple[int, int, int, int]
"""`(x1, y1, x2, y2)` in whole pixels, x2 and y2 exclusive."""

VEIL = 0x808080
"""The grey that hides what is secret."""


@dataclass(frozen=True)
class View:
    """How a picture lies on the desktop: `area` in desktop pixels is shown by `size` = (width, height) picture pixels.

    Coordinates are continuous on both sides, 0…width from the left edge of a picture.
    """

    area: PixelBox
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Picture pixels for each desktop pixel, across and down: 2 where the picture is twice as fine."""
        x1, y1, x2, y2 = self.area
        return self.size[0] / (x2 - x1), self.size[1] / (y2 - y1)

    def to_desktop(self, x: float, y: float) -> tuple[float, float]:
        """Return where on the desktop a place of the picture is."""
        across, down = self.scale
        return self.area[0] + x / across, self.area[1] + y / down

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """Return where in the picture a place of the desktop is; it may be outside."""
        across, down = self.scale
        return (x - self.area[0]) * across, (y - self.area[1]) * down

    def box_to_desktop(self, box: Box) -> Box:
        """Return a box of the picture in desktop pixels."""
        return (*self.to_desktop(*box[:2]), *self.to_desktop(*box[2:]))

    def box_to_picture(self, box: Box) -> Box:
        """Return a box of the desktop in pixels of the picture."""
        return (*self.to_picture(*box[:2]), *self.to_picture(*box[2:]))

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """Return the whole desktop pixel to point at for a place of the picture, never outside of the area."""
        across, down = self.to_desktop(x, y)
        x1, y1, x2, y2 = self.area
        return min(max(math.floor(across), x1), x2 - 1), min(max(math.floor(down), y1), y2 - 1)


@dataclass(frozen=True)
class Shot:
    """A picture of a part of the desktop. `at` is when it was taken, in seconds of the monotonic clock."""

    frame: Frame
    view: View
    at: float

    @cached_property
    def rgb(self) -> Pixels:
        """The picture as H×W×3, uint8, RGB."""
        height, width = self.frame.shape
        four = np.ascontiguousarray(self.frame, dtype="<u4").view(np.uint8).reshape(height, width, 4)
        pixels: Pixels = cv2.cvtColor(four, cv2.COLOR_BGRA2RGB).astype(np.uint8, copy=False)
        pixels.setflags(write=False)
        return pixels

    @cached_property
    def image(self) -> Image.Image:
        """The picture as a PIL image of mode RGB."""
        return Image.fromarray(self.rgb)

    def crop(self, box: Box) -> Shot:
        """Return the part of the picture that shows a box of the desktop, as far as it is in the picture.

        Raises:
            BadQuery: no pixel of the box is in the picture.
        """
        x1, y1, x2, y2 = self.pixels(box)
        if x1 >= x2 or y1 >= y2:
            raise BadQuery(f"{_named(box)} is outside of the part of the screen that is looked at, {self.view.area}")
        # Whole picture pixels, so that both sides still fit exactly.
        left, top = self.view.to_desktop(x1, y1)
        right, bottom = self.view.to_desktop(x2, y2)
        area = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        if self.view.scale != (1.0, 1.0):
            x1, y1, x2, y2 = (round(value) for value in self.view.box_to_picture(area))
            x2, y2 = min(x2, self.frame.shape[1]), min(y2, self.frame.shape[0])
        return Shot(np.ascontiguousarray(self.frame[y1:y2, x1:x2]), View(area, (x2 - x1, y2 - y1)), self.at)

    def pixels(self, box: Box) -> PixelBox:
        """Return the whole pixels of the picture that a box of the desktop touches; empty where there are none."""
        x1, y1, x2, y2 = self.view.box_to_picture(box)
        height, width = self.frame.shape
        return max(0, math.floor(x1)), max(0, math.floor(y1)), min(width, math.ceil(x2)), min(height, math.ceil(y2))

    def enlarged(self, factor: int) -> Shot:
        """Return the same part of the desktop in a picture with `factor` times as many pixels each way."""
        width, height = self.view.size[0] * factor, self.view.size[1] * factor
        larger = np.asarray(self.image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.uint32)
        frame: Frame = (larger[:, :, 0] << 16 | larger[:, :, 1] << 8 | larger[:, :, 2]).astype(np.uint32)
        return Shot(frame, View(self.view.area, (width, height)), self.at)

    def veiled(self, boxes: Iterable[Box]) -> Shot:
        """Return the picture with boxes of the desktop painted over."""
        frame = None
        for box in boxes:
            x1, y1, x2, y2 = self.pixels(box)
            if x1 < x2 and y1 < y2:
                frame = self.frame.copy() if frame is None else frame
                frame[y1:y2, x1:x2] = VEIL
        return self if frame is None else Shot(frame, self.view, self.at)


class Screen:
    """Takes pictures of the monitors of the display that `DISPLAY` names, or of the only one there is."""

    def monitors(self) -> list[PixelBox]:
        """Return the monitors in desktop pixels, in the system's order; monitor 1 is the first of them.

        Raises:
            BackendUnavailable: the package mss is not installed.
            NoDisplay: there is no screen, or the system does not let it be read; the message says what to do.
        """
        with _Grabber() as grabber:
            return [_box(monitor) for monitor in grabber.monitors[1:]]

    def area(self, monitor: int | None = None, region: Box | None = None) -> PixelBox:
        """Return what a monitor (from 1; None: all of them), or the part of a region that is on the screen, covers.

        Raises:
            BadQuery: there is no such monitor, or the region is off the screen.
            NoDisplay: as `monitors`.
        """
        with _Grabber() as grabber:
            boxes = [_box(found) for found in grabber.monitors]
        if monitor is not None:
            if isinstance(monitor, bool) or not isinstance(monitor, int) or not 1 <= monitor < len(boxes):
                count = len(boxes) - 1
                raise BadQuery(f"there is no monitor {monitor!r}; the screen has {count}, counted from 1")
            x1, y1, x2, y2 = boxes[monitor]
        else:
            x1, y1, x2, y2 = boxes[0]
        if region is None:
            return x1, y1, x2, y2
        a, b, c, d = check_box("region", region)
        clipped = (max(x1, math.floor(a)), max(y1, math.floor(b)), min(x2, math.ceil(c)), min(y2, math.ceil(d)))
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            raise BadQuery(f"the region {_named(region)} is outside of the screen, {(x1, y1, x2, y2)}")
        return clipped

    def grab(self, area: PixelBox) -> Shot:
        """Take a picture of an area that `area()` gave, without the pointer. A millisecond or three.

        Raises:
            NoDisplay: as `monitors`; also where the area is no longer on the screen.
        """
        x1, y1, x2, y2 = area
        shot = _kept.grab({"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1})
        frame = np.frombuffer(shot.raw, dtype="<u4").reshape(shot.height, shot.width)
        # The fourth byte means nothing, and differs from server to server.
        np.bitwise_and(frame, np.uint32(0xFFFFFF), out=frame)
        return Shot(frame, View(area, (shot.width, shot.height)), time.monotonic())


def screenshot() -> Image.Image:
    """Return the whole screen, all monitors, as a PIL image of mode RGB in physical pixels.

    Raises:
        BackendUnavailable: the package mss is not installed.
        NoDisplay: there is no screen, or the system does not let it be read; the message says what to do.
    """
    screen = Screen()
    return screen.grab(screen.area()).image


def check_box(name: str, box: Any) -> Box:
    """Return a box given by a caller; raises BadQuery where it is none."""
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
        good = all(map(math.isfinite, (x1, y1, x2, y2))) and x1 < x2 and y1 < y2 and not isinstance(box, str)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise BadQuery(f"{name} is (x1, y1, x2, y2) in desktop pixels with x1 < x2 and y1 < y2, not {box!r:.80}")
    return x1, y1, x2, y2


class _Grabber:
    """mss, opened for one use: half a millisecond, and it sees monitors that came or went."""

    def __enter__(self) -> Any:
        try:
            import mss
        except ImportError as error:
            raise BackendUnavailable(
                "taking a picture of the screen needs mss: pip install 'groundlink[screen]'"
            ) from error
        check_session()
        try:
            self._mss = mss.MSS()
            return self._mss.__enter__()
        except (mss.ScreenShotError, OSError) as error:
            raise _unreadable(error) from error

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        import mss

        self._mss.__exit__(kind, error, traceback)
        if isinstance(error, (mss.ScreenShotError, OSError)) and not isinstance(error, NoDisplay):
            raise _unreadable(error) from error


class _Kept:
    """mss kept open on X11, where most of a first picture is the making of shared memory. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Any = None
        self._of: tuple[int, str] = (0, "")

    def grab(self, part: dict[str, int]) -> Any:
        if not supported():
            with _Grabber() as grabber:
                return grabber.grab(part)
        check_session()
        # A process must not speak through the connection of its parent.
        now = (os.getpid(), os.environ["DISPLAY"])
        with self._lock:
            if self._open is not None and self._of == now:
                # What fails may be an old connection: to a server started anew, or made when the screen was smaller.
                with contextlib.suppress(Exception):
                    return self._open.grab(part)
            if self._open is not None and self._of[0] == now[0]:
                with contextlib.suppress(Exception):
                    self._open.close()
            self._open = None
            grabber = _Grabber()
            opened = grabber.__enter__()
            try:
                shot = opened.grab(part)
            except BaseException as error:
                grabber.__exit__(type(error), error, error.__traceback__)
                raise
            self._open, self._of = opened, now
            return shot


_kept = _Kept()


def check_session() -> None:
    """Raise NoDisplay, with the remedy, where the session has no screen that a program may read."""
    if supported():
        display()
    elif sys.platform == "darwin" and not _may_record():
        raise NoDisplay(f"macOS does not let this program see other windows; {_MAC_REMEDY}")


_MAC_REMEDY = (
    "allow the program that runs Python under System Settings → Privacy & Security → Screen Recording, "
    "and start it anew"
)


def _may_record() -> bool:
    """Ask macOS; without the permission it shows the wallpaper and no windows, and no error."""
    import ctypes
    import ctypes.util

    library = ctypes.util.find_library("CoreGraphics")
    if library is None:
        return True
    try:
        ask = ctypes.CDLL(library).CGPreflightScreenCaptureAccess
    except (OSError, AttributeError):  # before macOS 10.15 everybody may
        return True
    ask.restype = ctypes.c_bool
    return bool(ask())


def _unreadable(error: Exception) -> NoDisplay:
    remedy = (
        _MAC_REMEDY
        if sys.platform == "darwin"
        else f"check that the X server of DISPLAY={os.environ.get('DISPLAY', '')} runs and lets you in (xauth)"
        if sys.platform.startswith("linux")
        else "unlock the desktop and try again"
    )
    return NoDisplay(f"the screen cannot be read ({error}); {remedy}")


def _box(monitor: dict[str, Any]) -> PixelBox:
    left, top = int(monitor["left"]), int(monitor["top"])
    return left, top, left + int(monitor["width"]), top + int(monitor["height"])


def _named(box: Box) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def floats(box: PixelBox) -> Box:
    """Return a box of whole pixels as one with continuous coordinates."""
    x1, y1, x2, y2 = box
    return float(x1), float(y1), float(x2), float(y2)


def clip(box: PixelBox) -> PixelBox:
    """Return a box whose corners are in order; empty where they were not."""
    x1, y1, x2, y2 = box
    return x1, y1, max(x1, x2), max(y1, y2)


def common(a: Box, b: Box) -> Box:
    """Return what two boxes share; its corners are out of order where that is nothing."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def inside(box: Box, other: Box) -> bool:
    """Return whether a box lies in another."""
    return other[0] <= box[0] and other[1] <= box[1] and box[2] <= other[2] and box[3] <= other[3]
