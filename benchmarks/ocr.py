"""What one question costs beside the bare OCR of the picture, and what a second one costs.

    python benchmarks/ocr.py [picture …] [--turns 5]

Both are measured in turn in one run, on pixels that nobody has asked about before. Bare OCR is rapidocr with the
settings that Groundlink gives it. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rapidocr import RapidOCR

import groundlink

SAMPLE = Path(__file__).parent.parent / "tests" / "data" / "gui_sample" / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", type=Path, default=sorted(SAMPLE.glob("*.png")))
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bare = RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.return_word_box": True,
            "Global.text_score": 0.3,
            "Global.max_side_len": 2000,
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
    )
    rows = []
    print(f"{platform.machine()}, {threads} threads, Python {platform.python_version()}, {args.turns} turns, medians")
    names = ("picture", "size", "bare OCR", "a question", "ratio", "second, array", "path")
    print("{:20} {:>10} {:>10} {:>10} {:>6} {:>14} {:>8}".format(*names))
    with groundlink.load("ocr") as locator:
        for picture in args.pictures:
            rows.append(measure(picture, bare, locator, args.turns))
            row = rows[-1]
            print(
                f"{picture.name:20} {row['size']:>10} {row['bare_ms']:7.0f} ms {row['first_ms']:7.0f} ms "
                f"{row['ratio']:6.2f} {row['second_array_ms']:11.1f} ms {row['second_path_ms']:5.1f} ms"
            )
    worst = max(row["ratio"] for row in rows)
    print(f"ratio: median {statistics.median(row['ratio'] for row in rows):.2f}, worst {worst:.2f}")
    print(json.dumps({"device": platform.machine(), "settings": {"threads": threads}, "rows": rows}))


def measure(picture: Path, bare: RapidOCR, locator: groundlink.Locator, turns: int) -> dict:
    array = np.array(Image.open(picture).convert("RGB"))
    bgr = np.ascontiguousarray(array[:, :, ::-1])
    question = groundlink.gui("the Settings button")
    theirs, ours, again, by_path = [], [], [], []
    for turn in range(turns + 1):
        theirs.append(clock(lambda: bare(bgr)))
        array[0, 0] = turn  # other pixels, so that nothing is remembered
        ours.append(clock(lambda: locator.locate(array, question)))
        again.append(clock(lambda: locator.locate(array, question)))
        locator.locate(picture, question)
        by_path.append(clock(lambda: locator.locate(picture, question)))
    # The first turn warms up both.
    bare_ms, first_ms = statistics.median(theirs[1:]), statistics.median(ours[1:])
    return {
        "picture": picture.name,
        "size": f"{array.shape[1]}x{array.shape[0]}",
        "bare_ms": round(bare_ms, 1),
        "first_ms": round(first_ms, 1),
        "ratio": round(first_ms / bare_ms, 3),
        "spread": round((max(ours[1:]) - min(ours[1:])) / first_ms, 3),
        "second_array_ms": round(statistics.median(again[1:]), 2),
        "second_path_ms": round(statistics.median(by_path[1:]), 2),
    }


def clock(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
