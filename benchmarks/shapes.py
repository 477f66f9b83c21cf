"""Models of random weights in the shapes that are measured, and what they are made to say.

Random weights form no boxes, so a script plants a peak in each row of logits: what is decided on is then what a sure
model would say, and everything else costs what it costs with any weights.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from groundlink.backends.locateanything.config import (
    COORDINATES,
    WINDOW,
    Config,
    TextConfig,
    TokenIds,
    VisionConfig,
)
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.prompt import Tokenizer
from groundlink.backends.locateanything.weights import Checkpoint

# The ids of the 3B model, for every shape with its vocabulary.
IDS = TokenIds(
    end=151645,
    image=151665,
    box_start=151668,
    box_end=151669,
    ref_start=151672,
    ref_end=151673,
    coord_start=151677,
    coord_end=152677,
    none=4064,
    null=152678,
    text_mask=151676,
)
VOCABULARY = 152_681
SMALL_IDS = TokenIds(
    end=0,
    image=1,
    box_start=2,
    box_end=3,
    ref_start=4,
    ref_end=5,
    coord_start=10,
    coord_end=1010,
    none=6,
    null=7,
    text_mask=8,
)
WORDS = 1200  # ids of plain words begin here in every shape
PEAK = 30.0  # far above any logit of random weights, penalised or not, and not so far that others become denormal


def _config(vision: tuple[int, int, int, int], text: tuple[int, int, int, int, int], vocab_size: int) -> Config:
    return Config(
        VisionConfig(*vision, 64, 64),
        TextConfig(vocab_size, *text, rope_theta=1e6, rms_norm_eps=1e-6),
        tied=True,
        ids=IDS if vocab_size == VOCABULARY else SMALL_IDS,
        patch_limit=25600,
        max_length=None,
    )


# Hidden size, layers, heads, intermediate size of the vision tower; hidden size, layers, heads, key heads,
# intermediate size of the language model.
SHAPES = {
    "3B": _config((1152, 27, 16, 4304), (2048, 36, 16, 2, 11008), VOCABULARY),
    "293M": _config((384, 4, 6, 1536), (1024, 12, 8, 2, 2848), VOCABULARY),
    "45M": _config((64, 2, 2, 128), (256, 6, 4, 2, 1024), VOCABULARY),
    "small": _config((64, 2, 2, 128), (64, 2, 4, 2, 128), 2048),
}


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> LocateAnything:
    """Make a model of random weights, straight on the device."""
    with torch.device("meta"):
        model = LocateAnything(SHAPES[shape])
    numbers = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        tensor = torch.empty(parameter.shape, device=device, dtype=dtype)
        is_norm = parameter.ndim == 1 and not name.endswith("bias")
        tensor = tensor.fill_(1) if is_norm else tensor.normal_(std=0.02, generator=numbers)
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, torch.nn.Parameter(tensor, requires_grad=False))
    return model.eval()


def word_tokenizer(texts: Sequence[str], config: Config) -> Tokenizer:
    """Make a tokenizer with the model's special tokens, and one token for each word of the texts."""
    ids = config.ids
    by_name = {
        "<|im_end|>": ids.end,
        "<IMG_CONTEXT>": ids.image,
        "<box>": ids.box_start,
        "</box>": ids.box_end,
        "<ref>": ids.ref_start,
        "</ref>": ids.ref_end,
        "<null>": ids.null,
        "<text_mask>": ids.text_mask,
        **{f"<{n}>": ids.coord_start + n for n in range(COORDINATES)},
    }
    others = ("<|im_start|>", "<img>", "</img>", "</c>")
    by_name.update({name: ids.coord_end + 100 + i for i, name in enumerate(others)})
    if config.text.vocab_size == VOCABULARY:
        by_name.update(zip(others, (151644, 151666, 151667, 152680)))
    words = dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text))
    known = {word: WORDS + i for i, word in enumerate(words)}
    model = tokenizers.models.WordLevel({**known, "None": ids.none, **by_name}, unk_token=next(iter(known)))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in by_name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(str(path))
        return Tokenizer(path)


def random_checkpoint(shape: str, device: torch.device, dtype: torch.dtype, texts: Sequence[str]) -> Checkpoint:
    """Make what the engine takes: a random model, and a tokenizer that knows the words of the texts."""
    model = random_model(shape, device, dtype)
    return Checkpoint(Path(), model.config, word_tokenizer(texts, model.config), model)


def random_prompt(model: LocateAnything, length: int) -> tuple[Tensor, Tensor]:
    """Return ids `[1, length]` of a prompt without pictures, and their rows `[1, length, D]`."""
    numbers = torch.Generator().manual_seed(length)
    # Small enough for the small vocabulary, and all of them plain words.
    ids = torch.randint(WORDS, 2000, (1, length), generator=numbers).to(model.device)
    return ids, model.embed(ids)


def box_block(ids: TokenIds) -> list[int]:
    """Return a box as the decoder reads it from six rows."""
    return [ids.box_start, *(ids.coord_start + value for value in (100, 200, 300, 400)), ids.box_end]


def answer_blocks(boxes: int, ids: TokenIds) -> list[list[int]]:
    """Return the steps of a whole answer: a label, so many boxes, the end."""
    label = [ids.ref_start, WORDS, ids.ref_end, ids.null, ids.null, ids.null]
    return [label, *([box_block(ids)] * boxes), [ids.end] + [ids.null] * (WINDOW - 1)]


class Script:
    """What a model is made to say: a block of six tokens a step, the last one again and again.

    The block of a step lies on the device, so that peaks can be captured in a graph like the logits themselves.
    """

    def __init__(self, blocks: Sequence[Sequence[int]], device: torch.device) -> None:
        self._now = torch.zeros(WINDOW, dtype=torch.long, device=device)
        self.begin(blocks)

    def begin(self, blocks: Sequence[Sequence[int]]) -> None:
        """Go to the start of an answer."""
        self._blocks = torch.tensor(blocks, device=self._now.device)
        self._turn = 0

    def turn_page(self) -> None:
        """Go to the block of the step that comes."""
        self._now.copy_(self._blocks[min(self._turn, len(self._blocks) - 1)])
        self._turn += 1

    def plant(self, logits: Tensor) -> Tensor:
        """Put the peaks of the block into the logits `[6·B, V]` of the window's rows, in place."""
        tokens = self._now.expand(len(logits) // WINDOW, -1).reshape(-1, 1)
        return logits.scatter_add_(1, tokens, torch.full_like(tokens, PEAK, dtype=logits.dtype))


def text_parameters(model: LocateAnything) -> int:
    """Count the weights that a step of the language model reads."""
    return sum(parameter.numel() for parameter in model.language_model.parameters())


def step_bytes(model: LocateAnything, batch: int, prefix: int) -> int:
    """Return the bytes of weights, and of keys and values of so many tokens in each sequence, that a step reads."""
    text = model.config.text
    cached = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * prefix * batch
    return (text_parameters(model) + cached) * model.language_model.model.embed_tokens.weight.element_size()
