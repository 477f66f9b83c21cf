"""Generated scenes: pictures, questions about them and the truth, from nothing but a seed.

    scene, questions = draw("train", 0)

The same split and number give the same scene, always. Scenes of different splits never meet: the split is part of the
seed. Needs matplotlib, for its fonts.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from groundlink.errors import BadQuery
from groundlink.training.samples import Sample
from groundlink.training.scenes.layout import HELD_OUT, Item, Scene, make_scene
from groundlink.training.scenes.questions import Question, ask

SPLITS = {"train": 1, "held-out": 2, "calibration": 3, "new-combinations": 4}
"""To train on; to measure on; to fit the calibration on; and colours with shapes that training never shows."""

SMALLEST, LARGEST = 140, 224  # pixels of a side
MOST = 30  # things on a scene; no window holds more

__all__ = ["HELD_OUT", "MOST", "SPLITS", "Item", "Question", "Scene", "Scenes", "draw"]


def draw(split: str, number: int, questions: int = 8, seed: int = 0, most: int = MOST) -> tuple[Scene, list[Question]]:
    """Draw a scene of a split and ask up to so many questions about it.

    `most` bounds the things on it: with few a model learns sooner what it is asked for.

    Raises:
        BadQuery: there is no such split.
    """
    _check(split)
    # Sixteen neighbours have one size: a batch of them needs no padding.
    width, height = np.random.default_rng([SPLITS[split], seed, number // 16, 1]).integers(SMALLEST, LARGEST + 1, 2)
    rng = np.random.default_rng([SPLITS[split], seed, number])
    new = split == "new-combinations"
    while True:
        scene = make_scene(rng, int(width), int(height), new, most)
        asked = ask(scene, rng, questions, new)
        if asked:
            return scene, asked


def _check(split: str) -> None:
    if split not in SPLITS:
        raise BadQuery(f"there is no split {split!r} of the scenes; take one of {', '.join(SPLITS)}")


class Scenes:
    """Scenes of a split, without end, as training takes them: one sample a scene, one conversation a question."""

    def __init__(self, split: str = "train", questions: int = 8, seed: int = 0, most: int = MOST) -> None:
        _check(split)
        self.split, self.questions, self.seed, self.most = split, questions, seed, most

    def sample(self, index: int) -> Sample:
        """Return the scene of a number."""
        return self.sample_of(*draw(self.split, index, self.questions, self.seed, self.most), index)

    def sample_of(self, scene: Scene, asked: list[Question], index: int) -> Sample:
        """Return a scene and its questions as a sample."""
        image: Image.Image = scene.image
        talks = tuple((f"<image-1>{q.text}", q.answer(*image.size)) for q in asked)
        return Sample((lambda: image,), talks, f"scene {self.split}:{index}")
