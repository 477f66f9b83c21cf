"""What the ROS node adds to the way of an image through ROS, and what it costs while it does nothing.

    python benchmarks/ros2.py             # all of it, about four minutes
    python benchmarks/ros2.py --short     # 3 rounds of a second and no table of costs, for a test

It needs this package built and sourced (`source install/setup.bash`). Without a ROS distribution, after bin/test-ros:

    .venv-ros-test/bin/python tests/ros2/workspace.py .venv-ros-test/bin/python benchmarks/ros2.py

Three processes on one machine, with the Fast DDS profile for users (config/fastdds.xml): this one is the camera, rgb8
at 30 Hz, best effort, and listens to the answers; the node, with a backend that sleeps 20 ms and finds one box; and an
echo, a plain rclpy node that answers each image at once with a message of the same type. Node and echo get images in
turn, about a second each. Times are from before the publishing of an image to the arrival of its answer, by one clock;
the node's are told less the 20 ms. `beyond` is the node's less the echo's in the same round, less what the node says a
frame waited for the worker. In all three processes glibc keeps freed memory: else the echo, which frees each image at
once, spends half of its time on pages that it had before, and the node would look better than the transport.
`frames`: each must be answered or counted by the node as dropped, also by a model that is too slow for the camera.
`cost`: CPU of the node's process in percent of one core, by /proc, in each state.
Prints tables, and one JSON object on the last line. Exit code 1: over a limit, or frames that nobody counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
PROFILE = ROOT / "config" / "fastdds.xml"
BACKENDS = ROOT / "tests" / "ros2" / "backends"

SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
LIMITS_MS = {"640x480": 3.0, "1920x1080": 12.0}
"""What the node may take beyond the transport, by the median."""
IDLE_LIMIT = 5.0
"""Percent of a core that an active node without images may take."""
RATE = 30.0
SLEEP_MS = 20.0
SLOW_MS = 100.0
NODE = "/bench/groundlink"


def environment() -> dict[str, str]:
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:  # made by this very function
        return dict(os.environ)
    paths = [str(ROOT), str(BACKENDS), os.environ.get("PYTHONPATH", "")]
    return {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": "97",
        **os.environ,
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE),  # up to Jazzy
        "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
        "MALLOC_MMAP_THRESHOLD_": str(128 * 2**20),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def echo() -> None:
    """Answer each image with one detection, and do nothing else: what the transport takes in rclpy."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Detection2D, Detection2DArray

    rclpy.init()
    node = rclpy.create_node("echo", namespace="/bench/echo")
    publisher = node.create_publisher(Detection2DArray, "detections", 10)

    def answer(image: Any) -> None:
        publisher.publish(Detection2DArray(header=image.header, detections=[Detection2D(header=image.header)]))

    node.create_subscription(Image, "image", answer, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


@contextlib.contextmanager
def process(arguments: list[str]) -> Iterator[int]:
    """Run Python with arguments; give its process id, end it by SIGINT."""
    with subprocess.Popen([sys.executable, *arguments], env=environment(), stdout=sys.stderr) as running:
        try:
            yield running.pid
        finally:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(timeout=10)
            except subprocess.TimeoutExpired:
                running.kill()


class Bench:
    """The camera, and the listener to everything; spins in a thread of its own."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from groundlink_ros.msg import Prompts
        from lifecycle_msgs.srv import ChangeState
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image
        from std_srvs.srv import SetBool
        from vision_msgs.msg import Detection2DArray

        rclpy.init()
        self.node = rclpy.create_node("bench", namespace="/bench")
        self.arrived: dict[int, float] = {}
        self.told: dict[str, str] = {}
        self.tellings = 0
        self.published = 0
        self.cameras = {}
        for who, prefix in (("node", "/bench"), ("echo", "/bench/echo")):
            self.cameras[who] = self.node.create_publisher(Image, f"{prefix}/image", qos_profile_sensor_data)
            self.node.create_subscription(Detection2DArray, f"{prefix}/detections", self._arrive, 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._tell, 10)
        self._prompts = self.node.create_publisher(Prompts, f"{NODE}/prompts", 10)
        self._change = self.node.create_client(ChangeState, f"{NODE}/change_state")
        self._enable = self.node.create_client(SetBool, f"{NODE}/enable")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def close(self) -> None:
        import rclpy

        self.executor.shutdown()
        self.thread.join()
        rclpy.shutdown()

    def _arrive(self, message: Any) -> None:
        self.arrived[key(message.header.stamp)] = time.monotonic()

    def _tell(self, message: Any) -> None:
        for status in message.status:
            if status.name.startswith("bench/groundlink"):
                self.told = {pair.key: pair.value for pair in status.values}
                self.tellings += 1

    def call(self, client: Any, request: Any) -> Any:
        until(client.service_is_ready, "the node's services")
        future = client.call_async(request)
        until(future.done, "an answer of the node")
        return future.result()

    def transition(self, number: int) -> None:
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.id = number
        assert self.call(self._change, request).success, "the node refused the transition"

    def enable(self, on: bool) -> None:
        from std_srvs.srv import SetBool

        assert self.call(self._enable, SetBool.Request(data=on)).success

    def ask_for(self, prompt: str) -> None:
        """Set the prompt; frames that come some milliseconds later are asked for it."""
        from groundlink_ros.msg import Prompts

        until(self._prompts.get_subscription_count, "the node's prompts topic")
        self._prompts.publish(Prompts(prompts=[prompt]))

    def settled(self) -> dict[str, str]:
        """What the node says of itself, once its counts have not changed for a second."""
        names = ("frames_received", "frames_answered", "frames_superseded", "frames_lost", "frames_failed")

        def counts() -> list[str]:
            return [self.told.get(name, "0") for name in names]

        before: list[str] = []
        while True:
            tellings = self.tellings
            until(lambda: self.tellings > tellings, "/diagnostics")  # noqa: B023
            if counts() == before:
                return dict(self.told)
            before = counts()

    @contextlib.contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """Give what the node says became of the frames within; `unaccounted` are those that it says nothing of."""
        names = ("answered", "superseded", "lost", "failed")
        counted: dict[str, int] = {}
        before, published = self.settled(), self.published
        yield counted
        after = self.settled()
        counts = {name: int(after[f"frames_{name}"]) - int(before[f"frames_{name}"]) for name in names}
        sent = self.published - published
        counted.update({"published": sent, **counts, "unaccounted": sent - sum(counts.values())})

    def stream(self, who: str, pictures: list[Any], count: int) -> list[float | None]:
        """Publish `count` images at 30 Hz; return for each the ms until its answer, None where none came."""
        sent: dict[int, float] = {}
        due = time.monotonic()
        for number in range(count):
            image = pictures[number % len(pictures)]
            image.header.stamp = self.node.get_clock().now().to_msg()
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1 / RATE
            sent[key(image.header.stamp)] = time.monotonic()
            self.cameras[who].publish(image)
            self.published += who == "node"
        end = time.monotonic() + 0.5
        while time.monotonic() < end and not sent.keys() <= self.arrived.keys():
            time.sleep(0.01)
        times = [
            None if stamp not in self.arrived else (self.arrived[stamp] - begun) * 1000 for stamp, begun in sent.items()
        ]
        self.arrived.clear()
        return times

    def warm_up(self, who: str, pictures: list[Any]) -> None:
        """Publish until answers come one by one."""
        until(lambda: all(each is not None for each in self.stream(who, pictures, 3)), f"answers of the {who}")
        self.stream(who, pictures, 15)


def key(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def pictures_of(width: int, height: int) -> list[Any]:
    """Eight messages of different noise: nothing is known from the frame before."""
    import numpy as np
    from sensor_msgs.msg import Image

    chance = np.random.default_rng(0)
    made = []
    for _ in range(8):
        image = Image(width=width, height=height, encoding="rgb8", step=3 * width)
        image.header.frame_id = "camera"
        image.data = chance.integers(0, 256, 3 * width * height, dtype=np.uint8).tobytes()
        made.append(image)
    return made


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(bench: Bench, name: str, rounds: int, frames: int) -> dict[str, Any]:
    """Send images to the echo and to the node in turn."""
    pictures = pictures_of(*SIZES[name])
    for who in ("echo", "node"):
        bench.warm_up(who, pictures)
    times: dict[str, list[list[float]]] = {"echo": [], "node": []}
    with bench.counting() as counted:
        for _ in range(rounds):
            for who, each in times.items():
                asleep = SLEEP_MS if who == "node" else 0.0
                each.append([one - asleep for one in bench.stream(who, pictures, frames) if one is not None])
    told = bench.told
    waited = float(told["wait_ms"])
    beyond = [
        statistics.median(ours) - statistics.median(plain) - waited for ours, plain in zip(times["node"], times["echo"])
    ]
    # What noise has touched least, and with the waiting in it: for a short run on a busy machine.
    least = min(lower_quartile(ours) - lower_quartile(plain) for ours, plain in zip(times["node"], times["echo"]))
    return {
        "size": name,
        "limit_ms": LIMITS_MS[name],
        "transport_ms": spread([one for each in times["echo"] for one in each]),
        "node_ms": spread([one for each in times["node"] for one in each]),
        "waited_ms": waited,
        "beyond_ms": round(statistics.median(beyond), 2),
        "least_ms": round(least, 2),
        "echo_lost": rounds * frames - sum(map(len, times["echo"])),
        "stages_ms": {stage: float(told[f"{stage}_ms"]) for stage in ("convert", "inference", "publish")},
        "frames": counted,
    }


def too_slow(bench: Bench, name: str, frames: int) -> dict[str, int]:
    """Count what becomes of the frames where the model takes three times the camera's period."""
    pictures = pictures_of(*SIZES[name])
    bench.ask_for(f"slow {SLOW_MS / 1000}")
    bench.stream("node", pictures, 10)
    with bench.counting() as counted:
        bench.stream("node", pictures, frames)
    bench.ask_for("thing")
    bench.stream("node", pictures, 10)
    return counted


def costs(bench: Bench, pid: int, echo_pid: int, name: str, seconds: float) -> list[dict[str, Any]]:
    """The CPU of the node's process in each state, with the camera running; it begins and ends active."""
    from lifecycle_msgs.msg import Transition
    from sensor_msgs.msg import Image
    from visualization_msgs.msg import MarkerArray

    pictures = pictures_of(*SIZES[name])
    count = round(seconds * RATE)
    rows = []

    def measure(state: str, who: str = "node", of: int = pid) -> None:
        bench.stream(who, pictures, 20)
        with bench.counting() as counted:
            begun, cpu = time.monotonic(), cpu_seconds(of)
            answers = sum(each is not None for each in bench.stream(who, pictures, count))
            cpu = cpu_seconds(of) - cpu
            taken = time.monotonic() - begun
        dropped = counted["superseded"] + counted["lost"]
        rows.append(cost(state, name, cpu / taken, answers, dropped))

    measure("the echo, for comparison", "echo", echo_pid)
    bench.transition(Transition.TRANSITION_DEACTIVATE)
    measure("inactive")
    bench.transition(Transition.TRANSITION_ACTIVATE)
    bench.enable(False)
    measure("active, disabled")
    bench.enable(True)
    measure("active, 20 ms a frame")
    for topic, kind in (("annotated", Image), ("markers", MarkerArray)):
        heard = bench.node.create_subscription(kind, f"/bench/{topic}", lambda message: None, 1)
        measure(f"active, {topic} subscribed")
        bench.node.destroy_subscription(heard)
    return rows


def idle(pid: int, seconds: float, state: str) -> dict[str, Any]:
    """The CPU of the node's process without any image."""
    time.sleep(0.5)
    begun, cpu = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return cost(state, "no images", (cpu_seconds(pid) - cpu) / (time.monotonic() - begun))


def cost(state: str, size: str, cores: float, answers: int = 0, dropped: int = 0) -> dict[str, Any]:
    return {"state": state, "size": size, "cpu_percent": round(100 * cores, 1), "answers": answers, "dropped": dropped}


def lower_quartile(times: list[float]) -> float:
    return statistics.quantiles(times, n=4, method="inclusive")[0]


def spread(times: list[float]) -> dict[str, float]:
    """The median, and the middle half of the times."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": round(middle, 2), "low": round(low, 2), "high": round(high, 2)}


def measure(short: bool) -> dict[str, Any]:
    from lifecycle_msgs.msg import Transition

    assert PROFILE.is_file(), f"{PROFILE} is missing: without it, images are lost on their way"
    rounds, frames = (3, 25) if short else (5, 60)
    seconds = 2.5 if short else 6.0
    settings = json.dumps({"seconds": SLEEP_MS / 1000})
    parameters = {"backend": "stub_stubborn", "prompts": ["thing"], "settings": settings}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = Path(folder) / "parameters.yaml"
        file.write_text(json.dumps({"/**": {"ros__parameters": parameters}}), encoding="utf-8")  # JSON is YAML
        arguments = ["-m", "ros2_node", "--ros-args", "-r", "__ns:=/bench", "--params-file", str(file)]
        arguments += ["--log-level", "info"]
        pid = stack.enter_context(process(arguments))
        echo_pid = stack.enter_context(process([str(Path(__file__).resolve()), "--serve-echo"]))
        bench = Bench()
        stack.callback(bench.close)
        until(lambda: bench.tellings > 1, "the node's diagnostics")
        spent = [] if short else [idle(pid, seconds, "unconfigured")]
        bench.transition(Transition.TRANSITION_CONFIGURE)
        if not short:
            spent.append(idle(pid, seconds, "inactive"))
        bench.transition(Transition.TRANSITION_ACTIVATE)
        resting = idle(pid, seconds, "active, no camera")
        spent.append(resting)
        rows = [latency(bench, name, rounds, frames) for name in SIZES]
        slow = too_slow(bench, "640x480", frames if short else 150)
        if not short:
            for name in SIZES:
                spent += costs(bench, pid, echo_pid, name, seconds)
    return {
        "device": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "settings": {"rate_hz": RATE, "sleep_ms": SLEEP_MS, "slow_ms": SLOW_MS, "rounds": rounds, "frames": frames},
        "rows": rows,
        "too_slow": slow,
        "idle_percent": resting["cpu_percent"],
        "idle_limit_percent": IDLE_LIMIT,
        "cost": spent,
    }


def show(result: dict[str, Any]) -> None:
    settings = result["settings"]
    print(f"{result['device']}, Python {platform.python_version()}, rgb8 at {RATE:g} Hz, best effort")
    print(f"a backend that sleeps {SLEEP_MS:g} ms; {settings['rounds']} rounds of {settings['frames']} frames each\n")
    print(f"{'ms':12}{'transport':>20}{'node':>20}{'waited':>8}{'beyond':>8}{'limit':>7}")
    for row in result["rows"]:
        middle = [
            f"{each['median']:.2f} ({each['low']:.1f}–{each['high']:.1f})"
            for each in (row["transport_ms"], row["node_ms"])
        ]
        print(
            f"{row['size']:12}{middle[0]:>20}{middle[1]:>20}{row['waited_ms']:8.2f}{row['beyond_ms']:8.2f}"
            f"{row['limit_ms']:7.0f}"
        )
    print("\nwhat the node says of it, ms: ", end="")
    print(
        "; ".join(
            f"{row['size']} " + ", ".join(f"{k} {v:.2f}" for k, v in row["stages_ms"].items()) for row in result["rows"]
        )
    )
    print(f"\n{'frames':28}" + "".join(f"{name:>13}" for name in result["too_slow"]))
    for name, counts in [(row["size"], row["frames"]) for row in result["rows"]] + [
        (f"640x480, {SLOW_MS:g} ms a frame", result["too_slow"])
    ]:
        print(f"{name:28}" + "".join(f"{value:13}" for value in counts.values()))
    print(f"\n{'images':12}{'state':32}{'% of a core':>12}{'answers':>9}{'dropped':>9}")
    for row in result["cost"]:
        print(f"{row['size']:12}{row['state']:32}{row['cpu_percent']:12.1f}{row['answers']:9}{row['dropped']:9}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="3 rounds of a second, no table of costs")
    parser.add_argument("--serve-echo", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_echo:
        echo()
        return
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # glibc and ROS read their settings as they begin
        os.execve(sys.executable, [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]], environment())
    result = measure(options.short)
    show(result)
    print(json.dumps(result))
    beyond = "least_ms" if options.short else "beyond_ms"
    over = any(row[beyond] > row["limit_ms"] for row in result["rows"])
    lost = any(counts["unaccounted"] for counts in [*(row["frames"] for row in result["rows"]), result["too_slow"]])
    sys.exit(over or lost or result["idle_percent"] > IDLE_LIMIT)


if __name__ == "__main__":
    main()
