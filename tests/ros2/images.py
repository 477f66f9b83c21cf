"""Sends images, or counts those that come, in a process of its own.

    python images.py send TOPIC WIDTH HEIGHT COUNT [--reliable]     30 a second, once somebody listens
    python images.py receive TOPIC COUNT [--reliable]

It says "ready" when it knows of the other, and at the end which numbers were sent or came, as JSON. It ends with its
input, the receiver also when all have come.
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
    qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=reliability)
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
    while publisher.get_subscription_count() == 0:
        if ended(0.02):
            return
    print(json.dumps("ready"), flush=True)
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        message.header.frame_id = str(number)
        publisher.publish(message)
    print(json.dumps(list(range(count))), flush=True)
    while not ended(1.0):
        pass


def receive(node: Any, topic: str, qos: QoSProfile, count: int) -> None:
    numbers: list[int] = []
    subscription = node.create_subscription(
        Image, topic, lambda message: numbers.append(int(message.header.frame_id)), qos
    )
    said = False
    while len(numbers) < count and not ended(0.0):
        rclpy.spin_once(node, timeout_sec=0.05)
        if not said and node.count_publishers(topic):
            said = True
            print(json.dumps("ready"), flush=True)
    print(json.dumps(numbers), flush=True)
    node.destroy_subscription(subscription)


def ended(seconds: float) -> bool:
    """Whether standard input has come to its end, waiting for that as long."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


main()
