"""Readers: what they make of files, and what they say of broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import groundlink
from groundlink.errors import BadData, BadImage
from groundlink.evaluation.cases import READERS, Case, Truth, read_cases

COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
        {"id": 2, "file_name": "b.png", "width": 64, "height": 48},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}, {"id": 9, "name": "owl"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [4, 4, 10, 20]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [30, 4, 34.4, 20]},
        {"id": 3, "image_id": 1, "category_id": 8, "bbox": [0, 0, 8, 8]},
        {"id": 4, "image_id": 1, "category_id": 9, "bbox": [0, 0, 60, 40], "iscrowd": 1},
    ],
}
LINE = {"image": "a.png", "phrase": "the left cat", "bbox": [4, 4, 14, 24]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "b.png")
    return tmp_path


def written(folder: Path, content: object, name: str = "set.json") -> str:
    path = folder / name
    if isinstance(content, list):
        content = "\n".join(map(json.dumps, content))
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_coco_asks_for_what_is_there_and_for_some_that_is_not(folder):
    first, second = read_cases(written(folder, COCO))
    assert first.query.task == "detect"
    assert set(first.query.phrases) == {"cat", "dog"}, "of a crowd nobody knows where it is"
    assert first.truth[0] == Truth("cat", (4, 4, 14, 24))
    assert first.truth[1].box == (30, 4, 64, 24), "clipped: it reaches over the edge by less than a pixel"
    assert first.size == (64, 48)
    assert second.image == folder / "images" / "b.png"
    assert second.truth == ()
    assert len(second.query.phrases) == 1
    drawn = {read_cases(written(folder, COCO), seed=seed)[1].query.phrases for seed in range(12)}
    assert drawn == {("cat",), ("dog",), ("owl",)}
    assert read_cases(written(folder, COCO)) == [first, second]
    assert read_cases(written(folder, COCO), limit=1) == [first]


def test_coco_by_category(folder):
    one = read_cases(written(folder, COCO), "ground_one")
    assert [(case.query.words, len(case.truth)) for case in one[:1]] == [("dog", 1)], "there are two cats"
    assert not one[1].truth
    points = read_cases(written(folder, COCO), "point")
    assert [(case.query.words, len(case.truth)) for case in points[:2]] == [("cat", 2), ("dog", 1)]
    assert len({case.name for case in points}) == len(points)
    with pytest.raises(groundlink.BadQuery, match="read"):
        read_cases(written(folder, COCO), "read")


def test_lines(folder):
    lines = [
        LINE,
        LINE | {"task": "point", "bbox": [[4, 4, 14, 24], [30, 4, 60, 24]], "group": "cats"},
        LINE | {"bbox": None, "id": "none"},
        {"image": "a.png", "task": "detect", "phrases": ["cat", "dog"], "bbox": [[0, 0, 9, 9]], "labels": ["dog"]},
        {"image": "a.png", "task": "read", "bbox": [[0, 0, 9, 9]], "labels": ["Stop"]},
    ]
    one, several, none, detect, read = read_cases(written(folder, lines))
    assert one == Case(
        "1", folder / "a.png", (64, 48), groundlink.ground_one("the left cat"), (Truth("the left cat", (4, 4, 14, 24)),)
    )
    assert (several.query.task, several.group, len(several.truth)) == ("point", "cats", 2)
    assert (none.name, none.truth) == ("none", ())
    assert detect.truth == (Truth("dog", (0, 0, 9, 9)),)
    assert read.truth[0].label == "Stop"
    assert {case.query.task for case in read_cases(written(folder, lines[:3]), "gui")} == {"gui"}
    assert read_cases(written(folder, "\ufeff\n" + json.dumps(LINE) + "\n\n"))[0].name == "2"


def test_a_sideways_picture_has_the_size_that_is_seen(folder):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 48)).save(folder / "turned.jpg", exif=turned)
    assert read_cases(written(folder, [LINE | {"image": "turned.jpg"}]))[0].size == (48, 64)


def test_a_reader_of_its_own_is_asked_by_name(monkeypatch):
    case = Case("1", lambda: Image.new("RGB", (8, 8)), (8, 8), groundlink.point("x"))
    monkeypatch.setitem(READERS, "scenes", lambda source, options: iter([case] * options.seed))
    assert read_cases("scenes", seed=3, limit=2) == [case, case]


def coco_with(**changes: object) -> dict:
    annotation = COCO["annotations"][0] | changes
    return COCO | {"annotations": [COCO["annotations"][1], annotation]}


AT = r"set.json: annotations\[1\] \(id 1\): "


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("", BadData, "set.json: is empty"),
        ("  \n", BadData, "is empty"),
        ("hello", BadData, "set.json:1: is not JSON"),
        ('{"images": [\n1,\n}', BadData, r"set.json:3: is not JSON"),
        ("[" * 100_000, BadData, "nested too deeply"),
        ("[1, 2]", BadData, "no known format"),
        ('{"boxes": []}', BadData, "an object with 'boxes'"),
        ({"images": 3, "annotations": []}, BadData, "'categories'"),
        (COCO | {"images": [3]}, BadData, r"images\[0\]: is an object"),
        (COCO | {"images": [{"id": 1, "width": 64, "height": 48}], "annotations": []}, BadData, "no 'file_name'"),
        (COCO | {"images": COCO["images"][:1] * 2}, BadData, "no other of the images has"),
        (COCO | {"images": [COCO["images"][0] | {"width": 640}], "annotations": []}, BadData, "says .640, 48."),
        (COCO | {"images": [COCO["images"][0] | {"width": "64"}]}, BadData, "'width' is a whole number"),
        (COCO | {"images": []}, BadData, "no image with the id 1"),
        (COCO | {"images": [], "annotations": []}, BadData, "holds no questions"),
        (coco_with(category_id=[1]), BadData, AT + "there is no category"),
        (coco_with(bbox=[4, 4, -2, 5]), BadData, AT + r"the box \[4, 4, 2, 9\] .* swapped corners"),
        (coco_with(bbox=[4, 4, 80, 5]), BadData, AT + ".* outside of its image of 64×48"),
        (coco_with(bbox=[64.2, 4, 0.5, 5]), BadData, "outside"),
        (coco_with(bbox=[4, 4, 5]), BadData, AT + "a box has four numbers"),
        (coco_with(bbox=[4, 4, float("nan"), 5]), BadData, "four numbers"),
        (COCO | {"images": [COCO["images"][0] | {"file_name": "c.png"}]}, BadImage, "c.png is missing"),
        ([LINE, LINE | {"bbox": [14, 4, 4, 24]}], BadData, "set.json:2: .* swapped corners"),
        ([LINE, LINE | {"bbox": [4, 4, 4, 24]}], BadData, "set.json:2: .* no area"),
        ([LINE, LINE | {"bbox": [4, 4, 14, 50]}], BadData, "set.json:2: .* outside"),
        ([LINE, LINE | {"image": "c.png"}], BadImage, "set.json:2: the image .*c.png is missing"),
        ([LINE, {"image": "a.png", "phrase": "x"}], BadData, "set.json:2: has no 'bbox'"),
        ([LINE, {"image": "a.png", "bbox": None}], BadData, "set.json:2: has no 'phrase'"),
        ([LINE, LINE | {"phrase": " "}], BadData, "set.json:2: .* empty"),
        ([LINE, LINE | {"phrase": 3}], BadData, "set.json:2: .* text"),
        ([LINE, LINE | {"task": "fly"}], BadData, "set.json:2: unknown task"),
        ([LINE, LINE | {"bbox": "all"}], BadData, "set.json:2: 'bbox' is"),
        ([LINE, LINE | {"phrases": ["x"]}], BadData, "give one of them"),
        ([LINE, LINE | {"id": "1"}], BadData, "set.json:2: the id '1'"),
        ([LINE, LINE | {"labels": ["a", "b"]}], BadData, "set.json:2: has 1 boxes, but 2 labels"),
        ([LINE, LINE | {"labels": ["dog"]}], BadData, "none of the phrases"),
        (
            [LINE, {"image": "a.png", "task": "detect", "phrases": ["a", "b"], "bbox": [0, 0, 5, 5]}],
            BadData,
            "set.json:2: 'labels' says",
        ),
        (json.dumps(LINE) + '\n{"image": "a.png"', BadData, "set.json:2: is not JSON"),
        (json.dumps(LINE) + "\n[]", BadData, "set.json:2: is an object"),
    ],
)
def test_broken_files_are_named_with_the_place(content, error, words, folder):
    with pytest.raises(error, match=words):
        read_cases(written(folder, content))


def test_files_that_cannot_be_read(folder):
    with pytest.raises(BadData, match=r"none.json: no such file.*coco, cases"):
        read_cases(str(folder / "none.json"))
    with pytest.raises(BadData, match="cannot be read"):
        read_cases(str(folder))
    (folder / "bytes.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadData, match="UTF-8"):
        read_cases(str(folder / "bytes.json"))
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"set.json:1: the image .*a.png cannot be opened"):
        read_cases(written(folder, [LINE]))
