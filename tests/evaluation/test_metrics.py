"""Metrics by their definitions, on cases worked by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from groundlink.evaluation import metrics
from groundlink.evaluation.metrics import Labelled, duplicate_ratio, f1, f1_coco, iou_matrix, pointing, rejection

NOTHING = Labelled.of([], [])


def test_they_need_numpy_alone():
    code = (
        "import sys; import groundlink.evaluation.metrics, groundlink.evaluation.calibration; "
        "print({'torch', 'rapidocr', 'matplotlib', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_iou_has_continuous_coordinates_and_empty_unions():
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], dtype=float)
    b = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [2, 0, 4, 2], [5, 5, 5, 5]], dtype=float)
    assert iou_matrix(a, b).tolist() == [[1 / 3, 1, 0, 0], [0, 0, 0, 0]]
    assert iou_matrix(a, np.zeros((0, 4))).shape == (2, 0)
    assert metrics.THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


WORKED_TRUTH = [Labelled.of([[0, 0, 100, 100], [200, 0, 300, 100]], "x"), NOTHING]
WORKED_FOUND = [Labelled.of([[0, 0, 100, 92], [200, 0, 300, 62], [400, 0, 500, 100]], "x"), NOTHING]


@pytest.mark.parametrize("match_labels", [True, False])
def test_f1_of_the_worked_vector(match_labels):
    result = f1(WORKED_TRUTH, WORKED_FOUND, match_labels)
    assert result.f1_mean == pytest.approx(0.746257, abs=5e-7)
    assert (result.f1_50, result.f1_95) == pytest.approx((0.909091, 0.5), abs=5e-7)
    assert result.precision == pytest.approx([0.833333] * 3 + [0.666667] * 6 + [0.5], abs=5e-7)
    assert result.recall == pytest.approx([1.0] * 3 + [0.75] * 6 + [0.5], abs=5e-7)
    assert (result.images, result.truths, result.predictions) == (2, 2, 3)


def random_set(seed: int) -> tuple[list[Labelled], list[Labelled]]:
    draw = np.random.default_rng(seed)

    def boxes(count: int) -> Labelled:
        corners = draw.uniform(0, 60, (count, 2))
        labels = draw.choice(["cat", "dog"], count).tolist()
        return Labelled(np.concatenate([corners, corners + draw.uniform(5, 40, (count, 2))], 1), tuple(labels))

    def about(truth: Labelled) -> Labelled:
        more = boxes(2)
        moved = truth.boxes + draw.normal(0, 2, truth.boxes.shape)
        return Labelled(np.concatenate([moved, more.boxes]), truth.labels + more.labels)

    truths = [boxes(4) for _ in range(6)]
    return truths, [about(truth) for truth in truths]


@pytest.mark.parametrize("function", [f1, lambda a, b: f1(a, b, False), f1_coco])
def test_perfect_answers_are_1_and_order_is_nothing(function):
    truths, found = random_set(1)
    perfect = function(truths, truths)
    assert (perfect.f1_50, perfect.f1_95, perfect.f1_mean) == (1, 1, 1)
    before = function(truths, found)
    assert 0 < before.f1_50 < 1
    if function is not f1_coco:  # which takes the order given for that of scores
        turned = [Labelled(one.boxes[::-1], one.labels[::-1]) for one in found]
        after = function(truths[::-1], turned[::-1])
        assert after.precision == pytest.approx(before.precision)
        assert after.recall == pytest.approx(before.recall)


def test_a_duplicate_lowers_precision_alone():
    twice = [Labelled.of([*one.boxes, *one.boxes[:1]], [*one.labels, *one.labels[:1]]) for one in WORKED_FOUND]
    before, after = f1(WORKED_TRUTH, WORKED_FOUND), f1(WORKED_TRUTH, twice)
    assert after.recall == before.recall
    assert after.precision[0] < before.precision[0]
    assert duplicate_ratio(WORKED_FOUND) == 0
    assert duplicate_ratio(twice) == 1 / 4
    both = Labelled.of([[0, 0, 9, 9], [0, 0, 9, 9]], ["cat", "dog"])
    assert duplicate_ratio([both]) == 0, "two labels are two things"
    assert duplicate_ratio([NOTHING]) is None


def test_labels():
    truth = [Labelled.of([[0, 0, 10, 10]], "Traffic_Light")]
    same = [Labelled.of([[0, 0, 10, 10]], "traffic light")]
    other = [Labelled.of([[0, 0, 10, 10]], "car")]
    assert f1(truth, same).f1_mean == 1
    assert f1(truth, other).f1_mean == 0
    numbered = [Labelled.of([[0, 0, 10, 10]], "lane 1")], [Labelled.of([[0, 0, 10, 10]], "lane 2")]
    assert f1(*numbered).f1_mean == 0
    assert f1(*numbered, match_labels=False).f1_mean == 1, "the published tables compare letters alone"
    # Pooled: labels are not compared, but one that the image lacks matches nothing and counts as found.
    two = [Labelled.of([[0, 0, 10, 10], [20, 0, 30, 10]], ["a", "b"])]
    swapped = [Labelled.of([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10]], ["b", "a", "c"])]
    pooled = f1(two, swapped, match_labels=False)
    assert (pooled.precision[0], pooled.recall[0]) == pytest.approx((2 / 3, 1))
    assert f1(two, swapped).f1_mean == 0


def test_each_truth_takes_the_best_that_is_left():
    truth = [Labelled.of([[0, 0, 10, 10], [0, 0, 10, 9]], "x")]
    found = [Labelled.of([[0, 0, 10, 8], [0, 0, 10, 10]], "x")]
    assert f1(truth, found).f1_50 == 1
    assert f1(truth, [Labelled.of([[0, 0, 10, 10]], "x")]).recall[0] == 0.5, "one box is no two answers"


def test_nothing_there_and_nothing_found():
    one = Labelled.of([[0, 0, 10, 10]], "x")
    failed = Labelled.of([], [], failed=True)
    for truth, found, value in ((NOTHING, NOTHING, 1), (NOTHING, one, 0), (one, NOTHING, 0), (NOTHING, failed, 0)):
        assert f1([truth], [found]).f1_mean == value
    assert f1([], []).f1_mean is None
    assert f1_coco([NOTHING], [one]).f1_mean is None
    assert f1_coco([one], [NOTHING]).f1_mean == 0
    with pytest.raises(ValueError, match="2 labels"):
        Labelled(np.zeros((1, 4)), ("a", "b"))


def test_f1_as_published_for_coco():
    """Two images: class a loses one of three and gives one for nothing, b is never found, c is perfect."""
    truths = [
        Labelled.of([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]], ["a", "a", "b"]),
        Labelled.of([[0, 0, 10, 10], [50, 50, 60, 60]], ["a", "c"]),
    ]
    found = [
        Labelled.of([[0, 0, 10, 10], [40, 0, 50, 10]], ["a", "a"]),
        # An IoU of 0.8 for a; b is not in this picture and is left out.
        Labelled.of([[0, 0, 10, 8], [50, 50, 60, 60], [0, 0, 10, 10]], ["a", "c", "b"]),
    ]
    result = f1_coco(truths, found)
    # Up to 0.8 class a has hits 1, 0, 1: at the recall 2/3 the precision is 2/3. Beyond: 1, 0, 0: 1/3 with 1.
    assert result.precision == pytest.approx([5 / 6] * 7 + [1] * 3)
    assert result.recall == pytest.approx([5 / 6] * 7 + [2 / 3] * 3)
    assert result.f1_50 == pytest.approx(5 / 6)
    assert result.f1_95 == pytest.approx(0.8)
    assert result.f1_mean == pytest.approx(0.830333, abs=5e-7)
    assert f1(truths, found).f1_mean != pytest.approx(result.f1_mean, abs=0.01)


def points(*places, labels="x", failed=False):
    array = np.array(places, dtype=float).reshape(-1, 2)
    return array, [labels] * len(array) if isinstance(labels, str) else labels, failed


def test_pointing():
    truth = Labelled.of([[0, 0, 10, 10], [20, 0, 30, 10]], "x")
    assert pointing([truth], [points((0, 10), (25, 5))]).f1 == 1, "borders belong to it"
    assert pointing([truth], [points((10.1, 5), (25, 5))]).recall == 0.5
    crowd = pointing([truth], [points((5, 5), (6, 6))])
    assert (crowd.precision, crowd.recall) == (0.5, 0.5), "one thing has one point"
    over = Labelled.of([[0, 0, 10, 10], [0, 0, 30, 10]], "x")
    assert pointing([over], [points((15, 5), (5, 5))]).f1 == pointing([over], [points((5, 5), (15, 5))]).f1 == 1
    assert pointing([truth], [points((5, 5), labels="y")]).f1 == 0
    assert pointing([truth], [points((50, 50), (5, 5))]).first == 0
    assert pointing([NOTHING, NOTHING], [points(), points(failed=True)]).precision == 0.5
    assert pointing([truth], [points()]).f1 == 0
    assert pointing([], []).f1 is None


def test_one_thing():
    result = metrics.single([1.0, 0.5, 0.49, 0.0], [True, True, False, False])
    assert (result.n, result.acc_50, result.inside) == (4, 0.5, 0.5)
    assert result.mean_iou == pytest.approx(1.99 / 4)
    assert metrics.single([], []).acc_50 is None


def test_rejection():
    result = rejection([True, True, False, False, False], [False, True, True, True, False])
    assert (result.absent, result.present) == (3, 2)
    assert (result.rejected, result.wrongly_rejected) == pytest.approx((2 / 3, 1 / 2))
    assert rejection([], []).rejected is None


def test_speed():
    result = metrics.speed([4, 0], [1.0, 3.0], [24, 2], [5, 1])
    assert (result.bps_mean, result.bps_pooled) == (2, 1)
    assert (result.tokens_per_second, result.steps_per_box) == (6.5, 1.5)
    assert metrics.speed([], []).bps_mean is None
    assert metrics.speed([0], [1.0], None, [3]).steps_per_box is None


def test_tables_and_json():
    result = metrics.single([1.0, 0.0], [True, False])
    assert result.to_json() == {"n": 2, "mean_iou": 0.5, "acc_50": 0.5, "inside": 0.5}
    assert result.header("group").splitlines()[1] == "|---|---|---|---|---|"
    assert result.row("a|b") == "| a b | 2 | 0.500 | 0.500 | 0.500 |"
    assert rejection([], []).row("x") == "| x | 0 | n/a | 0 | n/a |"
    assert f1(WORKED_TRUTH, WORKED_FOUND).to_json()["precision"][0] == 0.833333
