"""`groundlink screen …`: the screen agent from the command line.

Exit codes are those of `groundlink`: 0 done, and the number of the error else (`groundlink.errors.ERROR_CODES`).
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Optional, get_type_hints

import typer

import groundlink
from groundlink.cli import Progress, as_text, parse_setting, print_json
from groundlink.errors import ActionHadNoEffect, BadQuery, GroundlinkError, TargetAmbiguous, TargetNotFound

if TYPE_CHECKING:
    from groundlink.detections import Box
    from screen_agent.agent import ScreenAgent
    from screen_agent.capture import Shot
    from screen_agent.ground import Target
    from screen_agent.policy import Proposal
    from screen_agent.results import Result

app = typer.Typer(
    no_args_is_help=True,
    help="Find, click, type, read and wait on the screen, by description.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_BOX = "X1,Y1,X2,Y2"
_LOOK = "Where to look"
_CHOOSE = "Which one"
_ACT = "Acting"


@dataclass(frozen=True)
class Place:
    """Options of all commands: what of the screen is meant, and the form of the answer."""

    monitor: Annotated[
        Optional[int],  # noqa: UP045 - typer reads annotations at run time
        typer.Option(help="Look at this monitor only, counted from 1.", show_default=False, rich_help_panel=_LOOK),
    ] = None
    region: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar=_BOX, help="Look at this part only.", show_default=False, rich_help_panel=_LOOK),
    ] = None
    window: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TITLE",
            help="Look at this window only, wherever it is: its title, or a part of it.",
            show_default=False,
            rich_help_panel=_LOOK,
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")] = False


@dataclass(frozen=True)
class Model:
    """Options of commands that find something: what finds it."""

    backend: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--backend", "-b", help="The model that finds; see `groundlink doctor`.", show_default=False),
    ] = None
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the backend; may be repeated."),
    ] = None


@dataclass(frozen=True)
class Picture:
    """The option of commands that have a picture to show."""

    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write a picture of what was found or done; where it cannot be settled, of the candidates.",
            show_default=False,
        ),
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
        typer.Option(
            metavar="PLACE",
            help="The one closest to this: a description, or X,Y.",
            show_default=False,
            rich_help_panel=_CHOOSE,
        ),
    ] = None
    within: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="PLACE",
            help=f"Only inside this: a description, or {_BOX}.",
            show_default=False,
            rich_help_panel=_CHOOSE,
        ),
    ] = None
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Take nothing with a lower score, 0 to 1.", show_default=False, rich_help_panel=_CHOOSE),
    ] = None

    def keywords(self, *names: str, why: str = "") -> dict[str, Any]:
        """Return the options as the agent's methods take them; with names, only those may be given."""
        given = {
            "nth": self.nth,
            "near": _place(self.near, 2),
            "within": _place(self.within, 4),
            "threshold": self.threshold,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if names and (odd := [name for name in given if name not in names]):
            raise BadQuery(f"--{odd[0]} cannot be used {why}")
        return given


@dataclass(frozen=True)
class Acting:
    """Options of commands that act."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be done, and do nothing.", rich_help_panel=_ACT)
    ] = False
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Confirm what would be asked about: words such as delete, Enter, hotkeys.",
            rich_help_panel=_ACT,
        ),
    ] = False  # fmt: skip
    expect: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="WHAT", help="What should be there afterwards.", show_default=False, rich_help_panel=_ACT),
    ] = None
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Look whether anything changed.", rich_help_panel=_ACT)
    ] = True
    timeout: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            metavar="SECONDS",
            help="How long an effect may take. Default: 3.",
            show_default=False,
            rich_help_panel=_ACT,
        ),
    ] = None
    allow_window: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="TITLE", help="Act in windows with this title only; may be repeated.", rich_help_panel=_ACT
        ),
    ] = None
    allow_key: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="KEY", help="A key or hotkey that needs no confirmation; may be repeated.", rich_help_panel=_ACT
        ),
    ] = None
    log: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FOLDER", help="Keep a log of acts here, with pictures.", show_default=False, rich_help_panel=_ACT
        ),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Return the options as the agent's methods take them."""
        return {
            "expect": None if self.expect is None else as_text(self.expect),
            "check": self.check,
            "timeout": self.timeout,
        }


_GROUPS = (Place, Model, Picture, Choosing, Acting)


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of each of its parameters that is a class of options."""
    hints = get_type_hints(function, include_extras=True)
    own, shared = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if kind in _GROUPS:
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
                kind(**{field.name: given[field.name] for field in fields(kind)}) if kind in _GROUPS else given[name]
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
    place: Place,
    model: Model,
    picture: Picture,
    choosing: Choosing,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Everything that fits, not the one.")] = False,
) -> None:
    """Say where something is on the screen.

    groundlink screen find "the Save button" --out found.png
    """
    with _agent(place, model, picture=picture) as agent:
        if everything:
            given = choosing.keywords("within", "threshold", why="together with --all")
            targets = agent.find_all(as_text(what), **given)
            if not targets:
                raise TargetNotFound(f'"{as_text(what)}" is not on the screen')
        else:
            targets = [agent.find(as_text(what), **choosing.keywords())]
        _show(targets, place, picture)


@app.command()
@_with_options
def click(
    what: What,
    place: Place,
    model: Model,
    picture: Picture,
    choosing: Choosing,
    acting: Acting,
    button: Annotated[str, typer.Option(metavar="NAME", help="left, right or middle.")] = "left",
    count: Annotated[int, typer.Option(help="2 for a double click.")] = 1,
    retry: Annotated[int, typer.Option(help="How often to try again where nothing happened.")] = 0,
) -> None:
    """Click on something, and check that something happened.

    groundlink screen click "the Save button" --expect Saved
    """
    with _agent(place, model, acting, picture) as agent:
        result = agent.click(
            as_text(what), button=button, count=count, retry=retry, **choosing.keywords(), **acting.keywords()
        )
        _told(result, place, picture)


@app.command()
@_with_options
def hover(what: What, place: Place, model: Model, picture: Picture, choosing: Choosing, acting: Acting) -> None:
    """Move the pointer onto something, and leave it there."""
    with _agent(place, model, acting, picture) as agent:
        given = acting.keywords()
        del given["check"]
        _told(agent.hover(as_text(what), **choosing.keywords(), **given), place, picture)


@app.command()
@_with_options
def drag(
    what: What,
    to: Annotated[str, typer.Argument(metavar="TO", help="Where to drop it.", show_default=False)],
    place: Place,
    model: Model,
    picture: Picture,
    choosing: Choosing,
    acting: Acting,
) -> None:
    """Drag something onto something else. --nth is for what is dragged, --within for both."""
    with _agent(place, model, acting, picture) as agent:
        given = choosing.keywords("nth", "within", "threshold", why="with drag; --nth and --within can")
        _told(agent.drag(as_text(what), as_text(to), **given, **acting.keywords()), place, picture)


@app.command("type")
@_with_options
def type_(
    place: Place,
    model: Model,
    picture: Picture,
    choosing: Choosing,
    acting: Acting,
    text: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="TEXT", help="The text; - or none: from standard input.", show_default=False),
    ] = None,
    into: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--into", "-i", metavar="WHAT", help="The field to click first.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Replace what is in the field.")] = False,
    secret: Annotated[
        bool,
        typer.Option("--secret", help="A password: from standard input only, never logged, covered in pictures."),
    ] = False,
    by_clipboard: Annotated[
        bool,
        typer.Option("--secret-by-clipboard", help="Let a secret be on the clipboard for a moment where it must."),
    ] = False,
) -> None:
    """Type any text, into a field or where the keyboard goes; with --window, in that window, which comes to the front.

    groundlink screen type "Zürich, 東京 €" --into "the search field"

    pass show bank | groundlink screen type --secret --into "Password"
    """
    if secret and text not in (None, "-"):
        raise BadQuery(
            "a secret on the command line can be read by other programs; pipe it in: "
            "… | groundlink screen type --secret"
        )
    if into is None and (clear or choosing != Choosing()):
        raise BadQuery("--clear, --nth, --near, --within and --threshold are about the field; say which with --into")
    typed = _standard_input(secret) if text in (None, "-") else as_text(text or "")
    with _agent(place, model, acting, picture, secrets_on_clipboard=by_clipboard) as agent:
        if into is None:
            _focus(agent, place)
            result = agent.type_text(typed, secret=secret, **acting.keywords())
        else:
            result = agent.type_into(
                as_text(into), typed, clear=clear, secret=secret, **choosing.keywords(), **acting.keywords()
            )
        _told(result, place, picture)


@app.command()
@_with_options
def press(
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...", help="Keys, one after the other: tab, enter, ctrl+s, ctrl++.", show_default=False
        ),
    ],
    place: Place,
    model: Model,
    picture: Picture,
    acting: Acting,
) -> None:
    """Press keys; those joined by + together. With --window, in that window, which comes to the front.

    groundlink screen press ctrl+s --allow-key ctrl+s --window Editor
    """
    with _agent(place, model, acting, picture) as agent:
        _focus(agent, place)
        for key in keys:
            names = _chord(as_text(key))
            given = acting.keywords()
            result = agent.press(*names, **given) if len(names) == 1 else agent.hotkey(*names, **given)
            _told(result, place, picture, f" {as_text(key)}")


# `-5` is an amount here, not an option.
@app.command(context_settings={"ignore_unknown_options": True})
@_with_options
def scroll(
    place: Place,
    model: Model,
    picture: Picture,
    acting: Acting,
    amount: Annotated[int, typer.Argument(metavar="AMOUNT", help="Notches of the wheel: down, -5 for up.")] = 5,
    inside: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="WHAT", help="Over what to turn it.", show_default=False),
    ] = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="WHAT", help="Go on until this can be seen, AMOUNT at a time.", show_default=False),
    ] = None,
) -> None:
    """Turn the wheel, once or until something can be seen."""
    over = None if inside is None else as_text(inside)
    with _agent(place, model, acting, picture) as agent:
        if to is None:
            _told(agent.scroll(amount, over, **acting.keywords()), place, picture)
        elif acting.keywords() != Acting().keywords():
            raise BadQuery("--expect, --no-check and --timeout are for one turn of the wheel; leave them out with --to")
        else:
            _show([agent.scroll_to(as_text(to), over, step=amount)], place, picture)


@app.command()
@_with_options
def wait(
    what: What,
    place: Place,
    model: Model,
    picture: Picture,
    choosing: Choosing,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait.")] = 10.0,
    gone: Annotated[bool, typer.Option("--gone", help="Until it is gone, not until it is there.")] = False,
) -> None:
    """Wait until something is there, or gone.

    groundlink screen wait "Done" --timeout 60
    """
    with _agent(place, model, picture=picture) as agent:
        if not gone:
            _show([agent.wait_for(as_text(what), timeout, **choosing.keywords())], place, picture)
            return
        if picture.out is not None:
            raise BadQuery("what is gone has no picture; leave --out out")
        agent.wait_gone(as_text(what), timeout, **choosing.keywords("within", "threshold", why="together with --gone"))
        if place.as_json:
            print_json({"schema": "groundlink/1", "gone": as_text(what)})


@app.command()
@_with_options
def read(place: Place, picture: Picture) -> None:
    """Print all text on the screen, in reading order."""
    with _agent(place, Model(groundlink.EMBEDDED_DEFAULT), picture=picture) as agent:
        text = agent.read()
        if picture.out is not None:
            _save(agent.screenshot().image, picture.out)
        if place.as_json:
            print_json({"schema": "groundlink/1", "text": text})
        else:
            print(text)


@app.command()
@_with_options
def watch(
    what: What,
    place: Place,
    model: Model,
    choosing: Choosing,
    timeout: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="SECONDS", help="How long; for ever if not given.", show_default=False),
    ] = None,
) -> None:
    """Print a line whenever something appears, moves, or goes, until Ctrl-C."""
    with _agent(place, model) as agent:
        given = choosing.keywords("within", "threshold", why="with watch, which tells of everything that fits")
        for seen in agent.watch(as_text(what), timeout=timeout, **given):
            if place.as_json:
                body = {"schema": "groundlink/1", "event": seen.event, "at": round(seen.at, 2)}
                print_json(body | {"target": seen.target.to_json()})
            else:
                x, y = seen.target.pixel
                print(f"{seen.at:8.1f} s  {seen.event:8}  {x}, {y}", flush=True)


@app.command()
@_with_options
def shot(
    place: Place,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The picture to write.", show_default=False)],
) -> None:
    """Write a picture of the screen to a file."""
    with _agent(place, Model(), picture=Picture(file)) as agent:
        taken = agent.screenshot()
        _save(taken.image, file)
        if place.as_json:
            print_json({"schema": "groundlink/1", "file": str(file), "area": list(taken.view.area)})


@contextmanager
def _agent(
    place: Place,
    model: Model,
    acting: Acting | None = None,
    picture: Picture | None = None,
    *,
    secrets_on_clipboard: bool = False,
) -> Iterator[ScreenAgent]:
    """Make the agent of one command; errors come out in the words of the command line, and as JSON where asked for."""
    from groundlink.files import check_picture_path

    acting, out = acting or Acting(), None if picture is None else picture.out
    with Progress() as progress:

        def confirm(proposal: Proposal) -> bool:
            progress.clear()
            return acting.yes or _ask(proposal)

        try:
            if out is not None:
                check_picture_path(out)
            settings = dict(parse_setting(text) for text in model.setting or [])
            region = None if place.region is None else _numbers("region", place.region, 4)

            from screen_agent.agent import ScreenAgent
            from screen_agent.policy import Policy

            policy = Policy(
                dry_run=acting.dry_run,
                windows=tuple(map(as_text, acting.allow_window)) if acting.allow_window else None,
                allow_keys=tuple(map(as_text, acting.allow_key or ())),
                secrets_on_clipboard=secrets_on_clipboard,
                confirm=confirm,
            )
            own = inspect.signature(ScreenAgent).parameters
            if odd := [name for name in settings if name in own or name == "on_progress"]:
                raise BadQuery(f"{odd[0]} is no setting of a backend; see the options of this command")
            # The backend is loaded where it is needed first: not for keys, nor where there is no screen.
            with ScreenAgent(
                model.backend,
                monitor=place.monitor,
                region=region,
                window=None if place.window is None else as_text(place.window),
                policy=policy,
                log=acting.log,
                on_progress=progress.show,
                **settings,
            ) as agent:
                yield agent
        except GroundlinkError as error:
            progress.clear()
            error.args = (_in_options(str(error)),)
            _failed(error, place, out)
            raise
        finally:
            progress.clear()


def _failed(error: GroundlinkError, place: Place, out: Path | None) -> None:
    """Print what an error brings along, and draw it. The message itself is printed by whoever ends the program."""
    from groundlink.image import printable
    from screen_agent.ground import Target
    from screen_agent.results import Result

    body: dict[str, Any] = {"schema": "groundlink/1", "error": error.to_json()}
    shown = None
    if isinstance(error, (TargetAmbiguous, TargetNotFound)):
        body["candidates"] = [found.to_json() for found in error.candidates if isinstance(found, Target)]
        shown = error.picture
    elif isinstance(error, ActionHadNoEffect) and isinstance(error.result, Result):
        body["result"] = error.result.to_json()
        shown = _drawn(error.result)
    if place.as_json:
        print_json(body)
    if out is not None and shown is not None:
        _save(shown, out)
        what = "the candidates are numbered" if body.get("candidates") else "the screen is shown"
        print(f"{what} in {printable(str(out))}", file=sys.stderr)


_OPTIONS = (
    ("nth=, near=, within=,", "--nth, --near, --within,"),
    ("; the pictures before and after are in .result", ""),
    (r"Policy\(allow_keys=\('(.+?)',\)\)", r"--allow-key \1"),
    (r"Policy\(secrets_on_clipboard=True\)", "--secret-by-clipboard"),
    ("such as by type_into", "such as by --into"),
)
"""What messages name, as patterns, and what it is called on the command line."""


def _in_options(message: str) -> str:
    for pattern, option in _OPTIONS:
        message = re.sub(pattern, option, message)
    return message


def _ask(proposal: Proposal) -> bool:
    """Ask the person at the terminal, also where standard input is a pipe."""
    from groundlink.image import printable

    why = printable(_in_options(proposal.why))
    text = "" if proposal.text is None else f" {printable(proposal.text)!r:.200}"
    question = f"{proposal.action}{text}{' ' if proposal.target else ''}{printable(proposal.target)}: {why}"
    if sys.stdin.isatty():
        return _asked(question, sys.stdin)
    if sys.stderr.isatty():
        with suppress(OSError), Path("/dev/tty").open(encoding="utf-8") as terminal:
            return _asked(question, terminal)
    print("this needs a confirmation, and nobody is at a terminal to ask; --yes gives it", file=sys.stderr)
    return False


def _asked(question: str, terminal: IO[str]) -> bool:
    print(f"{question}\nDo it? [y/N] ", end="", file=sys.stderr, flush=True)
    return terminal.readline().strip().lower() in {"y", "yes"}


def _focus(agent: ScreenAgent, place: Place) -> None:
    """Bring the window that was named to the front, so that it gets the keys."""
    if place.window is not None:
        agent.focus(as_text(place.window))


def _chord(keys: str) -> list[str]:
    """Return the keys of "ctrl+s"; "+" is a key, too."""
    if len(keys) > 1 and keys.endswith("+"):
        return [*(name for name in keys.removesuffix("+").removesuffix("+").split("+") if name), "+"]
    return keys.split("+") if len(keys) > 1 else [keys]


def _standard_input(secret: bool) -> str:
    if sys.stdin.isatty():
        if secret:
            import getpass

            return getpass.getpass("text (not shown): ")
        raise BadQuery("no text is given; add it, or pipe it in")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeError:
        raise BadQuery("standard input is no text in UTF-8") from None
    # The line break that ends a line of a shell is not part of the text, and would be Enter.
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise BadQuery("no text is given: standard input is empty")
    return text


def _numbers(name: str, text: str, count: int) -> Any:
    with suppress(ValueError):
        numbers = tuple(float(part) for part in text.split(","))
        if len(numbers) == count:
            return numbers
    raise BadQuery(f"--{name} is {_BOX if count == 4 else 'X,Y'} in pixels of the desktop, not {text!r:.80}")


def _place(text: str | None, count: int) -> Any:
    """Return a description as it is, and numbers as a place."""
    if text is None or re.fullmatch(r"[-+.\d\s]+(,[-+.\d\s]+)+", text) is None:
        return None if text is None else as_text(text)
    return _numbers("near" if count == 2 else "within", text, count)


def _show(targets: list[Target], place: Place, picture: Picture) -> None:
    """Print what was found, and draw it."""
    from groundlink.image import printable

    if picture.out is not None:
        _save(_marked(targets), picture.out)
    if place.as_json:
        print_json({"schema": "groundlink/1", "targets": [target.to_json() for target in targets]})
        return
    for target in targets:
        score = "" if target.score is None else f"  score {target.score:.2f}"
        text = f'  "{printable(target.text)}"' if target.text else ""
        print(f"{target.pixel[0]}, {target.pixel[1]}{score}{text}")


def _told(result: Result, place: Place, picture: Picture, what: str = "") -> None:
    """Print what came of an act, and draw it."""
    if picture.out is not None and (shown := _drawn(result)) is not None:
        _save(shown, picture.out)
    if place.as_json:
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
    print(f"{result.action.replace('_', ' ')}{what}{where}{score}: {words[result.effect]}")
    if result.confirmation:
        print(f"  needs a confirmation: {_in_options(result.confirmation)}")


def _drawn(result: Result) -> Any:
    """Return the screen after an act, with what was acted on and what changed; in a dry run, what was found."""
    shot = result.shots[1]
    if shot is not None:
        boxes = [] if result.target is None else [(result.target.description, result.target.box)]
        boxes += [("changed", box) for box in result.changes]
        return _with_boxes(shot, boxes)
    return None if result.target is None else _marked([result.target])


def _marked(targets: list[Target]) -> Any:
    return _with_boxes(targets[0].shot, [(target.description, target.box) for target in targets])


def _with_boxes(shot: Shot, boxes: list[tuple[str, Box]]) -> Any:
    from groundlink.detections import Detections, Found, make_detection

    made = [make_detection(Found(label, shot.view.box_to_picture(box)), shot.view.size) for label, box in boxes]
    return groundlink.draw(shot.image, Detections(tuple(filter(None, made)), "found", shot.view.size))


def _save(image: Any, path: Path) -> None:
    from groundlink.files import save_picture

    save_picture(image, path)
