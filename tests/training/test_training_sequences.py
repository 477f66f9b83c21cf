"""The layout of conversations against the spec's worked examples, and its mask against what decoding does."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from groundlink.backends.locateanything.generate import step_rows
from groundlink.errors import BadData
from groundlink.training.forward import hidden_rows, image_rows
from groundlink.training.packing import collate
from groundlink.training.samples import Sample
from groundlink.training.sequences import IGNORE, SampleEncoder, TooLong, blocks_of, labels_of, visible
from tests.locateanything import golden_data as golden

CHECKPOINT = golden.checkpoint("ckpt_fit")
TOKENS = CHECKPOINT.config.ids
ENCODER = SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config)
NAMES = {
    "<ref>": TOKENS.ref_start,
    "</ref>": TOKENS.ref_end,
    "<box>": TOKENS.box_start,
    "</box>": TOKENS.box_end,
    "none": TOKENS.none,
    "E": TOKENS.end,
    "N": TOKENS.null,
    "M": TOKENS.text_mask,
}
PREFIX = list(range(40, 49))
NEWLINE = 30
PAD = 296


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def ids_of(words):
    """Ids of words as the spec writes them: numbers are coordinates, other words are any ordinary tokens."""
    return [
        NAMES.get(word, TOKENS.coord_start + int(word) if word.isdigit() else 50 + sum(word.encode()) % 150)
        for word in words.split()
    ]


WORKED = [
    (
        "<ref> cat </ref> <box> 1 2 3 4 </box> <box> 5 6 7 8 </box> E",
        (26, 51),
        [
            (9, "<ref> cat </ref> N N N"),
            (12, "<box> 1 2 3 4 </box>"),
            (18, "<box> 5 6 7 8 </box>"),
            (24, "E N N N N N"),
        ],
    ),
    (
        "<ref> a b c d e f </ref> <box> none </box> E",
        (22, 47),
        [
            (9, "<ref> a b c d e"),
            (15, "f </ref> N N N N"),
            (17, "<box> none </box> N N N"),
            (20, "E N N N N N"),
        ],
    ),
    ("<box> 5 6 </box> E", (15, 28), [(9, "<box> 5 6 </box> N N"), (13, "E N N N N N")]),
    (
        "There are two <ref> x </ref> <box> 1 2 3 4 </box> . E",
        (24, 49),
        [
            (9, "There are two <ref> x </ref>"),
            (15, "<box> 1 2 3 4 </box>"),
            (21, ". N N N N N"),
            (22, "E N N N N N"),
        ],
    ),
]


@pytest.mark.parametrize(("answer", "lengths", "blocks"), WORKED)
def test_worked_examples(answer, lengths, blocks):
    chat = [*PREFIX, NEWLINE, *ids_of(answer)]
    span = (len(PREFIX) + 1, len(chat))
    ids, positions, labels = labels_of(chat, [span], TOKENS, pad=PAD)
    assert (len(chat), len(ids)) == lengths
    assert len(ids) == len(positions) == len(labels) == len(chat) + 6 * len(blocks) + 1
    rows, places, targets = list(chat), list(range(len(chat))), []
    for anchor, target in blocks:
        rows += [chat[anchor], *[TOKENS.text_mask] * 5]
        places += range(anchor, anchor + 6)
        targets += ids_of(target)
    assert ids.tolist() == [*rows, PAD]
    assert positions.tolist() == [*places, blocks[-1][0] + 6]
    assert labels.tolist() == [*[IGNORE] * 10, *chat[10:], IGNORE, *targets]


words = st.lists(st.integers(50, 200), max_size=9)
coordinate = st.integers(TOKENS.coord_start, TOKENS.coord_end)
boxes = st.one_of(
    st.just([TOKENS.none]), st.lists(coordinate, min_size=4, max_size=4), st.lists(coordinate, min_size=2, max_size=2)
).map(lambda values: [TOKENS.box_start, *values, TOKENS.box_end])
labels = words.map(lambda label: [TOKENS.ref_start, *label, TOKENS.ref_end])
answers = st.lists(st.one_of(words, boxes, labels), max_size=12).map(lambda parts: [t for part in parts for t in part])


@settings(max_examples=100, deadline=None)
@given(st.lists(answers, min_size=1, max_size=3), st.integers(0, 99))
def test_blocks_give_back_what_is_supervised(turns, seed):
    chat, spans = [], []
    for answer in turns:
        chat += [*PREFIX, NEWLINE]
        spans.append((len(chat), len(chat) + len(answer) + 1))
        chat += [*answer, TOKENS.end]
    supervised = [t for start, stop in spans for t in chat[start:stop]]
    blocks = blocks_of(chat, spans, TOKENS, random.Random(seed))
    ids, positions, labelled = labels_of(chat, spans, TOKENS, random.Random(seed), PAD)
    assert all(len(block.targets) == 6 for block in blocks)
    assert [label for label in labelled[: len(chat)] if label != IGNORE] == supervised
    assert len(ids) == len(positions) == len(labelled) == len(chat) + 6 * len(blocks) + bool(blocks)
    if {TOKENS.box_end, TOKENS.ref_end} & set(chat):
        assert [t for block in blocks for t in block.targets if t != TOKENS.null] == supervised
        for block in blocks:
            kept = [t for t in block.targets if t != TOKENS.null]
            assert not {TOKENS.ref_end, TOKENS.box_end} & set(kept[:-1])
            assert TOKENS.end not in kept or len(kept) == 1
    else:
        for start, stop in spans:
            mine = [block for block in blocks if start - 1 <= block.anchor < stop]
            assert len(mine) == (stop - start) // 6
            for i, block in enumerate(mine):
                assert block.anchor == mine[0].anchor + 6 * i
                assert list(block.targets) == chat[block.anchor + 1 : block.anchor + 7]
                assert block.anchor + 6 < stop


def test_plain_text_begins_anywhere_and_repeatably():
    chat = [*PREFIX, NEWLINE, *range(50, 59), TOKENS.end]  # ten supervised: one block, five places for it
    found = {blocks_of(chat, [(10, 20)], TOKENS, random.Random(seed))[0].anchor for seed in range(60)}
    assert found == set(range(9, 14))
    short = blocks_of(chat[:14] + [TOKENS.end], [(10, 15)], TOKENS, random.Random(0))
    assert short == []
    assert len(labels_of(chat[:14] + [TOKENS.end], [(10, 15)], TOKENS)[0]) == 15  # no block, no pad


def picture(seed, size=(70, 50)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return lambda: Image.fromarray(pixels)


CATS = ("<image-1>Locate the cats.", "<ref>cat</ref><box><1><2><30><40></box><box><5><6><70><80></box>")
DOG = ("<image-1>Locate the dog.", "<ref>dog</ref><box>None</box>")
POINT = ("<image-1>Point to: the nose.", "<box><500><600></box>")
PLAIN = ("<image-1>What is it?", "a long story of two cats and no dog at all")
TURNS = (*CATS, "And what else?", "two words <ref>mat</ref><box><9><9><10><10></box>", "Thanks", "welcome")
TWO = ("Compare <image-2> to <image-1>.", "<ref>both</ref><box><1><2><3><4></box>")


def sample(*conversations, images=1):
    return Sample([picture(i, (70 - 30 * i, 50)) for i in range(images)], conversations, "train.jsonl:3")


def logits_of(rows, mask=None, checkpoint=CHECKPOINT):
    """Logits `[B, N, V]` of packed rows, and the batch."""
    batch = collate(rows)
    model = checkpoint.model
    images = image_rows(model, batch.patches, batch.grids)
    mask = batch.mask if mask is None else mask
    hidden = hidden_rows(model, batch.ids, batch.positions, mask, images)
    return model.language_model.logits(hidden)


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)


def test_rows_follow_the_layout_of_the_spec():
    encoded = ENCODER.encode(sample(TURNS))
    ordinary = encoded.block < 0
    chat = encoded.ids[ordinary].tolist()
    text = CHECKPOINT.tokenizer.decode(chat)
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.\n<|im_end|>\n<|im_start|>user\n<image 1>")
    assert text.endswith("<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\nwelcome<|im_end|>")
    starts = [i for i in range(len(chat)) if CHECKPOINT.tokenizer.decode(chat[:i]).endswith("assistant\n")]
    spans = [(start, chat.index(TOKENS.end, start) + 1) for start in starts]
    assert len(spans) == 3
    ids, positions, labels = labels_of(chat, spans, TOKENS)
    assert encoded.ids.tolist() == ids[:-1].tolist()
    assert encoded.positions.tolist() == positions[:-1].tolist()
    assert encoded.targets.tolist() == labels[1:].tolist()
    assert (encoded.limit[ordinary] == encoded.positions[ordinary] + 1).all()
    blocks = encoded.block[~ordinary].reshape(-1, 6)
    assert (blocks == np.arange(len(blocks))[:, None]).all()
    assert (encoded.limit[~ordinary] == encoded.positions[~ordinary].reshape(-1, 6)[:, 0].repeat(6)).all()
    assert encoded.patches.shape == (encoded.grids[0][0] * encoded.grids[0][1], 3, 14, 14)
    assert (encoded.ids == TOKENS.image).sum() == len(encoded.patches) // 4


def test_the_mask_by_its_rules():
    encoded = ENCODER.encode(sample(CATS, DOG))
    number = np.zeros_like(encoded.ids)
    columns = (number, encoded.branch, encoded.block, encoded.positions, encoded.limit)
    mask = visible(*map(torch.from_numpy, columns)).numpy()
    for i in range(len(encoded)):
        for j in range(len(encoded)):
            related = encoded.branch[j] in (-1, encoded.branch[i])
            if encoded.block[j] >= 0:
                wanted = encoded.block[i] == encoded.block[j]
            elif encoded.block[i] >= 0:
                anchor = encoded.positions[encoded.block == encoded.block[i]].min()
                wanted = related and encoded.positions[j] < anchor
            else:
                wanted = related and encoded.positions[j] <= encoded.positions[i]
            assert mask[i, j] == wanted, (i, j)


def test_blocks_change_nothing_for_ordinary_rows():
    encoded = ENCODER.encode(sample(TURNS))
    keep = encoded.block < 0
    columns = ("ids", "positions", "targets", "branch", "block", "limit")
    alone = replace(encoded, **{name: getattr(encoded, name)[keep] for name in columns})
    close(logits_of([[encoded]])[0, keep], logits_of([[alone]])[0])


@pytest.mark.parametrize("conversation", [TURNS, PLAIN])
def test_a_causal_block_begins_as_its_anchor_does(conversation):
    encoded = ENCODER.encode(sample(conversation))
    mask = collate([[encoded]]).mask.clone()
    block, place = torch.from_numpy(encoded.block), torch.from_numpy(encoded.positions)
    same = (block[:, None] == block) & (block >= 0)
    mask[0] &= ~same | (place[:, None] >= place)
    logits = logits_of([[encoded]], mask)[0]
    both = logits_of([[encoded]])[0]
    first = np.flatnonzero((encoded.block >= 0) & (encoded.positions == encoded.limit))
    assert len(first) == encoded.block.max() + 1 > 0
    for row in first:
        anchor = int(np.flatnonzero((encoded.block < 0) & (encoded.positions == encoded.positions[row]))[0])
        close(logits[row], logits[anchor])
        assert not torch.allclose(both[row], logits[anchor], atol=1e-3)  # the masks do matter to it


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
@pytest.mark.parametrize("conversation", [TURNS, PLAIN, POINT, DOG])
def test_a_block_is_a_step_of_decoding(name, conversation):
    checkpoint = golden.checkpoint(name)
    model = checkpoint.model
    encoded = SampleEncoder(checkpoint.tokenizer, checkpoint.config).encode(sample(conversation))
    logits = logits_of([[encoded]], checkpoint=checkpoint)[0]
    chat = torch.from_numpy(encoded.ids[encoded.block < 0])[None]
    images = image_rows(model, torch.from_numpy(encoded.patches), encoded.grids)
    for number in range(encoded.block.max() + 1):
        rows = np.flatnonzero(encoded.block == number)
        anchor = int(encoded.positions[rows[0]])
        cache = model.new_cache(1, anchor + 1)
        model.prefill(model.embed_prompt(chat[:, :anchor], images), cache)
        ids, positions, mask = step_rows(chat[:, : anchor + 1], anchor, True, TOKENS.text_mask)
        assert ids[0, -6:].tolist() == encoded.ids[rows].tolist()
        assert positions[0, -6:].tolist() == encoded.positions[rows].tolist()
        step = model.step(ids, positions, torch.tensor([anchor]), mask, cache=cache, last=6)
        close(logits[torch.from_numpy(rows)], step[0])


SEPARATE = [
    ((CATS, DOG, POINT, TURNS), 1),
    ((CATS, CATS), 1),  # what predicts the answers is no shared row, even where the questions are the same
    ((("<image-1>", "one"), ("<image-1>", "two")), 1),
    ((TWO, ("Compare <image-2>, <image-2>, <image-1>.", "<box>None</box>"), ("<image-1><image-2>?", "text")), 2),
    ((("<image-1><image-2>Which?", "<ref>b</ref>"), ("<image-1><image-2>What?", "text")), 2),
]


@pytest.mark.parametrize(("conversations", "images"), SEPARATE)
def test_conversations_stand_alone_though_they_share_pictures(conversations, images):
    together = ENCODER.encode(sample(*conversations, images=images))
    logits = logits_of([[together]])[0]
    total = 0
    for branch, conversation in enumerate(conversations):
        alone = ENCODER.encode(sample(conversation, images=images))
        rows = (together.branch < 0) | (together.branch == branch)
        assert together.ids[rows].tolist() == alone.ids.tolist()
        mine = alone.targets != IGNORE
        assert together.targets[rows].tolist() == alone.targets.tolist()
        close(logits[rows][mine], logits_of([[alone]])[0, mine])
        total += mine.sum()
    assert (together.targets != IGNORE).sum() == total
    if conversations[0] != TWO:
        assert (together.branch < 0).sum() > 30  # the pictures are there once
        assert len(together.grids) == images
    else:
        assert together.grids[0] == together.grids[2] == together.grids[3] != together.grids[1]


def test_packed_is_as_unpacked():
    one, two, three = (ENCODER.encode(s) for s in (sample(CATS, DOG), sample(TWO, images=2), sample(PLAIN)))
    batch = collate([[one, two], [three]])
    assert batch.mask.shape == (2, len(one) + len(two), len(one) + len(two))
    logits = logits_of([[one, two], [three]])
    close(logits[0, : len(one)], logits_of([[one]])[0])
    close(logits[0, len(one) :], logits_of([[two]])[0])
    close(logits[1, : len(three)], logits_of([[three]])[0])


def test_answers_are_found_by_their_place_and_not_by_a_word():
    odd = ("<image-1>the assistant\nsaid: assistant\n", "assistant\n<ref>assistant</ref><box>None</box>", "no", "yes")
    encoded = ENCODER.encode(sample(odd))
    targets = encoded.targets[(encoded.block < 0) & (encoded.targets != IGNORE)].tolist()
    assert CHECKPOINT.tokenizer.decode(targets) == odd[1] + "<|im_end|>" + odd[3] + "<|im_end|>"


def test_too_long_is_told_before_patches_are_made():
    length = len(ENCODER.encode(sample(CATS)))
    assert len(SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config, max_tokens=length).encode(sample(CATS)))
    with pytest.raises(TooLong, match=rf"train.jsonl:3: has {length} rows, more than {length - 1}"):
        SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config, max_tokens=length - 1).encode(sample(CATS))


@pytest.mark.parametrize(
    ("conversations", "match"),
    [
        ([], "no conversation"),
        ([("<image-1>a",)], "1 texts"),
        ([("<image-1>a", "b", "c")], "3 texts"),
        ([("a", "b")], "<image-1> stands in no question"),
        ([("<image-1><image-2>a", "b")], "<image-2>"),
        ([("<image-1>a", "b<|im_end|>")], "turn 2 holds '<|im_end|>'"),
        ([("<image-1>a<IMG_CONTEXT>", "b")], "turn 1 holds '<IMG_CONTEXT>'"),
        ([("<image-1>a", "b<null>")], "<null>"),
        ([("<image-1>a", "b<image-1>")], "turn 2 holds '<image-'"),
    ],
)
def test_what_cannot_be_laid_out_is_told(conversations, match):
    with pytest.raises(BadData, match=match.replace("|", r"\|")) as told:
        ENCODER.encode(sample(*conversations))
    assert "train.jsonl:3" in str(told.value)
