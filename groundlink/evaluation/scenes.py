"""Generated scenes as cases: `groundlink.training.scenes` has the pictures and the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from PIL import Image

from groundlink.errors import BackendUnavailable
from groundlink.evaluation.cases import Case, Truth
from groundlink.query import Query, Task

SCENES = 200
"""Scenes of a split that are asked about where nothing else is said."""
QUESTIONS = 6


def scene_cases(split: str, first: int = 0, count: int = SCENES, task: Task | None = None) -> Iterator[Case]:
    """Yield questions about scenes, those with one number after the other.

    Args:
        split: one of `groundlink.training.scenes.SPLITS`.
        first: the number of the first scene.
        count: how many scenes.
        task: ask this alone.

    Raises:
        BackendUnavailable: matplotlib, which has the fonts, is not installed.
        BadQuery: there is no such split.
    """
    try:
        from groundlink.training.scenes import draw
    except ImportError as error:
        raise BackendUnavailable("scenes need the package matplotlib: pip install 'groundlink[train]'") from error

    for number in range(first, first + count):
        scene, questions = draw(split, number, QUESTIONS)
        for place, question in enumerate(questions):
            if question.is_usual and task in (None, question.task):
                yield Case(
                    f"{split}:{number}:{place}",
                    _picture(split, number),
                    scene.image.size,
                    Query(question.task, question.phrases),
                    tuple(Truth(label, box) for label, boxes in question.truth for box in boxes),
                    question.group,
                )


def _picture(split: str, number: int) -> Callable[[], Image.Image]:
    return lambda: _draw(split, number)


@lru_cache(maxsize=8)
def _draw(split: str, number: int) -> Image.Image:
    from groundlink.training.scenes import draw

    return draw(split, number, QUESTIONS)[0].image
