"""The pointer and its buttons, and keys, through pyautogui: its emergency stop holds for all of them.

Moving the pointer into a corner of the screen stops every action.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from groundlink.errors import ActionDenied, BackendUnavailable, BadQuery, GroundlinkError, NoDisplay
from screen_agent import keyboard
from screen_agent.x11 import Link, Server, supported

T = TypeVar("T")

BUTTONS = ("left", "middle", "right")
BETWEEN_CLICKS = 0.03
"""Seconds between clicks: far below any limit for double clicks. At 1 ms a window manager that looks at every press
first (openbox) swallows a click in 250."""
STEPS_PER_SECOND = 60
WINDOWS_NOTCH = 120

_lock = threading.RLock()
_link = Link()


class _Bound:
    """The connection of our own that was open when pyautogui last connected (None outside of X11).

    pyautogui does not notice that its screen is gone or started anew (its X library breaks then); ours does.
    """

    ready: bool = False
    server: Server | None = None


def pyautogui() -> Any:
    """Return the module pyautogui, imported at first use and bound to the screen of now, with no pauses of its own.

    Raises:
        BackendUnavailable: it, or the tkinter that it needs, is not installed.
        NoDisplay: there is no screen.
    """
    with _lock:
        # Also for the words of the error: what pyautogui says without a screen helps nobody.
        server = _link.ask(_alive) if supported() else None
        if _Bound.ready and _Bound.server is server:
            return sys.modules["pyautogui"]
        try:
            with _quiet_connection():
                gui = _bind()
        except ModuleNotFoundError as error:
            if error.name in ("tkinter", "_tkinter"):
                raise _without_tkinter() from error
            raise BackendUnavailable(
                f"acting on the screen needs pyautogui ({error}): pip install 'groundlink[screen]'"
            ) from error
        except SystemExit as error:
            # MouseInfo, which pyautogui brings, ends the program where tkinter is missing.
            raise _without_tkinter() from error
        except Exception as error:
            raise NoDisplay(f"the pointer cannot be reached ({error}); check that the screen lets you in") from error
        gui.PAUSE = 0
        gui.MINIMUM_DURATION = gui.MINIMUM_SLEEP = 0
        gui.DARWIN_CATCH_UP_TIME = 0.01
        gui.FAILSAFE = True
        _Bound.server, _Bound.ready = server, True
        return gui


def _without_tkinter() -> BackendUnavailable:
    return BackendUnavailable("pyautogui needs tkinter, which this Python lacks: apt install python3-tk")


def _bind() -> Any:
    """Import pyautogui, or connect it anew where it is bound to another screen."""
    if "pyautogui" not in sys.modules:
        return importlib.import_module("pyautogui")
    gui = sys.modules["pyautogui"]
    if supported():
        platform = gui.platformModule
        with contextlib.suppress(Exception):
            # Its own way to close waits for the screen, which may be gone.
            platform._display.display.socket.close()
        # It connects as it is imported, and reads its keyboard then.
        importlib.reload(platform)
    return gui


@contextlib.contextmanager
def _quiet_connection() -> Iterator[None]:
    """What pyautogui needs as it connects: a file with X11's cookies, be it empty, and no warnings shown."""
    before = os.environ.get("XAUTHORITY")
    given = Path(before) if before else Path.home() / ".Xauthority"
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if supported() and not given.is_file():
            empty = stack.enter_context(tempfile.NamedTemporaryFile(prefix="groundlink-"))
            os.environ["XAUTHORITY"] = empty.name
        try:
            yield
        finally:
            if before is None:
                os.environ.pop("XAUTHORITY", None)
            else:
                os.environ["XAUTHORITY"] = before


class Pointer:
    """The pointer, its buttons and the keys of the screen of $DISPLAY. Nothing is connected to before the first use.

    Coordinates are desktop pixels. Every method can raise BackendUnavailable (pyautogui is not installed), NoDisplay
    (there is no screen) and, those that act, ActionDenied: the pointer is in a corner of the screen, which is the
    emergency stop.
    """

    def __init__(self) -> None:
        self._button = "left"
        self._released = 0.0

    def position(self) -> tuple[int, int]:
        """Return where the pointer is."""
        x, y = self._do(lambda gui: gui.position())
        return int(x), int(y)

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the desktop; outside of X11 of its main screen."""
        if supported():
            return _link.ask(_size)
        width, height = self._do(lambda gui: gui.size())
        return int(width), int(height)

    def check(self) -> None:
        """Raise ActionDenied while the pointer is in a corner."""
        self._do(lambda gui: gui.failSafeCheck())

    def move(self, x: float, y: float) -> None:
        """Move to a pixel; from a corner pixel, where the emergency stop is, one pixel inwards.

        Raises:
            BadQuery: the pixel is outside of the screen.
            NoDisplay: macOS does not let the pointer be moved; the message names the permission.
            GroundlinkError: the pointer did not go there, or was moved away at once.
        """
        place = self._inside(x, y)
        for _ in range(2):
            self._do(lambda gui: gui.moveTo(*place))
            there = self.position()
            if there == place:
                return
        if sys.platform == "darwin":
            raise NoDisplay(
                "the pointer does not move; allow this program under System Settings → Privacy & Security → "
                "Accessibility"
            )
        raise GroundlinkError(
            f"the pointer was sent to {place} and is at {there}; somebody moves it, or the screen ends before"
        )

    def press(self, button: str = "left") -> None:
        """Press a button and leave it down."""
        self._button = _checked(button)
        time.sleep(max(0.0, self._released + BETWEEN_CLICKS - time.monotonic()))
        self._do(lambda gui: gui.mouseDown(button=button))

    def release(self, button: str = "left") -> None:
        """Release a button; this works in a corner, too."""
        _checked(button)
        # The library's own mouseUp refuses in a corner, and would leave the button down.
        self._do(lambda gui: gui.platformModule._mouseUp(*gui.position(), button))
        self._released = time.monotonic()

    def click(self, button: str = "left", count: int = 1) -> None:
        """Click where the pointer is; 2 is a double click.

        Raises:
            BadQuery: no such button, or not 1 to 3 clicks.
        """
        _checked(button)
        if count not in (1, 2, 3):
            raise BadQuery(f"count={count!r}: give 1, 2 (a double click) or 3")
        for _ in range(count):
            self.press(button)
            self.release(button)

    def drag_to(self, x: float, y: float, seconds: float = 0.3, *, stop: Callable[[], None] | None = None) -> None:
        """Move in small steps, between `press` and `release`. Raises what `move` and `stop` raise."""
        (x1, y1), (x2, y2) = self.position(), self._inside(x, y)
        # Programs take a move of a few pixels for a click, and one jump for no drag.
        steps = max(10, math.ceil(seconds * STEPS_PER_SECOND))
        for step in range(1, steps):
            place = (x1 + (x2 - x1) * step // steps, y1 + (y2 - y1) * step // steps)
            if stop is not None:
                stop()
            self._drag(*place)
            time.sleep(seconds / steps)
        self._drag(x2, y2)
        self.move(x2, y2)

    def _drag(self, x: int, y: int) -> None:
        self._do(lambda gui: gui.dragTo(x, y, button=self._button, mouseDownUp=False))

    def scroll(self, clicks_down: int, clicks_right: int = 0, *, stop: Callable[[], None] | None = None) -> None:
        """Turn the wheel by notches; negative is up, and left. `stop` is called before each, and may raise.

        Raises:
            BadQuery: both are 0, or sideways on Windows, where the library cannot.
        """
        if not clicks_down and not clicks_right:
            raise BadQuery("scrolling by 0 notches does nothing; give clicks_down or clicks_right")
        windows = sys.platform == "win32"
        if clicks_right and windows:
            raise BadQuery("scrolling sideways does not work on Windows; drag the scroll bar, or use keys")
        notch = WINDOWS_NOTCH if windows else 1
        turns: list[Callable[[Any], None]] = [lambda gui: gui.scroll(-notch if clicks_down > 0 else notch)]
        turns *= abs(clicks_down)
        turns += [lambda gui: gui.hscroll(1 if clicks_right > 0 else -1)] * abs(clicks_right)
        for turn in turns:
            if stop is not None:
                stop()
            self._do(turn)

    def key(self, name: str) -> None:
        """Press and release one key: a name such as "enter", or a character.

        Raises:
            BadQuery: there is no such key; the message lists near ones.
            ActionDenied: somebody holds a modifier down.
        """
        self.hotkey(name)

    def hotkey(self, *names: str) -> None:
        """Press keys together, as in `hotkey("ctrl", "s")`; all come up again, also after an error.

        Raises what `key` raises.
        """
        for name in names:
            keyboard.key_name(name)
        self.check()
        keyboard.press_keys(*names, stop=self.check)

    @contextlib.contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """Hold keys down meanwhile, as for a click with Ctrl. Raises what `key` raises."""
        for name in names:
            keyboard.key_name(name)
        self.check()
        with keyboard.held_keys(*names, stop=self.check):
            yield

    def _inside(self, x: float, y: float) -> tuple[int, int]:
        place = (math.floor(x), math.floor(y))
        width, height = self.size()
        # Elsewhere than on X11 a second screen may be anywhere around the main one.
        if supported() and not (0 <= place[0] < width and 0 <= place[1] < height):
            raise BadQuery(f"({place[0]}, {place[1]}) is outside of the screen, which is {width}×{height}")
        if place in _corners(width, height):
            return (1 if place[0] == 0 else width - 2, 1 if place[1] == 0 else height - 2)
        return place

    def _do(self, action: Callable[[Any], T]) -> T:
        with _lock:
            gui = pyautogui()
            try:
                # The screen's size may have changed since.
                gui.FAILSAFE_POINTS[:] = _corners(*(_link.ask(_size) if supported() else gui.size()))
                return action(gui)
            except gui.FailSafeException:
                raise ActionDenied(
                    "emergency stop: the pointer is in a corner of the screen; move it away to go on"
                ) from None
            except GroundlinkError:
                raise
            except Exception as error:
                _Bound.ready = False
                raise NoDisplay(
                    f"the pointer cannot be reached ({error}); check that the screen of "
                    f"DISPLAY={os.environ.get('DISPLAY', '')} is still there"
                ) from error


def _alive(server: Server) -> Server:
    server.sync()
    return server


def _size(server: Server) -> tuple[int, int]:
    screen = server.core.GetGeometry(server.root).reply()
    return screen.width, screen.height


def _corners(width: int, height: int) -> list[tuple[int, int]]:
    return [(0, 0), (0, height - 1), (width - 1, 0), (width - 1, height - 1)]


def _checked(button: str) -> str:
    if button not in BUTTONS:
        raise BadQuery(f"there is no button {button!r}; give one of {', '.join(BUTTONS)}")
    return button
