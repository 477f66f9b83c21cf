"""Where the language model should look while it says a box: at the words of what is asked, then at the cells of it.

The loss of a box tells little of where to look for as long as the box is not found; that is slow to learn with
thousands of steps, and hardly learned with as few as here. So some heads of two layers are told. Nothing of
this is left in the model but where they look.
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

AT_WORDS, AT_CELLS = 1, 2  # the layers
HEADS = (0, 2)
_COVERED = 0.35  # of a cell, by the box


class Guide:
    """The loss of looking elsewhere, in rows that predict coordinates, ordinary and parallel alike.

    At cells, the look should be anywhere on the box; at words, on all of them alike.

    Args:
        model: is watched from now on, in passes without recomputation.

    Attributes:
        figures: the share of the look that is at the right words and cells, running means.
    """

    def __init__(self, model: LocateAnything) -> None:
        self.figures: dict[str, float] = {}
        self._model = model
        self._seen: dict[str, Tensor] = {}
        for number in (AT_WORDS, AT_CELLS):
            layer = model.language_model.model.layers[number]
            assert isinstance(layer, Layer)
            for name, part in (("q", layer.self_attn.q_proj), ("k", layer.self_attn.k_proj)):
                part.register_forward_hook(partial(self._keep, f"{name}{number}"))

    def _keep(self, name: str, module: Any, given: Any, told: Tensor) -> None:
        self._seen[name] = told

    def __call__(self, images: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the pass that was made last, which was over this batch; the images are not asked."""
        boxes = boxes_of(batch, self._model)
        cells = cells_of_tokens(batch, self._model)
        asked = [(~row[:, 0].isnan()).nonzero()[:, 0] for row in boxes]
        on_words = [words_of(batch, b, rows, self._model) for b, rows in enumerate(asked)]
        on_cells = [batch.mask[b, rows] & _on(boxes[b, rows], cells[b]) for b, rows in enumerate(asked)]
        return self._looks("cells", AT_CELLS, batch, asked, on_cells) + self._looks(
            "words", AT_WORDS, batch, asked, on_words
        )

    def _looks(self, name: str, layer: int, batch: Batch, asked: list[Tensor], on: list[Tensor]) -> Tensor:
        """Return the loss of the heads of a layer.

        Args:
            name: `cells` or `words`.
            layer: its number.
            batch: B rows of N.
            asked: the rows that should look somewhere, `[n]` for each of B.
            on: the keys that they should look at, `[n, N]` for each of B; those without any are free.
        """
        config = self._model.config.text
        q, k = (torch.unflatten(self._seen.pop(f"{n}{layer}").float(), -1, (-1, config.head_dim)) for n in "qk")
        cos, sin = rotary_table(batch.positions, config, q.dtype)
        q, k = (rotate_halves(x.transpose(1, 2), cos, sin) for x in (q, k))
        shared = q.shape[1] // k.shape[1]
        losses, shares = [], []
        for b, known in enumerate(on):
            there = known.any(-1)
            rows, wanted = asked[b][there], known[there]
            for head in HEADS:
                logits = q[b, head, rows] @ k[b, head // shared].T * config.head_dim**-0.5
                logs = logits.masked_fill(~batch.mask[b, rows], -torch.inf).log_softmax(-1)
                share = logs.masked_fill(~wanted, -torch.inf).logsumexp(-1)
                each = logs.masked_fill(~wanted, 0).sum(-1) / wanted.sum(-1)
                losses.append(-share if name == "cells" else -each - wanted.sum(-1).log())
                shares.append(share.detach().exp())
        told = torch.cat(shares)
        if len(told):
            share = float(told.mean())
            self.figures[name] = 0.98 * self.figures.get(name, share) + 0.02 * share
        return torch.cat(losses).sum() / max(len(told), 1)


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


def words_of(batch: Batch, b: int, rows: Tensor, model: LocateAnything) -> Tensor:
    """Return which keys are the words of what rows `[n]` of a packed row are about, `[n, N]`.

    That is the label said last, else the question. Of a question it is the words behind its first token, which is the
    same for all of a task, up to the full stop.
    """
    ids, places, tokens = model.config.ids, batch.positions[b], batch.ids[b]
    seen = batch.mask[b, rows] & ~batch.is_block[b]

    def last(token: int) -> Tensor:
        return places.expand(seen.shape).masked_fill(~(seen & (tokens == token)), -1).amax(-1, keepdim=True)

    def first(token: int, behind: Tensor) -> Tensor:
        there = seen & (tokens == token) & (places > behind)
        return places.expand(seen.shape).masked_fill(~there, int(places.max()) + 1).amin(-1, keepdim=True)

    label, image = last(ids.ref_start), last(ids.image)
    in_label = (places > label) & (places < first(ids.ref_end, label))
    in_question = (places > image + 2) & (places < first(ids.end, image) - 1)
    return seen & torch.where(label >= 0, in_label, in_question & (image >= 0))


def _on(boxes: Tensor, cells: Tensor) -> Tensor:
    """Boxes `[n, 4]` and cells `[m, 4]` → which cells are on which box, `[n, m]`: a good part, or its middle.

    What is NaN is on nothing.
    """
    boxes, cells = boxes[:, None], cells[None]
    shared = torch.minimum(boxes[..., 2:], cells[..., 2:]) - torch.maximum(boxes[..., :2], cells[..., :2])
    covered = shared.clamp(min=0).prod(-1) >= _COVERED * (cells[..., 2:] - cells[..., :2]).prod(-1)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    inside = ((cells[..., :2] <= middle) & (middle < cells[..., 2:])).all(-1)
    return covered | inside
