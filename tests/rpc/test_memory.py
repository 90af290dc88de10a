"""Memory for images is bounded, and comes back with the images."""

from __future__ import annotations

import pytest
import torch

from iguana_server.errors import Overloaded
from iguana_server.rpc.memory import Memory

SHAPE = (3, 4, 5)  # 240 bytes an image


def test_more_than_there_is_is_refused_until_some_comes_back() -> None:
    memory = Memory(2400)
    first = memory.images(8, SHAPE, torch.channels_last)
    assert first.shape == (8, *SHAPE)
    assert first.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(Overloaded, match="images: want at most 2400 bytes in hand, got 1920 \\+ 720"):
        memory.images(3, SHAPE, torch.channels_last)
    second = memory.images(2, SHAPE, torch.channels_last)
    assert memory.used == 2400
    del first, second
    assert memory.used == 0
