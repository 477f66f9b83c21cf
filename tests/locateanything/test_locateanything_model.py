"""The network on random weights of odd sizes: neither batches, nor packed pictures, nor caches change what it says."""

import pytest
import torch

from groundlink.backends.locateanything.config import Config, TextConfig, VisionConfig
from groundlink.backends.locateanything.generate import step_rows
from groundlink.backends.locateanything.model import LocateAnything
from tests.locateanything.scripted import IDS, VOCABULARY

GRIDS = [(2, 6), (8, 12), (10, 4)]


@pytest.fixture(scope="module")
def model():
    """Sizes of which no two are equal; an output matrix of its own."""
    config = Config(
        VisionConfig(48, 3, 3, 80, 8, 12),
        TextConfig(VOCABULARY, 96, 3, 6, 3, 112, 10_000.0, 1e-6),
        tied=False,
        ids=IDS,
        patch_limit=4096,
        max_length=None,
    )
    torch.manual_seed(1)
    made = LocateAnything(config).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def patches(grids):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(sum(rows * columns for rows, columns in grids), 3, 14, 14, generator=generator)


def test_pictures_of_one_pass_do_not_see_each_other(model):
    pixels = patches(GRIDS)
    together = model.encode_images(pixels, GRIDS)
    alone = [
        model.encode_images(part, [grid])
        for part, grid in zip(pixels.split([rows * columns for rows, columns in GRIDS]), GRIDS, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def run(model, sequence, cached, images, chunk=None):
    """Return the window's logits of a sequence of which `cached` tokens are cached, or all but a chunk's."""
    cache = model.new_cache(1, sequence.shape[1])
    model.prefill(model.embed_prompt(sequence, images)[:, :cached], cache)
    if chunk is not None:
        ids, positions, mask = step_rows(sequence[:, :chunk], cached, True, IDS.text_mask)
        model.step(ids, positions, torch.tensor([cached]), mask, cache=cache, last=6)
        cached = chunk
    ids, positions, mask = step_rows(sequence, cached, True, IDS.text_mask)
    return model.step(ids, positions, torch.tensor([cached]), mask, cache=cache, last=6)


def example(model):
    grids = GRIDS[:2]
    images = model.encode_images(patches(grids), grids)
    words = torch.randint(11, VOCABULARY, (1, 40), generator=torch.Generator().manual_seed(3))
    return torch.cat((words[:, :5], torch.full((1, len(images)), IDS.image), words[:, 5:]), 1), images


def test_what_is_cached_does_not_matter(model):
    sequence, images = example(model)
    length = sequence.shape[1]
    wanted = run(model, sequence, length - 1, images)
    assert wanted.shape == (1, 6, VOCABULARY)
    for cached, chunk in ((length - 6, None), (length - 30, None), (length - 9, length - 4)):
        torch.testing.assert_close(run(model, sequence, cached, images, chunk), wanted, atol=1e-4, rtol=1e-4)


def test_the_window_depends_on_the_whole_sequence_but_for_the_original_of_its_copy(model):
    """The copied token's own key is not seen; every other token changes what the window says."""
    sequence, images = example(model)
    base = run(model, sequence, sequence.shape[1] - 1, images)
    other = sequence.clone()
    other[0, -2] = 12 if other[0, -2] != 12 else 13
    assert not torch.allclose(run(model, other, sequence.shape[1] - 1, images), base, atol=1e-2)


def test_sequences_of_a_batch_do_not_touch_each_other(model):
    """Two sequences of unlike length, in one cache and one step."""
    first, images = example(model)
    second = first[:, :-7]
    alone = [run(model, sequence, sequence.shape[1] - 1, images) for sequence in (first, second)]

    lengths = [first.shape[1], second.shape[1]]
    cache = model.new_cache(2, max(lengths))
    padded = torch.cat((second, second[:, -1:].expand(1, 7)), 1)
    both = torch.cat((first, padded))
    rows = torch.cat([model.embed_prompt(row[None], images) for row in both])
    model.prefill(rows[:, :-1], cache)
    laid = [step_rows(sequence, sequence.shape[1] - 1, True, IDS.text_mask) for sequence in (first, second)]
    width = max(mask.shape[-1] for _, _, mask in laid)
    ids, positions = (torch.cat([part[i] for part in laid]) for i in (0, 1))
    mask = torch.cat([torch.nn.functional.pad(part[2], (0, width - part[2].shape[-1])) for part in laid])
    cached = torch.tensor([length - 1 for length in lengths])
    together = model.step(ids, positions, cached, mask, cache=cache, last=6)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
