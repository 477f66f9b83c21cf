"""What can be asked: the tasks, and the functions that make a query for each."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal, get_args

from groundlink.errors import BadData, BadQuery

Task = Literal["detect", "ground", "ground_one", "point", "text", "read", "gui", "layout", "example"]
TASKS: tuple[Task, ...] = get_args(Task)

BoxFormat = Literal["pixel", "normalized_1", "normalized_1000"]

MAX_PHRASE_CHARACTERS = 1000
"""A longer phrase is a pasted document, not a description."""
MAX_CATEGORIES = 10_000

_NO_PHRASE: frozenset[Task] = frozenset({"read", "example"})
_SEVERAL_PHRASES: frozenset[Task] = frozenset({"detect", "layout"})


@dataclass(frozen=True)
class Example:
    """What to look for, shown instead of told.

    `image` is anything that `Locator.locate` takes, or None for the image that is asked about. `box` cuts the example
    out of it: `(x1, y1, x2, y2)` in `box_format` units.
    """

    image: Any = None
    box: tuple[float, float, float, float] | None = None
    box_format: BoxFormat = "pixel"


@dataclass(frozen=True)
class Query:
    """A task with its words, and its example image where the task is `example`.

    Make one with the function named after the task: `groundlink.gui("the Save button")`. White space in the phrases is
    folded to single spaces; labels of answers are the phrases as they stand here.

    Raises:
        BadQuery: an unknown task, a missing, empty or overlong phrase, or one with control characters.
    """

    task: Task
    phrases: tuple[str, ...] = ()
    example: Example | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise BadQuery(f"unknown task {self.task!r}; the tasks are {', '.join(TASKS)}")
        if isinstance(self.phrases, str) or not all(isinstance(phrase, str) for phrase in self.phrases):
            raise BadQuery(f"phrases must be a tuple of strings, not {self.phrases!r:.80}")
        object.__setattr__(self, "phrases", tuple(_clean(phrase) for phrase in self.phrases))
        count = len(self.phrases)
        if self.task in _NO_PHRASE:
            if count:
                raise BadQuery(f"the task {self.task!r} takes no words, but got {self.phrases[0]!r:.80}")
        elif self.task in _SEVERAL_PHRASES:
            if not 1 <= count <= MAX_CATEGORIES:
                raise BadQuery(f"the task {self.task!r} takes 1 to {MAX_CATEGORIES} categories, but got {count}")
        elif count != 1:
            raise BadQuery(f"the task {self.task!r} takes one phrase, but got {count}")
        if (self.task == "example") != (self.example is not None):
            raise BadQuery("an example belongs to the task 'example', and that task needs one")
        if self.example is not None and self.example.image is None and self.example.box is None:
            raise BadQuery("an example needs an image, a box, or both")

    @property
    def words(self) -> str:
        """The phrases in one line, for people; empty where the task has none."""
        return ", ".join(self.phrases)

    def to_json(self) -> dict[str, Any]:
        """Return `{"task": …, "phrases": […]}`; an example image is not part of the JSON form."""
        return {"task": self.task, "phrases": list(self.phrases)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Query:
        """Read what `to_json` made.

        Raises:
            BadData: a field is missing or of the wrong type.
            BadQuery: the words themselves are refused.
        """
        try:
            task, phrases = data["task"], tuple(data["phrases"])
        except (TypeError, KeyError) as error:
            raise BadData(f"a query needs 'task' and 'phrases', but got {data!r:.80}") from error
        return cls(task, phrases, Example(image=False) if task == "example" else None)


def _clean(phrase: str) -> str:
    """Return the phrase with white space folded; refuse what is not text."""
    folded = " ".join(phrase.split())
    if not folded:
        raise BadQuery(f"the query {phrase!r:.40} is empty; describe what to look for, such as 'the Save button'")
    if len(folded) > MAX_PHRASE_CHARACTERS:
        raise BadQuery(
            f"the query starting {folded[:40]!r} has {len(folded)} characters; "
            f"at most {MAX_PHRASE_CHARACTERS} are taken: describe one thing in a few words"
        )
    for position, character in enumerate(folded):
        # Cc: control, Cs: half of a surrogate pair. Neither is text that could be read or tokenised.
        if unicodedata.category(character) in {"Cc", "Cs"}:
            raise BadQuery(
                f"the query {folded[:40]!r} has the control character {character!r} at position {position}; remove it"
            )
    return folded


def detect(*categories: str) -> Query:
    """Ask for every object of the categories, such as `detect("person", "traffic light")`."""
    return Query("detect", categories)


def ground(phrase: str) -> Query:
    """Ask for everything that the phrase describes."""
    return Query("ground", (phrase,))


def ground_one(phrase: str) -> Query:
    """Ask for the one thing that the phrase describes."""
    return Query("ground_one", (phrase,))


def point(phrase: str) -> Query:
    """Ask for a point on what the phrase describes."""
    return Query("point", (phrase,))


def text(content: str) -> Query:
    """Ask where this text stands."""
    return Query("text", (content,))


def read() -> Query:
    """Ask for all text, with what it says."""
    return Query("read")


def gui(phrase: str) -> Query:
    """Ask for an element of a user interface, such as `gui("the Save button")`."""
    return Query("gui", (phrase,))


def layout(*categories: str) -> Query:
    """Ask for the parts of a document, such as `layout("title", "table", "figure")`."""
    return Query("layout", categories)


def example(
    image: Any = None,
    *,
    box: tuple[float, float, float, float] | None = None,
    box_format: BoxFormat = "pixel",
) -> Query:
    """Ask for everything that looks like an example.

    Args:
        image: the picture of the example, or None to cut it from the picture that is asked about.
        box: where the example is in that picture, `(x1, y1, x2, y2)`; None for all of it.
        box_format: the unit of `box`: pixels, 0…1, or 0…1000 of each side.
    """
    if box_format not in get_args(BoxFormat):
        raise BadQuery(f"unknown box_format {box_format!r}; use one of {', '.join(get_args(BoxFormat))}")
    if box is not None and not _is_box(box):
        raise BadQuery(f"an example's box is (x1, y1, x2, y2) with x1 < x2 and y1 < y2, but got {box!r:.80}")
    return Query("example", (), Example(image, box, box_format))


def _is_box(box: Any) -> bool:
    try:
        x1, y1, x2, y2 = box
        return all(map(math.isfinite, (x1, y1, x2, y2))) and bool(x1 < x2 and y1 < y2)
    except (TypeError, ValueError):  # not four, or no numbers
        return False
