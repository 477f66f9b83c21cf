"""An agent of smolagents that finds things with Groundlink's tools, through MCP.

    uv run --no-project --with "smolagents[mcp]" --with "mcp[ws]<2" examples/smolagents_locate.py

smolagents wants an older MCP SDK than the server, so it has an environment of its own; they meet over stdio. The model
here is scripted, so that the example runs without a key: put one of smolagents' models in its place.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters
from smolagents import ChatMessage, MCPClient, MessageRole, Model, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction

EXAMPLES = Path(__file__).resolve().parent
SERVER = sys.argv[1:] or ["groundlink", "mcp"]


class Scripted(Model):
    """Asks where the button is, reads the answer, and says it."""

    def generate(self, messages: list[ChatMessage], **_: Any) -> ChatMessage:
        seen = str(messages[-1].content)
        pixel = re.search(r"pixel[^0-9]*(\d+), (\d+)", seen)
        if pixel is None:
            arguments = {"image": "shot.png", "phrase": "the Sign in button", "picture": False}
            return self._call("locate", arguments)
        return self._call("final_answer", {"answer": f"at {pixel[1]}, {pixel[2]}"})

    def _call(self, name: str, arguments: dict[str, Any]) -> ChatMessage:
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(id="1", type="function", function=function)
        return ChatMessage(role=MessageRole.ASSISTANT, content="", tool_calls=[call])


def main() -> None:
    server = StdioServerParameters(command=SERVER[0], args=[*SERVER[1:], "--allow-folder", str(EXAMPLES)])
    with MCPClient(server, structured_output=False) as tools:
        agent = ToolCallingAgent(tools=tools, model=Scripted(), max_steps=3)
        print(agent.run("Where in shot.png is the Sign in button?"))


if __name__ == "__main__":
    main()
