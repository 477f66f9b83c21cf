"""The MCP inspector, another's client in another language, in its command-line mode."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from agent_plugin.tools import TOOLS
from tests.agent_plugin.conftest import PROGRAM
from tests.screen.conftest import missing

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"


@pytest.fixture(scope="module")
def inspect(tmp_path_factory):
    """Run the inspector, installed into a folder of the tests' own, and return the JSON that it prints."""
    if shutil.which("npm") is None:
        missing("npm (apt install npm)")
    folder = tmp_path_factory.mktemp("inspector")
    command = ["npm", "install", "--prefix", str(folder), "--prefer-offline", "--no-audit", "--no-fund", INSPECTOR]
    environment = os.environ | {"npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        why = done.stderr[-300:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = "the registry does not answer"
    if why:
        missing(f"{INSPECTOR} ({why})")

    def run(*arguments: object):
        # It starts servers with hardly any of the environment.
        path = ["-e", f"PYTHONPATH={os.environ['PYTHONPATH']}"] if "PYTHONPATH" in os.environ else []
        program = str(folder / "node_modules" / ".bin" / "mcp-inspector")
        command = [program, "--cli", *path, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    return run


def test_lists_the_tools_and_calls_one_over_stdio(inspect, login):
    server = (PROGRAM, "mcp", "--allow-folder", login.parent)
    listed = inspect(*server, "--method", "tools/list")
    assert [tool["name"] for tool in listed["tools"]] == [tool.name for tool in TOOLS if not tool.needs_screen]
    call = ("--method", "tools/call", "--tool-name", "locate", "--tool-arg", "image=login.png")
    result = inspect(*server, *call, "--tool-arg", "phrase=the Cancel button")
    assert result["structuredContent"]["detections"][0]["text"] == "Cancel"
    assert [part["type"] for part in result["content"]] == ["text", "image"]


def test_over_http(inspect, serve):
    served = serve("slow", "http")
    listed = inspect(served.url, "--transport", "http", "--method", "tools/list")
    assert len(listed["tools"]) == 4
