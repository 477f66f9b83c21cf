"""Sampling from a short list must say what sampling from the whole vocabulary says, or that it can't."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundlink.backends.locateanything.blocks import Dense, decode_block
from groundlink.backends.locateanything.sampling import draw, probabilities
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.shortlist import LENGTH, Rules, Shortlist, largest
from tests.locateanything.scripted import IDS, VOCABULARY

WATCHED = (IDS.box_start, IDS.box_end, IDS.ref_start, IDS.none, IDS.null, IDS.end)
WIDE = 150_000
CPU = torch.device("cpu")


def both(logits, seen, rules):
    """Return the list and all probabilities of `[B, n, V]`, for the settings and the tokens seen of each sequence."""
    made = Rules.none(len(rules), CPU)
    for slot, told in enumerate(rules):
        made.put(slot, told)
    ids = torch.tensor([list(tokens) + [tokens[0]] * (max(map(len, seen)) - len(tokens)) for tokens in seen])
    short = Shortlist(logits, ids, made, WATCHED, torch.tensor(WATCHED))
    masks = torch.zeros(len(rules), logits.shape[-1], dtype=torch.bool).scatter_(1, ids, True)
    parts = zip(logits.split(1), masks.split(1), rules, strict=True)
    return short, torch.cat([probabilities(row, mask, told) for row, mask, told in parts])


def agree(short, probs, rules):
    """Hold all that a step asks of the list against all probabilities, where it says it is sure."""
    dense, sure = Dense(probs), ~short.short
    for i in range(len(probs)):
        for n in range(probs.shape[1]):
            if not sure[i, n]:
                continue
            wanted_values, wanted = (t[i, 0] for t in dense.leading(n, n + 1, 5))
            values, tokens = (t[i, 0] for t in short.leading(n, n + 1, 5))
            torch.testing.assert_close(values, wanted_values, atol=1e-6, rtol=1e-4)
            # Where two probabilities are as good as equal, rounding may order them either way.
            gaps = wanted_values.diff().abs()
            if bool((gaps[wanted_values[:-1] > 0] > 1e-6).all()):
                assert tokens.tolist() == wanted.tolist()
                assert short.best()[i, n] == probs[i, n].argmax()
            for token in WATCHED:
                torch.testing.assert_close(short.at(n, token)[i], dense.at(n, token)[i], atol=1e-6, rtol=1e-4)
            if rules[i].top_p or rules[i].top_k:
                numbers = torch.rand(len(probs), probs.shape[1], generator=torch.Generator().manual_seed(n))
                assert probs[i, n, short.draw(numbers)[i, n]] > 0
    return bool(sure.any())


RULES = st.builds(
    Settings,
    temperature=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([None, 0.1013, 0.517, 0.9037, 0.9991, 1.0]),  # which no few equals add up to
    top_k=st.sampled_from([None, 1, 2, 5, 50, 200]),
    repetition_penalty=st.sampled_from([1.0, 1.1, 0.8, 2.0]),
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(RULES, min_size=1, max_size=3),
    st.integers(0, 2**32),
    st.sampled_from([0.1, 1.0, 4.0, 30.0]),
    st.sampled_from(["fine", "coarse", "two values", "peaks", "one peak"]),
)
@example([Settings(top_p=0.9)], 0, 1.0, "one peak")
def test_where_the_list_is_sure_it_agrees(rules, seed, scale, kind):
    """Logits with ties and without, flat and peaked, on all sides of what a list can hold."""
    numbers = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rules), 2, VOCABULARY, generator=numbers) * scale
    if kind == "coarse":  # as bfloat16 rounds them
        logits = (logits * 4).round() / 4
    elif kind == "two values":
        logits = torch.where(logits > 2 * scale, 5.0, -1e9)
    elif kind in ("peaks", "one peak"):
        places = torch.randint(VOCABULARY, (len(rules), 2, 1 if kind == "one peak" else 30), generator=numbers)
        logits = logits.scatter(-1, places, 20 + 2 * torch.randn(places.shape, generator=numbers))
    seen = [torch.randint(VOCABULARY, (7 + i,), generator=numbers).tolist() for i in range(len(rules))]
    short, probs = both(logits, seen, rules)
    agree(short, probs, rules)
    # A sequence is read as it would be alone.
    for i, told in enumerate(rules):
        alone, _ = both(logits[i : i + 1], seen[i : i + 1], [told])
        assert torch.equal(alone.short[0], short.short[i])
        assert torch.equal(alone.tokens[0], short.tokens[i])


PEAKED = [Settings(top_p=0.9), Settings(top_k=40), Settings(), Settings(temperature=0.7, top_p=0.9, top_k=100)]


@pytest.mark.parametrize("told", PEAKED, ids=["top_p", "top_k", "neither", "all"])
def test_rows_with_a_peak_never_need_the_long_way(told):
    """A vocabulary as large as the real one, in chunks, whose last one is not whole."""
    logits = torch.randn(1, 6, WIDE + 57, generator=torch.Generator().manual_seed(1))
    peaks = torch.randint(WIDE, (6, 5), generator=torch.Generator().manual_seed(2))
    peaks[3, 0], peaks[4, 0] = 0, WIDE + 56
    logits[0].scatter_(1, peaks, torch.tensor([30.0, 29.5, 29.0, 28.5, 28.0]).expand(6, -1))
    short, probs = both(logits, [[3, 4, 5]], [told])
    assert not short.short.any()
    assert agree(short, probs, [told])


def test_flat_rows_say_that_the_list_is_too_short():
    """The nucleus of a flat row has thousands of tokens; a cut list must never pass for it."""
    logits = torch.randn(1, 6, WIDE, generator=torch.Generator().manual_seed(1)) * 0.1
    short, probs = both(logits, [[3]], [Settings(top_p=0.9)])
    assert int((probs > 0)[0, 0].sum()) > LENGTH
    assert short.short.all()
    # Without limits only the first few count, flat or not.
    short, _ = both(logits, [[3]], [Settings()])
    assert not short.short.any()


@pytest.mark.parametrize("ties", [LENGTH - 1, LENGTH, LENGTH + 1])
def test_equals_that_may_be_left_off_the_list_are_told(ties):
    logits = torch.full((1, 1, WIDE), -20.0)
    logits[..., torch.arange(ties) * 1000] = 3.0
    short, probs = both(logits, [[3]], [Settings(top_p=0.9999)])
    assert bool(short.short) == (ties >= LENGTH)
    agree(short, probs, [Settings(top_p=0.9999)])


def test_the_nucleus_ends_where_the_full_sort_ends_it():
    """Just at the end of the list, and one beyond: the one is answered from the list, the other is not."""
    for count, enough in ((LENGTH - 1, True), (LENGTH, False)):
        logits = torch.full((1, 1, WIDE), -40.0)
        logits[..., :count] = torch.linspace(2.0, 1.0, count)
        told = Settings(top_p=1 - 1e-6)
        short, probs = both(logits, [[9_999]], [told])
        assert bool(short.short) != enough
        if enough:
            assert int((probs > 0).sum()) == int((short.probs > 0).sum()) == count


def test_drawing_takes_the_tokens_that_drawing_from_everything_takes():
    logits = torch.randn(1, 4000, 300, generator=torch.Generator().manual_seed(3)) * 3
    told = Settings(temperature=1.5, top_p=0.9)
    short, probs = both(logits, [[1, 2]], [told])
    numbers = torch.rand(1, 4000, generator=torch.Generator().manual_seed(4))
    sure = ~short.short
    assert sure.float().mean() > 0.9
    same = (short.draw(numbers) == draw(probs, numbers))[sure]
    assert same.float().mean() > 0.999  # one in thousands falls between two roundings


def test_blocks_are_read_from_the_list_as_from_everything():
    numbers = torch.Generator().manual_seed(7)
    likely = torch.tensor([*WATCHED, *range(IDS.coord_start, IDS.coord_start + 40)])
    kinds = set()
    for _ in range(300):
        logits = torch.randn(1, 6, VOCABULARY, generator=numbers)
        tokens = likely[torch.randint(len(likely), (6, 6), generator=numbers)]
        logits[0].scatter_(1, tokens, 9 + 3 * torch.randn(6, 6, generator=numbers))
        told = replace(Settings(), top_p=0.9 if len(kinds) % 2 else None)
        short, probs = both(logits, [[1]], [told])
        if short.short.any():
            continue
        sampled = probs.argmax(-1)
        wanted, together = decode_block(Dense(probs), sampled, True, IDS)
        block, found = decode_block(short, short.best(), True, IDS)
        assert torch.equal(block, wanted)
        assert torch.equal(found, together)
        kinds.add((bool(found), int(block[0, 0])))
    assert len(kinds) > 4


@pytest.mark.parametrize("size", [5, 1000, 128 * 129, 150_057])
def test_the_largest_are_the_largest(size):
    logits = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(size))
    count = min(LENGTH, size)
    values, places = largest(logits, count)
    wanted = logits.topk(count, -1).values
    assert torch.equal(values.sort(-1, descending=True).values, wanted)
    assert torch.equal(logits.gather(-1, places), values)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("told", PEAKED, ids=["top_p", "top_k", "neither", "all"])
def test_a_broken_model_breaks_nothing_here(broken, told):
    """On a GPU one index out of range ends the process."""
    for places in (slice(None), slice(700, 701)):
        logits = torch.randn(1, 6, VOCABULARY)
        logits[..., places] = broken
        short, _ = both(logits, [[3]], [told])
        for tokens in (short.best(), short.draw(torch.rand(1, 6)), short.leading(1, 6, 5)[1]):
            assert 0 <= int(tokens.min()) <= int(tokens.max()) < VOCABULARY
        decode_block(short, short.best(), True, IDS)
