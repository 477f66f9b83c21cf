"""What counts as an effect: drawn frames on a clock of the test's own, so that every moment is tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from screen_agent.changes import Idle, alike, changed, overlap, watch_effect

SIZE = (300, 400)
CARET = (50, 60, 52, 80)
CLOCK = (200, 20, 264, 36)
LABEL = (40, 200, 160, 220)


def blank():
    return np.full(SIZE, 0xEEEEEE, dtype=np.uint32)


def fill(frame, box, colour=0x202020):
    x1, y1, x2, y2 = box
    frame[y1:y2, x1:x2] = colour


def digits(frame, box, number):
    """Something like a number: other numbers differ in some of its pixels, not in all."""
    _, y1, x2, y2 = box
    noise = np.random.default_rng(number).integers(0, 2, (y2 - y1, 6), dtype=np.uint32)
    frame[y1:y2, x2 - 6 : x2] = noise * 0x202020


class Desk:
    """A screen that lives by its own clock; `act(frame, since)` draws what an act has done `since` seconds ago."""

    def __init__(self, phase, *, caret=True, clock=True, act=lambda frame, since: None):
        self.now = 100.0 + phase
        self.caret, self.clock, self.act = caret, clock, act
        self.acted = None

    def grab(self):
        self.now += 0.004
        frame = blank()
        if self.caret and self.now % 0.9 < 0.6:
            fill(frame, CARET)
        if self.clock:
            digits(frame, CLOCK, int(self.now))
        if self.acted is not None:
            self.act(frame, self.now - self.acted)
        return frame

    def wait(self, seconds):
        self.now += seconds

    def effect(self, looked, timeout=3.0, likely=None):
        """Look for `looked` seconds, act, and return the boxes of the effect and the seconds it took to be certain."""
        idle = Idle()
        end = self.now + looked
        while True:
            idle.see(self.grab(), self.now)
            if self.now >= end:
                break
            self.wait(0.15)
        before = self.grab()
        self.acted = self.now
        seen = watch_effect(before, idle, self.grab, self.wait, lambda: self.now, timeout, likely)
        return seen.boxes, seen.seconds


def label(frame, since):
    if since > 0.05:
        fill(frame, LABEL)


PHASES = [step / 20 for step in range(0, 60, 3)]
LOOKED = [0.0, 0.2, 0.4, 0.7, 1.0, 1.3, 2.0, 5.0]


@pytest.mark.parametrize("looked", LOOKED)
def test_a_caret_and_a_clock_are_no_effect(looked):
    for phase in PHASES:
        boxes, seconds = Desk(phase).effect(looked)
        assert not boxes, (phase, boxes)
        assert seconds >= 3.0


@pytest.mark.parametrize("looked", LOOKED)
def test_a_label_that_changes_is_one_beside_them(looked):
    for phase in PHASES:
        boxes, seconds = Desk(phase, act=label).effect(looked)
        assert boxes == (LABEL,), (phase, boxes)
        assert seconds < (0.5 if looked >= 1.3 else 1.6)


def test_a_large_change_is_certain_at_once():
    boxes, seconds = Desk(0.3, act=lambda frame, since: fill(frame, (20, 90, 380, 290))).effect(0.0)
    assert boxes == ((20, 90, 380, 290),) and seconds < 0.3


def test_what_flashes_and_goes_is_no_effect():
    """A button that is drawn pressed, or a ripple, and looks as before in the end."""

    def press(frame, since):
        if since < 0.25:
            fill(frame, LABEL, 0xAAAAAA + int(since * 100))

    for looked in LOOKED:
        assert Desk(0.1, act=press).effect(looked)[0] == ()


def test_a_late_effect_is_waited_for():
    def late(frame, since):
        if since > 2.0:
            fill(frame, LABEL)

    assert Desk(0.1, act=late).effect(1.5)[0] == (LABEL,)
    assert Desk(0.1, act=late).effect(1.5, timeout=1.0)[0] == ()


@pytest.mark.parametrize("timeout", [0, 0.3, 1.0])
def test_what_has_shown_in_time_is_looked_at_until_it_is_certain(timeout):
    """Little was known of the screen before, so that this takes longer than the effect may."""

    def scroll(frame, since):
        for row in range(8):
            fill(frame, (40, 60 + 25 * row, 90, 70 + 25 * row))

    for looked in (0, 0.2):
        for phase in (0.1, 0.5, 0.9):
            boxes, seconds = Desk(phase, caret=False, act=scroll).effect(looked, timeout)
            assert len(boxes) == 8 and not any(overlap(box, CLOCK) for box in boxes)
            assert seconds < timeout + 1.4


def test_something_that_begins_to_move_for_good_is_an_effect():
    """A spinner that starts with the act; the screen was looked at before, and it was not there."""

    def spin(frame, since):
        fill(frame, (300, 200, 320, 220), 0x1000 + int(since * 40))

    assert Desk(0.1, act=spin).effect(1.5)[0] == ((300, 200, 320, 220),)


def test_text_beside_a_blinking_caret_is_seen():
    """Typing: the caret goes on blinking at the end of the new text and touches it."""

    def typed(frame, since):
        fill(frame, (60, 60, 140, 80))
        if (since % 0.9) < 0.6:
            fill(frame, (141, 60, 143, 80))

    for phase in PHASES:
        for looked in LOOKED:
            boxes, _ = Desk(phase, caret=False, act=typed).effect(looked)
            assert any(overlap(box, (60, 60, 140, 80)) for box in boxes), (phase, looked)
    _, seconds = Desk(0.0, caret=False, act=typed).effect(0.0, likely=(55, 55, 200, 85))
    assert seconds < 0.8, "where text is expected it is certain soon"


def test_a_late_effect_of_an_earlier_act_does_not_hide_the_next():
    """A label that changed once while idle is no clock: when an act changes it, that counts."""
    desk = Desk(0.0, caret=False, clock=False, act=lambda frame, since: fill(frame, LABEL, 0x333333))
    idle = Idle()
    idle.see(desk.grab(), desk.now)
    desk.wait(0.2)
    frame = desk.grab()
    fill(frame, LABEL, 0x111111)
    idle.see(frame, desk.now)
    desk.acted = desk.now
    seen = watch_effect(frame, idle, desk.grab, desk.wait, lambda: desk.now, 3.0)
    assert seen.boxes == (LABEL,)


def test_another_screen_is_learnt_anew():
    idle = Idle()
    for number in range(8):
        frame = blank()
        fill(frame, LABEL, number)
        idle.see(frame, number * 0.1)
    assert idle.parts(0.8, often=True)
    other = np.zeros(SIZE, dtype=np.uint32)
    idle.see(other, 0.9)
    assert not idle.parts(0.9, often=False) and idle.span == 0
    idle.see(other, 60.0)
    assert idle.span == 0, "frames far apart say nothing of what blinked between them"


def test_a_thing_in_other_colours_is_in_place_and_a_moved_one_is_not():
    rng = np.random.default_rng(3)
    letters = np.where(rng.random((18, 60)) < 0.3, 0x202020, 0xE0E0E0).astype(np.uint32)
    lit = np.where(letters == 0x202020, 0x000000, 0x80C0FF).astype(np.uint32)
    inverted = np.where(letters == 0x202020, 0xFFFFFF, 0x1030A0).astype(np.uint32)
    assert alike(letters, letters) and alike(letters, lit) and alike(letters, inverted)
    for by in (1, 2, 5, 20):
        assert not alike(letters, np.roll(letters, by, axis=1)) and not alike(letters, np.roll(letters, by, axis=0))
    assert not alike(letters, np.full_like(letters, 0xE0E0E0)), "gone"


def test_a_screen_of_another_size_is_a_change():
    frames = iter([blank(), np.zeros((10, 10), dtype=np.uint32)])
    idle = Idle()
    seen = watch_effect(next(frames), idle, lambda: next(frames), lambda seconds: None, lambda: 0.0, 1.0)
    assert seen.boxes == ((0, 0, 10, 10),)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 130), st.integers(0, 90), st.integers(1, 40), st.integers(1, 30)), max_size=6),
    st.integers(1, 150),
    st.integers(1, 110),
)
def test_boxes_hold_exactly_what_differs(parts, width, height):
    a = np.zeros((height, width), dtype=np.uint32)
    b = a.copy()
    for x, y, w, h in parts:
        b[y : y + h, x : x + w] = 7
    boxes = changed(a, b)
    inside = np.zeros_like(a, dtype=bool)
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        part = b[y1:y2, x1:x2] != 0
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any(), "as small as can be"
        inside[y1:y2, x1:x2] = True
    assert not (b[~inside] != 0).any(), "nothing that differs is outside of the boxes"
    assert changed(a, b, boxes) == ()
