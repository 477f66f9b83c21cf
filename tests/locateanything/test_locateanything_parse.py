"""Reading answers, whole and while they are decoded."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundlink.backends.locateanything.generate import Accepted
from groundlink.backends.locateanything.parse import Reader, parse_answer, scan
from tests.locateanything import samples

TOKENIZER = samples.checkpoint().tokenizer
IDS = samples.checkpoint().config.ids
PIECES = ["<box>", "</box>", "<ref>", "</ref>", "None", "none", "<0>", "<7>", "<1000>", "<007>", "<", ">", " ", "a",
          "\n", "é", "<|im_end|>", "<null>", "<" + "9" * 5000 + ">", "<-1>", "<1.5>", "<٣>"]  # fmt: skip


def accepted(tokens, log_prob=-0.5, spread=2.0):
    return Accepted(tokens, [log_prob] * len(tokens), [spread] * len(tokens), None, tokens, None, None)


def labels(text):
    return [(item.label, item.values) for item in scan(text)]


def test_a_label_holds_for_all_boxes_until_the_next():
    assert labels(
        "<box><1><2></box><ref>a</ref><box><1><2></box><box><3><4><5><6></box><ref>b</ref><box>None</box>"
    ) == [
        (None, (1, 2)),
        ("a", (1, 2)),
        ("a", (3, 4, 5, 6)),
        ("b", ()),
    ]


def test_an_open_label_swallows_no_boxes():
    assert labels("<ref>a<box><1><2></box>b</ref><ref>c<ref>d</ref><box><3><4></box>") == [
        (None, (1, 2)),
        ("d", (3, 4)),
    ]


def test_labels_may_hold_anything_but_marks():
    assert labels("<ref>a < b\n> </ ref>é</ref><box>none</box>") == [("a < b\n> </ ref>é", ())]


@pytest.mark.parametrize(
    "malformed",
    ["<box></box>", "<box><1></box>", "<box><1><2><3></box>", "<box><1><2><3><4><5></box>", "<box><1><null></box>",
     "<box> None</box>", "<box>NONE</box>", "<box><1><2>", "<box><1> <2></box>", "<box><-1><2></box>",
     "<box><1.0><2></box>", f"<box><{'1' * 16}><2></box>", "<BOX><1><2></BOX>"],
)  # fmt: skip
def test_a_malformed_box_is_nothing_at_all(malformed):
    assert parse_answer(malformed, 100, 100) == []
    (found,) = parse_answer(f"{malformed}<box><500><250></box>", 200, 100)
    assert found.point == (100.0, 25.0)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.integers(1, 9999), st.integers(1, 9999))
def test_any_text_is_read_without_harm(text, width, height):
    for found in parse_answer(text, width, height):
        coordinates = found.box or found.point
        assert len(coordinates) == (4 if found.box else 2)
        assert all(math.isfinite(value) and value >= 0 for value in coordinates)
    # Reading the first half and then going on is reading all.
    items = list(scan(text))
    if items:
        first = items[0]
        assert list(scan(text, first.end, first.label)) == items[1:]


NUMBERS = st.integers(0, 1000)
ITEMS = st.one_of(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS), st.just(()))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, "car", "a < b"]), ITEMS), max_size=8))
def test_what_is_written_is_read(items):
    text, wanted, label = "", [], None
    for new_label, values in items:
        if new_label is not None:
            label = new_label
            text += f"<ref>{label}</ref>"
        text += f"<box>{''.join(f'<{value}>' for value in values) or 'None'}</box>"
        wanted.append((label, values))
    assert labels(text) == wanted


MARKS = [IDS.box_start, IDS.box_end, IDS.ref_start, IDS.ref_end, IDS.none, IDS.null, IDS.end]
TOKENS = st.one_of(
    st.sampled_from(MARKS),
    st.integers(IDS.coord_start, IDS.coord_end),
    st.integers(0, samples.checkpoint().config.text.vocab_size - 1),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(TOKENS, min_size=1, max_size=6), max_size=20))
def test_any_tokens_are_read_in_pieces_as_they_are_whole(steps):
    reader = Reader(TOKENIZER, IDS)
    readings = [reading for tokens in steps for reading in reader.add(accepted(tokens))]
    reader.flush()
    assert reader.text == TOKENIZER.decode([token for tokens in steps for token in tokens])
    assert [reading.item for reading in readings] == list(scan(reader.text))
    for reading in readings:
        assert reading.score is None or reading.score == pytest.approx(math.exp(-0.5))
        assert reading.spreads is None or len(reading.spreads) == len(reading.item.values)
    assert 0 <= reader.malformed <= reader.text.count("<box>")


def box(*values):
    return [IDS.box_start, *(IDS.coord_start + value for value in values), IDS.box_end]


def test_a_score_is_the_geometric_mean_of_the_coordinates_alone():
    reader = Reader(TOKENIZER, IDS)
    tokens = box(1, 2, 3, 4)
    log_probs = [math.log(p) for p in (0.01, 0.9, 0.8, 0.5, 0.4, 0.01)]
    (reading,) = reader.add(Accepted(tokens, log_probs, [9.0, 1.0, 2.0, 3.0, 4.0, 9.0], None, tokens, None, None))
    assert reading.score == pytest.approx((0.9 * 0.8 * 0.5 * 0.4) ** 0.25)
    assert reading.spreads == (1.0, 2.0, 3.0, 4.0)


def test_a_coordinate_spelled_out_in_letters_has_no_score():
    reader = Reader(TOKENIZER, IDS)
    spelled = [token for letter in "<12>" for token in TOKENIZER.encode(letter)]
    assert not set(spelled) & set(TOKENIZER.added)
    (reading,) = reader.add(accepted([IDS.box_start, *spelled, IDS.coord_start, IDS.box_end]))
    assert reading.item.values == (12, 0)
    assert reading.score is None
    assert reading.spreads is None


def test_the_same_box_again_and_again_is_a_circle():
    reader = Reader(TOKENIZER, IDS)
    repeats = []
    for _ in range(4):
        assert not reader.repeating
        # Another box between: circles need not be of one box.
        for tokens in (box(1, 2, 3, 4), box(len(repeats), 9)):
            repeats += [reading.repeat for reading in reader.add(accepted(tokens))]
    assert reader.repeating
    assert repeats[0::2] == [False, True, True, True]
    assert not any(repeats[1::2])


def test_the_same_box_under_other_labels_is_none():
    reader = Reader(TOKENIZER, IDS)
    for letter in "abcdefgh":
        label = [IDS.ref_start, *TOKENIZER.encode(letter), IDS.ref_end]
        (reading,) = reader.add(accepted(label + box(1, 2, 3, 4)))
        assert reading.item.label == letter
        assert not reading.repeat
    assert not reader.repeating


def test_the_same_step_again_and_again_is_a_circle():
    reader = Reader(TOKENIZER, IDS)
    for _ in range(Reader.STEP_REPEATS):
        reader.add(accepted([IDS.null]))
        assert not reader.repeating
    reader.add(accepted([IDS.null]))
    assert reader.repeating


def test_malformed_boxes_are_counted():
    reader = Reader(TOKENIZER, IDS)
    reader.add(accepted([*box(1, 2, 3), *box(1, 2), IDS.box_start, IDS.none, IDS.box_end, IDS.box_start]))
    assert reader.malformed == 2
