"""How an answer is decoded: the one place of all defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["fast", "slow", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Settings:
    """How an answer is decoded.

    Attributes:
        mode: `fast` reads six tokens a step, `slow` one, `hybrid` six until a box is unclear and one until it is done.
        temperature: 0 takes the most probable tokens; above 0 tokens are drawn.
        top_p: draw from the most probable tokens that make up this much.
        top_k: draw from this many of the most probable tokens.
        repetition_penalty: how much less likely a token becomes once it has occurred, prompt included; 1: not.
        max_new_tokens: where an answer is cut; the last block may overshoot.
        seed: of the drawing; the same seed gives the same answer.
        parity: answer as the published model does, without our help against repetition.
    """

    mode: Mode = "hybrid"
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float = 1.1
    max_new_tokens: int = 8192
    seed: int = 0
    parity: bool = False

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        sound = {
            f"mode {self.mode!r}": self.mode in MODES,
            f"temperature {self.temperature}": self.temperature == 0 or 1e-3 <= self.temperature < math.inf,
            f"top_p {self.top_p}": self.top_p is None or 0 < self.top_p <= 1,
            f"top_k {self.top_k}": self.top_k is None or (is_count(self.top_k) and self.top_k >= 1),
            f"repetition_penalty {self.repetition_penalty}": 0 < self.repetition_penalty < math.inf,
            f"max_new_tokens {self.max_new_tokens}": is_count(self.max_new_tokens) and self.max_new_tokens >= 0,
            f"seed {self.seed}": is_count(self.seed) and 0 <= self.seed < 2**63,
            f"parity {self.parity!r}": isinstance(self.parity, bool),
        }
        for name, fine in sound.items():
            if not fine:
                raise ValueError(f"{name} has no meaning here")
