"""What the demo model can do: its calibration, its figures on scenes that it never saw, and the card with both."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open

from groundlink.backends.demo import DemoBackend
from groundlink.calibration import Calibration
from groundlink.evaluation.calibration import Reliability, fit
from groundlink.evaluation.cases import ONE_TRUTH, Case
from groundlink.evaluation.metrics import Result, in_words, iou_matrix
from groundlink.evaluation.plots import save_reliability, save_training_curve
from groundlink.evaluation.run import EVERYTHING, Prediction, Report, evidence, score
from groundlink.evaluation.scenes import SCENES, scene_cases
from groundlink.locator import Locator
from groundlink.query import Task
from groundlink.training.demo.learn import phase_folders
from groundlink.training.scenes import LARGEST, SMALLEST
from groundlink.training.scenes.drawing import ICONS, SHAPES
from groundlink.training.scenes.layout import COLOURS, WORDS

CALIBRATION_SCENES = 500
_NEW = "new combinations"
SHIPPED = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
)

_Row = TypeVar("_Row", bound=Result)
Progress = Callable[[str, float], None]


def assess(out: Path, scenes: int, on_progress: Progress = lambda doing, fraction: None) -> Path:
    """Calibrate the model in `out/model`, measure it, and write `out/demo`, the folder that is shipped.

    Args:
        out: the folder of a training by `learn`.
        scenes: how many held-out scenes to ask about, in each mode.
        on_progress: told what is being done.
    """
    demo = out / "demo"
    demo.mkdir(exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(out / "model" / name, demo / name)
    (demo / "calibration.json").unlink(missing_ok=True)
    # The longest first; all raw, since the calibration is made of them. A scene has less than one point to ask for, so
    # that more scenes are asked for those.
    fitted = min(CALIBRATION_SCENES, 2 * scenes)
    jobs: dict[str, _Job] = {
        "slow": _Job("held-out", 0, scenes, "slow"),
        "calibration": _Job("calibration", 0, fitted),
        "hybrid": _Job("held-out", 0, scenes),
        "fast": _Job("held-out", 0, scenes, "fast"),
        _NEW: _Job("new-combinations", 0, scenes),
        "calibration of points": _Job("calibration", fitted, 3 * fitted, task="point"),
        "points": _Job("held-out", scenes, 3 * scenes, task="point"),
    }
    answers: dict[str, list[Prediction]] = {}
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as pool:
        asked = {name: pool.submit(_ask, demo, job) for name, job in jobs.items()}
        for number, name in enumerate(asked):
            on_progress(f"asking: {name}", number / len(asked))
            answers[name] = asked[name].result()
    held_out, unseen = jobs["hybrid"].cases(), answers["hybrid"]
    fitted_on = jobs["calibration"].cases() + jobs["calibration of points"].cases()
    believed_on, believed = held_out + jobs["points"].cases(), unseen + answers["points"]
    calibration = fit(
        evidence(fitted_on, answers["calibration"] + answers["calibration of points"]),
        f"{len(fitted_on)} questions about the first scenes of the split calibration, mode hybrid",
        held_out=evidence(believed_on, believed),
    )
    text = json.dumps(calibration.to_json(), indent=2) + "\n"
    (demo / "calibration.json").write_text(text, encoding="utf-8")

    reports = {mode: score(held_out, answers[mode], {"mode": mode}, calibration) for mode in ("hybrid", "fast", "slow")}
    reports[_NEW] = score(jobs[_NEW].cases(), answers[_NEW])

    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in phase_folders(out)
    ]
    _pictures(demo, logs, held_out, unseen, calibration)
    # What the test of the shipped weights asks again, so that it may be strict.
    few = list(scene_cases("held-out", count=min(SCENES, scenes)))
    again = unseen[: len(few)]
    settings = json.loads((out / "model" / "training.json").read_text(encoding="utf-8"))
    facts = {
        "scenes": scenes,
        "parameters": sum(math.prod(shape) for shape in _shapes(demo / "model.safetensors")) / 1e6,
        "megabytes": (demo / "model.safetensors").stat().st_size / 1e6,
        "samples": sum(log[-1]["samples"] for log in logs),
        **settings,
        "figures": {name: figures_of(report, answers[name]) for name, report in reports.items()},
        "first_scenes": {"scenes": min(SCENES, scenes), **figures_of(score(few, again), again)},
    }
    (demo / "figures.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    trust = score(believed_on, believed, calibration=calibration).reliability
    (demo / "MODEL_CARD.md").write_text(_card(facts, reports["hybrid"], trust, calibration), encoding="utf-8")
    return demo


@dataclass(frozen=True)
class _Job:
    """Questions about scenes of a split: from which scene on, about how many, in which mode, of one task or all."""

    split: str
    first: int
    scenes: int
    mode: str = "hybrid"
    task: Task | None = None

    def cases(self) -> list[Case]:
        return list(scene_cases(self.split, self.first, self.scenes, self.task))


def _ask(folder: Path, job: _Job) -> list[Prediction]:
    """Ask all of a job, in a process of its own."""
    torch.set_num_threads(1)
    with Locator(DemoBackend(model=folder, device="cpu", mode=job.mode, calibrated=False)) as locator:
        return [Prediction(case.name, locator.locate(_image(case), case.query)) for case in job.cases()]


def _image(case: Case) -> Image.Image:
    image = case.image() if callable(case.image) else case.image
    assert isinstance(image, Image.Image)  # scenes are
    return image


def _shapes(path: Path) -> list[tuple[int, ...]]:
    with safe_open(path, framework="pt") as file:
        return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - it is no dictionary


def figures_of(report: Report, answers: Sequence[Prediction]) -> dict[str, float | int | None]:
    """Return the figures that the model is measured by, over all groups; steps are those of an answer."""
    single, several = _whole(report.single), _whole(report.several)
    points, absent = _whole(report.points), _whole(report.rejections)
    steps = [answer.answer.timings_ms["steps"] for answer in answers if answer.answer is not None]
    return {
        "questions": report.n,
        "failures": report.failures,
        "mean_iou": None if single is None else single.mean_iou,
        "acc_50": None if single is None else single.acc_50,
        "f1_50": None if several is None else several.f1_50,
        "f1_mean": None if several is None else several.f1_mean,
        "points_inside": None if points is None else points.first,
        "absent_rejected": None if absent is None else absent.rejected,
        "wrongly_rejected": None if absent is None else absent.wrongly_rejected,
        "steps": sum(steps) / len(steps) if steps else None,
    }


def _whole(rows: dict[str, _Row]) -> _Row | None:
    """Return the row over all groups; a single group has none of its own."""
    return next(iter(rows.values())) if len(rows) == 1 else rows.get(EVERYTHING)


_TITLES = {
    "mean_iou": "one thing: mean IoU",
    "acc_50": "one thing: IoU ≥ 0.5",
    "f1_50": "several: F1@0.5",
    "f1_mean": "several: F1@Mean",
    "points_inside": "points inside",
    "absent_rejected": "absent: answered with none",
    "wrongly_rejected": "there: wrongly answered with none",
    "steps": "decoding steps per answer",
}


def _card(facts: dict[str, Any], report: Report, trust: dict[str, Reliability], calibration: Calibration) -> str:
    """Return the model card; the report is that of the mode hybrid, trust is how far its scores can be believed."""
    figures = facts["figures"]
    names = list(figures)
    sizes = {"shapes": len(SHAPES), "colours": len(COLOURS), "icons": len(ICONS), "words": len(WORDS)}
    sizes |= {"smallest": SMALLEST, "largest": LARGEST}
    lines = [_HEAD.format(**facts, **sizes)]
    lines += [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for key, title in _TITLES.items():
        lines.append(f"| {title} | {' | '.join(in_words(figures[name][key]) for name in names)} |")
    lines += ["", "![Answers on scenes it never saw: the truth in green, the answer in orange](answers.png)", ""]
    for title, rows in report.tables().items():
        if title not in ("Speed", "Scores and spreads"):
            kind: type[Result] = type(next(iter(rows.values())))
            lines += [f"### {title}", "", kind.header("group"), *(row.row(name) for name, row in rows.items()), ""]
    lines += ["## Scores and spreads", "", _CALIBRATION.format(on=calibration.fitted["on"]), ""]
    lines += [Reliability.header("of"), *(row.row(name) for name, row in trust.items()), ""]
    lines += ["![Scores against the share of right answers](reliability.png)", "", _TAIL]
    return "\n".join(lines)


_HEAD = """# The demo model

A LocateAnything of {parameters:.1f} million weights in the published layout (bfloat16, {megabytes:.1f} MB), trained
from scratch on generated scenes. It is small, knows a small world, and is here to try Groundlink with and to test
adapters with a model that is real. Licence: Apache-2.0, like the rest.

**It knows** {shapes} shapes in {colours} colours, {icons} drawn icons, buttons, fields, check boxes and tabs, four
kinds of blocks of a document, and {words} words, as `groundlink/training/scenes` draws them, on pictures of {smallest}
to {largest} pixels a side; larger ones are made smaller first, so a screenshot of a real desktop is beyond it.

## Training

`python -m groundlink.training.demo OUT` does all of this, from nothing.

1. The vision tower learns what lies on each cell (`cells.py`): {cell_steps} steps of 8 scenes.
2. The language model learns to answer while the tower stays as it is: {steps} steps, {samples} scenes with up to six
   questions each, first about one thing, then about a few, then about all; NTP and MTP as in the published training,
   labels of coordinates spread by {spread:g} thousandths. Two heads of its second layer are also told at which words
   to look while a box is said, two of its third at which cells (`guide.py`).

Muon for the matrices of layers and AdamW for the rest, cosine schedules, bfloat16 passes; `learn.py` has all settings.
What only serves training, the heads that read cells and the guide, is not in these weights.

{machine}

![Loss and the share of coordinates within 1 % while training](curve.png)

The second stage; the jumps are where scenes get fuller.

## Figures

On {scenes} scenes of the split `held-out`, whose seeds no training meets, greedy decoding, float32 on a CPU; the last
column is on {scenes} scenes of colours with shapes that training never shows together. To ask such questions again:
`groundlink eval scenes --backend demo` and `groundlink eval new-combinations --backend demo`.
"""

_CALIBRATION = """Raw, a score is the geometric mean of the probabilities of the coordinates, which labels spread over
neighbours keep low. `calibration.json` maps scores and spreads to what they turned out to mean, each by a curve that
only rises; it was fitted on {on}.
The table is on the held-out scenes, and for points on three times as many more. Right is an IoU of 0.5 or more, or a
point inside."""

_TAIL = """## Failures

![Wrong answers: the truth in green, the answer in orange](failures.png)

## Limits

It was not trained on photographs, real programs, other words, other languages, or by example image. What it does not
know it may still answer with a box; the score tells how far to believe it.
"""


def _pictures(
    demo: Path, logs: list[list[dict[str, Any]]], cases: list[Case], answers: list[Prediction], calibration: Calibration
) -> None:
    """Draw the curve of the training, the reliability, right answers and wrong ones."""
    curve, before = [], 0
    for log in logs:  # of the phases, one after the other
        curve += [
            {
                "step": before + row["step"],
                "loss": row["loss"],
                "coordinates within 1 %": row["coordinates_within_1_percent"],
            }
            for row in log
        ]
        before += log[-1]["step"]
    save_training_curve(demo / "curve.png", curve)
    found = evidence(cases, answers)["box"]
    save_reliability(demo / "reliability.png", found, found.after(calibration, "box"), "boxes")
    right: list[tuple[Case, Prediction]] = []
    wrong: list[tuple[Case, Prediction]] = []
    for case, answer in zip(cases, answers, strict=True):
        if case.query.task in ONE_TRUTH and case.truth:
            (right if _is_right(case, answer) else wrong).append((case, answer))
    _sheet(right[:: max(1, len(right) // 12)][:12], demo / "answers.png")
    _sheet(wrong[:: max(1, len(wrong) // 12)][:12], demo / "failures.png")


def _is_right(case: Case, answer: Prediction) -> bool:
    boxes = [found.box for found in answer.found if found.box is not None]
    return bool(boxes) and float(iou_matrix(np.array([case.truth[0].box]), np.array(boxes[:1]))[0, 0]) >= 0.5


def _sheet(pairs: Sequence[tuple[Case, Prediction]], path: Path) -> None:
    """Draw questions in rows of four, each under its words."""
    wide, tall, columns = 300, 264, 4
    sheet = Image.new("RGB", (wide * columns, tall * max(1, math.ceil(len(pairs) / columns))), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (case, answer) in enumerate(pairs):
        image = _image(case).copy()
        lines = ImageDraw.Draw(image)
        for box in (truth.box for truth in case.truth):
            lines.rectangle([box[0] - 1, box[1] - 1, box[2], box[3]], outline="#1f9d55", width=2)
        for box in (found.box for found in answer.found if found.box is not None):
            lines.rectangle([box[0] - 3, box[1] - 3, box[2] + 2, box[3] + 2], outline="#e8710a", width=2)
        x, y = number % columns * wide + 8, number // columns * tall
        said = "" if answer.found else ": none"
        pen.text((x, y + 8), f"{case.query.words}{said}", fill="#333333", font=ImageFont.load_default(13))
        sheet.paste(image, (x, y + 28))
    sheet.save(path, optimize=True)
