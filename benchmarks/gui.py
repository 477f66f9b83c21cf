"""How often the click lands on the target: a ScreenSpot-style file against a backend.

    python benchmarks/gui.py [targets.jsonl …] [--backend ocr]

Each line of the file: `image` (path beside the file), `bbox` [x1, y1, x2, y2] in pixels, `instruction`, `type`
(text or icon); ambiguous targets carry `alternatives`. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import groundlink

SAMPLE = Path(__file__).parent.parent / "tests" / "data" / "gui_sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, default=[SAMPLE / "targets.jsonl", SAMPLE / "ambiguous.jsonl"])
    parser.add_argument("--backend", default=None)
    args = parser.parse_args()
    hits: dict[str, list[bool]] = {}
    first_ms: list[float] = []
    with groundlink.load(args.backend) as locator:
        seen = set()
        for file in args.files:
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                image = file.parent / row["image"]
                start = time.perf_counter()
                answer = locator.locate(image, groundlink.gui(row["instruction"]))
                if image not in seen:
                    first_ms.append((time.perf_counter() - start) * 1000)
                    seen.add(image)
                kind, right = judge(row, answer)
                hits.setdefault(kind, []).append(right)
                if not right:
                    print(f"missed ({kind}) {row['image']}: {row['instruction']} -> {answer.status}: {answer.reason}")
    result = {kind: {"accuracy": round(statistics.mean(rows), 4), "n": len(rows)} for kind, rows in hits.items()}
    for kind, row in result.items():
        print(f"{kind:10} {row['accuracy']:7.1%} of {row['n']}")
    print(f"first question on a picture: {statistics.median(first_ms):.0f} ms (median), {platform.processor()}")
    print(json.dumps(result))


def judge(row: dict, answer: groundlink.Detections) -> tuple[str, bool]:
    """Text and icon: the pixel is in the box. Ambiguous: marked as such, and every alternative found."""
    if "alternatives" in row:
        inside = [any(contains(box, found.pixel) for found in answer) for box in row["alternatives"]]
        return "ambiguous", answer.status == "ambiguous" and all(inside) and len(answer) == len(inside)
    hit = answer.best is not None and answer.status == "found" and contains(row["bbox"], answer.best.pixel)
    return row["type"], hit


def contains(box: list[float], pixel: tuple[int, int]) -> bool:
    return box[0] <= pixel[0] <= box[2] and box[1] <= pixel[1] <= box[3]


if __name__ == "__main__":
    main()
