"""The small checkpoint that tests of behaviour run on, whatever golden set is asked for: fitted to a few answers."""

from functools import cache
from pathlib import Path

import torch

from groundlink.backends.locateanything.weights import Checkpoint, open_checkpoint

SET = Path(__file__).parent.parent / "golden" / "g2"
FOLDER = SET / "ckpt_fit"
IMAGES = SET / "images"


@cache
def checkpoint() -> Checkpoint:
    return open_checkpoint(FOLDER, torch.device("cpu"), torch.float32)
