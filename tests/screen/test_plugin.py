"""The pytest plugin, in test projects of its users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

FORM = {
    "title": "Trial",
    "x": 120,
    "y": 90,
    "w": 300,
    "h": 130,
    "widgets": [
        {"kind": "button", "text": "Save", "x": 10, "y": 10, "w": 120, "h": 40,
         "does": [{"do": "text", "widget": "status", "text": "Saved"}]},
        {"kind": "label", "name": "status", "text": "Ready", "x": 10, "y": 70, "w": 200, "h": 30},
    ],
}  # fmt: skip


def run(folder: Path, *arguments: str, **environment) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    # Other plugins that are installed have warnings and imports of their own.
    command += ["-p", "no:asyncio", "-p", "no:hypothesispytest", "-p", "no:anyio"]
    command += ["--basetemp", str(folder / "kept"), *arguments]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_it_acts_and_keeps_what_is_needed_of_a_failure(project, launch):
    program = launch("form", FORM)
    (project / "test_it.py").write_text(
        """
def test_saving(screen_agent):
    screen_agent.click("the Save button", expect="Saved")

def test_that_fails(screen_agent):
    screen_agent.click("the Save button", check=False)
    assert screen_agent.exists("Lost")
"""
    )
    done = run(project)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert len(program.of("command", widget="Save")) == 2
    folder = project / "kept" / "test_that_fails0" / "screen_agent"
    assert f"the screen and what was done on it: {folder}" in done.stdout
    with Image.open(folder / "failed.png") as picture:
        assert picture.size == (1920, 1080) and picture.convert("RGB").getextrema() != ((0, 0),) * 3
    (line,) = (folder / "actions.jsonl").read_text().splitlines()
    assert json.loads(line)["description"] == "the Save button"


def test_the_policy_and_the_locator_are_the_users_own(project, launch):
    program = launch("form", FORM)
    (project / "conftest.py").write_text(
        """
import groundlink, pytest
from screen_agent import Policy

@pytest.fixture(scope="session")
def screen_locator():
    with groundlink.load("ocr") as locator:
        yield locator

@pytest.fixture
def screen_policy():
    return Policy(deny=("save",))
"""
    )
    (project / "test_it.py").write_text(
        """
import pytest
from groundlink import ActionDenied

def test_it(screen_agent, screen_locator):
    assert screen_agent.locator is screen_locator
    with pytest.raises(ActionDenied):
        screen_agent.click("Save")
"""
    )
    done = run(project)
    assert done.returncode == 0, done.stdout + done.stderr
    program.settle()
    assert not program.of("press")


def test_no_screen_is_an_error_with_the_remedy(project):
    (project / "test_it.py").write_text("def test_it(screen_agent): pass\n")
    done = run(project, DISPLAY=None, WAYLAND_DISPLAY=None)
    assert done.returncode == 1 and "xvfb-run" in done.stdout and "1 error" in done.stdout


def test_the_backend_is_chosen_by_option_or_setting(project, desktop):
    (project / "test_it.py").write_text("def test_it(screen_agent): pass\n")
    assert "there is no backend 'one'" in run(project, "--screen-backend", "one").stdout
    (project / "pytest.ini").write_text("[pytest]\nscreen_backend = two\n")
    assert "there is no backend 'two'" in run(project).stdout


def test_a_project_that_does_not_use_it_pays_nothing(project):
    (project / "test_it.py").write_text(
        """
import sys

def test_it(request):
    heavy = {"numpy", "PIL", "cv2", "onnxruntime", "mss", "pyautogui", "xcffib", "groundlink"}
    assert not heavy & {name.split(".")[0] for name in sys.modules}
    assert {name for name in sys.modules if name.split(".")[0] == "screen_agent"} <= {
        "screen_agent", "screen_agent.pytest_plugin"}
    assert request.config.pluginmanager.has_plugin("groundlink")
"""
    )
    done = run(project, DISPLAY=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "groundlink" not in done.stdout, "not a word of it"
