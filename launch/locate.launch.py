"""Starts the node and makes it active.

ros2 launch groundlink_ros locate.launch.py image:=/camera/image_raw prompts:="['red cup', 'door handle']"

An argument that is left empty leaves the parameter to `params_file`, and where that says nothing to the node's default.
"""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

SHARE = Path(__file__).parent.parent
# Fast DDS reads the second one alone up to Jazzy; later, it reads that too and warns of it.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
UP_TO_JAZZY = ("humble", "iron", "jazzy")

# Launch arguments that are parameters of the node of the same name, and how they are read.
PARAMETERS = {
    "backend": (str, "the model that looks, such as 'ocr', 'locateanything' or 'demo'"),
    "model": (str, "the folder or hub name of the model's weights"),
    "device": (str, "where the model runs: 'cpu', 'cuda', 'cuda:1'"),
    "settings": (str, "further settings of the backend, a JSON object"),
    "task": (str, "what is asked with the prompts, such as 'detect', 'ground', 'point' or 'text'"),
    "prompts": ("prompts", "one phrase, or a YAML list of several: \"['red cup', 'door handle']\""),
    "threshold": (float, "detections with a lower score are left out, 0…1"),
    "max_rate": (float, "frames a second that are looked at, at most"),
    "image_reliability": (str, "'best_effort' or 'reliable'"),
    "image_transport": (str, "'raw', 'compressed' or 'auto'"),
}

# The other launch arguments: the default, and what they mean.
OTHERS = {
    "name": ("groundlink", "the node's name"),
    "namespace": ("", "the node's namespace"),
    "image": ("image", "the camera's topic; the compressed one is this with /compressed"),
    "params_file": ("", "a file with parameters, such as a copy of config/locate.yaml"),
    "autostart": ("true", "configure and activate the node at once; false: leave it to a lifecycle manager"),
    "use_sim_time": ("false", "take the time from /clock"),
    "fastdds_profile": (
        str(SHARE / "config" / "fastdds.xml"),
        "profile for Fast DDS, which loses large images without one; one that the environment names goes first; "
        "empty: none. The camera's node needs it, too",
    ),
    "log_level": ("", "debug, info, warn, error or fatal"),
    "respawn": ("false", "start the node again when it ends"),
    "required": ("false", "end the launch when the node ends"),
    "debug": ("false", "show the annotated images in rqt_image_view"),
}


def start(context: LaunchContext) -> list[Any]:
    """Make the nodes from the arguments as given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*PARAMETERS, *OTHERS)}
    on = {name: truth(name, given[name]) for name in ("autostart", "use_sim_time", "respawn", "required", "debug")}
    # As arguments rather than launch_ros's `parameters`: those would read a prompt such as `yes` as a truth value.
    arguments = ["--params-file", given["params_file"]] if given["params_file"] else []
    for name, (kind, _) in PARAMETERS.items():
        if given[name]:
            value = read(name, kind, given[name])
            arguments += ["-p", f"{name}:={json.dumps(value, ensure_ascii=False)}"]  # JSON is YAML
    arguments += ["-p", f"autostart:={json.dumps(on['autostart'])}"]
    arguments += ["-p", f"use_sim_time:={json.dumps(on['use_sim_time'])}"]
    if given["image"] != "image":
        arguments += ["-r", f"image:={given['image']}"]
    if given["log_level"]:
        arguments += ["--log-level", given["log_level"]]
    variable = PROFILE_VARIABLES[os.environ.get("ROS_DISTRO") in UP_TO_JAZZY]
    profile = given["fastdds_profile"]
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        profile = ""
    actions = [
        LifecycleNode(
            package="groundlink_ros",
            executable="locate_node",
            name=given["name"],
            namespace=given["namespace"],
            ros_arguments=arguments,
            additional_env={variable: profile} if profile else {},
            output="screen",
            emulate_tty=True,
            respawn=on["respawn"],
            respawn_delay=2.0,
            on_exit=[Shutdown(reason="the node has ended")] if on["required"] and not on["respawn"] else [],
        )
    ]
    if on["debug"]:
        topic = absolute(context, given["namespace"], "annotated")
        actions.append(Node(package="rqt_image_view", executable="rqt_image_view", arguments=[topic]))
    return actions


def read(name: str, kind: Any, text: str) -> Any:
    """Return the value that the text of a launch argument stands for."""
    if kind == "prompts":
        # Strings all of them: a prompt such as `no` or `7` is one, too.
        prompts = yaml.load(text, Loader=yaml.BaseLoader) if text.lstrip().startswith("[") else [text]
        if not all(isinstance(prompt, str) for prompt in prompts):
            raise RuntimeError(f"{name} is one phrase or a list of phrases such as ['red cup', 'door'], not {text}")
        return prompts
    try:
        return kind(text)
    except ValueError:
        raise RuntimeError(f"{name} is a number, not {text}") from None


def truth(name: str, text: str) -> bool:
    """Return whether an argument is true; `True` and `1` are as good as `true`."""
    if text.lower() in ("true", "1", "false", "0"):
        return text.lower() in ("true", "1")
    raise RuntimeError(f"{name} is true or false, not {text}")


def absolute(context: LaunchContext, namespace: str, topic: str) -> str:
    """Return the full name of a topic of the node, below the namespaces that were pushed around it."""
    around = "" if namespace.startswith("/") else context.launch_configurations.get("ros_namespace", "")
    return "/" + "/".join(part for part in (around.strip("/"), namespace.strip("/"), topic) if part)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; what is started depends on them."""
    declared = [
        DeclareLaunchArgument(name, default_value="", description=f"{meaning}; empty: left to params_file")
        for name, (_, meaning) in PARAMETERS.items()
    ]
    declared += [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, (default, meaning) in OTHERS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
