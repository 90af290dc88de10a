"""Extractors: networks that turn pictures into the features and logits that metrics are taken of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from iguana_server.errors import InvalidArgument, ModelRefused
from iguana_server.evaluation.pictures import Pictures, Shape
from iguana_server.metrics import resize
from iguana_server.metrics.inception import SIDE, Inception
from iguana_server.models import catalog, packaged

GREY = "fashion-mnist-cnn"  # the extractor of grey pictures of 28 x 28, where none is named
SPACES = ("pixels", "features")  # in which neighbours are looked for
ROWS = 100  # pictures of a pass


@dataclass(frozen=True)
class Extractor:
    """`look` maps pixels in [0, 1], float32 [n, C, H, W], to logits [n, K] and features [n, d]."""

    name: str
    sha256: str  # of the weights
    classes: tuple[str, ...]  # of its logits; none where their names are not known
    resize: str  # what is done to pictures before: see metrics.manifest
    look: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Seen:
    """Pictures, and what an extractor makes of them: logits [n, K] and features [n, d], float32."""

    pictures: Pictures
    logits: Tensor
    features: Tensor

    def __len__(self) -> int:
        """How many."""
        return len(self.pictures)

    def taken(self, rows: Tensor | slice) -> Seen:
        """Some of them."""
        return Seen(self.pictures.taken(rows), self.logits[rows], self.features[rows])

    def space(self, name: str) -> Tensor:
        """Points of one of SPACES, [n, d]: features, or pixels in [0, 1]."""
        return self.features if name == "features" else self.pictures.pixels.flatten(1).float() / 255


def find(name: str, shape: Shape) -> Extractor:
    """Return a built-in classifier as extractor, or the published Inception network from a file of its weights.

    Raises NotFound, ModelRefused, or InvalidArgument where it does not take pictures of this shape.
    """
    if not name:
        if shape != (1, 28, 28):
            want = "want a classifier of such pictures, or a file of the published Inception weights"
            raise InvalidArgument("--extractor", f"{want}, got none for pictures of {list(shape)}")
        name = GREY
    if (path := Path(name)).is_file():
        return _inception(path)
    model = catalog.load(name)
    if model.spec.shape != shape or not model.features:
        want = f"want a network that shows its features of pictures of {list(shape)}"
        got = f"{name} of {list(model.spec.shape)} and {model.features} features"
        raise InvalidArgument("--extractor", f"{want}, got {got}")
    return Extractor(name, model.sha256, model.spec.classes, "none", model.look)


def _inception(path: Path) -> Extractor:
    """The network of the FID, with the published weights: grey pictures are shown in three equal channels."""
    net = Inception().eval().requires_grad_(False)
    try:
        tensors, sha256 = packaged.read(path)
        net.load_state_dict(tensors)
    except (ModelRefused, TypeError, RuntimeError) as error:  # of the last two: no state, another network's
        want = "want the published state dict, pt_inception-2015-12-05"
        raise InvalidArgument("--extractor", f"{want}, got {path.name}: {error}") from error

    def look(x: Tensor) -> tuple[Tensor, Tensor]:
        seen: tuple[Tensor, Tensor] = net(resize.clean(x, (SIDE, SIDE)).expand(-1, 3, -1, -1))
        return seen

    return Extractor("inception-2015-12-05", sha256, (), "clean", look)


@torch.inference_mode()
def see(extractor: Extractor, pictures: Pictures, advance: Callable[[int], None] = lambda _: None) -> Seen:
    """Show an extractor all pictures; `advance` is told how many are done."""
    logits, features = [], []
    for part in torch.split(pictures.pixels, ROWS):
        of_part = extractor.look(part.float() / 255)
        logits.append(of_part[0])
        features.append(of_part[1])
        advance(len(part))
    return Seen(pictures, torch.cat(logits), torch.cat(features))
