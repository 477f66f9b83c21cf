"""What a LocateAnything checkpoint says about itself: sizes, token ids and limits, read from its JSON files as data.

Nothing is assumed that the files can say. Whatever does not fit is added to a list of problems, so that one error can
name them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATCH = 14  # pixels per side of a vision patch
MERGE = 2  # patches per side that become one token of the language model
WINDOW = 6  # rows of a parallel step, and tokens of a block: `<box> x1 y1 x2 y2 </box>`
COORDINATES = 1001  # <0> … <1000>

TokenToId = Callable[[str], "int | None"]

DEFAULT_PATCH_LIMIT = 4096  # where preprocessor_config.json names none


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    init_pos_emb_height: int
    init_pos_emb_width: int


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the language model."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    rope_theta: float
    rms_norm_eps: float

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class TokenIds:
    """The ids that mean something to the decoder. Coordinates are `coord_start + 0 … coord_start + 1000`."""

    end: int
    image: int
    box_start: int
    box_end: int
    ref_start: int
    ref_end: int
    coord_start: int
    coord_end: int
    none: int
    null: int
    text_mask: int


@dataclass(frozen=True)
class Config:
    """All that a checkpoint's JSON files say."""

    vision: VisionConfig
    text: TextConfig
    tied: bool  # the output matrix is the embedding matrix
    ids: TokenIds
    patch_limit: int  # an image of more patches is made smaller first
    max_length: int | None  # of prompt and answer together


# Field of TokenIds: where config.json has it, and the token's text in the tokenizer.
_TOKENS: dict[str, tuple[tuple[str, ...], str]] = {
    "end": (("text_config", "eos_token_id"), "<|im_end|>"),
    "image": (("image_token_index",), "<IMG_CONTEXT>"),
    "box_start": (("box_start_token_id",), "<box>"),
    "box_end": (("box_end_token_id",), "</box>"),
    "ref_start": (("ref_start_token_id",), "<ref>"),
    "ref_end": (("ref_end_token_id",), "</ref>"),
    "coord_start": (("coord_start_token_id",), "<0>"),
    "coord_end": (("coord_end_token_id",), f"<{COORDINATES - 1}>"),
    "none": (("none_token_id",), "None"),
    "null": (("text_config", "null_token_id"), "<null>"),
    "text_mask": (("text_config", "text_mask_token_id"), "<text_mask>"),
}
# Nobody here reads it, but a checkpoint that disagrees about it is broken all the same.
_SWITCH = (("text_config", "switch_token_id"), "<switch>")
_BY_NAME = ("<|im_start|>", "<img>", "</img>", "</c>")


def read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one and a problem."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    return value


def read_config(folder: Path, token_to_id: TokenToId | None, problems: list[str]) -> Config | None:
    """Read a checkpoint's configuration, adding to `problems` whatever is wrong with it.

    `token_to_id` is the tokenizer's, None where there is no tokenizer. The result is None where the sizes are unknown
    or belong to another model. A config with other problems is still returned, so that the tensors can be checked
    against it; it must not be run.
    """
    raw = read_json(folder / "config.json", problems)
    if not raw:
        return None
    if raw.get("model_type") != "locateanything":
        problems.append(f"config.json is of model_type {raw.get('model_type')!r}, not 'locateanything'")
        return None

    before = len(problems)
    vision_raw = _section(raw, "vision_config", problems)
    text_raw = _section(raw, "text_config", problems)
    _expect(vision_raw, "vision_config", {"patch_size": (PATCH,), "merge_kernel_size": ([MERGE, MERGE],)}, problems)
    _expect(text_raw, "text_config", _TEXT_EXPECTED, problems)
    sizes = {
        name: {key: _number(section, name, key, kind, problems) for key, kind in cls.__annotations__.items()}
        for name, section, cls in (("vision_config", vision_raw, VisionConfig), ("text_config", text_raw, TextConfig))
    }
    if len(problems) > before:
        return None
    vision = VisionConfig(**sizes["vision_config"])
    text = TextConfig(**sizes["text_config"])
    if vision.hidden_size % (4 * vision.num_attention_heads):
        problems.append("config.json: vision_config.hidden_size is no multiple of 4 * num_attention_heads")
    if text.hidden_size % (2 * text.num_attention_heads):
        problems.append("config.json: text_config.hidden_size is no multiple of 2 * num_attention_heads")
    if text.num_attention_heads % text.num_key_value_heads:
        problems.append("config.json: text_config.num_attention_heads is no multiple of num_key_value_heads")
    if len(problems) > before:
        return None

    return Config(
        vision,
        text,
        tied=bool(raw.get("tie_word_embeddings", text_raw.get("tie_word_embeddings", True))),
        ids=_token_ids(raw, token_to_id, text.vocab_size, problems),
        patch_limit=_optional_number(folder / "preprocessor_config.json", "in_token_limit", problems)
        or DEFAULT_PATCH_LIMIT,
        max_length=_optional_number(folder / "tokenizer_config.json", "model_max_length", problems),
    )


# What the model is written for, as values of text_config; None stands for a key that is missing.
_TEXT_EXPECTED: dict[str, tuple[Any, ...]] = {
    "block_size": (WINDOW, None),
    "hidden_act": ("silu", None),
    "rope_scaling": (None,),
    "use_sliding_window": (False, None),
    "causal_attn": (False, None),
}


def _section(raw: dict[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    value = raw.get(key)
    if isinstance(value, dict):
        return value
    problems.append(f"config.json has no {key}")
    return {}


def _expect(section: dict[str, Any], name: str, expected: dict[str, tuple[Any, ...]], problems: list[str]) -> None:
    for key, values in expected.items():
        if section and section.get(key) not in values:
            problems.append(f"config.json: {name}.{key} is {section.get(key)!r}; only {values[0]!r} is supported")


def _number(section: dict[str, Any], name: str, key: str, kind: str, problems: list[str]) -> Any:
    value = section.get(key)
    sound = isinstance(value, int | float if kind == "float" else int) and not isinstance(value, bool) and value > 0
    if section and not sound:
        problems.append(f"config.json: {name}.{key} is {value!r}, not a positive number")
    return value


def _optional_number(path: Path, key: str, problems: list[str]) -> int | None:
    if not path.exists():
        return None
    value = read_json(path, problems).get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        problems.append(f"{path.name}: {key} is {value!r}, not a positive number")
        return None
    return int(value)


def _token_ids(raw: dict[str, Any], token_to_id: TokenToId | None, vocab_size: int, problems: list[str]) -> TokenIds:
    """Take each id from the config, or by name where it has no key, and hold the two against each other."""
    if token_to_id is None:
        return TokenIds(**dict.fromkeys(_TOKENS, -1))

    def lookup(path: tuple[str, ...], text: str, needed: bool = True) -> int:
        section = raw
        for key in path[:-1]:
            section = section.get(key) or {}
        told, known = section.get(path[-1]), token_to_id(text)
        if known is None and needed:
            problems.append(f"the tokenizer has no token {text}")
        elif known is not None and known >= vocab_size:
            problems.append(f"the tokenizer's id {known} for {text} is outside the vocabulary of {vocab_size}")
        if told is not None and known is not None and told != known:
            problems.append(f"{text} is {told!r} in config.json ({'.'.join(path)}) and {known} in the tokenizer")
        return known if known is not None else -1

    ids = TokenIds(**{field: lookup(*where) for field, where in _TOKENS.items()})
    lookup(*_SWITCH, needed=False)
    for text in _BY_NAME:
        if token_to_id(text) is None:
            problems.append(f"the tokenizer has no token {text}")
    stray = [n for n in range(COORDINATES) if token_to_id(f"<{n}>") != ids.coord_start + n]
    if ids.coord_start >= 0 and stray:
        problems.append(f"the coordinates <0> to <{COORDINATES - 1}> are not consecutive ids: <{stray[0]}> is astray")
    return ids
