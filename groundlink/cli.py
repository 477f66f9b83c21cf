"""The command line. Exit codes: 0 found, 1 not found, 2 and above an error (`groundlink.errors.ERROR_CODES`)."""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from groundlink._version import __version__
from groundlink.errors import BackendUnavailable, BadData, BadImage, BadOutput, BadQuery, GroundlinkError
from groundlink.query import TASKS, Query

if TYPE_CHECKING:
    from rich.console import Console

    from groundlink.backend import MemoryReport
    from groundlink.detections import Detections
    from groundlink.doctor import Report
    from groundlink.evaluation.run import Report as Evaluation
    from groundlink.locator import Locator

COMMANDS = "groundlink.commands"
"""Entry points: groups of commands that other rooms add, each a `typer.Typer`."""
SOURCES = "groundlink.sources"
"""Entry points: a word that stands for a picture, such as `screen`, and the function that takes it."""
_LISTS = {"detect", "layout"}

TaskName = enum.Enum("TaskName", {task: task for task in TASKS}, type=str)  # type: ignore[misc]

app = typer.Typer(
    name="groundlink",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Where in this image is what I describe?",
)


def main() -> None:
    """Run the command line; never ends in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A file name or a text may hold what the terminal's encoding lacks.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        for command in entry_points(group=COMMANDS):
            app.add_typer(command.load(), name=command.name)
        try:
            app()
        except SystemExit:
            if interrupted.is_set():  # typer makes an exit of it
                raise KeyboardInterrupt from None
            raise
    except GroundlinkError as error:
        _complain(error)
        sys.exit(error.code.exit_code)
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        # The reader has gone (`| head`); keep Python from complaining again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if interrupted.is_set():  # a library may turn the interruption into an error of its own
            _interrupted()
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"error: groundlink itself failed ({type(error).__name__}: {error}, {where.filename}:{where.lineno}); "
            "please report this",
            file=sys.stderr,
        )
        sys.exit(GroundlinkError().code.exit_code)


def _interrupted() -> NoReturn:
    """Leave at once: a backend in the middle of a step would be torn down under it, and abort."""
    print("interrupted", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"groundlink {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def locate(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... [QUERY]",
            help="Pictures, folders of pictures, - for standard input, or the word screen; then what to look for, "
            "in one word in quotes. The tasks read and example take no query; detect and layout take categories "
            "with commas between.",
            show_default=False,
        ),
    ],
    task: Annotated[
        Optional[TaskName],  # noqa: UP045 - typer reads annotations at run time
        typer.Option("--task", "-t", help="What is asked. Default: the first task of the backend.", show_default=False),
    ] = None,
    backend: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--backend", "-b", help="The model that answers; see `groundlink doctor`.", show_default=False),
    ] = None,
    out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--out", "-o", help="Draw the answer: a file, or a folder for several pictures.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line for each picture.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Ask for everything that fits, not for the one (the task ground).")
    ] = False,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Drop what has a lower score, 0 to 1. Default: the backend's own.", show_default=False),
    ] = None,
    deadline: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds for each picture.", show_default=False),
    ] = None,
    example: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="For the task example: the picture of what to look for.", show_default=False),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The backend's model: a folder, or a repository on the hub.", show_default=False),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say which backend was taken, its own words, and its figures.")
    ] = False,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the backend; may be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Find what you describe in pictures, and say where it is.

    Exit code: 0 found, 1 found in none of the pictures, 2 and above an error.

    groundlink locate shot.png "the Sign in button" --out found.png
    """
    if everything and task is None:
        task = TaskName("ground")
    takes_words = (task.value if task else "") not in {"read", "example"}
    if takes_words and len(what) < 2:
        raise BadQuery(f'only {what[0]!r} is given; say which picture and what to look for: shot.png "the Save button"')
    images, words = (what[:-1], what[-1]) if takes_words else (what, "")
    words = as_text(words)
    # `os.path` and not `Path`: a long phrase is no file name, and asking is no error.
    if takes_words and os.path.isfile(words) and not any(map(os.path.exists, images)):  # noqa: PTH113
        raise BadQuery(f"the query comes last: groundlink locate {words!r} {images[0]!r}")
    settings = dict(parse_setting(text) for text in setting or [])
    if model is not None:
        settings["model"] = model
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    query = _query(task.value if task else None, words, example)
    pictures = list(_pictures(images))
    targets = _targets(pictures, out)

    import groundlink

    codes = []
    with Progress() as progress:
        progress.show(f"loading {backend or 'the backend'}", 0.0)
        with groundlink.load(backend, on_progress=progress.show, **settings) as locator:
            for number, (name, picture) in enumerate(pictures):
                progress.title(f"{number + 1}/{len(pictures)} " if len(pictures) > 1 else "")
                target = targets.get(name)
                codes.append(
                    _one(locator, name, picture, query, threshold, deadline, target, as_json, verbose, progress)
                )
    errors = [code for code in codes if code > 1]
    raise typer.Exit(errors[0] if errors else min(codes))


def _one(
    locator: Locator,
    name: str,
    picture: Any,
    query: Query | str,
    threshold: float | None,
    deadline: float | None,
    target: Path | None,
    as_json: bool,
    verbose: bool,
    progress: Progress,
) -> int:
    """Answer for one picture, print and draw it; return its exit code."""
    from dataclasses import replace

    from groundlink.files import save_picture
    from groundlink.image import printable
    from groundlink.render import draw

    try:
        # A source such as the screen is looked at now, not when the arguments were read.
        image = picture() if callable(picture) else picture
        answer = locator.locate(image, query, threshold=threshold, deadline=deadline)
        answer = replace(answer, source=printable(name))
        if target is not None:
            save_picture(draw(image, answer), target)
    except GroundlinkError as error:
        progress.clear()
        if as_json:
            print_json({"schema": "groundlink/1", "source": printable(name), "error": error.to_json()})
        _complain(error)
        return error.code.exit_code
    progress.clear()
    if as_json:
        print_json(answer.to_json())
    else:
        _print_table(answer, target)
    if verbose:
        _print_figures(answer)
    return 0 if len(answer) else 1


def _query(task: str | None, words: str, example: Path | None) -> Query | str:
    from groundlink.query import Example, Query

    if task == "example":
        if example is None:
            raise BadQuery("the task 'example' needs the picture of what to look for: --example crop.png")
        return Query("example", (), Example(example))
    if task is None:
        return Query("gui", (words,)).phrases[0]  # checked here, before a model is loaded
    if task == "read":
        return Query("read")
    phrases = tuple(word for word in words.split(",") if word.strip()) if task in _LISTS else (words,)
    return Query(task, phrases)  # type: ignore[arg-type]


def as_text(argument: str) -> str:
    """Return an argument as text also where the terminal's encoding made Python take it for bytes."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument


def parse_setting(text: str) -> tuple[str, Any]:
    """Return name and value of a setting, NAME=VALUE; the value is JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise BadQuery(f"a setting is NAME=VALUE, not {text!r:.80}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _pictures(arguments: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield each picture's name, and its path, its bytes, or the function that takes it."""
    from groundlink.image import MAX_FILE_BYTES, SUFFIXES, printable

    sources = {point.name: point for point in entry_points(group=SOURCES)}
    for argument in arguments:
        if argument == "-":
            if sys.stdin.isatty():
                raise BadImage("-: nothing is piped in; give a picture on standard input: … | groundlink locate - …")
            yield "-", sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        elif argument in sources:
            yield argument, sources[argument].load()
        elif os.path.isdir(argument):  # noqa: PTH112 - as above
            try:
                files = sorted(file for file in Path(argument).iterdir() if file.suffix.lower() in SUFFIXES)
            except OSError as error:
                raise BadImage(f"{printable(argument)}: the folder cannot be read ({error.strerror})") from error
            if not files:
                raise BadImage(f"{printable(argument)}: no pictures in this folder ({', '.join(sorted(SUFFIXES))})")
            for file in files:
                yield str(file), file
        else:
            yield argument, Path(argument)


def _targets(pictures: list[tuple[str, Any]], place: str | None) -> dict[str, Path]:
    """Return where the drawing of each picture goes, checked before anything is computed.

    Raises:
        BadOutput: a place that cannot be written, or that would overwrite a picture given.
    """
    from groundlink.files import check_picture_path, make_folder
    from groundlink.image import printable

    if place is None:
        return {}
    out = Path(place)
    inputs = {os.path.realpath(picture) for _, picture in pictures if isinstance(picture, Path)}
    targets: dict[str, Path] = {}
    names = [name for name, _ in pictures]
    if len(names) == 1 and not out.is_dir() and not place.endswith("/"):
        targets[names[0]] = out
    else:
        if out.suffix and not out.is_dir() and len(names) > 1:
            raise BadOutput(f"{printable(str(out))}: {len(names)} pictures are drawn into a folder; give one")
        make_folder(out)
        used = set()
        for name in names:
            stem = "stdin" if name == "-" else Path(name).stem
            number = 1
            while (file := f"{stem}{f'-{number}' if number > 1 else ''}.png") in used:
                number += 1
            used.add(file)
            targets[name] = out / file
    for target in targets.values():
        check_picture_path(target)
        if os.path.realpath(target) in inputs:
            raise BadOutput(f"{printable(str(target))}: would overwrite the picture itself; choose another name")
    return targets


def _print_figures(answer: Detections) -> None:
    """Print a backend's own words and figures, apart from the answer itself."""
    from groundlink.image import printable

    for words in answer.raw:
        print(f"  said: {printable(words)}", file=sys.stderr)
    for name, value in answer.timings_ms.items():
        print(f"  {name}: {value:.1f}", file=sys.stderr)


def print_json(data: dict[str, Any]) -> None:
    """Print one line of JSON, at once."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def _print_table(answer: Detections, target: Path | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from groundlink.image import printable

    console = make_console()
    color = {"found": "green", "not_found": "red", "ambiguous": "yellow"}[answer.status]
    head = Text.assemble(
        (answer.source or "", "bold"), f" {answer.size[0]}×{answer.size[1]}  ", (answer.status.replace("_", " "), color)
    )
    console.print(head)
    if answer.reason:
        console.print(Text("  " + printable(answer.reason)), soft_wrap=True)
    if not answer.complete:
        console.print(Text(f"  the answer is not complete: {answer.incomplete_reason}", "yellow"))
    if len(answer):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=True)
        table.add_column("#", justify="right")
        table.add_column("text" if answer[0].text is not None else "label", overflow="fold")
        table.add_column("score", justify="right")
        table.add_column("click at", justify="right")
        spatial = "box (x1, y1, x2, y2)" if answer[0].box is not None else "point (x, y)"
        table.add_column(spatial)
        for number, found in enumerate(answer, start=1):
            place = found.box if found.box is not None else found.point or ()
            table.add_row(
                str(number),
                Text(printable(found.text if found.text is not None else found.label)),
                "–" if found.score is None else f"{found.score:.2f}",
                f"{found.pixel[0]}, {found.pixel[1]}",
                ", ".join(f"{value:.0f}" for value in place),
            )
        console.print(table)
    seconds = answer.timings_ms.get("total", 0.0) / 1000
    drawn = f", drawn to {printable(str(target))}" if target is not None else ""
    console.print(Text(f"  {answer.backend}, {seconds:.1f} s{drawn}", "dim"), soft_wrap=True)


def make_console(stderr: bool = False) -> Console:
    """Return a console of standard output or standard error."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # Into a pipe nothing is folded to the width of a terminal.
    return Console(stderr=stderr, width=None if stream.isatty() else 200, highlight=False)


def _complain(error: GroundlinkError) -> None:
    print(f"error: {error}", file=sys.stderr)


class Progress:
    """What is being done and how far, on standard error while it lasts; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._title = ""
        self._lock = threading.Lock()
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def title(self, title: str) -> None:
        """Set what stands before what is being done."""
        self._title = title

    def show(self, doing: str, fraction: float) -> None:
        """Show what is being done, and how much of it is done, in 0…1."""
        if not self._visible:
            return
        with self._lock:
            if self._bar is None:
                from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

                self._bar = Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TimeElapsedColumn(),
                    console=make_console(stderr=True),
                    transient=True,
                )
                self._task = self._bar.add_task("", total=1.0)
                self._bar.start()
            self._bar.update(self._task, description=self._title + doing, completed=fraction)

    def clear(self) -> None:
        """Take the bar off the terminal."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None


@app.command("eval")
def evaluate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Questions with their true answers: COCO-style JSON, JSON lines with image, phrase and bbox, or "
            "targets on screens as ScreenSpot, ScreenSpot-v2 and ScreenSpot-Pro have them; or a folder of such files.",
            show_default=False,
        ),
    ],
    backend: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--backend", "-b", help="The model that answers; see `groundlink doctor`.", show_default=False),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The backend's model: a folder, or a repository on the hub.", show_default=False),
    ] = None,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the backend; may be repeated.", show_default=False
        ),
    ] = None,
    task: Annotated[
        Optional[TaskName],  # noqa: UP045
        typer.Option("--task", "-t", help="What to ask. Default: what the file says; detect for COCO."),
    ] = None,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Ask only so many questions, the first ones.", min=1, show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn: the categories of COCO that are not there.")] = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out",
            "-o",
            help="A folder for predictions.jsonl, report.json and report.md. A run that was cut off goes on there.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The folder of the pictures. Default: beside the file, or in images.", show_default=False),
    ] = None,
    misses: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="A folder for pictures of the targets that were missed, with the truth and the answer.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, in one line; of targets, a last line has what is right by type."),
    ] = False,
) -> None:
    """Measure a backend: ask questions whose answers are known, and compare.

    A question that ends in an error, or in an answer that cannot be read, counts as wrong.

    Exit code: 0 done, whatever was measured; 2 and above an error.

    groundlink eval instances.json --backend locateanything --out results

    groundlink eval targets.jsonl ambiguous.jsonl --misses missed
    """
    from groundlink.evaluation.cases import read_cases
    from groundlink.evaluation.run import evaluate as ask_all
    from groundlink.evaluation.screenspot import Target, draw_misses
    from groundlink.files import make_folder
    from groundlink.image import printable

    settings = dict(parse_setting(text) for text in setting or [])
    if model is not None:
        settings["model"] = model
    with Progress() as progress:
        progress.show("reading the questions", 0.0)
        cases = read_cases(files, task.value if task else None, limit, seed, images)
        if misses is not None:
            if not any(isinstance(case, Target) for case in cases):
                raise BadQuery("--misses draws targets on screens, and there are none in what is asked; leave it out")
            make_folder(misses)

        import groundlink

        progress.show(f"loading {backend or 'the backend'}", 0.0)
        with groundlink.load(backend, on_progress=progress.show, **settings) as locator:
            locator.on_progress = None  # the bar is for the questions now
            names = [printable(file) for file in files]
            about = {"data": names[0] if len(names) == 1 else names, "limit": limit, "draw": seed}
            report = ask_all(
                locator,
                cases,
                about=about,
                folder=out,
                on_progress=lambda done, total: progress.show(f"{done}/{total} questions", done / total),
            )
        if misses is not None and report.screens is not None:
            draw_misses(report.screens, misses, lambda done, total: progress.show("drawing misses", done / total))
    if as_json:
        print_json(report.to_json())
        if report.screens is not None:
            print_json(report.screens.line())
    else:
        _print_evaluation(report, out)


def _print_evaluation(report: Evaluation, out: Path | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from groundlink.image import printable

    console = make_console()
    for title, rows in report.tables().items():
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
        table.add_column("")
        for heading in next(iter(rows.values())).TITLES.values():
            table.add_column(heading, justify="right")
        for name, row in rows.items():
            table.add_row(Text(printable(name)), *row.cells())
        console.print(table)
    for error, count in list(report.errors.items())[:3]:
        console.print(Text(f"  {count} × {printable(error)}", "red"), soft_wrap=True)
    written = f"; written to {printable(str(out))}" if out is not None else ""
    console.print(Text(f"  {report.about['backend']}: {report.summary()}{written}", "dim"), soft_wrap=True)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Say what will fit of this model on the device: a folder, or a repository on the hub, of which a few "
            "kilobytes are downloaded.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--backend", "-b", help="The backend that runs the model.", show_default=False),
    ] = None,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting that it is loaded with; may be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Say what is installed, which backends work here, and what to do for the others.

    With --model, say before anything is loaded what pictures will fit in the device's memory.

    Exit code: 0 if the default backend read its test picture, else an error's; 9 if the model has no room for any.
    """
    from groundlink.doctor import examine

    settings = dict(parse_setting(text) for text in setting or [])
    if model is not None:
        settings["model"] = model
    with Progress() as progress:
        report = examine(progress.show, backend, settings)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    raise typer.Exit(report.exit_code)


@app.command()
def train(
    recipe: Annotated[
        Path, typer.Argument(help="The data, and settings of the training: a file of JSON.", show_default=False)
    ],
    model: Annotated[
        str, typer.Option(help="What to start from: a folder, or a repository on the hub.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The folder for checkpoints, logs and the model. A training that is there goes on.",
            show_default=False,
        ),
    ],
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the training, in the place of the recipe's; may be repeated.",
            show_default=False,
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with new weights; the model's folder needs none.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 and so on.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, a line each time.")] = False,
) -> None:
    """Train LocateAnything on your own data, or let a training go on that was broken off.

    Ctrl-C ends the step under way, writes a checkpoint, and exits with 130; the same command goes on from there.

    groundlink train recipe.json --model nvidia/LocateAnything-3B --out mine --set steps=2000
    """
    from groundlink.training import problem

    lacking = problem()
    if lacking is not None:
        raise BackendUnavailable(f"training cannot run here: {lacking}")

    from groundlink.image import printable
    from groundlink.training.loop import train as run
    from groundlink.training.records import Source, Stream, read_recipe
    from groundlink.training.settings import TrainSettings, recipe_settings

    def scenes(described: dict[str, Any]) -> Source:
        from groundlink.training.scenes import Scenes

        try:
            return Scenes(**described)
        except TypeError as error:
            raise BadData(f"{printable(str(recipe))}: scenes are described by other words ({error})") from error

    given = dict(parse_setting(text) for text in setting or [])
    settings = TrainSettings.of({**recipe_settings(recipe), **given})
    with Progress() as progress:
        progress.show("reading the data", 0.0)
        stream = Stream(read_recipe(recipe, scenes=scenes, seed=settings.seed), seed=settings.seed)

        def tell(figures: dict[str, Any]) -> None:
            progress.clear()
            if as_json:
                print_json(figures)
            else:
                print(_in_words(figures, settings.steps), flush=True)

        try:
            done = run(
                model,
                stream,
                out,
                settings,
                device=device,
                from_scratch=from_scratch,
                on_progress=progress.show,
                on_log=tell,
            )
        except KeyboardInterrupt as stopped:
            progress.clear()
            print(stopped if stopped.args else "interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
    if as_json:
        print_json({"schema": "groundlink/1", "model": str(done.folder), "steps": done.steps})
    else:
        print(f"{done.steps} steps; the model is in {printable(str(done.folder))}")


def _in_words(figures: dict[str, Any], steps: int) -> str:
    """Return the figures of a step of the training in one line."""
    words = [f"step {figures['step']}/{steps}"]
    for name, form in (
        ("loss", "loss {:.4f}"),
        ("ntp_loss", "tokens {:.4f}"),
        ("mtp_loss", "blocks {:.4f}"),
        ("coordinates_within_1_percent", "coordinates within 1 % {:.1%}"),
        ("gradient_norm", "gradient {:.2f}"),
        ("learning_rate", "rate {:.1e}"),
        ("tokens_per_second", "{:.0f} tokens/s"),
    ):
        if figures[name] is not None:
            words.append(form.format(figures[name]))
    return "  ".join(words)


def _print_report(report: Report) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    console.print(
        Text.assemble((f"groundlink {__version__}", "bold"), f" on Python {report.python}, {report.platform}")
    )
    console.print(Text(f"device: {report.device}"))
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("backend", "works", "tasks", "what to do, or what it is"):
        table.add_column(column, overflow="fold")
    for row in report.backends:
        mark = Text("yes", "green") if row.problem is None else Text("no", "red")
        about = row.problem or f"{row.description}; weights: {row.license}"
        table.add_row(row.name, mark, ", ".join(row.tasks), Text(about))
    console.print(table)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("extra", "installed", "what to do"):
        table.add_column(column)
    for extra, missing in report.extras.items():
        mark = Text("no", "yellow") if missing else Text("yes", "green")
        table.add_row(
            extra, mark, Text(f"pip install 'groundlink[{extra}]'  (lacks {', '.join(missing)})" if missing else "")
        )
    console.print(table)
    for room in report.rooms:
        state, style = (room.about, "green") if room.problem is None else (f"no: {room.problem}", "yellow")
        console.print(Text.assemble(f"{room.name}: ", (state, style)), soft_wrap=True)
        for advice in room.advice:
            console.print(Text(f"  {advice}", "yellow"), soft_wrap=True)
    console.print(
        Text(", ".join(f"{name} {version}" for name, version in report.packages.items()), "dim"), soft_wrap=True
    )
    console.print(Text(report.trial, "green" if report.trial_works else "red"), soft_wrap=True)
    if report.memory is not None:
        _print_memory(report.memory)


def _print_memory(memory: MemoryReport) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from groundlink.image import printable

    def gigabytes(size: int | None) -> str:
        return "unknown" if size is None else f"{size / 1e9:.1f} GB"

    console = make_console()
    head = f"{printable(memory.model)} in {memory.dtype} on {memory.device}"
    console.print(Text.assemble("\n", (head, "bold")), soft_wrap=True)
    console.print(
        f"memory: {gigabytes(memory.total)}, free: {gigabytes(memory.free)}, weights: {gigabytes(memory.weights)}"
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("picture")
    table.add_column("peak", justify="right")
    table.add_column("")
    marks = {True: Text("fits", "green"), False: Text("does not fit", "red"), None: Text("unknown", "yellow")}
    for picture in memory.pictures:
        mark = Text.assemble(marks[picture.fits], (f"  {picture.note}", "dim"))
        table.add_row(f"{picture.size[0]}×{picture.size[1]}", gigabytes(picture.peak), mark)
    console.print(table)
    console.print(Text(memory.note, "dim"), soft_wrap=True)
    if memory.largest is not None:
        console.print(f"the largest 16:9 picture that fits: {memory.largest[0]}×{memory.largest[1]}")
    if memory.advice:
        console.print(Text(f"what to do: {memory.advice}", "yellow"), soft_wrap=True)
