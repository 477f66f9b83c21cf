"""A desktop of the tests' own, and programs on it that say what is done to them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until

PROGRAMS = Path(__file__).parent / "programs"
NEEDED = {"Xvfb": "xvfb", "openbox": "openbox", "xprop": "x11-utils", "xwininfo": "x11-utils", "xclip": "xclip"}

Event = dict[str, Any]


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"not installed: {what}")


def python_with_tk() -> str:
    """The Python that runs the programs: this one, or the system's where this one has no Tk."""
    if importlib.util.find_spec("_tkinter"):
        return sys.executable
    python = "/usr/bin/python3"
    found = shutil.which(python) and subprocess.run([python, "-c", "import tkinter"], capture_output=True, check=False)
    if not found or found.returncode:
        missing("tkinter (apt install python3-tk)")
    return python


def start_screen(size: str = "1920x1080x24") -> tuple[subprocess.Popen[bytes], str]:
    """Start an X server; return it and its display, such as ":99"."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as ready:
        number = ready.readline().strip()
    return server, f":{number}"


def start_manager(display: str) -> subprocess.Popen[bytes]:
    """Start openbox on a display, and wait until it manages windows."""
    environment = os.environ | {"DISPLAY": display}
    manager = subprocess.Popen(
        ["openbox"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ask = ["xprop", "-root", "_NET_SUPPORTING_WM_CHECK"]
    until(lambda: b"window id" in subprocess.run(ask, env=environment, capture_output=True, check=False).stdout)
    return manager


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A screen of 1920×1080 with openbox on it, which is this process's own until the tests end."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            missing(f"{program} (apt install {package})")
    server, display = start_screen()
    before = {name: os.environ.get(name) for name in ("DISPLAY", "XAUTHORITY")}
    manager = None
    try:
        os.environ["DISPLAY"] = display
        if not Path(before["XAUTHORITY"] or Path.home() / ".Xauthority").exists():
            empty = tmp_path_factory.mktemp("x") / "Xauthority"
            empty.touch()
            os.environ["XAUTHORITY"] = str(empty)
        manager = start_manager(display)
        yield display
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if manager:
            end(manager)
        end(server)


class Program:
    """A running program of `programs/`.

    Attributes:
        title: of its window.
        box: of its window's contents in desktop pixels, as it was at the start.
        boxes: of its widgets in desktop pixels, by name, as they were at the start or at the last `look`.
        events: all that it has said so far.
    """

    def __init__(self, name: str, arguments: list[str], display: str) -> None:
        command = [python_with_tk(), "-u", str(PROGRAMS / f"{name}.py"), *arguments]
        environment = os.environ | {"DISPLAY": display}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        )
        self.events: list[Event] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.title = ""
        try:
            ready = self.event("ready", seconds=20)
        except BaseException:
            self.end()
            raise
        self.title: str = ready["title"]
        self.box: tuple[int, int, int, int] = tuple(ready["box"])
        self.boxes: dict[str, tuple[int, int, int, int]] = {n: tuple(b) for n, b in ready["boxes"].items()}
        self.pid = self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def wait(self, condition: Callable[[list[Event]], Any], seconds: float = 5.0) -> Any:
        """Wait until the condition holds of the events, and return what it gives."""
        try:
            until(lambda: condition(list(self.events)) or self.process.poll() is not None, seconds)
        except AssertionError as error:
            raise AssertionError(f"{self.title}: {error}; it said {self.events[-20:]}") from None
        found = condition(list(self.events))
        assert found, f"{self.title} ended (exit code {self.process.poll()}); it said {self.events[-20:]}"
        return found

    def event(self, kind: str, seconds: float = 5.0, **fields: Any) -> Event:
        """Wait for an event with these fields, such as `event("click", widget="Save")`; return the latest."""
        asked = {"event": kind, **fields}
        return self.wait(lambda events: [e for e in events if asked.items() <= e.items()], seconds)[-1]

    def of(self, kind: str, **fields: Any) -> list[Event]:
        """The events with these fields so far."""
        asked = {"event": kind, **fields}
        return [event for event in list(self.events) if asked.items() <= event.items()]

    def value(self, widget: str) -> str:
        """The last text that this entry or text is known to hold."""
        return next((e["value"] for e in reversed(self.of("text", widget=widget))), "")

    def middle(self, widget: str) -> tuple[int, int]:
        """The middle of a widget in desktop pixels."""
        x1, y1, x2, y2 = self.boxes[widget]
        return (x1 + x2) // 2, (y1 + y2) // 2

    def say(self, command: str | Event, **fields: Any) -> None:
        """Give it a command, as a dict or as `say("show", widget="Save")`."""
        if isinstance(command, str):
            command = {"do": command, **fields}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def look(self) -> None:
        """Ask where everything is now: `box` and `boxes` are up to date afterwards."""
        count = len(self.of("boxes"))
        self.say("boxes")
        said = self.wait(lambda _: self.of("boxes")[count:])[-1]
        self.box, self.boxes = tuple(said["box"]), {name: tuple(box) for name, box in said["boxes"].items()}

    def settle(self) -> None:
        """Wait until it has dealt with all that was sent to it so far."""
        text = str(len(self.events))
        self.say("echo", text=text)
        self.event("echo", text=text)

    def end(self) -> None:
        end(self.process)
        self._reader.join(timeout=5)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@pytest.fixture
def launch(desktop: str) -> Iterator[Callable[..., Program]]:
    """Start a program of `programs/` and wait until its window is there: `launch("form", {"title": …})`.

    A dict among the arguments is given as JSON; `display=` is another screen than `desktop`. They end with the test.
    """
    running: list[Program] = []

    def start(name: str, *arguments: str | dict[str, Any], display: str = desktop) -> Program:
        given = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
        running.append(Program(name, given, display))
        return running[-1]

    yield start
    for program in reversed(running):
        program.end()
