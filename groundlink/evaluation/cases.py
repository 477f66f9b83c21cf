"""What an evaluation asks, and what is true: cases, and readers of files that hold them.

A reader is a function in `READERS`; `read_cases` finds the one that a file is for by its content. Formats:

COCO-style JSON: `images` (`id`, `file_name`, `width`, `height`), `categories` (`id`, `name`) and `annotations`
(`image_id`, `category_id`, `bbox` [x, y, width, height]). Pictures lie beside the file or in its folder `images`.

Cases, JSON lines: `image` (path beside the file), `phrase` (or `phrases`, for the tasks that take several), `bbox`
[x1, y1, x2, y2] in pixels, or a list of such, or null for what is not there; and, if wanted, `task` (`ground_one` if
not given), `labels` (of each box, where there are several phrases or none), `group` and `id`.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from groundlink.detections import Box, Point
from groundlink.errors import BadData, BadImage, BadQuery
from groundlink.image import FORMATS, ImageLike, printable
from groundlink.query import Query, Task

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_EDGE = 1.0
"""Pixels that a box may reach beyond its image: annotations are rounded. It is clipped."""

SEVERAL_PHRASES: frozenset[Task] = frozenset({"detect", "layout"})
ONE_TRUTH: frozenset[Task] = frozenset({"ground_one", "gui", "text"})
"""Tasks that ask for one thing."""


@dataclass(frozen=True)
class Truth:
    """One thing that is there.

    Attributes:
        label: which of the phrases it answers; for the task `read`, its text.
        box: `(x1, y1, x2, y2)` in pixels.
        point: where to point at it, if that is not the centre of the box.
    """

    label: str
    box: Box
    point: Point | None = None


@dataclass(frozen=True)
class Case:
    """One question, and its true answer.

    Attributes:
        name: unique among the cases of a run.
        image: what to look at, or a function that makes it when the question is asked.
        size: (width, height) of the image in pixels.
        query: what is asked.
        truth: what is there; nothing means that the right answer is none.
        group: what it is counted with; cases without a group are counted by their task.
    """

    name: str
    image: ImageLike | Callable[[], ImageLike]
    size: tuple[int, int]
    query: Query
    truth: tuple[Truth, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Options:
    """How the reader of a file makes questions of it.

    Attributes:
        task: what to ask; None for what the file says, or the reader's own choice.
        seed: of what is drawn, such as absent categories.
    """

    task: Task | None = None
    seed: int = 0


Reader = Callable[[str, Options], Iterable[Case]]


def read_cases(source: str, task: Task | None = None, limit: int | None = None, seed: int = 0) -> list[Case]:
    """Return the cases of a file, or of a reader that is named.

    Args:
        source: the path of a file in one of the formats above, or a key of `READERS`.
        task: what to ask; None for what the file says.
        limit: how many cases at most; None for all.
        seed: of what is drawn, such as absent categories.

    Raises:
        BadData: the file is missing, empty, of no known format, or wrong; the message names file, line and value.
        BadImage: a picture is missing or cannot be opened; likewise.
    """
    name = source if source in READERS and not Path(source).exists() else _format(Path(source))
    cases = list(islice(READERS[name](source, Options(task, seed)), limit))
    if not cases:
        asked = f" for the task {task!r}" if task else ""
        raise BadData(f"{printable(source)}: holds no questions{asked}")
    return cases


def _read(path: Path) -> str:
    name = printable(str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadData(f"{name}: no such file; give a file, or one of the words {', '.join(READERS)}") from None
    except UnicodeError as error:
        raise BadData(f"{name}: is not text in UTF-8 ({error})") from error
    except OSError as error:
        raise BadData(f"{name}: cannot be read ({error.strerror})") from error
    if not text.strip():
        raise BadData(f"{name}: is empty")
    return text


def _format(path: Path) -> str:
    """Return which reader a file is for, by its content."""
    text, name = _read(path), printable(str(path))
    try:
        value = _json(text)
    except ValueError as error:
        # Or each line is a value of its own.
        first = next(line for line in text.split("\n") if line.strip())
        try:
            value = _json(first)
        except ValueError:
            raise BadData(f"{name}:{getattr(error, 'lineno', 1)}: is not JSON ({error})") from error
    if isinstance(value, dict) and {"images", "annotations"} & set(value):
        return "coco"
    if isinstance(value, dict) and "image" in value:
        return "cases"
    what = f"an object with {', '.join(map(repr, value)) or 'nothing'}" if isinstance(value, dict) else repr(value)
    raise BadData(
        f"{name}:1: is of no known format; known are COCO ('images', 'annotations', 'categories') and lines of cases "
        f"('image', 'phrase', 'bbox'), but this is {what:.120}"
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_coco(source: str, options: Options) -> Iterator[Case]:
    """Yield questions about the pictures of a COCO-style file.

    `detect` (the default) and `layout` ask for all categories that are in a picture at once, with some that are not,
    one in five or so, drawn by the seed. Other tasks ask for each category of a picture, the ones for a single thing
    only where there is one of it, and for one category that is not there. Crowds (`iscrowd`) are left out.
    """
    path = Path(source)
    where = printable(source)
    task: Task = options.task or "detect"
    if task in ("read", "example"):
        raise BadQuery(f"{where}: categories are no question for the task {task!r}; ask detect, ground or point")
    data = _json(_read(path))
    names = {row["id"]: str(_field(row, "name", at)) for at, row in _with_ids(data, "categories", where)}
    images = {row["id"]: (at, row) for at, row in _with_ids(data, "images", where)}
    truths: dict[Any, list[Truth]] = {number: [] for number in images}
    sizes = {}
    for number, (at, row) in images.items():
        sizes[number] = (_count(row, "width", at), _count(row, "height", at))
    crowds: dict[Any, set[str]] = {number: set() for number in images}
    for at, row in _rows(data, "annotations", where):
        number, category = _field(row, "image_id", at), _field(row, "category_id", at)
        for known, key, what in ((images, number, "image"), (names, category, "category")):
            if not isinstance(key, (int, str)) or key not in known:
                raise BadData(f"{at}: there is no {what} with the id {key!r:.60}")
        if row.get("iscrowd"):
            crowds[number].add(names[category])
            continue
        x, y, width, height = _numbers(_field(row, "bbox", at), at)
        truths[number].append(Truth(names[category], _box((x, y, x + width, y + height), sizes[number], at)))
    for number, (at, row) in images.items():
        picture = _picture(path, str(_field(row, "file_name", at)), at)
        if (size := _size(picture, at)) != sizes[number]:
            raise BadData(f"{at}: says {sizes[number]} is the size of {printable(str(picture))}, but that has {size}")
        present = sorted({truth.label for truth in truths[number]})
        absent = sorted(set(names.values()) - set(present) - crowds[number])
        draw = random.Random(f"{options.seed} {number}")
        draw.shuffle(absent)
        if task in SEVERAL_PHRASES:
            phrases = present + absent[: 1 + len(present) // 4]
            draw.shuffle(phrases)
            if phrases:
                yield Case(f"{number}", picture, size, _query(task, phrases, at), tuple(truths[number]))
            continue
        for label in present + absent[:1]:
            truth = tuple(truth for truth in truths[number] if truth.label == label)
            if len(truth) <= 1 or task not in ONE_TRUTH:
                yield Case(f"{number}/{label}", picture, size, _query(task, [label], at), truth)


def _rows(data: dict[str, Any], name: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of one of COCO's lists, each with what to call it."""
    rows = data.get(name)
    if not isinstance(rows, list):
        raise BadData(f"{where}: COCO data has a list {name!r}, but here it is {rows!r:.60}")
    for number, row in enumerate(rows):
        at = f"{where}: {name}[{number}]"
        if not isinstance(row, dict):
            raise BadData(f"{at}: is an object, not {row!r:.60}")
        yield f"{at} (id {row['id']})" if "id" in row else at, row


def _with_ids(data: dict[str, Any], name: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list where each has an `id` of its own."""
    seen: set[int | str] = set()
    for at, row in _rows(data, name, where):
        number = _field(row, "id", at)
        if not isinstance(number, (int, str)) or number in seen:
            raise BadData(f"{at}: 'id' is a number or a text that no other of the {name} has, not {number!r:.60}")
        seen.add(number)
        yield at, row


def read_lines(source: str, options: Options) -> Iterator[Case]:
    """Yield the cases of a file of JSON lines; `options.task` overrules what the lines say."""
    path = Path(source)
    seen: set[str] = set()
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        at = f"{printable(source)}:{number}"
        try:
            row = _json(line)
        except ValueError as error:
            raise BadData(f"{at}: is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadData(f"{at}: is an object, not {row!r:.60}")
        name = str(row.get("id", number))
        if name in seen:
            raise BadData(f"{at}: the id {name!r} was there before; each line has its own, or none")
        seen.add(name)
        yield _case(path, name, row, options.task, at)


def _case(path: Path, name: str, row: dict[str, Any], wanted: Task | None, at: str) -> Case:
    task = wanted or row.get("task", "ground_one")
    if "phrase" in row and "phrases" in row:
        raise BadData(f"{at}: has 'phrase' and 'phrases'; give one of them")
    phrases = [row["phrase"]] if "phrase" in row else row.get("phrases", [])
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise BadData(f"{at}: what to look for is text, not {phrases!r:.60}")
    if not phrases and task not in ("read",):
        raise BadData(f"{at}: has no 'phrase'")
    query = _query(task, phrases, at)
    picture = _picture(path, str(_field(row, "image", at)), at)
    size = _size(picture, at)
    boxes = _field(row, "bbox", at)
    if boxes is None:
        boxes = []
    elif isinstance(boxes, list) and boxes and not isinstance(boxes[0], list):
        boxes = [boxes]
    if not isinstance(boxes, list):
        raise BadData(f"{at}: 'bbox' is [x1, y1, x2, y2], a list of such, or null, not {boxes!r:.60}")
    labels = row.get("labels", list(query.phrases) * len(boxes) if len(phrases) == 1 else None)
    if not isinstance(labels, list):
        if boxes:
            raise BadData(f"{at}: 'labels' says what each box is, for there are {len(phrases)} phrases")
        labels = []
    if len(labels) != len(boxes):
        raise BadData(f"{at}: has {len(boxes)} boxes, but {len(labels)} labels")
    for label in labels:
        if phrases and label not in phrases and label not in query.phrases:
            raise BadData(f"{at}: the label {label!r:.60} is none of the phrases")
    truth = tuple(Truth(str(label), _box(_numbers(box, at), size, at)) for label, box in zip(labels, boxes))
    return Case(name, picture, size, query, truth, str(row.get("group", "")))


def read_scenes(source: str, options: Options) -> Iterator[Case]:
    """Yield questions about the generated scenes of a split that no training sees; see `groundlink.training.scenes`."""
    from groundlink.evaluation.scenes import scene_cases

    yield from scene_cases("held-out" if source == "scenes" else source, task=options.task)


READERS: dict[str, Reader] = {
    "coco": read_coco,
    "cases": read_lines,
    "scenes": read_scenes,
    "new-combinations": read_scenes,
}
"""The formats by their names; a reader that needs no file is asked for by its name in the place of one."""


def _query(task: Any, phrases: list[str], at: str) -> Query:
    try:
        return Query(task, tuple(phrases))
    except BadQuery as error:
        raise BadData(f"{at}: {error}") from error


def _field(row: dict[str, Any], name: str, at: str) -> Any:
    if name not in row:
        raise BadData(f"{at}: has no {name!r}")
    return row[name]


def _count(row: dict[str, Any], name: str, at: str) -> int:
    value = _field(row, name, at)
    if type(value) is not int or value < 1:
        raise BadData(f"{at}: {name!r} is a whole number of at least 1, not {value!r:.60}")
    return value


def _numbers(values: Any, at: str) -> tuple[float, float, float, float]:
    sound = isinstance(values, list) and len(values) == 4
    if not sound or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise BadData(f"{at}: a box has four numbers, not {values!r:.80}")
    a, b, c, d = map(float, values)
    return a, b, c, d


def _box(corners: Box, size: tuple[int, int], at: str) -> Box:
    """Return a box that was checked, clipped where it reaches over the edge by less than a pixel."""
    x1, y1, x2, y2 = corners
    width, height = size
    told = f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    if x1 >= x2 or y1 >= y2:
        raise BadData(f"{at}: the box {told} (x1, y1, x2, y2) has swapped corners or no area")
    if x1 < -_EDGE or y1 < -_EDGE or x2 > width + _EDGE or y2 > height + _EDGE:
        raise BadData(f"{at}: the box {told} (x1, y1, x2, y2) lies outside of its image of {width}×{height}")
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise BadData(f"{at}: the box {told} (x1, y1, x2, y2) lies outside of its image of {width}×{height}")
    return clipped


def _picture(file: Path, name: str, at: str) -> Path:
    places = [file.parent / name, file.parent / "images" / name]
    for place in places:
        if place.is_file():
            return place
    raise BadImage(f"{at}: the image {printable(str(places[0]))} is missing")


def _size(path: Path, at: str) -> tuple[int, int]:
    """Return width and height of an upright picture, from its head alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever opens it to look at it checks all of it
            with Image.open(path, formats=FORMATS) as image:
                told = image.format != "PNG" or "exif" in image.info  # else Pillow would decode it to look for it
                sideways = told and image.getexif().get(_ORIENTATION) in _SIDEWAYS
                return (image.height, image.width) if sideways else image.size
    except Exception as error:  # a damaged file fails in any way
        raise BadImage(f"{at}: the image {printable(str(path))} cannot be opened ({error})") from error
