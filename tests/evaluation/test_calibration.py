"""Scores and spreads: how far they can be believed, the maps, and their file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from groundlink.calibration import Calibration, Curve, Maps
from groundlink.errors import BackendUnavailable, BadData, BadOutput, WeightsInvalid
from groundlink.evaluation.calibration import (
    Evidence,
    auc,
    coverage,
    expected_calibration_error,
    fit,
    fit_scores,
    fit_spreads,
    isotonic,
    reliability,
    reliability_bins,
)
from groundlink.evaluation.plots import save_reliability, save_training_curve


def simulated(seed: int, freedom: float, count: int = 2000) -> Evidence:
    """Scores that boast, and spreads that are too small the smaller they are, of errors with heavy tails."""
    draw = np.random.default_rng(seed)
    chance = draw.beta(4, 1, count)
    spreads = draw.lognormal(0, 1, 2 * count)
    errors = draw.standard_t(freedom, 2 * count) * (0.7 + 2 * spreads**0.6)
    return Evidence(1 - (1 - chance) ** 3, draw.random(count) < chance, spreads, errors)


@pytest.mark.parametrize("freedom", [2.5, 4, 1000])
def test_what_is_fitted_on_one_seed_holds_on_another(freedom):
    learnt, other = simulated(1, freedom), simulated(2, freedom)
    before = reliability(other)
    assert before.ece > 0.1
    assert before.within_1 < 0.4
    made = fit({"box": learnt}, "simulated", held_out={"box": other})
    after = reliability(other.after(made, "box"))
    assert after.ece <= 0.05
    assert after.within_1 == pytest.approx(0.68, abs=0.05)
    assert after.within_2 == pytest.approx(0.95, abs=0.05)
    assert after.auc == pytest.approx(before.auc), "the order of answers is kept"
    assert made.fitted["box"]["held_out"]["after"] == after.to_json()
    assert made.fitted["box"]["before"]["n"] == 2000


def test_the_maps_increase_strictly():
    made = fit({"box": simulated(1, 3)}, "simulated")
    scores = [made.score(value) for value in np.linspace(0, 1, 500).tolist()]
    spreads = [made.spread(value) for value in np.linspace(0, 50, 500).tolist()]
    for values in (scores, spreads):
        assert all(np.diff(values) > 0)
    assert scores[0] >= 0
    assert scores[-1] <= 1
    assert spreads[0] > 0
    assert made.score(0.3, "point") == 0.3, "points were not there to be fitted"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=40, max_size=200),
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1e3, 1e3)), min_size=40, max_size=200),
)
def test_anything_can_be_fitted(scored, deviated):
    score = fit_scores(np.array([value for value, _ in scored]), np.array([right for _, right in scored]))
    assert (score.x[-1], score.y[-1] <= 1) == (1, True)
    spread = fit_spreads(np.array([value for value, _ in deviated]), np.array([error for _, error in deviated]))
    assert spread(0.0) > 0


def test_one_score_for_all_and_too_little():
    curve = fit_scores(np.ones(100), np.arange(100) < 75)
    assert curve(1.0) == pytest.approx(0.75, abs=0.02)
    few = Evidence.of([0.5] * 39, [True] * 39)
    with pytest.raises(BadData, match="39 box"):
        fit({"box": few}, "few")
    with pytest.raises(BadData, match="nothing"):
        fit({}, "none")
    only_scores = fit({"point": Evidence.of([0.5, 0.9] * 40, [False, True] * 40)}, "scores")
    assert only_scores.spread(3.0, "point") == 3.0
    assert only_scores.score(0.9, "point") > 0.9


def test_pooling():
    assert isotonic(np.array([1.0, 3, 2, 4, 0]), np.ones(5)).tolist() == [1, 2.25, 2.25, 2.25, 2.25]
    assert isotonic(np.array([2.0, 0, 5]), np.array([1.0, 3, 1])).tolist() == [0.5, 0.5, 5]


def test_bins():
    scores, right = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.95]), np.array([0, 0, 1, 0, 1, 1], dtype=bool)
    mass = reliability_bins(scores, right, 3)
    assert [bin.n for bin in mass] == [4, 2], "equal scores stay together"
    assert [bin.right for bin in mass] == [0.25, 1]
    width = reliability_bins(scores, right, 10, "width")
    assert [(bin.n, round(bin.score, 3)) for bin in width] == [(4, 0.1), (2, 0.925)]
    assert expected_calibration_error(scores, right, 3) == pytest.approx((4 * 0.15 + 2 * 0.075) / 6)
    turned = np.random.default_rng(1).permutation(6)
    assert expected_calibration_error(scores[turned], right[turned], 3) == pytest.approx(0.125)
    assert reliability_bins(np.array([1.0]), np.array([True]), 10, "width")[0].n == 1
    assert expected_calibration_error(np.array([]), np.array([])) is None


def test_area_under_the_curve():
    scores, right = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert auc(scores, right) == 0.75
    assert auc(np.full(4, 0.5), right) == 0.5, "ties say nothing"
    assert auc(scores, np.ones(4, dtype=bool)) is None


def test_coverage():
    assert coverage(np.array([1.0, 1, 2, 0]), np.array([1.0, -1.5, 3, 0]), 1) == 0.5
    assert coverage(np.array([1.0, 1, 2, 0]), np.array([1.0, -1.5, 3, 0]), 2) == 1
    assert coverage(np.array([]), np.array([]), 1) is None


def test_the_file_gives_back_what_was_fitted(tmp_path):
    made = fit({"box": simulated(1, 3), "point": simulated(2, 3)}, "two seeds", seed=1)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(made.to_json()))
    assert Calibration.load(path) == made
    assert made.fitted["on"] == "two seeds"
    assert made.fitted["seed"] == 1


GOOD = {"schema": "groundlink-calibration/1", "box": {"score": [[0, 0.1], [1, 0.9]], "spread": [[0, 1], [2, 3]]}}


def bad(**box):
    return GOOD | {"box": GOOD["box"] | box}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not JSON", "Expecting value"),
        ("[]", "schema"),
        (json.dumps(GOOD | {"schema": "groundlink-calibration/9"}), "groundlink-calibration/9"),
        (json.dumps(bad(score=[[0, 0.5], [0.5, 0.4], [1, 0.9]])), "0.4 comes after 0.5"),
        (json.dumps(bad(score=[[0, 0.5], [0, 0.6], [1, 0.9]])), "0 comes after 0"),
        (json.dumps(bad(score=[[0, 0.1], [1, math.nan]])), "finite"),
        (json.dumps(bad(score=[[0, 0.1], [1, 1.5]])), "into 0…1"),
        (json.dumps(bad(score=[[0, 0.1], [0.5, 0.9]])), "from 0…1"),
        (json.dumps(bad(score=[[0.5, 0.1], [1, 0.9]])), "begins at 0"),
        (json.dumps(bad(spread=[[0, -1], [1, 0.9]])), "not negative"),
        (json.dumps(bad(spread=[[0, 1]])), "two knots"),
        (json.dumps(bad(spread=[[0, "1"], [1, 2]])), "two knots"),
        (json.dumps(bad(other=[])), "other"),
        (json.dumps(GOOD | {"box": [1]}), "'box'"),
        (json.dumps(GOOD | {"fitted": 3}), "fitted"),
        ("\udcff", "utf-8"),
    ],
)
def test_rubbish_is_refused_by_name(content, words, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsInvalid, match="calibrated=False") as told:
        Calibration.load(path)
    assert str(path) in str(told.value)
    assert words in str(told.value)


def test_a_curve_goes_on_beyond_its_last_knot():
    curve = Curve((0.0, 2.0), (1.0, 3.0))
    assert [curve(value) for value in (0, 1, 2, 4)] == [1, 2, 3, 6]
    assert Calibration(box=Maps(spread=curve)).score(0.5) == 0.5


def test_figures(tmp_path):
    evidence = simulated(1, 3, 300)
    save_reliability(tmp_path / "r.png", evidence, evidence.after(fit({"box": evidence}, "x"), "box"), "boxes")
    save_training_curve(tmp_path / "t.png", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "mtp": 0.5}])
    for name in ("r.png", "t.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
            assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    with pytest.raises(BadOutput, match=r"\.png"):
        save_training_curve(tmp_path / "t.jpg", [])
    with pytest.raises(BadOutput, match="no folder"):
        save_training_curve(tmp_path / "none" / "t.png", [])


def test_figures_say_what_they_lack(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"groundlink\[train\]"):
        save_training_curve(tmp_path / "t.png", [])
