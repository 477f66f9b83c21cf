"""What the benchmarks of LocateAnything share: taking times, what memory allows, and telling both.

A row is what one thing costs: `median_ms`; `spread`, the middle half of the times (upper less lower quartile) as a
share of the median; `floor_ms`, the least time in which memory can hand over what must be read; `ratio_to_plain`, how
many times longer the published way takes, by the lower quartiles of times taken in turn. None: not measured.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
Call = Callable[[], object]


def device_name(device: torch.device) -> str:
    """Return what people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    """Return once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(call: Call, device: torch.device) -> float:
    """Time one call, to the end of its work on the device."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return (time.perf_counter() - started) * 1000


def in_turn(calls: Sequence[Call], turns: int, device: torch.device, warm_up: int = 2) -> list[list[float]]:
    """Time calls A/B/A/B …, so that whatever disturbs the machine disturbs them all."""
    times = [[milliseconds(call, device) for call in calls] for _ in range(warm_up + turns)]
    return [list(column) for column in zip(*times[warm_up:])]


def lower_quartile(times: Sequence[float]) -> float:
    """Return the time that a quarter of the times stay below: what noise has touched least."""
    return statistics.quantiles(times, n=4, method="inclusive")[0] if len(times) > 1 else times[0]


def spread(times: Sequence[float]) -> float:
    """Return the middle half of the times as a share of their median."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / middle


def row(name: str, ours: Sequence[float], plain: Sequence[float] | None, floor_ms: float | None, **more: Any) -> Row:
    """Make a row of our times and, where they were taken in turn with ours, those of the published way."""
    return {
        "name": name,
        **more,
        "median_ms": round(statistics.median(ours), 3),
        "spread": round(spread(ours), 3),
        "floor_ms": None if floor_ms is None else round(floor_ms, 3),
        "ratio_to_floor": None if floor_ms is None else round(statistics.median(ours) / floor_ms, 2),
        "plain_ms": None if plain is None else round(statistics.median(plain), 3),
        "ratio_to_plain": None if plain is None else round(lower_quartile(plain) / lower_quartile(ours), 2),
        "turns": len(ours),
    }


def copy_bandwidth(device: torch.device, mib: int | None = None) -> float:
    """Return bytes a second of a large copy on the device, those read and those written both counted."""
    size = (mib or (2048 if device.type == "cuda" else 256)) * 2**20
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    (times,) = in_turn([lambda: target.copy_(source)], 10, device)
    return 2 * size / (lower_quartile(times) / 1000)


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    print(f"{'':44}{'median ms':>11}{'spread':>8}{'floor ms':>10}{'× floor':>9}{'plain ms':>11}{'plain ÷':>9}")
    for each in rows:
        values = [each.get(key) for key in ("floor_ms", "ratio_to_floor", "plain_ms", "ratio_to_plain")]
        told = ["–" if value is None else f"{value:.2f}" for value in values]
        more = f"  {each['boxes_per_s']:.1f} boxes/s" if "boxes_per_s" in each else ""
        print(
            f"{each['name']:44}{each['median_ms']:>11.2f}{each['spread']:>8.0%}"
            f"{told[0]:>10}{told[1]:>9}{told[2]:>11}{told[3]:>9}{more}"
        )


def report(device: torch.device, settings: Row, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
    """Print a table, and one JSON object on the last line."""
    name = device_name(device)
    print(f"{name}, torch {torch.__version__}")
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    for note in notes:
        print(note)
    print_rows(rows)
    print(json.dumps({"device": name, "settings": {"torch": torch.__version__, **settings}, "rows": list(rows)}))
