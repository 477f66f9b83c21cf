"""From a sample to the rows that a model is trained on, and which of them may see which.

A conversation is laid out twice: once as ordinary rows, each predicting the next token (NTP), and for its answers
again as blocks of six rows that predict six tokens at once (MTP), as a parallel decoding step does. Written after
sections 1.3 and 1.4 of the training spec. N is the number of rows, P that of a sample's patches.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundlink.backends.locateanything.config import PATCH, WINDOW, Config, TokenIds
from groundlink.backends.locateanything.preprocessing import Grid, image_grid, image_tokens, preprocess
from groundlink.backends.locateanything.prompt import Tokenizer, Turn, build_chat, expand_tags, tag_of
from groundlink.errors import BadData, BadQuery
from groundlink.training.samples import RESERVED, Conversation, Sample

IGNORE = -100
"""The target of a row that is to predict nothing; what `torch.nn.functional.cross_entropy` ignores."""
END = "<|im_end|>"
MAX_TOKENS = 16384

Integers = NDArray[np.int64]
Span = tuple[int, int]
"""Where an answer stands among the ids: from its first token to behind its `<|im_end|>`."""


class TooLong(BadData):
    """A sample has more rows than one may have; it can be skipped."""


@dataclass(frozen=True)
class Encoded:
    """One sample as rows, without the spec's last pad row: it predicts nothing and nothing sees it.

    Attributes:
        ids: `[N]`, the tokens.
        positions: `[N]`, where they stand in their conversation.
        targets: `[N]`, the token that each row is to predict, `IGNORE` where none (so labels are shifted already).
        branch: `[N]`, the number of the conversation a row belongs to, -1 where all conversations share it.
        block: `[N]`, -1 for an ordinary row, else the number of its block within the sample.
        limit: `[N]`, how far a row sees: ordinary rows at positions below this.
        patches: `[P, 3, 14, 14]` of all pictures, in the order in which they stand in the rows.
        grids: rows and columns of patches of those pictures.
        source: where the sample comes from, for messages.
    """

    ids: Integers
    positions: Integers
    targets: Integers
    branch: Integers
    block: Integers
    limit: Integers
    patches: NDArray[np.uint8]
    grids: tuple[Grid, ...]
    source: str

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Block:
    """Six rows that predict six tokens: the copy of the token at `anchor`, and five masks."""

    anchor: int
    targets: tuple[int, ...]


def blocks_of(ids: Sequence[int], answers: Sequence[Span], tokens: TokenIds, numbers: random.Random) -> list[Block]:
    """Cut the answers of a conversation into blocks.

    With boxes or labels anywhere in the conversation a block ends where a decoding step would end it, and is filled
    up with `<null>`. Without any, blocks are six plain tokens; `numbers` draw where the first one starts.
    """
    marked = tokens.box_end in ids or tokens.ref_end in ids
    blocks: list[Block] = []
    for start, stop in answers:
        if marked:
            anchor = start - 1
            while ids[anchor] != tokens.end:
                kept = _block(ids[anchor + 1 : min(anchor + 1 + WINDOW, stop)], tokens)
                blocks.append(Block(anchor, (*kept, *[tokens.null] * (WINDOW - len(kept)))))
                anchor += len(kept)
        else:
            count, left = divmod(stop - start, WINDOW)
            first = start + numbers.randint(0, left)
            for place in range(first, first + count * WINDOW, WINDOW):
                blocks.append(Block(place - 1, tuple(ids[place : place + WINDOW])))
    return blocks


def _block(candidates: Sequence[int], tokens: TokenIds) -> list[int]:
    """Return those of the next six tokens that one step should take."""
    kept = list(candidates)
    if kept[0] == tokens.end:
        return kept[:1]
    if tokens.end in kept:
        kept = kept[: kept.index(tokens.end)]
    for closing in (tokens.ref_end, tokens.box_end):
        if closing in kept:
            kept = kept[: kept.index(closing) + 1]
    return kept


def labels_of(
    ids: Sequence[int], answers: Sequence[Span], tokens: TokenIds, numbers: random.Random | None = None, pad: int = 0
) -> tuple[Integers, Integers, Integers]:
    """Lay out one conversation as the spec writes it; return ids, positions and labels, each `[L + 6k + 1]`.

    That is the chat, the inputs of its k blocks, and a pad. Labels are not shifted: the one at t + 1 is what row t
    predicts. Without blocks there is no pad either. `SampleEncoder` makes the same rows, without the pad.
    """
    length = len(ids)
    labels = [IGNORE] * length
    for start, stop in answers:
        labels[start:stop] = ids[start:stop]
    blocks = blocks_of(ids, answers, tokens, numbers or random.Random(0))
    rows, positions = list(ids), list(range(length))
    for block in blocks:
        rows += [ids[block.anchor], *[tokens.text_mask] * (WINDOW - 1)]
        positions += range(block.anchor, block.anchor + WINDOW)
    if blocks:
        rows.append(pad)
        positions.append(positions[-1] + 1)
        labels += [IGNORE, *(target for block in blocks for target in block.targets)]
    return np.array(rows), np.array(positions), np.array(labels)


@dataclass(frozen=True)
class _Chat:
    """A conversation as tokens: where its answers stand, and which pictures, counted from 0, in their order."""

    ids: list[int]
    answers: list[Span]
    pictures: list[int]


class SampleEncoder:
    """Makes rows of samples.

    Conversations of one sample share the rows of their longest common beginning, before anything that is predicted;
    what they are trained on is the same as if each stood alone. `seed` is for what is drawn: where blocks of plain
    text start, the same for the same sample each time.
    """

    def __init__(self, tokenizer: Tokenizer, config: Config, *, max_tokens: int = MAX_TOKENS, seed: int = 0) -> None:
        self.config = config
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._seed = seed

    def encode(self, sample: Sample) -> Encoded:
        """Open the pictures of a sample and lay out its rows.

        Raises:
            TooLong: it has more than `max_tokens` rows, blocks included. Pictures are not yet read as patches then.
            BadData: turns that are missing or hold the model's own marks, pictures that are named and not there or
                there and not named.
            BadImage: a picture cannot be opened, or is too long and narrow.
        """
        images = [opener() for opener in sample.images]
        grids = [image_grid(*image.size, self.config.patch_limit) for image in images]
        if not sample.conversations:
            raise BadData(f"{sample.source}: holds no conversation; drop it or add one")
        chats = [self._chat(conversation, grids, sample.source) for conversation in sample.conversations]
        unnamed = set(range(len(images))).difference(*(chat.pictures for chat in chats))
        if unnamed:
            raise BadData(
                f"{sample.source}: {tag_of(min(unnamed))} stands in no question, but {len(images)} images are given; "
                "put the tag where the picture belongs"
            )
        shared = _common([chat.ids for chat in chats], min(chat.answers[0][0] - 1 for chat in chats))
        columns, count = [_ordinary(chats[0].ids[:shared], 0, -1, ())], 0
        for number, chat in enumerate(chats):
            columns.append(_ordinary(chat.ids, shared, number, chat.answers))
            numbers = random.Random(f"{self._seed} {sample.source} {number}")
            blocks = blocks_of(chat.ids, chat.answers, self.config.ids, numbers)
            columns.append(_rows_of(blocks, chat.ids, number, count, self.config.ids.text_mask))
            count += len(blocks)
        ids, positions, targets, branch, block, limit = np.concatenate(columns, 1)
        if len(ids) > self.max_tokens:
            raise TooLong(
                f"{sample.source}: has {len(ids)} rows, more than {self.max_tokens}; "
                "take smaller pictures or fewer boxes, or raise the limit"
            )

        # A picture's run of tokens comes behind its number, so the shared rows end before or behind one, never within.
        ends = np.cumsum([image_tokens(grids[picture]) for picture in chats[0].pictures])
        known = int((ends <= chats[0].ids[:shared].count(self.config.ids.image)).sum())
        pictures = chats[0].pictures[:known] + [picture for chat in chats for picture in chat.pictures[known:]]
        patches = {i: preprocess(images[i], self.config.patch_limit)[0] for i in set(pictures)}
        nothing = np.zeros((0, 3, PATCH, PATCH), np.uint8)
        return Encoded(
            ids,
            positions,
            targets,
            branch,
            block,
            limit,
            patches=np.concatenate([nothing, *(patches[i] for i in pictures)]),
            grids=tuple(grids[i] for i in pictures),
            source=sample.source,
        )

    def _chat(self, conversation: Conversation, grids: Sequence[Grid], source: str) -> _Chat:
        """Return the tokens of a conversation, each answer encoded apart from the chat around it, as it is decoded."""
        if len(conversation) < 2 or len(conversation) % 2:
            raise BadData(
                f"{source}: a conversation has questions and answers by turns, but this one has {len(conversation)} "
                "texts; end it with an answer"
            )
        for number, text in enumerate(conversation, 1):
            reserved = RESERVED.search(text)
            if reserved or (number % 2 == 0 and "<image-" in text):
                mark = reserved.group() if reserved else "<image-"
                raise BadData(f"{source}: turn {number} holds {mark!r}, which is no text but one of the model's marks")
        turns = [Turn("assistant" if i % 2 else "user", [text]) for i, text in enumerate(conversation)]
        ids: list[int] = []
        answers: list[Span] = []
        pictures: list[int] = []
        done = 0  # how much of the chat's text is encoded
        for i in range(1, len(turns), 2):
            chat, _ = build_chat(turns[:i])
            try:
                text, order = expand_tags(chat[done:], grids)
            except BadQuery as error:
                raise BadData(f"{source}: {error}") from error
            ids += self._tokenizer.encode(text)
            pictures += order
            answer = self._tokenizer.encode(conversation[i] + END)
            answers.append((len(ids), len(ids) + len(answer)))
            ids += answer
            done = len(chat) + len(conversation[i]) + len(END)
        return _Chat(ids, answers, pictures)


def _common(chats: Sequence[Sequence[int]], limit: int) -> int:
    """Return how many tokens all chats begin with alike, at most `limit`."""
    same = limit
    for chat in chats[1:]:
        differs = np.flatnonzero(np.array(chat[:same]) != np.array(chats[0][:same]))
        same = int(differs[0]) if len(differs) else same
    return same


# Columns of `Encoded`, in this order: ids, positions, targets, branch, block, limit.


def _ordinary(ids: Sequence[int], first: int, branch: int, answers: Sequence[Span]) -> Integers:
    """Return `[6, n]`: the ordinary rows of a chat from its token `first` on."""
    targets = np.full(len(ids), IGNORE)
    for start, stop in answers:
        targets[start - 1 : stop - 1] = ids[start:stop]
    places = np.arange(len(ids))
    same = np.ones_like(places)
    columns = np.stack((np.array(ids, np.int64), places, targets, branch * same, -same, places + 1))
    return columns[:, first:]


def _rows_of(blocks: Sequence[Block], ids: Sequence[int], branch: int, first: int, mask: int) -> Integers:
    """Return `[6, n]`: the rows of blocks, numbered from `first` on."""
    rows = [
        (mask if j else ids[block.anchor], block.anchor + j, target, branch, first + i, block.anchor)
        for i, block in enumerate(blocks)
        for j, target in enumerate(block.targets)
    ]
    return np.array(rows, np.int64).reshape(-1, 6).T


def visible(sample: Tensor, branch: Tensor, block: Tensor, positions: Tensor, limit: Tensor) -> Tensor:
    """Say which row may look at which: five columns `[…, N]` → a boolean mask `[…, N, N]`, queries by keys.

    `sample` is the number of the sample within a packed row, -1 for padding, which sees itself only; the others are
    those of `Encoded`. Every row sees itself. Ordinary rows see causally what stands before them in their own
    conversation. Those of a block see all six of it, and ordinary rows before its anchor: the block has its own copy
    of the anchor. That is what a decoding step sees.
    """
    columns = (sample, branch, block, positions, limit)
    q_sample, q_branch, q_block, _, q_limit = (column[..., :, None] for column in columns)
    k_sample, k_branch, k_block, k_position, _ = (column[..., None, :] for column in columns)
    before = (k_block < 0) & ((k_branch < 0) | (k_branch == q_branch)) & (k_position < q_limit)
    own_block = (k_block >= 0) & (k_block == q_block)
    itself = torch.eye(sample.shape[-1], dtype=torch.bool, device=sample.device)
    return ((q_sample == k_sample) & (q_sample >= 0) & (before | own_block)) | itself
