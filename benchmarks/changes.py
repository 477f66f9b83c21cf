"""What each change against the published way gives by itself: the two ways of one piece of work, taken in turn.

    python benchmarks/changes.py            # 3B in bfloat16 on a GPU; 293M in float32 on a CPU
    python benchmarks/changes.py --quick    # a small shape, in seconds: does it run at all?

The pieces are those of a parallel step at batch 1, of a prefill, and of the vision tower; a step is more than their
sum, so look at `decode.py` for that. `docs/performance.md` says what was expected of each, and why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.nn import functional as F

from benchmarks.plain import Plain, look
from benchmarks.shapes import SHAPES, random_model
from benchmarks.timing import Row, in_turn, report, row
from groundlink.backends.locateanything.config import WINDOW
from groundlink.backends.locateanything.decoder import linear
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.shortlist import Rules, Shortlist

ROWS = 2 * WINDOW
SETTINGS = Settings(top_p=0.9)
Piece = tuple[str, Callable[[], object], Callable[[], object]]


def pieces(model: LocateAnything, prefix: int, side: int) -> list[Piece]:
    """Return name, our way and the published way of each piece."""
    text, device = model.config.text, model.device
    packed = model.language_model.packed()
    dtype = packed.head.dtype
    x = torch.randn(ROWS, text.hidden_size, device=device, dtype=dtype)
    wide = torch.randn(ROWS, text.intermediate_size, device=device, dtype=dtype)
    layers = model.language_model.model.layers

    def packed_products() -> None:
        for layer in packed.layers:
            linear(x, layer.qkv, layer.qkv_bias)
            linear(x, layer.output)
            linear(x, layer.gate_up)
            linear(wide, layer.down)

    def single_products() -> None:
        for layer in layers:
            attention, mlp = layer.self_attn, layer.mlp
            for module in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                module(x)
            mlp.gate_proj(x), mlp.up_proj(x)
            mlp.down_proj(wide)

    logits = torch.randn(1, WINDOW, text.vocab_size, device=device)
    logits[..., 100] = 30.0  # as sure as a trained model: a flat row has no few candidates
    prompt = torch.randint(1200, 2000, (prefix,), device=device)
    unique = prompt.unique()[None]
    rules = Rules.none(1, device)
    rules.put(0, SETTINGS)
    ids = model.config.ids
    watched = (ids.box_start, ids.box_end, ids.ref_start, ids.none, ids.null, ids.end)
    watch = torch.tensor(watched, device=device)
    plain = Plain(model)
    plain.sequence, plain.settings = prompt, SETTINGS

    heads, shared, width = text.num_attention_heads, text.num_key_value_heads, text.head_dim
    group = heads // shared
    cache = torch.randn(2, text.num_hidden_layers, 1, shared, prefix + ROWS, width, device=device, dtype=dtype)
    new = torch.randn(1, shared, ROWS, width, device=device, dtype=dtype)
    slots = torch.arange(prefix, prefix + ROWS, device=device)
    q = torch.randn(1, heads, ROWS, width, device=device, dtype=dtype)
    bias = torch.zeros(1, 1, ROWS, prefix + ROWS, device=device, dtype=dtype)

    def write() -> None:
        for layer in range(text.num_hidden_layers):
            for kept in cache[:, layer]:
                kept[:, :, slots] = new

    def rebuild() -> None:
        for layer in range(text.num_hidden_layers):
            for kept in cache[:, layer]:
                torch.cat((kept[:, :, :prefix], new), 2)[:, :, : prefix + WINDOW].contiguous()

    def attend_together() -> None:
        folded = torch.unflatten(q, 1, (shared, group)).flatten(2, 3)
        for keys, values in cache.unbind(1):
            F.scaled_dot_product_attention(folded, keys, values, attn_mask=bias.repeat(1, 1, group, 1))

    def attend_to_copies() -> None:
        for keys, values in cache.unbind(1):
            k, v = (t.repeat_interleave(group, 1) for t in (keys, values))
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    rows = torch.randn(prefix, text.hidden_size, device=device, dtype=dtype)
    patches = torch.randn(side * side, 3, 14, 14, device=device, dtype=dtype)
    grid = [(side, side)]
    return [
        ("output matrix: 6 rows, for 12", lambda: linear(x[:WINDOW], packed.head), lambda: F.linear(x, packed.head)),
        ("products of the layers, 12 rows", packed_products, single_products),
        (
            "penalty and top-p: a short list, for a sort",
            lambda: Shortlist(logits, unique, rules, watched, watch),
            lambda: plain._probabilities(logits[0]),
        ),
        ("cache: in place, for joined anew", write, rebuild),
        ("attention: shared keys, for copies", attend_together, attend_to_copies),
        (
            "logits of a prompt: 6 rows, for all",
            lambda: linear(rows[-WINDOW:], packed.head),
            lambda: F.linear(rows, packed.head),
        ),
        (
            f"vision, {side * side} patches: no mask, 4-D",
            lambda: model.encode_images(patches, grid),
            lambda: look(model, patches, grid),
        ),
    ]


def run(model: LocateAnything, prefix: int, side: int, turns: int) -> list[Row]:
    """Time all pieces."""
    rows = []
    for name, ours, theirs in pieces(model, prefix, side):
        mine, plain = in_turn([ours, theirs], turns, model.device)
        rows.append(row(name, mine, plain, None))
    return rows


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--prefix", type=int)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--quick", action="store_true", help="a small shape, for a test of this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    shape = options.shape or ("small" if options.quick else "3B" if device.type == "cuda" else "293M")
    prefix = options.prefix or (64 if options.quick else 1024)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.inference_mode():
        rows = run(random_model(shape, device, dtype), prefix, 8 if options.quick else 64, options.turns or 9)
    settings = {"shape": shape, "dtype": str(dtype).removeprefix("torch."), "prefix": prefix}
    report(device, settings, rows, ["Pieces by themselves; random weights, logits with one peak a row."])


if __name__ == "__main__":
    main()
