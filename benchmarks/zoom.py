"""What a second look at an enlarged part gives: small things, by the screen agent's Finder without it and with it.

    python benchmarks/zoom.py            # about five minutes on 2 cores
    python benchmarks/zoom.py --short    # a few cases of each, for a test

`demo`: things of generated scenes of 140 to 224 pixels a side, alone, and pasted on plain desktops of several sizes,
which that model sees scaled down to about 280. `ocr`: words of 7 to 12 pixels' height on pictures of 800×600. A hit is
a pixel to press that lies in the true box; the IoU of what is missed is 0; the error is how far the middle of what was
found is off, in pixels. Other values of ZOOM_SIDE, ZOOM_CONTEXT and ZOOM_FACTOR are tried beside those of the agent.
All from seeds. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

import groundlink
from groundlink.errors import TargetAmbiguous, TargetNotFound
from groundlink.training.scenes import draw
from groundlink.training.scenes.drawing import fonts, word_mask
from groundlink.training.scenes.layout import WORDS
from screen_agent import ground
from screen_agent.capture import Shot, View
from screen_agent.ground import Choice, Finder

Box = tuple[float, float, float, float]
Case = tuple[Shot, str, Box]
SIZES = (None, (400, 300), (500, 375), (640, 480), (1000, 750))
HEIGHTS = (7, 8, 9, 10, 11, 12)
GROUPS = {"icon", "button", "checkbox", "field", "tab", "colour and shape"}
SETTINGS = (
    (ground.ZOOM_SIDE, ground.ZOOM_CONTEXT, ground.ZOOM_FACTOR),
    (28, 10, 2),
    (48, 10, 2),
    (48, 10, 1),
    (48, 6, 2),
)
"""ZOOM_SIDE, ZOOM_CONTEXT and ZOOM_FACTOR: first those of the agent."""
SEED, FIRST = 7, 5000
"""Of the desktops and words, and the number of the first held-out scene."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--cases", type=int, default=60, help="of each size of picture or text")
    args = parser.parse_args()
    count = 6 if args.short else args.cases
    settings = tuple(dict.fromkeys(SETTINGS))[: 1 if args.short else None]
    rows: list[dict[str, Any]] = []
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {count} cases a row")
    print(f"{'':18}{'second look':>25}{'hits':>7}{'found':>7}{'mean IoU':>10}{'error px':>10}{'9 in 10':>9}{'ms':>7}")
    with groundlink.load("demo") as demo:
        for size in SIZES[:: 2 if args.short else 1]:
            name = "demo, " + ("alone" if size is None else f"{size[0]}×{size[1]}")
            measure(name, demo, list(scenes(size, count)), settings, rows)
    with groundlink.load("ocr") as ocr:
        for height in HEIGHTS[:: 3 if args.short else 1]:
            measure(f"ocr, {height} px", ocr, list(words(height, count)), settings, rows)
    for backend in ("demo", "ocr"):
        told = [
            "{:.0%} hit, mean IoU {:.2f}, {:.1f} px off".format(
                *(statistics.mean(row[key] for row in rows if row["name"].startswith(backend) and row["zoom"] == zoom)
                  for key in ("hits", "iou", "error_px"))
            )
            for zoom in ("none", rows[1]["zoom"])
        ]  # fmt: skip
        print(f"{backend}: {told[0]} without a second look, {told[1]} with it (means of the rows)")
    device = f"{platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps({"device": device, "settings": {"cases": count, "seed": SEED, "first": FIRST}, "rows": rows}))


def scenes(size: tuple[int, int] | None, count: int) -> Iterator[Case]:
    """Things that are on a held-out scene once, and the scene somewhere on a plain desktop."""
    number = FIRST
    while count:
        rng = np.random.default_rng([SEED, number])
        scene, questions = draw("held-out", number, 8)
        number += 1
        single = [
            q for q in questions if q.group in GROUPS and q.task in ("gui", "ground_one") and len(q.truth[0][1]) == 1
        ]
        if not single:
            continue
        count -= 1
        picture, left, top = scene.image, 0, 0
        if size is not None:
            level = int(rng.integers(60, 220))
            picture = Image.new("RGB", size, (level, level, level))
            left, top = (int(rng.integers(0, size[side] - scene.image.size[side] + 1)) for side in (0, 1))
            picture.paste(scene.image, (left, top))
        x1, y1, x2, y2 = single[0].truth[0][1][0]
        yield shot(picture), single[0].phrases[0], (x1 + left, y1 + top, x2 + left, y2 + top)


def words(height: int, count: int) -> Iterator[Case]:
    """Words whose capitals and tails together are so high, twelve on a picture, each asked for by name."""
    rng = np.random.default_rng([SEED, height])
    while count > 0:
        face = str(rng.choice(fonts()))
        size = next(size for size in range(5, 40) if word_mask("Hpg", face, size).height >= height)
        level, dark = int(rng.integers(225, 256)), int(rng.integers(0, 90))
        picture = Image.new("RGB", (800, 600), (level, level, level))
        placed: list[tuple[str, Box]] = []
        for place, word in enumerate(rng.permutation([word for word in WORDS if len(word) > 3])[:12]):
            x, y = 40 + 190 * (place % 4) + int(rng.integers(0, 90)), 60 + 170 * (place // 4) + int(rng.integers(0, 90))
            mask = word_mask(str(word), face, size)
            picture.paste((dark, dark, dark), (x, y), mask)
            placed.append((str(word), (x, y, x + mask.width, y + mask.height)))
        taken = shot(picture)
        for word, box in placed[: min(count, 12)]:
            yield taken, word, box
        count -= 12


def shot(picture: Image.Image) -> Shot:
    three = np.asarray(picture.convert("RGB"), dtype=np.uint32)
    frame = (three[:, :, 0] << 16 | three[:, :, 1] << 8 | three[:, :, 2]).astype(np.uint32)
    return Shot(frame, View((0, 0, *picture.size), picture.size), 0.0)


def measure(
    name: str,
    locator: groundlink.Locator,
    cases: list[Case],
    settings: tuple[tuple[int, int, int], ...],
    rows: list[dict[str, Any]],
) -> None:
    """Ask all cases without a second look, and with it in each setting."""
    for setting in (None, *settings):
        if setting is not None:
            ground.ZOOM_SIDE, ground.ZOOM_CONTEXT, ground.ZOOM_FACTOR = setting
        finder = Finder(lambda: locator, zoom=setting is not None)
        hits, overlaps, errors = 0, [], []
        started = time.perf_counter()
        for picture, what, truth in cases:
            try:
                found = finder.find(picture, what, Choice())
            except (TargetNotFound, TargetAmbiguous):
                overlaps.append(0.0)
                continue
            x, y = found.pixel
            hits += truth[0] <= x < truth[2] and truth[1] <= y < truth[3]
            overlaps.append(iou(found.box, truth))
            middles = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (found.box, truth)]
            errors.append(float(np.hypot(*np.subtract(*middles))))
        rows.append(
            {
                "name": name,
                "zoom": "none" if setting is None else "below {}: {} sides, ×{}".format(*setting),
                "hits": round(hits / len(cases), 3),
                "found": round(len(errors) / len(cases), 3),
                "iou": round(statistics.mean(overlaps), 3),
                "error_px": round(statistics.median(errors), 2) if errors else 0.0,
                "error_px_9_in_10": round(float(np.quantile(errors, 0.9)), 1) if errors else 0.0,
                "ms": round((time.perf_counter() - started) / len(cases) * 1000),
            }
        )
        row = rows[-1]
        print(
            f"{name:18}{row['zoom']:>25}{row['hits']:7.0%}{row['found']:7.0%}{row['iou']:10.3f}{row['error_px']:10.1f}"
            f"{row['error_px_9_in_10']:9.1f}{row['ms']:7}",
            flush=True,
        )


def iou(a: Box, b: Box) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


if __name__ == "__main__":
    main()
