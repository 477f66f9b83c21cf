"""The first stage: the vision tower learns what lies on each patch of a picture, before it hears of any language.

Every patch is told the smallest thing on it (which shape, icon or word, in what colour, with what box) and the control
or block around it. Linear heads read that off the connector's output and are thrown away afterwards; what stays is a
tower whose rows say what is where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groundlink.backends.locateanything.config import MERGE
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.errors import BadData
from groundlink.training.packing import Batch
from groundlink.training.samples import Sample
from groundlink.training.scenes import Scene, Scenes, draw
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


class CellScenes(Scenes):
    """Scenes whose samples know what lies on each patch."""

    def sample(self, index: int) -> Sample:
        """Return the scene of a number."""
        scene, asked = draw(self.split, index, self.questions, self.seed)
        return replace(self.sample_of(scene, asked, index), cells=lambda grids: cells_of(scene, grids[0]))


def cells_of(scene: Scene, grid: Grid) -> NDArray[np.float32]:
    """Return the truth about each patch of a grid, row by row, `[n, 12]`.

    Four classes (thing, its colour, area, whether it is on), then the boxes of thing and area in 0…1; NaN for none.
    """
    rows, columns = grid
    truth = np.full((rows, columns, 12), np.nan, np.float32)
    classes, boxes = truth[..., :4], truth[..., 4:]
    classes[..., 0] = classes[..., 2] = 0
    classes[..., 1] = classes[..., 3] = IGNORE
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
    return truth.reshape(-1, 12)


def _patches(low: float, high: float, count: int) -> slice:
    """Return the patches of a side that a thing covers by a good part; at least one."""
    first = int(np.clip(np.floor(low * count + 0.35), 0, count - 1))
    return slice(first, max(first + 1, int(np.ceil(high * count - 0.35))))


class Heads(nn.Module):
    """Reads the truth about the four patches of each image token, `[n, D]`, in the order of the patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, MERGE**2 * sum(_WIDTHS))

    def forward(self, rows: Tensor, grids: Sequence[Grid]) -> tuple[Tensor, ...]:
        """Return what is said of all patches: thing, colour, area, on, box, box, each `[L, …]`."""
        told = self.read(rows).float()
        sizes = [h * w // MERGE**2 for h, w in grids]
        parts = []
        for part, (h, w) in zip(torch.split(told, sizes), grids, strict=True):
            cells = part.view(h // MERGE, w // MERGE, MERGE, MERGE, -1)
            parts.append(cells.transpose(1, 2).reshape(h * w, -1))
        return torch.split(torch.cat(parts), _WIDTHS, -1)


class CellLoss(nn.Module):
    """The loss of what the heads say of the patches of a batch; also the figures of the last one.

    Attributes:
        weight: of this loss beside the others.
        figures: the share of things, colours, areas and states that are right, the mean error of boxes in 0…1.
    """

    def __init__(self, width: int, weight: float = 1.0) -> None:
        super().__init__()
        self.heads = Heads(width)
        self.weight = weight
        self.figures: dict[str, float] = {}

    def forward(self, rows: Tensor, batch: Batch) -> Tensor:
        """Image features `[n, D]` of a batch whose samples know their cells → the weighted loss."""
        if batch.cells is None:
            raise BadData("the samples do not know their cells; draw them from CellScenes")
        return self.weight * self.loss(rows, batch.grids, batch.cells)

    def loss(self, rows: Tensor, grids: Sequence[Grid], truth: Tensor) -> Tensor:
        """Image features `[n, D]` and the truth `[4·n, 12]` → the loss."""
        *told, thing_box, area_box = self.heads(rows, grids)
        total = rows.new_zeros((), dtype=torch.float32)
        for number, (name, logits) in enumerate(zip(("thing", "colour", "area", "on"), told, strict=True)):
            wanted = truth[:, number].long()
            known = wanted != IGNORE
            weight = known.float()
            if name in ("thing", "area"):  # most patches have nothing on them
                weight = weight.where(wanted != 0, _BACKGROUND)
            losses = F.cross_entropy(logits, wanted.clamp(min=0), reduction="none")
            total = total + (losses * weight).sum() / weight.sum().clamp(min=1)
            known &= (wanted != 0) if name in ("thing", "area") else known
            self._note(name, (logits.argmax(-1) == wanted)[known].float())
        for name, said, wanted in (("box", thing_box, truth[:, 4:8]), ("area box", area_box, truth[:, 8:])):
            error = (said - wanted)[~wanted[:, 0].isnan()].abs()
            total = total + (40 * error.mean() if len(error) else 0)
            self._note(name, error.detach())
        return total

    def _note(self, name: str, values: Tensor) -> None:
        """Keep a running mean."""
        if values.numel():
            value = float(values.mean())
            self.figures[name] = 0.98 * self.figures.get(name, value) + 0.02 * value
