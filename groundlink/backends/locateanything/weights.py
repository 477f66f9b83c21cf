"""Opening checkpoints as data.

Only safetensors are read, memory-mapped, one tensor at a time onto a model that was built without memory. Whatever is
wrong with a checkpoint is told in one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundlink.backends.locateanything.config import Config, read_config
from groundlink.backends.locateanything.hub import tensor_files
from groundlink.backends.locateanything.memory import weight_numbers
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.prompt import Tokenizer
from groundlink.backends.locateanything.room import in_words, is_memory, room_of
from groundlink.errors import OutOfMemory, WeightsInvalid

_OUTPUT = "language_model.lm_head.weight"
_FLOATS = ("F64", "F32", "F16", "BF16")
_MAX_TOLD = 12  # tensors named in one line of an error


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to run, with the tokenizer that belongs to it."""

    folder: Path
    config: Config
    tokenizer: Tokenizer
    model: LocateAnything


def open_checkpoint(
    folder: Path, device: torch.device, dtype: torch.dtype, on_progress: Callable[[float], None] = lambda done: None
) -> Checkpoint:
    """Open a checkpoint on a device, in a floating type; `on_progress` is told the share of the tensors that are there.

    Raises:
        WeightsNotFound: the folder holds no weights.
        WeightsInvalid: anything is missing, left over, misshapen, not finite, or disagrees; all of it is listed.
        OutOfMemory: the device is too small for the weights.
    """
    problems: list[str] = []
    tokenizer = _tokenizer(folder, problems)
    config = read_config(folder, tokenizer.token_to_id if tokenizer else None, problems)
    files = tensor_files(folder, problems)
    model = None
    if config is not None:
        with torch.device("meta"):
            model = LocateAnything(config)
        too_much: BaseException | None = None
        try:
            _fill(model, files, device, dtype, problems, on_progress)
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            too_much = error.with_traceback(None)  # which would hold on to the weights that were read
        if too_much is not None:
            raise OutOfMemory(_too_much(folder, config, device, dtype)) from too_much
    if problems or tokenizer is None or config is None or model is None:
        raise WeightsInvalid(f"{folder} is no LocateAnything checkpoint that can be run:\n- " + "\n- ".join(problems))
    return Checkpoint(folder, config, tokenizer, model.eval())


def open_settings(folder: Path) -> tuple[Config, Tokenizer]:
    """Read the config and the tokenizer of a checkpoint that may have no weights.

    Raises:
        WeightsInvalid: one is missing or broken, or they disagree; all of it is listed.
    """
    problems: list[str] = []
    tokenizer = _tokenizer(folder, problems)
    config = read_config(folder, tokenizer.token_to_id if tokenizer else None, problems)
    if problems or tokenizer is None or config is None:
        raise WeightsInvalid(f"{folder} has no config and tokenizer to make a model of:\n- " + "\n- ".join(problems))
    return config, tokenizer


def _too_much(folder: Path, config: Config, device: torch.device, dtype: torch.dtype) -> str:
    room = room_of(device)
    free = "" if room is None else f", and {in_words(room.free)} are free"
    return (
        f"{device} has too little free memory for the weights in {folder}: as {str(dtype).removeprefix('torch.')} "
        f"they take {in_words(weight_numbers(config) * dtype.itemsize)}{free}; "
        "free some, choose another device, or a smaller type such as bfloat16"
    )


def _tokenizer(folder: Path, problems: list[str]) -> Tokenizer | None:
    path = folder / "tokenizer.json"
    if not path.exists():
        problems.append("tokenizer.json is missing")
        return None
    try:
        return Tokenizer(path)
    except Exception as error:  # the library raises nothing more precise
        problems.append(f"tokenizer.json cannot be read: {error}")
        return None


def _tensors(path: Path, device: torch.device, dtype: torch.dtype, problems: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file, each mapped from it and copied only where the device or the type asks for it."""
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                kind = file.get_slice(name).get_dtype()
                if kind not in _FLOATS:
                    problems.append(f"{path.name}: {name} is of type {kind}; only floating types are supported")
                    continue
                yield name, file.get_tensor(name).to(device, dtype)
    except (SafetensorError, OSError) as error:
        problems.append(f"{path.name} cannot be read: {error}")


def _fill(
    model: LocateAnything,
    files: list[Path],
    device: torch.device,
    dtype: torch.dtype,
    problems: list[str],
    on_progress: Callable[[float], None],
) -> None:
    """Give a model without memory the tensors of the files, noting everything that does not fit."""
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    filled: dict[str, Tensor] = {}
    surplus, misshapen, broken, twice = [], [], [], []
    for path in files:
        for name, tensor in _tensors(path, device, dtype, problems):
            if name == _OUTPUT and model.config.tied:
                continue  # stored by some tools although it is the embedding matrix
            if name not in wanted:
                surplus.append(name)
            elif tuple(tensor.shape) != wanted[name]:
                misshapen.append(f"{name} {tuple(tensor.shape)} instead of {wanted[name]}")
            elif not torch.stack(torch.aminmax(tensor)).isfinite().all():
                broken.append(name)
            elif name in filled:
                twice.append(name)
            filled[name] = tensor
            on_progress(len(filled) / len(wanted))
    missing = [name for name in wanted if name not in filled]
    for what, names in (
        ("missing", missing),
        ("left over", surplus),
        ("misshapen", misshapen),
        (f"not finite as {str(dtype).removeprefix('torch.')} (NaN or infinite)", broken),
        ("stored twice", twice),
    ):
        if names and files:
            more = f" and {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
            problems.append(f"{len(names)} tensors are {what}: {', '.join(names[:_MAX_TOLD])}{more}")
    if not problems:
        model.load_state_dict(filled, assign=True)
        model.requires_grad_(False)
