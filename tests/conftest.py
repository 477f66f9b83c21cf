"""What several rooms need: the sample pictures, a picture with words on it, one locator, a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageDraw, ImageFont

import groundlink

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parent.parent


FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
"""Pillow's own font has no letters beyond ASCII; this one comes with supervision."""


def words_on(words: dict[tuple[int, int], str], size: tuple[int, int] = (640, 360), font: int = 24) -> Image.Image:
    """A white picture with texts, each at its top-left corner."""
    picture = Image.new("RGB", size, "white")
    canvas = ImageDraw.Draw(picture)
    for place, word in words.items():
        canvas.text(place, word, fill=(20, 20, 20), font=ImageFont.truetype(FONT, font))
    return picture


@pytest.fixture(scope="session")
def locator() -> Iterator[groundlink.Locator]:
    with groundlink.load("ocr") as made:
        yield made


@pytest.fixture(scope="session")
def sample() -> Path:
    return DATA / "gui_sample"


@pytest.fixture
def login(tmp_path: Path) -> Path:
    """A small picture file with three texts."""
    path = tmp_path / "login.png"
    words_on({(60, 40): "Welcome back", (60, 150): "Sign in", (360, 150): "Cancel"}).save(path)
    return path


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """An X server of the tests' own, 1280×800, with nothing on it."""
    if shutil.which("Xvfb") is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Xvfb: apt install xvfb")
        pytest.skip("Xvfb is not installed: apt install xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as ready:
            number = ready.readline().strip()
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(timeout=10)


def until(condition, seconds: float = 10.0) -> None:
    """Wait for a condition, and fail where it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
