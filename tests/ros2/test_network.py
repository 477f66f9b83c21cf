"""The profiles for Fast DDS: what arrives on one machine, and between two, which are network namespaces here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ros2.harness import PATIENCE, until
from tests.ros2.workspace import PROFILE_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
USERS = ROOT / "config" / "fastdds.xml"
TESTS = Path(__file__).with_name("fastdds.xml")
PROGRAM = Path(__file__).with_name("images.py")
# A memory file system of its own each, since shared memory is seen across network namespaces; `exec` keeps the process.
ALONE = ["unshare", "--mount", "--ipc", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "alone"]


class Images:
    """A process that sends images or counts them."""

    def __init__(self, log: Path, arguments: list[str], profile: Path, within: list[str], discovery: str) -> None:
        environment = {
            **os.environ,
            **dict.fromkeys(PROFILE_VARIABLES, str(profile)),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": discovery,
        }
        # What Fast DDS says on the way, such as that a variable is deprecated, is no answer.
        self.log, self.errors = log, log.with_name(f"{log.name}.errors")
        with log.open("w") as file, self.errors.open("w") as errors:
            command = [*within, sys.executable, str(PROGRAM), *arguments]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=errors, text=True, env=environment
            )

    def said(self) -> list[Any]:
        text = self.log.read_text()
        try:
            return [json.loads(line) for line in text.splitlines()]
        except ValueError:
            raise AssertionError(text) from None

    def end(self) -> None:
        """Let it end with its input."""
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, self.errors.read_text()


@contextmanager
def exchange(
    folder: Path,
    size: tuple[int, int],
    count: int,
    *,
    profile: Path,
    reliable: bool = False,
    places: tuple[list[str], list[str]] = ([], []),
    discovery: str = "LOCALHOST",
) -> Iterator[tuple[Images, Images]]:
    """A sender and a receiver in two places; both are ended in any case."""
    name = f"images_{os.getpid()}_{time.monotonic_ns()}"
    options = ["--reliable"] if reliable else []
    sending = ["send", f"/{name}", *map(str, size), str(count), *options]
    receiving = ["receive", f"/{name}", str(count), *options]
    receiver = Images(folder / f"{name}.receiver", receiving, profile, places[1], discovery)
    sender = Images(folder / f"{name}.sender", sending, profile, places[0], discovery)
    try:
        yield sender, receiver
    finally:
        for images in (sender, receiver):
            if images.process.poll() is None:
                images.process.kill()
            images.process.communicate()


def arrived(folder: Path, size: tuple[int, int], count: int, **how: Any) -> list[int]:
    """The numbers that arrived."""
    with exchange(folder, size, count, **how) as (sender, receiver):
        until(lambda: "ready" in receiver.said(), "the two know of each other")
        assert sender.process.stdin is not None
        sender.process.stdin.write("go\n")
        sender.process.stdin.flush()
        with suppress(subprocess.TimeoutExpired):  # what has not come by then is lost
            receiver.process.wait(count / 30 + 5)
        sender.end()
        receiver.end()
        return receiver.said()[-1]


@pytest.mark.parametrize("profile", [USERS, TESTS], ids=["users", "tests"])
def test_on_one_machine_every_large_image_arrives_best_effort(profile: Path, folder: Path) -> None:
    assert arrived(folder, (1920, 1080), 60, profile=profile) == list(range(60))


@dataclass
class Network:
    """Two machines on one cable: a command to put before another for each, and the interfaces."""

    places: tuple[list[str], list[str]]
    names: tuple[str, str]

    def sent(self) -> int:
        """Packets that have left either."""
        packets = "/sys/class/net/cable/statistics/tx_packets"
        return sum(int(ip("netns", "exec", name, "cat", packets)) for name in self.names)


@pytest.fixture
def network() -> Iterator[Network]:
    names = (f"groundlink-a{os.getpid()}", f"groundlink-b{os.getpid()}")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                # No IPv6, which would send packets of its own.
                off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true"
                ip("netns", "exec", name, "sh", "-c", off)
            ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
            for number, name in enumerate(names, start=1):
                ip("-n", name, "address", "add", f"10.231.17.{number}/24", "dev", "cable")
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", "cable", "up")
            for name in names:
                # Up to a second later; Fast DDS takes no interface that is not running when it starts.
                until(partial(running, name), f"the cable of {name} is up")
            places = tuple(["ip", "netns", "exec", name, *ALONE] for name in names)
            subprocess.run([*places[0], "true"], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            if os.environ.get("CI"):
                pytest.fail(f"CI needs network namespaces (root, iproute2): {reason}")
            pytest.skip(f"no network namespaces here: {reason}")
        yield Network((places[0], places[1]), names)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def running(name: str) -> bool:
    return "state UP" in ip("-n", name, "link", "show", "dev", "cable")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def test_between_two_machines_images_arrive_with_the_profile_for_users(network: Network, folder: Path) -> None:
    how = {"profile": USERS, "places": network.places, "discovery": "SUBNET"}
    before = network.sent()
    assert arrived(folder, (640, 480), 30, reliable=True, **how) == list(range(30))
    # Datagrams hold 65 kB at most.
    assert network.sent() - before > 30 * 640 * 480 * 3 // 65_000, "the images did not go over the network"
    # Best effort over a network: what the kernel's buffer for a socket does not take is lost, and an image may be.
    assert len(arrived(folder, (160, 120), 30, **how)) >= 25


def test_with_the_profile_for_tests_nothing_leaves_the_machine(network: Network, folder: Path) -> None:
    how = {"profile": TESTS, "places": network.places, "discovery": "SUBNET"}
    with exchange(folder, (160, 120), 30, **how) as (sender, receiver):
        time.sleep(4)
        assert network.sent() == 0
        sender.end()
        receiver.end()
        assert receiver.said() == [[]]
