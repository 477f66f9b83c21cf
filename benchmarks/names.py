"""How people name things: accuracy by category on pages rendered for it, with the truth from the browser's layout.

    python benchmarks/names.py [--seed 0] [--split dev|held] [--per-category 30] [--misses FOLDER] [--json]

Needs Chromium. A hit: the pixel lies in the box that was meant; equal names without a hint (`twins`): marked as
ambiguous, with every one of them; what is not there (`absent`): not found. A false hit is an answer `found` for it.
The categories below the line are harder than what Groundlink promises. `--keep FOLDER` keeps pages and cases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent.parent))

import groundlink
from tests.ocr.pages import CATEGORIES, MORE, make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("dev", "held"), default="held")
    parser.add_argument("--per-category", type=int, default=30)
    parser.add_argument("--category", action="append", choices=CATEGORIES + MORE, help="only this one; may be repeated")
    parser.add_argument("--backend", default="ocr")
    parser.add_argument("--misses", type=Path, help="folder for pictures of the misses")
    parser.add_argument("--keep", type=Path, help="folder for the pages and cases.jsonl")
    parser.add_argument("--json", action="store_true", help="print one JSON object, alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        start = time.perf_counter()
        wanted = tuple(args.category) if args.category else None
        rows = make(folder, split=args.split, seed=args.seed, per_category=args.per_category, categories=wanted)
        render_s = time.perf_counter() - start
        with groundlink.load(args.backend) as locator:
            misses, times = ask(locator, rows, folder)
        if args.misses:
            for row, answer, _ in misses:
                draw_miss(args.misses, folder, row, answer)
        result = summed(rows, misses, times, render_s) | {"seed": args.seed, "split": args.split}
    if not args.json:
        for row, answer, _ in misses:
            print(f"missed ({row['category']}, {row['wording']}) {row['image']}: {row['instruction']}")
            print(f"    -> {answer.status}: {answer.reason}")
        show(result)
    print(json.dumps(result))


def ask(
    locator: groundlink.Locator, rows: list[dict[str, Any]], folder: Path
) -> tuple[list[tuple[dict[str, Any], groundlink.Detections, str]], dict[str, list[float]]]:
    """Return the misses, each with its answer and what was wrong, and the milliseconds of first and later questions."""
    misses = []
    times: dict[str, list[float]] = {"first": [], "later": []}
    seen = set()
    for row in rows:
        start = time.perf_counter()
        answer = locator.locate(folder / row["image"], groundlink.gui(row["instruction"]))
        times["later" if row["image"] in seen else "first"].append((time.perf_counter() - start) * 1000)
        seen.add(row["image"])
        wrong = judge(row, answer)
        if wrong:
            misses.append((row, answer, wrong))
    return misses, times


def judge(row: dict[str, Any], answer: groundlink.Detections) -> str:
    """Return what is wrong with an answer: "false hit", "wrong place", "ambiguous", "not found"; "" for nothing."""
    if row["bbox"] is None:
        return {"found": "false hit", "ambiguous": "ambiguous"}.get(answer.status, "")
    if "alternatives" in row:
        if answer.status != "ambiguous":
            return "not found" if answer.status == "not_found" else "false hit"
        boxes = row["alternatives"]
        each = all(any(contains(box, found.pixel) for found in answer) for box in boxes)
        return "" if each and len(answer) == len(boxes) else "wrong place"
    if answer.status != "found" or answer.best is None:
        return answer.status.replace("_", " ")
    return "" if contains(row["bbox"], answer.best.pixel) else "wrong place"


def contains(box: list[int], pixel: tuple[int, int]) -> bool:
    return box[0] <= pixel[0] <= box[2] and box[1] <= pixel[1] <= box[3]


def summed(
    rows: list[dict[str, Any]], misses: list[Any], times: dict[str, list[float]], render_s: float
) -> dict[str, Any]:
    missed = {row["id"]: wrong for row, _, wrong in misses}
    by_category: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_category[row["category"]].append(row)
    figures = {}
    for category in (*CATEGORIES, *MORE):
        cases = by_category.get(category, [])
        if not cases:
            continue
        wrong = [missed[row["id"]] for row in cases if row["id"] in missed]
        wordings: dict[str, list[bool]] = defaultdict(list)
        for row in cases:
            wordings[row["wording"]].append(row["id"] not in missed)
        figures[category] = {
            "accuracy": round(1 - len(wrong) / len(cases), 4),
            "n": len(cases),
            "wrong": {kind: wrong.count(kind) for kind in sorted(set(wrong))},
        }
        if len(wordings) <= 12:
            figures[category]["wordings"] = {name: [sum(hits), len(hits)] for name, hits in wordings.items()}
    return {
        "categories": figures,
        "pages": len({row["image"] for row in rows}),
        "render_s": round(render_s, 1),
        "first_ms": round(statistics.median(times["first"])),
        "later_ms": round(statistics.median(times["later"]), 1) if times["later"] else None,
        "later_worst_ms": round(max(times["later"]), 1) if times["later"] else None,
        "device": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['split']}, seed {result['seed']}, {result['pages']} pages rendered in {result['render_s']} s")
    for category, row in result["categories"].items():
        if category == MORE[0]:
            print("-" * 20)
        wrong = ", ".join(f"{count} {kind}" for kind, count in row["wrong"].items())
        print(f"{category:12} {row['accuracy']:7.1%} of {row['n']:<4} {wrong}")
        if row["wrong"] and "wordings" in row:
            print("             " + ", ".join(f"{name} {hits}/{n}" for name, (hits, n) in row["wordings"].items()))
    print(
        f"a question: {result['first_ms']} ms the first on a page, {result['later_ms']} ms later ones (medians; worst "
        f"{result['later_worst_ms']} ms), {result['device']}"
    )


def draw_miss(folder: Path, pages: Path, row: dict[str, Any], answer: groundlink.Detections) -> None:
    """Draw what was meant in green and what was answered in red; the file's name tells the question."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(pages / row["image"]) as opened:
        picture = opened.convert("RGB")
    canvas = ImageDraw.Draw(picture)
    for box in row.get("alternatives", [row["bbox"]] if row["bbox"] else []):
        canvas.rectangle(box, outline=(0, 170, 0), width=3)
    for found in answer:
        if found.box is not None:
            canvas.rectangle(found.box, outline=(230, 0, 0), width=2)
    words = "".join(c if c.isalnum() else "_" for c in row["instruction"])[:60]
    picture.save(folder / f"{row['category']}_{row['id']:04}_{words}.png")


if __name__ == "__main__":
    main()
