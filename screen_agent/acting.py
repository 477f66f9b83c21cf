"""How an act is done: asked of the policy, aimed at what stands still, done once, looked at, and written down."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from groundlink.detections import Box
from groundlink.errors import (
    ActionDenied,
    ActionHadNoEffect,
    BadOutput,
    BadQuery,
    GroundlinkError,
    TargetAmbiguous,
    TargetNotFound,
)
from groundlink.query import Query
from screen_agent.capture import Shot, check_box, clip, common, floats, inside
from screen_agent.changes import CARET, alike, changed, overlap
from screen_agent.clipboard import paste
from screen_agent.effects import HOVER_LIMIT, Effects, Expect
from screen_agent.ground import Choice, Finder, Target, agrees, check_choice
from screen_agent.keyboard import key_name, type_keys, typeable
from screen_agent.log import ActionLog
from screen_agent.pointer import Pointer
from screen_agent.policy import Guard, Proposal
from screen_agent.results import Clock, Result
from screen_agent.sight import Sight
from screen_agent.windows import Window, Windows

Place: TypeAlias = "Target | Window | Box | str"
"""Somewhere on the screen: what was found, a window, a box in desktop pixels, or a description."""

LOOKS = 4
"""How often a target that moves is looked for again before giving up."""
HOVER_SECONDS = 0.035
"""The least time given to a program to show that the pointer is over something."""
DIALOG = (800, 600)
"""Pixels across and down of the largest window whose text is all about the button in it that says "OK"."""
KEYBOARD_SECONDS = 1.3
"""How long a field has to show that it has the keyboard: longer than a caret takes to blink."""
FIELD_AFTER = 700
"""How far to the right of its label a field may reach, in pixels."""
SHOWN_SECONDS = 0.2
"""How long a program may take to show what was typed when typing breaks off."""
MAX_TYPED = 50_000
"""Characters in one call."""
_log = logging.getLogger(__name__)
_PASTE = ("command", "v") if sys.platform == "darwin" else ("ctrl", "v")


class Acting:
    """Does the acts of one agent. `hovering` is whether the pointer rests on something on purpose."""

    def __init__(
        self,
        sight: Sight,
        finder: Finder,
        pointer: Pointer,
        guard: Guard,
        windows: Windows | None,
        log: ActionLog | None,
        effect_timeout: float,
    ) -> None:
        self.sight = sight
        self.finder = finder
        self.pointer = pointer
        self.guard = guard
        self.windows = windows
        self.log = log
        self.effect_timeout = effect_timeout
        self.effects = Effects(sight, finder, pointer)
        self.hovering = False

    # What is meant

    def within(self, place: Place | None) -> Box | None:
        """Return the box of a place as it is now, in desktop pixels; None for everything.

        Raises:
            TargetNotFound, TargetAmbiguous: its window is gone, or its description fits nothing, or too much.
            BadQuery: it is no place.
        """
        if place is None:
            return None
        if isinstance(place, Window):
            now = place if self.windows is None else self.windows.current(place.id)
            if now is None:
                raise TargetNotFound(f"the window {place.title!r} is gone")
            return now.box
        if isinstance(place, Target):
            # Where exactly its pixels are somewhere else now, it has moved; else it is where it was, whatever is in it.
            shot = self.sight.look()
            shown = inside(common(place.box, floats(place.shot.view.area)), floats(shot.view.area))
            moved = None if shown and self._is_in_place(place, shot) else self.finder.moved(place, shot)
            return place.box if moved is None else moved.box
        if isinstance(place, str):
            return self.finder.find(self.sight.look(), place, Choice()).box
        return check_box("a place", place)

    def choice(self, nth: int | None, near: Place | tuple[float, float] | None, threshold: float | None) -> Choice:
        """Return what settles which one is meant. Raises what `within` raises, for `near`."""
        check_choice(nth, threshold)
        if near is None:
            return Choice(nth, None, threshold)
        if isinstance(near, tuple) and len(near) == 2:
            x, y = near
            numbers = all(isinstance(value, (int, float)) for value in near)
            return Choice(nth, check_box("near", (x, y, x + 1, y + 1) if numbers else near), threshold)
        return Choice(nth, self.within(near), threshold)

    # How acting is done

    def find_to_act(self, what: str | Target, choice: Choice, within: Place | None) -> Target:
        """Find what shall be acted on; where a tooltip may be in the way, move the pointer off and look again."""
        if isinstance(what, Target):
            return what
        box = self.within(within)
        shot = self.sight.look(box)
        with self.sight.sampling():
            try:
                return self.finder.find(shot, what, choice)
            except (TargetNotFound, TargetAmbiguous) as error:
                first = error
        if self.guard.policy.dry_run or self.hovering:
            raise first
        self.park()
        again = self.sight.look(box)
        if again is shot:
            raise first
        with self.sight.sampling():
            return self.finder.find(again, what, choice)

    def park(self) -> None:
        """Move the pointer out of the way, so that tooltips and hover effects go."""
        if not self.guard.policy.dry_run:
            self.guard.check_stop()
            self.pointer.move(*self.sight.parking())
            self.hovering = False
            self.sight.wait_quiet()

    def place_target(self, place: Place | None) -> Target:
        """Return a target in the middle of a place, for what needs no thing to point at."""
        if isinstance(place, Target):
            return place
        if isinstance(place, str):
            return self.find_to_act(place, Choice(), None)
        shot = self.sight.look()
        x1, y1, x2, y2 = shot.view.area if place is None else self.within(place) or shot.view.area
        pixel = (int((x1 + x2) // 2), int((y1 + y2) // 2))
        box = (pixel[0] - 1.0, pixel[1] - 1.0, pixel[0] + 1.0, pixel[1] + 1.0)
        return Target("the middle of " + ("the screen" if place is None else "the place"), box, pixel, None, None, shot)

    def pointed(
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
        limit = self.effect_timeout if timeout is None else check_seconds("timeout", timeout)
        check_expect(expect)
        check_target(what)
        description = what if isinstance(what, str) else what.description
        clock = Clock(self.finder)
        with self._logged(action, description) as entry:
            self.guard.check_stop()
            if not self.guard.policy.dry_run:
                self.guard.allow_rate()
            _describe(description)
            said = [end if isinstance(end, str) else end.description for end in (what, to) if end is not None]
            if (
                self.guard.policy.confirm is None
                and not self.guard.policy.dry_run
                and action not in {"hover", "scroll"}
            ):
                self._confirm_words(action, said, [], None, {})  # nobody to ask: refused before anything is looked for
            targets = [self.find_to_act(what, choice, within)]
            if to is not None:
                targets.append(self.find_to_act(to, Choice(threshold=choice.threshold), within))
            asked: dict[tuple[str, ...], str] = {}
            for look in range(LOOKS):
                target = entry.target = targets[0]
                self._confirm(action, targets, retry, asked)
                if self.guard.policy.dry_run:
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
                    tips = self.effects.tooltips()
                    unmoved = [self._owner(end.pixel) for end in targets] == owners
                    unmoved = unmoved and _near(self.pointer.position(), target.pixel)
                    before = self.sight.grab()
                    if unmoved and (not still or self._is_in_place(target, before)):
                        break
                started = time.perf_counter()
                self.sight.wait_quiet(target.box)
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
                self.hovering = False
            clock.act = time.perf_counter() - started
            result = self.effects.checked(
                action, target, before, expect, check, limit, clock, tips=tips if perform is not None else None
            )
            return entry.done(replace(result, confirmation="; ".join(asked.values())))

    def _confirm(self, action: str, targets: Sequence[Target], retry: int, asked: dict[tuple[str, ...], str]) -> None:
        """Have an act confirmed that words of the deny-list are about, once for the same words."""
        if action in {"hover", "scroll"} or not self.guard.policy.deny:
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
        shot, dialog = target.shot, self._dialog(target)
        if not (self.finder.was_asked(shot) and self.sight.is_all(shot)):
            shot = self.sight.around(dialog if agrees(target.description, target.text or "") else target.box)
        return self.finder.text_at(target, shot, dialog)

    def _dialog(self, target: Target) -> Box:
        """The window that a target is in where that is small, else what is above it."""
        x, y = target.pixel
        window = None if self.windows is None else self.windows.at(x, y)
        if window is not None:
            x1, y1, x2, y2 = window.box
            if x2 - x1 <= DIALOG[0] and y2 - y1 <= DIALOG[1]:
                return window.box
        return (x - DIALOG[0] / 2, y - DIALOG[1] / 2, x + DIALOG[0] / 2, y + 1.0)

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
        if not self.guard.policy.dry_run:
            box, picture = (None, None) if target is None else (target.box, target.shot.image)
            self.guard.confirm(Proposal(action, said[0], None, words, why, box, picture))

    def _check_spots(self, targets: Sequence[Target]) -> None:
        """Raise ActionDenied where a pixel is outside of what the policy allows, as the screen is now."""
        policy = self.guard.policy
        if policy.windows is None and policy.monitors is None and policy.regions is None:
            return
        monitors = [tuple(map(float, box)) for box in self.sight.screen.monitors()]
        for target in targets:
            x, y = target.pixel
            why = self.guard.spot_allowed(x, y, self._title_at(x, y), monitors)  # type: ignore[arg-type]
            if why is not None:
                raise ActionDenied(f'"{target.description}" at {x}, {y} is not touched: {why}')

    def _title_at(self, x: int, y: int) -> str | None:
        if self.windows is None:
            if self.guard.policy.windows is not None:
                raise ActionDenied("windows can be told apart on X11 only; allow regions or monitors instead")
            return None
        window = self.windows.at(x, y)
        if window is None:
            return None
        owner = window if window.owner in {0, window.id} else self.windows.current(window.owner)
        return None if owner is None else owner.title

    def _owner(self, pixel: tuple[int, int]) -> tuple[int, Box] | None:
        """Which window is under a pixel, and where that window is."""
        window = None if self.windows is None else self.windows.at(*pixel)
        return None if window is None else (window.id, window.box)

    def _is_still(self, target: Target, look: int) -> bool:
        """Whether the target and what is right around it look as they did when it was found."""
        x1, y1, x2, y2 = target.box
        margin = max(6.0, 0.5 * min(x2 - x1, y2 - y1))
        seen = target.shot
        box = (x1 - margin, y1 - margin, x2 + margin, y2 + margin)
        now = self.sight.veiled(self.sight.grab(None if look else box))
        if not inside(common(target.box, floats(seen.view.area)), floats(now.view.area)):
            return False  # what is looked at is elsewhere now, as where its window has moved
        a, b = clip(seen.pixels(box)), clip(now.pixels(box))
        if seen.view.scale != now.view.scale or (a[2] - a[0], a[3] - a[1]) != (b[2] - b[0], b[3] - b[1]):
            # One of the pictures is cut off here: what both show is compared.
            box = common(box, common(floats(seen.view.area), floats(now.view.area)))
            a, b = clip(seen.pixels(box)), clip(now.pixels(box))
        old, new = seen.frame[a[1] : a[3], a[0] : a[2]], now.frame[b[1] : b[3], b[0] : b[2]]
        if old.shape != new.shape:
            return False
        if not look:
            return bool(np.array_equal(old, new))
        # Looked for again and found in the same place: a caret in it, or a clock beside it, may go on.
        lively = [
            (x - b[0], y - b[1], c - b[0], d - b[1])
            for x, y, c, d in self.sight.idle.parts(time.monotonic(), often=False)
            if (c - x) * (d - y) < 0.5 * (b[2] - b[0]) * (b[3] - b[1])
        ]
        return not changed(old, new, tuple(lively))

    def _is_in_place(self, target: Target, now: Shot) -> bool:
        """Whether a target is where it was found, whatever colours it has with the pointer on it."""
        seen, now = target.shot, self.sight.veiled(now)
        box = common(target.box, common(floats(seen.view.area), floats(now.view.area)))
        a, b = clip(seen.pixels(box)), clip(now.pixels(box))
        old, new = seen.frame[a[1] : a[3], a[0] : a[2]], now.frame[b[1] : b[3], b[0] : b[2]]
        return old.shape == new.shape and alike(old, new)

    def _look_again(self, target: Target, what: str | Target, choice: Choice, within: Place | None) -> Target:
        moved = self.finder.moved(target, self.sight.look(self.within(within)))
        if moved is not None:
            return moved
        if isinstance(what, Target):
            # What was found before: of several that fit, the one closest to where it was.
            choice, what = Choice(near=what.box), what.description
        return self.find_to_act(what, choice, within)

    def _settle(self, target: Target) -> float:
        """Wait until hover effects around a target rest; return the seconds that it took."""
        started = time.perf_counter()
        x1, y1, x2, y2 = target.box
        height = max(20.0, y2 - y1)
        box = (x1 - 2 * height, y1 - height, x2 + 2 * height, y2 + height)
        time.sleep(HOVER_SECONDS - 0.015)
        self.sight.wait_quiet(box, limit=HOVER_LIMIT, least=0.015)
        return time.perf_counter() - started

    # How keys are sent

    def typed(
        self,
        action: str,
        text: str,
        clicked: Result | None,
        secret: bool,
        expect: Expect | None,
        check: bool,
        timeout: float | None,
    ) -> Result:
        """Type a text, into the field that `clicked` is the click on, or where the keyboard goes."""
        check_text(text)
        check_expect(expect)
        limit = self.effect_timeout if timeout is None else check_seconds("timeout", timeout)
        clock = Clock(self.finder)
        target = None if clicked is None else clicked.target
        with self._logged(action, "" if target is None else target.description) as entry:
            entry.more = {"secret": True} if secret else {"text": text}
            entry.target = target
            why = ""
            self.guard.check_stop()
            if clicked is None:
                if not self.guard.policy.dry_run:
                    self.guard.allow_rate()
                why = self.confirm_text(text, "", secret)
            by_keys = typeable(text)
            if secret and not by_keys and not self.guard.policy.secrets_on_clipboard:
                raise ActionDenied(
                    "the secret has characters that the keyboard layout lacks, and would be on the clipboard for a "
                    "moment; allow that with Policy(secrets_on_clipboard=True)"
                )
            if self.guard.policy.dry_run:
                return entry.done(Result(action, target, "dry_run", (), clock.timings_ms(), why))
            self.check_focus()
            before = self.sight.grab()
            clock.at_act()
            started = time.perf_counter()
            try:
                if by_keys:
                    type_keys(text, self._check_keys)
                elif not paste(text, self._paste):
                    raise ActionHadNoEffect(
                        "the text was offered on the clipboard and nobody took it; give the keyboard to a field that "
                        "takes text, such as by type_into"
                    )
            except BaseException:
                if secret:  # a part of it may be there
                    time.sleep(SHOWN_SECONDS)
                    with suppress(GroundlinkError):
                        self.effects.hide(target, before)
                raise
            clock.act = time.perf_counter() - started
            result = self.effects.checked(action, target, before, expect, check, limit, clock, secret=secret)
            return entry.done(replace(result, confirmation=why))

    def keys(
        self,
        action: str,
        keys: tuple[str, ...],
        strokes: list[tuple[str, ...]],
        expect: Expect | None,
        check: bool,
        timeout: float | None,
    ) -> Result:
        """Press each of the strokes, keys that go together, one after the other; `keys` is what the caller named."""
        if not keys:
            raise BadQuery(f'{action} needs a key, such as {action}("tab")')
        for key in keys:
            if not isinstance(key, str):
                raise BadQuery(f"a key is a name or a character, not {type(key).__name__}")
            key_name(key)
        check_expect(expect)
        limit = self.effect_timeout if timeout is None else check_seconds("timeout", timeout)
        clock = Clock(self.finder)
        named = " ".join("+".join(stroke) for stroke in strokes)
        with self._logged(action, named) as entry:
            self.guard.check_stop()
            if not self.guard.policy.dry_run:
                self.guard.allow_rate()
            whys = [why for stroke in strokes if (why := self.guard.key_needs_confirmation(stroke)) is not None]
            if self.guard.policy.dry_run:
                return entry.done(Result(action, None, "dry_run", (), clock.timings_ms(), "; ".join(whys)))
            self.check_focus()
            if whys:  # the question may take long, and its window the keyboard: each stroke looks again
                words = self.guard.words_in(*keys)
                self.guard.confirm(Proposal(action, named, None, words, whys[0], None, self.sight.look().image))
            before = self.sight.grab()
            clock.at_act()
            started = time.perf_counter()
            for stroke in strokes:
                self._check_keys()
                if len(stroke) == 1:
                    self.pointer.key(stroke[0])
                else:
                    self.pointer.hotkey(*stroke)
            clock.act = time.perf_counter() - started
            result = self.effects.checked(action, None, before, expect, check, limit, clock)
            return entry.done(replace(result, confirmation="; ".join(whys)))

    def confirm_text(self, text: str, description: str, secret: bool) -> str:
        """Have a text with line breaks confirmed; return why it needs that, empty where it does not."""
        why = self.guard.text_needs_confirmation(text)
        if why is not None and not self.guard.policy.dry_run:
            shown = None if secret else text
            self.guard.confirm(Proposal("type", description, shown, (), why, None, self.sight.look().image))
        return why or ""

    def check_keyboard(self, clicked: Result) -> None:
        """Raise ActionHadNoEffect where a click is not seen to have given the keyboard to what was clicked on.

        A field shows it by a caret, or a frame, in its row; a field below its label by a frame: a caret there may be
        another field's, which blinked before.
        """
        target, before = clicked.target, clicked.shots[0]
        assert target is not None and before is not None
        x1, y1, x2, y2 = before.view.box_to_picture(target.box)
        height = y2 - y1
        row = (x1 - 3 * height, y1 - 0.75 * height, x2 + FIELD_AFTER, y2 + 0.75 * height)
        below = (x1 - 3 * height, y1, x2 + FIELD_AFTER, y2 + 4 * height)
        end = time.monotonic() + KEYBOARD_SECONDS
        while time.monotonic() < end:
            now = self.sight.veiled(self.sight.screen.grab(before.view.area))
            if now.frame.shape != before.frame.shape:
                return
            others = self.sight.idle.parts(time.monotonic(), often=False)
            for box in map(floats, changed(before.frame, now.frame)):
                lively = box[2] - box[0] <= CARET or any(overlap(box, floats(part)) for part in others)
                if overlap(box, row) or (overlap(box, below) and not lively):
                    return
            self.sight.wait(0.025)
        raise ActionHadNoEffect(
            f'the click on "{target.description}" at {target.pixel[0]}, {target.pixel[1]} gave the keyboard to nothing '
            "there, and nothing was typed; click on the field itself and use type_text, or type with check=False",
            replace(clicked, effect="none"),
        )

    def _check_keys(self) -> None:
        """Look right before each key for a stop, and whether the keyboard still goes where it may."""
        self.guard.check_stop()
        self.check_focus()

    def _paste(self) -> None:
        self._check_keys()
        self.pointer.hotkey(*_PASTE)

    def empty(self, strokes: Sequence[tuple[str, ...]]) -> None:
        """Press the keys that empty the field which has the keyboard."""
        for stroke in strokes:
            self._check_keys()
            self.pointer.hotkey(*stroke)

    def check_focus(self) -> None:
        """Raise ActionDenied where the keyboard goes to a window that the policy does not allow."""
        policy = self.guard.policy
        if policy.windows is None and policy.monitors is None and policy.regions is None:
            return
        window = None if self.windows is None else self.windows.focused()
        if window is None:
            raise ActionDenied("keys are not sent: it cannot be told which window has the keyboard, and not all may")
        area = common(window.box, floats(self.sight.screen.area()))
        x, y = (area[0] + area[2]) / 2, (area[1] + area[3]) / 2
        monitors = [floats(box) for box in self.sight.screen.monitors()]
        why = self.guard.spot_allowed(x, y, window.title, monitors)
        if why is not None:
            raise ActionDenied(f"keys are not sent to the window {window.title!r}: {why}")

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
            if self.log is not None:
                try:
                    self._write(self.log, entry, action, description, error)
                except BadOutput as failure:  # a full disk: what was done is done, and is told to the caller
                    _log.warning("the act is not in the log: %s", failure)

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


def _describe(description: str) -> None:
    """Raise BadQuery for words that cannot be a description, before anything else is done."""
    Query("gui", (description,))


def check_target(what: Any) -> None:
    """Raise BadQuery for what can be neither described nor pressed."""
    if not isinstance(what, (str, Target)):
        raise BadQuery(f"say in words what is meant, or give what find() returned, not {type(what).__name__}")


def check_expect(expect: Any) -> None:
    """Raise BadQuery for what cannot be expected: before the act, since an error after it looks as if none was done."""
    if isinstance(expect, str):
        _describe(expect)
    elif expect is not None and not callable(expect):
        raise BadQuery(f"expect is a description, or a function without arguments, not {type(expect).__name__}")


def check_text(text: Any) -> None:
    """Raise BadQuery for what cannot be typed in one call."""
    if not isinstance(text, str):
        raise BadQuery(f"the text to type is a string, not {type(text).__name__}")
    if not text:
        raise BadQuery("the text to type is empty; it needs at least one character")
    if len(text) > MAX_TYPED:
        raise BadQuery(f"the text to type has {len(text):,} characters; at most {MAX_TYPED:,} go in one call")


def check_seconds(name: str, value: Any) -> float:
    """Return a number of seconds given by a caller; raises BadQuery where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86_400:
        raise BadQuery(f"{name} is a number of seconds from 0 to a day, not {value!r}")
    return float(value)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _near(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two pixels are one, or neighbours: the pointer keeps off the corners of the screen."""
    return abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1
