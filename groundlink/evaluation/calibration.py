"""How far scores and spreads can be believed, and the maps that make them so.

A score is believed where, of answers with a score of s, a share of s is right; a spread is where the truth lies within
one standard deviation 68 % of the time and within two 95 %. Errors have heavier tails than a normal distribution, and
no factor can serve both shares then: the maps balance them. What the maps are is in `groundlink.calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from groundlink.calibration import KINDS, Calibration, Curve, Kind, Maps
from groundlink.errors import BadData
from groundlink.evaluation.metrics import Floats, Result

BINS = 15
"""Of the expected calibration error."""
ONE_SIGMA, TWO_SIGMA = 0.6827, 0.9545
"""How often a normal error is within one standard deviation, and within two."""
LEAST = 40
"""Fewer answers say nothing about a share of them."""

_KNOTS = 12
_TILT = 0.01  # where the data is flat, this much of a slope keeps the order


@dataclass(frozen=True)
class Evidence:
    """What answers of one kind, boxes or points, said of themselves, and what they turned out to be.

    Attributes:
        scores: `[N]`, in 0…1.
        right: `[N]`, whether each was right: matched to a truth of its own.
        spreads: `[M]`, standard deviations of the coordinates of right answers, in thousandths of the image's side.
        errors: `[M]`, how far each of these coordinates was from the truth, likewise.
    """

    scores: Floats
    right: npt.NDArray[np.bool_]
    spreads: Floats
    errors: Floats

    @classmethod
    def of(
        cls,
        scores: Sequence[float] = (),
        right: Sequence[bool] = (),
        spreads: Sequence[float] = (),
        errors: Sequence[float] = (),
    ) -> Evidence:
        """Make it of lists."""
        scored, deviated = np.asarray(scores, dtype=np.float64), np.asarray(spreads, dtype=np.float64)
        return cls(scored, np.asarray(right, dtype=bool), deviated, np.asarray(errors, dtype=np.float64))

    def after(self, calibration: Calibration, kind: Kind) -> Evidence:
        """Return the same answers with calibrated figures."""
        return Evidence(
            np.array([calibration.score(score, kind) for score in self.scores.tolist()]),
            self.right,
            np.array([calibration.spread(spread, kind) for spread in self.spreads.tolist()]),
            self.errors,
        )


@dataclass(frozen=True)
class Bin:
    """Some answers with scores near each other: how many, their mean score, and the share of them that was right."""

    n: int
    score: float
    right: float


def reliability_bins(
    scores: Floats, right: npt.NDArray[np.bool_], bins: int = BINS, equal: Literal["mass", "width"] = "mass"
) -> list[Bin]:
    """Sort answers into bins by their score.

    Args:
        scores: `[N]`, in 0…1.
        right: `[N]`.
        bins: how many at most; empty ones are left out.
        equal: `mass` gives all bins about as many answers, but keeps equal scores together; `width` cuts 0…1 evenly.
    """
    if not len(scores):
        return []
    numbers = _equal_mass(scores, bins) if equal == "mass" else np.minimum((scores * bins).astype(int), bins - 1)
    return [
        Bin(int(inside.sum()), float(scores[inside].mean()), float(right[inside].mean()))
        for inside in (numbers == number for number in np.unique(numbers))
    ]


def _equal_mass(values: Floats, bins: int) -> npt.NDArray[np.int_]:
    """Return the bin of each value; a bin begins only where a new value does."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    # An equal value goes where the first of them went.
    first = np.searchsorted(ordered, ordered, side="left")
    numbers = np.empty(len(values), dtype=int)
    numbers[order] = first * bins // len(values)
    return numbers


def expected_calibration_error(
    scores: Floats, right: npt.NDArray[np.bool_], bins: int = BINS, equal: Literal["mass", "width"] = "mass"
) -> float | None:
    """Return the mean distance of score and share of right answers over bins, weighted by their answers."""
    found = reliability_bins(scores, right, bins, equal)
    return sum(bin.n * abs(bin.score - bin.right) for bin in found) / len(scores) if found else None


def auc(scores: Floats, right: npt.NDArray[np.bool_]) -> float | None:
    """Return how often a right answer has a higher score than a wrong one, ties counted half; None where all are one.

    This is the area under the receiver operating characteristic.
    """
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    ordered = np.sort(scores)
    low, high = np.searchsorted(ordered, scores, side="left"), np.searchsorted(ordered, scores, side="right")
    ranks = (low + high + 1) / 2
    return float((ranks[right].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def coverage(spreads: Floats, errors: Floats, deviations: float) -> float | None:
    """Return the share of coordinates whose error is within so many standard deviations."""
    return float((np.abs(errors) <= deviations * spreads).mean()) if len(spreads) else None


@dataclass(frozen=True)
class Reliability(Result):
    """How far figures can be believed.

    Attributes:
        n: answers with a score.
        right: share of them that was right.
        ece: expected calibration error of the scores, over 15 bins of equal mass.
        auc: area under the receiver operating characteristic, right against wrong.
        coordinates: of right answers, with a spread.
        within_1: share of them within one standard deviation; 0.683 is right.
        within_2: within two; 0.954 is right.
    """

    n: int
    right: float | None
    ece: float | None
    auc: float | None
    coordinates: int
    within_1: float | None
    within_2: float | None

    TITLES: ClassVar[dict[str, str]] = {
        "n": "answers",
        "right": "right",
        "ece": "ECE",
        "auc": "AUC",
        "coordinates": "coordinates",
        "within_1": "within 1 sd",
        "within_2": "within 2 sd",
    }


def reliability(evidence: Evidence) -> Reliability:
    """Return how far the figures of these answers can be believed."""
    scores, right = evidence.scores, evidence.right
    return Reliability(
        len(scores),
        float(right.mean()) if len(right) else None,
        expected_calibration_error(scores, right),
        auc(scores, right),
        len(evidence.spreads),
        coverage(evidence.spreads, evidence.errors, 1),
        coverage(evidence.spreads, evidence.errors, 2),
    )


def fit(
    evidence: dict[Kind, Evidence], on: str, held_out: dict[Kind, Evidence] | None = None, **about: Any
) -> Calibration:
    """Fit the maps of a model to what its answers turned out to be.

    Scores or spreads of a kind with fewer than 40 of them are left as they are.

    Args:
        evidence: of boxes, points, or both, with raw figures.
        on: what it is of, in words: data, seeds.
        held_out: of other answers, for figures that the fit has not seen.
        about: more to be written down with it.

    Raises:
        BadData: there is too little of everything.
    """
    kinds = {kind: _fit_kind(found) for kind, found in evidence.items()}
    if not any(kinds.values()):
        counts = ", ".join(f"{len(found.scores)} {kind}" for kind, found in evidence.items()) or "nothing"
        raise BadData(f"a calibration needs {LEAST} answers with scores or more, but there is {counts}; ask more")
    maps = Calibration(kinds.get("box"), kinds.get("point"))
    fitted: dict[str, Any] = {"on": on, **about}
    for kind in KINDS:
        if kinds.get(kind) is None:
            continue
        fitted[kind] = _before_and_after(evidence[kind], maps, kind)
        if held_out is not None and kind in held_out:
            fitted[kind]["held_out"] = _before_and_after(held_out[kind], maps, kind)
    return Calibration(maps.box, maps.point, fitted)


def _before_and_after(evidence: Evidence, maps: Calibration, kind: Kind) -> dict[str, Any]:
    return {
        "n": len(evidence.scores),
        "before": reliability(evidence).to_json(),
        "after": reliability(evidence.after(maps, kind)).to_json(),
    }


def _fit_kind(evidence: Evidence) -> Maps | None:
    score = fit_scores(evidence.scores, evidence.right) if len(evidence.scores) >= LEAST else None
    spread = fit_spreads(evidence.spreads, evidence.errors) if len(evidence.spreads) >= LEAST else None
    return None if score is None and spread is None else Maps(score, spread)


def isotonic(values: Floats, weights: Floats) -> Floats:
    """Return the non-decreasing numbers nearest to `values` in weighted squares, by pooling neighbours that violate."""
    pools: list[list[float]] = []  # mean, weight, count
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append([value, weight, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            mean, mass, count = pools.pop()
            before = pools[-1]
            before[0] = (before[0] * before[1] + mean * mass) / (before[1] + mass)
            before[1] += mass
            before[2] += count
    return np.repeat([pool[0] for pool in pools], [int(pool[2]) for pool in pools])


def fit_scores(scores: Floats, right: npt.NDArray[np.bool_]) -> Curve:
    """Fit a strictly increasing map from scores to shares of right answers: isotonic over bins, linear between them.

    Shares are drawn a little towards one half, as if each bin had one right and one wrong answer more: nothing that was
    seen so few times is certain.
    """
    bins = reliability_bins(scores, right, _knots(len(scores)))
    weights = np.array([bin.n for bin in bins], dtype=np.float64)
    shares = np.array([(bin.right * bin.n + 1) / (bin.n + 2) for bin in bins])
    count = len(bins)
    levels = (1 - _TILT) * isotonic(shares, weights) + _TILT * (np.arange(count) + 0.5) / count
    x, y = [bin.score for bin in bins], levels.tolist()
    if x[0] > 0:
        x, y = [0.0, *x], [(1 - _TILT) * y[0], *y]
    if x[-1] < 1:
        x, y = [*x, 1.0], [*y, y[-1] + _TILT * (1 - y[-1])]
    return Curve(tuple(x), tuple(y))


def fit_spreads(spreads: Floats, errors: Floats) -> Curve:
    """Fit a strictly increasing map of standard deviations, so that both shares are covered as well as one can.

    In each bin of spreads the deviation is taken for which the shares within one and two of it are least off; the bins
    are made to increase, and all of it is scaled so that this holds over all coordinates too.
    """
    sizes = np.abs(errors)
    numbers = _equal_mass(spreads, _knots(len(spreads)))
    groups = [numbers == number for number in np.unique(numbers)]
    weights = np.array([group.sum() for group in groups], dtype=np.float64)
    smallest = max(1e-3, float(sizes[sizes > 0].min(initial=1.0)) * 1e-3)
    wanted = np.array([max(_balanced(sizes[group], np.ones(int(group.sum()))), smallest) for group in groups])
    count = len(groups)
    levels = isotonic(wanted, weights) * (1 + _TILT * (np.arange(count) + 0.5) / count)
    x, y = [float(spreads[group].mean()) for group in groups], levels.tolist()
    if x[0] > 0:
        x, y = [0.0, *x], [(1 - _TILT) * y[0], *y]
    if len(x) == 1:  # all spreads are 0
        x, y = [0.0, 1.0], [y[0], y[0] * (1 + _TILT)]
    curve = Curve(tuple(x), tuple(y))
    scale = _balanced(sizes, np.array([curve(spread) for spread in spreads.tolist()]))
    return Curve(curve.x, tuple(max(scale, 1e-6) * level for level in curve.y))


def _balanced(sizes: Floats, deviations: Floats) -> float:
    """Return the factor on the deviations for which the shares within one and within two of them are least off."""
    ratios = np.sort(sizes / deviations)
    # Beyond these the first share is further off than it is anywhere between.
    factors = np.linspace(float(np.quantile(ratios, 0.5)), float(np.quantile(ratios, 0.9)), 401)
    within_1 = np.searchsorted(ratios, factors, side="right") / len(ratios)
    within_2 = np.searchsorted(ratios, 2 * factors, side="right") / len(ratios)
    off = np.maximum(np.abs(within_1 - ONE_SIGMA), np.abs(within_2 - TWO_SIGMA))
    return float(np.median(factors[off <= off.min() + 1e-12]))


def _knots(count: int) -> int:
    return int(np.clip(count // LEAST, 1, _KNOTS))
