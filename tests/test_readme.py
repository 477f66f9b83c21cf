"""What the README promises, done to the letter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.screen.conftest import desktop, launch  # noqa: F401 - fixtures

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SHELL = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines() if line.strip()
]


@pytest.fixture
def clone(tmp_path):
    """The files of a clone: what git tracks, as it stands now."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if not name.startswith("tests/golden/") and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def button(text, x, *does, **more):
    return {"kind": "button", "text": text, "x": x, "y": 20, "w": 110, "h": 40, "does": does, **more}


# What the examples of the screen agent are about.
SETTINGS = {
    "title": "Settings",
    "x": 100,
    "y": 80,
    "w": 640,
    "h": 260,
    "widgets": [
        button("Save", 20, {"do": "text", "widget": "status", "text": "Saved"}, {"do": "show", "widget": "Done"}),
        button("Delete", 140),
        button("OK", 260, {"do": "text", "widget": "status", "text": "First"}, name="first"),
        button("OK", 500, {"do": "text", "widget": "status", "text": "Second"}, name="second"),
        {"kind": "entry", "name": "search", "text": "Search", "x": 20, "y": 90, "w": 500, "h": 34},
        {"kind": "entry", "name": "password", "text": "Password", "x": 20, "y": 140, "w": 300, "h": 34},
        {"kind": "label", "text": "Ready", "x": 20, "y": 200, "w": 100, "h": 34},
        {"kind": "label", "name": "status", "text": "", "x": 140, "y": 200, "w": 200, "h": 34},
        {"kind": "label", "text": "Done", "x": 400, "y": 200, "w": 100, "h": 34, "hidden": True},
    ],
}


@pytest.fixture
def scene(request):
    """Show the program that the examples of the screen agent are about, for those only."""

    def show(example: str):
        is_about_it = "screen_agent" in example or "groundlink screen" in example
        return request.getfixturevalue("launch")("form", SETTINGS) if is_about_it else None

    return show


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_examples_run(code, clone, scene):
    program = scene(code)
    command = [sys.executable, "-c", code]
    if "def test_" in code:
        (clone / "test_example.py").write_text(code, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if program is not None:
        assert program.of("command"), "a button was clicked"
    assert not done.stderr


@pytest.mark.parametrize("line", [line for line in SHELL if "./bin/" not in line])
def test_commands_run(line, clone, scene):
    scene(line)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line,
        shell=True,
        cwd=clone,
        env=dict(os.environ, PATH=path, PASSWORD="correct horse"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_command_sets_itself_up_on_a_fresh_machine(clone):
    line = next(line for line in SHELL if line.startswith("./bin/groundlink"))
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}
    venv = str(Path(sys.executable).parent)
    bare["PATH"] = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != venv)
    first = subprocess.run(
        line, shell=True, cwd=clone, env=bare, capture_output=True, text=True, timeout=600, check=False
    )
    assert first.returncode == 0, first.stderr
    assert "setting up" in first.stderr
    assert "Sign in" in first.stdout
    assert (clone / "found.png").stat().st_size > 10_000
    second = subprocess.run(
        f"{line} --json", shell=True, cwd=clone, env=bare, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 0
    assert second.stderr == "", "the second time there is nothing to set up"


def test_a_python_without_venv_is_told_what_to_install(clone, tmp_path):
    """As on Debian, where `ensurepip` is a package of its own."""
    (clone / "bin" / "ensurepip.py").write_text("raise ImportError('no', name='ensurepip')")
    done = subprocess.run(
        [sys.executable, "bin/bootstrap.py", ".venv-run", "-e", "."],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"apt install python3\.\d+-venv", done.stderr)
    assert not (clone / ".venv-run").exists()


def test_an_interrupted_set_up_is_begun_anew(clone):
    (clone / ".venv-run" / "bin").mkdir(parents=True)
    (clone / ".venv-run" / "bin" / "groundlink").write_text("half")
    done = subprocess.run(
        [sys.executable, "bin/bootstrap.py", ".venv-run", "no-such-package-of-groundlink"],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "the set-up failed" in done.stderr
    assert "no-such-package-of-groundlink" in done.stderr
    assert not (clone / ".venv-run" / "ready").exists()


def test_figures_of_the_readme_have_their_command():
    for script in set(re.findall(r"benchmarks/\w+\.py", TEXT)):
        assert (ROOT / script).is_file(), script
