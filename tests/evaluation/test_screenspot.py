"""Targets on screens: what is read, how it is judged, and what `groundlink eval` prints, keeps and draws."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import groundlink
from groundlink.backend import BackendInfo, Context, Outcome
from groundlink.cli import app
from groundlink.detections import Found
from groundlink.errors import BadData, BadImage, BadOutput, BadQuery, OutOfMemory
from groundlink.evaluation.cases import read_cases
from groundlink.evaluation.run import BEGUN, evaluate, read_predictions, score
from groundlink.evaluation.screenspot import draw_misses
from groundlink.image import OpenedImage
from groundlink.locator import Locator
from groundlink.query import Query
from tests.conftest import words_on

SIZE = (200, 100)
A, B = [10, 10, 50, 30], [100, 10, 140, 30]
ROW = {"image": "a.png", "width": 200, "height": 100, "type": "text", "instruction": "Save", "bbox": A, "source": "one"}
SPOT = {"img_filename": "a.png", "bbox": [10, 10, 40, 20], "instruction": "Save", "data_type": "text"}
PRO = {"img_filename": "word/b.png", "bbox": A, "instruction": "Bold", "ui_type": "icon", "img_size": [200, 100]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "c.png", "images/word/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, "white").save(tmp_path / name)
    return tmp_path


def written(folder: Path, content: object, name: str = "targets.jsonl") -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".jsonl") and not isinstance(content, str):
        content = "\n".join(map(json.dumps, content))
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")
    return str(path)


class Scripted:
    """Answers each phrase with what it is told to."""

    info = BackendInfo(name="scripted", tasks=("gui", "point"), boxes=True, points=True, scores=True)

    def __init__(self, **answers: object) -> None:
        self.answers = {words.replace("_", " "): answer for words, answer in answers.items()}
        self.asked: list[str] = []

    @classmethod
    def problem(cls) -> str | None:
        return None

    def run(self, image: OpenedImage, query: Query, context: Context) -> Generator[Found, None, Outcome]:
        self.asked.append(query.words)
        answer = self.answers.get(query.words, [])
        if isinstance(answer, Exception):
            raise answer
        for box in answer:
            if query.task == "point":
                yield Found(query.words, point=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
            else:
                yield Found(query.words, box=box, score=0.9)
        return Outcome("ambiguous" if len(answer) > 1 else None, "as told")

    def close(self) -> None:
        pass


INSIDE = [25, 15, 35, 25]
"""In A, but much smaller: a click there lands, and the IoU is 0.125."""
ROWS = [
    ROW | {"instruction": "all right"},
    ROW | {"instruction": "point only"},
    ROW | {"instruction": "elsewhere", "source": "two"},
    ROW | {"instruction": "left open", "type": "icon", "source": "two"},
    ROW | {"instruction": "denied", "type": "paraphrase"},
    ROW | {"instruction": "other words", "paraphrase": True, "image": "c.png"},
    ROW | {"instruction": "broken", "type": "icon"},
    ROW | {"instruction": "both", "alternatives": [A, B]},
    ROW | {"instruction": "the first", "alternatives": [A, B]},
    ROW | {"instruction": "the wrong one", "alternatives": [A, B]},
    ROW | {"instruction": "one too many", "alternatives": [A, B]},
    ROW | {"instruction": "nowhere", "bbox": None},
    ROW | {"instruction": "not there", "type": "absent"},
    {"image": "a.png", "instruction": "made up", "absent": True, "source": "two"},
]
ANSWERS = {
    "all_right": [A],
    "point_only": [INSIDE],
    "elsewhere": [B],
    "left_open": [A, B],
    "other_words": [A],
    "broken": OutOfMemory("too much"),
    "both": [A, INSIDE, B],
    "the_first": [A],
    "the_wrong_one": [B],
    "one_too_many": [A, B, [60, 60, 80, 80]],
    "made_up": [A],
}
OUTCOMES = [
    *("right", "right", "elsewhere", "left open", "not found", "right", "failed"),
    *("marked", "settled", "wrong", "wrong", "denied", "denied", "false hit"),
]
LINE = {
    "text": {"accuracy": 0.666667, "n": 3},
    "icon": {"accuracy": 0.0, "n": 2},
    "paraphrase": {"accuracy": 0.5, "n": 2},
    "ambiguous": {"accuracy": 0.5, "n": 4},
    "absent": {"accuracy": 0.666667, "n": 3},
}


def test_figures_are_those_of_answers_whose_hits_are_known(folder):
    with Locator(Scripted(**ANSWERS)) as locator:
        report = evaluate(locator, read_cases(written(folder, ROWS)))
    screens = report.screens
    assert [one.outcome for one in screens.judged] == OUTCOMES
    assert screens.line() == LINE
    text = screens.located["text"]
    assert (text.n, text.point, text.box, text.elsewhere) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3), 1)
    assert (screens.located["icon"].left_open, screens.located["icon"].failed) == (1, 1)
    assert screens.located["paraphrase"].not_found == 1
    assert (screens.located["all"].n, screens.located["all"].point) == (7, pytest.approx(3 / 7))
    assert (screens.ambiguous.marked, screens.ambiguous.settled, screens.ambiguous.wrong) == (1, 1, 2)
    assert (screens.absent.n, screens.absent.false_hits) == (3, 1)
    two = screens.sources["two"]
    assert (two.n, two.point, two.text, two.icon, two.paraphrase, two.absent) == (3, 0, 0, 0, None, 0)
    assert screens.sources["one"].ambiguous == 0.5
    assert screens.times.pictures == 2
    assert (report.n, report.failures) == (len(ROWS), 1)
    assert not report.single and not report.rejections, "targets are counted once, and as targets"
    written_down = report.to_markdown()
    assert "| text | 3 | 0.667 | 0.333 | 0 | 0 | 1 | 0 |" in written_down
    assert "- 3, text, elsewhere: elsewhere (two): as told" in written_down
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["screens"]["ambiguous"]["marked"] == 1


def test_the_border_of_a_box_belongs_to_it(folder):
    rows = [
        ROW | {"instruction": "edge", "bbox": [30, 20, 50, 30]},
        ROW | {"instruction": "off", "bbox": [31, 20, 50, 30]},
    ]
    with Locator(Scripted(edge=[[20, 10, 40, 30]], off=[[20, 10, 40, 30]])) as locator:
        report = evaluate(locator, read_cases(written(folder, rows)))
    assert [one.outcome for one in report.screens.judged] == ["right", "elsewhere"]


def test_a_backend_of_points_has_no_figure_for_boxes(folder):
    with Locator(Scripted(all_right=[A])) as locator:
        report = evaluate(locator, read_cases(written(folder, ROWS[:1]), "point"))
    assert (report.screens.located["text"].point, report.screens.located["text"].box) == (1, None)


def test_the_sample_is_read_whole(sample):
    files = [str(sample / "targets.jsonl"), str(sample / "ambiguous.jsonl")]
    cases = read_cases(files)
    assert len({case.name for case in cases}) == 90
    kinds = [case.type for case in cases]
    assert [kinds.count(kind) for kind in ("text", "icon", "ambiguous")] == [71, 12, 7]
    assert cases[0].query == groundlink.gui('the "Forms" navigation item')
    assert cases[0].meant == (446, 65, 506, 121)
    assert cases[0].source == "tabler-ui@0.0.34 dist/index.html"
    assert [len(case.truth) for case in cases[-7:]] == [2, 2, 4, 2, 3, 2, 5]
    assert read_cases(files, limit=85)[-1].type == "ambiguous"


def test_screenspot_boxes_have_width_and_height(folder):
    rows = [SPOT | {"data_source": "windows"}, SPOT | {"data_type": "icon", "bbox": [180, 90, 40, 16]}]
    first, second = read_cases(written(folder, rows, "screenspot_desktop.json"))
    assert (first.meant, first.type, first.source) == ((10, 10, 50, 30), "text", "windows")
    assert second.source == "screenspot_desktop", "where a row does not say"
    assert second.meant == (180, 90, 200, 100), "what a hand drew over the edge is cut"


def test_screenspot_pro_comes_as_a_folder(folder):
    written(folder, [PRO | {"group": "Office", "application": "word"}], "annotations/word.json")
    written(folder, [PRO | {"ui_type": "text", "application": "excel"}] * 2, "annotations/excel.json")
    cases = read_cases(str(folder / "annotations"))
    assert [(case.type, case.source, case.meant) for case in cases] == [
        ("text", "excel", tuple(A)),
        ("text", "excel", tuple(A)),
        ("icon", "Office", tuple(A)),
    ]
    assert cases[0].image.samefile(folder / "images" / "word" / "b.png"), "the pictures lie beside the annotations"


def test_pictures_are_taken_from_the_folder_that_is_given(folder):
    (folder / "elsewhere").mkdir()
    Image.new("RGB", SIZE).save(folder / "elsewhere" / "a.png")
    path = written(folder, [ROW | {"image": "images/a.png"}])
    with pytest.raises(BadImage, match=r"targets.jsonl:1: the image .*is missing.*--images"):
        read_cases(path)
    assert read_cases(path, images=folder / "elsewhere")[0].image == folder / "elsewhere" / "a.png"


def test_other_formats_are_still_told_apart(folder):
    lines = [{"image": "a.png", "phrase": "Save", "bbox": A}]
    assert read_cases(written(folder, lines))[0].query.task == "ground_one"
    for content, told in (
        ('[{"bbox": [1, 2, 3, 4]}]', "is of no known format.*a list of an object with 'bbox'"),
        ("[]", r"is of no known format.*\[\]"),
        ('{"rows": []}', "ScreenSpot"),
        ('[\n{"img_filename": "a.png"},\n{"img_fi', r"set.json:3: is not JSON"),
    ):
        with pytest.raises(BadData, match=told):
            read_cases(written(folder, content, "set.json"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instruction": None}, "'instruction' is a text, not None"),
        ({"instruction": " "}, "'instruction' is a text"),
        ({"type": None}, "'type' is a text"),
        ({"bbox": [10, 10, 50]}, "a box has four numbers"),
        ({"bbox": [10, 10, 50, 200]}, r"\[10, 10, 50, 200\].*outside of its image of 200×100"),
        ({"bbox": [50, 10, 10, 30]}, "swapped corners"),
        ({"bbox": [0.1, 0.1, 0.3, 0.2]}, "shares of the sides"),
        ({"width": 100}, r"says \(100, 100\) is the size of .*a.png, but that has \(200, 100\)"),
        ({"alternatives": "two"}, "'alternatives' is a list of boxes"),
        ({"alternatives": [A, [1, 2]]}, "a box has four numbers"),
        ({"type": "ambiguous"}, "less than two boxes"),
        ({"image": 3}, "'image' is a text"),
    ],
)
def test_rubbish_is_told_with_its_line(folder, change, told):
    with pytest.raises(BadData, match=rf"targets.jsonl:3: .*{told}"):
        read_cases(written(folder, "\n".join([json.dumps(ROW), "", json.dumps(ROW | change)])))


@pytest.mark.parametrize("lacks", ["instruction", "bbox", "type", "image"])
def test_a_field_that_is_missing_is_named(folder, lacks):
    row = {name: value for name, value in ROW.items() if name != lacks}
    with pytest.raises(BadData, match=rf"targets.jsonl:2: has no '{lacks}'"):
        read_cases(written(folder, [ROW, row]))


def test_rubbish_in_an_array_is_told_with_its_line(folder):
    rows = "[\n" + ",\n".join(
        [json.dumps(SPOT), json.dumps(SPOT, indent=1), json.dumps(SPOT | {"bbox": [300, 1, 9, 9]})]
    )
    with pytest.raises(BadData, match=r"set.json:14: the box \[300, 1, 309, 10\]"):
        read_cases(written(folder, rows + "\n]", "set.json"))
    with pytest.raises(BadData, match=r"set.json:3: is an object, not 7"):
        read_cases(written(folder, f"[{json.dumps(SPOT)},\n\n7]", "set.json"))
    with pytest.raises(BadData, match=r"set.json:1: says \(20, 10\)"):
        read_cases(written(folder, json.dumps([PRO | {"img_size": [20, 10]}]), "set.json"))
    with pytest.raises(BadQuery, match="no question for the task 'read'"):
        read_cases(written(folder, [ROW]), "read")


def test_a_run_that_was_cut_off_goes_on(folder, tmp_path):
    cases, out = read_cases(written(folder, ROWS)), tmp_path / "out"
    first, second = Scripted(**ANSWERS), Scripted(**ANSWERS)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with Locator(first) as locator, pytest.raises(KeyboardInterrupt):
        evaluate(locator, cases, folder=out, on_progress=stop)
    begun = out / BEGUN
    begun.write_bytes(begun.read_bytes()[:-20])
    with Locator(second) as locator:
        report = evaluate(locator, cases, folder=out)
    assert second.asked == [case.query.words for case in cases[4:]], "four were whole"
    assert report.screens.line() == LINE
    assert score(cases, read_predictions(out / "predictions.jsonl")).screens.line() == LINE
    assert json.loads((out / "report.json").read_text())["screens"] == json.loads(json.dumps(report.screens.to_json()))


def test_misses_are_drawn_with_truth_and_answer(folder, tmp_path):
    out = tmp_path / "missed"
    out.mkdir()
    (out / "miss-0001-text-elsewhere-old.png").write_bytes(b"")
    (out / "mine.png").write_bytes(b"")
    with Locator(Scripted(**ANSWERS)) as locator:
        screens = evaluate(locator, read_cases(written(folder, ROWS))).screens
    assert draw_misses(screens, out) == 7
    assert sorted(path.name for path in out.iterdir()) == [
        "mine.png",
        "miss-0003-text-elsewhere-elsewhere.png",
        "miss-0004-icon-left_open-left-open.png",
        "miss-0005-paraphrase-not_found-denied.png",
        "miss-0007-icon-failed-broken.png",
        "miss-0010-ambiguous-wrong-the-wrong-one.png",
        "miss-0011-ambiguous-wrong-one-too-many.png",
        "miss-0014-absent-false_hit-made-up.png",
    ]
    with Image.open(out / "miss-0003-text-elsewhere-elsewhere.png") as picture:
        assert picture.size == SIZE
        frames = [picture.getpixel((box[0] - 2, (box[1] + box[3]) // 2)) for box in (A, B)]
    assert frames[0] != frames[1] and (255, 255, 255) not in frames, (
        "truth and answer are framed in colours of their own"
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match="file"):
        draw_misses(screens, tmp_path / "file" / "missed")


def run(*arguments: object) -> tuple[int, list[str], str]:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout.splitlines(), done.output


def test_the_command_ends_with_what_is_right_by_type(tmp_path):
    words_on({(20, 20): "Sign in", (20, 90): "Cancel", (180, 90): "Cancel"}, (320, 140)).save(tmp_path / "a.png")
    row = {"image": "a.png", "source": "here", "type": "text"}
    cancels = [[18, 88, 120, 124], [178, 88, 280, 124]]
    targets = [
        row | {"instruction": "the Sign in button", "bbox": [18, 18, 120, 54]},
        row | {"instruction": "the bell icon", "type": "icon", "bbox": [280, 10, 300, 30]},
        row | {"instruction": "the Zebra button", "bbox": None},
    ]
    twins = [row | {"instruction": "Cancel", "bbox": cancels[0], "alternatives": cancels}]
    files = [written(tmp_path, targets), written(tmp_path, twins, "ambiguous.jsonl")]
    missed = tmp_path / "missed"
    code, lines, _ = run(*files, "--backend", "ocr", "--misses", missed, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert lines[-1] == (
        '{"text": {"accuracy": 1.0, "n": 1}, "icon": {"accuracy": 0.0, "n": 1}, '
        '"paraphrase": {"accuracy": null, "n": 0}, "ambiguous": {"accuracy": 1.0, "n": 1}, '
        '"absent": {"accuracy": 1.0, "n": 1}}'
    )
    assert json.loads(lines[-2])["about"]["data"] == files
    assert [path.name for path in missed.iterdir()] == ["miss-0002-icon-not_found-the-bell-icon.png"]
    assert len(read_predictions(tmp_path / "out" / "predictions.jsonl")) == 4
    code, _, told = run(*files, "--backend", "ocr")
    for words in ("point inside", "Names that occur more than once", "Names that are not there", "By source", "Time"):
        assert words in told, words


def test_misses_of_what_is_no_target_are_refused(folder, tmp_path):
    lines = written(folder, [{"image": "a.png", "phrase": "Save", "bbox": A}])
    with pytest.raises(BadQuery, match="--misses draws targets"):
        run(lines, "--misses", tmp_path / "missed")
