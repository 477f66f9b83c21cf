"""Make the demo model from nothing: `python -m groundlink.training.demo OUT`.

Takes two to three hours on two idle cores with AMX. Broken off in the second stage, the same command goes on where it
was; the first stage, about 45 minutes of it, begins anew. What is shipped lies in OUT/demo in the end; with --install
it is put in the place of the weights of this package.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from groundlink.backends.demo import WEIGHTS
from groundlink.errors import GroundlinkError
from groundlink.files import save_text
from groundlink.training.demo.assess import assess
from groundlink.training.demo.learn import CELL_PARTS, PHASES, SETTINGS, first_stage, second_stage


def main() -> int:
    """Run all stages; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m groundlink.training.demo", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder for everything")
    parser.add_argument("--share", type=float, default=1.0, help="of all steps that are taken")
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes to measure on")
    parser.add_argument("--install", action="store_true", help="put the result in the place of the package's weights")
    given = parser.parse_args()
    started = time.monotonic()

    def log(figures: dict[str, Any]) -> None:
        told = {name: round(value, 4) for name, value in figures.items() if isinstance(value, int | float)}
        print(f"{time.monotonic() - started:.0f} s", json.dumps(told), flush=True)

    try:
        parts = [replace(part, steps=math.ceil(part.steps * given.share)) for part in CELL_PARTS]
        phases = [replace(phase, steps=math.ceil(phase.steps * given.share)) for phase in PHASES]
        start = first_stage(given.out, parts, on_log=log)
        second_stage(start, given.out, phases, on_log=log)
        facts = {
            "cell_steps": sum(part.steps for part in parts),
            "steps": sum(phase.steps for phase in phases),
            "spread": SETTINGS.coordinate_spread,
        }
        save_text(json.dumps(facts | {"machine": _machine()}), given.out / "model" / "training.json")
        demo = assess(given.out, given.scenes, lambda doing, fraction: print(doing, flush=True))
    except GroundlinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code.exit_code
    except KeyboardInterrupt as stopped:
        print(stopped if stopped.args else "interrupted", file=sys.stderr)
        return 130
    if given.install:
        shutil.rmtree(WEIGHTS, ignore_errors=True)
        shutil.copytree(demo, WEIGHTS)
    print(f"{time.monotonic() - started:.0f} s; the model is in {WEIGHTS if given.install else demo}")
    return 0


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores"
    return f"Trained on {device} ({platform.machine()}), torch {torch.__version__}."


if __name__ == "__main__":
    sys.exit(main())
