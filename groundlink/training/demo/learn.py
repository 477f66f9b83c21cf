"""The two stages in which the demo model learns: what lies on each patch, then to answer questions."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import preprocess
from groundlink.backends.locateanything.weights import open_settings
from groundlink.training.demo.blank import initialise, write_blank
from groundlink.training.demo.cells import Cells, Heads, cells_of, loss_of
from groundlink.training.forward import image_rows
from groundlink.training.loop import has_bfloat16, train
from groundlink.training.records import Stream
from groundlink.training.scenes import Scenes, draw
from groundlink.training.settings import TrainSettings

SEED = 0
QUESTIONS = 6  # about each scene

CELL_STEPS, CELL_BATCH, CELL_RATE, CELL_WARMUP = 2000, 16, 1e-3, 200

SETTINGS = TrainSettings(
    steps=3400,
    learning_rate=8e-4,
    learning_rate_floor=0.02,
    warmup_steps=150,
    betas=(0.9, 0.98),
    rows=16,
    max_tokens=640,
    accumulation=1,
    recompute=False,
    coordinate_spread=5.0,
    structure_smoothing=0.02,
    save_as="bfloat16",
    seed=SEED,
    checkpoint_every=200,
    log_every=20,
    workers=0,
)

Tell = Callable[[dict[str, Any]], None]


def first_stage(out: Path, steps: int = CELL_STEPS, on_log: Tell = lambda figures: None) -> Path:
    """Train the vision tower on cells, and return the folder `out/cells` with the model; what is there is kept.

    The folder has the layout of a checkpoint. The language model in it is as it was made.
    """
    done = out / "cells"
    if (done / "model.safetensors").exists():
        return done
    blank = out / "blank"
    if not (blank / "config.json").exists():
        write_blank(blank)
    config, _ = open_settings(blank)
    model = LocateAnything(config)
    initialise(model, SEED)
    torch.manual_seed(SEED)
    heads = Heads(config.text.hidden_size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, heads = model.to(device), heads.to(device)
    trained = [*model.vision_model.parameters(), *model.mlp1.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=CELL_RATE, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    for step in range(steps):
        rate = CELL_RATE * min(1, (step + 1) / CELL_WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        scenes = [draw("train", step * CELL_BATCH + i, 1)[0] for i in range(CELL_BATCH)]
        prepared = [preprocess(scene.image, config.patch_limit) for scene in scenes]
        told = [cells_of(scene, grid) for scene, (_, grid) in zip(scenes, prepared, strict=True)]
        classes, boxes = (torch.from_numpy(np.concatenate(part)).to(device) for part in zip(*told, strict=True))
        patches = torch.from_numpy(np.concatenate([patches for patches, _ in prepared])).to(device)
        grids = [grid for _, grid in prepared]
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            rows = image_rows(model, patches, grids)
        loss, figures = loss_of(heads(rows.float(), grids), Cells(classes, boxes))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if (step + 1) % 20 == 0:
            on_log({"step": step + 1, "loss": float(loss.detach()), "learning_rate": rate, **figures})
    partial = out / "cells.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(blank, partial)
    save_file(
        {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, partial / "model.safetensors"
    )
    partial.rename(done)
    return done


def second_stage(
    start: Path,
    out: Path,
    settings: TrainSettings = SETTINGS,
    on_log: Tell = lambda figures: None,
    on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
) -> Path:
    """Train the whole model to answer questions about scenes; return its folder, `out/model`. Goes on where it was."""
    stream = Stream({"scenes": (Scenes("train", QUESTIONS, SEED), 1.0)}, seed=SEED)
    return train(start, stream, out / "model", settings, on_log=on_log, on_progress=on_progress).folder
