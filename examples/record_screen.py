"""Record the screen agent at work, as an animated GIF: docs/images/screen.gif in the README is made by this.

    python examples/record_screen.py screen.gif

It starts an X server of its own (Xvfb) with a window manager (openbox) and a small program (Tk), and leaves your screen
alone. Everything shown happens: frames are pictures of that screen, the boxes are what the agent found and what it saw
change. Only waiting is shortened.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from groundlink.errors import TargetAmbiguous
from screen_agent import Result, Screen, ScreenAgent
from screen_agent.windows import Windows

SIZE = (960, 430)
CAPTION = 110
FRAME_SECONDS = 0.1
LONGEST = 0.5
"""Seconds that a frame stands at most while the agent works."""

PROGRAM = """
import tkinter as tk
root = tk.Tk()
root.title("Cities")
root.geometry("900x360+24+14")
root.configure(bg="#f4f4f4")
font = ("DejaVu Sans", -22)
look = {"font": font, "bg": "#f4f4f4", "highlightthickness": 0}
entry = tk.Entry(root, font=font, fg="#777777", insertofftime=0)
entry.insert(0, "Search")
entry.place(x=24, y=24, width=520, height=46)
def focus(event):
    if entry.get() == "Search":
        entry.delete(0, "end")
        entry.configure(fg="black")
entry.bind("<FocusIn>", focus)
status = tk.Label(root, text="", anchor="w", **look)
status.place(x=24, y=290, width=800, height=44)
def find():
    status.configure(text="Looking…")
    root.after(1500, lambda: [status.configure(text="Done"), show()])
def show():
    for row, (city, land) in enumerate((("Zürich", "at the lake"), ("Genève", "au bord du lac"))):
        y = 100 + row * 84
        tk.Label(root, text=city, anchor="w", **look).place(x=24, y=y, width=160, height=52)
        tk.Label(root, text=land, anchor="w", **look).place(x=200, y=y, width=300, height=52)
        does = lambda city=city: status.configure(text="Opened " + city)
        tk.Button(root, text="Open", command=does, font=font).place(x=570, y=y, width=150, height=52)
tk.Button(root, text="Find", command=find, font=font).place(x=570, y=20, width=150, height=52)
root.mainloop()
"""


class Recorder:
    """Takes pictures of the screen in a thread of its own, and keeps those that differ."""

    def __init__(self) -> None:
        self._screen, self._windows = Screen(), Windows()
        self._frames: list[tuple[Image.Image, float]] = []
        self._lines: tuple[str, str] = ("", "")
        self._boxes: list[tuple[tuple[float, float, float, float], str]] = []
        self._picture: Image.Image | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._code = _font("DejaVuSansMono.ttf", 22)
        self._words = _font("DejaVuSans.ttf", 20)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def say(self, code: str, words: str = "", boxes: list | None = None, picture: Image.Image | None = None) -> None:
        """Set the caption and what is drawn, from the next frame on."""
        self._lines, self._boxes, self._picture = (code, words), boxes or [], picture

    def hold(self, seconds: float) -> None:
        """Let what is shown now stand, long enough to be read."""
        self._take(seconds)

    def save(self, path: Path) -> None:
        """Write what was recorded."""
        first, *rest = (frame.quantize(128, dither=Image.Dither.NONE) for frame, _ in self._frames)
        milliseconds = [round(seconds * 100) * 10 for _, seconds in self._frames]
        first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=True)

    def _run(self) -> None:
        while not self._over.wait(FRAME_SECONDS):
            self._take(None)

    def _take(self, seconds: float | None) -> None:
        with self._lock:
            frame = self._compose()
            if self._frames and self._frames[-1][0].tobytes() == frame.tobytes():
                stood = self._frames[-1][1]
                longer = stood + FRAME_SECONDS if seconds is None else max(stood, seconds)
                self._frames[-1] = (frame, longer if seconds is not None else max(stood, min(longer, LONGEST)))
            else:
                self._frames.append((frame, seconds or FRAME_SECONDS))

    def _compose(self) -> Image.Image:
        frame = Image.new("RGB", (SIZE[0], SIZE[1] + CAPTION), "#20242c")
        shown = self._picture or self._screen.grab(self._screen.area()).image
        frame.paste(shown, (0, 0))
        draw = ImageDraw.Draw(frame)
        for (x1, y1, x2, y2), colour in self._boxes:
            draw.rectangle((x1 - 4, y1 - 4, x2 + 3, y2 + 3), outline=colour, width=3)
        if self._picture is None:
            x, y = self._windows.pointer()
            arrow = [(0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12)]
            draw.polygon([(x + a, y + b) for a, b in arrow], fill="black", outline="white")
        code, words = self._lines
        draw.text((20, SIZE[1] + 18), code, fill="white", font=self._code)
        draw.text((20, SIZE[1] + 60), words, fill="#9ecbff", font=self._words)
        return frame


def perform(record: Recorder) -> None:
    """Do what is recorded."""
    found, changed = "#d02050", "#1060c0"
    with ScreenAgent() as agent:

        def act(code: str, what: str, do: Callable[[], Result], settle: dict[str, str] | None = None) -> None:
            record.say(code)
            target = agent.find(what, **settle or {})
            record.say(code, f"found, score {target.score:.2f}", [(target.box, found)])
            record.hold(0.9)
            result = do()
            boxes = [(result.target.box, found), *((box, changed) for box in result.changes)]
            record.say(code, f"done once; the screen {result.effect}", boxes)
            record.hold(1.2)

        record.say(
            "agent = ScreenAgent()", "a screen, a pointer, and the embedded default, which reads text on the CPU"
        )
        record.hold(1.4)
        text = "Zürich, Αθήνα €"
        code = f'agent.type_into("the search field", "{text}")'
        act(code, "the search field", lambda: agent.type_into("the search field", text))
        act('agent.click("the Find button")', "the Find button", lambda: agent.click("the Find button"))
        code = 'agent.wait_for("Done", timeout=20)'
        record.say(code)
        target = agent.wait_for("Done", timeout=20)
        record.say(code, "there", [(target.box, found)])
        record.hold(0.9)
        code = 'agent.click("Open")'
        record.say(code)
        try:
            agent.click("Open")
            raise AssertionError("two buttons are called Open")
        except TargetAmbiguous as error:
            words = 'TargetAmbiguous: "Open" is there twice; nothing was clicked'
            record.say(code, words, picture=error.picture)
            record.hold(2.0)
        act(
            'agent.click("Open", near="Genève")',
            "Open",
            lambda: agent.click("Open", near="Genève"),
            {"near": "Genève"},
        )
        record.hold(2.0)


@contextmanager
def screen() -> Iterator[None]:
    """A screen of its own, which this process uses from then on."""
    with ExitStack() as stack:
        read, write = os.pipe()
        size = f"{SIZE[0]}x{SIZE[1]}x24"
        server = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp", "-noreset"]
        stack.callback(_end, subprocess.Popen(server, pass_fds=[write], stderr=subprocess.DEVNULL))
        os.close(write)
        with os.fdopen(read) as ready:
            os.environ["DISPLAY"] = f":{ready.readline().strip()}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        stack.callback(_end, subprocess.Popen(["openbox"], **quiet))
        stack.callback(_end, subprocess.Popen([sys.executable, "-c", PROGRAM]))
        end = time.monotonic() + 20
        while not any(window.title == "Cities" for window in Windows().all()):
            assert time.monotonic() < end, "the program did not show its window"
            time.sleep(0.1)
        time.sleep(0.5)
        yield


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait(timeout=10)


def _font(name: str, size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return ImageFont.load_default(size)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with screen(), Recorder() as recorder:
        perform(recorder)
    recorder.save(Path(sys.argv[1]))
