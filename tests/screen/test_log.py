"""The action log: whole lines, bounded, private, shared by processes, and none of it lost to a crash."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from groundlink.errors import BadOutput, BadQuery
from screen_agent.log import ActionLog
from tests.conftest import until

SMALL = Image.new("RGB", (32, 24), "teal")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def consistent(folder: Path, **limits: int) -> list[dict]:
    """The entries after a restart, with a check that their pictures and no others are there."""
    entries = ActionLog(folder, **limits).read()
    named = {path for entry in entries for path in entry["pictures"].values()}
    assert files(folder) == named | {"actions.jsonl"}
    numbers = [entry["number"] for entry in entries]
    assert numbers == sorted(set(numbers))
    return entries


def test_an_entry_and_its_pictures(tmp_path):
    log = ActionLog(tmp_path / "new" / "log")
    log.add(
        {"action": "click", "box": (1, 2.5, 3, 4), "text": "Zürich\n東京", "ok": True},
        {"before": SMALL, "after": SMALL},
    )
    log.add({"action": "type", "text": None}, {})
    log.add({"action": "wait"})
    first, second, third = log.read()
    assert first["pictures"] == {"before": "000001-before.jpg", "after": "000001-after.jpg"}
    assert (first["number"], first["action"], first["box"], first["text"]) == (
        1,
        "click",
        [1, 2.5, 3, 4],
        "Zürich\n東京",
    )
    assert (second["number"], second["text"], second["pictures"], third["number"]) == (2, None, {}, 3)
    assert abs(datetime.fromisoformat(first["time"]).timestamp() - time.time()) < 60
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    with Image.open(log.folder / "000001-after.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 24))
    assert (log.folder / "actions.jsonl").read_bytes().count(b"\n") == 3
    consistent(log.folder)


def test_numbers_go_on_after_a_restart(tmp_path):
    for _ in range(3):
        ActionLog(tmp_path).add({"action": "click"}, {"before": SMALL})
    assert [entry["number"] for entry in consistent(tmp_path)] == [1, 2, 3]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_owner_may_read(tmp_path):
    old = os.umask(0)
    try:
        log = ActionLog(tmp_path / "log", max_entries=3)
        for _ in range(9):
            log.add({}, {"before": SMALL})
    finally:
        os.umask(old)
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()} == {0o600}


def test_all_kinds_of_pictures(tmp_path):
    log = ActionLog(tmp_path)
    for mode in ("RGB", "RGBA", "L", "P", "1", "LA", "CMYK"):
        log.add({}, {mode.lower(): Image.new(mode, (8, 8))})
    assert len(consistent(tmp_path)) == 7


@pytest.mark.parametrize(
    "entry",
    [{"a": {1, 2}}, {"a": Path()}, {"a": float("nan")}, {"a": np.int64(1)}, {"a": {1: 2}}, {1: 2}, {"a": [{None: 1}]}]
    + [{"number": 1}, {"time": ""}, {"pictures": {}}],
)
def test_what_is_not_json_is_our_mistake(tmp_path, entry):
    log = ActionLog(tmp_path)
    with pytest.raises(TypeError):
        log.add(entry, {"before": SMALL})
    assert files(tmp_path) == {"actions.jsonl"}
    assert log.read() == []


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "a/b", "a.jpg"])
def test_names_of_pictures_stay_in_the_folder(tmp_path, name):
    with pytest.raises(TypeError, match="picture's name"):
        ActionLog(tmp_path / "log").add({}, {name: SMALL})
    assert files(tmp_path / "log") == {"actions.jsonl"}


def test_half_a_character_and_line_separators_come_back(tmp_path):
    text = "file\udcff \u2028 \x85 end"
    ActionLog(tmp_path).add({"text": text})
    assert [entry["text"] for entry in consistent(tmp_path)] == [text]


@pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_bytes": -1}, {"max_entries": 1.5}, {"max_bytes": True}])
def test_limits_are_whole_numbers(tmp_path, limits):
    with pytest.raises(BadQuery, match=next(iter(limits))):
        ActionLog(tmp_path, **limits)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(2_000, 12_000),
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=40),
)
def test_the_bounds_hold_and_the_newest_stay(max_entries, max_bytes, adds):
    with tempfile.TemporaryDirectory() as name:
        log = ActionLog(Path(name), max_entries=max_entries, max_bytes=max_bytes)
        for number, (size, again) in enumerate(adds, 1):
            noise = np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)
            log.add({"size": size}, {"before": Image.fromarray(noise)} if size else {})
            entries = log.read()
            assert 1 <= len(entries) <= max_entries
            assert sum(path.stat().st_size for path in Path(name).iterdir()) <= max_bytes
            assert [entry["number"] for entry in entries] == list(range(number - len(entries) + 1, number + 1))
            if again:
                log = ActionLog(Path(name), max_entries=max_entries, max_bytes=max_bytes)
        consistent(Path(name))


def test_lower_limits_hold_from_the_start(tmp_path):
    log = ActionLog(tmp_path)
    for _ in range(20):
        log.add({}, {"before": SMALL})
    assert len(ActionLog(tmp_path, max_entries=10).read()) == 9
    assert [entry["number"] for entry in consistent(tmp_path)] == list(range(12, 21))


def test_a_picture_larger_than_the_log_is_left_out(tmp_path):
    log = ActionLog(tmp_path, max_bytes=600)
    log.add({"action": "click"}, {"before": SMALL, "after": SMALL})
    assert log.read()[0]["left_out"] == ["before", "after"]
    with pytest.raises(BadOutput, match="does not fit into max_bytes=600"):
        log.add({"text": "x" * 1000})
    assert len(consistent(tmp_path)) == 1


def test_the_file_is_not_written_anew_with_every_entry(tmp_path):
    log = ActionLog(tmp_path, max_entries=100)
    inodes = set()
    for _ in range(200):
        log.add({})
        inodes.add((tmp_path / "actions.jsonl").stat().st_ino)
    start = (tmp_path / "actions.jsonl").read_bytes()
    for _ in range(5):
        log.add({})
    assert (tmp_path / "actions.jsonl").read_bytes().startswith(start) or len(log.read()) == 90
    assert len(inodes) <= 12


def test_damage_is_passed_over(tmp_path):
    log = ActionLog(tmp_path)
    log.add({"action": "one"}, {"before": SMALL})
    path = tmp_path / "actions.jsonl"
    with path.open("ab") as file:
        file.write(b'\0\0\0\n[1]\n{"number": "x"}\n\xff\xfe\n')
    log.add({"action": "two"})
    with path.open("ab") as file:
        file.write(b'{"number": 3, "act')
    assert [entry["action"] for entry in log.read()] == ["one", "two"]
    log.add({"action": "three"})
    assert [(entry["number"], entry["action"]) for entry in log.read()] == [(1, "one"), (2, "two"), (3, "three")]
    with path.open("ab") as file:
        file.write(b'{"number": 4')
    assert len(consistent(tmp_path)) == 3


def test_a_changed_line_makes_us_touch_no_other_file(tmp_path):
    victim = tmp_path / "victim.jpg"
    victim.touch()
    log = ActionLog(tmp_path / "log", max_entries=1)
    lines = [json.dumps({"number": 1, "pictures": names}) for names in ({"a": "../victim.jpg"}, ["x"], {"a": 1}, "x")]
    (tmp_path / "log" / "actions.jsonl").write_text("\n".join(lines) + "\n")
    log.add({})
    log.add({})
    assert victim.exists()
    assert len(log.read()) == 1


def test_no_link_is_followed(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "log" / "actions.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(BadOutput):
        ActionLog(tmp_path / "log")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "log", Path("/proc/groundlink-log")):
        with pytest.raises(BadOutput, match="cannot be written"):
            ActionLog(folder)


def test_a_folder_that_goes_away(tmp_path):
    log = ActionLog(tmp_path / "log")
    for path in log.folder.iterdir():
        path.unlink()
    log.folder.rmdir()
    assert log.read() == []
    with pytest.raises(BadOutput):
        log.add({}, {"before": SMALL})


FULL = """
import resource, signal, sys
from pathlib import Path
from PIL import Image
from groundlink.errors import BadOutput
from screen_agent.log import ActionLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = ActionLog(Path(sys.argv[1]))
log.add({"text": "x" * 1000}, {"before": Image.new("RGB", (8, 8))})
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
for entry, size in (({"text": "y" * 1000}, 8), ({"text": "y"}, 800)):  # the line does not fit, then the picture
    try:
        log.add(entry, {"before": Image.effect_noise((size, size), 99)})
    except BadOutput as error:
        print(error)
log.add({"text": "z"})
print([entry["text"][0] for entry in log.read()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on files")
def test_a_full_disk_leaves_the_log_as_it_was(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    *errors, texts = done.stdout.splitlines()
    assert len(errors) == 2
    assert all("cannot be written" in error for error in errors)
    assert texts == "['x', 'z']"
    assert [entry["number"] for entry in consistent(tmp_path)] == [1, 2]


WRITER = """
import sys
from pathlib import Path
from PIL import Image
from screen_agent.log import ActionLog
log = ActionLog(Path(sys.argv[1]), max_entries=int(sys.argv[3]))
picture = Image.effect_noise((200, 200), 60)
for step in range(int(sys.argv[4])):
    log.add({"by": sys.argv[2], "step": step}, {"before": picture})
"""


def writer(folder: Path, name: str, max_entries: int, steps: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name, str(max_entries), str(steps)])


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
@pytest.mark.parametrize(("max_entries", "kept"), [(1000, 120), (30, 30)])
def test_processes_share_a_folder(tmp_path, max_entries, kept):
    writers = [writer(tmp_path, name, max_entries, 40) for name in "abc"]
    assert [process.wait(timeout=60) for process in writers] == [0, 0, 0]
    entries = consistent(tmp_path)
    assert len(entries) <= kept
    assert entries[-1]["number"] == 120, "no number was given twice"
    if kept == 120:
        for name in "abc":
            assert [entry["step"] for entry in entries if entry["by"] == name] == list(range(40))


def test_threads_share_a_log(tmp_path):
    log = ActionLog(tmp_path)

    def work():
        for _ in range(20):
            log.add({}, {"before": SMALL})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry["number"] for entry in consistent(tmp_path)] == list(range(1, 81))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_whole_entries(tmp_path):
    last = 0
    for delay in (0.0, 0.003, 0.011, 0.027):
        process = writer(tmp_path, "a", 10, 10**6)
        before = last
        until(lambda: any(entry["number"] > before + 3 for entry in _entries(tmp_path)))  # noqa: B023
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        entries = consistent(tmp_path, max_entries=10)
        assert 1 <= len(entries) <= 10
        for entry in entries:
            with Image.open(tmp_path / entry["pictures"]["before"]) as picture:
                picture.load()
        assert entries[-1]["number"] > last
        last = entries[-1]["number"]
    ActionLog(tmp_path).add({"action": "after"})
    assert consistent(tmp_path)[-1]["number"] == last + 1


def _entries(folder: Path) -> list[dict]:
    try:
        lines = (folder / "actions.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_log_that_another_process_holds(tmp_path, monkeypatch):
    log = ActionLog(tmp_path)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setattr("screen_agent.log._LOCK_SECONDS", 0.05)
        with pytest.raises(BadOutput, match="another process holds the log"):
            log.add({})
        holder.stdin.write(b"\n")
        holder.stdin.close()
        holder.wait(timeout=10)
    log.add({})


def test_a_full_hd_picture_takes_little_time(tmp_path):
    log = ActionLog(tmp_path)
    picture = Image.new("RGB", (1920, 1080), "white")
    picture.paste(Image.effect_noise((600, 400), 50).convert("RGB"), (100, 100))
    times = []
    for _ in range(8):
        start = time.perf_counter()
        log.add({"action": "click"}, {"before": picture})
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1, "about 10 ms on a quiet machine"
