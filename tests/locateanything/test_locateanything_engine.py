"""The engine behind the public calls: an image is paid for once, memory that runs out is freed, loading is told."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import groundlink
from groundlink.backends.locateanything import engine as engine_module
from groundlink.backends.locateanything.kept import Kept
from groundlink.backends.locateanything.settings import Settings
from groundlink.errors import BackendUnavailable, OutOfMemory
from groundlink.image import ImageStore
from tests.locateanything import samples

IMAGE, OTHER = samples.IMAGES / "fit0.png", samples.IMAGES / "fit1.png"
OF_THE_IMAGE = ("preprocess", "vision", "image_prefill")
CAR = groundlink.detect("car")


def load(**settings):
    return groundlink.load(
        "locateanything", **{"model": samples.FOLDER, "device": "cpu", "max_new_tokens": 40, **settings}
    )


@pytest.fixture
def locator():
    with load() as made:
        yield made


def paid(answer):
    """Return what of the image's costs a call has paid."""
    return {stage for stage in OF_THE_IMAGE if answer.timings_ms[stage] > 0}


QUESTIONS = [CAR, groundlink.ground("car"), groundlink.point("red button"), groundlink.read(), groundlink.gui("Save")]


def test_later_questions_on_the_same_pixels_cost_nothing_of_the_image(locator):
    first = locator.locate(IMAGE, QUESTIONS[0])
    assert paid(first) == set(OF_THE_IMAGE)
    for question in QUESTIONS:
        later = locator.locate(IMAGE, question)
        assert paid(later) == set()
        assert {stage: later.timings_ms[stage] for stage in OF_THE_IMAGE} == dict.fromkeys(OF_THE_IMAGE, 0.0)
        assert later.timings_ms["prefill"] > 0
        with load(cache_bytes=0) as forgetful:
            cold = forgetful.locate(IMAGE, question)
            assert paid(forgetful.locate(IMAGE, question)) == set(OF_THE_IMAGE)
        assert later.raw == cold.raw
        assert later.detections == cold.detections
    assert paid(locator.locate(OTHER, CAR)) == set(OF_THE_IMAGE)
    assert paid(locator.locate(IMAGE, CAR)) == set()


def test_the_same_pixels_are_known_in_any_form(locator, tmp_path):
    with Image.open(IMAGE) as picture:
        picture.load()
    first = locator.locate(IMAGE, CAR)
    stored = io.BytesIO()
    picture.save(stored, "BMP")
    copy = tmp_path / "copy.png"
    picture.save(copy, compress_level=1)
    for form in (picture, np.asarray(picture.convert("RGB")), IMAGE.read_bytes(), stored.getvalue(), copy):
        again = locator.locate(form, CAR)
        assert paid(again) == set()
        assert again.detections == first.detections
    changed = np.array(picture.convert("RGB"))
    changed[0, 0, 0] ^= 1
    assert paid(locator.locate(changed, CAR)) == set(OF_THE_IMAGE)


def test_what_identifies_pixels_is_found_once(monkeypatch):
    store = ImageStore()
    opened = store.open(IMAGE)
    with Image.open(IMAGE) as picture:
        assert opened.content == store.open(picture).content == store.open(IMAGE.read_bytes()).content
    monkeypatch.setattr("groundlink.image.decode", None)  # a file that is known is not decoded for it again
    assert store.open(IMAGE).content == opened.content


def test_the_groups_of_a_query_share_their_image(locator):
    with load(group_size=1, max_new_tokens=6) as grouped:
        answer = grouped.locate(IMAGE, groundlink.detect("car", "dog", "cat"))
    assert len(answer.raw) == 3
    reads = []
    encode = locator.backend._engine.model.encode_images
    locator.backend._engine.model.encode_images = lambda *given: reads.append(1) or encode(*given)
    locator.backend.group_size = 1
    locator.locate(IMAGE, groundlink.detect("car", "dog", "cat"))
    del locator.backend._engine.model.encode_images
    assert len(reads) == 1


def test_an_example_is_looked_at_once(locator):
    example = groundlink.example(samples.IMAGES / "extra1.png")
    first = locator.locate(IMAGE, example)
    assert paid(locator.locate(IMAGE, example)) == set()
    assert locator.locate(IMAGE, example).raw == first.raw
    # On another image only that one is new.
    seen = []
    encode = locator.backend._engine.model.encode_images
    locator.backend._engine.model.encode_images = lambda patches, grids: (
        seen.append(len(grids)) or encode(patches, grids)
    )
    other = locator.locate(OTHER, example)
    del locator.backend._engine.model.encode_images
    assert seen == [1]
    with load(cache_bytes=0) as forgetful:
        assert forgetful.locate(OTHER, example).raw == other.raw


def test_what_is_kept_stays_within_its_bytes_and_the_oldest_goes():
    with load() as measured:
        measured.locate(IMAGE, CAR)
        one = measured.backend._engine.kept.bytes
    pictures = [np.full((56, 56, 3), shade, np.uint8) for shade in (0, 90, 180)]
    with Image.open(IMAGE) as picture:
        size = picture.size
    pictures = [np.asarray(Image.fromarray(array).resize(size)) for array in pictures]
    with load(cache_bytes=int(2.5 * one)) as locator:
        kept = locator.backend._engine.kept
        for array in pictures[:2]:
            locator.locate(array, CAR)
        assert paid(locator.locate(pictures[0], CAR)) == set()  # now 1 is the oldest
        locator.locate(pictures[2], CAR)
        assert 0 < kept.bytes <= kept.limit
        assert paid(locator.locate(pictures[0], CAR)) == set()
        assert paid(locator.locate(pictures[2], CAR)) == set()
        assert paid(locator.locate(pictures[1], CAR)) != set()
        assert 0 < kept.bytes <= kept.limit


def test_bytes_are_counted():
    kept = Kept(100)
    kept.put("a", torch.zeros(10))
    kept.put("b", torch.zeros(10))
    assert kept.bytes == 80
    kept.put("a", torch.zeros(5))
    assert kept.bytes == 60
    assert kept.get("b") is not None
    kept.put("c", torch.zeros(15))  # "a" is the least recently used
    assert (kept.get("a"), kept.bytes, len(kept)) == (None, 100, 2)
    kept.put("d", torch.zeros(26))  # more than all the room
    assert (kept.get("d"), kept.bytes) == (None, 100)
    kept.clear()
    assert (kept.bytes, len(kept)) == (0, 0)


@pytest.mark.parametrize("value", [-1, 1.5, "1 GB", True])
def test_room_without_meaning_is_refused(value):
    with pytest.raises(BackendUnavailable, match="cache_bytes"):
        load(cache_bytes=value)


STAGES = {
    "vision": lambda engine: (engine.model, "encode_images"),
    "prefill": lambda engine: (engine.decoder, "prefill"),
    "a step": lambda engine: (engine.decoder, "step"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_is_freed_and_tried_once_more(locator, monkeypatch, stage):
    wanted = locator.locate(IMAGE, CAR)
    engine = locator.backend._engine
    locator.locate(OTHER, CAR)
    engine.kept.drop(next(key for key in engine.kept._tensors))  # so that the image is read again
    engine.kept.drop(next(key for key in engine.kept._tensors))
    owner, name = STAGES[stage](engine)
    work, fails = getattr(owner, name), []

    def runs_out(*given, **named):
        if not fails:
            fails.append(len(engine.kept))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return work(*given, **named)

    monkeypatch.setattr(owner, name, runs_out)
    answer = locator.locate(IMAGE, CAR)
    assert fails
    assert fails[0] > 0  # something was kept, and went
    assert all(OTHER.name not in str(key) for key in engine.kept._tensors)
    assert len(engine.kept) <= 2
    assert answer.raw == wanted.raw

    monkeypatch.setattr(owner, name, lambda *given, **named: full())
    engine.kept.clear()
    with pytest.raises(OutOfMemory, match="memory"):
        locator.locate(IMAGE, CAR)
    monkeypatch.undo()
    assert locator.locate(IMAGE, CAR).raw == wanted.raw  # and nothing is left over


def test_what_there_is_no_room_to_keep_is_not_kept(locator, monkeypatch):
    wanted = locator.locate(IMAGE, CAR)
    locator.backend._engine.free()
    monkeypatch.setattr(locator.backend._engine.decoder, "keep", lambda *_: full())
    assert locator.locate(IMAGE, CAR).raw == wanted.raw
    assert paid(locator.locate(IMAGE, CAR)) >= {"image_prefill"}


def test_an_answer_that_is_closed_late_leaves_the_next_one_alone(locator):
    engine = locator.backend._engine
    chat = f"<|im_start|>user\n<image-1>{'Locate all.'}<|im_end|>\n<|im_start|>assistant\n"
    with Image.open(IMAGE) as picture:
        picture.load()

    def ask():
        pictures = [engine_module.Picture("one", picture.size, lambda: picture)]
        return engine.answer(chat, pictures, Settings(max_new_tokens=30), engine.new_figures(), lambda: None)

    wanted = [accepted.tokens for accepted in ask()]
    assert len(wanted) > 2
    first, second = ask(), ask()
    next(first)
    told = [next(second).tokens]
    first.close()
    assert told + [accepted.tokens for accepted in second] == wanted


def test_what_is_kept_of_a_prompt_goes_by_the_tag_too(locator):
    """The same words before it and the same picture, but written as another picture's number."""
    engine = locator.backend._engine
    with Image.open(IMAGE) as picture:
        picture.load()
    pictures = [engine_module.Picture("one", picture.size, lambda: picture)] * 2

    def ask(tag):
        engine_chat = f"<|im_start|>user\n{tag}Locate all.<|im_end|>\n<|im_start|>assistant\n"
        figures = engine.new_figures()
        answer = engine.answer(engine_chat, pictures, Settings(max_new_tokens=30), figures, lambda: None)
        return [accepted.tokens for accepted in answer]

    wanted = ask("<image-2>")
    engine.free()
    ask("<image-1>")
    assert ask("<image-2>") == wanted
    assert len([key for key in engine.kept._tensors if key[0] != "rows"]) == 2


def full():
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_another_fault_is_not_tried_again(locator, monkeypatch):
    tried = []

    def broken(*_):
        tried.append(1)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(locator.backend._engine.model, "encode_images", broken)
    with pytest.raises(groundlink.GroundlinkError, match="shapes differ"):
        locator.locate(IMAGE, CAR)
    assert len(tried) == 1


def test_loading_and_answering_tell_how_far_they_are():
    told = []
    with load(on_progress=lambda doing, fraction: told.append((doing, fraction))) as locator:
        loading = list(told)
        assert {doing for doing, _ in loading} == {"loading the weights"}
        fractions = [fraction for _, fraction in loading]
        assert fractions == sorted(fractions)
        assert len(set(fractions)) > 10
        assert 0 < fractions[0] < fractions[-1] <= 1
        locator.locate(IMAGE, CAR)
    assert len(told) > len(loading)


def test_a_picture_is_not_opened_where_nothing_needs_it(locator, monkeypatch):
    locator.locate(IMAGE, CAR)
    monkeypatch.setattr(engine_module, "preprocess", None)
    monkeypatch.setattr("groundlink.image.decode", None)
    assert len(locator.locate(IMAGE, CAR)) > 0
