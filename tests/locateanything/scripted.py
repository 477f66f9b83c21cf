"""A small made-up vocabulary, and a language model that says what it is told to."""

import math

import torch

from groundlink.backends.locateanything.config import COORDINATES, Config, TextConfig, TokenIds, VisionConfig
from groundlink.backends.locateanything.decoder import Decoder
from groundlink.backends.locateanything.generate import generate
from groundlink.backends.locateanything.model import LocateAnything
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


def small_model(vocab_size=VOCABULARY, ids=IDS, tied=True):
    """Return a model of random weights, two layers a tower, with the vocabulary of a script."""
    config = Config(
        VisionConfig(64, 2, 2, 128, 16, 16),
        TextConfig(vocab_size, 64, 2, 4, 2, 128, 1e6, 1e-6),
        tied=tied,
        ids=ids,
        patch_limit=4096,
        max_length=None,
    )
    numbers = torch.Generator().manual_seed(0)
    model = LocateAnything(config).eval().requires_grad_(requires_grad=False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=numbers) * 0.05)
    return model


class ScriptedDecoder(Decoder):
    """A decoder whose sequences hear what they are told to, one script each."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.scripts = {}

    def script(self, slot, steps):
        """Set what a sequence hears: the rows `[rows, V]` of each step. What is asked beyond its end is an error."""
        self.scripts[slot] = iter(steps)

    def logits(self, hidden):
        told = super().logits(hidden).unflatten(0, (-1, self.outputs)).clone()
        for slot in range(len(told)):
            if self.running(slot):
                rows = next(self.scripts[slot])
                told[slot, : len(rows)] = rows
                told[slot, len(rows) :] = rows[-1]  # of a sequence that goes token by token in company
        return told.flatten(0, 1)

    def _run(self, shape):
        self.outputs = shape.outputs
        return super()._run(shape)
