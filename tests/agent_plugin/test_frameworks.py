"""Frameworks of others that speak to the server with an SDK of their own, older than ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_smolagents_finds_the_button():
    """The example of the README, in an environment of its own, with a scripted model."""
    uv = Path(sys.prefix) / "bin" / "uv"
    if not uv.exists():
        found = shutil.which("uv")
        if found is None:
            pytest.fail("uv is not installed: it comes with the extra dev")
        uv = Path(found)
    server = [str(Path(sys.prefix) / "bin" / "groundlink"), "mcp"]
    done = subprocess.run(
        [uv, "run", "-q", "--no-project", "--python", sys.executable, "--with", "smolagents[mcp]>=1.26,<2",
         "--with", "mcp[ws]>=1.24,<2", "examples/smolagents_locate.py", *server],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    column, row = (int(part) for part in done.stdout.strip().splitlines()[-1].removeprefix("at ").split(", "))
    assert 800 < column < 960 and 400 < row < 440, "the Sign in button of examples/shot.png"
