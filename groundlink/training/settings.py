"""The settings of a training, with all their defaults."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from groundlink.errors import BadData

WARMUP = 500
PARTS = {"vision": "vision_model.", "connector": "mlp1.", "language": "language_model."}
"""Words for parts of the model, and how the names of their tensors begin."""

HARMLESS = frozenset({"checkpoint_every", "keep", "log_every", "workers"})
"""Settings that may be others when a training goes on: no weight depends on them."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The defaults are those of the published fine-tuning, laid out for one device.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: the highest; it falls along a cosine to `learning_rate_floor`, a share of it, at the last step.
        warmup_steps: steps in which it rises first; None for 500, but a tenth of all steps at most.
        muon_rate: 0 to train everything with AdamW. Above: the highest rate of Muon (torch 2.9), which then trains the
            matrices of the layers, along the same curve; a small model learns from fewer steps with it.
        weight_decay: of matrices; norms, biases, and tables of embeddings and positions do not decay.
        betas: of AdamW.
        clip: the greatest norm of all gradients together.
        rows: packed rows in a pass.
        max_tokens: tokens of a packed row, its blocks included; longer samples are left out and counted.
        accumulation: passes whose gradients make one step.
        mtp_weight: of the labels of blocks, beside 1 for those of plain tokens.
        none_weight: of the label `None`, which says that nothing is there, beside 1 for others. Greedy decoding takes
            it where it is likelier than the one best coordinate, however much all coordinates have together; with
            `coordinate_spread` they share so widely that what is there is denied too often. A weight of about what the
            best one has at most, 0.4 / `coordinate_spread`, makes up for that (an option of our own).
        precision: of the computation: `float32`, `bfloat16`, or `auto`: bfloat16 where the device is made for it.
            Weights in training are float32 always.
        save_as: type of the weights in checkpoints: `float32`, `bfloat16`, or `auto` for that of the model given.
        recompute: save memory by computing layers twice.
        coordinate_spread: 0 for plain labels. Above: the label of a coordinate is a Gaussian over its neighbours, this
            many thousandths wide (an option of our own, for small models).
        structure_smoothing: share of the label that structural tokens of blocks give to the other ones, so that no
            coordinate stands among a block's likely tokens where none belongs (an option of our own).
        freeze: what is not trained: `vision`, `connector`, `language`, or how the names of tensors begin.
        seed: of the initial weights where there are none, and of whatever is random in training itself.
        checkpoint_every: steps between checkpoints.
        keep: checkpoints that are kept.
        log_every: steps between lines of the log.
        workers: threads that prepare data; 0 for none beside the training.

    Raises:
        BadData: a value is out of its range or of another type.
    """

    steps: int = 1000
    learning_rate: float = 2e-5
    learning_rate_floor: float = 0.0
    warmup_steps: int | None = None
    muon_rate: float = 0.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    rows: int = 1
    max_tokens: int = 4096
    accumulation: int = 8
    mtp_weight: float = 1.0
    none_weight: float = 1.0
    precision: str = "auto"
    save_as: str = "auto"
    recompute: bool = True
    coordinate_spread: float = 0.0
    structure_smoothing: float = 0.0
    freeze: tuple[str, ...] = ()
    seed: int = 0
    checkpoint_every: int = 500
    keep: int = 2
    log_every: int = 10
    workers: int = 2

    def __post_init__(self) -> None:
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if name == "warmup_steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadData(f"the setting {name} is {value!r}; it is a whole number of at least {least}")
        for name, (lowest, most) in _NUMBERS.items():
            value = getattr(self, name)
            if not _is_number(value) or not lowest <= value <= most:
                raise BadData(f"the setting {name} is {value!r}; it is a number from {lowest:g} to {most:g}")
        if not isinstance(self.recompute, bool):
            raise BadData(f"the setting recompute is {self.recompute!r}; it is true or false")
        if self.learning_rate == 0 or self.clip == 0:
            raise BadData("the settings learning_rate and clip are greater than 0; with 0 nothing would be learnt")
        for name in ("precision", "save_as"):
            if getattr(self, name) not in ("auto", "float32", "bfloat16"):
                raise BadData(f"the setting {name} is {getattr(self, name)!r}; it is auto, float32 or bfloat16")
        betas, freeze = self.betas, (self.freeze,) if isinstance(self.freeze, str) else self.freeze
        if (
            not isinstance(betas, list | tuple)
            or len(betas) != 2
            or not all(_is_number(b) and 0 <= b < 1 for b in betas)
        ):
            raise BadData(f"the setting betas is {betas!r}; it is two numbers of at least 0 and below 1")
        if not isinstance(freeze, list | tuple) or not all(isinstance(part, str) and part for part in freeze):
            raise BadData(f"the setting freeze is {freeze!r}; it is a list such as {list(PARTS)!r}")
        object.__setattr__(self, "betas", tuple(betas))
        object.__setattr__(self, "freeze", tuple(freeze))
        if self.warmup >= self.steps:
            raise BadData(f"the setting warmup_steps is {self.warmup}, which leaves none of {self.steps} steps")

    @classmethod
    def of(cls, values: dict[str, Any]) -> TrainSettings:
        """Make settings of a JSON object; what it lacks has its default.

        Raises:
            BadData: a name that is no setting, or a value that does not fit.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise BadData(f"{name!r} is no setting of the training; {hint}")
        return cls(**values)

    @property
    def warmup(self) -> int:
        """Steps of rising learning rate."""
        return min(WARMUP, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        share = self.learning_rate_floor + (1 - self.learning_rate_floor) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * share

    def is_frozen(self, name: str) -> bool:
        """Tell whether the tensor of that name is not trained."""
        return any(name.startswith(PARTS.get(part, part)) for part in self.freeze)


def recipe_settings(recipe: Path) -> dict[str, Any]:
    """Return the settings that a recipe may have beside its data sets, by the key `settings`.

    Raises:
        BadData: they are no object. Whatever else is wrong with a recipe, `read_recipe` says.
    """
    try:
        raw = json.loads(recipe.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    settings = raw.get("settings", {}) if isinstance(raw, dict) else {}
    if not isinstance(settings, dict):
        raise BadData(f"{recipe}: 'settings' is {settings!r:.40}, not an object of names and values")
    return settings


_COUNTS = {
    "steps": 1,
    "warmup_steps": 0,
    "rows": 1,
    "max_tokens": 32,
    "accumulation": 1,
    "seed": 0,
    "checkpoint_every": 1,
    "keep": 1,
    "log_every": 1,
    "workers": 0,
}
_NUMBERS = {
    "learning_rate": (0.0, 1.0),
    "learning_rate_floor": (0.0, 1.0),
    "muon_rate": (0.0, 1.0),
    "weight_decay": (0.0, 1.0),
    "clip": (0.0, 1e9),
    "mtp_weight": (0.0, 100.0),
    "none_weight": (0.0, 100.0),
    "coordinate_spread": (0.0, 1000.0),
    "structure_smoothing": (0.0, 0.5),
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
