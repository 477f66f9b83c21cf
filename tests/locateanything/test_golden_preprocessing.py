"""Golden set 1: pictures, prompts, crops and answers, exactly."""

import hashlib
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from groundlink.backends.locateanything.parse import parse_answer
from groundlink.backends.locateanything.preprocessing import crop_box, image_grid, image_tokens, preprocess
from groundlink.backends.locateanything.prompt import (
    EXAMPLE_MARKERS,
    SYSTEM,
    Tokenizer,
    Turn,
    build_chat,
    expand_tags,
    place_examples,
)
from groundlink.backends.locateanything.vision import normalise
from groundlink.errors import BadImage, BadQuery
from tests.locateanything import golden_data as golden

PROMPT_LIMIT = 25600


def sha256(pixels):
    return hashlib.sha256(pixels.astype("<f4").tobytes()).hexdigest()


def numbers(patches):
    return normalise(torch.from_numpy(patches)).numpy()


def test_golden_pictures_become_the_same_patches():
    stored = load_file(golden.FOLDER / "g1/pixel_values_u8.safetensors")
    compared = 0
    for row in golden.read("g1/preprocess.json"):
        picture = golden.image(f"g1/{row['image']}")
        if "error_type" in row:
            with pytest.raises(BadImage):
                preprocess(picture, row["in_token_limit"])
            continue
        patches, grid = preprocess(picture, row["in_token_limit"])
        assert list(grid) == row["grid_hw"] == list(image_grid(*picture.size, row["in_token_limit"]))
        assert image_tokens(grid) == row["num_image_tokens"]
        assert list(patches.shape) == row["pixel_shape"]
        assert sha256(numbers(patches)) == row["sha256_f32le"], row["image"]
        if "full_tensor" in row:
            assert np.array_equal(patches, stored[row["full_tensor"]])
            compared += 1
    assert compared


def prompt_picture(name, case):
    cut = re.match(r"crop of ([\w-]+)[^,]*, box \[([\d., -]+)\] (\w+)", name)
    if cut:
        source = prompt_picture(cut[1], case)
        return source.crop(crop_box(*source.size, [float(v) for v in cut[2].split(",")], cut[3]))
    (path,) = (golden.FOLDER / "g1/images").glob(re.match(r"[\w-]+", name)[0] + ".*")
    picture = golden.image(f"g1/images/{path.name}")
    return picture if case.endswith("from_file") else picture.convert("RGB")


def named_text(row):
    """Return the text that the caller names: what the question has where the chat has the example's tag."""
    user = re.search(r"<image-1>(.*)<\|im_end\|>", row["chat_text"], re.DOTALL)[1]
    before, after = user.split("<image-2>", 1)
    return row["question"][len(before) : len(row["question"]) - len(after)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(golden.FOLDER / "g2" / golden.CHECKPOINTS[0] / "tokenizer.json")


@pytest.mark.parametrize("row", golden.read("g1/prompts.json"), ids=lambda row: row["case"])
def test_golden_prompts(row, tokenizer):
    pictures = [prompt_picture(name, row["case"]) for name in row["images_in_list_order"]]
    prepared = [preprocess(picture, PROMPT_LIMIT) for picture in pictures]
    grids = [grid for _, grid in prepared]

    if "question" in row:
        unmarked = not any(mark in row["question"] for mark in EXAMPLE_MARKERS)
        appended = "\nVisual prompt: <image-2>" in row["chat_text"]
        named = named_text(row) if len(pictures) > 1 and unmarked and not appended else None
        question = place_examples(row["question"], len(pictures) - 1, named)
        chat, order = build_chat([Turn("user", [pictures[0], question, *pictures[1:]])])
        assert order == pictures
        assert chat == row["chat_text"]
    if "error_type" in row:
        with pytest.raises(BadQuery, match="<image-"):
            expand_tags(row["chat_text"], grids)
        return

    text, order = expand_tags(row["chat_text"], grids)
    assert text == row["final_text"]
    assert tokenizer.encode(text) == row["input_ids"]
    assert [list(grids[i]) for i in order] == row["grid_hws"]
    assert sha256(numbers(np.concatenate([prepared[i][0] for i in order]))) == row["pixel_sha256_f32le"]


def test_golden_chats_are_built_from_their_turns():
    """Pictures are given by their tags here; where those without a tag go is tested by hand in test_prompt.py."""
    for row in golden.read("g1/prompts.json"):
        said = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n", row["chat_text"], re.DOTALL)
        assert said[0][0] == "system"
        turns = [Turn(role, [text]) for role, text in said[1:]]
        chat, _ = build_chat(turns) if said[0][1] == SYSTEM else build_chat(turns, said[0][1])
        assert chat == row["chat_text"]


def test_golden_crops():
    for row in golden.read("g1/crop.json"):
        assert list(crop_box(row["width"], row["height"], row["box"], row["box_format"])) == row["crop_ltrb"], row


def test_golden_answers():
    for row in golden.read("g1/parse.json"):
        found = parse_answer(row["answer"], row["width"], row["height"])
        boxes = [dict(zip(("x1", "y1", "x2", "y2"), item.box, strict=True)) for item in found if item.box]
        points = [dict(zip(("x", "y"), item.point, strict=True)) for item in found if item.point]
        assert boxes == [pytest.approx(box) for box in row["boxes"]], row
        assert points == [pytest.approx(point) for point in row["points"]], row
