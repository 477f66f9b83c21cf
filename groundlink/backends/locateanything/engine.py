"""The part that owns the device: pictures and a question in, accepted tokens out, with the figures of both."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from groundlink.backends.locateanything.blocks import Kind
from groundlink.backends.locateanything.config import PATCH, WINDOW
from groundlink.backends.locateanything.decoder import Decoder
from groundlink.backends.locateanything.generate import Accepted
from groundlink.backends.locateanything.hub import find
from groundlink.backends.locateanything.kept import CACHE_BYTES, Kept
from groundlink.backends.locateanything.memory import FIRST_SLOTS, Forecast, Shape, longest, room_for
from groundlink.backends.locateanything.preprocessing import Grid, image_grid, image_tokens, preprocess
from groundlink.backends.locateanything.prompt import expand_tags, tag_of
from groundlink.backends.locateanything.room import (
    give_back_freed_memory,
    in_words,
    is_memory,
    keep_no_freed_memory,
    room_of,
)
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.vision import normalise
from groundlink.backends.locateanything.weights import Checkpoint, open_checkpoint
from groundlink.errors import BackendUnavailable, BadQuery, OutOfMemory

T = TypeVar("T")

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
class Picture:
    """A picture that is opened only where it has to be looked at.

    `key` identifies its pixels, `size` is (width, height), `open` returns it.
    """

    key: str
    size: tuple[int, int]
    open: Callable[[], Image.Image]


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
            # Not for the whole device: that would break off a capture under way in another thread.
            torch.cuda.current_stream(self._device).synchronize()


class Engine:
    """Runs one question at a time on one device, and keeps what it has computed for the pictures.

    Args:
        checkpoint: the model and its tokenizer.
        cache_bytes: room for what is kept of pictures; 0 keeps nothing.
    """

    def __init__(self, checkpoint: Checkpoint, cache_bytes: int = CACHE_BYTES) -> None:
        self.folder = checkpoint.folder
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.model = checkpoint.model
        self.kept = Kept(cache_bytes)
        self._on_cuda = self.model.device.type == "cuda"
        self._asked: _Asked | None = None
        item = self.model.language_model.model.embed_tokens.weight.itemsize
        self.forecast = Forecast(self.config, item, self._on_cuda, cache_bytes=cache_bytes)
        self.decoder = self._attempt("laying out the weights", lambda: Decoder(self.model, capacity=FIRST_SLOTS))
        self.free()  # the places where weights were before

    @classmethod
    def load(
        cls,
        model: str,
        revision: str | None,
        device: str,
        dtype: str,
        settings: Settings,
        cache_bytes: int = CACHE_BYTES,
        on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
    ) -> Engine:
        """Find a checkpoint, open it, and make ready for questions that are answered with `settings`.

        Raises:
            BackendUnavailable, WeightsNotFound, WeightsInvalid: as the public `load` says.
            OutOfMemory: the device has too little for the weights, or for the buffers of answers.
        """
        chosen = choose_device(device)
        if chosen.type == "cpu":
            keep_no_freed_memory()
        folder = find(model, revision)
        checkpoint = open_checkpoint(
            folder, chosen, choose_dtype(dtype, chosen), lambda done: on_progress("loading the weights", 0.7 * done)
        )
        engine = cls(checkpoint, cache_bytes)
        engine.warm_up(settings, lambda doing, done: on_progress(doing, 0.7 + 0.3 * done))
        return engine

    def new_figures(self) -> Figures:
        """Return the figures of a call that begins."""
        return Figures(self.model.device)

    @torch.inference_mode()
    def warm_up(self, settings: Settings, on_progress: Callable[[str, float], None]) -> None:
        """Make buffers and graphs for a picture of any size and its answer. The CPU makes them as they are needed."""
        self.forecast = replace(self.forecast, max_new_tokens=settings.max_new_tokens)
        if not self._on_cuda:
            return

        def warm_up() -> None:
            self.decoder.warm_up(longest(self.config, settings.max_new_tokens), settings, on_progress)
            patches = torch.zeros(4, 3, PATCH, PATCH, device=self.model.device)
            self.decoder.prefill(0, self.model.encode_images(patches, [(2, 2)]))
            torch.cuda.synchronize(self.model.device)

        self._attempt(f"making room for answers of up to {settings.max_new_tokens} tokens (max_new_tokens)", warm_up)

    @torch.inference_mode()
    def answer(
        self, chat: str, pictures: Sequence[Picture], settings: Settings, figures: Figures, check: Callable[[], None]
    ) -> Iterator[Accepted]:
        """Answer a chat whose tags stand for the pictures, by their order.

        What the first picture costs, and the words before it, is paid once for all questions that begin alike. `check`
        is called before each piece of work, and may raise. Another answer that is begun ends this one.

        Raises:
            BadImage: a picture is of a shape that the model does not read.
            BadQuery: a tag names no picture, or the prompt is longer than the model takes.
            OutOfMemory: the device has too little memory, also after all was freed that is only kept.
        """
        for stage in ("preprocess", "vision", "image_prefill"):
            figures[stage] += 0.0  # what was kept costs nothing, and says so
        grids = [image_grid(*picture.size, self.config.patch_limit) for picture in pictures]
        text, order = expand_tags(chat, grids)
        prompt = self.tokenizer.encode(text)
        most = self.config.max_length
        if most is not None and len(prompt) >= most:
            raise BadQuery(
                f"the image and the question take {len(prompt)} tokens, and the model takes {most}; "
                "make the image smaller or ask about less at once"
            )
        check()
        asked = self._asked = _Asked([picture.size for picture in pictures], grids, len(prompt), figures)
        slots = room_for(len(prompt), settings.max_new_tokens, most, self._on_cuda)
        self._attempt("the question", lambda: self.decoder.reserve(slots))
        begun = self._read_first_image(chat, prompt, pictures, grids, order, figures) if order else 0
        check()
        self._read(prompt[begun:-1], [pictures[i] for i in order[1:]], begun, figures, "prefill")
        self._attempt("the answer", lambda: self.decoder.begin(0, prompt, settings, most))
        try:
            while self.decoder.running(0) and self._asked is asked:
                check()
                with figures.stage("decode"):
                    (accepted,) = self._attempt("the answer", self.decoder.step)
                assert accepted is not None
                figures["steps"] += 1
                figures["tokens"] += len(accepted.tokens)
                figures["switches"] += accepted.kind == Kind.ERROR_BOX
                yield accepted
        finally:
            if self._asked is asked:  # and not another question, asked before this answer was closed
                self.decoder.release(0)

    def _read_first_image(
        self,
        chat: str,
        prompt: list[int],
        pictures: Sequence[Picture],
        grids: Sequence[Grid],
        order: list[int],
        figures: Figures,
    ) -> int:
        """Fill the cache up to the end of the first image, and return where that is."""
        first = order[0]
        end = prompt.index(self.config.ids.image) + image_tokens(grids[first]) + 1
        tag = tag_of(first)
        key = (chat[: chat.index(tag) + len(tag)], pictures[first].key, grids[first])
        kept = self.kept.get(key)
        if kept is None:
            self._read(prompt[:end], [pictures[first]], 0, figures, "image_prefill")
            self._keep(key, end)
        else:
            with figures.stage("prefill"):
                self._attempt("the image", lambda: self.decoder.put(0, kept))
        return end

    def _keep(self, key: Hashable, length: int) -> None:
        """Keep the start of the cache for later questions, unless there is no room for it."""
        if not self.kept.limit:
            return
        try:
            self.kept.put(key, self.decoder.keep(0, length))
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            self.free()

    def _read(self, tokens: list[int], pictures: Sequence[Picture], start: int, figures: Figures, stage: str) -> None:
        """Read a part of the prompt, with its pictures in order, into the cache behind the first `start` tokens."""
        looked_at = self._look(pictures, figures)
        with figures.stage(stage):
            self._attempt("the question", lambda: self._prefill(tokens, looked_at, start))

    def _prefill(self, tokens: list[int], images: list[Tensor], start: int) -> None:
        ids = torch.tensor([tokens], dtype=torch.long, device=self.model.device)
        rows = self.model.embed_prompt(ids, torch.cat(images)) if images else self.model.embed(ids)
        self.decoder.prefill(0, rows[0], start)

    @torch.inference_mode()
    def _look(self, pictures: Sequence[Picture], figures: Figures) -> list[Tensor]:
        """Return the rows `[n, D]` of each picture; those that are not kept go through the vision tower, all in one."""
        rows = {picture.key: self.kept.get(("rows", picture.key)) for picture in pictures}
        new = {picture.key: picture for picture in pictures if rows[picture.key] is None}
        if new:
            with figures.stage("preprocess"):
                patches, grids = self._attempt("the image", lambda: self._prepare(list(new.values())))
            with figures.stage("vision"):
                encoded = self._attempt("the image", lambda: self._encode(patches, grids))
            for key, part in zip(new, encoded, strict=True):
                rows[key] = part
                self.kept.put(("rows", key), part)
        return [found for picture in pictures if (found := rows[picture.key]) is not None]

    def _prepare(self, pictures: list[Picture]) -> tuple[NDArray[np.uint8], list[Grid]]:
        """Return the patches of all pictures and their grids."""
        prepared = [preprocess(picture.open(), self.config.patch_limit) for picture in pictures]
        patches = [patches for patches, _ in prepared]
        return patches[0] if len(patches) == 1 else np.concatenate(patches), [grid for _, grid in prepared]

    def _encode(self, patches: NDArray[np.uint8], grids: list[Grid]) -> list[Tensor]:
        rows = self.model.encode_images(normalise(torch.from_numpy(patches).to(self.model.device)), grids)
        # Each on its own, or keeping one would keep all.
        return [part.clone() for part in torch.split(rows, [image_tokens(grid) for grid in grids])]

    def _attempt(self, what: str, work: Callable[[], T]) -> T:
        """Do some work; where memory runs out, free what can be freed and try once more.

        Raises:
            OutOfMemory: it ran out again.
        """
        for _ in range(2):
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_memory(error):
                    raise
                # Its traceback would hold on to all that the work had allocated.
                cause = error.with_traceback(None)
            self.free()
        raise OutOfMemory(self._too_much(what)) from cause

    def free(self) -> None:
        """Free what is kept for later questions."""
        self.kept.clear()
        if self._on_cuda:
            torch.cuda.empty_cache()
        else:
            give_back_freed_memory()

    def _too_much(self, what: str) -> str:
        """Say in words what was asked for, what it takes, what is free, and what would fit."""
        device, room, asked = self.model.device, room_of(self.model.device), self._asked
        free = "too little memory" if room is None else f"{in_words(room.free)} of memory"
        if asked is None or not asked.sizes:
            return f"{device} has {free} free, and {what} takes more; {_REMEDY}"
        size, shape = max(asked.sizes, key=math.prod), asked.shape()
        # What the weights and the buffers take is theirs already.
        held = self.forecast.held(self.decoder.capacity)
        needed = self.forecast.call(shape, self.decoder.capacity).peak - held
        told = f"{asked.in_words()} takes about {in_words(needed)} of memory beside the model, and "
        if room is None:
            return f"{told}{device} has too little free; make the image smaller or free some memory"
        told += f"{device} has {in_words(room.free)} free"
        # Memory ran out, so what is named must be less than what was tried, whatever the figures say.
        free_to_use = held + int(min(room.free, 0.9 * needed))
        fits = self.forecast.largest(free_to_use, size, shape.words, shape.answer, self.decoder.capacity)
        if fits is None:
            return f"{told}; not even a small image would fit: {_REMEDY}"
        return f"{told}; make the image smaller, at most {fits[0]}×{fits[1]} would fit, or free some memory"


_REMEDY = "choose a smaller type (such as dtype='bfloat16') or another device, or close other programs"


@dataclass(frozen=True)
class _Asked:
    """What is being answered, for those who must be told that it takes too much."""

    sizes: Sequence[tuple[int, int]]
    grids: Sequence[Grid]
    prompt: int
    figures: Figures

    def shape(self) -> Shape:
        """Return the call as one about its largest picture."""
        size = max(self.sizes, key=math.prod)
        tokens = image_tokens(self.grids[self.sizes.index(size)])
        return Shape(size, max(0, self.prompt - tokens), int(self.figures["tokens"]) + WINDOW)

    def in_words(self) -> str:
        """Name the pictures, and what they come to."""
        sizes = " and ".join(f"{width}×{height}" for width, height in self.sizes)
        tokens = f"{self.prompt:,}".replace(",", " ")
        behind = f" and {self.figures['tokens']:.0f} of its answer" if self.figures["tokens"] else ""
        return f"the image{'s' * (len(self.sizes) > 1)} of {sizes} ({tokens} tokens with the question{behind})"
