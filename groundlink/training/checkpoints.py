"""Checkpoints of a training: folders that are written whole or not at all.

`OUT/checkpoint-000500/` is a model in the published layout, which loads like any other, with two more files:
`trainer.safetensors` (optimizer, exact weights) and `trainer.json` (all the rest). Neither can hold code.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundlink.errors import BadData, BadOutput

MODEL = "model.safetensors"
TENSORS = "trainer.safetensors"
FACTS = "trainer.json"
_LOCK = ".training.lock"
_PARTIAL = ".partial-"  # begins the names of folders and files that are not whole yet, or not any more
_NAME = re.compile(r"checkpoint-(\d{6,})")
_MAX_FILE = 256 * 2**20  # bytes; a tokenizer has some 10 MB

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """All that a training is made of at one step.

    Attributes:
        step: steps that are done.
        model: the weights as they are saved, by the published names.
        tensors: what else the trainer needs to go on exactly from here.
        facts: the rest, as JSON.
    """

    step: int
    model: dict[str, Tensor]
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def companions(folder: Path, dtype: torch.dtype) -> dict[str, bytes]:
    """Return the files that belong to a model beside its weights: config, tokenizer, preprocessor, licence.

    `config.json` comes back with `torch_dtype` set to the type that the weights are saved in, where it has the key.

    Raises:
        BadData: a file cannot be read.
    """
    files: dict[str, bytes] = {}
    try:
        for path in sorted(folder.iterdir()):
            wanted = path.suffix in {".json", ".txt", ".jinja"} or path.name.startswith(("LICENSE", "NOTICE"))
            ours = path.name == FACTS or path.name.endswith(".safetensors.index.json")
            if wanted and not ours and path.is_file() and path.stat().st_size <= _MAX_FILE:
                files[path.name] = path.read_bytes()
        config = json.loads(files["config.json"])
    except (OSError, ValueError, KeyError) as error:
        raise BadData(f"{folder}: the files of the model cannot be read ({error})") from error
    if "torch_dtype" in config:
        config["torch_dtype"] = str(dtype).removeprefix("torch.")
        files["config.json"] = json.dumps(config, indent=1, ensure_ascii=False).encode()
    return files


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder of a training and keep others from training into it; clear what broken-off writing left there.

    The lock goes with the process that holds it, however that ends.

    Raises:
        BadOutput: the folder cannot be made or written, or another process trains into it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise BadOutput(
            f"{out}: the folder cannot be made or written ({error.strerror}); give another --out"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadOutput(
                f"{out}: another process is training into this folder; wait for it, stop it, or give another --out"
            ) from None
        except OSError as error:
            raise BadOutput(
                f"{out}: the folder cannot be locked ({error.strerror}); give one on a local disk"
            ) from error
        for left in out.glob(_PARTIAL + "*"):
            _remove(left)
        yield
    finally:
        os.close(handle)


def save(out: Path, snapshot: Snapshot, files: dict[str, bytes], keep: int) -> Path:
    """Write a checkpoint beside the others and then drop the oldest, so that `keep` remain; return its folder.

    Raises:
        BadOutput: it cannot be written, as on a full disk. Nothing of it remains, and earlier ones are untouched.
    """
    target = out / f"checkpoint-{snapshot.step:06d}"
    partial = out / f"{_PARTIAL}{target.name}"
    try:
        _remove(partial)
        partial.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)
        save_file(snapshot.model, partial / MODEL, metadata={"format": "pt"})
        save_file(snapshot.tensors, partial / TENSORS, metadata={"format": "pt"})
        (partial / FACTS).write_text(json.dumps({"step": snapshot.step, **snapshot.facts}), encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            _to_disk(path)
        if target.exists():  # one that turned out to be broken
            _remove(target)
        partial.rename(target)
        _to_disk(out)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadOutput(
            f"{target}: the checkpoint cannot be written ({why}); make room on the disk and run the same command "
            "again, it goes on from the checkpoint before"
        ) from error
    finally:
        _remove(partial)
    for old in _checkpoints(out)[keep:]:
        _remove(old)
    return target


def latest(out: Path) -> Path | None:
    """Return the newest checkpoint that is whole, None where there is none; a broken one is told of and passed over.

    Raises:
        BadData: all of them are broken.
    """
    found = _checkpoints(out)
    for path in found:
        try:
            _facts(path)
            for name in (MODEL, TENSORS):
                with safe_open(path / name, framework="pt"):
                    pass  # opening compares the length with what the header says
        except (OSError, ValueError, SafetensorError) as error:
            _log.warning("%s is broken (%s) and passed over", path, error)
            continue
        return path
    if found:
        raise BadData(f"{out}: none of the checkpoints there is whole; remove them to start anew")
    return None


def load(path: Path) -> Snapshot:
    """Read a checkpoint back, onto the CPU.

    Raises:
        BadData: it cannot be read.
    """
    try:
        facts = _facts(path)
        return Snapshot(facts["step"], load_file(path / MODEL), load_file(path / TENSORS), facts)
    except (OSError, ValueError, SafetensorError) as error:
        raise BadData(
            f"{path}: the checkpoint cannot be read ({error}); remove it to go on from an earlier one"
        ) from error


def publish(checkpoint: Path, out: Path) -> None:
    """Put the model of a checkpoint into the folder above, the weights last. They are linked where the disk can.

    Raises:
        BadOutput: it cannot be written; what was there of the same names stays whole.
    """
    names = sorted((path.name for path in checkpoint.iterdir()), key=lambda name: (name == MODEL, name))
    for name in names:
        if name in (TENSORS, FACTS):
            continue
        partial = out / f"{_PARTIAL}{name}"
        try:
            partial.unlink(missing_ok=True)
            try:
                os.link(checkpoint / name, partial)
            except OSError:  # a file system without links
                shutil.copyfile(checkpoint / name, partial)
                _to_disk(partial)
            partial.replace(out / name)
        except OSError as error:
            raise BadOutput(
                f"{out / name}: cannot be written ({error.strerror}); the model is whole in {checkpoint}"
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    with suppress(OSError):
        _to_disk(out)


def _facts(path: Path) -> dict[str, Any]:
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    if not isinstance(facts, dict) or not isinstance(facts.get("step"), int):
        raise ValueError(f"{FACTS} names no step")
    return facts


def _checkpoints(out: Path) -> list[Path]:
    """Return all checkpoints, the newest first."""
    found = [(int(match.group(1)), path) for path in out.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file or folder; whenever this is broken off, nothing is left that looks whole."""
    if not path.name.startswith(_PARTIAL):
        hidden = path.with_name(_PARTIAL + path.name + ".old")
        with suppress(OSError):
            path = path.rename(hidden)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
