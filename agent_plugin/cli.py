"""`groundlink mcp`: the tools for language models, served from the command line."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer

from groundlink.cli import parse_setting
from groundlink.errors import BackendUnavailable, BadQuery

app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, subcommand_metavar="")

_IMAGES = "What may be looked at"
_ACTS = "What may be done"
_HTTP = "HTTP"


@app.callback(invoke_without_command=True)
def mcp(
    backend: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time
        typer.Option("--backend", "-b", help="The model that finds; see `groundlink doctor`.", show_default=False),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The backend's model: a folder, or a repository on the hub.", show_default=False),
    ] = None,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the backend; may be repeated."),
    ] = None,
    allow_folder: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            metavar="DIR",
            help="Images may be read from this folder and those in it; may be repeated. Without it images come as "
            "base64 data only.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    allow_screen: Annotated[
        bool, typer.Option("--allow-screen", help="The screen may be looked at.", rich_help_panel=_IMAGES)
    ] = False,
    max_image_mb: Annotated[
        float, typer.Option(help="Megabytes of one image file.", min=0.001, max=1024, rich_help_panel=_IMAGES)
    ] = 20.0,
    max_megapixels: Annotated[
        float, typer.Option(help="Millions of pixels of one image.", min=0.001, max=1000, rich_help_panel=_IMAGES)
    ] = 64.0,
    timeout: Annotated[float, typer.Option(help="Seconds for one call.", min=0.1, max=3600)] = 120.0,
    allow_actions: Annotated[
        bool,
        typer.Option(
            "--allow-actions",
            help="Mouse and keyboard may be used; what may do harm is asked about first. Needs --allow-screen.",
            rich_help_panel=_ACTS,
        ),
    ] = False,
    allow_window: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="TITLE", help="Act in windows with this title only; may be repeated.", rich_help_panel=_ACTS
        ),
    ] = None,
    allow_key: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="KEYS",
            help="Press these without asking, such as enter or ctrl+s; may be repeated.",
            rich_help_panel=_ACTS,
        ),
    ] = None,
    log: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="DIR",
            help="A folder for the log of acts, with pictures.",
            show_default=False,
            rich_help_panel=_ACTS,
        ),
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP at /mcp, not stdio.", rich_help_panel=_HTTP)
    ] = False,
    host: Annotated[str, typer.Option(help="The address to listen on.", rich_help_panel=_HTTP)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port; 0 for a free one.", min=0, max=65535, rich_help_panel=_HTTP)
    ] = 8000,
    unauthenticated: Annotated[
        bool,
        typer.Option(
            "--unauthenticated",
            help="Listen on an address that other machines reach, although whoever reaches it can use every tool.",
            rich_help_panel=_HTTP,
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log everything, with tracebacks and paths of this machine.")
    ] = False,
) -> None:
    """Serve the tools for language models as an MCP server, over stdio.

    It ends when its client goes. Ctrl-C ends it with exit code 130, SIGTERM with 0.

    groundlink mcp --allow-folder ~/Pictures
    """
    check_installed("mcp", "pydantic")
    if not http and (host, port, unauthenticated) != ("127.0.0.1", 8000, False):
        raise BadQuery("--host, --port and --unauthenticated are for HTTP: add --http")
    if (allow_window or allow_key or log) and not allow_actions:
        raise BadQuery("--allow-window, --allow-key and --log are about acts: add --allow-screen and --allow-actions")
    if allow_actions and not allow_screen:
        raise BadQuery("--allow-actions needs the screen: add --allow-screen")
    settings: dict[str, Any] = dict(parse_setting(text) for text in setting or [])
    if model is not None:
        settings["model"] = model
    if not http and sys.stdin.isatty():
        print("groundlink: an MCP client should start this; it speaks JSON-RPC on stdin and stdout", file=sys.stderr)

    from agent_plugin import mcp_server

    # From here on standard output belongs to the protocol, whatever a library prints.
    wire = None if http else mcp_server.take_stdio()

    from agent_plugin.toolbox import Limits, Toolbox

    limits = Limits(max_bytes=int(max_image_mb * 1e6), max_pixels=int(max_megapixels * 1e6), seconds=timeout)
    policy = None
    if allow_screen:
        check_screen()

        from screen_agent import Policy

        windows = tuple(allow_window) if allow_window else None
        policy = Policy(windows=windows, allow_keys=tuple(allow_key or ()))
    name = backend or os.environ.get("GROUNDLINK_BACKEND")
    if name is not None:
        check_backend(name)
    toolbox = Toolbox(
        backend,
        folders=allow_folder or [],
        screen=allow_screen,
        actions=allow_actions,
        policy=policy,
        limits=limits,
        debug=debug,
        log=log,
        **settings,
    )
    if wire is None:
        leave(mcp_server.serve_http(toolbox, mcp_server.listen(host, port, unauthenticated=unauthenticated)))
    leave(mcp_server.serve_stdio(toolbox, wire))


def check_installed(*packages: str) -> None:
    """Check that the packages of the extra `agent` are there.

    Raises:
        BackendUnavailable: one is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise BackendUnavailable(
                f"the tools for language models need {package}: pip install 'groundlink[agent]' "
                "(and 'groundlink[screen]' for --allow-screen)"
            )


def check_screen() -> None:
    """Check that the packages of the extra `screen` are there.

    Raises:
        BackendUnavailable: one is missing.
    """
    for package in ("mss", "pyautogui", *(["xcffib"] if sys.platform == "linux" else [])):
        if find_spec(package) is None:
            raise BackendUnavailable(f"--allow-screen needs {package}: pip install 'groundlink[screen]'")


def check_backend(name: str) -> None:
    """Check that a backend can be loaded, without loading it.

    Raises:
        BackendUnavailable: it is unknown, or cannot run here.
    """
    from groundlink.backend import backend_class

    problem = backend_class(name).problem()
    if problem is not None:
        raise BackendUnavailable(f"the backend {name!r} cannot run here: {problem}")


def leave(code: int) -> NoReturn:
    """End this process, also where threads are left that wait for what never comes."""
    sys.stderr.flush()
    os._exit(code)
