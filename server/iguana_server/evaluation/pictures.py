"""Sets of pictures of one size, with labels or without: from IDX files, an .npz, or a folder."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from iguana.v1 import image_pb2
from iguana_server.app import limits
from iguana_server.config import Config
from iguana_server.errors import InvalidArgument
from iguana_server.evaluation.data import KINDS
from iguana_server.models.base import Spec
from iguana_server.rpc import picture
from iguana_server.rpc.image import to_pixels
from iguana_server.training import fashion_mnist

Shape = tuple[int, int, int]  # C, H, W
Split = Literal["train", "t10k"]


@dataclass(frozen=True)
class Pictures:
    """Pixels uint8 [n, C, H, W], and labels [n] where they are known."""

    title: str
    pixels: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        """How many."""
        return len(self.pixels)

    @property
    def shape(self) -> Shape:
        """C, H, W."""
        c, h, w = self.pixels.shape[1:]
        return c, h, w

    @property
    def digest(self) -> str:
        """The sha256 of pixels and labels: it tells sets apart."""
        whole = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        whole.update(self.pixels.contiguous().numpy().tobytes())
        if self.labels is not None:
            whole.update(self.labels.numpy().tobytes())
        return whole.hexdigest()

    def taken(self, rows: Tensor | slice) -> Pictures:
        """Some of them."""
        return Pictures(self.title, self.pixels[rows], None if self.labels is None else self.labels[rows])


def read(path: Path, flag: str, split: Split, shape: Shape | None = None) -> Pictures:
    """Read a set: IDX files of this split, an .npz of `images` (and `labels`), or the picture files of a folder.

    Files are brought to `shape`, by their short side and the centre; without one, they are PNG files of one size.
    Raises InvalidArgument, naming the flag, where there is no such set, or its pictures have another shape.
    """
    if path.suffix == ".npz" and path.is_file():
        found = _of_npz(path, flag)
    elif has_idx(path, split):
        try:
            found = Pictures(f"{path.name}, {split}", *fashion_mnist.load(path, split))
        except (ValueError, OSError) as error:
            raise InvalidArgument(flag, str(error)) from error
    elif path.is_dir():
        found = _of_files(path, flag, shape)
    else:
        raise InvalidArgument(flag, f"want a folder or an .npz file, got {path}")
    if shape is not None and found.shape != shape:
        raise InvalidArgument(flag, f"want pictures of {list(shape)}, got {list(found.shape)} in {path}")
    return found


def has_idx(folder: Path, split: Split) -> bool:
    """Whether a folder holds the IDX files of a split."""
    return (folder / f"{split}-images-idx3-ubyte.gz").is_file()


def _of_npz(path: Path, flag: str) -> Pictures:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise InvalidArgument(flag, f"want an .npz file of arrays, got {path}: {error}") from None
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        got = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise InvalidArgument(f"{flag}.images", f"want uint8 [n, H, W, C], got {got}")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]):
        want = f"want whole numbers [{len(images)}]"
        raise InvalidArgument(f"{flag}.labels", f"{want}, got {labels.dtype} {list(labels.shape)}")
    pixels = torch.from_numpy(images.reshape(*images.shape[:3], -1)).permute(0, 3, 1, 2).contiguous()
    return Pictures(path.name, pixels, None if labels is None else torch.from_numpy(labels.astype(np.int64)))


def _of_files(folder: Path, flag: str, shape: Shape | None) -> Pictures:
    kinds = KINDS if shape else (".png",)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)
    if not files:
        raise InvalidArgument(flag, f"want {', '.join(kinds)} in {folder}, got none")
    found = [_fitted(path, flag, shape) if shape else _as_it_is(path) for path in files]
    for path, pixels in zip(files, found, strict=True):
        if pixels.shape != found[0].shape or pixels.shape[0] not in (1, 3):
            raise InvalidArgument(
                flag, f"want pictures of one size, grey or RGB, got {path.name} of {list(pixels.shape)}"
            )
    return Pictures(folder.name, torch.stack(found), None)


def _as_it_is(path: Path) -> Tensor:
    return torch.from_numpy(picture.reread(path.read_bytes()).copy()).permute(2, 0, 1)


def _fitted(path: Path, flag: str, shape: Shape) -> Tensor:
    c, h, w = shape
    spec = Spec(
        name="pictures",
        shape=shape,
        classes=("real", "made"),
        mean=(0.0,) * c,
        std=(1.0,) * c,
        resize=max(h, w),
        bucket=1,
        max_batch=1,
        description="",
        licence="",
        source="",
    )
    field = f"{flag}: {path.name}"
    x = to_pixels(image_pb2.Image(encoded=path.read_bytes()), field, spec, limits(Config()))
    return x.mul(255).round().byte()
