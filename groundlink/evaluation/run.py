"""Asking a locator all questions of a set, keeping its answers, and scoring them against the truth.

```python
cases = read_cases("instances.json", limit=200)
with groundlink.load("locateanything", model="my-checkpoint") as locator:
    report = evaluate(locator, cases, folder=Path("out"))
print(report.to_markdown())
```

Answers are kept first and scored afterwards: `score(cases, read_predictions(path), about)` does it again at any time.
A question that ended in an error, or in an answer that cannot be read, counts as wrong and is never left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundlink._version import __version__
from groundlink.calibration import KINDS, Calibration, Kind
from groundlink.detections import Detection, Detections
from groundlink.errors import BadData, BadOutput, Cancelled, GroundlinkError, UnsupportedTask
from groundlink.evaluation.calibration import Evidence, Reliability, reliability
from groundlink.evaluation.cases import ONE_TRUTH, SEVERAL_PHRASES, Case, Truth
from groundlink.evaluation.metrics import (
    F1,
    Floats,
    Labelled,
    Points,
    Rejection,
    Result,
    Single,
    Speed,
    duplicate_ratio,
    f1,
    f1_coco,
    in_words,
    inside_matrix,
    iou_matrix,
    match,
    match_points,
    plain_label,
    pointing,
    rejection,
    rounded,
    same_label,
    single,
    speed,
)
from groundlink.evaluation.screenspot import Screens, Target, score_targets
from groundlink.files import save_text, unwritable
from groundlink.image import printable
from groundlink.locator import Locator

SCHEMA = "groundlink-predictions/1"
PREDICTIONS, BEGUN = "predictions.jsonl", "predictions.begun.jsonl"
"""All answers of a run, and those of one that is under way or was cut off."""
EVERYTHING = "all"
"""The name of the row over all groups."""

_LOOKING = ("vision", "find_text")  # stages that take no time where the picture is known from before
_RIGHT = 0.5  # the IoU from which on an answer is right, where its score is looked at


@dataclass(frozen=True)
class Prediction:
    """What came of one case: an answer, or the error in its place."""

    case: str
    answer: Detections | None
    error: str | None = None

    @property
    def found(self) -> Sequence[Detection]:
        """What was found, in the order of the answer."""
        return () if self.answer is None else self.answer.detections

    @property
    def failed(self) -> bool:
        """Whether there is no answer that could be read; "nothing is there" is one."""
        return self.answer is None or (not self.answer.detections and not self.answer.complete)

    def to_json(self) -> dict[str, Any]:
        """Return a line of the file of predictions; all digits are kept, for scores differ in the last of them."""
        if self.answer is None:
            return {"case": self.case, "answer": None, "error": self.error}
        exact = [
            detection.to_json() | {name: getattr(detection, name) for name in ("box", "point", "score", "spread")}
            for detection in self.answer
        ]
        whole = self.answer.to_json() | {"detections": exact, "timings_ms": self.answer.timings_ms}
        return {"case": self.case, "answer": whole, "error": None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Prediction:
        """Read what `to_json` made. Raises BadData."""
        try:
            answer = data["answer"]
            return cls(str(data["case"]), None if answer is None else Detections.from_json(answer), data["error"])
        except (KeyError, TypeError) as error:
            raise BadData(f"a prediction has 'case', 'answer' and 'error', but this is {data!r:.80}") from error


def evaluate(
    locator: Locator,
    cases: Iterable[Case],
    *,
    about: dict[str, Any] | None = None,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Ask all questions one after the other, and score the answers.

    Args:
        locator: whom to ask.
        cases: what to ask; each has a name of its own.
        about: what else the report should say, such as the name of the data.
        folder: where `predictions.jsonl`, `report.json` and `report.md` are written, made if need be; None writes
            nothing. What a run that was cut off has answered there is not asked again.
        on_progress: told how many questions are answered, and how many there are.

    Raises:
        UnsupportedTask: the backend does not do a task that is asked, told before anything is asked.
        BadOutput: the folder cannot be written to, or holds the beginning of a run with other questions or settings.
        BadData: two cases have one name.
        Cancelled: the locator was closed.
    """
    asked = list(cases)
    _check(locator, asked)
    told = {"backend": locator.info.name, "groundlink": __version__, **(about or {}), **_describe(locator, asked)}
    kept = None if folder is None else _Kept(folder, told, asked)
    predictions = {} if kept is None else kept.begun
    on_progress(len(predictions), len(asked))
    try:
        for case in asked:
            if case.name in predictions:
                continue
            predictions[case.name] = prediction = _ask(locator, case)
            if kept is not None:
                kept.add(prediction)
            on_progress(len(predictions), len(asked))
    finally:
        if kept is not None:
            kept.close()
    report = score(asked, predictions.values(), told)
    if kept is not None:
        kept.finish(report)
    return report


def _check(locator: Locator, cases: Sequence[Case]) -> None:
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise BadData(f"{len(twice)} names of cases occur more than once, such as {twice[0]!r}; give each its own")
    unknown = sorted({case.query.task for case in cases} - set(locator.info.tasks))
    if unknown:
        raise UnsupportedTask(
            f"the backend {locator.info.name!r} does not do {', '.join(map(repr, unknown))}; it does "
            f"{', '.join(locator.info.tasks)}: ask one of these, or another backend"
        )


def _describe(locator: Locator, cases: Sequence[Case]) -> dict[str, Any]:
    """Return what the backend says of its settings, with the prompts of the tasks that are asked."""
    describe = getattr(locator.backend, "describe", None)
    settings: dict[str, Any] = dict(describe()) if describe is not None else {}
    if "prompts" in settings:
        tasks = sorted({case.query.task for case in cases})
        settings["prompts"] = {task: settings["prompts"][task] for task in tasks if task in settings["prompts"]}
    return settings


def _ask(locator: Locator, case: Case) -> Prediction:
    try:
        image = case.image() if callable(case.image) else case.image
        answer = locator.locate(image, case.query)
        if answer.size != case.size:
            raise BadData(f"the case {case.name!r} is of an image of {case.size}, but was given one of {answer.size}")
        return Prediction(case.name, answer)
    except (Cancelled, BadData):
        raise
    except GroundlinkError as error:
        return Prediction(case.name, None, f"{error.code.tool}: {error}")


class _Kept:
    """The files of a run. Each answer is written when it is there; its first line says what the run is."""

    def __init__(self, folder: Path, about: dict[str, Any], cases: Sequence[Case]) -> None:
        self._folder = folder
        self._path = folder / BEGUN
        questions = [[case.name, case.query.to_json(), list(case.size)] for case in cases]
        digest = hashlib.sha256(json.dumps(questions).encode()).hexdigest()[:16]
        head = {"schema": SCHEMA, "cases": len(cases), "questions": digest, "about": about}
        self.begun: dict[str, Prediction] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                found, predictions = _read_file(self._path, cut=True)
                if found is not None and found != json.loads(json.dumps(head)):
                    raise BadOutput(
                        f"{printable(str(self._path))}: is the beginning of a run with other questions or settings; "
                        "remove it, or choose another folder"
                    )
                self.begun = {prediction.case: prediction for prediction in predictions}
            # What was cut off in the middle of a line is written anew.
            lines = [head, *(prediction.to_json() for prediction in self.begun.values())]
            save_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), self._path)
            self._file = self._path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise unwritable(folder, error) from error

    def add(self, prediction: Prediction) -> None:
        try:
            self._file.write(json.dumps(prediction.to_json(), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        self._file.close()

    def finish(self, report: Report) -> None:
        save_text(json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n", self._folder / "report.json")
        save_text(report.to_markdown(), self._folder / "report.md")
        try:
            self._path.replace(self._folder / PREDICTIONS)
        except OSError as error:
            raise unwritable(self._folder / PREDICTIONS, error) from error


def read_predictions(path: Path) -> list[Prediction]:
    """Return the answers that a run has kept, in its order.

    Raises:
        BadData: the file cannot be read, or a line of it is no prediction; the message names it.
    """
    return _read_file(path, cut=False)[1]


def _read_file(path: Path, cut: bool) -> tuple[dict[str, Any] | None, list[Prediction]]:
    """Return the first line and the predictions; with `cut`, a last line that is not whole is left out."""
    name = printable(str(path))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeError) as error:
        raise BadData(f"{name}: cannot be read ({error})") from error
    rest = lines.pop()
    if rest and not cut:
        lines.append(rest)
    head: dict[str, Any] | None = None
    predictions = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if head is None:
                if not isinstance(row, dict) or row.get("schema") != SCHEMA:
                    raise BadData(f'it begins with a line with "schema": "{SCHEMA}", not {line!r:.80}')
                head = row
            else:
                predictions.append(Prediction.from_json(row))
        except (ValueError, BadData) as error:
            raise BadData(f"{name}:{number}: is no file of predictions: {error}; remove it and run again") from error
    return head, predictions


@dataclass(frozen=True)
class Report:
    """What an evaluation found, by groups; the row `all` is over all of them.

    Attributes:
        about: what was run.
        n: questions.
        failures: those that ended in an error or an answer that cannot be read; they count as wrong.
        incomplete: answers that the model did not finish.
        errors: the errors, and how often each came.
        single: questions for one thing that is there.
        several: questions for all there are; `f1` of those with truth and without.
        published: the same by the definitions of the published tables, over all groups: `pooled` and `COCO`.
        points: questions for a point on what is there.
        rejections: questions for what is not there; of several categories each is one.
        duplicates: pairs of boxes that say the same, in proportion to all boxes; None where there are none.
        reliability: whether scores and spreads can be believed: `box` and `point`, and both after a calibration.
        speed: of answers whose picture was not kept from an earlier question, without the first of the run.
        screens: targets on screens, which count in none of the others but `n`, `failures`, `incomplete` and `errors`;
            None where there are none.
    """

    about: dict[str, Any]
    n: int
    failures: int
    incomplete: int
    errors: dict[str, int]
    single: dict[str, Single]
    several: dict[str, F1]
    published: dict[str, F1]
    points: dict[str, Points]
    rejections: dict[str, Rejection]
    duplicates: float | None
    reliability: dict[str, Reliability]
    speed: Speed
    screens: Screens | None = None

    def tables(self) -> dict[str, dict[str, Result]]:
        """Return the tables by their titles, for people; empty ones are left out."""
        tables: dict[str, dict[str, Result]] = {
            **({} if self.screens is None else self.screens.tables()),
            "One thing": {**self.single},
            "Several things (F1 of means over images, labels must match)": {**self.several},
            "Several things, as published (not comparable with each other)": {**self.published},
            "Points": {**self.points},
            "What is not there": {**self.rejections},
            "Scores and spreads": {**self.reliability},
            "Speed": {"boxes": self.speed} if self.speed.n else {},
        }
        return {title: rows for title, rows in tables.items() if rows}

    def to_json(self) -> dict[str, Any]:
        """Return all of it, of plain lists, dicts, strings and numbers."""
        parts = ("single", "several", "published", "points", "rejections", "reliability")
        return {
            "schema": "groundlink-report/1",
            "about": self.about,
            "n": self.n,
            "failures": self.failures,
            "incomplete": self.incomplete,
            "errors": self.errors,
            **{part: {name: row.to_json() for name, row in getattr(self, part).items()} for part in parts},
            "duplicates": rounded(self.duplicates),
            "speed": self.speed.to_json(),
            **({} if self.screens is None else {"screens": self.screens.to_json()}),
        }

    def summary(self) -> str:
        """Return the counts, in one line."""
        return (
            f"{self.n} questions, {self.failures} failed (counted as wrong), {self.incomplete} not complete, "
            f"duplicates: {in_words(self.duplicates)}"
        )

    def to_markdown(self) -> str:
        """Return all of it for people."""
        lines = ["# Evaluation", "", self.summary(), ""]
        lines += [f"- {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in self.about.items()]
        for title, rows in self.tables().items():
            kind = type(next(iter(rows.values())))
            lines += ["", f"## {title}", "", kind.header("group"), *(row.row(name) for name, row in rows.items())]
        if self.errors:
            lines += ["", "## Errors", "", *(f"- {count} × {error}" for error, count in self.errors.items())]
        return "\n".join(lines) + "\n" + ("" if self.screens is None else self.screens.to_markdown())


def score(
    cases: Iterable[Case],
    predictions: Iterable[Prediction],
    about: dict[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> Report:
    """Score answers against the truth.

    Args:
        cases: what was asked.
        predictions: what came of it, in any order.
        about: what the report should say was run.
        calibration: says how far the scores and spreads could be believed after it as well.

    Raises:
        BadData: a case has no prediction.
    """
    everything = _pairs(cases, predictions)
    targets = [(case, prediction) for case, prediction in everything if isinstance(case, Target)]
    pairs = [pair for pair in everything if not isinstance(pair[0], Target)]
    believed: dict[str, Reliability] = {}
    for kind, given in _evidence(pairs).items():
        believed[kind] = reliability(given)
        if calibration is not None:
            believed[f"{kind}, calibrated"] = reliability(given.after(calibration, kind))
    several = [pair for pair in pairs if _is_several(pair[0])]
    there = [pair for pair in several if pair[0].truth]
    boxes = [_boxes(*pair) for pair in several]
    published = {}
    if there:
        truths = [_truth(case) for case, _ in several]
        published = {"pooled": f1(truths, boxes, match_labels=False), "COCO": f1_coco(truths, boxes)}
    errors = Counter(prediction.error for _, prediction in everything if prediction.error is not None)
    return Report(
        about=about or {},
        n=len(everything),
        failures=sum(prediction.failed for _, prediction in everything),
        incomplete=sum(prediction.answer is None or not prediction.answer.complete for _, prediction in everything),
        errors=dict(errors.most_common()),
        single=_by_group(pairs, lambda case: case.query.task in ONE_TRUTH and bool(case.truth), _single),
        several=_by_group(pairs, _is_several, _several),
        published=published,
        points=_by_group(pairs, lambda case: case.query.task == "point" and bool(case.truth), _points),
        rejections=_by_group(pairs, lambda case: True, _rejection),
        duplicates=duplicate_ratio([_boxes(*pair) for pair in pairs]),
        reliability=believed,
        speed=_speed([prediction for _, prediction in pairs]),
        screens=score_targets(targets) if targets else None,
    )


def evidence(cases: Iterable[Case], predictions: Iterable[Prediction]) -> dict[Kind, Evidence]:
    """Return what a calibration is fitted to: `groundlink.evaluation.calibration.fit`. The figures must be raw ones.

    A box is right if it is matched to a truth of its own with an IoU of 0.5 or more, a point if it is in one. Spreads
    are those of right answers alone: what a wrong one says of its edges is about something else.

    Raises:
        BadData: a case has no prediction.
    """
    return _evidence(_pairs(cases, predictions))


_Pair = tuple[Case, Prediction]


def _pairs(cases: Iterable[Case], predictions: Iterable[Prediction]) -> list[_Pair]:
    by_name = {prediction.case: prediction for prediction in predictions}
    asked = list(cases)
    missing = [case.name for case in asked if case.name not in by_name]
    if missing:
        raise BadData(f"{len(missing)} of {len(asked)} cases have no prediction, such as {missing[0]!r}; run them too")
    return [(case, by_name[case.name]) for case in asked]


def _is_several(case: Case) -> bool:
    return case.query.task not in ONE_TRUTH and case.query.task != "point"


def _by_group(
    pairs: Sequence[_Pair], wanted: Callable[[Case], bool], figures: Callable[[list[_Pair]], Any]
) -> dict[str, Any]:
    """Return the figures of each group, and of all where there is more than one; figures of None are left out."""
    groups: dict[str, list[_Pair]] = {}
    for case, prediction in pairs:
        if wanted(case):
            groups.setdefault(case.group or case.query.task, []).append((case, prediction))
    found = {name: row for name, group in sorted(groups.items()) if (row := figures(group)) is not None}
    if len(found) > 1:
        found[EVERYTHING] = figures([pair for group in groups.values() for pair in group])
    return found


def _label(case: Case, label: str) -> str:
    """Return a label as it is compared: where there is one phrase, all that was found stands for it."""
    return label if len(case.query.phrases) > 1 or case.query.task == "read" else ""


def _truth(case: Case) -> Labelled:
    return Labelled.of([truth.box for truth in case.truth], [_label(case, truth.label) for truth in case.truth])


def _boxes(case: Case, prediction: Prediction) -> Labelled:
    """Return the boxes of an answer; a point is a box without area, which overlaps nothing."""
    extents = [found.box or (*_point(found), *_point(found)) for found in prediction.found]
    return Labelled.of(extents, [_label(case, found.label) for found in prediction.found], prediction.failed)


def _point(found: Detection | Truth) -> tuple[float, float]:
    """Return where to point at: the point, or the centre of the box."""
    if found.point is not None:
        return found.point
    assert found.box is not None
    x1, y1, x2, y2 = found.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def _array_of_points(found: Sequence[Detection]) -> Floats:
    return np.array([_point(detection) for detection in found], dtype=np.float64).reshape(-1, 2)


def _single(pairs: list[_Pair]) -> Single:
    ious, inside = [], []
    for case, prediction in pairs:
        truth = _truth(case).boxes
        first = _boxes(case, prediction).boxes[:1]
        ious.append(float(iou_matrix(truth, first).max(initial=0.0)))
        inside.append(bool(inside_matrix(truth, _array_of_points(prediction.found[:1])).any()))
    return single(ious, inside)


def _several(pairs: list[_Pair]) -> F1 | None:
    if not any(case.truth for case, _ in pairs):
        return None  # all is said by how many were rejected
    return f1([_truth(case) for case, _ in pairs], [_boxes(*pair) for pair in pairs])


def _points(pairs: list[_Pair]) -> Points:
    answers = [
        (_array_of_points(found.found), [_label(case, one.label) for one in found.found], found.failed)
        for case, found in pairs
    ]
    return pointing([_truth(case) for case, _ in pairs], answers)


def _rejection(pairs: list[_Pair]) -> Rejection:
    there, none = [], []
    for case, prediction in pairs:
        if case.query.task in SEVERAL_PHRASES and len(case.query.phrases) > 1:
            present = {plain_label(truth.label) for truth in case.truth}
            answered = {plain_label(found.label) for found in prediction.found}
            for phrase in map(plain_label, case.query.phrases):
                there.append(phrase in present)
                none.append(phrase not in answered and not prediction.failed)
        else:
            there.append(bool(case.truth))
            none.append(not prediction.found and not prediction.failed)
    return rejection(there, none)


def _evidence(pairs: Sequence[_Pair]) -> dict[Kind, Evidence]:
    found: dict[Kind, tuple[list[float], list[bool], list[float], list[float]]] = {
        kind: ([], [], [], []) for kind in KINDS
    }
    for case, prediction in pairs:
        truth = _truth(case)
        for kind in KINDS:
            given = [one for one in prediction.found if (one.box if kind == "box" else one.point) is not None]
            labels = [_label(case, one.label) for one in given]
            if kind == "box":
                boxes = Labelled.of([one.box for one in given if one.box is not None], labels)
                allowed = same_label(truth.labels, labels)
                matched = match(np.where(allowed, iou_matrix(truth.boxes, boxes.boxes), -1.0), _RIGHT)
            else:
                matched = match_points(truth, _array_of_points(given), labels)
            true_of = {index: case.truth[number] for number, index in matched}
            scores, right, spreads, errors = found[kind]
            for index, one in enumerate(given):
                if one.score is not None:
                    scores.append(one.score)
                    right.append(index in true_of)
                if one.spread is not None and index in true_of:
                    values = one.box if one.box is not None else _point(one)
                    wanted = true_of[index].box if kind == "box" else _point(true_of[index])
                    for number, (spread, value, true) in enumerate(zip(one.spread, values, wanted)):
                        side = case.size[number % 2] / 1000
                        spreads.append(spread / side)
                        errors.append((value - true) / side)
    return {kind: Evidence.of(*parts) for kind, parts in found.items() if parts[0] or parts[2]}


def _speed(predictions: Sequence[Prediction]) -> Speed:
    answers = [prediction.answer for prediction in predictions if prediction.answer is not None]
    # The first of a run warms up; a picture that is kept from an earlier question costs nothing.
    answers = answers[1:] if len(answers) > 1 else answers
    answers = [answer for answer in answers if not any(answer.timings_ms.get(stage) == 0 for stage in _LOOKING)]
    timings = [answer.timings_ms for answer in answers]
    counted = [all(name in timing for timing in timings) for name in ("tokens", "steps")]
    return speed(
        [len(answer) for answer in answers],
        [timing["total"] / 1000 for timing in timings],
        [timing["tokens"] for timing in timings] if counted[0] else None,
        [timing["steps"] for timing in timings] if counted[1] else None,
    )
