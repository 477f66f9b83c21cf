"""`groundlink screen …`: the screen agent from the command line.

Exit codes are those of `groundlink`: 0 done, and the number of the error else (`groundlink.errors.ERROR_CODES`).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_type_hints

import typer

from groundlink.cli import Progress, as_text, parse_setting, print_json
from groundlink.errors import BadQuery, TargetAmbiguous, TargetNotFound

if TYPE_CHECKING:
    from screen_agent.agent import Result, ScreenAgent
    from screen_agent.ground import Target
    from screen_agent.policy import Proposal

app = typer.Typer(
    no_args_is_help=True,
    help="Find, click, type, read and wait on the screen, by description.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LOOK = "Where to look"
_CHOOSE = "Which one"
_ACT = "Acting"


@dataclass(frozen=True)
class Options:
    """Options that all commands have."""

    backend: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time
        typer.Option("--backend", "-b", help="The model that finds; see `groundlink doctor`.", show_default=False),
    ] = None
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the backend; may be repeated."),
    ] = None
    monitor: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Look at this monitor only, counted from 1.", show_default=False, rich_help_panel=_LOOK),
    ] = None
    region: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="X1,Y1,X2,Y2", help="Look at this part only.", show_default=False, rich_help_panel=_LOOK),
    ] = None
    window: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Look at the window with this title only.", show_default=False, rich_help_panel=_LOOK),
    ] = None
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Take nothing with a lower score, 0 to 1.", show_default=False, rich_help_panel=_LOOK),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Write a picture of what was found or done to this file.", show_default=False),
    ] = None


@dataclass(frozen=True)
class Choosing:
    """Options that settle which of several things is meant."""

    nth: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="The first is 1, the last -1, in reading order.", show_default=False, rich_help_panel=_CHOOSE
        ),
    ] = None
    near: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The one closest to this: a description.", show_default=False, rich_help_panel=_CHOOSE),
    ] = None
    within: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="X1,Y1,X2,Y2", help="Only inside this box.", show_default=False, rich_help_panel=_CHOOSE),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Return the options as the agent's methods take them."""
        given = {"nth": self.nth, "near": self.near, "within": _box("within", self.within)}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Acting:
    """Options of commands that act."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be done, and do nothing.", rich_help_panel=_ACT)
    ] = False
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Confirm what the policy asks about.", rich_help_panel=_ACT),
    ] = False
    expect: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What should be there afterwards.", show_default=False, rich_help_panel=_ACT),
    ] = None
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Look whether anything changed.", rich_help_panel=_ACT)
    ] = True
    timeout: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds that an effect may take. Default: 3.", show_default=False, rich_help_panel=_ACT),
    ] = None
    allow_window: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Act in windows with this title only; may be repeated.", rich_help_panel=_ACT),
    ] = None
    log: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A folder for the log of acts, with pictures.", show_default=False, rich_help_panel=_ACT),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Return the options as the agent's methods take them."""
        return {"expect": self.expect, "check": self.check, "timeout": self.timeout}


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of each of its parameters that is a class of options."""
    hints = get_type_hints(function, include_extras=True)
    own, shared = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if kind in (Options, Choosing, Acting):
            types = get_type_hints(kind, include_extras=True)
            shared += [
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
                )
                for field in fields(kind)
            ]
        else:
            own.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def command(**given: Any) -> None:
        arguments = {}
        for name in inspect.signature(function).parameters:
            kind = hints[name]
            arguments[name] = (
                kind(**{field.name: given[field.name] for field in fields(kind)})
                if kind in (Options, Choosing, Acting)
                else given[name]
            )
        function(**arguments)

    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
    return command


What = Annotated[str, typer.Argument(metavar="WHAT", help="What to look for: 'the Save button'.", show_default=False)]


@app.command()
@_with_options
def find(
    what: What,
    options: Options,
    choosing: Choosing,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Everything that fits, not the one.")] = False,
) -> None:
    """Say where something is on the screen."""
    with _agent(options) as agent:
        if everything:
            targets = agent.find_all(as_text(what), within=_box("within", choosing.within))
            if not targets:
                raise TargetNotFound(f'"{what}" is not on the screen')
        else:
            targets = [agent.find(as_text(what), **choosing.keywords())]
        _show(agent, targets, options)


@app.command()
@_with_options
def click(
    what: What,
    options: Options,
    choosing: Choosing,
    acting: Acting,
    button: Annotated[str, typer.Option(help="left, right or middle.")] = "left",
    count: Annotated[int, typer.Option(help="2 for a double click.")] = 1,
    retry: Annotated[int, typer.Option(help="How often to try again where nothing happened.")] = 0,
) -> None:
    """Click on something, and check that something happened."""
    with _agent(options, acting) as agent:
        result = agent.click(
            as_text(what), button=button, count=count, retry=retry, **choosing.keywords(), **acting.keywords()
        )
        _told(result, options)


@app.command()
@_with_options
def hover(what: What, options: Options, choosing: Choosing, acting: Acting) -> None:
    """Move the pointer onto something."""
    with _agent(options, acting) as agent:
        given = acting.keywords()
        del given["check"]
        _told(agent.hover(as_text(what), **choosing.keywords(), **given), options)


@app.command()
@_with_options
def drag(
    what: What,
    to: Annotated[str, typer.Argument(metavar="TO", help="Where to drop it.", show_default=False)],
    options: Options,
    acting: Acting,
) -> None:
    """Drag something onto something else."""
    with _agent(options, acting) as agent:
        _told(agent.drag(as_text(what), as_text(to), **acting.keywords()), options)


@app.command("type")
@_with_options
def type_(
    options: Options,
    choosing: Choosing,
    acting: Acting,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[TEXT]", help="The text; - or none: from standard input.", show_default=False),
    ] = None,
    into: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--into", "-i", help="The field to click first: a description.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option(help="Replace what is in the field.")] = False,
    secret: Annotated[
        bool, typer.Option(help="A password: from standard input only, never logged, covered in pictures.")
    ] = False,
) -> None:
    """Type any text, into a field or where the keyboard goes."""
    if secret and text not in (None, "-"):
        raise BadQuery(
            "a secret on the command line can be read by other programs; pipe it in: … | groundlink screen type"
        )
    typed = _standard_input(secret) if text in (None, "-") else as_text(text or "")
    with _agent(options, acting) as agent:
        if into is None:
            result = agent.type_text(typed, secret=secret, **acting.keywords())
        else:
            result = agent.type_into(
                as_text(into), typed, clear=clear, secret=secret, **choosing.keywords(), **acting.keywords()
            )
        _told(result, options)


@app.command()
@_with_options
def press(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys one after the other: tab, enter, ctrl+s.")],
    options: Options,
    acting: Acting,
) -> None:
    """Press keys; those joined by + together."""
    with _agent(options, acting) as agent:
        for key in keys:
            names = key.split("+") if len(key) > 1 else [key]
            result = (
                agent.press(*names, **acting.keywords())
                if len(names) == 1
                else agent.hotkey(*names, **acting.keywords())
            )
            _told(result, options)


@app.command()
@_with_options
def scroll(
    options: Options,
    acting: Acting,
    amount: Annotated[int, typer.Argument(help="Notches of the wheel, down; negative for up.")] = 5,
    inside: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Over what to turn it: a description.", show_default=False),
    ] = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Go on until this can be seen.", show_default=False),
    ] = None,
) -> None:
    """Turn the wheel, once or until something can be seen. For up: scroll -- -5."""
    with _agent(options, acting) as agent:
        if to is None:
            _told(agent.scroll(amount, inside, **acting.keywords()), options)
        else:
            _show(agent, [agent.scroll_to(as_text(to), inside, step=amount)], options)


@app.command()
@_with_options
def wait(
    what: What,
    options: Options,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 10.0,
    gone: Annotated[bool, typer.Option("--gone", help="Until it is gone, not until it is there.")] = False,
) -> None:
    """Wait until something is there."""
    with _agent(options) as agent:
        if gone:
            agent.wait_gone(as_text(what), timeout)
            if options.as_json:
                print_json({"schema": "groundlink/1", "gone": what})
        else:
            _show(agent, [agent.wait_for(as_text(what), timeout)], options)


@app.command()
@_with_options
def read(options: Options) -> None:
    """Print all text on the screen."""
    with _agent(options) as agent:
        shot = agent.screenshot()
        text = agent.read()
        if options.out is not None:
            _save(shot.image, options.out)
    if options.as_json:
        print_json({"schema": "groundlink/1", "text": text})
    else:
        print(text)


@app.command()
@_with_options
def watch(
    what: What,
    options: Options,
    timeout: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds; for ever if not given.", show_default=False),
    ] = None,
) -> None:
    """Print a line whenever something appears, moves, or goes."""
    with _agent(options) as agent:
        for seen in agent.watch(as_text(what), timeout=timeout):
            if options.as_json:
                body = {"schema": "groundlink/1", "event": seen.event, "at": round(seen.at, 2)}
                print_json(body | {"target": seen.target.to_json()})
            else:
                x, y = seen.target.pixel
                print(f"{seen.at:8.1f} s  {seen.event:8}  {x}, {y}", flush=True)


@app.command()
@_with_options
def shot(
    options: Options,
    file: Annotated[Path, typer.Argument(help="The picture to write.", show_default=False)],
) -> None:
    """Write a picture of the screen to a file."""
    with _agent(options) as agent:
        taken = agent.screenshot()
        _save(taken.image, file)
    if options.as_json:
        print_json({"schema": "groundlink/1", "file": str(file), "area": list(taken.view.area)})


@contextmanager
def _agent(options: Options, acting: Acting | None = None) -> Iterator[ScreenAgent]:
    from groundlink.files import check_picture_path

    if options.out is not None:
        check_picture_path(options.out)
    with Progress() as progress:
        import groundlink
        from screen_agent.agent import ScreenAgent
        from screen_agent.policy import Policy

        acting = acting or Acting()

        def confirm(proposal: Proposal) -> bool:
            progress.clear()
            return acting.yes or _ask(proposal)

        settings = dict(parse_setting(text) for text in options.setting or [])
        policy = Policy(
            dry_run=acting.dry_run,
            windows=tuple(acting.allow_window) if acting.allow_window else None,
            confirm=confirm if acting.yes or sys.stdin.isatty() else None,
        )
        progress.show("loading", 0.0)
        locator = groundlink.load(options.backend, on_progress=progress.show, **settings)
        with (
            locator,
            ScreenAgent(
                locator,
                monitor=options.monitor,
                region=_box("region", options.region),
                window=options.window,
                policy=policy,
                log=acting.log,
                threshold=options.threshold,
            ) as agent,
        ):
            try:
                yield agent
            except (TargetAmbiguous, TargetNotFound) as error:
                if options.out is not None and error.picture is not None:
                    _save(error.picture, options.out)
                    print(f"the candidates are numbered in {options.out}", file=sys.stderr)
                raise
            finally:
                progress.clear()


def _ask(proposal: Proposal) -> bool:
    print(f"{proposal.action}: {proposal.why}", file=sys.stderr)
    print("Do it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _standard_input(secret: bool) -> str:
    if sys.stdin.isatty():
        if secret:
            import getpass

            return getpass.getpass("text (not shown): ")
        raise BadQuery("no text is given; add it, or pipe it in")
    text = sys.stdin.read()
    # The line break that ends a line of a shell is not part of the text, and would be Enter.
    return text.removesuffix("\n")


def _box(name: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise BadQuery(f"--{name} is X1,Y1,X2,Y2 in pixels of the desktop, not {text!r}") from None
    return (x1, y1, x2, y2)


def _show(agent: ScreenAgent, targets: list[Target], options: Options) -> None:
    """Print what was found, and draw it."""
    if options.out is not None:
        _save(_marked(targets), options.out)
    if options.as_json:
        print_json({"schema": "groundlink/1", "targets": [target.to_json() for target in targets]})
        return
    for target in targets:
        score = "" if target.score is None else f"  score {target.score:.2f}"
        text = f'  "{target.text}"' if target.text else ""
        print(f"{target.pixel[0]}, {target.pixel[1]}{score}{text}")


def _told(result: Result, options: Options) -> None:
    """Print what came of an act."""
    if options.out is not None:
        if result.after is not None:
            _save(result.after, options.out)
        elif result.target is not None:
            _save(_marked([result.target]), options.out)
    if options.as_json:
        print_json({"schema": "groundlink/1", **result.to_json()})
        return
    where = "" if result.target is None else f" at {result.target.pixel[0]}, {result.target.pixel[1]}"
    score = "" if result.target is None or result.target.score is None else f" (score {result.target.score:.2f})"
    words = {
        "changed": "the screen changed",
        "expected": "what was expected is there",
        "unchecked": "not checked",
        "none": "no effect",
        "dry_run": "dry run, nothing was done",
    }
    print(f"{result.action.replace('_', ' ')}{where}{score}: {words[result.effect]}")
    if result.confirmation:
        print(f"  needs a confirmation: {result.confirmation}")


def _marked(targets: list[Target]) -> Any:
    import groundlink
    from groundlink.detections import Detection, Detections

    shot = targets[0].shot
    found = []
    for target in targets:
        box = shot.view.box_to_picture(target.box)
        pixel = (int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2))
        found.append(Detection(target.description, box, None, pixel, target.score, None, target.text))
    return groundlink.draw(shot.image, Detections(tuple(found), "found", shot.view.size))


def _save(image: Any, path: Path) -> None:
    from groundlink.files import save_picture

    save_picture(image, path)
