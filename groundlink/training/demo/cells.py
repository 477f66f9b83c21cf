"""The first stage: the vision tower learns what lies on each patch of a picture, before it hears of any language.

Every patch is told the smallest thing on it (which shape, icon or word, in what colour, with what box) and the control
or block around it. Linear heads read that off the connector's output and are thrown away afterwards; what stays is a
tower whose rows say what is where.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groundlink.backends.locateanything.config import MERGE
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.training.scenes import Scene
from groundlink.training.scenes.drawing import ICONS, SHAPES
from groundlink.training.scenes.layout import COLOURS, WORDS

SMALL_KINDS = ("shape", "icon", "text")
LARGE_KINDS = ("button", "field", "checkbox", "tab", "title", "paragraph", "picture", "table")
IGNORE = -100

_SMALL = {name: i + 1 for i, name in enumerate([*SHAPES, *(f"{icon} icon" for icon in ICONS), *WORDS])}
_LARGE = {name: i + 1 for i, name in enumerate(LARGE_KINDS)}
_COLOURS = {name: i for i, name in enumerate(COLOURS)}
# Widths of what is told of a patch: thing, its colour, area around it, is it on, box of the thing, box of the area.
_WIDTHS = [len(_SMALL) + 1, len(_COLOURS), len(_LARGE) + 1, 2, 4, 4]
_BACKGROUND = 0.15  # weight of a patch with nothing on it


@dataclass(frozen=True)
class Cells:
    """The truth about the patches of pictures: `classes` `[L, 4]` (thing, colour, area, on) and `boxes` `[L, 8]`."""

    classes: Tensor
    boxes: Tensor


def cells_of(scene: Scene, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the truth about each patch of a grid, row by row: classes `[n, 4]`, boxes in 0…1 `[n, 8]`."""
    rows, columns = grid
    classes = np.zeros((rows, columns, 4), np.int64)
    classes[..., 1] = classes[..., 3] = IGNORE
    boxes = np.full((rows, columns, 8), np.nan, np.float32)
    width, height = scene.image.size
    area = {id(i): (i.box[2] - i.box[0]) * (i.box[3] - i.box[1]) for i in scene.items}
    for item in sorted(scene.items, key=lambda i: -area[id(i)]):
        relative = np.array(item.box, np.float32) / (width, height, width, height)
        place = _patches(relative[0], relative[2], columns), _patches(relative[1], relative[3], rows)
        cells = (place[1], place[0])
        if item.kind in SMALL_KINDS:
            name = f"{item.name} icon" if item.kind == "icon" else item.name
            classes[(*cells, 0)] = _SMALL.get(name, IGNORE)  # a text of two words has no class of its own
            classes[(*cells, 1)] = _COLOURS.get(item.colour or "", IGNORE)
            boxes[(*cells, slice(0, 4))] = relative
        else:
            classes[(*cells, 2)] = _LARGE[item.kind]
            classes[(*cells, 3)] = int(item.on) if item.kind in ("checkbox", "tab") else IGNORE
            boxes[(*cells, slice(4, 8))] = relative
    return classes.reshape(-1, 4), boxes.reshape(-1, 8)


def _patches(low: float, high: float, count: int) -> slice:
    """Return the patches of a side that a thing covers by a good part; at least one."""
    first = int(np.clip(np.floor(low * count + 0.35), 0, count - 1))
    return slice(first, max(first + 1, int(np.ceil(high * count - 0.35))))


class Heads(nn.Module):
    """Reads the truth about the four patches of each image token, `[n, D]`, in the order of the patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, MERGE**2 * sum(_WIDTHS))

    def forward(self, rows: Tensor, grids: list[Grid]) -> tuple[Tensor, ...]:
        """Return what is said of all patches: thing, colour, area, on, box, box, each `[L, …]`."""
        told = self.read(rows).float()
        sizes = [h * w // MERGE**2 for h, w in grids]
        parts = []
        for part, (h, w) in zip(torch.split(told, sizes), grids, strict=True):
            cells = part.view(h // MERGE, w // MERGE, MERGE, MERGE, -1)
            parts.append(cells.transpose(1, 2).reshape(h * w, -1))
        return torch.split(torch.cat(parts), _WIDTHS, -1)


def loss_of(told: tuple[Tensor, ...], truth: Cells) -> tuple[Tensor, dict[str, float]]:
    """Return the loss, and figures: the share of things and areas that are right, the mean error of boxes in 0…1."""
    thing, colour, area, on, *boxes = told
    classes = truth.classes
    total = thing.new_zeros(())
    figures = {}
    for number, (name, logits) in enumerate((("thing", thing), ("colour", colour), ("area", area), ("on", on))):
        wanted = classes[:, number]
        weight = torch.where(wanted == 0, _BACKGROUND, 1.0) if name in ("thing", "area") else torch.ones(len(wanted))
        weight = weight * (wanted != IGNORE)
        losses = F.cross_entropy(logits, wanted.clamp(min=0), reduction="none")
        total = total + (losses * weight).sum() / weight.sum().clamp(min=1)
        real = (wanted > 0) if name in ("thing", "area") else (wanted != IGNORE)
        figures[name] = float((logits.argmax(-1) == wanted)[real].float().mean())
    for name, said, wanted in (("box", boxes[0], truth.boxes[:, :4]), ("area box", boxes[1], truth.boxes[:, 4:])):
        there = ~wanted[:, 0].isnan()
        error = (said - wanted)[there].abs()
        total = total + 40 * error.mean() if there.any() else total
        figures[name] = float(error.detach().mean())
    return total, figures
