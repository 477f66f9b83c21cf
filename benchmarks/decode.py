"""What a step of decoding costs, for so many sequences at once behind prompts of several lengths.

    python benchmarks/decode.py                        # 3B in bfloat16 on a GPU; 293M in float32 on a CPU
    python benchmarks/decode.py --batches 1 8 --prefixes 1024
    python benchmarks/decode.py --quick                # a small shape, in seconds: does it run at all?

Weights are random and form no boxes, so the contents of the blocks are scripted: a peak in each row of the logits
spells one box a step, for the engine and for the published way (`plain.py`) alike. Both run in turn, step by step. The
published way takes one sequence at a time, so a step of n sequences is held against n of its steps. The floor is the
bytes of the weights, keys and values that a step must read, by the speed of a large copy in the same run.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks.plain import ScriptedPlain
from benchmarks.shapes import SHAPES, Script, box_block, random_model, random_prompt, step_bytes
from benchmarks.timing import Row, copy_bandwidth, in_turn, report, row
from groundlink.backends.locateanything.config import WINDOW
from groundlink.backends.locateanything.decoder import Decoder
from groundlink.backends.locateanything.generate import Accepted
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.settings import Settings

SETTINGS = Settings(top_p=0.9)
WARM_UP = 3
NOTE = "Random weights; the contents of blocks are scripted: one box a step."


class ScriptedDecoder(Decoder):
    """The engine's decoder with a script: the weights do their work, the script says what comes of it."""

    def __init__(self, model: LocateAnything, script: Script, batch: int = 1, capacity: int = 1024) -> None:
        self.script = script
        super().__init__(model, batch, capacity)

    def step(self) -> list[Accepted | None]:
        """Take one step, of which the script's next block comes for every sequence."""
        self.script.turn_page()
        return super().step()

    def logits(self, hidden: Tensor) -> Tensor:
        """`[n, D]` → float32 `[n, V]`, with the script's peaks."""
        return self.script.plant(super().logits(hidden))


def fill(decoder: Decoder, slot: int, prompt: Tensor, rows: Tensor) -> None:
    """Put a prompt `[1, G]`, embedded `[1, G, D]`, into a slot."""
    decoder.prefill(slot, rows[0, :-1])
    decoder.begin(slot, prompt[0].tolist(), SETTINGS)


def run(
    model: LocateAnything,
    batches: Sequence[int],
    prefixes: Sequence[int],
    turns: int,
    prefill_turns: int = 3,
    until: float = float("inf"),
) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows and what they were taken with; `until` is when to stop, by `time.monotonic`."""
    device = model.device
    script = Script([box_block(model.config.ids)], device)
    bandwidth = copy_bandwidth(device)
    rows: list[Row] = []
    left_out: list[str] = []
    for prefix in prefixes:
        prompt, embedded = random_prompt(model, prefix)
        capacity = prefix + WINDOW * (WARM_UP + turns + 2) + 2 * WINDOW
        plain = ScriptedPlain(model, script)
        if 1 in batches and time.monotonic() < until:
            rows.append(_prefill(model, prompt, embedded, plain, capacity, prefill_turns))
        for batch in batches:
            name = f"step, batch {batch}, prefix {prefix}"
            if time.monotonic() > until:
                left_out.append(name)
                continue
            if not plain.cached:
                plain.begin(prompt, embedded, SETTINGS)
                plain.step()
            other = copy.copy(plain)  # a step replaces what it changes, so a copy can go its own way
            decoder = ScriptedDecoder(model, script, batch, capacity)
            for slot in range(batch):
                fill(decoder, slot, prompt, embedded)
            ours, theirs = in_turn([decoder.step, other.step], turns, device, WARM_UP)
            told = [accepted.tokens for accepted in decoder.step() if accepted]
            assert told == [box_block(model.config.ids)] * batch == [other.step()] * batch, (
                "the script was not followed"
            )
            length = prefix + WINDOW * (WARM_UP + turns // 2)
            floor = step_bytes(model, batch, length) / bandwidth * 1000
            measured = row(name, ours, [batch * t for t in theirs], floor, batch=batch, prefix=prefix)
            rows.append({**measured, "boxes_per_s": round(1000 * batch / measured["median_ms"], 1)})
            del decoder
    facts = {"copy_gb_per_s": round(bandwidth / 1e9, 1), "left_out": left_out}
    return rows, facts


def _prefill(
    model: LocateAnything, prompt: Tensor, embedded: Tensor, plain: ScriptedPlain, capacity: int, turns: int
) -> Row:
    """Time what comes before a second step: the prompt and the first six tokens."""
    decoder = ScriptedDecoder(model, plain.script, 1, capacity)

    def ours() -> None:
        decoder.release(0)
        fill(decoder, 0, prompt, embedded)
        decoder.step()

    def theirs() -> None:
        plain.begin(prompt, embedded, SETTINGS)
        plain.step()

    fill(decoder, 0, prompt, embedded)
    mine, plain_ms = in_turn([ours, theirs], turns, model.device, 1)
    prefix = prompt.shape[1]
    return row(f"prefill and first step, prefix {prefix}", mine, plain_ms, None, batch=1, prefix=prefix)


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--prefixes", type=int, nargs="+")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--quick", action="store_true", help="a small shape, for a test of this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    shape = options.shape or ("small" if options.quick else "3B" if on_gpu else "293M")
    batches = options.batches or ([1, 2] if options.quick else [1, 2, 4, 8, 16] if on_gpu else [1, 2, 4])
    prefixes = options.prefixes or ([64] if options.quick else [512, 2048, 8192] if on_gpu else [512, 1024, 2048])
    turns = options.turns or (4 if options.quick else 40 if on_gpu else 15)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    with torch.inference_mode():
        rows, facts = run(random_model(shape, device, dtype), batches, prefixes, turns)
    settings = {
        "shape": shape,
        "dtype": str(dtype).removeprefix("torch."),
        "mode": SETTINGS.mode,
        "repetition_penalty": SETTINGS.repetition_penalty,
        "top_p": SETTINGS.top_p,
        **facts,
    }
    report(device, settings, rows, [NOTE, "Plain: n of its steps for a batch of n."])


if __name__ == "__main__":
    main()
