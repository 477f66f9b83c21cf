"""The whole model: vision tower, connector, language model, and the three passes that decoding is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundlink.backends.locateanything.config import MERGE, WINDOW, Config
from groundlink.backends.locateanything.language import Cache, LanguageModel
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.backends.locateanything.vision import LAYER_NORM_EPS, VisionTower


class LocateAnything(nn.Module):
    """Pictures and tokens in, logits out. B is the batch, R the rows of a pass, D the language model's hidden size."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        joined = MERGE**2 * config.vision.hidden_size
        self.vision_model = VisionTower(config.vision)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(joined, LAYER_NORM_EPS),
            nn.Linear(joined, config.text.hidden_size),
            nn.GELU(),
            nn.Linear(config.text.hidden_size, config.text.hidden_size),
        )
        self.language_model = LanguageModel(config.text, config.tied)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.language_model.model.embed_tokens.weight.device

    def encode_images(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Patches `[L, 3, 14, 14]` of all pictures → `[L / 4, D]`, one row for each image token."""
        weight = self.vision_model.patch_embed.proj.weight
        rows: Tensor = self.mlp1(self.vision_model(patches.to(weight), grids))
        return rows

    def embed(self, ids: Tensor) -> Tensor:
        """`[B, R]` → `[B, R, D]`."""
        rows: Tensor = self.language_model.model.embed_tokens(ids)
        return rows

    def embed_prompt(self, ids: Tensor, images: Tensor) -> Tensor:
        """`[B, R]` → `[B, R, D]`, with `images` `[n, D]` in the place of the n image tokens, in order."""
        return self.embed(ids).masked_scatter((ids == self.config.ids.image)[..., None], images)

    def new_cache(self, batch: int, length: int) -> Cache:
        """Make an empty cache for sequences that grow to `length` tokens, with room for the steps' windows."""
        like = self.language_model.model.embed_tokens.weight
        return Cache.empty(self.config.text, batch, length + 2 * WINDOW, like)

    def prefill(self, rows: Tensor, cache: Cache) -> None:
        """Fill an empty cache from embedded tokens `[B, R, D]`; nobody reads their logits."""
        places = torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[:2])
        self.language_model.model(rows, places, places, None, cache)

    def step(self, ids: Tensor, positions: Tensor, cached: Tensor, mask: Tensor, *, cache: Cache, last: int) -> Tensor:
        """Run tokens `[B, R]` at `positions` `[B, R]`, seeing by `mask` `[B, R, T]`; return the `last` rows' logits.

        Their keys and values go behind the `cached` `[B]` tokens of each sequence. What is kept of them is for the
        caller to say, by the next step's `cached`.
        """
        slots = cached[:, None] + torch.arange(ids.shape[1], device=ids.device)
        hidden = self.language_model.model(self.embed(ids), positions, slots, mask, cache)
        return self.language_model.logits(hidden[:, -last:])
