"""Packing samples into rows of one length, and what a pass over such rows takes.

Written after section 1.6 of the training spec: a buffer of samples, the largest first, filled up with the largest that
still fits. B is the number of packed rows, N their length, L the number of patches of all their pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from groundlink.backends.locateanything.config import PATCH
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.training.sequences import IGNORE, Encoded, visible

BUFFER = 32
PATIENCE = 64
"""Rows for which a sample may wait; then it goes before larger ones, which would else keep it waiting for ever."""

_K = TypeVar("_K")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[_K]):
    encoded: Encoded
    key: _K
    rows: int  # that were taken while it waited


class Packer(Generic[_K]):
    """Takes samples one by one and gives them back in groups of at most `max_tokens` rows.

    What waits in the buffer is kept with a key of the caller's, by which it can be had again.
    """

    def __init__(self, max_tokens: int, buffer: int = BUFFER) -> None:
        self.max_tokens = max_tokens
        self.buffer = buffer
        self.skipped = 0  # samples that were longer than a row
        self._waiting: list[_Waiting[_K]] = []

    @property
    def full(self) -> bool:
        """The buffer holds enough to choose from, and enough for a row; time to take one out."""
        return len(self._waiting) >= self.buffer and sum(len(w.encoded) for w in self._waiting) >= self.max_tokens

    @property
    def waiting(self) -> list[tuple[_K, int]]:
        """The keys of what is in the buffer, in its order, and for how many rows each has waited."""
        return [(waiting.key, waiting.rows) for waiting in self._waiting]

    def add(self, encoded: Encoded, key: _K, rows: int = 0) -> bool:
        """Put a sample into the buffer, or count it as skipped and return False where it is longer than a row.

        `rows` is for how many it has waited already.
        """
        if len(encoded) > self.max_tokens:
            self.skipped += 1
            return False
        self._waiting.append(_Waiting(encoded, key, rows))
        return True

    def take(self) -> list[Encoded]:
        """Take a row out of the buffer; an empty buffer gives an empty one."""
        room = self.max_tokens
        row: list[_Waiting[_K]] = []
        # The sort is stable, and the buffer in order of arrival: one that was restored gives the same rows.
        for waiting in sorted(self._waiting, key=lambda one: (one.rows < PATIENCE, -len(one.encoded))):
            if len(waiting.encoded) <= room:
                room -= len(waiting.encoded)
                row.append(waiting)
        self._waiting = [replace(one, rows=one.rows + 1) for one in self._waiting if one not in row]
        return [waiting.encoded for waiting in row]


def pack(samples: Iterable[Encoded], max_tokens: int, buffer: int = BUFFER) -> Iterator[list[Encoded]]:
    """Yield samples in packed rows until all are in one; those longer than a row are left out."""
    packer: Packer[None] = Packer(max_tokens, buffer)
    for encoded in samples:
        packer.add(encoded, None)
        if packer.full:
            yield packer.take()
    while row := packer.take():
        yield row


@dataclass(frozen=True)
class Batch:
    """Packed rows as tensors.

    Attributes:
        ids, positions, targets: `[B, N]` as in `Encoded`; of padding, the targets are `IGNORE`.
        mask: `[B, N, N]`, True where a row (second index) may look at a key (third).
        is_block: `[B, N]`, True for the rows of parallel blocks.
        patches: `[L, 3, 14, 14]`, uint8, in the order of the image tokens.
        grids: rows and columns of patches of the pictures.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    is_block: Tensor
    patches: Tensor
    grids: tuple[Grid, ...]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        ids, positions, targets, mask, is_block, patches = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.ids, self.positions, self.targets, self.mask, self.is_block, self.patches)
        )
        return Batch(ids, positions, targets, mask, is_block, patches, self.grids)


def collate(rows: Sequence[Sequence[Encoded]]) -> Batch:
    """Join the samples of each row and pad all rows to the longest."""
    length = max(sum(map(len, row)) for row in rows)
    shape = (len(rows), length)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    targets = torch.full(shape, IGNORE)
    is_block = torch.zeros(shape, dtype=torch.bool)
    # Outside of the samples' own squares nothing sees anything but itself.
    mask = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    for b, row in enumerate(rows):
        start = 0
        for encoded in row:
            own = slice(start, start + len(encoded))
            start = own.stop
            branch, block, place, limit = (
                torch.from_numpy(column) for column in (encoded.branch, encoded.block, encoded.positions, encoded.limit)
            )
            ids[b, own] = torch.from_numpy(encoded.ids)
            positions[b, own] = place
            targets[b, own] = torch.from_numpy(encoded.targets)
            is_block[b, own] = block >= 0
            mask[b, own, own] = visible(torch.zeros_like(branch), branch, block, place, limit)
    patches = [encoded.patches for row in rows for encoded in row]
    return Batch(
        ids,
        positions,
        targets,
        mask,
        is_block,
        torch.from_numpy(np.concatenate([np.zeros((0, 3, PATCH, PATCH), np.uint8), *patches])),
        tuple(grid for row in rows for encoded in row for grid in encoded.grids),
    )
