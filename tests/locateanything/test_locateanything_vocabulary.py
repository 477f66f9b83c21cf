"""Checkpoints of other sizes and with other token ids: what an answer says depends on neither."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import groundlink
from groundlink.backends.locateanything.config import COORDINATES, read_config
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.prompt import Tokenizer
from tests.locateanything import samples

EMBEDDING, OUTPUT = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
QUESTIONS = [
    ("fit0", groundlink.detect("car")),
    ("fit1", groundlink.point("red button")),
    ("fit2", groundlink.ground_one("dog")),
    ("fit3", groundlink.read()),
    ("extra0", groundlink.example(samples.IMAGES / "extra1.png")),
]
OTHER_VISION = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "init_pos_emb_height": 5,
    "init_pos_emb_width": 12,
}
OTHER_TEXT = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 80,
    "vocab_size": 1400,
    "rope_theta": 500.0,
    "rms_norm_eps": 1e-5,
}


def write(path, data):
    path.write_text(json.dumps(data), encoding="utf-8")


def other_sizes(folder):
    """Make a checkpoint of random weights in sizes unlike those of the sample, with an output matrix of its own."""
    shutil.copytree(samples.FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= OTHER_VISION
    config["text_config"] |= OTHER_TEXT
    write(folder / "config.json", config | {"tie_word_embeddings": False})
    torch.manual_seed(5)
    config = read_config(folder, Tokenizer(folder / "tokenizer.json").token_to_id, [])
    model = LocateAnything(config)
    tensors = {name: torch.randn(value.shape) * 0.3 for name, value in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def renumbered(source, folder, everywhere):
    """Copy a checkpoint with other ids for the tokens, the coordinates in a row; and untied.

    The ids of added tokens stay behind those of the ordinary ones, as the tokenizers library writes them, or are mixed
    with them: then a file names them among its ordinary tokens too.
    """
    shuffle = random.Random(7)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "vocab.json", "added_tokens.json"))
    data = json.loads((source / "tokenizer.json").read_text())
    words = sorted(data["model"]["vocab"].items(), key=lambda item: item[1])
    names = {token["id"]: token["content"] for token in data["added_tokens"]}
    coords = [next(i for i, name in names.items() if name == f"<{n}>") for n in range(COORDINATES)]
    others = [i for i in names if i not in set(coords)]
    ordinary = [i for _, i in words]
    if everywhere:
        before, after = ordinary[:100] + others[:20], ordinary[100:] + others[20:]
        shuffle.shuffle(before)
        shuffle.shuffle(after)
        order = before + coords + after
    else:
        shuffle.shuffle(ordinary)
        shuffle.shuffle(others)
        order = ordinary + others[:9] + coords + others[9:]
    assert len(set(order)) == len(order) == len(words) + len(names)
    new = {old: number for number, old in enumerate(order)}

    data["model"]["vocab"] = {word: new[i] for word, i in words}
    if everywhere:
        data["model"]["vocab"] |= {name: new[i] for i, name in names.items()}
    for token in data["added_tokens"]:
        token["id"] = new[token["id"]]
    data["added_tokens"].sort(key=lambda token: token["id"])
    write(folder / "tokenizer.json", data)

    config = json.loads((source / "config.json").read_text())
    for section in (config, config["text_config"]):
        for key, value in section.items():
            if key.endswith("token_id") or key == "image_token_index":
                section[key] = new[value]
    config["tie_word_embeddings"] = False
    write(folder / "config.json", config)

    tensors = load_file(source / "model.safetensors")
    tensors.setdefault(OUTPUT, tensors[EMBEDDING].clone())
    for name in (EMBEDDING, OUTPUT):
        before = tensors[name].clone()
        tensors[name][list(new.values())] = before[list(new)]
    save_file(tensors, folder / "model.safetensors")
    return new


def ask(folder, mode, penalty=1.1):
    with groundlink.load(
        "locateanything", model=folder, device="cpu", mode=mode, max_new_tokens=40, repetition_penalty=penalty
    ) as locator:
        answers = [locator.locate(samples.IMAGES / f"{name}.png", query) for name, query in QUESTIONS]
    return [(answer.raw, answer.incomplete_reason, [(d.label, d.box, d.point) for d in answer]) for answer in answers]


@pytest.mark.parametrize("mode", ["fast", "slow", "hybrid"])
@pytest.mark.parametrize("sizes", ["sample", "other"])
def test_an_answer_does_not_depend_on_token_ids(sizes, mode, tmp_path):
    source = samples.FOLDER if sizes == "sample" else other_sizes(tmp_path / "other sizes")
    wanted = ask(source, mode)
    assert any(raw != ("",) for raw, *_ in wanted)
    for everywhere in (False, True):
        renumbered(source, tmp_path / f"ids-{everywhere}", everywhere)
        assert ask(tmp_path / f"ids-{everywhere}", mode) == wanted


def test_renumbering_moves_every_token_that_means_something(tmp_path):
    for everywhere in (False, True):
        new = renumbered(samples.FOLDER, tmp_path / str(everywhere), everywhere)
        tokenizer = Tokenizer(tmp_path / str(everywhere) / "tokenizer.json")
        before = samples.checkpoint().config.ids
        after = read_config(tmp_path / str(everywhere), tokenizer.token_to_id, []).ids
        assert {new[i] for i in vars(before).values()} == set(vars(after).values())
        assert sum(new[i] == i for i in vars(before).values()) <= 1
        # Prompts are the same tokens under other names.
        for text in ("<img><IMG_CONTEXT></img>Point to: red button.<|im_end|>\n", "a</c>b <box><7><1000></box>None"):
            assert tokenizer.encode(text) == [new[i] for i in samples.checkpoint().tokenizer.encode(text)]
