"""The words given to the model: questions, the chat around them, and where its pictures stand.

The functions here take any text, as the published model does. What callers may ask is checked in one place,
`check_phrase`, before their words become part of a question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from groundlink.backends.locateanything.preprocessing import Grid, image_tokens
from groundlink.errors import BadQuery

SYSTEM = "You are a helpful assistant.\n"  # the line break belongs to the default text alone
CATEGORY_SEPARATOR = "</c>"

# One question for each task; `{}` takes the phrase, or the categories joined by CATEGORY_SEPARATOR. An example image
# takes the place of its marker.
QUESTIONS = {
    "detect": "Locate all the instances that matches the following description: {}.",
    "layout": "Locate all the instances that matches the following description: {}.",
    "ground": "Locate all the instances that match the following description: {}.",
    "ground_one": "Locate a single instance that matches the following description: {}.",
    "text": "Please locate the text referred as {}.",
    "read": "Detect all the text in box format.",
    "gui": "Locate the region that matches the following description: {}.",
    "point": "Point to: {}.",
    "example": "Detect all the objects in the image that belong to the category set: <visual_prompt>.",
}

EXAMPLE_MARKERS = ("<visual_prompt>", "{visual_prompt}")
_TAG = re.compile(r"<image-([0-9]{1,9})>")


class Tokenizer:
    """`tokenizer.json`, read by the `tokenizers` library."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        # Truncation and padding stored with a tokenizer would silently change a prompt.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.added = {i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; the names of special tokens in it become those tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens kept."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token by its name."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found


def check_phrase(phrase: str, tokenizer: Tokenizer) -> None:
    """Refuse words that would change the structure of the prompt: tokens of the model's own, tags of pictures."""
    own = [tokenizer.added[i] for i in tokenizer.encode(phrase) if i in tokenizer.added]
    own += [tag.group() for tag in _TAG.finditer(phrase)]
    own += [marker for marker in EXAMPLE_MARKERS if marker in phrase]
    if own:
        raise BadQuery(
            f"the phrase {phrase!r:.80} holds {own[0]!r}, which is one of the model's own marks and not a word; "
            "describe what to look for in plain words"
        )


def build_question(task: str, phrases: Sequence[str], tokenizer: Tokenizer) -> str:
    """Return the question of a task about phrases that were written by anyone."""
    for phrase in phrases:
        check_phrase(phrase, tokenizer)
    question = QUESTIONS[task].format(CATEGORY_SEPARATOR.join(phrases))
    # Nor may the phrases become a mark together with the words around them.
    separators = max(len(phrases) - 1, 0)
    if sum(i in tokenizer.added for i in tokenizer.encode(question)) != separators:
        raise BadQuery(f"the phrases {phrases!r:.80} make up one of the model's own marks; use plain words")
    return question


def place_examples(question: str, count: int, named: str | None = None) -> str:
    """Put the tags of `count` example images, `<image-2>` and on, where a question has a marker for them.

    The first marker, or else the first occurrence of the text that `named` gives, becomes `<image-2>`; a question
    without either gets it appended. Further images follow the question.
    """
    if count < 1:
        return question
    marks = [mark for mark in EXAMPLE_MARKERS if mark in question]
    if marks:
        first = min(marks, key=question.index)
    elif named and named in question:
        first = named
    else:
        first = ""
    question = question.replace(first, "<image-2>", 1) if first else question + "\nVisual prompt: <image-2>"
    return question + "".join(f"<image-{n}>" for n in range(3, count + 2))


@dataclass(frozen=True)
class Turn:
    """What one side says: texts and pictures in their order. `role` is `user` or `assistant`.

    Whatever is no text is a picture; nothing is asked of it here.
    """

    role: str
    content: Sequence[Any]


def build_chat(turns: Sequence[Turn], system: str = SYSTEM) -> tuple[str, list[Any]]:
    """Return the chat text, pictures as tags `<image-1>`, `<image-2>` …, and the pictures in order of their numbers.

    A picture whose tag stands somewhere in the text of its turn appears there, any other where it stands in the turn.
    """
    chat = f"<|im_start|>system\n{system}<|im_end|>\n"
    images: list[Any] = []
    for turn in turns:
        text = "".join(part for part in turn.content if isinstance(part, str))
        said = ""
        for part in turn.content:
            if isinstance(part, str):
                said += part
                continue
            images.append(part)
            tag = tag_of(len(images) - 1)
            said += tag if tag not in text else ""
        chat += f"<|im_start|>{turn.role}\n{said}<|im_end|>\n"
    return chat + "<|im_start|>assistant\n", images


def tag_of(index: int) -> str:
    """Return the tag that stands for a picture in a chat, counted from 0."""
    return f"<image-{index + 1}>"


def expand_tags(chat: str, grids: Sequence[Grid]) -> tuple[str, list[int]]:
    """Replace each picture's tag by its run of image tokens; `grids` are those of pictures 1, 2 ….

    Also return which picture stands at each tag, counted from 0: pixels go in that order, repeated where a tag is.
    """
    order: list[int] = []

    def expand(tag: re.Match[str]) -> str:
        number = int(tag.group(1))
        if not 1 <= number <= len(grids):
            raise BadQuery(f"the text names {tag.group()}, but {len(grids)} images are given; give it or drop the tag")
        order.append(number - 1)
        return f"<image {number}><img>{'<IMG_CONTEXT>' * image_tokens(grids[number - 1])}</img>"

    return _TAG.sub(expand, chat), order
