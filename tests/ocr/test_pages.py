"""The generator of pages: its truth is what the picture shows. What the backend makes of them is not asked here."""

from __future__ import annotations

import io
import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.ocr.pages import CATEGORIES, MORE, Item, arranged, in_rows, make
from tests.ocr.pages.browser import Browser, find_chromium
from tests.ocr.pages.templates import plain
from tests.ocr.pages.words import NEAR_MISSES, POOLS, SPELLINGS

EACH = 3


@pytest.fixture(scope="module")
def chromium():
    if find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Chromium: apt install chromium")
        pytest.skip("Chromium is not installed: apt install chromium")


@pytest.fixture(scope="module", params=["dev", "held"])
def pages(chromium, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, request.param, make(folder, split=request.param, seed=7, per_category=EACH)


@pytest.fixture(scope="module")
def browser(chromium):
    with Browser() as made:
        yield made


def item(x, y, width=60, height=20, name="Delete"):
    box = [x, y, x + width, y + height]
    return Item(name, "button", "", name, box, None, 1, 14.0, ())


def test_every_category_has_its_cases_and_the_file_holds_them(pages):
    folder, _, rows = pages
    assert Counter(row["category"] for row in rows) == dict.fromkeys(CATEGORIES + MORE, EACH)
    lines = (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_every_box_is_drawn_on_and_lies_in_a_picture_of_the_size_told(pages):
    folder, _, rows = pages
    for row in rows:
        with Image.open(folder / row["image"]) as opened:
            picture = np.asarray(opened.convert("L"), dtype=int)
        assert picture.shape == (row["height"], row["width"])
        for x1, y1, x2, y2 in row.get("alternatives", [row["bbox"]] if row["bbox"] else []):
            assert 0 <= x1 < x2 <= row["width"] and 0 <= y1 < y2 <= row["height"], row
            assert np.ptp(picture[y1:y2, x1:x2]) > 60, f"nothing to read: {row}"


def test_a_seed_gives_the_same_questions_again_and_another_gives_others(chromium, tmp_path):
    one, again, other = (
        make(tmp_path / name, seed=seed, per_category=2, categories=("exact", "place"))
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert one == again
    assert [row["instruction"] for row in one] != [row["instruction"] for row in other]


def test_twins_are_told_with_all_of_them_and_what_is_absent_with_none(pages):
    for row in pages[2]:
        assert (row["bbox"] is None) == row["category"].startswith("absent"), row
        assert ("alternatives" in row) == (row["category"] == "twins"), row
        if row["category"] == "twins":
            assert len(row["alternatives"]) == row["matches_on_page"] > 1
        elif row["category"] in ("exact", "role", "lines", "badge", "language", "spelling"):
            assert row["unique"], row


def test_what_is_covered_cut_or_off_the_page_is_not_seen_whole(browser):
    def button(name, style):
        told = json.dumps({"name": name})
        return f"<button style='position:absolute;width:120px;{style}' data-item='{told}'>{name} it all</button>"

    html = (
        "<body style='margin:0'>"
        + button("open", "left:10px;top:10px")
        + button("veiled", "left:10px;top:50px")
        + button("covered", "left:310px;top:10px")
        + button("half", "left:250px;top:60px")
        + button("below", "left:10px;top:390px")
        + button("short", "left:10px;top:100px;width:40px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap")
        + "<div style='position:fixed;inset:0;background:#0003;pointer-events:none'></div>"
        + "<div style='position:absolute;left:300px;top:0;width:200px;height:200px;background:white'></div>"
    )
    _, data = browser.show(html, (600, 400))
    states = {row["name"]: row["state"] for row in data["items"]}
    assert states.pop("below") != "whole"
    assert states == {"open": "whole", "veiled": "whole", "covered": "hidden", "half": "cut", "short": "cut"}


def test_boxes_are_in_pixels_of_the_picture_at_any_scale(browser):
    html = (
        "<body style='margin:0;background:white'><div data-item='{}' style='position:absolute;left:40px;top:20px;"
        "width:100px;height:30px;background:black;color:red'>x</div>"
    )
    for scale in (1.0, 1.5, 2.0):
        picture, data = browser.show(html, (300, 200), scale)
        assert data["size"] == [300 * scale, 200 * scale]
        assert data["items"][0]["box"] == [value * scale for value in (40, 20, 140, 50)]
        with Image.open(io.BytesIO(picture)) as opened:
            assert opened.size == (300 * scale, 200 * scale)
            dark = np.asarray(opened.convert("L")) < 100
        rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
        assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == data["items"][0]["box"]


def test_a_page_that_cannot_be_measured_is_an_error(browser):
    with pytest.raises(RuntimeError, match="could not be measured"):
        browser.show("<body><b data-item='no JSON'>x</b>", (200, 100))


def test_items_are_counted_only_where_their_order_is_beyond_dispute():
    assert arranged([item(0, y) for y in (0, 40, 80)]) == "column"
    assert arranged([item(x, 0) for x in (0, 90, 180)]) == "row"
    assert arranged([item(x, y) for y in (0, 60) for x in (0, 90)]) == "grid"
    assert arranged([item(0, 0), item(90, 60), item(300, 200)]) is None
    scattered = [item(200, 2), item(0, 60), item(0, 0), item(100, 64)]
    assert [(i.box[0], i.box[1]) for i in in_rows(scattered)] == [(0, 0), (200, 2), (0, 60), (100, 64)]


def test_the_splits_share_few_names_and_every_near_miss_is_on_some_page():
    for language in ("en", "de", "fr"):
        names = [
            {plain(name) for pool in POOLS[split, language].values() for name in pool} for split in ("dev", "held")
        ]
        assert len(names[0] & names[1]) < 0.05 * min(map(len, names)), names[0] & names[1]
    for split in ("dev", "held"):
        known = {name for pool in POOLS[split, "en"].values() for name in pool}
        assert set(NEAR_MISSES[split]) | set(SPELLINGS[split]) <= known
