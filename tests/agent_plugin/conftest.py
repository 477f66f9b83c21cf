"""Servers for language models, in this process and in others."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import pytest
from mcp.client.stdio import StdioServerParameters
from PIL import Image

from agent_plugin.mcp_server import ToolServer
from agent_plugin.toolbox import Toolbox
from groundlink import Locator
from tests.agent_plugin.slow import SlowBackend
from tests.conftest import ROOT, until
from tests.screen.conftest import desktop, launch

__all__ = ["desktop", "launch"]

PROGRAM = str(Path(sys.executable).parent / "groundlink")


def png(size=(64, 48), colour="white") -> str:
    """A picture as base64."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


WHITE = "data:image/png;base64," + png()


def over_stdio(*arguments: object) -> StdioServerParameters:
    """`groundlink mcp` with these arguments, for the official client."""
    return StdioServerParameters(command=PROGRAM, args=["mcp", *map(str, arguments)], env=dict(os.environ))


class Served:
    """A server in a process of its own.

    Attributes:
        process: with pipes for all three streams.
        url: of a server over HTTP.
        errors: lines of its standard error so far.
    """

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.errors.append(line.decode().rstrip("\n"))

    @property
    def url(self) -> str:
        return self.said(r"groundlink: MCP at (http://\S+)")

    def said(self, pattern: str, seconds: float = 20.0) -> str:
        """Wait for a line on standard error, and return its first group."""
        found = []

        def look():
            found[:] = [match for line in list(self.errors) if (match := re.fullmatch(pattern, line))]
            return found or self.process.poll() is not None

        until(look, seconds)
        assert found, f"it ended with {self.process.poll()}: {self.errors}"
        return found[-1][1] if found[-1].groups() else found[-1][0]

    def ends(self, seconds: float = 2.0) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(timeout=seconds)
        self._reader.join(timeout=2)
        assert not any("Traceback" in line for line in self.errors), self.errors
        return code

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        self._reader.join(timeout=2)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


@pytest.fixture
def serve():
    """Start a server: `serve("slow", "http")` is tests' own slow one, `serve("mcp", …)` is `groundlink mcp …`."""
    running = []

    def start(what: str, *arguments: object) -> Served:
        slow = [sys.executable, "-m", "tests.agent_plugin.slow"]
        running.append(Served([*(slow if what == "slow" else [PROGRAM, what]), *map(str, arguments)]))
        return running[-1]

    yield start
    for served in running:
        served.close()


@pytest.fixture
def slow():
    return SlowBackend()


@pytest.fixture
def server(slow):
    """A server in this process, with the slow backend."""
    with Locator(slow) as locator:
        yield ToolServer(Toolbox(locator))
