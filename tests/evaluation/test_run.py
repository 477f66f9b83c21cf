"""A whole evaluation: asked, kept, gone on with, scored; with the OCR backend and the small LocateAnything."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import groundlink
from groundlink.calibration import Calibration, Curve, Maps
from groundlink.cli import app
from groundlink.detections import Detections, Found, make_all
from groundlink.errors import BackendUnavailable, BadData, BadOutput, UnsupportedTask, WeightsInvalid
from groundlink.evaluation.cases import Case, Truth, read_cases
from groundlink.evaluation.run import BEGUN, Prediction, evaluate, evidence, read_predictions, score
from tests.conftest import words_on
from tests.locateanything import samples

SIZE = (100, 50)
TWO = (Truth("cat", (0, 0, 10, 10)), Truth("cat", (20, 0, 30, 10)))


def case(name: str, query: groundlink.Query, *truth: Truth, group: str = "") -> Case:
    return Case(name, lambda: Image.new("RGB", SIZE), SIZE, query, truth, group)


def answer(*found: Found, incomplete: str | None = None, **timings: float) -> Detections:
    return Detections(
        make_all(found, SIZE)[0],
        "found" if found else "not_found",
        SIZE,
        complete=incomplete is None,
        incomplete_reason=incomplete,
        timings_ms={"total": 100.0, **timings},
    )


CASES = [
    case("one", groundlink.ground_one("cat"), TWO[0], group="near"),
    case("far", groundlink.ground_one("cat"), TWO[1], group="far"),
    case("none", groundlink.ground_one("dog"), group="absent"),
    case("garbled", groundlink.ground_one("owl"), group="absent"),
    case("several", groundlink.detect("cat", "dog"), *TWO),
    case("point", groundlink.point("cat"), *TWO),
    case("broken", groundlink.ground("cat"), *TWO),
]
PREDICTIONS = [
    Prediction("one", answer(Found("cat", (0, 0, 10, 8), score=0.9, spread=(1, 1, 1, 1)))),
    Prediction("far", answer(Found("cat", (0, 0, 10, 10), score=0.4, spread=(1, 1, 1, 1)))),
    Prediction("none", answer(steps=4.0, tokens=6.0)),
    Prediction("garbled", answer(incomplete="garbled")),
    Prediction("several", answer(Found("cat", TWO[1].box, score=0.8), Found("cat", TWO[0].box, score=0.7))),
    Prediction("point", answer(Found("cat", point=(6, 5), score=0.6, spread=(0.2, 1)))),
    Prediction("broken", None, "out_of_memory: too much"),
]


def test_scores_by_group_and_kind():
    report = score(CASES, reversed(PREDICTIONS), {"backend": "none"})
    assert (report.n, report.failures, report.incomplete) == (7, 2, 2)
    assert report.errors == {"out_of_memory: too much": 1}
    assert {name: row.acc_50 for name, row in report.single.items()} == {"far": 0, "near": 1, "all": 0.5}
    assert report.single["near"].mean_iou == pytest.approx(0.8)
    assert {name: row.f1_mean for name, row in report.several.items()} == {"detect": 1, "ground": 0, "all": 0.5}
    assert set(report.published) == {"pooled", "COCO"}
    assert (report.points["point"].precision, report.points["point"].recall) == (1, 0.5)
    absent = report.rejections["absent"]
    assert (absent.absent, absent.rejected) == (2, 0.5), "what is garbled says nothing"
    detect = report.rejections["detect"]
    assert (detect.absent, detect.rejected, detect.present, detect.wrongly_rejected) == (1, 1, 1, 0)
    assert report.rejections["ground"].wrongly_rejected == 0, "an error is wrong, but no denial"
    assert report.speed.n == 5, "without the first, which warms up"
    box = report.reliability["box"]
    assert (box.n, box.right, box.auc) == (4, 0.75, 1)
    assert (box.coordinates, box.within_1, box.within_2) == (4, 0.75, 1), "of the right one alone"


def test_evidence_is_in_thousandths_of_the_sides():
    found = evidence(CASES, PREDICTIONS)
    assert found["box"].spreads.tolist() == [10, 20, 10, 20]
    assert found["box"].errors.tolist() == [0, 0, 0, -40]
    assert found["point"].spreads.tolist() == [2, 20]
    assert found["point"].errors.tolist() == pytest.approx([10, 0])
    assert found["box"].right.tolist() == [True, False, True, True]


def test_a_report_with_a_calibration():
    curve = Curve((0.0, 1.0), (0.2, 0.8))
    report = score(CASES, PREDICTIONS, {}, Calibration(box=Maps(score=curve)))
    assert set(report.reliability) == {"box", "point", "box, calibrated", "point, calibrated"}
    assert report.reliability["box, calibrated"].auc == report.reliability["box"].auc


def test_a_report_on_paper():
    report = score(CASES, PREDICTIONS, {"backend": "none", "prompts": {"detect": "…"}})
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["schema"] == "groundlink-report/1"
    assert data["single"]["near"]["acc_50"] == 1
    text = report.to_markdown()
    for words in ("## One thing", "| near | 1 | 0.800 | 1.000 |", "F1@Mean", "2 failed", "1 × out_of_memory"):
        assert words in text, words
    assert score([], []).to_markdown().startswith("# Evaluation")
    with pytest.raises(BadData, match=r"2 of 2 cases have no prediction, such as 'one'"):
        score(CASES[:2], [])


def test_predictions_keep_all_digits():
    exact = Prediction("x", answer(Found("cat", (0, 0, 0.001, 1 / 3), score=0.99999995, spread=(0.001,) * 4)))
    again = Prediction.from_json(json.loads(json.dumps(exact.to_json())))
    assert again.answer.detections == exact.answer.detections
    failed = PREDICTIONS[-1]
    assert Prediction.from_json(failed.to_json()) == failed


WORDS = {(20, 20): "Sign in", (20, 90): "Cancel", (180, 90): "Cancel"}


@pytest.fixture
def screens(tmp_path: Path) -> str:
    """A COCO file of a picture whose texts are the categories."""
    words_on(WORDS, (320, 140)).save(tmp_path / "a.png")
    boxes = {1: [[18, 18, 90, 32]], 2: [[18, 90, 90, 30], [178, 90, 90, 30]]}
    data = {
        "images": [{"id": 1, "file_name": "a.png", "width": 320, "height": 140}],
        "categories": [{"id": 1, "name": "Sign in"}, {"id": 2, "name": "Cancel"}, {"id": 3, "name": "Zebra"}],
        "annotations": [
            {"id": 10 * category + number, "image_id": 1, "category_id": category, "bbox": box}
            for category, group in boxes.items()
            for number, box in enumerate(group)
        ],
    }
    (tmp_path / "set.json").write_text(json.dumps(data))
    return str(tmp_path / "set.json")


def test_a_run_is_kept_and_gone_on_with(locator, screens, tmp_path):
    cases = read_cases(screens, "ground")
    out = tmp_path / "out"
    told = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2 and len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(locator, cases, folder=out, on_progress=stop)
    begun = out / BEGUN
    assert [path.name for path in out.iterdir()] == [BEGUN]
    begun.write_bytes(begun.read_bytes()[:-20])  # the machine went down in the middle of a line
    with pytest.raises(BadOutput, match="other questions or settings"):
        evaluate(locator, cases[:1], folder=out)
    told = [(0, 0)] * 9
    report = evaluate(locator, cases, folder=out, on_progress=stop)
    assert told[9:] == [(1, 3), (2, 3), (3, 3)], "the first was not asked again"
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "report.json", "report.md"]
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    again = score(cases, read_predictions(out / "predictions.jsonl"), report.about)
    assert again == report
    assert report.several["ground"].f1_50 == 1
    assert report.rejections["ground"].rejected == 1
    assert report.reliability["box"].auc is None, "all were right"
    assert report.speed.n == 0, "the picture was known but for the first question, which warms up"
    assert evaluate(locator, cases, folder=out).n == 3, "what is done is done anew"


def test_what_cannot_be_run(locator, screens, tmp_path):
    with pytest.raises(UnsupportedTask, match=r"'ocr' does not do 'detect'; it does gui, "):
        evaluate(locator, read_cases(screens))
    cases = read_cases(screens, "text")
    with pytest.raises(BadData, match="more than once"):
        evaluate(locator, cases * 2)
    with pytest.raises(BadData, match="was given one of"):
        evaluate(locator, [replace(cases[0], size=(1, 1))])
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match="file"):
        evaluate(locator, cases, folder=tmp_path / "file" / "out")
    (tmp_path / BEGUN).write_text("{}\n")
    with pytest.raises(BadData, match=rf"{BEGUN}:1: is no file of predictions"):
        evaluate(locator, cases, folder=tmp_path)
    (tmp_path / "a.png").write_bytes(b"damaged")
    report = evaluate(locator, cases)
    assert report.failures == report.n == len(cases)
    assert "bad_image" in next(iter(report.errors))


FIT = samples.IMAGES


def golden_lines() -> list[dict]:
    """What the small checkpoint was fitted to say, and one thing that it gets wrong."""
    with Image.open(FIT / "fit0.png") as picture:
        width, height = picture.size
    with Image.open(FIT / "fit1.png") as picture:
        x, y = 0.321 * picture.width, 0.654 * picture.height
    cars = [
        [0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height],
        [0.05 * width, 0.06 * height, 0.07 * width, 0.8 * height],
    ]
    return [
        {"image": str(FIT / "fit0.png"), "task": "detect", "phrase": "car", "bbox": cars},
        {"image": str(FIT / "fit1.png"), "task": "point", "phrase": "red button", "bbox": [x - 2, y - 2, x + 2, y + 2]},
        {"image": str(FIT / "fit2.png"), "phrase": "dog", "bbox": None},
        {"image": str(FIT / "fit2.png"), "phrase": "dog", "bbox": [0, 0, 5, 5]},
    ]


def small(**settings: object) -> groundlink.Locator:
    defaults = {"model": samples.FOLDER, "device": "cpu", "max_new_tokens": 40, "mode": "slow"}
    return groundlink.load("locateanything", **{**defaults, **settings})


@pytest.fixture
def golden(tmp_path: Path) -> str:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, golden_lines())))
    return str(path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the small checkpoint that a calibration can be put into."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in samples.FOLDER.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


CALIBRATION = Calibration(
    Maps(Curve((0.0, 1.0), (0.1, 0.6)), Curve((0.0, 10.0), (5.0, 100.0))), None, {"on": "nothing"}
)


def test_locateanything_and_its_calibration(golden, checkpoint):
    cases = read_cases(golden)
    with small() as plain:
        raw = evaluate(plain, cases)
    assert raw.about["mode"] == "slow"
    assert raw.about["calibrated"] is False
    assert raw.about["prompts"]["point"] == "Point to: {}."
    assert set(raw.about["prompts"]) == {"detect", "ground_one", "point"}
    assert raw.several["detect"].f1_mean == 1
    assert raw.points["point"].f1 == 1
    row = raw.rejections["ground_one"]
    assert (row.rejected, row.wrongly_rejected) == (1, 1)
    assert raw.single["ground_one"].acc_50 == 0
    assert raw.speed.steps_per_box > 1

    (checkpoint / "calibration.json").write_text(json.dumps(CALIBRATION.to_json()))
    pairs = [(FIT / "fit0.png", groundlink.detect("car")), (FIT / "fit1.png", groundlink.point("red button"))]
    answers = {}
    for calibrated in (True, False):
        with small(model=checkpoint, calibrated=calibrated) as locator:
            assert (locator.backend.describe()["calibrated"], locator.backend.calibration is not None) == (
                calibrated,
                calibrated,
            )
            answers[calibrated] = locator.locate_batch(pairs)
    width, height = answers[True][0].size
    for after, before in zip(answers[True][0], answers[False][0], strict=True):
        assert after.box == before.box
        assert after.score == pytest.approx(0.1 + 0.5 * before.score)
        sides = np.array([width, height, width, height]) / 1000
        wanted = [CALIBRATION.spread(spread) for spread in (before.spread / sides).tolist()]
        assert after.spread == pytest.approx((wanted * sides).tolist())
    assert answers[True][1].best.point is not None
    assert answers[True][1].detections == answers[False][1].detections, "of points it says nothing"


def test_a_calibration_that_is_none(checkpoint):
    (checkpoint / "calibration.json").write_text("{}")
    with pytest.raises(WeightsInvalid, match=r"calibration.json is no calibration.*calibrated=False"):
        small(model=checkpoint)
    small(model=checkpoint, calibrated=False).close()
    with pytest.raises(BackendUnavailable, match="calibrated is True or False"):
        small(calibrated="no")


PROGRAM = str(Path(sys.executable).parent / "groundlink")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, "eval", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def test_the_command_prints_tables_and_writes_a_report(screens, tmp_path):
    out = tmp_path / "out"
    done = run(screens, "--backend", "ocr", "--task", "ground", "--out", out)
    assert done.returncode == 0, done.stderr
    for words in ("F1@Mean", "What is not there", "3 questions, 0 failed", "written to"):
        assert words in done.stdout, words
    assert "F1@0.5" in (out / "report.md").read_text()
    assert json.loads((out / "report.json").read_text())["about"]["backend"] == "ocr"
    assert len(read_predictions(out / "predictions.jsonl")) == 3


def test_the_command_ends_with_json(golden):
    settings = [f"--set={name}" for name in ("device=cpu", "max_new_tokens=40", "mode=slow")]
    arguments = ["eval", golden, "-b", "locateanything", "--model", samples.FOLDER, *settings, "--limit", 2, "--json"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["n"] == 2
    assert report["several"]["detect"]["f1_mean"] == 1
    assert report["about"]["checkpoint"] == samples.FOLDER.name


def test_the_command_refuses_a_broken_file(tmp_path):
    done = run(tmp_path / "none.json")
    assert done.returncode == groundlink.ERROR_CODES[BadData].exit_code
    assert "no such file" in done.stderr
