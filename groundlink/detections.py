"""Answers: boxes and points with labels and scores, their JSON form, and converters to and from other libraries.

The JSON form is one object, `"schema": "groundlink/1"`; it serves the command line, HTTP, tools and files:

```json
{"schema": "groundlink/1", "backend": "ocr", "source": "shot.png", "query": {"task": "gui", "phrases": ["Save"]},
 "size": [1280, 800], "status": "found", "reason": "…", "complete": true, "incomplete_reason": null,
 "detections": [{"label": "Save", "box": [10.0, 20.0, 60.0, 40.0], "point": null, "pixel": [35, 30],
                 "score": 0.97, "spread": null, "text": "Save"}],
 "raw": [], "timings_ms": {"total": 3.1}}
```
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from groundlink.errors import BackendUnavailable, BadData
from groundlink.query import Query

if TYPE_CHECKING:
    import supervision

Box = tuple[float, float, float, float]
"""`(x1, y1, x2, y2)` in pixels, x1 < x2 and y1 < y2."""
Point = tuple[float, float]
Status = Literal["found", "not_found", "ambiguous"]
IncompleteReason = Literal["token_limit", "repetition", "garbled", "deadline", "cancelled"]

SCHEMA = "groundlink/1"


@dataclass(frozen=True)
class Found:
    """What a backend found, as the model gave it: `make_detection` turns it into a `Detection`.

    Exactly one of `box` and `point` is given, in pixels of the caller's image; corners may be swapped or outside.
    `spread` is the standard deviation of each coordinate in pixels: four numbers for a box, two for a point.
    """

    label: str
    box: Sequence[float] | None = None
    point: Sequence[float] | None = None
    score: float | None = None
    spread: Sequence[float] | None = None
    text: str | None = None


@dataclass(frozen=True)
class Detection:
    """One thing that was found, clipped to the image.

    Attributes:
        label: what it is, in the caller's words (for the task `read`: the text itself).
        box: `(x1, y1, x2, y2)` in pixels, corners in order, or None where the answer is a point.
        point: `(x, y)` in pixels, or None where the answer is a box.
        pixel: the pixel to click, `(column, row)`: the floor of the point or of the box's centre.
        score: 0…1, or None where the model gives none.
        spread: standard deviation of each coordinate in pixels (4 for a box, 2 for a point), or None.
        text: what was read there, or None.
    """

    label: str
    box: Box | None
    point: Point | None
    pixel: tuple[int, int]
    score: float | None = None
    spread: tuple[float, ...] | None = None
    text: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the detection as it stands in the JSON form."""
        return {
            "label": self.label,
            "box": _rounded(self.box),
            "point": _rounded(self.point),
            "pixel": list(self.pixel),
            "score": None if self.score is None else round(self.score, 4),
            "spread": _rounded(self.spread),
            "text": self.text,
        }


@dataclass(frozen=True)
class Detections:
    """The answer to one query on one image; a sequence of its detections.

    Attributes:
        detections: what was found, in the order that the backend's task defines (reading order for text).
        status: `found`, `not_found`, or `ambiguous` where one thing was asked for and several fit equally.
        reason: why, in words for people.
        complete: whether the model finished its answer; if not, `incomplete_reason` says what stopped it.
        raw: the model's own words, one for each sub-question.
        size: (width, height) of the caller's image in pixels.
        backend: the name of the backend.
        query: what was asked, None where it is not known (after conversion from other formats).
        source: what to call the image: its file name, as far as it has one.
        timings_ms: milliseconds by stage; `total` is the whole call.
    """

    detections: tuple[Detection, ...]
    status: Status
    size: tuple[int, int]
    reason: str = ""
    complete: bool = True
    incomplete_reason: IncompleteReason | None = None
    raw: tuple[str, ...] = ()
    backend: str = ""
    query: Query | None = None
    source: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Detection | None:
        """The detection with the highest score, the first of equals; None where nothing was found."""
        if not self.detections:
            return None
        return max(self.detections, key=lambda detection: -1.0 if detection.score is None else detection.score)

    def __len__(self) -> int:
        return len(self.detections)

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.detections)

    def __getitem__(self, index: int) -> Detection:
        return self.detections[index]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, of plain lists, dicts, strings and numbers."""
        return {
            "schema": SCHEMA,
            "backend": self.backend,
            "source": self.source,
            "query": None if self.query is None else self.query.to_json(),
            "size": list(self.size),
            "status": self.status,
            "reason": self.reason,
            "complete": self.complete,
            "incomplete_reason": self.incomplete_reason,
            "detections": [detection.to_json() for detection in self.detections],
            "raw": list(self.raw),
            "timings_ms": {stage: round(value, 3) for stage, value in self.timings_ms.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Detections:
        """Read the JSON form.

        Raises:
            BadData: it is not that form; the message names the field.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise BadData(f'an answer in JSON is an object with "schema": "{SCHEMA}", but got {data!r:.80}')
        try:
            size = _size(data["size"])
            items = [
                Found(item["label"], item["box"], item["point"], item["score"], item["spread"], item["text"])
                for item in data["detections"]
            ]
            detections, dropped = make_all(items, size)
            status, incomplete = data["status"], data["incomplete_reason"]
            if status not in get_args(Status):
                raise ValueError(f"unknown status {status!r}")
            if incomplete is not None and incomplete not in get_args(IncompleteReason):
                raise ValueError(f"unknown incomplete_reason {incomplete!r}")
            if dropped:
                raise ValueError(f"{dropped} of the detections have no area or lie outside the image")
            return cls(
                detections=detections,
                status=status,
                size=size,
                reason=str(data["reason"]),
                complete=bool(data["complete"]),
                incomplete_reason=incomplete,
                raw=tuple(map(str, data["raw"])),
                backend=str(data["backend"]),
                query=None if data["query"] is None else Query.from_json(data["query"]),
                source=data["source"],
                timings_ms={str(stage): float(value) for stage, value in data["timings_ms"].items()},
            )
        except KeyError as error:
            raise BadData(f"an answer in JSON lacks the field {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise BadData(f"an answer in JSON is not well formed: {error}") from error

    def to_supervision(self) -> supervision.Detections:
        """Return a `supervision.Detections`; needs the package `supervision`.

        Points become boxes of zero size at the point. `confidence` is None unless every detection has a score.
        `class_id` counts the labels in order of first appearance; `data` carries `class_name`, `text`, `is_point`,
        `score` and `spread` (NaN for unknown), so that `from_supervision` gives back the same detections.

        Raises:
            BackendUnavailable: the package is not installed.
        """
        sv = _supervision()
        count = len(self.detections)
        if not count:
            empty = sv.Detections.empty()
            empty.metadata = {"size": self.size}
            return empty
        labels = list(dict.fromkeys(detection.label for detection in self.detections))
        scores = np.array([np.nan if d.score is None else d.score for d in self.detections], dtype=np.float64)
        spread = np.full((count, 4), np.nan)
        for row, detection in enumerate(self.detections):
            if detection.spread is not None:
                spread[row, : len(detection.spread)] = detection.spread
        return sv.Detections(
            xyxy=np.array([_extent(detection) for detection in self.detections], dtype=np.float64),
            confidence=None if np.isnan(scores).any() else scores,
            class_id=np.array([labels.index(detection.label) for detection in self.detections]),
            data={
                "class_name": np.array([detection.label for detection in self.detections]),
                "text": np.array([detection.text for detection in self.detections], dtype=object),
                "is_point": np.array([detection.point is not None for detection in self.detections]),
                "score": scores,
                "spread": spread,
            },
            metadata={"size": self.size},
        )

    @classmethod
    def from_supervision(cls, detections: supervision.Detections, size: tuple[int, int] | None = None) -> Detections:
        """Make an answer of a `supervision.Detections`, from `to_supervision` or from any other source.

        Labels are taken from `data["class_name"]`, else the class id as text, else "object".

        Args:
            detections: the boxes; masks and trackers are not kept.
            size: (width, height) of the image in pixels; None if `to_supervision` made the detections.

        Raises:
            BadData: the size is neither given nor stored.
        """
        if size is None:
            size = detections.metadata.get("size")
        if size is None:
            raise BadData("these detections do not carry the size of their image; pass size=(width, height)")
        data = detections.data
        items = []
        for row, xyxy in enumerate(detections.xyxy):
            if "class_name" in data:
                label = str(data["class_name"][row])
            else:
                label = "object" if detections.class_id is None else str(detections.class_id[row])
            score = None if detections.confidence is None else float(detections.confidence[row])
            if score is None and "score" in data and not math.isnan(data["score"][row]):
                score = float(data["score"][row])
            is_point = "is_point" in data and bool(data["is_point"][row])
            spread = data["spread"][row][: 2 if is_point else 4] if "spread" in data else None
            items.append(
                Found(
                    label,
                    box=None if is_point else [float(value) for value in xyxy],
                    point=[float(value) for value in xyxy[:2]] if is_point else None,
                    score=score,
                    spread=None if spread is None or np.isnan(spread).any() else [float(value) for value in spread],
                    text=data["text"][row] if "text" in data else None,
                )
            )
        return _imported(items, _size(size), "supervision")


def make_detection(found: Found, size: tuple[int, int]) -> Detection | None:
    """Make the public form of what a backend found: the only place where detections are made.

    Corners are put in order and clipped to the image of `size` (width, height); so is a point.

    Returns:
        None for a box without area inside the image, a point outside it, or coordinates that are not finite.
    """
    width, height = size
    spread = None if found.spread is None else tuple(max(0.0, float(value)) for value in found.spread)
    score = None if found.score is None else float(found.score)
    if score is not None and not 0.0 <= score <= 1.0:
        raise ValueError(f"a score lies in 0…1, but {found.label!r} has {score}")
    if (found.box is None) == (found.point is None):
        raise ValueError(f"a detection has a box or a point, but {found.label!r} has both or neither")
    corners = tuple(float(value) for value in cast(Sequence[float], found.point if found.box is None else found.box))
    if len(corners) != (2 if found.box is None else 4):
        raise ValueError(f"a box has four numbers and a point two, but {found.label!r} has {len(corners)}")
    if spread is not None and len(spread) != len(corners):
        raise ValueError(f"{found.label!r} has {len(corners)} coordinates, but {len(spread)} standard deviations")
    if not all(map(math.isfinite, corners)):
        return None
    if found.box is None:
        x, y = corners
        if not (0 <= x <= width and 0 <= y <= height):
            return None
        pixel = (min(int(x), width - 1), min(int(y), height - 1))
        return Detection(found.label, None, (x, y), pixel, score, spread, found.text)
    if spread is not None:  # a swapped corner takes its standard deviation along
        sx, sy = (0, 2) if corners[0] <= corners[2] else (2, 0), (1, 3) if corners[1] <= corners[3] else (3, 1)
        spread = (spread[sx[0]], spread[sy[0]], spread[sx[1]], spread[sy[1]])
    x1, x2 = (min(max(value, 0.0), float(width)) for value in sorted(corners[0::2]))
    y1, y2 = (min(max(value, 0.0), float(height)) for value in sorted(corners[1::2]))
    if x1 >= x2 or y1 >= y2:
        return None
    pixel = (min(int((x1 + x2) / 2), width - 1), min(int((y1 + y2) / 2), height - 1))
    return Detection(found.label, (x1, y1, x2, y2), None, pixel, score, spread, found.text)


def make_all(items: Iterable[Found], size: tuple[int, int]) -> tuple[tuple[Detection, ...], int]:
    """Return the detections of `items` and how many were dropped for having no area inside the image."""
    made = [make_detection(item, size) for item in items]
    kept = tuple(detection for detection in made if detection is not None)
    return kept, len(made) - len(kept)


def dropped_in_words(count: int) -> str:
    """Return the sentence of `reason` that counts dropped detections; empty for none."""
    if not count:
        return ""
    return f"{count} detection{'s' if count > 1 else ''} without area inside the image dropped"


def to_coco(answers: Iterable[Detections]) -> dict[str, Any]:
    """Return a COCO data set (`images`, `annotations`, `categories`) of answers, one image each.

    Boxes are `[x, y, width, height]`; a point is a box of zero size with `keypoints: [x, y, 2]`. Beyond COCO an
    annotation has `score`, and where known `text` and `spread`; an image has `groundlink`, the rest of the answer, so
    that `from_coco` gives back equal answers.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for image_id, answer in enumerate(answers, start=1):
        rest = answer.to_json()
        for name in ("detections", "size", "schema"):
            del rest[name]
        images.append(
            {
                "id": image_id,
                "file_name": answer.source or f"image {image_id}",
                "width": answer.size[0],
                "height": answer.size[1],
                "groundlink": rest,
            }
        )
        for detection in answer:
            x1, y1, x2, y2 = _extent(detection)
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": categories.setdefault(detection.label, len(categories) + 1),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            if detection.score is not None:
                annotation["score"] = detection.score
            if detection.point is not None:
                annotation |= {"keypoints": [x1, y1, 2], "num_keypoints": 1}
            if detection.text is not None:
                annotation["text"] = detection.text
            if detection.spread is not None:
                annotation["spread"] = list(detection.spread)
            annotations.append(annotation)
    return {
        "info": {"description": "made by groundlink"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def from_coco(data: dict[str, Any]) -> list[Detections]:
    """Read a COCO data set, from `to_coco` or from any other source: one answer for each image, in order.

    Raises:
        BadData: a field is missing or refers to nothing; the message names it.
    """
    try:
        names = {category["id"]: str(category["name"]) for category in data["categories"]}
        items: dict[Any, list[Found]] = {image["id"]: [] for image in data["images"]}
        for annotation in data["annotations"]:
            keypoints = annotation.get("keypoints")
            x, y, width, height = annotation["bbox"]
            # Of other sources' key points we take the box; ours are single points on a box of zero size.
            is_point = keypoints is not None and len(keypoints) == 3 and not width and not height
            items[annotation["image_id"]].append(
                Found(
                    names[annotation["category_id"]],
                    box=None if is_point else (x, y, x + width, y + height),
                    point=keypoints[:2] if is_point else None,
                    score=annotation.get("score"),
                    spread=annotation.get("spread"),
                    text=annotation.get("text"),
                )
            )
        answers = []
        for image in data["images"]:
            size = _size((image["width"], image["height"]))
            answer = _imported(items[image["id"]], size, "COCO", image.get("file_name"))
            if "groundlink" in image:
                body = [detection.to_json() for detection in answer]
                rest = {"schema": SCHEMA, "size": list(size), "detections": body} | image["groundlink"]
                whole = Detections.from_json(rest)
                answer = replace(whole, detections=answer.detections)
            answers.append(answer)
        return answers
    except KeyError as error:
        raise BadData(f"the COCO data lacks {error}, or refers to it without defining it") from error
    except (TypeError, ValueError) as error:
        raise BadData(f"the COCO data is not well formed: {error}") from error


def _imported(items: list[Found], size: tuple[int, int], origin: str, source: str | None = None) -> Detections:
    try:
        detections, dropped = make_all(items, size)
    except ValueError as error:
        raise BadData(f"the {origin} data is not well formed: {error}") from error
    return Detections(
        detections=detections,
        status="found" if detections else "not_found",
        size=size,
        reason=dropped_in_words(dropped),
        source=source,
    )


def _extent(detection: Detection) -> Box:
    if detection.box is not None:
        return detection.box
    x, y = cast(Point, detection.point)
    return (x, y, x, y)


def _size(value: Any) -> tuple[int, int]:
    width, height = (int(side) for side in value)
    if width < 1 or height < 1:
        raise ValueError(f"an image has at least one pixel, but the size is {width}×{height}")
    return width, height


def _rounded(values: Sequence[float] | None) -> list[float] | None:
    """A hundredth of a pixel is finer than any model sees, and keeps the JSON short."""
    return None if values is None else [round(value, 2) for value in values]


def _supervision() -> Any:
    try:
        import supervision as sv
    except ImportError as error:
        raise BackendUnavailable("the converter needs the package supervision: pip install supervision") from error
    return sv
