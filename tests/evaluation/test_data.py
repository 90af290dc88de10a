"""Data sets are read as they lie, or refused by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iguana_server.errors import InvalidArgument
from iguana_server.evaluation.data import load
from iguana_server.rpc.goal import Classes

CLASSES = Classes("small", ["boot", "common iguana, iguana", "crane", "crane, bird"])


def picture(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(path)


def idx(path: Path, array: NDArray[np.int64]) -> None:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def test_class_folders_are_read_a_picture_of_each_in_turn(tmp_path: Path) -> None:
    for name in ("boot/a.png", "boot/b.png", "boot/c.PNG", "Iguana/x.jpg", "2/y.png"):
        picture(tmp_path / name, 9)
    (tmp_path / "boot" / "notes.txt").write_text("no picture")
    data = load(tmp_path, CLASSES)
    assert data.names == ("2/y.png", "Iguana/x.jpg", "boot/a.png", "boot/b.png", "boot/c.PNG")
    assert data.labels == (2, 1, 0, 0, 0)
    assert data.images[2] == (tmp_path / "boot" / "a.png").read_bytes()
    assert load(tmp_path, CLASSES, 3).labels == (2, 1, 0)


def test_labels_are_read_from_names(tmp_path: Path) -> None:
    for name in ("imagenet_01_3.jpg", "imagenet_00_1.jpg"):
        picture(tmp_path / name, 5)
    data = load(tmp_path, CLASSES)
    assert (data.names, data.labels) == (("imagenet_00_1.jpg", "imagenet_01_3.jpg"), (1, 3))


def test_fashion_mnist_is_read_from_its_test_files(tmp_path: Path) -> None:
    pictures = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", pictures)
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([3, 0, 2]))
    data = load(tmp_path, CLASSES, 2)
    assert data.labels == (3, 0)
    assert np.array_equal(np.asarray(data.images[1])[..., 0], pictures[1])


@pytest.mark.parametrize("shape", [(3, 5, 6, 3), (3, 5, 6)])
def test_arrays_are_read_from_npz(shape: tuple[int, ...], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array([0, 1, 3]))
    data = load(tmp_path / "data.npz", CLASSES)
    assert data.labels == (0, 1, 3)
    assert np.array_equal(np.stack([np.asarray(image) for image in data.images]).reshape(shape), images)


def test_the_digest_tells_data_apart(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    digests = set()
    for k, (pixels, classes) in enumerate([(images, labels), (images + 1, labels), (images, labels[::-1])]):
        np.savez(tmp_path / f"{k}.npz", images=pixels, labels=classes)
        digests.add(load(tmp_path / f"{k}.npz", CLASSES).digest)
    np.savez_compressed(tmp_path / "again.npz", labels=labels, images=images)
    assert len(digests) == 3
    assert load(tmp_path / "again.npz", CLASSES).digest in digests


def _unknown_class(folder: Path) -> None:
    picture(folder / "iguanna" / "a.png", 1)


def _two_classes(folder: Path) -> None:
    picture(folder / "crane" / "a.png", 1)


def _no_label(folder: Path) -> None:
    picture(folder / "cat.png", 1)


def _outside(folder: Path) -> None:
    picture(folder / "cat_4.png", 1)


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (_unknown_class, "iguanna.name: want a class of small, got 'iguanna' .close: iguana"),
        (_two_classes, "several, say which by index: 2 crane; 3 crane, bird"),
        (_no_label, "want names that end in _INDEX, or a folder a class, got cat.png"),
        (_outside, r"cat_4.png.index: want 0..3, got 4"),
        (lambda _: None, "want .png, .jpg, .jpeg, .webp in"),
    ],
    ids=["unknown", "ambiguous", "no label", "out of range", "empty"],
)
def test_folders_that_say_no_class_are_refused(
    make: Callable[[Path], None], want: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(InvalidArgument, match=want):
        load(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("arrays", "want"),
    [
        ({"images": np.zeros((2, 4, 4, 1), np.uint8)}, "want the arrays images and labels, got images"),
        ({"images": np.zeros((2, 4, 4, 1)), "labels": np.zeros(2, int)}, "images: want uint8"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.zeros(3, int)}, "labels: want whole"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.array([0, 9])}, r"want 0..3, got 9"),
        ({"images": np.array([None]), "labels": np.zeros(1, int)}, "want an .npz file of arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, object], want: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=want):
        load(tmp_path / "data.npz", CLASSES)
