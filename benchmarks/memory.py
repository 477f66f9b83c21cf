"""Peak memory of whole calls, as `groundlink doctor --model` foretells it and as it is measured.

    python benchmarks/memory.py                       # 3B in bfloat16 on a GPU, 293 million weights in float32 on a CPU
    python benchmarks/memory.py --dtype bfloat16 --only 1920x1080
    python benchmarks/memory.py --stages              # 25 600 patches and 6 400 tokens, with a small model
    python benchmarks/memory.py --stages --as-published mask    # with dense masks, as the model was published: fails
    python benchmarks/memory.py --stages --as-published logits  # with logits for every row of the prompt: fails

A call is an engine's first question about a picture, answered with so many boxes. On a CPU each is measured in a fresh
process: by how much its resident memory has grown at its peak, from before the model is made. Weights are random and
lie in the process's own memory. (The pages of a checkpoint that needs no conversion are counted by the system, too,
where they have been joined with others anew; it takes them back when it needs them.) On a GPU it is what PyTorch had
allocated at the peak; what it had reserved is told as well.

With --stages, memory must grow with the rows, not with their square and not with rows times the vocabulary. Exits with
1 where it does not, or where a peak is not within a tenth of what was foretold.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.call import FIRST, TEXTS
from benchmarks.shapes import SHAPES, random_checkpoint
from benchmarks.timing import Row, device_name
from groundlink.backends.locateanything import vision
from groundlink.backends.locateanything.config import Config, TextConfig, TokenIds, VisionConfig
from groundlink.backends.locateanything.engine import DTYPES, Engine, Picture
from groundlink.backends.locateanything.generate import step_rows
from groundlink.backends.locateanything.memory import Shape
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import image_grid, image_tokens
from groundlink.backends.locateanything.prompt import Turn, build_chat, expand_tags
from groundlink.backends.locateanything.room import keep_no_freed_memory
from groundlink.backends.locateanything.settings import Settings

MIB = 2**20
LIMIT_PER_ROW = 6 * 1024  # bytes that a patch, or a token of the prompt, may cost at the peak of a stage …
LIMIT_ANYWAY = 4 * MIB  # … besides what its libraries take
TOLERANCE = 0.1
CASES = ((640, 480, 7), (1920, 1080, 20), (3840, 2160, 50), (1920, 1080, 300))  # width, height, boxes


def call(engine: Engine, width: int, height: int, boxes: int) -> Shape:
    """Ask about a picture for as many tokens as so many boxes take, and return the call's shape."""
    pixels = np.random.default_rng(width).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((width, height))
    chat, _ = build_chat([Turn("user", [picture, FIRST])])
    # Random weights end no answer; it is cut.
    settings = Settings(mode="fast", max_new_tokens=6 * (boxes + 2))
    figures = engine.new_figures()
    for _ in engine.answer(chat, [Picture("a", (width, height), lambda: picture)], settings, figures, lambda: None):
        pass
    grid = image_grid(width, height, engine.config.patch_limit)
    text, _ = expand_tags(chat, [grid])
    words = len(engine.tokenizer.encode(text)) - image_tokens(grid)
    return Shape((width, height), words, int(figures["tokens"]))


def compared(engine: Engine, shape: Shape, boxes: int, measured: int, seconds: float, **more: Any) -> Row:
    """Return a row of what a call was foretold to take and what it took; it is timed once, so it has no spread."""
    budget = engine.forecast.call(shape)
    stages = {name: round(getattr(budget, name) / MIB) for name in ("weights", "vision", "prefill", "decoding", "kept")}
    return {
        "name": f"{shape.size[0]}×{shape.size[1]}, {boxes} boxes", "tokens": shape.answer,
        "predicted_mib": round(budget.peak / MIB), "measured_mib": round(measured / MIB),
        "ratio": round(budget.peak / measured, 3), **stages, **more,
        "median_ms": round(1000 * seconds, 1), "spread": None, "floor_ms": None, "ratio_to_plain": None,
    }  # fmt: skip


def calls_on_cuda(engine: Engine, cases: Sequence[tuple[int, int, int]]) -> list[Row]:
    """Measure calls of an engine that has warmed up, one after the other."""
    rows = []
    for case in cases:
        engine.free()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        shape = call(engine, *case)
        seconds = time.perf_counter() - started
        reserved = round(torch.cuda.max_memory_reserved() / MIB)
        held = torch.cuda.max_memory_allocated()
        rows.append(compared(engine, shape, case[2], held, seconds, reserved_mib=reserved))
    return rows


def call_on_cpu(shape: str, dtype: str, case: tuple[int, int, int]) -> Row:
    """Measure one call in this process, from before there is a model."""
    device = torch.device("cpu")
    keep_no_freed_memory()  # as the engine does before it loads
    peak = Peak(device)
    peak.start()
    with torch.inference_mode():
        engine = Engine(random_checkpoint(shape, device, DTYPES[dtype], TEXTS))
        asked = call(engine, *case)
    held, seconds = peak.stop()
    return compared(engine, asked, case[2], held, seconds)


def calls(device: torch.device, shape: str, dtype: str, cases: Sequence[tuple[int, int, int]]) -> list[Row]:
    """Measure calls, each in a process of its own where it is the CPU."""
    if device.type == "cuda":
        with torch.inference_mode():
            engine = Engine(random_checkpoint(shape, device, DTYPES[dtype], TEXTS))
            engine.warm_up(Settings(), lambda doing, done: None)
            return calls_on_cuda(engine, cases)
    rows = []
    for case in cases:
        command = [sys.executable, __file__, "--shape", shape, "--dtype", dtype, "--one", *map(str, case)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def report_calls(device: torch.device, settings: dict[str, Any], rows: list[Row]) -> bool:
    """Print calls as a table and as one JSON object; return whether all went as foretold."""
    print(f"{device_name(device)}, torch {torch.__version__}")
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    print(f"{'':26}{'predicted MiB':>15}{'measured MiB':>15}{'ratio':>8}   of which weights, vision, prefill, decoding")
    for row in rows:
        parts = ", ".join(str(row[name]) for name in ("weights", "vision", "prefill", "decoding"))
        reserved = f" (reserved {row['reserved_mib']})" if "reserved_mib" in row else ""
        print(
            f"{row['name']:26}{row['predicted_mib']:>15}{row['measured_mib']:>15}{row['ratio']:>8}   {parts}{reserved}"
        )
    settings = {"torch": torch.__version__, **settings}
    print(json.dumps({"device": device_name(device), "settings": settings, "rows": rows}))
    return all(abs(row["ratio"] - 1) <= TOLERANCE for row in rows)


def small_model(vocab_size: int, device: torch.device) -> LocateAnything:
    """A model of two small layers a tower, but a vocabulary of any size."""
    ids = TokenIds(*range(6), coord_start=10, coord_end=1010, none=6, null=7, text_mask=8)
    config = Config(
        VisionConfig(64, 2, 2, 128, 64, 64),
        TextConfig(vocab_size, 64, 2, 4, 2, 128, 1e6, 1e-6),
        tied=True,
        ids=ids,
        patch_limit=25600,
        max_length=None,
    )
    torch.manual_seed(0)
    model = LocateAnything(config).to(device).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


class Peak:
    """The most memory that is held between `start` and `stop`, above what was held before."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def start(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what an earlier stage has freed must not hide what this one takes
            Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
            self._before = _status("VmRSS")
        self._started = time.perf_counter()

    def stop(self) -> tuple[int, float]:
        """Return bytes and seconds."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._started
        held = torch.cuda.max_memory_allocated() if self.cuda else _status("VmHWM")
        return max(0, held - self._before), seconds


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(
        "this benchmark reads the memory of the CPU from Linux's /proc; run it there, or with --device cuda"
    )


def run(model: LocateAnything, side: int, published: str | None, device: torch.device) -> list[dict[str, object]]:
    """Run vision, prefill and one parallel step over a square image of `side` × `side` patches."""
    patches, tokens = side * side, side * side // 4
    pixels = torch.zeros(patches, 3, 14, 14, device=device)
    prompt = torch.full((1, tokens + 2), model.config.ids.image, device=device)
    prompt[0, -2:] = 9
    peak, rows = Peak(device), []

    def stage(name: str, count: int) -> None:
        held, seconds = peak.stop()
        limit = count * LIMIT_PER_ROW + LIMIT_ANYWAY
        rows.append({"stage": name, "rows": count, "peak_mib": round(held / MIB, 1), "limit_mib": round(limit / MIB, 1),
                     "seconds": round(seconds, 2), "within": held <= limit})  # fmt: skip

    peak.start()
    images = dense_vision(model, pixels, side) if published == "mask" else model.encode_images(pixels, [(side, side)])
    stage("vision", patches)

    cache = model.new_cache(1, tokens + 16)
    embedded = model.embed_prompt(prompt, images)
    peak.start()
    if published:
        places = torch.arange(tokens + 2, device=device)[None]
        dense = torch.ones(1, tokens + 2, tokens + 2, dtype=torch.bool, device=device).tril()
        hidden = model.language_model.model(embedded, places, places, dense if published == "mask" else None, cache)
        model.language_model.logits(hidden if published == "logits" else hidden[:, -1:])
    else:
        model.prefill(embedded[:, :-1], cache)
    stage("prefill", tokens + 2)

    peak.start()
    ids, positions, mask = step_rows(prompt, tokens + 1, True, model.config.ids.text_mask)
    model.step(ids, positions, torch.tensor([tokens + 1], device=device), mask, cache=cache, last=6)
    stage("step", tokens + 2)
    return rows


def dense_vision(model: LocateAnything, pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Attend through a mask of patches × patches, though there is only one picture."""
    mask = torch.ones(side * side, side * side, dtype=torch.bool, device=pixels.device)
    attention = F.scaled_dot_product_attention
    vision.F.scaled_dot_product_attention = lambda q, k, v: attention(q, k, v, attn_mask=mask)
    try:
        return model.encode_images(pixels, [(side, side)])
    finally:
        vision.F.scaled_dot_product_attention = attention


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=SHAPES, help="3B on a GPU, 293M on a CPU where none is chosen")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--only", help="calls about a picture of this size, such as 1920x1080")
    parser.add_argument(
        "--quick", action="store_true", help="a small shape and a small picture, for a test of this file"
    )
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stages", action="store_true", help="stages with a small model, instead of calls")
    parser.add_argument("--side", type=int, default=160, help="patches per side of the image (even)")
    parser.add_argument("--vocabulary", type=int, default=152_681)
    parser.add_argument("--as-published", choices=("mask", "logits"))
    options = parser.parse_args()
    if options.stages:
        return stages(options)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    shape = options.shape or ("small" if options.quick else "3B" if on_gpu else "293M")
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    if options.one:
        print(json.dumps(call_on_cpu(shape, dtype, tuple(options.one))))
        return 0
    cases = [(640, 480, 2)] if options.quick else list(CASES)
    if options.only:
        cases = [case for case in cases if f"{case[0]}x{case[1]}" == options.only]
    rows = calls(device, shape, dtype, cases)
    return 0 if report_calls(device, {"shape": shape, "dtype": dtype}, rows) else 1


def stages(options: argparse.Namespace) -> int:
    """Run the stages over a small model and tell whether each stays within its limit."""
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    with torch.inference_mode():
        model = small_model(options.vocabulary, device)
        run(model, 8, None, device)  # libraries take their own memory once
        rows = run(model, options.side, options.as_published, device)
    print(f"{name}, torch {torch.__version__}")
    print(f"{'stage':10}{'rows':>8}{'peak MiB':>10}{'limit MiB':>11}{'s':>8}")
    for row in rows:
        verdict = "" if row["within"] else "  too much"
        print(
            f"{row['stage']:10}{row['rows']:>8}{row['peak_mib']:>10}{row['limit_mib']:>11}{row['seconds']:>8}{verdict}"
        )
    within = all(row["within"] for row in rows)
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"device": name, "published": options.as_published, "process_peak_mib": total, "within": within,
                      "rows": rows}))  # fmt: skip
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
