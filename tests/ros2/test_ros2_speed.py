"""What the node adds to the way of an image: the short form of `benchmarks/ros2.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLACK = 1.5
"""On machines that build and test for several at once."""


def test_the_way_of_an_image_through_the_node():
    command = [sys.executable, str(ROOT / "benchmarks" / "ros2.py"), "--short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [row["size"] for row in result["rows"]] == ["640x480", "1920x1080"]
    for row in result["rows"]:
        assert row["least_ms"] <= SLACK * row["limit_ms"], done.stdout
        assert row["frames"]["unaccounted"] == 0, done.stdout
        assert row["frames"]["failed"] == 0, done.stdout
        assert row["stages_ms"]["convert"] <= 1.0, "rgb8 is looked at where it is, not copied"
    slow = result["too_slow"]
    assert slow["unaccounted"] == 0, done.stdout
    assert slow["superseded"] > slow["answered"] > 0, "30 Hz, and a model that takes three periods"
    assert result["idle_percent"] <= result["idle_limit_percent"], done.stdout
