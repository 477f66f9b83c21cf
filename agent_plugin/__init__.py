"""Groundlink for language models: one definition of its tools, and servers and adapters made from it.

```python
from agent_plugin import Toolbox, anthropic_result, as_anthropic

toolbox = Toolbox("ocr", folders=["examples"])
tools = as_anthropic(toolbox.tools)         # for the vendor's client
reply = toolbox.call("locate", {"image": "shot.png", "phrase": "the Sign in button"})
block = anthropic_result("toolu_1", reply)  # what goes back to the model
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_plugin.dialects import (
        anthropic_result,
        as_anthropic,
        as_json_schema,
        as_openai_chat,
        as_openai_responses,
        openai_chat_result,
        openai_responses_result,
    )
    from agent_plugin.mcp_server import ToolServer
    from agent_plugin.toolbox import Job, Limits, Reply, Toolbox
    from agent_plugin.tools import INSTRUCTIONS, TOOLS, Tool

__all__ = [
    "INSTRUCTIONS",
    "TOOLS",
    "Job",
    "Limits",
    "Reply",
    "Tool",
    "ToolServer",
    "Toolbox",
    "anthropic_result",
    "as_anthropic",
    "as_json_schema",
    "as_openai_chat",
    "as_openai_responses",
    "openai_chat_result",
    "openai_responses_result",
]

_WHERE = {
    "INSTRUCTIONS": "tools",
    "TOOLS": "tools",
    "Tool": "tools",
    "Job": "toolbox",
    "Limits": "toolbox",
    "Reply": "toolbox",
    "Toolbox": "toolbox",
    "ToolServer": "mcp_server",
}
"""Public names that are not in `dialects`, and their modules, imported at first use: not all need the MCP SDK."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'agent_plugin' has no attribute {name!r}")
    module = import_module(f"agent_plugin.{_WHERE.get(name, 'dialects')}")
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
