"""`groundlink screen` as a person and a script meet it, on real windows."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from groundlink.errors import (
    ERROR_CODES,
    ActionDenied,
    ActionHadNoEffect,
    BackendUnavailable,
    BadOutput,
    BadQuery,
    DeadlineExceeded,
    NoDisplay,
    TargetAmbiguous,
    TargetNotFound,
)
from screen_agent.cli import app

PROGRAM = str(Path(sys.executable).parent / "groundlink")
PLACE = "--region=100,80,560,330"
"""Where the form is, so that little is read."""
ROW = "--region=120,108,540,172"
"""Its first row: Save, Delete, Broken."""


def button(text, x, y, **more):
    return {"kind": "button", "text": text, "x": x, "y": y, "w": 120, "h": 40, **more}


def says(text):
    return {"does": [{"do": "text", "widget": "status", "text": text}]}


FORM = {
    "title": "Trial – Zürich",
    "x": 120,
    "y": 90,
    "w": 400,
    "h": 200,
    "widgets": [
        button("Save", 10, 10, **says("Saved")),
        button("Delete", 140, 10, **says("Erased")),
        button("Broken", 270, 10, dead=True),
        button("OK", 10, 60, name="first", **says("First")),
        button("OK", 270, 60, name="second", **says("Second")),
        {"kind": "entry", "name": "field", "text": "Your name", "x": 10, "y": 110, "w": 380, "h": 34},
        {"kind": "label", "name": "status", "text": "Ready", "x": 10, "y": 155, "w": 300, "h": 30},
    ],
}


def run(*arguments, text: str | bytes | None = None, **environment) -> subprocess.CompletedProcess[str]:
    given = os.environ | environment
    data = text.encode() if isinstance(text, str) else text or b""
    done = subprocess.run(
        [PROGRAM, "screen", *map(str, arguments)],
        input=data,
        env={name: value for name, value in given.items() if value is not None},
        capture_output=True,
        timeout=60,
        check=False,
    )
    shown = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in shown.stderr + shown.stdout and "itself failed" not in shown.stderr, shown.stderr
    return shown


def picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")


def code(error: type) -> int:
    return ERROR_CODES[error].exit_code


@pytest.fixture
def form(launch):
    return launch("form", FORM)


class TestLooking:
    def test_find_says_where_and_draws(self, form, tmp_path):
        done = run("find", "the Save button", ROW, "--out", tmp_path / "found.png")
        assert done.returncode == 0, done.stderr
        x, y, score = re.match(r'(\d+), (\d+)  score (\d\.\d+)  "Save"\n$', done.stdout).groups()
        x1, y1, x2, y2 = form.boxes["Save"]
        assert x1 <= int(x) < x2 and y1 <= int(y) < y2 and float(score) > 0.9
        assert picture(tmp_path / "found.png").size == (420, 64)

    def test_several_are_listed_and_numbered(self, form, tmp_path):
        done = run("find", "OK", PLACE, "--json", "--out", tmp_path / "two.png")
        assert done.returncode == code(TargetAmbiguous)
        assert "--nth, --near, --within" in done.stderr and "numbered in" in done.stderr
        assert "nth=" not in done.stderr, "the words of the command line, not of Python"
        answer = json.loads(done.stdout)
        assert answer["error"]["code"] == "target_ambiguous"
        assert [found["text"] for found in answer["candidates"]] == ["OK", "OK"]
        plain = run("shot", tmp_path / "plain.png", PLACE)
        assert plain.returncode == 0
        drawn, bare = picture(tmp_path / "two.png"), picture(tmp_path / "plain.png")
        assert drawn.size == bare.size and drawn.tobytes() != bare.tobytes()

    @pytest.mark.parametrize(
        "settled",
        [["--near", "Broken"], ["--near", "510,190"], ["--within", "380,140,540,220"]],
        ids=" ".join,
    )
    def test_what_settles_several(self, form, settled):
        done = run("find", "OK", "--region=120,160,540,220" if "Broken" not in settled else PLACE, "--json", *settled)
        assert done.returncode == 0, done.stderr
        (target,) = json.loads(done.stdout)["targets"]
        x1, y1, x2, y2 = form.boxes["second"]
        assert x1 <= target["pixel"][0] < x2 and y1 <= target["pixel"][1] < y2

    def test_all_none_and_a_window(self, form):
        done = run("find", "OK", "--all", "--window", "trial")
        assert (done.returncode, done.stdout.count("OK")) == (0, 2)
        done = run("find", "OK", "--window", "No such")
        assert done.returncode == code(TargetNotFound)
        assert "Trial – Zürich" in done.stderr, "those that are there are named"

    def test_read_wait_and_watch(self, form):
        done = run("read", ROW, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["text"].split() == ["Save", "Delete", "Broken"]
        assert run("wait", "Save", "--nth", "-1", ROW).returncode == 0
        assert run("wait", "Nowhere", "--gone", ROW).returncode == 0
        done = run("wait", "Save", "--gone", "--timeout", "0", ROW, "--json")
        assert done.returncode == code(DeadlineExceeded)
        assert json.loads(done.stdout)["error"]["code"] == "deadline_exceeded"
        done = run("watch", "Save", ROW, "--timeout", "0.5", "--json")
        (seen,) = map(json.loads, done.stdout.splitlines())
        assert (seen["event"], seen["target"]["text"]) == ("appeared", "Save")

    @pytest.mark.parametrize("command", [["wait", "Nowhere", "--timeout", "60"], ["watch", "Nowhere"]])
    def test_an_interruption_ends_it(self, desktop, command):
        asked = [PROGRAM, "screen", *command, "--region=0,0,300,40"]
        running = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(2)
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=20)
        assert (running.returncode, out, said) == (130, b"", b"interrupted\n")


class TestActing:
    def test_a_click_and_what_changed(self, form, tmp_path):
        done = run("click", "Save", PLACE, "--out", tmp_path / "after.png")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"click at \d+, \d+ \(score \d\.\d\d\): the screen changed\n", done.stdout)
        assert form.event("command", widget="Save")
        assert picture(tmp_path / "after.png").size == (460, 250)

    def test_a_dead_button(self, form, tmp_path):
        out = tmp_path / "after.png"
        done = run("click", "Broken", ROW, "--timeout", "0.5", "--json", "--out", out, "--log", tmp_path / "log")
        assert done.returncode == code(ActionHadNoEffect)
        answer = json.loads(done.stdout)
        assert answer["error"]["code"] == "action_had_no_effect" and answer["result"]["effect"] == "none"
        assert ".result" not in done.stderr and out.is_file()
        assert len(form.of("press")) == 1
        (line,) = (tmp_path / "log" / "actions.jsonl").read_text().splitlines()
        assert json.loads(line)["error"]["code"] == "action_had_no_effect"

    def test_a_dry_run_does_nothing_and_says_what_it_would_ask(self, form):
        done = run("click", "Delete", ROW, "-n")
        assert done.returncode == 0
        assert "dry run, nothing was done" in done.stdout and "needs a confirmation" in done.stdout
        done = run("press", "ctrl++", "tab", "-n")
        assert done.stdout.splitlines() == [
            "hotkey ctrl++: dry run, nothing was done",
            "  needs a confirmation: the hotkey ctrl++ may do anything in the program that gets it; "
            "--allow-key ctrl++ allows it",
            "press tab: dry run, nothing was done",
        ]
        assert "Enter" in run("type", "a\nb", "-n").stdout
        done = run("scroll", "-3", "--to", "Nowhere", "-n", ROW)
        assert done.returncode == code(TargetNotFound) and "a dry run does not scroll" in done.stderr
        form.settle()
        assert not form.of("press") and not form.of("key") and not form.of("wheel")

    def test_nobody_to_ask(self, form):
        done = run("click", "Delete", ROW)
        assert done.returncode == code(ActionDenied)
        assert "--yes" in done.stderr and "Policy" not in done.stderr
        form.settle()
        assert not form.of("press")
        assert run("click", "Delete", ROW, "--yes", "--no-check").returncode == 0
        assert form.event("command", widget="Delete")

    @pytest.mark.parametrize("answer", ["y", ""])
    def test_a_person_is_asked(self, form, answer):
        status, said = at_terminal(["click", "Delete", ROW, "--no-check"], answer)
        assert 'the description "Delete" holds "delete"' in said and "Do it? [y/N]" in said
        form.settle()
        if answer == "y":
            assert status == 0 and form.of("command", widget="Delete")
        else:
            assert status == code(ActionDenied) and not form.of("press")

    def test_typing(self, form):
        done = run("type", "Zürich, 東京 €", "--into", "Your name", "--clear", PLACE)
        assert done.returncode == 0, done.stderr
        form.settle()
        assert form.value("field") == "Zürich, 東京 €"
        # Where the keyboard goes, from standard input; the line end of the shell is not typed.
        assert run("type", "--window", "Trial", text=" done\n").returncode == 0
        form.settle()
        assert form.value("field") == "Zürich, 東京 € done"
        done = run("press", "backspace", "backspace", "--window", "Trial")
        assert (done.returncode, done.stdout.count("the screen changed")) == (0, 2)
        form.settle()
        assert form.value("field") == "Zürich, 東京 € do"

    def test_a_secret_comes_from_a_pipe_and_stays_one(self, form, tmp_path):
        log, out = tmp_path / "log", tmp_path / "after.png"
        typed = run(
            "type", "--secret", "--clear", "--into", "Your name", PLACE, "--log", log, "--out", out, text="hunter2\n"
        )
        assert typed.returncode == 0, typed.stderr
        form.settle()
        assert form.value("field") == "hunter2"
        assert "hunter2" not in typed.stdout + typed.stderr + (log / "actions.jsonl").read_text()
        x1, y1, _, y2 = form.boxes["field"]
        shown = picture(out).crop((x1 - 100 + 8, y1 - 80 + 8, x1 - 100 + 60, y2 - 80 - 8))
        assert shown.getextrema() == ((128, 128),) * 3, "its field is covered"
        done = run("type", "hunter2", "--secret", "--into", "Your name")
        assert done.returncode == code(BadQuery) and "pipe it in" in done.stderr
        done = run("type", "--secret", "--window", "Trial", text="東京")
        assert done.returncode == code(ActionDenied) and "--secret-by-clipboard" in done.stderr

    def test_pointer_commands(self, form):
        assert run("hover", "Save", ROW).returncode == 0
        assert form.event("enter", widget="Save")
        assert run("drag", "Save", "OK", "--within", "110,120,260,220", "--no-check", PLACE).returncode == 0
        assert form.event("drag", widget="Save")
        done = run("scroll", "-2", "--inside", "Broken", "--no-check", ROW)
        assert done.returncode == 0, done.stderr
        assert form.event("wheel", widget="Broken", towards="up")

    def test_only_the_windows_that_are_allowed(self, form):
        done = run("click", "Save", ROW, "--allow-window", "Other")
        assert done.returncode == code(ActionDenied) and "Trial" in done.stderr
        form.settle()
        assert not form.of("press")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["find", "x", "--region", "5,5"], BadQuery, "--region is X1,Y1,X2,Y2"),
        (["find", "x", "--region", "9000,0,9999,9"], BadQuery, "outside of the screen"),
        (["find", "x", "--near", "1,2,3"], BadQuery, "--near is X,Y"),
        (["find", "x", "--monitor", "7"], BadQuery, "the screen has 1"),
        (["find", "x", "--monitor", "1", "--window", "y"], BadQuery, "give one of"),
        (["find", "x", "--all", "--nth", "2"], BadQuery, "--nth cannot be used together with --all"),
        (["find", ""], BadQuery, "is empty"),
        (["find", "x", "--set", "policy=1"], BadQuery, "no setting of a backend"),
        (["find", "x", "--backend", "none such", "--region", "0,0,9,9"], BackendUnavailable, "installed:"),
        (["find", "x", "--out", "x.xyz"], BadOutput, "one of these endings"),
        (["shot", "/no/such/folder/x.png"], BadOutput, "there is no folder"),
        (["click", "x", "--button", "fourth"], BadQuery, "left, right or middle"),
        (["press", "bogus"], BadQuery, "there is no key 'bogus'"),
        (["type", ""], BadQuery, "empty"),
        (["type"], BadQuery, "standard input is empty"),
        (["type", "x", "--clear"], BadQuery, "--into"),
        (["scroll", "--to", "x", "--expect", "y"], BadQuery, "--expect"),
        (["wait", "x", "--gone", "--out", "x.png"], BadQuery, "--out"),
        (["watch", "x", "--nth", "1"], BadQuery, "--nth cannot be used with watch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told(desktop, arguments, error, words):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code(error), "")
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_standard_input_that_is_no_text(desktop):
    done = run("type", text=b"\xff\xfe")
    assert done.returncode == code(BadQuery) and "UTF-8" in done.stderr


@pytest.mark.parametrize("command", [["find", "x"], ["press", "tab"], ["watch", "x"], ["shot", "x.png"], ["read"]])
def test_no_screen(command, tmp_path):
    done = run(*command, DISPLAY=None, WAYLAND_DISPLAY=None)
    assert done.returncode == code(NoDisplay) and "xvfb-run" in done.stderr
    done = run(*command, DISPLAY=":9876", WAYLAND_DISPLAY=None)
    assert done.returncode == code(NoDisplay) and "DISPLAY=:9876" in done.stderr
    done = run(*command, DISPLAY=None, WAYLAND_DISPLAY="wayland-0")
    assert done.returncode == code(NoDisplay) and "X11 (Xorg) session" in done.stderr


def test_help_is_there_and_quick():
    said = run("--help")
    runner = CliRunner()
    for name in ("find", "click", "hover", "drag", "type", "press", "scroll", "wait", "read", "watch", "shot"):
        assert name in said.stdout
        assert runner.invoke(app, [name, "--help"]).exit_code == 0
    code = (
        "import sys; sys.argv = ['groundlink', '--help']\n"
        "from groundlink.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('numpy', 'PIL', 'cv2', 'mss', 'pyautogui', 'xcffib') or name == 'screen_agent.agent'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", "help does not import the agent"


def at_terminal(arguments: list[str], answer: str) -> tuple[int, str]:
    """Run a command at a terminal of its own, and answer its question; return its exit code and what it said."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(PROGRAM, [PROGRAM, "screen", *arguments])
    said, answered, end = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                said += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if not answered and b"[y/N]" in said:
                os.write(terminal, answer.encode() + b"\n")
                answered = True
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(terminal)
    return status, said.decode()
