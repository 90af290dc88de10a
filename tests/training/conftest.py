from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from iguana_server.training import fashion_mnist
from iguana_server.training.batch import Batch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_idx(path: Path, values: torch.Tensor) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, values.dim()]) + sizes + values.numpy().tobytes()))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that can be learned: the label's row is bright."""
    folder = tmp_path_factory.mktemp("data")
    rng = torch.Generator().manual_seed(1)
    for split, n in (("train", 192), ("t10k", 64)):
        labels = torch.randint(10, (n,), generator=rng)
        images = torch.randint(60, (n, 28, 28), generator=rng)
        images[torch.arange(n), 2 * labels + 4] = 250
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images.byte())
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels.byte())
    return folder


@pytest.fixture
def batch(folder: Path) -> Batch:
    images, labels = fashion_mnist.load(folder, "train")
    rows = torch.arange(40, 56)
    return Batch(images[rows].float() / 255, labels[rows], rows, seed=3, epoch=2)
