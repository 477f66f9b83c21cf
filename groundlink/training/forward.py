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

from groundlink.backends.locateanything.config import MERGE
from groundlink.backends.locateanything.language import Layer, rotary_table, rotate_halves
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.backends.locateanything.vision import Block, normalise, rotary_angles

_SMALL = 1024  # rows: below, a CPU is twice to three times as fast, back included, by plain products as by its kernel


def image_rows(model: LocateAnything, patches: Tensor, grids: Sequence[Grid], *, recompute: bool = False) -> Tensor:
    """Patches `[L, 3, 14, 14]` in 0…255 → `[L / 4, D]`, one row for each image token.

    Pictures with the same grid are computed together.
    """
    pictures = torch.split(patches, [rows * columns for rows, columns in grids])
    told: list[Tensor] = [patches] * len(grids)
    for grid in dict.fromkeys(grids):
        places = [place for place, other in enumerate(grids) if other == grid]
        same = _pictures(model, torch.cat([pictures[place] for place in places]), grid, len(places), recompute)
        for place, rows in zip(places, same.chunk(len(places)), strict=True):
            told[place] = rows
    features: Tensor = model.mlp1(torch.cat(told))
    return features


def _pictures(model: LocateAnything, patches: Tensor, grid: Grid, count: int, recompute: bool) -> Tensor:
    """Pictures of one grid, `[count·L, 3, 14, 14]` → `[count·L / 4, 4·D]`, as `VisionTower.forward` does it."""
    tower = model.vision_model
    projection = tower.patch_embed.proj
    x = F.linear(normalise(patches).flatten(1), projection.weight.flatten(1), projection.bias)
    x = torch.unflatten(x, 0, (count, -1)) + tower.patch_embed.pos_emb(grid)
    angles = rotary_angles([grid], tower.encoder.head_dim, x.device)[:, None]
    cos, sin = angles.cos(), angles.sin()
    for module in tower.encoder.blocks:
        block = cast(Block, module)
        if recompute:
            x = cast(Tensor, checkpoint(_vision_layer, block, x, cos, sin, use_reentrant=False))
        else:
            x = _vision_layer(block, x, cos, sin)
    x = tower.encoder.final_layernorm(x)
    cells = torch.unflatten(x, 1, (grid[0] // MERGE, MERGE, grid[1] // MERGE, MERGE))
    return cells.transpose(2, 3).flatten(3).flatten(0, 2)


def _vision_layer(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q, k, v = torch.unflatten(block.wqkv(block.norm0(x)), -1, (3, block.heads, -1)).unbind(-3)
    cos, sin = cos.to(q.dtype), sin.to(q.dtype)
    q, k, v = (t.transpose(1, 2) for t in (_turn(q, cos, sin), _turn(k, cos, sin), v))
    if x.is_cpu and x.shape[1] <= _SMALL:
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1).to(v.dtype)
        seen = weights @ v
    else:
        seen = F.scaled_dot_product_attention(q, k, v)
    x = x + block.wo(seen.transpose(1, 2).flatten(2))
    out: Tensor = x + block.mlp(block.norm1(x))
    return out


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the adjacent pairs of `[…, L, heads, head_dim]`, as `vision.rotate_pairs` does, in the type of `x`."""
    even, odd = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


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
    if x.is_cpu and ids.shape[1] <= _SMALL:
        mask = x.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)  # to be added
    for module in decoder.layers:
        layer = cast(Layer, module)
        if recompute:
            x = cast(Tensor, checkpoint(_layer, layer, x, cos, sin, mask, use_reentrant=False))
        else:
            x = _layer(layer, x, cos, sin, mask)
    return x


def _layer(layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    """Run one layer; the mask says which keys a row sees, or is added to the products with all of them."""
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    q, k, v = (
        torch.unflatten(projection(normed), -1, (-1, attention.head_dim)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = rotate_halves(q, cos.to(q.dtype), sin.to(q.dtype)), rotate_halves(k, cos.to(k.dtype), sin.to(k.dtype))
    k, v = (t.repeat_interleave(q.shape[1] // attention.key_heads, 1) for t in (k, v))
    if mask.dtype == torch.bool:
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    else:
        logits = (q * attention.head_dim**-0.5) @ k.transpose(-1, -2)
        seen = (logits + mask[:, None].to(logits.dtype)).softmax(-1).to(v.dtype) @ v
    x = x + attention.o_proj(seen.transpose(1, 2).flatten(2))
    out: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
    return out
