"""Where the language model should look while it says a box: on the cells of that box.

The loss of a box tells little of where to look, for as long as it is not found; with thousands of steps that is slow to
learn, and with so few it is not learned at all. So some heads of one layer are told. Nothing of this is left in the
model but where they look.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from groundlink.backends.locateanything.blocks import is_coordinate
from groundlink.backends.locateanything.config import COORDINATES, MERGE
from groundlink.backends.locateanything.language import Layer, rotary_table, rotate_halves
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.training.packing import Batch

LAYER, HEADS = 2, (0, 2)
_COVERED = 0.35  # of a cell, by the box


class Guide:
    """The loss of looking elsewhere; also how much of the look is on the box, a running mean.

    Looks are those of HEADS in LAYER, from the rows that predict coordinates, ordinary and parallel alike.

    Args:
        model: is watched from now on, in passes without recomputation.
    """

    def __init__(self, model: LocateAnything) -> None:
        self.figures: dict[str, float] = {}
        self._model = model
        self._seen: dict[str, Tensor] = {}
        layer = model.language_model.model.layers[LAYER]
        assert isinstance(layer, Layer)
        for name, part in (("q", layer.self_attn.q_proj), ("k", layer.self_attn.k_proj)):
            part.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: Any, given: Any, told: Tensor) -> None:
        self._seen[name] = told

    def __call__(self, images: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the pass that was made last, which was over this batch; the images are not asked."""
        model = self._model
        q, k = (torch.unflatten(self._seen.pop(n).float(), -1, (-1, model.config.text.head_dim)) for n in ("q", "k"))
        cos, sin = rotary_table(batch.positions, model.config.text, q.dtype)
        q, k = (rotate_halves(x.transpose(1, 2), cos, sin).transpose(1, 2) for x in (q, k))
        shared = q.shape[2] // k.shape[2]
        boxes = boxes_of(batch, model)
        cells = cells_of_tokens(batch, model)
        total, count = q.new_zeros(()), 0
        right = 0.0
        for b in range(len(batch.ids)):
            asked = ~boxes[b, :, 0].isnan()
            keys = ~cells[b, :, 0].isnan()
            on = _on(boxes[b, asked], cells[b, keys])
            may = batch.mask[b, asked][:, keys]
            known = (on & may).any(-1)
            on, may = (on & may)[known], batch.mask[b, asked][known]
            if not len(on):
                continue
            for head in HEADS:
                logits = q[b, asked][known, head] @ k[b, :, head // shared].T * model.config.text.head_dim**-0.5
                logs = logits.masked_fill(~may, -torch.inf).log_softmax(-1)[:, keys]
                found = logs.masked_fill(~on, -torch.inf).logsumexp(-1)
                total = total - found.sum()
                right += float(found.detach().exp().sum())
                count += len(found)
        if count:
            share = right / count
            self.figures["looks"] = 0.98 * self.figures.get("looks", share) + 0.02 * share
        return total / max(count, 1)


def boxes_of(batch: Batch, model: LocateAnything) -> Tensor:
    """Return the box in 0…1 whose coordinates a row predicts one of, `[B, N, 4]`; NaN for other rows.

    A point is a box of size 0.
    """
    ids = model.config.ids
    boxes = torch.full((*batch.targets.shape, 4), torch.nan, device=batch.targets.device)
    said = is_coordinate(batch.targets, ids)
    values = (batch.targets - ids.coord_start) / (COORDINATES - 1)
    edges = F.pad(said.int(), (1, 1)).diff()
    for b in range(len(boxes)):
        starts, stops = (edges[b] == 1).nonzero()[:, 0], (edges[b] == -1).nonzero()[:, 0]
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            if stop - start in (2, 4):
                boxes[b, start:stop] = values[b, start:stop].repeat(4 // (stop - start))
    return boxes


def cells_of_tokens(batch: Batch, model: LocateAnything) -> Tensor:
    """Return what an image token covers of its picture, corners in 0…1, `[B, N, 4]`; NaN for other tokens."""
    tables = []
    for grid in batch.grids:
        rows, columns = grid[0] // MERGE, grid[1] // MERGE
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        tables.append(torch.stack((x / columns, y / rows, (x + 1) / columns, (y + 1) / rows), -1).reshape(-1, 4))
    cells = torch.full((*batch.ids.shape, 4), torch.nan, device=batch.ids.device)
    if tables:
        cells[batch.ids == model.config.ids.image] = torch.cat(tables).to(cells)
    return cells


def _on(boxes: Tensor, cells: Tensor) -> Tensor:
    """Boxes `[n, 4]` and cells `[m, 4]` → which cells are on which box, `[n, m]`: a good part, or its middle."""
    boxes, cells = boxes[:, None], cells[None]
    shared = (torch.minimum(boxes[..., 2:], cells[..., 2:]) - torch.maximum(boxes[..., :2], cells[..., :2])).clamp(
        min=0
    )
    covered = shared.prod(-1) / (cells[..., 2:] - cells[..., :2]).prod(-1) >= _COVERED
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    inside = ((cells[..., :2] <= middle) & (middle < cells[..., 2:])).all(-1)
    return covered | inside
