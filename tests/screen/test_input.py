"""Clicks, keys and pastes arrive as they were meant, and nothing stays down or changed behind them."""

from __future__ import annotations

import io
import os
import shutil
import string
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from groundlink import errors
from screen_agent import clipboard, keyboard
from screen_agent.pointer import Pointer
from screen_agent.windows import Windows
from tests.conftest import ROOT, until

EDITOR = {
    "title": "Editor",
    "x": 100,
    "y": 100,
    "w": 700,
    "h": 400,
    "widgets": [
        {"kind": "entry", "name": "entry", "x": 20, "y": 20, "w": 600, "h": 40},
        {"kind": "text", "name": "text", "x": 20, "y": 80, "w": 600, "h": 200},
    ],
}


@pytest.fixture
def pointer(desktop):
    pointer = Pointer()
    pointer_free(pointer)
    yield pointer
    pointer_free(pointer)


def pointer_free(pointer):
    """Take the pointer out of a corner, as a user does: by hand, not through the pointer itself."""
    subprocess.run(["xdotool", "mousemove", "1000", "900"], check=True)


@pytest.fixture
def editor(launch, pointer):
    """A program with an entry and a text; the entry has the keyboard."""
    editor = launch("form", EDITOR)
    write_into(editor, pointer, "entry")
    return editor


def write_into(program, pointer, widget):
    pointer.move(*program.middle(widget))
    pointer.click()
    program.event("click", widget=widget)
    program.settle()


def xclip(*arguments: str, data: bytes | None = None) -> bytes:
    command = ["xclip", "-selection", "clipboard", *arguments]
    if data is not None:
        before = owner()
        subprocess.run(command, input=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        # It returns a moment before it has the clipboard.
        until(lambda: owner() not in (0, before))
        return b""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False).stdout


def owner() -> int:
    windows = Windows()
    try:
        ask = lambda server: server.core.GetSelectionOwner(server.atom("CLIPBOARD")).reply().owner  # noqa: E731
        return windows._link.ask(ask)
    finally:
        windows.close()


@pytest.fixture
def nothing_copied(desktop):
    """An empty clipboard: a helper that holds it is told to let go by a new owner that ends at once."""

    def clear(server):
        window = server.connection.generate_id()
        server.core.CreateWindow(0, window, server.root, -1, -1, 1, 1, 0, 0, 0, 0, [])
        server.core.SetSelectionOwner(window, server.atom("CLIPBOARD"), 0)
        server.core.DestroyWindow(window)
        server.sync()

    windows = Windows()
    windows._link.ask(clear)
    windows.close()
    assert owner() == 0


# Pointer


@pytest.mark.parametrize("button", ["left", "middle", "right"])
def test_clicks_arrive(launch, pointer, button):
    form = launch("form")
    pointer.move(*form.middle("Save"))
    pointer.click(button)
    said = form.event("click", widget="Save", button=button)
    assert (said["x"], said["y"]) == form.middle("Save") == pointer.position()
    form.settle()
    assert len(form.of("press")) == len(form.of("release")) == 1
    assert len(form.of("command", widget="Save")) == (button == "left")


def test_double_and_triple_clicks_arrive(launch, pointer):
    form = launch("form")
    pointer.move(*form.middle("canvas"))
    pointer.click(count=2)
    form.event("double", widget="canvas", button="left")
    form.settle()
    assert len(form.of("press")) == 2
    assert not form.of("triple")
    time.sleep(0.6)
    pointer.click(count=3)
    form.event("triple", widget="canvas", button="left")


def test_a_drag_arrives_in_small_steps(launch, pointer):
    form = launch("form")
    x, y = form.middle("canvas")
    pointer.move(x - 60, y - 20)
    pointer.press()
    pointer.drag_to(x + 50, y + 30, 0.2)
    pointer.release()
    said = form.event("drag", widget="canvas")
    assert (said["from"], said["to"]) == ([x - 60, y - 20], [x + 50, y + 30])
    assert said["steps"] >= 8


def test_the_wheel_turns_all_ways(launch, pointer):
    form = launch("form")
    pointer.move(*form.middle("canvas"))
    pointer.scroll(3)
    pointer.scroll(-2)
    pointer.scroll(0, 1)
    pointer.scroll(0, -1)
    form.event("wheel", towards="left")
    turned = [event["towards"] for event in form.of("wheel", widget="canvas")]
    assert turned == ["down"] * 3 + ["up"] * 2 + ["right", "left"]
    with pytest.raises(errors.BadQuery, match="0 notches"):
        pointer.scroll(0)


def test_clicks_in_a_row_all_arrive_and_one_costs_little(launch, pointer):
    form = launch("form")
    pointer.move(*form.middle("canvas"))
    times = []
    for _ in range(20):
        time.sleep(0.03)
        begin = time.perf_counter()
        pointer.click()
        times.append(time.perf_counter() - begin)
    assert sorted(times)[10] < 0.02
    for _ in range(20):
        pointer.click()
    form.wait(lambda _: len(form.of("release")) == 40)


def test_a_pointer_in_a_corner_stops_everything(launch, pointer):
    form = launch("form")
    pointer.move(*form.middle("Name"))
    pointer.press()
    for x, y in [(0, 0), (1919, 0), (0, 1079), (1919, 1079)]:
        subprocess.run(["xdotool", "mousemove", str(x), str(y)], check=True)
        for act in (
            lambda: pointer.move(500, 500),
            pointer.click,
            pointer.press,
            lambda: pointer.scroll(1),
            lambda: pointer.drag_to(500, 500, 0.1),
            lambda: pointer.key("a"),
            lambda: pointer.hotkey("ctrl", "v"),
            pointer.check,
        ):
            with pytest.raises(errors.ActionDenied, match="emergency stop"):
                act()
        assert pointer.position() == (x, y)
    pointer.release()
    form.event("release", button="left")
    pointer_free(pointer)
    pointer.move(500, 500)


def test_the_corners_are_never_entered(pointer):
    for corner, beside in {
        (0, 0): (1, 1),
        (1919, 0): (1918, 1),
        (0, 1079): (1, 1078),
        (1919.9, 1079.9): (1918, 1078),
    }.items():
        pointer.move(*corner)
        assert pointer.position() == beside
    pointer.move(0, 500)
    assert pointer.position() == (0, 500)
    for outside in [(-1, 5), (5, 1080), (1920, 5)]:
        with pytest.raises(errors.BadQuery, match="outside of the screen, which is 1920×1080"):
            pointer.move(*outside)
    assert pointer.size() == (1920, 1080)


def test_unknown_buttons_and_counts_are_refused(pointer):
    with pytest.raises(errors.BadQuery, match="left, middle, right"):
        pointer.click("top")
    with pytest.raises(errors.BadQuery, match="count=0"):
        pointer.click(count=0)


def test_a_pointer_that_is_moved_away_is_noticed(pointer):
    ending = threading.Event()

    def pull():
        windows = Windows()
        while not ending.is_set():
            windows._link.ask(
                lambda server: server.done(server.core.WarpPointerChecked(0, server.root, *[0] * 4, 9, 9))
            )
        windows.close()

    thread = threading.Thread(target=pull)
    thread.start()
    try:
        with pytest.raises(errors.GroundlinkError, match="somebody moves it"):
            for _ in range(200):
                pointer.move(500, 500)
    finally:
        ending.set()
        thread.join()


# Keys


def test_every_ascii_character_arrives(editor):
    text = "".join(character for character in string.printable if character.isprintable())
    assert len(text) == 95
    assert keyboard.typeable(text)
    keyboard.type_keys(text)
    editor.wait(lambda _: editor.value("entry") == text)


def test_lines_and_tabs_arrive(editor, pointer):
    write_into(editor, pointer, "text")
    keyboard.type_keys("a\n\tb<>\n")
    editor.wait(lambda _: editor.value("text") == "a\n\tb<>\n")


def test_long_texts_arrive_in_order(editor, pointer):
    write_into(editor, pointer, "text")
    text = "The quick brown Fox; JUMPS over 13 lazy dogs?\n" * 20
    keyboard.type_keys(text)
    editor.wait(lambda _: editor.value("text") == text, 20)


def test_caps_lock_changes_nothing(editor):
    subprocess.run(["xdotool", "key", "Caps_Lock"], check=True)
    try:
        assert lock_is_on()
        keyboard.type_keys("aB1!z")
        editor.wait(lambda _: editor.value("entry") == "aB1!z")
        assert lock_is_on()
    finally:
        subprocess.run(["xdotool", "key", "Caps_Lock"], check=True)
    assert not lock_is_on()


def lock_is_on() -> bool:
    return bool(keyboard._link.ask(lambda server: server.core.QueryPointer(server.root).reply().mask & 2))


def test_another_layout_is_typed_right(editor):
    if shutil.which("setxkbmap") is None:
        pytest.skip("setxkbmap is not installed: apt install x11-xkb-utils")
    subprocess.run(["setxkbmap", "de"], check=True)
    try:
        editor.settle()
        text = "Zwölf Boxkämpfer; <ÄÖÜß>-#+*'?y/(1)!°§"
        assert keyboard.typeable(text)
        keyboard.type_keys(text)
        editor.wait(lambda _: editor.value("entry") == text)
        assert not keyboard.typeable("@"), "AltGr is not typed"
        subprocess.run(["setxkbmap", "us,ru"], check=True)
        assert keyboard.typeable("plain")
    finally:
        subprocess.run(["setxkbmap", "us"], check=True)


def test_what_the_keyboard_lacks_is_not_typed(editor):
    assert keyboard.typeable("")
    for text in ["Zürich", "東京", "€", "a\x07", "a\r\n", "\ud800", "😀"]:
        assert not keyboard.typeable(text)
        with pytest.raises(errors.BadQuery, match="on no key of this keyboard"):
            keyboard.type_keys("abc" + text)
    editor.settle()
    assert not editor.of("text")


def test_typing_stops_between_characters_and_leaves_no_key_down(editor):
    left = iter(range(3))

    def stop():
        if next(left, None) is None:
            raise errors.Cancelled("enough")

    with pytest.raises(errors.Cancelled):
        keyboard.type_keys("ABCDEF", stop)
    editor.wait(lambda _: editor.value("entry") == "ABC")
    assert Windows().keys_down() == frozenset()


def test_a_modifier_that_somebody_holds_is_not_typed_over(editor):
    subprocess.run(["xdotool", "keydown", "ctrl"], check=True)
    try:
        with pytest.raises(errors.ActionDenied, match="Ctrl is held down"):
            keyboard.type_keys("w")
        with pytest.raises(errors.ActionDenied, match="Ctrl is held down"):
            Pointer().key("w")
        # One that comes up at once is waited for.
        soon = threading.Timer(0.2, lambda: subprocess.run(["xdotool", "keyup", "ctrl"], check=True))
        soon.start()
        keyboard.type_keys("w")
        soon.join()
    finally:
        subprocess.run(["xdotool", "keyup", "ctrl"], check=True)
    editor.wait(lambda _: editor.value("entry") == "w")


def test_num_lock_is_no_hindrance(editor):
    subprocess.run(["xdotool", "key", "Num_Lock"], check=True)
    try:
        keyboard.type_keys("n1")
        editor.wait(lambda _: editor.value("entry") == "n1")
    finally:
        subprocess.run(["xdotool", "key", "Num_Lock"], check=True)


def test_single_keys_arrive_as_named(editor, pointer):
    for key in ["<", ">", "A", "a", "?", "space", "Escape", "F5", "Home", "pgdn"]:
        pointer.key(key)
    editor.event("key", keysym="Next")
    got = [event["keysym"] for event in editor.of("key") if not event["keysym"].startswith("Shift")]
    assert got == ["less", "greater", "A", "a", "question", "space", "Escape", "F5", "Home", "Next"]


def test_shortcuts_arrive_and_nothing_stays_down(editor, pointer):
    keyboard.type_keys("abc")
    pointer.hotkey("ctrl", "A")
    pointer.hotkey("Home")
    pointer.hotkey("shift", "End")
    pointer.key("x")
    editor.wait(lambda _: editor.value("entry") == "x")
    with pytest.raises(errors.BadQuery, match="this keyboard has no key '東'"):
        pointer.hotkey("ctrl", "shift", "東")
    assert Windows().keys_down() == frozenset()


def test_keys_held_during_a_click_come_up_after_an_error(editor, pointer):
    with pytest.raises(ZeroDivisionError), pointer.held("ctrl", "shift"):
        assert Windows().keys_down() == {"ctrl", "shift"}
        pointer.click()
        1 / 0  # noqa: B018
    assert Windows().keys_down() == frozenset()


def test_names_of_keys():
    for name, key in {"Return": "enter", "ESC": "escape", "control": "ctrl", "cmd": "super", "F12": "f12"}.items():
        assert keyboard.key_name(name) == key
    assert keyboard.key_name("S") == "S"
    assert keyboard.key_name(" ") == "space"
    assert keyboard.key_name("ä") == "ä"
    for wrong, near in {"contrl": "ctrl", "entr": "enter", "paegup": "pageup", "": "enter", "\x07": "enter"}.items():
        with pytest.raises(errors.BadQuery, match=f"no key .*{near}"):
            keyboard.key_name(wrong)


# Clipboard


def test_any_text_is_pasted_and_the_text_of_before_comes_back(editor, pointer):
    xclip("-i", data="before – 前".encode())
    assert clipboard.paste("Zürich, 東京 €", lambda: pointer.hotkey("ctrl", "v"))
    editor.wait(lambda _: editor.value("entry") == "Zürich, 東京 €")
    assert xclip("-o").decode() == "before – 前"
    assert clipboard.paste(" and again", lambda: pointer.hotkey("ctrl", "v"))
    editor.wait(lambda _: editor.value("entry") == "Zürich, 東京 € and again")
    assert xclip("-o").decode() == "before – 前"


def test_a_picture_comes_back_as_it_was(editor, pointer):
    data = io.BytesIO()
    Image.effect_noise((400, 300), 80).save(data, "PNG")
    assert len(data.getvalue()) > 65536
    xclip("-i", "-t", "image/png", data=data.getvalue())
    assert clipboard.paste("text", lambda: pointer.hotkey("ctrl", "v"))
    editor.wait(lambda _: editor.value("entry") == "text")
    assert "image/png" in xclip("-o", "-t", "TARGETS").decode().split()
    assert xclip("-o", "-t", "image/png") == data.getvalue()


def test_an_empty_clipboard_is_empty_again_and_needs_no_helper(editor, pointer, nothing_copied, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert clipboard.paste("kept nowhere", lambda: pointer.hotkey("ctrl", "v"))
    editor.wait(lambda _: editor.value("entry") == "kept nowhere")
    assert owner() == 0


def test_without_the_helper_nothing_is_touched(editor, monkeypatch):
    xclip("-i", data=b"precious")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(errors.BackendUnavailable, match="apt install xclip"):
            clipboard.paste("text", lambda: pytest.fail("pressed"))
    assert xclip("-o") == b"precious"


def test_nobody_fetches(editor, desktop):
    xclip("-i", data=b"before")
    begin = time.monotonic()
    assert not clipboard.paste("text", lambda: None, timeout=0.3)
    assert 0.3 <= time.monotonic() - begin < 1.5
    assert xclip("-o") == b"before"


def test_the_clipboard_comes_back_after_an_error(desktop):
    xclip("-i", data=b"before")
    with pytest.raises(ZeroDivisionError):
        clipboard.paste("text", lambda: 1 / 0)
    assert xclip("-o") == b"before"


def test_what_somebody_copies_meanwhile_stays(desktop):
    xclip("-i", data=b"before")
    assert not clipboard.paste("text", lambda: xclip("-i", data=b"the user's"), timeout=0.5)
    assert xclip("-o") == b"the user's"


def test_a_slow_program_still_gets_the_text(editor, pointer):
    xclip("-i", data=b"before")
    editor.say("freeze", ms=900)
    time.sleep(0.1)
    assert clipboard.paste("late", lambda: pointer.hotkey("ctrl", "v"))
    editor.wait(lambda _: editor.value("entry") == "late")
    assert xclip("-o") == b"before"


def test_another_reader_does_not_end_the_wait(editor, pointer):
    """A program that keeps a history of copies fetches at once; the one that is to paste, later."""
    xclip("-i", data=b"before")
    editor.say("freeze", ms=700)
    read = []

    def press():
        pointer.hotkey("ctrl", "v")
        read.append(xclip("-o"))

    assert clipboard.paste("for you", press)
    assert read == [b"for you"]
    editor.wait(lambda _: editor.value("entry") == "for you")


def test_long_texts_are_pasted_up_to_a_limit(editor, pointer, nothing_copied):
    write_into(editor, pointer, "text")
    text = "Grüße, 東京!\n" * 4545
    assert clipboard.paste(text, lambda: pointer.hotkey("ctrl", "v"))
    editor.wait(lambda _: editor.value("text") == text, 20)
    for wrong, why in {"x" * 50_001: "at most 50000", "a\0b": "NUL", "\ud800": "surrogate"}.items():
        with pytest.raises(errors.BadQuery, match=why):
            clipboard.paste(wrong, lambda: pytest.fail("pressed"))


def test_every_form_of_the_text_is_handed_out(desktop, nothing_copied):
    forms = {}

    def read():
        for form in xclip("-o", "-t", "TARGETS").decode().split():
            forms[form] = xclip("-o", "-t", form)

    clipboard.paste("Zürich", read, timeout=0.5)
    assert forms["UTF8_STRING"] == forms["text/plain;charset=utf-8"] == forms["TEXT"] == "Zürich".encode()
    assert forms["STRING"] == "Zürich".encode("latin-1")
    assert b"Z" not in forms["x-kde-passwordManagerHint"]
    forms.clear()
    clipboard.paste("東京", read, timeout=0.5)
    assert "STRING" not in forms
    assert forms["UTF8_STRING"].decode() == "東京"


# What is missing


def in_another_process(code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in (os.environ | environment).items() if value is not None}
    given["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def test_without_an_xauthority_file_the_pointer_moves(desktop, tmp_path):
    done = in_another_process(
        """
        import os
        from screen_agent.pointer import Pointer
        before = os.environ.get("XAUTHORITY")
        Pointer().move(321, 123)
        assert os.environ.get("XAUTHORITY") == before
        print(Pointer().position())
        """,
        XAUTHORITY=str(tmp_path / "missing"),
    )
    assert (done.stdout, done.stderr, done.returncode) == ("(321, 123)\n", "", 0)
    done = in_another_process(
        "from screen_agent.pointer import Pointer; print(Pointer().size())", XAUTHORITY=None, HOME=str(tmp_path)
    )
    assert (done.stdout, done.stderr, done.returncode) == ("(1920, 1080)\n", "", 0)


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("tkinter", "apt install python3-tk"),
        ("pyautogui", "groundlink[screen]"),
        ("xcffib", "groundlink[screen]"),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(desktop, module, remedy):
    done = in_another_process(
        f"""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("{module}", "_{module}"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Blocked())
        from groundlink.errors import BackendUnavailable
        from screen_agent.pointer import Pointer
        for _ in range(2):
            try:
                Pointer().click()
            except BackendUnavailable as error:
                print(error)
        """
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert remedy in line


def test_importing_connects_to_nothing(tmp_path):
    done = in_another_process(
        """
        import sys
        import screen_agent.windows, screen_agent.pointer, screen_agent.keyboard, screen_agent.clipboard
        screen_agent.pointer.Pointer()
        assert not {"pyautogui", "xcffib", "Xlib", "pyperclip"} & set(sys.modules)
        """,
        DISPLAY=None,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_xlib_is_not_ours_to_import():
    for path in Path(ROOT, "screen_agent").glob("*.py"):
        assert "import Xlib" not in path.read_text("utf-8")


def test_the_desktop_is_left_as_it_was(desktop):
    until(lambda: Windows().keys_down() == frozenset())
