"""Real windows: found by title, under a pixel, with the keyboard; with a window manager and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest

from groundlink import errors
from screen_agent.pointer import Pointer
from screen_agent.windows import Window, Windows
from tests.conftest import until
from tests.screen.conftest import end, start_manager, start_screen

SMALL = {"title": "Small", "x": 1200, "y": 100, "w": 300, "h": 200, "widgets": []}


@pytest.fixture
def windows(desktop):
    with_windows = Windows()
    yield with_windows
    with_windows.close()


def geometry(window: int) -> tuple[float, ...]:
    """The contents of a window as xwininfo has them."""
    said = subprocess.run(["xwininfo", "-id", str(window)], capture_output=True, text=True, check=True).stdout
    names = ("Absolute upper-left X", "Absolute upper-left Y", "Width", "Height")
    x, y, width, height = (int(re.search(rf"{name}:\s+(-?\d+)", said)[1]) for name in names)
    return (x, y, x + width, y + height)


def test_windows_are_found_by_title_with_their_contents(windows, launch):
    form, small = launch("form"), launch("form", SMALL)
    assert [window.title for window in windows.all()] == ["Small", "Form – Zürich"]
    found = windows.find("Form – Zürich")
    assert found.box == geometry(found.id) == form.box
    assert found.pid == form.pid
    assert found.owner == found.id
    assert windows.find("small").box == geometry(windows.find("SMALL").id) == small.box
    assert windows.find("ZÜRICH") == found


def test_a_title_in_full_wins_over_one_that_contains_it(windows, launch):
    launch("form", SMALL)
    launch("form", SMALL | {"title": "Small print"})
    assert windows.find("Small").title == "Small"
    with pytest.raises(errors.TargetAmbiguous, match=r"2 windows are called 'mall'.*'Small print', 'Small'"):
        windows.find("mall")
    with pytest.raises(errors.TargetNotFound, match=r"no window is called 'Large'.*'Small print', 'Small'"):
        windows.find("Large")
    with pytest.raises(errors.BadQuery, match="empty"):
        windows.find(" ")


def test_two_windows_of_one_title_are_ambiguous(windows, launch):
    launch("form", SMALL)
    launch("form", SMALL | {"x": 100})
    with pytest.raises(errors.TargetAmbiguous, match="2 windows"):
        windows.find("Small")


def test_the_window_under_a_pixel_is_the_topmost(windows, launch):
    below, above = launch("form", SMALL | {"title": "below"}), launch("form", SMALL | {"title": "above", "x": 1300})
    x1, y1 = above.box[:2]
    assert windows.at(x1 + 5, y1 + 5).title == "above"
    assert windows.at(x1 - 20, y1 + 5).title == "below"
    assert windows.at(x1 + 5, y1 - 8).title == "above", "the title bar is part of the window"
    assert windows.at(10, 1000) is None
    assert windows.at(x1 + 0.9, y1 + 0.9).title == "above"
    assert windows.at(-5, 20) is None
    assert windows.at(1920, 20) is None
    assert windows.at(1e9, 20) is None
    windows.activate(windows.find("below"))
    until(lambda: windows.at(x1 + 5, y1 + 5).title == "below")
    until(lambda: windows.focused().title == "below")
    assert [window.title for window in windows.all()] == ["below", "above"]
    assert below.box == windows.focused().box


def test_a_window_that_moves_is_minimised_and_ends(windows, launch):
    form = launch("form", SMALL)
    window = windows.find("Small")
    form.say("window", x=200, y=300)
    until(lambda: windows.current(window.id).box[0] < 300)
    form.look()
    assert windows.current(window.id).box == form.box
    form.say("title", text="Größer")
    until(lambda: windows.current(window.id).title == "Größer")
    form.say("minimise")
    until(lambda: windows.current(window.id) is None)
    assert windows.all() == []
    assert windows.at(form.box[0] + 5, form.box[1] + 5) is None
    form.say("restore")
    until(lambda: windows.current(window.id) is not None)
    form.say("quit")
    until(lambda: windows.current(window.id) is None)
    windows.activate(window)


def test_a_menu_belongs_to_the_window_that_opened_it(windows, launch):
    form = launch("form")
    launch("form", SMALL)
    window = windows.find("Form – Zürich")
    pointer = Pointer()
    pointer.move(*form.middle("File"))
    pointer.click()
    x1, y1, x2, y2 = form.event("posted")["box"]
    menu = windows.at((x1 + x2) / 2, (y1 + y2) / 2)
    assert menu.id != window.id
    assert menu.owner == window.id
    assert menu.box == (x1, y1, x2, y2)
    assert windows.current(menu.id) == menu
    assert menu.id not in [other.id for other in windows.all()]
    pointer.key("escape")
    until(lambda: windows.at((x1 + x2) / 2, (y1 + y2) / 2).id == window.id)


def test_a_popup_without_a_title_is_called_as_its_owner(windows, launch):
    form = launch("form", SMALL)
    form.say("popup", name="hint", text="Hint", x=600, y=500, w=120, h=40, type="tooltip")
    form.event("popup")
    until(lambda: windows.tooltips() == [(600, 500, 720, 540)])
    hint = windows.at(610, 510)
    assert (hint.title, hint.owner) == ("Small", windows.find("Small").id)
    form.say("close", name="hint")
    until(lambda: windows.tooltips() == [])
    form.say("popup", name="menu", text="Menu", x=600, y=500, w=120, h=40)
    form.event("popup", name="menu")
    assert windows.tooltips() == []


def test_parts_of_a_window():
    window = Window(1, "a", (100, 50, 300, 150), None)
    assert window.part(0, 0, 1, 1) == window.box
    assert window.part(0.5, 0.25, 1, 0.5) == (200, 75, 300, 100)
    for wrong in [(0.5, 0, 0.5, 1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1), (0, 1, 1, 0), (0, 0, float("nan"), 1)]:
        with pytest.raises(errors.BadQuery, match="0…1"):
            window.part(*wrong)


@pytest.mark.parametrize("title", [b"caf\xe9 \xff", b"\xe6\x9d\xb1", b"a\0b\n", b""])
def test_rubbish_in_a_title_raises_nothing(windows, launch, title):
    launch("form", SMALL)
    window = windows.find("Small")

    def set_title(server):
        for name in ("_NET_WM_NAME", "WM_NAME"):
            kind = server.atom("UTF8_STRING")
            server.core.ChangeProperty(0, window.id, server.atom(name), kind, 8, len(title), title)
        server.sync()

    windows._link.ask(set_title)
    assert isinstance(windows.current(window.id).title, str)
    with pytest.raises(errors.TargetNotFound):
        windows.find("nowhere")


def test_windows_that_vanish_meanwhile_raise_nothing(windows, launch):
    launch("form", SMALL)
    ending = threading.Event()
    failures = []

    def look():
        try:
            while not ending.is_set():
                windows.all(), windows.at(610, 510), windows.focused(), windows.tooltips(), windows.keys_down()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(4):
        launch("form", SMALL | {"title": f"{number}", "x": 600, "y": 480}).end()
    ending.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_looking_costs_little(windows, launch):
    form = launch("form")
    launch("form", SMALL)
    windows.at(*form.middle("Save"))

    def cost(look):
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            look()
            times.append(time.perf_counter() - begin)
        return sorted(times)[10]

    assert cost(lambda: windows.at(*form.middle("Save"))) < 0.02
    assert cost(windows.focused) < 0.02


def test_keys_that_are_down(windows):
    assert windows.keys_down() == frozenset()
    for given, names in {"Control_R Escape": {"ctrl", "escape"}, "Alt_L F7 Shift_R": {"alt", "f7", "shift"}}.items():
        try:
            subprocess.run(["xdotool", "keydown", *given.split()], check=True)
            assert windows.keys_down() == names
        finally:
            subprocess.run(["xdotool", "keyup", *given.split()], check=True)
    assert windows.keys_down() == frozenset()


def test_where_the_pointer_is(windows):
    Pointer().move(123, 456)
    assert windows.pointer() == (123, 456)


def test_xvfb_is_no_xwayland(windows):
    assert not windows.is_xwayland()


def test_without_a_window_manager(launch, monkeypatch):
    server, display = start_screen("1000x700x24")
    manager = None
    try:
        monkeypatch.setenv("DISPLAY", display)
        windows = Windows()
        assert windows.all() == []
        below = launch("form", SMALL | {"title": "below", "x": 300}, display=display)
        above = launch("form", SMALL | {"title": "above", "x": 350}, display=display)
        assert [window.title for window in windows.all()] == ["above", "below"]
        assert windows.find("above").box == above.box
        assert windows.at(400, 150).title == "above"
        assert windows.at(310, 150).title == "below"
        assert windows.at(5, 500) is None
        Pointer().move(400, 150)
        assert windows.focused().title == "above", "the keyboard follows the pointer"
        windows.activate(windows.find("below"))
        assert windows.at(400, 150).title == "below"
        assert windows.focused().title == "below"
        below.say("popup", name="hint", text="Hint", x=700, y=500, w=120, h=40)
        below.event("popup")
        assert windows.at(710, 510).owner == windows.find("below").id
        # A manager that comes later takes the windows over; one that dies leaves its lists behind.
        manager = start_manager(display)
        until(lambda: windows.at(400, 150) is not None)
        until(lambda: {window.title for window in windows.all()} == {"above", "below"})
        end(manager)
        manager = None
        until(lambda: {window.title for window in windows.all()} == {"above", "below"})
        until(lambda: windows.at(400, 150) is not None)
        windows.close()
    finally:
        if manager:
            end(manager)
        end(server)


def test_several_screens_one_after_the_other(windows, launch, monkeypatch, desktop):
    launch("form", SMALL)
    pointer = Pointer()
    pointer.move(50, 60)
    server, display = start_screen("800x600x24")
    try:
        monkeypatch.setenv("DISPLAY", display)
        assert windows.all() == []
        assert pointer.size() == (800, 600)
        pointer.move(700, 500)
        assert windows.pointer() == (700, 500)
        monkeypatch.setenv("DISPLAY", desktop)
        assert windows.find("Small").title == "Small"
        assert pointer.position() == (50, 60)
        monkeypatch.setenv("DISPLAY", display)
        pointer.move(10, 20)
        assert windows.pointer() == (10, 20)
    finally:
        end(server)
    with pytest.raises(errors.NoDisplay, match=rf"DISPLAY={display} runs"):
        windows.all()
    with pytest.raises(errors.NoDisplay, match=rf"DISPLAY={display}"):
        pointer.move(30, 40)
    server, again = start_screen("640x480x24")
    try:
        if again == display:
            pointer.move(600, 400)
            assert windows.pointer() == (600, 400)
    finally:
        end(server)
    monkeypatch.setenv("DISPLAY", desktop)
    assert windows.find("Small").title == "Small"
    pointer.move(50, 61)


def test_no_screen_is_said_with_the_remedy(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for use in (lambda: Windows().all(), lambda: Pointer().move(5, 5), lambda: Pointer().key("a")):
        with pytest.raises(errors.NoDisplay, match="xvfb-run"):
            use()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(errors.NoDisplay, match="Wayland"):
        Windows().all()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(errors.NoDisplay, match="region="):
        Windows()
    assert "DISPLAY" not in os.environ
