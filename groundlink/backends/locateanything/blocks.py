"""From the six rows of a parallel step to a block of six tokens, and from a block to the tokens that are taken.

All functions take a batch and choose with tensors, never with the host's ifs. `probs` is `[B, 6, V]`, a block `[B, 6]`.
"""

from __future__ import annotations

from enum import IntEnum

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


def is_coordinate(tokens: Tensor, ids: TokenIds) -> Tensor:
    """Tell which tokens are coordinates."""
    return (tokens >= ids.coord_start) & (tokens <= ids.coord_end)


def _candidates(probs: Tensor, count: int, ids: TokenIds) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities and ids of the leading tokens, and which are coordinates of more than no probability."""
    values, tokens = leading(probs, count)
    return values, tokens, is_coordinate(tokens, ids) & (values > 0)


def _first(flags: Tensor) -> Tensor:
    """Return the index of the first True along the last dimension, kept as a dimension of one."""
    return flags.to(torch.uint8).argmax(-1, keepdim=True)


def looks_empty(probs: Tensor, ids: TokenIds) -> Tensor:
    """Frame check, first part: `[B]`, whether the rows look like `<box>None</box>`."""
    return (
        (probs[:, 0, ids.box_start] >= EMPTY_BOX_START)
        & (probs[:, 1, ids.none] > EMPTY_NONE)
        & (probs[:, 2, ids.box_end] > EMPTY_BOX_END)
        & (probs[:, 3, ids.null] > EMPTY_NULL)
        & (probs[:, 4, ids.null] > EMPTY_NULL)
    )


def looks_legal(probs: Tensor, ids: TokenIds) -> Tensor:
    """Frame check, second part: `[B]`, whether the last row ends something."""
    return probs[:, 5, ids.box_end] + probs[:, 5, ids.null] + probs[:, 5, ids.end] >= LEGAL_END


def propose_box(probs: Tensor, hybrid: bool, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Return four coordinates `[B, 4]` from rows 1–4, and `[B]` whether every row has one to propose."""
    values, tokens, coords = _candidates(probs[:, 1:5], BOX_CANDIDATES, ids)
    best = _first(coords)
    proposal = tokens.gather(-1, best)[..., 0]
    if hybrid:
        unsure = values.gather(-1, best)[..., 0] < SURE
        largest = tokens.where(coords, ids.coord_start).amax(-1)
        smallest = tokens.where(coords, ids.coord_end).amin(-1)
        proposal = proposal.masked_fill(unsure & (largest - smallest > AMBIGUOUS_SPAN), INVALID)
    return proposal, coords.any(-1).all(-1)


def propose_text(probs: Tensor, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Return five tokens of text `[B, 5]` from rows 1–5, and `[B]` whether the block is one of text."""
    _, tokens, coords = _candidates(probs[:, 1:], TEXT_CANDIDATES, ids)
    text = tokens.gather(-1, _first(~coords))[..., 0]
    return text, (probs[:, 0, ids.ref_start] >= TEXT_START) & (~coords).any(-1).all(-1)


def decode_block(probs: Tensor, sampled: Tensor, hybrid: bool, ids: TokenIds) -> tuple[Tensor, Tensor]:
    """Return the block, and `[B]` whether it was read from the rows together; if not, it is the `sampled` tokens."""
    batch = len(probs)

    def around(start: int, inner: Tensor, end: int | None = None) -> Tensor:
        parts = [inner.new_full((batch, 1), start), inner]
        return torch.cat(parts if end is None else [*parts, inner.new_full((batch, 1), end)], -1)

    empty_ids = (ids.box_start, ids.none, ids.box_end, ids.null, ids.null, ids.null)
    empty = torch.tensor(empty_ids, device=sampled.device).expand(batch, WINDOW)
    coords, all_coords = propose_box(probs, hybrid, ids)
    text, is_text = propose_text(probs, ids)

    is_empty = looks_empty(probs, ids)
    is_box = looks_legal(probs, ids) & all_coords
    block = torch.where(is_text[:, None], around(ids.ref_start, text), sampled)
    block = torch.where(is_box[:, None], around(ids.box_start, coords, ids.box_end), block)
    block = torch.where(is_empty[:, None], empty, block)
    return block, is_empty | is_box | is_text


def read_block(block: Tensor, hybrid: bool, ids: TokenIds) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is taken: tokens `[B, 6]`, of which the first `[B]` count, and the `[B]` kinds.

    In hybrid mode an `ERROR_BOX` is a box broken off at the first token that is no coordinate, to be finished token by
    token; in fast mode there is none, and a box of anything is taken as it is.
    """
    coords = is_coordinate(block, ids)
    is_end = (block[:, 0] == ids.null) | (block[:, 0] == ids.end)
    starts_box = block[:, 0] == ids.box_start
    is_empty = starts_box & (block[:, 1] == ids.none)
    is_box = starts_box & coords[:, 1:5].all(-1) & (block[:, 5] == ids.box_end)
    is_point = starts_box & coords[:, 1:3].all(-1) & (block[:, 3] == ids.box_end)

    # Text: up to the first <null>; of a doubled final </ref> one is dropped.
    nulls = torch.nn.functional.pad(block == ids.null, (0, 1), value=True)
    length = _first(nulls)
    pair = block.gather(-1, (length - torch.tensor([2, 1], device=block.device)).clamp(min=0))
    length = length[:, 0] - ((pair == ids.ref_end).all(-1) & (length[:, 0] >= 2)).long()

    kind = torch.full_like(length, Kind.REF_OBJECT)
    broken = coords[:, 1:5].long().cumprod(-1).sum(-1) + 1 if hybrid else torch.full_like(length, WINDOW)
    for chosen, name, count in (
        (starts_box, Kind.ERROR_BOX if hybrid else Kind.COORD_BOX, broken),
        (is_point, Kind.POINT_BOX, torch.full_like(length, 4)),
        (is_box, Kind.COORD_BOX, torch.full_like(length, WINDOW)),
        (is_empty, Kind.EMPTY_BOX, torch.full_like(length, 3)),
        (is_end, Kind.IM_END, torch.ones_like(length)),
    ):
        kind = kind.masked_fill(chosen, name)
        length = torch.where(chosen, count, length)

    tokens = block.clone()
    tokens[:, 0] = block[:, 0].masked_fill(is_end, ids.end)
    tokens[:, 2] = block[:, 2].masked_fill(is_empty, ids.box_end)
    return tokens, length, kind
