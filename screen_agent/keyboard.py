"""Keys and text by keys, right for any keyboard layout (X11; through pyautogui elsewhere).

A layout has groups (languages), and in each of them a key has levels: 0 plain, 1 with Shift. What stands on other
levels (AltGr) or in no group is not typed: `typeable` says so, and the text can be pasted.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from groundlink.errors import ActionDenied, BadQuery, NoDisplay
from screen_agent.x11 import Link, Server, supported

KEYS: dict[str, int] = {
    "enter": 0xFF0D,
    "tab": 0xFF09,
    "space": 0x20,
    "backspace": 0xFF08,
    "delete": 0xFFFF,
    "insert": 0xFF63,
    "escape": 0xFF1B,
    "left": 0xFF51,
    "up": 0xFF52,
    "right": 0xFF53,
    "down": 0xFF54,
    "home": 0xFF50,
    "end": 0xFF57,
    "pageup": 0xFF55,
    "pagedown": 0xFF56,
    "shift": 0xFFE1,
    "ctrl": 0xFFE3,
    "alt": 0xFFE9,
    "super": 0xFFEB,
    "shiftright": 0xFFE2,
    "ctrlright": 0xFFE4,
    "altright": 0xFFEA,
    "superright": 0xFFEC,
    "altgr": 0xFE03,
    "menu": 0xFF67,
    "pause": 0xFF13,
    "printscreen": 0xFF61,
    "capslock": 0xFFE5,
    "numlock": 0xFF7F,
    "scrolllock": 0xFF14,
    "multiply": 0xFFAA,
    "add": 0xFFAB,
    "separator": 0xFFAC,
    "subtract": 0xFFAD,
    "decimal": 0xFFAE,
    "divide": 0xFFAF,
    "volumemute": 0x1008FF12,
    "volumedown": 0x1008FF11,
    "volumeup": 0x1008FF13,
    **{f"num{digit}": 0xFFB0 + digit for digit in range(10)},
    **{f"f{number}": 0xFFBD + number for number in range(1, 25)},
}
"""Names of keys and their X11 keysyms; any single printable character is a name too."""

ALIASES: dict[str, str] = {
    "return": "enter",
    "esc": "escape",
    "del": "delete",
    "ins": "insert",
    "pgup": "pageup",
    "pgdn": "pagedown",
    "pgdown": "pagedown",
    "page up": "pageup",
    "page down": "pagedown",
    "control": "ctrl",
    "ctl": "ctrl",
    "ctrlleft": "ctrl",
    "altleft": "alt",
    "option": "alt",
    "optionleft": "alt",
    "optionright": "altright",
    "shiftleft": "shift",
    "win": "super",
    "winleft": "super",
    "winright": "superright",
    "windows": "super",
    "meta": "super",
    "cmd": "super",
    "command": "super",
    "apps": "menu",
    "print": "printscreen",
    "prtsc": "printscreen",
    "prtscr": "printscreen",
    "prntscrn": "printscreen",
    "caps": "capslock",
    "spacebar": "space",
    "arrowleft": "left",
    "arrowright": "right",
    "arrowup": "up",
    "arrowdown": "down",
    "plus": "+",
    "minus": "-",
    "\n": "enter",
    "\r": "enter",
    "\t": "tab",
    " ": "space",
    "\b": "backspace",
    "\x1b": "escape",
}

# The names that pyautogui has for keys that are called differently here.
PYAUTOGUI = {
    "super": "command" if sys.platform == "darwin" else "win",
    "superright": "command" if sys.platform == "darwin" else "winright",
    "menu": "apps",
    "altgr": "altright",
}

EITHER_SIDE = {"shiftright": "shift", "ctrlright": "ctrl", "altright": "alt", "superright": "super"}
NAMES = {keysym: EITHER_SIDE.get(name, name) for name, keysym in KEYS.items()} | {
    0xFFE7: "alt",  # Meta, mostly on the same key as Alt.
    0xFFE8: "alt",
    0xFF8D: "enter",
}

PRESS, RELEASE = 2, 3
LOCK_BIT = 2
LOCKS = {0xFFE5, 0xFFE6}
HARMLESS = {0xFF7F, 0xFF14}
"""Num Lock and Scroll Lock: modifiers that change no letter."""
MODIFIERS = ("Shift", "Caps Lock", "Ctrl", "Alt", "Mod2", "Mod3", "Super", "AltGr")
KEYPAD = range(0xFF80, 0xFFBE)
PATIENCE = 0.5
"""Seconds that a modifier held by somebody has to come up."""


def key_name(name: str) -> str:
    """Return the one name of a key: "esc" and "Escape" are "escape"; a printable character is itself.

    Raises:
        BadQuery: there is no such key; the message lists near ones.
    """
    if len(name) == 1 and name.isprintable() and name != " ":
        return name
    low = name if name in ALIASES else name.strip().lower()
    low = ALIASES.get(low, low)
    if low in KEYS or (len(low) == 1 and low.isprintable()):
        return low
    near = difflib.get_close_matches(low, [*KEYS, *ALIASES], n=3, cutoff=0.5) or ["enter", "tab", "escape", "f1"]
    raise BadQuery(f"there is no key {name!r}; near ones: {', '.join(near)}; or give one character, such as 'a'")


def typeable(text: str) -> bool:
    """Return whether every character can be typed by a key, alone or with Shift, on the keyboard as it is now.

    Raises:
        NoDisplay: there is no X server.
        BackendUnavailable: xcffib is not installed.
    """
    if not supported():
        return all(character in "\n\t" or (" " <= character <= "~" and character != "<") for character in text)
    return _link.ask(lambda server: _Layout.read(server).types(text))


def type_keys(text: str, stop: Callable[[], None] | None = None) -> None:
    """Type a text by keys into whatever has the keyboard; "\\n" is Enter, "\\t" Tab. No key stays down.

    Args:
        text: what to type.
        stop: called before each character; what it raises ends the typing.

    Raises:
        BadQuery: a character is not on the keyboard (see `typeable`); nothing was typed.
        ActionDenied: somebody holds a modifier such as Ctrl down; nothing was typed.
        NoDisplay: there is no X server, or it takes no keys from programs.
        BackendUnavailable: xcffib is not installed.
    """
    if supported():
        _link.ask(lambda server: _type(server, text, stop), again=False)
        return
    if not typeable(text):
        raise BadQuery("the text has characters that cannot be typed by keys here; paste it")
    from screen_agent.pointer import pyautogui

    gui = pyautogui()
    for character in text:
        if stop is not None:
            stop()
        gui.write(character)


def press_keys(*names: str, stop: Callable[[], None] | None = None) -> None:
    """Press keys one after the other and release them in reverse, as for a shortcut: `press_keys("ctrl", "s")`.

    A key that needs Shift on this keyboard gets it. In a shortcut letters are those of the plain key ("ctrl", "S" is
    Ctrl+S without Shift); alone, "S" is Shift+S.

    Raises:
        BadQuery: there is no such key, or this keyboard does not have it.
        ActionDenied: somebody holds a modifier down.
        NoDisplay: there is no X server, or it takes no keys from programs.
        BackendUnavailable: xcffib is not installed.
    """
    with held_keys(*names, stop=stop):
        pass


@contextlib.contextmanager
def held_keys(*names: str, stop: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold keys down meanwhile; they come up in reverse order, whatever happens. Raises what `press_keys` raises."""
    keys = [key_name(name) for name in names]
    if not keys:
        raise BadQuery("give at least one key, such as 'enter'")
    if len(keys) > 1:
        keys = [key.lower() if len(key) == 1 else key for key in keys]
    if not supported():
        with _held_elsewhere(keys, stop):
            yield
        return
    down: list[int] = []
    try:
        _link.ask(lambda server: _press(server, keys, down, stop), again=False)
        yield
    finally:
        _link.ask(lambda server: _release(server, down), again=False)


def keys_down(server: Server) -> frozenset[str]:
    """Return the names of the keys that are held down now; "ctrl", "shift", "alt", "super" for either side."""
    state = server.core.QueryKeymap()
    layout = _Layout.ask(server)
    down = state.reply().keys
    codes = [code for code in range(256) if down[code // 8] >> code % 8 & 1]
    if not codes:
        layout.reply()
        return frozenset()
    return frozenset(filter(None, map(_Layout.of(server, layout.reply()).name, codes)))


_link = Link()
_held: list[int] = []
"""Key codes that this process holds down."""


def _keysym(character: str) -> int:
    """The keysym of a character: Latin-1 is itself, the rest is Unicode with a mark (the Euro has an older one)."""
    code = ord(character)
    if character == "\n":
        return KEYS["enter"]
    if character == "\t":
        return KEYS["tab"]
    if character == "€":
        return 0x20AC
    if 0x20 <= code <= 0x7E or 0xA0 <= code <= 0xFF:
        return code
    return 0x01000000 | code if code > 0xFF else 0


@dataclass(frozen=True)
class _Layout:
    """The keyboard now. `here`: keysym -> (key code, whether with Shift) in the current group; `anywhere`: in any."""

    here: dict[int, tuple[int, bool]]
    anywhere: dict[int, tuple[int, bool]]
    rows: dict[int, list[int]]
    mask: int

    @staticmethod
    def ask(server: Server) -> Any:
        setup = server.connection.setup
        return server.core.GetKeyboardMapping(setup.min_keycode, setup.max_keycode - setup.min_keycode + 1)

    @classmethod
    def read(cls, server: Server) -> _Layout:
        mapping = cls.ask(server)
        mask = server.core.QueryPointer(server.root)
        return cls.of(server, mapping.reply(), mask.reply().mask)

    @classmethod
    def of(cls, server: Server, mapping: Any, mask: int = 0) -> _Layout:
        width, first = mapping.keysyms_per_keycode, server.connection.setup.min_keycode
        keysyms = list(mapping.keysyms)
        rows = {first + n: keysyms[n * width : (n + 1) * width] for n in range(len(keysyms) // width)}
        group = mask >> 13 & 3
        here: dict[int, tuple[int, bool]] = {}
        anywhere: dict[int, tuple[int, bool]] = {}
        for code, row in rows.items():
            # Columns 0 and 1 are the first group's, 2 and 3 the second's; further groups have no fixed place.
            pair = row[2 * group : 2 * group + 2] if group < 2 else []
            if not any(pair) and group == 1:
                pair = row[:2]
            for level, keysym in enumerate(pair):
                # On the keypad Shift does other things, and its characters are on other keys as well.
                if keysym and not (level and any(key in KEYPAD for key in pair)):
                    here.setdefault(keysym, (code, bool(level)))
            for column, keysym in enumerate(row[:4]):
                if keysym:
                    anywhere.setdefault(keysym, (code, bool(column % 2)))
        return cls(here, anywhere, rows, mask)

    def types(self, text: str) -> bool:
        return all(_keysym(character) in self.here for character in text)

    def name(self, code: int) -> str | None:
        for keysym in self.rows.get(code, ()):
            if keysym in NAMES:
                return NAMES[keysym]
            if 0x21 <= keysym <= 0x7E:
                return chr(keysym).lower()
        return None

    def find(self, key: str) -> tuple[int, bool]:
        keysym = KEYS[key] if key in KEYS else _keysym(key)
        place = self.here.get(keysym) or self.anywhere.get(keysym)
        if place is None:
            raise BadQuery(f"this keyboard has no key {key!r}; use another, or paste the text")
        return place


def _send(server: Server, kind: int, code: int) -> None:
    server.connection(server.xtest.key).FakeInput(kind, code, 0, 0, 0, 0, 0)


def _down(server: Server, code: int) -> None:
    _held.append(code)
    _send(server, PRESS, code)


def _up(server: Server, code: int) -> None:
    _send(server, RELEASE, code)
    _held.remove(code)


def _modifiers(server: Server) -> list[set[int]]:
    """The key codes of each of the eight modifiers."""
    mapping = server.core.GetModifierMapping().reply()
    codes, each = list(mapping.keycodes), len(mapping.keycodes) // 8
    return [set(codes[bit * each : (bit + 1) * each]) - {0} for bit in range(8)]


def _ready(server: Server) -> _Layout:
    """The layout, once no modifier is down but those held by this process, and Caps Lock aside."""
    if not server.has("XTEST"):
        raise NoDisplay("this X server takes no keys from programs (it lacks XTEST)")
    modifiers = _modifiers(server)
    end = time.monotonic() + PATIENCE
    while True:
        layout = _Layout.read(server)
        strange = [
            bit
            for bit, codes in enumerate(modifiers)
            if layout.mask >> bit & 1
            and bit != 1
            and not codes & set(_held)
            and not (codes and all(HARMLESS.intersection(layout.rows.get(code, ())) for code in codes))
        ]
        if not strange:
            return layout
        if time.monotonic() > end:
            names = " and ".join(MODIFIERS[bit] for bit in strange)
            raise ActionDenied(f"{names} is held down, so other keys would arrive than asked for; release it first")
        time.sleep(0.01)


def _tap(server: Server, code: int) -> None:
    _down(server, code)
    _up(server, code)


def _type(server: Server, text: str, stop: Callable[[], None] | None) -> None:
    layout = _ready(server)
    strange = next((character for character in text if _keysym(character) not in layout.here), None)
    if strange is not None:
        raise BadQuery(f"{strange!r} is on no key of this keyboard; paste the text")
    shift = next(iter(_modifiers(server)[0]), 0)
    if layout.mask & LOCK_BIT:
        caps = next((code for code, row in layout.rows.items() if LOCKS.intersection(row)), 0)
        if not caps:
            raise ActionDenied("Caps Lock is on and this keyboard has no key for it; turn it off, or paste the text")
    else:
        caps = 0
    if caps:
        _tap(server, caps)
    try:
        if caps and server.core.QueryPointer(server.root).reply().mask & LOCK_BIT:
            raise ActionDenied("Caps Lock is on and cannot be turned off by its key; turn it off, or paste the text")
        for character in text:
            if stop is not None:
                stop()
            code, shifted = layout.here[_keysym(character)]
            pressed = [shift, code] if shifted else [code]
            try:
                for key in pressed:
                    _down(server, key)
            finally:
                _release(server, pressed)
    finally:
        if caps:
            _tap(server, caps)
        server.sync()


def _press(server: Server, keys: list[str], down: list[int], stop: Callable[[], None] | None) -> None:
    layout = _ready(server)
    places = [layout.find(key) for key in keys]
    shifts = _modifiers(server)[0]
    for code, shifted in places:
        if stop is not None:
            stop()
        if shifted and not shifts & set(_held):
            shift = layout.find("shift")[0]
            down.append(shift)
            _down(server, shift)
        if code not in down:
            down.append(code)
            _down(server, code)
    server.sync()


def _release(server: Server, down: list[int]) -> None:
    """Release these keys, the last first; wait until the server has done it."""
    for code in reversed(down):
        if code in _held:
            _up(server, code)
    server.sync()


@contextlib.contextmanager
def _held_elsewhere(keys: list[str], stop: Callable[[], None] | None) -> Iterator[None]:
    from screen_agent.pointer import pyautogui

    gui = pyautogui()
    names = [PYAUTOGUI.get(key, key) for key in keys]
    for name in names:
        if name not in gui.KEYBOARD_KEYS:
            raise BadQuery(f"this system has no key {name!r}; use another, or paste the text")
    down: list[str] = []
    try:
        for name in names:
            if stop is not None:
                stop()
            down.append(name)
            gui.keyDown(name)
        yield
    finally:
        for name in reversed(down):
            # The library's own keyUp refuses while the pointer is in a corner, and would leave the key down.
            gui.platformModule._keyUp(name)
