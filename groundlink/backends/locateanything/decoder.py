"""The language model at speed: several sequences over static buffers, each step one call of fixed shape.

`generate.py` says what has to come out; nothing here may change it. A step commits the tokens taken last (at most 6 a
sequence) and looks at a window of 6 behind them, samples, and reads the block, all on the device. The host gets one
small tensor back. On CUDA a step is a graph for each batch size and cache length.

B is the number of sequences, R the rows of a sequence in a step, D the hidden size, H and K the query and key heads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from groundlink.backends.locateanything.blocks import Kind, decode_block, is_coordinate, read_block
from groundlink.backends.locateanything.config import WINDOW, TextConfig
from groundlink.backends.locateanything.generate import Accepted, Finish, answer_limit, choose
from groundlink.backends.locateanything.language import Cache, Packed, rms_norm, rotary_table, rotate_halves
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.sampling import raw_figures
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.shortlist import Rules, Shortlist

ROWS = 2 * WINDOW  # of a parallel step: tokens to commit, and the window
SPANS = 512  # a graph reads the cache up to this many slots, or twice as many, and so on
PIECE = 512  # rows of a prompt that are read at once behind others: their mask grows with both
FEW_ROWS = 48  # up to here a CPU multiplies faster the other way round

_log = logging.getLogger(__name__)


class Shape(NamedTuple):
    """What a step's graph is made for: all that is no tensor."""

    batch: int
    rows: int  # R
    outputs: int  # rows of logits: 6, or 1 where no sequence is parallel
    span: int  # slots of the cache that are read
    history: int  # ids that are read for the repetition penalty
    drawing: bool


@dataclass
class _Sequence:
    """What the host knows of a running sequence."""

    settings: Settings
    length: int
    limit: int
    pending: int  # tokens taken in the last step, not in the cache yet
    parallel: bool
    numbers: torch.Generator
    uniform: Tensor | None = None  # the numbers of the step to come, drawn once however often it is tried


class _State(NamedTuple):
    """What a step reads and writes, one row for each sequence."""

    pending: Tensor  # [B, 6] tokens taken in the last step
    taken: Tensor  # [B] how many of them there are
    cached: Tensor  # [B] tokens in the cache
    parallel: Tensor  # [B] six tokens a step, or one
    hybrid: Tensor  # [B]
    slow: Tensor  # [B]
    draws: Tensor  # [B]
    running: Tensor  # [B]
    seen: Tensor  # [B, capacity] ids that have occurred, in any order, filled up with one of them
    seen_count: Tensor  # [B]
    uniform: Tensor  # [B, 6] numbers in 0…1 to draw by


# Why a sequence ends, as the device says it.
_GOES_ON, _END, _GARBLED = range(3)
_FINISH: tuple[Finish | None, ...] = (None, "end", "garbled")
_NO_KIND = -1


class _Told(NamedTuple):
    """What a step tells the host about one sequence."""

    tokens: list[int]
    log_probs: list[float]
    spreads: list[float]
    kind: Kind | None
    sampled: list[int]
    block: list[int] | None
    parallel: bool
    finish: Finish | None
    short: bool  # nothing of this is certain

    @classmethod
    def of(cls, row: list[float], single: bool) -> _Told:
        """Read a row of what `_choose` packs."""
        count, kind, finish, parallel, together, short = map(int, row[:6])
        outputs = (len(row) - 6) // 5
        parts = [row[6 + i * outputs : 6 + (i + 1) * outputs] for i in range(5)]
        tokens, sampled, block = ([int(value) for value in parts[i]] for i in (0, 3, 4))
        return cls(
            tokens[:count],
            parts[1][:count],
            parts[2][:count],
            None if kind == _NO_KIND else Kind(kind),
            sampled[:1] if single else sampled,
            block if together else None,
            bool(parallel),
            _FINISH[finish],
            bool(short),
        )


@dataclass(frozen=True)
class _Graph:
    """A captured step, and where it leaves its results."""

    graph: torch.cuda.CUDAGraph
    told: Tensor
    logits: Tensor


class Decoder:
    """The language model with room for `batch` sequences of `capacity` tokens, which grows where it must.

    Args:
        model: whose weights are used; they are laid out anew, and shared with it.
        batch: sequences at once.
        capacity: tokens of each, answer included.
        fixed: whether steps have few fixed shapes, as CUDA graphs need, or just the rows that are wanted; None: where
            there is CUDA.
    """

    def __init__(
        self, model: LocateAnything, batch: int = 1, capacity: int = 1024, *, fixed: bool | None = None
    ) -> None:
        self.config = model.config
        self.device = model.device
        self.batch = batch
        self._on_cuda = self.device.type == "cuda"
        if self._on_cuda:
            # It makes a plan for every new length, and does not take keys that are shared by their strides.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._fixed = self._on_cuda if fixed is None else fixed
        self._graphs: dict[Shape, _Graph] = {}
        self._pool: Any = None  # of memory, shared by all graphs
        self._stream: Any = None  # that all of them are captured on
        self._embedding = model.language_model.model.embed_tokens.weight
        self._weights: Packed = model.language_model.packed()
        self._fused = _working_kernels(self.config.text, self.device, self.dtype)
        self._sequences: list[_Sequence | None] = [None] * batch
        self._unread: dict[int, tuple[list[float], Tensor]] = {}  # of a step that the host has not taken note of
        ids = self.config.ids
        self._watched = (ids.box_start, ids.box_end, ids.ref_start, ids.none, ids.null, ids.end)
        with torch.inference_mode():
            self._watch = torch.tensor(self._watched, device=self.device)
            self._rules = Rules.none(batch, self.device)
            self._cache, self._state = self._buffers(capacity)

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and cache."""
        return self._embedding.dtype

    @property
    def capacity(self) -> int:
        """How many slots of the cache each sequence has."""
        return self._cache.keys.shape[3]

    def _buffers(self, capacity: int) -> tuple[Cache, _State]:
        def room(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(self.batch, *shape, dtype=dtype, device=self.device)

        cache = Cache.empty(self.config.text, self.batch, capacity, self._embedding)
        return cache, _State(
            pending=room(WINDOW),
            taken=room() + 1,
            cached=room(),
            parallel=room(dtype=torch.bool),
            hybrid=room(dtype=torch.bool),
            slow=room(dtype=torch.bool),
            draws=room(dtype=torch.bool),
            running=room(dtype=torch.bool),
            seen=room(capacity + WINDOW),
            seen_count=room(),
            uniform=room(WINDOW, dtype=torch.float64),
        )

    @torch.inference_mode()
    def reserve(self, capacity: int) -> None:
        """Make room for sequences of so many tokens; what they hold stays."""
        if capacity <= self.capacity:
            return
        old_cache, old = self._cache, self._state
        self._graphs.clear()  # they write to the old buffers
        self._pool = None
        self._cache, self._state = self._buffers(capacity)  # both, or none where memory runs out
        for new, kept in zip(self._state, old, strict=True):
            new[:, : kept.shape[1]].copy_(kept) if kept.ndim > 1 else new.copy_(kept)
        self._state.seen[:, old.seen.shape[1] :] = self._state.seen[:, :1]
        for new, kept in ((self._cache.keys, old_cache.keys), (self._cache.values, old_cache.values)):
            new[:, :, :, : kept.shape[3]].copy_(kept)

    # Prompts

    @torch.inference_mode()
    def prefill(self, slot: int, rows: Tensor, start: int = 0) -> None:
        """Read embedded tokens `[R, D]` into a sequence's cache, behind the `start` that are there already.

        From the start it is causal attention without a mask; behind others it goes piece by piece. Other sequences may
        take steps in between, and before it is begun.
        """
        self._occupy(slot, start + len(rows))
        for first in range(0, len(rows), PIECE if start else max(1, len(rows))):
            piece = rows[first : first + PIECE] if start else rows
            self._read(slot, piece, start + first)

    def _occupy(self, slot: int, length: int) -> None:
        """Make room for a prompt, behind which a sequence that waits leaves what others' steps make it write."""
        self.reserve(length + ROWS)
        self._state.cached[slot] = length

    def _read(self, slot: int, x: Tensor, start: int) -> None:
        end = start + len(x)
        keys, values = self._cache.keys[:, slot], self._cache.values[:, slot]
        place = torch.arange(start, end, device=self.device)
        mask = place[:, None] >= torch.arange(end, device=self.device) if start else None
        last = len(keys) - 1
        group = self.config.text.num_attention_heads // self.config.text.num_key_value_heads

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
            keys[layer, :, start:end], values[layer, :, start:end] = k.transpose(0, 1), v.transpose(0, 1)
            if layer == last:
                return None  # nobody reads what would come out of it
            # The query heads of a key head stand side by side in the batch, where keys can be shared without copies.
            q = torch.unflatten(q, 1, (-1, group)).permute(2, 1, 0, 3)
            k, v = (t[layer, :, :end].expand(group, -1, -1, -1) for t in (keys, values))
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            return seen.permute(2, 1, 0, 3).flatten(1)

        self._layers(x, place[None], attend)

    def keep(self, slot: int, length: int) -> Tensor:
        """Return a copy of the first `length` slots of a sequence, `[2, layers, K, length, head_dim]`."""
        return torch.stack((self._cache.keys[:, slot, :, :length], self._cache.values[:, slot, :, :length]))

    @torch.inference_mode()
    def put(self, slot: int, kept: Tensor) -> None:
        """Copy what `keep` returned to the start of a sequence."""
        length = kept.shape[3]
        self._occupy(slot, length)
        self._cache.keys[:, slot, :, :length], self._cache.values[:, slot, :, :length] = kept

    # Sequences

    @torch.inference_mode()
    def begin(self, slot: int, prompt: Sequence[int], settings: Settings, max_length: int | None = None) -> None:
        """Start answering a prompt of which all but the last token are in the cache."""
        length = len(prompt)
        limit = answer_limit(length, settings, max_length)
        self.release(slot)
        if length >= limit:
            return
        self.reserve(length + ROWS)
        parallel = settings.mode != "slow"
        self._rules.put(slot, settings)
        state, before = self._state, sorted(set(prompt[:-1]))
        state.pending[slot] = prompt[-1]
        state.taken[slot], state.cached[slot] = 1, length - 1
        state.parallel[slot], state.slow[slot] = parallel, not parallel
        state.hybrid[slot], state.draws[slot] = settings.mode == "hybrid", settings.temperature > 0
        state.seen[slot], state.seen_count[slot] = prompt[-1], len(before)
        state.seen[slot, : len(before)] = torch.tensor(before, device=self.device)
        state.running[slot] = True
        numbers = torch.Generator().manual_seed(settings.seed)
        self._sequences[slot] = _Sequence(settings, length, limit, 1, parallel, numbers)

    def running(self, slot: int) -> bool:
        """Tell whether a sequence has not come to its end."""
        return self._sequences[slot] is not None

    @torch.inference_mode()
    def release(self, slot: int) -> None:
        """Forget a sequence."""
        self._sequences[slot] = None
        self._unread.pop(slot, None)
        state = self._state
        state.running[slot], state.taken[slot], state.cached[slot], state.parallel[slot] = False, 1, 0, False

    # Steps

    @torch.inference_mode()
    def step(self) -> list[Accepted | None]:
        """Take the next tokens of every running sequence; None stands for the others."""
        running = [slot for slot, sequence in enumerate(self._sequences) if sequence is not None]
        if not running:
            return [None] * self.batch
        if not self._unread:
            shape = self._shape(running)
            self._draw_numbers(running)
            told, logits = self._run(shape)
            rows = told.tolist()  # the one transfer to the host
            self._unread = {slot: (rows[slot], logits) for slot in running}
        # The device has gone on: what fails from here on is taken up here again.
        heard = {slot: self._read_told(slot, *unread) for slot, unread in self._unread.items()}
        self._unread = {}
        return [self._accept(slot, heard[slot]) if slot in heard else None for slot in range(self.batch)]

    def _shape(self, running: list[int]) -> Shape:
        sequences = [sequence for sequence in self._sequences if sequence is not None]
        window = any(sequence.parallel for sequence in sequences)
        batch, rows = running[-1] + 1, max(sequence.pending for sequence in sequences) + window * WINDOW
        drawing = any(sequence.settings.temperature > 0 for sequence in sequences)
        if self._fixed:  # few shapes, so that few graphs are needed
            slow = all(sequence.settings.mode == "slow" for sequence in sequences)
            window, rows = not slow, 1 if slow else ROWS
            batch = min(self.batch, 1 << (batch - 1).bit_length())
        span = max(sequence.length - sequence.pending for sequence in sequences) + rows
        history = max(sequence.length for sequence in sequences)
        if self._fixed:
            span = history = spans(span - ROWS)[-1]
            self.reserve(span)
        elif span > self.capacity:
            self.reserve(span + self.capacity // 2)  # and not a little more each time
        return Shape(batch, rows, WINDOW if window else 1, span, history, drawing)

    def _draw_numbers(self, running: list[int]) -> None:
        for slot in running:
            sequence = self._sequences[slot]
            assert sequence is not None
            if sequence.settings.temperature > 0:
                if sequence.uniform is None:
                    sequence.uniform = torch.rand(WINDOW, generator=sequence.numbers)
                self._state.uniform[slot] = sequence.uniform.to(self.device)

    def _run(self, shape: Shape) -> tuple[Tensor, Tensor]:
        if not (self._on_cuda and self._fixed):
            return self._body(shape)
        captured = self._graphs.get(shape)
        if captured is None:
            captured = self._graphs[shape] = self._capture(shape)
        with torch.cuda.device(self.device):
            captured.graph.replay()
        return captured.told, captured.logits

    def _capture(self, shape: Shape) -> _Graph:
        """Capture a step; the steps that go before it, as CUDA wants them, leave the state as it is."""
        before = _State(*(tensor.clone() for tensor in self._state))
        with torch.cuda.device(self.device):
            stream = self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._body(shape)
                    # What they write to the cache, the step itself will write once more.
                    for tensor, kept in zip(self._state, before, strict=True):
                        tensor.copy_(kept)
                # On a stream of this device: the default one is of the device that was captured on first.
                with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                    told, logits = self._body(shape)
            torch.cuda.current_stream().wait_stream(stream)
            self._pool = self._pool or graph.pool()
        return _Graph(graph, told, logits)

    @torch.inference_mode()
    def warm_up(self, capacity: int, settings: Settings, on_progress: Callable[[str, float], None]) -> None:
        """Make room for sequences of so many tokens, and capture the graphs of one answered with `settings`."""
        buckets = spans(capacity)
        self.reserve(buckets[-1])
        rows, outputs = (1, 1) if settings.mode == "slow" else (ROWS, WINDOW)
        for number, span in enumerate(buckets if self._on_cuda and self._fixed else []):
            on_progress("capturing graphs", number / len(buckets))
            shape = Shape(1, rows, outputs, span, span, settings.temperature > 0)
            self._graphs[shape] = self._capture(shape)

    def _read_told(self, slot: int, row: list[float], logits: Tensor) -> _Told:
        sequence = self._sequences[slot]
        assert sequence is not None
        told = _Told.of(row, not sequence.parallel)
        return self._the_long_way(slot, sequence, logits[slot : slot + 1]) if told.short else told

    def _accept(self, slot: int, told: _Told) -> Accepted:
        sequence = self._sequences[slot]
        assert sequence is not None
        sequence.uniform = None
        sequence.length += len(told.tokens)
        sequence.pending, sequence.parallel = len(told.tokens), told.parallel
        finish = told.finish
        if finish is None and sequence.length >= sequence.limit:
            finish = "token_limit"
        if finish is not None:
            self.release(slot)
        return Accepted(told.tokens, told.log_probs, told.spreads, told.kind, told.sampled, told.block, finish)

    def _the_long_way(self, slot: int, sequence: _Sequence, logits: Tensor) -> _Told:
        """Choose again by all of the vocabulary, and correct what the step has noted."""
        state, ids = self._state, self.config.ids
        logits = logits[:, : WINDOW if sequence.parallel else 1]
        seen = torch.zeros(1, logits.shape[-1], dtype=torch.bool, device=self.device)
        seen.scatter_(1, state.seen[slot : slot + 1], True)
        choice = choose(logits, seen, sequence.settings, sequence.parallel, state.uniform[slot : slot + 1], ids)
        count = choice.tokens.shape[1]
        log_probs, spreads = raw_figures(logits[:, :count], choice.tokens, ids.coord_start)
        state.pending[slot, :count] = choice.tokens[0]
        state.taken[slot], state.parallel[slot] = count, choice.parallel
        return _Told(
            choice.tokens[0].tolist(), log_probs[0].tolist(), spreads[0].tolist(), choice.kind,
            choice.sampled[0].tolist(), None if choice.block is None else choice.block[0].tolist(),
            choice.parallel, choice.finish, False,
        )  # fmt: skip

    # What runs on the device

    def _body(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Run a step; return what the host has to know, `[B, …]`, and the raw logits `[B, outputs, V]`."""
        state = _State(*(tensor[: shape.batch] for tensor in self._state))
        # Ids that are taken for a second time are noted twice, which does no harm.
        place = torch.arange(WINDOW, device=self.device)
        noted = torch.where(place < state.taken[:, None], state.pending, state.pending[:, :1])
        state.seen.scatter_(1, state.seen_count[:, None] + place, noted)

        hidden = self._hidden(state, shape)
        logits = torch.unflatten(self.logits(hidden.flatten(0, 1)), 0, (shape.batch, -1))
        told, tokens, count, parallel = self._choose(state, shape, logits)

        # Last, so that a step that fails can be taken again.
        going = state.running
        state.seen_count.add_(state.taken * going)
        state.cached.add_(state.taken * going)
        state.taken.copy_(torch.where(going, count, state.taken))
        state.pending[:, : tokens.shape[1]] = tokens
        state.parallel.copy_(parallel & going)
        return told, logits

    def _hidden(self, state: _State, shape: Shape) -> Tensor:
        """Run the layers over pending tokens and window; return the rows that are read, `[B, outputs, D]`."""
        row = torch.arange(shape.rows, device=self.device)
        count, cached = state.taken[:, None], state.cached[:, None]
        ahead = row - count  # from 0 in the window
        tokens = state.pending.gather(1, row.clamp(max=WINDOW - 1).expand(shape.batch, -1))
        last = state.pending.gather(1, count - 1)
        masks = torch.where(ahead == 0, last, self.config.ids.text_mask)
        ids = torch.where(ahead < 0, tokens, masks)
        slots = cached + row
        positions = slots - (ahead >= 0).long()

        x = self.embed(ids).flatten(0, 1)
        run = self._plain_layers if self._fused is None else self._fused_layers
        x = torch.unflatten(run(x, positions, slots, state, shape), 0, (shape.batch, -1))

        first = torch.where(state.parallel, state.taken, state.taken - 1)[:, None]
        window = torch.arange(shape.outputs, device=self.device) * state.parallel[:, None]
        read = (first + window).clamp(max=shape.rows - 1)
        return x.gather(1, read[..., None].expand(-1, -1, x.shape[-1]))

    def _plain_layers(self, x: Tensor, positions: Tensor, slots: Tensor, state: _State, shape: Shape) -> Tensor:
        """Run all layers over a step's rows `[B·R, D]`."""
        # A token sees what is before it and itself. The window sees itself, and all before the token that it repeats.
        place = torch.arange(shape.span, device=self.device)
        end = (state.cached + state.taken)[:, None, None]
        in_window = (place < end - 1) | ((place >= end) & (place < end + WINDOW))
        mask = torch.where(slots[..., None] >= end, in_window, place <= slots[..., None])

        text = self.config.text
        group = text.num_attention_heads // text.num_key_value_heads
        keys, values = self._cache.keys[:, : shape.batch], self._cache.values[:, : shape.batch]
        sequence = torch.arange(shape.batch, device=self.device)[:, None]
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=self.device).masked_fill_(~mask, -torch.inf)
        bias = bias[:, None, None].expand(-1, -1, group, -1, -1).flatten(2, 3)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for cache, new in ((keys[layer], k), (values[layer], v)):
                cache.transpose(1, 2)[sequence, slots] = torch.unflatten(new, 0, slots.shape)
            # The query heads of a key head become rows of one head, so that keys need no copies.
            q = torch.unflatten(torch.unflatten(q, 1, (-1, group)), 0, slots.shape).permute(0, 2, 3, 1, 4).flatten(2, 3)
            k, v = keys[layer, :, :, : shape.span], values[layer, :, :, : shape.span]
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            return torch.unflatten(seen, 2, (group, -1)).permute(0, 3, 1, 2, 4).flatten(2).flatten(0, 1)

        return self._layers(x, positions, attend)

    def _fused_layers(self, x: Tensor, positions: Tensor, slots: Tensor, state: _State, shape: Shape) -> Tensor:
        """Run all layers over a step's rows `[B·R, D]`, with a launch for what takes many in plain torch."""
        assert self._fused is not None
        text, fused, eps = self.config.text, self._fused, self.config.text.rms_norm_eps
        cos, sin = (table[:, 0] for table in rotary_table(positions, text, x.dtype))
        delta = None
        for number, layer in enumerate(self._weights.layers):
            keys, values = self._cache.keys[number, : shape.batch], self._cache.values[number, : shape.batch]
            x, normed = fused.add_rms_norm(x, delta, layer.input_norm, eps)
            qkv = torch.unflatten(linear(normed, layer.qkv, layer.qkv_bias), 0, slots.shape)
            q = fused.rotate_and_store(qkv, cos, sin, slots, keys, values)
            seen = fused.attend(q, keys, values, state.cached, state.taken, shape.span)
            x, normed = fused.add_rms_norm(x, linear(seen.flatten(0, 1), layer.output), layer.mlp_norm, eps)
            delta = linear(fused.silu_mul(linear(normed, layer.gate_up)), layer.down)
        return x if delta is None else x + delta

    def _layers(
        self, x: Tensor, positions: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor | None]
    ) -> Tensor:
        """Run all layers over rows `[n, D]` at `positions` `[B, R]`, n = B·R.

        `attend` stores keys and values `[n, K, head_dim]` of a layer and returns what the queries `[n, H, head_dim]`
        see, `[n, D]`, or None to stop there.
        """
        text = self.config.text
        heads, eps = [text.num_attention_heads, text.num_key_value_heads], text.rms_norm_eps
        cos, sin = (t.transpose(1, 2).flatten(0, 1) for t in rotary_table(positions, text, x.dtype))
        for number, layer in enumerate(self._weights.layers):
            qkv = linear(rms_norm(x, layer.input_norm, eps), layer.qkv, layer.qkv_bias)
            qkv = torch.unflatten(qkv, -1, (-1, text.head_dim))
            turned = rotate_halves(qkv[:, : sum(heads)], cos, sin)
            q, k = torch.split(turned, heads, 1)
            seen = attend(number, q, k, qkv[:, sum(heads) :])
            if seen is None:
                return x
            x = x + linear(seen, layer.output)
            gate, up = linear(rms_norm(x, layer.mlp_norm, eps), layer.gate_up).chunk(2, -1)
            x = x + linear(F.silu(gate) * up, layer.down)
        return x

    def embed(self, ids: Tensor) -> Tensor:
        """`[…]` → `[…, D]`."""
        return F.embedding(ids, self._embedding)

    def logits(self, hidden: Tensor) -> Tensor:
        """Rows `[n, D]` behind the last layer → float32 `[n, V]`."""
        normed = rms_norm(hidden, self._weights.norm, self.config.text.rms_norm_eps)
        return linear(normed, self._weights.head).float()

    def _choose(self, state: _State, shape: Shape, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sample and read blocks; return what the host has to know, tokens `[B, …]`, their count, and what is parallel.

        Sequences that go token by token have their one row in all outputs.
        """
        ids = self.config.ids
        seen = state.seen[:, : shape.history]
        probs = Shortlist(logits, seen, self._rules.first(shape.batch), self._watched, self._watch)
        sampled = probs.best()
        if shape.drawing:
            drawn = probs.draw(state.uniform[:, : shape.outputs])
            sampled = torch.where(state.draws[:, None], drawn, sampled)
        single = sampled[:, 0]
        goes_on = is_coordinate(single, ids) | (single == ids.none)
        ends = single == ids.end
        closes = state.hybrid & (single == ids.box_end)
        finish = torch.where(ends, _END, torch.where(state.slow | goes_on | closes, _GOES_ON, _GARBLED))
        kind, count, together = torch.full_like(single, _NO_KIND), torch.ones_like(single), torch.zeros_like(ends)
        tokens, block, parallel, short = sampled, sampled, closes, probs.short[:, 0]
        if shape.outputs == WINDOW:
            block, together = decode_block(probs, sampled, state.hybrid, ids)
            tokens, length, kinds = read_block(block, state.hybrid, ids)
            six = state.parallel
            tokens = torch.where(six[:, None], tokens, single[:, None])
            kind, count, together = torch.where(six, kinds, kind), torch.where(six, length, count), together & six
            finish = torch.where(six, torch.where(kinds == Kind.IM_END, _END, _GOES_ON), finish)
            parallel = torch.where(six, kinds != Kind.ERROR_BOX, parallel)
            short = torch.where(six, probs.short.any(-1), short)
        short = short | state.draws & ~probs.limited  # what is drawn of everything is not drawn from a list
        log_probs, spreads = raw_figures(logits, tokens, ids.coord_start)
        figures = (count, kind, finish, parallel, together, short)
        told = torch.cat([torch.stack([f.float() for f in figures], -1),
                          *(t.float() for t in (tokens, log_probs, spreads, sampled, block))], -1)  # fmt: skip
        return told, tokens, count, parallel


def _working_kernels(config: TextConfig, device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Return the Triton kernels where this machine can run them; where not, plain torch does the same, slower."""
    if device.type != "cuda":
        return None
    try:
        from groundlink.backends.locateanything import kernels

        kernels.self_check(config, device, dtype)
    except Exception as error:  # a compiler is missing, a chip is too old: it fails in many ways
        _log.warning("decoding goes on without fused kernels, which do not work here: %s", error)
        return None
    return kernels


def spans(length: int) -> list[int]:
    """Return the slots that steps read where graphs are captured, up to a sequence of so many tokens."""
    found = [SPANS]
    while found[-1] < length + ROWS:
        found.append(2 * found[-1])
    return found


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`[n, in]` → `[n, out]`."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and len(x) <= FEW_ROWS:
        # For a few rows the CPU's libraries read the weights up to four times as fast in this order.
        y = torch.mm(weight, x.t()).t().contiguous()
        return y if bias is None else y + bias
    return F.linear(x, weight, bias)
