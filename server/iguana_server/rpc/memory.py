"""Memory: the images of all requests in hand, bounded before they are decoded."""

from __future__ import annotations

import threading
import weakref

import torch

from iguana_server.errors import Overloaded

_RETRY_AFTER_S = 1.0


class Memory:
    """So many bytes for images. They are given back when the images are let go, whoever had them last."""

    def __init__(self, limit: int) -> None:
        """Start with all of it free."""
        self._limit, self._used = limit, 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    def images(self, n: int, shape: tuple[int, int, int], layout: torch.memory_format) -> torch.Tensor:
        """Room for images [n, C, H, W], not set. Raises Overloaded where there is none."""
        size = 4 * n * shape[0] * shape[1] * shape[2]
        self._take(size)
        images = torch.empty((n, *shape), memory_format=layout)
        weakref.finalize(images, self._free, size)
        return images

    def hold(self, size: int, owner: object) -> None:
        """Take so many bytes for as long as the owner lives. Raises Overloaded where there is no room."""
        self._take(size)
        weakref.finalize(owner, self._free, size)

    def _take(self, size: int) -> None:
        with self._lock:
            if self._used + size > self._limit:
                text = f"images: want at most {self._limit} bytes in hand, got {self._used} + {size}"
                raise Overloaded(text, retry_after_s=_RETRY_AFTER_S)
            self._used += size

    def _free(self, size: int) -> None:
        with self._lock:
            self._used -= size
