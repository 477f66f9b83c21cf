from __future__ import annotations

import json
import math

import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st

import groundlink
from groundlink import BadData, Detections, Found
from groundlink.detections import make_all, make_detection

SIZE = (100, 60)


def answer(*items: Found, **rest) -> Detections:
    detections, _ = make_all(items, SIZE)
    return Detections(detections, "found" if detections else "not_found", SIZE, **rest)


FULL = answer(
    Found("Save", box=(10.5, 20.25, 30, 40), score=0.97, spread=(1, 2, 3, 4), text="Save"),
    Found("a person", box=(0, 0, 100, 60)),
    Found("handle", point=(5.5, 6.5), score=0.5, spread=(0.5, 0.25)),
    reason="why",
    raw=("<box>",),
    backend="ocr",
    query=groundlink.detect("Save", "a person"),
    source="shot 😀.png",
    timings_ms={"total": 1.5},
    complete=False,
    incomplete_reason="deadline",
)


@pytest.mark.parametrize(
    ("found", "box", "pixel"),
    [
        (Found("", box=(10, 20, 30, 40)), (10, 20, 30, 40), (20, 30)),
        (Found("", box=(30, 40, 10, 20)), (10, 20, 30, 40), (20, 30)),
        (Found("", box=(-5, -5, 200, 200)), (0, 0, 100, 60), (50, 30)),
        (Found("", box=(99.9, 59.9, 100, 60)), (99.9, 59.9, 100, 60), (99, 59)),
        (Found("", box=(0, 0, 0.5, 0.5)), (0, 0, 0.5, 0.5), (0, 0)),
    ],
)
def test_boxes_are_ordered_and_clipped(found, box, pixel):
    made = make_detection(found, SIZE)
    assert (made.box, made.pixel) == (box, pixel)


@pytest.mark.parametrize("x", [0, 0.5, 50, 99.99, 100])
def test_the_pixel_of_a_point_is_its_floor_and_inside(x):
    made = make_detection(Found("", point=(x, 60)), SIZE)
    assert made.pixel == (min(int(x), 99), 59)
    assert made.point == (x, 60)


@pytest.mark.parametrize(
    "found",
    [
        Found("", box=(10, 20, 10, 40)),
        Found("", box=(-9, -9, -1, -1)),
        Found("", box=(100, 0, 120, 10)),
        Found("", box=(math.nan, 0, 1, 1)),
        Found("", box=(0, 0, math.inf, 1)),
        Found("", point=(101, 5)),
        Found("", point=(-1, 5)),
    ],
)
def test_what_has_no_place_in_the_image_is_dropped_and_counted(found):
    assert make_all([found, Found("", box=(0, 0, 1, 1))], SIZE)[1] == 1


@pytest.mark.parametrize(
    "found",
    [
        Found("x"),
        Found("x", box=(0, 0, 1, 1), point=(0, 0)),
        Found("x", box=(0, 0, 1)),
        Found("x", point=(0, 0, 1, 1)),
        Found("x", box=(0, 0, 1, 1), score=1.1),
        Found("x", box=(0, 0, 1, 1), score=math.nan),
        Found("x", box=(0, 0, 1, 1), spread=(1, 1)),
    ],
)
def test_what_no_model_may_say_is_an_error(found):
    with pytest.raises(ValueError, match="x"):
        make_detection(found, SIZE)


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-200, 200)


@given(st.tuples(numbers, numbers, numbers, numbers))
def test_any_box_is_dropped_or_lies_inside(corners):
    made = make_detection(Found("", box=corners), SIZE)
    if made is not None:
        x1, y1, x2, y2 = made.box
        assert 0 <= x1 < x2 <= 100
        assert 0 <= y1 < y2 <= 60
        assert 0 <= made.pixel[0] < 100
        assert 0 <= made.pixel[1] < 60


def test_best_is_the_highest_score_the_first_of_equals_or_none():
    assert FULL.best.label == "Save"
    assert answer(Found("a", box=(0, 0, 1, 1)), Found("b", box=(0, 0, 1, 1))).best.label == "a"
    assert answer().best is None


def test_json_round_trip_is_exact_and_in_plain_types():
    text = json.dumps(FULL.to_json(), allow_nan=False)
    assert json.loads(text)["schema"] == "groundlink/1"
    assert Detections.from_json(json.loads(text)) == FULL
    assert Detections.from_json(answer().to_json()) == answer()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "groundlink/2"}, "schema"),
        ({"size": [0, 5]}, "at least one pixel"),
        ({"size": None}, "well formed"),
        ({"status": "maybe"}, "maybe"),
        ({"incomplete_reason": "tired"}, "tired"),
        ({"detections": [{"label": "x"}]}, "'box'"),
        ({"detections": 5}, "well formed"),
        ({"timings_ms": {"a": "b"}}, "well formed"),
    ],
)
def test_json_that_is_not_ours_is_refused_by_name(change, words):
    with pytest.raises(BadData, match=words):
        Detections.from_json(FULL.to_json() | change)
    with pytest.raises(BadData):
        Detections.from_json([])


def test_coco_round_trip():
    data = json.loads(json.dumps(groundlink.to_coco([FULL, answer()])))
    assert groundlink.from_coco(data) == [FULL, answer()]
    assert data["annotations"][0]["bbox"] == [10.5, 20.25, 19.5, 19.75]
    assert data["annotations"][2]["keypoints"] == [5.5, 6.5, 2]
    assert [category["name"] for category in data["categories"]] == ["Save", "a person", "handle"]


def test_coco_of_others_is_read():
    data = {
        "images": [{"id": 7, "width": 100, "height": 60, "file_name": "a.jpg"}, {"id": 8, "width": 5, "height": 5}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [90, 50, 20, 20], "keypoints": [1, 1, 2] * 17},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 5]},
        ],
    }
    first, second = groundlink.from_coco(data)
    assert [found.box for found in first] == [(90, 50, 100, 60)]
    assert "dropped" in first.reason
    assert (first.source, second.status) == ("a.jpg", "not_found")
    for broken, words in [
        ({"images": []}, "categories"),
        (data | {"annotations": [{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "9"),
        (data | {"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0]}]}, "well formed"),
        (7, "well formed"),
    ]:
        with pytest.raises(BadData, match=words):
            groundlink.from_coco(broken)


def test_supervision_round_trip():
    made = FULL.to_supervision()
    assert isinstance(made, sv.Detections)
    assert made.xyxy[0].tolist() == [10.5, 20.25, 30, 40]
    assert made.data["class_name"].tolist() == ["Save", "a person", "handle"]
    assert made.confidence is None, "one detection has no score"
    assert Detections.from_supervision(made).detections == FULL.detections
    scored = answer(Found("a", box=(0, 0, 5, 5), score=0.25), Found("b", box=(1, 1, 5, 5), score=0.75))
    made = scored.to_supervision()
    assert made.confidence.tolist() == [0.25, 0.75]
    kept = Detections.from_supervision(made[made.confidence > 0.5])
    assert [found.label for found in kept] == ["b"], "filters of supervision keep our data in step"
    empty = answer().to_supervision()
    assert len(empty) == 0
    assert Detections.from_supervision(empty) == answer()


def test_supervision_of_others_is_read():
    made = sv.Detections(xyxy=np.array([[90.0, 50, 120, 70]]), confidence=np.array([0.5]), class_id=np.array([4]))
    with pytest.raises(BadData, match="size="):
        Detections.from_supervision(made)
    read = Detections.from_supervision(made, size=SIZE)
    assert (read[0].box, read[0].label, read[0].score) == ((90, 50, 100, 60), "4", 0.5)
