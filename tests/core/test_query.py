from __future__ import annotations

import pytest

import groundlink
from groundlink import BadData, BadQuery, Query


def test_each_task_has_a_function_of_its_name():
    made = {
        "detect": groundlink.detect("person", "traffic light"),
        "ground": groundlink.ground("a dog"),
        "ground_one": groundlink.ground_one("the dog on the left"),
        "point": groundlink.point("the handle"),
        "text": groundlink.text("Exit"),
        "read": groundlink.read(),
        "gui": groundlink.gui("the Save button"),
        "layout": groundlink.layout("title", "table"),
        "example": groundlink.example(box=(0, 0, 10, 10)),
    }
    assert set(made) == set(groundlink.TASKS)
    assert all(query.task == task for task, query in made.items())
    assert made["detect"].phrases == ("person", "traffic light")


def test_white_space_is_folded_and_unicode_kept():
    assert groundlink.gui("  the\n Save\tbutton ").phrases == ("the Save button",)
    assert groundlink.gui("東京 😀 Zürich").phrases == ("東京 😀 Zürich",)


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * 10_000, "10000 characters"),
        ("a\x00b", "control character"),
        ("a\x1b[31mb", "control character"),
        ("a\ud800b", "control character"),
    ],
)
def test_what_is_no_question_is_refused_with_the_reason(phrase, word):
    with pytest.raises(BadQuery, match=word):
        groundlink.gui(phrase)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Query("fly"),
        lambda: Query("gui"),
        lambda: Query("gui", ("a", "b")),
        lambda: Query("gui", "abc"),
        lambda: Query("gui", (3,)),
        lambda: Query("read", ("a",)),
        lambda: Query("detect"),
        lambda: Query("detect", tuple(map(str, range(10_001)))),
        lambda: Query("example"),
        groundlink.example,
        lambda: groundlink.example(box=(1, 2, 3, 4), box_format="inches"),
        lambda: groundlink.example(box=5),
        lambda: groundlink.example(box=(1, 2, 3)),
        lambda: groundlink.example(box="abcd"),
        lambda: groundlink.example(box=(float("nan"), 2, 3, 4)),
        lambda: groundlink.example(box=(1, 2, float("inf"), 4)),
        lambda: groundlink.example(box=(3, 2, 1, 4)),
    ],
)
def test_a_query_that_does_not_fit_its_task_is_refused(make):
    with pytest.raises(BadQuery):
        make()


def test_json_round_trip():
    query = groundlink.detect("a", "b")
    assert Query.from_json(query.to_json()) == query
    with pytest.raises(BadData, match="phrases"):
        Query.from_json({"task": "gui"})
