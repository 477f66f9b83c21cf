"""Acts on real windows through MCP, and the questions that are asked before some of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import anyio
import pytest
from mcp import Client
from mcp_types import ClientCapabilities, ElicitationCapability, ElicitResult, UrlElicitationCapability

from agent_plugin.mcp_server import ToolServer, _can_ask
from agent_plugin.toolbox import Toolbox
from screen_agent import Policy
from tests.agent_plugin.conftest import over_stdio
from tests.agent_plugin.test_mcp import MODES, error
from tests.screen.conftest import end, start_manager, start_screen
from tests.screen.test_agent import button, form, says


def small(*widgets, **more):
    return form(*widgets, **{"w": 460, "h": 440, **more})


DELETE = button("Delete draft", 30, 30, **says("Gone"))


@pytest.fixture
def acting(desktop, locator):
    """Make a server that may act in the window of the tests, in this process."""
    return lambda **policy: ToolServer(
        Toolbox(locator, screen=True, actions=True, policy=Policy(windows=("Trial",), **policy))
    )


def answering(*answers):
    """A client's way to ask a person, who gives these answers; and what was asked."""
    asked = []

    async def ask(context, params):
        asked.append(params.message)
        answer = answers[len(asked) - 1]
        return answer() if callable(answer) else answer

    return ask, asked


YES = ElicitResult(action="accept", content={"allow": True})
NO = ElicitResult(action="accept", content={"allow": False})
DECLINE = ElicitResult(action="decline")
CANCEL = ElicitResult(action="cancel")


class TestQuestions:
    @MODES
    async def test_what_is_allowed_is_done_once(self, mode, acting, launch):
        program = launch("form", small(DELETE))
        ask, asked = answering(YES)
        async with Client(acting(), mode=mode, elicitation_callback=ask) as client:
            result = await client.call_tool("click", {"target": "Delete draft"})
        assert not result.is_error, result.structured_content
        assert result.structured_content["effect"] == "changed"
        program.settle()
        assert len(program.of("command", widget="Delete draft")) == 1
        assert len(asked) == 1 and "Delete draft" in asked[0] and "confirmation" in asked[0]

    @MODES
    async def test_what_is_not_allowed_is_not_done(self, mode, acting, launch):
        program = launch("form", small(DELETE))
        answers = {"no": NO, "decline": DECLINE, "cancel": CANCEL}
        ask, asked = answering(*answers.values())
        async with Client(acting(), mode=mode, elicitation_callback=ask) as client:
            for name in answers:
                result = await client.call_tool("click", {"target": "Delete draft"})
                assert error(result) == "action_denied", name
                assert "did not allow" in result.structured_content["error"]["message"]
        program.settle()
        assert len(asked) == 3 and not program.of("press")

    @MODES
    async def test_an_answer_that_is_none(self, mode, acting, launch):
        program = launch("form", small(DELETE))
        ask, _ = answering(*(ElicitResult(action="accept", content=odd) for odd in (None, {}, {"allow": "perhaps"})))
        async with Client(acting(), mode=mode, elicitation_callback=ask) as client:
            for _ in range(3):
                assert error(await client.call_tool("click", {"target": "Delete draft"})) == "action_denied"
        program.settle()
        assert not program.of("press")

    @MODES
    async def test_a_client_that_cannot_ask_is_refused(self, mode, acting, launch):
        program = launch("form", small(DELETE, button("Refresh", 240, 30, **says("New"))))
        async with Client(acting(), mode=mode) as client:
            result = await client.call_tool("click", {"target": "Delete draft"})
            assert error(result) == "action_denied"
            assert "elicitation" in result.structured_content["error"]["message"]
            assert not (await client.call_tool("click", {"target": "Refresh"})).is_error, "the harmless is done"
        program.settle()
        assert not program.of("command", widget="Delete draft") and program.of("command", widget="Refresh")

    def test_a_client_that_only_opens_pages_cannot_ask(self):
        def context(**given):
            return SimpleNamespace(client_capabilities=ClientCapabilities(**given))

        assert not _can_ask(context())
        assert not _can_ask(context(elicitation=ElicitationCapability(url=UrlElicitationCapability())))
        assert _can_ask(context(elicitation=ElicitationCapability()))

    @MODES
    async def test_a_permission_is_for_what_was_asked_about(self, mode, acting, launch):
        """The button says something else when the answer comes."""
        program = launch("form", small(DELETE))

        def change():
            program.say("text", widget="Delete draft", text="Delete account")
            program.settle()
            return YES

        ask, asked = answering(change, DECLINE)
        async with Client(acting(), mode=mode, elicitation_callback=ask) as client:
            seen = await client.call_tool("locate", {"image": "screen", "phrase": "Delete draft", "picture": False})
            ref = seen.structured_content["detections"][0]["ref"]
            assert (await client.call_tool("click", {"target": ref})).is_error
        program.settle()
        assert asked and not program.of("press"), asked

    @MODES
    async def test_a_permission_for_a_key_is_not_for_another(self, mode, acting, launch):
        program = launch("form", small({"kind": "entry", "name": "Name", "x": 30, "y": 30, "w": 200, "h": 36}))
        program.say("focus", widget="Name")
        ask, asked = answering(YES, DECLINE)
        async with Client(acting(), mode=mode, elicitation_callback=ask) as client:
            result = await client.call_tool("press", {"keys": ["space"]})
            assert result.structured_content.get("effect") in ("changed", None), result.structured_content
            assert error(await client.call_tool("press", {"keys": ["ctrl+a"]})) == "action_denied"
        program.settle()
        assert len(asked) == 2 and "space" in asked[0] and "ctrl+a" in asked[1]
        assert program.of("key", keysym="space") and not program.of("key", keysym="a")

    async def test_all_keys_of_a_row_are_asked_about_at_once(self, acting, launch):
        program = launch("form", small({"kind": "entry", "name": "Name", "x": 30, "y": 30, "w": 200, "h": 36}))
        program.say("focus", widget="Name")
        ask, asked = answering(YES)
        async with Client(acting(), elicitation_callback=ask) as client:
            result = await client.call_tool("press", {"keys": ["space", "ctrl+a", "x"]})
            assert not result.is_error, result.structured_content
        program.settle()
        assert len(asked) == 1 and "space" in asked[0] and "ctrl+a" in asked[0]
        assert program.value("Name") == "x ", "Ctrl+A is Home in Tk"

    async def test_the_owner_may_decide_instead(self, acting, launch):
        program = launch("form", small(DELETE))
        ask, asked = answering()
        async with Client(acting(confirm=lambda proposal: True), elicitation_callback=ask) as client:
            assert not (await client.call_tool("click", {"target": "Delete draft"})).is_error
        program.event("command", widget="Delete draft")
        assert not asked


async def test_a_cancelled_wait_leaves_the_screen_free(acting, launch):
    launch("form", small(button("Refresh", 30, 30, **says("New"))))
    async with Client(acting()) as client:
        with anyio.move_on_after(1.0) as scope:
            await client.call_tool("wait_for", {"phrase": "Nowhere", "timeout": 60.0})
        assert scope.cancelled_caught
        with anyio.fail_after(10):
            assert not (await client.call_tool("click", {"target": "Refresh"})).is_error


@pytest.fixture
def little(desktop):
    """A screen of its own that is soon read, with a window manager."""
    screen, display = start_screen("900x700x24")
    manager = start_manager(display)
    yield display
    end(manager)
    end(screen)


async def test_all_tools_on_a_real_window_over_stdio(launch, little, tmp_path):
    program = launch(
        "form",
        small(
            button("Archive", 30, 30, **says("Archived")),
            button("Bicycle", 240, 30, **says("Rides")),
            {"kind": "entry", "name": "Name", "text": "", "x": 30, "y": 100, "w": 200, "h": 36},
            {"kind": "label", "name": "start", "text": "Start", "x": 240, "y": 106},
            {"kind": "text", "name": "notes", "text": "\n".join(["Poem", *map(str, range(60))]), "x": 30, "y": 150,
             "w": 160, "h": 90, "blink": False},
            {"kind": "canvas", "name": "canvas", "x": 240, "y": 150, "w": 180, "h": 200, "bg": "#ffffff"},
            x=20,
            y=40,
        ),
        display=little,
    )  # fmt: skip
    allowed = ("--allow-screen", "--allow-actions", "--allow-window", "Trial", "--log", tmp_path / "log")
    allowed += ("--allow-key", "ctrl+e")
    async with Client(over_stdio(*allowed, display=little)) as client:

        async def do(tool, **arguments):
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, (tool, arguments, result.structured_content)
            return result.structured_content

        async def fails(tool, **arguments):
            return error(await client.call_tool(tool, arguments))

        shot = await do("screenshot")
        assert shot["image_size"] == [900, 700] and shot["picture_scale"] == 1.0
        listed = await do("list_elements", image="screen")
        refs = {found["text"]: found["ref"] for found in listed["detections"]}
        assert {"Archive", "Bicycle"} <= set(refs), refs
        found = next(found for found in listed["detections"] if found["text"] == "Archive")
        x1, y1, x2, y2 = program.boxes["Archive"]
        assert x1 <= found["pixel"][0] < x2 and y1 <= found["pixel"][1] < y2, "pixels of the screen, not the picture"

        done = await do("click", target=refs["Archive"])  # by ref
        program.event("command", widget="Archive")
        assert done["effect"] == "changed"
        done = await do("click", target="the Bicycle button", expect="Rides")  # by description
        program.event("command", widget="Bicycle")
        assert done["effect"] == "expected"

        program.say("focus", widget="Name")
        await do("type_text", text="Zoë 7")
        program.settle()
        assert program.value("Name") == "Zoë 7"
        await do("press", keys=["backspace"])
        program.settle()
        assert program.value("Name") == "Zoë "
        await fails("press", keys=["ctrl+h"])  # this client cannot be asked
        await do("press", keys=["ctrl+e", "x"])
        program.settle()
        assert program.value("Name") == "Zoë x"
        await do("scroll", inside="Poem", notches=3)
        assert program.event("wheel")["towards"] == "down"
        await fails("drag", target="Start", to="Bicycle")  # nothing comes of it, and that is said
        assert program.event("drag")["steps"] > 1

        program.say("text", widget="status", text="Ready again")
        waited = await do("wait_for", phrase="Ready again", timeout=10.0)
        assert waited["detections"][0]["ref"]

        # What is under a ref is looked at before anything is pressed.
        count = len(program.of("press"))
        program.say("move", widget="Archive", x=30, y=360)
        program.settle()
        moved = await client.call_tool("click", {"target": refs["Archive"]})
        program.settle()
        program.look()
        x1, y1, x2, y2 = program.boxes["Archive"]
        for press in program.of("press")[count:]:
            assert x1 <= press["x"] < x2 and y1 <= press["y"] < y2, (press, moved.structured_content)
        count = len(program.of("press"))
        for forged in ("k00000000.1", f"{listed['capture']}.9999", f"{listed['capture']}.0"):
            assert await fails("click", target=forged) == "target_not_found", forged
        assert await fails("click", target="450, 350") == "bad_query"
        program.settle()
        assert len(program.of("press")) == count

        # Other windows are not for it.
        other = launch(
            "form", form(button("Elephant", 30, 30), title="Other", x=520, y=400, w=300, h=200), display=little
        )
        assert await fails("click", target="Elephant") == "action_denied"
        assert not other.of("press")
        other.end()

        program.end()
        assert await fails("click", target=refs["Bicycle"]) in ("target_not_found", "action_denied")
    logged = "".join(path.read_text() for path in (tmp_path / "log").rglob("*.jsonl"))
    assert [json.loads(line)["action"] for line in logged.splitlines() if "click" in line][:2] == ["click", "click"]
