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


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_examples_run(code, clone):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("line", [line for line in SHELL if "./bin/" not in line])
def test_commands_run(line, clone):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line,
        shell=True,
        cwd=clone,
        env=dict(os.environ, PATH=path),
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
