"""Training data in files: records of conversations, recipes of several such files, and the stream they are read as.

A record is one line of JSON, as section 1.1 of the training spec has it:

```json
{"image": "street/7.jpg", "conversations": [
  {"from": "human", "value": "<image-1>Locate all the instances that matches the following description: car</c>cat."},
  {"from": "gpt", "value": "<ref>car</ref><box><12><40><300><900></box><ref>cat</ref><box>None</box>"}]}
```

Several pictures are an `image_list`. Coordinates are tokens in thousandths of the sides of the picture as it is shown,
EXIF orientation applied. Pixels never need to be turned into them by hand: `answer_text` and `from_coco` do it.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from PIL import Image

from groundlink.backends.locateanything.config import COORDINATES
from groundlink.backends.locateanything.preprocessing import crop_box
from groundlink.backends.locateanything.prompt import CATEGORY_SEPARATOR, EXAMPLE_MARKERS, QUESTIONS, place_examples
from groundlink.errors import BadData, BadImage, BadOutput
from groundlink.image import ImageStore, printable
from groundlink.training.samples import RESERVED, Conversation, Sample

FULL = COORDINATES - 1
SPEAKERS = ("human", "gpt")
NONE = "<box>None</box>"
_OF_A_CATEGORY = (QUESTIONS["detect"], QUESTIONS["ground"])
LONGER_SIDE = (640, 2560)  # pixels, of pictures whose size is varied
MAX_CATEGORIES = 16  # in one question; with more than about 18 the model's labels degrade
MAX_TOLD = 10  # problems named in one error

Shape = Sequence[float]
"""A box `(x1, y1, x2, y2)` or a point `(x, y)`."""

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_TEXT_BOX = re.compile(rf"(<box>\s*)?[(\[]{','.join([_NUMBER] * 4)}[)\]](\s*</box>)?")
_TEXT_POINT = re.compile(rf"<box>\s*[(\[]{','.join([_NUMBER] * 2)}[)\]]\s*</box>")
_MARK = re.compile(r"(</?(?:box|ref)>|<\d+>)")
_IMAGE_TAG = re.compile(r"<image(?:-([0-9]{1,9}))?>")
_IN_LABEL = re.compile(rf"{RESERVED.pattern}|</?(?:box|ref|c)>|</?(?:quad|interval)>|<\d+>|<image(?:-\d+)?>")


# --- Answers


def answer_text(
    targets: Mapping[str, Sequence[Shape]] | Iterable[tuple[str, Sequence[Shape]]], size: tuple[int, int]
) -> str:
    """Write an answer: each label with its boxes `(x1, y1, x2, y2)` or points `(x, y)`, in pixels of a picture.

    `size` is the picture's (width, height). Labels stand in the order given, which is that of the question; one with
    nothing is absent from the picture and gets `<box>None</box>`. Boxes are put in the order that the model learns
    best: by x1, then by y1. Up to one pixel outside is taken as the edge.

    Raises:
        BadData: a label or a box is not one; both are named.
    """
    pairs = targets.items() if isinstance(targets, Mapping) else targets
    text = ""
    for label, shapes in pairs:
        _check_label(label)
        values = sorted(_thousandths(shape, size, label) for shape in shapes)
        text += f"<ref>{label}</ref>" + ("".join(map(_box, values)) or NONE)
    return text


def _box(values: Iterable[int]) -> str:
    return f"<box>{''.join(f'<{value}>' for value in values)}</box>"


def _thousandths(shape: Shape, size: tuple[int, int], label: str) -> tuple[int, ...]:
    """Turn pixels into thousandths of the sides."""
    what = f"{list(shape)} of {label!r}"
    if len(shape) not in (2, 4) or not all(math.isfinite(value) for value in shape):
        raise BadData(f"{what} is neither a box (x1, y1, x2, y2) nor a point (x, y)")
    if len(shape) == 4 and (shape[0] > shape[2] or shape[1] > shape[3]):
        raise BadData(f"the box {what} has its corners swapped; give (x1, y1, x2, y2) with x1 ≤ x2 and y1 ≤ y2")
    sides = (*size, *size)[: len(shape)]
    if any(not -1 <= value <= side + 1 for value, side in zip(shape, sides)):
        raise BadData(f"{what} lies outside of its picture of {size[0]}×{size[1]}; give pixels of that picture")
    return tuple(min(max(round(value / side * FULL), 0), FULL) for value, side in zip(shape, sides))


def _check_label(label: str) -> None:
    mark = _IN_LABEL.search(label)
    if mark:
        raise BadData(f"the label {label!r} holds {mark.group()!r}, one of the model's own marks; use plain words")
    if not label.strip():
        raise BadData(f"the label {label!r} is empty; use plain words")


def tokens_of_text(answer: str, size: tuple[int, int] | None = None) -> str:
    """Turn coordinates written as text, `(x1,y1,x2,y2)` or `<box>(x,y)</box>`, into the model's tokens.

    They are thousandths, or pixels where the `size` (width, height) of the picture is given. Brackets may be square,
    numbers may have fractions. What is written in tokens stays as it is.

    Raises:
        BadData: a box is outside of its picture, or its corners are swapped.
    """
    sides = size or (FULL, FULL)

    def convert(values: Iterable[str]) -> str:
        return _box(_thousandths([float(value) for value in values], sides, answer[:40]))

    answer = _TEXT_BOX.sub(lambda match: convert(match.groups()[1:5]), answer)
    return _TEXT_POINT.sub(lambda match: convert(match.groups()), answer)


@dataclass
class _Group:
    """A label of an answer, with where its boxes stand in the text and what they hold (nothing: None)."""

    label: str | None
    places: list[tuple[int, int]] = field(default_factory=list)
    values: list[tuple[int, ...]] = field(default_factory=list)


def _groups(answer: str) -> list[_Group]:
    """Read an answer as strictly as the model's answers are read.

    Raises:
        BadData: anything in it is no label, box or point.
    """
    groups = [_Group(None)]
    parts = _MARK.split(answer)
    place, i = len(parts[0]), 1
    while i < len(parts):
        mark, start = parts[i], place
        if mark in ("</box>", "</ref>"):
            raise BadData(f"{_near(answer, start)}: {mark} closes nothing; begin with <{mark[2:]}")
        if mark not in ("<box>", "<ref>"):
            raise BadData(f"{_near(answer, start)}: the coordinate {mark} stands outside of any box")
        close = f"</{mark[1:]}"
        stop = next((j for j in range(i + 2, len(parts), 2) if parts[j] in (mark, close)), None)
        if stop is None or parts[stop] != close:
            raise BadData(f"{_near(answer, start)}: a {mark} is not closed; add {close}")
        body = "".join(parts[i + 1 : stop])
        place = start + len(mark) + len(body) + len(close) + len(parts[stop + 1])
        if mark == "<ref>":
            _check_label(body)
            groups.append(_Group(body))
        else:
            values = _values(body)
            group = groups[-1]
            if group.values and () in (values, group.values[-1]):
                raise BadData(f"{group.label!r} is said to be absent and has a box too; keep one of them")
            group.places.append((start, start + len(mark) + len(body) + len(close)))
            group.values.append(values)
        i = stop + 2
    return groups


def _near(answer: str, place: int) -> str:
    return repr(answer[place : place + 40])


def _values(body: str) -> tuple[int, ...]:
    """Return what a box holds: four numbers, two, or none."""
    whole = f"<box>{body}</box>"
    if body in ("None", "none"):
        return ()
    if not re.fullmatch(r"(?:<\d+>)+", body):
        if re.search(r"\d+\s*,\s*\d+", body):
            raise BadData(f"{whole!r}: coordinates are tokens such as <12>; convert them with convert_text")
        raise BadData(f"{whole!r}: a box holds <x1><y1><x2><y2>, a point <x><y>, and what is absent None")
    numbers = re.findall(r"\d+", body)
    if len(numbers) not in (2, 4):
        raise BadData(f"{whole!r}: has {len(numbers)} numbers; a box has four and a point two")
    for number in numbers:
        if int(number) > FULL or number != str(int(number)):
            raise BadData(
                f"{whole!r}: <{number}> is no coordinate; they are <0> to <{FULL}>, thousandths of the picture's sides"
            )
    values = tuple(map(int, numbers))
    if len(values) == 4 and (values[0] > values[2] or values[1] > values[3]):
        raise BadData(f"{whole!r}: the corners are swapped; write <x1><y1><x2><y2> with x1 ≤ x2 and y1 ≤ y2")
    return values


def _check_answer(question: str, answer: str, resort: bool) -> str:
    """Return an answer in the words that the model writes, its boxes in order."""
    if _TEXT_BOX.search(answer) and ("<ref>" in answer or "<box>" in answer or _question_of(question)):
        raise BadData(f"{answer[:60]!r}: coordinates are tokens such as <12>; convert them with convert_text")
    groups = _groups(answer)
    if CATEGORY_SEPARATOR in question:
        _check_categories(question, groups)
    for group in reversed(groups):
        ordered = sorted(group.values, key=lambda values: values[:2])
        if ordered != group.values and not resort:
            first = next(a for a, b in zip(group.values, ordered) if a != b)
            raise BadData(
                f"{_box(first)}{'' if group.label is None else f' of {group.label!r}'} is out of order: boxes of a "
                "label stand by x1, then by y1; sort them, or read the file with resort=True"
            )
        for (start, stop), values in reversed(list(zip(group.places, ordered))):
            answer = answer[:start] + (_box(values) if values else NONE) + answer[stop:]
    return answer


def _question_of(question: str) -> tuple[str, str] | None:
    """Return the task's wording and the phrase, if the question is one of those that the model knows."""
    plain = _IMAGE_TAG.sub("", question).strip()
    for wording in dict.fromkeys(QUESTIONS.values()):
        before, found, after = wording.partition("{}")
        if plain == wording or (
            found and plain.startswith(before) and plain.endswith(after) and len(plain) > len(before) + len(after)
        ):
            return wording, plain[len(before) : len(plain) - len(after)] if found else ""
    return None


def _check_categories(question: str, groups: list[_Group]) -> None:
    """Hold the labels of an answer against the categories asked for, in whatever words."""
    told = [group.label for group in groups if group.label is not None]
    known = _question_of(question)
    asked = (known[1] if known else question).split(CATEGORY_SEPARATOR)
    if told and not known:  # the first and the last of them have words around them
        asked[0] = told[0] if asked[0].endswith(told[0]) else asked[0]
        asked[-1] = told[-1] if asked[-1].startswith(told[-1]) else asked[-1]
    for category in asked:
        if category not in told:
            raise BadData(
                f"{category!r} is asked for and not answered; say <ref>{category}</ref>{NONE} if it is absent"
            )
    if told != asked:
        raise BadData(f"the answer has the labels {told} and the question asks for {asked}: answer each once, in order")
    for group in groups:
        if group.label is not None and not group.values:
            raise BadData(f"the label {group.label!r} has no box; give it one, or {NONE} if it is absent")


# --- Records


@dataclass(frozen=True)
class Record:
    """A line of a file that was found sound: `images` are paths, and the conversation has a tag for each."""

    line: int
    images: tuple[Path, ...]
    conversation: Conversation


class Source(Protocol):
    """Where samples come from. One that is finite has a length; others have a sample for every index."""

    def sample(self, index: int) -> Sample:
        """Return the sample of an index from 0 on; the same each time."""


class Records:
    """The records of one file as samples; `read_records` makes it. Pictures are opened when a sample is used."""

    def __init__(
        self, path: Path, records: Sequence[Record], *, data_augment: bool, visual_prompt: bool, seed: int
    ) -> None:
        self.path = path
        self.records = records
        self._data_augment = data_augment
        self._visual_prompt = visual_prompt
        self._seed = seed
        self._images = ImageStore()

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int) -> Sample:
        """Return the sample of a record, counted from 0. Opening its pictures may raise BadImage, with the line."""
        record = self.records[index]
        source = f"{printable(str(self.path))}:{record.line}"
        images: list[Callable[[], Image.Image]] = []
        for number, path in enumerate(record.images):
            picture = _Picture(self._images, path, source)
            images.append(picture)
            if self._data_augment:
                images[-1] = _Resized(picture, f"{self._seed} {record.line} {number}")
        conversation = record.conversation
        shown = _shown_example(conversation) if self._visual_prompt and len(images) == 1 else None
        if shown:
            conversation, box = shown
            images.append(_Crop(_Picture(self._images, record.images[0], source), box))
        return Sample(images, (conversation,), source)


@dataclass(frozen=True)
class _Picture:
    """Opens a picture of a record."""

    images: ImageStore
    path: Path
    source: str

    def __call__(self) -> Image.Image:
        try:
            return self.images.open(self.path).pil()
        except BadImage as error:
            raise BadImage(f"{self.source}: {error}") from error


@dataclass(frozen=True)
class _Resized:
    """A picture that is as it was half of the time, and else of another size; which, its seed says."""

    picture: _Picture
    seed: str

    def __call__(self) -> Image.Image:
        image = self.picture()
        numbers = random.Random(self.seed)
        if numbers.random() < 0.5:
            return image
        scale = numbers.randint(*LONGER_SIDE) / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class _Crop:
    """A part of a picture, by a box in thousandths."""

    picture: _Picture
    box: tuple[int, ...]

    def __call__(self) -> Image.Image:
        image = self.picture()
        x1, y1, x2, y2 = self.box
        return image.crop(crop_box(*image.size, (x1, y1, x2, y2), "normalized_1000"))


def _shown_example(conversation: Conversation) -> tuple[Conversation, tuple[int, ...]] | None:
    """Put a second picture in the place of the one category asked for; also return the box to cut it out by.

    None where several things are asked, or none of them is there as a box.
    """
    question = conversation[0]
    wording, phrase = _question_of(question) or ("", "")
    asked = wording.format(phrase)
    if len(conversation) != 2 or wording not in _OF_A_CATEGORY or CATEGORY_SEPARATOR in phrase or asked not in question:
        return None
    box = next((values for group in _groups(conversation[1]) for values in group.values if len(values) == 4), None)
    if box is None:
        return None
    marked = question.replace(asked, wording.format(EXAMPLE_MARKERS[0]))
    return (place_examples(marked, 1), conversation[1]), box


def read_records(
    path: str | Path,
    root: str | Path | None = None,
    *,
    repeat_time: float = 1.0,
    data_augment: bool = False,
    visual_prompt: bool = False,
    resort: bool = False,
    check_images: bool = True,
    seed: int = 0,
) -> Records:
    """Read a file of records and check all of it.

    Args:
        path: the file, one JSON object a line.
        root: the folder that the records' pictures are relative to; that of the file if not given.
        repeat_time: below 1, so much of the records is taken, the same for the same seed; 1 or more takes all.
        data_augment: half of the pictures get a random size, repeatably; coordinates are relative and stay.
        visual_prompt: a question for one category shows its first box instead of its name.
        resort: boxes of a label that are out of order are put in order; without, they are an error.
        check_images: look now that every picture exists. They are not opened.
        seed: of what is drawn.

    A question whose pictures have no tag gets them at its start, a bare `<image>` gets its number, and `none` in a box
    becomes the word `None` that the model writes.

    Raises:
        BadData: the file is missing or empty, or lines of it are not as they should be: up to ten are told.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    name = printable(str(path))
    exists: dict[Path, bool] = {}
    records: list[Record] = []
    problems: list[str] = []
    for number, line in _lines(path):
        try:
            record = _read_record(number, line, root, resort)
            if check_images:
                for image in record.images:
                    if image not in exists:
                        exists[image] = image.is_file()
                    if not exists[image]:
                        raise BadData(f"there is no picture {printable(str(image))}; correct it, or the root folder")
            records.append(record)
        except BadData as error:
            problems.append(f"{name}:{number}: {error}")
    if problems:
        more = f"\n… and {len(problems) - MAX_TOLD} more lines" if len(problems) > MAX_TOLD else ""
        raise BadData("\n".join(problems[:MAX_TOLD]) + more)
    if not records:
        raise BadData(f"{name}: holds no records; write one JSON object a line")
    if repeat_time < 1:
        count = max(1, round(len(records) * repeat_time))
        records = [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), count))]
    return Records(path, records, data_augment=data_augment, visual_prompt=visual_prompt, seed=seed)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that hold anything, with their numbers from 1."""
    name = printable(str(path))
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                try:
                    line = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise BadData(f"{name}:{number}: is not UTF-8 ({error.reason}); save the file as UTF-8") from None
                if line:
                    yield number, line
    except FileNotFoundError:
        raise BadData(f"{name}: there is no such file; give the path of a file of records (JSONL)") from None
    except OSError as error:
        raise BadData(f"{name}: cannot be read ({error.strerror})") from error


def _read_record(number: int, line: str, root: Path, resort: bool) -> Record:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise BadData(f"is not JSON ({error}); write one whole object on each line") from None
    except RecursionError:
        raise BadData("is nested too deeply to be a record") from None
    if not isinstance(raw, dict):
        raise BadData(f"is {line[:40]!r} and not an object; write one whole object on each line")
    if "video" in raw:
        raise BadData("'video' is not supported; write its frames as pictures and name them in 'image_list'")
    images = raw.get("image_list", [raw["image"]] if "image" in raw else None)
    if images is None:
        raise BadData("has neither 'image' nor 'image_list'; name the picture")
    if "image" in raw and "image_list" in raw:
        raise BadData("has both 'image' and 'image_list'; keep one")
    if not isinstance(images, list) or not images or not all(isinstance(i, str) and i.strip() for i in images):
        raise BadData(f"the pictures are {images!r:.80}; 'image' is a path and 'image_list' a list of paths")
    if "conversations" not in raw:
        raise BadData("has no 'conversations'; add the list of its turns")
    texts = _turns(raw["conversations"])
    texts[::2] = _tagged(texts[::2], len(images))
    for i in range(0, len(texts), 2):
        try:
            texts[i + 1] = _check_answer(texts[i], texts[i + 1], resort)
        except BadData as error:
            raise BadData(f"turn {i + 2}: {error}") from error
    return Record(number, tuple(root / image for image in images), tuple(texts))


def _turns(raw: Any) -> list[str]:
    """Return the texts of `conversations`, which go by turns."""
    if not isinstance(raw, list) or not raw:
        raise BadData(f"'conversations' is {raw!r:.40}, not a list of turns")
    texts = []
    for number, turn in enumerate(raw, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str) or "from" not in turn:
            raise BadData(f"turn {number} is {turn!r:.80}; it needs 'from' and 'value', both texts")
        if turn["from"] not in SPEAKERS:
            raise BadData(f"turn {number} is from {turn['from']!r}; the speakers are {' and '.join(SPEAKERS)}")
        wanted = SPEAKERS[(number - 1) % 2]
        if turn["from"] != wanted:
            raise BadData(
                f"turn {number} is from {turn['from']}, and {wanted}'s turn it is; begin with human, by turns"
            )
        text = turn["value"]
        if not text.strip():
            raise BadData(f"turn {number} is empty; say something, or drop the record")
        reserved = RESERVED.search(text)
        if reserved or (number % 2 == 0 and _IMAGE_TAG.search(text)):
            mark = reserved or _IMAGE_TAG.search(text)
            assert mark is not None
            raise BadData(f"turn {number} holds {mark.group()!r}, one of the model's own marks; take it out")
        texts.append(text)
    if len(texts) % 2:
        raise BadData(f"the last of its {len(texts)} turns is a question; add the answer")
    return texts


def _tagged(questions: list[str], count: int) -> list[str]:
    """Give a number to bare tags, and a tag to pictures without; `count` is that of the pictures."""
    named = {int(tag.group(1)) for text in questions for tag in _IMAGE_TAG.finditer(text) if tag.group(1)}
    free = (number for number in range(1, 10**9) if number not in named)

    def number(tag: re.Match[str]) -> str:
        n = int(tag.group(1)) if tag.group(1) else next(free)
        if not 1 <= n <= count:
            raise BadData(f"the tag {tag.group()} has no picture: {count} are given; add one or take out the tag")
        named.add(n)
        return f"<image-{n}>"

    questions = [_IMAGE_TAG.sub(number, text) for text in questions]
    missing = "".join(f"<image-{n}>" for n in range(1, count + 1) if n not in named)
    return [missing + questions[0], *questions[1:]]


# --- Recipes and streams


class Entry(NamedTuple):
    """A source of a stream. `weight` is the share of samples that come from it, beside the other sources' weights."""

    source: Source
    weight: float


_RECIPE_KEYS: dict[str, tuple[type, ...]] = {
    "annotation": (str,),
    "root": (str,),
    "repeat_time": (int, float),
    "data_augment": (bool,),
    "visual_prompt": (bool,),
}
_SCENE_KEYS: dict[str, tuple[type, ...]] = {"scenes": (dict,), "weight": (int, float)}


def read_recipe(
    path: str | Path,
    *,
    scenes: Callable[[dict[str, Any]], Source] | None = None,
    resort: bool = False,
    check_images: bool = True,
    seed: int = 0,
) -> dict[str, Entry]:
    """Read a recipe, a JSON object of named data sets; paths in it are relative to its folder.

    An entry is `{"annotation": "train.jsonl", "root": "pictures", "repeat_time": 1, "data_augment": false,
    "visual_prompt": false}`, all but the first as in `read_records` and to be left out. A file weighs as much as it
    has records, times `repeat_time`. The other kind is `{"scenes": {…}, "weight": 1000}`: `scenes` is called with the
    settings, and what it returns weighs as much as a file of so many records.

    Raises:
        BadData: the recipe or a file that it names is missing or not as it should be.
    """
    path = Path(path)
    name = printable(str(path))
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadData(f"{name}: there is no such file; give the path of a recipe (JSON)") from None
    except (OSError, ValueError) as error:
        raise BadData(f"{name}: cannot be read as JSON ({error})") from error
    if isinstance(raw, dict):
        raw.pop("settings", None)  # which are for the training itself, `settings.recipe_settings`
    if not isinstance(raw, dict) or not raw:
        raise BadData(f"{name}: holds no data sets; write an object of names and what belongs to them")
    entries: dict[str, Entry] = {}
    for key, entry in raw.items():
        where = f"{name}: {key!r}"
        if not isinstance(entry, dict):
            raise BadData(f"{where} is {entry!r:.40}, not an object with an 'annotation'")
        made = "scenes" in entry
        _check_entry(entry, _SCENE_KEYS if made else _RECIPE_KEYS, where)
        if made:
            if scenes is None:
                raise BadData(f"{where} asks for generated scenes, which are not made here; name an 'annotation'")
            if "weight" not in entry and len(raw) > 1:
                raise BadData(f"{where} has no 'weight'; say how many records it shall weigh as much as")
            entries[key] = Entry(scenes(entry["scenes"]), entry.get("weight", 1))
            continue
        if "annotation" not in entry:
            raise BadData(f"{where} has no 'annotation'; name the file of its records (JSONL)")
        annotation = path.parent / entry["annotation"]
        repeat_time = entry.get("repeat_time", 1)
        records = read_records(
            annotation,
            path.parent / entry["root"] if "root" in entry else None,
            repeat_time=repeat_time,
            data_augment=entry.get("data_augment", False),
            visual_prompt=entry.get("visual_prompt", False),
            resort=resort,
            check_images=check_images,
            seed=seed,
        )
        entries[key] = Entry(records, len(records) * max(repeat_time, 1))
    return entries


def _check_entry(entry: dict[str, Any], keys: dict[str, tuple[type, ...]], where: str) -> None:
    for key, value in entry.items():
        if key not in keys:
            raise BadData(f"{where} has the key {key!r}; there are {', '.join(keys)}")
        kinds = keys[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise BadData(f"{where}: {key!r} is {value!r:.40}, not of type {kinds[-1].__name__}")
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
            raise BadData(f"{where}: {key!r} is {value}; give a number above 0")


Key = tuple[str, int]
"""The name of a source, and the index of a sample in it."""


class Stream:
    """Samples of several sources without end, in a random order that only the seed decides.

    Each sample is drawn from a source by weight. A finite source gives all of its samples, in random order, before any
    of them comes again; an endless one is read from index 0 on.

    Raises:
        BadData: there are no sources, one is empty, or a weight is not above 0.
    """

    def __init__(self, sources: Mapping[str, Entry | tuple[Source, float]], *, seed: int = 0) -> None:
        if not sources:
            raise BadData("there is nothing to train on; name at least one data set")
        self._sources = {name: source for name, (source, _) in sources.items()}
        self._weights = [weight for _, weight in sources.values()]
        self._lengths = {name: _length(source) for name, source in self._sources.items()}
        self._seed = seed
        self._drawn = 0
        self._taken = dict.fromkeys(self._sources, 0)
        self._orders: dict[str, tuple[int, list[int]]] = {}  # of the pass that each source is in
        for name, weight in zip(self._sources, self._weights):
            if self._lengths[name] == 0:
                raise BadData(f"the data set {name!r} is empty; add records or leave it out")
            if not (weight > 0 and math.isfinite(weight)):
                raise BadData(f"the weight of the data set {name!r} is {weight}; give a number above 0")

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Sample:
        """Return the next sample; its source may raise BadData."""
        return self.sample(self.next_key())

    def next_key(self) -> Key:
        """Go on to the next sample and return what it is known by; `sample` makes it."""
        draw = random.Random(f"{self._seed} {self._drawn}")
        name = draw.choices(list(self._sources), self._weights)[0]
        self._drawn += 1
        taken, length = self._taken[name], self._lengths[name]
        self._taken[name] += 1
        if length is None:
            return name, taken
        turn, place = divmod(taken, length)
        if self._orders.get(name, (-1, []))[0] != turn:
            order = list(range(length))
            random.Random(f"{self._seed} {name} {turn}").shuffle(order)
            self._orders[name] = (turn, order)
        return name, self._orders[name][1][place]

    def sample(self, key: Key) -> Sample:
        """Return a sample by what `next_key` gave."""
        name, index = key
        return self._sources[name].sample(index)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is, as JSON."""
        return {"seed": self._seed, "lengths": self._lengths, "drawn": self._drawn, "taken": dict(self._taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with no sample repeated and none left out.

        Raises:
            BadData: the state is of other data sets, or of another seed.
        """
        if state["lengths"] != self._lengths:
            raise BadData(
                f"the run was begun with the data sets {_sizes(state['lengths'])} and is to go on with "
                f"{_sizes(self._lengths)}; give it the same, or begin a new one"
            )
        if state["seed"] != self._seed:
            raise BadData(f"the run was begun with the seed {state['seed']}, not {self._seed}; give it the same")
        self._drawn, self._taken = state["drawn"], dict(state["taken"])


def _length(source: Source) -> int | None:
    try:
        return len(cast(Sized, source))
    except TypeError:  # it has no length, or says that there is none
        return None


def _sizes(lengths: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} ({'endless' if length is None else length})" for name, length in lengths.items())


# --- Writing records


def detection_record(image: str, targets: Mapping[str, Sequence[Shape]], size: tuple[int, int]) -> dict[str, Any]:
    """Make a record that asks for the labels of `targets`, at most 16, in their order; see `answer_text`.

    `image` is the picture's path below the root folder, `size` its (width, height) in pixels.
    """
    if not 1 <= len(targets) <= MAX_CATEGORIES:
        raise BadData(
            f"{printable(image)}: {len(targets)} categories for one question; ask for 1 to {MAX_CATEGORIES}, "
            "and make several records of more"
        )
    try:
        answer = answer_text(targets, size)
    except BadData as error:
        raise BadData(f"{printable(image)}: {error}") from error
    return _record(image, "<image-1>" + QUESTIONS["detect"].format(CATEGORY_SEPARATOR.join(targets)), answer)


def _record(image: str, question: str, answer: str) -> dict[str, Any]:
    turns = [{"from": speaker, "value": value} for speaker, value in zip(SPEAKERS, (question, answer))]
    return {"image": image, "conversations": turns}


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records to a file, one a line; return how many.

    Raises:
        BadOutput: the file cannot be written.
    """
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    try:
        Path(path).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise BadOutput(f"{printable(str(path))}: cannot be written ({error.strerror})") from error
    return len(lines)


def convert_text(path: str | Path, output: str | Path) -> int:
    """Write a file of records whose answers have text coordinates, in thousandths, as one with tokens.

    Returns the number of records. See `tokens_of_text`.

    Raises:
        BadData: a line is no record, or a box in it no box.
        BadOutput: the file cannot be written.
    """
    records = []
    for number, line in _lines(Path(path)):
        try:
            record = json.loads(line)
            for turn in record["conversations"]:
                if turn["from"] == SPEAKERS[1]:
                    turn["value"] = tokens_of_text(turn["value"])
        except (BadData, ValueError, KeyError, TypeError) as error:
            raise BadData(f"{printable(str(path))}:{number}: cannot be converted ({error})") from error
        records.append(record)
    return write_records(output, records)


def from_coco(annotations: str | Path, output: str | Path, *, negatives: float = 0.2, seed: int = 0) -> int:
    """Turn COCO's JSON of boxes into a file of records; return how many were written.

    Each picture is asked for the categories it has, in random order and at most 16 in one question. `negatives` is the
    share of categories asked that are absent; 0.1 to 0.3 teaches a model to say no. Where a crowd or a box without area
    stands for a category, the picture is not asked for it.

    Raises:
        BadData: the JSON has not the form of COCO, or a box does not fit its picture.
    """
    if not 0 <= negatives < 1:
        raise BadData(f"the share of negatives is {negatives}; give 0 to 1, usually 0.1 to 0.3")
    name = printable(str(annotations))
    try:
        raw = json.loads(Path(annotations).read_text(encoding="utf-8"))
        categories = {category["id"]: str(category["name"]) for category in raw["categories"]}
        images = {image["id"]: (image["file_name"], (image["width"], image["height"])) for image in raw["images"]}
        boxes: dict[Any, dict[str, list[Shape]]] = {image: {} for image in images}
        unclear: dict[Any, set[str]] = {image: set() for image in images}
        for annotation in raw["annotations"]:
            x, y, width, height = annotation["bbox"]
            category = categories[annotation["category_id"]]
            image = annotation["image_id"]
            boxes[image].setdefault(category, []).append((x, y, x + width, y + height))
            if annotation.get("iscrowd") or width <= 0 or height <= 0:
                unclear[image].add(category)
    except FileNotFoundError:
        raise BadData(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise BadData(f"{name}: cannot be read as COCO's JSON of boxes ({error})") from error
    except (KeyError, TypeError) as error:
        raise BadData(
            f"{name}: is not COCO's JSON of boxes ({type(error).__name__}: {error}); it needs images with id, "
            "file_name, width and height, categories with id and name, annotations with image_id, category_id and bbox"
        ) from error
    if not images:
        raise BadData(f"{name}: holds no images")
    if len(set(categories.values())) < len(categories):
        raise BadData(f"{name}: two categories have the same name; rename one")

    def records() -> Iterator[dict[str, Any]]:
        for image, (file, size) in images.items():
            numbers = random.Random(f"{seed} {image}")
            present = {label: shapes for label, shapes in boxes[image].items() if label not in unclear[image]}
            absent = [label for label in categories.values() if label not in boxes[image]]
            # Rounded up or down by chance, so that the share is right over all pictures.
            wanted = max(len(present), 1) * negatives / (1 - negatives)
            count = min(int(wanted + numbers.random()), len(absent))
            targets = present | dict.fromkeys(numbers.sample(absent, count), ())
            asked = list(targets)
            numbers.shuffle(asked)
            for first in range(0, len(asked), MAX_CATEGORIES):
                group = {label: targets[label] for label in asked[first : first + MAX_CATEGORIES]}
                yield detection_record(file, group, size)

    try:
        return write_records(output, records())
    except BadData as error:
        raise BadData(f"{name}: {error}") from error
