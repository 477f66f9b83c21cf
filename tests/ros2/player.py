"""Plays a bag in a process of its own, with simulated time, as `ros2 bag play --clock` does.

    python player.py BAG RATE TOPIC=NAME…

Messages go out as the bytes that were recorded, at the moments that they were recorded at, `RATE` times as fast, on the
topics that their own are mapped to; /clock tells the time a hundred times a second.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path

import rclpy
from rclpy.qos import QoSProfile
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock


def type_of(name: str) -> type:
    """Return the class of a message type such as `sensor_msgs/msg/Image`."""
    package, kind, name = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), name)


def main(bag: str, rate: float, *topics: str) -> None:
    names = dict(topic.split("=") for topic in topics)
    rclpy.init(args=[])
    node = rclpy.create_node("player", use_global_arguments=False)
    clock = node.create_publisher(Clock, "/clock", 10)
    with AnyReader([Path(bag)]) as reader:
        connections = [connection for connection in reader.connections if connection.topic in names]
        publishers = {
            connection.topic: node.create_publisher(
                type_of(connection.msgtype), names[connection.topic], QoSProfile(depth=10)
            )
            for connection in connections
        }
        while not all(publisher.get_subscription_count() for publisher in [*publishers.values(), clock]):
            time.sleep(0.01)
        first = reader.start_time - int(rate * 5e8)  # half a second of the clock alone, until all have found each other
        begun = time.monotonic()
        played = first

        def tick(until: int) -> None:
            """Tell the time until the bag's time is `until`, in nanoseconds."""
            nonlocal played
            while played < until:
                played = min(until, first + int((time.monotonic() - begun) * rate * 1e9))
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(played, 10**9)
                clock.publish(message)
                time.sleep(0.01)

        for connection, moment, data in reader.messages(connections):
            tick(moment)
            publishers[connection.topic].publish(bytes(data))
        tick(reader.end_time + int(rate * 1e9))
    rclpy.shutdown()


main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
