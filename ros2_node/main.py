"""The executable: one node, its executor, and an end within two seconds whatever the model is doing."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

END_SECONDS = 1.5
"""What the node gets to end in; after that the process ends without it."""

USAGE = """\
locate_node: publishes where in the images of a camera the described things are

  ros2 run groundlink_ros locate_node --ros-args -p autostart:=true -p prompts:="['red cup']" -r image:=/camera/image

It is a lifecycle node: without `autostart` it waits to be configured and activated. Topics, services and parameters
stand in docs/ros2.md.
"""

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; does not return then, since the process ends with code 0.

    Returns 1 where the node cannot begin, 2 where the command line is not understood.
    """
    _keep_freed_memory()
    # Blocked before there are threads, so that all inherit it, and waited for by this one: no handler can come between
    # two lines of anything, and a second Ctrl-C does not spoil the end.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import remove_ros_args

        from ros2_node import diagnostics
        from ros2_node.messages import utf8
        from ros2_node.node import LocateNode
    except ImportError as error:
        return _fail(_missing(error), 1)
    given = list(sys.argv if args is None else args)
    try:
        own = remove_ros_args(given)[1:]
    except Exception as error:  # not what ROS understands
        return _fail(str(error), 2)
    if {"-h", "--help"} & set(own):
        print(USAGE)
        return 0
    if own:
        return _fail(f"{own[0]!r} is not understood; parameters are given by --ros-args -p NAME:=VALUE", 2)
    try:
        rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
        node = LocateNode()
    except Exception as error:  # no middleware, no network
        return _fail(str(error), 1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if node.get_parameter("autostart").value:
        executor.create_task(node.start)

    def spin() -> None:
        while True:
            try:
                executor.spin()
            except ExternalShutdownException:
                return
            except Exception as error:  # of one callback; the others are wanted still
                node.report(f"callback {type(error).__name__}", f"a callback failed ({type(error).__name__}: {error})")
            else:
                return

    class ToRos(logging.Handler):
        """What the core logs goes to the log of ROS, one of a kind at a time."""

        throttle = diagnostics.Throttle()

        def emit(self, record: logging.LogRecord) -> None:
            if self.throttle.allows(f"{record.name} {record.msg}"):
                log = node.get_logger()
                (log.error if record.levelno >= logging.ERROR else log.warning)(utf8(self.format(record)))

    logging.getLogger("groundlink").addHandler(ToRos(logging.WARNING))

    def close() -> None:
        node.stop()
        executor.shutdown(timeout_sec=0.5)
        spinning.join(timeout=0.5)  # in the middle of loading it does not come back
        node.destroy_node()
        rclpy.try_shutdown()
        # Without this the middleware's shared memory, tens of megabytes, would outlive the process.
        rclpy.get_default_context().destroy()

    spinning = threading.Thread(target=spin, name="groundlink-ros", daemon=True)
    spinning.start()
    while spinning.is_alive() and signal.sigtimedwait(_SIGNALS, 1.0) is None:
        pass
    failed = not spinning.is_alive()
    _within(END_SECONDS, close)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed else 0)  # a model in the middle of a step is not waited for


def _keep_freed_memory() -> None:
    """Let the C library of Linux keep the memory of one frame for the next one.

    It would give an image's memory back at once and get it again, page by page: at 1920×1080 that takes as long as all
    else on an image's way through ROS. And keep it in two places, not in one for each of many threads: a model that is
    loaded and freed again and again would take more each time, as its threads are new ones.
    """
    threshold, trim, arenas = -3, -1, -8  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(threshold, 32 * 2**20)
    mallopt(trim, 128 * 2**20)
    mallopt(arenas, 2)


def _within(seconds: float, work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, name="groundlink-end", daemon=True)
    thread.start()
    thread.join(seconds)


def _fail(text: str, code: int) -> int:
    print(f"groundlink: error: {text}", file=sys.stderr)
    return code


def _missing(error: ImportError) -> str:
    name = (error.name or "").partition(".")[0]
    if name == "groundlink_ros":
        remedy = "build this repository with colcon, then: source install/setup.bash"
    elif name == "rclpy":
        remedy = "source /opt/ros/DISTRIBUTION/setup.bash, with the Python that ROS was built for"
    elif name.endswith(("_msgs", "_srvs", "_interfaces")):
        remedy = f"sudo apt install ros-$ROS_DISTRO-{name.replace('_', '-')}"
    else:
        remedy = "docs/ros2.md says how to install it"
    return f"{error}; {remedy}"
