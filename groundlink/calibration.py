"""A model's scores and spreads brought to what they turned out to mean: maps that are stored beside its weights.

`groundlink.evaluation.calibration` fits them; here they are read and applied, which needs nothing but Python.

```json
{"schema": "groundlink-calibration/1",
 "box": {"score": [[0.0, 0.1], [0.9, 0.7], [1.0, 0.98]], "spread": [[0.0, 0.4], [3.0, 4.1]]}, "point": null,
 "fitted": {"on": "…", "box": {"n": 4000, "before": {…}, "after": {…}}}}
```
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from groundlink.errors import WeightsInvalid

Kind = Literal["box", "point"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SCHEMA = "groundlink-calibration/1"
FILE_NAME = "calibration.json"
"""What the file is called in the folder of a checkpoint."""


@dataclass(frozen=True)
class Curve:
    """A function that is linear between knots and increases strictly, so that the order of values is kept.

    Beyond the last knot it goes on in proportion to that knot. Nothing is asked of it before the first.

    Attributes:
        x: at least two numbers, increasing strictly, the first 0.
        y: what they become, increasing strictly, none negative.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no such function, with a ValueError."""
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise ValueError("a curve has two knots or more")
        if not all(map(math.isfinite, self.x + self.y)):
            raise ValueError("a curve's knots are finite numbers")
        if self.x[0] != 0 or self.y[0] < 0:
            raise ValueError(f"a curve begins at 0 and is not negative, but here with {self.x[0]:g}, {self.y[0]:g}")
        for values in (self.x, self.y):
            for before, after in pairwise(values):
                if before >= after:
                    raise ValueError(f"a curve increases from knot to knot, but {after:g} comes after {before:g}")

    def __call__(self, value: float) -> float:
        """Return what `value`, at least 0, becomes."""
        if value >= self.x[-1]:
            return self.y[-1] * value / self.x[-1]
        after = max(1, bisect_right(self.x, value))
        x0, x1, y0, y1 = self.x[after - 1], self.x[after], self.y[after - 1], self.y[after]
        return y0 + (y1 - y0) * (value - x0) / (x1 - x0)


@dataclass(frozen=True)
class Maps:
    """What becomes of the figures of a box, or of a point.

    Attributes:
        score: from a score in 0…1 to one that is the share of right answers; None leaves scores alone.
        spread: from a standard deviation to one that covers the truth as often as it says, both in thousandths of the
            image's side; None leaves spreads alone.
    """

    score: Curve | None = None
    spread: Curve | None = None

    def __post_init__(self) -> None:
        """Refuse a map of scores that does not lead from 0…1 into 0…1, with a ValueError."""
        if self.score is not None and (self.score.x[-1] != 1 or self.score.y[-1] > 1):
            raise ValueError(
                f"scores are mapped from 0…1 into 0…1, but here to {self.score.x[-1]:g}, {self.score.y[-1]:g}"
            )


@dataclass(frozen=True)
class Calibration:
    """The maps of one model.

    Attributes:
        box: of boxes; None where none was fitted, and boxes keep their figures.
        point: of points, likewise.
        fitted: what it was fitted on, and how well, for people.
    """

    box: Maps | None = None
    point: Maps | None = None
    fitted: dict[str, Any] = field(default_factory=dict)

    def score(self, raw: float, kind: Kind = "box") -> float:
        """Return the calibrated score of a raw one in 0…1; a higher raw score stays the higher one."""
        maps = self._maps(kind)
        return raw if maps is None or maps.score is None else maps.score(raw)

    def spread(self, raw: float, kind: Kind = "box") -> float:
        """Return the calibrated standard deviation of a raw one, both in thousandths of the image's side."""
        maps = self._maps(kind)
        return raw if maps is None or maps.spread is None else maps.spread(raw)

    def _maps(self, kind: Kind) -> Maps | None:
        return self.box if kind == "box" else self.point

    def to_json(self) -> dict[str, Any]:
        """Return what `calibration.json` holds."""
        maps = {"box": _maps_to_json(self.box), "point": _maps_to_json(self.point)}
        return {"schema": SCHEMA, **maps, "fitted": self.fitted}

    @classmethod
    def from_json(cls, data: Any) -> Calibration:
        """Read what `to_json` made.

        Raises:
            ValueError: it is not that; the message says what is wrong.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else data
            raise ValueError(f'a calibration is an object with "schema": "{SCHEMA}", not {found!r:.80}')
        fitted = data.get("fitted", {})
        if not isinstance(fitted, dict):
            raise ValueError(f"'fitted' is an object, not {fitted!r:.80}")
        return cls(_maps_from_json(data.get("box"), "box"), _maps_from_json(data.get("point"), "point"), fitted)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file.

        Raises:
            WeightsInvalid: it cannot be read, or is no calibration.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:  # UnicodeError and what json raises are ValueErrors
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise WeightsInvalid(
                f"{path} is no calibration that can be applied: {why}; remove the file, or load the model with "
                "calibrated=False, for scores and spreads as the model gives them"
            ) from error


def _maps_to_json(maps: Maps | None) -> dict[str, Any] | None:
    if maps is None:
        return None
    curves = {"score": maps.score, "spread": maps.spread}
    return {
        name: None if curve is None else [[x, y] for x, y in zip(curve.x, curve.y)] for name, curve in curves.items()
    }


def _maps_from_json(data: Any, kind: str) -> Maps | None:
    if data is None:
        return None
    if not isinstance(data, dict) or not set(data) <= {"score", "spread"}:
        raise ValueError(f"'{kind}' holds 'score' and 'spread', but here {data!r:.80}")
    curves = {}
    try:
        for name in ("score", "spread"):
            knots = data.get(name)
            curves[name] = None if knots is None else Curve(*(tuple(column) for column in zip(*_knots(knots))))
        return Maps(**curves)
    except ValueError as error:
        raise ValueError(f"'{kind}': {error}") from error


def _knots(knots: Any) -> list[tuple[float, float]]:
    pairs = isinstance(knots, list) and all(isinstance(knot, list) and len(knot) == 2 for knot in knots)
    if not pairs or len(knots) < 2 or not all(type(value) in (int, float) for knot in knots for value in knot):
        raise ValueError(f"a curve is a list of two knots [x, y] or more, not {knots!r:.80}")
    return [(float(x), float(y)) for x, y in knots]
