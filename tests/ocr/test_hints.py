"""Ordinals, places and relations: how phrases are read, and what they settle on a page."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import groundlink
from groundlink.backends.ocr.hints import Between, Column, Not, Ordinal, Place, Reading, Relation, Row, Under, readings
from tests.conftest import FONT

BOTTOM_RIGHT = Place(frozenset({"bottom", "right"}))


@pytest.mark.parametrize(
    ("phrase", "words", "hints"),
    [
        ("the second Delete", "the Delete", (Ordinal(1),)),
        ("the last Delete button", "the Delete button", (Ordinal(-1),)),
        ("the third tab from the left", "the tab", (Ordinal(2, "left"),)),
        ("Delete, third from the top", "Delete", (Ordinal(2, "top"),)),
        ("Rename, third from top", "Rename", (Ordinal(2, "top"),)),
        ("the Details third from the right", "the Details", (Ordinal(2, "right"),)),
        ("click the sixth “Add to cart”", "the “Add to cart”", (Ordinal(5),)),
        ("the very last Details", "the Details", (Ordinal(-1),)),
        ("third Add to cart from left", "the Add to cart", (Ordinal(2, "left"),)),
        ("Delete #2", "Delete", (Ordinal(1),)),
        ("leftmost OK", "the OK", (Ordinal(0, "left"),)),
        ("cancel, bottom right", "cancel", (BOTTOM_RIGHT,)),
        ("Cancel in the bottom-right corner of the page", "Cancel", (BOTTOM_RIGHT,)),
        ("Refresh (bottom right)", "Refresh", (BOTTOM_RIGHT,)),
        ("the sidebar's Search link", "the Search link", (Place(frozenset({"left"}), zone=True),)),
        ("Status page (not Home page)", "Status page", (Not("Home page"),)),
        ("the top right Save", "the Save", (Place(frozenset({"top", "right"})),)),
        ("Settings in the sidebar", "Settings", (Place(frozenset({"left"}), zone=True),)),
        ("the field below Email", "the field", (Relation("below", "Email"),)),
        ("Edit to the left of Ada Lovelace", "Edit", (Relation("left", "Ada Lovelace"),)),
        ("the Delete button in the row of Ada", "the Delete button", (Row("Ada"),)),
        ("Delete in the Ada row", "Delete", (Row("Ada"),)),
        ("the price in the Total column", "the price", (Column("Total"),)),
        ('the Edit link under the heading "Billing"', "the Edit link", (Under('"Billing"'),)),
        ("Save in the panel titled Network", "Save", (Under("Network"),)),
        ("the button between Save and Cancel", "the button", (Between("Save", "Cancel"),)),
        ("Save, not Save as", "Save", (Not("Save as"),)),
        ("Settings, not the one in the header", "Settings", (Not(Place(frozenset({"top"}), zone=True)),)),
        ("the last Delete in the second row", "the Delete", (Ordinal(-1), Row("second"))),
    ],
)
def test_words_of_a_phrase_are_read_as_hints(phrase, words, hints):
    assert Reading(words, hints) in readings(phrase)


@pytest.mark.parametrize(
    "phrase", ["Sign in", "Add item to cart", "the Save button", 'the "Not now" button', "Log out"]
)
def test_a_plain_name_has_no_hints(phrase):
    assert readings(phrase) == []


def test_words_in_quotes_are_never_hints():
    assert all(reading.words == 'the "Second to last" button' for reading in readings('the "Second to last" button'))
    assert readings('the first "Save, not Save as"')[0] == Reading('the "Save, not Save as"', (Ordinal(0),))


def test_reading_ends_with_any_words():
    assert len(readings("not " * 30 + "first " * 30 + "below in the row of between and under")) <= 24


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    """A form: a header and a sidebar that repeat names, a table, fields with their labels above, three buttons."""
    picture = Image.new("RGB", (900, 640), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.truetype(FONT, 16)
    for x, y, text in (
        (20, 12, "Acme"), (640, 12, "Settings"), (780, 12, "Close"),
        (20, 90, "Inbox"), (20, 130, "Drafts"), (20, 170, "Settings"), (20, 210, "Delete"),
        (240, 70, "Email"), (240, 150, "Name"),
        (240, 260, "Ada"), (360, 260, "Owner"), (520, 260, "Delete"),
        (240, 310, "Bob"), (360, 310, "Guest"), (520, 310, "Delete"),
        (240, 360, "Cleo"), (360, 360, "Guest"), (520, 360, "Delete"),
        (240, 580, "Save as"), (360, 580, "Preview"), (480, 580, "Cancel"),
    ):  # fmt: skip
        draw.text((x, y), text, "black", font)
    draw.rectangle((240, 96, 520, 128), outline=(150, 150, 150))
    draw.rectangle((240, 176, 520, 208), outline=(150, 150, 150))
    draw.text((248, 183), "Your name", (120, 120, 120), font)
    return np.asarray(picture)


@pytest.fixture(scope="module")
def locator():
    with groundlink.load("ocr") as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("phrase", "pixel"),
    [
        ("the first Delete", (46, 220)),
        ("the second Delete", (546, 270)),
        ("the last Delete button", (546, 370)),
        ("Delete in the row of Bob", (546, 320)),
        ("Delete for Cleo", (546, 370)),
        ("the first Guest", (384, 320)),
        ("Settings in the sidebar", (54, 180)),
        ("the top right Settings", (674, 22)),
        ("Settings, not the one in the header", (54, 180)),
        ("the Settings link below Drafts", (54, 180)),
        ("the button between Save as and Cancel", (392, 590)),
        ("the button left of Cancel", (392, 590)),
        ("Close, top right", (804, 22)),
        ("the field below Email", (380, 112)),
        ("the field under Name", (380, 192)),
    ],
)
def test_a_hint_settles_which_one_is_meant(locator, page, phrase, pixel):
    answer = locator.locate(page, groundlink.gui(phrase))
    assert answer.status == "found", answer.reason
    assert np.abs(np.subtract(answer.best.pixel, pixel)).max() <= 12, (answer.best, answer.reason)


@pytest.mark.parametrize(
    ("phrase", "why"),
    [
        ("the fifth Delete", "there are only 4"),
        ("Close, bottom left", "not at the bottom left"),
        ("Delete in the row of Dora", 'there is no "Dora"'),
        ("Save, not Save as", "Save"),
        ("the second Save", "Save"),
    ],
)
def test_what_a_hint_contradicts_is_not_found_and_says_why(locator, page, phrase, why):
    answer = locator.locate(page, groundlink.gui(phrase))
    assert answer.status == "not_found"
    assert why in answer.reason


def test_without_a_hint_several_are_ambiguous_in_reading_order(locator, page):
    answer = locator.locate(page, groundlink.gui("Delete"))
    assert answer.status == "ambiguous"
    assert [found.pixel[1] // 50 for found in answer] == [4, 5, 6, 7]


def test_a_hint_that_leaves_several_is_ambiguous(locator, page):
    answer = locator.locate(page, groundlink.gui("Guest, not the one in the header"))
    assert (answer.status, len(answer)) == ("ambiguous", 2)


def test_the_reason_says_how_it_was_settled(locator, page):
    assert "number 2 of 4 in reading order" in locator.locate(page, groundlink.gui("the second Delete")).reason
    assert 'in the row of "Bob"' in locator.locate(page, groundlink.gui("Delete in the row of Bob")).reason


def test_a_name_that_sounds_like_a_hint_is_a_name(locator):
    picture = Image.new("RGB", (500, 120), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.truetype(FONT, 16)
    draw.text((20, 20), "Last name", "black", font)
    draw.text((20, 70), "name", "black", font)
    draw.text((250, 20), "Align left", "black", font)
    answer = locator.locate(np.asarray(picture), groundlink.gui("Last name"))
    assert answer.best.pixel[1] < 50
    assert locator.locate(np.asarray(picture), groundlink.gui("Align left")).best.pixel[0] > 200
