"""Sampling without looking at the whole vocabulary more than once: exact where the answer lies among the leaders.

`sampling.py` says what has to come out. Here the rows' most probable tokens are found in one pass, and penalty, top-p,
top-k, drawing and block reading work on those few. Where they are too few to be sure, `short` says so, and the caller
takes the long way for that sequence. B sequences, n rows each, V tokens, K on the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundlink.backends.locateanything.blocks import TEXT_CANDIDATES
from groundlink.backends.locateanything.settings import Settings

LENGTH = 128
"""Tokens on the list. A box needs 5 of each row; the rest is for top-p on rows that are not sure of a coordinate."""
CHUNK = 128
"""Only chunks of the vocabulary whose largest logit is among the LENGTH largest can hold one of the leaders."""


@dataclass(frozen=True)
class Rules:
    """How each sequence is sampled, `[B]` each. What a sequence does without is set so that it changes nothing."""

    penalty: Tensor
    temperature: Tensor
    top_p: Tensor
    top_k: Tensor

    @classmethod
    def none(cls, batch: int, device: torch.device) -> Rules:
        """Make room for `batch` sequences without any rules."""
        ones = torch.ones(batch, device=device)
        return cls(ones, ones.clone(), ones * torch.inf, torch.full((batch,), 2**31, device=device))

    def put(self, slot: int, settings: Settings) -> None:
        """Set the rules of one sequence."""
        self.penalty[slot] = settings.repetition_penalty
        self.temperature[slot] = settings.temperature or 1.0
        top_p = settings.top_p or 1.0
        self.top_p[slot] = top_p if top_p < 1 else torch.inf
        self.top_k[slot] = settings.top_k or 2**31

    def first(self, count: int) -> Rules:
        """Return views of the first sequences."""
        return Rules(self.penalty[:count], self.temperature[:count], self.top_p[:count], self.top_k[:count])


def largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest of `[…, V]` and their places, in no order; of equals at the end, any."""
    whole = logits.shape[-1] // CHUNK * CHUNK
    if whole <= count * CHUNK:
        return logits.topk(count, -1, sorted=False)
    chunks = torch.unflatten(logits[..., :whole], -1, (-1, CHUNK))
    chosen = chunks.amax(-1).topk(count, -1, sorted=False).indices
    inner = torch.arange(CHUNK, device=logits.device)
    places = (chosen[..., None] * CHUNK + inner).flatten(-2)
    rest = torch.arange(whole, logits.shape[-1], device=logits.device).expand(*places.shape[:-1], -1)
    places = torch.cat((places, rest), -1)
    values, order = logits.gather(-1, places).topk(count, -1, sorted=False)
    return values, places.gather(-1, order)


class Shortlist:
    """The leading tokens of each row by final probability, equals in the order of their ids.

    Attributes:
        tokens: ids, `[B, n, K]`.
        probs: their probabilities; 0 for what top-p and top-k have removed.
        short: `[B, n]`, whether a row's answer may depend on tokens that are not on the list.
    """

    def __init__(self, logits: Tensor, seen: Tensor, rules: Rules, watched: Sequence[int], watch: Tensor) -> None:
        """Look at `logits` `[B, n, V]`.

        `seen` `[B, m]` are the ids that have occurred, in any order and number. `watched` are the ids that `at` may be
        asked about, and `watch` the same as a tensor on the device.
        """
        logits = _penalised(logits, seen, rules.penalty) / rules.temperature[:, None, None]
        values, tokens = largest(logits, min(LENGTH, logits.shape[-1]))
        tokens, order = tokens.sort(-1)
        everything = logits.softmax(-1)
        probs, by_probs = everything.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
        values, tokens = values.gather(-1, order).gather(-1, by_probs), tokens.gather(-1, by_probs)

        limited = ((rules.top_p < 1) | (rules.top_k < logits.shape[-1]))[:, None, None]
        last = (rules.top_k - 1).clamp(max=values.shape[-1] - 1)[:, None, None].expand(-1, values.shape[1], -1)
        within = probs.cumsum(-1)[..., :-1] <= rules.top_p[:, None, None]
        within = within & (values[..., 1:] >= values.gather(-1, last))
        kept = torch.nn.functional.pad(within, (1, 0), value=True)  # the first always, of a row of NaN too

        # What decides is the last token kept, or without limits the last one that a block's reading looks at. If it is
        # no more probable than the end of the list, equals may have been left out.
        decisive = torch.where(limited, kept.sum(-1, keepdim=True) - 1, TEXT_CANDIDATES - 1)
        least = probs.gather(-1, decisive)
        self.short = ((least > 0) & (least <= probs[..., -1:]))[..., 0]

        self.limited = limited[:, 0, 0]
        left = probs.where(kept, 0.0)
        self.probs = torch.where(limited, left / left.sum(-1, keepdim=True), probs)
        self.tokens = tokens
        on_list = ((tokens[..., None] == watch) * self.probs[..., None]).sum(-2)
        self._watched = torch.where(limited, on_list, everything[..., watch])
        self._column = {token: i for i, token in enumerate(watched)}

    def at(self, row: int, token: int) -> Tensor:
        """Return the probability of a watched token in a row, `[B]`."""
        return self._watched[:, row, self._column[token]]

    def leading(self, start: int, stop: int, count: int) -> tuple[Tensor, Tensor]:
        """Return values and ids of the `count` most probable tokens, `[B, stop - start, count]`.

        Where fewer have any probability, the lowest other ids follow with none.
        """
        probs, tokens = self.probs[:, start:stop, :count], self.tokens[:, start:stop, :count]
        have = probs > 0
        low = torch.arange(2 * count, device=tokens.device)
        taken = ((tokens[..., None] == low) & have[..., None]).any(-2)
        free = taken.to(torch.uint8).argsort(dim=-1, stable=True)
        place = low[:count]
        filler = free.gather(-1, (place - have.sum(-1, keepdim=True)).clamp(min=0))
        return probs, torch.where(have, tokens, filler)

    def best(self) -> Tensor:
        """Return the most probable token of each row, `[B, n]`."""
        return self.tokens[..., 0]

    def draw(self, uniform: Tensor) -> Tensor:
        """Take one token a row by numbers `[B, n]` in 0…1, as `sampling.draw` does; right where the list is limited."""
        tokens, order = self.tokens.sort(-1)
        cumulative = self.probs.gather(-1, order).double().cumsum(-1)
        taken = torch.searchsorted(cumulative, uniform.double()[..., None] * cumulative[..., -1:], right=True)
        return tokens.gather(-1, taken.clamp(max=tokens.shape[-1] - 1))[..., 0]


def _penalised(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Return a copy of `[B, n, V]` in which tokens that have occurred are less likely.

    By their ids, since a mask over the vocabulary would be read and written for a few hundred of them.
    """
    places = seen[:, None].expand(-1, logits.shape[1], -1)
    picked, penalty = logits.gather(-1, places), penalty[:, None, None]
    return logits.scatter(-1, places, torch.where(picked > 0, picked / penalty, picked * penalty))
