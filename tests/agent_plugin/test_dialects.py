"""The tools as vendors take them: the same words, valid by the vendors' own types, changes seen in review."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from anthropic.types import ImageBlockParam, TextBlockParam, ToolParam, ToolResultBlockParam
from mcp_types import Tool as McpTool
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.responses import FunctionToolParam
from openai.types.responses.response_input_item_param import FunctionCallOutput
from pydantic import TypeAdapter, ValidationError

from agent_plugin import dialects
from agent_plugin.mcp_server import ToolServer
from agent_plugin.toolbox import Reply, Toolbox
from agent_plugin.tools import TOOLS, tools

GOLDEN = Path(__file__).parent / "golden"


def as_mcp(_):
    """What a client is told that lists the tools, all of them allowed."""
    server = ToolServer(Toolbox("ocr", screen=True, actions=True))
    listed = asyncio.run(server.list_tools())
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed]


RENDERED = {
    "mcp": as_mcp,
    "json_schema": dialects.as_json_schema,
    "openai_chat": dialects.as_openai_chat,
    "openai_responses": dialects.as_openai_responses,
    "anthropic": dialects.as_anthropic,
}
TYPES = {
    "mcp": McpTool,
    "openai_chat": ChatCompletionFunctionToolParam,
    "openai_responses": FunctionToolParam,
    "anthropic": ToolParam,
}


@pytest.mark.parametrize("dialect", RENDERED)
def test_what_a_vendor_gets_changes_only_on_purpose(dialect):
    """After a change on purpose: python -m tests.agent_plugin.test_dialects writes the files anew."""
    assert json.loads((GOLDEN / f"{dialect}.json").read_text(encoding="utf-8")) == RENDERED[dialect](TOOLS)


@pytest.mark.parametrize("dialect", TYPES)
def test_a_vendors_own_types_take_it(dialect):
    check = TypeAdapter(TYPES[dialect])
    for tool in RENDERED[dialect](TOOLS):
        check.validate_python(tool)
        with pytest.raises(ValidationError):
            check.validate_python({"nonsense": tool})


def test_openai_strict_schemas_are_of_the_subset_that_it_takes():
    for tool in dialects.as_openai_responses(TOOLS):
        schema = tool["parameters"]
        assert schema["required"] == list(schema["properties"]) and schema["additionalProperties"] is False
        text = json.dumps(schema)
        for keyword in ("default", "minLength", "maxLength", "$ref", "title"):
            assert f'"{keyword}"' not in text, (tool["name"], keyword)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_model_that_fills_in_every_field_is_understood(tool):
    """What strict mode makes a model send, null for what it leaves out, is what the tool takes."""
    schema = dialects.strict_schema(tool)
    plain = dialects.json_schema(tool)
    filled = {}
    for name, field in schema["properties"].items():
        types = [option["type"] for option in field.get("anyOf", [])] or field["type"]
        if name in plain.get("required", []):
            filled[name] = ["tab"] if field["type"] == "array" else "something"
        else:
            assert "null" in types, f"{tool.name}.{name} can be left out"
            filled[name] = None
    tool.arguments.model_validate({name: value for name, value in filled.items() if value is not None})


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_word_that_a_model_reads_is_there(tool):
    assert len(tool.description) > 80 and tool.description[0].isupper() and tool.description.endswith(".")
    for name, field in dialects.json_schema(tool)["properties"].items():
        assert len(field.get("description", "")) > 10, f"{tool.name}.{name} says what it is"
    if tool.changes:
        assert "coordinate" not in json.dumps(list(dialects.json_schema(tool)["properties"])), "no field takes any"


def test_the_owner_decides_what_there_is():
    looking = {"locate", "point", "read_text", "list_elements"}
    acting = {"click", "type_text", "scroll", "drag", "press", "wait_for"}
    assert {tool.name for tool in tools(screen=False, actions=False)} == looking
    assert {tool.name for tool in tools(screen=True, actions=False)} == looking | {"screenshot"}
    assert {tool.name for tool in tools(screen=True, actions=True)} == looking | acting | {"screenshot"}
    assert {tool.name for tool in TOOLS if tool.changes} == acting - {"wait_for"}


REPLY = Reply({"schema": "groundlink/1", "text": "Zürich 東京"}, b"\xff\xd8picture")


def test_replies_are_what_a_vendor_takes():
    tool, picture = dialects.openai_chat_result("call_1", REPLY)
    TypeAdapter(ChatCompletionToolMessageParam).validate_python(tool)
    TypeAdapter(ChatCompletionUserMessageParam).validate_python(picture)
    assert json.loads(tool["content"]) == REPLY.body and tool["tool_call_id"] == "call_1"
    item = dialects.openai_responses_result("call_1", REPLY)
    TypeAdapter(FunctionCallOutput).validate_python(item)
    assert [part["type"] for part in item["output"]] == ["input_text", "input_image"]
    block = dialects.anthropic_result("toolu_1", REPLY)
    TypeAdapter(ToolResultBlockParam).validate_python(block)
    for part, kind in zip(block["content"], (TextBlockParam, ImageBlockParam)):  # not looked into by the type above
        TypeAdapter(kind).validate_python(part)
    assert [part["type"] for part in block["content"]] == ["text", "image"] and not block["is_error"]
    failed = Reply({"error": {}}, None, True)
    assert dialects.anthropic_result("toolu_2", failed)["is_error"]
    assert len(dialects.openai_chat_result("call_2", failed)) == 1
    assert "東京" in tool["content"], "not escaped: it would cost a model many tokens"


def test_types_are_really_checked():
    with pytest.raises(ValidationError):
        TypeAdapter(FunctionToolParam).validate_python({"type": "function", "name": "x"})


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, render in RENDERED.items():
        body = json.dumps(render(TOOLS), indent=1, ensure_ascii=False) + "\n"
        (GOLDEN / f"{name}.json").write_text(body, encoding="utf-8")
