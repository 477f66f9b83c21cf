"""What goes wrong around an act: rubbish from callers, stops half-way, focus that moves, windows that go."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from groundlink import Locator
from groundlink.errors import ActionDenied, ActionHadNoEffect, BadQuery, DeadlineExceeded
from screen_agent import Policy, ScreenAgent
from tests.agent_plugin.slow import SlowBackend
from tests.conftest import until
from tests.screen.test_agent import button, form, says


@pytest.fixture
def make(desktop, locator):
    made = []

    def start(**settings):
        made.append(ScreenAgent(locator, **settings))
        return made[-1]

    yield start
    for agent in made:
        agent.close()


FIELD = {"kind": "entry", "name": "Name", "x": 160, "y": 30, "w": 300, "h": 40}
LABEL = {"kind": "label", "text": "Your name", "x": 30, "y": 38}


@pytest.mark.parametrize(
    "call",
    [
        lambda agent: agent.click(None),
        lambda agent: agent.click("Save", count=1.0),
        lambda agent: agent.click("Save", count=[]),
        lambda agent: agent.click("Save", button=[]),
        lambda agent: agent.click("Save", near=("a", None)),
        lambda agent: agent.click("Save", expect=""),
        lambda agent: agent.click("Save", expect=5),
        lambda agent: agent.hover("Save", expect=" "),
        lambda agent: agent.drag("Save", None),
        lambda agent: agent.type_into(5, "text"),
        lambda agent: agent.type_into("Save", "text", expect=""),
        lambda agent: agent.type_text("text", expect=5),
        lambda agent: agent.press(None),
        lambda agent: agent.press("a", expect=5),
        lambda agent: agent.window(None),
        lambda agent: agent.wait_for("Save", nth=0),
        lambda agent: agent.scroll_to("Save", turns=-1),
        lambda agent: ScreenAgent(agent.locator, window=5),
    ],
)
def test_rubbish_is_refused_before_anything_is_done(make, launch, call):
    program = launch("form", form(button("Save", 30, 30, **says("saved"))))
    with pytest.raises(BadQuery):
        call(make(policy=Policy(confirm=lambda proposal: True)))
    program.settle()
    assert not program.of("press") and not program.of("key")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_closed_agents_leave_no_connections(make):
    """A server takes 256 of them in all, and after that nobody can open a window."""

    def files():
        return len(list(Path("/proc/self/fd").iterdir()))

    agent = make()
    agent.screenshot()
    count = files()
    for _ in range(5):
        with make() as another:
            another.screenshot()
    assert files() == count


def give_keyboard(agent, program, widget="Name"):
    agent.pointer.move(*program.middle(widget))
    agent.pointer.click()
    program.settle()


class TestSecrets:
    SECRET = "hunter two secret"

    def test_one_whose_typing_is_stopped_is_covered(self, make, launch, tmp_path):
        """What was typed by then is on the screen."""
        program = launch("form", form(LABEL, FIELD))
        stop = tmp_path / "stop"
        agent = make(policy=Policy(stop_file=stop))
        give_keyboard(agent, program)
        left = [10]

        def check():
            left[0] -= 1
            if left[0] == 0:
                stop.touch()
            check_stop()

        check_stop, agent.guard.check_stop = agent.guard.check_stop, check
        with pytest.raises(ActionDenied, match="stop"):
            agent.type_text(self.SECRET, secret=True)
        program.settle()
        stop.unlink()
        agent.guard.check_stop = check_stop
        assert program.value("Name") and program.value("Name") in self.SECRET
        assert "hunt" not in agent.read()

    def test_what_is_expected_is_asked_of_a_picture_without_it(self, make, launch):
        program = launch("form", form(LABEL, FIELD))
        agent = make()
        give_keyboard(agent, program)
        with pytest.raises(ActionHadNoEffect):
            agent.type_text(self.SECRET, secret=True, expect=self.SECRET, timeout=0.6)
        assert program.wait(lambda _: program.value("Name") == self.SECRET)


class TestStops:
    def test_a_long_drag(self, make, launch, tmp_path):
        program = launch("form", form(button("Source", 30, 30), button("Goal", 450, 250)))
        stop = tmp_path / "stop"
        agent = make(policy=Policy(stop_file=stop))
        threading.Thread(target=lambda: program.event("press", seconds=30) and stop.touch()).start()
        start = time.monotonic()
        with pytest.raises(ActionDenied, match="stop"):
            agent.drag("Source", "Goal", seconds=20)
        assert time.monotonic() - start < 15
        program.event("release")

    def test_a_long_scroll(self, make, launch, tmp_path):
        program = launch("form", form(button("Source", 30, 30)))
        stop = tmp_path / "stop"
        agent = make(policy=Policy(stop_file=stop))
        threading.Thread(target=lambda: program.event("wheel", seconds=30) and stop.touch()).start()
        with pytest.raises(ActionDenied, match="stop"):
            agent.scroll(1000, inside=program.boxes["Source"])
        program.settle()
        assert len(program.of("wheel")) < 990

    def test_keys_stop_where_another_window_takes_the_keyboard(self, make, launch):
        mine = launch("form", form(FIELD, title="Mine"))
        other = launch("form", {"title": "Other", "x": 1100, "y": 600, "w": 500, "h": 300, "widgets": [FIELD]})
        agent = make(policy=Policy(windows=("Mine",), confirm=lambda proposal: steal()))

        def steal():
            other.say("focus", widget="Name")
            until(lambda: agent._windows.focused().title == "Other")
            return True

        def take_back():
            agent.focus("Mine")
            give_keyboard(agent, mine)

        take_back()
        with pytest.raises(ActionDenied, match="'Other'"):
            agent.hotkey("ctrl", "a")
        take_back()
        threading.Thread(target=lambda: mine.event("text", seconds=30) and steal()).start()
        with pytest.raises(ActionDenied, match="'Other'"):
            agent.type_text("x" * 3000)
        other.settle()
        assert not other.of("key", keysym="a") and len(other.value("Name")) < 50


class TestWindowsThatGo:
    """Of an agent that looks at one window."""

    def test_closed_by_the_act(self, make, launch):
        program = launch("form", form(button("Quit", 30, 30, does=[{"do": "quit"}])))
        agent = make(window="Trial")
        with pytest.raises(ActionHadNoEffect, match=r"Goodbye.*no window is called"):
            agent.click("Quit", expect="Goodbye", timeout=0.5)
        assert program.of("press"), "it was done, and so the error says that"

    def test_waiting(self, make, launch):
        agent = make(window="Trial")
        with pytest.raises(DeadlineExceeded, match="no window is called"):
            agent.wait_for("Late", timeout=0.3)
        found = []
        waiting = threading.Thread(target=lambda: found.append(agent.wait_for("Late", timeout=20)))
        waiting.start()
        program = launch("form", form(button("Late", 30, 30)))
        waiting.join()
        assert found[0].text == "Late"
        threading.Timer(0.3, lambda: program.say("quit")).start()
        agent.wait_gone("Late", timeout=10)


def test_denied_words_that_are_broken_over_lines(make, launch):
    program = launch("form", form(button("Empty\ntrash", 30, 30, h=70), button("Save", 400, 30)))
    agent = make()
    with pytest.raises(ActionDenied, match="empty trash"):
        agent.click("Empty")
    agent.click("Save", check=False)
    program.event("press", widget="Save")
    assert not program.of("press", widget="Empty\ntrash")


def test_a_place_that_was_found_before_is_where_its_window_is_now(make, launch):
    """Another window's button of the same name is where it was."""
    label = {"kind": "label", "text": "Billing", "x": 30, "y": 30}
    program = launch("form", form(label, button("Ready now", 30, 80), x=20, y=20, w=500))
    agent = make()
    place = agent.find("Billing")
    program.say("window", x=900, y=500)
    until(lambda: agent.window("Trial").box[0] > 800)
    program.look()
    other = launch("form", form(button("Ready now", 30, 80), title="Other", x=20, y=20, w=500))
    agent.click("Ready now", near=place, check=False)
    program.event("press", widget="Ready now")
    assert not other.of("press")


def test_what_was_found_when_time_was_up_is_not_acted_on(desktop, launch):
    """The first of several was found by then: it would be a guess that it is the one."""
    program = launch("form", form(button("Save", 30, 30)))
    with Locator(SlowBackend()) as slow, ScreenAgent(slow) as agent:
        agent.deadline = time.monotonic() + 1.0
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not finish"):
            agent.click("5 boxes 0.4")
        assert time.monotonic() - started < 3 and not program.of("press")


def test_watching_a_window_that_closes(make, launch):
    program = launch("form", form(button("Ping", 30, 30)))
    events = []
    for seen in make(window="Trial").watch("Ping", timeout=15, interval=0.05):
        events.append(seen.event)
        if seen.event == "gone":
            break
        program.say("quit")
    assert events == ["appeared", "gone"]
