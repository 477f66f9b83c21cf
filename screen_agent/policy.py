"""What an agent may do: the owner's policy, and the guard that holds every act to it.

Names of keys are those of `normal_key`: "ctrl", "enter", "escape", "a"; common other names are understood.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from groundlink.detections import Box
from groundlink.errors import ActionDenied, BadQuery, Cancelled, NoDisplay
from groundlink.image import printable
from screen_agent.words import DENY_WORDS, folds_to_nothing, matches, matches_in

_SAME_KEY = {
    "control": "ctrl",
    "ctl": "ctrl",
    "controll": "ctrl",
    "controlr": "ctrl",
    "ctrll": "ctrl",
    "ctrlr": "ctrl",
    "option": "alt",
    "opt": "alt",
    "altl": "alt",
    "altr": "alt",
    "altgr": "alt",
    "isolevel3shift": "alt",
    "cmd": "super",
    "command": "super",
    "win": "super",
    "windows": "super",
    "meta": "super",
    "superl": "super",
    "superr": "super",
    "shiftl": "shift",
    "shiftr": "shift",
    "return": "enter",
    "kpenter": "enter",
    "numpadenter": "enter",
    "\n": "enter",
    "\r": "enter",
    "esc": "escape",
    "del": "delete",
    "kpdelete": "delete",
    "\x7f": "delete",
    "spacebar": "space",
    " ": "space",
    "\t": "tab",
    "bs": "backspace",
    "\b": "backspace",
    "pgup": "pageup",
    "prior": "pageup",
    "pgdn": "pagedown",
    "pgdown": "pagedown",
    "next": "pagedown",
    "ins": "insert",
    "arrowleft": "left",
    "arrowright": "right",
    "arrowup": "up",
    "arrowdown": "down",
}
_STRONG = frozenset({"ctrl", "alt", "super"})
_HARMLESS = frozenset(
    [
        "shift",
        "tab",
        "escape",
        "home",
        "end",
        "left",
        "right",
        "up",
        "down",
        "pageup",
        "pagedown",
        "insert",
        "backspace",
    ]
)
"""Keys that move or type, as do those of one character. Any other asks: its effect is the program's own, as with F8,
which deletes in a file manager, or is not known."""

_LINE_ENDS = frozenset("\n\r\x0b\x0c\x85\u2028\u2029")
_MINUTE = 60.0


def normal_key(name: str) -> str:
    """Return the one name of a key: "ctrl" for "Control_L", "ctrlleft" and "Ctrl"."""
    if len(name) > 1:
        name = "".join(letter for letter in name if letter not in "_- ").casefold() or name
        for side in ("left", "right"):
            if name.endswith(side) and name != side and not name.startswith("arrow"):
                name = name.removesuffix(side)
    return _SAME_KEY.get(name, name.casefold())


def split_chord(chord: str) -> tuple[str, ...]:
    """Return the normal names of the keys of "ctrl+shift+s"; "ctrl++" is Ctrl with plus. Empty for no key."""
    if chord == "+":
        return ("+",)
    names = [*chord[:-2].split("+"), "+"] if chord.endswith("++") else chord.split("+")
    names = [name.strip() or name for name in names]
    return tuple(map(normal_key, names)) if all(names) else ()


def default_stop_file() -> Path:
    """Return where the emergency stop is looked for: one file per user, on Linux `/run/user/UID/groundlink-stop`.

    It is in the user's runtime folder (`XDG_RUNTIME_DIR`) where there is one; else in the temporary folder, with the
    user's number in its name where others share that folder. Another user could make that one, and by it only stop us.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and Path(runtime).is_dir():
        return Path(runtime) / "groundlink-stop"
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"groundlink-stop{user}"


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a person, or whoever stands in for one, is asked to allow.

    Attributes:
        action: "click", "type", "press", "hotkey", "drag", …
        target: the description, or the keys; empty where there is none.
        text: what would be typed; None where nothing is, or where it is a secret.
        words: the words of the deny-list that were found.
        why: one sentence for a person: 'the text "Delete account" at the target holds "delete"'.
        box: the target in desktop pixels, None where there is none.
        picture: the screen with the target, None where there is none.
    """

    action: str
    target: str = ""
    text: str | None = None
    words: tuple[str, ...] = ()
    why: str = ""
    box: Box | None = None
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Policy:
    """What an agent may do, set by its owner.

    Attributes:
        dry_run: everything is looked up and nothing is done.
        windows: parts of titles, upper and lower case alike, of the windows that may be acted in; None for any. A page
            can choose the title of the browser that shows it: this keeps the agent from mistakes, not from attacks.
        monitors: numbers of monitors from 1, as in capture; None for any.
        regions: boxes `(x1, y1, x2, y2)` in desktop pixels, the second corner outside; None for any.
        deny: words that need a confirmation, as `screen_agent.words.matches` takes them; () for none.
        confirm: asked what needs a confirmation, and answers True or False; None: all of that is refused.
        allow_keys: keys and hotkeys that need no confirmation, as "enter" or "ctrl+s", in any order and spelling.
        max_per_minute: most acts in any 60 seconds; None for no limit.
        stop_file: while this file exists, nothing is done; None for none.
        stop_keys: held together, these keys stop the agent (X11); None for none.
        secrets_on_clipboard: whether a secret may be typed by way of the clipboard.

    Raises:
        BadQuery: a value that cannot be meant; the message names it.
    """

    dry_run: bool = False
    windows: tuple[str, ...] | None = None
    monitors: tuple[int, ...] | None = None
    regions: tuple[Box, ...] | None = None
    deny: Collection[str] = DENY_WORDS
    confirm: Callable[[Proposal], bool] | None = None
    allow_keys: tuple[str, ...] = ()
    max_per_minute: int | None = 120
    stop_file: Path | None = field(default_factory=default_stop_file)
    stop_keys: tuple[str, ...] | None = ("ctrl", "alt", "escape")
    secrets_on_clipboard: bool = False

    def __post_init__(self) -> None:
        for name in ("dry_run", "secrets_on_clipboard"):
            if not isinstance(getattr(self, name), bool):
                raise BadQuery(f"Policy: {name} is True or False, not {getattr(self, name)!r:.80}")
        if self.windows is not None:
            self._set("windows", _texts("windows", self.windows, "Editor", none="any window"))
        if self.monitors is not None:
            monitors = _several("monitors", self.monitors, "(1,)", none="any monitor")
            for number in monitors:
                if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                    raise BadQuery(f"Policy: monitors are whole numbers from 1, but one is {number!r:.80}")
            self._set("monitors", monitors)
        if self.regions is not None:
            regions = _several("regions", self.regions, "((0, 0, 800, 600),)", none="any place")
            self._set("regions", tuple(map(_region, regions)))
        deny = self.deny if self.deny is DENY_WORDS else _texts("deny", self.deny, "delete", empty=True)
        if deny is not DENY_WORDS and (silent := [word for word in deny if folds_to_nothing(word)]):
            raise BadQuery(f"Policy: deny has {silent[0]!r:.80}, which has no letter or digit and so never matches")
        self._set("deny", deny)
        if self.confirm is not None and not callable(self.confirm):
            raise BadQuery(f"Policy: confirm is a function that takes a Proposal, or None, not {self.confirm!r:.80}")
        self._set("allow_keys", _texts("allow_keys", self.allow_keys, "enter", empty=True))
        for chord in self.allow_keys:
            if not split_chord(chord):
                raise BadQuery(f'Policy: allow_keys has {chord!r:.80}; a hotkey is written as "ctrl+s"')
        limit = self.max_per_minute
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise BadQuery(
                f"Policy: max_per_minute is a whole number from 1, or None for no limit, not {limit!r:.80}; "
                "to do nothing use dry_run=True"
            )
        if self.stop_file is not None:
            if not isinstance(self.stop_file, str | Path) or not str(self.stop_file) or "\0" in str(self.stop_file):
                raise BadQuery(f"Policy: stop_file is a path, or None for none, not {self.stop_file!r:.80}")
            path = Path(self.stop_file).expanduser().absolute()
            if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names that are too long
                raise BadQuery(f"Policy: stop_file {printable(str(path))} is a folder; name a file that may be made")
            self._set("stop_file", path)
        if self.stop_keys is not None:
            keys = _texts("stop_keys", self.stop_keys, "escape", none="no keys")
            self._set("stop_keys", tuple(map(normal_key, keys)))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _several(name: str, values: Any, example: str, none: str | None = None, empty: bool = False) -> tuple[Any, ...]:
    """Return the values as a tuple; a single one where several are wanted is a mistake that is easily made."""
    if not isinstance(values, Collection) or isinstance(values, str | bytes):
        raise BadQuery(f"Policy: {name} is a tuple, as {name}={example}, not {values!r:.80}")
    if not values and not empty:
        raise BadQuery(f"Policy: {name} is empty, so that nothing would ever fit; None means {none}")
    return tuple(sorted(values, key=str) if isinstance(values, set | frozenset) else values)


def _texts(name: str, values: Any, example: str, none: str | None = None, empty: bool = False) -> tuple[str, ...]:
    texts = _several(name, values, f'("{example}",)', none, empty)
    for text in texts:
        # A space is a key; an empty part of a title would fit every window.
        if not isinstance(text, str) or not text or (not text.strip() and "keys" not in name):
            raise BadQuery(f"Policy: {name} holds texts that are not empty, but one is {text!r:.80}")
    return texts


def _region(box: Any) -> Box:
    usable = isinstance(box, Sequence) and not isinstance(box, str) and len(box) == 4
    if not usable or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        raise BadQuery(f"Policy: regions are boxes as ((x1, y1, x2, y2),) in desktop pixels, but one is {box!r:.80}")
    x1, y1, x2, y2 = map(float, box)
    if x1 >= x2 or y1 >= y2:
        raise BadQuery(f"Policy: a region is (x1, y1, x2, y2) with x1 < x2 and y1 < y2, but one is {box!r:.80}")
    return (x1, y1, x2, y2)


class Guard:
    """Holds the acts of one agent to its policy. Safe to use from several threads.

    `clock` gives seconds that never go back; `keys_down` the names of the keys that are held now, None where the system
    does not tell. `interrupted` may be set to a function that says whether the caller has gone: then nothing more is
    done, either.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
        keys_down: Callable[[], frozenset[str]] | None = None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._keys_down = keys_down
        self._lock = threading.Lock()
        self.interrupted: Callable[[], bool] | None = None
        self._stopped = False
        self._acts: deque[float] = deque()
        self._allowed = frozenset(frozenset(split_chord(chord)) for chord in policy.allow_keys)

    def check_stop(self) -> None:
        """Look for the emergency stop. Keys that were seen held stay in force until `resume`, a file while it exists.

        Raises:
            ActionDenied: it is there, or nobody can tell whether it is.
            Cancelled: the caller has gone.
            NoDisplay: there is no screen.
        """
        if self.interrupted is not None and self.interrupted():
            raise Cancelled("withdrawn by the caller before it was done")
        path = self.policy.stop_file
        if path is not None:
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise ActionDenied(
                    f"the stop file {printable(str(path))} cannot be looked for ({error.strerror}), and nothing is "
                    "done without it; name another with Policy(stop_file=…)"
                ) from error
            else:
                raise ActionDenied(f"stopped by the file {printable(str(path))}; remove it to go on")
        chord = self.policy.stop_keys
        if chord is not None and self._keys_down is not None and not self._stopped:
            try:
                held = {normal_key(key) for key in self._keys_down()}
            except NoDisplay:  # without a screen nothing is done anyway, and that is what should be said
                raise
            except Exception as error:
                raise ActionDenied(
                    f"the stop keys {'+'.join(chord)} cannot be watched ({error}), and nothing is done without them; "
                    "Policy(stop_keys=None) goes without"
                ) from error
            if held.issuperset(chord):
                self._stopped = True
        if self._stopped:
            raise ActionDenied(f"stopped by the keys {'+'.join(chord or ())}; resume() goes on")

    def resume(self) -> None:
        """Go on after a stop by keys. A stop file stays in force until it is removed."""
        self._stopped = False

    def allow_rate(self) -> None:
        """Count one act. Those of a dry run, and those refused here, don't count.

        Raises:
            ActionDenied: there were as many in the last 60 seconds as the policy allows.
        """
        limit = self.policy.max_per_minute
        if limit is None or self.policy.dry_run:
            return
        with self._lock:
            now = self._clock()
            while self._acts and self._acts[0] <= now - _MINUTE:
                self._acts.popleft()
            if len(self._acts) >= limit:
                wait = self._acts[0] + _MINUTE - now
                raise ActionDenied(
                    f"{limit} acts in a minute are the limit; go on in {max(wait, 0.1):.1f} s, "
                    "or set another with Policy(max_per_minute=…)"
                )
            self._acts.append(now)

    def words_in(self, *texts: str) -> tuple[str, ...]:
        """Return the words of the policy's deny-list that occur in any of the texts."""
        return matches_in(texts, self.policy.deny) if self.policy.deny else ()

    def confirm(self, proposal: Proposal) -> None:
        """Ask for a confirmation.

        Raises:
            ActionDenied: there is nobody to ask, the answer is no or none, or asking failed (its error is the cause).
        """
        what = proposal.action + (f" {proposal.target!r:.200}" if proposal.target else "")
        why = proposal.why or "it needs a confirmation"
        ask = self.policy.confirm
        if ask is None:
            raise ActionDenied(
                f"{what} needs a confirmation: {why}; nobody is there to give it: set Policy(confirm=…), "
                "a function that takes the Proposal and returns True or False"
            )
        try:
            answer: Any = ask(proposal)
        except Exception as error:
            raise ActionDenied(
                f"{what} needs a confirmation: {why}; Policy.confirm failed with {type(error).__name__}"
            ) from error
        if not isinstance(answer, bool):
            # Truth by accident, as of a coroutine that nobody awaited, is no consent.
            if hasattr(answer, "close"):
                answer.close()
            raise ActionDenied(
                f"{what} needs a confirmation: {why}; Policy.confirm must return True or False, "
                f"but returned {type(answer).__name__}"
            )
        if not answer:
            raise ActionDenied(f"{what} was not confirmed: {why}")

    def key_needs_confirmation(self, keys: tuple[str, ...]) -> str | None:
        """Return why pressing these keys together needs a confirmation; None where it doesn't.

        Letters, Shift with them, and keys that move need none. Enter, Space, Delete, function keys, keys that are not
        known, and all hotkeys with Ctrl, Alt, Super or Command do, unless `allow_keys` has just this combination.
        """
        pressed = [normal_key(key) for key in keys]
        # A capital is pressed with Shift: Ctrl and "S" is not Ctrl and "s". In `allow_keys`, "Ctrl+S" has no Shift.
        if any(len(key) == 1 and key.isupper() for key in keys):
            pressed.insert(0, "shift")
        chord = frozenset(pressed)
        if chord in self._allowed:
            return None
        name = "+".join(dict.fromkeys(pressed))
        remedy = f"Policy(allow_keys=({name!r},)) allows it"
        denied = [key for key in pressed if len(key) > 1 and self.policy.deny and matches(key, self.policy.deny)]
        if denied:
            return f"the key {denied[0]} is on the deny-list; {remedy}"
        if chord & _STRONG:
            return f"the hotkey {name} may do anything in the program that gets it; {remedy}"
        if chord == {"shift", "insert"}:  # pastes, in a terminal whole lines of it
            return f"the hotkey {name} may do anything in the program that gets it; {remedy}"
        asking = [key for key in pressed if key not in _HARMLESS and (len(key) != 1 or not key.isprintable())]
        if asking:
            return f"the key {asking[0]} may set something off; {remedy}"
        return None

    def text_needs_confirmation(self, text: str) -> str | None:
        """Return why typing this text needs a confirmation; None where it doesn't. The text is not part of the answer.

        A line end of any kind counts as the key Enter.

        Raises:
            BadQuery: a control character that no keyboard types, other than tab and line ends, or half a character.
        """
        for place, character in enumerate(text, 1):
            if unicodedata.category(character) in ("Cc", "Cs") and character != "\t" and character not in _LINE_ENDS:
                raise BadQuery(
                    f"character {place} of the text is U+{ord(character):04X}, which cannot be typed; take it out, "
                    "or use press() for keys"
                )
        if not _LINE_ENDS.isdisjoint(text) and frozenset({"enter"}) not in self._allowed:
            return "the text has a line end, which counts as Enter; Policy(allow_keys=('enter',)) allows it"
        return None

    def spot_allowed(self, x: float, y: float, window_title: str | None, monitors: Sequence[Box]) -> str | None:
        """Return why a pixel may not be acted upon, and what may; None where it may.

        Args:
            x: column in desktop pixels.
            y: row in desktop pixels.
            window_title: the title of the window that is there; None where there is none or it is not known.
            monitors: the boxes of all monitors in desktop pixels, number 1 first.
        """
        policy = self.policy
        spot = f"({x:g}, {y:g})"
        if policy.monitors is not None:
            allowed = [monitors[number - 1] for number in policy.monitors if number <= len(monitors)]
            if not _within(x, y, allowed):
                there = "" if len(allowed) == len(policy.monitors) else f", of {len(monitors)} that are there"
                return f"{spot} is not on an allowed monitor ({', '.join(map(str, policy.monitors))}{there})"
        if policy.regions is not None and not _within(x, y, policy.regions):
            boxes = ", ".join("(" + ", ".join(f"{value:g}" for value in box) + ")" for box in policy.regions)
            return f"{spot} is not in an allowed region: {boxes}"
        if policy.windows is not None:
            allowed_titles = f"allowed are windows with {', '.join(map(repr, policy.windows))} in the title"
            if window_title is None:
                return f"{spot} is in no window whose title is known; {allowed_titles}"
            title = _plain(window_title)
            if not any(_plain(part) in title for part in policy.windows):
                return f"{spot} is in the window {window_title!r:.100}; {allowed_titles}"
        return None


def _within(x: float, y: float, boxes: Iterable[Box]) -> bool:
    return any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes)


def _plain(title: str) -> str:
    return unicodedata.normalize("NFKC", title).casefold()
