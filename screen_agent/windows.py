"""The windows on the screen: which there are, which one is under a pixel, which one has the keyboard (X11)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any

from groundlink.detections import Box
from groundlink.errors import BadQuery, NoDisplay, TargetAmbiguous, TargetNotFound
from groundlink.image import printable
from screen_agent import keyboard
from screen_agent.x11 import INPUT_ONLY, VIEWABLE, Link, Server, supported

__all__ = ["Window", "Windows", "supported"]

ALL_WORKSPACES = 0xFFFFFFFF
NAMED_IN_MESSAGES = 12
TRIES = 5


@dataclass(frozen=True)
class Window:
    """A window as it was when it was asked for.

    Attributes:
        id: its number in X11.
        title: what stands in its frame; "" where it has none. That of its owner for a popup without one.
        box: its contents without the frame, in desktop pixels; it may reach outside of the screen.
        pid: the process that it says it belongs to, else the one that the X server knows; None where neither does.
        owner: id of the client window it belongs to: its own for an ordinary window, that of the program's window
            for a menu, list or tooltip, 0 where that is unknown.
    """

    id: int
    title: str
    box: Box
    pid: int | None
    owner: int = 0

    def part(self, x1: float, y1: float, x2: float, y2: float) -> Box:
        """Return a part of the window in desktop pixels: `part(0, 0, 1, 0.5)` is its upper half.

        Raises:
            BadQuery: these are not corners in order, each number within 0…1.
        """
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise BadQuery(
                f"({x1}, {y1}, {x2}, {y2}) is no part of a window: give x1 < x2 and y1 < y2, each within 0…1"
            )
        left, top, right, bottom = self.box
        width, height = right - left, bottom - top
        return (left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height)


@dataclass(frozen=True)
class _Facts:
    """What is read of one window. `shown`: mapped, on this workspace, on the screen and larger than one pixel."""

    window: Window
    shown: bool
    popup: bool
    input_only: bool
    kind: str
    transient_for: int


class Windows:
    """The windows of the X server of $DISPLAY. Safe to use from several threads.

    Every method raises NoDisplay where there is no X server (or this is not a system with X11) and
    BackendUnavailable where xcffib is not installed. A window that vanishes meanwhile is as if it had not been there.
    """

    def __init__(self) -> None:
        if not supported():
            raise NoDisplay("windows can be found by their title on X11 only; give region= instead")
        self._link = Link()

    def close(self) -> None:
        """Disconnect; the next question connects anew."""
        self._link.close()

    def all(self) -> list[Window]:
        """Return the programs' windows that are shown (not minimised, on this workspace), topmost first."""
        return self._link.ask(_all)

    def find(self, title: str) -> Window:
        """Return the window of this title: exactly this, else the only one with it as a part, capitals ignored.

        Raises:
            BadQuery: the title is empty.
            TargetNotFound: there is none; the message names those that are there.
            TargetAmbiguous: there are several; the message lists them.
        """
        if not title.strip():
            raise BadQuery("the title of a window is needed, but it is empty")
        windows = self.all()
        wanted = title.casefold()
        found = [window for window in windows if window.title == title]
        found = found or [window for window in windows if wanted in window.title.casefold()]
        if not found:
            there = _listed(windows) or "there are none"
            raise TargetNotFound(
                f"no window is called {printable(title)!r} (minimised ones do not count); these are here: {there}"
            )
        if len(found) > 1:
            raise TargetAmbiguous(
                f"{len(found)} windows are called {printable(title)!r}: {_listed(found)}; give more of the title"
            )
        return found[0]

    def at(self, x: float, y: float) -> Window | None:
        """Return the topmost window under this desktop pixel, menus and tooltips included; None for the bare desktop.

        A frame counts as the window it holds.
        """
        return self._link.ask(lambda server: _at(server, math.floor(x), math.floor(y)))

    def focused(self) -> Window | None:
        """Return the window that gets what is typed, None where none does."""
        return self._link.ask(_focused)

    def current(self, id: int) -> Window | None:
        """Return the window of this number as it is now, None when it is gone, minimised or elsewhere."""
        return self._link.ask(lambda server: _current(server, id))

    def activate(self, window: Window) -> None:
        """Raise the window (for a popup: its owner) and give it the keyboard. A window that is gone is left alone."""
        self._link.ask(lambda server: _activate(server, window.owner or window.id))

    def pointer(self) -> tuple[int, int]:
        """Return where the pointer is, in desktop pixels."""

        def ask(server: Server) -> tuple[int, int]:
            place = server.core.QueryPointer(server.root).reply()
            return place.root_x, place.root_y

        return self._link.ask(ask)

    def keys_down(self) -> frozenset[str]:
        """Return the names of the keys that are held down now, "ctrl" for either of the two; sent keys count too."""
        return self._link.ask(keyboard.keys_down)

    def tooltips(self) -> list[Box]:
        """Return the boxes of the tooltips that are shown."""
        return self._link.ask(_tooltips)

    def is_xwayland(self) -> bool:
        """Return whether this X server is a guest of a Wayland desktop, whose other windows it cannot see."""
        return self._link.ask(_is_xwayland)


def _listed(windows: list[Window]) -> str:
    names = [repr(printable(window.title)) for window in windows if window.title]
    more = f" and {len(names) - NAMED_IN_MESSAGES} more" if len(names) > NAMED_IN_MESSAGES else ""
    return ", ".join(names[:NAMED_IN_MESSAGES]) + more


def _facts(server: Server, ids: list[int]) -> list[_Facts | None]:
    """Read windows, None for one that is gone."""
    core, root = server.core, server.root
    workspace = server.ask(root, "_NET_CURRENT_DESKTOP")
    screen = core.GetGeometry(root)
    asked = [
        (
            _ask_process(server, id),
            core.GetWindowAttributes(id),
            core.GetGeometry(id),
            core.TranslateCoordinates(id, root, 0, 0),
            server.ask(id, "_NET_WM_NAME"),
            server.ask(id, "WM_NAME"),
            *(
                server.ask(id, name)
                for name in (
                    "_NET_WM_PID",
                    "_NET_WM_STATE",
                    "_NET_WM_DESKTOP",
                    "_NET_WM_WINDOW_TYPE",
                    "WM_TRANSIENT_FOR",
                    "_GTK_FRAME_EXTENTS",
                )
            ),
        )
        for id in ids
    ]
    here = server.numbers(workspace)[:1]
    screen = screen.reply()
    hidden, desktop, tooltip = server.atoms(
        "_NET_WM_STATE_HIDDEN", "_NET_WM_WINDOW_TYPE_DESKTOP", "_NET_WM_WINDOW_TYPE_TOOLTIP"
    )
    facts: list[_Facts | None] = []
    for id, (process, attributes, geometry, origin, name, old_name, *properties) in zip(ids, asked, strict=True):
        how, size, place = server.reply(attributes), server.reply(geometry), server.reply(origin)
        title = _title(server, server.words(name), server.words(old_name))
        pid, state, workspaces, kinds, transient, extents = (server.numbers(cookie) for cookie in properties)
        said = server.reply(process) if process is not None else None
        if how is None or size is None or place is None:
            facts.append(None)
            continue
        x1, y1 = place.dst_x, place.dst_y
        x2, y2 = x1 + size.width, y1 + size.height
        if len(extents) == 4 and extents[0] + extents[1] < x2 - x1 and extents[2] + extents[3] < y2 - y1:
            # A shadow that the program draws itself is no part of the window to its user.
            x1, x2, y1, y2 = x1 + extents[0], x2 - extents[1], y1 + extents[2], y2 - extents[3]
        shown = (
            how.map_state == VIEWABLE
            and hidden not in state
            and (not here or not workspaces or workspaces[0] in (here[0], ALL_WORKSPACES))
            and size.width * size.height > 1
            and x1 < screen.width
            and y1 < screen.height
            and x2 > 0
            and y2 > 0
        )
        facts.append(
            _Facts(
                window=Window(
                    id=id,
                    title=title,
                    box=(float(x1), float(y1), float(x2), float(y2)),
                    pid=pid[0] if pid else _process(said),
                    owner=id,
                ),
                shown=shown,
                popup=bool(how.override_redirect),
                input_only=how._class == INPUT_ONLY,
                kind="desktop" if desktop in kinds else "tooltip" if tooltip in kinds else "",
                transient_for=transient[0] if transient else 0,
            )
        )
    return facts


def _ask_process(server: Server, id: int) -> Any:
    """Ask the server which process a window's connection comes from; not every toolkit says so itself."""
    if not server.has("X-Resource"):
        return None
    spec = server.res.ClientIdSpec.synthetic(id, server.res.ClientIdMask.LocalClientPID)
    return server.connection(server.res.key).QueryClientIds(1, [spec])


def _process(said: Any) -> int | None:
    return next((int(value.value[0]) for value in said.ids if len(value.value)), None) if said is not None else None


def _title(server: Server, name: tuple[bytes, int], old_name: tuple[bytes, int]) -> str:
    """The title of `_NET_WM_NAME`, else of WM_NAME, which is Latin-1 unless it says otherwise."""
    if name[0]:
        return name[0].decode("utf-8", "replace").rstrip("\0")
    data, kind = old_name
    try:
        text = data.decode("latin-1" if kind == server.atom("STRING") else "utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.rstrip("\0")


def _managed(server: Server) -> bool:
    """Whether a window manager of the modern kind is alive; one that died leaves its lists behind."""
    check = server.numbers(server.ask(server.root, "_NET_SUPPORTING_WM_CHECK"))
    return bool(check) and server.numbers(server.ask(check[0], "_NET_SUPPORTING_WM_CHECK")) == check


def _clients(server: Server) -> list[int]:
    """The programs' own windows, topmost first."""
    stacking = server.ask(server.root, "_NET_CLIENT_LIST_STACKING")
    if _managed(server):
        clients = server.numbers(stacking)
        if clients:
            return clients[::-1]
    else:
        server.numbers(stacking)
    # Without such a manager: the windows on the root that are not popups, or that an old manager's frames hold.
    core = server.core
    tops = core.QueryTree(server.root).reply().children
    attributes = [core.GetWindowAttributes(top) for top in tops]
    found = []
    for top, cookie in zip(tops, attributes, strict=True):
        facts = server.reply(cookie)
        if facts is None or facts.map_state != VIEWABLE or facts._class == INPUT_ONLY:
            continue
        client = _held(server, top, None)
        if client or not facts.override_redirect:
            found.append(client or top)
    return found[::-1]


def _held(server: Server, top: int, clients: set[int] | None) -> int:
    """The client window that a window on the root is or holds, 0 where none; by WM_STATE without a list."""
    level = [top]
    for _ in range(3):
        if clients is not None:
            matching = [window for window in level if window in clients]
        else:
            states = [server.ask(window, "WM_STATE", longs=1) for window in level]
            matching = [window for window, state in zip(level, states) if server.numbers(state)]
        if matching:
            return matching[0]
        trees = [server.core.QueryTree(window) for window in level[:64]]
        level = [child for cookie in trees if (tree := server.reply(cookie)) is not None for child in tree.children]
        if not level:
            break
    return 0


def _top(server: Server, window: int) -> int:
    """The window on the root that holds this one, 0 where it is gone."""
    for _ in range(32):
        tree = server.reply(server.core.QueryTree(window))
        if tree is None or tree.parent == 0:
            return 0
        if tree.parent == server.root:
            return window
        window = tree.parent
    return 0


def _all(server: Server) -> list[Window]:
    return [
        facts.window
        for facts in _facts(server, _clients(server))
        if facts is not None and facts.shown and facts.kind != "desktop"
    ]


def _resolved(server: Server, top: int, clients: list[int]) -> Window | None:
    """The window that a window on the root stands for: the client in it, or a popup with its owner."""
    client = _held(server, top, set(clients))
    facts = _facts(server, [client or top])[0]
    if facts is None or not facts.shown or facts.kind == "desktop":
        return None
    if client:
        return facts.window
    return _with_owner(server, facts, clients)


def _with_owner(server: Server, facts: _Facts, clients: list[int]) -> Window | None:
    window = facts.window
    owner = _owner(server, facts, clients)
    if not owner:
        if facts.input_only:
            # A manager's own, in front of the windows that it hides and behind all others: the bare desktop.
            screen = server.core.GetGeometry(server.root).reply()
            if window.box == (0, 0, screen.width, screen.height):
                return None
        return replace(window, owner=0)
    title = window.title
    if not title:
        title = _title(
            server, server.words(server.ask(owner, "_NET_WM_NAME")), server.words(server.ask(owner, "WM_NAME"))
        )
    return replace(window, owner=owner, title=title)


def _owner(server: Server, facts: _Facts, clients: list[int]) -> int:
    """The client window that a popup belongs to: named by it, else of the same program."""
    named = facts.transient_for
    for _ in range(4):
        if named in clients:
            return named
        if not named or named == server.root:
            break
        # The popup of a popup.
        named = next(iter(server.numbers(server.ask(named, "WM_TRANSIENT_FOR"))), 0)
    program = server.program(facts.window.id)
    same = [client for client in clients if server.program(client) == program]
    if not same and facts.window.pid is not None:
        pids = [server.ask(client, "_NET_WM_PID") for client in clients]
        same = [client for client, pid in zip(clients, pids) if server.numbers(pid) == [facts.window.pid]]
    if len(same) > 1:
        active = server.numbers(server.ask(server.root, "_NET_ACTIVE_WINDOW"))[:1]
        same = [client for client in same if [client] == active] or same
    return same[0] if same else 0


def _at(server: Server, x: int, y: int) -> Window | None:
    screen = server.core.GetGeometry(server.root)
    if not (-32768 <= x <= 32767 and -32768 <= y <= 32767):
        screen.reply()
        return None
    screen, before = screen.reply(), 0
    if not (0 <= x < screen.width and 0 <= y < screen.height):
        return None
    for _ in range(TRIES):
        # The server knows what is on top there, and respects the shapes of windows.
        child = server.core.TranslateCoordinates(server.root, server.root, x, y).reply().child
        if not child or child == before:
            break
        window = _resolved(server, child, _clients(server))
        if window is not None:
            return window
        # The desktop's own window; or one that vanished just now, and another is there.
        before = child
    return None


def _focused(server: Server) -> Window | None:
    focus = server.core.GetInputFocus()
    active_window = server.ask(server.root, "_NET_ACTIVE_WINDOW")
    focus, clients = focus.reply().focus, _clients(server)
    active = next((id for id in server.numbers(active_window) if id in clients), 0)
    if active and (focus <= 1 or server.program(focus) == server.program(active)):
        return _current(server, active)
    if focus == 1:
        # The keyboard follows the pointer.
        place = server.core.QueryPointer(server.root).reply()
        return _resolved(server, place.child, clients) if place.child else None
    # The manager's word may be late, or a popup has taken the keyboard.
    top = _top(server, focus) if focus else 0
    return (_resolved(server, top, clients) if top else None) or (_current(server, active) if active else None)


def _current(server: Server, id: int) -> Window | None:
    facts = _facts(server, [id])[0]
    if facts is None or not facts.shown:
        return None
    clients = _clients(server)
    if id in clients:
        return facts.window
    return _with_owner(server, facts, clients)


def _activate(server: Server, id: int) -> None:
    core, proto = server.core, server.proto
    if server.reply(core.GetWindowAttributes(id)) is None:
        return
    if not _managed(server):
        server.done(core.ConfigureWindowChecked(id, proto.ConfigWindow.StackMode, [proto.StackMode.Above]))
        server.done(core.SetInputFocusChecked(proto.InputFocus.Parent, id, 0))
        return
    # A client message of format 32. Source 2 is a tool of the user's, which managers do not hold back as they may
    # hold back a program that raises itself.
    message = struct.pack("=BBHII5I", 33, 32, 0, id, server.atom("_NET_ACTIVE_WINDOW"), 2, 0, 0, 0, 0)
    mask = proto.EventMask.SubstructureRedirect | proto.EventMask.SubstructureNotify
    server.done(core.SendEventChecked(False, server.root, mask, message))


def _tooltips(server: Server) -> list[Box]:
    tops = list(server.core.QueryTree(server.root).reply().children)
    ids = list(dict.fromkeys(tops + _clients(server)))
    kinds = [server.ask(id, "_NET_WM_WINDOW_TYPE") for id in ids]
    tooltip = server.atom("_NET_WM_WINDOW_TYPE_TOOLTIP")
    found = [id for id, kind in zip(ids, kinds) if tooltip in server.numbers(kind)]
    return [facts.window.box for facts in _facts(server, found) if facts is not None and facts.shown]


def _is_xwayland(server: Server) -> bool:
    if server.has("XWAYLAND"):
        return True
    if not server.has("RANDR"):
        return False
    randr = server.connection(server.randr.key)
    resources = server.reply(randr.GetScreenResourcesCurrent(server.root))
    if resources is None:
        return False
    cookies = [randr.GetOutputInfo(output, resources.config_timestamp) for output in resources.outputs]
    outputs = [server.reply(cookie) for cookie in cookies]
    return any(bytes(output.name).upper().startswith(b"XWAYLAND") for output in outputs if output is not None)
