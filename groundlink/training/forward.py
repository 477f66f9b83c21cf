"""One pass over packed rows with gradients: no cache, every row with a mask of its own.

B is the batch, N its rows, D the language model's hidden size. The modules and their weights are those that decoding
uses (`groundlink.backends.locateanything`); only the attention is laid out differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from groundlink.backends.locateanything.language import Layer, rotary_table, rotate_halves
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.backends.locateanything.vision import normalise


def image_rows(model: LocateAnything, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Patches `[L, 3, 14, 14]` in 0…255 → `[L / 4, D]`, one row for each image token."""
    rows: Tensor = model.mlp1(model.vision_model(normalise(patches), grids))
    return rows


def hidden_rows(
    model: LocateAnything, ids: Tensor, positions: Tensor, mask: Tensor, images: Tensor, *, recompute: bool = False
) -> Tensor:
    """Run tokens `[B, N]` at positions `[B, N]`, seeing by a boolean mask `[B, N, N]`; return `[B, N, D]`.

    `images` `[n, D]` take the places of the n image tokens, in order. What comes back is before the last norm, as
    `LanguageModel.logits` takes it. `recompute` saves memory: layers are computed again on the way back.
    """
    x = model.embed(ids)
    x = x.masked_scatter((ids == model.config.ids.image)[..., None], images.to(x.dtype))
    decoder = model.language_model.model
    cos, sin = rotary_table(positions, model.config.text, x.dtype)
    for module in decoder.layers:
        layer = cast(Layer, module)
        if recompute:
            x = cast(Tensor, checkpoint(_layer, layer, x, cos, sin, mask, use_reentrant=False))
        else:
            x = _layer(layer, x, cos, sin, mask)
    return x


def _layer(layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    q, k, v = (
        torch.unflatten(projection(normed), -1, (-1, attention.head_dim)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = rotate_halves(q, cos.to(q.dtype), sin.to(q.dtype)), rotate_halves(k, cos.to(k.dtype), sin.to(k.dtype))
    k, v = (t.repeat_interleave(q.shape[1] // attention.key_heads, 1) for t in (k, v))
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    x = x + attention.o_proj(seen.transpose(1, 2).flatten(2))
    out: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
    return out
