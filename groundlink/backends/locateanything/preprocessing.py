"""From a picture to the patches of the vision tower."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundlink.backends.locateanything.config import MERGE, PATCH
from groundlink.errors import BadImage

MAX_PATCHES_PER_SIDE = 512  # sides of this many patches or more are refused

Size = tuple[int, int]
Grid = tuple[int, int]


def target_sizes(width: int, height: int, patch_limit: int) -> tuple[Size, Size]:
    """Return the two (width, height) a picture is resized to in turn: under the patch limit, then to whole patches."""
    if width < 1 or height < 1:
        raise BadImage(f"the image of {width}×{height} has no pixels; give one that has some")
    smaller = (width, height)
    patches = (width // PATCH) * (height // PATCH)
    if patches > patch_limit:
        scale = math.sqrt(patch_limit / patches)
        smaller = (int(width * scale), int(height * scale))
    unit = PATCH * MERGE
    whole = (math.ceil(smaller[0] / unit) * unit, math.ceil(smaller[1] / unit) * unit)
    if min(smaller) < 1 or max(whole) // PATCH >= MAX_PATCHES_PER_SIDE:
        longest = (MAX_PATCHES_PER_SIDE // MERGE - 1) * unit
        raise BadImage(
            f"the image of {width}×{height} is too long and narrow: it would be read at {smaller[0]}×{smaller[1]}, and "
            f"LocateAnything reads sides of 1 to {longest} pixels; cut it into pieces"
        )
    return smaller, whole


def image_grid(width: int, height: int, patch_limit: int) -> Grid:
    """Return the rows and columns of patches that a picture of this size becomes."""
    _, (w, h) = target_sizes(width, height, patch_limit)
    return h // PATCH, w // PATCH


def image_tokens(grid: Grid) -> int:
    """Return what an image of this grid costs in the language model."""
    return grid[0] * grid[1] // MERGE**2


def to_rgb(image: Image.Image) -> Image.Image:
    """Composite RGBA on white; convert any other mode plainly."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def preprocess(image: Image.Image, patch_limit: int) -> tuple[NDArray[np.uint8], Grid]:
    """Return the patches `[rows·columns, 3, 14, 14]` in row-major order, and the grid `(rows, columns)`.

    They stay bytes on their way to the device, where `vision.normalise` makes numbers of them.
    """
    smaller, whole = target_sizes(*image.size, patch_limit)
    image = to_rgb(image)
    for size in (smaller, whole):
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
    rows, columns = whole[1] // PATCH, whole[0] // PATCH
    pixels = np.asarray(image, dtype=np.uint8).reshape(rows, PATCH, columns, PATCH, 3)
    patches = pixels.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, PATCH, PATCH)
    return patches, (rows, columns)


def crop_box(
    width: int, height: int, box: tuple[float, float, float, float], box_format: str = "pixel"
) -> tuple[int, int, int, int]:
    """Return the (left, top, right, bottom) to cut an example out of a picture; right and bottom are exclusive.

    `box_format` is `pixel`, `normalized_1` or `normalized_1000`. Reversed corners are not swapped.
    """
    divisor = {"pixel": None, "normalized_1": 1, "normalized_1000": 1000}[box_format]
    sides = (width, height, width, height)
    # Python's round() takes halves to the even number, which is the rule here.
    x1, y1, x2, y2 = (round(v if divisor is None else v / divisor * side) for v, side in zip(box, sides, strict=True))
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return left, top, min(max(x2, left + 1), width), min(max(y2, top + 1), height)
