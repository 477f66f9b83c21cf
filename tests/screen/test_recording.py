"""The recording in the README, and the script that made it."""

from __future__ import annotations

import os
import subprocess
import sys

from PIL import Image, ImageSequence

from tests.conftest import ROOT


def frames(path):
    with Image.open(path) as picture:
        assert picture.size == (960, 540)
        return [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(picture)]


def test_the_script_still_records_and_the_recording_is_of_it(desktop, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    script = [sys.executable, ROOT / "examples" / "record_screen.py", tmp_path / "made.gif"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    shipped = ROOT / "docs" / "images" / "screen.gif"
    assert shipped.stat().st_size < 1_500_000
    for path in (tmp_path / "made.gif", shipped):
        shown = frames(path)
        assert len(shown) > 10 and 8_000 < sum(duration for _, duration in shown) < 20_000
    # Where the window is at the end, with "Opened" in its last line and blue boxes of what changed.
    ends = [frames(path)[-1][0].crop((24, 320, 500, 430)) for path in (tmp_path / "made.gif", shipped)]
    assert all((16, 96, 192) in {colour for _, colour in end.getcolors(1 << 16)} for end in ends)
