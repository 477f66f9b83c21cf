"""What is minimised: one mean cross-entropy over all labels, those of plain tokens and those of blocks alike.

B is the batch, N its rows, n the rows that have a label, D the hidden size, V the vocabulary. Source: spec 1.5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundlink.backends.locateanything.blocks import is_coordinate
from groundlink.backends.locateanything.config import COORDINATES, TokenIds
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.training.forward import hidden_rows, image_rows
from groundlink.training.packing import Batch
from groundlink.training.sequences import IGNORE
from groundlink.training.settings import TrainSettings

NEAR = COORDINATES // 100  # thousandths: a coordinate within one per cent of the side
CHUNK = 2048  # rows whose logits are held at once where memory is saved; at V = 152,681 they are 1.25 GB

ExtraLoss = Callable[[Tensor, Batch], Tensor]
"""A loss of the caller's own, of the image features `[L / 4, D]` and the batch."""

SUMS = ("plain loss", "plain labels", "block loss", "block labels", "exact", "near", "coordinates", "extra")
"""What a pass adds up, in this order."""


class Objective(nn.Module):
    """A model and the loss of a batch under it."""

    def __init__(self, model: LocateAnything, settings: TrainSettings, extra: ExtraLoss | None = None) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.extra = extra
        self.soft = SoftLabels(model.config.ids, settings.coordinate_spread, settings.structure_smoothing)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted sum of all labels' losses, the extra loss, and the sums of SUMS `[8]` without gradient.

        The first is for the caller to divide by the weight of all labels of a step, `weight_of`, so that a step of
        several passes is the same as one large pass.
        """
        model, recompute = self.model, self.settings.recompute
        images = model.embed(batch.ids.new_zeros(0))  # of a batch without pictures
        if batch.grids:
            images = image_rows(model, batch.patches, batch.grids, recompute=recompute)
        hidden = hidden_rows(model, batch.ids, batch.positions, batch.mask, images, recompute=recompute)
        labelled = batch.targets != IGNORE
        rows, labels, in_block = hidden[labelled], batch.targets[labelled], batch.is_block[labelled]
        losses, said = [], []
        for part in zip(*(torch.split(part, CHUNK) for part in (rows, labels, in_block))):
            loss, best = checkpoint(self._losses, *part, use_reentrant=False) if recompute else self._losses(*part)
            losses.append(loss)
            said.append(best)
        loss, best = torch.cat(losses), torch.cat(said)
        extra = loss.new_zeros(()) if self.extra is None else self.extra(images, batch).float()
        ids = model.config.ids
        weights = torch.where(in_block, self.settings.mtp_weight, 1.0)
        weights = torch.where(labels == ids.none, self.settings.none_weight * weights, weights)
        weighted = (weights * loss).sum()

        asked = is_coordinate(labels, ids)
        near = asked & is_coordinate(best, ids) & ((best - labels).abs() <= NEAR)
        plain = loss.detach() * ~in_block, ~in_block
        block = loss.detach() * in_block, in_block
        counted = (*plain, *block, asked & (best == labels), near, asked, extra.detach())
        return weighted, extra, torch.stack([part.sum(dtype=torch.float32) for part in counted])

    def weight_of(self, batch: Batch) -> float:
        """Return the weight of all labels of a batch, `None` counted like the others."""
        labelled = batch.targets != IGNORE
        blocks = int((labelled & batch.is_block).sum())
        return int(labelled.sum()) - blocks + self.settings.mtp_weight * blocks

    def _losses(self, rows: Tensor, labels: Tensor, in_block: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden rows `[n, D]` and labels → each row's loss in float32 and its most probable token, `[n]` both."""
        logits = self.model.language_model.logits(rows[None])[0]
        return self.soft(logits.log_softmax(-1), labels, in_block), logits.detach().argmax(-1)


class SoftLabels(nn.Module):
    """Cross-entropy against labels that may be spread over tokens of their kind; with 0 and 0, plain cross-entropy.

    `spread` makes the label of a coordinate c a Gaussian around it, of this many thousandths, cut at 0 and 1000 and
    scaled to one. `smoothing` is the share that the label of a block's structural token gives to the others, evenly.
    """

    def __init__(self, ids: TokenIds, spread: float, smoothing: float) -> None:
        super().__init__()
        self.ids, self.spread, self.smoothing = ids, spread, smoothing
        if spread > 0:
            value = torch.arange(COORDINATES, dtype=torch.float32)
            table = torch.softmax(-((value[:, None] - value) ** 2) / (2 * spread**2), -1)
            self.register_buffer("table", table, persistent=False)  # [coordinate, coordinate]
        structure = (ids.box_start, ids.box_end, ids.ref_start, ids.ref_end, ids.none, ids.null, ids.end)
        self.register_buffer("structure", torch.tensor(structure), persistent=False)

    def forward(self, logs: Tensor, labels: Tensor, in_block: Tensor) -> Tensor:
        """Logarithms of probabilities `[n, V]`, labels and whether they are a block's `[n]` → losses `[n]`."""
        losses = -logs.gather(-1, labels[:, None])[:, 0]
        if self.spread > 0:
            soft = is_coordinate(labels, self.ids)
            own = logs[soft, self.ids.coord_start : self.ids.coord_end + 1]
            losses = losses.masked_scatter(soft, self.of_coordinates(own, labels[soft] - self.ids.coord_start))
        if self.smoothing > 0:
            structure = self.get_buffer("structure")
            soft = in_block & (labels[:, None] == structure).any(-1)
            own = -logs[soft][:, structure].sum(-1)
            others = (own - losses[soft]) / (len(structure) - 1)
            losses = losses.masked_scatter(soft, (1 - self.smoothing) * losses[soft] + self.smoothing * others)
        return losses

    def of_coordinates(self, logs: Tensor, values: Tensor) -> Tensor:
        """Logarithms of the probabilities of the coordinates `[n, 1001]` and the true ones `[n]` → losses `[n]`."""
        if self.spread == 0:
            return -logs.gather(-1, values[:, None])[:, 0]
        # The table is a buffer, which mypy takes for a tensor or a module.
        return -(self.get_buffer("table")[values] * logs).sum(-1)
