"""The repository as a ROS 2 package: what colcon sees, what it builds and installs, and that this runs by itself."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rclpy
from lifecycle_msgs.srv import GetState
from vision_msgs.msg import Detection2DArray

import groundlink
from tests.ros2 import workspace
from tests.ros2.harness import Process, Ros, result_of, until

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()


def colcon(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "colcon", *arguments]
    environment = workspace.build_environment() | {"COLCON_LOG_PATH": os.devnull}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose `src` has the files of this checkout, without what git ignores."""
    place = tmp_path_factory.mktemp("workspace") / "src" / "groundlink"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).symlink_to(ROOT / name)
    return place.parent.parent


def test_colcon_finds_exactly_one_package(clone: Path) -> None:
    assert colcon("list", cwd=clone) == "groundlink_ros\tsrc/groundlink\t(ros.ament_cmake)\n"
    assert colcon("list", cwd=clone / "src" / "groundlink") == "groundlink_ros\t.\t(ros.ament_cmake)\n"


def test_colcon_finds_nothing_in_the_tests(clone: Path) -> None:
    assert colcon("list", cwd=clone / "src" / "groundlink" / "tests") == ""


def test_the_versions_of_package_and_python_are_the_same() -> None:
    assert PACKAGE.findtext("version") == groundlink.__version__


def test_the_launch_folder_is_no_python_package() -> None:
    # It would hide ROS's own package `launch` from whoever runs Python here.
    assert not list((ROOT / "launch").rglob("__init__.py"))


def test_what_the_node_imports_is_a_dependency_of_the_package() -> None:
    declared = {element.text for kind in ("depend", "exec_depend") for element in PACKAGE.iter(kind)}
    keys = {"cv2": "python3-opencv", "numpy": "python3-numpy", "PIL": "python3-pil", "yaml": "python3-yaml"}
    own = {"groundlink", "ros2_node", "groundlink_ros"} | set(sys.stdlib_module_names)
    imported = set()
    for file in [*(ROOT / "ros2_node").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    assert "rclpy" in imported
    assert {keys.get(name, name) for name in imported - own} <= declared


def test_vision_msgs_is_the_one_that_robots_have() -> None:
    # Two ends of a topic whose hashes differ do not talk to each other.
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("hash", context=context)
    node.create_publisher(Detection2DArray, "hash", 1)
    (publisher,) = until(lambda: node.get_publishers_info_by_topic("/hash"), "the publisher is known")
    assert str(publisher.topic_type_hash) == "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def installed() -> Path:
    """The install space, brought up to date: only what is copied can have changed."""
    assert workspace.build("--packages-select", "groundlink_ros")
    return workspace.INSTALLED


def run(program: str, cwd: Path) -> str:
    """Run Python in the install space, with nothing of the checkout on its path."""
    environment = workspace.environment((workspace.SITE,))
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_installed_packages_are_whole_and_find_their_backends(installed: Path, tmp_path: Path) -> None:
    program = """
import json, groundlink, ros2_node
from groundlink.backend import backend_names, backend_class
from importlib.metadata import entry_points, version
print(json.dumps({
    "files": [groundlink.__file__, ros2_node.__file__], "backends": backend_names(), "version": version("groundlink"),
    "classes": [backend_class(name).__name__ for name in backend_names()],
    "pytest": [point.value for point in entry_points(group="pytest11") if point.name == "groundlink"],
}))
"""
    told = json.loads(run(program, tmp_path))
    assert all(Path(file).is_relative_to(installed) for file in told["files"])
    assert set(told["backends"]) >= {"demo", "locateanything", "ocr"}
    assert set(told["classes"]) >= {"DemoBackend", "OcrBackend"}
    assert told["version"] == groundlink.__version__
    # The rooms that are not installed here have no entry points.
    assert told["pytest"] == []
    for package in ("groundlink", "ros2_node"):
        ours = {file.relative_to(ROOT) for file in (ROOT / package).rglob("*") if file.is_file()}
        ours = {file for file in ours if "__pycache__" not in file.parts}
        missing = {file for file in ours if not (workspace.SITE / file).is_file()}
        assert missing == set()
    assert (workspace.SITE / "groundlink" / "backends" / "demo" / "weights" / "model.safetensors").stat().st_size > 1e6


def test_what_the_package_shares_is_installed(installed: Path) -> None:
    share = installed / "share" / "groundlink_ros"
    for name in ("launch/locate.launch.py", "launch/replay.launch.py", "config/locate.yaml", "config/fastdds.xml"):
        assert (share / name).read_bytes() == (ROOT / name).read_bytes()
    for name in ("msg/Prompts.msg", "srv/SetPrompts.srv", "srv/Locate.srv", "action/Locate.action"):
        assert (share / name).is_file()


def test_the_installed_executable_runs_with_the_python_that_built_it(installed: Path, tmp_path: Path) -> None:
    executable = installed / "lib" / "groundlink_ros" / "locate_node"
    assert executable.read_text().splitlines()[0] == f"#!{workspace.VENV}/bin/python"
    # --symlink-install links to what was built.
    assert os.access(workspace.FOLDER / "build" / "groundlink_ros" / "locate_node", os.X_OK)
    environment = workspace.environment((workspace.SITE,))
    helped = subprocess.run(
        [executable, "--help"], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert "locate_node" in helped.stdout
    space = f"/installed{os.getpid()}"
    command = [str(executable), "--ros-args", "-r", f"__ns:={space}", "-p", "backend:=ocr", "-p", "prompts:=[Exit]"]
    node = Process([*command, "-p", "autostart:=true"], tmp_path / "log", environment)
    ros = Ros()
    client = ros.node.create_client(GetState, f"{space}/groundlink/get_state")
    try:
        until(client.service_is_ready, "the lifecycle services are there")
        until(lambda: state(client) == "active", "the node is active")
        assert re.search("backend 'ocr'", node.log)
        node.stop()
    finally:
        node.kill()
        ros.close()


def state(client: object) -> str:
    return result_of(client.call_async(GetState.Request()), "an answer of get_state").current_state.label


def test_metadata_names_what_pyproject_names(tmp_path: Path) -> None:
    script = ROOT / "bin" / "metadata.py"
    subprocess.run([sys.executable, script, "write", tmp_path, "groundlink", "ros2_node"], check=True)
    (folder,) = tmp_path.iterdir()
    text = (folder / "METADATA").read_text()
    assert f"Version: {groundlink.__version__}\n" in text
    assert "Requires-Dist: torch>=2.6; extra == 'locateanything'\n" in text
    assert "Requires-Dist: xcffib>=1.5; (sys_platform == 'linux') and extra == 'screen'\n" in text
    points = (folder / "entry_points.txt").read_text()
    assert "ocr = groundlink.backends.ocr:OcrBackend" in points
    assert "screen_agent" not in points
    assert "agent_plugin" not in points
