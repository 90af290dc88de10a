"""A folder of photos: PNG and JPEG files of any size, read whole, and square crops of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iguana_server.errors import InvalidArgument

SUFFIXES = {".png", ".jpg", ".jpeg"}
MODES = {"1", "L", "P", "RGB"}  # what becomes RGB without a choice of background or ink
PIXELS = 2**31  # of all pictures together: they are kept in memory, three bytes a pixel
HELD = 10  # one of so many is held out for the test


def load(folder: Path, least: int) -> tuple[list[Tensor], list[Tensor]]:
    """Read the pictures, uint8 [3, H, W] each: those to train on, and those held out.

    Held out are those with the lowest hashes, copies of a picture together; no name decides anything. Raises
    FileNotFoundError where there is no folder; InvalidArgument, naming the file, where there are no two different
    pictures, one is no picture, has sides below `least` pixels or is transparent, or they are too many.
    """
    files = _files(folder)
    _check(files, least)
    hashes = [sha256 for sha256, _ in files]
    last = hashes[max(len(files) // HELD, 1) - 1]
    if hashes[-1] == last:
        raise InvalidArgument(
            "data", f"want 2 different pictures or more, one is held out, got {len(set(hashes))}"
        )
    train, test = (
        [_read(path) for sha256, path in files if (sha256 <= last) is held] for held in (False, True)
    )
    return train, test


def digest(folder: Path) -> str:
    """Return the sha256 of the files' sha256, in order: it says which data a run has seen, whatever their names."""
    return hashlib.sha256("".join(sha256 for sha256, _ in _files(folder)).encode()).hexdigest()


def crops(pictures: Sequence[Tensor], places: Tensor, side: int) -> Tensor:
    """Cut squares of `side` pixels out of pictures uint8 [3, H, W]: [n, 3, side, side], uint8.

    `places` [n, 5] in [0, 1), float64: which picture, how far down, how far to the right, whether it is turned upside
    down and left to right (from 0.5 on).
    """
    found = []
    for which, down, right, over, back in places.tolist():
        x = pictures[int(which * len(pictures))]
        top, left = int(down * (x.shape[1] - side + 1)), int(right * (x.shape[2] - side + 1))
        turned = [axis for axis, turn in ((1, over), (2, back)) if turn >= 0.5]
        found.append(x[:, top : top + side, left : left + side].flip(turned))
    return torch.stack(found)


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Return the pictures' sha256 and paths, in order of the first: not those in folders below."""
    found = sorted(
        (hashlib.sha256(path.read_bytes()).hexdigest(), path)
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES
    )
    if not found:
        raise InvalidArgument(
            "data", f"want a folder of pictures ({', '.join(sorted(SUFFIXES))}), got none in {folder}"
        )
    return found


def _check(files: Iterable[tuple[str, Path]], least: int) -> None:
    """Look at the files' headers, before any picture is decoded."""
    faults, pixels = [], 0
    for _, path in files:
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                (width, height), mode = image.size, image.mode
                clear = "transparency" in image.info
        except OSError as error:
            raise InvalidArgument("data", f"{path.name}: want PNG or JPEG, got {error}") from error
        pixels += width * height
        if min(width, height) < least:
            faults.append(f"{path.name}: want {least} x {least} pixels or more, got {width} x {height}")
        if mode not in MODES or clear:
            said = "transparent pixels" if clear else mode
            faults.append(f"{path.name}: want grey or RGB of 8 bits, got {said}")
    if pixels > PIXELS:
        faults.append(f"want {PIXELS:,} pixels in all or fewer, got {pixels:,}")
    if faults:
        raise InvalidArgument.many([("data", fault) for fault in sorted(faults)])


def _read(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).movedim(2, 0).contiguous()
    except OSError as error:
        raise InvalidArgument("data", f"{path.name}: want a whole picture, got {error}") from error
