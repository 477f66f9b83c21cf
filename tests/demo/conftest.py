"""The demo model, loaded once; a scene that it never saw; the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import groundlink
from tests.conftest import ROOT

SCENE = {"phrase": "button Stop", "box": (15, 109, 73, 134), "absent": "the blue triangle"}
"""What is on `examples/scene.png`, the scene 1011 of the split held-out, and what is not."""


@pytest.fixture(scope="session")
def demo() -> Iterator[groundlink.Locator]:
    with groundlink.load("demo") as locator:
        yield locator


@pytest.fixture(scope="session")
def scene() -> Path:
    return ROOT / "examples" / "scene.png"


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "groundlink"
        environment = os.environ | {"NO_COLOR": "1"}
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=120, env=environment, check=False
        )

    return run
