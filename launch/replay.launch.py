"""Plays a bag to the node and shows what it finds.

ros2 launch groundlink_ros replay.launch.py bag:=drive_1 image:=/camera/image_raw prompts:="['car', 'person']"

Takes the arguments of locate.launch.py, too. The bag begins when the node is active; the launch ends when the bag has
ended and the last answers have had `linger` seconds to come.
"""

from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

LOCATE = Path(__file__).parent / "locate.launch.py"

# $0: the node, $1: seconds that it may take to be active; the rest: the command to go on with. Asked for by the command
# line tool rather than waited for by an event of launch, which a node that is active at once would be too quick for.
WHEN_ACTIVE = """\
begun=$(date +%s)
until ros2 lifecycle get "$0" 2>/dev/null | grep -q '^active'; do
    if [ $(($(date +%s) - begun)) -ge "$1" ]; then
        echo "$0 is not active after $1 s; what it said above tells why" >&2
        exit 1
    fi
    sleep 0.5
done
shift
exec "$@"
"""

ARGUMENTS = {
    "bag": (None, "the bag to play: its folder or file"),
    "rate": ("1.0", "how fast it is played"),
    "loop": ("false", "play it over and over"),
    "view": ("true", "show the annotated images in rqt_image_view"),
    "record": ("", "record detections and annotated images into a bag of this name; empty: don't"),
    "patience": ("300", "seconds that the node may take to be active, for loading its model"),
    "linger": ("5.0", "seconds for the last answers when the bag has ended; more for a slow model"),
    "name": ("groundlink", "the node's name"),
    "namespace": ("", "the node's namespace"),
}


def play(context: LaunchContext) -> list[Any]:
    """Play the bag, and record if that is wanted."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    around = "" if given["namespace"].startswith("/") else context.launch_configurations.get("ros_namespace", "")
    space = "".join(f"/{part.strip('/')}" for part in (around, given["namespace"]) if part.strip("/"))
    command = ["ros2", "bag", "play", given["bag"], "--clock", "100", "--rate", given["rate"]]
    if given["loop"].lower() in ("true", "1"):
        command.append("--loop")
    playing = ExecuteProcess(
        cmd=["sh", "-c", WHEN_ACTIVE, f"{space}/{given['name']}", given["patience"], *command], output="screen"
    )
    ending = TimerAction(period=float(given["linger"]), actions=[Shutdown(reason="the bag has ended")])
    actions = [playing, RegisterEventHandler(OnProcessExit(target_action=playing, on_exit=[ending]))]
    if given["record"]:
        # By an expression, since how topics are named on this command line differs between the distributions.
        topics = f"^{space}/(detections|annotated)$"
        command = ["ros2", "bag", "record", "--output", given["record"], "--regex", topics]
        actions.insert(0, ExecuteProcess(cmd=command, output="screen"))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, start the node, and play."""
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LOCATE)),
        launch_arguments=[
            ("autostart", "true"),
            ("use_sim_time", "true"),
            ("required", "true"),
            ("debug", LaunchConfiguration("view")),
        ],
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, (default, meaning) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, node, OpaqueFunction(function=play)])
