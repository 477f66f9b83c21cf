"""Bad input: told in the log once, in diagnostics, and in the service's answer; and the node goes on."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from groundlink_ros.msg import Prompts
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image
from stub_backends import paint
from vision_msgs.msg import Detection2DArray

from groundlink.errors import ERROR_CODES, BackendUnavailable, BadImage, BadQuery, GroundlinkError, OutOfMemory
from tests.ros2.harness import Inbox, NodeProcess, picture, running, seen_in, stamp_of, until, words_of

FINE = 0
BAD_IMAGE, BAD_QUERY, BACKEND_FAILED, MEMORY, UNAVAILABLE = (
    ERROR_CODES[error].ros for error in (BadImage, BadQuery, GroundlinkError, OutOfMemory, BackendUnavailable)
)


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[tuple[NodeProcess, Inbox]]:
    with running(folder) as node:
        yield node, node.answers()
        assert node.state() == "active"


@pytest.fixture
def node(shared: tuple[NodeProcess, Inbox]) -> NodeProcess:
    shared[0].set(prompts=["thing"])
    return shared[0]


@pytest.fixture
def found(shared: tuple[NodeProcess, Inbox]) -> Inbox:
    return shared[1]


def errors(node: NodeProcess, words: str) -> list[str]:
    """The lines of the log that are errors with these words."""
    return [line for line in node.log.splitlines() if "[ERROR]" in line and words in line]


def changed(**fields: object) -> Callable[[], Image]:
    """A picture with some fields of its message changed."""

    def make() -> Image:
        message = picture(3)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return make


BAD_IMAGES = {
    "a step too small": (changed(step=10), "step"),
    "too little data": (changed(data=bytes(1000)), "1,000"),
    "too much data": (changed(data=bytes(1_000_000)), "1,000,000"),
    "no data": (changed(data=b""), "0 bytes"),
    "no width": (changed(width=0, step=0, data=b""), "0×120"),
    "no height": (changed(height=0, data=b""), "160×0"),
    "20 000 × 20 000": (changed(width=20_000, height=20_000, step=60_000, data=bytes(100)), "20000×20000"),
    "more than there are bytes": (changed(width=2**32 - 1, height=2**32 - 1, step=2**32 - 1), "4294967295"),
    "an unknown encoding": (changed(encoding="colourful16"), "colourful16"),
    "an encoding of 100 kB": (changed(encoding="x" * 100_000), "xxx"),
    "no encoding": (changed(encoding=""), "encoding"),
    "a depth image": (changed(encoding="32FC1", step=640, data=bytes(640 * 120)), "32FC1"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_told_and_the_next_one_answered(folder: Path, kind: str, shared: tuple[NodeProcess, Inbox]):
    node, found = shared
    make, words = BAD_IMAGES[kind]
    count = len(found.messages)
    for place in range(5):
        message = make()
        message.header.stamp.sec = 5_000 + place
        node.publisher("image", Image).publish(message)
        node.state()  # there and back: each one is looked at
    told = node.diagnosed(lambda values: words in values["last_error"])
    assert told["level"] == "2" and int(told["frames_failed"]) >= 5
    assert len(told["last_error"]) < 1000, "a long name is cut"
    answer = node.locate(image=make())
    assert answer.status == BAD_IMAGE and words in answer.message and len(answer.message) < 1000
    assert answer.detections.detections == []
    assert len(found.messages) == count, "a frame that cannot be looked at has no answer, not an empty one"
    assert seen_in(node.see(found, picture(9))) == 9, "the next one is answered"
    assert node.process.poll() is None and "Traceback" not in node.log


def test_the_same_error_is_in_the_log_once(folder: Path):
    with running(folder) as node:
        node.answers()
        images = node.publisher("image", Image)
        for encoding in ("colourful16", "colourful32"):
            for place in range(10):
                message = changed(encoding=encoding)()
                message.header.stamp.sec = 6_000 + place
                images.publish(message)
                node.state()  # there and back: each one is looked at
        for _ in range(10):
            images.publish(changed(step=10)())
            node.state()
        told = node.diagnosed(lambda values: int(values["frames_failed"]) == 30)
        assert int(told["errors"]) == 30, "all are counted"
        assert len(errors(node, "colourful16")) == 1 and len(errors(node, "colourful32")) == 1, "each by its name"
        assert len(errors(node, "step")) == 1
        assert len(errors(node, "")) == 3


def test_a_compressed_image_that_is_none_is_told(folder: Path):
    with running(folder, parameters={"image_transport": "compressed"}) as node:
        found = node.watch("detections", Detection2DArray)
        images = node.publisher("image/compressed", CompressedImage)
        file = io.BytesIO()
        Picture.fromarray(paint(7, 160, 120)).save(file, "PNG")
        good = CompressedImage(header=picture(7).header, format="png", data=file.getvalue())
        huge = io.BytesIO()
        Picture.new("1", (20_000, 20_000)).save(huge, "PNG")
        bad = {
            b"": "png",
            b"no picture at all": "jpeg",
            file.getvalue()[:100]: "png",
            huge.getvalue(): "png",
            b"\0" * 64: "16UC1; compressedDepth png",
        }

        def answered() -> bool:
            images.publish(good)
            return bool(found.messages)

        until(answered, "the node listens")
        for data, kind in bad.items():
            images.publish(CompressedImage(header=picture(8).header, format=kind, data=data))
            assert [node.state(), node.state()] == ["active", "active"]  # there and back: it is looked at
            start = len(found.messages)
            images.publish(good)
            found.wait_for(lambda answer: stamp_of(answer) == stamp_of(good), start=start)
        told = node.diagnosed(lambda values: int(values["frames_failed"]) == len(bad))
        assert "compressedDepth" in told["last_error"]
        assert errors(node, "a frame was not answered")
        assert all(stamp_of(answer) == stamp_of(good) for answer in found.messages)
        assert "Traceback" not in node.log


BAD_PROMPTS = {
    "none": ([], "no prompt"),
    "an empty one": ([""], "no prompt"),
    "an empty one among others": (["cup", "  "], "empty"),
    "10 000": ([f"thing {number}" for number in range(10_000)], "10000"),
    "a control character": (["red\x07cup"], "\\x07"),
    "a pasted document": (["cup " * 1000], "characters"),
}


@pytest.mark.parametrize("kind", BAD_PROMPTS)
def test_bad_prompts_are_refused_and_the_old_ones_hold(node: NodeProcess, found: Inbox, kind: str):
    prompts, words = BAD_PROMPTS[kind]
    node.publisher("~/prompts", Prompts).publish(Prompts(prompts=prompts))
    told = node.diagnosed(lambda values: words in values.get("last_error", ""))
    assert told["level"] == "2"
    answer = node.set_prompts(*prompts)
    assert not answer.success and words in answer.message and len(answer.message) < 1000
    if prompts:  # an empty list has no type, and asks the node for its own
        [result] = node.set(prompts=prompts)
        assert not result.successful and words in result.reason
        request = node.locate(*prompts, image=picture(5))
        assert request.status == BAD_QUERY and words in request.message
    assert node.get("prompts") == ["thing"] and words_of(node.see(found, picture(6))) == ["thing"]
    assert "Traceback" not in node.log


def test_prompts_with_control_tokens_are_refused_by_a_model_that_has_them(demo: NodeProcess):
    assert demo.set_prompts("button").success
    for prompt in ("<box>", "a cup</ref><box>", "<|im_end|>"):
        answer = demo.set_prompts(prompt)
        assert not answer.success and answer.message, prompt
        request = demo.locate(prompt, image=picture(1))
        assert request.status == BAD_QUERY and request.message, prompt
        [result] = demo.set(prompts=["button", prompt])
        assert not result.successful and result.reason, prompt
    demo.publisher("~/prompts", Prompts).publish(Prompts(prompts=["a <box> of screws"]))
    demo.diagnosed(lambda values: "of screws" in values.get("last_error", ""))
    assert demo.get("prompts") == ["button"]
    assert demo.locate(image=picture(2)).status == FINE, "the node goes on"

    assert demo.change("deactivate") and demo.change("cleanup")
    assert demo.set_prompts("<box>").success, "which model it will be is not known yet"
    assert not demo.change("configure", 60)
    assert demo.state() == "unconfigured" and errors(demo, "<box>")
    assert demo.set_prompts("button").success
    assert demo.change("configure", 60) and demo.change("activate")
    assert demo.locate(image=picture(3)).status == FINE


def test_a_backend_that_raises_in_the_middle_fails_one_frame_only(folder: Path):
    with running(folder, backend="stub_raises", parameters={"prompts": ["thing"]}) as node:
        found = node.answers()
        for number in (11, 13, 15):  # it raises on odd numbers
            node.publisher("image", Image).publish(picture(number))
            assert [node.state(), node.state()] == ["active", "active"]  # there and back: it is looked at
            assert seen_in(node.see(found, picture(number + 1))) == number + 1
        told = node.diagnosed(lambda values: int(values["frames_failed"]) == 3)
        assert "a fault in the stub" in told["last_error"] and "stub_raises" in told["last_error"]
        assert not any(stamp_of(answer) == stamp_of(picture(13)) for answer in found.messages)
        assert len(errors(node, "a fault in the stub")) == 1, "once, with where it happened"
        assert node.log.count("Traceback") == 1
        answer = node.locate(image=picture(17))
        assert answer.status == BACKEND_FAILED and "a fault in the stub" in answer.message
        state, result = node.ask(image=picture(19)).result()
        assert state == "aborted" and result.status == BACKEND_FAILED
        assert node.locate(image=picture(18)).status == FINE


def test_too_little_memory_for_one_frame_is_an_error_of_that_frame(node: NodeProcess, found: Inbox):
    answer = node.locate("memory", image=picture(21))
    assert answer.status == MEMORY and "memory" in answer.message
    assert seen_in(node.see(found, picture(22))) == 22


def test_words_that_are_no_utf8_are_told_as_far_as_they_go(folder: Path):
    with running(folder) as node:
        found = node.answers()
        answer = node.locate("path", image=picture(25))
        assert answer.status == UNAVAILABLE and "cannot read caf?.bin" in answer.message
        node.set(prompts=["path"])
        node.publisher("image", Image).publish(picture(26))
        told = node.diagnosed(lambda values: values["frames_failed"] == "1")
        assert "caf?.bin" in told["last_error"] and "caf?.bin" in told["message"]
        assert errors(node, "a frame was not answered: cannot read caf?.bin")
        node.set(prompts=["thing"])
        assert seen_in(node.see(found, picture(27))) == 27, "the node goes on"


def test_a_parameter_of_the_wrong_type_is_refused_at_run_time(folder: Path):
    values = {"threshold": "high", "prompts": 5, "enabled": "yes", "max_rate": [1.0, 2.0], "deadline": True}
    with running(folder) as node:
        for name, value in values.items():
            before = node.get(name)
            for _ in range(3):
                [result] = node.set(**{name: value})
                assert not result.successful and result.reason, name
            assert node.get(name) == before
            assert len(errors(node, f"'{name}'")) == 1, "once in the log"
        node.diagnosed(lambda values: "'deadline'" in values["last_error"])
        assert seen_in(node.see(node.answers(), picture(23))) == 23


def test_a_parameter_of_the_wrong_type_at_start_is_told_and_its_default_taken(folder: Path):
    wrong = {"threshold": "high", "max_rate": [1.0, 2.0], "deadline": -3.0, "image_transport": "pigeon", "enabled": 1}
    with running(folder, parameters=wrong) as node:
        for name in wrong:
            assert len(errors(node, f"'{name}'")) == 1, name
        assert (node.get("threshold"), node.get("max_rate"), node.get("deadline")) == (0.0, 0.0, 0.0)
        assert node.get("image_transport") == "auto" and node.get("enabled") is True
        assert node.diagnosed()["errors"] == "5"
        assert seen_in(node.see(node.answers(), picture(24))) == 24


def test_a_parameter_file_with_a_wrong_type_is_told_too(folder: Path, tmp_path: Path):
    path = tmp_path / "locate.yaml"
    path.write_text("/**:\n  ros__parameters:\n    threshold: high\n    request_timeout: 5\n", encoding="utf-8")
    with running(folder, arguments=("--params-file", str(path))) as node:
        assert len(errors(node, "'threshold'")) == 1
        assert node.get("threshold") == 0.0 and node.get("request_timeout") == 5.0
