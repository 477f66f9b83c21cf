"""The agent on programs that were not made for it: calculators, an editor, a browser; two monitors, a scaled one."""

from __future__ import annotations

import http.server
import json
import os
import queue
import random
import shutil
import subprocess
import threading
import time

import pytest
from PIL import Image

from groundlink.errors import ActionDenied, ActionHadNoEffect, BadQuery, TargetAmbiguous, TargetNotFound
from screen_agent import Policy, ScreenAgent
from screen_agent.windows import Windows
from tests.conftest import until
from tests.screen.conftest import end, missing, start_manager, start_screen

PACKAGES = {
    "xcalc": "x11-apps",
    "galculator": "galculator",
    "mousepad": "mousepad",
    "chromium": "chromium",
    "xrandr": "x11-xserver-utils",
}


def need(program):
    if shutil.which(program) is None:
        missing(f"{program} (apt install {PACKAGES[program]})")


class Runner:
    """Starts programs with a home of their own, no settings of the user's, and no session bus; `end` ends them."""

    def __init__(self, home):
        self.home = home
        self.running = []

    def __call__(self, title, *command, **environment):
        """Start a program and wait until a window with this in its title is shown and stays where it is."""
        need(command[0])
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home), "GSETTINGS_BACKEND": "memory"}
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("XDG_", "DBUS_", "GTK_", "GDK_", "LC_", "LANGUAGE"))
        }
        program = subprocess.Popen(
            command,
            env=kept | {"LANG": "C.UTF-8", "NO_AT_BRIDGE": "1"} | own | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.running.append(program)
        windows, seen = Windows(), []

        def shown():
            seen.append(next((window for window in windows.all() if title in window.title), None))
            time.sleep(0.05)
            return seen[-1] is not None and seen[-4:] == [seen[-1]] * 4

        until(shown, 30)
        return seen[-1]

    def end(self):
        for program in reversed(self.running):
            end(program)
        self.running.clear()


@pytest.fixture
def run(desktop, tmp_path):
    runner = Runner(tmp_path)
    yield runner
    runner.end()


@pytest.fixture
def make(desktop, locator):
    """Make an agent with the embedded default, which all of them share; the pointer is out of the way."""

    def make(**settings):
        agent = ScreenAgent(locator, **settings)
        agent.park()
        return agent

    return make


class TestCalculator:
    def test_seven_times_eight(self, make, run):
        window = run("Calculator", "xcalc")
        agent = make(window="Calculator")
        keys, display = window.part(0, 0.7, 1, 1), window.part(0, 0, 1, 0.09)
        agent.click("8", within=keys)
        with pytest.raises(TargetAmbiguous, match="twice") as caught:
            agent.click("8")
        above, key = caught.value.candidates
        assert above.pixel[1] < display[3] and key.pixel[1] > keys[1], "the display shows what the key says"
        assert agent.read(within=display).split()[0] == "8"
        agent.click("AC")
        for name in ("7", "*", "8", "="):
            pressed = agent.click(name, within=keys, check=name != "*")
            assert keys[1] < pressed.target.pixel[1] < keys[3]
        assert agent.read(within=display).split()[0] == "56"

    def test_on_a_scaled_display(self, make, run):
        """With GDK_SCALE=2 a program draws everything twice as large; the agent and the pointer count its pixels."""
        window = run("galculator", "galculator", GDK_SCALE="2")
        assert window.box[2] - window.box[0] > 600
        agent = make()
        for name in ("7", "*", "8", "="):
            agent.click(name, within=window if name == "=" else window.part(0, 0.5, 0.8, 0.75))
        assert agent.read(within=window.part(0, 0.07, 1, 0.25)) == "56"


class TestEditor:
    TEXT = "Zürich, 東京 € <tag> & more\nsecond line\n"

    def test_type_save_and_undo(self, make, run, tmp_path):
        notes = tmp_path / "notes.txt"
        notes.touch()
        run("notes.txt", "mousepad", str(notes))
        agent = make(window="notes.txt", policy=Policy(allow_keys=("enter", "ctrl+z")))
        agent.type_text(self.TEXT)
        assert "second line" in agent.read().splitlines()
        agent.click("File", expect="Save As...")
        agent.click("Save", near="Save As...")
        until(lambda: notes.read_bytes() == self.TEXT.encode())
        agent.hotkey("ctrl", "z")
        assert "second line" not in agent.read().splitlines()

        agent.click("File", expect="Save As...")
        agent.click("Save As...")
        until(lambda: any(found.title == "Save As" for found in Windows().all()))
        agent = make(window="Save As")
        agent.type_text("Größe 2")
        agent.click("Save", within=agent.window("Save As").part(0.5, 0.8, 1, 1), check=False)
        until((tmp_path / "Größe 2.txt").exists)
        assert notes.read_bytes() == self.TEXT.encode()
        assert (tmp_path / "Größe 2.txt").read_bytes() in (b"", self.TEXT.encode()[:-1]), "what was undone"


PAGE = """<!doctype html><meta charset="utf-8"><title>%(title)s</title>
<style>
  body { font: 15px "DejaVu Sans", sans-serif; margin: 12px; background: white; color: #202020 }
  button, input, select, option { font: inherit }
  button, .tab, .entry { padding: 6px 12px }
  %(style)s
</style>
<body>%(body)s
<script>
  const tell = (event, more) => fetch('/tell', {method: 'POST', body: JSON.stringify({event, ...more})});
  const about = e => ({id: e.target.closest('[id]')?.id, value: e.target.value, trusted: e.isTrusted});
  for (const kind of ['pointerdown', 'change', 'input', 'drop'])
    addEventListener(kind, e => tell(kind, about(e)), true);
  new EventSource('/orders').onmessage = e => eval(e.data);
  %(script)s
  onload = () => requestAnimationFrame(() => requestAnimationFrame(() => tell('ready', {title: document.title})));
</script>"""


class Browser:
    """Chromium in a window without bars, on pages from this process, which tell what is done to them.

    Events are dicts as {"event": "pointerdown", "id": …}: `id` of the element, or of the closest around it with one.
    """

    def __init__(self, runner, folder):
        self.events = []
        self._pages = {}
        self._orders = queue.Queue()
        browser = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/orders":
                    self.stream()
                    return
                page = browser._pages.get(self.path)
                self.send_response(200 if page else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(page or b"")

            def do_POST(self):
                browser.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def stream(self):
                """One page listens at a time; it is told to leave, or that all ends."""
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                while order := browser._orders.get():
                    self.wfile.write(f"data: {order}\n\n".encode())
                    if order.startswith("location"):
                        return

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._pages["/0"] = (PAGE % {"title": "Page 0", "style": "", "body": "Hello", "script": ""}).encode()
        plain = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        plain += ["--disable-component-update", "--disable-sync", "--test-type", "--force-device-scale-factor=1"]
        plain += ["--password-store=basic", "--disable-features=Translate"]
        address = f"http://127.0.0.1:{self._server.server_port}/0"
        settings = folder / "Default" / "Preferences"
        settings.parent.mkdir()
        settings.write_text('{"credentials_enable_service": false}', encoding="utf-8")  # it offers to keep passwords
        place = ["--window-position=300,100", "--window-size=760,640", f"--user-data-dir={folder}", f"--app={address}"]
        self.window = runner("Page 0", "chromium", *plain, *place)
        self.event("ready", title="Page 0")

    def show(self, body, *, style="", script=""):
        """Go to a new page, and wait until it is painted."""
        number = len(self._pages)
        title = f"Page {number}"
        page = PAGE % {"title": title, "style": style, "body": body, "script": script}
        self._pages[f"/{number}"] = page.encode()
        self.run(f"location.href = '/{number}'")
        self.event("ready", title=title)
        self.events.clear()

    def run(self, script):
        """Have a line of JavaScript run in the page."""
        self._orders.put(script)

    def of(self, kind, **fields):
        asked = {"event": kind, **fields}
        return [event for event in list(self.events) if asked.items() <= event.items()]

    def event(self, kind, **fields):
        """Wait for an event with these fields, and return the latest."""
        try:
            until(lambda: self.of(kind, **fields), 20)
        except AssertionError as error:
            raise AssertionError(f"{kind} {fields}: {error}; the page said {self.events[-20:]}") from None
        return self.of(kind, **fields)[-1]

    def close(self):
        self._orders.put(None)
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="class")
def browser(desktop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    runner, made = Runner(folder), None
    try:
        made = Browser(runner, folder)
        yield made
    finally:
        runner.end()
        if made is not None:
            made.close()


@pytest.fixture
def web(make, browser):
    """An agent that looks at the browser's window only."""
    return lambda **settings: make(region=browser.window.box, **settings)


NAMES = {
    "button": ["Save", "Save as", "Save all", "Resave", "Print", "Print preview"],
    "tab": ["General", "Generals", "General info", "Security"],
    "entry": ["Open", "Open file", "Opened files", "Reopen", "Close"],
    "link": ["Help", "Help center", "Get helpers", "Imprint"],
    "field": ["First name", "Last name", "Name of pet"],
    "box": ["Send news", "Weekly news", "News", "Renew"],
    "cell": ["Invoice 1041", "Invoice 1014", "Invoice 1404", "Paid"],
}
SHAPES = {
    "button": "<button id={id}>{name}</button>",
    "tab": "<span class=tab id={id}>{name}</span>",
    "entry": "<div class=entry id={id}>{name}</div>",
    "link": "<a id={id} href=#>{name}</a>",
    "field": "<input id={id} size=14 placeholder='{name}'>",
    "box": "<label id={id}><input type=checkbox> {name}</label>",
    "cell": "<td id={id}>{name}</td>",
}
LAYOUT = """
  .group { margin: 10px 24px 10px 0; display: flex; flex-wrap: wrap; gap: 10px 16px }
  button { border: 1px solid #606060; background: #e8e8e8 }
  a { margin-right: 30px; color: #2040a0 !important }
  .tab { border-bottom: 3px solid #3060c0 }
  .entries { flex-direction: column; gap: 0; width: 150px; border: 1px solid #a0a0a0 }
  td { border: 1px solid #a0a0a0; padding: 6px 14px }
"""


def generated(seed):
    """A page with 30 elements in an order of the seed; return its body, and the name of each id."""
    chance = random.Random(seed)
    names, groups = {}, []
    for kind, given in NAMES.items():
        made = []
        for name in chance.sample(given, len(given)):
            names[f"e{len(names)}"] = name
            made.append(SHAPES[kind].format(id=f"e{len(names) - 1}", name=name))
        if kind == "cell":
            made = [f"<table><tr>{made[0]}{made[1]}<tr>{made[2]}{made[3]}</table>"]
        groups.append(f"<div class='group {'entries' if kind == 'entry' else ''}'>{''.join(made)}</div>")
    chance.shuffle(groups)
    return "".join(groups), names


class TestBrowser:
    def test_thirty_elements(self, web, browser):
        body, names = generated(seed=1)
        assert len(names) == 30
        browser.show(body, style=LAYOUT)
        agent = web(policy=Policy(deny=()))
        wrong = {}
        for number, (id, name) in enumerate(names.items(), start=1):
            # Most of them change nothing that can be seen, so that the page has to be read a few times only.
            result = agent.click(name, expect=lambda count=number: len(browser.of("pointerdown")) == count)
            hit = browser.of("pointerdown")[-1]["id"]
            if hit != id or result.effect != "expected":
                wrong[name] = (names.get(hit), result.target.text)
        assert not wrong

    def test_an_option_of_a_select(self, web, browser):
        browser.show(
            "<select id=country><option>Country<option>Austria<option>Australia<option>Aust</select>"
            "<p>Next to Australia"
        )
        agent = web()
        agent.click("Country", expect="Austria")
        agent.click("Australia", nth=1, expect=lambda: bool(browser.of("change")))
        assert browser.event("change", id="country")["value"] == "Australia"

    def test_a_dialog_that_opens_late(self, web, browser):
        browser.show(
            "<button id=seat>Seats</button><dialog id=which><p>Which seat?<p><button id=aisle>Aisle</button> "
            "<button id=window>Window</button></dialog>",
            script="seat.onclick = () => seat.textContent = 'Wait';"
            "document.getElementById('window').onclick = () => which.close()",
        )
        agent = web()
        agent.click("Seats")
        with pytest.raises(TargetNotFound):
            agent.find("Which seat?")
        browser.run("setTimeout(() => which.showModal(), 1000)")
        question = agent.wait_for("Which seat?", timeout=20)
        agent.click("Window", near=question)
        assert browser.of("pointerdown", id="window")
        agent.wait_gone("Which seat?")

    def test_far_below(self, web, browser):
        rows = "".join(f"<p>Chapter {number}" for number in range(60))
        browser.show(f"{rows}<p><a id=imprint href=#>Imprint</a><p>The end")
        agent = web()
        agent.click(agent.scroll_to("Imprint", step=25), check=False)
        browser.event("pointerdown", id="imprint", trusted=True)

    def test_a_dead_button_beside_a_caret_and_a_clock(self, web, browser):
        browser.show(
            "<p><button id=dead onmousedown='event.preventDefault()'>Refresh</button> <input id=field autofocus>"
            "<p id=clock>",
            style="#dead { background: #e8e8e8; border: 1px solid #808080; transition: background .4s, color .4s }"
            "#dead:hover { background: #204080; color: white }",
            script="const tick = () => clock.textContent = new Date().toLocaleTimeString(); tick();"
            "setInterval(tick, 1000); field.focus()",
        )
        agent = web()
        for count in (1, 2):
            with pytest.raises(ActionHadNoEffect) as caught:
                agent.click("Refresh")
            assert not caught.value.result.changes
            assert len(browser.of("pointerdown", id="dead")) == count == len(browser.of("pointerdown"))

    def test_a_button_that_the_page_pushes_away(self, web, browser):
        """Something loads late above it, and another button comes to lie where it was."""
        browser.show(
            "<p id=late hidden style='margin: 0'><button>Start over</button>"
            "<p style='margin: 0'><button id=on>Go on</button><p id=came>",
            script="const shift = () => late.hidden = false; on.onclick = () => came.textContent = 'Arrived'",
        )
        agent = web()
        found = agent.find("Go on")
        browser.run("shift()")
        agent.wait_for("Start over")
        result = agent.click(found)
        assert result.effect == "changed" and result.target.pixel[1] > found.pixel[1] + 10
        browser.run("came.textContent = 'While it is looked for'; late.hidden = true; setTimeout(shift, 400)")
        time.sleep(0.3)
        assert agent.click("Go on", expect="Arrived").effect == "expected"
        assert [event["id"] for event in browser.of("pointerdown")] == ["on", "on"]

    def test_a_password_is_in_no_picture(self, web, browser, tmp_path, locator):
        secret = "hunter2secret"
        browser.show(
            "<p>Account<p><input id=word type=password placeholder='Your password'><p>"
            "<label id=show><input type=checkbox> Show it</label>",
            script="show.onchange = () => word.type = 'text'",
        )
        agent = web(log=tmp_path / "log")
        agent.type_into("Your password", secret, secret=True)
        until(lambda: browser.of("input", id="word", value=secret))
        shown = agent.click("Show it")
        assert browser.event("change", id="show")
        assert secret in ScreenAgent(locator, region=browser.window.box).read(), "the page does show it"
        assert secret not in agent.read() and "Account" in agent.read()
        pictures = [shown.before, shown.after, agent.screenshot().image]
        for path in (tmp_path / "log").glob("*.jpg"):
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        assert len(pictures) > 6
        for picture in pictures:
            assert not len(locator.locate(picture, secret, threshold=0.5))
        assert secret not in (tmp_path / "log" / "actions.jsonl").read_text(encoding="utf-8")

    def test_drag_an_item_and_a_slider(self, web, browser):
        browser.show(
            "<ul><li id=pear draggable=true>Pears<li id=apple draggable=true>Apples</ul>"
            "<div id=basket ondragover='event.preventDefault()'>Basket</div>"
            "<div id=level>Level</div><p id=ends>Low<span>High</span>",
            style="li { margin: 8px } #basket { border: 2px dashed gray; padding: 30px; width: 200px; margin: 20px }"
            "#level { position: relative; left: 40px; width: 60px; background: #c0d8ff; touch-action: none;"
            "user-select: none } #ends span { position: absolute; left: 480px }",
            script="let moved; ondragstart = e => moved = e.target; basket.ondrop = e => { e.preventDefault();"
            "basket.append(moved); moved.style.color = 'green' };"
            "level.onpointerdown = e => level.setPointerCapture(e.pointerId);"
            "level.onpointermove = e => { if (e.buttons) level.style.left = e.clientX - 30 + 'px' };"
            "level.onpointerup = e => tell('level', {value: parseInt(level.style.left)})",
        )
        agent = web()
        assert agent.drag("Apples", "Basket").effect == "changed"
        browser.event("drop", id="basket")
        agent.drag("Level", "High")
        assert abs(browser.event("level")["value"] + 30 - 500) < 30


def one_button(title, left, text, **more):
    button = {"kind": "button", "text": text, "x": 20, "y": 20, "w": 200, "h": 44, **more}
    return {"title": title, "x": left, "y": 300, "w": 300, "h": 160, "widgets": [button]}


@pytest.fixture
def two_monitors(desktop, monkeypatch):
    """A screen of its own with two monitors side by side, the screen of this test."""
    need("xrandr")
    server, display = start_screen("3840x1080x24")
    manager = None
    try:
        for name, place, output in (("L", "0+0", "screen"), ("R", "1920+0", "none")):
            command = ["xrandr", "--display", display, "--setmonitor", name, f"1920/508x1080/286+{place}", output]
            subprocess.run(command, check=True, capture_output=True)
        manager = start_manager(display)
        monkeypatch.setenv("DISPLAY", display)
        yield display
    finally:
        if manager:
            end(manager)
        end(server)


class TestTwoMonitors:
    def test_each_and_both(self, two_monitors, launch, locator):
        grows = {"does": [{"do": "text", "widget": "Open", "text": "Opened"}]}
        left = launch("form", one_button("Left", 200, "Open"), display=two_monitors)
        right = launch("form", one_button("Right", 2300, "Open", **grows), display=two_monitors)
        agent = ScreenAgent(locator)
        assert agent.screen.monitors() == [(0, 0, 1920, 1080), (1920, 0, 3840, 1080)]
        with pytest.raises(BadQuery, match="2"):
            ScreenAgent(locator, monitor=3).find("Open")
        with pytest.raises(TargetAmbiguous):
            agent.find("Open")

        second = ScreenAgent(locator, monitor=2)
        assert second.screenshot().view.area == (1920, 0, 3840, 1080)
        result = second.click("Open")
        press = right.event("command", widget="Open") and right.of("press")[0]
        assert (press["x"], press["y"]) == result.target.pixel and press["x"] > 2300, "the units are the desktop's"
        assert result.before.size == (1920, 1080)
        assert all(box[0] > 1920 for box in result.changes) and not left.of("press")

        careful = ScreenAgent(locator, policy=Policy(monitors=(1,)))
        with pytest.raises(ActionDenied, match=r"not on an allowed monitor \(1\)"):
            careful.click("Opened")
        careful.click("Open", check=False)
        left.event("command", widget="Open")
        assert len(right.of("press")) == 1

    def test_a_target_across_both(self, two_monitors, launch, locator):
        program = launch("form", one_button("Wide", 1800, "Astride", w=260), display=two_monitors)
        x1, _, x2, _ = program.boxes["Astride"]
        program.say("window", x=1800 + 1920 - (x1 + x2) // 2, y=300)
        program.wait(lambda _: program.look() or abs(sum(program.boxes["Astride"][::2]) / 2 - 1920) < 2)
        agent = ScreenAgent(locator)
        found = agent.find("Astride")
        assert found.box[0] < 1920 < found.box[2], "one thing, on both"
        assert agent.click(found, check=False).target.pixel == found.pixel
        program.event("command", widget="Astride")
