"""Whom both sides attack: a served model as a plain nn.Module, the same object for us and for the library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from iguana.v1 import image_pb2
from iguana_server.app import limits
from iguana_server.config import Config
from iguana_server.models import catalog, packaged
from iguana_server.models.base import Model
from iguana_server.rpc.image import to_pixels
from iguana_server.training import fashion_mnist
from tests import clothes, nets


class Plain(torch.autograd.Function):
    """The identity, whose gradient is laid out as the picture is: torchattacks' FAB takes views of it."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """x."""
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> Tensor:
        """The same numbers in the plain memory format."""
        return grads[0].contiguous()


class Served(nn.Module):
    """A model as it is served: folded, channels_last."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net, self.model = model.net, model

    def forward(self, x: Tensor) -> Tensor:
        """Pixels [n, C, H, W] to logits [n, K]."""
        return self.model(Plain.apply(x))  # type: ignore[no-untyped-call]  # torch's


class Coloured(nn.Module):
    """A net of grey pictures before coloured ones: it sees their mean."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Pixels [n, 3, H, W] to logits [n, K]."""
        logits: Tensor = self.net(x.mean(1, keepdim=True))
        return logits


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A net, pictures [n, C, H, W] in the plain memory format, and the classes that it sees in them [n]."""

    name: str
    model: Model
    net: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    steps: int  # moves of an attack that iterates
    ulps: float = 0.0  # of a net so deep that an ulp turns signs: share of values in which it may

    def first(self, n: int) -> Victim:
        """The victim before the first n of its pictures."""
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def coloured(self) -> Victim:
        """The victim before pictures of three channels."""
        if self.images.shape[1] == 3:
            return self
        return replace(self, net=Coloured(self.net), images=self.images.repeat(1, 3, 1, 1))


def _victim(model: Model, images: Tensor, steps: int, ulps: float = 0.0) -> Victim:
    net, images = Served(model).eval(), images.contiguous()
    with torch.inference_mode():
        labels = net(images).argmax(1)
    return Victim(
        name=model.spec.name,
        model=model,
        net=net,
        images=images,
        labels=labels.clone(),
        classes=len(model.spec.classes),
        steps=steps,
        ulps=ulps,
    )


def toy() -> Victim:
    """A small random net on 64 random pictures."""
    return _victim(nets.toy(max_batch=64), nets.pictures(64), 10)


def fashion() -> Victim:
    """The shipped classifier on eight test pictures of Fashion-MNIST."""
    images, _ = fashion_mnist.load(clothes.FOLDER, "t10k")
    return _victim(_shipped("fashion-mnist-cnn"), images[:8].float() / 255, 10)


def lite() -> Victim:
    """EfficientNet-Lite0 on four of the ImageNet photographs in foolbox's package."""
    model, bounds = _shipped("efficientnet-lite0"), limits(Config())
    folder = packaged.locate("foolbox", "data/imagenet_00_243.jpg").parent
    files = sorted(folder.glob("imagenet_*.jpg"))[:4]
    photos = [
        to_pixels(image_pb2.Image(encoded=path.read_bytes()), path.name, model.spec, bounds) for path in files
    ]
    return _victim(model, torch.stack(photos), 3, 5e-3)


def _shipped(name: str) -> Model:
    return catalog.available()[name](torch.device("cpu"))


VICTIMS: dict[str, Callable[[], Victim]] = {
    "toy": functools.cache(toy),
    "fashion-mnist-cnn": functools.cache(fashion),
    "efficientnet-lite0": functools.cache(lite),
}
