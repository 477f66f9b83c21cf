"""Golden data as its README describes it; nothing here knows the sizes, ids or names of one particular set."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from groundlink.backends.locateanything.config import TokenIds
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.weights import Checkpoint, open_checkpoint

FOLDER = Path(os.environ.get("GROUNDLINK_GOLDEN") or Path(__file__).parent.parent / "golden")
CHECKPOINTS = sorted(path.parent.name for path in (FOLDER / "g2").glob("*/config.json"))


@cache
def read(name: str) -> Any:
    """Read a JSON file, plain or gzipped."""
    path = FOLDER / name
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_text("utf-8"))


@cache
def tensors() -> dict[str, Tensor]:
    """Read all tensors of g2."""
    with safe_open(FOLDER / "g2/tensors.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@cache
def checkpoint(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Open a checkpoint of g2."""
    return open_checkpoint(FOLDER / "g2" / name, torch.device(device), dtype)


def image(name: str) -> Image.Image:
    """Open a picture as it is stored."""
    picture = Image.open(FOLDER / name)
    picture.load()
    return picture


def case_input(case: str) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Return prompt ids `[1, L]`, patches `[P, 3, 14, 14]` and grids of a case of g2."""
    stored = tensors()
    grids = [(rows, columns) for rows, columns in stored[f"in.{case}.grid_hws"].tolist()]
    return stored[f"in.{case}.input_ids"].long()[None], to_float(stored[f"in.{case}.pixel_values_u8"]), grids


def to_float(pixels: Tensor) -> Tensor:
    """Return stored uint8 pixels as the model takes them."""
    return (pixels.float() / 255 - 0.5) / 0.5


def token_ids(names: dict[str, int]) -> TokenIds:
    """Read the token ids that g3 and g4 are written in. They have no images."""
    renamed = {"im_end": "end", "default_mask": "text_mask"}
    known = {key.removesuffix("_token_id"): value for key, value in names.items()}
    known = {renamed.get(key, key): value for key, value in known.items()} | {"image": -1}
    return TokenIds(**{key: known[key] for key in TokenIds.__annotations__})


def settings(case: dict[str, Any]) -> Settings:
    """Read how a case was decoded."""
    keys = ("mode", "temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
    return Settings(**{key: case[key] for key in keys if key in case})


def dense(background: list[float], entries: list[Any], vocab_size: int) -> Tensor:
    """Return sparse logits as `[1, rows, V]`."""
    logits = torch.tensor(background)[:, None].repeat(1, vocab_size)
    for row, token, value in entries:
        logits[row, token] = value
    return logits[None]


def seen_mask(generated: list[int], vocab_size: int) -> Tensor:
    """Return `[1, V]`: the tokens that have occurred."""
    mask = torch.zeros(1, vocab_size, dtype=torch.bool)
    mask[0, generated] = True
    return mask
