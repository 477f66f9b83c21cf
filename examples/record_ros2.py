"""Make docs/images/ros2.png: what the ROS 2 node publishes on `annotated` for a picture.

    python examples/record_ros2.py [IMAGE PROMPT …]

Needs a ROS 2 in which this package is built (docs/ros2.md). Without an image, a corridor is drawn, as a camera would
see it: at an angle, a little blurred, with noise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from PIL import Image as Picture
from PIL import ImageDraw, ImageFilter, ImageFont
from sensor_msgs.msg import Image

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ["Exit", "Charging dock 3", "Fragile"]
OUT = ROOT / "docs" / "images" / "ros2.png"


def main() -> int:
    image = Picture.open(sys.argv[1]).convert("RGB") if len(sys.argv) > 1 else corridor()
    prompts = sys.argv[2:] or PROMPTS
    parameters = ["-p", "autostart:=true", "-p", f"prompts:={prompts}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "ros2_node", "--ros-args", *parameters]
    with subprocess.Popen(command, env=environment) as locate:
        try:
            annotated = ask(np.asarray(image))
        finally:
            locate.send_signal(signal.SIGINT)
    annotated.save(OUT)
    print(OUT)
    return 0


def corridor() -> Picture.Image:
    """Return 1280×720 of a corridor with signs, a door, and boxes on a shelf."""
    picture = Picture.new("RGB", (1280, 720), (201, 196, 186))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(0, 720), (0, 610), (520, 520), (1280, 560), (1280, 720)], fill=(112, 104, 98))
    draw.polygon([(0, 0), (520, 90), (1280, 60), (1280, 0)], fill=(226, 224, 219))
    draw.rectangle((600, 190, 790, 530), fill=(96, 74, 58), outline=(62, 48, 40), width=6)
    draw.ellipse((762, 360, 778, 376), fill=(206, 178, 92))
    draw.rectangle((880, 330, 1230, 345), fill=(84, 88, 94))
    draw.rectangle((880, 520, 1230, 535), fill=(84, 88, 94))
    for x, y, w, h, color in (
        (900, 392, 150, 128, (188, 146, 98)),
        (1068, 420, 140, 100, (176, 134, 90)),
        (920, 236, 130, 94, (182, 140, 94)),
    ):
        draw.rectangle((x, y, x + w, y + h), fill=color, outline=(120, 88, 56), width=3)
    sign(picture, "EXIT", (632, 120, 758, 172), (18, 120, 74), (255, 255, 255))
    sign(picture, "Room 204", (642, 240, 748, 276), (238, 236, 230), (40, 40, 44))
    sign(picture, "FRAGILE", (912, 430, 1038, 470), (196, 40, 36), (255, 255, 255))
    sign(picture, "Spare parts", (1076, 452, 1200, 484), (244, 240, 226), (30, 30, 30))
    sign(picture, "Cables", (940, 266, 1032, 298), (244, 240, 226), (30, 30, 30))
    board = Picture.new("RGBA", picture.size)
    sign(board, "Charging dock 3", (90, 240, 440, 306), (24, 74, 150), (255, 255, 255))
    sign(board, "Keep clear", (90, 330, 270, 380), (232, 190, 40), (24, 24, 24))
    lean = (1.0, 0.0, 0.0, -0.14, 1.0, 40.0)  # the wall on the left runs away from the camera
    board = board.transform(picture.size, Picture.Transform.AFFINE, lean, Picture.Resampling.BICUBIC)
    picture.paste(board, (0, 0), board)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), np.float64)
    shade = np.linspace(0.86, 1.06, pixels.shape[1])[None, :, None]
    noise = np.random.default_rng(0).normal(0, 5, pixels.shape)
    return Picture.fromarray(np.clip(pixels * shade + noise, 0, 255).astype(np.uint8))


def sign(picture: Picture.Image, text: str, box: tuple[int, int, int, int], ground: tuple, ink: tuple) -> None:
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle(box, 6, fill=ground)
    font = ImageFont.load_default((box[3] - box[1]) * 0.58)
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, ink, font, anchor="mm")


def ask(pixels: np.ndarray, seconds: float = 60.0) -> Picture.Image:
    """Publish the picture until its annotated one comes back."""
    rclpy.init()
    node = rclpy.create_node("record_ros2")
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=pixels.tobytes())
    came: list[Image] = []
    node.create_subscription(Image, "annotated", came.append, 1)
    camera = node.create_publisher(Image, "image", 1)
    node.create_timer(0.2, lambda: camera.publish(message))
    end = time.monotonic() + seconds
    while not came and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.2)
    node.destroy_node()
    rclpy.shutdown()
    if not came:
        raise SystemExit("no annotated image came")
    return Picture.frombytes("RGB", (came[0].width, came[0].height), bytes(came[0].data))


if __name__ == "__main__":
    sys.exit(main())
