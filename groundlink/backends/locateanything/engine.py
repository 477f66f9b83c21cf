"""The part that owns the device: pictures and a question in, accepted tokens out, with the figures of both."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from groundlink.backends.locateanything.blocks import Kind
from groundlink.backends.locateanything.generate import Accepted, generate
from groundlink.backends.locateanything.hub import find
from groundlink.backends.locateanything.preprocessing import Grid, image_tokens, preprocess
from groundlink.backends.locateanything.prompt import expand_tags
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.weights import Checkpoint, open_checkpoint
from groundlink.errors import BackendUnavailable, BadQuery, OutOfMemory

DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is some."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:1' and so on")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendUnavailable(f"the device {name!r} is not here or PyTorch cannot use it; use 'auto' or 'cpu'")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the floating type of that name; `auto` is the fastest that is safe on the device."""
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if name not in DTYPES:
        raise BackendUnavailable(f"unknown dtype {name!r}; use 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[name]


@dataclass(frozen=True)
class Seen:
    """Pictures as the language model gets them: the rows `[n, D]` and the grid of each."""

    rows: list[Tensor]
    grids: list[Grid]


class Figures(defaultdict[str, float]):
    """What one call cost: milliseconds by stage, and `tokens`, `steps`, `switches` to token by token."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(float)
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the device takes for a stage."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self[name] += (time.perf_counter() - started) * 1000

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Engine:
    """Runs one question at a time on one device."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.model = checkpoint.model

    @classmethod
    def load(cls, model: str, revision: str | None, device: str, dtype: str) -> Engine:
        """Find a checkpoint and open it."""
        chosen = choose_device(device)
        return cls(open_checkpoint(find(model, revision), chosen, choose_dtype(dtype, chosen)))

    def new_figures(self) -> Figures:
        """Return the figures of a call that begins."""
        return Figures(self.model.device)

    @torch.inference_mode()
    def look(self, images: Sequence[Image.Image], figures: Figures) -> Seen:
        """Run pictures through the vision tower, all in one pass."""
        with figures.stage("preprocess"):
            prepared = [preprocess(image, self.config.patch_limit) for image in images]
            grids = [grid for _, grid in prepared]
            patches = torch.from_numpy(np.concatenate([patches for patches, _ in prepared])).to(self.model.device)
        with figures.stage("vision"), _memory_errors("the image"):
            rows = self.model.encode_images(patches, grids)
        return Seen(list(torch.split(rows, [image_tokens(grid) for grid in grids])), grids)

    @torch.inference_mode()
    def answer(
        self, chat: str, seen: Seen, settings: Settings, figures: Figures, check: Callable[[], None]
    ) -> Iterator[Accepted]:
        """Answer a chat whose tags stand for the pictures that were looked at, by their order."""
        with figures.stage("prefill"), _memory_errors("the image and the question"):
            text, order = expand_tags(chat, seen.grids)
            prompt = torch.tensor([self.tokenizer.encode(text)], device=self.model.device)
            length, most = prompt.shape[1], self.config.max_length
            if most is not None and length >= most:
                raise BadQuery(
                    f"the image and the question take {length} tokens, and the model takes {most}; "
                    "make the image smaller or ask about less at once"
                )
            cache = self.model.new_cache(1, min(length + settings.max_new_tokens, most or sys.maxsize))
            images = torch.cat([seen.rows[i] for i in order])
            self.model.prefill(self.model.embed_prompt(prompt, images)[:, :-1], cache)

        def step(ids: Tensor, positions: Tensor, cached: Tensor, mask: Tensor, last: int) -> Tensor:
            return self.model.step(ids, positions, cached, mask, cache=cache, last=last)

        vocabulary, ids = self.config.text.vocab_size, self.config.ids
        steps = generate(step, prompt, vocabulary, ids, settings=settings, max_length=most, check=check)
        while True:
            with figures.stage("decode"), _memory_errors("the answer"):
                accepted = next(steps, None)
            if accepted is None:
                return
            figures["steps"] += 1
            figures["tokens"] += len(accepted.tokens)
            figures["switches"] += accepted.kind == Kind.ERROR_BOX
            yield accepted


@contextmanager
def _memory_errors(what: str) -> Iterator[None]:
    """Turn memory that runs out, on whatever device, into the house error."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise OutOfMemory(
                f"{what} needs more memory than is free; make the image smaller or free some memory"
            ) from error
        raise
