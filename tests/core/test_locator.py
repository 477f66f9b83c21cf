"""The calls that every backend has, on a backend of a third party that is found by its entry point."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import groundlink
from groundlink import BackendUnavailable, BadImage, BadQuery, Busy, Cancelled, DeadlineExceeded, GroundlinkError
from tests.conftest import until
from tests.core import third_party

IMAGE = np.zeros((60, 100, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """A distribution with entry points, installed as pip leaves it."""
    folder = tmp_path_factory.mktemp("site") / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[groundlink.backends]\nslow = tests.core.third_party:SlowBackend\n"
        "broken = tests.core.third_party:BrokenBackend\nmissing = tests.core.nowhere:Backend\n"
    )
    sys.path.append(str(folder.parent))
    yield
    sys.path.remove(str(folder.parent))


@pytest.fixture
def slow():
    with groundlink.load("slow") as locator:
        yield locator


def test_a_third_party_adds_a_backend(slow):
    assert {"ocr", "slow"} <= set(groundlink.backend_names())
    answer = slow.locate(IMAGE, groundlink.gui("3 boxes"))
    assert [found.label for found in answer] == ["box 0", "box 1", "box 2"]
    assert (answer.backend, answer.status, answer.complete, answer.size) == ("slow", "found", True, (100, 60))
    assert answer.raw == ("boxes",)
    assert answer.timings_ms["think"] == 1.0
    assert answer.timings_ms["total"] > 0
    assert answer.best.label == "box 0"


def test_loading_what_cannot_be_loaded_says_what_to_do(monkeypatch):
    for name, words in [
        ("nothing", "installed: "),
        ("broken", "its key is missing"),
        ("missing", r"tests\.core\.nowhere"),
    ]:
        with pytest.raises(BackendUnavailable, match=words):
            groundlink.load(name)
    with pytest.raises(BackendUnavailable, match=r"does not take these settings.*colour"):
        groundlink.load("slow", colour="red")
    monkeypatch.setenv("GROUNDLINK_BACKEND", "nothing")
    with pytest.raises(BackendUnavailable, match="'nothing'"):
        groundlink.load()


def test_the_environment_names_the_backend_and_the_log_says_why(monkeypatch, caplog):
    monkeypatch.setenv("GROUNDLINK_BACKEND", "slow")
    with caplog.at_level(logging.INFO, "groundlink"), groundlink.load() as locator:
        assert locator.info.name == "slow"
    assert "GROUNDLINK_BACKEND" in caplog.text
    assert "public domain" in caplog.text


def test_a_plain_string_is_a_phrase_for_the_first_task(slow):
    assert slow.locate(IMAGE, "1 box").query == groundlink.gui("1 box")


def test_what_is_no_question_for_this_backend(slow):
    with pytest.raises(groundlink.UnsupportedTask, match=r"'read'.*gui, point"):
        slow.locate(IMAGE, groundlink.read())
    for bad in (None, 7, ("gui", "x")):
        with pytest.raises(BadQuery):
            slow.locate(IMAGE, bad)
    for threshold in (-0.1, 1.5, float("nan"), "high"):
        with pytest.raises(BadQuery, match="threshold"):
            slow.locate(IMAGE, "1 box", threshold=threshold)
    for deadline in (-1, float("nan"), float("inf")):
        with pytest.raises(BadQuery, match="deadline"):
            slow.locate(IMAGE, "1 box", deadline=deadline)


def test_detections_are_clipped_ordered_and_the_dropped_counted(slow):
    answer = slow.locate(IMAGE, "outside boxes")
    assert [found.box for found in answer] == [(10.0, 5.0, 30.0, 20.0)]
    assert answer[0].spread == (3.0, 4.0, 1.0, 2.0), "the spread goes with its corner"
    assert "1 detection without area inside the image dropped" in answer.reason


def test_threshold_drops_and_counts(slow):
    answer = slow.locate(IMAGE, "4 twins", threshold=0.985)
    assert (len(answer), answer.status) == (2, "ambiguous")
    assert "2 below the threshold of 0.985" in answer.reason
    assert slow.locate(IMAGE, "4 twins", threshold=1.0).status == "found", "one is left: no longer ambiguous"


def test_a_stream_hands_out_each_detection_when_it_is_found(slow):
    begun = time.perf_counter()
    stream = slow.stream(IMAGE, "10 boxes")
    first = next(stream)
    assert first.label == "box 0"
    assert time.perf_counter() - begun < 0.15, "the first came only with the last"
    assert [first, *stream] == list(stream.result)
    assert stream.result.complete


def test_closing_a_stream_stops_the_work_and_keeps_what_was_found(slow):
    with slow.stream(IMAGE, "100 boxes") as stream:
        next(stream)
        next(stream)
    assert len(stream.result) == 2
    assert (stream.result.complete, stream.result.incomplete_reason) == (False, "cancelled")
    assert list(stream) == []
    until(lambda: "100 boxes" in third_party.seen_cancelled)


def test_a_dropped_stream_stops_the_work(slow):
    stream = slow.stream(IMAGE, "101 boxes")
    next(stream)
    del stream
    gc.collect()
    until(lambda: "101 boxes" in third_party.seen_cancelled)


def test_a_deadline_returns_what_was_found_by_then(slow):
    begun = time.perf_counter()
    answer = slow.locate(IMAGE, "102 boxes", deadline=0.2)
    assert 0.15 < time.perf_counter() - begun < 0.5
    assert (answer.complete, answer.incomplete_reason) == (False, "deadline")
    assert 2 < len(answer) < 12
    until(lambda: "102 boxes" in third_party.seen_cancelled)


def test_a_deadline_holds_for_a_backend_that_cannot_be_interrupted(slow):
    begun = time.perf_counter()
    with pytest.raises(DeadlineExceeded):
        slow.locate(IMAGE, "sleep 0.6", deadline=0.1)
    assert time.perf_counter() - begun < 0.3
    with pytest.raises(DeadlineExceeded):
        slow.locate(IMAGE, "1 box", deadline=0)
    assert slow.locate(IMAGE, "1 box").status == "found", "the next question is answered"


def test_what_a_backend_raises(slow, caplog):
    with pytest.raises(Busy, match="later"):
        slow.locate(IMAGE, "fail busy")
    with pytest.raises(groundlink.OutOfMemory):
        slow.locate(IMAGE, "fail memory")
    for word in ("bug", "score"):
        with pytest.raises(GroundlinkError, match="fault in the backend") as caught:
            slow.locate(IMAGE, f"fail {word}")
        assert isinstance(caught.value.__cause__, (RuntimeError, ValueError))
    assert "a bug" in caplog.text
    assert slow.locate(IMAGE, "1 box").status == "found", "the worker lives on"


def test_a_batch_keeps_order_and_isolates_what_is_bad(slow, tmp_path):
    third_party.started.clear()
    answers = slow.locate_batch(
        [
            (IMAGE, "2 boxes"),
            (tmp_path / "missing.png", "1 box"),
            (IMAGE, "fail bug"),
            (IMAGE, ""),
            (IMAGE, groundlink.read()),
            (IMAGE[:30], "1 box"),
        ]
    )
    assert [type(answer).__name__ for answer in answers] == [
        "Detections",
        "BadImage",
        "GroundlinkError",
        "BadQuery",
        "UnsupportedTask",
        "Detections",
    ]
    assert (len(answers[0]), answers[5].size) == (2, (100, 30))
    assert third_party.started == ["2 boxes", "fail bug", "1 box"], "each pair is asked once"
    assert slow.locate_batch([]) == []


def test_a_long_batch_does_not_overflow_the_queue(slow):
    slow.backend._pace = 0
    answers = slow.locate_batch((IMAGE, "1 box") for _ in range(400))
    assert len(answers) == 400
    assert all(isinstance(answer, groundlink.Detections) for answer in answers)


def test_too_many_waiting_are_refused(slow, monkeypatch):
    monkeypatch.setattr("groundlink.locator.MAX_WAITING", 2)
    streams = [slow.stream(IMAGE, "sleep 0.3")]
    until(lambda: "sleep 0.3" in third_party.started)
    streams += [slow.stream(IMAGE, "1 box") for _ in range(2)]
    with pytest.raises(Busy):
        slow.stream(IMAGE, "1 box")
    assert all(stream.result.status == "found" for stream in streams)


def test_many_threads_get_their_own_answers(slow):
    slow.backend._pace = 0
    wrong = []

    def ask(count: int) -> None:
        for _ in range(10):
            if len(slow.locate(IMAGE, f"{count} boxes")) != count:
                wrong.append(count)

    threads = [threading.Thread(target=ask, args=(count,)) for count in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_a_locator_ends_its_threads_and_frees_the_backend():
    third_party.closed.clear()
    locator = groundlink.load("slow")
    busy = locator.stream(IMAGE, "sleep 0.2")
    until(lambda: "sleep 0.2" in third_party.started)
    waiting = locator.stream(IMAGE, "1 box")
    locator.close()
    with pytest.raises(Cancelled, match="closed"):
        _ = waiting.result
    assert busy.result.status == "found", "what was under way is finished"
    with pytest.raises(Cancelled, match="closed"):
        locator.locate(IMAGE, "1 box")
    locator.close()
    assert not any(thread.name.startswith("groundlink-slow") for thread in threading.enumerate())
    assert third_party.closed == [True], "closed once"


def test_a_locator_can_be_closed_without_waiting_for_a_step_under_way():
    locator = groundlink.load("slow")
    third_party.closed.clear()
    stream = locator.stream(IMAGE, "sleep 0.6")
    until(lambda: "sleep 0.6" in third_party.started)
    before = time.monotonic()
    locator.close(seconds=0.05)
    assert time.monotonic() - before < 0.4
    assert third_party.closed == [], "freed when it comes back, not under it"
    with pytest.raises(Cancelled):
        _ = stream.result
    until(lambda: third_party.closed == [True])


def test_a_query_can_be_checked_without_a_picture(slow):
    assert slow.check("1 box").task == "gui"
    with pytest.raises(groundlink.UnsupportedTask):
        slow.check(groundlink.read())
    with pytest.raises(BadQuery):
        slow.check("  ")


def test_a_backend_that_fails_to_check_a_query_is_told_of(slow, monkeypatch):
    monkeypatch.setattr(slow.backend, "check", lambda query: 1 / 0, raising=False)
    with pytest.raises(GroundlinkError, match=r"failed to check the query.*ZeroDivisionError"):
        slow.check("1 box")


def test_a_dropped_locator_ends_its_threads():
    locator = groundlink.load("slow")
    locator.locate(IMAGE, "1 box")
    del locator
    gc.collect()
    until(lambda: not any(thread.name.startswith("groundlink-slow") for thread in threading.enumerate()))


async def test_asyncio_answers_without_blocking_the_loop(slow):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    answer = await slow.alocate(IMAGE, "10 boxes")
    ticking.cancel()
    assert len(answer) == 10
    assert ticks > 5
    with pytest.raises(BadImage):
        await slow.alocate(b"rubbish", "1 box")
    with pytest.raises(DeadlineExceeded):
        await slow.alocate(IMAGE, "sleep 0.3", deadline=0.05)


async def test_asyncio_streams_and_cancels(slow):
    labels = []
    stream = slow.astream(IMAGE, "103 boxes")
    async for found in stream:
        labels.append(found.label)
        if len(labels) == 3:
            with pytest.raises(RuntimeError, match="not whole yet"):
                _ = stream.result
            await stream.aclose()
    assert labels == ["box 0", "box 1", "box 2"]
    assert stream.result.incomplete_reason == "cancelled"
    task = asyncio.create_task(slow.alocate(IMAGE, "104 boxes"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for asked in ("103 boxes", "104 boxes"):
        await asyncio.to_thread(until, lambda asked=asked: asked in third_party.seen_cancelled)
    closed_early = slow.astream(IMAGE, "1 box")
    await closed_early.aclose()
    assert [found async for found in closed_early] == []
    with pytest.raises(Cancelled):
        _ = closed_early.result


async def test_asyncio_deadline_keeps_what_was_found(slow):
    answer = await slow.alocate(IMAGE, "105 boxes", deadline=0.15)
    assert answer.incomplete_reason == "deadline"
    assert 1 < len(answer) < 12


async def test_many_questions_at_once_on_asyncio(slow):
    slow.backend._pace = 0
    answers = await asyncio.gather(*(slow.alocate(IMAGE, f"{count} boxes") for count in range(1, 40)))
    assert [len(answer) for answer in answers] == list(range(1, 40))


def test_progress_reaches_the_caller(slow, tmp_path: Path):
    seen = []
    with groundlink.load("ocr") as locator:
        locator.on_progress = lambda doing, fraction: seen.append((doing, fraction))
        locator.locate(IMAGE, "anything")
    assert seen
    assert all(0 <= fraction <= 1 for _, fraction in seen)


def test_a_backend_that_tells_no_progress_of_loading_is_loaded_all_the_same():
    told = []
    with groundlink.load("slow", on_progress=lambda doing, fraction: told.append(doing)) as locator:
        assert told == []
        assert locator.on_progress is not None
