"""What will fit on a device, told from a checkpoint's JSON files alone: no weights are read, nothing is allocated."""

from __future__ import annotations

from dataclasses import replace

import torch

from groundlink.backend import MemoryReport, PictureMemory
from groundlink.backends.locateanything.config import Config, read_config
from groundlink.backends.locateanything.engine import choose_device, choose_dtype
from groundlink.backends.locateanything.hub import find_settings
from groundlink.backends.locateanything.memory import ANSWER, Forecast, Shape, full_size
from groundlink.backends.locateanything.preprocessing import Size
from groundlink.backends.locateanything.room import Room, in_words, room_of
from groundlink.backends.locateanything.settings import Settings
from groundlink.errors import WeightsInvalid

SIZES: tuple[Size, ...] = ((640, 480), (1920, 1080), (3840, 2160))
WIDE = (16, 9)


def report(
    model: str, revision: str | None, device: str, dtype: str, settings: Settings, cache_bytes: int
) -> MemoryReport:
    """Say what pictures fit.

    Raises:
        BackendUnavailable: there is no such device or type.
        WeightsNotFound: there is no such checkpoint, here or on the hub.
        WeightsInvalid: it is no checkpoint of this model.
    """
    chosen = choose_device(device)
    kind = choose_dtype(dtype, chosen)
    config = _config(model, revision)
    cuda = chosen.type == "cuda"
    forecast = Forecast(config, kind.itemsize, cuda, settings.max_new_tokens, cache_bytes)
    room = room_of(chosen)
    answer = min(ANSWER, settings.max_new_tokens)

    def picture(size: Size, note: str = "") -> PictureMemory:
        budget = forecast.call(Shape(size, answer=answer))
        return PictureMemory(size, budget.peak, None if room is None else budget.room <= room.free, note)

    widest = full_size(config, WIDE)
    pictures = (*(picture(size) for size in SIZES), picture(widest, "larger ones are read at about this size"))
    largest = None if room is None else forecast.largest(room.free, widest, answer=answer)
    return MemoryReport(
        model=model,
        device=f"{chosen} ({torch.cuda.get_device_name(chosen)})" if cuda else str(chosen),
        dtype=str(kind).removeprefix("torch."),
        total=None if room is None else room.total,
        free=None if room is None else room.free,
        weights=forecast.call(Shape(SIZES[0])).weights,
        pictures=pictures,
        largest=largest,
        note=_about_answers(forecast, answer),
        advice="" if all(picture.fits is not False for picture in pictures) else _advice(forecast, room, answer),
    )


def _config(model: str, revision: str | None) -> Config:
    folder = find_settings(model, revision)
    problems: list[str] = []
    config = read_config(folder, None, problems)
    if config is None or problems:
        raise WeightsInvalid(f"{folder} is no LocateAnything checkpoint that can be run:\n- " + "\n- ".join(problems))
    return config


def _about_answers(forecast: Forecast, answer: int) -> str:
    most = forecast.max_new_tokens
    told = f"peaks of a first question about a picture, with an answer of {answer} tokens"
    if forecast.cuda:
        return f"{told}; room for {most} tokens (max_new_tokens) is in them"
    size = SIZES[1]
    more = forecast.call(Shape(size, answer=most)).peak - forecast.call(Shape(size, answer=answer)).peak
    return f"{told}; one of {most} tokens (max_new_tokens) takes up to {in_words(more)} more" if more else told


def _advice(forecast: Forecast, room: Room | None, answer: int) -> str:
    """Name what would make more pictures fit."""
    tips = []
    if forecast.item > 2 and room is not None:
        half = replace(forecast, item=2)
        fits = half.largest(room.free, full_size(forecast.config, WIDE), answer=answer)
        tip = f"take dtype=bfloat16, whose weights are {in_words(half.call(Shape(SIZES[0])).weights)}"
        tips.append(tip + (f": pictures of up to {fits[0]}×{fits[1]} would fit" if fits else ""))
    if forecast.cuda and forecast.max_new_tokens > ANSWER:
        tips.append("allow shorter answers (max_new_tokens)")
    return "; ".join([*tips, "close other programs, take another device, or give smaller pictures"])
