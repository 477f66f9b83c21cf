"""The direction of imports, and what importing the core costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from groundlink.errors import ERROR_CODES, GroundlinkError
from tests.conftest import ROOT

ALLOWED = {
    "groundlink": set(),
    "screen_agent": {"groundlink"},
    "agent_plugin": {"screen_agent", "groundlink"},
    "ros2_node": {"groundlink"},
}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide where things come from"
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", [room for room in ALLOWED if (ROOT / room).is_dir()])
def test_imports_point_down_only(room):
    for path in (ROOT / room).rglob("*.py"):
        forbidden = (imports(path) & set(ALLOWED)) - ALLOWED[room] - {room}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_importing_the_core_imports_numpy_and_pillow_only():
    code = (
        "import sys; before = set(sys.modules); import groundlink; "
        "from importlib.metadata import packages_distributions as p; "
        "names = {m.split('.')[0] for m in set(sys.modules) - before}; d = p(); "
        "print(sorted({x.lower() for n in names & set(d) for x in d[n]}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= {"numpy", "pillow", "groundlink"}


def test_no_backend_is_imported_by_the_core():
    code = "import sys, groundlink; print([m for m in sys.modules if m.startswith('groundlink.backends')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_has_a_row_of_its_own():
    assert set(GroundlinkError.__subclasses__()) | {GroundlinkError} == set(ERROR_CODES)
    for name in ("tool", "exit_code", "ros"):
        values = [getattr(code, name) for code in ERROR_CODES.values()]
        assert len(set(values)) == len(values), f"{name} is not unique"
    assert all(code.exit_code >= 2 for code in ERROR_CODES.values()), "0 is found, 1 is not found"
    assert all(400 <= code.http < 600 and code.ros > 0 for code in ERROR_CODES.values())


def test_an_error_of_a_third_party_has_the_code_of_its_parent():
    class Special(groundlink_error("Busy")):
        pass

    assert Special("x").code == ERROR_CODES[groundlink_error("Busy")]
    assert Special("x").to_json() == {"code": "busy", "message": "x"}


def groundlink_error(name):
    import groundlink

    return getattr(groundlink, name)


def test_remote_code_is_never_trusted():
    for path in (ROOT / "groundlink").rglob("*.py"):
        assert "trust_" + "remote_code" not in path.read_text(encoding="utf-8"), path


def test_all_public_names_are_there():
    import groundlink

    assert sorted(groundlink.__all__) == dir(groundlink)
    for name in groundlink.__all__:
        assert getattr(groundlink, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = groundlink.nonsense
