"""A camera in a process of its own: numbered pictures, at a rate or one by one, as standard input says.

Input, a line of JSON each: {"stream": 30} (Hz), {"pause": true}, {"show": 7} (one picture with this number).
Output: a line for every picture that was sent, {"number": …, "stamp": [s, ns]}. It ends with its input.
"""

from __future__ import annotations

import argparse
import io
import json
import queue
import sys
import threading
import time
from typing import Any

import rclpy
from PIL import Image as Picture
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from stub_backends import paint


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("topic")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--frame-id", default="camera")
    parser.add_argument("--compressed", action="store_true")
    parser.add_argument("--reliable", action="store_true")
    options = parser.parse_args()
    rclpy.init(args=[])
    node = rclpy.create_node("camera", namespace=options.topic.rpartition("/")[0] or "/")
    reliability = ReliabilityPolicy.RELIABLE if options.reliable else ReliabilityPolicy.BEST_EFFORT
    qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=reliability)
    publisher = node.create_publisher(CompressedImage if options.compressed else Image, options.topic, qos)

    def show(number: int) -> None:
        pixels = paint(number, options.width, options.height)
        message: Any
        if options.compressed:
            file = io.BytesIO()
            Picture.fromarray(pixels).save(file, "JPEG", quality=90)
            message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=file.getvalue())
        else:
            message = Image(
                width=options.width,
                height=options.height,
                encoding="rgb8",
                step=3 * options.width,
                data=pixels.tobytes(),
            )
        message.header.frame_id = options.frame_id
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        stamp = [message.header.stamp.sec, message.header.stamp.nanosec]
        print(json.dumps({"number": number, "stamp": stamp}), flush=True)

    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        orders.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while publisher.get_subscription_count() == 0 and orders.empty():
        time.sleep(0.01)
    print(json.dumps({"ready": True}), flush=True)
    period, due, number = 0.0, 0.0, 1
    while True:
        try:
            order = orders.get(timeout=max(0.0, due - time.monotonic()) if period else None)
        except queue.Empty:
            show(number)
            number += 1
            due += period
            continue
        if order is None:
            break
        if "show" in order:
            show(order["show"])
        if "stream" in order:
            period, due = 1.0 / order["stream"], time.monotonic()
        if "pause" in order:
            period = 0.0
            print(json.dumps({"paused": True}), flush=True)
    rclpy.shutdown()


main()
