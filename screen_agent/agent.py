"""The screen agent: find what is described, act on it once, look whether it worked, and tell.

Every act goes the same way: the policy is asked, the target is found and seen to be still, the pointer moves, hover
effects settle, a picture is taken, the act is done, and the screen is compared until the effect is certain.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

import groundlink
from groundlink.detections import Box
from groundlink.errors import (
    ActionDenied,
    ActionHadNoEffect,
    BadQuery,
    DeadlineExceeded,
    GroundlinkError,
    TargetAmbiguous,
    TargetNotFound,
)
from groundlink.locator import Locator
from groundlink.query import Query, Task
from screen_agent.capture import Frame, PixelBox, Screen, Shot, check_box
from screen_agent.changes import PATIENCE, alike, changed, watch_effect
from screen_agent.clipboard import paste
from screen_agent.ground import Choice, Finder, Target, check_choice
from screen_agent.keyboard import key_name, type_keys, typeable
from screen_agent.log import ActionLog
from screen_agent.pointer import Pointer
from screen_agent.policy import Guard, Policy, Proposal
from screen_agent.sight import Sight
from screen_agent.windows import Window, Windows
from screen_agent.x11 import supported

Place: TypeAlias = "Target | Window | Box | str"
"""Somewhere on the screen: what was found, a window, a box in desktop pixels, or a description."""
Expect: TypeAlias = "str | Callable[[], bool]"
"""What should be true after an act: a description of what should be there, or a function."""
EffectWord = Literal["changed", "expected", "none", "unchecked", "dry_run"]

LOOKS = 4
"""How often a target that moves is looked for again before giving up."""
HOVER_SECONDS = 0.035
"""The least time given to a program to show that the pointer is over something."""
HOVER_LIMIT = 0.6
"""The most time that hover effects are waited for."""
MAX_TYPED = 50_000
"""Characters in one call."""
_PASTE = ("command", "v") if sys.platform == "darwin" else ("ctrl", "v")
# Not Ctrl+A, which some programs take for something else: to the beginning, and with Shift to the end. What is
# selected is deleted, since some programs paste beside a selection and not over it.
_EMPTY = (
    [("command", "a"), ("backspace",)]
    if sys.platform == "darwin"
    else [("ctrl", "home"), ("ctrl", "shift", "end"), ("backspace",)]
)


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
class _Clock:
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
        now = time.perf_counter()
        ground = self.finder.seconds - self._asked if self.acted is None else self.ground
        decide = (self.acted or now) - self.start - ground - self.wait
        parts = {"ground": ground, "wait": self.wait, "decide": decide, "act": self.act, "check": self.check}
        return {name: seconds * 1000 for name, seconds in {**parts, "total": now - self.start}.items()}


class ScreenAgent:
    """Finds what you describe on the screen, acts on it, and checks that it worked.

    ```python
    agent = ScreenAgent()
    agent.click("the Save button")
    agent.type_into("the search field", "Zürich, 東京 €")
    agent.wait_for("Done", timeout=20)
    ```

    Common to all methods that take a description:

    - `nth`, `near`, `within` settle which one is meant where several fit. `nth` counts from 1 in reading order, or
      from the end; `near` takes the one closest to a place; `within` looks only inside a place. A place is something
      found before, a window of `window()`, a box `(x1, y1, x2, y2)` in desktop pixels, or a description.
    - `threshold`: what has a lower score is not taken.
    - `TargetNotFound` and `TargetAmbiguous` are raised with the candidates and a picture of them; nothing is guessed.

    Common to all methods that act:

    - `expect`: what should be there afterwards, a description or a function; else any change of the screen counts.
    - `check`: False does not look whether anything changed.
    - `timeout`: how many seconds an effect may take; the agent's `effect_timeout` if not given.
    - `ActionHadNoEffect` is raised, with the pictures before and after, where nothing came of it. The act is not
      repeated, unless the caller asks for it by `retry`.
    - `ActionDenied` is raised where the policy forbids it; then nothing was done.

    Use from one thread at a time.
    """

    def __init__(
        self,
        backend: str | Locator | None = None,
        *,
        monitor: int | None = None,
        region: Box | None = None,
        window: str | None = None,
        policy: Policy | None = None,
        log: str | Path | ActionLog | None = None,
        task: Task | None = None,
        threshold: float | None = None,
        zoom: bool | None = None,
        effect_timeout: float = 3.0,
        screen: Screen | None = None,
        pointer: Pointer | None = None,
        reader: str | Locator | None = None,
        **settings: Any,
    ) -> None:
        """Make an agent. Nothing is loaded or captured before it is needed.

        Args:
            backend: a backend's name, or a locator that the caller goes on owning; None as in `groundlink.load`.
            monitor, region, window: what of the screen is looked at: a monitor (from 1), a box in desktop pixels, a
                window by its title, wherever it is at the time. Give at most one; all monitors if none.
            policy: what is allowed; `Policy()` if not given.
            log: a folder for the log of acts, or a log; none is kept if not given.
            task: what the backend is asked; by default the first of gui, ground_one, ground, point that it does.
            threshold: what has a lower score is not taken; the backend's own if not given.
            zoom: whether small things are looked at again, enlarged; by default with all backends but those that read.
            effect_timeout: how many seconds an effect may take.
            screen, pointer: what takes pictures, and what moves; for other desktops than this one.
            reader: what reads text, a name or a locator; the backend itself if it is the embedded default, else that.
            settings: settings of the backend.

        Raises:
            BadQuery: a value that cannot be.
            BadOutput: the log's folder cannot be written.
        """
        if sum(value is not None for value in (monitor, region, window)) > 1:
            raise BadQuery("give one of monitor, region and window, not several: it is what the agent looks at")
        if region is not None:
            check_box("region", region)
        check_choice(None, threshold)
        _check_seconds("effect_timeout", effect_timeout)
        self.screen = screen or Screen()
        self.pointer = pointer or Pointer()
        self.effect_timeout = effect_timeout
        self._windows = Windows() if supported() else None
        self.guard = Guard(policy or Policy(), keys_down=None if self._windows is None else self._windows.keys_down)
        self._sight = Sight(
            self.screen, self._windows, self.guard.check_stop, monitor=monitor, region=region, window=window
        )
        self._log = ActionLog(Path(log)) if isinstance(log, (str, Path)) else log
        self._own_locator = not isinstance(backend, Locator)
        self._finder = Finder(
            (lambda: backend) if isinstance(backend, Locator) else (lambda: groundlink.load(backend, **settings)),
            task=task,
            threshold=threshold,
            zoom=zoom,
            reader=None
            if reader is None
            else (lambda: reader if isinstance(reader, Locator) else groundlink.load(reader)),
        )
        self._hovering = False

    @property
    def locator(self) -> Locator:
        """The backend, loaded at first use."""
        return self._finder.locator

    @property
    def policy(self) -> Policy:
        """What is allowed."""
        return self.guard.policy

    def close(self) -> None:
        """Close what the agent has loaded."""
        self._finder.close(locator=self._own_locator)

    def __enter__(self) -> ScreenAgent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Looking

    def screenshot(self, within: Place | None = None) -> Shot:
        """Take a picture of what the agent looks at, or of a place in it, without the pointer; secrets are covered.

        Raises:
            NoDisplay: there is no screen, or it may not be looked at.
        """
        return self._sight.look(self._within(within))

    def find(
        self,
        what: str,
        *,
        nth: int | None = None,
        near: Place | tuple[float, float] | None = None,
        within: Place | None = None,
        threshold: float | None = None,
    ) -> Target:
        """Return where something is.

        Raises:
            TargetNotFound, TargetAmbiguous: see the class.
            NoDisplay, BadQuery, GroundlinkError: no screen, a bad argument, a failure of the backend.
        """
        choice = self._choice(nth, near, threshold)
        return self._finder.find(self._sight.look(self._within(within)), what, choice)

    def find_all(self, what: str, *, within: Place | None = None, threshold: float | None = None) -> list[Target]:
        """Return everything that a description fits, in reading order; none is an empty list."""
        check_choice(None, threshold)
        return self._finder.find_all(self._sight.look(self._within(within)), what, threshold)

    def exists(self, what: str, *, within: Place | None = None, threshold: float | None = None) -> bool:
        """Return whether something is there, once or more often."""
        check_choice(None, threshold)
        return len(self._finder.ask(self._sight.look(self._within(within)), what, threshold=threshold)) > 0

    def read(self, within: Place | None = None) -> str:
        """Return all text, one line of it per line, in reading order."""
        return "\n".join(found.text or "" for found in self._finder.read(self._sight.look(self._within(within))))

    def window(self, title: str) -> Window:
        """Return a window by its title, or by a part of the title that only one window has (X11).

        Raises:
            TargetNotFound, TargetAmbiguous: none has it, or several.
            NoDisplay: windows cannot be listed on this system.
        """
        return (self._windows or Windows()).find(title)

    def wait_for(
        self,
        what: str,
        timeout: float = 10.0,
        *,
        nth: int | None = None,
        near: Place | tuple[float, float] | None = None,
        within: Place | None = None,
        threshold: float | None = None,
    ) -> Target:
        """Wait until something is there, and return it. A look that was begun in time is finished.

        Raises:
            DeadlineExceeded: it did not appear in `timeout` seconds.
            TargetAmbiguous: see the class.
        """
        _check_seconds("timeout", timeout)
        missed = ["it was never looked for"]

        def look(shot: Shot) -> Target | None:
            answer = self._finder.ask(shot, what, threshold=threshold)
            if not len(answer):
                missed[0] = answer.reason
                return None
            try:
                return self._finder.find(shot, what, self._choice(nth, near, threshold))
            except TargetNotFound as error:  # there, but not as often as `nth` says
                missed[0] = str(error)
                return None

        found: Target | None = self._until(look, timeout, within)
        if found is None:
            raise DeadlineExceeded(f'"{what}" did not appear within {timeout:g} s; {missed[0]}')
        return found

    def wait_gone(
        self, what: str, timeout: float = 10.0, *, within: Place | None = None, threshold: float | None = None
    ) -> None:
        """Wait until something is no longer there.

        Raises:
            DeadlineExceeded: it is still there after `timeout` seconds.
        """
        _check_seconds("timeout", timeout)
        check_choice(None, threshold)

        def look(shot: Shot) -> bool | None:
            return True if not len(self._finder.ask(shot, what, threshold=threshold)) else None

        if self._until(look, timeout, within) is None:
            raise DeadlineExceeded(f'"{what}" was still there after {timeout:g} s')

    def watch(
        self,
        what: str,
        *,
        timeout: float | None = None,
        interval: float = 0.25,
        within: Place | None = None,
        threshold: float | None = None,
    ) -> Iterator[Sighting]:
        """Yield an event whenever something appears, moves, or goes, for `timeout` seconds or for ever.

        The screen is looked at every `interval` seconds, and the backend asked only where it has changed.
        """
        if timeout is not None:
            _check_seconds("timeout", timeout)
        _check_seconds("interval", interval)
        check_choice(None, threshold)
        start = time.monotonic()
        known: list[Target] = []
        last: Shot | None = None
        while timeout is None or time.monotonic() - start < timeout:
            self.guard.check_stop()
            shot = self._sight.look(self._within(within))
            if shot is not last:
                last = shot
                now = self._finder.find_all(shot, what, threshold)
                at = time.monotonic() - start
                yield from _sightings(known, now, at)
                known = now
            time.sleep(interval)

    # Pointing

    def click(
        self,
        what: str | Target,
        *,
        button: str = "left",
        count: int = 1,
        nth: int | None = None,
        near: Place | tuple[float, float] | None = None,
        within: Place | None = None,
        threshold: float | None = None,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
        retry: int = 0,
    ) -> Result:
        """Click on what is described, `count` times in quick succession.

        Args:
            what: a description, or what `find` returned; that is looked for again where it has moved.
            button: left, right or middle.
            retry: how many more times to try where there was no effect; refused for words of the deny-list.

        The other arguments and the errors are those of the class.
        """
        if button not in {"left", "right", "middle"}:
            raise BadQuery(f"button is left, right or middle, not {button!r}")
        if isinstance(count, bool) or count not in {1, 2, 3}:
            raise BadQuery(f"count is 1, 2 or 3 clicks, not {count!r}")
        name = {"left": "", "right": "right_", "middle": "middle_"}[button] + ("", "", "double_", "triple_")[count]
        choice = self._choice(nth, near, threshold)
        _check_retry(retry)
        for left in range(retry, -1, -1):
            try:
                return self._pointed(
                    f"{name}click",
                    what,
                    choice,
                    within,
                    lambda targets: self.pointer.click(button, count),
                    expect=expect,
                    check=check,
                    timeout=timeout,
                    retry=retry,
                )
            except ActionHadNoEffect:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def double_click(self, what: str | Target, **options: Any) -> Result:
        """Click twice; the arguments are those of `click`."""
        return self.click(what, count=2, **options)

    def right_click(self, what: str | Target, **options: Any) -> Result:
        """Click with the right button; the arguments are those of `click`."""
        return self.click(what, button="right", **options)

    def middle_click(self, what: str | Target, **options: Any) -> Result:
        """Click with the middle button; the arguments are those of `click`."""
        return self.click(what, button="middle", **options)

    def hover(
        self,
        what: str | Target,
        *,
        nth: int | None = None,
        near: Place | tuple[float, float] | None = None,
        within: Place | None = None,
        threshold: float | None = None,
        expect: Expect | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Move the pointer onto something and leave it there. An effect is only asked for with `expect`."""
        choice = self._choice(nth, near, threshold)
        result = self._pointed(
            "hover", what, choice, within, None, expect=expect, check=expect is not None, timeout=timeout
        )
        self._hovering = True
        return result

    def drag(
        self,
        what: str | Target,
        to: str | Target,
        *,
        nth: int | None = None,
        within: Place | None = None,
        threshold: float | None = None,
        seconds: float = 0.4,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Drag something onto something else. `nth` is for what is dragged; `within` and `threshold` for both."""
        _check_seconds("seconds", seconds)
        choice = self._choice(nth, None, threshold)

        def perform(targets: Sequence[Target]) -> None:
            self.pointer.press("left")
            try:
                self.pointer.drag_to(*targets[1].pixel, seconds)
            finally:
                self.pointer.release("left")

        return self._pointed("drag", what, choice, within, perform, to=to, expect=expect, check=check, timeout=timeout)

    def scroll(
        self,
        amount: int = 3,
        inside: Place | None = None,
        *,
        across: int = 0,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Turn the wheel: `amount` notches down (up where negative), `across` to the right, over a place.

        Without `inside` it is turned in the middle of what the agent looks at.
        """
        for name, value in (("amount", amount), ("across", across)):
            if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1000:
                raise BadQuery(f"{name} is a whole number of notches, at most 1000, not {value!r}")
        target = self._place_target(inside)
        return self._pointed(
            "scroll",
            target,
            Choice(),
            None,
            lambda targets: self.pointer.scroll(amount, across),
            expect=expect,
            check=check,
            timeout=timeout,
            still=False,
        )

    def scroll_to(
        self,
        what: str,
        inside: Place | None = None,
        *,
        step: int = 5,
        turns: int = 40,
        nth: int | None = None,
        near: Place | tuple[float, float] | None = None,
        threshold: float | None = None,
    ) -> Target:
        """Scroll until something can be seen, and return it: `step` notches at a time, up where negative.

        Raises:
            TargetNotFound: the end was reached, or `turns` were made, and it was never there.
        """
        if isinstance(step, bool) or not isinstance(step, int) or not step:
            raise BadQuery(f"step is a whole number of notches, negative for up, not {step!r}")
        place = self._place_target(inside)
        choice = self._choice(nth, near, threshold)
        for turn in range(turns + 1):
            try:
                return self._finder.find(self._sight.look(self._within(inside)), what, choice)
            except TargetNotFound as error:
                if self.policy.dry_run:
                    raise TargetNotFound(
                        f'"{what}" is not there yet, and a dry run does not scroll; {error}',
                        error.candidates,
                        error.picture,
                    ) from error
                if turn == turns:
                    raise TargetNotFound(
                        f'"{what}" was not there after scrolling {turns} times; {error}',
                        error.candidates,
                        error.picture,
                    ) from error
                try:
                    self.scroll(step, replace(place, shot=self._sight.look()), timeout=1.0)
                except ActionHadNoEffect:
                    raise TargetNotFound(
                        f'"{what}" is not there, down to the end that was scrolled to; {error}'
                        if step > 0
                        else f'"{what}" is not there, up to the beginning that was scrolled to; {error}',
                        error.candidates,
                        error.picture,
                    ) from error
        raise AssertionError("unreachable")

    def park(self) -> None:
        """Move the pointer out of the way, to the right edge, so that tooltips and hover effects go."""
        x, y = self._sight.parking()
        if not self.policy.dry_run:
            self.guard.check_stop()
            self.pointer.move(x, y)
            self._hovering = False
            self._sight.wait_quiet()

    # Keys

    def type_text(
        self,
        text: str,
        *,
        secret: bool = False,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Type a text where the keyboard goes, any Unicode; what no key gives is pasted, and the clipboard restored.

        Args:
            text: at most 50 000 characters. A line break is Enter, and needs what Enter needs from the policy.
            secret: the text is never logged, never on the clipboard unless the policy allows it, and what it changes
                on the screen is covered in every picture from then on.
        """
        return self._typed("type", text, None, secret, expect, check, timeout)

    def type_into(
        self,
        what: str | Target,
        text: str,
        *,
        clear: bool = False,
        secret: bool = False,
        nth: int | None = None,
        near: Place | tuple[float, float] | None = None,
        within: Place | None = None,
        threshold: float | None = None,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Click into a field and type; with `clear` what was in it is replaced. See `type_text`."""
        _check_text(text)
        why = self._confirm_text(text, what if isinstance(what, str) else what.description, secret)
        clicked = self._pointed(
            "click", what, self._choice(nth, near, threshold), within, lambda targets: self.pointer.click("left", 1),
            check=False,
        )  # fmt: skip
        if not self.policy.dry_run:
            self._sight.wait_quiet(limit=0.3)
            if clear:
                self._check_focus()
                for keys in _EMPTY:
                    self.pointer.hotkey(*keys)
        confirmation = "; ".join(filter(None, (clicked.confirmation, why)))
        result = self._typed("type", text, clicked, secret, expect, check, timeout)
        return replace(result, confirmation=confirmation)

    def press(
        self,
        *keys: str,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Press keys one after the other, such as `press("tab", "enter")`."""
        return self._keys("press", keys, [(key,) for key in keys], expect, check, timeout)

    def hotkey(
        self,
        *keys: str,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Press keys together, such as `hotkey("ctrl", "s")`."""
        return self._keys("hotkey", keys, [keys], expect, check, timeout)

    def focus(self, title: str) -> Window:
        """Bring a window to the front by its title, and return it (X11)."""
        window = self.window(title)
        if self.policy.dry_run:
            return window
        self.guard.check_stop()
        assert self._windows is not None
        self._windows.activate(window)
        self._sight.wait_quiet()
        return self._windows.current(window.id) or window

    # What is meant

    def _within(self, place: Place | None) -> Box | None:
        if place is None:
            return None
        if isinstance(place, Window):
            now = place if self._windows is None else self._windows.current(place.id)
            if now is None:
                raise TargetNotFound(f"the window {place.title!r} is gone")
            return now.box
        if isinstance(place, Target):
            return place.box
        if isinstance(place, str):
            return self.find(place).box
        return check_box("a place", place)

    def _choice(self, nth: int | None, near: Place | tuple[float, float] | None, threshold: float | None) -> Choice:
        check_choice(nth, threshold)
        if near is None:
            return Choice(nth, None, threshold)
        if isinstance(near, tuple) and len(near) == 2:
            x, y = near
            return Choice(nth, check_box("near", (x, y, x + 1, y + 1)), threshold)
        return Choice(nth, self._within(near), threshold)

    def _until(self, look: Callable[[Shot], Any], timeout: float, within: Place | None) -> Any:
        """Look until `look` returns something, asking only about pictures that have changed; None at the end."""
        end = time.monotonic() + timeout
        last: Shot | None = None
        while True:
            self.guard.check_stop()
            shot = self._sight.look(self._within(within))
            if shot is not last:
                last = shot
                if (found := look(shot)) is not None:
                    return found
            if time.monotonic() >= end:
                return None
            self._sight.wait(min(0.1, max(0.0, end - time.monotonic())))

    # How acting is done

    def _find_to_act(self, what: str | Target, choice: Choice, within: Place | None) -> Target:
        """Find what shall be acted on; where a tooltip may be in the way, move the pointer off and look again."""
        if isinstance(what, Target):
            return what
        box = self._within(within)
        shot = self._sight.look(box)
        with self._sight.sampling():
            try:
                return self._finder.find(shot, what, choice)
            except (TargetNotFound, TargetAmbiguous) as error:
                first = error
        if self.policy.dry_run or self._hovering:
            raise first
        self.park()
        again = self._sight.look(box)
        if again is shot:
            raise first
        with self._sight.sampling():
            return self._finder.find(again, what, choice)

    def _place_target(self, place: Place | None) -> Target:
        """A target in the middle of a place, for what needs no thing to point at."""
        if isinstance(place, Target):
            return place
        if isinstance(place, str):
            return self._find_to_act(place, Choice(), None)
        shot = self._sight.look()
        x1, y1, x2, y2 = shot.view.area if place is None else self._within(place) or shot.view.area
        pixel = (int((x1 + x2) // 2), int((y1 + y2) // 2))
        box = (pixel[0] - 1.0, pixel[1] - 1.0, pixel[0] + 1.0, pixel[1] + 1.0)
        return Target("the middle of " + ("the screen" if place is None else "the place"), box, pixel, None, None, shot)

    def _pointed(
        self,
        action: str,
        what: str | Target,
        choice: Choice,
        within: Place | None,
        perform: Callable[[Sequence[Target]], None] | None,
        *,
        to: str | Target | None = None,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
        retry: int = 0,
        still: bool = True,
    ) -> Result:
        """Do something with the pointer on a target, the way every act goes."""
        limit = self.effect_timeout if timeout is None else _check_seconds("timeout", timeout)
        description = what if isinstance(what, str) else what.description
        clock = _Clock(self._finder)
        with self._logged(action, description) as entry:
            self.guard.check_stop()
            if not self.policy.dry_run:
                self.guard.allow_rate()
            _describe(description)
            said = [end if isinstance(end, str) else end.description for end in (what, to) if end is not None]
            if self.policy.confirm is None and not self.policy.dry_run and action not in {"hover", "scroll"}:
                self._confirm_words(action, said, [], None, {})  # nobody to ask: refused before anything is looked for
            targets = [self._find_to_act(what, choice, within)]
            if to is not None:
                targets.append(self._find_to_act(to, Choice(threshold=choice.threshold), within))
            asked: dict[tuple[str, ...], str] = {}
            for look in range(LOOKS):
                target = entry.target = targets[0]
                self._confirm(action, targets, retry, asked)
                if self.policy.dry_run:
                    self._check_spots(targets)
                    result = Result(action, target, "dry_run", timings_ms=clock.timings_ms())
                    return entry.done(replace(result, confirmation="; ".join(asked.values())))
                owners = [self._owner(end.pixel) for end in targets]
                if not still or all(self._is_still(end, look) for end in targets):
                    self._check_spots(targets)
                    self.guard.check_stop()
                    self.pointer.move(*target.pixel)
                    clock.wait += max(0.0, self._settle(target) - HOVER_SECONDS)
                    self.guard.check_stop()
                    self._check_spots(targets)
                    # Nothing may have come between, nor anything have moved, since the target was seen.
                    tips = self._tooltips()
                    unmoved = [self._owner(end.pixel) for end in targets] == owners
                    unmoved = unmoved and _near(self.pointer.position(), target.pixel)
                    before = self._sight.grab()
                    if unmoved and (not still or self._is_in_place(target, before)):
                        break
                started = time.perf_counter()
                self._sight.wait_quiet(target.box)
                clock.wait += time.perf_counter() - started
                targets[0] = self._look_again(target, what, choice, within)
                targets[1:] = [self._look_again(end, end, Choice(), within) for end in targets[1:]]
            else:
                raise TargetNotFound(
                    f'"{description}" keeps moving or changing, or the pointer is moved away from it ({LOOKS} looks); '
                    "wait until it rests",
                    (target,),
                    target.shot.image,
                )
            clock.at_act()
            started = time.perf_counter()
            if perform is not None:
                perform(targets)
                self._hovering = False
            clock.act = time.perf_counter() - started
            result = self._checked(
                action, target, before, expect, check, limit, clock, tips=tips if perform is not None else None
            )
            return entry.done(replace(result, confirmation="; ".join(asked.values())))

    def _confirm(self, action: str, targets: Sequence[Target], retry: int, asked: dict[tuple[str, ...], str]) -> None:
        """Have an act confirmed that words of the deny-list are about, once for the same words."""
        if action in {"hover", "scroll"} or not self.policy.deny:
            return
        there = [text for end in targets for text in self._text_at(end)]
        if retry and (words := self.guard.words_in(*(end.description for end in targets), *there)):
            raise ActionDenied(
                f"retry is not for words of the deny-list ({_listed(words)}): {action} "
                f'"{targets[0].description}" once, and look before doing it again'
            )
        self._confirm_words(action, [end.description for end in targets], there, targets[0], asked)

    def _text_at(self, target: Target) -> list[str]:
        """Read what stands at a target, wherever the agent was told to look: no part of a word is left out."""
        shot = target.shot
        if not (self._finder.was_asked(shot) and self._sight.is_all(shot)):
            shot = self._sight.around(target.box)
        return self._finder.text_at(target, shot)

    def _confirm_words(
        self,
        action: str,
        said: Sequence[str],
        there: Sequence[str],
        target: Target | None,
        asked: dict[tuple[str, ...], str],
    ) -> None:
        """Have denied words in the descriptions, or in the text that is there, confirmed; once for the same words."""
        words = self.guard.words_in(*said, *there)
        if not words or words in asked:
            return
        if self.guard.words_in(*said):
            why = f'the description "{" to ".join(said)}" holds {_listed(words)}'
        else:
            spoken = next((text for text in there if self.guard.words_in(text)), "")
            why = f'the text "{spoken[:80]}" at the target holds {_listed(words)}'
        asked[words] = why
        if not self.policy.dry_run:
            box, picture = (None, None) if target is None else (target.box, target.shot.image)
            self.guard.confirm(Proposal(action, said[0], None, words, why, box, picture))

    def _check_spots(self, targets: Sequence[Target]) -> None:
        """Raise ActionDenied where a pixel is outside of what the policy allows, as the screen is now."""
        policy = self.policy
        if policy.windows is None and policy.monitors is None and policy.regions is None:
            return
        monitors = [tuple(map(float, box)) for box in self.screen.monitors()]
        for target in targets:
            x, y = target.pixel
            why = self.guard.spot_allowed(x, y, self._title_at(x, y), monitors)  # type: ignore[arg-type]
            if why is not None:
                raise ActionDenied(f'"{target.description}" at {x}, {y} is not touched: {why}')

    def _title_at(self, x: int, y: int) -> str | None:
        if self._windows is None:
            if self.policy.windows is not None:
                raise ActionDenied("windows can be told apart on X11 only; allow regions or monitors instead")
            return None
        window = self._windows.at(x, y)
        if window is None:
            return None
        owner = window if window.owner in {0, window.id} else self._windows.current(window.owner)
        return None if owner is None else owner.title

    def _owner(self, pixel: tuple[int, int]) -> tuple[int, Box] | None:
        """Which window is under a pixel, and where that window is."""
        window = None if self._windows is None else self._windows.at(*pixel)
        return None if window is None else (window.id, window.box)

    def _is_still(self, target: Target, look: int) -> bool:
        """Whether the target and what is right around it look as they did when it was found."""
        x1, y1, x2, y2 = target.box
        margin = max(6.0, 0.5 * min(x2 - x1, y2 - y1))
        seen = target.shot
        box = (x1 - margin, y1 - margin, x2 + margin, y2 + margin)
        now = self._sight.veiled(self._sight.grab(None if look else box))
        if not _inside(_common(target.box, _floats(seen.view.area)), _floats(now.view.area)):
            return False  # what is looked at is elsewhere now, as where its window has moved
        a, b = _clip(seen.pixels(box)), _clip(now.pixels(box))
        if seen.view.scale != now.view.scale or (a[2] - a[0], a[3] - a[1]) != (b[2] - b[0], b[3] - b[1]):
            # One of the pictures is cut off here: what both show is compared.
            box = _common(box, _common(_floats(seen.view.area), _floats(now.view.area)))
            a, b = _clip(seen.pixels(box)), _clip(now.pixels(box))
        old, new = seen.frame[a[1] : a[3], a[0] : a[2]], now.frame[b[1] : b[3], b[0] : b[2]]
        if old.shape != new.shape:
            return False
        if not look:
            return bool(np.array_equal(old, new))
        # Looked for again and found in the same place: a caret in it, or a clock beside it, may go on.
        lively = [
            (x - b[0], y - b[1], c - b[0], d - b[1])
            for x, y, c, d in self._sight.idle.parts(time.monotonic(), often=False)
            if (c - x) * (d - y) < 0.5 * (b[2] - b[0]) * (b[3] - b[1])
        ]
        return not changed(old, new, tuple(lively))

    def _is_in_place(self, target: Target, now: Shot) -> bool:
        """Whether a target is where it was found, whatever colours it has with the pointer on it."""
        seen, now = target.shot, self._sight.veiled(now)
        box = _common(target.box, _common(_floats(seen.view.area), _floats(now.view.area)))
        a, b = _clip(seen.pixels(box)), _clip(now.pixels(box))
        old, new = seen.frame[a[1] : a[3], a[0] : a[2]], now.frame[b[1] : b[3], b[0] : b[2]]
        return old.shape == new.shape and alike(old, new)

    def _look_again(self, target: Target, what: str | Target, choice: Choice, within: Place | None) -> Target:
        moved = self._finder.moved(target, self._sight.look(self._within(within)))
        if moved is not None:
            return moved
        if isinstance(what, Target):
            # What was found before: of several that fit, the one closest to where it was.
            choice, what = Choice(near=what.box), what.description
        return self._find_to_act(what, choice, within)

    def _settle(self, target: Target) -> float:
        """Wait until hover effects around a target rest; return the seconds that it took."""
        started = time.perf_counter()
        x1, y1, x2, y2 = target.box
        height = max(20.0, y2 - y1)
        box = (x1 - 2 * height, y1 - height, x2 + 2 * height, y2 + height)
        time.sleep(HOVER_SECONDS - 0.015)
        self._sight.wait_quiet(box, limit=HOVER_LIMIT, least=0.015)
        return time.perf_counter() - started

    # How the effect is checked

    def _checked(
        self,
        action: str,
        target: Target | None,
        before: Shot,
        expect: Expect | None,
        check: bool,
        limit: float,
        clock: _Clock,
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
            return self.screen.grab(area).frame

        effect: EffectWord = "unchecked"
        boxes: tuple[PixelBox, ...] = ()
        why = ""
        if check or secret:
            seen = watch_effect(
                before.frame,
                self._sight.idle,
                grab,
                self._sight.wait,
                time.monotonic,
                limit if expect is None else 0.2,
                likely=before.pixels(target.box) if target is not None and tips is None else None,
                accept=None
                if expect is not None or target is None or tips is None
                else (lambda boxes: self._without_hover(target, before, boxes, tips)),
                patience=PATIENCE if expect is None else 0.0,
            )
            boxes = seen.boxes
            effect = "changed" if boxes else "none"
            why = f"nothing on the screen changed within {limit:g} s"
        if expect is not None:
            came, why = self._expected(expect, before, limit)
            effect = "expected" if came else "none"
        now = self.screen.grab(area)
        self._sight.idle.restart(now.frame, now.at, watched=check or secret or expect is not None)
        if secret:
            self._hide(target, before, boxes or changed(before.frame, now.frame))
        clock.check = time.perf_counter() - started
        view = before.view
        result = Result(
            action,
            target,
            effect if check or expect is not None else "unchecked",
            tuple(view.box_to_desktop(_floats(box)) for box in boxes),
            clock.timings_ms(),
            shots=(self._sight.veiled(before), self._sight.veiled(now)),
        )
        if result.effect == "none":
            on = f' on "{target.description}" at {target.pixel[0]}, {target.pixel[1]}' if target is not None else ""
            raise ActionHadNoEffect(
                f"{action.replace('_', ' ')}{on} was done once and had no effect: {why}; the pictures before and after "
                "are in .result",
                result,
            )
        return result

    def _tooltips(self) -> list[Box]:
        return [] if self._windows is None else self._windows.tooltips()

    def _without_hover(
        self, target: Target, before: Shot, boxes: tuple[PixelBox, ...], tips: Sequence[Box]
    ) -> tuple[PixelBox, ...]:
        """Return what of a change is more than a hover effect or a tooltip that came late, or went.

        Only a change that keeps to the target and its row, or to a tooltip, can be one. It goes when the pointer does.
        """
        shown = [before.view.box_to_picture(tip) for tip in (*tips, *self._tooltips())]
        boxes = tuple(box for box in boxes if not any(_inside(_floats(box), tip) for tip in shown))
        x1, y1, x2, y2 = before.view.box_to_picture(target.box)
        reach = 14 + 0.5 * (y2 - y1)
        left, top, right, bottom = x1 - 2 * reach, y1 - reach, x2 + 2 * reach, y2 + reach
        # A row or a button lights up as a whole, which may be much wider than what is written there.
        near = all(top <= box[1] and box[3] <= bottom and box[0] < right and left < box[2] for box in boxes)
        if not boxes or not near:
            return boxes
        # Only what was in the picture of the target can be compared, where that was of a part of the screen; and only
        # where something changed: a caret or a clock beside it goes on.
        seen = self._sight.veiled(target.shot)
        area = _floats(seen.view.area)
        parts = [_common(before.view.box_to_desktop(_floats(box)), area) for box in boxes]
        if any(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in parts):
            return boxes
        self.pointer.move(*self._sight.parking())
        end = time.monotonic() + HOVER_LIMIT
        while True:
            # It may take a while to go, and a caret in it to blink: as it once was is enough.
            now = self._sight.veiled(self._sight.grab())
            if all(np.array_equal(seen.crop(part).frame, now.crop(part).frame) for part in parts):
                return ()
            if time.monotonic() >= end:
                return boxes
            self._sight.wait(0.025)

    def _expected(self, expect: Expect, before: Shot, limit: float) -> tuple[bool, str]:
        """Wait for what the caller expects; return whether it came, and if not why."""
        if not isinstance(expect, str):
            end = time.monotonic() + limit
            while True:
                if expect():
                    return True, ""
                if time.monotonic() >= end:
                    return False, f"what was expected did not come true within {limit:g} s"
                self._sight.wait(0.05)
        asked = self._until(lambda shot: True if len(self._finder.ask(shot, expect)) else None, limit, None)
        if asked is None:
            return False, f'"{expect}" did not appear within {limit:g} s'
        shown = self._sight.veiled(before)
        if len(self._finder.ask(shown, expect)) and not changed(
            shown.frame, self._sight.look().frame, self._sight.alive()
        ):
            return False, f'"{expect}" was there before, and nothing changed'
        return True, ""

    # How keys are sent

    def _typed(
        self,
        action: str,
        text: str,
        clicked: Result | None,
        secret: bool,
        expect: Expect | None,
        check: bool,
        timeout: float | None,
    ) -> Result:
        _check_text(text)
        limit = self.effect_timeout if timeout is None else _check_seconds("timeout", timeout)
        clock = _Clock(self._finder)
        target = None if clicked is None else clicked.target
        with self._logged(action, "" if target is None else target.description) as entry:
            entry.more = {"secret": True} if secret else {"text": text}
            entry.target = target
            why = ""
            self.guard.check_stop()
            if clicked is None:
                if not self.policy.dry_run:
                    self.guard.allow_rate()
                why = self._confirm_text(text, "", secret)
            by_keys = typeable(text)
            if secret and not by_keys and not self.policy.secrets_on_clipboard:
                raise ActionDenied(
                    "the secret has characters that the keyboard layout lacks, and would be on the clipboard for a "
                    "moment; allow that with Policy(secrets_on_clipboard=True)"
                )
            if self.policy.dry_run:
                return entry.done(Result(action, target, "dry_run", (), clock.timings_ms(), why))
            self._check_focus()
            before = self._sight.grab()
            clock.at_act()
            started = time.perf_counter()
            if by_keys:
                type_keys(text, self.guard.check_stop)
            elif not paste(text, lambda: self.pointer.hotkey(*_PASTE)):
                raise ActionHadNoEffect(
                    "the text was offered on the clipboard and nobody took it; give the keyboard to a field that takes "
                    "text, such as by type_into"
                )
            clock.act = time.perf_counter() - started
            result = self._checked(action, target, before, expect, check, limit, clock, secret=secret)
            return entry.done(replace(result, confirmation=why))

    def _keys(
        self,
        action: str,
        keys: tuple[str, ...],
        strokes: list[tuple[str, ...]],
        expect: Expect | None,
        check: bool,
        timeout: float | None,
    ) -> Result:
        if not keys:
            raise BadQuery(f'{action} needs a key, such as {action}("tab")')
        for key in keys:
            key_name(key)
        limit = self.effect_timeout if timeout is None else _check_seconds("timeout", timeout)
        clock = _Clock(self._finder)
        named = " ".join("+".join(stroke) for stroke in strokes)
        with self._logged(action, named) as entry:
            self.guard.check_stop()
            if not self.policy.dry_run:
                self.guard.allow_rate()
            whys = [why for stroke in strokes if (why := self.guard.key_needs_confirmation(stroke)) is not None]
            if self.policy.dry_run:
                return entry.done(Result(action, None, "dry_run", (), clock.timings_ms(), "; ".join(whys)))
            self._check_focus()
            if whys:
                words = self.guard.words_in(*keys)
                self.guard.confirm(Proposal(action, named, None, words, whys[0], None, self._sight.look().image))
            before = self._sight.grab()
            clock.at_act()
            started = time.perf_counter()
            for stroke in strokes:
                self.guard.check_stop()
                if len(stroke) == 1:
                    self.pointer.key(stroke[0])
                else:
                    self.pointer.hotkey(*stroke)
            clock.act = time.perf_counter() - started
            result = self._checked(action, None, before, expect, check, limit, clock)
            return entry.done(replace(result, confirmation="; ".join(whys)))

    def _confirm_text(self, text: str, description: str, secret: bool) -> str:
        """Have a text with line breaks confirmed; return why it needs that, empty where it does not."""
        why = self.guard.text_needs_confirmation(text)
        if why is not None and not self.policy.dry_run:
            shown = None if secret else text
            self.guard.confirm(Proposal("type", description, shown, (), why, None, self._sight.look().image))
        return why or ""

    def _check_focus(self) -> None:
        """Raise ActionDenied where the keyboard goes to a window that the policy does not allow."""
        policy = self.policy
        if policy.windows is None and policy.monitors is None and policy.regions is None:
            return
        window = None if self._windows is None else self._windows.focused()
        if window is None:
            raise ActionDenied("keys are not sent: it cannot be told which window has the keyboard, and not all may")
        area = _common(window.box, _floats(self.screen.area()))
        x, y = (area[0] + area[2]) / 2, (area[1] + area[3]) / 2
        monitors = [_floats(box) for box in self.screen.monitors()]
        why = self.guard.spot_allowed(x, y, window.title, monitors)
        if why is not None:
            raise ActionDenied(f"keys are not sent to the window {window.title!r}: {why}")

    def _hide(self, target: Target | None, before: Shot, boxes: tuple[PixelBox, ...]) -> None:
        """Cover what typing a secret has changed, from now on: also when it is shown as text later, which is wider."""
        spots = [before.view.box_to_desktop(_floats(box)) for box in boxes]
        if target is not None:
            spots.append(target.box)
        if not spots:
            return
        x1, y1 = min(box[0] for box in spots), min(box[1] for box in spots)
        x2, y2 = max(box[2] for box in spots), max(box[3] for box in spots)
        height = y2 - y1
        box = (x1 - height, y1 - 0.4 * height, x2 + max(0.6 * (x2 - x1), 2 * height), y2 + 0.4 * height)
        self._sight.hide(box)

    # The log

    @contextmanager
    def _logged(self, action: str, description: str) -> Iterator[_Entry]:
        """Write an act to the log, whatever comes of it."""
        entry = _Entry()
        error: BaseException | None = None
        try:
            yield entry
        except BaseException as caught:
            error = caught
            raise
        finally:
            if self._log is not None:
                self._write(self._log, entry, action, description, error)

    def _write(self, log: ActionLog, entry: _Entry, action: str, description: str, error: BaseException | None) -> None:
        result = entry.result
        if isinstance(error, ActionHadNoEffect) and isinstance(error.result, Result):
            result = error.result
        line: dict[str, Any] = {"action": action, "description": description, **entry.more}
        if result is not None:
            line |= result.to_json()
        elif entry.target is not None:
            line["target"] = entry.target.to_json()
        if isinstance(error, GroundlinkError):
            line["error"] = error.to_json()
        elif error is not None:
            line["error"] = {"code": "interrupted", "message": type(error).__name__}
        pictures = {}
        if result is not None:
            pictures = {name: image for name in ("before", "after") if (image := getattr(result, name)) is not None}
        elif isinstance(error, (TargetNotFound, TargetAmbiguous)) and error.picture is not None:
            pictures["candidates"] = error.picture
        log.add(line, pictures)


@dataclass
class _Entry:
    """What an act leaves for the log."""

    target: Target | None = None
    result: Result | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def done(self, result: Result) -> Result:
        self.result = result
        return result


def _sightings(known: list[Target], now: list[Target], at: float) -> Iterator[Sighting]:
    """Compare two looks: the same box is the same thing; of the rest, pairs have moved."""
    boxes = {target.box for target in now}
    old = [target for target in known if target.box not in boxes]
    boxes = {target.box for target in known}
    new = [target for target in now if target.box not in boxes]
    for _, after in zip(old, new):
        yield Sighting("moved", after, at)
    yield from (Sighting("gone", target, at) for target in old[len(new) :])
    yield from (Sighting("appeared", target, at) for target in new[len(old) :])


def _describe(description: str) -> None:
    """Raise BadQuery for words that cannot be a description, before anything else is done."""
    Query("gui", (description,))


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise BadQuery(f"the text to type is a string, not {type(text).__name__}")
    if not text:
        raise BadQuery("the text to type is empty; it needs at least one character")
    if len(text) > MAX_TYPED:
        raise BadQuery(f"the text to type has {len(text):,} characters; at most {MAX_TYPED:,} go in one call")


def _check_seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86_400:
        raise BadQuery(f"{name} is a number of seconds from 0 to a day, not {value!r}")
    return float(value)


def _check_retry(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        raise BadQuery(f"retry is a whole number from 0 to 10, not {value!r}")


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _floats(box: PixelBox) -> Box:
    x1, y1, x2, y2 = box
    return float(x1), float(y1), float(x2), float(y2)


def _clip(box: PixelBox) -> PixelBox:
    x1, y1, x2, y2 = box
    return x1, y1, max(x1, x2), max(y1, y2)


def _common(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _near(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two pixels are one, or neighbours: the pointer keeps off the corners of the screen."""
    return abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1


def _inside(box: Box, other: Box) -> bool:
    return other[0] <= box[0] and other[1] <= box[1] and box[2] <= other[2] and box[3] <= other[3]
