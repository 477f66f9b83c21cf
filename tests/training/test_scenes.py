"""Scenes: repeatable, true, and split so that what is measured was never trained on."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from groundlink.backends.locateanything.config import COORDINATES
from groundlink.backends.locateanything.parse import scan
from groundlink.errors import BadQuery
from groundlink.evaluation.scenes import scene_cases
from groundlink.query import Query
from groundlink.training.scenes import HELD_OUT, SPLITS, Scenes, draw

SEVERAL = {"detect", "layout", "read", "ground", "point"}


@pytest.fixture(scope="module")
def drawn():
    return [draw("train", number, 8) for number in range(150)]


def identity(scene):
    return hashlib.sha256(scene.image.tobytes() + repr(scene.items).encode()).hexdigest()


def test_a_number_is_a_scene(drawn):
    for number in (0, 7, 149):
        again = draw("train", number, 8)
        assert identity(again[0]) == identity(drawn[number][0])
        assert again[1] == drawn[number][1]


def test_the_scene_does_not_depend_on_how_much_is_asked(drawn):
    assert identity(draw("train", 3, 1)[0]) == identity(drawn[3][0])


def test_splits_and_seeds_never_meet():
    seen = [identity(draw(split, n, 1)[0]) for split in SPLITS for n in range(25)]
    seen += [identity(draw("train", n, 1, seed=1)[0]) for n in range(25)]
    assert len(set(seen)) == len(seen)


def test_neighbours_have_one_size():
    sizes = [draw("held-out", number, 1)[0].image.size for number in range(48)]
    assert len(set(sizes[:16])) == len(set(sizes[16:32])) == 1
    assert len(set(sizes)) == 3


def test_boxes_lie_inside_and_have_ink(drawn):
    for scene, _ in drawn:
        pixels = np.asarray(scene.image, np.int16)
        for item in scene.items:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= scene.image.width and 0 <= y1 < y2 <= scene.image.height, item
            inside = pixels[int(y1) : int(y2), int(x1) : int(x2)]
            assert np.ptp(inside.reshape(-1, 3), axis=0).max() > 0 or item.kind in ("shape", "field"), item


def test_a_shape_has_its_colour_where_it_is(drawn):
    """Read off the picture, not off the generator: the middle of a disc is of the colour it is said to have."""
    checked = 0
    for scene, _ in drawn:
        for item in scene.items:
            covered = any(
                other is not item
                and other.box[0] < item.box[2]
                and item.box[0] < other.box[2]
                and other.box[1] < item.box[3]
                and item.box[1] < other.box[3]
                for other in scene.items
            )
            if item.kind == "shape" and item.name in ("circle", "square") and not covered:
                middle = (int((item.box[0] + item.box[2]) / 2), int((item.box[1] + item.box[3]) / 2))
                red, green, blue = scene.image.getpixel(middle)
                strongest = {"red": red, "green": green, "blue": blue}
                if item.colour in strongest:
                    assert max(strongest, key=strongest.get) == item.colour
                    checked += 1
    assert checked > 10


def test_training_never_shows_or_names_a_held_out_combination(drawn):
    for scene, questions in drawn:
        assert not any((item.colour, item.name) in HELD_OUT for item in scene.items)
        for question in questions:
            words = question.text.lower()
            for colour, shape in HELD_OUT:
                assert f"{colour} {shape}" not in words
    for number in range(20):
        scene, questions = draw("new-combinations", number)
        assert all(any(f"{c} {s}" in question.text for c, s in HELD_OUT) for question in questions)


def test_answers_say_the_truth_in_order(drawn):
    full = COORDINATES - 1
    for scene, questions in drawn:
        width, height = scene.image.size
        for question in questions:
            items = [item for item in scan(question.answer(width, height)) if item.values]
            boxes = [box for _, boxes in question.truth for box in boxes]
            assert len(items) == len(boxes)
            for item, box in zip(items, boxes):
                place = box
                if question.task == "point":
                    place = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
                for number, (said, true) in enumerate(zip(item.values, place)):
                    assert abs(said - true / (height if number % 2 else width) * full) <= 0.5001
            for _, boxes in question.truth:
                assert list(boxes) == sorted(boxes, key=lambda box: (box[0], box[1]))


def test_one_thing_is_asked_for_only_where_there_is_one(drawn):
    for _, questions in drawn:
        for question in questions:
            if question.task not in SEVERAL and question.task != "text":
                assert sum(len(boxes) for _, boxes in question.truth) <= 1, question


def test_every_task_in_more_than_one_wording_and_some_of_nothing(drawn):
    texts = defaultdict(set)
    nothing = Counter()
    for _, questions in drawn:
        for question in questions:
            texts[question.task].add(question.text)
            nothing[any(boxes for _, boxes in question.truth)] += 1
    assert set(texts) == {"detect", "layout", "ground", "ground_one", "text", "read", "gui", "point"}
    assert all(len(wordings) > 1 for wordings in texts.values())
    assert 0.1 < nothing[False] / nothing.total() < 0.3


def test_a_relation_holds_for_one_only(drawn):
    """Checked from the items alone: no other thing of the kind lies on that side."""
    seen = 0
    for scene, questions in drawn:
        for question in questions:
            if question.group != "relation" or not question.truth[0][1]:
                continue
            phrase = question.phrases[0].removeprefix("the ")
            side = next(s for s in (" left of ", " right of ", " above ", " below ") if s in phrase)
            thing = phrase.split(side)[0].split(" that is ")[0].split()[-1]
            box = question.truth[0][1][0]
            assert any(item.name == thing and item.box == box for item in scene.items)
            seen += 1
    assert seen > 5


def test_cases_are_the_questions_as_they_are_asked():
    cases = list(scene_cases("held-out", count=20))
    assert len({case.name for case in cases}) == len(cases) > 80
    for case in cases:
        assert isinstance(case.query, Query)
        assert case.image().size == case.size
    assert {case.query.task for case in scene_cases("held-out", count=20, task="point")} == {"point"}


def test_an_unknown_split_is_named():
    with pytest.raises(BadQuery, match=r"'test'.*held-out"):
        draw("test", 0)
    with pytest.raises(BadQuery, match=r"'test'.*held-out"):
        Scenes("test")
