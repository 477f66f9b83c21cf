"""LocateAnything through the public calls, on a small checkpoint that was fitted to a few answers."""

import asyncio
import gzip
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import groundlink
from groundlink.backends.locateanything import engine, preprocessing
from groundlink.backends.locateanything.backend import LocateAnythingBackend
from groundlink.backends.locateanything.engine import choose_device, choose_dtype
from groundlink.backends.locateanything.generate import Accepted
from groundlink.backends.locateanything.hub import OFFICIAL_MODEL
from groundlink.errors import (
    BackendUnavailable,
    BadImage,
    BadQuery,
    DeadlineExceeded,
    OutOfMemory,
    WeightsInvalid,
    WeightsNotFound,
)
from groundlink.locator import Locator
from tests.locateanything import samples

IMAGE = samples.IMAGES / "fit0.png"


def unseen():
    """A picture that no test has asked about, so that nothing is kept of it."""
    return np.random.default_rng().integers(0, 256, (56, 84, 3), dtype=np.uint8)


def load(**settings):
    return groundlink.load(
        "locateanything", **{"model": samples.FOLDER, "device": "cpu", "max_new_tokens": 40, **settings}
    )


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def locator():
    """The way it comes, but for the limit."""
    with load() as made:
        yield made


@pytest.fixture(scope="module")
def slow():
    """Token by token, this checkpoint says what it was fitted to."""
    with load(mode="slow") as made:
        yield made


QUERIES = {
    "fit0": groundlink.detect("car"),
    "fit1": groundlink.point("red button"),
    "fit2": groundlink.ground_one("dog"),
    "fit3": groundlink.read(),
    "extra": groundlink.point("cat"),
    "two": groundlink.example(samples.IMAGES / "extra1.png"),
}


@pytest.mark.parametrize("mode", ["fast", "slow", "hybrid"])
@pytest.mark.parametrize(("penalty", "top_p"), [(1.0, None), (1.1, None), (1.0, 0.9), (1.1, 0.9)])
def test_in_parity_the_public_call_says_what_the_published_model_says(mode, penalty, top_p):
    runs = json.loads(gzip.decompress((samples.SET / "generate.json.gz").read_bytes()))
    wanted = {
        run["case"]: run["answer"]
        for run in runs
        if (run["ckpt"], run["mode"], run["repetition_penalty"], run["top_p"]) == ("ckpt_fit", mode, penalty, top_p)
        and run["robust"]
    }
    assert len(wanted) >= 4
    images = {
        case["name"]: samples.SET / case["images"][0] for case in json.loads((samples.SET / "cases.json").read_text())
    }
    with load(mode=mode, repetition_penalty=penalty, top_p=top_p, parity=True) as locator:
        answers = locator.locate_batch([(images[case], QUERIES[case]) for case in wanted])
    assert [answer.raw[0] for answer in answers] == list(wanted.values())


def test_boxes_are_in_pixels_with_score_and_spread(slow):
    width, height = size(IMAGE)
    answer = slow.locate(IMAGE, groundlink.detect("car"))
    assert answer.status == "found"
    assert answer.complete
    first, second = answer
    assert first.label == second.label == "car"
    assert first.box == pytest.approx((0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height))
    assert second.box == pytest.approx((0.05 * width, 0.06 * height, 0.07 * width, 0.8 * height))
    for detection in answer:
        assert 0.5 < detection.score <= 1
        assert len(detection.spread) == 4
        assert all(0 <= spread < width for spread in detection.spread)


def test_points_and_nothing_and_text(slow):
    answer = slow.locate(samples.IMAGES / "fit1.png", groundlink.point("red button"))
    width, height = answer.size
    assert answer.best.point == pytest.approx((0.321 * width, 0.654 * height))
    assert len(answer.best.spread) == 2
    assert answer.best.label == "red button"

    nothing = slow.locate(samples.IMAGES / "fit2.png", groundlink.ground_one("dog"))
    assert nothing.status == "not_found"
    assert nothing.complete
    assert nothing.best is None
    assert nothing.raw == ("<box>None</box><|im_end|>",)

    read = slow.locate(samples.IMAGES / "fit3.png", groundlink.read())
    assert {found.text for found in read} == {found.label for found in read} == {"Stop here now"}


def test_a_plain_phrase_asks_for_everything_it_describes(slow):
    assert slow.locate(IMAGE, "a car").query.task == "ground"


def test_words_that_are_marks_are_refused_before_there_is_a_picture(slow):
    for phrase in ("a </c> b", "<box>", "the <image-2>", "<|im_end|>"):
        with pytest.raises(BadQuery, match="mark"):
            slow.check(groundlink.ground(phrase))
    assert slow.check(groundlink.detect("a car", "a dog")).phrases == ("a car", "a dog")
    slow.check(groundlink.read())


def test_an_array_a_picture_and_a_file_are_the_same(locator):
    with Image.open(IMAGE) as picture:
        answers = [locator.locate(image, "car").detections for image in (IMAGE, picture, np.asarray(picture))]
    assert answers[0] == answers[1] == answers[2]


def test_detections_come_while_the_answer_is_decoded(locator):
    whole = locator.locate(IMAGE, groundlink.detect("car"))
    stream = locator.stream(IMAGE, groundlink.detect("car"))
    first = next(stream)
    assert first == whole[0]
    assert (first, *stream) == whole.detections
    assert stream.result.raw == whole.raw


def test_a_stream_that_is_closed_stops_the_model(locator):
    asked = []
    decoder = locator.backend._engine.decoder

    def counted():
        asked.append(1)
        return type(decoder).step(decoder)

    decoder.step = counted
    try:
        stream = locator.stream(IMAGE, groundlink.detect("car"))
        next(stream)
        stream.close()
        assert stream.result.incomplete_reason == "cancelled"
        assert not stream.result.complete
        locator.locate(samples.IMAGES / "fit2.png", "dog", deadline=60)  # waits for the worker
        assert len(asked) < 40
    finally:
        del decoder.step


def test_asyncio(slow):
    async def ask():
        return await slow.alocate(IMAGE, groundlink.detect("car"))

    assert len(asyncio.run(ask())) == 2


def test_figures(locator):
    with load() as fresh:
        answer = fresh.locate(IMAGE, groundlink.detect("car"))
    figures = answer.timings_ms
    for stage in ("preprocess", "vision", "image_prefill", "prefill", "decode"):
        assert 0 < figures[stage] < figures["total"]
    tokens = samples.checkpoint().tokenizer.encode(answer.raw[0])
    assert figures["tokens"] == len(tokens)
    assert len(tokens) / 6 < figures["steps"] < len(tokens)
    assert figures["switches"] == 0 or figures["steps"] > figures["switches"]
    boxes = answer.raw[0].count("<box>")
    assert figures["boxes_per_second"] > boxes / figures["total"] * 1000
    assert figures["boxes_per_second"] < boxes / figures["decode"] * 1000


def test_the_limit_is_told(locator):
    with load(max_new_tokens=4, mode="slow") as short:
        answer = short.locate(IMAGE, groundlink.detect("car"))
    assert not answer.complete
    assert answer.incomplete_reason == "token_limit"
    assert "max_new_tokens is 4" in answer.reason


def test_a_deadline_is_kept(locator):
    with pytest.raises(DeadlineExceeded):
        locator.locate(IMAGE, "car", deadline=1e-9)


def test_the_same_seed_gives_the_same_answer():
    def drawn(seed):
        with load(temperature=2.0, seed=seed) as made:
            return made.locate(IMAGE, "car").raw

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


TOKENIZER = samples.checkpoint().tokenizer


class Scripted:
    """Puts answers into the mouth of a locator's model, one for each question, and keeps the questions."""

    def __init__(self, locator, monkeypatch, *answers, finish="end"):
        self.questions = []
        self.taken = 0
        self._answers = iter(answers)
        self._finish = finish
        monkeypatch.setattr(locator.backend._engine, "answer", self.answer)

    def answer(self, chat, *_):
        self.questions.append(chat)
        tokens = TOKENIZER.encode(next(self._answers))
        for i, token in enumerate(tokens):
            self.taken += 1
            finish = self._finish if i == len(tokens) - 1 else None
            yield Accepted([token], [math.log(0.5)], [10.0], None, [token], None, finish)


def box(*values):
    return f"<box>{''.join(f'<{value}>' for value in values)}</box>"


def test_many_categories_are_asked_in_groups_and_merged(locator, monkeypatch):
    categories = [f"thing {i}" for i in range(35)]
    script = Scripted(
        locator,
        monkeypatch,
        f"<ref>thing 3</ref>{box(1, 2, 3, 4)}<|im_end|>",
        "<box>None</box><|im_end|>",
        f"<ref>thing 33</ref>{box(5, 6, 7, 8)}{box(500, 500)}<|im_end|>",
    )
    # A category that is named twice is asked once.
    answer = locator.locate(IMAGE, groundlink.detect(*categories, "thing 0"))
    assert [found.label for found in answer] == ["thing 3", "thing 33", "thing 33"]
    assert len(answer.raw) == len(script.questions) == 3
    for number, question in enumerate(script.questions):
        assert "</c>".join(categories[number * 16 : (number + 1) * 16]) + ".<|im_end|>" in question
    assert answer.complete


@pytest.mark.parametrize(
    ("said", "label"),
    [("traffic light", "Traffic  Light"), ("PERSON", "person"), ("a cat", "a cat"), (None, "object"), ("  ", "object")],
)
def test_labels_come_back_as_the_caller_wrote_them(locator, monkeypatch, said, label):
    Scripted(locator, monkeypatch, (f"<ref>{said}</ref>" if said else "") + box(1, 2, 3, 4))
    (found,) = locator.locate(IMAGE, groundlink.detect("Traffic  Light", "person"))
    assert found.label == " ".join(label.split())  # queries fold white space


def test_a_label_of_another_group_comes_back_as_the_caller_wrote_it_too(locator, monkeypatch):
    said = f"<ref>THING 30</ref>{box(1, 2, 3, 4)}<|im_end|>"
    Scripted(locator, monkeypatch, said, "<|im_end|>")
    answer = locator.locate(IMAGE, groundlink.detect(*(f"Thing {i}" for i in range(32))))
    assert [found.label for found in answer] == ["Thing 30"]


def test_ten_thousand_categories_are_asked_in_groups_until_the_deadline(monkeypatch):
    categories = [f"thing {i}" for i in range(10_000)]
    with load(max_new_tokens=0) as quick:
        answer = quick.locate(IMAGE, groundlink.detect(*categories))
        assert answer.raw == ("",) * 625
        assert answer.incomplete_reason == "token_limit"
        with pytest.raises(BadQuery, match="'<5>'"):  # before anything is asked
            quick.locate(IMAGE, groundlink.detect(*categories[1:], "<5>"))
    with load() as made:
        answer = made.locate(IMAGE, groundlink.detect(*categories), deadline=1.5)
    assert answer.incomplete_reason == "deadline"
    assert len(answer)
    assert answer.timings_ms["total"] < 3000


def test_one_phrase_is_the_label_whatever_the_model_calls_it(locator, monkeypatch):
    Scripted(locator, monkeypatch, "<ref>vehicle</ref>" + box(1, 2, 3, 4))
    assert [found.label for found in locator.locate(IMAGE, groundlink.detect("car"))] == ["car"]


def test_score_and_spread_reach_the_caller_in_pixels(locator, monkeypatch):
    Scripted(locator, monkeypatch, box(300, 200, 100, 400))  # swapped corners
    (found,) = locator.locate(IMAGE, groundlink.detect("car"))
    width, height = size(IMAGE)
    assert found.box == pytest.approx((0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height))
    assert found.score == pytest.approx(0.5)
    assert found.spread == pytest.approx((0.01 * width, 0.01 * height, 0.01 * width, 0.01 * height))


def test_going_round_in_circles_is_stopped_told_and_dropped(locator, monkeypatch):
    circle = (box(1, 2, 30, 40) + box(5, 6, 70, 80)) * 100
    script = Scripted(locator, monkeypatch, circle, finish="token_limit")
    answer = locator.locate(IMAGE, groundlink.detect("car"))
    assert len(answer) == 2
    assert answer.incomplete_reason == "repetition"
    assert not answer.complete
    assert "repeat" in answer.reason
    assert script.taken < 60

    with load(parity=True) as published:
        script = Scripted(published, monkeypatch, circle, finish="token_limit")
        answer = published.locate(IMAGE, groundlink.detect("car"))
    assert len(answer) == 200
    assert answer.incomplete_reason == "token_limit"
    assert script.taken == 1200


def test_a_malformed_box_is_told_and_never_a_detection(locator, monkeypatch):
    Scripted(locator, monkeypatch, f"<box><1><2><3></box>{box(1, 2, 3, 4)}<box><0><null></box><|im_end|>")
    answer = locator.locate(IMAGE, groundlink.detect("car"))
    assert len(answer) == 1
    assert answer.incomplete_reason == "garbled"
    assert "2 malformed boxes" in answer.reason


def test_an_answer_that_breaks_off_is_told(locator, monkeypatch):
    Scripted(locator, monkeypatch, box(1, 2, 3, 4) + "!", finish="garbled")
    assert locator.locate(IMAGE, "car").incomplete_reason == "garbled"


def test_a_box_without_area_is_dropped_and_counted(locator, monkeypatch):
    Scripted(locator, monkeypatch, box(10, 10, 10, 40) + box(1, 2, 3, 4) + "<|im_end|>")
    answer = locator.locate(IMAGE, "car")
    assert len(answer) == 1
    assert answer.complete
    assert "1 detection without area" in answer.reason


def test_several_where_one_was_asked_for_is_ambiguous(locator, monkeypatch):
    Scripted(locator, monkeypatch, box(1, 2, 3, 4) + box(5, 6, 7, 8))
    assert locator.locate(IMAGE, groundlink.gui("Save")).status == "ambiguous"


def looks(monkeypatch):
    """Keep the pictures that are prepared for the vision tower."""
    looked_at = []
    prepare = preprocessing.preprocess
    monkeypatch.setattr(
        engine, "preprocess", lambda picture, limit: looked_at.append(picture) or prepare(picture, limit)
    )
    return looked_at


def test_an_example_is_cut_from_the_image_itself(monkeypatch):
    locator = load()
    looked_at = looks(monkeypatch)
    locator.locate(IMAGE, groundlink.example(box=(100, 200, 700, 900), box_format="normalized_1000"))
    whole, cut = looked_at
    width, height = whole.size
    assert cut.size == (round(0.7 * width) - round(0.1 * width), round(0.9 * height) - round(0.2 * height))


@pytest.mark.parametrize(
    ("query", "error", "told"),
    [
        (groundlink.example("no-such.png"), BadImage, "no-such.png"),
        (groundlink.example(Image.new("RGB", (0, 5))), BadImage, "0×5"),
        (groundlink.example(Image.new("RGB", (8000, 14))), BadImage, "8000×14"),
        (groundlink.example((samples.IMAGES / "extra1.png").read_bytes()[:200]), BadImage, "cut short"),
        (groundlink.example(box=(5000, 5000, 6000, 6000)), BadQuery, r"outside of .*fit0\.png"),
        (groundlink.example(box=(1, 0, 2, 1), box_format="normalized_1"), BadQuery, "outside"),
        (groundlink.example(box=(-9, 0, 0, 900), box_format="normalized_1000"), BadQuery, "outside"),
    ],
)
def test_examples_that_show_nothing_are_refused(locator, query, error, told):
    with pytest.raises(error, match=told):
        locator.locate(IMAGE, query)


def test_an_example_is_a_file_or_a_part_of_one(monkeypatch):
    locator = load(cache_bytes=0)
    looked_at = looks(monkeypatch)
    other = samples.IMAGES / "extra1.png"
    with Image.open(other) as stored:
        whole = stored.convert("RGB")
    locator.locate(IMAGE, groundlink.example(other))
    locator.locate(IMAGE, groundlink.example(other, box=(0, 0, 0.5, 1), box_format="normalized_1"))
    assert np.array_equal(looked_at[1], whole)
    assert np.array_equal(looked_at[3], whole.crop((0, 0, round(whole.width / 2), whole.height)))


@pytest.mark.parametrize("phrase", ["</box>", "a <5> b", "<|im_end|>", "<image-1>"])
def test_a_phrase_that_would_change_the_prompt_is_refused(locator, phrase):
    with pytest.raises(BadQuery, match="plain words"):
        locator.locate(IMAGE, groundlink.gui(phrase))


def test_a_bad_pair_does_not_fail_the_rest(locator):
    answers = locator.locate_batch([(IMAGE, "car"), (IMAGE, "<5>"), (IMAGE, "car")])
    assert isinstance(answers[1], BadQuery)
    assert answers[0].detections == answers[2].detections


@pytest.mark.parametrize("size", [(7141, 14), (14, 8000), (3, 7141)])
def test_sides_beyond_the_position_table_are_refused(locator, size):
    with pytest.raises(BadImage, match=f"{size[0]}×{size[1]}"):
        locator.locate(Image.new("RGB", size), "car")


def test_a_prompt_beyond_the_model_is_refused(locator):
    with pytest.raises(BadQuery, match="the model takes 4096"):
        locator.locate(IMAGE, groundlink.detect(*(f"{i} " + "wgz" * 320 for i in range(16))))


def test_memory_that_runs_out_is_told(locator, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(locator.backend._engine.model, "encode_images", full)
    with pytest.raises(OutOfMemory, match="smaller"):
        locator.locate(unseen(), "car")


def test_another_fault_is_not_taken_for_memory(locator, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(locator.backend._engine.model, "encode_images", broken)
    with pytest.raises(groundlink.GroundlinkError, match="shapes differ"):
        locator.locate(unseen(), "car")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "quick"}, "mode 'quick'"),
        ({"temperature": -1}, "temperature -1"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": 2.5}, "group_size"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"dtype": "int8"}, "int8"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_unfit_settings_are_refused(settings, told):
    with pytest.raises(BackendUnavailable, match=told):
        load(**settings)


def test_missing_and_broken_weights_are_told(tmp_path):
    with pytest.raises(WeightsNotFound, match="no-such"):
        load(model="no-such")
    with pytest.raises(WeightsInvalid, match=r"config\.json is missing"):
        load(model=tmp_path)


def test_devices_and_types():
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_boxes(slow, dtype):
    with load(mode="slow", dtype=dtype) as half:
        ours, theirs = half.locate(IMAGE, groundlink.detect("car")), slow.locate(IMAGE, groundlink.detect("car"))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.box == pytest.approx(b.box, abs=0.05 * max(ours.size))


def test_it_is_taken_by_default_only_where_weights_and_cuda_are_at_hand(monkeypatch):
    assert not LocateAnythingBackend.at_hand("someone/not-here")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert not LocateAnythingBackend.at_hand(samples.FOLDER)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert LocateAnythingBackend.at_hand(samples.FOLDER)
    monkeypatch.delenv("GROUNDLINK_BACKEND", raising=False)
    with groundlink.load(model=samples.FOLDER, device="cpu") as chosen:
        assert chosen.info.name == "locateanything"


def test_the_default_is_chosen_without_heavy_imports_where_no_weights_are_kept(tmp_path):
    code = (
        "import sys, groundlink; assert groundlink._choose({})[0] == 'ocr';"
        "assert not {'torch', 'huggingface_hub.file_download', 'tokenizers'} & set(sys.modules)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_command_line_takes_a_model_and_tells_its_figures():
    line = [
        "-c", "from groundlink.cli import main; main()",
        "locate", str(IMAGE), "car", "--task", "detect", "--backend", "locateanything",
        "--model", str(samples.FOLDER), "--set", "device=cpu", "--set", "mode=slow", "--set", "max_new_tokens=40",
        "--verbose",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "car" in done.stdout
    assert "non-commercial" in done.stderr
    assert "said: <ref>" in done.stderr
    for figure in ("preprocess", "vision", "prefill", "decode", "tokens", "steps", "switches", "boxes_per_second"):
        assert f"  {figure}: " in done.stderr


def test_the_example_of_the_readme_runs_on_another_model_and_picture():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(.*?)```", readme, re.DOTALL)
    for told, given in (
        (f'"{OFFICIAL_MODEL}"', f'{str(samples.FOLDER)!r}, device="cpu"'),
        ('"street.jpg"', f"{str(IMAGE)!r}"),
    ):
        assert code.count(told) == 1
        code = code.replace(told, given)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(" in done.stdout


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("groundlink.backends.locateanything.backend.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'groundlink\[locateanything\]'"):
        load()
    assert not LocateAnythingBackend.at_hand(samples.FOLDER)


def test_the_memory_of_a_closed_locator_is_free():
    made = load()
    assert isinstance(made, Locator)
    made.close()
    assert not hasattr(made.backend, "_engine")
