"""Labelled pictures from a folder, from Fashion-MNIST's files, or from an .npz."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iguana.image import ImageLike
from iguana.v1 import attack_pb2
from iguana_server.errors import InvalidArgument
from iguana_server.rpc.faults import Faults
from iguana_server.rpc.goal import Classes
from iguana_server.training import fashion_mnist

KINDS = (".png", ".jpg", ".jpeg", ".webp")
IDX = "t10k-images-idx3-ubyte.gz"
_LABELLED = re.compile(r".*_(\d+)$")  # NAME_LABEL, as in imagenet_00_243.jpg


@dataclass(frozen=True)
class Data:
    """Pictures with labels (places in the model's classes) and names; the digest tells data sets apart."""

    title: str
    images: Sequence[ImageLike]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        """How many."""
        return len(self.labels)


def load(path: Path, classes: Classes, most: int | None = None) -> Data:
    """Read the first `most` pictures of a data set, all if None.

    It may be
    a folder of Fashion-MNIST's IDX files (.gz), of which the test set is taken;
    a folder of folders, named by class (name or index): one picture of each in turn;
    a folder of pictures whose names end in _INDEX, such as imagenet_00_243.jpg;
    an .npz file of images [n, H, W, C] (or [n, H, W]) uint8 and labels [n].

    Raises InvalidArgument where it is none of these, or a label is no class of the model.
    """
    if most is not None and most < 1:
        raise InvalidArgument("--samples", f"want at least 1, got {most}")
    if path.suffix == ".npz" and path.is_file():
        return _of_arrays(path.name, *_npz(path), classes, most)
    if (path / IDX).is_file():
        pictures, labels = fashion_mnist.load(path, "t10k")
        arrays = pictures.permute(0, 2, 3, 1).numpy(), labels.numpy()
        return _of_arrays("Fashion-MNIST, test set", *arrays, classes, most)
    if path.is_dir():
        return _of_files(path, classes, most)
    raise InvalidArgument("--data", f"want a folder or an .npz file, got {path}")


def _npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise InvalidArgument("--data", f"want an .npz file of arrays, got {path}: {error}") from None
    images, labels = found.get("images"), found.get("labels")
    if images is None or labels is None:
        raise InvalidArgument(
            "--data", f"want the arrays images and labels, got {', '.join(found) or 'none'}"
        )
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InvalidArgument("images", f"want uint8 [n, H, W, C], got {images.dtype} {list(images.shape)}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        want = f"want whole numbers [{len(images)}]"
        raise InvalidArgument("labels", f"{want}, got {labels.dtype} {list(labels.shape)}")
    return images.reshape(*images.shape[:3], -1), labels.astype(np.int64)


def _of_arrays(
    title: str, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Classes, most: int | None
) -> Data:
    images, labels = images[:most], labels[:most]
    wrong = sorted({int(label) for label in labels} - set(range(len(classes.names))))
    if wrong:
        raise InvalidArgument("labels", f"want 0..{len(classes.names) - 1}, got {wrong[0]}")
    names = tuple(str(i) for i in range(len(images)))
    return _made(title, list(images), [int(label) for label in labels], names)


def _of_files(folder: Path, classes: Classes, most: int | None) -> Data:
    faults = Faults()
    groups = sorted(path for path in folder.iterdir() if path.is_dir())
    found: list[tuple[int, Path, int]] = []  # the place in its class, the file, the label
    for group in groups:
        label = classes.find(_class(group.name), f"--data: {group.name}", faults)
        found += [(place, path, label) for place, path in enumerate(_pictures(group))]
    for path in _pictures(folder) if not groups else ():
        match = _LABELLED.match(path.stem)
        if match is None:
            faults.add("--data", "names that end in _INDEX, or a folder a class", path.name)
            break
        found.append((0, path, classes.find(_class(match[1]), f"--data: {path.name}", faults)))
    faults.check()
    if not found:
        raise InvalidArgument("--data", f"want {', '.join(KINDS)} in {folder}, got none")
    found = sorted(found)[:most]
    files = [path for _, path, _ in found]
    names = tuple(str(path.relative_to(folder)) for path in files)
    return _made(folder.name, [path.read_bytes() for path in files], [label for *_, label in found], names)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)


def _class(name: str) -> attack_pb2.ClassRef:
    return attack_pb2.ClassRef(index=int(name)) if name.isdecimal() else attack_pb2.ClassRef(name=name)


def _made(title: str, images: Sequence[ImageLike], labels: Sequence[int], names: tuple[str, ...]) -> Data:
    whole = hashlib.sha256(repr((tuple(labels), names)).encode())
    for image in images:
        assert isinstance(image, bytes | np.ndarray)  # noqa: S101 - as both callers have it
        whole.update(image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes())
    return Data(title, images, tuple(labels), names, whole.hexdigest())
