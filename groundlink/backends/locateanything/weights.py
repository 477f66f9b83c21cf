"""Checkpoints: finding them on disk or on the hub, and opening them as data.

Only safetensors are read, memory-mapped, one tensor at a time onto a model that was built without memory. Whatever is
wrong with a checkpoint is told in one error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from groundlink.backends.locateanything.config import Config, read_config, read_json
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.prompt import Tokenizer
from groundlink.errors import OutOfMemory, WeightsInvalid, WeightsNotFound

OFFICIAL_MODEL = "nvidia/LocateAnything-3B"
LICENSE = "NVIDIA's licence for LocateAnything, non-commercial use only"
FILES = ("*.json", "*.safetensors")  # all that is ever downloaded: no code, no pickles

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_OUTPUT = "language_model.lm_head.weight"
_FLOATS = ("F64", "F32", "F16", "BF16")
_MAX_TOLD = 12  # tensors named in one line of an error

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to run, with the tokenizer that belongs to it."""

    folder: Path
    config: Config
    tokenizer: Tokenizer
    model: LocateAnything


def find(model: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint: `model` itself, or its copy of a hub repository, downloaded if need be.

    Raises:
        WeightsNotFound: there is no such folder, and no such repository can be had.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise WeightsNotFound(
            f"there is no folder {model!r}; give the folder of a checkpoint, or a repository such as {OFFICIAL_MODEL!r}"
        )
    cached = find_cached(model, revision)
    return cached if cached is not None else _download(model, revision)


def find_cached(model: str, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint that needs no download; None where there is none, or not all of it."""
    path = Path(model).expanduser()
    if not path.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            return None
    problems: list[str] = []
    _tensor_files(path, problems)
    whole = not problems and all((path / name).exists() for name in ("config.json", "tokenizer.json"))
    return path if whole else None


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    official = repository.lower() == OFFICIAL_MODEL.lower()
    terms = LICENSE if official else "see its page on the hub"
    _log.warning("downloading %s; licence of the weights: %s", repository, terms)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # a download fails in as many ways as there are networks
        raise WeightsNotFound(
            f"{repository!r} is neither on this machine nor could be downloaded ({type(error).__name__}: {error}). "
            "Check the name and the connection, log in with `hf auth login` if the repository asks for it, "
            "or give the folder of a checkpoint"
        ) from error


def open_checkpoint(folder: Path, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Open a checkpoint on a device, in a floating type.

    Raises:
        WeightsNotFound: the folder holds no weights.
        WeightsInvalid: anything is missing, left over, misshapen, not finite, or disagrees; all of it is listed.
        OutOfMemory: the device is too small for the weights.
    """
    problems: list[str] = []
    tokenizer = _tokenizer(folder, problems)
    config = read_config(folder, tokenizer.token_to_id if tokenizer else None, problems)
    files = _tensor_files(folder, problems)
    model = None
    if config is not None:
        with torch.device("meta"):
            model = LocateAnything(config)
        try:
            _fill(model, files, device, dtype, config.tied, problems)
        except torch.OutOfMemoryError as error:
            size = sum(file.stat().st_size for file in files) / 1e9
            raise OutOfMemory(
                f"{device} has too little free memory for the weights in {folder} ({size:.1f} GB of files). "
                "Free some, choose another device, or a smaller type such as bfloat16"
            ) from error
    if problems or tokenizer is None or config is None or model is None:
        raise WeightsInvalid(f"{folder} is no LocateAnything checkpoint that can be run:\n- " + "\n- ".join(problems))
    return Checkpoint(folder, config, tokenizer, model.eval())


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


def _tensor_files(folder: Path, problems: list[str]) -> list[Path]:
    """Return the files of tensors: those of the index, else the single one."""
    if (folder / _INDEX).exists():
        names = read_json(folder / _INDEX, problems).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            problems.append(f"{_INDEX} has no weight_map")
            return []
        shards = sorted(set(names.values()))
        outside = [name for name in shards if Path(name).name != name or not name.endswith(".safetensors")]
        missing = [name for name in shards if name not in outside and not (folder / name).exists()]
        problems += [f"{_INDEX} names {name!r}, which is no safetensors file of this folder" for name in outside]
        problems += [f"{name} is missing, though {_INDEX} names it" for name in missing]
        return [folder / name for name in shards if name not in outside and name not in missing]
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"})
    if pickles:
        problems.append(
            f"the weights are pickles ({', '.join(pickles[:3])}), which can run code and are never opened; "
            "convert them to safetensors"
        )
    else:
        problems.append(f"there is neither {_SINGLE} nor {_INDEX}")
    return []


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
    model: LocateAnything, files: list[Path], device: torch.device, dtype: torch.dtype, tied: bool, problems: list[str]
) -> None:
    """Give a model without memory the tensors of the files, noting everything that does not fit."""
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    filled: dict[str, Tensor] = {}
    surplus, misshapen, broken, twice = [], [], [], []
    for path in files:
        for name, tensor in _tensors(path, device, dtype, problems):
            if name == _OUTPUT and tied:
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
        parameters = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in filled.items()}
        model.load_state_dict(parameters, assign=True)
