"""The two stages in which the demo model learns: the tower what lies on each cell, the rest to answer questions."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import preprocess
from groundlink.backends.locateanything.weights import open_checkpoint, open_settings
from groundlink.training.demo.blank import initialise, output_matrix, write_blank
from groundlink.training.demo.cells import CellLoss, cells_of
from groundlink.training.demo.guide import Guide
from groundlink.training.forward import image_rows
from groundlink.training.loop import has_bfloat16, train
from groundlink.training.records import Stream
from groundlink.training.scenes import MOST, Scenes, draw
from groundlink.training.settings import TrainSettings

SEED = 0
QUESTIONS = 6  # about each scene

CELL_BATCH, CELL_WARMUP = 8, 100

SETTINGS = TrainSettings(
    learning_rate_floor=0.05,
    warmup_steps=50,
    betas=(0.9, 0.98),
    rows=4,
    max_tokens=640,
    accumulation=1,
    recompute=False,
    coordinate_spread=8.0,
    structure_smoothing=0.02,
    none_weight=0.1,
    freeze=("vision", "connector"),  # half of the work, and what comes back to them from answers is noise
    save_as="float32",
    seed=SEED,
    checkpoint_every=100,
    log_every=20,
    workers=0,
)


@dataclass(frozen=True)
class CellPart:
    """A part of the first stage, with a schedule of its own; `by_name` as in CellLoss."""

    steps: int
    by_name: bool
    rate: float
    muon_rate: float


# Each time the rates go up again it comes out a good deal better than it went in.
CELL_PARTS = (
    CellPart(4000, False, 1e-3, 0.01),
    CellPart(600, True, 1e-3, 0.007),
    CellPart(1800, True, 1e-3, 0.008),
    CellPart(1500, True, 8e-4, 0.007),
    CellPart(1600, True, 7e-4, 0.006),
)


@dataclass(frozen=True)
class Phase:
    """A part of the second stage: steps over scenes of at most so many things.

    With one thing the model learns to say where something is at all; with a few, to look for what is asked. Scenes of
    one phase are not those of another.
    """

    name: str
    most: int
    steps: int
    rate: float
    muon_rate: float


PHASES = (
    Phase("one", 1, 400, 1e-3, 0.01),
    Phase("few", 4, 1400, 7e-4, 0.007),
    Phase("all", MOST, 2600, 7e-4, 0.007),
    Phase("last", MOST, 1000, 2.5e-4, 0.0025),
)

Tell = Callable[[dict[str, Any]], None]


def first_stage(out: Path, parts: Sequence[CellPart] = CELL_PARTS, on_log: Tell = lambda figures: None) -> Path:
    """Train the vision tower on cells, and return the folder `out/cells` with the model; what is there is kept.

    The folder has the layout of a checkpoint. The language model in it is as it was made.
    """
    done = out / "cells"
    if (done / "model.safetensors").exists():
        return done
    blank = out / "blank"
    if not (blank / "config.json").exists():
        write_blank(blank)
    config, tokenizer = open_settings(blank)
    model = LocateAnything(config)
    initialise(model, tokenizer, SEED)
    torch.manual_seed(SEED)
    model = model.to(_device())
    before = 0
    for part in parts:
        cells = CellLoss(model, tokenizer, SETTINGS.coordinate_spread, by_name=part.by_name).to(_device())
        _learn_cells(model, cells, part, before, on_log)
        before += part.steps
    partial = out / "cells.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(blank, partial)
    save_file(
        {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, partial / "model.safetensors"
    )
    partial.rename(done)
    return done


def _learn_cells(model: LocateAnything, cells: CellLoss, part: CellPart, before: int, on_log: Tell) -> None:
    """Take the steps of a part of the first stage, of which so many were taken before."""
    device = _device()
    matrices = [p for module in (model.vision_model.encoder, model.mlp1) for p in module.parameters() if p.ndim == 2]
    words = [model.language_model.model.embed_tokens.weight, output_matrix(model)]
    trained = [*model.vision_model.parameters(), *model.mlp1.parameters(), *words, *cells.parameters()]
    others = [p for p in trained if not any(p is one for one in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=part.rate, weight_decay=0.01, betas=(0.9, 0.98)),
        torch.optim.Muon(matrices, lr=part.muon_rate, weight_decay=0.01),
    ]
    for step in range(before, before + part.steps):
        taken = step - before
        share = min(1, (taken + 1) / CELL_WARMUP) * (0.5 + 0.5 * math.cos(math.pi * taken / part.steps))
        for optimizer, rate in zip(optimizers, (part.rate, part.muon_rate), strict=True):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        scenes = [draw("train", step * CELL_BATCH + i, 1)[0] for i in range(CELL_BATCH)]
        prepared = [preprocess(scene.image, model.config.patch_limit) for scene in scenes]
        grids = [grid for _, grid in prepared]
        told = np.concatenate([cells_of(scene, grid) for scene, grid in zip(scenes, grids, strict=True)])
        patches = np.concatenate([patches for patches, _ in prepared])
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            rows = image_rows(model, torch.from_numpy(patches).to(device), grids)
        loss = cells(rows.float(), torch.from_numpy(told).to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 20 == 0:
            on_log({"step": step + 1, "loss": float(loss.detach()), **cells.figures})


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def second_stage(
    start: Path,
    out: Path,
    phases: Sequence[Phase] = PHASES,
    on_log: Tell = lambda figures: None,
    on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
) -> Path:
    """Train the model to answer questions about scenes, phase by phase; return its folder. Goes on where it was."""
    for number, (phase, folder) in enumerate(zip(phases, phase_folders(out, phases), strict=True)):
        save_as = "bfloat16" if phase is phases[-1] else "float32"
        settings = replace(
            SETTINGS, steps=phase.steps, learning_rate=phase.rate, muon_rate=phase.muon_rate, save_as=save_as
        )
        if not is_done(folder, phase.steps):
            stream = Stream({"scenes": (Scenes("train", QUESTIONS, SEED + number, phase.most), 1.0)}, seed=SEED)
            _phase(start, folder, phase.name, stream, settings, on_log, on_progress)
        start = folder
    return start


def phase_folders(out: Path, phases: Sequence[Phase] = PHASES) -> list[Path]:
    """Return where the second stage trains, phase by phase; the last one is `out/model`."""
    return [*(out / f"phase-{phase.name}" for phase in phases[:-1]), out / "model"]


def is_done(folder: Path, steps: int) -> bool:
    """Tell whether a training in a folder has taken all its steps."""
    log = folder / "log.jsonl"
    if not (folder / "model.safetensors").exists() or not log.exists():
        return False
    return bool(json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"] >= steps)


def _phase(
    start: Path,
    folder: Path,
    name: str,
    stream: Stream,
    settings: TrainSettings,
    on_log: Tell,
    on_progress: Callable[[str, float], None],
) -> None:
    opened = open_checkpoint(start, torch.device("cpu"), torch.float32)
    torch.manual_seed(SEED)
    guide = Guide(opened.model)

    def log(figures: dict[str, Any]) -> None:
        on_log({"phase": name, **figures, **guide.figures})

    train(opened, stream, folder, settings, extra_loss=guide, on_log=log, on_progress=on_progress)
