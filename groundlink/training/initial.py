"""Models without weights, and weights for them."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.weights import Checkpoint, open_settings

STANDARD = 0.02  # deviation of the initial weights
_RESIDUAL = ("o_proj.weight", "down_proj.weight", "wo.weight", "fc1.weight")  # what a layer adds to its input


def from_nothing(folder: Path, seed: int) -> Checkpoint:
    """Return a new model of a folder's config and tokenizer, on the CPU in float32; weights there are not looked at.

    Raises:
        WeightsInvalid: the config or the tokenizer is missing or broken, or they disagree.
    """
    config, tokenizer = open_settings(folder)
    with torch.device("meta"):
        model = LocateAnything(config)
    model.to_empty(device="cpu")
    initialise(model, seed)
    return Checkpoint(folder, config, tokenizer, model)


@torch.no_grad()
def initialise(model: LocateAnything, seed: int) -> None:
    """Give a model its first weights, the same ones for the same seed.

    Norms are one and biases zero; the rest is normal with a deviation of 0.02, cut at two deviations. What layers add
    to their input is smaller by √(2 · layers), so that the sum of all does not grow with their number.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {
        "vision_model": model.config.vision.num_hidden_layers,
        "language_model": model.config.text.num_hidden_layers,
    }
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1)
        else:
            depth = layers.get(name.partition(".")[0], 1)
            deviation = STANDARD / math.sqrt(2 * depth) if name.endswith(_RESIDUAL) else STANDARD
            values = torch.empty(parameter.shape)
            torch.nn.init.trunc_normal_(values, 0, deviation, -2 * deviation, 2 * deviation, generator=generator)
            parameter.copy_(values)
