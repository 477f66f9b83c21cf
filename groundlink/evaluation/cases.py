"""What an evaluation asks, and what is true: cases, and readers of files that hold them.

A reader is a function in `READERS`; `read_cases` finds the one that a file is for by its content. Formats:

COCO-style JSON: `images` (`id`, `file_name`, `width`, `height`), `categories` (`id`, `name`) and `annotations`
(`image_id`, `category_id`, `bbox` [x, y, width, height]). Pictures lie beside the file or in its folder `images`.

Cases, JSON lines: `image` (path beside the file), `phrase` (or `phrases`, for the tasks that take several), `bbox`
[x1, y1, x2, y2] in pixels, or a list of such, or null for what is not there; and, if wanted, `task` (`ground_one` if
not given), `labels` (of each box, where there are several phrases or none), `group` and `id`.

Targets on screens, as ScreenSpot has them: `groundlink.evaluation.screenspot`.
"""

from __future__ import annotations

import json
import math
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
        images: the folder of the pictures; None for beside the file.
    """

    task: Task | None = None
    seed: int = 0
    images: Path | None = None


Reader = Callable[[str, Options], Iterable[Case]]


def read_cases(
    source: str | Sequence[str],
    task: Task | None = None,
    limit: int | None = None,
    seed: int = 0,
    images: Path | None = None,
) -> list[Case]:
    """Return the cases of files, or of readers that are named.

    Args:
        source: the path of a file in one of the formats above, of a folder of such files, or a key of `READERS`; or
            several of these. The names of cases then begin with that of their file.
        task: what to ask; None for what the file says.
        limit: how many cases at most; None for all.
        seed: of what is drawn, such as absent categories.
        images: the folder of the pictures; None for beside each file.

    Raises:
        BadData: a file is missing, empty, of no known format, or wrong; the message names file, line and value.
        BadImage: a picture is missing or cannot be opened; likewise.
    """
    sources = [file for one in ([source] if isinstance(source, str) else source) for file in _files(one)]
    cases = list(islice(_cases_of(sources, Options(task, seed, images)), limit))
    if not cases:
        asked = f" for the task {task!r}" if task else ""
        raise BadData(f"{printable(', '.join(sources))}: holds no questions{asked}")
    return cases


def _cases_of(sources: list[str], options: Options) -> Iterator[Case]:
    for source in sources:
        name = source if source in READERS and not Path(source).exists() else _format(Path(source))
        for case in READERS[name](source, options):
            yield replace(case, name=f"{source}:{case.name}") if len(sources) > 1 else case


def _files(source: str) -> list[str]:
    """Return the files of a folder, or the source itself."""
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    files = sorted(str(file) for file in folder.iterdir() if file.suffix in {".json", ".jsonl"})
    if not files:
        raise BadData(f"{printable(source)}: cannot be read: it is a folder without files in .json or .jsonl")
    return files


def text_of(path: Path) -> str:
    """Return what a file holds. Raises BadData."""
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
    text, name = text_of(path), printable(str(path))
    try:
        value = parsed(text)
    except ValueError as error:
        # Or each line is a value of its own.
        first = next(line for line in text.split("\n") if line.strip())
        try:
            value = parsed(first)
        except ValueError:
            raise BadData(f"{name}:{getattr(error, 'lineno', 1)}: is not JSON ({error})") from error
    row = value[0] if isinstance(value, list) and value else value
    if isinstance(value, dict) and {"images", "annotations"} & set(value):
        return "coco"
    if isinstance(row, dict) and {"instruction", "img_filename"} & set(row) and not {"phrase", "phrases"} & set(row):
        return "screenspot"
    if isinstance(value, dict) and "image" in value:
        return "cases"
    what = f"an object with {', '.join(map(repr, row)) or 'nothing'}" if isinstance(row, dict) else repr(row)
    raise BadData(
        f"{name}:1: is of no known format; known are COCO ('images', 'annotations', 'categories'), lines of cases "
        "('image', 'phrase', 'bbox'), and targets as ScreenSpot has them ('image' or 'img_filename', 'instruction', "
        f"'bbox'), but this is {f'a list of {what}' if isinstance(value, list) and value else what:.120}"
    )


def parsed(text: str) -> Any:
    """Return a JSON value. Raises ValueError, also where it is nested too deeply."""
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
    data = parsed(text_of(path))
    names = {row["id"]: str(value_of(row, "name", at)) for at, row in _with_ids(data, "categories", where)}
    images = {row["id"]: (at, row) for at, row in _with_ids(data, "images", where)}
    truths: dict[Any, list[Truth]] = {number: [] for number in images}
    sizes = {}
    for number, (at, row) in images.items():
        sizes[number] = (count_of(row, "width", at), count_of(row, "height", at))
    crowds: dict[Any, set[str]] = {number: set() for number in images}
    for at, row in _rows(data, "annotations", where):
        number, category = value_of(row, "image_id", at), value_of(row, "category_id", at)
        for known, key, what in ((images, number, "image"), (names, category, "category")):
            if not isinstance(key, (int, str)) or key not in known:
                raise BadData(f"{at}: there is no {what} with the id {key!r:.60}")
        if row.get("iscrowd"):
            crowds[number].add(names[category])
            continue
        x, y, width, height = four_numbers(value_of(row, "bbox", at), at)
        truths[number].append(Truth(names[category], checked_box((x, y, x + width, y + height), sizes[number], at)))
    for number, (at, row) in images.items():
        picture = find_picture(path, str(value_of(row, "file_name", at)), at, options.images)
        if (size := picture_size(picture, at)) != sizes[number]:
            raise BadData(f"{at}: says {sizes[number]} is the size of {printable(str(picture))}, but that has {size}")
        present = sorted({truth.label for truth in truths[number]})
        absent = sorted(set(names.values()) - set(present) - crowds[number])
        draw = random.Random(f"{options.seed} {number}")
        draw.shuffle(absent)
        if task in SEVERAL_PHRASES:
            phrases = present + absent[: 1 + len(present) // 4]
            draw.shuffle(phrases)
            if phrases:
                yield Case(f"{number}", picture, size, query_of(task, phrases, at), tuple(truths[number]))
            continue
        for label in present + absent[:1]:
            truth = tuple(truth for truth in truths[number] if truth.label == label)
            if len(truth) <= 1 or task not in ONE_TRUTH:
                yield Case(f"{number}/{label}", picture, size, query_of(task, [label], at), truth)


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
        number = value_of(row, "id", at)
        if not isinstance(number, (int, str)) or number in seen:
            raise BadData(f"{at}: 'id' is a number or a text that no other of the {name} has, not {number!r:.60}")
        seen.add(number)
        yield at, row


def read_lines(source: str, options: Options) -> Iterator[Case]:
    """Yield the cases of a file of JSON lines; `options.task` overrules what the lines say."""
    path = Path(source)
    seen: set[str] = set()
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if not line.strip():
            continue
        at = f"{printable(source)}:{number}"
        try:
            row = parsed(line)
        except ValueError as error:
            raise BadData(f"{at}: is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadData(f"{at}: is an object, not {row!r:.60}")
        name = str(row.get("id", number))
        if name in seen:
            raise BadData(f"{at}: the id {name!r} was there before; each line has its own, or none")
        seen.add(name)
        yield _case(path, name, row, options, at)


def _case(path: Path, name: str, row: dict[str, Any], options: Options, at: str) -> Case:
    task = options.task or row.get("task", "ground_one")
    if "phrase" in row and "phrases" in row:
        raise BadData(f"{at}: has 'phrase' and 'phrases'; give one of them")
    phrases = [row["phrase"]] if "phrase" in row else row.get("phrases", [])
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise BadData(f"{at}: what to look for is text, not {phrases!r:.60}")
    if not phrases and task not in ("read",):
        raise BadData(f"{at}: has no 'phrase'")
    query = query_of(task, phrases, at)
    picture = find_picture(path, str(value_of(row, "image", at)), at, options.images)
    size = picture_size(picture, at)
    boxes = value_of(row, "bbox", at)
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
    truth = tuple(Truth(str(label), checked_box(four_numbers(box, at), size, at)) for label, box in zip(labels, boxes))
    return Case(name, picture, size, query, truth, str(row.get("group", "")))


def read_screenspot(source: str, options: Options) -> Iterator[Case]:
    """Yield the targets of a ScreenSpot-style file; see `groundlink.evaluation.screenspot`."""
    from groundlink.evaluation.screenspot import read_targets

    yield from read_targets(source, options)


def read_scenes(source: str, options: Options) -> Iterator[Case]:
    """Yield questions about the generated scenes of a split that no training sees; see `groundlink.training.scenes`."""
    from groundlink.evaluation.scenes import scene_cases

    yield from scene_cases("held-out" if source == "scenes" else source, task=options.task)


READERS: dict[str, Reader] = {
    "coco": read_coco,
    "cases": read_lines,
    "screenspot": read_screenspot,
    "scenes": read_scenes,
    "new-combinations": read_scenes,
}
"""The formats by their names; a reader that needs no file is asked for by its name in the place of one."""


def query_of(task: Any, phrases: list[str], at: str) -> Query:
    """Make a query. Raises BadData where the words cannot be one."""
    try:
        return Query(task, tuple(phrases))
    except BadQuery as error:
        raise BadData(f"{at}: {error}") from error


def value_of(row: dict[str, Any], name: str, at: str) -> Any:
    """Return a field of a row. Raises BadData where it is missing."""
    if name not in row:
        raise BadData(f"{at}: has no {name!r}")
    return row[name]


def count_of(row: dict[str, Any], name: str, at: str) -> int:
    """Return a field that is a whole number of at least 1; BadData where it is not."""
    value = value_of(row, name, at)
    if type(value) is not int or value < 1:
        raise BadData(f"{at}: {name!r} is a whole number of at least 1, not {value!r:.60}")
    return value


def four_numbers(values: Any, at: str) -> tuple[float, float, float, float]:
    """Return four finite numbers. Raises BadData where it is anything else."""
    sound = isinstance(values, list) and len(values) == 4
    if not sound or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise BadData(f"{at}: a box has four numbers, not {values!r:.80}")
    a, b, c, d = map(float, values)
    return a, b, c, d


def checked_box(corners: Box, size: tuple[int, int], at: str) -> Box:
    """Return a box, clipped where it reaches over the edge by less than a pixel; BadData where it is none."""
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


_PLACES = ("", "images", "../images", "screenspotv2_image")
"""Where pictures lie, seen from the file: the last two are the published ScreenSpot-Pro and ScreenSpot-v2."""


def find_picture(file: Path, name: str, at: str, images: Path | None = None) -> Path:
    """Return the path of a picture that a file names, in `images` if that is given.

    Raises:
        BadImage: it is missing.
    """
    if images is not None:
        places = [images / name, images / Path(name).name]
    else:
        places = [file.parent / place / name for place in _PLACES]
    for place in places:
        if os.path.isfile(place):  # noqa: PTH113 - of a name that is none `Path` raises an error
            return place
    raise BadImage(f"{at}: the image {printable(str(places[0]))} is missing; give the folder of the images (--images)")


def picture_size(path: Path, at: str) -> tuple[int, int]:
    """Return width and height of an upright picture, from its head alone. Raises BadImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever opens it to look at it checks all of it
            with Image.open(path, formats=FORMATS) as image:
                told = image.format != "PNG" or "exif" in image.info  # else Pillow would decode it to look for it
                sideways = told and image.getexif().get(_ORIENTATION) in _SIDEWAYS
                return (image.height, image.width) if sideways else image.size
    except Exception as error:  # a damaged file fails in any way
        raise BadImage(f"{at}: the image {printable(str(path))} cannot be opened ({error})") from error
