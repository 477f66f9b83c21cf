"""One question about one moment: the service `~/locate`, and the action with its feedback and its cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sensor_msgs.msg import Image

from groundlink.errors import ERROR_CODES, BackendUnavailable, BadQuery, Busy, Cancelled, DeadlineExceeded
from tests.ros2.harness import (
    Inbox,
    NodeProcess,
    filming,
    picture,
    result_of,
    running,
    seen_in,
    stamp_of,
    until,
    words_of,
)

FINE = 0
BAD_QUERY, BUSY, LATE = (ERROR_CODES[error].ros for error in (BadQuery, Busy, DeadlineExceeded))
CANCELLED, UNAVAILABLE = (ERROR_CODES[error].ros for error in (Cancelled, BackendUnavailable))


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[tuple[NodeProcess, Inbox, Path]]:
    record = folder / "record"
    with running(folder, settings={"record": str(record)}) as node:
        yield node, node.answers(), record


@pytest.fixture
def node(shared: tuple[NodeProcess, Inbox, Path]) -> NodeProcess:
    """The shared node, active and with the prompts of its start."""
    if shared[0].state() == "inactive":
        shared[0].change("activate")
    shared[0].set(prompts=["thing"], enabled=True, request_timeout=30.0)
    return shared[0]


@pytest.fixture
def found(shared: tuple[NodeProcess, Inbox, Path]) -> Inbox:
    return shared[1]


@pytest.fixture
def record(shared: tuple[NodeProcess, Inbox, Path]) -> Path:
    return shared[2]


def happened(record: Path, event: str, number: int) -> bool:
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return any(line["event"] == event and line.get("number") == number for line in lines)


# The service


def test_the_image_in_a_request_is_looked_at(node: NodeProcess, found: Inbox):
    count = len(found.messages)
    answer = node.locate("mug", image=picture(101, frame_id="hand"))
    assert answer.status == FINE and answer.message == ""
    assert answer.detections.header == picture(101, frame_id="hand").header
    assert words_of(answer.detections) == ["mug"] and seen_in(answer.detections) == 101
    assert answer.detections.detections[0].header == answer.detections.header
    assert words_of(node.locate(image=picture(102)).detections) == ["thing"], "without prompts: the node's own"
    assert len(found.messages) == count, "the answer goes to who asked, not to the topic"


def test_without_an_image_the_next_frame_is_looked_at(node: NodeProcess, found: Inbox):
    node.see(found, picture(110))
    waiting = node.locate_later("mug")
    assert [node.state(), node.state()] == ["active", "active"]  # there and back: the request is there
    assert not waiting.done(), "the last frame is not the next one"
    streamed = node.see(found, picture(111))
    answer = result_of(waiting, "the answer")
    assert answer.status == FINE, answer.message
    assert answer.detections.header == picture(111).header
    assert words_of(answer.detections) == ["mug"] and seen_in(answer.detections) == 111
    assert words_of(streamed) == ["thing"], "the stream goes on with its own prompts"


def test_a_request_is_answered_while_the_stream_is_disabled(node: NodeProcess, found: Inbox):
    node.set(enabled=False)
    until(lambda: not node.ros.node.count_subscribers(node.topic("image")), "it does not listen")
    waiting = node.locate_later("mug")
    until(node.publisher("image", Image).get_subscription_count, "it listens for the request")
    count, number = len(found.messages), 120

    def sent() -> bool:
        nonlocal number
        number += 1
        node.publisher("image", Image).publish(picture(number))
        return waiting.done()

    until(sent, "the answer")
    assert waiting.result().status == FINE and seen_in(waiting.result().detections) > 120
    assert len(found.messages) == count
    until(lambda: not node.ros.node.count_subscribers(node.topic("image")), "and not any longer than that")


def test_what_is_to_be_said_of_an_answer_is_its_message(node: NodeProcess):
    answer = node.locate("twins", image=picture(131))
    assert answer.status == FINE and len(answer.detections.detections) == 2 and "two fit equally" in answer.message
    answer = node.locate("cut", image=picture(132))
    assert answer.status == FINE and len(answer.detections.detections) == 1 and "broke off" in answer.message
    answer = node.locate("nothing", image=picture(133))
    assert answer.status == FINE and answer.detections.detections == []
    assert answer.detections.header == picture(133).header


def test_no_frame_in_time_is_an_error_that_says_so(node: NodeProcess, found: Inbox):
    begun = time.monotonic()
    answer = node.locate("mug", timeout=0.3)
    assert answer.status == LATE and "frame" in answer.message
    assert 0.3 <= time.monotonic() - begun < 1.0
    assert answer.detections.detections == []
    node.set(request_timeout=0.2)
    assert node.locate("mug").status == LATE, "the node's own where none is given"
    assert node.see(found, picture(141)).detections, "the node goes on"


def test_a_model_that_is_too_slow_is_an_error_in_time(node: NodeProcess, found: Inbox):
    begun = time.monotonic()
    answer = node.locate("slow 1.0", image=picture(151), timeout=0.3)
    assert answer.status == LATE and answer.message
    assert time.monotonic() - begun < 0.8
    answer = node.locate("count 200", image=picture(152), timeout=1.5)
    assert answer.status == FINE and 1 <= len(answer.detections.detections) < 200, "what was found by then"
    assert "deadline" in answer.message
    assert seen_in(node.see(found, picture(153))) == 153, "the node goes on"


@pytest.mark.parametrize("own", [True, False], ids=["own image", "next frame"])
def test_a_request_that_waits_behind_a_long_question_is_an_error_in_time(
    node: NodeProcess, found: Inbox, record: Path, own: bool
):
    number = 154 + own
    first = node.locate_later("slow 2.0", image=picture(number))
    until(lambda: happened(record, "asked", number), "the model is at work")
    begun = time.monotonic()
    answer = node.locate("mug", image=picture(156) if own else None, timeout=0.3)
    assert answer.status == LATE and answer.message
    assert 0.3 <= time.monotonic() - begun < 1.0
    assert result_of(first, "the first answer").status == FINE
    assert seen_in(node.see(found, picture(157 + own))) == 157 + own, "the node goes on"


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(node: NodeProcess, timeout: float):
    answer = node.locate("mug", image=picture(161), timeout=timeout)
    assert answer.status == BAD_QUERY and "timeout" in answer.message


def test_requests_are_answered_while_the_camera_runs(node: NodeProcess, found: Inbox, folder: Path):
    with filming(node, folder, "--width", "320", "--height", "240") as camera:
        camera.stream(30)
        start = len(found.messages)
        until(lambda: len(found.messages) > start + 3, "the stream is answered")
        answers = [node.locate_later(f"mug {number}") for number in range(5)]
        for number, waiting in enumerate(answers):
            answer = result_of(waiting, "an answer")
            assert answer.status == FINE and words_of(answer.detections) == [f"mug {number}"]
            until(lambda answer=answer: stamp_of(answer.detections) in camera.sent, "the camera has told of it")
            assert seen_in(answer.detections) == camera.sent[stamp_of(answer.detections)]
        start = len(found.messages)
        until(lambda: len(found.messages) > start + 3, "the stream goes on")


def test_more_requests_than_fit_are_refused_at_once(node: NodeProcess, found: Inbox):
    first = node.locate_later("slow 0.5", image=picture(171))
    rest = []
    for place in range(24):
        rest.append(node.locate_later("mug", image=picture(172 + place)))
        if place % 4 == 3:
            node.state()  # there and back: a service of ROS keeps ten requests that nobody has taken yet, and no more
    answers = [result_of(waiting, "an answer") for waiting in (first, *rest)]
    status = [answer.status for answer in answers]
    assert set(status) == {FINE, BUSY} and status[0] == FINE
    assert status.count(FINE) >= 10, "what fits is answered"
    assert all(answer.message and not answer.detections.detections for answer in answers if answer.status == BUSY)
    for place, answer in enumerate(answers[1:]):
        if answer.status == FINE:
            assert seen_in(answer.detections) == 172 + place, "each has its own answer"
    assert node.locate("mug", image=picture(210)).status == FINE


def test_a_node_that_is_not_active_says_what_to_do(node: NodeProcess):
    assert node.change("deactivate")
    try:
        answer = node.locate("mug", image=picture(181))
        assert answer.status == UNAVAILABLE and "not active" in answer.message and "lifecycle" in answer.message
        goal = node.ask("mug", image=picture(182))
        assert goal.accepted
        state, result = goal.result()
        assert state == "aborted" and result.status == UNAVAILABLE and "not active" in result.message
        assert node.set_prompts("cup").success, "prompts can be changed before it is active"
        assert node.get("prompts") == ["cup"]
    finally:
        assert node.change("activate")
    assert words_of(node.locate(image=picture(183)).detections) == ["cup"]


def test_a_deactivation_answers_the_requests_that_wait(node: NodeProcess):
    waiting = node.locate_later("mug")
    under_way = node.ask("slow 0.7", image=picture(191))
    assert [node.state(), node.state()] == ["active", "active"]
    assert node.change("deactivate")
    answer = result_of(waiting, "the answer of the service", 2)
    assert answer.status == CANCELLED and "deactivated" in answer.message
    state, result = under_way.result()
    assert state == "aborted" and result.status == CANCELLED
    assert node.change("activate")


# The action


def test_the_action_tells_each_box_as_it_is_found(node: NodeProcess):
    goal = node.ask("count 5", image=picture(201, frame_id="hand"))
    state, result = goal.result()
    assert state == "succeeded" and result.status == FINE
    assert len(result.detections.detections) == 5
    until(lambda: len(goal.feedback) == 5, "five boxes one by one")
    assert [detection for _, detection in goal.feedback] == list(result.detections.detections)
    moments = [moment for moment, _ in goal.feedback]
    assert moments[-1] - moments[0] > 0.05, "each when it was found, not all at the end"
    assert result.detections.header == picture(201, frame_id="hand").header


def test_the_action_waits_for_the_next_frame_too(node: NodeProcess, found: Inbox):
    goal = node.ask("mug")
    node.state()
    node.see(found, picture(202))
    state, result = goal.result()
    assert state == "succeeded" and seen_in(result.detections) == 202 and words_of(result.detections) == ["mug"]


def test_a_goal_is_cancelled_in_the_middle_and_the_node_goes_on(node: NodeProcess, found: Inbox, record: Path):
    goal = node.ask("count 400", image=picture(203))
    until(lambda: len(goal.feedback) >= 2, "it is in the middle")
    assert goal.cancel()
    state, result = goal.result()
    assert state == "canceled" and result.status == CANCELLED
    until(lambda: happened(record, "stopped", 203), "the model does not go on for nobody")
    assert len(goal.feedback) < 100
    assert seen_in(node.see(found, picture(204))) == 204


def test_a_goal_that_waits_for_a_frame_is_cancelled(node: NodeProcess, found: Inbox):
    goal = node.ask("mug")
    assert goal.cancel()
    state, result = goal.result()
    assert state == "canceled" and result.status == CANCELLED
    assert node.see(found, picture(205)).detections


def test_a_goal_is_cancelled_while_a_model_cannot_be_interrupted(node: NodeProcess, record: Path):
    goal = node.ask("slow 1.0", image=picture(206))
    until(lambda: happened(record, "asked", 206), "it is under way")
    begun = time.monotonic()
    assert goal.cancel()
    state, _ = goal.result()
    assert state == "canceled" and time.monotonic() - begun < 0.7, "who cancels does not wait for the model"


def test_several_goals_at_once_have_answers_of_their_own(node: NodeProcess):
    goals = {f"count {number}": node.ask(f"count {number}", image=picture(210 + number)) for number in range(1, 6)}
    gone = goals.pop("count 4")
    gone.cancel()
    for words, goal in goals.items():
        state, result = goal.result()
        number = int(words.split()[1])
        assert state == "succeeded" and words_of(result.detections) == [words] * number
        assert seen_in(result.detections) == 210 + number
    assert gone.result()[0] in ("canceled", "succeeded")


def test_of_goals_that_come_at_once_none_is_lost(node: NodeProcess):
    goals = [node.ask_later(image=picture(310 + place)) for place in range(30)]
    results = [result_of(goal, "the goal is accepted").get_result_async() for goal in goals]
    status = [result_of(result, "the result of a goal").result.status for result in results]
    assert set(status) <= {FINE, BUSY} and FINE in status


def test_more_goals_than_fit_are_refused_at_once(node: NodeProcess):
    goals = [node.ask("slow 0.5", image=picture(220))]
    goals += [node.ask("mug", image=picture(221 + place)) for place in range(24)]
    ends = [goal.result() for goal in goals]
    refused = [result for state, result in ends if state == "aborted"]
    assert refused and all(result.status == BUSY and result.message for result in refused)
    assert all(result.status == FINE for state, result in ends if state == "succeeded")
    assert ends[0][0] == "succeeded" and sum(state == "succeeded" for state, _ in ends) >= 10


def test_a_question_that_cannot_be_asked_ends_the_goal_with_its_error(node: NodeProcess):
    state, result = node.ask("", image=picture(231)).result()
    assert state == "aborted" and result.status == BAD_QUERY and "no prompt" in result.message


def test_an_inactive_node_has_its_services(folder: Path):
    with running(folder, parameters={"autostart": False}) as node:
        node.wait_until("unconfigured")
        answer = node.locate("mug", image=picture(1))
        assert answer.status == UNAVAILABLE and answer.message
        assert node.set_prompts("cup").success
        assert node.change("configure") and node.change("activate")
        assert words_of(node.locate(image=picture(2)).detections) == ["cup"]
