"""Peak memory of LocateAnything's stages at full size, with a small model of random weights.

    python benchmarks/memory.py                        # an image of 25 600 patches, a prompt of 6 400 tokens
    python benchmarks/memory.py --as-published mask    # with dense masks, as the model was published: fails
    python benchmarks/memory.py --as-published logits  # with logits for every row of the prompt: fails

Memory must grow with the rows, not with their square and not with rows times the vocabulary. Exits with 1 where it
does not.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.nn import functional as F

from groundlink.backends.locateanything import vision
from groundlink.backends.locateanything.config import Config, TextConfig, TokenIds, VisionConfig
from groundlink.backends.locateanything.generate import step_rows
from groundlink.backends.locateanything.model import LocateAnything

MIB = 2**20
LIMIT_PER_ROW = 6 * 1024  # bytes that a patch, or a token of the prompt, may cost at the peak of a stage …
LIMIT_ANYWAY = 4 * MIB  # … besides what its libraries take


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
    parser.add_argument("--side", type=int, default=160, help="patches per side of the image (even)")
    parser.add_argument("--vocabulary", type=int, default=152_681)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--as-published", choices=("mask", "logits"))
    options = parser.parse_args()
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
