"""Pictures of the screen and where they are from: scale, several monitors, and screens that cannot be looked at."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundlink.errors import BadQuery, NoDisplay
from screen_agent import Screen, ScreenAgent, Shot, View, screenshot
from screen_agent.capture import VEIL
from tests.conftest import until
from tests.screen.conftest import end, start_screen

SIDES = st.integers(1, 4000)
PLACES = st.integers(-5000, 5000)


@st.composite
def views(draw):
    """Areas anywhere on the desktop, also left of and above the first monitor, shown as large as they are or finer."""
    x, y, width, height = draw(PLACES), draw(PLACES), draw(SIDES), draw(SIDES)
    scale = draw(st.sampled_from([1, 2, 3, 1.25, 1.5, 0.5]))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return View((x, y, x + width, y + height), size)


class TestView:
    @given(views(), st.floats(0, 1), st.floats(0, 1))
    def test_there_and_back(self, view, across, down):
        x, y = view.size[0] * across, view.size[1] * down
        there = view.to_desktop(x, y)
        assert view.to_picture(*there) == pytest.approx((x, y), abs=1e-6)
        x1, y1, x2, y2 = view.area
        assert x1 - 1e-9 <= there[0] <= x2 + 1e-9 and y1 - 1e-9 <= there[1] <= y2 + 1e-9

    @given(views(), st.floats(0, 1), st.floats(0, 1))
    def test_the_pixel_to_press_is_in_the_area_and_shows_the_place(self, view, across, down):
        x, y = view.size[0] * across, view.size[1] * down
        column, row = view.pixel(x, y)
        x1, y1, x2, y2 = view.area
        assert x1 <= column < x2 and y1 <= row < y2
        left, top = view.to_picture(column, row)
        right, bottom = view.to_picture(column + 1, row + 1)
        assert left - 1e-6 <= x <= right + 1e-6 and top - 1e-6 <= y <= bottom + 1e-6

    def test_the_corners(self):
        view = View((-1920, 100, 0, 1180), (3840, 2160))
        assert view.scale == (2.0, 2.0)
        assert view.pixel(0, 0) == (-1920, 100) and view.pixel(3840, 2160) == (-1, 1179)
        assert view.box_to_desktop((10, 20, 30, 60)) == (-1915, 110, -1905, 130)
        assert view.box_to_picture((-1915, 110, -1905, 130)) == (10, 20, 30, 60)


def shot(width=40, height=30, area=None):
    frame = np.arange(width * height, dtype=np.uint32).reshape(height, width)
    return Shot(frame, View(area or (100, 200, 100 + width, 200 + height), (width, height)), 0.0)


class TestShot:
    @given(st.floats(-20, 60), st.floats(-20, 60), st.floats(0.1, 50), st.floats(0.1, 50), st.sampled_from([1, 2]))
    def test_a_part_shows_what_the_whole_shows_there(self, x, y, width, height, scale):
        whole = shot(40 * scale, 30 * scale, (100, 200, 140, 230))
        box = (100 + x, 200 + y, 100 + x + width, 200 + y + height)
        if box[2] <= 100 or box[3] <= 200 or box[0] >= 140 or box[1] >= 230:
            with pytest.raises(BadQuery, match="outside"):
                whole.crop(box)
            return
        part = whole.crop(box)
        assert part.frame.shape == (part.view.size[1], part.view.size[0]) and part.view.scale == whole.view.scale
        x1, y1, x2, y2 = part.view.area
        assert x1 <= max(box[0], 100) and y1 <= max(box[1], 200) and x2 >= min(box[2], 140) and y2 >= min(box[3], 230)
        for column, row in ((0, 0), (part.view.size[0] - 1, part.view.size[1] - 1)):
            place = whole.view.to_picture(*part.view.to_desktop(column + 0.5, row + 0.5))
            assert part.frame[row, column] == whole.frame[math.floor(place[1]), math.floor(place[0])]

    def test_colours(self):
        frame = np.array([[0xFF0000, 0x00FF00], [0x0000FF, 0x123456]], dtype=np.uint32)
        taken = Shot(frame, View((0, 0, 2, 2), (2, 2)), 0.0)
        assert taken.rgb.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0x12, 0x34, 0x56]]]
        larger = taken.enlarged(2)
        assert larger.view.area == (0, 0, 2, 2) and larger.view.size == (4, 4)
        assert larger.view.to_desktop(4, 4) == (2, 2)

    def test_what_is_covered(self):
        whole = shot()
        covered = whole.veiled([(105, 205, 110, 210), (500, 500, 600, 600)])
        assert (covered.frame[5:10, 5:10] == VEIL).all() and (covered.frame != whole.frame).sum() == 25
        assert whole.veiled([]) is whole and whole.veiled([(500, 500, 600, 600)]) is whole


class TestScreen:
    def test_the_pointer_is_not_in_the_picture(self, desktop):
        screen = Screen()
        pictures = []
        for place in ((300, 300), (1200, 700)):
            subprocess.run(["xdotool", "mousemove", *map(str, place)], check=True)
            pictures.append(screen.grab(screen.area()).frame)
        assert np.array_equal(*pictures)

    def test_areas(self, desktop):
        screen = Screen()
        assert screen.monitors() == [(0, 0, 1920, 1080)] == [screen.area()] == [screen.area(1)]
        assert screen.area(region=(-50, 1000.5, 99.5, 5000)) == (0, 1000, 100, 1080), "clipped to the screen"
        assert screen.grab((5, 6, 25, 16)).view == View((5, 6, 25, 16), (20, 10))
        for wrong in ({"monitor": 2}, {"monitor": 0}, {"monitor": True}, {"region": (2000, 0, 2100, 10)}):
            with pytest.raises(BadQuery, match=r"monitor|region"):
                screen.area(**wrong)
        for region in ((1, 2, 3), (5, 5, 5, 9), "1,2,3,4", (0, 0, math.nan, 4), None):
            with pytest.raises(BadQuery, match=r"x1 < x2"):
                ScreenAgent(region=region) if region is not None else screen.area(region=(9, 9, 1, 1))

    def test_two_monitors_that_come_and_go(self, desktop):
        """A monitor to the right; then only one again. Nothing is remembered of the old arrangement."""
        screen = Screen()
        try:
            subprocess.run(["xrandr", "--setmonitor", "L", "960/254x1080/286+0+0", "screen"], check=True)
            subprocess.run(["xrandr", "--setmonitor", "R", "960/254x1080/286+960+0", "none"], check=True)
            until(lambda: len(screen.monitors()) == 2)
            assert screen.monitors() == [(0, 0, 960, 1080), (960, 0, 1920, 1080)]
            taken = screen.grab(screen.area(monitor=2))
            assert taken.view.area == (960, 0, 1920, 1080) and taken.view.pixel(0, 0) == (960, 0)
            with ScreenAgent(monitor=2) as agent:
                assert agent.screenshot().view.area == (960, 0, 1920, 1080)
        finally:
            for name in ("L", "R"):
                subprocess.run(["xrandr", "--delmonitor", name], check=True)
        until(lambda: screen.monitors() == [(0, 0, 1920, 1080)])

    def test_a_server_that_ends_and_one_started_anew(self, desktop, monkeypatch):
        """The connection is kept from picture to picture, and made anew where it is lost or too old."""
        screen = Screen()
        server, display = start_screen("640x480x24")
        monkeypatch.setenv("DISPLAY", display)
        try:
            assert screen.grab(screen.area()).view.size == (640, 480)
        finally:
            end(server)
        with pytest.raises(NoDisplay, match="xauth"):
            screen.grab((0, 0, 10, 10))
        again = subprocess.Popen(["Xvfb", display, "-screen", "0", "800x600x24"], stderr=subprocess.DEVNULL)
        try:
            until(lambda: not subprocess.run(["xdpyinfo"], capture_output=True, check=False).returncode)
            assert screen.grab((0, 0, 800, 600)).view.size == (800, 600)
        finally:
            end(again)
        monkeypatch.setenv("DISPLAY", desktop)
        assert screen.grab(screen.area()).view.size == (1920, 1080)

    def test_the_whole_screen_as_a_picture(self, desktop):
        assert screenshot().size == (1920, 1080) and screenshot().mode == "RGB"


def without_screen(code, **environment):
    """Run code in a process of its own; return what the NoDisplay it meets says."""
    clean = {k: v for k, v in os.environ.items() if k not in {"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"}}
    wrapped = f"import groundlink\ntry:\n    {code}\nexcept groundlink.NoDisplay as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", wrapped], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


class TestNoScreen:
    ACTS = (
        "import screen_agent; screen_agent.screenshot()",
        "import screen_agent; screen_agent.ScreenAgent('ocr').find('Save')",
        "import screen_agent; screen_agent.ScreenAgent('ocr').click('Save')",
        "import screen_agent; screen_agent.ScreenAgent('ocr').type_text('x')",
        "import screen_agent; screen_agent.ScreenAgent('ocr').press('tab')",
        "import screen_agent; screen_agent.ScreenAgent('ocr').wait_for('Save', timeout=1)",
    )

    @pytest.mark.parametrize("act", ACTS)
    def test_no_display(self, act):
        assert "xvfb-run" in without_screen(act)

    def test_wayland(self):
        assert "Xorg" in without_screen(self.ACTS[0], WAYLAND_DISPLAY="wayland-0")
        assert "Xorg" in without_screen(self.ACTS[2], WAYLAND_DISPLAY="wayland-0")

    @pytest.mark.parametrize("act", ACTS[:4])
    def test_a_display_that_is_not_there(self, act):
        assert ":987" in without_screen(act, DISPLAY=":987")

    def test_an_agent_is_made_without_a_screen(self):
        assert without_screen("import screen_agent; screen_agent.ScreenAgent(); print('made')") == "made\n"

    def test_macos_without_the_permission(self, monkeypatch):
        """As far as it can be tried elsewhere: the system says no, and the error names the setting."""
        from screen_agent import capture

        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(capture, "_may_record", lambda: False)
        with pytest.raises(NoDisplay, match="Screen Recording"):
            capture.check_session()
