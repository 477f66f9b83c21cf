"""Targets on screens, as ScreenSpot has them: reading the files, judging the answers, and pictures of the misses.

Three forms are read, told apart by the fields of each row; a file is an array, or has one object on each line:

- our own: `image`, `instruction`, `type`, `bbox` [x1, y1, x2, y2]; `width`, `height` and `source` if wanted. Of a name
  that occurs more than once, `alternatives` has the boxes of all that bear it, `bbox` the one that is meant. With
  `"bbox": null`, `"type": "absent"` or `"absent": true` nothing of that name is there. `"type": "paraphrase"` or
  `"paraphrase": true` marks other words than those on the screen; any other type is counted by its name.
- ScreenSpot and ScreenSpot-v2: `img_filename`, `instruction`, `data_type`, `data_source`, `bbox` [x, y, width, height].
- ScreenSpot-Pro: `img_filename`, `instruction`, `ui_type`, `img_size`, `group`, `bbox` [x1, y1, x2, y2].

How an answer is judged, after 2.7 of the sheet on evaluation. One answer counts, the best. *With the point* it is right
if the pixel to click lies in the true box, borders included; *with the box*, if its box has an IoU of 0.5 or more with
it. An answer that leaves open which of several is meant is right by neither. For a name that occurs more than once it
is what is wanted: such a target is *marked* if the answer is ambiguous with all that bear the name and nothing else,
*settled* if it is a single one, and the one that is meant, and *wrong* otherwise; marked and settled are both right. An
absent name is right if it is denied, and a *false hit* if anything is found. Errors, and answers that cannot be read,
are wrong everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from groundlink.detections import Box, Detection, Detections, Found, make_all
from groundlink.errors import BadData, BadQuery, GroundlinkError
from groundlink.evaluation.cases import (
    Case,
    Options,
    Truth,
    checked_box,
    count_of,
    find_picture,
    four_numbers,
    parsed,
    picture_size,
    query_of,
    text_of,
    value_of,
)
from groundlink.evaluation.metrics import Result, iou_matrix, rounded
from groundlink.files import save_picture, unwritable
from groundlink.image import printable
from groundlink.query import Task

if TYPE_CHECKING:
    from groundlink.evaluation.run import Prediction

AMBIGUOUS, ABSENT, PARAPHRASE = "ambiguous", "absent", "paraphrase"
PLAIN = ("text", "icon", PARAPHRASE)
"""The types of targets that are there once and that every report names, also where there are none."""

Outcome = Literal["right", "elsewhere", "left open", "not found", "marked", "settled", "wrong", "denied", "false hit"]
"""What came of a target; `failed` in its place is an error or an answer that cannot be read."""

_TASKS: tuple[Task, ...] = ("gui", "ground_one", "ground", "point", "text")
_RIGHT_IOU = 0.5
_BETWEEN = re.compile(r"[\s,]*")
_OLD_PICTURE = "miss-[0-9][0-9][0-9][0-9]-*.png"


@dataclass(frozen=True)
class Target(Case):
    """A question for one thing on a screen; `truth` is all that bears its name, nothing where it is absent.

    Attributes:
        type: what it is counted with: one of `PLAIN`, `ambiguous`, `absent`, or another word of the file.
        source: where the screen is from.
        meant: the box of the one that is meant; None where there is none, or the file does not say.
    """

    type: str = ""
    source: str = ""
    meant: Box | None = None


def read_targets(source: str, options: Options) -> Iterator[Target]:
    """Yield the targets of a file; their names are the numbers of their lines, or of their places in the array.

    Raises:
        BadData: a row is wrong; the message names the line and the value.
        BadImage: a picture is missing or cannot be opened; likewise.
        BadQuery: the task is none that asks for one thing by its name.
    """
    path, where = Path(source), printable(source)
    task = options.task or "gui"
    if task not in _TASKS:
        raise BadQuery(f"{where}: targets are no question for the task {task!r}; ask {', '.join(_TASKS)}")
    sizes: dict[Path, tuple[int, int]] = {}
    for number, line, row in _rows(text_of(path), where):
        at = f"{where}:{line}"
        if not isinstance(row, dict):
            raise BadData(f"{at}: is an object, not {row!r:.60}")
        words = _text(row, "instruction", at)
        picture = find_picture(path, _text(row, _one_of(row, ("image", "img_filename"), at), at), at, options.images)
        if picture not in sizes:
            sizes[picture] = picture_size(picture, at)
        size = sizes[picture]
        if (told := _told_size(row, at)) not in (None, size):
            raise BadData(f"{at}: says {told} is the size of {printable(str(picture))}, but that has {size}")
        kind, meant, boxes = _truth(row, size, at)
        query = query_of(task, [words], at)
        truth = tuple(Truth(query.words, box) for box in boxes)
        origin = next((row[name] for name in ("source", "data_source", "group", "application") if row.get(name)), "")
        yield Target(f"{number}", picture, size, query, truth, kind, kind, str(origin) or path.stem, meant)


def _rows(text: str, where: str) -> Iterator[tuple[int, int, Any]]:
    """Yield the rows of an array or of JSON lines, each with its number and its line, both from 1."""
    if not text.lstrip().startswith("["):
        for line, words in enumerate(text.split("\n"), start=1):
            if words.strip():
                try:
                    yield line, line, parsed(words)
                except ValueError as error:
                    raise BadData(f"{where}:{line}: is not JSON ({error})") from error
        return
    decoder, place, line = json.JSONDecoder(), text.index("[") + 1, 1 + text.count("\n", 0, text.index("["))
    for number, row in enumerate(parsed(text), start=1):  # that it is JSON was seen when the reader was chosen
        start = _BETWEEN.match(text, place).end()  # type: ignore[union-attr] # it matches nothing as well
        line += text.count("\n", place, start)
        yield number, line, row
        place = decoder.raw_decode(text, start)[1]  # once more, for where it ends
        line += text.count("\n", start, place)


def _one_of(row: dict[str, Any], names: tuple[str, ...], at: str) -> str:
    """Return which of the fields a row has."""
    for name in names:
        if name in row:
            return name
    raise BadData(f"{at}: has no {' or '.join(map(repr, names))}")


def _text(row: dict[str, Any], name: str, at: str) -> str:
    value = value_of(row, name, at)
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{at}: {name!r} is a text, not {value!r:.60}")
    return value


def _told_size(row: dict[str, Any], at: str) -> tuple[int, int] | None:
    """Return the size of the picture that a row tells, if it does."""
    if "img_size" in row:
        size = row["img_size"]
        if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
            raise BadData(f"{at}: 'img_size' is [width, height], not {size!r:.60}")
        return size[0], size[1]
    return (count_of(row, "width", at), count_of(row, "height", at)) if {"width", "height"} & set(row) else None


def _truth(row: dict[str, Any], size: tuple[int, int], at: str) -> tuple[str, Box | None, list[Box]]:
    """Return the type of a target, the box that is meant, and the boxes of all that bear its name."""
    if row.get("type") == ABSENT or row.get("absent") is True or row.get("bbox", 0) in (None, []):
        return ABSENT, None, []
    kind = _text(row, _one_of(row, ("type", "data_type", "ui_type"), at), at)
    box_of = partial(_box, size=size, at=at, published="img_filename" in row, by_sides="data_type" in row)
    others = row.get("alternatives") or []
    if not isinstance(others, list):
        raise BadData(f"{at}: 'alternatives' is a list of boxes, not {others!r:.60}")
    boxes = [box_of(box) for box in others]
    meant = None if kind == AMBIGUOUS and "bbox" not in row else box_of(value_of(row, "bbox", at))
    if meant is not None and meant not in boxes:
        boxes.insert(0, meant)
    if kind == AMBIGUOUS or len(boxes) > 1:
        if len(boxes) < 2:
            raise BadData(f"{at}: is ambiguous, but 'alternatives' has less than two boxes")
        return AMBIGUOUS, meant, boxes
    return PARAPHRASE if row.get("paraphrase") is True else kind, meant, boxes


def _box(values: Any, *, size: tuple[int, int], at: str, published: bool, by_sides: bool) -> Box:
    """Return a box in pixels; with `by_sides` it was given as [x, y, width, height]."""
    x1, y1, x2, y2 = four_numbers(values, at)
    if max(map(abs, (x1, y1, x2, y2))) <= 1:
        raise BadData(f"{at}: the box {values} seems to be in shares of the sides; it is given in pixels")
    if by_sides:
        x2, y2 = x1 + x2, y1 + y2
    width, height = map(float, size)
    if published and 0 <= (x1 + x2) / 2 <= width and 0 <= (y1 + y2) / 2 <= height:
        # Drawn by hand, some reach over the edge. Nobody can click there.
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    return checked_box((x1, y1, x2, y2), size, at)


@dataclass(frozen=True)
class Judged:
    """A target and what came of it; `iou` is that of the box that counts with the one that is meant, else 0."""

    target: Target
    prediction: Prediction
    outcome: Outcome | Literal["failed"]
    iou: float = 0.0

    @property
    def right(self) -> bool:
        """Whether it is right with the point, or else right for what is asked; see the module."""
        return self.outcome in ("right", "marked", "settled", "denied")

    @property
    def right_box(self) -> bool:
        """Whether it is right with the box."""
        return self.outcome in ("right", "elsewhere") and self.iou >= _RIGHT_IOU


def judge(target: Target, prediction: Prediction) -> Judged:
    """Return what came of a target; see the module."""
    answer = prediction.answer
    judged = partial(Judged, target, prediction)
    if answer is None or prediction.failed:
        return judged("failed")
    best = answer.best
    if target.type == ABSENT:
        return judged("denied" if best is None else "false hit")
    if best is None:
        return judged("not found")
    hit = target.meant is not None and _clicks(best, target.meant)
    if target.type == AMBIGUOUS:
        if answer.status != "ambiguous":
            return judged("settled" if hit and len(answer) == 1 else "wrong")
        boxes = [truth.box for truth in target.truth]
        all_found = all(any(_clicks(found, box) for found in answer) for box in boxes)
        no_others = all(any(_clicks(found, box) for box in boxes) for found in answer)
        return judged("marked" if all_found and no_others else "wrong")
    if answer.status == "ambiguous":
        return judged("left open")
    iou = 0.0
    if best.box is not None and target.meant is not None:
        iou = float(iou_matrix(np.array([target.meant]), np.array([best.box]))[0, 0])
    return judged("right" if hit else "elsewhere", iou)


def _clicks(found: Detection, box: Box) -> bool:
    """Return whether the pixel to click lies in a box, borders included."""
    x, y = found.pixel
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


@dataclass(frozen=True)
class Located(Result):
    """Targets that are there once: how many, the shares that are right, and what the others were.

    Attributes:
        n: targets.
        point: share that is right with the point.
        box: share that is right with the box; None where no answer had one.
        not_found: those that were denied.
        left_open: those where the answer does not say which of several it is.
        elsewhere: those where the pixel to click is not on the target.
        failed: those that ended in an error or an answer that cannot be read.
    """

    n: int
    point: float | None
    box: float | None
    not_found: int
    left_open: int
    elsewhere: int
    failed: int

    TITLES: ClassVar[dict[str, str]] = {
        "n": "targets",
        "point": "point inside",
        "box": "IoU ≥ 0.5",
        "not_found": "not found",
        "left_open": "left open",
        "elsewhere": "elsewhere",
        "failed": "failed",
    }


@dataclass(frozen=True)
class Twins(Result):
    """Names that occur more than once: how many were marked, settled and wrong; `accuracy` is of the first two."""

    n: int
    accuracy: float | None
    marked: int
    settled: int
    wrong: int

    TITLES: ClassVar[dict[str, str]] = {
        "n": "targets",
        "accuracy": "right",
        "marked": "marked",
        "settled": "settled",
        "wrong": "wrong",
    }


@dataclass(frozen=True)
class Absent(Result):
    """Names that are not there: the share that was denied, how many were found all the same, and how many failed."""

    n: int
    accuracy: float | None
    false_hits: int
    failed: int

    TITLES: ClassVar[dict[str, str]] = {
        "n": "names",
        "accuracy": "denied",
        "false_hits": "false hits",
        "failed": "failed",
    }


@dataclass(frozen=True)
class BySource(Result):
    """What is right of one source, by type; `point` and `box` are over all targets that are there once."""

    n: int
    point: float | None
    box: float | None
    text: float | None
    icon: float | None
    paraphrase: float | None
    ambiguous: float | None
    absent: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "n": "targets",
        "point": "point inside",
        "box": "IoU ≥ 0.5",
        **{name: name for name in (*PLAIN, AMBIGUOUS, ABSENT)},
    }


@dataclass(frozen=True)
class Times(Result):
    """Seconds of whole calls: the first question about a picture, which pays for reading it, and further ones."""

    pictures: int
    first: float | None
    slowest: float | None
    further: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "pictures": "pictures",
        "first": "first question (median s)",
        "slowest": "slowest",
        "further": "further questions (median s)",
    }


@dataclass(frozen=True)
class Screens:
    """What an evaluation found of targets.

    Attributes:
        judged: each target.
        located: targets that are there once, by type, and all of them.
        ambiguous: names that occur more than once.
        absent: names that are not there.
        sources: by source.
        times: of the calls.
    """

    judged: tuple[Judged, ...]
    located: dict[str, Located]
    ambiguous: Twins
    absent: Absent
    sources: dict[str, BySource]
    times: Times

    @property
    def misses(self) -> list[Judged]:
        """What is not right with the point."""
        return [one for one in self.judged if not one.right]

    def line(self) -> dict[str, dict[str, float | int | None]]:
        """Return `{"text": {"accuracy": …, "n": …}, "icon": …, "paraphrase": …, "ambiguous": …, "absent": …}`.

        These five are always there, with an accuracy of None where `n` is 0; types of other names come after them.
        """
        none = Located(0, None, None, 0, 0, 0, 0)
        located = {name: self.located.get(name, none) for name in PLAIN}
        shares = {name: (row.point, row.n) for name, row in located.items()}
        shares |= {name: (row.accuracy, row.n) for name, row in ((AMBIGUOUS, self.ambiguous), (ABSENT, self.absent))}
        shares |= {name: (row.point, row.n) for name, row in self.located.items() if name not in {*PLAIN, _ALL}}
        return {name: {"accuracy": rounded(share), "n": n} for name, (share, n) in shares.items()}

    def tables(self) -> dict[str, dict[str, Result]]:
        """Return the tables by their titles, for people; empty ones are left out."""
        tables: dict[str, dict[str, Result]] = {
            "Targets": {**self.located},
            "Names that occur more than once": {AMBIGUOUS: self.ambiguous} if self.ambiguous.n else {},
            "Names that are not there": {ABSENT: self.absent} if self.absent.n else {},
            "By source": {**self.sources},
            "Time": {"pictures": self.times} if self.times.pictures else {},
        }
        return {title: rows for title, rows in tables.items() if rows}

    def to_json(self) -> dict[str, Any]:
        """Return all but the single targets, of plain lists, dicts, strings and numbers."""
        return {
            "located": {name: row.to_json() for name, row in self.located.items()},
            AMBIGUOUS: self.ambiguous.to_json(),
            ABSENT: self.absent.to_json(),
            "sources": {name: row.to_json() for name, row in self.sources.items()},
            "times": self.times.to_json(),
        }

    def to_markdown(self) -> str:
        """Return the misses as a list, one line each; nothing where there are none."""
        lines = []
        for one in self.misses:
            answer = one.prediction.answer
            why = one.prediction.error if answer is None else answer.reason
            target = one.target
            what = f"{target.name}, {target.type}, {one.outcome}"
            lines.append(f"- {what}: {target.query.words} ({target.source}): {why}")
        return "\n## Misses\n\n" + "\n".join(map(printable, lines)) + "\n" if lines else ""


_ALL = "all"
_WRONG = ("wrong", "not found", "failed")


def score_targets(pairs: Iterable[tuple[Target, Prediction]]) -> Screens:
    """Return the figures of targets and what came of them, in the order in which they were asked."""
    judged = tuple(judge(target, prediction) for target, prediction in pairs)
    with_boxes = any(found.box is not None for one in judged for found in one.prediction.found)
    types = {one.target.type for one in judged} - {AMBIGUOUS, ABSENT}
    order = [*(name for name in PLAIN if name in types), *sorted(types - set(PLAIN))]
    once = [one for one in judged if one.target.type in types]
    located = {name: _located([one for one in once if one.target.type == name], with_boxes) for name in order}
    if len(located) > 1:
        located[_ALL] = _located(once, with_boxes)
    twins = [one for one in judged if one.target.type == AMBIGUOUS]
    absent = [one for one in judged if one.target.type == ABSENT]
    sources: dict[str, list[Judged]] = {}
    for one in judged:
        sources.setdefault(one.target.source, []).append(one)
    return Screens(
        judged,
        located,
        Twins(len(twins), _right(twins), *(_count(twins, *names) for names in (["marked"], ["settled"], _WRONG))),
        Absent(len(absent), _right(absent), _count(absent, "false hit"), _count(absent, "failed")),
        {name: _by_source(rows, with_boxes) for name, rows in sorted(sources.items())},
        _times(judged),
    )


def _right(rows: Sequence[Judged]) -> float | None:
    return sum(one.right for one in rows) / len(rows) if rows else None


def _count(rows: Sequence[Judged], *outcomes: str) -> int:
    return sum(one.outcome in outcomes for one in rows)


def _located(rows: Sequence[Judged], with_boxes: bool) -> Located:
    boxes = sum(one.right_box for one in rows) / len(rows) if rows and with_boxes else None
    others = (_count(rows, name) for name in ("not found", "left open", "elsewhere", "failed"))
    return Located(len(rows), _right(rows), boxes, *others)


def _by_source(rows: Sequence[Judged], with_boxes: bool) -> BySource:
    once = _located([one for one in rows if one.target.type not in (AMBIGUOUS, ABSENT)], with_boxes)
    shares = [_right([one for one in rows if one.target.type == name]) for name in (*PLAIN, AMBIGUOUS, ABSENT)]
    return BySource(len(rows), once.point, once.box, *shares)


def _times(judged: Sequence[Judged]) -> Times:
    first: dict[Any, float] = {}
    further = []
    for one in judged:
        answer, picture = one.prediction.answer, one.target.image
        if answer is None or "total" not in answer.timings_ms:
            continue
        seconds = answer.timings_ms["total"] / 1000
        if picture in first:
            further.append(seconds)
        else:
            first[picture] = seconds
    slowest = max(first.values(), default=None)
    return Times(len(first), median(first.values()) if first else None, slowest, median(further) if further else None)


def draw_misses(
    screens: Screens, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Draw what is not right into a folder, and return how many pictures that made.

    A picture shows what was answered, and the truth with what was asked. Its name is `miss-0012-text-elsewhere-….png`:
    the place of the target in the run, its type, what came of it, and its words. Such pictures of an earlier run are
    removed. Where the screen itself cannot be opened there is none.

    Raises:
        BadOutput: the folder cannot be made or written to.
    """
    from groundlink.render import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(_OLD_PICTURE):
            old.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error
    drawn, misses = 0, screens.misses
    places = {one.target.name: place for place, one in enumerate(screens.judged, start=1)}
    for done, one in enumerate(misses):
        on_progress(done, len(misses))
        target = one.target
        words = re.sub(r"\W+", "-", target.query.words).strip("-")[:40]
        name = f"miss-{places[target.name]:04d}-{_in_a_name(target.type)}-{_in_a_name(one.outcome)}-{words}.png"
        try:
            image = target.image() if callable(target.image) else target.image
            picture = draw(image, _with_truth(one))
        except GroundlinkError:
            continue  # that it could not be opened is why it is a miss
        save_picture(picture, folder / name)
        drawn += 1
    return drawn


def _in_a_name(word: str) -> str:
    return re.sub(r"\W+", "_", word)[:20]


def _with_truth(one: Judged) -> Detections:
    """Return the answer and the truth as one answer, told apart by their labels and so by colour."""
    target = one.target
    found = [Found("answer", score=each.score, box=each.box, point=each.point) for each in one.prediction.found]
    found += [Found(f"truth: {target.query.words}", box=truth.box) for truth in target.truth]
    return Detections(make_all(found, target.size)[0], "found", target.size)
