"""One ROS node of the tests' own for the whole run, and the place of the stub backends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent / "backends"))

if TYPE_CHECKING:
    from tests.ros2.harness import Ros


@pytest.fixture(scope="session")
def ros() -> Iterator[Ros]:
    from tests.ros2.harness import Ros

    made = Ros()
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of a module write."""
    return tmp_path_factory.mktemp("processes")
