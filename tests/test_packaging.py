"""The wheel as a stranger gets it, and the Pythons that it says it runs on."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

UV = str(Path(sys.executable).parent / "uv")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    rooms = {room for room in ("groundlink", "screen_agent", "agent_plugin", "ros2_node") if (ROOT / room).is_dir()}
    assert {name for name in names if not name.endswith(".dist-info")} == rooms
    assert "groundlink/py.typed" in zipfile.ZipFile(wheel).namelist()
    metadata = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    for extra in ("locateanything", "semantic", "screen", "agent", "ray", "train", "all", "dev"):
        assert f"Provides-Extra: {extra}" in text


def test_the_wheel_works_in_an_environment_of_its_own(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert "torch" not in listed, "the base install needs no torch"
    program = [tmp_path / "env" / "bin" / "groundlink", "locate", ROOT / "examples" / "shot.png", "the Cancel button"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "found" in done.stdout
    done = subprocess.run([program[0], "doctor"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pip install 'groundlink[screen]'" in done.stdout
    done = subprocess.run(
        [program[0], "locate", "screen", "x"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "groundlink[screen]" in done.stderr) == (6, True)


def test_the_wheel_brings_the_demo_model(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    shot = ROOT / "examples" / "scene.png"
    code = f"""
import socket
def refuse(*given): raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import groundlink, groundlink.backends.demo
print(groundlink.backends.demo.WEIGHTS)
print(groundlink.load("demo").locate({str(shot)!r}, groundlink.read()).status)
"""
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    weights, status = done.stdout.split()
    assert weights.startswith(str(tmp_path / "installed"))
    assert status in ("found", "not_found")
    assert not [path for path in tmp_path.iterdir() if path.name != "installed"]  # nothing was put into the home


SOURCE_ONLY = (
    "pyautogui",
    "mouseinfo",
    "pygetwindow",
    "pyscreeze",
    "xcffib",
    "python3-xlib",
    "pytweening",
    "pymsgbox",
    "pyrect",
)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_dependencies_resolve_on_every_python(version, tmp_path):
    done = subprocess.run(
        [
            UV,
            "pip",
            "compile",
            ROOT / "pyproject.toml",
            "--python-version",
            version,
            "--extra",
            "screen",
            "--extra",
            "agent",
        ]
        # These come as source only, and are plain Python; all else has wheels.
        + ["--constraint", ROOT / "constraints.txt", "--only-binary", ":all:"]
        + [word for name in SOURCE_ONLY for word in ("--no-binary", name)]
        + ["--quiet", "-o", tmp_path / "out.txt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rapidocr==3.10" in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize("version", ["3.10", "3.12"])  # of Humble; of Jazzy and Kilted
def test_on_a_robot_the_dependencies_get_along_with_its_numpy(version, tmp_path):
    options = ["--python-version", version, "--extra", "locateanything", "--only-binary", ":all:", "--quiet"]
    options += ["--constraint", ROOT / "config" / "robot-constraints.txt", "-o", tmp_path / "out.txt"]
    command = [UV, "pip", "compile", ROOT / "pyproject.toml", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "out.txt").read_text()
    assert "numpy==1.26.4" in found
    assert all("==4.11" in line for line in found.splitlines() if line.startswith("opencv"))


def test_an_older_python_is_refused(wheel, tmp_path):
    done = subprocess.run(
        [UV, "pip", "compile", "-", "--python-version", "3.9", "--quiet", "-o", tmp_path / "out.txt"],
        input=f"groundlink @ {wheel.as_uri()}",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Python" in done.stderr
