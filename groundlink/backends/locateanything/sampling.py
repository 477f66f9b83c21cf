"""From logits to probabilities, to tokens, and to what the model thought of the tokens taken.

All functions take a batch of rows: B sequences, n rows each, V tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from groundlink.backends.locateanything.config import COORDINATES

Mode = Literal["fast", "slow", "hybrid"]
MODES: tuple[Mode, ...] = ("fast", "slow", "hybrid")


@dataclass(frozen=True)
class Settings:
    """How an answer is decoded. The defaults of the whole backend stand here."""

    mode: Mode = "hybrid"
    temperature: float = 0.0  # 0 takes the most probable token
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float = 1.1
    max_new_tokens: int = 8192
    seed: int = 0  # of the drawing, where the temperature is above 0
    parity: bool = False  # answer as the published model does: no help against repetition

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        sound = {
            f"mode {self.mode!r}": self.mode in MODES,
            f"temperature {self.temperature}": self.temperature == 0 or 1e-3 <= self.temperature < math.inf,
            f"top_p {self.top_p}": self.top_p is None or 0 < self.top_p <= 1,
            f"top_k {self.top_k}": self.top_k is None or self.top_k >= 1,
            f"repetition_penalty {self.repetition_penalty}": 0 < self.repetition_penalty < math.inf,
            f"max_new_tokens {self.max_new_tokens}": self.max_new_tokens >= 0,
        }
        for name, fine in sound.items():
            if not fine:
                raise ValueError(f"{name} has no meaning here")


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
