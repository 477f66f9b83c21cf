"""Where the stub backends are, and which tests need ROS."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

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
