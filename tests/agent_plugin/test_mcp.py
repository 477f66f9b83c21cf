"""The MCP server as the official client sees it: in this process, over stdio and over HTTP."""

from __future__ import annotations

import base64
import json
import time
from io import BytesIO

import anyio
import pytest
from mcp import Client, MCPError
from PIL import Image

from agent_plugin.dialects import json_schema
from agent_plugin.mcp_server import ToolServer
from agent_plugin.toolbox import Limits, Toolbox
from agent_plugin.tools import INSTRUCTIONS, TOOLS
from groundlink import Locator
from tests.agent_plugin.conftest import WHITE, over_stdio, png

MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


def error(result) -> str:
    """The code of a result's error, which is told in all forms."""
    assert result.is_error
    assert json.loads(result.content[0].text) == result.structured_content
    assert result.structured_content["error"]["message"]
    return result.structured_content["error"]["code"]


async def works(client) -> None:
    result = await client.call_tool("locate", {"image": WHITE, "phrase": "1 boxes 0", "picture": False})
    assert not result.is_error and len(result.structured_content["detections"]) == 1


@MODES
async def test_the_tools_are_listed_with_all_that_a_model_needs(mode):
    toolbox = Toolbox(screen=True, actions=True)
    async with Client(ToolServer(toolbox), mode=mode) as client:
        assert client.server_info.name == "groundlink"
        assert client.instructions == INSTRUCTIONS
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(listed) == [tool.name for tool in TOOLS]
    for tool in TOOLS:
        one = listed[tool.name]
        plain = json.loads(json.dumps(one.input_schema))
        for field in plain["properties"].values():
            field.pop("nullable", None)  # for clients that go by it
        assert (one.title, one.description, plain) == (tool.title, tool.description, json_schema(tool))
        assert one.annotations.read_only_hint is not tool.changes
        assert one.annotations.destructive_hint is tool.destructive
        assert one.annotations.idempotent_hint is not tool.changes
        assert one.annotations.open_world_hint is tool.needs_screen


async def test_only_what_is_allowed_is_listed(server):
    async with Client(server) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "locate", "point", "read_text", "list_elements"
        }  # fmt: skip
        assert error(await client.call_tool("click", {"target": "OK"})) == "bad_query"


@MODES
async def test_an_answer_is_structured_with_a_picture(mode, server):
    async with Client(server, mode=mode) as client:
        image = png((3000, 1500))
        result = await client.call_tool("locate", {"image": image, "phrase": "2 boxes 0"})
        body = result.structured_content
        assert json.loads(result.content[0].text) == body
        assert (body["status"], body["image_size"]) == ("found", [3000, 1500])
        assert [found["ref"] for found in body["detections"]] == [f"{body['capture']}.{n}" for n in (1, 2)]
        assert result.content[1].mime_type == "image/jpeg"
        with Image.open(BytesIO(base64.b64decode(result.content[1].data))) as picture:
            assert picture.width == pytest.approx(3000 * body["picture_scale"], abs=1)
        again = await client.call_tool("point", {"image": body["capture"], "phrase": "1 boxes 0"})
        assert again.structured_content["capture"] == body["capture"] and len(again.content) == 1


BAD = {
    "no image": ("locate", {"phrase": "x"}, "bad_query"),
    "nothing at all": ("locate", {}, "bad_query"),
    "wrong type": ("locate", {"image": WHITE, "phrase": 7}, "bad_query"),
    "wrong type of flag": ("locate", {"image": WHITE, "phrase": "x", "all": "yes"}, "bad_query"),
    "an object": ("locate", {"image": {"data": WHITE}, "phrase": "x"}, "bad_query"),
    "unknown field": ("locate", {"image": WHITE, "phrase": "x", "box": [0, 0, 1, 1]}, "bad_query"),
    "fields of the server": ("locate", {"image": WHITE, "phrase": "x", "ctx": 1, "arguments": {}}, "bad_query"),
    "10 000 categories": ("locate", {"image": WHITE, "categories": [f"kind {n}" for n in range(10_000)]}, "bad_query"),
    "a long phrase": ("locate", {"image": WHITE, "phrase": "x" * 100_000}, "bad_query"),
    "both": ("locate", {"image": WHITE, "phrase": "x", "categories": ["x"]}, "bad_query"),
    "a capture that never was": ("locate", {"image": "k01234567", "phrase": "x"}, "bad_query"),
    "no picture": ("read_text", {"image": "data:image/png;base64,AAAA"}, "bad_image"),
    "a file": ("read_text", {"image": "/etc/passwd"}, "action_denied"),
    "a URL": ("read_text", {"image": "http://127.0.0.1/x.png"}, "action_denied"),
    "the screen": ("read_text", {"image": "screen"}, "action_denied"),
    "unknown tool": ("rm", {"image": WHITE}, "bad_query"),
    "a fault inside": ("locate", {"image": WHITE, "phrase": "crash"}, "error"),
}


@MODES
async def test_whatever_is_wrong_is_an_error_and_the_next_request_works(mode, server):
    async with Client(server, mode=mode) as client:
        for name, (tool, arguments, code) in BAD.items():
            result = await client.call_tool(tool, arguments)
            assert error(result) == code, name
            assert len(result.content[0].text) < 3000, name
            assert "secret" not in result.content[0].text and "/home" not in result.content[0].text, name
        await works(client)


async def test_an_image_over_the_limit(slow):
    with Locator(slow) as locator:
        toolbox = Toolbox(locator, limits=Limits(max_bytes=1000))
        async with Client(ToolServer(toolbox)) as client:
            assert error(await client.call_tool("read_text", {"image": "QUJD" * 1000})) == "bad_image"
            await works(client)


class TestProgress:
    @MODES
    async def test_is_told_while_boxes_stream(self, mode, server):
        said = []

        async def note(progress, total, message):
            said.append((progress, message, time.monotonic()))

        async with Client(server, mode=mode) as client:
            await client.call_tool(
                "locate", {"image": WHITE, "phrase": "4 boxes 0.1", "picture": False}, progress_callback=note
            )
            ended = time.monotonic()
        assert [message for _, message, _ in said if "found" in message] == [f"found {n}" for n in (1, 2, 3, 4)]
        assert [step for step, _, _ in said] == sorted({step for step, _, _ in said}), "it grows"
        assert said[0][2] < ended - 0.2, "it comes while the work goes on"

    async def test_is_told_while_the_model_is_loaded_at_first_use(self):
        said = []

        async def note(progress, total, message):
            said.append(message)

        toolbox = Toolbox("demo")
        async with Client(ToolServer(toolbox)) as client:
            assert toolbox._locator is None
            call = ("locate", {"image": WHITE, "phrase": "the red circle", "picture": False})
            assert not (await client.call_tool(*call, progress_callback=note)).is_error
            assert "loading" in said[0]
            loaded = toolbox._locator
            said.clear()
            await client.call_tool(*call, progress_callback=note)
            assert toolbox._locator is loaded and not any("loading" in message for message in said)

    async def test_a_client_that_does_not_ask_gets_none(self, server):
        async with Client(server) as client:
            await client.call_tool("locate", {"image": WHITE, "phrase": "4 boxes 0"})


class TestCancellation:
    @MODES
    async def test_ends_the_work_of_the_backend(self, mode, server, slow):
        async with Client(server, mode=mode) as client:
            started = time.monotonic()
            with anyio.move_on_after(0.5) as scope:
                await client.call_tool("locate", {"image": WHITE, "phrase": "1000 boxes 0.1"})
            assert scope.cancelled_caught
            while slow.running:
                assert time.monotonic() - started < 2.0
                await anyio.sleep(0.01)
            assert slow.ended == ["cancelled"]
            await works(client)

    async def test_a_deaf_backend_holds_nobody_up(self, server, slow):
        async with Client(server) as client:
            started = time.monotonic()
            with anyio.move_on_after(0.3):
                await client.call_tool("locate", {"image": WHITE, "phrase": "stuck 3"})
            await works(client)
            assert time.monotonic() - started < 2.0

    async def test_of_one_call_leaves_the_others(self, server, slow):
        async with Client(server, mode="legacy") as client, anyio.create_task_group() as group:
            answers = []

            async def ask(number, seconds):
                with anyio.move_on_after(seconds):
                    phrase = f"{number} boxes 0.1"
                    result = await client.call_tool("locate", {"image": WHITE, "phrase": phrase, "picture": False})
                    answers.append(len(result.structured_content["detections"]))

            for number, seconds in ((5, 30), (200, 0.3), (3, 30)):
                group.start_soon(ask, number, seconds)
        assert sorted(answers) == [3, 5]
        assert sorted(slow.ended) == ["answered", "answered", "cancelled"]


async def test_many_at_once_are_answered_or_told_to_come_later(server):
    async with Client(server) as client, anyio.create_task_group() as group:
        told = []

        async def ask():
            result = await client.call_tool("locate", {"image": WHITE, "phrase": "1 boxes 0.05", "picture": False})
            told.append(error(result) if result.is_error else "found")

        for _ in range(50):
            group.start_soon(ask)
    assert len(told) == 50 and set(told) <= {"found", "busy"} and told.count("found") >= 20


@MODES
async def test_over_stdio_with_the_embedded_default(mode, login):
    async with Client(over_stdio("--allow-folder", login.parent), mode=mode) as client:
        result = await client.call_tool("locate", {"image": "login.png", "phrase": "the Sign in button"})
        body = result.structured_content
        assert (body["status"], body["detections"][0]["text"]) == ("found", "Sign in")
        assert [part.type for part in result.content] == ["text", "image"]
        assert str(login.parent) not in result.content[0].text
        assert error(await client.call_tool("read_text", {"image": "../outside.png"})) in ("action_denied", "bad_image")
        text = await client.call_tool("read_text", {"image": body["capture"]})
        assert text.structured_content["text"].splitlines()[0] == "Welcome back"


@MODES
async def test_over_http(mode, serve):
    served = serve("slow", "http")
    async with Client(served.url, mode=mode) as client:
        await works(client)
        said = []

        async def note(progress, total, message):
            said.append(message)

        await client.call_tool("locate", {"image": WHITE, "phrase": "3 boxes 0.05"}, progress_callback=note)
        assert said == ["found 1", "found 2", "found 3"]
        assert error(await client.call_tool("locate", {"image": WHITE})) == "bad_query"
    async with Client(served.url, mode=mode) as client:
        await works(client)  # one client's end is not the server's


async def test_http_clients_that_leave_in_the_middle_stop_the_work(serve):
    served = serve("slow", "http")
    async with Client(served.url) as client:
        with anyio.move_on_after(0.7):
            await client.call_tool("locate", {"image": WHITE, "phrase": "1000 boxes 0.1"})
        await anyio.to_thread.run_sync(served.said, "cancelled", 3)  # not in the way of the client itself
        await works(client)


async def test_unknown_methods_are_refused(server):
    async with Client(server) as client:
        with pytest.raises(MCPError):
            await client.get_prompt("nothing")
        await works(client)
