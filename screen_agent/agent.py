"""The screen agent: find what is described, act on it once, look whether it worked, and tell.

This is the front door. How an act goes is in `acting.py`, what is seen in `sight.py`, how things are found in
`ground.py`, and how an effect is told from what would have changed anyway in `effects.py` and `changes.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import groundlink
from groundlink.detections import Box
from groundlink.errors import ActionHadNoEffect, BadQuery, DeadlineExceeded, TargetNotFound
from groundlink.locator import Locator
from groundlink.query import Task
from screen_agent.acting import Acting, Place, check_expect, check_seconds, check_target, check_text
from screen_agent.capture import Screen, Shot, check_box
from screen_agent.effects import Expect
from screen_agent.ground import Choice, Finder, Target, check_choice
from screen_agent.log import ActionLog
from screen_agent.pointer import Pointer
from screen_agent.policy import Guard, Policy
from screen_agent.results import Result, Sighting, sightings
from screen_agent.sight import Sight
from screen_agent.windows import Window, Windows
from screen_agent.x11 import supported

# Not Ctrl+A, which some programs take for something else: to the beginning, and with Shift to the end. What is
# selected is deleted, since some programs paste beside a selection and not over it.
_EMPTY = (
    [("command", "a"), ("backspace",)]
    if sys.platform == "darwin"
    else [("ctrl", "home"), ("ctrl", "shift", "end"), ("backspace",)]
)


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
        if window is not None and (not isinstance(window, str) or not window.strip()):
            raise BadQuery(f"window is the title of a window, or a part of it, not {window!r:.80}")
        check_choice(None, threshold)
        check_seconds("effect_timeout", effect_timeout)
        self.screen = screen or Screen()
        self.pointer = pointer or Pointer()
        self._windows = Windows() if supported() else None
        self.guard = Guard(policy or Policy(), keys_down=None if self._windows is None else self._windows.keys_down)
        self._sight = Sight(
            self.screen, self._windows, self.guard.check_stop, monitor=monitor, region=region, window=window
        )
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
        self._acts = Acting(
            self._sight,
            self._finder,
            self.pointer,
            self.guard,
            self._windows,
            ActionLog(Path(log)) if isinstance(log, (str, Path)) else log,
            effect_timeout,
        )

    @property
    def locator(self) -> Locator:
        """The backend, loaded at first use."""
        return self._finder.locator

    @property
    def policy(self) -> Policy:
        """What is allowed."""
        return self.guard.policy

    @property
    def deadline(self) -> float | None:
        """When backends have to be done, in seconds of the monotonic clock; None where they may take their time.

        A call that meets it raises `DeadlineExceeded`: what was found by then may not be all.
        """
        return self._finder.end

    @deadline.setter
    def deadline(self, end: float | None) -> None:
        self._finder.end = end

    def close(self) -> None:
        """Close what the agent has loaded, and its connection to the screen."""
        self._finder.close(locator=self._own_locator)
        if self._windows is not None:
            self._windows.close()

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
        return self._sight.look(self._acts.within(within))

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
        choice = self._acts.choice(nth, near, threshold)
        return self._finder.find(self._sight.look(self._acts.within(within)), what, choice)

    def find_all(self, what: str, *, within: Place | None = None, threshold: float | None = None) -> list[Target]:
        """Return everything that a description fits, in reading order; none is an empty list."""
        check_choice(None, threshold)
        return self._finder.find_all(self._sight.look(self._acts.within(within)), what, threshold)

    def exists(self, what: str, *, within: Place | None = None, threshold: float | None = None) -> bool:
        """Return whether something is there, once or more often."""
        check_choice(None, threshold)
        return len(self._finder.ask(self._sight.look(self._acts.within(within)), what, threshold=threshold)) > 0

    def read(self, within: Place | None = None) -> str:
        """Return all text, one line of it per line, in reading order."""
        return "\n".join(found.text or "" for found in self._finder.read(self._sight.look(self._acts.within(within))))

    def window(self, title: str) -> Window:
        """Return a window by its title, or by a part of the title that only one window has (X11).

        Raises:
            TargetNotFound, TargetAmbiguous: none has it, or several.
            NoDisplay: windows cannot be listed on this system.
        """
        if not isinstance(title, str):
            raise BadQuery(f"the title of a window is a string, not {type(title).__name__}")
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

        Where its window, or what it is looked for in, is not there yet, that is waited for too.

        Raises:
            DeadlineExceeded: it did not appear in `timeout` seconds.
            TargetAmbiguous: see the class.
        """
        check_seconds("timeout", timeout)
        check_choice(nth, threshold)
        missed = ["it was never looked for"]

        def look(shot: Shot) -> Target | None:
            answer = self._finder.ask(shot, what, threshold=threshold)
            if not len(answer):
                missed[0] = answer.reason
                return None
            try:
                return self._finder.find(shot, what, self._acts.choice(nth, near, threshold))
            except TargetNotFound as error:  # there, but not as often as `nth` says
                missed[0] = str(error)
                return None

        def absent(error: TargetNotFound) -> None:
            missed[0] = str(error)

        found: Target | None = self._sight.until(look, timeout, lambda: self._acts.within(within), absent)
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
        check_seconds("timeout", timeout)
        check_choice(None, threshold)

        def look(shot: Shot) -> bool | None:
            return True if not len(self._finder.ask(shot, what, threshold=threshold)) else None

        # With its window it is gone, too.
        if self._sight.until(look, timeout, lambda: self._acts.within(within), lambda error: True) is None:
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
            check_seconds("timeout", timeout)
        check_seconds("interval", interval)
        check_choice(None, threshold)
        start = time.monotonic()
        known: list[Target] = []
        last: Shot | None = None
        shot: Shot | None
        while timeout is None or time.monotonic() - start < timeout:
            self.guard.check_stop()
            try:
                shot = self._sight.look(self._acts.within(within))
            except TargetNotFound:  # the window that is looked at is not there, or not any more
                shot = None
            if shot is None or shot is not last:
                last = shot
                now = [] if shot is None else self._finder.find_all(shot, what, threshold)
                yield from sightings(known, now, time.monotonic() - start)
                known = now
            self._sight.pause(interval)

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
        if button not in ("left", "right", "middle"):
            raise BadQuery(f"button is left, right or middle, not {button!r}")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 3:
            raise BadQuery(f"count is 1, 2 or 3 clicks, not {count!r}")
        name = {"left": "", "right": "right_", "middle": "middle_"}[button] + ("", "", "double_", "triple_")[count]
        choice = self._acts.choice(nth, near, threshold)
        _check_retry(retry)
        for left in range(retry, -1, -1):
            try:
                return self._acts.pointed(
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
        choice = self._acts.choice(nth, near, threshold)
        result = self._acts.pointed(
            "hover", what, choice, within, None, expect=expect, check=expect is not None, timeout=timeout
        )
        self._acts.hovering = True
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
        check_seconds("seconds", seconds)
        check_target(to)
        choice = self._acts.choice(nth, None, threshold)

        def perform(targets: Sequence[Target]) -> None:
            self.pointer.press("left")
            try:
                self.pointer.drag_to(*targets[1].pixel, seconds, stop=self.guard.check_stop)
            finally:
                self.pointer.release("left")

        return self._acts.pointed(
            "drag", what, choice, within, perform, to=to, expect=expect, check=check, timeout=timeout
        )

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
        target = self._acts.place_target(inside)
        return self._acts.pointed(
            "scroll",
            target,
            Choice(),
            None,
            lambda targets: self.pointer.scroll(amount, across, stop=self.guard.check_stop),
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
        if isinstance(turns, bool) or not isinstance(turns, int) or turns < 0:
            raise BadQuery(f"turns is how often to scroll, a whole number from 0, not {turns!r}")
        place = self._acts.place_target(inside)
        choice = self._acts.choice(nth, near, threshold)
        for turn in range(turns + 1):
            try:
                return self._finder.find(self._sight.look(self._acts.within(inside)), what, choice)
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
        self._acts.park()

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
        return self._acts.typed("type", text, None, secret, expect, check, timeout)

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
        """Click into a field and type; with `clear` what was in it is replaced. See `type_text`.

        Nothing is typed where the click is not seen to give the keyboard to anything there, such as on a label that
        leads to no field; `check=False` types anyway.
        """
        check_text(text)
        check_target(what)
        check_expect(expect)
        why = self._acts.confirm_text(text, what if isinstance(what, str) else what.description, secret)
        choice = self._acts.choice(nth, near, threshold)
        clicked = self._acts.pointed(
            "click", what, choice, within, lambda targets: self.pointer.click("left", 1), check=False
        )
        if not self.policy.dry_run:
            if check:
                self._acts.check_keyboard(clicked)
            self._sight.wait_quiet(limit=0.3)
            if clear:
                self._acts.empty(_EMPTY)
        confirmation = "; ".join(filter(None, (clicked.confirmation, why)))
        result = self._acts.typed("type", text, clicked, secret, expect, check, timeout)
        return replace(result, confirmation=confirmation)

    def press(
        self,
        *keys: str,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Press keys one after the other, such as `press("tab", "enter")`."""
        return self._acts.keys("press", keys, [(key,) for key in keys], expect, check, timeout)

    def hotkey(
        self,
        *keys: str,
        expect: Expect | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Press keys together, such as `hotkey("ctrl", "s")`."""
        return self._acts.keys("hotkey", keys, [keys], expect, check, timeout)

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


def _check_retry(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        raise BadQuery(f"retry is a whole number from 0 to 10, not {value!r}")
