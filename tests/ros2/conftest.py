"""Where the stub backends are, and which tests need ROS."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import groundlink

if TYPE_CHECKING:
    from tests.ros2.harness import NodeProcess

sys.path.insert(0, str(Path(__file__).parent / "backends"))

if find_spec("rclpy") is None:
    collect_ignore_glob = ["test_*.py"]  # bin/test-ros has an environment with ROS, and runs these
else:
    with warnings.catch_warnings():  # ROS's generators import modules that Python is about to drop
        warnings.simplefilter("ignore")
        import rosidl_generator_py  # noqa: F401


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of a module write."""
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="session")
def demo_locator() -> Iterator[groundlink.Locator]:
    """The demo model without ROS, to compare with."""
    with groundlink.load("demo", device="cpu") as made:
        yield made


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with the demo model; who changes its prompts or its state sees to it that it is active in the end."""
    from tests.ros2.harness import running

    parameters = {"device": "cpu", "prompts": ["button"]}
    with running(tmp_path_factory.mktemp("demo"), backend="demo", parameters=parameters) as node:
        yield node
