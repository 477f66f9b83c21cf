"""Matching on pages made by hand: what counts as the name, and what only looks like it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from groundlink.backends.ocr.matching import THRESHOLD, Match, PageIndex, compact, likeness
from groundlink.backends.ocr.reader import Page
from groundlink.backends.ocr.words import Line, Word
from tests.conftest import words_on

BLACK, BLUE, WHITE = (20, 20, 20), (10, 100, 240), (255, 255, 255)


def line(text: str, x: float = 0, y: float = 0, *, gap: float = 6, ink=BLACK, inks=None, size: float = 20) -> Line:
    """A line with words of 10 pixels a letter; "  " in the text is a gap as wide as a column."""
    words, left = [], x
    for number, part in enumerate(text.split(" ")):
        if not part:
            left += 60
            continue
        color = inks[number] if inks else ink
        words.append(Word(part, (left, y, left + 10 * len(part), y + size), 0.99, color, WHITE))
        left += 10 * len(part) + gap
    return Line(text, (x, y, left - gap, y + size), 0.99, tuple(words), vertical=False)


def found(page: list[Line], name: str, **options) -> list[Match]:
    matches = PageIndex(Page(tuple(page), {})).find(name, **options)
    return [match for match in matches if match.score >= THRESHOLD]


def texts(page: list[Line], name: str, **options) -> list[str]:
    return [match.text for match in found(page, name, **options)]


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ("SAVE", "Save"),
        ("Save…", "Save"),
        ("Save...", "save"),
        ("Terms & Conditions", "terms and conditions"),
        ("E-mail", "email"),
        ("Zurich", "Zürich"),
        ("Settlngs", "Settings"),
        ("Sign ln", "Sign in"),
        ("Room 1O1", "Room 101"),
        ("modem", "modern"),
        ("Tables", "Table"),
        ("Don’t save", "Don't save"),
        ("Compose newEmail", "Compose new Email"),
        ("+", "+"),
        ("C++", "C++"),
        ("保 存", "保存"),
        ("List al books", "List all books"),
        ("Add to carrt", "Add to cart"),
    ],
)
def test_spellings_of_one_name(seen, name):
    assert len(found([line(seen)], name)) == 1


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ("Save as", "Save"),
        ("Save", "Save as"),
        ("Sign up", "Sign in"),
        ("Page 2", "Page 1"),
        ("Page 12", "Page 1"),
        ("Tabler", "Tables"),
        ("Enable", "Disable"),
        ("Export data", "Import data"),
        ("Log out", "Log in"),
        ("Increase", "Decrease"),
        ("Undo", "Redo"),
        ("Delete my account", "Delete account"),
        ("Read our documentation", "documentation"),
        ("Forgot Password?", "Password"),
        ("Form", "From"),
        ("-", "+"),
        ("Inbox", "Outbox"),
        ("Unlock", "Lock"),
        ("保存文件", "保存"),
        ("Contract", "Contact"),
        ("Gmail", "Email"),
        ("Repost", "Report"),
        ("Ctrl+F5", "Ctrl+F"),
        ("New Window", "New"),
        ("Advanced controls", "Advanced"),
    ],
)
def test_names_that_only_look_alike(seen, name):
    assert found([line(seen)], name) == []


def test_a_word_in_running_text_is_meant_only_where_passages_are():
    page = [line("the invoice number is on top")]
    assert texts(page, "invoice number") == []
    assert texts(page, "invoice number", passages=True) == ["invoice number"]


@pytest.mark.parametrize(
    ("text", "name", "seen"),
    [
        ("Inbox 14", "Inbox", "Inbox"),
        ("Updates (3)", "Updates", "Updates"),
        ("Copy Ctrl+C", "Copy", "Copy"),
        ("Save ⌘S", "Save", "Save"),
        ("Rename F2", "Rename", "Rename"),
        ("Email: *", "Email", "Email:"),
        ("No account? Sign up!", "Sign up", "Sign up!"),
        ("Pages / Billing", "Pages", "Pages"),
        ("Privacy Policy · Terms", "Terms", "Terms"),
        ("Home  Products  About", "Products", "Products"),
        ("田 Tables", "Tables", "Tables"),
        ("Row  value", "Row", "Row"),
    ],
)
def test_what_stands_beside_a_name_is_told_apart(text, name, seen):
    assert texts([line(text)], name) == [seen]


def test_a_link_in_a_sentence_is_told_by_its_ink():
    words = "please read our guide before use"
    plain = [line(words)]
    linked = [line(words, inks=[BLACK, BLUE, BLUE, BLUE, BLACK, BLACK])]
    assert texts(plain, "read our guide") == []
    assert texts(linked, "read our guide") == ["read our guide"]


def test_the_whole_line_beats_the_part_of_a_line():
    page = [line("Forgot Password?", y=100), line("Password", y=0)]
    assert texts(page, "Password") == ["Password"]


def test_a_name_over_two_lines_and_over_two_boxes():
    stacked = [line("Jane Pearson", 100, 0, size=22), line("Administrator", 100, 24)]
    assert texts(stacked, "Jane Pearson Administrator") == ["Jane Pearson Administrator"]
    assert found(stacked, "Jane Pearson Administrator")[0].box == (100, 0, 230, 44)
    beside = [line("GET", 0, 0), line("/books", 50, 0), line("List all", 130, 1)]
    assert texts(beside, "GET /books List all") == ["GET /books List all"]
    far = [line("Jane Pearson", 100, 0), line("Administrator", 600, 300)]
    assert texts(far, "Jane Pearson Administrator") == []


def test_twins_are_found_both_and_once_each():
    page = [line("Delete", 0, 0), line("Delete", 0, 100), line("Deleted", 0, 200)]
    assert [match.box[1] for match in found(page, "Delete")] == [0, 100]


def test_an_icon_that_repeats_its_label_is_one_with_it():
    page = [line("PDF", 0, 3, size=14), line("PDF", 42, 0)]
    assert len(found(page, "PDF")) == 1
    assert len(found([line("OK", 0, 0), line("OK", 60, 0)], "OK")) == 2


def test_scores_fall_with_the_likeness():
    words = ["settings"]
    exact, confused, plural, other = (
        likeness("settings", seen, words) for seen in ("settings", "settlngs", "setting", "settling")
    )
    assert exact == 1.0 > confused > plural > THRESHOLD > other


def test_compact_keeps_what_is_only_symbols():
    assert compact("…") == "..."
    assert compact("Save…") == "save"
    assert compact("×") == "×"


def test_a_thousand_words_are_searched_in_milliseconds():
    import time

    page = PageIndex(Page(tuple(line(f"alpha beta gamma delta {n}", 0, 30 * n) for n in range(200)), {}))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert page.find("gamma delta 150")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def test_underlines_part_neighbouring_links():
    page = line("Imprint Privacy")
    ruled = [replace(word, rule=number + 1) for number, word in enumerate(page.words)]
    assert texts([page], "Imprint") == []
    assert texts([replace(page, words=tuple(ruled))], "Imprint") == ["Imprint"]


def test_the_literal_name_beats_the_same_with_dots(locator):
    picture = words_on({(60, 60): "Delete account", (60, 180): "Delete account..."})
    answer = locator.locate(picture, "the Delete account button")
    assert (answer.status, answer.best.text) == ("found", "Delete account")


def test_a_row_and_its_value_at_the_other_end():
    page = [line("Bluetooth", 0, 0), line("On", 500, 0)]
    assert texts(page, "Bluetooth On") == ["Bluetooth On"]
    assert texts(page, "Bluetooth") == ["Bluetooth"]
