"""What of a decoding step is no matrix product, in few launches; written in Triton, so import it only where that is.

A step has few rows, so it costs the reading of the weights, and beside that mostly launches. All functions can be held
by a CUDA graph: what varies from step to step is read from tensors. Nothing is tuned at run time, but a first call
compiles, so make one before a capture.

B is the batch, R the rows of a pass, N = B · R, H the query heads, K the key heads, D any width.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from groundlink.backends.locateanything.config import WINDOW, TextConfig
from groundlink.backends.locateanything.language import rms_norm, rotary_table, rotate_halves

MAX_SPLITS = 64  # of the keys; what the second kernel of `attend` takes into registers at once
LOG2_E = 1.4426950408889634


def add_rms_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add `[N, D]` to `[N, D]`, or nothing; return the sum, and its `rms_norm` with `weight` `[D]`."""
    _check_rows(x, weight, *(() if delta is None else (delta,)))
    width = x.shape[-1]
    normed = torch.empty_like(x)
    summed = x if delta is None else torch.empty_like(x)
    block = triton.next_power_of_2(width)
    grid = (x.numel() // width,)
    warps = min(max(block // 512, 1), 16)
    with torch.cuda.device_of(x):
        _add_rms_norm[grid](x, delta, weight, summed, normed, eps, width, delta is not None, block, num_warps=warps)
    return summed, normed


@triton.jit
def _add_rms_norm(x, delta, weight, summed, normed, eps, width, ADD: tl.constexpr, BLOCK: tl.constexpr):
    """One program a row. Roundings stand where the plain module has them."""
    column = tl.arange(0, BLOCK)
    inside = column < width
    place = tl.program_id(0).to(tl.int64) * width + column
    scale = tl.load(weight + column, inside, 0.0)
    row = tl.load(x + place, inside, 0.0)
    if ADD:
        row = (row.to(tl.float32) + tl.load(delta + place, inside, 0.0).to(tl.float32)).to(row.dtype)
        tl.store(summed + place, row, inside)
    wide = row.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide) / width + eps)
    tl.store(normed + place, scale.to(tl.float32) * wide.to(row.dtype).to(tl.float32), inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """`[N, 2 · D]`, the gates before the values → `[N, D]`."""
    _check_rows(gate_up)
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty((*gate_up.shape[:-1], width))
    grid = (out.numel() // width, triton.cdiv(width, 1024))
    with torch.cuda.device_of(out):
        _silu_mul[grid](gate_up, out, width, 1024, num_warps=4)
    return out


@triton.jit
def _silu_mul(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    place = gate_up + row * 2 * width + column
    gate = tl.load(place, inside, 0.0)
    up = tl.load(place + width, inside, 0.0)
    wide = gate.to(tl.float32)
    silu = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out + row * width + column, silu.to(tl.float32) * up.to(tl.float32), inside)


def rotate_and_store(qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Turn queries and keys by their positions, and put keys and values into a layer's cache.

    `qkv` `[B, R, (H + 2 · K) · head_dim]`, queries before keys before values; `cos` and `sin` `[B, R, head_dim]`;
    `slots` `[B, R]`; the cache `[B, K, capacity, head_dim]`. Returns the queries, `[B, H, R, head_dim]`, as `attend`
    wants them. A row whose slot is outside of the cache is not stored.
    """
    batch, rows, width = qkv.shape
    head_dim, key_heads = _check_cache(keys, values)
    _check_rows(qkv, cos, sin, slots)
    heads = width // head_dim - 2 * key_heads
    q = qkv.new_empty(batch, heads, rows, head_dim)
    with torch.cuda.device_of(q):
        _rotate_and_store[(batch * rows, heads + 2 * key_heads)](
            qkv, cos, sin, slots, q, keys, values, *keys.stride()[:3], keys.shape[2], rows, heads, key_heads, head_dim,
            num_warps=1,
        )  # fmt: skip
    return q


@triton.jit(do_not_specialize=["capacity"])
def _rotate_and_store(
    qkv, cos, sin, slots, q, keys, values, stride_batch, stride_head, stride_slot, capacity,
    ROWS: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """One program a row and head."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    batch = row // ROWS
    dim = tl.arange(0, DIM)
    place = qkv + (row * (HEADS + 2 * KEY_HEADS) + head) * DIM
    x = tl.load(place + dim)
    if head < HEADS + KEY_HEADS:
        partner = tl.load(place + (dim + DIM // 2) % DIM).to(tl.float32)
        partner = tl.where(dim < DIM // 2, -partner, partner)
        # Both products are rounded before they are added, as in rotate_halves.
        one = (x.to(tl.float32) * tl.load(cos + row * DIM + dim).to(tl.float32)).to(x.dtype)
        two = (partner * tl.load(sin + row * DIM + dim).to(tl.float32)).to(x.dtype)
        x = (one.to(tl.float32) + two.to(tl.float32)).to(x.dtype)
    if head < HEADS:
        tl.store(q + ((batch * HEADS + head) * ROWS + row % ROWS) * DIM + dim, x)
    else:
        slot = tl.load(slots + row)
        if (slot >= 0) & (slot < capacity):
            cache = keys if head < HEADS + KEY_HEADS else values
            key_head = (head - HEADS) % KEY_HEADS
            tl.store(cache + batch * stride_batch + key_head * stride_head + slot * stride_slot + dim, x)


def attend(
    q: Tensor, keys: Tensor, values: Tensor, cached: Tensor, count: Tensor, span: int, scale: float | None = None
) -> Tensor:
    """Let the rows of a step look at the cache; `[B, R, H · head_dim]`.

    `q` `[B, H, R, head_dim]`; the cache `[B, K, capacity, head_dim]`, in which the rows' own keys and values already
    are. `cached` `[B]` tokens stand before the rows, `count` `[B]` of the rows are tokens, the next six are the window,
    and what is left is padding. Tokens see causally. The window sees itself and every token but the last. Padding sees
    nothing, and gives zeros. Slots that no row sees are not read.

    `span` is about the length of the longest sequence: only the number of splits depends on it.
    """
    batch, heads, rows, _ = q.shape
    head_dim, key_heads = _check_cache(keys, values)
    _check_rows(q, cached, count)
    shared = heads // key_heads * rows  # rows that look at one key head
    # 16 bits: one tensor core instruction's rows, and two programs fit a processor. 32 bits: what registers hold.
    most, chunk, warps = (64, 64, 4) if q.element_size() == 2 else (32, 32, 8)
    tile = min(max(triton.next_power_of_2(shared), 16), most)
    tiles = triton.cdiv(shared, tile)
    splits = _splits(span, chunk, batch * key_heads * tiles, q.device)
    scale = head_dim**-0.5 if scale is None else scale

    parts = q.new_empty((batch * key_heads, splits, shared, head_dim), dtype=torch.float32)
    sums = q.new_empty((batch * key_heads, splits, shared), dtype=torch.float32)
    out = q.new_empty(batch, rows, heads * head_dim)
    with torch.cuda.device_of(q):
        _attend[(tiles, splits, batch * key_heads)](
            q, keys, values, cached, count, parts, sums, *keys.stride()[:3], scale * LOG2_E, splits,
            rows, shared, key_heads, WINDOW, tile, chunk, head_dim, num_warps=warps, num_stages=2,
        )  # fmt: skip
        _combine[(batch * heads * rows,)](
            cached, count, parts, sums, out, splits,
            rows, shared, key_heads, WINDOW, chunk, triton.next_power_of_2(splits), head_dim, num_warps=4,
        )  # fmt: skip
    return out


def _splits(span: int, chunk: int, programs: int, device: torch.device) -> int:
    """Return into how many parts to split the keys: two programs for each processor, and a chunk for each program."""
    return max(1, min(-(-span // chunk), 2 * _processors(device) // programs, MAX_SPLITS))


@lru_cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 16


@triton.jit
def _extent(cached, count, splits, ROWS: tl.constexpr, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """Return how many slots a sequence sees, and how many of them are one split's: whole chunks."""
    seen = cached + tl.minimum(count + WINDOW, ROWS)
    return seen, tl.cdiv(tl.cdiv(seen, splits), CHUNK) * CHUNK


@triton.jit(do_not_specialize=["splits"])
def _attend(
    q, keys, values, cached, count, parts, sums, stride_batch, stride_head, stride_slot, scale, splits,
    ROWS: tl.constexpr, SHARED: tl.constexpr, KEY_HEADS: tl.constexpr, WINDOW: tl.constexpr,
    TILE: tl.constexpr, CHUNK: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """One program a tile of rows, split of the keys, sequence and key head: their result, and the log of their sum."""
    split = tl.program_id(1)
    pair = tl.program_id(2).to(tl.int64)
    batch = pair // KEY_HEADS
    before = tl.load(cached + batch).to(tl.int32)
    tokens = tl.load(count + batch).to(tl.int32)
    seen, share = _extent(before, tokens, splits, ROWS, WINDOW, CHUNK)
    start = split * share
    if start >= seen:
        return

    line = tl.program_id(0) * TILE + tl.arange(0, TILE)
    dim = tl.arange(0, DIM)
    real = line < SHARED
    row = line % ROWS
    # A row sees the slots up to its last one but for one, if it is the window's: its copied token's.
    is_window = row >= tokens
    last = tl.where(is_window, seen - 1, before + row)
    last = tl.where(row < tokens + WINDOW, last, -1)
    hidden = tl.where(is_window, before + tokens - 1, -1)

    query = tl.load(q + (pair * SHARED + line[:, None]) * DIM + dim[None, :], real[:, None], 0.0)
    place = batch * stride_batch + (pair % KEY_HEADS) * stride_head
    top = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    mixed = tl.zeros([TILE, DIM], tl.float32)
    for chunk in tl.range(start, tl.minimum(start + share, seen), CHUNK):
        slot = chunk + tl.arange(0, CHUNK)
        offset = place + slot[:, None] * stride_slot + dim[None, :]
        key = tl.load(keys + offset, slot[:, None] < seen, 0.0)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        visible = (slot[None, :] <= last[:, None]) & (slot[None, :] != hidden[:, None])
        score = tl.where(visible, score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)  # of a row that has seen nothing yet
        weight = tl.exp2(score - finite[:, None])
        fade = tl.exp2(top - finite)
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(values + offset, slot[:, None] < seen, 0.0)
        mixed = tl.dot(weight.to(value.dtype), value, mixed * fade[:, None], input_precision="ieee")
        top = higher

    nothing = total == 0.0
    safe = tl.where(nothing, 1.0, total)
    out = (pair * splits + split) * SHARED + line
    tl.store(sums + out, tl.where(nothing, float("-inf"), top + tl.log2(safe)), real)
    tl.store(parts + out[:, None] * DIM + dim[None, :], mixed / safe[:, None], real[:, None])


@triton.jit(do_not_specialize=["splits"])
def _combine(
    cached, count, parts, sums, out, splits,
    ROWS: tl.constexpr, SHARED: tl.constexpr, KEY_HEADS: tl.constexpr, WINDOW: tl.constexpr,
    CHUNK: tl.constexpr, SPLITS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """One program a row and query head."""
    index = tl.program_id(0).to(tl.int64)
    pair = index // SHARED
    line = index % SHARED
    batch = pair // KEY_HEADS
    before = tl.load(cached + batch).to(tl.int32)
    tokens = tl.load(count + batch).to(tl.int32)
    seen, share = _extent(before, tokens, splits, ROWS, WINDOW, CHUNK)

    split = tl.arange(0, SPLITS)
    dim = tl.arange(0, DIM)
    place = (pair * splits + split) * SHARED + line
    used = split * share < seen  # the others wrote nothing
    part = tl.load(parts + place[:, None] * DIM + dim[None, :], used[:, None], 0.0)
    log = tl.load(sums + place, used, float("-inf"))
    top = tl.max(log, 0)
    weight = tl.exp2(log - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(weight, 0)
    mixed = tl.sum(part * weight[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    head = pair % KEY_HEADS * (SHARED // ROWS) + line // ROWS
    heads = KEY_HEADS * (SHARED // ROWS)
    tl.store(out + ((batch * ROWS + line % ROWS) * heads + head) * DIM + dim, mixed)


@torch.no_grad()
def self_check(config: TextConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Run every function at a model's sizes; raise if one does not compile, or differs from plain torch.

    The caller's way to know whether Triton works on a machine: systems without a C compiler, and old GPUs, fail here.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise RuntimeError("before Ampere Triton does not use the tensor cores; plain torch is faster there")
    generator = torch.Generator().manual_seed(0)
    width, head_dim = config.hidden_size, config.head_dim
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    batch, capacity = 2, 200

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    weight, eps = random(width), config.rms_norm_eps
    x, delta = random(batch, width), random(batch, width)
    for given in (delta, None):
        summed, normed = add_rms_norm(x, given, weight, eps)
        wanted = x if given is None else x + given
        _check_close("add_rms_norm", summed, wanted)
        _check_close("add_rms_norm", normed, rms_norm(wanted, weight, eps))

    gate, up = random(2, batch, config.intermediate_size).unbind()
    _check_close("silu_mul", silu_mul(torch.cat((gate, up), -1)), F.silu(gate) * up)

    cached, count = torch.tensor([170, 3], device=device), torch.tensor([1, 4], device=device)
    for rows in (2 * WINDOW, 1):
        slots = cached[:, None] + torch.arange(rows, device=device)
        cos, sin = rotary_table(slots, config, dtype)
        qkv = random(batch, rows, (heads + 2 * key_heads) * head_dim)
        plain = qkv.unflatten(-1, (-1, head_dim)).transpose(1, 2)
        q, k, v = plain.split((heads, key_heads, key_heads), 1)
        q, k = rotate_halves(q, cos, sin), rotate_halves(k, cos, sin)
        cache = random(2, batch, key_heads, capacity, head_dim)
        unseen = torch.arange(capacity, device=device) >= (cached + (count + WINDOW).clamp(max=rows))[:, None]
        cache.masked_fill_(unseen[:, None, :, None], torch.nan)
        wanted = cache.scatter(3, slots[:, None, :, None].expand_as(k).expand(2, *k.shape), torch.stack((k, v)))
        turned = rotate_and_store(qkv, cos[:, 0], sin[:, 0], slots, cache[0], cache[1])
        _check_close("rotate_and_store", turned, q)
        _check_close("rotate_and_store", cache.nan_to_num(9), wanted.nan_to_num(9))

        mask = visible(cached, count, rows, capacity)
        k, v = wanted.masked_fill(unseen[:, None, :, None], 0).double().repeat_interleave(heads // key_heads, 2)
        score = q.double() @ k.mT * head_dim**-0.5
        weight = score.masked_fill(~mask[:, None], -torch.inf).softmax(-1).nan_to_num(0)
        found = attend(q.contiguous(), cache[0], cache[1], cached, count, capacity)
        _check_close("attend", found, (weight @ v).transpose(1, 2).flatten(2))


def visible(cached: Tensor, count: Tensor, rows: int, slots: int) -> Tensor:
    """Return what each row of `attend` sees: `[B, R, slots]`."""
    row = torch.arange(rows, device=cached.device)[:, None]
    slot = torch.arange(slots, device=cached.device)
    before, tokens = cached[:, None, None], count[:, None, None]
    end = before + tokens
    window = (row < tokens + WINDOW) & (slot < end + WINDOW) & (slot != end - 1)
    return torch.where(row < tokens, slot <= before + row, window)


def _check_close(name: str, found: Tensor, wanted: Tensor) -> None:
    """Compare by the size of the difference, with room for approximate functions; NaN is never close."""
    difference = (found.double() - wanted.double()).norm() / wanted.double().norm()
    if not difference <= max(4 * torch.finfo(found.dtype).eps, 4e-6):
        raise RuntimeError(f"the kernel of {name} is off by {difference:.1e} on {found.device} in {found.dtype}")


def _check_rows(*tensors: Tensor) -> None:
    if not all(t.is_contiguous() for t in tensors):
        raise ValueError("the kernels take contiguous tensors")


def _check_cache(keys: Tensor, values: Tensor) -> tuple[int, int]:
    """Return the width and the number of the key heads."""
    if keys.stride() != values.stride() or keys.stride(3) != 1:
        raise ValueError("keys and values must lie alike in memory, each key in one piece")
    return keys.shape[3], keys.shape[1]
