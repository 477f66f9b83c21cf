"""The language model: a Qwen2 decoder over a cache of fixed size, first filled in one pass and then stepped.

Names of modules are those of the checkpoint's tensors. B is the batch, R the rows of a pass, H the query heads, G the
query heads that share one key head, D the hidden size, V the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundlink.backends.locateanything.config import TextConfig


@dataclass(frozen=True)
class Rows:
    """Where the rows of a pass stand.

    `cos` and `sin` `[B, 1, R, head_dim]` are their rotary tables, `slots` `[B, R]` their places in the cache, `mask`
    `[B, R, T]` which of the first T slots each of them sees. No mask: the cache is empty and rows see causally.
    """

    cos: Tensor
    sin: Tensor
    slots: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Cache:
    """Keys and values of all layers, `[layers, B, key heads, capacity, head_dim]`, written in place."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, config: TextConfig, batch: int, capacity: int, like: Tensor) -> Cache:
        """Make a cache on the device and of the type of `like`."""
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim)
        return cls(like.new_zeros(shape), like.new_zeros(shape))


class PackedLayer(NamedTuple):
    """The weights of a layer, with those that read the same rows in one matrix."""

    input_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Packed(NamedTuple):
    """All weights of the language model but the embeddings."""

    layers: list[PackedLayer]
    norm: Tensor
    head: Tensor


def _join(*parameters: Tensor) -> Tensor:
    """Return the parameters in one tensor, and make each of them a view of its part."""
    joined = torch.cat([parameter.data for parameter in parameters])
    for parameter, part in zip(parameters, torch.split(joined, [len(p) for p in parameters]), strict=True):
        parameter.data = part
    return joined


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale `[…, D]` to a root mean square of one, computed in float32, and weigh it."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """Scale to a root mean square of one, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`[…, D]` → `[…, D]`."""
        return rms_norm(x, self.weight, self.eps)


def rotary_table(positions: Tensor, config: TextConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine `[B, 1, R, head_dim]` for positions `[B, R]`, in the model's own type as published."""
    pair = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device)
    frequency = 1.0 / config.rope_theta ** (pair / config.head_dim)
    angles = positions[:, None, :, None].float() * frequency
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (j, j + head_dim/2) of `[B, H, R, head_dim]`."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Attention(nn.Module):
    """Attention in which several query heads share a key head."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.key_heads = config.num_key_value_heads
        width, key_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, key_width)
        self.v_proj = nn.Linear(width, key_width)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rows: Rows, keys: Tensor, values: Tensor) -> Tensor:
        """`[B, R, D]` → `[B, R, D]`, writing the rows' own keys and values into this layer's cache."""
        q, k, v = (
            torch.unflatten(proj(x), -1, (-1, self.head_dim)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate_halves(q, rows.cos, rows.sin), rotate_halves(k, rows.cos, rows.sin)
        index = rows.slots[:, None, :, None].expand_as(k)
        keys.scatter_(2, index, k)
        values.scatter_(2, index, v)
        if rows.mask is None:
            # Here a copy of the keys is cheap beside the pass itself, and lets every fast kernel take it.
            k, v = (t.repeat_interleave(q.shape[1] // self.key_heads, 1) for t in (k, v))
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            # The query heads of one key head become rows of one head, so that keys need no copies.
            span = rows.mask.shape[-1]
            group = q.shape[1] // self.key_heads
            q = torch.unflatten(q, 1, (self.key_heads, group)).flatten(2, 3)
            mask = rows.mask.repeat(1, group, 1)[:, None]
            seen = F.scaled_dot_product_attention(q, keys[:, :, :span], values[:, :, :span], attn_mask=mask)
            seen = torch.unflatten(seen, 2, (group, -1)).flatten(1, 2)
        mixed: Tensor = self.o_proj(seen.transpose(1, 2).flatten(2))
        return mixed


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[…, D]` → `[…, D]`."""
        down: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class Layer(nn.Module):
    """Attention, then the MLP, both on normalised input."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, rows: Rows, keys: Tensor, values: Tensor) -> Tensor:
        """`[B, R, D]` → `[B, R, D]`."""
        x = x + self.self_attn(self.input_layernorm(x), rows, keys, values)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out

    def packed(self) -> PackedLayer:
        """Return the weights for inference, of which the modules keep views."""
        attention, mlp = self.self_attn, self.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return PackedLayer(
            self.input_layernorm.weight.data,
            _join(*(projection.weight for projection in projections)),
            _join(*(projection.bias for projection in projections)),
            attention.o_proj.weight.data,
            self.post_attention_layernorm.weight.data,
            _join(mlp.gate_proj.weight, mlp.up_proj.weight),
            mlp.down_proj.weight.data,
        )


class Decoder(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, slots: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """`[B, R, D]` → `[B, R, D]`, before the last norm."""
        rows = Rows(*rotary_table(positions, self.config, x.dtype), slots, mask)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = layer(x, rows, keys, values)
        return x


class LanguageModel(nn.Module):
    """The decoder and its output matrix, which may be the embedding matrix."""

    def __init__(self, config: TextConfig, tied: bool) -> None:
        super().__init__()
        self.model = Decoder(config)
        self.lm_head = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._packed: Packed | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Hidden rows `[B, n, D]` → float32 `[B, n, V]`; give it only the rows that are read."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(self.model.norm(x), head.weight).float()

    def packed(self) -> Packed:
        """Lay the weights out for inference, once. The modules keep views of them, so nothing is held twice."""
        if self._packed is None:
            layers = [layer.packed() for layer in self.model.layers if isinstance(layer, Layer)]
            head = self.model.embed_tokens if self.lm_head is None else self.lm_head
            self._packed = Packed(layers, self.model.norm.weight.data, head.weight.data)
        return self._packed
