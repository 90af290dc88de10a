"""`iguana-server calibrate`: detectors of a model, made anew from a folder of clean pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from iguana.v1 import image_pb2
from iguana_server.app import limits
from iguana_server.config import Config
from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.catalog import available
from iguana_server.errors import InvalidArgument
from iguana_server.models import catalog
from iguana_server.models.base import Model, Spec
from iguana_server.models.manifest import load_manifest
from iguana_server.rpc.image import to_pixels
from iguana_server.training import detector, fashion_mnist

IDX = "t10k-images-idx3-ubyte.gz"
CALIBRATED_ON, FITTED_ON = 5000, 10_000  # the first so many pictures of the test and the training set
KINDS = (".png", ".jpg", ".jpeg", ".webp")


def find_model(name: str, manifest: Path | None) -> Model:
    """Load a built-in model by name, or the model of a manifest. Raises what the loaders raise, InvalidArgument."""
    if bool(name) == (manifest is not None):
        raise InvalidArgument("--model", "want it or --manifest, got both or neither")
    return catalog.load(name) if manifest is None else load_manifest(manifest, torch.device("cpu"))


def calibrate(
    model: Model, folder: Path, *, rate: float, scales: Sequence[float], names: Sequence[str]
) -> Calibration:
    """Calibrate on a folder of pictures, or of Fashion-MNIST's files; see training/detector.py.

    Raises InvalidArgument where the folder holds neither, or a detector or a scale is none.
    """
    if unknown := sorted(set(names) - set(available())):
        raise InvalidArgument("--detector", f"want {', '.join(available())}, got {', '.join(unknown)}")
    if (folder / IDX).is_file():
        test, _ = fashion_mnist.load(folder, "t10k")
        images, labels = fashion_mnist.load(folder, "train")
        data = f"Fashion-MNIST, the first {CALIBRATED_ON} test pictures; fitted to the first {FITTED_ON} of training"
        return detector.calibrate(
            model,
            test[:CALIBRATED_ON] / 255,
            data=data,
            rate=rate,
            fit_on=(images[:FITTED_ON] / 255, labels[:FITTED_ON]),
            names=names,
        )
    if not folder.is_dir():
        raise InvalidArgument("--data", f"want a folder, got {folder}")
    if not all(1 <= scale <= 4 for scale in scales):
        raise InvalidArgument("--scale", f"want 1 to 4, got {', '.join(f'{scale:g}' for scale in scales)}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)
    if not files:
        raise InvalidArgument("--data", f"want a folder of {', '.join(KINDS)} or of {IDX}, got {folder}")
    clean = torch.cat([crops(path, model.spec, scales) for path in files])
    data = f"{len(files)} photographs, {len(clean) // len(files)} crops of each"
    return detector.calibrate(model, clean, data=data, rate=rate, names=names)


def crops(path: Path, spec: Spec, scales: Sequence[float]) -> Tensor:
    """The picture as a model of this spec would be shown it, larger by each scale: [n, C, H, W].

    At scale 1 that is the centre; above, the four corners and the centre of the larger picture.
    """
    image = image_pb2.Image(encoded=path.read_bytes())
    bounds = limits(Config())
    channels, height, width = spec.shape
    found = []
    for scale in scales:
        larger = (channels, math.ceil(height * scale), math.ceil(width * scale))
        wide = replace(spec, shape=larger, resize=max(math.ceil(spec.resize * scale), *larger[1:]))
        pixels = to_pixels(image, path.name, wide, bounds)
        down, right = larger[1] - height, larger[2] - width
        places = [(down // 2, right // 2)]
        if down and right:
            places += [(0, 0), (0, right), (down, 0), (down, right)]
        found += [pixels[:, top : top + height, left : left + width] for top, left in places]
    return torch.stack(found)
