"""Decoding on scripted logits: scores worked out by hand, why an answer ends, drawing, and the blocks' table."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundlink.backends.locateanything.blocks import Dense, Kind, decode_block, read_block
from groundlink.backends.locateanything.sampling import draw, leading, probabilities
from groundlink.backends.locateanything.settings import Settings
from tests.locateanything.scripted import END, FIRST, IDS, VOCABULARY, WORD, box_rows, coord, decode, row, rows

FLAT = {coord(value): 1 / 1001 for value in range(1001)}
BOX, CLOSE = rows(IDS.box_start)[0], rows(IDS.box_end)[0]


def figures(accepted):
    """Return (probability, spread) of each coordinate in the answer."""
    return [
        (math.exp(log_prob), spread)
        for taken in accepted
        for token, log_prob, spread in zip(taken.tokens, taken.log_probs, taken.spreads, strict=True)
        if IDS.coord_start <= token <= IDS.coord_end
    ]


# What a row holds, which coordinate is taken, its probability, and its spread in thousandths.
ROWS = {
    "one peak": (row({coord(500): 1.0}), 500, 1.0, 0.0),
    # A part of the row says something else altogether: the score suffers, the spread does not.
    "one peak, half sure": (row({coord(500): 0.6, WORD: 0.4}), 500, 0.6, 0.0),
    # Mean 300: (0.75 · 100² + 0.25 · 300²)^½ = 173.2…
    "two peaks": (row({coord(200): 0.75, coord(600): 0.25}), 200, 0.75, math.sqrt(0.75 * 100**2 + 0.25 * 300**2)),
    # As two peaks of equal weight after renormalising, 100 either side of their mean.
    "two peaks and a word": (row({coord(100): 0.4, coord(300): 0.4, WORD: 0.2}), 100, 0.4, 100.0),
    # A discrete uniform distribution over n values has the variance (n² − 1) / 12.
    "flat": (row(FLAT), 0, 1 / 1001, math.sqrt((1001**2 - 1) / 12)),
}


@pytest.mark.parametrize(("logits", "value", "probability", "spread"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("path", ["fast", "slow", "hybrid, after a switch"])
def test_score_and_spread_of_a_coordinate(path, logits, value, probability, spread):
    sure = [rows(coord(700))[0]] * 3
    if path == "fast":
        script = [torch.stack([BOX, logits, *sure, CLOSE]), END]
    elif path == "slow":
        script = [each[None] for each in (BOX, logits, *sure, CLOSE, END[0])]
    else:
        # A fifth token that does not end a box, and a second that is none: only <box> is taken in parallel.
        broken = torch.stack([BOX, *rows(WORD, WORD, WORD, WORD), CLOSE])
        script = [broken, *(each[None] for each in (logits, *sure, CLOSE)), END]
    accepted = decode(script, mode=path.split(",")[0])
    tokens = [token for taken in accepted for token in taken.tokens]
    assert tokens == [IDS.box_start, coord(value), *[coord(700)] * 3, IDS.box_end, IDS.end]
    (got_probability, got_spread), *others = figures(accepted)
    assert got_probability == pytest.approx(probability, rel=1e-5)
    assert got_spread == pytest.approx(spread, abs=0.01)
    assert others == [pytest.approx((1.0, 0.0), abs=1e-6)] * 3


def test_figures_are_of_the_raw_logits():
    logits = row({coord(200): 0.6, coord(220): 0.4})
    script = [torch.stack([BOX, *[logits] * 4, CLOSE]), END]
    accepted = decode(
        script, settings=Settings(mode="fast", temperature=0.5, top_p=0.5, top_k=1, repetition_penalty=1.3)
    )
    assert figures(accepted) == [pytest.approx((0.6, math.sqrt(96)), rel=1e-4)] * 4


def test_a_box_half_read_in_parallel_keeps_the_figures_of_both_paths():
    unsure = row({coord(100): 0.6, coord(900): 0.4})
    script = [
        torch.stack([BOX, row({coord(10): 0.95, WORD: 0.05}), unsure, *rows(coord(30), coord(40)), CLOSE]),
        *(each[None] for each in (row({coord(101): 0.8, WORD: 0.2}), *rows(coord(30), coord(40), IDS.box_end))),
        END,
    ]
    accepted = decode(script, mode="hybrid")
    assert [taken.kind for taken in accepted] == [Kind.ERROR_BOX, None, None, None, None, Kind.IM_END]
    assert [p for p, _ in figures(accepted)] == pytest.approx([0.95, 0.8, 1.0, 1.0], rel=1e-5)


@pytest.mark.parametrize(
    ("script", "fields", "tokens", "finish"),
    [
        ([box_rows(1, 2, 3, 4), END], {}, 7, "end"),
        ([box_rows(1, 2, 3, 4)], {"max_new_tokens": 6}, 6, "token_limit"),
        ([box_rows(1, 2, 3, 4)], {"max_new_tokens": 1}, 6, "token_limit"),
        ([box_rows(1, 2, 3, 4)], {"max_length": 9}, 6, "token_limit"),
        ([rows(IDS.box_start, *[WORD] * 4, IDS.box_end), rows(WORD)], {}, 2, "garbled"),
        ([rows(IDS.box_start, *[WORD] * 4, IDS.box_end), rows(IDS.end)], {}, 2, "end"),
        ([rows(WORD), rows(IDS.box_start), rows(IDS.end)], {"mode": "slow"}, 3, "end"),
        ([rows(WORD), rows(WORD)], {"mode": "slow", "max_new_tokens": 2}, 2, "token_limit"),
    ],
)
def test_why_an_answer_ends(script, fields, tokens, finish):
    accepted = decode(script, **fields)
    assert sum(len(taken.tokens) for taken in accepted) == tokens
    assert [taken.finish for taken in accepted] == [*[None] * (len(accepted) - 1), finish]


def test_nothing_is_asked_of_the_model_where_nothing_may_be_said():
    assert decode([], max_new_tokens=0) == []
    assert decode([], max_length=3) == []


def test_the_same_seed_draws_the_same_answer_and_another_does_not():
    half = {WORD + i: 0.1 for i in range(10)}
    script = [row(half)[None]] * 20

    def drawn(seed):
        accepted = decode(script, mode="slow", temperature=1.0, seed=seed, max_new_tokens=20)
        return [taken.tokens[0] for taken in accepted]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert set(drawn(1)) <= set(half)


def test_drawing_follows_the_probabilities_and_never_takes_what_has_none():
    probs = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]).expand(1, 4000, 6)
    taken = draw(probs, torch.rand(1, 4000, generator=torch.Generator().manual_seed(0)))
    assert torch.bincount(taken[0], minlength=6).div(4000).tolist() == pytest.approx(
        [0, 0.25, 0, 0.5, 0.25, 0], abs=0.03
    )
    assert draw(probs[:, :2], torch.tensor([[0.0, 1.0]])).tolist()[0][0] == 1


def test_equals_are_ordered_by_their_id():
    values, tokens = leading(torch.tensor([[[0.1, 0.3, 0.0, 0.3, 0.3, 0.0]]]), 5)
    assert tokens[0, 0].tolist() == [1, 3, 4, 0, 2]
    assert values[0, 0].tolist() == pytest.approx([0.3, 0.3, 0.3, 0.1, 0.0])


def test_a_text_row_of_coordinates_alone_yields_the_lowest_other_id():
    """Top-p leaves two coordinates and zeros; the lowest id without a probability is the text's token."""
    script = torch.stack([rows(IDS.ref_start)[0], row({FIRST: 0.5, FIRST + 1: 0.5}), *rows(WORD, WORD, WORD, WORD)])
    probs = probabilities(script[None], torch.zeros(1, VOCABULARY, dtype=torch.bool), Settings(repetition_penalty=1.0))
    block, together = decode_block(Dense(probs), probs.argmax(-1), True, IDS)
    assert bool(together)
    assert block[0].tolist() == [IDS.ref_start, 0, WORD, WORD, WORD, WORD]


def test_a_coordinate_without_probability_is_none():
    """Where coordinates are the lowest ids, they fill up the candidates of a row that is sure of a word."""
    low = replace(IDS, coord_start=0, coord_end=1000, box_start=1001, box_end=1002, ref_start=1003, end=1004, null=1005)
    word, sure = 1010, torch.zeros(1, 6, 1011)
    for i, token in enumerate([low.box_start, word, word, word, word, low.box_end]):
        sure[0, i, token] = 1.0
    block, together = decode_block(Dense(sure), sure.argmax(-1), False, low)
    assert not bool(together)
    assert block[0].tolist() == [low.box_start, word, word, word, word, low.box_end]


def test_top_p_keeps_the_first_token_that_exceeds_it():
    logits = torch.full((1, 1, VOCABULARY), -torch.inf)
    logits[..., :4] = 0.0  # a quarter each, exactly
    none_seen = torch.zeros(1, VOCABULARY, dtype=torch.bool)

    def kept(top_p):
        probs = probabilities(logits, none_seen, Settings(repetition_penalty=1.0, top_p=top_p))
        return probs[0, 0].nonzero()[:, 0].tolist()

    # 0.5 is reached by two tokens, but exceeded only by the third.
    assert kept(0.5) == [0, 1, 2]
    assert kept(0.49) == [0, 1]
    assert kept(0.01) == [0]
    assert kept(1.0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": -1},
        {"mode": "quick"},
        {"temperature": -1.0},
        {"temperature": 1e-9},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": -1},
        {"max_new_tokens": 2.5},
        {"top_k": 1.5},
        {"seed": True},
        {"parity": "yes"},
    ],
)
def test_settings_without_meaning_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        replace(Settings(), **fields)


TOKENS = st.sampled_from(
    [IDS.end, IDS.box_start, IDS.box_end, IDS.ref_start, IDS.ref_end, IDS.none, IDS.null, WORD, 0, FIRST, FIRST + 1000]
)


def read_by_the_book(block, hybrid):
    """The table of blocks, one line after the other."""
    coords = [IDS.coord_start <= token <= IDS.coord_end for token in block]
    if block[0] in (IDS.null, IDS.end):
        return [IDS.end], Kind.IM_END
    if block[0] != IDS.box_start:
        text = block[: block.index(IDS.null)] if IDS.null in block else list(block)
        return text[:-1] if text[-2:] == [IDS.ref_end] * 2 else text, Kind.REF_OBJECT
    if block[1] == IDS.none:
        return [IDS.box_start, IDS.none, IDS.box_end], Kind.EMPTY_BOX
    if all(coords[1:5]) and block[5] == IDS.box_end:
        return block, Kind.COORD_BOX
    if all(coords[1:3]) and block[3] == IDS.box_end:
        return block[:4], Kind.POINT_BOX
    if not hybrid:
        return block, Kind.COORD_BOX
    return block[: 1 + (coords[1:5] + [False]).index(False)], Kind.ERROR_BOX


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(TOKENS, min_size=6, max_size=6), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_any_block_is_read_by_the_book(blocks, hybrid, start_as_box):
    if start_as_box:
        blocks = [[IDS.box_start, *block[1:]] for block in blocks]
    tokens, counts, kinds = read_block(torch.tensor(blocks), hybrid, IDS)
    for block, taken, count, kind in zip(blocks, tokens.tolist(), counts.tolist(), kinds.tolist(), strict=True):
        assert (taken[:count], kind) == read_by_the_book(block, hybrid)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(TOKENS, st.floats(-20, 20), max_size=8), min_size=12, max_size=12), st.booleans())
def test_any_logits_become_a_block_that_does_not_depend_on_its_neighbours(sparse, hybrid):
    logits = torch.full((12, VOCABULARY), -5.0)
    for i, entries in enumerate(sparse):
        for token, value in entries.items():
            logits[i, token] = value
    probs = logits.view(2, 6, VOCABULARY).softmax(-1)
    together, together_found = decode_block(Dense(probs), probs.argmax(-1), hybrid, IDS)
    for i in range(2):
        alone, alone_found = decode_block(Dense(probs[i : i + 1]), probs[i : i + 1].argmax(-1), hybrid, IDS)
        assert torch.equal(together[i], alone[0])
        assert together_found[i] == alone_found[0]
    assert int(together.min()) >= 0
    assert int(together.max()) < VOCABULARY
