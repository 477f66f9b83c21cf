"""From the six rows of a parallel step to a block of six tokens, and from a block to the tokens that are taken.

All functions take a batch and choose with tensors, never with the host's ifs, nor do they bring numbers from the host:
a CUDA graph can hold them. A block is `[B, 6]`; `hybrid` is `[B]`, or one for all.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from groundlink.backends.locateanything.config import WINDOW, TokenIds
from groundlink.backends.locateanything.sampling import leading

# When six rows look like a box that says "nothing here": least probabilities, the first inclusive, the others not.
EMPTY_BOX_START, EMPTY_NONE, EMPTY_BOX_END, EMPTY_NULL = 0.7, 0.2, 0.2, 0.1
LEGAL_END = 0.2  # least probability that the last row ends something
BOX_CANDIDATES = 4  # most probable tokens of a row among which a coordinate must be
SURE = 0.9  # a coordinate below this is looked at twice in hybrid mode
AMBIGUOUS_SPAN = 60  # … and is ambiguous where the row's candidates lie further apart
TEXT_START = 0.6  # least probability of `<ref>` for a block of text
TEXT_CANDIDATES = 5
INVALID = 0  # stands for an ambiguous coordinate in a block


class Kind(IntEnum):
    """What a block turned out to be."""

    IM_END = 0
    EMPTY_BOX = 1
    COORD_BOX = 2
    POINT_BOX = 3
    ERROR_BOX = 4
    REF_OBJECT = 5


class Distribution(Protocol):
    """The probabilities of the six rows of each sequence, however they are kept."""

    def at(self, row: int, token: int) -> Tensor:
        """Return the probability of a token in a row, `[B]`."""

    def leading(self, start: int, stop: int, count: int) -> tuple[Tensor, Tensor]:
        """Return values and ids `[B, stop - start, count]` of the most probable tokens, equals in order of their id."""


class Dense:
    """All probabilities, `[B, 6, V]`."""

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs

    def at(self, row: int, token: int) -> Tensor:
        """Return `[B]`."""
        return self.probs[:, row, token]

    def leading(self, start: int, stop: int, count: int) -> tuple[Tensor, Tensor]:
        """Return values and ids, `[B, stop - start, count]`."""
        return leading(self.probs[:, start:stop], count)


def is_coordinate(tokens: Tensor, ids: TokenIds) -> Tensor:
    """Tell which tokens are coordinates."""
    return (tokens >= ids.coord_start) & (tokens <= ids.coord_end)


def _for_all(hybrid: bool | Tensor, like: Tensor) -> Tensor:
    return hybrid if isinstance(hybrid, Tensor) else like.new_full((len(like),), hybrid, dtype=torch.bool)


def _first(flags: Tensor) -> Tensor:
    """Return the index of the first True along the last dimension, kept as a dimension of one."""
    return flags.to(torch.uint8).argmax(-1, keepdim=True)


def looks_empty(probs: Distribution, ids: TokenIds) -> Tensor:
    """Frame check, first part: `[B]`, whether the rows look like `<box>None</box>`."""
    return (
        (probs.at(0, ids.box_start) >= EMPTY_BOX_START)
        & (probs.at(1, ids.none) > EMPTY_NONE)
        & (probs.at(2, ids.box_end) > EMPTY_BOX_END)
        & (probs.at(3, ids.null) > EMPTY_NULL)
        & (probs.at(4, ids.null) > EMPTY_NULL)
    )


def looks_legal(probs: Distribution, ids: TokenIds) -> Tensor:
    """Frame check, second part: `[B]`, whether the last row ends something."""
    return probs.at(5, ids.box_end) + probs.at(5, ids.null) + probs.at(5, ids.end) >= LEGAL_END


def propose_box(values: Tensor, tokens: Tensor, hybrid: Tensor, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Return four coordinates `[B, 4]`, and `[B]` whether every row has one to propose.

    `values` and `tokens` are the candidates of rows 1–4, `[B, 4, BOX_CANDIDATES]`.
    """
    coords = is_coordinate(tokens, ids) & (values > 0)
    best = _first(coords)
    proposal = tokens.gather(-1, best)[..., 0]
    unsure = values.gather(-1, best)[..., 0] < SURE
    largest = tokens.where(coords, ids.coord_start).amax(-1)
    smallest = tokens.where(coords, ids.coord_end).amin(-1)
    ambiguous = hybrid[:, None] & unsure & (largest - smallest > AMBIGUOUS_SPAN)
    return proposal.masked_fill(ambiguous, INVALID), coords.any(-1).all(-1)


def propose_text(values: Tensor, tokens: Tensor, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Return five tokens of text `[B, 5]`, and `[B]` whether every row has one that is no coordinate.

    `values` and `tokens` are the candidates of rows 1–5, `[B, 5, TEXT_CANDIDATES]`.
    """
    words = ~(is_coordinate(tokens, ids) & (values > 0))
    return tokens.gather(-1, _first(words))[..., 0], words.any(-1).all(-1)


def decode_block(probs: Distribution, sampled: Tensor, hybrid: bool | Tensor, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Return the block, and `[B]` whether it was read from the rows together; if not, it is the `sampled` tokens."""
    batch = len(sampled)
    hybrid = _for_all(hybrid, sampled)

    def row(*parts: int | Tensor) -> Tensor:
        return torch.cat([sampled.new_full((batch, 1), p) if isinstance(p, int) else p for p in parts], -1)

    values, tokens = probs.leading(1, 6, TEXT_CANDIDATES)
    boxes = (values[:, :4, :BOX_CANDIDATES], tokens[:, :4, :BOX_CANDIDATES])
    coords, all_coords = propose_box(*boxes, hybrid, ids)
    text, all_words = propose_text(values, tokens, ids)

    is_empty = looks_empty(probs, ids)
    is_box = looks_legal(probs, ids) & all_coords
    is_text = (probs.at(0, ids.ref_start) >= TEXT_START) & all_words
    block = torch.where(is_text[:, None], row(ids.ref_start, text), sampled)
    block = torch.where(is_box[:, None], row(ids.box_start, coords, ids.box_end), block)
    empty = row(ids.box_start, ids.none, ids.box_end, ids.null, ids.null, ids.null)
    block = torch.where(is_empty[:, None], empty, block)
    return block, is_empty | is_box | is_text


def read_block(block: Tensor, hybrid: bool | Tensor, ids: TokenIds) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is taken: tokens `[B, 6]`, of which the first `[B]` count, and the `[B]` kinds.

    In hybrid mode an `ERROR_BOX` is a box broken off at the first token that is no coordinate, to be finished token by
    token; in fast mode there is none, and a box of anything is taken as it is.
    """
    hybrid = _for_all(hybrid, block)
    coords = is_coordinate(block, ids)
    is_end = (block[:, 0] == ids.null) | (block[:, 0] == ids.end)
    starts_box = block[:, 0] == ids.box_start
    is_empty = starts_box & (block[:, 1] == ids.none)
    is_box = starts_box & coords[:, 1:5].all(-1) & (block[:, 5] == ids.box_end)
    is_point = starts_box & coords[:, 1:3].all(-1) & (block[:, 3] == ids.box_end)

    # Text: up to the first <null>; of a doubled final </ref> one is dropped.
    nulls = torch.nn.functional.pad(block == ids.null, (0, 1), value=True)
    length = _first(nulls)
    pair = block.gather(-1, (length - 2 + torch.arange(2, device=block.device)).clamp(min=0))
    length = length[:, 0] - ((pair == ids.ref_end).all(-1) & (length[:, 0] >= 2)).long()

    kind = torch.full_like(length, Kind.REF_OBJECT)
    whole = torch.full_like(length, WINDOW)
    broken = coords[:, 1:5].long().cumprod(-1).sum(-1) + 1
    for chosen, name, count in (
        (starts_box & ~hybrid, Kind.COORD_BOX, whole),
        (starts_box & hybrid, Kind.ERROR_BOX, broken),
        (is_point, Kind.POINT_BOX, torch.full_like(length, 4)),
        (is_box, Kind.COORD_BOX, whole),
        (is_empty, Kind.EMPTY_BOX, torch.full_like(length, 3)),
        (is_end, Kind.IM_END, torch.ones_like(length)),
    ):
        kind = kind.masked_fill(chosen, name)
        length = torch.where(chosen, count, length)

    tokens = block.clone()
    tokens[:, 0] = block[:, 0].masked_fill(is_end, ids.end)
    tokens[:, 2] = block[:, 2].masked_fill(is_empty, ids.box_end)
    return tokens, length, kind
