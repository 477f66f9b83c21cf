"""The launch files, loaded with stand-ins that record what they are asked for: launch itself is not on PyPI.

What the launch file would start is started here, with the same arguments, by a process of the tests' own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from ros2_node.parameters import PARAMETERS
from tests.ros2.harness import NodeProcess

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "launch": ["LaunchContext", "LaunchDescription"],
    "launch.actions": [
        *("DeclareLaunchArgument", "ExecuteProcess", "IncludeLaunchDescription", "OpaqueFunction"),
        *("RegisterEventHandler", "Shutdown", "TimerAction"),
    ],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
    "launch.substitutions": ["LaunchConfiguration"],
    "launch_ros": [],
    "launch_ros.actions": ["LifecycleNode", "Node"],
}


class Recorded:
    """Whatever of launch was made, with its arguments."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given, self.named = given, named

    def perform(self, context: Any) -> str:
        return context.launch_configurations[self.given[0]]


class Loaded:
    """A launch file, and what it does for some arguments."""

    def __init__(self, name: str) -> None:
        path = ROOT / "launch" / name
        spec = importlib.util.spec_from_file_location(name.replace(".", "_"), path)
        assert spec is not None and spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.actions = self.module.generate_launch_description().given[0]
        declared = self.of("DeclareLaunchArgument")
        self.defaults = {argument.given[0]: argument.named["default_value"] for argument in declared}
        assert all(argument.named["description"] for argument in declared)

    def of(self, kind: str) -> list[Any]:
        return [action for action in self.actions if type(action).__name__ == kind]

    def run(self, space: str = "", **given: str) -> list[Any]:
        """What is started for these arguments, within a namespace that was pushed around it."""
        assert set(given) <= set(self.defaults)
        configurations = {"ros_namespace": space} if space else {}
        context = SimpleNamespace(launch_configurations=configurations | self.defaults | given)
        (function,) = self.of("OpaqueFunction")
        return function.named["function"](context)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, classes in NAMES.items():
        module = ModuleType(name)
        for made in classes:
            setattr(module, made, type(made, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    for variable in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_DISTRO"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def locate(stand_ins: None) -> Loaded:
    return Loaded("locate.launch.py")


@pytest.fixture
def replay(stand_ins: None) -> Loaded:
    return Loaded("replay.launch.py")


def parameters(arguments: list[str]) -> dict[str, Any]:
    given = [after for option, after in pairwise(arguments) if option == "-p"]
    return {text.split(":=")[0]: yaml.safe_load(text.split(":=", 1)[1]) for text in given}


def test_every_parameter_that_the_launch_file_sets_is_one_of_the_node(locate: Loaded) -> None:
    given = {name: "0.5" if kind is float else "raw" for name, (kind, _) in locate.module.PARAMETERS.items()}
    (node,) = locate.run(**given, use_sim_time="true")
    set_by_it = parameters(node.named["ros_arguments"])
    assert set(set_by_it) - {"use_sim_time"} <= set(PARAMETERS)
    assert set(given) <= set(set_by_it)
    for name, value in set_by_it.items():
        assert name == "use_sim_time" or type(value) is type(PARAMETERS[name].default)


def test_the_parameter_file_has_every_parameter_with_its_default() -> None:
    told = yaml.safe_load((ROOT / "config" / "locate.yaml").read_text())["/**"]["ros__parameters"]
    assert told == {name: spec.default for name, spec in PARAMETERS.items()}


def test_an_argument_that_is_not_given_leaves_the_parameter_to_the_file(locate: Loaded) -> None:
    (node,) = locate.run(params_file="/mine.yaml")
    arguments = node.named["ros_arguments"]
    assert arguments[:2] == ["--params-file", "/mine.yaml"]
    assert parameters(arguments) == {"autostart": True, "use_sim_time": False}


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("red cup", ["red cup"]),
        ("['red cup', 'door handle']", ["red cup", "door handle"]),
        ("[red cup, door handle]", ["red cup", "door handle"]),
        ("[yes, 7, 1.5, null]", ["yes", "7", "1.5", "null"]),
        ("no", ["no"]),
        ("cup: the red one, not the blue", ["cup: the red one, not the blue"]),
        ('["the \\"Exit\\" sign"]', ['the "Exit" sign']),
        ("Tür", ["Tür"]),
    ],
)
def test_prompts_are_one_phrase_or_a_list_and_stay_words(locate: Loaded, text: str, prompts: list[str]) -> None:
    (node,) = locate.run(prompts=text)
    assert parameters(node.named["ros_arguments"])["prompts"] == prompts


@pytest.mark.parametrize("given", [{"prompts": "[{a: b}]"}, {"threshold": "much"}, {"autostart": "perhaps"}])
def test_an_argument_that_cannot_be_is_told_with_its_name(locate: Loaded, given: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match=next(iter(given))):
        locate.run(**given)


def test_the_node_gets_its_name_topic_and_profile(locate: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = locate.run(name="eyes", namespace="front", image="/camera/image_raw", log_level="debug", respawn="true")
    assert type(node).__name__ == "LifecycleNode"
    assert (node.named["package"], node.named["executable"]) == ("groundlink_ros", "locate_node")
    assert (node.named["name"], node.named["namespace"], node.named["respawn"]) == ("eyes", "front", True)
    assert node.named["ros_arguments"][-4:] == ["-r", "image:=/camera/image_raw", "--log-level", "debug"]
    [(variable, profile)] = node.named["additional_env"].items()
    assert variable == "FASTDDS_DEFAULT_PROFILES_FILE"
    assert Path(profile) == ROOT / "config" / "fastdds.xml"
    assert Path(profile).is_file()
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert locate.run()[0].named["additional_env"] == {"FASTRTPS_DEFAULT_PROFILES_FILE": profile}
    assert locate.run(fastdds_profile="")[0].named["additional_env"] == {}
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/my/own.xml")
    assert locate.run()[0].named["additional_env"] == {}


def test_debug_shows_the_annotated_images_of_this_node(locate: Loaded) -> None:
    assert len(locate.run()) == 1
    assert locate.run(debug="true")[1].named["arguments"] == ["/annotated"]
    assert locate.run(debug="true", namespace="front", space="/robot")[1].named["arguments"] == [
        "/robot/front/annotated"
    ]
    assert locate.run(debug="true", namespace="/front", space="/robot")[1].named["arguments"] == ["/front/annotated"]


def test_with_the_launch_files_arguments_a_node_becomes_active_and_looks_for_the_prompts(
    folder: Path, locate: Loaded
) -> None:
    given = {"backend": "stub_sleep", "prompts": "[yes, 'a \"thing\"']", "threshold": "0", "image": "camera/raw"}
    params_file = folder / "mine.yaml"
    params_file.write_text("/**:\n  ros__parameters:\n    prompts: ['of the file']\n    max_rate: 7.5\n")
    (launched,) = locate.run(**given, name="eyes", namespace="launched", params_file=str(params_file))
    node = NodeProcess(
        folder,
        backend="stub_sleep",
        parameters={"autostart": False},
        name=launched.named["name"],
        namespace=f"/{launched.named['namespace']}{os.getpid()}",
        arguments=tuple(launched.named["ros_arguments"]),
    )
    try:
        node.wait_until("active")
        assert node.get("prompts") == ["yes", 'a "thing"']
        assert node.get("max_rate") == 7.5
        assert node.diagnosed(lambda values: values.get("listens_to"))["listens_to"].startswith(
            node.topic("camera/raw")
        )
        node.stop()
    finally:
        node.end()


def test_a_replay_starts_the_node_with_the_clock_of_the_bag(replay: Loaded, locate: Loaded) -> None:
    (included,) = replay.of("IncludeLaunchDescription")
    assert Path(included.given[0].given[0]) == ROOT / "launch" / "locate.launch.py"
    given = dict(included.named["launch_arguments"])
    assert set(given) <= set(locate.defaults)
    assert given.pop("debug").given == ("view",)
    assert given == {"autostart": "true", "use_sim_time": "true", "required": "true"}
    assert locate.run(**given)[0].named["on_exit"], "a replay goes on without its node"
    # What both declare is the same thing, so that it can be given once for both.
    shared = set(replay.defaults) & set(locate.defaults)
    assert {name: replay.defaults[name] for name in shared} == {name: locate.defaults[name] for name in shared}


def test_a_replay_plays_records_and_ends(replay: Loaded) -> None:
    recorder, player, handler = replay.run(
        bag="/bags/drive", rate="0.5", loop="true", record="/bags/found", namespace="front", space="/robot", linger="2"
    )
    playing = ["ros2", "bag", "play", "/bags/drive", "--clock", "100", "--rate", "0.5", "--loop"]
    assert player.named["cmd"][-len(playing) :] == playing
    assert player.named["cmd"][3] == "/robot/front/groundlink"
    assert recorder.named["cmd"][-4:] == ["--output", "/bags/found", "--regex", "^/robot/front/(detections|annotated)$"]
    (on_exit,) = handler.given
    assert on_exit.named["target_action"] is player
    (timer,) = on_exit.named["on_exit"]
    assert timer.named["period"] == 2.0
    assert type(timer.named["actions"][0]).__name__ == "Shutdown"
    assert [type(action).__name__ for action in replay.run(bag="b")] == ["ExecuteProcess", "RegisterEventHandler"]


@pytest.fixture
def ros2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A `ros2` that answers from files: the node's states, one after the other, and notes what is played."""
    program = tmp_path / "ros2"
    program.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\n'
        'if [ "$1 $2" = "lifecycle get" ]; then\n'
        '    echo "$3" >> asked; head -n 1 states; sed -i 1d states\n'
        'else\n    echo "$@" >> played\nfi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    yield tmp_path


def test_a_bag_is_played_once_the_node_is_active_and_not_before(replay: Loaded, ros2: Path) -> None:
    (ros2 / "states").write_text("unconfigured [1]\ninactive [2]\nactive [3]\n")
    player, _ = replay.run(bag="/bags/my drive")
    subprocess.run(player.named["cmd"], check=True, timeout=30)
    assert (ros2 / "asked").read_text().split() == ["/groundlink"] * 3
    assert (ros2 / "played").read_text() == "bag play /bags/my drive --clock 100 --rate 1.0\n"


def test_a_bag_is_not_played_to_a_node_that_does_not_become_active(replay: Loaded, ros2: Path) -> None:
    (ros2 / "states").write_text("inactive [2]\n" * 100)
    player, _ = replay.run(bag="b", patience="1")
    ended = subprocess.run(player.named["cmd"], check=False, timeout=30, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "not active after 1 s" in ended.stderr
    assert not (ros2 / "played").exists()
