"""What a call costs beyond the way there: the short form of `benchmarks/mcp.py`."""

from __future__ import annotations

import json
import subprocess
import sys

import groundlink.image
from agent_plugin.toolbox import Toolbox
from tests.agent_plugin.conftest import png
from tests.conftest import ROOT

SLACK = 2.0
"""For machines that build and test for several at once; decoding the base64 again alone would take 5 to 10 ms."""


def test_overhead_over_an_echo():
    command = [sys.executable, str(ROOT / "benchmarks" / "mcp.py"), "--short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["best_round_ms"] <= SLACK * result["settings"]["limit_ms"], done.stdout
    assert result["decoded"] == 1


def test_the_second_question_on_an_image_decodes_nothing(locator, monkeypatch):
    decode, decoded = groundlink.image.decode, []

    def counted(*given):
        decoded.append(given)
        return decode(*given)

    monkeypatch.setattr(groundlink.image, "decode", counted)
    asked = {"image": png((200, 100), "#fedcba"), "phrase": "Save", "picture": False}
    toolbox = Toolbox(locator)
    bodies = [toolbox.call("locate", asked).body for _ in range(3)]
    assert len(decoded) == 1
    assert len({body["capture"] for body in bodies}) == 1
