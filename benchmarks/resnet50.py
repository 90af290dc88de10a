"""A ResNet-50 without training: its shape and cost are the real ones, its weights are drawn.

He et al. 2016 (arXiv:1512.03385), stride in the 3 x 3 convolution as everywhere today. Convolutions are drawn as He
et al. 2015 (arXiv:1502.01852) say, from a fixed seed; the BatchNorm statistics are those of a few random batches.
What such a network sees means nothing, so whether it is fooled means nothing either: only time may be compared.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import torch
from safetensors.torch import save
from torch import Tensor, nn

from iguana_server.models.base import Model, Spec
from iguana_server.models.probe import probe

NAME = "resnet-50-drawn"
CLASSES, SIDE = 1000, 224
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # channels inside, blocks, stride of the first
WIDER = 4  # a block's output has so many times the channels inside
MEAN, STD = 0.45, 0.225  # of pixels, near ImageNet's
ROWS = {"cpu": (2, 8), "cuda": (16, 256)}  # bucket and largest pass
BATCHES, BATCH = 3, 4  # from which the BatchNorm statistics come


class Bottleneck(nn.Module):
    """relu(shortcut + 1 x 1, 3 x 3, 1 x 1): [n, inputs, H, W] -> [n, 4 inside, H / stride, W / stride]."""

    def __init__(self, inputs: int, inside: int, stride: int) -> None:
        super().__init__()
        outputs = WIDER * inside
        self.layers = nn.Sequential(
            *_normed(inputs, inside, 1), nn.ReLU(inplace=True),
            *_normed(inside, inside, 3, stride), nn.ReLU(inplace=True),
            *_normed(inside, outputs, 1),
        )  # fmt: skip
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else nn.Sequential(*_normed(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        return torch.relu_(self.layers(x) + self.shortcut(x))


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs)


def net(seed: int = 0) -> nn.Sequential:
    """Build and draw the network, in eval mode: normalised pixels [n, 3, 224, 224] -> logits [n, 1000]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = (STAGES[0][0], *(WIDER * inside for inside, _, _ in STAGES))
        blocks = [
            Bottleneck(inputs if first else outputs, inside, stride if first else 1)
            for (inputs, outputs), (inside, n, stride) in zip(pairwise(widths), STAGES, strict=True)
            for first in [True] + (n - 1) * [False]
        ]
        stem = [*_normed(3, widths[0], 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES)]
        network = nn.Sequential(*stem, *blocks, *head)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # the plain mean over the batches
        with torch.no_grad():
            for _ in range(BATCHES):
                network((torch.rand(BATCH, 3, SIDE, SIDE) - MEAN) / STD)
    return network.eval()


def load(network: nn.Module, device: torch.device) -> Model:
    """Make `network` (taken over) a model of the engine's, probed. Raises ModelRefused where the probe fails."""
    bucket, max_batch = ROWS[device.type]
    spec = Spec(
        name=NAME,
        shape=(3, SIDE, SIDE),
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        resize=SIDE,
        bucket=bucket,
        max_batch=max_batch,
        description="ResNet-50 with drawn weights: for time, not for answers",
        licence="Apache-2.0",
        source="He et al. 2016, arXiv:1512.03385; weights drawn here",
    )
    sha256 = hashlib.sha256(save(network.state_dict())).hexdigest()
    model = Model(spec, network, sha256=sha256, device=device)
    model.sizes = probe(model).sizes
    return model
