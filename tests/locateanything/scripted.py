"""A small made-up vocabulary, and a language model that says what it is told to."""

import math

import torch

from groundlink.backends.locateanything.config import COORDINATES, TokenIds
from groundlink.backends.locateanything.generate import generate
from groundlink.backends.locateanything.settings import Settings

FIRST = 20  # the id of <0>
IDS = TokenIds(
    end=1,
    image=2,
    box_start=3,
    box_end=4,
    ref_start=5,
    ref_end=6,
    coord_start=FIRST,
    coord_end=FIRST + COORDINATES - 1,
    none=7,
    null=8,
    text_mask=9,
)
WORD = 10  # an ordinary token, as are 11 … 19
VOCABULARY = FIRST + COORDINATES + 5
PROMPT = (11, 12, 13)


def coord(value):
    return FIRST + value


def row(probabilities):
    """Return a row of logits whose softmax is the given {token: probability}; all others have none."""
    assert math.isclose(sum(probabilities.values()), 1.0)
    logits = torch.full((VOCABULARY,), -1e9)
    for token, value in probabilities.items():
        logits[token] = math.log(value)
    return logits


def rows(*tokens):
    """Return rows that are sure of one token each."""
    return torch.stack([row({token: 1.0}) for token in tokens])


def box_rows(*values):
    return rows(IDS.box_start, *map(coord, values), IDS.box_end)


END = rows(IDS.end, IDS.null, IDS.null, IDS.null, IDS.null, IDS.null)


def decode(script, *, settings=None, max_length=None, **fields):
    """Decode a script: the rows of one step after the other. What is asked beyond its end is an error."""
    steps = iter(script)

    def step(ids, positions, cached, mask, last):
        told = next(steps)
        assert len(told) == last
        return told[None]

    settings = settings or Settings(**{"repetition_penalty": 1.0, **fields})
    prompt = torch.tensor([PROMPT])
    return list(generate(step, prompt, VOCABULARY, IDS, settings=settings, max_length=max_length))
