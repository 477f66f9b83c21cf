"""Sends images, or counts those that come, in a process of its own.

    python images.py send TOPIC WIDTH HEIGHT COUNT [--reliable]     30 a second
    python images.py receive TOPIC COUNT [--reliable]

The sender sends images that do not count until it gets a line of input, since the two need not know of each other at
the same time, and then those that do. The receiver says "ready" when the first image comes, of either kind, and prints
the numbers of those that count, as JSON, when all have come. Both end with their input.
"""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any

import rclpy
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

RATE = 30.0


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--reliable"]
    reliability = ReliabilityPolicy.RELIABLE if "--reliable" in sys.argv else ReliabilityPolicy.BEST_EFFORT
    qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=reliability)
    rclpy.init(args=[])
    node = rclpy.create_node(words[0])
    if words[0] == "send":
        send(node, words[1], qos, *map(int, words[2:]))
    else:
        receive(node, words[1], qos, int(words[2]))
    rclpy.shutdown()


def send(node: Any, topic: str, qos: QoSProfile, width: int, height: int, count: int) -> None:
    publisher = node.create_publisher(Image, topic, qos)
    message = Image(width=width, height=height, step=3 * width, encoding="rgb8", data=bytes(3 * width * height))
    message.header.frame_id = "-1"
    while not asked(1 / RATE):
        publisher.publish(message)
    if not sys.stdin.readline():
        return
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        message.header.frame_id = str(number)
        publisher.publish(message)
    sys.stdin.read()  # what is reliable may be asked for again


def receive(node: Any, topic: str, qos: QoSProfile, count: int) -> None:
    numbers: list[int] = []

    def take(message: Image) -> None:
        if not numbers:
            print(json.dumps("ready"), flush=True)
        numbers.append(int(message.header.frame_id))

    subscription = node.create_subscription(Image, topic, take, qos)
    while len([number for number in numbers if number >= 0]) < count and not asked(0.0):
        rclpy.spin_once(node, timeout_sec=0.05)
    print(json.dumps([number for number in numbers if number >= 0]), flush=True)
    node.destroy_subscription(subscription)


def asked(seconds: float) -> bool:
    """Whether there is input, or its end, waiting for that as long."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


main()
