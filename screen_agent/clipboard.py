"""Pasting a text that the clipboard lends for a moment: what was in it is put back.

On X11 the clipboard is no store: a program that "has" it hands its content over to whoever asks. So this becomes that
program, hands out the text, and knows when it was fetched; putting the old content back earlier would paste that.
"""

from __future__ import annotations

import contextlib
import importlib
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from groundlink.errors import BackendUnavailable, BadQuery, GroundlinkError
from screen_agent.x11 import Server, supported

MAX_CHARACTERS = 50_000
QUIET = 0.1
"""Seconds without a request after which a paste is over: programs ask for several forms, one after the other."""
UNDELETED = 0.3
"""Seconds after which what was handed over counts as fetched, by a reader that does not tidy up."""
HELPER_SECONDS = 3.0
META = {"TARGETS", "TIMESTAMP", "MULTIPLE", "SAVE_TARGETS", "DELETE", "INSERT_SELECTION", "INSERT_PROPERTY"}
TEXTS = ("UTF8_STRING", "text/plain;charset=utf-8", "STRING", "TEXT", "text/plain", "COMPOUND_TEXT")
BEST = ("x-special/gnome-copied-files", *TEXTS, "image/png", "text/uri-list", "text/html", "image/jpeg", "image/bmp")


def paste(text: str, press: Callable[[], None], timeout: float = 2.0) -> bool:
    """Put a text on the clipboard, press the keys that paste it, and put back what was there.

    Put back is the text that was there, or another form of content, such as one image/png; what came in several forms
    (a text with its formatting) keeps the plainest. If somebody else copies something meanwhile, that stays. Elsewhere
    than on X11 only a text is put back, and whether it was fetched is not known (taken as yes).

    Args:
        text: at most 50 000 characters.
        press: what makes the program paste, such as Ctrl+V; what it raises comes through, with the clipboard restored.
        timeout: seconds to wait for the text to be fetched.

    Returns:
        Whether anybody fetched it.

    Raises:
        BadQuery: the text is too long, or has a character that no text has; nothing was touched.
        BackendUnavailable: xclip is missing and there is something to be put back, or xcffib is; nothing was touched.
        GroundlinkError: the clipboard cannot be read or taken; nothing was pressed.
        NoDisplay: there is no X server.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadQuery(f"the text has {len(text)} characters, but at most {MAX_CHARACTERS} can be pasted; split it")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise BadQuery("the text has half a character (a lone surrogate), which cannot be pasted") from error
    if "\0" in text:
        raise BadQuery("the text has a NUL character, which cannot be pasted")
    if not supported():
        return _paste_elsewhere(text, press)
    server = Server()
    try:
        return _paste(server, data, press, timeout)
    except server.xcffib.XcffibException as error:
        raise server.unreachable(error) from error
    finally:
        server.close()


def _paste(server: Server, data: bytes, press: Callable[[], None], timeout: float) -> bool:
    clipboard = server.atom("CLIPBOARD")
    saved = None
    if server.core.GetSelectionOwner(clipboard).reply().owner:
        if shutil.which("xclip") is None:
            raise BackendUnavailable(
                "pasting keeps what is on the clipboard through xclip, which is not installed: apt install xclip"
            )
        saved = _save()
    lender = _Lender(server, data)
    lender.take()
    lender.start()
    try:
        press()
        return lender.wait(timeout)
    finally:
        lender.stop()
        if lender.is_ours():
            if saved is not None:
                _restore(*saved)
                lender.see_off()
            else:
                lender.give_up()


def _save() -> tuple[str, bytes] | None:
    """What is on the clipboard, in its best form: (target, content); None where its owner has nothing."""
    targets = _xclip("-o", "-t", "TARGETS").decode("utf-8", "replace").split()
    forms = [target for target in targets if target not in META]
    forms.sort(key=lambda target: BEST.index(target) if target in BEST else len(BEST))
    for target in forms:
        content = _xclip("-o", "-t", target)
        if content:
            return target, content
    return None


def _xclip(*arguments: str) -> bytes:
    command = ["xclip", "-selection", "clipboard", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GroundlinkError(
            "what is on the clipboard cannot be kept, because the program that it is from does not answer; "
            "close that program, or copy something else"
        ) from error
    return done.stdout if done.returncode == 0 else b""


def _restore(target: str, content: bytes) -> None:
    # It goes on in the background, with its output open: given a pipe, whoever reads that would wait for ever.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["xclip", "-selection", "clipboard", "-i", "-t", target],
            input=content,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_SECONDS,
            start_new_session=True,
            check=False,
        )


class _Lender:
    """The owner of the clipboard for a moment; a thread answers the requests."""

    def __init__(self, server: Server, data: bytes) -> None:
        self._server, self._data = server, data
        self._window = server.connection.generate_id()
        screen = server.connection.setup.roots[server.connection.pref_screen]
        proto = server.proto
        server.core.CreateWindow(
            0, self._window, server.root, -1, -1, 1, 1, 0, 0, screen.root_visual,
            proto.CW.EventMask, [proto.EventMask.PropertyChange],
        )  # fmt: skip
        self._time = 0
        self._lost = False
        self._ending = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="groundlink-clipboard", daemon=True)
        # Which program has the keyboard, and so is to paste; others, that keep a history of copies, fetch as well.
        focus = server.core.GetInputFocus().reply().focus
        self._reader = server.program(focus) if focus > 1 else 0
        self._pending: dict[tuple[int, int], float] = {}
        self._fetched_by: set[int] = set()
        self._last = 0.0

    def take(self) -> None:
        """Become the owner, as of the server's time now."""
        server = self._server
        stamp = server.atom("GROUNDLINK_TIME")
        server.core.ChangeProperty(server.proto.PropMode.Append, self._window, stamp, stamp, 8, 0, b"")
        server.connection.flush()
        end = time.monotonic() + HELPER_SECONDS
        while not self._time:
            event = server.connection.poll_for_event()
            if isinstance(event, server.proto.PropertyNotifyEvent):
                self._time = event.time
            elif time.monotonic() > end:
                raise GroundlinkError("the X server does not answer; the clipboard cannot be taken")
            elif event is None:
                time.sleep(0.001)
        clipboard = server.atom("CLIPBOARD")
        server.core.SetSelectionOwner(self._window, clipboard, self._time)
        if server.core.GetSelectionOwner(clipboard).reply().owner != self._window:
            raise GroundlinkError("another program holds on to the clipboard; try again")

    def start(self) -> None:
        """Answer requests from now on."""
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait until the program with the keyboard has read the text and asks no more; return whether any has."""
        end = time.monotonic() + timeout
        with self._changed:
            while not self._lost and (left := end - time.monotonic()) > 0:
                for (window, atom), since in list(self._pending.items()):
                    if time.monotonic() - since > UNDELETED:
                        del self._pending[window, atom]
                        self._fetched_by.add(self._server.program(window))
                fetched = self._reader in self._fetched_by if self._reader else bool(self._fetched_by)
                quiet = self._last + QUIET - time.monotonic()
                if fetched and not self._pending and quiet <= 0:
                    break
                self._changed.wait(min(left, max(quiet, 0.005) if fetched else 0.05))
            return bool(self._fetched_by)

    def stop(self) -> None:
        """Answer no more."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def is_ours(self) -> bool:
        """Return whether nobody else has taken the clipboard."""
        if self._lost:
            return False
        owner = self._server.core.GetSelectionOwner(self._server.atom("CLIPBOARD")).reply().owner
        return bool(owner == self._window)

    def see_off(self) -> None:
        """Wait until the helper has taken over: it returns a moment before, and the clipboard would seem empty."""
        end = time.monotonic() + HELPER_SECONDS
        while self.is_ours() and time.monotonic() < end:
            time.sleep(0.002)

    def give_up(self) -> None:
        """Leave the clipboard empty."""
        self._server.core.SetSelectionOwner(0, self._server.atom("CLIPBOARD"), self._time)
        self._server.sync()

    def _serve(self) -> None:
        server = self._server
        file = server.connection.get_file_descriptor()
        while not self._ending.is_set():
            try:
                event = server.connection.poll_for_event()
            except server.xcffib.Error:
                # A window that asked is gone.
                continue
            except server.xcffib.XcffibException:
                with self._changed:
                    self._lost = True
                    self._changed.notify_all()
                return
            if event is None:
                select.select([file], [], [], 0.02)
                continue
            with self._changed:
                self._hear(event)
                self._changed.notify_all()

    def _hear(self, event: Any) -> None:
        proto = self._server.proto
        if isinstance(event, proto.SelectionClearEvent):
            self._lost = True
        elif isinstance(event, proto.SelectionRequestEvent):
            self._answer(event)
        elif (
            # The reader deletes the property when it has read it.
            isinstance(event, proto.PropertyNotifyEvent)
            and event.state == proto.Property.Delete
            and self._pending.pop((event.window, event.atom), None) is not None
        ):
            self._fetched_by.add(self._server.program(event.window))
            self._last = time.monotonic()

    def _answer(self, request: Any) -> None:
        server, proto = self._server, self._server.proto
        self._last = time.monotonic()
        place = request.property or request.target
        names = ["TARGETS", "TIMESTAMP", "UTF8_STRING", "text/plain;charset=utf-8", "text/plain", "TEXT", "STRING"]
        # Programs that keep a history of copies leave out what carries this.
        names.append("x-kde-passwordManagerHint")
        numbers = dict(zip(names, server.atoms(*names)))
        latin = self._data.decode().encode("latin-1", "ignore")
        if not self._data.isascii() and len(latin.decode("latin-1").encode()) != len(self._data):
            del numbers["STRING"]
        name = next((name for name, number in numbers.items() if number == request.target), "")
        kind, width, content = request.target, 8, self._data
        if name == "TARGETS":
            kind, width, content = server.atom("ATOM"), 32, struct.pack(f"={len(numbers)}I", *numbers.values())
        elif name == "TIMESTAMP":
            kind, width, content = server.atom("INTEGER"), 32, struct.pack("=I", self._time)
        elif name == "TEXT":
            kind = numbers["UTF8_STRING"]
        elif name == "STRING":
            content = latin
        elif name == "x-kde-passwordManagerHint":
            content = b"secret"
        elif not name:
            place = 0
        if place:
            mask = proto.EventMask.PropertyChange
            server.core.ChangeWindowAttributes(request.requestor, proto.CW.EventMask, [mask])
            count = len(content) * 8 // width
            server.core.ChangeProperty(proto.PropMode.Replace, request.requestor, place, kind, width, count, content)
            if content is self._data or content is latin:
                self._pending[request.requestor, place] = self._last
        notice = struct.pack(
            "=BxHIIIII8x", 31, 0, request.time, request.requestor, request.selection, request.target, place
        )
        server.core.SendEvent(False, request.requestor, 0, notice)
        server.connection.flush()


def _paste_elsewhere(text: str, press: Callable[[], None]) -> bool:
    try:
        pyperclip: Any = importlib.import_module("pyperclip")
    except ImportError as error:
        raise BackendUnavailable("pasting needs pyperclip: pip install 'groundlink[screen]'") from error
    try:
        before = pyperclip.paste()
        pyperclip.copy(text)
        try:
            press()
            # Nothing here says when it was fetched.
            time.sleep(0.5)
        finally:
            if pyperclip.paste().replace("\r\n", "\n") == text.replace("\r\n", "\n"):
                pyperclip.copy(before)
    except pyperclip.PyperclipException as error:
        raise GroundlinkError(f"the clipboard cannot be used ({error})") from error
    return True
