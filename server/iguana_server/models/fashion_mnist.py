"""A small convolutional network for Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from iguana_server.errors import ModelRefused
from iguana_server.models.base import Loader, Model, Spec

WEIGHTS = Path(__file__).with_name("weights") / "fashion_mnist_cnn.safetensors"
SHA256 = "d085f0481103745d42c02f809a8adc747cdaee73d5df718a2562231bce5f5a99"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
ROWS = {"cpu": (4, 128), "cuda": (32, 1024)}  # bucket and largest pass
MEAN, STD = 0.2860, 0.3530  # of the training pixels in [0, 1]


def net() -> nn.Sequential:
    """Four convolutions, 3x3, with BatchNorm: [n, 1, 28, 28] normalised pixels -> [n, 10] logits."""
    return nn.Sequential(
        *_layer(1, 32),
        nn.MaxPool2d(2),  # 14 x 14
        *_layer(32, 64),
        nn.MaxPool2d(2),  # 7 x 7
        *_layer(64, 96),
        *_layer(96, 96),
        nn.MaxPool2d(2),  # 3 x 3
        nn.Flatten(),
        nn.Linear(96 * 9, 10),
    )


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def load(device: torch.device, weights: Path = WEIGHTS) -> Model:
    """Load the committed weights; raises ModelRefused where they are not those of SHA256."""
    content = weights.read_bytes()
    if (got := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ModelRefused(f"{weights.name}: want sha256 {SHA256}, got {got}")
    bucket, max_batch = ROWS[device.type]
    network = net()
    network.load_state_dict(load_safetensors(content))
    spec = Spec(
        name="fashion-mnist-cnn",
        shape=(1, 28, 28),
        classes=CLASSES,
        mean=(MEAN,),
        std=(STD,),
        resize=28,
        bucket=bucket,
        max_batch=max_batch,
        description="Fashion-MNIST classifier, 10 classes of clothes, 28 x 28 grey",
        licence="Apache-2.0",
        source="own training (training/classifier.py) on Xiao et al. 2017, arXiv:1708.07747",
    )
    return Model(spec, network, sha256=SHA256, device=device)


MODELS: dict[str, Loader] = {"fashion-mnist-cnn": load}
