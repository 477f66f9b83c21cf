"""LocateAnything the published way, from its description alone: the yardstick of the other benchmarks.

    python benchmarks/plain.py                   # 293M in float32 on the CPU, or 3B in bfloat16 where there is CUDA
    python benchmarks/plain.py --prefix 2048

It takes the weights of the very model that the engine runs, and does what the published model does with them: the
first pass has the vocabulary's logits for the whole prompt, a step for all its rows; every layer's cache is joined
anew in each step and cut after it; keys and values are copied for the heads that share them; masks are dense floats;
the tokens that have occurred are marked anew in each step; top-p sorts the vocabulary for each row; the vision tower
attends in 3-D through a mask of patches × patches. What it answers is right, so a test holds it against the golden
data. It decodes one sequence at a time; nothing here is shared with the engine but the parameters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.shapes import SHAPES, Script, box_block, random_model, random_prompt, step_bytes
from benchmarks.timing import Row, copy_bandwidth, milliseconds, report, row
from groundlink.backends.locateanything.config import WINDOW
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import Grid
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.vision import join_neighbours, rotary_angles


class Plain:
    """One sequence: `begin`, then `step` until it gives None."""

    def __init__(self, model: LocateAnything) -> None:
        self.model = model
        self.layers: Any = model.language_model.model.layers
        self.cached = 0

    def begin(self, prompt: Tensor, rows: Tensor, settings: Settings, max_length: int | None = None) -> None:
        """Take up a prompt `[1, G]` with its embedded tokens `[1, G, D]`; the first step works on all of it."""
        self.sequence = prompt[0]
        self.rows = rows
        self.settings = settings
        limit = len(self.sequence) + settings.max_new_tokens
        self.limit = limit if max_length is None else min(limit, max_length)
        self.cache: list[tuple[Tensor, Tensor]] = []
        self.cached = 0
        self.parallel = settings.mode != "slow"
        self.ended = False

    @torch.inference_mode()
    def step(self) -> list[int] | None:
        """Run one pass and return the tokens taken from it, None where the answer is at its end."""
        length = len(self.sequence)
        if self.ended or length >= self.limit:
            return None
        x, positions, mask = self._input()
        logits = self.logits(self._layers(x, positions, mask))
        # Of a window nothing is kept.
        self.cache = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.cache]
        self.cached = length

        probs = self._probabilities(logits[-WINDOW if self.parallel else -1 :].float())
        if self.settings.temperature > 0:
            sampled = torch.multinomial(probs, 1)[:, 0].tolist()
        else:
            sampled = probs.argmax(-1).tolist()
        tokens = self._read(self._together(probs) or sampled) if self.parallel else self._single(sampled)
        self.sequence = torch.cat((self.sequence, self.sequence.new_tensor(tokens)))
        return tokens

    def logits(self, hidden: Tensor) -> Tensor:
        """`[R, D]` → `[R, V]`, for all rows of the pass."""
        head = self.model.language_model.lm_head or self.model.language_model.model.embed_tokens
        return F.linear(hidden, head.weight)

    def _input(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step's rows `[1, R, D]`, positions `[R]`, and mask `[R, T]` of what they see."""
        length = len(self.sequence)
        x = self.model.embed(self.sequence[None, self.cached :]) if self.cached else self.rows
        places = torch.arange(length, device=x.device)
        positions = places[self.cached :]
        if not self.parallel:
            return x, positions, places <= positions[:, None]
        ids = self.sequence.new_tensor([0] + [self.model.config.ids.text_mask] * (WINDOW - 1))
        ids[0] = self.sequence[-1]
        x = torch.cat((x, self.model.embed(ids[None])), 1)
        window = torch.arange(length, length + WINDOW, device=x.device)
        places = torch.cat((places, window))
        mask = places <= places[self.cached :, None]
        mask[-WINDOW:] = places != length - 1
        return x, torch.cat((positions, window - 1)), mask

    def _layers(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """`[1, R, D]` → `[R, D]`, after the last norm, joining the cache of each layer with the rows' own."""
        text = self.model.config.text
        pairs = torch.arange(0, text.head_dim, 2, device=x.device).float()
        angles = positions[:, None].float() / text.rope_theta ** (pairs / text.head_dim)
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        dense = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        dense = dense.masked_fill(~mask, torch.finfo(x.dtype).min)[None, None]

        before = self.cache
        self.cache = []
        for i, layer in enumerate(self.layers):
            attention, mlp = layer.self_attn, layer.mlp
            y = _rms_norm(x, layer.input_layernorm)
            q, k, v = (
                torch.unflatten(F.linear(y, proj.weight, proj.bias), -1, (-1, text.head_dim)).transpose(1, 2)
                for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            q, k = (t * cos + torch.cat((-t.chunk(2, -1)[1], t.chunk(2, -1)[0]), -1) * sin for t in (q, k))
            if before:
                k, v = torch.cat((before[i][0], k), 2), torch.cat((before[i][1], v), 2)
            self.cache.append((k, v))
            k, v = (t.repeat_interleave(text.num_attention_heads // text.num_key_value_heads, 1) for t in (k, v))
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=dense).transpose(1, 2).flatten(2)
            x = x + F.linear(seen, attention.o_proj.weight)
            y = _rms_norm(x, layer.post_attention_layernorm)
            y = F.silu(F.linear(y, mlp.gate_proj.weight)) * F.linear(y, mlp.up_proj.weight)
            x = x + F.linear(y, mlp.down_proj.weight)
        return _rms_norm(x, self.model.language_model.model.norm)[0]

    def _probabilities(self, logits: Tensor) -> Tensor:
        """`[n, V]` → `[n, V]`: penalty, temperature, top-p and top-k, each over the whole vocabulary."""
        settings = self.settings
        if settings.repetition_penalty != 1:
            occurred = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
            occurred[self.sequence] = True
            lower = torch.where(logits > 0, logits / settings.repetition_penalty, logits * settings.repetition_penalty)
            logits = torch.where(occurred, lower, logits)
        if settings.temperature > 0:
            logits = logits / settings.temperature
        if settings.top_p is not None and settings.top_p < 1:
            ordered, order = torch.sort(logits, descending=True)
            removed = torch.cumsum(ordered.softmax(-1), -1) > settings.top_p
            removed[:, 1:] = removed[:, :-1].clone()  # the first to exceed it stays
            removed[:, 0] = False
            logits = logits.masked_fill(torch.zeros_like(removed).scatter(-1, order, removed), -torch.inf)
        if settings.top_k is not None:
            least = logits.topk(min(settings.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits.softmax(-1)

    def _is_coordinate(self, token: int) -> bool:
        return self.model.config.ids.coord_start <= token <= self.model.config.ids.coord_end

    def _together(self, probs: Tensor) -> list[int] | None:
        """Read the rows `[6, V]` together, as nothing, as a box or as text; None where they are none of these."""
        ids = self.model.config.ids
        null, none, end = ids.null, ids.none, ids.box_end
        empty = probs[0, ids.box_start] >= 0.7 and probs[1, none] > 0.2 and probs[2, end] > 0.2
        if empty and probs[3, null] > 0.1 and probs[4, null] > 0.1:
            return [ids.box_start, none, end, null, null, null]
        if probs[5, end] + probs[5, null] + probs[5, ids.end] >= 0.2:
            box = [self._coordinate(row) for row in probs[1:5]]
            if None not in box:
                return [ids.box_start, *(token for token in box if token is not None), end]
        if probs[0, ids.ref_start] >= 0.6:
            text = [self._word(row) for row in probs[1:]]
            if None not in text:
                return [ids.ref_start, *(token for token in text if token is not None)]
        return None

    def _coordinate(self, probs: Tensor) -> int | None:
        """Return the coordinate that a row `[V]` proposes, the invalid 0 where it is ambiguous, None if it has none."""
        values, tokens = (t.tolist() for t in probs.topk(4))
        found = [(p, token) for p, token in zip(values, tokens) if self._is_coordinate(token) and p > 0]
        if not found:
            return None
        apart = max(token for _, token in found) - min(token for _, token in found)
        ambiguous = self.settings.mode == "hybrid" and found[0][0] < 0.9 and apart > 60
        return 0 if ambiguous else found[0][1]

    def _word(self, probs: Tensor) -> int | None:
        """Return a row's most probable token that is no coordinate, None if it is not among the first five."""
        values, tokens = (t.tolist() for t in probs.topk(5))
        return next((token for p, token in zip(values, tokens) if not (self._is_coordinate(token) and p > 0)), None)

    def _read(self, block: list[int]) -> list[int]:
        """Return what is taken of a block of six, and note what that means for the next step."""
        ids = self.model.config.ids
        coords = [self._is_coordinate(token) for token in block]
        if block[0] in (ids.null, ids.end):
            self.ended = True
            return [ids.end]
        if block[0] != ids.box_start:
            text = block[: block.index(ids.null)] if ids.null in block else block
            return text[:-1] if text[-2:] == [ids.ref_end] * 2 else text
        if block[1] == ids.none:
            return [ids.box_start, ids.none, ids.box_end]
        if all(coords[1:5]) and block[5] == ids.box_end:
            return block
        if all(coords[1:3]) and block[3] == ids.box_end:
            return block[:4]
        if self.settings.mode == "fast":
            return block
        self.parallel = False
        return block[: (coords[1:5] + [False]).index(False) + 1]

    def _single(self, tokens: list[int]) -> list[int]:
        """Take the token of a step of one row, and note what it means for the next step."""
        ids = self.model.config.ids
        token = tokens[0]
        if token == ids.end:
            self.ended = True
        elif self.settings.mode == "hybrid":
            self.parallel = token == ids.box_end
            self.ended = not (self.parallel or self._is_coordinate(token) or token == ids.none)
        return tokens


def _rms_norm(x: Tensor, norm: Any) -> Tensor:
    wide = x.float()
    scaled: Tensor = norm.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).to(x.dtype)
    return scaled


@torch.inference_mode()
def look(model: LocateAnything, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Patches `[L, 3, 14, 14]` of all pictures → `[L / 4, D]`, through a dense mask `[1, L, L]` and 3-D tensors."""
    tower: Any = model.vision_model
    embed = tower.patch_embed
    patches = patches.to(embed.proj.weight)
    x = F.conv2d(patches, embed.proj.weight, embed.proj.bias, stride=embed.proj.stride).flatten(1)
    x = x + torch.cat([embed.pos_emb(grid) for grid in grids])

    lengths = [rows * columns for rows, columns in grids]
    mask = torch.zeros(1, len(x), len(x), dtype=torch.bool, device=x.device)
    for end, length in zip(torch.tensor(lengths).cumsum(0).tolist(), lengths):
        mask[:, end - length : end, end - length : end] = True

    angles = rotary_angles(grids, tower.encoder.head_dim, x.device)[:, None]
    turn = torch.polar(torch.ones_like(angles), angles)

    def rotate(t: Tensor) -> Tensor:
        pairs = torch.view_as_complex(torch.unflatten(t.float(), -1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2).to(t.dtype)

    for block in tower.encoder.blocks:
        y = F.layer_norm(x, x.shape[-1:], block.norm0.weight, block.norm0.bias, block.norm0.eps)
        q, k, v = torch.unflatten(F.linear(y, block.wqkv.weight, block.wqkv.bias), -1, (3, block.heads, -1)).unbind(1)
        q, k, v = (t.transpose(0, 1) for t in (rotate(q), rotate(k), v))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(0, 1).flatten(1)
        x = x + F.linear(seen, block.wo.weight, block.wo.bias)
        y = F.layer_norm(x, x.shape[-1:], block.norm1.weight, block.norm1.bias, block.norm1.eps)
        y = F.gelu(F.linear(y, block.mlp.fc0.weight, block.mlp.fc0.bias), approximate="tanh")
        x = x + F.linear(y, block.mlp.fc1.weight, block.mlp.fc1.bias)
    norm = tower.encoder.final_layernorm
    x = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    joined = [join_neighbours(part, grid) for part, grid in zip(torch.split(x, lengths), grids)]
    rows: Tensor = model.mlp1(torch.cat(joined))
    return rows


class ScriptedPlain(Plain):
    """The published way with a script: the weights do their work, the script says what comes of it."""

    def __init__(self, model: LocateAnything, script: Script) -> None:
        super().__init__(model)
        self.script = script

    def step(self) -> list[int] | None:
        """Run one pass, of which the script's next block comes."""
        self.script.turn_page()
        return super().step()

    def logits(self, hidden: Tensor) -> Tensor:
        """`[R, D]` → `[R, V]`, with the script's peaks in the rows of the window."""
        logits = super().logits(hidden)
        self.script.plant(logits[-WINDOW:])
        return logits


def measure(model: LocateAnything, prefix: int, settings: Settings, turns: int) -> list[Row]:
    """Time the first pass over a prompt of `prefix` tokens, which gives the first six, and the steps after it."""
    device = model.device
    plain = ScriptedPlain(model, Script([box_block(model.config.ids)], device))
    prompt, rows = random_prompt(model, prefix)

    def first() -> None:
        plain.begin(prompt, rows, settings)
        plain.step()

    first()
    prefills = [milliseconds(first, device) for _ in range(2)]
    plain.step()
    steps = [milliseconds(plain.step, device) for _ in range(turns)]
    length = prefix + WINDOW * (1 + turns // 2)
    floor = step_bytes(model, 1, length) / copy_bandwidth(device) * 1000
    return [
        row(f"prefill and first step, prefix {prefix}", prefills, None, None, prefix=prefix),
        row(f"step, prefix {prefix}", steps, None, floor, prefix=prefix),
    ]


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--shape", choices=SHAPES, help="3B on a GPU, 293M on a CPU where none is chosen")
    parser.add_argument("--prefix", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a small shape, for a test of this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    shape = options.shape or ("small" if options.quick else "3B" if device.type == "cuda" else "293M")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    settings = Settings(top_p=0.9)
    rows = measure(random_model(shape, device, dtype), options.prefix, settings, options.turns)
    chosen = {"shape": shape, "dtype": str(dtype), "top_p": settings.top_p, "penalty": settings.repetition_penalty}
    report(device, chosen, rows, ["Random weights; the contents of blocks are scripted: one box a step."])


if __name__ == "__main__":
    main()
