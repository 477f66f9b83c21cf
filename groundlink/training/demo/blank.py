"""The demo model before it has learned anything: its sizes, its tokenizer, its first weights.

The folder has the layout of a published checkpoint, so everything that reads one reads this.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundlink.backends.locateanything.config import COORDINATES, MERGE, PATCH, WINDOW
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.prompt import QUESTIONS, Tokenizer, build_chat
from groundlink.training.scenes import draw
from groundlink.training.scenes.layout import WORDS

PIECES = 1200  # of the tokenizer, letters included
PATCH_LIMIT = 400  # a picture of more patches is made smaller first: about 280×280
MAX_LENGTH = 1024

VISION: dict[str, Any] = {
    "model_type": "moonvit",
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "patch_size": PATCH,
    "init_pos_emb_height": 16,
    "init_pos_emb_width": 16,
    "merge_kernel_size": [MERGE, MERGE],
}
TEXT: dict[str, Any] = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "max_position_embeddings": MAX_LENGTH,
    "block_size": WINDOW,
    "causal_attn": False,
    "tie_word_embeddings": False,
}

_MARKS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<box>",
    "</box>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<interval>",
    "</interval>",
    "<text_mask>",
    *(f"<{n}>" for n in range(COORDINATES)),
    "<null>",
    "<switch>",
    "</c>",
)


def write_blank(folder: Path) -> None:
    """Write the configuration and the tokenizer of the demo model into a folder, which is made; no weights."""
    import tokenizers
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

    # What stands in every question word for word is one piece; else words with the space before them.
    fixed = sorted({text.split("{}")[0].rstrip() for text in QUESTIONS.values()} | {"You are a helpful assistant."})
    pieces = "|".join([*map(re.escape, fixed), r" ?\p{L}+", r" ?\p{N}", r"\s", r"[^\s\p{L}\p{N}]"])
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in _MARKS])

    def number(token: str) -> int:
        found = tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}: give it more than {PIECES} pieces")
        return int(found)

    text = {
        **TEXT,
        "vocab_size": tokenizer.get_vocab_size(),
        "eos_token_id": number("<|im_end|>"),
        "text_mask_token_id": number("<text_mask>"),
        "null_token_id": number("<null>"),
        "switch_token_id": number("<switch>"),
    }
    config = {
        "model_type": "locateanything",
        "architectures": ["LocateAnythingForConditionalGeneration"],
        "tie_word_embeddings": False,
        "image_token_index": number("<IMG_CONTEXT>"),
        "box_start_token_id": number("<box>"),
        "box_end_token_id": number("</box>"),
        "ref_start_token_id": number("<ref>"),
        "ref_end_token_id": number("</ref>"),
        "coord_start_token_id": number("<0>"),
        "coord_end_token_id": number(f"<{COORDINATES - 1}>"),
        "none_token_id": number("None"),
        "torch_dtype": "bfloat16",
        "vision_config": VISION,
        "text_config": text,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt, which other loaders ask for
    files: dict[str, dict[str, Any]] = {
        "config.json": config,
        "preprocessor_config.json": {
            "in_token_limit": PATCH_LIMIT,
            "patch_size": PATCH,
            "merge_kernel_size": [MERGE, MERGE],
        },
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "model_max_length": MAX_LENGTH,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
        "special_tokens_map.json": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "added_tokens.json": {mark: number(mark) for mark in _MARKS},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _texts() -> Iterator[str]:
    """Yield texts in which the words of the scenes have the frequency that they have in training, and their forms."""
    for text in QUESTIONS.values():
        yield from [text.format("")] * 500
    yield from [build_chat([])[0] + "user<image 1>None"] * 2000
    for word in WORDS:
        yield from [f"{word} {word}\n{word.lower()} {word.lower()}"] * 20
    for number in range(1000):
        for question in draw("train", number)[1]:
            yield question.text.replace("</c>", "\n")
            for label, _ in question.truth:
                yield label


@torch.no_grad()
def initialise(model: LocateAnything, tokenizer: Tokenizer, seed: int) -> None:
    """Give a model its first weights: random ones, but for what is known beforehand about places and words.

    Words are as large as image features, or the layers' sums would drown them, and begin near their other writings
    ("save", " Save"). Coordinates begin as points on smooth curves, so that what is learned of one holds for its
    neighbours, and so do the positions of the vision tower.
    """
    numbers = torch.Generator().manual_seed(seed)
    layers = {
        "vision_model": model.config.vision.num_hidden_layers,
        "language_model": model.config.text.num_hidden_layers,
    }
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1)
        else:
            deviation = 1 / math.sqrt(parameter[0].numel())
            if name.endswith(("wo.weight", "fc1.weight", "o_proj.weight", "down_proj.weight")):
                deviation *= 0.8 / math.sqrt(2 * layers[name.partition(".")[0]])  # layers begin by changing little
            parameter.copy_(torch.randn(parameter.shape, generator=numbers) * deviation)
    places = model.vision_model.patch_embed.pos_emb.weight
    rows, columns, width = places.shape
    down, across = (_curves(torch.linspace(0, 1, n), width // 2, 4, numbers) for n in (rows, columns))
    places[..., : width // 2] = down[:, None] * 0.5
    places[..., width // 2 :] = across[None] * 0.5
    words = model.language_model.model.embed_tokens.weight
    words.copy_(torch.randn(words.shape, generator=numbers))
    first = model.config.ids.coord_start
    kin: dict[str, list[int]] = {}
    for token in range(first):
        kin.setdefault(tokenizer.decode([token]).strip().lower(), []).append(token)
    for tokens in kin.values():
        words[tokens[1:]] = 0.9 * words[tokens[0]] + math.sqrt(1 - 0.9**2) * words[tokens[1:]]
    curves = _curves(torch.linspace(0, 1, COORDINATES), words.shape[1], 12, numbers)
    words[first : first + COORDINATES] = curves
    output = output_matrix(model)
    output.copy_(torch.randn(output.shape, generator=numbers) * 0.02)
    output[first : first + COORDINATES] = curves * 0.04


def output_matrix(model: LocateAnything) -> Tensor:
    """Return the matrix that makes logits of hidden rows, `[V, D]`."""
    head = model.language_model.lm_head
    return model.language_model.model.embed_tokens.weight if head is None else head.weight


def _curves(places: Tensor, width: int, finest: float, numbers: torch.Generator) -> Tensor:
    """Return points `[n, width]` on smooth curves through places in 0…1, of unit variance, up to so many waves each."""
    waves = 2.0 ** torch.linspace(-2, math.log2(finest), width)
    phases = torch.rand(width, generator=numbers) * math.tau
    return math.sqrt(2) * torch.sin(math.tau * waves * places[:, None] + phases)
