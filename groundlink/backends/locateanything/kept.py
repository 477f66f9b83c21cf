"""What was computed for an image and may be wanted again: bounded in bytes, the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor

CACHE_BYTES = 2**30
"""Room for about ten screenshots of 1920×1080 in bfloat16, which take 0.1 GB each."""


class Kept:
    """Tensors by key, at most `limit` bytes of them. Used by one thread at a time."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable) -> Tensor | None:
        """Return a tensor, None where it is not here any more."""
        if key in self._tensors:
            self._tensors.move_to_end(key)
        return self._tensors.get(key)

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor, and let others go for it; one that takes more than all the room is not kept."""
        self.drop(key)
        if tensor.nbytes > self.limit:
            return
        self._tensors[key] = tensor
        self.bytes += tensor.nbytes
        while self.bytes > self.limit:
            self.drop(next(iter(self._tensors)))

    def drop(self, key: Hashable) -> None:
        """Forget a tensor."""
        tensor = self._tensors.pop(key, None)
        self.bytes -= 0 if tensor is None else tensor.nbytes

    def clear(self) -> None:
        """Forget all."""
        self._tensors.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._tensors)
