"""The tools as an MCP server, over stdio or streamable HTTP, made with the official SDK."""

# No `from __future__ import annotations` here: the SDK reads annotations that name functions of ours.

import base64
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Annotated, Any, BinaryIO, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import uvicorn
from mcp.server import MCPServer
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool as McpTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    CallToolResult,
    ContentBlock,
    ErrorData,
    ImageContent,
    InputRequiredResult,
    JSONRPCError,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel, ConfigDict, Field

from agent_plugin.dialects import json_schema, text
from agent_plugin.toolbox import Job, Reply, Toolbox
from agent_plugin.tools import INSTRUCTIONS, Tool
from groundlink._version import __version__
from groundlink.detections import SCHEMA
from groundlink.errors import ActionDenied, BackendUnavailable, BadQuery, GroundlinkError

_log = logging.getLogger(__name__)

BODY_ROOM = 4 * 2**20
"""Bytes of a request beyond those of its image."""
MAX_CONNECTIONS = 128
"""Over HTTP, at once."""
MAX_CALLS = 64
"""Calls in threads at once; those beyond wait. The toolbox refuses far fewer with an error."""

ANSWER_SECONDS = 0.3
"""How long a server that was told to end goes on, so that answers to the calls it ends can still be sent."""
THREAD_SECONDS = 0.7
"""How long a cancelled call is waited for: an act under way lets go of keys and buttons first."""
CLOSE_SECONDS = 0.5
"""How long the backend is waited for at the end."""


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


class ToolServer(MCPServer[Toolbox]):
    """An MCP server with the tools that a toolbox allows. It closes the toolbox when it ends."""

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self._names = {tool.name for tool in toolbox.tools}
        self._jobs: set[Job] = set()
        self._threads = anyio.CapacityLimiter(MAX_CALLS)

        @asynccontextmanager
        async def lifespan(_: MCPServer[Toolbox]) -> AsyncIterator[Toolbox]:
            try:
                yield toolbox
            finally:
                # A backend in the middle of a step that cannot be interrupted does not hold up the end.
                with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                    await anyio.to_thread.run_sync(toolbox.close, abandon_on_cancel=True)

        super().__init__(
            "groundlink",
            title="Groundlink",
            description="Where in this image is what I describe?",
            instructions=INSTRUCTIONS,
            version=__version__,
            tools=[self._rendered(tool) for tool in toolbox.tools],
            lifespan=lifespan,
            log_level="WARNING",
        )

    def cancel_all(self) -> None:
        """Cancel all calls under way; each comes back as an error with the code `cancelled`."""
        for job in list(self._jobs):
            job.cancel()

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Toolbox, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; what the SDK refuses has our form of an error, too."""
        if name not in self._names:
            return _result(self.toolbox.call(name, arguments))
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise  # a fault of ours, which the SDK logs and tells nobody about
        except ToolError:
            why = f"{name}: the answer to the question for permission cannot be read, so nothing was done"
            return _failed(ActionDenied(why))

    def _rendered(self, tool: Tool) -> McpTool:
        rendered = McpTool.from_function(
            self._acting(tool) if tool.changes else self._looking(tool),
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
        rendered.parameters = _with_nullable(json_schema(tool))
        # No output schema: clients hold errors against it as well, and it would say no more than the descriptions.
        rendered.fn_metadata = FuncMetadata(arg_model=_Arguments)
        return rendered

    def _looking(self, tool: Tool) -> Any:
        async def run(arguments: dict[str, Any], ctx: Context[Any, Any]) -> CallToolResult:
            return _result(await self._call(tool.name, arguments, Job(), ctx))

        return run

    def _acting(self, tool: Tool) -> Any:
        async def plan(arguments: dict[str, Any]) -> _Plan:
            policy = self.toolbox.policy
            if policy is not None and policy.confirm is not None:
                return _Plan(why="")  # the owner's own callback decides
            job = Job()
            return _Plan(why=await self._in_thread(lambda: self.toolbox.plan(tool.name, arguments, job), job))

        async def permission(
            plan: Annotated[_Plan, Resolve(plan)], ctx: Context[Any, Any]
        ) -> Permission | Elicit[Permission]:
            if not plan.why or not _can_ask(ctx):
                return Permission(allow=False)
            return Elicit(f"{tool.title}? It needs a confirmation: {plan.why}.", Permission)

        async def run(
            arguments: dict[str, Any],
            ctx: Context[Any, Any],
            plan: Annotated[_Plan, Resolve(plan)],
            permission: Annotated[ElicitationResult[Permission], Resolve(permission)],
        ) -> CallToolResult:
            allowed = isinstance(permission, AcceptedElicitation) and permission.data.allow
            if plan.why and not allowed:
                because = (
                    "the person who was asked did not allow it"
                    if _can_ask(ctx)
                    else "this client cannot ask anybody: it does not offer elicitation with a form"
                )
                return _failed(ActionDenied(f"{tool.name} needs a confirmation: {plan.why}. Not done: {because}"))
            # Only what was asked about is allowed: where something else stands there by now, the reason is another.
            job = Job(confirm=lambda why: f"; {why}; " in f"; {plan.why}; ")
            return _result(await self._call(tool.name, arguments, job, ctx))

        return run

    async def _call(self, name: str, arguments: dict[str, Any], job: Job, ctx: Context[Any, Any]) -> Reply:
        said = 0.0
        loop = anyio.lowlevel.current_token()
        send, receive = anyio.create_memory_object_stream[tuple[float, str]](1)

        def tell(doing: str, fraction: float) -> None:
            nonlocal said
            # Progress has to grow, whatever is being done.
            said = max(said + 0.001, fraction)
            # Whoever reads slowly misses some; the work waits for nobody.
            with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError, RuntimeError):
                anyio.from_thread.run_sync(send.send_nowait, (said, doing), token=loop)

        async def pass_on() -> None:
            async for done, doing in receive:
                await ctx.report_progress(done, None, doing)

        job.on_progress = tell
        with send, receive:
            async with anyio.create_task_group() as group:
                group.start_soon(pass_on)
                reply: Reply = await self._in_thread(lambda: self.toolbox.call(name, arguments, job), job)
                group.cancel_scope.cancel()
        return reply

    async def _in_thread(self, work: Callable[[], Any], job: Job) -> Any:
        """Run something in a thread; where the request is cancelled, or its client gone, so is the job."""
        ended, loop = anyio.Event(), anyio.lowlevel.current_token()

        def run() -> Any:
            try:
                return work()
            finally:
                with suppress(RuntimeError):  # the loop has ended
                    anyio.from_thread.run_sync(ended.set, token=loop)

        self._jobs.add(job)
        try:
            return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._threads)
        except anyio.get_cancelled_exc_class():
            job.cancel()
            with anyio.move_on_after(THREAD_SECONDS, shield=True):
                await ended.wait()
            raise
        finally:
            self._jobs.discard(job)


def _can_ask(ctx: Context[Any, Any]) -> bool:
    """Return whether the client can put a question with a form to a person."""
    capabilities = ctx.client_capabilities
    asking = None if capabilities is None else capabilities.elicitation
    return asking is not None and (asking.form is not None or asking.url is None)


def _with_nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Mark what may be left out with a word that some clients go by, and others pass over."""
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        if name not in required:
            field["nullable"] = True
    return schema


def _result(reply: Reply) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(type="text", text=text(reply))]
    if reply.picture is not None:
        data = base64.b64encode(reply.picture).decode()
        content.append(ImageContent(type="image", data=data, mime_type="image/jpeg"))
    return CallToolResult(content=content, structured_content=reply.body, is_error=reply.is_error)


def _failed(error: GroundlinkError) -> CallToolResult:
    return _result(Reply({"schema": SCHEMA, "error": error.to_json()}, is_error=True))


# Serving


def serve_stdio(toolbox: Toolbox, wire: tuple[BinaryIO, BinaryIO] | None = None) -> int:
    """Serve one client over standard input and output until it goes, and return the exit code.

    Call it from the main thread. Threads may be left behind that wait for what never comes: leave with `os._exit`.

    Args:
        toolbox: closed at the end.
        wire: what `take_stdio` gave, where it was called before.
    """
    source, sink = wire or take_stdio()
    _log_quietly(toolbox)
    server = ToolServer(toolbox)

    async def serve(stop: Callable[[], None]) -> None:
        lines = _Lines(source, toolbox.limits.max_bytes * 4 // 3 + BODY_ROOM)
        out: Any = _Out(sink, stop)
        async with stdio_server(cast(Any, lines), out) as (read, write):
            send, checked = anyio.create_memory_object_stream[SessionMessage | Exception](0)

            async def check() -> None:
                async with send:
                    async for item in read:
                        if isinstance(item, Exception):
                            # The SDK drops what it cannot read; whoever sent it would wait for ever.
                            await write.send(SessionMessage(lines.complaint()))
                        else:
                            await send.send(item)

            async with anyio.create_task_group() as group:
                group.start_soon(check)
                low = server._lowlevel_server  # `run_stdio_async` takes no streams
                await low.run(checked, write, low.create_initialization_options())
                group.cancel_scope.cancel()

    return _run(server, serve)


def serve_http(toolbox: Toolbox, listener: socket.socket) -> int:
    """Serve streamable HTTP at `/mcp` until told to end, and return the exit code.

    As for `serve_stdio`, call it from the main thread and leave with `os._exit`.
    """
    _log_quietly(toolbox)
    server = ToolServer(toolbox)
    host, port = listener.getsockname()[:2]
    app = server.streamable_http_app(
        max_request_body_size=toolbox.limits.max_bytes * 4 // 3 + BODY_ROOM,
        transport_security=_security(host),
        host=host,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=logging.DEBUG if toolbox.debug else logging.WARNING,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=0,
    )
    web = _Web(config)
    name = f"[{host}]" if ":" in host else host

    async def serve(_: Callable[[], None]) -> None:
        print(f"groundlink: MCP at http://{name}:{port}/mcp", file=sys.stderr, flush=True)
        await web.serve(sockets=[listener])

    def end() -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # that it cancels what is open is as it should be
        web.should_exit = True

    return _run(server, serve, end)


class _Web(uvicorn.Server):
    """Uvicorn, which leaves signals to us."""

    def capture_signals(self) -> Any:
        return nullcontext()


def listen(host: str, port: int, *, unauthenticated: bool = False) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        BadQuery: the host is not this machine alone, and nobody said that this is meant.
        BackendUnavailable: the port is in use, or the address is not to be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise BadQuery(f"--host {host!r:.80}: is no address of this machine ({error})") from None
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback and not unauthenticated:
        raise BadQuery(
            f"--host {host}: other machines could reach this server, and there is no authentication: whoever reaches "
            "the port can use every tool. Keep to 127.0.0.1, or say --unauthenticated if that is meant"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise BackendUnavailable(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port, or 0 for a free one"
        ) from None
    return listener


def _security(host: str) -> TransportSecuritySettings:
    """Return what Host and Origin may be: any web page can make a browser send requests to this machine."""
    names = ["127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host]
    return TransportSecuritySettings(
        # Under which names others reach this machine is not known; browsers are refused by their Origin below.
        enable_dns_rebinding_protection=ipaddress.ip_address(host.partition("%")[0]).is_loopback,
        allowed_hosts=[*names, *(f"{name}:*" for name in names)],
        allowed_origins=[*(f"http://{name}:*" for name in names)],
    )


def take_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Return standard input and output for the protocol alone.

    From here on whatever else reads standard input finds nothing, and what is printed goes to standard error.
    """
    source = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return source, sink


class _Lines:
    """Lines of standard input for `stdio_server`, with a limit, in a form that can be left in the middle of a wait."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._long: deque[int | str | None] = deque()  # ids of requests that were too long

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await anyio.to_thread.run_sync(self._next, abandon_on_cancel=True):
            yield line

    def _next(self) -> str:
        line = self._source.readline(self._limit)
        if len(line) < self._limit or line.endswith(b"\n"):
            return line.decode("utf-8", "replace")
        head, tail = line[:4096], b""
        while (rest := self._source.readline(2**20)) and not rest.endswith(b"\n"):
            tail = rest
        self._long.append(_id_in(head, (tail + rest)[-4096:]))
        return "too long\n"

    def complaint(self) -> JSONRPCError:
        """Return what to say of the next line that could not be read."""
        if not self._long:
            error = ErrorData(code=PARSE_ERROR, message="this line is no JSON-RPC message")
            return JSONRPCError(jsonrpc="2.0", id=None, error=error)
        message = f"the request has more than the limit of {self._limit:,} bytes"
        error = ErrorData(code=INVALID_REQUEST, message=message)
        return JSONRPCError(jsonrpc="2.0", id=self._long.popleft(), error=error)


def _id_in(head: bytes, tail: bytes) -> int | str | None:
    """Return the id of a request from its beginning or its end."""
    found = re.search(rb'"id"\s*:\s*(?:(\d{1,15})|"([^"\\]{1,100})")\s*[,}]', head) or re.search(
        rb'"id"\s*:\s*(?:(\d{1,15})|"([^"\\]{1,100})")\s*\}\s*$', tail
    )
    if found is None:
        return None
    return int(found[1]) if found[1] else found[2].decode("utf-8", "replace")


class _Out:
    """Standard output for `stdio_server`; where the client does not read any more, the server ends."""

    def __init__(self, sink: BinaryIO, stop: Callable[[], None]) -> None:
        self._sink = sink
        self._stop = stop

    async def write(self, text: str) -> None:
        def write() -> None:
            self._sink.write(text.encode("utf-8", "replace"))
            self._sink.flush()

        try:
            await anyio.to_thread.run_sync(write, abandon_on_cancel=True)
        except OSError:
            self._stop()
            raise anyio.ClosedResourceError from None

    async def flush(self) -> None:
        pass


def _run(
    server: ToolServer, serve: Callable[[Callable[[], None]], Awaitable[None]], end: Callable[[], None] | None = None
) -> int:
    """Run a server until it ends, is interrupted (130) or told to end (0), and return the exit code.

    `serve` gets a function that it may call where there is no point in going on; `end` makes it return; without it
    it is cancelled.
    """
    code = 0

    async def main() -> None:
        told = anyio.Event()
        loop = anyio.lowlevel.current_token()

        def on_signal(number: int, _: object) -> None:
            nonlocal code
            if told.is_set() and number == signal.SIGINT:
                os._exit(130)  # somebody is in a hurry
            code = 130 if number == signal.SIGINT else 0
            loop.native_token.call_soon_threadsafe(told.set)  # type: ignore[attr-defined]

        with _signals(on_signal):
            async with anyio.create_task_group() as group:

                async def end_when_told() -> None:
                    await told.wait()
                    server.cancel_all()
                    await anyio.sleep(ANSWER_SECONDS)
                    (end or group.cancel_scope.cancel)()

                group.start_soon(end_when_told)
                await serve(told.set)
                group.cancel_scope.cancel()

    anyio.run(main)
    return code


@contextmanager
def _signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before):
            signal.signal(number, old)


def _log_quietly(toolbox: Toolbox) -> None:
    """Log to standard error, without tracebacks unless the owner debugs: they tell of the machine."""

    class Plain(logging.Formatter):
        def formatException(self, ei: Any) -> str:
            return super().formatException(ei) if toolbox.debug else ""

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if toolbox.debug else logging.WARNING, handlers=[handler], force=True)
    if not toolbox.debug:
        warnings.simplefilter("ignore")
        threading.excepthook = lambda failed: _log.error("a thread failed (%s)", failed.exc_type.__name__)


__all__: Sequence[str] = (
    "Permission",
    "ToolServer",
    "listen",
    "serve_http",
    "serve_stdio",
    "take_stdio",
)
