"""Answers as messages of ROS: `vision_msgs`, the annotated picture, and markers for RViz."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from typing import Any

from geometry_msgs.msg import Point
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
    VisionInfo,
)
from visualization_msgs.msg import Marker, MarkerArray

from groundlink import Detection, Detections
from groundlink.image import Pixels
from groundlink.render import draw

_PLANE = 1.0
"""Metres before the camera at which markers stand: how far away things are is not known here."""


def detection_array(header: Any, detections: Iterable[Detection]) -> Any:
    """Return a `Detection2DArray`; `header` is the source image's, and stands on the array and on each detection."""
    return Detection2DArray(
        header=header, detections=[detection_message(header, detection) for detection in detections]
    )


def detection_message(header: Any, detection: Detection) -> Any:
    """Return a `Detection2D`: centre and size in pixels, a point as a box of size 0.

    The score is NaN where the model gives none. `covariance[0]` and `[7]` are the variances of the centre's x and y in
    px², of the independent standard deviations of the edges; zero where they are not known.
    """
    x1, y1, x2, y2 = detection.box or (*_point(detection), *_point(detection))
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    message = Detection2D(header=header)
    message.bbox.center.position.x = x
    message.bbox.center.position.y = y
    message.bbox.size_x = x2 - x1
    message.bbox.size_y = y2 - y1
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = utf8(detection.label)
    result.hypothesis.score = math.nan if detection.score is None else detection.score
    result.pose.pose.position.x = x
    result.pose.pose.position.y = y
    if detection.spread is not None:
        result.pose.covariance[0], result.pose.covariance[7] = _variances(detection.spread)
    message.results = [result]
    return message


def label_info(header: Any, prompts: Sequence[str], threshold: float) -> Any:
    """Return a `LabelInfo` that numbers the prompts from 0; detections name them by their words, not by the number."""
    classes = [VisionClass(class_id=number, class_name=utf8(prompt)) for number, prompt in enumerate(prompts)]
    return LabelInfo(header=header, class_map=classes, threshold=float(threshold))


def vision_info(header: Any, method: str, location: str, version: int) -> Any:
    """Return a `VisionInfo`: what finds things, where its labels are told, and how often they have changed."""
    return VisionInfo(header=header, method=utf8(method), database_location=utf8(location), database_version=version)


def merge(answers: Sequence[Detections], size: tuple[int, int]) -> Detections:
    """Return one answer with the detections of all answers about one image of `size` (width, height)."""
    if len(answers) == 1:
        return answers[0]
    detections = tuple(detection for answer in answers for detection in answer)
    return Detections(detections, "found" if detections else "not_found", size)


def annotated_image(header: Any, frame: Pixels, answers: Sequence[Detections]) -> Any:
    """Return the frame (H×W×3, RGB) with all answers drawn on it, as an `Image` in rgb8; `frame` stays as it is."""
    height, width = frame.shape[:2]
    picture = draw(frame, merge(answers, (width, height)))
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = picture.tobytes()  # a numpy array is taken value by value: half a second
    return message


def markers(header: Any, answers: Sequence[Detections], size: tuple[int, int], camera_info: Any = None) -> Any:
    """Return a `MarkerArray` that shows the answers one metre before the camera, and removes those before.

    In the frame of the image, taken for an optical one (z forward, x right, y down). Without a calibrated `CameraInfo`
    the camera is taken for one that sees one metre in width at one metre. Distortion is not undone.
    """
    fx, fy, cx, cy = _camera(size, camera_info)

    def place(u: float, v: float) -> Any:
        return Point(x=(u - cx) / fx * _PLANE, y=(v - cy) / fy * _PLANE, z=_PLANE)

    unit = size[0] / fx * _PLANE / 100  # a hundredth of the picture's width
    made = [Marker(header=header, action=Marker.DELETEALL)]
    detections = [detection for answer in answers for detection in answer]
    colors = _colors(detection.label for detection in detections)
    for number, detection in enumerate(detections):
        color = colors[detection.label]
        if detection.box is not None:
            x1, y1, x2, y2 = detection.box
            outline = Marker(header=header, ns="boxes", id=number, type=Marker.LINE_STRIP, color=color)
            outline.points = [place(*corner) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))]
            outline.scale.x = unit / 2
            top = place((x1 + x2) / 2, y1)
        else:
            top = place(*_point(detection))
            outline = Marker(header=header, ns="points", id=number, type=Marker.SPHERE, color=color)
            outline.pose.position = place(*_point(detection))
            outline.scale.x = outline.scale.y = outline.scale.z = 1.5 * unit
        text = Marker(header=header, ns="labels", id=number, type=Marker.TEXT_VIEW_FACING, color=color)
        text.text = utf8(detection.label if detection.score is None else f"{detection.label} {detection.score:.2f}")
        text.pose.position = top
        text.pose.position.y -= 2 * unit
        text.scale.z = 3 * unit
        made += [outline, text]
    return MarkerArray(markers=made)


def _point(detection: Detection) -> tuple[float, float]:
    assert detection.point is not None, "a detection has a box or a point"
    return detection.point


def _variances(spread: tuple[float, ...]) -> tuple[float, float]:
    """The variances of the centre: of a box from the deviations of its edges, of a point its own."""
    if len(spread) == 2:
        return spread[0] ** 2, spread[1] ** 2
    a, b, c, d = spread
    return (a * a + c * c) / 4, (b * b + d * d) / 4


def utf8(text: str) -> str:
    """Return words of a model, of an error or of a path as ROS takes them: as UTF-8, without a zero."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


def _camera(size: tuple[int, int], info: Any) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy in pixels of an image of `size`.

    `k` belongs to the whole sensor; the image shows the region of interest, or all, perhaps at another scale (binning).
    """
    width, height = size
    if info is None or not (info.k[0] > 0 and info.k[4] > 0 and math.isfinite(info.k[0] * info.k[4])):
        return float(width), float(width), width / 2, height / 2
    left = top = 0
    seen_width, seen_height = info.width or width, info.height or height
    if info.roi.width and info.roi.height:
        left, top, seen_width, seen_height = info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height
    across, down = width / seen_width, height / seen_height
    return (
        float(info.k[0]) * across,
        float(info.k[4]) * down,
        (float(info.k[2]) - left) * across,
        (float(info.k[5]) - top) * down,
    )


def _colors(labels: Iterable[str]) -> dict[str, Any]:
    """Bright colours, for RViz's dark ground: each label's hue a golden angle from the one before."""
    return {
        label: ColorRGBA(**dict(zip("rgb", colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 1.0))), a=1.0)
        for number, label in enumerate(dict.fromkeys(labels))
    }
