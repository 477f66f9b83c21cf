"""The vision tower, MoonViT: pictures of any size in one packed sequence, each attending only to itself.

Names of modules are those of the checkpoint's tensors. L is the number of patches of all pictures, D the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundlink.backends.locateanything.config import MERGE, PATCH, VisionConfig
from groundlink.backends.locateanything.preprocessing import Grid

LAYER_NORM_EPS = 1e-5
ROPE_BASE = 10000.0


def normalise(patches: Tensor) -> Tensor:
    """Map 0…255 to −1…1 in float32, in the order of operations that the model was trained with."""
    return (patches.float() / 255 - 0.5) / 0.5


class PositionGrid(nn.Module):
    """A learned position per cell, resized to the grid of each picture."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        shape = (config.init_pos_emb_height, config.init_pos_emb_width, config.hidden_size)
        self.weight = nn.Parameter(torch.empty(shape))

    def forward(self, grid: Grid) -> Tensor:
        """Return `[rows·columns, D]`."""
        if grid == tuple(self.weight.shape[:2]):
            return self.weight.flatten(0, 1)
        table = self.weight.permute(2, 0, 1)[None].float()
        resized = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        return resized[0].permute(1, 2, 0).flatten(0, 1).to(self.weight.dtype)


class PatchEmbed(nn.Module):
    """Each patch through one 14×14 convolution, plus its position."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, PATCH, stride=PATCH)
        self.pos_emb = PositionGrid(config)

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """`[L, 3, 14, 14]` → `[L, D]`."""
        # A convolution over a patch of its own size is a matrix product.
        x = F.linear(patches.flatten(1), self.proj.weight.flatten(1), self.proj.bias)
        return x + torch.cat([self.pos_emb(grid) for grid in grids])


def rotary_angles(grids: Sequence[Grid], head_dim: int, device: torch.device) -> Tensor:
    """Return `[L, head_dim / 2]`: the angle of each pair, by turns from the patch's column and from its row."""
    i = torch.arange(head_dim // 4, dtype=torch.float32, device=device)
    frequency = ROPE_BASE ** (-4 * i / head_dim)
    angles = []
    for rows, columns in grids:
        row = torch.arange(rows, device=device).repeat_interleave(columns)
        column = torch.arange(columns, device=device).repeat(rows)
        place = torch.stack((column, row), -1).float()
        angles.append((frequency[None, :, None] * place[:, None, :]).flatten(1))
    return torch.cat(angles)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the adjacent pairs (2j, 2j+1) of `[L, heads, head_dim]` by the angles `[L, 1, head_dim / 2]`, in float32."""
    even, odd = torch.unflatten(x.float(), -1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


class Mlp(nn.Module):
    """Two linear layers with the tanh form of GELU between."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc0 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc1 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """`[L, D]` → `[L, D]`."""
        hidden: Tensor = self.fc1(F.gelu(self.fc0(x), approximate="tanh"))
        return hidden


class Block(nn.Module):
    """One layer: attention inside each picture, then the MLP, both on normalised input."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.heads = config.num_attention_heads
        self.norm0 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.norm1 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.wqkv = nn.Linear(dim, 3 * dim)
        self.wo = nn.Linear(dim, dim)
        self.mlp = Mlp(config)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: list[int]) -> Tensor:
        """`[L, D]` → `[L, D]`."""
        q, k, v = torch.unflatten(self.wqkv(x), -1, (3, self.heads, -1)).unbind(-3)
        q, k = rotate_pairs(q, cos, sin), rotate_pairs(k, cos, sin)
        # One call per picture, 4-D and without a mask: what the fast kernels want, and no L×L table.
        seen = [
            F.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in picture))[0].transpose(0, 1)
            for picture in zip(*(torch.split(t, lengths) for t in (q, k, v)), strict=True)
        ]
        mixed: Tensor = self.wo(torch.cat(seen).flatten(1))
        return mixed

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: list[int]) -> Tensor:
        """`[L, D]` → `[L, D]`."""
        x = x + self.attention(self.norm0(x), cos, sin, lengths)
        out: Tensor = x + self.mlp(self.norm1(x))
        return out


class Encoder(nn.Module):
    """All layers and the last norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, LAYER_NORM_EPS)

    def forward(self, x: Tensor, grids: Sequence[Grid]) -> Tensor:
        """`[L, D]` → `[L, D]`."""
        angles = rotary_angles(grids, self.head_dim, x.device)[:, None]
        cos, sin = angles.cos(), angles.sin()
        for block in self.blocks:
            x = block(x, cos, sin, [rows * columns for rows, columns in grids])
        normed: Tensor = self.final_layernorm(x)
        return normed


def join_neighbours(x: Tensor, grid: Grid) -> Tensor:
    """`[rows·columns, D]` → `[rows·columns / 4, 4·D]`: top-left, top-right, bottom-left, bottom-right."""
    rows, columns = grid
    cells = x.view(rows // MERGE, MERGE, columns // MERGE, MERGE, -1)
    return cells.transpose(1, 2).flatten(2).flatten(0, 1)


class VisionTower(nn.Module):
    """Patches in, one vector for each 2×2 patches out."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config)
        self.encoder = Encoder(config)

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """`[L, 3, 14, 14]` → `[L / 4, 4·D]`, pictures one after the other."""
        x = self.encoder(self.patch_embed(patches, grids), grids)
        lengths = [rows * columns for rows, columns in grids]
        return torch.cat(
            [join_neighbours(part, grid) for part, grid in zip(torch.split(x, lengths), grids, strict=True)]
        )
