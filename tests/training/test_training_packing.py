"""Packed rows are full, and nobody in them sees another."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from groundlink.training.packing import PATIENCE, Packer, collate, pack
from groundlink.training.samples import Sample
from groundlink.training.sequences import IGNORE, Encoded, SampleEncoder, visible
from tests.locateanything.samples import checkpoint

ENCODER = SampleEncoder(checkpoint().tokenizer, checkpoint().config)


def encoded(length, source=""):
    column = np.arange(length)
    nothing = np.zeros((0, 3, 14, 14), np.uint8)
    return Encoded(column, column, column, 0 * column, 0 * column - 1, column + 1, nothing, (), source)


def sample(boxes):
    answer = "<ref>dot</ref>" + "<box><1><2><3><4></box>" * boxes
    return Sample([lambda: Image.new("RGB", (28, 28))], [("<image-1>Where?", answer)], f"{boxes} boxes")


# Screens and photographs of some hundred tokens with their boxes, and the short and long ends that data has.
@pytest.mark.parametrize("max_tokens", [2048, 4096, 16384])
@pytest.mark.parametrize("typical", [300, 700, 1100])
def test_rows_are_full(max_tokens, typical):
    numbers = np.random.default_rng(0)
    lengths = np.clip(numbers.lognormal(np.log(typical), 0.7, 2000), 120, max_tokens).astype(int)
    rows = list(pack(map(encoded, lengths), max_tokens))
    assert Counter(len(e) for row in rows for e in row) == Counter(lengths.tolist())
    totals = [sum(map(len, row)) for row in rows]
    assert max(totals) <= max_tokens
    assert np.mean(totals[:-10]) / max_tokens > 0.95  # of the last ones there is too little left to choose from


def test_the_largest_goes_first_and_then_the_largest_that_fits():
    packer = Packer(10, buffer=5)
    for length in (3, 7, 2, 11, 8, 2):
        assert packer.add(encoded(length), length) == (length <= 10)
    assert packer.full
    assert packer.skipped == 1
    assert [list(map(len, packer.take())) for _ in range(4)] == [[8, 2], [7, 3], [2], []]
    assert packer.waiting == []


def test_nothing_waits_for_ever():
    packer = Packer(10, buffer=4)
    for number, length in enumerate([6, 7, 8, 9]):
        packer.add(encoded(length), number)
    came = []
    for number in range(4, 300):
        assert packer.full
        came += packer.take()
        packer.add(encoded(9), number)
    assert {len(e) for e in came} == {6, 7, 8, 9}
    assert max(rows for _, rows in packer.waiting) <= PATIENCE + 4


def test_collated_rows_are_padded_with_what_nobody_sees():
    samples = [ENCODER.encode(sample(boxes)) for boxes in (1, 2, 3, 4)]
    rows = [samples[:3], samples[3:]]
    batch = collate(rows)
    width = sum(map(len, samples[:3]))
    assert batch.ids.shape == batch.targets.shape == batch.is_block.shape == (2, width)
    assert batch.patches.dtype == torch.uint8
    assert batch.patches.shape == (16, 3, 14, 14)
    assert batch.grids == ((2, 2),) * 4
    assert (batch.targets != IGNORE).sum() == sum((e.targets != IGNORE).sum() for e in samples)
    assert batch.is_block.sum() == sum((e.block >= 0).sum() for e in samples)
    padding = slice(len(samples[3]), width)
    assert (batch.targets[1, padding] == IGNORE).all()
    assert torch.equal(batch.mask[1, padding], torch.eye(width, dtype=torch.bool)[padding])
    assert not batch.mask[1, : len(samples[3]), padding].any()

    # Sample by sample or all at once, the mask is the same.
    for b, row in enumerate(rows):
        columns = [
            np.concatenate([getattr(e, name) for e in row]) for name in ("branch", "block", "positions", "limit")
        ]
        columns.insert(0, np.concatenate([np.full(len(e), i) for i, e in enumerate(row)]))
        filled = [np.pad(c, (0, width - len(c)), constant_values=-1 if i == 0 else 0) for i, c in enumerate(columns)]
        assert torch.equal(visible(*map(torch.from_numpy, filled)), batch.mask[b])
    assert batch.to("cpu").grids == batch.grids
