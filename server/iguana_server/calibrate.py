"""`iguana-server calibrate`: detectors of a model, made anew from a folder of clean pictures."""

from __future__ import annotations

from collections.abc import Sequence
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


def calibrate(model: Model, folder: Path, *, rate: float, names: Sequence[str]) -> Calibration:
    """Calibrate on a folder of pictures, or of Fashion-MNIST's files; see training/detector.py.

    Raises InvalidArgument where the folder holds neither, or a name is no detector's.
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
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)
    if not files:
        raise InvalidArgument("--data", f"want a folder of {', '.join(KINDS)} or of {IDX}, got {folder}")
    clean = torch.stack([picture(path, model.spec) for path in files])
    return detector.calibrate(model, clean, data=f"{len(files)} pictures", rate=rate, names=names)


def picture(path: Path, spec: Spec) -> Tensor:
    """A picture file as a model of this spec is shown it: [C, H, W]."""
    return to_pixels(image_pb2.Image(encoded=path.read_bytes()), path.name, spec, limits(Config()))
