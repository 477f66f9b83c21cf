"""The tools as an MCP server, over stdio or streamable HTTP, made with the official SDK."""

# No `from __future__ import annotations` here: the SDK reads annotations that name functions of ours.

import base64
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp.server.mcpserver.tools import Tool as McpTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from agent_plugin.dialects import json_schema, text
from agent_plugin.toolbox import Job, Reply, Toolbox
from agent_plugin.tools import INSTRUCTIONS, Tool
from groundlink._version import __version__

_log = logging.getLogger(__name__)

BODY_ROOM = 4 * 2**20
"""Bytes of an HTTP request beyond those of its image."""


class Permission(BaseModel):
    """What a person is asked before an act that the policy wants confirmed."""

    allow: bool = Field(description="Whether it may be done, this once.")


class _Plan(BaseModel):
    """Why an act needs a confirmation; empty where it needs none."""

    why: str


class _Arguments(ArgModelBase):
    """All arguments as they came: the toolbox checks them, and says what is wrong in its own words."""

    model_config = ConfigDict(extra="allow")

    def model_dump_one_level(self) -> dict[str, Any]:
        """Return them as the one argument of our functions."""
        return {"arguments": dict(self.__pydantic_extra__ or {})}


def make_server(toolbox: Toolbox) -> MCPServer[Toolbox]:
    """Return an MCP server with the tools that a toolbox allows. It closes the toolbox when it ends."""

    @asynccontextmanager
    async def lifespan(_: MCPServer[Toolbox]) -> AsyncIterator[Toolbox]:
        try:
            yield toolbox
        finally:
            await anyio.to_thread.run_sync(toolbox.close)

    return MCPServer(
        "groundlink",
        title="Groundlink",
        description="Where in this image is what I describe?",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=[_rendered(tool, toolbox) for tool in toolbox.tools],
        lifespan=lifespan,
        log_level="WARNING",
    )


def _rendered(tool: Tool, toolbox: Toolbox) -> McpTool:
    rendered = McpTool.from_function(
        _acting(tool, toolbox) if tool.changes else _looking(tool, toolbox),
        name=tool.name,
        title=tool.title,
        description=tool.description,
        annotations=ToolAnnotations(
            title=tool.title,
            read_only_hint=not tool.changes,
            destructive_hint=tool.destructive,
            idempotent_hint=not tool.changes,
            open_world_hint=tool.needs_screen,
        ),
        structured_output=False,
    )
    rendered.parameters = json_schema(tool)
    rendered.fn_metadata = FuncMetadata(arg_model=_Arguments)
    return rendered


def _looking(tool: Tool, toolbox: Toolbox) -> Any:
    async def run(arguments: dict[str, Any], ctx: Context[Any, Any]) -> CallToolResult:
        return _result(await _call(toolbox, tool.name, arguments, Job(), ctx))

    return run


def _acting(tool: Tool, toolbox: Toolbox) -> Any:
    async def plan(arguments: dict[str, Any]) -> _Plan:
        policy = toolbox.policy
        if policy is not None and policy.confirm is not None:
            return _Plan(why="")  # the owner's own callback decides
        job = Job()
        return _Plan(why=await _in_thread(lambda: toolbox.plan(tool.name, arguments, job), job))

    async def permission(
        plan: Annotated[_Plan, Resolve(plan)], ctx: Context[Any, Any]
    ) -> Permission | Elicit[Permission]:
        capabilities = ctx.client_capabilities
        if not plan.why or capabilities is None or capabilities.elicitation is None:
            return Permission(allow=False)  # nothing to ask, or nobody: then it is refused where it needs an answer
        return Elicit(f"{tool.title}? It needs a confirmation: {plan.why}.", Permission)

    async def run(
        arguments: dict[str, Any],
        ctx: Context[Any, Any],
        plan: Annotated[_Plan, Resolve(plan)],
        permission: Annotated[ElicitationResult[Permission], Resolve(permission)],
    ) -> CallToolResult:
        allowed = isinstance(permission, AcceptedElicitation) and permission.data.allow
        # Only what was asked about is allowed: where something else stands there by now, the reason is another.
        job = Job(confirm=(lambda why: why in plan.why.split("; ")) if allowed else None)
        return _result(await _call(toolbox, tool.name, arguments, job, ctx))

    return run


async def _call(toolbox: Toolbox, name: str, arguments: dict[str, Any], job: Job, ctx: Context[Any, Any]) -> Reply:
    said = 0.0
    loop = anyio.lowlevel.current_token()

    def tell(doing: str, fraction: float) -> None:
        nonlocal said
        # Progress has to grow, whatever is being done.
        said = max(said + 0.001, fraction)
        try:
            anyio.from_thread.run(ctx.report_progress, said, None, doing, token=loop)
        except Exception:  # nobody listens any more: the work itself is none the worse for it
            _log.debug("progress could not be told", exc_info=True)

    job.on_progress = tell
    return await _in_thread(lambda: toolbox.call(name, arguments, job), job)


async def _in_thread(work: Any, job: Job) -> Any:
    """Run something in a thread; where the request is cancelled, or its client gone, so is the job."""
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        job.cancel()
        raise


def _result(reply: Reply) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(type="text", text=text(reply))]
    if reply.picture is not None:
        data = base64.b64encode(reply.picture).decode()
        content.append(ImageContent(type="image", data=data, mime_type="image/jpeg"))
    return CallToolResult(content=content, structured_content=reply.body, is_error=reply.is_error)


def serve_stdio(toolbox: Toolbox) -> None:
    """Serve one client over standard input and output, until it goes. Logs go to standard error."""
    _log_quietly(toolbox)
    make_server(toolbox).run("stdio")


def serve_http(toolbox: Toolbox, host: str, port: int) -> None:
    """Serve streamable HTTP at `http://host:port/mcp`, until interrupted."""
    _log_quietly(toolbox)
    size = toolbox.limits.max_bytes * 4 // 3 + BODY_ROOM
    make_server(toolbox).run("streamable-http", host=host, port=port, max_request_body_size=size)


def _log_quietly(toolbox: Toolbox) -> None:
    """Log to standard error, without tracebacks unless the owner debugs: they tell of the machine."""

    class Plain(logging.Formatter):
        def formatException(self, ei: Any) -> str:
            return super().formatException(ei) if toolbox.debug else ""

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if toolbox.debug else logging.WARNING, handlers=[handler], force=True)
