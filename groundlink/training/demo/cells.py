"""What lies on each cell of a picture, as a loss: the tower learns it before the model learns to answer.

A cell is one image token, 28×28 pixels. It is told the thing at its middle (which shape, icon or word, in what colour)
and the control or block around that, each with its box. All of it is read off the connector's output. A place is read
by linear heads that end in the language model's output matrix of coordinates; a thing first by a linear head, which
learns soonest, then by the likeness of its cell to the embeddings of the words of its name. So the language model
finds the words of a question on cells by likeness, and says what it finds there. The heads are thrown away afterwards.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groundlink.backends.locateanything.config import COORDINATES, MERGE
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.backends.locateanything.prompt import Tokenizer
from groundlink.training.demo.blank import output_matrix
from groundlink.training.objective import SoftLabels
from groundlink.training.scenes import Scene
from groundlink.training.scenes.drawing import ICONS, SHAPES
from groundlink.training.scenes.layout import COLOURS, WORDS

SMALL_KINDS = ("shape", "icon", "text")
LARGE_KINDS = ("button", "field", "checkbox", "tab", "title", "paragraph", "picture", "table")
IGNORE = -100

_SMALL = {name: i + 1 for i, name in enumerate([*SHAPES, *(f"{icon} icon" for icon in ICONS), *WORDS])}  # 0: nothing
_LARGE = {name: i + 1 for i, name in enumerate(LARGE_KINDS)}
_COLOURS = {name: i for i, name in enumerate(COLOURS)}
_BOXES = 8  # corners of the thing, corners of the area
_BACKGROUND = 0.15  # weight of a cell with nothing on it


def cells_of(scene: Scene, grid: Grid) -> NDArray[np.float32]:
    """Return the truth about each cell of a grid of patches, row by row, `[n, 12]`.

    Four classes (thing, its colour, area, whether it is on), then the boxes of thing and area in 0…1; NaN for none.
    """
    rows, columns = grid[0] // MERGE, grid[1] // MERGE
    truth = np.full((rows, columns, 12), np.nan, np.float32)
    truth[..., 0] = truth[..., 2] = 0
    truth[..., 1] = truth[..., 3] = IGNORE
    width, height = scene.image.size
    boxes = [np.array(item.box, np.float32) / (width, height, width, height) for item in scene.items]
    # Small things are written over large ones, and each thing over all others where its own middle is.
    order = sorted(range(len(boxes)), key=lambda i: -float(np.prod(boxes[i][2:] - boxes[i][:2])))
    for middle in (False, True):
        for i in order:
            item, (x1, y1, x2, y2) = scene.items[i], boxes[i]
            if middle:
                across, down = (_span((a + b) / 2, (a + b) / 2, n) for a, b, n in ((x1, x2, columns), (y1, y2, rows)))
            else:
                across, down = _span(x1, x2, columns), _span(y1, y2, rows)
            cells = truth[down, across]
            if item.kind in SMALL_KINDS:
                name = f"{item.name} icon" if item.kind == "icon" else item.name
                cells[..., 0] = _SMALL.get(name, IGNORE)  # a text of two words has no class of its own
                cells[..., 1] = _COLOURS.get(item.colour or "", IGNORE)
                cells[..., 4:8] = boxes[i]
            else:
                cells[..., 2] = _LARGE[item.kind]
                cells[..., 3] = int(item.on) if item.kind in ("checkbox", "tab") else IGNORE
                cells[..., 8:] = boxes[i]
    return truth.reshape(-1, 12)


def _span(low: float, high: float, count: int) -> slice:
    """Return the cells of a side that a thing covers by a good part; at least one."""
    first = min(int(low * count + 0.35), count - 1) if low < high else min(int(low * count), count - 1)
    return slice(first, max(first + 1, math.ceil(high * count - 0.35)) if low < high else first + 1)


class CellLoss(nn.Module):
    """The loss of what linear heads say of the cells of a batch; also the figures of the last batches.

    Args:
        model: whose embeddings and output matrix are used. It is no part of this module.
        tokenizer: the model's. A word stands for its first token, in all the ways that questions write it.
        spread: width of the labels of coordinates, in thousandths.
        by_name: things are known by the words of their names, not by a linear head.

    Attributes:
        figures: the share of things, colours, areas and states that are right; that of coordinates within 1 %.
    """

    names: Tensor

    def __init__(self, model: LocateAnything, tokenizer: Tokenizer, spread: float, *, by_name: bool) -> None:
        super().__init__()
        width = model.config.text.hidden_size
        groups = ([*_SMALL], [*_COLOURS], [name.replace("checkbox", "check box") for name in _LARGE])
        self._groups = [len(group) for group in groups]
        names = torch.zeros(sum(self._groups), len(model.language_model.model.embed_tokens.weight))
        for row, name in zip(names, itertools.chain(*groups), strict=True):
            writings = {text.format(word) for word in name.split() for text in ("{}", " {}")}
            if name in WORDS:
                writings |= {writing.lower() for writing in writings}
            for writing in writings:
                row[tokenizer.encode(writing)[0]] += 1 / len(writings)
        self.register_buffer("names", names)
        self.sharpness = nn.Parameter(torch.full((len(groups),), 4 / math.sqrt(width)))
        self.classes = None if by_name else nn.Linear(width, sum(self._groups))
        self.others = nn.Linear(width, 4)  # no thing, no area, off, on
        self.boxes = nn.Linear(width, _BOXES * width)
        self.figures: dict[str, float] = {}
        self._soft = SoftLabels(model.config.ids, spread, 0.0)
        self._model = (model,)  # in a tuple, which nn.Module does not look into

    def forward(self, rows: Tensor, truth: Tensor) -> Tensor:
        """Image features `[n, D]` and the truth `[n, 12]` → the loss."""
        rows = F.layer_norm(rows, rows.shape[-1:])
        if self.classes is None:
            names = self.names @ self._model[0].language_model.model.embed_tokens.weight
            likeness = torch.split(F.linear(rows, names).float(), self._groups, -1)
            things, colours, areas = (logits * by for logits, by in zip(likeness, self.sharpness, strict=True))
        else:
            things, colours, areas = torch.split(self.classes(rows).float(), self._groups, -1)
        nothing, empty, *on = self.others(rows).float().chunk(4, -1)
        told = (torch.cat([nothing, things], -1), colours, torch.cat([empty, areas], -1), torch.cat(on, -1))
        total = rows.new_zeros((), dtype=torch.float32)
        for number, (name, logits) in enumerate(zip(("thing", "colour", "area", "on"), told, strict=True)):
            wanted = truth[:, number].long()
            known = wanted != IGNORE
            weight = known.float()
            if name in ("thing", "area"):  # most cells have nothing on them
                weight = weight.where(wanted != 0, _BACKGROUND)
            losses = F.cross_entropy(logits, wanted.clamp(min=0), reduction="none")
            total = total + (losses * weight).sum() / weight.sum().clamp(min=1)
            known &= (wanted != 0) if name in ("thing", "area") else known
            self._note(name, (logits.argmax(-1) == wanted)[known])
        return total + self._places(rows, truth[:, 4:])

    def _places(self, rows: Tensor, truth: Tensor) -> Tensor:
        model = self._model[0]
        there = ~truth.isnan()
        said = torch.unflatten(self.boxes(rows), -1, (_BOXES, -1))[there]
        if not len(said):
            return rows.new_zeros((), dtype=torch.float32)
        table = output_matrix(model)
        first = model.config.ids.coord_start
        wanted = (truth[there] * (COORDINATES - 1)).round().long()
        logits = F.linear(F.rms_norm(said, said.shape[-1:]), table[first : first + COORDINATES]).float()
        self._note("places", (logits.argmax(-1) - wanted).abs() <= COORDINATES // 100)
        loss: Tensor = self._soft.of_coordinates(logits.log_softmax(-1), wanted).mean()
        return 2 * loss

    def _note(self, name: str, right: Tensor) -> None:
        """Keep a running mean."""
        if right.numel():
            value = float(right.float().mean())
            self.figures[name] = 0.98 * self.figures.get(name, value) + 0.02 * value
