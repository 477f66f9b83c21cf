"""Training LocateAnything: from records or generated scenes to a checkpoint in the published layout.

`groundlink.training.loop.train` is the front door in Python, `groundlink train` that of the command line.
"""

from __future__ import annotations

from importlib.util import find_spec

_PACKAGES = ("torch", "tokenizers", "safetensors", "huggingface_hub", "accelerate", "tensorboard", "matplotlib")


def problem() -> str | None:
    """Tell which packages are missing; None where training can run."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} not installed; run pip install 'groundlink[train]'"
