"""Metrics on arrays: what was found against what is there. No model, and nothing but numpy.

Boxes are `[N, 4]`, `x1, y1, x2, y2` in pixels, and coordinates are continuous: a box is as wide as x2 - x1. A figure
of nothing, such as the mean of no samples, is None. The definitions are those of the sheet on evaluation, part 2; the
numbers in docstrings are its sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""Of the IoU, for all means over thresholds."""
_MIDDLE = THRESHOLDS.index(0.5)
_STRICTEST = THRESHOLDS.index(0.95)
DUPLICATE_IOU = 0.9
"""Two boxes of one label that overlap more than this are one thing said twice."""
_RECALL_POINTS = np.linspace(0, 1, 101)
_MOST_PER_CLASS = 100  # detections of one class in one image that COCO looks at


class Result:
    """Figures of one task: an object in JSON, or a row of a Markdown table."""

    TITLES: ClassVar[dict[str, str]] = {}
    """The fields that are columns of the table, and their titles."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields, rounded to six digits."""
        return {field.name: rounded(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def header(cls, first: str = "") -> str:
        """Return the head of the table, two lines; `first` is the title of the rows' names."""
        titles = [first, *cls.TITLES.values()]
        return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"

    def row(self, name: str) -> str:
        """Return one line of the table."""
        return f"| {' | '.join([name.replace('|', ' '), *self.cells()])} |"

    def cells(self) -> list[str]:
        """Return the values of the columns, for people."""
        return [in_words(getattr(self, name)) for name in self.TITLES]


def rounded(value: Any) -> Any:
    """Return a value with all floats in it rounded to six digits."""
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return round(float(value), 6) if isinstance(value, (float, np.floating)) else value


def in_words(value: float | int | None) -> str:
    """Return a count, or a figure with three digits after the point; `n/a` for None."""
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


@dataclass(frozen=True)
class Labelled:
    """The boxes of one image, of the truth or of an answer.

    Attributes:
        boxes: `[N, 4]`.
        labels: N names.
        failed: the answer is none that could be read: wrong, also where there is nothing to find.
    """

    boxes: Floats
    labels: tuple[str, ...]
    failed: bool = False

    @classmethod
    def of(cls, boxes: Sequence[Sequence[float]], labels: Sequence[str] | str = "", failed: bool = False) -> Labelled:
        """Make one of lists; one label stands for all boxes."""
        array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        return cls(array, (labels,) * len(array) if isinstance(labels, str) else tuple(labels), failed)

    def __post_init__(self) -> None:
        """Refuse what does not fit together, with a ValueError."""
        if self.boxes.ndim != 2 or self.boxes.shape != (len(self.labels), 4):
            raise ValueError(f"boxes of shape {self.boxes.shape} do not fit {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """Return the IoU of each box of `a` `[N, 4]` with each of `b` `[M, 4]`, `[N, M]`; 0 for an empty union."""
    a, b = a[:, None], b[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.prod(np.clip(sides, 0, None), -1)
    union = np.prod(a[..., 2:] - a[..., :2], -1) + np.prod(b[..., 2:] - b[..., :2], -1) - common
    ious: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ious


def plain_label(label: str) -> str:
    """Return a label in the form that is compared: lower case, without `_` and spaces."""
    return "".join(label.casefold().replace("_", " ").split())


def letters_only(label: str) -> str:
    """Return a label in the form that the published tables compare: lower-case letters, or all where it has none."""
    return "".join(filter(str.isalpha, label.casefold())) or plain_label(label)


def same_label(a: Sequence[str], b: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which labels of `a` and `b` are the same, `[N, M]`."""
    left, right = np.array([*map(plain_label, a), ""]), np.array([*map(plain_label, b), ""])
    same: npt.NDArray[np.bool_] = left[:-1, None] == right[None, :-1]
    return same


def match(ious: Floats, threshold: float) -> list[tuple[int, int]]:
    """Pair truths with predictions: each truth, in order, takes the unused prediction with the highest IoU.

    Args:
        ious: `[truths, predictions]`; below 0 where a pair is out of the question.
        threshold: the least IoU of a pair.

    Returns:
        Pairs of indices, truth and prediction; each occurs once at most.
    """
    pairs = []
    left = ious.copy()
    for truth in range(len(left)):
        if left.shape[1] and left[truth].max() >= threshold:
            taken = int(left[truth].argmax())
            pairs.append((truth, taken))
            left[:, taken] = -1
    return pairs


@dataclass(frozen=True)
class F1(Result):
    """Precision, recall and F1 over IoU thresholds; which definition they follow is in `definition`.

    Attributes:
        f1_50: F1 at an IoU of 0.5.
        f1_95: at 0.95.
        f1_mean: over all thresholds.
        precision: at each of `THRESHOLDS`.
        recall: at each of `THRESHOLDS`.
        images: how many there were.
        truths: boxes in the truth.
        predictions: boxes in the answers.
        definition: in words; figures of different definitions must not be compared.
    """

    f1_50: float | None
    f1_95: float | None
    f1_mean: float | None
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    images: int
    truths: int
    predictions: int
    definition: str

    TITLES: ClassVar[dict[str, str]] = {
        "images": "images",
        "truths": "truths",
        "predictions": "found",
        "f1_50": "F1@0.5",
        "f1_95": "F1@0.95",
        "f1_mean": "F1@Mean",
    }


def f1_of(precision: float, recall: float) -> float:
    """Return the harmonic mean, 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def f1(truths: Sequence[Labelled], predictions: Sequence[Labelled], match_labels: bool = True) -> F1:
    """Return F1 over IoU thresholds after 2.1: precision and recall are means over images, and F1 is of the means.

    Of an image without truth both are 1 where nothing was found, else 0; of one with truth where nothing was found, 0.

    Args:
        truths: one for each image.
        predictions: likewise, in the same order.
        match_labels: a box counts only with its label. False is the published way ("pooled"): labels are not compared,
            but boxes of labels that the image's truth lacks match nothing.
    """
    shares = np.zeros((len(truths), len(THRESHOLDS), 2))  # of each image and threshold: precision, recall
    for image, (truth, found) in enumerate(zip(truths, predictions, strict=True)):
        if not len(truth) or not len(found):
            shares[image] = not len(truth) and not len(found) and not found.failed
            continue
        if match_labels:
            allowed = same_label(truth.labels, found.labels)
        else:
            known = set(map(letters_only, truth.labels))
            allowed = np.array([letters_only(label) in known for label in found.labels])[None]
        ious = np.where(allowed, iou_matrix(truth.boxes, found.boxes), -1.0)
        for number, threshold in enumerate(THRESHOLDS):
            matches = len(match(ious, threshold))
            shares[image, number] = matches / len(found), matches / len(truth)
    labels = "labels must match" if match_labels else "pooled: labels are not compared"
    definition = f"F1 of precision and recall averaged over images, then the mean over IoU 0.50…0.95; {labels}"
    counts = len(truths), sum(map(len, truths)), sum(map(len, predictions))
    if not truths:
        return F1(None, None, None, (), (), *counts, definition)
    means = shares.mean(0).tolist()
    values = [f1_of(precision, recall) for precision, recall in means]
    return F1(
        values[_MIDDLE],
        values[_STRICTEST],
        float(np.mean(values)),
        tuple(precision for precision, _ in means),
        tuple(recall for _, recall in means),
        *counts,
        definition,
    )


def f1_coco(truths: Sequence[Labelled], predictions: Sequence[Labelled]) -> F1:
    """Return F1 after 2.2, as in the published tables for COCO and LVIS; not comparable with `f1`.

    Predictions of labels that the image's truth lacks are left out. The rest is matched as COCO does, class by class,
    in the order given, for there are no scores. The precision of a class is the last point above 0 of its curve of 101
    points, its recall the final one; classes where it is 0 are left out of the mean over classes. The means over
    classes are averaged over thresholds, and `f1_mean` is F1 of these two numbers.
    """
    labels = sorted({plain_label(label) for truth in truths for label in truth.labels})
    precision, recall = np.zeros((2, len(labels), len(THRESHOLDS)))
    for row, label in enumerate(labels):
        hits: list[list[bool]] = [[] for _ in THRESHOLDS]
        total = 0
        for truth, found in zip(truths, predictions, strict=True):
            is_truth = [plain_label(other) == label for other in truth.labels]
            total += sum(is_truth)
            if not any(is_truth):
                continue
            is_found = [plain_label(other) == label for other in found.labels]
            ious = iou_matrix(truth.boxes[is_truth], found.boxes[is_found][:_MOST_PER_CLASS])
            for column, threshold in enumerate(THRESHOLDS):
                hits[column] += _coco_hits(ious, threshold)
        for column, flags in enumerate(hits):
            precision[row, column], recall[row, column] = _coco_end(flags, total)
    means = [[_mean_above_0(values[:, column]) for column in range(len(THRESHOLDS))] for values in (precision, recall)]
    counts = len(truths), sum(map(len, truths)), sum(map(len, predictions))
    definition = (
        "COCO matching by class without scores; classes at 0 left out; F1 of precision and recall averaged over "
        "classes and IoU 0.50…0.95"
    )
    if not labels:
        return F1(None, None, None, (), (), *counts, definition)
    return F1(
        f1_of(means[0][_MIDDLE], means[1][_MIDDLE]),
        f1_of(means[0][_STRICTEST], means[1][_STRICTEST]),
        f1_of(float(np.mean(means[0])), float(np.mean(means[1]))),
        tuple(means[0]),
        tuple(means[1]),
        *counts,
        definition,
    )


def _coco_hits(ious: Floats, threshold: float) -> list[bool]:
    """Return for each prediction whether it matches: in order, each takes the free truth with the highest IoU."""
    hits = []
    left = ious.copy()  # [truths, predictions]
    for column in range(left.shape[1]):
        best = int(left[:, column].argmax())
        hits.append(bool(left[best, column] >= threshold))
        if hits[-1]:
            left[best] = -1
    return hits


def _coco_end(hits: list[bool], total: int) -> tuple[float, float]:
    """Return the last precision above 0 of the curve of 101 points, and the final recall."""
    if not any(hits):
        return 0.0, 0.0
    right = np.cumsum(hits)
    recall = right / total
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    last = _RECALL_POINTS[np.searchsorted(_RECALL_POINTS, recall[-1], side="right") - 1]
    return float(precision[np.searchsorted(recall, last, side="left")]), float(recall[-1])


def _mean_above_0(values: Floats) -> float:
    return float(values[values > 0].mean()) if (values > 0).any() else 0.0


@dataclass(frozen=True)
class Single(Result):
    """Questions for one thing, after 2.5 and 2.7; the first answer counts, and none is wrong.

    Attributes:
        n: questions.
        mean_iou: of the first box with the truth, 0 for no box.
        acc_50: share with an IoU of 0.5 or more.
        inside: share whose point, or the centre of whose box, lies in the true box, borders included.
    """

    n: int
    mean_iou: float | None
    acc_50: float | None
    inside: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "n": "questions",
        "mean_iou": "mean IoU",
        "acc_50": "Acc@0.5",
        "inside": "click inside",
    }


def single(ious: Sequence[float], inside: Sequence[bool]) -> Single:
    """Return the figures of questions for one thing; see `Single`."""
    if not ious:
        return Single(0, None, None, None)
    values = np.asarray(ious, dtype=np.float64)
    return Single(len(values), float(values.mean()), float((values >= 0.5).mean()), float(np.mean(inside)))


@dataclass(frozen=True)
class Points(Result):
    """Pointing, after 2.6: precision and recall are means over images, F1 is of the means.

    Attributes:
        n: questions.
        truths: things to point at.
        predictions: points given.
        precision: share of points that are on a thing of their own.
        recall: share of things that have a point of their own.
        f1: of both.
        first: share of questions whose first point is on one of the things.
    """

    n: int
    truths: int
    predictions: int
    precision: float | None
    recall: float | None
    f1: float | None
    first: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "n": "questions",
        "truths": "truths",
        "predictions": "found",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "first": "first inside",
    }


def inside_matrix(truths: Floats, points: Floats) -> npt.NDArray[np.bool_]:
    """Return which of the points `[M, 2]` lie in which boxes `[N, 4]`, borders included, `[N, M]`."""
    boxes, points = truths[:, None], points[None]
    inside: npt.NDArray[np.bool_] = np.all((boxes[..., :2] <= points) & (points <= boxes[..., 2:]), axis=-1)
    return inside


def match_points(truths: Labelled, points: Floats, labels: Sequence[str]) -> list[tuple[int, int]]:
    """Pair true boxes with points `[M, 2]` of the same label inside them; each in order takes the nearest unused."""
    centres = (truths.boxes[:, None, :2] + truths.boxes[:, None, 2:]) / 2
    nearness = 1 / (1 + np.linalg.norm(points[None] - centres, axis=-1))
    allowed = inside_matrix(truths.boxes, points) & same_label(truths.labels, labels)
    return match(np.where(allowed, nearness, -1.0), 0.0)


def pointing(truths: Sequence[Labelled], points: Sequence[tuple[Floats, Sequence[str], bool]]) -> Points:
    """Return the figures of pointing; see `Points`.

    Args:
        truths: one for each question.
        points: likewise: points `[M, 2]` with their labels, and whether the answer could not be read.
    """
    shares, first = [], []
    for truth, (found, labels, failed) in zip(truths, points, strict=True):
        if not len(truth) or not len(found):
            right = float(not len(truth) and not len(found) and not failed)
            shares.append((right, right))
        else:
            matches = len(match_points(truth, found, labels))
            shares.append((matches / len(found), matches / len(truth)))
        if len(truth):
            first.append(bool(len(found) and inside_matrix(truth.boxes, found[:1]).any()))
    counts = len(truths), sum(map(len, truths)), sum(len(found) for found, _, _ in points)
    if not shares:
        return Points(*counts, None, None, None, None)
    precision, recall = np.mean(shares, axis=0).tolist()
    share = float(np.mean(first)) if first else None
    return Points(*counts, precision, recall, f1_of(precision, recall), share)


@dataclass(frozen=True)
class Rejection(Result):
    """Questions for what is not there, and how often what is there was denied.

    Attributes:
        absent: questions for what is not there.
        rejected: share of them that were answered with nothing.
        present: questions for what is there.
        wrongly_rejected: share of them that were answered with nothing.
    """

    absent: int
    rejected: float | None
    present: int
    wrongly_rejected: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "absent": "absent",
        "rejected": "rejected",
        "present": "present",
        "wrongly_rejected": "wrongly rejected",
    }


def rejection(there: Sequence[bool], answered_none: Sequence[bool]) -> Rejection:
    """Return how questions were rejected, by whether what they ask for is there."""
    is_there, none = np.asarray(there, dtype=bool), np.asarray(answered_none, dtype=bool)
    absent, present = none[~is_there], none[is_there]
    return Rejection(
        len(absent),
        float(absent.mean()) if len(absent) else None,
        len(present),
        float(present.mean()) if len(present) else None,
    )


def duplicate_ratio(predictions: Sequence[Labelled]) -> float | None:
    """Return pairs of boxes that are the same label's and overlap more than 0.9, in proportion to all boxes."""
    count = sum(map(len, predictions))
    pairs = 0
    for found in predictions:
        same = (iou_matrix(found.boxes, found.boxes) > DUPLICATE_IOU) & same_label(found.labels, found.labels)
        pairs += int(np.triu(same, 1).sum())
    return pairs / count if count else None


@dataclass(frozen=True)
class Speed(Result):
    """How fast answers came, after 2.8: the time is that of the whole call, image and question included.

    Attributes:
        n: answers that count.
        boxes: boxes and points in them; "none" is no box here, though it is one in the published numbers.
        bps_mean: boxes per second, mean over answers.
        bps_pooled: all boxes by all time.
        tokens_per_second: of all time; None where the backend counts none.
        steps_per_box: forward passes of the language model after the prompt, by boxes; None likewise.
    """

    n: int
    boxes: int
    bps_mean: float | None
    bps_pooled: float | None
    tokens_per_second: float | None
    steps_per_box: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "n": "answers",
        "boxes": "boxes",
        "bps_mean": "boxes/s (mean)",
        "bps_pooled": "boxes/s (pooled)",
        "tokens_per_second": "tokens/s",
        "steps_per_box": "steps/box",
    }


def speed(
    boxes: Sequence[int],
    seconds: Sequence[float],
    tokens: Sequence[float] | None = None,
    steps: Sequence[float] | None = None,
) -> Speed:
    """Return the speed of answers; see `Speed`. `boxes`, `seconds`, `tokens` and `steps` are of each answer."""
    total, time = sum(boxes), sum(seconds)
    if not time:
        return Speed(len(boxes), total, None, None, None, None)
    rates = [count / took for count, took in zip(boxes, seconds, strict=True) if took > 0]
    return Speed(
        len(boxes),
        total,
        float(np.mean(rates)),
        total / time,
        None if tokens is None else sum(tokens) / time,
        None if steps is None or not total else sum(steps) / total,
    )
