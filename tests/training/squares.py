"""A handful of pictures with one coloured square each, as a source of samples, and settings that learn them quickly."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from groundlink.training.records import Stream, answer_text, detection_record, write_records
from groundlink.training.samples import Sample
from groundlink.training.settings import TrainSettings
from tests.locateanything import golden_data as golden

MODEL = golden.FOLDER / "g2" / "ckpt_r1"
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
SIZE = (112, 84)
QUESTION = "<image-1>Locate all the instances that matches the following description: square."


def box_of(index):
    return (6 + 8 * index, 5 + 6 * index, 34 + 8 * index, 33 + 6 * index)


def picture_of(index):
    image = Image.new("RGB", SIZE, "gray")
    x1, y1, x2, y2 = box_of(index)
    ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLOURS[index])
    return image


def answer_of(index):
    return answer_text({"square": [box_of(index)]}, SIZE)


class Squares:
    """A source of so many pictures."""

    def __init__(self, count=4):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index):
        return Sample([lambda: picture_of(index)], [(QUESTION, answer_of(index))], f"squares:{index}")


def stream(source=None, seed=0):
    return Stream({"squares": (source or Squares(), 1.0)}, seed=seed)


def settings(**changes):
    """Settings of a training of a second."""
    quick = {
        "steps": 6,
        "learning_rate": 1e-3,
        "accumulation": 1,
        "max_tokens": 320,
        "precision": "float32",
        "recompute": False,
        "workers": 0,
        "log_every": 1,
        "checkpoint_every": 2,
    }
    return TrainSettings(**{**quick, **changes})


def write_squares(folder: Path, count=4):
    """Write the pictures and their records; return the path of a recipe."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        picture_of(index).save(folder / f"{index}.png")
    records = (detection_record(f"{index}.png", {"square": [box_of(index)]}, SIZE) for index in range(count))
    write_records(folder / "train.jsonl", records)
    (folder / "recipe.json").write_text('{"squares": {"annotation": "train.jsonl"}}')
    return folder / "recipe.json"
