"""What training is fed with: pictures and what is said about them, wherever both come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

Conversation = tuple[str, ...]
"""Texts by turns, the first the user's: question, answer, question, answer …

Pictures stand in the user's text as `<image-1>`, `<image-2>` …; coordinates in answers are tokens, `<0>` … `<1000>`.
"""


@dataclass(frozen=True)
class Sample:
    """Pictures, and conversations about them that do not see each other.

    Several conversations about the same pictures are trained on as if each stood alone, but the pictures are computed
    once for all of them.

    Attributes:
        images: functions that open the pictures 1, 2 …, called when the sample is used.
        conversations: each begins with the user and ends with the model.
        source: where it comes from, for error messages (`train.jsonl:17`).
    """

    images: Sequence[Callable[[], Image.Image]]
    conversations: Sequence[Conversation]
    source: str


RESERVED = re.compile(r"<\|[A-Za-z_]+\|>|</?img>|<(?:IMG_CONTEXT|text_mask|null|switch)>")
"""Marks that the chat, the pictures and the parallel blocks are made of: no turn's own text may hold one."""
