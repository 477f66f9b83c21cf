from __future__ import annotations

import pytest

from groundlink.backends.ocr.phrases import understand


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("the Save button", "Save"),
        ("Save button", "Save"),
        ('the "Save as" button', "Save as"),
        ("the 'OK' button", "OK"),
        ("the “Senden” button", "Senden"),
        ("the «Annuler» link", "Annuler"),
        ("the „Speichern“ button", "Speichern"),
        ("button labelled Save", "Save"),
        ("the button that says Go on", "Go on"),
        ("the link named Terms of use", "Terms of use"),
        ("a field with the label Email", "Email"),
        ("the Edit menu", "Edit"),
        ("the Copy menu item", "Copy"),
        ("menu item Print", "Print"),
        ("the General tab", "General"),
        ("the Remember me checkbox", "Remember me"),
        ("the Remember me check box", "Remember me"),
        ("the search box", "search"),
        ("the Email text field", "Email"),
        ("the Forms navigation item", "Forms"),
        ("click the Save button", "Save"),
        ("please click on the Save button", "Save"),
        ("double-click Report.txt", "Report.txt"),
        ("open the File menu", "File"),
        ("Don't save", "Don't save"),
        ("the Price column header", "Price"),
        ("☰ Menu list", "Menu list"),
        ('the "+ New" button', "New"),
        ('the "Share "Roadmap 2027"" heading', 'Share "Roadmap 2027"'),
    ],
)
def test_the_name_in_a_phrase(phrase, name):
    wanted = understand(phrase)
    assert wanted.names[-1] == name
    assert not wanted.picture
    assert not wanted.unused


@pytest.mark.parametrize(
    "phrase", ["Add card", "New tab", "Copy link", "Add item", "Open file", "Select option", "Insert label", "button"]
)
def test_a_name_that_ends_like_a_kind_of_element_stays_whole(phrase):
    assert understand(phrase).names == (phrase,)


def test_the_whole_phrase_comes_first():
    assert understand("the Menu item button").names[:2] == ("the Menu item button", "Menu item button")


@pytest.mark.parametrize(("phrase", "picture"), [("the settings icon", "settings"), ('the "Save" icon', "Save")])
def test_icons_are_not_taken_for_their_name(phrase, picture):
    wanted = understand(phrase)
    assert wanted.picture == picture
    assert picture not in wanted.names


def test_colours_and_hints_are_noticed():
    assert understand("the red Save button").colored
    assert not understand("Red Hat").names[1:]
    assert understand('the "Delete" button in the toolbar').unused == "the button in the toolbar"


def test_role_words_are_stripped_one_at_a_time():
    assert "Enter your password" in understand("the Enter your password field").names
    assert "Button text" in understand("the Button text label").names
    assert understand("the + button").names[-1] == "+"
