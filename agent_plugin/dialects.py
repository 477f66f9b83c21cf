"""The tools and their replies in the forms of vendors: JSON Schema, OpenAI (chat and responses), Anthropic.

Nothing of the vendors is imported: their SDKs take plain dicts.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable
from typing import Any

from agent_plugin.toolbox import Reply
from agent_plugin.tools import Tool


def json_schema(tool: Tool) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a tool's arguments: no titles, no references, no null."""
    schema = tool.arguments.model_json_schema()
    for noise in ("title", "description"):
        schema.pop(noise, None)
    for name, field in schema["properties"].items():
        field.pop("title", None)
        if field.get("default", "") is None:
            # What may be left out has one plain type: clients differ in what they make of a choice with null.
            del field["default"]
            (plain,) = (choice for choice in field.pop("anyOf") if choice != {"type": "null"})
            schema["properties"][name] = {**plain, **field}
    return schema


def as_json_schema(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the tools as plain objects: name, title, description, parameters."""
    return [
        {"name": tool.name, "title": tool.title, "description": tool.description, "parameters": json_schema(tool)}
        for tool in tools
    ]


def as_openai_chat(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the tools for `tools=` of OpenAI's chat completions, with strict schemas."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": strict_schema(tool),
                "strict": True,
            },
        }
        for tool in tools
    ]


def as_openai_responses(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the tools for `tools=` of OpenAI's responses API, with strict schemas."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": strict_schema(tool),
            "strict": True,
        }
        for tool in tools
    ]


def as_anthropic(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the tools for `tools=` of Anthropic's messages API."""
    return [{"name": tool.name, "description": tool.description, "input_schema": json_schema(tool)} for tool in tools]


def strict_schema(tool: Tool) -> dict[str, Any]:
    """Return a schema as OpenAI's strict mode wants it: every field required, null for what is left out.

    Defaults and lengths of strings have no place in it; a default is told in the field's description.
    """
    schema = copy.deepcopy(json_schema(tool))
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False
    required = json_schema(tool).get("required", [])
    for name, field in schema["properties"].items():
        if "default" in field:
            default = json.dumps(field.pop("default"))
            field["description"] = f"{field.get('description', '')} null for the default, {default}.".strip()
        if name not in required:
            field["type"] = [field["type"], "null"]
            if "enum" in field:
                field["enum"] = [*field["enum"], None]
        _without_lengths(field)
    return schema


def _without_lengths(schema: Any) -> None:
    if isinstance(schema, dict):
        for keyword in ("minLength", "maxLength"):
            schema.pop(keyword, None)
        for value in schema.values():
            _without_lengths(value)
    elif isinstance(schema, list):
        for value in schema:
            _without_lengths(value)


def openai_chat_result(call_id: str, reply: Reply) -> list[dict[str, Any]]:
    """Return the messages that answer a tool call in OpenAI's chat completions.

    A tool's message holds text only, so a picture comes in a user's message after it. Where several calls are answered,
    the messages of role `tool` have to come first.
    """
    messages: list[dict[str, Any]] = [{"role": "tool", "tool_call_id": call_id, "content": text(reply)}]
    if reply.picture is not None:
        about = f"The picture that belongs to the result of {call_id}."
        image = {"type": "image_url", "image_url": {"url": _url(reply.picture)}}
        messages.append({"role": "user", "content": [{"type": "text", "text": about}, image]})
    return messages


def openai_responses_result(call_id: str, reply: Reply) -> dict[str, Any]:
    """Return the input item that answers a function call in OpenAI's responses API."""
    output: list[dict[str, Any]] = [{"type": "input_text", "text": text(reply)}]
    if reply.picture is not None:
        output.append({"type": "input_image", "image_url": _url(reply.picture), "detail": "auto"})
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def anthropic_result(tool_use_id: str, reply: Reply) -> dict[str, Any]:
    """Return the content block that answers a tool use in Anthropic's messages API."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text(reply)}]
    if reply.picture is not None:
        source = {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(reply.picture).decode()}
        content.append({"type": "image", "source": source})
    return {"type": "tool_result", "tool_use_id": tool_use_id, "content": content, "is_error": reply.is_error}


def text(reply: Reply) -> str:
    """Return a reply's body as one line of JSON."""
    return json.dumps(reply.body, ensure_ascii=False)


def _url(picture: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode()
