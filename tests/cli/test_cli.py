"""The command line as a person and a script meet it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from groundlink.detections import Detections
from groundlink.errors import (
    ERROR_CODES,
    BackendUnavailable,
    BadImage,
    BadOutput,
    BadQuery,
    DeadlineExceeded,
    NoDisplay,
    OutOfMemory,
    WeightsNotFound,
)
from tests.conftest import words_on
from tests.core.test_image import encoded, png_of_zeros

PROGRAM = str(Path(sys.executable).parent / "groundlink")


def run(*arguments: object, stdin: bytes | None = None, **options) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(  # noqa: PLW1510 - callers look at the exit code
        [PROGRAM, *map(os.fsencode, map(str, arguments))],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        **options,
    )
    assert b"Traceback" not in done.stderr + done.stdout, done.stderr.decode()
    return done


def code(error: type) -> int:
    return ERROR_CODES[error].exit_code


def test_found_prints_a_table_and_draws(login, tmp_path):
    out = tmp_path / "found.png"
    done = run("locate", login, "the Sign in button", "--out", out)
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "found" in text
    assert re.search(r"Sign in +1\.00 +\d+, \d+", text)
    assert "found.png" in text
    with Image.open(out) as drawn, Image.open(login) as original:
        assert drawn.size == original.size
        assert drawn.tobytes() != original.tobytes()


def test_not_found_says_what_is_closest_and_exits_with_1(login):
    done = run("locate", login, "the Sign up button")
    assert done.returncode == 1
    assert "closest" in done.stdout.decode()
    assert "Sign in" in done.stdout.decode()


def test_json_is_one_line_an_answer_and_reads_back(login, tmp_path):
    second = tmp_path / "b.png"
    words_on({(30, 30): "Other"}).save(second)
    done = run("locate", login, second, tmp_path / "none.png", "Sign in", "--json")
    assert done.returncode == code(BadImage), "an error outweighs what was found"
    first, other, missing = map(json.loads, done.stdout.decode().splitlines())
    assert Detections.from_json(first).best.text == "Sign in"
    assert (first["source"], other["status"]) == (str(login), "not_found")
    assert missing["error"]["code"] == "bad_image"
    assert "no such file" in missing["error"]["message"]
    assert b"no such file" in done.stderr


def test_a_folder_and_standard_input(login, tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    shutil.copy(login, folder / "b.png")
    words_on({(30, 30): "Other"}).save(folder / "a.jpg")
    (folder / "notes.txt").write_text("not a picture")
    done = run("locate", folder, "Sign in", "--json", "--out", tmp_path / "drawn")
    assert done.returncode == 0, "found in one of them"
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["not_found", "found"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "b.png"]
    done = run("locate", "-", "Sign in", "--json", stdin=login.read_bytes())
    assert json.loads(done.stdout)["status"] == "found"
    assert run("locate", "-", "Sign in", stdin=b"").returncode == code(BadImage)


def test_tasks_all_and_thresholds(login):
    done = run("locate", login, "--task", "read", "--json")
    assert [found["text"] for found in json.loads(done.stdout)["detections"]] == ["Welcome back", "Sign in", "Cancel"]
    done = run("locate", login, "cancel", "-t", "point", "--json")
    assert json.loads(done.stdout)["detections"][0]["box"] is None
    done = run("locate", login, "cancel", "--all", "--json")
    assert json.loads(done.stdout)["query"]["task"] == "ground"
    assert run("locate", login, "Sign", "--threshold", "0.5").returncode == 0
    done = run("locate", login, "a, b", "--task", "detect")
    assert (done.returncode, b"does not do 'detect'" in done.stderr) == (5, True)
    assert run("locate", login, "Cancel", "--deadline", "0").returncode == code(DeadlineExceeded)


WINDOW = """
import sys, tkinter
root = tkinter.Tk()
root.geometry("400x200+300+200")
picture = tkinter.PhotoImage(file=sys.argv[1])
tkinter.Label(root, image=picture, borderwidth=0).place(x=0, y=0)
root.mainloop()
"""


def python_with_tk() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if subprocess.run([python, "-c", "import tkinter"], capture_output=True, check=False).returncode == 0:
                return python
    if os.environ.get("CI"):
        pytest.fail("CI needs tkinter: apt install python3-tk")
    pytest.skip("tkinter is not installed: apt install python3-tk")


def test_the_screen(display, tmp_path):
    with_screen = dict(os.environ, DISPLAY=display)
    with_screen.pop("WAYLAND_DISPLAY", None)
    words_on({(100, 80): "Sign in"}, (400, 200), 32).save(tmp_path / "w.png")
    shown = subprocess.Popen([python_with_tk(), "-c", WINDOW, str(tmp_path / "w.png")], env=with_screen)
    try:
        end = time.monotonic() + 30
        while True:
            done = run("locate", "screen", "the Sign in button", "--json", env=with_screen)
            answer = json.loads(done.stdout)
            if answer["status"] == "found" or time.monotonic() > end:
                break
        assert answer["size"] == [1280, 800]
        x, y = answer["detections"][0]["pixel"]
        assert 400 <= x <= 520
        assert 280 <= y <= 325
    finally:
        shown.terminate()
        shown.wait()


@pytest.mark.parametrize(
    ("setting", "words"),
    [({}, "DISPLAY is not set"), ({"WAYLAND_DISPLAY": "wayland-0"}, "Wayland"), ({"DISPLAY": ":4711"}, ":4711")],
)
def test_no_screen_is_a_clear_error(setting, words):
    bare = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    done = run("locate", "screen", "x", env=bare | setting)
    assert done.returncode == code(NoDisplay)
    assert words in done.stderr.decode()


def bad_files(folder: Path) -> dict[str, bytes]:
    """Every kind of picture file that people give by mistake."""
    whole = encoded(words_on({(5, 5): "cut"}), "PNG")
    return {
        "text.png": b"this is not a picture",
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "bomb.png": png_of_zeros(10_000, 10_000),
        "huge.png": png_of_zeros(20_000, 20_000),
        "lying.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "paper.pdf": b"%PDF-1.4\n",
    }


def test_bad_files_are_refused_by_name_and_the_rest_answered(login, tmp_path):
    files = bad_files(tmp_path)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    odd = tmp_path / "a\nb 😀 \x1b[31m.png"
    shutil.copy(login, odd)
    names = [*files, "missing.png", odd.name, login.name]
    done = run("locate", *(tmp_path / name for name in names), "Sign in", "--json")
    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(answers) == len(names)
    assert done.returncode == code(BadImage)
    for name, answer in zip(names[:-2], answers):
        assert answer["error"]["code"] == "bad_image", name
        assert name in answer["error"]["message"]
    assert [answer["status"] for answer in answers[-2:]] == ["found", "found"]
    assert b"\x1b" not in done.stderr


GOOD = {
    "one.png": Image.new("RGB", (1, 1)),
    "alpha.png": Image.new("RGBA", (60, 40), (0, 0, 0, 0)),
    "palette.gif": Image.new("P", (60, 40)),
    "deep.png": Image.new("I;16", (60, 40)),
    "ink.jpg": Image.new("CMYK", (60, 40)),
}


def test_unusual_pictures_are_answered(tmp_path):
    for name, picture in GOOD.items():
        picture.save(tmp_path / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    words_on({(40, 40): "Turned"}).rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=turned)
    frames = [words_on({(40, 40): word}) for word in ("Turned", "Second")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    done = run("locate", tmp_path, "Turned", "--json")
    answers = {Path(answer["source"]).name: answer for answer in map(json.loads, done.stdout.decode().splitlines())}
    assert done.returncode == 0
    assert set(answers) == {*GOOD, "turned.jpg", "moving.gif"}
    assert answers["turned.jpg"]["size"] == [640, 360]
    assert {name for name, answer in answers.items() if answer["status"] == "found"} == {"turned.jpg", "moving.gif"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["{login}"], BadQuery, "what to look for"),
        (["{login}", ""], BadQuery, "empty"),
        (["{login}", "   "], BadQuery, "empty"),
        (["{login}", "x" * 10_000], BadQuery, "10000 characters"),
        (["{login}", "a\x07b"], BadQuery, "control character"),
        (["the Save button", "{login}"], BadQuery, "query comes last"),
        (["{tmp}", "x"], BadImage, "no pictures in this folder"),
        (["{login}", "x", "--backend", "nothing"], BackendUnavailable, "installed: "),
        (["{login}", "x", "--set", "threads=none"], BackendUnavailable, "threads"),
        (["{login}", "x", "--set", "threads"], BadQuery, "NAME=VALUE"),
        (["{login}", "x", "--task", "example"], BadQuery, "--example"),
        (["{login}", "x", "--threshold", "7"], BadQuery, "threshold"),
        (["{login}", "x", "--out", "{login}"], BadOutput, "overwrite"),
        (["{login}", "x", "--out", "{tmp}/none/x.png"], BadOutput, "no folder"),
        (["{login}", "x", "--out", "{tmp}/x.gif"], BadOutput, ".png"),
        (["{login}", "x", "--out", "{login}/"], BadOutput, "cannot be made"),
        (["{login}", "{login}", "x", "--out", "{tmp}/x.png"], BadOutput, "folder"),
        (["{login}", "x", "--out", "/proc/x.png"], BadOutput, "/proc"),
        (["{login}", "x", "--nonsense"], BadQuery, "nonsense"),
        (["{login}", "x", "--task", "fly"], BadQuery, "fly"),
    ],
)
def test_bad_arguments(arguments, error, words, login, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [argument.format(login=login, tmp=empty) for argument in arguments]
    before = login.read_bytes()
    done = run("locate", *filled)
    assert done.returncode == code(error)
    assert words in done.stderr.decode()
    assert login.read_bytes() == before
    assert not list(empty.iterdir()), "nothing is left behind"


def test_a_full_disk_leaves_no_half_file(login, tmp_path):
    out = tmp_path / "out" / "found.png"
    out.parent.mkdir()
    done = run(
        "locate",
        login,
        "Sign in",
        "--out",
        out,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)),
    )
    assert done.returncode == code(BadOutput)
    assert "cannot be written" in done.stderr.decode()
    assert not list(out.parent.iterdir())


def test_a_terminal_without_unicode(login):
    ascii_only = dict(os.environ, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    done = run("locate", login, "Größe 東京", env=ascii_only)
    assert done.returncode == 1
    done = run("locate", login, "Sign in", env=ascii_only)
    assert done.returncode == 0


def test_a_reader_that_goes_away_and_ctrl_c(login):
    piped = subprocess.run(  # noqa: PLW1510
        f"'{PROGRAM}' locate '{login}' --task read --json | true", shell=True, capture_output=True, timeout=60
    )
    assert b"Traceback" not in piped.stderr
    codes = []
    for wait in (0.6, 1.0, 1.4):
        slow = subprocess.Popen([PROGRAM, "locate", str(login), "x"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        time.sleep(wait)
        slow.send_signal(signal.SIGINT)
        _, errors = slow.communicate(timeout=20)
        assert b"Traceback" not in errors
        codes.append(slow.returncode)
    # Interrupted; or done just before; or before Python listens to signals, or after it has ceased to.
    assert 130 in codes
    assert set(codes) <= {130, 1, -signal.SIGINT}


def test_a_bar_shows_on_a_terminal_and_not_in_a_pipe(login):
    import pty

    main, side = pty.openpty()
    shown = subprocess.Popen([PROGRAM, "locate", str(login), "Sign in", "--json"], stderr=side, stdout=subprocess.PIPE)
    os.close(side)
    screen = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:
            break
        if not part:
            break
        screen += part
    out, _ = shown.communicate(timeout=60)
    assert b"finding text" in screen or b"loading" in screen
    assert json.loads(out)["status"] == "found"
    assert run("locate", login, "Sign in", "--json").stderr == b""


def test_doctor_says_what_works(tmp_path):
    done = run("doctor")
    text = done.stdout.decode()
    assert done.returncode == 0
    for word in ("groundlink 0.", "Python 3.", "ocr", "embedded default", "works"):
        assert word in text, word
    report = json.loads(run("doctor", "--json").stdout)
    assert ("pip install 'groundlink[" in text) == any(report["extras"].values())
    assert report["exit_code"] == 0
    assert report["backends"][0]["name"]
    broken = run("doctor", env=dict(os.environ, GROUNDLINK_BACKEND="nothing"))
    assert broken.returncode == code(BackendUnavailable)
    assert "does not work" in broken.stdout.decode()


def test_doctor_says_whether_the_screen_can_be_used(display, tmp_path):
    def told(**environment) -> dict:
        given = os.environ | {"DISPLAY": display, "WAYLAND_DISPLAY": None} | environment
        environment = {name: value for name, value in given.items() if value is not None}
        done = run("doctor", "--json", env=environment)
        assert done.returncode == 0, "a screen that is missing is no error of the installation"
        report = json.loads(done.stdout)
        return next(room for room in report["rooms"] if room["name"] == "screen")

    # As on a machine without xclip.
    good = told(PATH=str(tmp_path))
    assert (good["problem"], good["about"]) == (None, f"1 monitor, 1280×800, display {display}")
    assert len(good["advice"]) == 1 and "apt install xclip" in good["advice"][0]
    assert "DISPLAY is not set" in told(DISPLAY=None)["problem"]
    assert "DISPLAY=:9876" in told(DISPLAY=":9876")["problem"]
    assert "Wayland" in told(DISPLAY=None, WAYLAND_DISPLAY="wayland-0")["problem"]


def test_doctor_names_what_the_screen_lacks(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'pyautogui' else real(name, package)\n"
    )
    done = run("doctor", env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert "screen: no: pip install 'groundlink[screen]'  (lacks pyautogui)" in done.stdout.decode()


MODEL = Path(__file__).parents[1] / "golden" / "g2" / "ckpt_fit"


def test_doctor_says_what_fits_of_a_model():
    done = run("doctor", "--model", MODEL, "--set", "device=cpu", "--set", "dtype=bfloat16")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert f"{MODEL} in bfloat16 on cpu" in text
    for size in ("640×480", "1920×1080", "3840×2160"):
        assert re.search(rf"{size} +\d+\.\d GB +fits", text), size
    assert re.search(r"free: \d+\.\d GB, weights: 0\.0 GB", text)
    assert re.search(r"largest 16:9 picture that fits: \d+×\d+", text)


def test_doctor_has_an_exit_code_for_a_model_without_room(tmp_path):
    config = json.loads((MODEL / "config.json").read_text())
    config["text_config"]["vocab_size"] = 10**12
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run("doctor", "--model", tmp_path, "--set", "device=cpu", "--json")
    assert done.returncode == code(OutOfMemory)
    report = json.loads(done.stdout)
    assert report["exit_code"] == code(OutOfMemory)
    assert "works" in report["trial"]
    memory = report["memory"]
    assert memory["weights"] > 10**14
    assert memory["total"] >= memory["free"] > 0
    assert [picture["fits"] for picture in memory["pictures"]] == [False] * 4
    assert memory["largest"] is None
    assert "bfloat16" in memory["advice"]


def test_doctor_names_what_is_wrong_with_a_model(tmp_path):
    done = run("doctor", "--model", tmp_path / "none")
    assert done.returncode == code(WeightsNotFound)
    assert "there is no folder" in done.stderr.decode()
    assert done.stdout == b""


def test_help_is_quick_and_complete():
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = run("--help").stdout.decode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The processor's time: on a busy machine the clock on the wall says nothing.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5, times
    assert "locate" in text
    assert "doctor" in text
    text = run("locate", "--help").stdout.decode()
    for word in ("--task", "--backend", "--json", "--out", "--all", "screen", "Exit code"):
        assert word in text, word
    assert run("--version").stdout.decode().startswith("groundlink 0.")


def test_shell_completion():
    bash = dict(os.environ, _GROUNDLINK_COMPLETE="complete_bash", COMP_WORDS="groundlink lo", COMP_CWORD="1")
    assert run(env=bash).stdout.decode().split() == ["locate"]
    tasks = dict(bash, COMP_WORDS="groundlink locate --task ", COMP_CWORD="3")
    assert "ground_one" in run(env=tasks).stdout.decode().split()


def test_names_that_are_not_text(login, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    shutil.copy(login, odd)
    done = run("locate", odd, "Sign in", "--json")
    assert json.loads(done.stdout)["source"].endswith("caf\\udce9.png")
    assert done.returncode == 0


def test_bytes_read_twice_from_memory_are_one_picture(locator, login):
    data = login.read_bytes()
    buffer = io.BytesIO(data).getvalue()
    assert locator.locate(data, "Cancel").detections == locator.locate(buffer, "Cancel").detections
