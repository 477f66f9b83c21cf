"""Questions and chats: every task's words, where pictures go, and what a phrase may not do."""

import pytest
from PIL import Image

from groundlink.backends.locateanything.prompt import (
    QUESTIONS,
    Turn,
    build_chat,
    build_question,
    check_phrase,
    expand_tags,
    place_examples,
)
from groundlink.errors import BadQuery
from groundlink.query import TASKS
from tests.locateanything import samples

TOKENIZER = samples.checkpoint().tokenizer
ONE, TWO = Image.new("RGB", (28, 28)), Image.new("RGB", (56, 28))


def test_every_task_has_its_question():
    assert set(QUESTIONS) == set(TASKS)


def test_categories_stand_in_one_question():
    assert build_question("detect", ["person", "traffic light"], TOKENIZER) == (
        "Locate all the instances that matches the following description: person</c>traffic light."
    )
    assert build_question("read", [], TOKENIZER) == "Detect all the text in box format."


def said(*content):
    chat, images = build_chat([Turn("user", content)])
    begin = "<|im_start|>system\nYou are a helpful assistant.\n<|im_end|>\n<|im_start|>user\n"
    end = "<|im_end|>\n<|im_start|>assistant\n"
    assert chat.startswith(begin)
    assert chat.endswith(end)
    return chat[len(begin) : -len(end)], images


def test_pictures_stand_where_they_are_said():
    assert said(ONE, "a") == ("<image-1>a", [ONE])
    assert said("a", ONE, "b", TWO) == ("a<image-1>b<image-2>", [ONE, TWO])


def test_pictures_with_a_tag_stand_at_the_tag():
    assert said(ONE, TWO, "<image-2> is like <image-1>") == ("<image-2> is like <image-1>", [ONE, TWO])
    assert said(ONE, TWO, "see <image-2>") == ("<image-1>see <image-2>", [ONE, TWO])


def test_earlier_turns_and_their_pictures_come_first():
    chat, images = build_chat(
        [Turn("user", [ONE, "q"]), Turn("assistant", ["a"]), Turn("user", [TWO, "r"])], "Be brief."
    )
    assert images == [ONE, TWO]
    assert chat == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image-1>q<|im_end|>\n"
        "<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\n<image-2>r<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tags_become_runs_of_image_tokens():
    text, order = expand_tags("<image-2>, <image-1>, <image-2>", [(2, 2), (2, 4)])
    wide, small = "<img><IMG_CONTEXT><IMG_CONTEXT></img>", "<img><IMG_CONTEXT></img>"
    assert text == f"<image 2>{wide}, <image 1>{small}, <image 2>{wide}"
    assert order == [1, 0, 1]


@pytest.mark.parametrize("tag", ["<image-0>", "<image-3>", "<image-999999999>"])
def test_a_tag_without_its_picture_is_refused(tag):
    with pytest.raises(BadQuery, match=tag):
        expand_tags(f"see {tag}", [(2, 2), (2, 2)])


@pytest.mark.parametrize(
    ("question", "count", "named", "placed"),
    [
        ("find it", 0, None, "find it"),
        ("find it", 1, None, "find it\nVisual prompt: <image-2>"),
        ("find <visual_prompt>, <visual_prompt>", 1, None, "find <image-2>, <visual_prompt>"),
        ("{visual_prompt} or <visual_prompt>", 1, None, "<image-2> or <visual_prompt>"),
        ("the car and the car", 2, "the car", "<image-2> and the car<image-3>"),
        ("the dog", 1, "the car", "the dog\nVisual prompt: <image-2>"),
    ],
)
def test_examples_take_the_place_of_their_marker(question, count, named, placed):
    assert place_examples(question, count, named) == placed


INJECTIONS = ["</box>", "<box>", "<|im_end|>", "<|im_start|>system", "<IMG_CONTEXT>", "<5>", "<1000>", "</c>", "<null>",
              "<ref>", "<text_mask>", "</img>", "<image-1>", "<visual_prompt>", "{visual_prompt}"]  # fmt: skip


@pytest.mark.parametrize("mark", INJECTIONS)
@pytest.mark.parametrize("around", ["{}", "a red {} car", "x{}"])
def test_phrases_with_the_models_own_marks_are_refused(mark, around):
    phrase = around.format(mark)
    with pytest.raises(BadQuery) as caught:
        build_question("detect", ["person", phrase], TOKENIZER)
    assert repr(phrase) in str(caught.value)


def test_every_special_token_of_the_tokenizer_is_refused():
    for name in TOKENIZER.added.values():
        with pytest.raises(BadQuery):
            check_phrase(name, TOKENIZER)


@pytest.mark.parametrize(
    "phrase",
    ["a < b > c", "<5", "5>", "< 5 >", "</ c>", "<im_end>", "{}", "{0}", "%s", "<image 1>", "<1001>", "日本語 ≮"],
)
def test_other_phrases_are_words(phrase):
    question = build_question("gui", [phrase], TOKENIZER)
    assert phrase in question
    assert not set(TOKENIZER.encode(question)) & set(TOKENIZER.added)
