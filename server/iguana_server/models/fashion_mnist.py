"""Small convolutional networks for Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from iguana_server.errors import ModelRefused
from iguana_server.models.base import Loader, Model, Spec
from iguana_server.models.ensemble import Ensemble

FOLDER = Path(__file__).with_name("weights")
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
ROWS = {"cpu": (4, 128), "cuda": (32, 1024)}  # bucket and largest pass
MEAN, STD = 0.2860, 0.3530  # of the training pixels in [0, 1]
WIDTH, MEMBER_WIDTH, MEMBERS = 32, 16, 5


def net(width: int = WIDTH) -> nn.Sequential:
    """Four convolutions, 3x3, with BatchNorm: [n, 1, 28, 28] normalised pixels -> [n, 10] logits."""
    return nn.Sequential(
        *_layer(1, width),
        nn.MaxPool2d(2),  # 14 x 14
        *_layer(width, 2 * width),
        nn.MaxPool2d(2),  # 7 x 7
        *_layer(2 * width, 3 * width),
        *_layer(3 * width, 3 * width),
        nn.MaxPool2d(2),  # 3 x 3
        nn.Flatten(),
        nn.Linear(3 * width * 9, 10),
    )


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def ensemble(members: int = MEMBERS, width: int = MEMBER_WIDTH) -> Ensemble:
    """Several such networks, narrower: the lecture's five."""
    return Ensemble(net(width) for _ in range(members))


def spec(name: str, description: str, source: str, device: torch.device) -> Spec:
    """Return what all classifiers of Fashion-MNIST declare alike."""
    bucket, max_batch = ROWS[device.type]
    return Spec(
        name=name,
        shape=(1, 28, 28),
        classes=CLASSES,
        mean=(MEAN,),
        std=(STD,),
        resize=28,
        bucket=bucket,
        max_batch=max_batch,
        description=description,
        licence="Apache-2.0",
        source=source,
    )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network with committed weights."""

    name: str
    weights: Path
    sha256: str  # of the weights
    net: Callable[[], nn.Module]
    recipe: str  # of iguana_server.training
    description: str

    def load(self, device: torch.device, weights: Path | None = None) -> Model:
        """Load the weights, float16 or float32; raises ModelRefused where they are not those of `sha256`."""
        path = weights or self.weights
        content = path.read_bytes()
        if (got := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise ModelRefused(f"{path.name}: want sha256 {self.sha256}, got {got}")
        network = self.net()
        network.load_state_dict(load_safetensors(content))
        source = f"own training (iguana-server train {self.recipe}) on Xiao et al. 2017, arXiv:1708.07747"
        return Model(
            spec(self.name, self.description, source, device), network, sha256=self.sha256, device=device
        )


CNN = Trained(
    name="fashion-mnist-cnn",
    weights=FOLDER / "fashion_mnist_cnn.safetensors",
    sha256="d085f0481103745d42c02f809a8adc747cdaee73d5df718a2562231bce5f5a99",
    net=net,
    recipe="standard",
    description="Fashion-MNIST classifier, 10 classes of clothes, 28 x 28 grey",
)
ROBUST = Trained(
    name="fashion-mnist-robust",
    weights=FOLDER / "fashion_mnist_robust.safetensors",
    sha256="192ae3c846f423a2bab17fa8e70d2473971ec467ebb715446e4995e44204fb57",
    net=net,
    recipe="fast",
    description="Fashion-MNIST classifier trained adversarially: Linf, epsilon 0.1",
)
ENSEMBLE = Trained(
    name="fashion-mnist-ensemble",
    weights=FOLDER / "fashion_mnist_ensemble.safetensors",
    sha256="679ed14dc0f2f9dcb7cf946e2561842c6e1f45e63ddcba7c91d143841c522d38",
    net=ensemble,
    recipe="ensemble",
    description="Fashion-MNIST classifier, five small networks whose logits are averaged",
)
TRAINED = (CNN, ROBUST, ENSEMBLE)
MODELS: dict[str, Loader] = {model.name: model.load for model in TRAINED}
WEIGHTS = CNN.weights
