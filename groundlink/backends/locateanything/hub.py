"""Finding a checkpoint: a folder, a copy that was downloaded before, or the hub. Needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from groundlink.backends.locateanything.config import read_json
from groundlink.errors import WeightsNotFound

OFFICIAL_MODEL = "nvidia/LocateAnything-3B"
LICENSE = "NVIDIA's licence for LocateAnything, non-commercial use only"
FILES = ("*.json", "*.safetensors")  # all that is ever downloaded: no code, no pickles
SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer_config.json")  # a few kilobytes, which say all sizes

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"

_log = logging.getLogger(__name__)


def find(model: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint: `model` itself, or its copy of a hub repository, downloaded if need be.

    Raises:
        WeightsNotFound: there is no such folder, and no such repository can be had.
    """
    folder = _folder(model) or find_cached(model, revision)
    if folder is not None:
        return folder
    official = model.lower() == OFFICIAL_MODEL.lower()
    terms = LICENSE if official else "see its page on the hub"
    _log.warning("downloading %s; licence of the weights: %s", model, terms)
    return _download(model, revision, FILES)


def find_settings(model: str, revision: str | None = None) -> Path:
    """Return a folder with a checkpoint's settings, SETTINGS; of a repository, these alone are downloaded.

    Raises:
        WeightsNotFound: there is no such folder, and no such repository can be had.
    """
    folder = _folder(model) or find_cached(model, revision)
    return folder if folder is not None else _download(model, revision, SETTINGS)


def _folder(model: str) -> Path | None:
    """Return the folder that is meant, None where it is a repository."""
    path = Path(model).expanduser()
    if model and path.is_dir():
        return path
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise WeightsNotFound(
            f"there is no folder {model!r}; give the folder of a checkpoint, or a repository such as {OFFICIAL_MODEL!r}"
        )
    return None


def find_cached(model: str, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint that needs no download; None where there is none, or not all of it."""
    path = Path(model).expanduser()
    if not path.is_dir():
        from huggingface_hub import constants

        kept = "--".join(("models", *model.split("/")))
        if not (Path(constants.HF_HUB_CACHE) / kept).is_dir():
            return None  # what comes next takes half a second to import
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            return None
    problems: list[str] = []
    tensor_files(path, problems)
    whole = not problems and all((path / name).exists() for name in ("config.json", "tokenizer.json"))
    return path if whole else None


def _download(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # a download fails in as many ways as there are networks
        raise WeightsNotFound(
            f"{repository!r} is neither on this machine nor could be downloaded ({type(error).__name__}: {error}); "
            "check the name and the connection, log in with `hf auth login` if the repository asks for it, "
            "or give the folder of a checkpoint"
        ) from error


def tensor_files(folder: Path, problems: list[str]) -> list[Path]:
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
