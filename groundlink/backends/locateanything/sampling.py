"""From logits to probabilities, to tokens, and to what the model thought of the tokens taken.

All functions take a batch of rows: B sequences, n rows each, V tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundlink.backends.locateanything.config import COORDINATES
from groundlink.backends.locateanything.settings import Settings


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make the tokens marked in `seen` `[B, V]` less likely in every row of `[B, n, V]`."""
    if penalty == 1:
        return logits
    lower = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen[:, None], lower, logits)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the most probable tokens until their sum exceeds `top_p`, the one that does so included."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    exceeded = ordered.softmax(-1).cumsum(-1) > top_p
    # What is removed comes after the first that exceeds, and is never the top one.
    removed = torch.cat((torch.zeros_like(exceeded[..., :1]), exceeded[..., :-1]), -1)
    return logits.masked_fill(torch.zeros_like(removed).scatter(-1, order, removed), -torch.inf)


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Keep the tokens that are not below the k-th largest."""
    least = logits.topk(min(top_k, logits.shape[-1]), -1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def probabilities(logits: Tensor, seen: Tensor, settings: Settings) -> Tensor:
    """Return the probabilities that tokens are taken from and all thresholds look at, `[B, n, V]`."""
    logits = penalise(logits, seen, settings.repetition_penalty)
    if settings.temperature > 0:
        logits = logits / settings.temperature
    if settings.top_p is not None and settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    return logits.softmax(-1)


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Take one token a row by numbers `[B, n]` in 0…1: where the cumulative probability passes them."""
    cumulative = probs.double().cumsum(-1)
    taken = torch.searchsorted(cumulative, uniform.double()[..., None] * cumulative[..., -1:], right=True)
    return taken[..., 0].clamp(max=probs.shape[-1] - 1)


def leading(probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` most probable tokens of each row and their ids, equals in the order of their ids.

    Rows are few and `count` is small, so taking the maximum so often costs less than sorting a vocabulary.
    """
    values, ids = [], []
    left = probs
    for _ in range(count):
        best = left.argmax(-1, keepdim=True)  # the first of equals
        values.append(probs.gather(-1, best))
        ids.append(best)
        left = left.scatter(-1, best, -1.0)
    return torch.cat(values, -1), torch.cat(ids, -1)


def raw_figures(logits: Tensor, taken: Tensor, coord_start: int) -> tuple[Tensor, Tensor]:
    """Return what the model itself thought: `[B, n]` log-probabilities of the tokens taken, and `[B, n]` spreads.

    Both are of the raw logits, at temperature 1, before penalty and filters. The spread is the standard deviation of
    the row's distribution over the coordinates alone, in thousandths of the image's side.
    """
    log_probs = logits.gather(-1, taken[..., None])[..., 0] - logits.logsumexp(-1)
    weights = logits[..., coord_start : coord_start + COORDINATES].double().softmax(-1)
    values = torch.arange(COORDINATES, dtype=weights.dtype, device=weights.device)
    mean = (weights * values).sum(-1, keepdim=True)
    return log_probs, (weights * (values - mean).square()).sum(-1).sqrt()
