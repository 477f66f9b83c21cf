"""A connection to the X server, made anew when $DISPLAY changes or it is lost: for windows, keys and clipboard.

xcffib is reached through `importlib`, at first use: it is there on Linux only.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from groundlink.errors import BackendUnavailable, NoDisplay

T = TypeVar("T")

ANY_TYPE = 0
VIEWABLE = 2
INPUT_ONLY = 2


def supported() -> bool:
    """Return whether this system's screens are X11's."""
    return sys.platform.startswith("linux")


WAYLAND = (
    "this is a Wayland session, whose screen and input are closed to other programs; log in to an X11 (Xorg) session, "
    "or take a screenshot with the desktop's own tool and give its file"
)


def display() -> str:
    """Return what `DISPLAY` names; raises NoDisplay, with the remedy, where it names nothing."""
    name = os.environ.get("DISPLAY", "")
    if not name:
        if os.environ.get("WAYLAND_DISPLAY"):
            raise NoDisplay(WAYLAND)
        raise NoDisplay("there is no screen here (DISPLAY is not set); on a server start one with xvfb-run")
    return name


class Server:
    """One open connection; the requests of one question are sent together, and only then their replies are read.

    Attributes:
        display: the $DISPLAY that it was made for.
        core: the X11 requests.
        root: id of the root window.
    """

    def __init__(self) -> None:
        """Connect.

        Raises:
            BackendUnavailable: xcffib or libxcb is not installed.
            NoDisplay: there is no X server, or it does not let us in.
        """
        self.display = display()
        try:
            self.xcffib: Any = importlib.import_module("xcffib")
            # An extension must be known before the connection is made.
            self.proto: Any = importlib.import_module("xcffib.xproto")
            self.xtest: Any = importlib.import_module("xcffib.xtest")
            self.randr: Any = importlib.import_module("xcffib.randr")
            self.res: Any = importlib.import_module("xcffib.res")
        except ImportError as error:
            raise BackendUnavailable("acting on the screen needs xcffib: pip install 'groundlink[screen]'") from error
        except OSError as error:
            raise BackendUnavailable(f"xcffib needs the library libxcb ({error}): apt install libxcb1") from error
        try:
            self.connection: Any = self.xcffib.Connection(self.display)
            self.core: Any = self.connection.core
            screen = self.connection.setup.roots[self.connection.pref_screen]
        except (self.xcffib.XcffibException, OSError) as error:
            raise self.unreachable(error) from error
        self.root: int = screen.root
        self._mask: int = self.connection.setup.resource_id_mask
        self._atoms: dict[str, int] = {}
        self._extensions: dict[str, bool] = {}

    def unreachable(self, error: Exception) -> NoDisplay:
        """Return the error that says that the X server cannot be reached."""
        return NoDisplay(
            f"the screen cannot be reached ({str(error).rstrip('.')}); "
            f"check that the X server of DISPLAY={self.display} runs and lets you in (xauth)"
        )

    def reply(self, cookie: Any) -> Any:
        """Return the reply to a request, or None where its window is gone (or it is refused otherwise)."""
        try:
            return cookie.reply()
        except self.xcffib.Error:
            return None

    def done(self, cookie: Any) -> bool:
        """Wait until a checked request is carried out; False where it is refused."""
        try:
            cookie.check()
        except self.xcffib.Error:
            return False
        return True

    def has(self, extension: str) -> bool:
        """Return whether the server has this extension; to use one that it has not ends the connection."""
        if extension not in self._extensions:
            found = self.core.QueryExtension(len(extension), extension).reply()
            self._extensions[extension] = bool(found.present)
        return self._extensions[extension]

    def atoms(self, *names: str) -> list[int]:
        """Return the numbers of these atoms, asked for once."""
        new = [name for name in names if name not in self._atoms]
        cookies = [self.core.InternAtom(False, len(name), name) for name in new]
        for name, cookie in zip(new, cookies, strict=True):
            self._atoms[name] = cookie.reply().atom
        return [self._atoms[name] for name in names]

    def atom(self, name: str) -> int:
        """Return the number of one atom."""
        return self.atoms(name)[0]

    def ask(self, window: int, name: str, longs: int = 1024) -> Any:
        """Ask for a property of a window, at most 4 bytes × `longs`; return the cookie."""
        return self.core.GetProperty(False, window, self.atom(name), ANY_TYPE, 0, longs)

    def numbers(self, cookie: Any) -> list[int]:
        """Return the numbers of a property of format 32, [] where there is none."""
        found = self.reply(cookie)
        if found is None or found.format != 32:
            return []
        return list(struct.unpack(f"={found.value_len}I", found.value.raw))

    def words(self, cookie: Any) -> tuple[bytes, int]:
        """Return the bytes of a property and its type, `(b"", 0)` where there is none."""
        found = self.reply(cookie)
        if found is None or found.format != 8:
            return b"", 0
        return found.value.raw, found.type

    def program(self, resource: int) -> int:
        """Return a number that all windows made through one connection, so by one program, have in common."""
        return resource & ~self._mask

    def sync(self) -> None:
        """Wait until the server has dealt with everything sent so far."""
        self.core.GetInputFocus().reply()

    def forget_events(self) -> None:
        """Read away what the server told unasked, so that it does not pile up."""
        while True:
            try:
                if self.connection.poll_for_event() is None:
                    return
            except self.xcffib.Error:
                pass

    def close(self) -> None:
        """Disconnect."""
        self.connection.disconnect()


class Link:
    """What holds one `Server` for many calls and threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._server: Server | None = None

    def ask(self, question: Callable[[Server], T], again: bool = True) -> T:
        """Put a question to the server; one that is lost meanwhile is connected to anew and asked `again`.

        Raises:
            BackendUnavailable: xcffib is not installed.
            NoDisplay: there is no X server, or it is gone.
        """
        with self._lock:
            if self._server is not None and (
                self._server.display != os.environ.get("DISPLAY", "") or self._server.connection.has_error()
            ):
                self.close()
            fresh = self._server is None
            if self._server is None:
                self._server = Server()
            server = self._server
            try:
                server.forget_events()
                return question(server)
            except server.xcffib.XcffibException as error:
                if isinstance(error, server.xcffib.Error):
                    raise
                self.close()
                if fresh or not again:
                    raise server.unreachable(error) from error
            return self.ask(question, again=False)

    def close(self) -> None:
        """Disconnect; the next question connects anew."""
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None
