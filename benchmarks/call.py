"""What whole calls cost, from picture to boxes: first box, last box, whole answer; first and second question.

    python benchmarks/call.py                # 3B in bfloat16 on a GPU; a model of 45 million weights on a CPU
    python benchmarks/call.py --no-plain     # without the published way
    python benchmarks/call.py --quick        # a small shape and small pictures, in seconds: does it run at all?

A first question is about a picture that was never seen; preparing and looking at it are counted. A second question has
other words about the same picture. Weights are random and form no boxes, so the answer is scripted: a step for a
label, one for each box, one for the end. The published way (`plain.py`) knows no second question: it is held against
its whole call, taken in turn with ours. Where it runs out of memory there is no ratio, and that is said. The floor is
what memory must hand over: the vision tower once, the language model for the prompt and for each step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image

from benchmarks.decode import ScriptedDecoder
from benchmarks.plain import ScriptedPlain, look
from benchmarks.shapes import SHAPES, Script, answer_blocks, random_checkpoint, step_bytes
from benchmarks.timing import Row, copy_bandwidth, report, row, wait
from groundlink.backends.locateanything.config import WINDOW
from groundlink.backends.locateanything.engine import Engine, Picture
from groundlink.backends.locateanything.preprocessing import image_grid, image_tokens, preprocess
from groundlink.backends.locateanything.prompt import QUESTIONS, SYSTEM, Turn, build_chat, expand_tags
from groundlink.backends.locateanything.room import is_memory
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.weights import Checkpoint

SETTINGS = Settings(top_p=0.9)
FIRST, SECOND = (QUESTIONS["ground"].format(phrase) for phrase in ("people in red coats", "the bicycles by the wall"))
TEXTS = (f"system\n{SYSTEM}user assistant image 1", FIRST, SECOND)  # all words that the tokenizer needs
MARKS = ("first box", "last box", "whole answer")


class Case(NamedTuple):
    """A picture, and how many boxes are in the answer about it."""

    width: int
    height: int
    boxes: int


CASES = (Case(640, 480, 7), Case(1920, 1080, 1), Case(1920, 1080, 20), Case(3840, 2160, 50), Case(1920, 1080, 300))
QUICK = (Case(64, 48, 1), Case(64, 48, 3))


class Caller:
    """The engine and the published way, over the same weights and the same script."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.device = checkpoint.model.device
        self.script = Script(answer_blocks(1, self.model.config.ids), self.device)
        self.engine = Engine(checkpoint)
        self.engine.decoder = ScriptedDecoder(self.model, self.script)
        self.engine.warm_up(SETTINGS, lambda doing, fraction: None)

    def ours(self, picture: Picture, question: str, boxes: int) -> list[float]:
        """Return milliseconds from picture and question to the first box, the last and the end."""

        def answer() -> Iterator[list[int]]:
            chat, pictures = build_chat([Turn("user", [picture, question])])
            figures = self.engine.new_figures()
            for accepted in self.engine.answer(chat, pictures, SETTINGS, figures, lambda: None):
                yield accepted.tokens

        return self.marks(answer(), boxes)

    def theirs(self, picture: Picture, question: str, boxes: int) -> list[float]:
        """The same of the published way."""

        def answer() -> Iterator[list[int]]:
            chat, _ = build_chat([Turn("user", [picture, question])])
            patches, grid = preprocess(picture.open(), self.model.config.patch_limit)
            pixels = torch.from_numpy((patches.astype(np.float32) / 255 - 0.5) / 0.5)
            images = look(self.model, pixels.to(self.device), [grid])
            text, _ = expand_tags(chat, [grid])
            prompt = torch.tensor([self.checkpoint.tokenizer.encode(text)], device=self.device)
            plain = ScriptedPlain(self.model, self.script)
            plain.begin(prompt, self.model.embed_prompt(prompt, images), SETTINGS, self.model.config.max_length)
            yield from iter(plain.step, None)

        return self.marks(answer(), boxes)

    def theirs_if_it_fits(self, picture: Picture, question: str, boxes: int) -> list[float] | None:
        """The same, None where memory runs out."""
        try:
            return self.theirs(picture, question, boxes)
        except RuntimeError as error:
            if not is_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # behind the handler, which holds on to what was allocated
        return None

    def marks(self, steps: Iterable[Sequence[int]], boxes: int) -> list[float]:
        """Run an answer and note when its first box, its last box and its end came."""
        self.script.begin(answer_blocks(boxes, self.model.config.ids))
        wait(self.device)
        started = time.perf_counter()
        ends = []
        for tokens in steps:
            ends.append((time.perf_counter() - started) * 1000)
            last = tokens
        assert len(ends) == boxes + 2 and last == [self.model.config.ids.end], "the script was not followed"
        return [ends[1], ends[boxes], ends[-1]]


def make_picture(case: Case, number: int) -> Picture:
    """Make a picture that no other case and number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (case.height // 8, case.width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((case.width, case.height), Image.Resampling.BILINEAR)
    return Picture(f"{case} {number}", image.size, lambda: image)


def run(
    checkpoint: Checkpoint,
    cases: Sequence[Case],
    turns: int,
    plain_cases: Sequence[Case] = (*CASES, *QUICK),
    until: float = float("inf"),
) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows and what they were taken with; `until` is when to stop, by `time.monotonic`.

    The published way is asked in `plain_cases` alone.
    """
    caller = Caller(checkpoint)
    caller.ours(make_picture(QUICK[0], 0), FIRST, 1)
    warm_up = int(caller.device.type == "cuda")  # turns that are not counted; a CPU gains nothing by more of them
    bandwidth = copy_bandwidth(caller.device)
    rows: list[Row] = []
    left_out: list[str] = []
    for case in cases:
        name = f"{case.width}×{case.height}, {case.boxes} boxes"
        grid = image_grid(case.width, case.height, checkpoint.config.patch_limit)
        with_plain = case in plain_cases
        times: dict[str, list[list[float]]] = {"first": [], "second": [], "plain": []}
        for turn in range(warm_up + turns):
            if time.monotonic() > until:
                break
            picture = make_picture(case, turn + 1)
            measured = {
                "first": caller.ours(picture, FIRST, case.boxes),
                "second": caller.ours(picture, SECOND, case.boxes),
            }
            plain = caller.theirs_if_it_fits(picture, FIRST, case.boxes) if with_plain else None
            if with_plain and plain is None:
                with_plain = False
                left_out.append(f"{name}: the published way ran out of memory")
            if plain is not None:
                measured["plain"] = plain
            for key, value in measured.items():
                times[key] += [value] * (turn >= warm_up)
        if not times["first"]:
            left_out.append(name)
            continue
        plain_ms = list(zip(*times["plain"])) if with_plain else [None] * len(MARKS)
        for key in ("first", "second"):
            for i, (mark, ours) in enumerate(zip(MARKS, zip(*times[key]))):
                if case.boxes == 1 and mark == "last box":
                    continue  # it is the first one
                steps = (2, case.boxes + 1, case.boxes + 2)[i]
                floor = _floor(caller, image_tokens(grid), steps, key == "first") / bandwidth * 1000
                label = f"{name}: {key} question, {mark}"
                each = row(label, ours, plain_ms[i], floor, **case._asdict(), question=key, mark=mark)
                if mark == MARKS[-1]:
                    each["boxes_per_s"] = round(1000 * case.boxes / each["median_ms"], 1)
                rows.append(each)
    return rows, {"copy_gb_per_s": round(bandwidth / 1e9, 1), "left_out": left_out}


def _floor(caller: Caller, tokens: int, steps: int, looks: bool) -> int:
    """Return the bytes that so many steps behind a picture must read, with its prefill and a look at it."""
    model = caller.model
    towers = (model.vision_model, model.mlp1)
    seen = sum(weight.numel() * weight.element_size() for tower in towers for weight in tower.parameters())
    head = model.language_model.packed().head  # which a prefill does not read
    prefill = step_bytes(model, 1, 0) - head.numel() * head.element_size()
    return seen * looks + prefill + steps * step_bytes(model, 1, tokens + WINDOW * steps // 2)


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small shape, for a test of this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    shape = options.shape or ("small" if options.quick else "3B" if on_gpu else "45M")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    turns = options.turns or (5 if on_gpu else 2)
    # A CPU would need too long for the others, and for the mask of the largest picture too much memory.
    plain_cases = () if options.no_plain else (*QUICK, *CASES) if on_gpu else (*QUICK, *CASES[:3])
    with torch.inference_mode():
        checkpoint = random_checkpoint(shape, device, dtype, TEXTS)
        rows, facts = run(checkpoint, QUICK if options.quick else CASES, turns, plain_cases)
    settings = {
        "shape": shape,
        "dtype": str(dtype).removeprefix("torch."),
        "mode": SETTINGS.mode,
        "repetition_penalty": SETTINGS.repetition_penalty,
        "top_p": SETTINGS.top_p,
        **facts,
    }
    report(device, settings, rows, ["Random weights; the answer is scripted: a label, the boxes, the end."])


if __name__ == "__main__":
    main()
