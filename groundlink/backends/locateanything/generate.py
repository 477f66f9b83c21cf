"""The decoding loop in its three modes: short, clear, one sequence, and the oracle for every faster engine.

The notation is that of the model: S is all tokens so far, G their number, C the number whose keys and values are
cached. A step feeds S[C:G], and in parallel mode a window of six rows behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from groundlink.backends.locateanything.blocks import Dense, Kind, decode_block, is_coordinate, read_block
from groundlink.backends.locateanything.config import WINDOW, TokenIds
from groundlink.backends.locateanything.sampling import draw, probabilities, raw_figures
from groundlink.backends.locateanything.settings import Settings

Finish = Literal["end", "token_limit", "garbled"]


class Step(Protocol):
    """One pass over a few rows: `LocateAnything.step` with its cache filled up to all of the prompt but the last token.

    All tensors have a batch dimension, here of one: `ids`, `positions` `[1, R]`, `cached` `[1]`, `mask` `[1, R, T]`.
    Returns the logits of the `last` rows, `[1, last, V]` in float32.
    """

    def __call__(self, ids: Tensor, positions: Tensor, cached: Tensor, mask: Tensor, last: int) -> Tensor:
        """Run the pass."""


@dataclass(frozen=True)
class Accepted:
    """The tokens taken in one step, with what the model thought of each."""

    tokens: list[int]
    log_probs: list[float]  # raw: before penalty, temperature and filters
    spreads: list[float]  # standard deviation in thousandths of a side, if the token is a coordinate
    kind: Kind | None  # of the block; None in a token-by-token step
    sampled: list[int]  # the most probable or drawn token of each row
    block: list[int] | None  # what the rows were read as together, if they were
    finish: Finish | None  # why nothing comes after this


def step_rows(sequence: Tensor, cached: int, window: bool, text_mask: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out a step over `sequence` `[B, G]`: its input ids and positions `[B, R]`, and its mask `[B, R, T]`.

    Without a window that is the tokens after the `cached` first ones, seeing causally. The window is a copy of the
    last token, at the same position, and five masks. Its rows see each other and everything before the last token,
    which they see as their copy; the tokens don't see the window. Column t of the mask is the key in slot t.
    """
    batch, length = sequence.shape
    device = sequence.device
    place = torch.arange(length + WINDOW if window else length, device=device)
    mask = place[None, :] <= place[cached:, None]
    ids, positions = sequence[:, cached:], place[cached:length]
    if window:
        masks = sequence.new_full((batch, WINDOW - 1), text_mask)
        ids = torch.cat((ids, sequence[:, -1:], masks), 1)
        positions = torch.cat((positions, place[length:] - 1))
        mask[-WINDOW:] = place != length - 1
    return ids, positions.expand(batch, -1), mask.expand(batch, -1, -1)


@dataclass(frozen=True)
class Choice:
    """What is taken of the rows of one step, of one sequence."""

    tokens: Tensor  # [1, n]
    kind: Kind | None
    sampled: Tensor  # [1, rows]
    block: Tensor | None  # [1, 6], where the rows were read together
    parallel: bool  # how it goes on
    finish: Finish | None


def choose(logits: Tensor, seen: Tensor, settings: Settings, parallel: bool, numbers: Tensor, ids: TokenIds) -> Choice:
    """Choose tokens by raw logits `[1, rows, V]`, the tokens `seen` `[1, V]`, and `numbers` `[1, 6]` to draw by."""
    hybrid = settings.mode == "hybrid"
    probs = probabilities(logits, seen, settings)
    sampled = draw(probs, numbers[:, : probs.shape[1]]) if settings.temperature > 0 else probs.argmax(-1)
    if parallel:
        block, together = decode_block(Dense(probs), sampled, hybrid, ids)
        tokens, count, kinds = read_block(block, hybrid, ids)
        kind = Kind(int(kinds))
        finish: Finish | None = "end" if kind == Kind.IM_END else None
        read = block if together.item() else None
        return Choice(tokens[:, : int(count)], kind, sampled, read, kind != Kind.ERROR_BOX, finish)
    if int(sampled) == ids.end:
        return Choice(sampled, None, sampled, None, False, "end")
    closes = hybrid and int(sampled) == ids.box_end
    goes_on = closes or not hybrid or bool(is_coordinate(sampled, ids) | (sampled == ids.none))
    return Choice(sampled, None, sampled, None, closes, None if goes_on else "garbled")


def answer_limit(prompt_length: int, settings: Settings, max_length: int | None) -> int:
    """Return the number of tokens, prompt included, at which no more are asked for."""
    limit = prompt_length + settings.max_new_tokens
    return limit if max_length is None else min(limit, max_length)


def generate(
    step: Step,
    prompt: Tensor,
    vocab_size: int,
    ids: TokenIds,
    *,
    settings: Settings,
    max_length: int | None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Accepted]:
    """Answer a prompt `[1, G]`, yielding tokens as they are taken. `check` is called before each step and may raise.

    The limit is looked at before a step only, so a last block may overshoot it; a limit of nothing yields nothing.
    """
    sequence, cached = prompt, prompt.shape[1] - 1
    limit = answer_limit(cached + 1, settings, max_length)
    seen = torch.zeros(1, vocab_size, dtype=torch.bool, device=prompt.device).scatter_(1, prompt, True)
    numbers = torch.Generator().manual_seed(settings.seed)  # on the host, so that all devices draw alike
    parallel = settings.mode != "slow"

    while sequence.shape[1] < limit:
        check()
        rows, positions, mask = step_rows(sequence, cached, parallel, ids.text_mask)
        logits = step(rows, positions, sequence.new_tensor([cached]), mask, WINDOW if parallel else 1)
        uniform = torch.rand(1, WINDOW, generator=numbers).to(prompt.device)
        choice = choose(logits, seen, settings, parallel, uniform, ids)
        parallel, finish, tokens = choice.parallel, choice.finish, choice.tokens

        # Row i of a block is where its token i was read from.
        log_probs, spreads = raw_figures(logits[:, : tokens.shape[1]], tokens, ids.coord_start)
        cached = sequence.shape[1]
        sequence = torch.cat((sequence, tokens), 1)
        seen.scatter_(1, tokens, True)
        if finish is None and sequence.shape[1] >= limit:
            finish = "token_limit"
        yield Accepted(
            tokens[0].tolist(),
            log_probs[0].tolist(),
            spreads[0].tolist(),
            choice.kind,
            choice.sampled[0].tolist(),
            None if choice.block is None else choice.block[0].tolist(),
            finish,
        )
        if finish in ("end", "garbled"):
            return
